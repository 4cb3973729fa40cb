"""An event loop in a daemon thread of its own, for programs that have none.

Level 4, knows no engine. One coroutine, the life, decides how long the loop turns; other threads have work done there
by `run`. What foreign code does on the loop (`sys.exit`, `loop.stop`) is told and the loop turns on. Whoever waits for
an answer when the loop ends is told so: nobody waits for ever.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import CancelledError, Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, TypeVar, cast

from taskloop.errors import NotRunning
from taskloop.executors import InThread

__all__ = ["LoopThread"]

T = TypeVar("T")

LAST_SECONDS: Final = 0.5
"""How long the loop, at its end, waits for tasks that it has cancelled."""
THREADS: Final = 32
"""Threads of `asyncio.to_thread` at once."""

_Answer = Future[tuple[Any, BaseException | None]]
_Work = Callable[[], Coroutine[Any, Any, None]]


class LoopThread:
    """One loop, from `start` until `life` has ended and `last` was done; both are async functions.

    `last` may take `LAST_SECONDS`, after all other work there was cancelled. `complain` hears, in the thread, what
    foreign code threw at the loop, or what the life raised.
    """

    def __init__(self, life: _Work, last: _Work, complain: Callable[[BaseException], None]) -> None:
        self._life = life
        self._last = last
        self._complain = complain
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(_DaemonThreads())
        self._asked: dict[_Answer, Coroutine[Any, Any, Any] | asyncio.Task[Any]] = {}
        # Re-entrant: a signal handler of the host may ask for something in the middle of asking for something.
        self._lock = threading.RLock()
        self._is_over = False
        self._thread = threading.Thread(target=self._turn, name="taskloop", daemon=True)

    def start(self) -> None:
        """Begin to turn. Raises `RuntimeError` where no thread can be started."""
        try:
            self._thread.start()
        except RuntimeError:
            self._loop.close()
            raise

    @property
    def is_alive(self) -> bool:
        """Whether the thread is there, in this process."""
        return self._thread.is_alive()

    @property
    def is_here(self) -> bool:
        """Whether this code is executed by the thread of the loop."""
        return threading.current_thread() is self._thread

    def join(self, seconds: float | None) -> bool:
        """Wait until the thread has ended, at most so long (None: as long as it takes); gives whether it has."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def begin(self, work: Coroutine[Any, Any, Any]) -> _Answer:
        """Have `work` done on the loop; waits for nothing. Raises `NotRunning` if the loop has ended."""
        answer: _Answer = Future()
        with self._lock:
            if self._is_over:
                work.close()
                raise NotRunning("the scheduler's thread has ended; start it again")
            self._asked[answer] = work
            self._loop.call_soon_threadsafe(self._carry_out, answer)
        return answer

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives, done on the loop; raises what it raises. From other threads only: it waits.

        Raises `NotRunning` if the loop ends first. Whoever is interrupted while waiting (Ctrl-C) takes the work back.
        """
        answer = self.begin(work)
        try:
            value, error = answer.result()
        except CancelledError:
            if self._is_over:
                raise NotRunning("the scheduler stopped before that was done; start it again") from None
            raise
        except BaseException:
            self._take_back(answer)
            raise
        if error is not None:
            raise error
        return cast("T", value)

    def _take_back(self, answer: _Answer) -> None:
        with self._lock:
            work = self._asked.get(answer)
            if not self._is_over and isinstance(work, asyncio.Task):
                self._loop.call_soon_threadsafe(work.cancel)
        answer.cancel()

    # -- in the thread

    def _turn(self) -> None:
        asyncio.set_event_loop(self._loop)
        life = self._loop.create_task(self._life(), name="taskloop life")
        try:
            while not (life.done() or self._loop.is_closed()):
                try:
                    self._loop.run_until_complete(life)
                except BaseException as error:  # of the life, or of some callback that is none of ours
                    self._complain(error)
        finally:
            self._end()

    def _carry_out(self, answer: _Answer) -> None:
        work = self._asked[answer]
        if self._is_over or answer.cancelled():
            self._deliver(answer, None)
            return
        task = self._loop.create_task(_caught(cast("Coroutine[Any, Any, Any]", work)))
        self._asked[answer] = task
        task.add_done_callback(lambda done: self._deliver(answer, done))

    def _deliver(self, answer: _Answer, done: asyncio.Task[Any] | None) -> None:
        work = self._asked.pop(answer, None)
        if done is None or done.cancelled():
            if asyncio.iscoroutine(work):
                work.close()
            answer.cancel()
        else:
            with suppress(InvalidStateError):  # nobody waits any more
                answer.set_result(done.result())

    def _end(self) -> None:
        """Take the loop apart, in a few times `LAST_SECONDS`, whatever is left on it."""
        with self._lock:
            self._is_over = True
        try:
            for work in (self._cancelled_asked, _cancelled_rest, self._last, self._loop.shutdown_asyncgens):
                with suppress(Exception):
                    self._loop.run_until_complete(_within(work))
        finally:
            asyncio.set_event_loop(None)
            with suppress(Exception):
                self._loop.close()
            for answer in list(self._asked):
                self._deliver(answer, None)

    async def _cancelled_asked(self) -> None:
        """Before all else: who opens a store closes it again, if the opening itself, a task too, may come to its end."""
        await _cancelled(work for work in self._asked.values() if isinstance(work, asyncio.Task))


class _DaemonThreads(ThreadPoolExecutor):
    """What `asyncio.to_thread` uses here. Python waits at its end for every thread of its own pools, for ever."""

    def __init__(self) -> None:
        super().__init__(1)
        self._pool = InThread(THREADS)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        answer: Future[Any] = Future()

        def work() -> None:
            if not answer.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                answer.set_exception(error)
            else:
                answer.set_result(result)

        self._pool._queue(work)
        return answer

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let idle threads end; busy ones end with their call, and nobody waits for that."""
        self._pool.close()


async def _caught(work: Coroutine[Any, Any, T]) -> tuple[T | None, BaseException | None]:
    """What it gives or raises, as values: a task that raised `SystemExit` would end the loop, not its caller."""
    try:
        return await work, None
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        return None, error


async def _cancelled_rest() -> None:
    await _cancelled(task for task in asyncio.all_tasks() if task is not asyncio.current_task())


async def _cancelled(tasks: Iterable[asyncio.Task[Any]]) -> None:
    those = list(tasks)
    for task in those:
        task.cancel()
    if those:
        await asyncio.wait(those)


async def _within(work: _Work) -> None:
    async with asyncio.timeout(LAST_SECONDS):
        await work()
