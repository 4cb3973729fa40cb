"""An engine for the length of one command: start it, do the work, heed signals and a time limit, stop it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from taskloop import looking
from taskloop.cli.lines import Log, Narrator
from taskloop.cli.repositories import summary
from taskloop.events import Event
from taskloop.runs import Run, RunId, State
from taskloop.scheduler import TaskScheduler
from taskloop.signals import Signals

__all__ = ["Session"]

T = TypeVar("T")


class Session(Generic[T]):
    """What happened in an engine since it was made: the runs in hand, and what the others came to."""

    def __init__(self, scheduler: TaskScheduler, narrator: Narrator, log: Log, *, remembers: bool = True) -> None:
        """`remembers`: whether runs that are over stay in `seen`; a command that goes on for ever would never be done."""
        self.scheduler = scheduler
        self._remembers = remembers
        self._begun: set[RunId] = set()
        self.seen: dict[RunId, Run] = {}
        self.stirred: asyncio.Event = asyncio.Event()
        """Set at each event of a run."""
        self.signal: int | None = None
        """The signal that ended it; None: it ended by itself."""
        scheduler.speaker = narrator
        scheduler.feed.subscribe(
            self._hear, "submitted", "started", "succeeded", "failed", "retrying", "cancelled", "interrupted", "skipped"
        )
        narrator.afterwards.append(summary(narrator, log))

    @property
    def active(self) -> set[RunId]:
        """The runs in hand."""
        here = looking.in_hand(self.scheduler)
        return set(self._begun) if here is None else self._begun.intersection(here)

    async def look_again(self) -> None:
        """See what became of those runs that another worker has taken over."""
        for run_id in self.seen.keys() & self._begun - self.active:
            self.seen[run_id] = await self.scheduler.run(run_id)

    async def drive(self, work: Callable[[], Awaitable[T]], seconds: float | None = None) -> T | None:
        """Start, do `work`, stop; gives what `work` gave, None if a signal ended it, which is in `.signal` then.

        Raises `TimeoutError` after `seconds`, when what is running was cancelled.
        """
        with Signals(signal.SIGINT, signal.SIGTERM, signal.SIGHUP) as signals:
            hurried: list[asyncio.Task[None]] = []
            signals.on_repeat = lambda: hurried.append(asyncio.create_task(self.scheduler.stop(grace=0)))
            working = asyncio.ensure_future(self._work(work, seconds))
            heard = asyncio.ensure_future(signals.wait())
            try:
                await asyncio.wait({working, heard}, return_when=asyncio.FIRST_COMPLETED)
                if working.done() and not heard.done():
                    return working.result()
                self.signal = signals.received
                return None
            finally:
                heard.cancel()
                working.cancel()
                await asyncio.wait({working})
                await self.scheduler.stop()
                await asyncio.wait(hurried) if hurried else None
                self.signal = signals.received

    async def _work(self, work: Callable[[], Awaitable[T]], seconds: float | None) -> T:
        await self.scheduler.start()
        try:
            async with asyncio.timeout(seconds):
                return await work()
        except TimeoutError:
            for run in self.active:
                await self.scheduler.cancel(run, reason="timed out")
            raise

    def _hear(self, event: Event) -> None:
        run: Any = event.run
        if event.name == "started":
            self._begun.add(run.id)
        elif event.name != "submitted":
            self._begun.discard(run.id)
        if self._remembers:
            self.seen[run.id] = run
        self.stirred.set()

    def counted(self, *states: State) -> int:
        """How many runs stand in one of these states."""
        return sum(run.state in states for run in self.seen.values())
