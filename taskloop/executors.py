"""Where a job's function is called: on the loop, or in a thread of a pool of our own.

Level 4. An executor gives what the function returns and raises what it raises; that a call takes too long, or is to
end, is `attempts`' business. To add one: a class with `call`.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from functools import partial
from queue import SimpleQueue
from typing import Any, Final, Protocol, TypeVar, cast

from taskloop.context import AttemptCancelled, RunContext, running
from taskloop.outcomes import failure
from taskloop.runs import Failure
from taskloop.signals import forks, set_forks_free

__all__ = ["Executor", "Executors", "InThread", "OnLoop", "RaisedElsewhere", "call_on", "ended_with", "is_called_for"]

T = TypeVar("T")
GIVEN_SECONDS: Final = 0.00005
"""How long a thread that reports without end stands back, again and again; in no time at all nobody would be awake."""
DOUBT_SECONDS: Final = 0.05
"""How often a thread looks whether the run it is to begin is still this worker's."""

_called: Final[ContextVar[asyncio.Task[Any] | None]] = ContextVar("taskloop_called", default=None)
"""The task for whose end the thread of a job waits; tasks that it begins have it too."""


class Executor(Protocol):
    """Calls a function and gives what it returns."""

    in_flight: int
    """Calls going on outside of the loop."""

    async def call(self, function: Callable[..., Any], context: RunContext, arguments: dict[str, Any]) -> Any:
        """Call `function(**arguments)` with `context` as its current run; raises whatever it raises."""

    def close(self) -> None:
        """Hold nothing any more but the calls that still go on."""


class OnLoop:
    """Calls an async function on the loop, in the task that asks."""

    in_flight = 0

    async def call(self, function: Callable[..., Any], context: RunContext, arguments: dict[str, Any]) -> Any:
        running.set(context)
        return await function(**arguments)

    def close(self) -> None:
        return


class InThread:
    """Calls a plain function in one of at most `threads` threads, which no job of the host's shares.

    The threads are daemons: a job that never returns holds its thread, but never the end of the process. A cancelled
    caller waits no longer; the function goes on until it returns or looks at `check_cancelled()`.
    """

    queues = True
    """Calls may wait for their turn, and the context is told when it comes."""

    def __init__(self, threads: int) -> None:
        self.limit: int = threads
        self._lent = 0
        """Threads that wait for what the loop does for them: as many more may be there meanwhile."""
        self._threads = 0
        self._spare = 0
        """Threads that could take a call, less the calls that wait for one."""
        self._lock = threading.Lock()
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.in_flight: int = 0

    async def call(
        self, function: Callable[..., Any], context: RunContext | None, arguments: dict[str, Any], *positional: Any
    ) -> Any:
        running.set(context)
        turn, work = _Turn(self, context), partial(copy_context().run, function, *positional, **arguments)
        self.in_flight += 1
        if context is not None:
            context.withdraw = turn.withdraw
            context.give_way = _give_way
        try:
            self._queue(partial(turn.take, work))
        except RuntimeError:  # no thread can be started, and none is there that would take the call later
            turn.withdraw()
            raise
        result, error = await turn.answer
        if error is None:
            return result
        raise _raisable(error)

    def close(self) -> None:
        """Let idle threads end; busy ones end with their call."""
        with self._lock:
            self._dismiss(self._threads)

    def _queue(self, work: Callable[[], None]) -> None:
        """Give a call to the threads, to one more if none is spare. Raises `RuntimeError` if there can be no thread."""
        with self._lock:
            self._calls.put(work)
            self._spare -= 1
            self._add_a_thread()

    def _add_a_thread(self) -> None:
        """Start one more thread where a call waits for it and there may be one; asked with the lock held."""
        if self._spare >= 0 or self._threads >= self.limit + self._lent:
            return
        self._threads += 1
        self._spare += 1
        try:
            name = f"taskloop job {self._threads}"
            threading.Thread(target=self._serve, name=name, daemon=True).start()
        except RuntimeError:
            self._threads -= 1
            self._spare -= 1
            if not self._threads:
                raise

    def _dismiss(self, threads: int) -> None:
        """Let so many threads end when they are next idle; asked with the lock held."""
        self._threads -= threads
        self._spare -= threads  # its word takes one as a call does; who calls after the last of them gets a new one
        for _ in range(threads):
            self._calls.put(None)

    def _serve(self) -> None:
        _served.by = self
        while (work := self._calls.get()) is not None:
            work()
            del work  # else the last call's objects live until the next call
            with self._lock:
                if self._threads > self.limit + self._lent:  # the one whose place this took is back
                    self._threads -= 1
                    return
                self._spare += 1

    def lend(self) -> None:
        """A thread waits for the loop, and perhaps for what needs a thread itself: another may be there until it goes on."""
        with self._lock:
            self._lent += 1
            self._add_a_thread()

    def take_back(self) -> None:
        with self._lock:
            self._lent -= 1
            if self._spare > 0 and self._threads > self.limit + self._lent:  # an idle one has the place of this
                self._dismiss(1)


class _Turn:
    """One call of a pool: it waits for a thread, and is made there, unless it was withdrawn before that."""

    __slots__ = ("_begun", "_context", "_lock", "_loop", "_pool", "_withdrawn", "answer")

    def __init__(self, pool: InThread, context: RunContext | None) -> None:
        self._pool = pool
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._lock = pool._lock
        self._begun = self._withdrawn = False
        self.answer: asyncio.Future[tuple[Any, BaseException | None]] = self._loop.create_future()
        """What it gave and what it raised, as a value: a future refuses some errors, and throws others instead of raising them."""

    def withdraw(self) -> None:
        """Take it back unless it has begun, and end what it waits for; called on the loop."""
        with self._lock:
            self._withdrawn = not self._begun
        if self._withdrawn and not self.answer.done():
            self.answer.set_result((None, AttemptCancelled("asked to end before it began")))
        for task in _waits.pop(self._context, ()):
            task.cancel()

    def take(self, work: Callable[[], Any]) -> None:
        """Make the call, in a thread of the pool, and have the loop told. `work` is not kept: it has the arguments."""
        self._wait_for_the_lease()
        result = error = None
        ancestors = len(forks)
        if self._begins():
            try:
                result = work()
            except BaseException as raised:
                error = raised
            if len(forks) != ancestors:  # a fork that the job has made, where there is no loop to be told of it
                os._exit(error is not None)
        try:
            self._loop.call_soon_threadsafe(self._told, result, error)
        except RuntimeError:  # the loop is closed: the process is ending and nobody waits
            return

    def _wait_for_the_lease(self) -> None:
        """While the run may be another worker's: we stood still since it was queued, and what is lost is withdrawn."""
        trusted = None if self._context is None else self._context.trusted
        while trusted is not None and not trusted() and not self._withdrawn and not self._loop.is_closed():
            time.sleep(DOUBT_SECONDS)

    def _begins(self) -> bool:
        """Whether it is still to be made; from here on it cannot be withdrawn."""
        context = self._context
        with self._lock:
            self._begun = not self._withdrawn and not self.answer.cancelled()
            if self._begun and context is not None:
                context.entered = True
        if self._begun and context is not None and (tell := context.began) is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(tell)
        return self._begun

    def _told(self, result: Any, error: BaseException | None) -> None:
        self._pool.in_flight -= 1
        if not self.answer.done():
            self.answer.set_result((result, error))


class _Served(threading.local):
    by: InThread | None = None
    """Whose thread this is; None: a stranger's."""


_served = _Served()


def _say_nothing(*_: object, **__: object) -> None:
    """Where nobody listens."""


class Executors(dict[str, Executor]):
    """The executors of one started scheduler by name; one that costs something is made when a job first needs it."""

    def __init__(self, threads: int, dask: str = "", say: Callable[..., None] = _say_nothing) -> None:
        """`dask`: the address of a cluster; empty: there is none. `say` writes a log line, from any thread."""
        super().__init__(loop=OnLoop(), thread=InThread(threads))
        set_forks_free()
        self._dask = dask
        self._say = say

    def __missing__(self, name: str) -> Executor:
        made: Executor
        if name == "process":
            from taskloop.processing import InProcess

            made = InProcess()
        elif name == "dask":
            from taskloop.executor_dask import OnDask

            made = OnDask(self._dask, self._say)
        else:
            raise KeyError(name)
        self[name] = made
        return made


class RaisedElsewhere(Exception):
    """What a job raised in another process: its class as far as it is known here, and the record made of it there."""

    def __init__(self, kind: type[BaseException], failure: Failure, error: BaseException | None = None) -> None:
        self.kind = kind
        self.failure = failure
        self.error: BaseException = self if error is None else error
        """What is asked when to try again."""
        super().__init__(failure.message)


_waits: Final[dict[RunContext | None, set[asyncio.Task[Any]]]] = {}
"""Of jobs in threads that wait for another run: the tasks in which the loop does that for them."""


@contextmanager
def ended_with(context: RunContext | None) -> Iterator[None]:
    """Of a job in a thread, end what this task waits for, by `AttemptCancelled`, as soon as the job is asked to end: its
    thread can look at nothing meanwhile. What begins to wait later, to clean up, is left to it.
    """
    task = asyncio.current_task()
    if context is None or task is None or context.give_way is None or context.cancelled:
        yield
        return
    _waits.setdefault(context, set()).add(task)
    try:
        yield
    except asyncio.CancelledError:
        if task not in _waits.get(context, ()):
            raise AttemptCancelled(f"run {context.id} was asked to end") from None
        raise
    finally:
        if (tasks := _waits.get(context)) is not None:
            tasks.discard(task)
            if not tasks:
                del _waits[context]


def _give_way() -> None:
    time.sleep(GIVEN_SECONDS)


def _raisable(error: BaseException) -> BaseException:
    """The error, in the form of another where a coroutine cannot raise it."""
    if not issubclass(type(error), StopIteration):
        return error
    other = RuntimeError(f"job raised StopIteration: {failure(error).message}")
    other.__cause__ = error
    return other


def call_on(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives when a loop of another thread carries it out; raises what it raises.

    A job's thread that waits here is one of its executor's `threads` no longer: what it waits for may need one.
    """
    pool = _served.by

    async def caught() -> tuple[T | None, BaseException | None]:
        if pool is not None:
            _called.set(asyncio.current_task())
        try:
            return await work, None
        except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:  # a task that raised one would end the loop
            return None, error
        finally:
            _called.set(None)  # else its context holds the task, and the task what it gave, until they are collected

    asked = asyncio.run_coroutine_threadsafe(caught(), loop)
    if pool is not None:
        pool.lend()
    try:
        value, error = asked.result()
    finally:
        if pool is not None:
            pool.take_back()
    if error is not None:
        raise error
    return cast("T", value)


def is_called_for() -> bool:
    """Whether the thread of a job waits, in `call_on`, for the end of this very task."""
    return (task := _called.get()) is not None and task is asyncio.current_task()
