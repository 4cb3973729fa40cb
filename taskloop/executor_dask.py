"""A job on a Dask cluster: `OnDask`, for work that outgrows the machine.

Level 4, and the only room that knows Dask. The way of a call: where the function stands and the run's record go there
as a task of Dask's; the worker that takes it up tells so and waits; only when we have said "go" does it call the
function, by what `processing` does in a process. So a function is called once an attempt: Dask itself begins a task
again whose worker was lost, or whose result was, and is refused. Progress and log come back as events of Dask, the word
to end goes to the worker, where the function asks for it; no thread of another machine can be killed.

All that Dask does here happens on a loop in a thread of its own: neither its pickles nor a cluster that is gone holds
up the host's loop.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from taskloop.annotations import annotations_of
from taskloop.context import AttemptCancelled, RunContext
from taskloop.errors import BadJob, ClusterUnavailable, MissingExtra, ProcessDied
from taskloop.executors import DOUBT_SECONDS
from taskloop.loop_thread import LoopThread
from taskloop.outcomes import failure
from taskloop.parameters import Parameters
from taskloop.processing import LINE_CHARACTERS, TOLD_BYTES, ProcessContext, found, performed, place_of, taken_home
from taskloop.runs import Returned, Run

if TYPE_CHECKING:
    from distributed import Worker

__all__ = ["OnDask", "heed", "perform"]

CONNECT_SECONDS: Final = 10.0
"""How long the cluster may take to answer."""
CLOSE_SECONDS: Final = 0.4
"""How long it may take to say goodbye; less than `loop_thread.LAST_SECONDS`."""
GO_SECONDS: Final = 60.0
"""How long a worker of the cluster waits until it may call the function."""
LOOK_SECONDS: Final = 0.5
"""How often it looks meanwhile whether anybody wants the result."""
TELL_SECONDS: Final = 0.2
"""How often, at most, it tells progress and log lines."""
EMPTY_SECONDS: Final = 2.0
"""How often it is looked, while calls wait for a worker there, whether the cluster has any."""
EVENT_CHARACTERS: Final = 16_000
"""Of log lines in one event: Dask's scheduler keeps the last thousand events."""

Say = Callable[..., None]


class OnDask:
    """Calls a plain function on the cluster whose scheduler listens at `address`; connects when first asked.

    A call that is asked to end is taken back if it has not begun. Else the function is told, where it asks
    (`run.check_cancelled()`), and waited for. `say` writes a log line, from any thread.
    """

    def __init__(self, address: str, say: Say, *, connect_seconds: float = CONNECT_SECONDS) -> None:
        if not address:
            raise BadJob(
                'executor "dask" needs a cluster; set [dask] address, or TASKLOOP_DASK__ADDRESS, to its scheduler'
            )
        self.in_flight: int = 0
        self._address = address
        self._say = say
        self._connect_seconds = connect_seconds
        self._thread: LoopThread | None = None
        self._closing: asyncio.Event | None = None
        self._client: Any = None
        self._connecting: asyncio.Task[Any] | None = None
        self._minding: asyncio.Task[None] | None = None
        self._is_empty = False
        """Whether the cluster had no worker when it was looked at last."""
        self._topic = f"taskloop {os.uname().nodename}"
        self._own = os.urandom(6).hex()
        self._count = 0
        self._calls: dict[str, _Call] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    async def call(self, function: Callable[..., Any], context: RunContext, arguments: dict[str, Any]) -> Returned:
        """What the function returns, as it is kept; its parameters are rebuilt there, from the run's own.

        Raises `RaisedElsewhere` for what it raised, `ProcessDied` if its worker was lost, `ClusterUnavailable`, `BadJob`.
        """
        call = _Call(function, context, self._end)
        if context.cancelled:
            raise AttemptCancelled("asked to end before it began")
        self.in_flight += 1
        context.withdraw = call.withdraw
        try:
            asked = asyncio.wrap_future(self._started().begin(self._carry_out(call)))
            try:
                answer, error = await asyncio.shield(asked)
            except asyncio.CancelledError:
                if asked.cancelled():  # the thread has ended first
                    raise AttemptCancelled("the connection to the cluster was closed") from None
                call.withdraw()
                await asyncio.wait({asked})
                raise
        finally:
            context.withdraw = None
            self.in_flight -= 1
        if error is not None:
            raise error
        return taken_home(answer)

    def close(self) -> None:
        """End the connection, and with it what goes on there as far as we are concerned. Does not wait."""
        if self._thread is not None:
            with suppress(Exception):  # it has ended by itself
                self._thread.begin(self._close())

    def _started(self) -> LoopThread:
        if self._thread is None:
            self._thread = LoopThread(self._live, self._leave, self._complain)
            self._thread.start()
        return self._thread

    def _complain(self, error: BaseException) -> None:
        self._say("WARNING", "dask.failed", error=repr(error)[:300])

    # -- on the loop of the thread

    async def _live(self) -> None:
        asyncio.get_running_loop().set_exception_handler(self._overhear)
        self._closing = asyncio.Event()
        await self._closing.wait()

    def _overhear(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What tasks of Dask's own leave behind, when a worker is lost among others: none of it is an attempt's."""
        self._say("DEBUG", "dask.left", error=repr(context.get("exception") or context.get("message"))[:300])

    async def _close(self) -> None:
        for call in list(self._calls.values()):
            call.give_up(AttemptCancelled("the connection to the cluster was closed"))
        while self._closing is None:
            await asyncio.sleep(0)
        self._closing.set()

    async def _leave(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await _closed(client)

    async def _carry_out(self, call: _Call) -> tuple[Any, ...]:
        """What the function came to, as `performed` gives it. Raises what keeps us from knowing."""
        call.over = asyncio.get_running_loop().create_future()
        if call.is_ended:
            raise AttemptCancelled("asked to end before it began")
        client = await self._connected(call)
        where = await asyncio.to_thread(_sent, call.function)
        self._count += 1
        ticket = f"{self._own}-{self._count}"
        key = f"{call.run.job}-{call.run.id}-{call.run.attempt}-{ticket}"
        self._calls[ticket] = call
        try:
            future = client.submit(
                perform,
                self._topic,
                ticket,
                where,
                call.run,
                call.step,
                key=key,
                pure=False,
                priority=call.run.priority,
            )
            if self._minding is None or self._minding.done():
                self._minding = self._begin(self._mind_the_workers())
            waiting = asyncio.ensure_future(_came_to(future))
            await asyncio.wait({waiting, call.over}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                waiting.cancel()
                with suppress(Exception):
                    await client.cancel([future], force=True)
                call.over.result()
            answer = waiting.result()
        finally:
            del self._calls[ticket]
        return self._judged(answer, call)

    def _judged(self, answer: Any, call: _Call) -> tuple[Any, ...]:
        from distributed import KilledWorker

        if isinstance(answer, KilledWorker):
            raise _died(call.worker or str(getattr(answer.last_worker, "address", "?")))
        if isinstance(answer, CancelledError):
            why = getattr(answer, "reason", "cancelled")
            raise ClusterUnavailable(self._address, f"{_LOST} ({why})") from None
        if isinstance(answer, BaseException):
            told = failure(answer)
            raise BadJob(
                f"a worker of the Dask cluster at {self._address} cannot begin with the job: {told.type}: {told.message}; "
                "install there the same versions of taskloop and of the program as here"
            ) from answer
        if answer is None:
            if call.is_ended:
                raise AttemptCancelled("asked to end before it began")
            raise ProcessDied(
                f"Dask worker {call.worker} was told nothing for {GO_SECONDS:g} s and did not call the job"
            )
        result: tuple[Any, ...] = answer
        return result

    async def _connected(self, call: _Call) -> Any:
        """The connection, made anew where it is lost; all who ask meanwhile wait for the same."""
        if self._client is not None and self._client.status == "running":
            return self._client
        if self._connecting is None or self._connecting.done():
            self._connecting = self._begin(self._connect())
        assert call.over is not None
        await asyncio.wait({self._connecting, call.over}, return_when=asyncio.FIRST_COMPLETED)
        return call.over.result() if call.over.done() else self._connecting.result()

    async def _connect(self) -> Any:
        make = await asyncio.to_thread(_client_class)  # a second of imports
        if (before := self._client) is not None:
            self._client = None
            await _closed(before)
        client = make(
            self._address, asynchronous=True, set_as_default=False, name="taskloop", timeout=self._connect_seconds
        )
        try:
            async with asyncio.timeout(self._connect_seconds):
                await client
                client.subscribe_topic(self._topic, self._hear)
                failures, workers = await client.run_on_scheduler(_ways)
        except BaseException as error:
            await _closed(client)
            if not isinstance(error, Exception):
                raise
            why = f"it does not answer within {self._connect_seconds:g} s"
            if not isinstance(error, OSError):
                why = f"{failure(error).type}: {failure(error).message}"
            raise ClusterUnavailable(self._address, why) from None  # it says all that those below it say
        self._client = client
        self._say("INFO", "dask.connected", address=self._address, workers=workers)
        if failures:
            self._say("WARNING", "dask.begins_again", address=self._address, allowed_failures=failures, text=_AGAIN)
        self._is_empty = False
        self._note_workers(workers)
        return client

    async def _mind_the_workers(self) -> None:
        """See whether there is any worker for the calls that wait, as long as some do: the last may have gone."""
        await asyncio.sleep(EMPTY_SECONDS)
        while self._client is not None and any(call.worker is None for call in self._calls.values()):
            with suppress(Exception):  # a connection that is lost: the calls say so
                _, workers = await self._client.run_on_scheduler(_ways)
                self._note_workers(workers)
            await asyncio.sleep(EMPTY_SECONDS)

    def _note_workers(self, workers: int) -> None:
        """Tell that the cluster has no worker, once until one has joined."""
        if not workers and not self._is_empty:
            self._say("WARNING", "dask.no_worker", address=self._address, text="jobs wait there until one joins")
        self._is_empty = not workers

    def _hear(self, event: tuple[float, Any]) -> None:
        """What a worker tells, of this process's calls among others. Raises nothing: anybody may have said anything."""
        with suppress(Exception):
            told = event[1]
            call = self._calls[told["ticket"]]
            if "begun" in told:
                self._begin(self._admit(call, told["ticket"], told["begun"]))
            if "progress" in told:
                call.context.progress(*told["progress"])
            for level, text in told.get("lines", ()):
                call.context.log(text, level=level)

    async def _admit(self, call: _Call, ticket: str, address: str) -> None:
        """Let a worker call the function: the first that is ready to, while anybody wants it."""
        if call.worker is not None:
            lost, call.worker = call.worker, address
            await self._tell(address, ticket, go=False)
            call.give_up(_died(lost))
            return
        call.worker, trusted = address, call.context.trusted
        while trusted is not None and not trusted() and not call.is_ended:
            await asyncio.sleep(DOUBT_SECONDS)  # we stood still since it was sent: what is lost is withdrawn
        await self._tell(address, ticket, go=not call.is_ended)
        if call.is_ended:  # since then, perhaps
            await self._tell(address, ticket, go=False)

    def _end(self, call: _Call) -> None:
        """From any thread: have a call end."""
        with suppress(Exception):  # the thread has ended first
            self._started().begin(self._ended(call))

    async def _ended(self, call: _Call) -> None:
        tickets = [ticket for ticket, one in self._calls.items() if one is call]
        if call.worker is None:
            if tickets:  # it is there; else there is no connection yet
                call.context.log("taken back from the Dask cluster: no worker there had begun with it", level="warning")
            call.give_up(AttemptCancelled("asked to end before it began"))
        elif tickets:
            await self._tell(call.worker, tickets[0], go=False)

    async def _tell(self, worker: str, ticket: str, *, go: bool) -> None:
        if self._client is not None:
            with suppress(Exception):  # one that is lost while it is told: its task says so
                await self._client.run(heed, ticket, go, workers=[worker], on_error="ignore")

    def _begin(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)
        return task

    def _over(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # of connecting: whoever waits is told


class _Call:
    """A call on its way there, or there."""

    def __init__(self, function: Callable[..., Any], context: RunContext, end: Callable[[_Call], None]) -> None:
        self.function = function
        self.context = context
        self.run: Run = context._run.changed(attempt=context.attempt)  # of a step: its own
        self.step = str(context.step)
        self.is_ended = False
        """Whether it was asked to end."""
        self.worker: str | None = None
        """The worker that was ready to call the function; None: none was yet."""
        self.over: asyncio.Future[Any] | None = None
        """Why its task is waited for no longer."""
        self._end = end

    def withdraw(self) -> None:
        """Ask it to end; from any thread."""
        self.is_ended = True
        self._end(self)

    def give_up(self, why: BaseException) -> None:
        if self.over is not None and not self.over.done():
            self.over.set_exception(why)
            self.over.exception()  # it may be over already, and nobody asks


_LOST: Final = "the connection was lost while the job was there, and nobody knows whether it still goes on"
_AGAIN: Final = (
    "the cluster begins a task again whose worker was lost; taskloop refuses that, but knows of the loss only when another "
    "worker takes it up; set DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=0 for the cluster's scheduler"
)


def _died(worker: str) -> ProcessDied:
    return ProcessDied(
        f"Dask worker {worker} ended before the job did: it was killed (by a person, or because memory ran out), crashed "
        "or lost its connection; a next attempt gets another worker"
    )


def _sent(function: Callable[..., Any]) -> bytes | tuple[str, str]:
    """How the function goes there: its module and name; itself where nobody can import it by these."""
    if function.__module__ != "__main__" and "<locals>" not in function.__qualname__:
        return place_of(function)
    try:
        from cloudpickle import dumps  # type: ignore[import-untyped]

        sent: bytes = dumps((function, annotations_of(function)))
    except ImportError as error:
        raise MissingExtra("distributed", "dask") from error
    except Exception as error:
        raise BadJob(
            f"function {function.__qualname__} of {function.__module__} cannot be sent to the Dask cluster: "
            f"{type(error).__name__}: {error}; write it at the top of a module that the workers can import"
        ) from error
    return sent


def _client_class() -> Any:
    """Dask's client. Raises `MissingExtra`."""
    is_ours = "distributed" not in sys.modules
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingExtra("distributed", "dask") from error
    if is_ours:  # nobody else here speaks with Dask: what it says of lost connections stands in the runs' errors
        import logging

        for name in ("distributed", "distributed.client"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
    return Client


async def _came_to(future: Any) -> Any:
    """What a task of Dask's came to, or the error that it raised; `CancelledError` where it is lost."""
    try:
        return await future
    except Exception as error:
        return error


async def _closed(client: Any) -> None:
    with suppress(Exception):
        async with asyncio.timeout(CLOSE_SECONDS):
            await client.close()


def _ways(dask_scheduler: Any) -> tuple[int, int]:
    """At Dask's scheduler: how often it begins a task again whose worker was lost, and how many workers it has."""
    return dask_scheduler.allowed_failures, len(dask_scheduler.workers)


# -- at a worker of the cluster

_waiting: Final[dict[str, DaskContext]] = {}
"""The calls of this worker, by their tickets."""


def _found(where: bytes | tuple[str, str]) -> tuple[Callable[..., Any], Parameters]:
    """The function that was sent, and what it takes."""
    if isinstance(where, tuple):
        try:
            return found(*where)
        except BadJob as error:
            module, name = where
            why = failure(error.__cause__ or error)
            raise BadJob(
                f"a worker of the Dask cluster cannot find {name} of module {module}: {why.type}: {why.message}; each of them "
                "needs the program, in the same version as here: install it there, or name its folder in PYTHONPATH"
            ) from error
    from pickle import loads

    function, function.__annotations__ = loads(where)  # noqa: S301 - Dask itself has unpickled more than that by now
    return function, Parameters(function.__qualname__, function)


def perform(topic: str, ticket: str, where: Any, run: Run, step: str) -> tuple[Any, ...] | None:
    """Call the job, or the step of that name, once we may; gives what it came to as plain data. None: we may not."""
    from distributed import get_worker

    worker = get_worker()
    wire = _Wire(worker, topic, ticket)
    context = _waiting[ticket] = DaskContext(run, wire, step)
    pid = os.getpid()
    try:
        wire.tell(begun=worker.address)
        if not context.may_begin():
            return None
        answer = performed(partial(_found, where), context)
        if os.getpid() != pid:  # a fork that the job has made: it must not answer too
            os._exit(answer[0] != "returned")
        return answer
    finally:
        wire.flush()
        _waiting.pop(ticket, None)


def heed(ticket: str, go: bool) -> None:
    """On the worker's loop: let a call begin, or ask it to end."""
    context = _waiting.get(ticket)
    if context is not None:
        context.cancelled = context.cancelled or not go
        context.heard.set()


class DaskContext(ProcessContext):
    """What a job on the cluster sees of its run."""

    __slots__ = ("_wire", "heard")

    def __init__(self, run: Run, wire: _Wire, step: str) -> None:
        super().__init__(run, wire, step)
        self._wire = wire
        self.heard: threading.Event = threading.Event()

    @property
    def cancelled(self) -> bool:
        """Whether it was asked to end, or nobody wants the result any more: who asked for it has died, perhaps."""
        return self._cancelled or self._wire.is_unwanted()

    @cancelled.setter
    def cancelled(self, asked: bool) -> None:
        self._cancelled = asked

    def may_begin(self) -> bool:
        """Wait until it is said, and give whether the function is to be called."""
        deadline = monotonic() + GO_SECONDS
        while not self.heard.wait(LOOK_SECONDS):
            if self.cancelled or monotonic() > deadline:
                return False
        return not self.cancelled


class _Wire:
    """The worker's end of what a job tells; events that follow each other too quickly go together."""

    def __init__(self, worker: Worker, topic: str, ticket: str) -> None:
        self._worker = worker
        self._topic = topic
        self._ticket = ticket
        self._key: Any = worker.get_current_task()
        self._progress: tuple[float, float, str] | None = None
        self._lines: list[tuple[str, str]] = []
        self._left = TOLD_BYTES
        self._told_at = 0.0
        self._is_stirred = False
        self._lock = threading.Lock()

    def tell(self, **told: Any) -> None:
        self._worker.log_event(self._topic, {"ticket": self._ticket, **told})

    def is_unwanted(self) -> bool:
        try:
            task = self._worker.state.tasks.get(self._key)
        except AttributeError:  # a version of Dask that keeps them elsewhere: then only who is told hears of it
            return False
        return task is None or task.state == "cancelled"

    def progress(self, done: float, total: float, message: str) -> None:
        with self._lock:
            self._progress = (done, total, message)
        self._stir()

    def write(self, **record: Any) -> None:
        text, level = record["text"], record["level"]
        with self._lock:
            if self._left <= 0:
                return
            self._left -= len(text) + len(level) + LINE_CHARACTERS // 100
            left_out = ("warning", "the lines after this are left out")
            self._lines.append((level, text) if self._left > 0 else left_out)
        self._stir()

    def flush(self) -> None:
        """Tell what is left, now."""
        with self._lock:
            progress, self._progress = self._progress, None
            lines, self._lines = self._lines, []
            self._is_stirred, self._told_at = False, monotonic()
        if progress is not None:
            self.tell(progress=progress)
        while lines:
            count, size = 0, 0
            while count < len(lines) and (not count or size + len(lines[count][1]) <= EVENT_CHARACTERS):
                size += len(lines[count][1])
                count += 1
            self.tell(lines=lines[:count])
            lines = lines[count:]

    def _stir(self) -> None:
        with self._lock:
            if self._is_stirred:
                return
            self._is_stirred = True
        self._worker.loop.add_callback(self._later)

    def _later(self) -> None:
        self._worker.loop.call_later(max(0.0, self._told_at + TELL_SECONDS - monotonic()), self.flush)
