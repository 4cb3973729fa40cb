"""`taskloop process JOB`: one job again and again in a process of its own, for supervisors."""

from __future__ import annotations

import asyncio
from argparse import Namespace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from taskloop import durations, looking
from taskloop.audit import through
from taskloop.cli import lines, program, reach
from taskloop.cli.narrow import Narrow
from taskloop.cli.session import Session
from taskloop.errors import BadParameters, BadStore, Conflict, StoreUnavailable, TakenOver
from taskloop.runs import Cause

if TYPE_CHECKING:
    from taskloop.scheduler import TaskScheduler

__all__ = ["process"]

LOOK_SECONDS = 0.5
"""How often a job that is off or paused is looked at, and a store that does not answer."""


def process(args: Namespace) -> int:
    """Run one job continually until a signal comes or its time is over."""
    every, sleep = durations.parse(args.every), durations.parse(args.sleep)
    settings = program.configured(args)
    span = durations.parse_interval(args.max_runtime) if args.max_runtime else settings.scheduler.max_runtime
    level = "DEBUG" if args.verbose else settings.log.level
    with lines.opened(args, settings.log.format, level) as log:
        scheduler = program.to_run(settings, lambda store: Narrow(store, only=[args.job], fires=False).as_store())
        if scheduler[args.job].parameters.required:
            needed = scheduler[args.job].parameters.required
            raise BadParameters(args.job, dict.fromkeys(needed, "is missing, and nobody gives it here"))
        narrator = lines.Narrator(level)
        program.warn(settings, narrator)
        rhythm = _Rhythm(scheduler, args, narrator, every, sleep)
        return reach.drive(rhythm.run(log, span), channel="code")


class _Rhythm:
    """When the job runs next, and whether it may."""

    def __init__(
        self, scheduler: TaskScheduler, args: Namespace, narrator: lines.Narrator, every: timedelta, sleep: timedelta
    ) -> None:
        self._scheduler, self._args, self._narrator = scheduler, args, narrator
        self._every, self._sleep = every.total_seconds(), sleep.total_seconds()
        self._held: str | None = None
        self._unanswered_at: datetime | None = None
        """Since when the store has not answered; None: it has."""

    async def run(self, log: lines.Log, span: timedelta | None) -> int:
        """Go on until a signal comes (its exit code) or `span` is over (0)."""
        session: Session[None] = Session(self._scheduler, self._narrator, log, remembers=False)
        loop = asyncio.get_running_loop()
        end = None if span is None else loop.time() + span.total_seconds()

        async def work() -> None:
            start = loop.time()
            while end is None or loop.time() < end:
                start = max(start, loop.time())
                is_done = await self._once_more()
                start = max(start + self._every, loop.time() + self._sleep)
                if self._held is not None or not is_done:
                    start = loop.time() + LOOK_SECONDS
                await asyncio.sleep(max(0.0, (start if end is None else min(start, end)) - loop.time()))

        await session.drive(work)
        return 128 + session.signal if session.signal is not None else 0

    async def _once_more(self) -> bool:
        """One run, as far as the store is there; gives whether it was: else there is another look soon, as `run` has it.

        An ask that was not answered may be on record all the same: what came of it is waited for before there is another.
        """
        began_at = looking.now(self._scheduler)
        try:
            if self._unanswered_at is not None:
                asked = await self._scheduler.runs(self._args.job, cause="cli", since=self._unanswered_at)
                for run in asked:
                    await self._scheduler.wait(run.id)
                self._unanswered_at = None
            await self._one()
        except TakenOver:  # a newer program has the store: whoever supervises this one begins that
            raise
        except (StoreUnavailable, BadStore):  # the scheduler says so in its log, and when it is back
            self._unanswered_at = self._unanswered_at or began_at
            return False
        return True

    async def _one(self) -> None:
        """One run, unless the job is off or paused; says so at each change."""
        job = self._args.job
        [record] = await self._scheduler.jobs(job)
        held = {"disabled": "off", "paused": "paused"}.get(record.condition)
        if held is None:
            try:
                with through(None):  # the rhythm asks, not a person each time
                    handle = await self._scheduler.submit(
                        job, actor=reach.actor(self._args), reason=self._args.reason, cause=Cause.CLI
                    )
            except Conflict:
                held = "off"  # switched between the look and the submit
        if held != self._held:
            self._held = held
            switch: Any = record.switch if held else None
            who = {"by": switch.actor, "reason": switch.reason} if switch is not None else {}
            text = f"job is {held}, nothing runs until it is on again" if held else "job is on again"
            self._narrator.say("WARNING" if held else "INFO", f"job.{held or 'on'}", job=job, text=text, **who)
        if held is None:
            await handle.wait()
