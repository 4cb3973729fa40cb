"""The time of an event loop in the hands of a test: asked to sleep, the loop jumps to its next timer.

Level 6, under `testing`, which has the verbs that a user writes. A loop asks two things of the world, `loop.time()` and
`selector.select(timeout)`; `LoopTime` answers both. Asked to sleep, it lets threads at work finish, and what jobs have asked for
come, in real time; then it jumps to the next timer instead of waiting for it. Tasks of the engine can be killed here, as a
process can. Start at `LoopTime.select`.
"""

from __future__ import annotations

import asyncio
import ctypes
import heapq
import math
import time
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import Callable, Coroutine, Generator, Iterable
from functools import partial
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary, WeakSet, ref

import anyio.to_thread

from taskloop.errors import Conflict, NotRunning, TaskloopError
from taskloop.firing import LONGEST_NAP, FireLoop
from taskloop.outside import awaited_outside
from taskloop.threads_sqlite import under_way

__all__ = ["LoopTime", "Standstill", "let_time_jump"]

STANDSTILL_SECONDS: Final = 10.0
"""Real seconds without a step of virtual time or an event after which a test has hung."""
POLL_SECONDS: Final = 0.05
FEW: Final = 100
"""Timers that are looked through at each jump, at most."""
_steady: Callable[[], float] = (
    partial(time.clock_gettime, time.CLOCK_MONOTONIC) if hasattr(time, "clock_gettime") else time.monotonic
)
"""Real seconds. Freezegun stops `time.monotonic`, and no hang would be seen; Windows has that alone."""
_OURS: Final = frozenset({"taskloop.testing", __name__})
"""Rooms whose tasks are those of the test."""


class Standstill(TaskloopError, TimeoutError):
    """The test waits for something that only the passing of virtual time would bring about."""


class Member(Protocol):
    """Who lives in the time of a loop, as a scheduler with its store does."""

    @property
    def in_flight(self) -> int:
        """All it waits for: threads, connections, its store."""

    @property
    def store_calls(self) -> int:
        """What of it is for its store."""

    @property
    def calls(self) -> int:
        """What calls functions of the program: attempts in hand, of whatever executor, and listeners."""


class LoopTime:
    """Takes the place of a loop's clock and selector. Time is kept in whole microseconds, so it never drifts."""

    def __init__(self, loop: asyncio.AbstractEventLoop, members: Iterable[Member], patience: float) -> None:
        if not isinstance(loop, BaseSelectorEventLoop):
            raise NotRunning(
                f"virtual time needs asyncio's own selector loop, this is {type(loop).__module__}."
                f"{type(loop).__qualname__}; run the tests without a loop policy"
            )
        if isinstance(getattr(loop, "_selector", None), LoopTime):
            raise Conflict(
                "virtual time is at work on this loop already, and there is one time for all; use `await time.join(scheduler, store)` "
                "to have another scheduler in it"
            )
        task = asyncio.current_task()
        assert task is not None
        self.test: asyncio.Task[Any] = task
        """What is ended if it hangs: the task it was entered in, or, once that has ended, the latest that a plugin began."""
        self.stalled: str | None = None
        """What a test that hung was told; None: it did not."""
        self.micros: int = math.ceil(loop.time()) * 1_000_000  # whole seconds, so that differences come out exact
        self._loop: Any = loop
        self._members = members
        self._patience = patience
        self._limiter = anyio.to_thread.current_default_thread_limiter()
        self._executor_calls = 0
        self._given_up = 0
        self._waiting: tuple[int, float] | None = None
        self._asked: tuple[set[Any], float] | None = None
        self._unanswered: WeakSet[Any] = WeakSet()
        self._seen: WeakKeyDictionary[asyncio.Task[Any], tuple[ref[Any], bool, bool]] = WeakKeyDictionary()
        self._target: int | None = None
        self._stop: asyncio.Future[Any] | None = None
        self._moved_at = self._polled_at = _steady()
        self._over = False

    def refuse_elsewhere(self) -> None:
        """Raise `NotRunning` where this is not the time of the loop that asks."""
        if self._over:
            raise NotRunning("virtual time is over; use it within `async with virtual_time(scheduler) as time:`")
        if asyncio.get_running_loop() is not self._loop:
            raise NotRunning(
                "virtual time belongs to another event loop, the one it was entered on; let the test and the fixture "
                "that enters it run on the same loop"
            )

    # -- the loop's side

    def install(self) -> None:
        loop = self._loop
        let_time_jump(loop)
        self._selector, self._resolution = loop._selector, loop._clock_resolution
        self._factory = loop.get_task_factory()
        self._is_eager = self._factory is not None and _begins_at_once(loop, self._factory)
        self._outer, loop._scheduled = loop._scheduled, []  # a time limit around the test stays one of real time
        self._real_time, self._real_run_in_executor = loop.time, loop.run_in_executor
        loop._selector, loop._clock_resolution = self, 1e-6
        loop.time, loop.run_in_executor = self.time, self._run_in_executor
        loop.set_task_factory(self._make_task)

    def uninstall(self) -> None:
        loop, self._over = self._loop, True
        let_time_jump(loop)
        loop.set_task_factory(self._factory)
        loop._selector, loop._clock_resolution = self._selector, self._resolution
        del loop.time, loop.run_in_executor
        for handle in loop._scheduled:
            handle._when += loop.time() - self.time()
        loop._scheduled += self._outer
        heapq.heapify(loop._scheduled)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._selector, name)

    def time(self) -> float:
        return self.micros / 1e6

    def select(self, timeout: float | None = None) -> Any:
        """Events of the real world; asked to sleep, either wait for threads, or let virtual time pass."""
        events = self._polled()
        if self._outer:
            self._ring_outer_timers()
        if events:
            self._moved_at, self._waiting = _steady(), None
            return events
        if self._loop._ready or (timeout is not None and timeout <= 0):
            self._guard()
            return events
        if self._threads_are_at_work() or self._stop is None or self._jobs_wait_outside():
            return self._wait()
        self._leave_out_naps()
        timer = self._loop._scheduled[0] if self._loop._scheduled else None
        due = round(timer._when * 1e6) if timer is not None else None
        if due is not None and (self._target is None or due <= self._target):
            self.jump(due)
        elif self._target is None:
            return self._wait()
        else:
            self.jump(self._target)
            if not self._stop.done():
                self._stop.set_result(None)
        return events

    def _polled(self) -> Any:
        """What has come from outside. A loop that listens to nobody is woken by threads alone, and what these bring is among
        what is ready without a look at the pipe by which they wake it: that would take longer than all else of a jump.
        """
        now = _steady()
        if len(self._selector.get_map()) > 1 or now - self._polled_at > POLL_SECONDS:
            self._polled_at = now
            return self._selector.select(0)
        return []

    def _leave_out_naps(self) -> None:
        """Move the timers of workers that have nothing to do but to look at the clocks to their last look before anything
        else: with a look a minute a month takes seconds.
        """
        timers = self._loop._scheduled
        if not timers or not _is_nap(timers[0]) or len(timers) > FEW:
            return
        naps = [one for one in timers if _is_nap(one)]
        others = [one._when for one in timers if not _is_nap(one)]
        until = min([*others, math.inf if self._target is None else self._target / 1e6])
        if until - timers[0]._when > LONGEST_NAP:
            for nap in naps:
                nap._when += nap._callback.__self__.doze(nap._when - self.time(), until - nap._when)
            heapq.heapify(timers)

    def jump(self, micros: int) -> None:
        self.micros = max(self.micros, micros)
        self._moved_at = _steady()

    async def travel(self, target: int | None, stop: asyncio.Future[Any]) -> None:
        """Let time pass until `stop` is done; with a `target`, `stop` is a plain future that is done there."""
        if self._stop is not None:
            raise RuntimeError("time is passing already; one advance() or until() at a time")
        self._target, self._stop = target, stop
        self._given_up, self._waiting = 0, None
        try:
            await asyncio.wait({stop})
        finally:
            if self._stop is stop:
                self._target = self._stop = None

    def halt(self) -> None:
        """End the verb that lets time pass in some forgotten task."""
        if self._stop is not None:
            self._stop.cancel()
        self._target = self._stop = None

    def _wait(self) -> Any:
        """Wait for the real world, briefly."""
        self._guard()
        until = self._outer[0]._when - self._real_time() if self._outer else POLL_SECONDS
        return self._selector.select(max(0.0, min(POLL_SECONDS, until)))

    def _ring_outer_timers(self) -> None:
        while self._outer and self._outer[0]._when <= self._real_time():
            handle = heapq.heappop(self._outer)
            handle._scheduled = False
            self._loop._ready.append(handle)

    def _threads_are_at_work(self) -> bool:
        """Whether time has to wait: for the store of a scheduler that has it always, for a thread of anybody else's, or
        another store, until the patience is at its end.
        """
        if any(member.store_calls for member in self._members):
            return True
        calls = sum(one.in_flight for one in self._members) + self._executor_calls + int(self._limiter.borrowed_tokens)
        calls += under_way(self._loop)  # of schedulers that only ask, beside those that have this time
        self._given_up = min(self._given_up, calls)
        if calls == self._given_up:
            return False
        if self._waiting is None or self._waiting[0] != calls:
            self._waiting = (calls, _steady())
        if _steady() - self._waiting[1] > self._patience:
            self._given_up = calls
            return False
        return True

    def _jobs_wait_outside(self) -> bool:
        """Whether time has to wait for what a job or a listener has asked of a socket, a program or a thread of another
        library: each answer has as much real time as a thread has.
        """
        if not any(member.calls for member in self._members):
            return False
        sockets = len(self._selector.get_map()) > 1  # beside the one by which threads wake the loop
        tasks = (task for task in asyncio.all_tasks(self._loop) if isinstance(task.get_coro(), _Mortal))
        asked = {self._awaited_outside(task, sockets) for task in tasks} - {None, *self._unanswered}
        if not asked:
            return False
        if self._asked is None or self._asked[0] != asked:
            self._asked = (asked, _steady())
        if _steady() - self._asked[1] > self._patience:
            self._unanswered.update(asked)
            return False
        return True

    def _awaited_outside(self, task: asyncio.Task[Any], sockets: bool) -> asyncio.Future[Any] | None:
        """Looked at once for each future: a task stands still for as long as it waits for the same one.

        Asked anew at each jump, it was a sixth of all that virtual time took while jobs were at work.
        """
        future = _awaited(task)
        if future is None or future.done():
            return None
        seen = self._seen.get(task)
        if seen is None or seen[0]() is not future or seen[1] is not sockets:
            is_outside = awaited_outside(task, sockets) is not None
            seen = self._seen[task] = (ref(future), sockets, is_outside)
        return future if seen[2] else None

    def _run_in_executor(self, *args: Any) -> Any:
        future = self._real_run_in_executor(*args)
        self._executor_calls += 1
        future.add_done_callback(self._executor_returned)
        return future

    def _executor_returned(self, _: Any) -> None:
        self._executor_calls -= 1

    def _guard(self) -> None:
        if self.stalled is None and _steady() - self._moved_at > STANDSTILL_SECONDS:
            calls = sum(member.in_flight for member in self._members) + self._executor_calls
            tasks = [task for task in asyncio.all_tasks(self._loop) if task is not self.test]
            names = sorted(f"{task.get_name()} ({getattr(task.get_coro(), '__qualname__', '?')})" for task in tasks)
            self.stalled = (
                f"virtual time stood still for {STANDSTILL_SECONDS:g} s of real time; in flight: {calls} calls in "
                f"threads, {len(self._loop._scheduled)} timers, tasks {', '.join(names[:20]) or 'none'}; let time pass "
                "with `await time.advance(...)`, or `await time.until(what is awaited)`"
            )
            self._moved_at = _steady()
            self._end_the_wait(Standstill(self.stalled))

    def _end_the_wait(self, error: Standstill) -> None:
        """Raise `error` where the test waits. A cancellation would end the task of a plugin that runs fixtures and tests,
        anyio's, and be told as such; it is left for what waits in no way that can be ended otherwise.
        """
        waits = _awaited(self.test)
        while isinstance(waits, asyncio.Task) and not isinstance(waits.get_coro(), _Mortal):
            waits = _awaited(waits)
        if waits is None or waits.done() or isinstance(waits, asyncio.Task):
            self.test.cancel()
        else:
            waits.set_exception(error)

    # -- death

    def _make_task(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **more: Any) -> Any:
        """Tasks of the engine, and all that these make, can be killed; those of the test cannot."""
        parent = asyncio.current_task(loop)
        is_ours = _is_engine(coroutine) or (parent is not None and isinstance(parent.get_coro(), _Mortal))
        if is_ours:
            coroutine = _Mortal(coroutine)
        if self._factory is None or (is_ours and self._is_eager):  # at odds with groups of anyio's, see `tasks.lazily`
            task = asyncio.Task(coroutine, loop=loop, **more)
        else:
            task = self._factory(loop, coroutine, **more)
        if not loop.is_running() and self.test.done():
            self.test = task
        return task

    def kill(self) -> None:
        """End all tasks of the engine where they stand, and forget its timers."""
        for task in asyncio.all_tasks(self._loop):
            body = task.get_coro()
            if isinstance(body, _Mortal):
                body.die()
                task.cancel()
        for handle in (*self._loop._scheduled, *self._loop._ready):
            owner = getattr(handle._callback, "__self__", None)
            if type(owner).__module__.startswith("taskloop."):
                handle.cancel()


class _Mortal(Coroutine[Any, Any, Any]):
    """A coroutine that can end without any of its code, not even a `finally`, being run."""

    __slots__ = ("_body", "_dead")

    def __init__(self, body: Coroutine[Any, Any, Any]) -> None:
        self._body = body
        self._dead = False

    def die(self) -> None:
        self._dead = True
        # Python runs the `finally` of a coroutine it takes apart; one that is held for ever is not taken apart.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._body))

    def send(self, value: Any) -> Any:
        if self._dead:
            raise asyncio.CancelledError
        return self._body.send(value)

    def throw(self, *error: Any) -> Any:
        if self._dead:
            raise asyncio.CancelledError
        return self._body.throw(*error)

    def close(self) -> None:
        if not self._dead:
            self._body.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        raise TypeError("the coroutine of a task cannot be awaited")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)


def _is_nap(timer: Any) -> bool:
    return isinstance(getattr(timer._callback, "__self__", None), FireLoop)


def let_time_jump(loop: asyncio.AbstractEventLoop) -> None:
    """Let the debug mode of asyncio not take a jump of the clock within a turn of the loop for a callback that was slow."""
    slow = loop.slow_callback_duration
    if loop.get_debug() and slow != math.inf:  # as it is where two jumps are in one turn
        loop.slow_callback_duration = math.inf
        loop.call_soon(setattr, loop, "slow_callback_duration", slow)


def _awaited(task: asyncio.Task[Any]) -> asyncio.Future[Any] | None:
    """What a task waits for; None: it goes on in the loop's next turn."""
    waiter: asyncio.Future[Any] | None = getattr(task, "_fut_waiter", None)
    return waiter


def _begins_at_once(loop: asyncio.AbstractEventLoop, factory: Callable[..., Any]) -> bool:
    """Whether a host's factory begins tasks as it makes them, as `asyncio.eager_task_factory` does, wrapped or not."""
    begun = []

    async def begin() -> None:
        begun.append(True)

    factory(loop, begin()).cancel()
    return bool(begun)


def _is_engine(coroutine: Any) -> bool:
    frame = getattr(coroutine, "cr_frame", None)
    module: str = frame.f_globals.get("__name__", "") if frame is not None else ""
    return module.startswith("taskloop.") and module not in _OURS
