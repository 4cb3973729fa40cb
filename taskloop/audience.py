"""Who wants to hear: listeners of events, and those who wait for a run to end.

Level 4. Neither can hold up what they hear about: a listener is called beside everything else, a waiter is a future.
Nor can a listener hold up another, or write into what others see: plain ones have a thread each, and every call gets
an event of its own.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import Any, Final

from taskloop.context import running
from taskloop.events import Event, Subscriber
from taskloop.executors import InThread
from taskloop.masking import shown
from taskloop.outcomes import failure
from taskloop.runs import Run, RunId, first_line
from taskloop.tasks import disown

__all__ = ["Listeners", "Waiters"]

LISTENER_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.25
"""How often the record of a run is looked at by who waits for it, as long as nobody tells: it may run elsewhere."""
DEAF_SECONDS: Final = 0.1
"""How long calls that a stop has cancelled may take to hear it."""
MOST_CALLS: Final = 1_000
"""Calls that may wait for one plain listener; what happens while it has not kept up is not told it."""


class Waiters:
    """Futures by run: each gives the run once an attempt of it has ended here; None: look at the record."""

    def __init__(self) -> None:
        self._futures: dict[RunId, set[asyncio.Future[Run | None]]] = {}
        self._looks: deque[tuple[float, asyncio.Future[Run | None]]] = deque()
        """When to tell which to look, if it has heard nothing until then: in their order, for all wait equally long."""
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, run_id: RunId) -> asyncio.Future[Run | None]:
        heard: asyncio.Future[Run | None] = asyncio.get_running_loop().create_future()
        self._futures.setdefault(run_id, set()).add(heard)
        return heard

    def has(self, run_id: RunId) -> bool:
        """Whether anybody waits for this run."""
        return run_id in self._futures

    def look_later(self, heard: asyncio.Future[Run | None]) -> None:
        """Let it be told to look in LOOK_SECONDS. One timer serves for all: a hundred callers have a thousand a second."""
        loop = heard.get_loop()
        if loop is not self._loop:  # the one before is gone, and who waited there with it
            self._loop, self._looks, self._timer = loop, deque(), None
        at = loop.time() + LOOK_SECONDS
        self._looks.append((at, heard))
        if self._timer is None:
            self._timer = loop.call_at(at, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        while self._looks and (self._looks[0][1].done() or self._looks[0][0] <= now):
            _, heard = self._looks.popleft()
            if not heard.done():
                heard.set_result(None)
        self._timer = loop.call_at(self._looks[0][0], self._look, loop) if self._looks else None

    def discard(self, run_id: RunId, heard: asyncio.Future[Run | None]) -> None:
        futures = self._futures.get(run_id)
        if futures is not None:
            futures.discard(heard)
            if not futures:
                del self._futures[run_id]

    def end(self, error: Exception) -> None:
        """Raise this wherever anybody waits: nothing will be told any more, and there is no record to look at."""
        waiting, self._futures = self._futures, {}
        for heard in chain.from_iterable(waiting.values()):
            with suppress(RuntimeError):  # of a loop that is closed: nobody waits
                if not heard.done():
                    heard.set_exception(error)

    def announce(self, run_id: RunId, run: Run | None) -> None:
        for heard in self._futures.pop(run_id, ()):
            if not heard.done():
                heard.set_result(run)


class Listeners:
    """Calls foreign listeners with a time limit: async ones on the loop, each plain one in a thread of its own."""

    def __init__(self, complain: Callable[..., None]) -> None:
        self._complain = complain
        self._calls: set[asyncio.Task[None]] = set()
        self._threads: dict[Subscriber, InThread] = {}
        self.loop: asyncio.AbstractEventLoop | None = None
        """Where they are called; None: the scheduler does not run, and nobody is called."""

    @property
    def in_flight(self) -> int:
        return sum(thread.in_flight for thread in self._threads.values())

    def subscriber(self, listener: Callable[[Event], Any]) -> Subscriber:
        """What a feed may call for `listener`: it only begins the call."""

        def deliver(event: Event) -> None:
            self.begin(self._call(listener, event, deliver))

        return deliver

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine beside everything else, held until it is done."""
        if self.loop is None or self.loop.is_closed():
            work.close()
            return
        task = self.loop.create_task(work)
        self._calls.add(task)
        task.add_done_callback(self._over)

    def turn(self, function: Callable[..., None], *args: object) -> None:
        """Call a function on the loop, from another thread; nobody is called once that loop is gone."""
        if self.loop is not None:
            with suppress(RuntimeError):  # closed, maybe just now
                self.loop.call_soon_threadsafe(partial(function, *args))

    def _over(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:  # nobody awaits it: it would go unheard
            self._complain("ERROR", "engine.failed", error=repr(error)[:500])

    async def end(self, seconds: float) -> None:
        """Let the calls that are going on end, at most `seconds`; then no more are made."""
        if self._calls:
            await asyncio.wait(self._calls, timeout=seconds)
        self.loop = None
        for call in self._calls:
            call.cancel()
        if self._calls:
            await asyncio.wait(self._calls, timeout=DEAF_SECONDS)
        disown(self._calls)
        for thread in self._threads.values():
            thread.close()
        self._threads = {}

    async def _call(self, listener: Callable[[Event], Any], event: Event, subscriber: Subscriber) -> None:
        running.set(None)  # it acts for itself, not for the run in whose task it was told
        try:
            async with asyncio.timeout(LISTENER_SECONDS):
                if inspect.iscoroutinefunction(listener):
                    answer = _tell(listener, event)
                else:
                    answer = await self._thread(subscriber).call(_tell, None, {}, listener, event)
                if inspect.isawaitable(answer):
                    await answer
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # SystemExit too: in a task it would end the host's loop
            if asyncio._get_running_loop() is None:  # the loop is gone and Python is taking the coroutine apart
                raise
            said = failure(error)
            self._complain(
                "WARNING", "listener.failed", heard=event.name, error=f"{said.type}: {first_line(said.message)}"
            )

    def _thread(self, subscriber: Subscriber) -> InThread:
        thread = self._threads.get(subscriber)
        if thread is None:
            thread = self._threads[subscriber] = InThread(1)
        if thread.in_flight >= MOST_CALLS:
            raise TimeoutError(f"{MOST_CALLS} calls wait for it")
        return thread


def _tell(listener: Callable[[Event], Any], event: Event) -> Any:
    return listener(_own(event))


def _own(event: Event) -> Event:
    """The event with nothing in it that others have too: a listener may write into what it is given."""
    run = event.run
    if run is not None:
        params = _anew(shown(run.params)) if run.params else {}
        run = run.changed(params=params, result=_anew(run.result), data=_anew(run.data))
    return replace(event, run=run, data=dict(event.data))


def _anew(plain: Any) -> Any:
    return json.loads(json.dumps(plain)) if isinstance(plain, dict | list) else plain
