"""Who wants to hear: listeners of events, and those who wait for a run to end.

Level 4. Neither can hold up what they hear about: a listener is called beside everything else, a waiter is a future.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from taskloop.events import Event, Subscriber
from taskloop.executors import InThread
from taskloop.runs import Run, RunId

__all__ = ["Listeners", "Waiters"]

LISTENER_SECONDS: Final = 30.0


class Waiters:
    """Futures by run: each gives the run once an attempt of it has ended here, None if it ended elsewhere."""

    def __init__(self) -> None:
        self._futures: dict[RunId, set[asyncio.Future[Run | None]]] = {}

    def add(self, run_id: RunId) -> asyncio.Future[Run | None]:
        heard: asyncio.Future[Run | None] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(run_id, set()).add(heard)
        return heard

    def discard(self, run_id: RunId, heard: asyncio.Future[Run | None]) -> None:
        futures = self._futures.get(run_id)
        if futures is not None:
            futures.discard(heard)
            if not futures:
                del self._futures[run_id]

    def announce(self, run_id: RunId, run: Run | None) -> None:
        for heard in self._futures.pop(run_id, ()):
            if not heard.done():
                heard.set_result(run)


class Listeners:
    """Calls foreign listeners: async ones on the loop with a time limit, plain ones in a thread of their own."""

    def __init__(self, complain: Callable[..., None]) -> None:
        self._complain = complain
        self._calls: set[asyncio.Task[None]] = set()
        self._thread = InThread(1)
        self.loop: asyncio.AbstractEventLoop | None = None
        """Where they are called; None: the scheduler does not run, and nobody is called."""

    @property
    def in_flight(self) -> int:
        return self._thread.in_flight

    def subscriber(self, listener: Callable[[Event], Any]) -> Subscriber:
        """What a feed may call for `listener`: it only begins the call."""

        def deliver(event: Event) -> None:
            self.begin(self._call(listener, event))

        return deliver

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside everything else, held until it is done."""
        if self.loop is None or self.loop.is_closed():
            work.close()
            return
        task = self.loop.create_task(work)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def end(self, seconds: float) -> None:
        """Let the calls that are going on end, at most `seconds`; then no more are made."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=seconds)
        for call in self._calls:
            call.cancel()
        self._thread.close()
        self.loop = None

    async def _call(self, listener: Callable[[Event], Any], event: Event) -> None:
        try:
            if asyncio.iscoroutinefunction(listener):
                async with asyncio.timeout(LISTENER_SECONDS):
                    await listener(event)
            else:
                await self._thread.call(listener, None, {}, event)
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except BaseException as error:  # SystemExit too: in a task it would end the host's loop
            self._complain("WARNING", "listener.failed", heard=event.name, error=repr(error))
