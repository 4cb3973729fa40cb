"""A job in a process of its own: `InProcess`, for work that would hold the interpreter, or that must be stoppable.

Level 4. The way of a call: the parent sends where the function stands and the run's record, no objects of the job;
`perform` finds the function there, rebuilds its parameters, enters what is injected, calls it and answers in plain
data. anyio keeps the processes and kills one whose call is cancelled. While a job runs, it writes into a file that a
thread of the parent reads a few times a second: its progress, always in the same place, and its log lines behind it.

What a process of anyio's has to be kept from: it speaks with its parent through the descriptors 0 and 1, which a
command started by the job would inherit; it loads the main file of the program again, which must not start it again;
and Ctrl-C reaches it as well as the parent, who gives jobs the time of a stop.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from functools import cache, partial
from pathlib import Path
from threading import Lock, Thread
from types import coroutine
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol, cast

from taskloop.attempts import decisive, taken
from taskloop.context import AttemptCancelled, RunContext, StepName, running
from taskloop.errors import BadJob, Conflict, ProcessDied
from taskloop.executors import DOUBT_SECONDS, InThread, RaisedElsewhere
from taskloop.injecting import call_within
from taskloop.jobs import Job
from taskloop.masking import scrubber
from taskloop.outcomes import failure
from taskloop.parameters import Parameters
from taskloop.retry import RetryAt
from taskloop.runs import Returned, Run
from taskloop.signals import in_forks

if TYPE_CHECKING:
    from anyio import CancelScope, CapacityLimiter
    from anyio.abc import Process

    from taskloop.inject import Provision

__all__ = ["InProcess", "ProcessContext", "found", "perform", "performed", "place_of", "taken_home"]

LOOK_SECONDS: Final = 0.2
"""How often the parent reads what a job tells."""
START_SECONDS: Final = 60.0
"""How long a process may take until it begins with the job."""
HEAD_BYTES: Final = 8_192
"""The place of the progress at the beginning of the file."""
TOLD_BYTES: Final = 1_000_000
"""Bytes of log lines that one attempt may write."""
LINE_CHARACTERS: Final = 4_000
LAST_WORDS: Final = 2_000
"""Characters that are kept of what a crashing interpreter says."""
PARENT_SECONDS: Final = 1.0
"""How often a process looks whether its parent is alive."""
GUARD: Final = 'put what starts the program below `if __name__ == "__main__":`'


class InProcess:
    """Calls a plain function in one of at most `processes` processes at once; None: as many as there are processors.

    A call that is asked to end is killed at once: no `finally` of it runs and nothing injected is left. A process that
    is done is kept for the next call, at most until the loop ends.
    """

    queues = True

    def __init__(self, processes: int | None = None) -> None:
        self.in_flight: int = 0
        self._processes = processes or os.cpu_count() or 1
        self._closed = False
        self._limiter: CapacityLimiter | None = None
        self._scopes: set[CancelScope] = set()
        self._files = InThread(2)
        self._ear = _Ear()

    async def call(self, function: Callable[..., Any], context: RunContext, arguments: dict[str, Any]) -> Returned:
        """What the function returns, as it is kept; its parameters are rebuilt there, from the run's own.

        Raises `RaisedElsewhere` for what it raised, `ProcessDied` if its process ended before, `BadJob`.
        """
        self.in_flight += 1
        try:
            module, qualname = place_of(function)
            channel = _Channel(context)
            try:
                await self._files.call(_open, None, {}, channel)
                run = context._run.changed(attempt=context.attempt)  # of a step: its own
                work = partial(perform, module, qualname, run, channel.path, str(context.step))
                answer = await self._answer(work, channel)
            finally:
                self._ear.forget(channel)
                # It is done whoever stops waiting for it: else a file would stay.
                await asyncio.shield(self._files.call(channel.close, None, {}))
        finally:
            self.in_flight -= 1
            if self._closed:
                self._end()
        return taken_home(answer)

    def close(self) -> None:
        """Kill what still goes on."""
        for scope in self._scopes:
            with suppress(RuntimeError):  # of a loop that is closed, which has killed it
                scope.cancel()
        self._closed = True
        self._end()

    def _end(self) -> None:
        """Let go of the threads, once no call needs them any more."""
        if not self.in_flight:
            self._files.close()

    async def _answer(self, work: Callable[[], Any], channel: _Channel) -> Any:
        from anyio import BrokenWorkerProcess, CancelScope, CapacityLimiter

        context = channel.context
        self._limiter = self._limiter or CapacityLimiter(self._processes)
        with CancelScope() as scope:
            context.withdraw = scope.cancel
            if context.cancelled:  # asked to end while its file was made
                scope.cancel()
            self._scopes.add(scope)
            try:
                async with self._limiter:
                    # We may have stood still since it was queued: what is lost is withdrawn.
                    while context.trusted is not None and not context.trusted():
                        await asyncio.sleep(DOUBT_SECONDS)
                    context.entered = True
                    self._ear.listen(channel, scope.cancel)
                    for again in (True, False):
                        try:
                            return await _answered(work, channel.path)
                        except BrokenWorkerProcess as error:
                            await self._files.call(channel.read, None, {})
                            if channel.begun or error.args or not again:  # else it died before, while it was idle
                                raise _died(channel, error) from error
                        except (Exception, KeyboardInterrupt) as error:  # `perform` raises nothing
                            await self._files.call(channel.read, None, {})
                            if channel.begun or not again:  # else what a job has left there kept it from this one
                                refused = isinstance(error, OSError) and not channel.begun
                                raise (_refused if refused else _spoiled)(error) from error
            finally:
                context.withdraw = None
                self._scopes.discard(scope)
        if channel.late and not context.cancelled:
            raise ProcessDied(
                f"the process for the job did not begin with it within {START_SECONDS:g} s and was killed; the main file "
                f"of the program is loaded there first: {GUARD}"
            )
        raise AttemptCancelled("its process was killed")


def _open(channel: _Channel) -> None:
    """Make a place to be told; in a thread, as all that waits for a disk, or imports much."""
    pool()  # so that the loop need not wait for it
    main = getattr(sys.modules.get("__main__"), "__file__", None)
    if main is not None and _starts_by_itself(main):
        raise BadJob(
            f"the main file of the program, {main}, is loaded in each process for jobs and would start the program "
            f"there once more; {GUARD}"
        )
    try:
        channel.open()
    except OSError as error:
        told = failure(error)
        raise ProcessDied(
            f"no process for the job could be started, for the file through which it tells how it goes could not be made: "
            f"{told.type}: {told.message}; give the program a TMPDIR with room where it may write, a container whose root is "
            "read-only a tmpfs on /tmp"
        ) from error


_used: Final[ContextVar[list[Process] | None]] = ContextVar("taskloop_processes_used", default=None)
"""The processes that are asked for a call: one that was idle or is started for it."""


async def _answered(work: Callable[[], Any], path: str) -> Any:
    """What a process gives for it. One that gives no answer to it is ended: it still starts, goes on with it, or is in no
    state to begin with another.
    """
    from anyio import CancelScope, CapacityLimiter

    used: list[Process] = []
    token = _used.set(used)
    try:
        answer = await pool().run_sync(work, cancellable=True, limiter=CapacityLimiter(1))
        if answer[0] != path:
            raise ValueError("the answer to another call")
        return answer[1:]
    except (Exception, KeyboardInterrupt, asyncio.CancelledError):
        for process in used:
            if process.returncode is None:
                process.kill()
                with CancelScope(shield=True):
                    await process.aclose()
        raise
    finally:
        _used.reset(token)


@cache
def pool() -> Any:
    """The module `anyio.to_process` once more, for jobs alone, whose processes write to the standard error of the program
    and end with the loop without a word.

    By itself anyio gives each process a pipe there that nobody reads: a job that prints 64 kB would wait for ever.
    """
    from importlib.util import find_spec, module_from_spec

    spec = find_spec("anyio.to_process")
    assert spec is not None and spec.loader is not None
    module: Any = module_from_spec(spec)
    spec.loader.exec_module(module)
    open_process = module.open_process

    def note(process: Process) -> None:
        if (used := _used.get()) is not None and process not in used:
            used.append(process)

    async def opened_our_way(command: Any, **options: Any) -> Any:
        process = await _begun_without(_MEANT, open_process(command, **options, stderr=None))
        process._stderr = process._stdout  # of all three the end closes what is there, and does not ask whether it is

        def kill() -> None:
            # At its end the loop kills each twice, and Popen looks before it does whether there is anything to kill. That
            # look may be the one that learns of the end, and asyncio, which waits for it in a thread, complains of that.
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL)

        process.kill = kill
        send = process._stdin.send

        async def noted(item: bytes) -> None:
            note(process)
            await send(item)

        process._stdin.send = noted
        note(process)
        return process

    module.open_process = opened_our_way
    return module


_MEANT: Final = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
"""Signals for the program, which come to its whole group: a process hears none before it has learned to heed nothing."""


@coroutine
def _begun_without(numbers: Sequence[signal.Signals], work: Coroutine[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Do the work with these signals held back, but for while it waits: a process that begins meanwhile inherits that."""
    step: Callable[[Any], Any] = work.send
    given: Any = None
    while True:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        try:
            waits_for = step(given)
        except StopIteration as done:
            return done.value
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        try:
            given = yield waits_for
            step = work.send
        except BaseException as error:
            step, given = work.throw, error


@cache
def _starts_by_itself(path: str) -> bool:
    """Whether a main file asks nowhere what it is loaded as."""
    import ast

    try:
        tree = ast.parse(Path(path).read_bytes())
    except (OSError, SyntaxError, ValueError):  # no file of Python: nothing of it is loaded
        return False
    tests = [node.test for node in ast.walk(tree) if isinstance(node, ast.If)]
    return not any(isinstance(one, ast.Name) and one.id == "__name__" for test in tests for one in ast.walk(test))


def place_of(function: Callable[..., Any]) -> tuple[str, str]:
    """Module and name under which another process finds the function. Raises `BadJob` if it stands there no more."""
    module, qualname = function.__module__, function.__qualname__
    found: Any = sys.modules.get(module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    if (found.function if isinstance(found, Job) else found) is not function:
        raise BadJob(
            f"function {qualname} is not what module {module} has under that name, so another process cannot find it; "
            "let the name be the function's own, at the top of a module"
        )
    return module, qualname


def _died(channel: _Channel, error: BaseException) -> ProcessDied:
    if channel.begun:
        words = f"; it said: {channel.last_words}" if channel.last_words else ""
        return ProcessDied(
            f"process {channel.pid} ended before the job did: it called os._exit, was killed (by a person, or because "
            f"memory ran out) or crashed in native code; a next attempt gets another process{words}"
        )
    told = failure(error.__cause__ or error)
    return ProcessDied(
        f"no process for the job could be started: {told.type}: {told.message}; the main file of the program is loaded "
        f"there, by its path: {GUARD}, and write its imports without leading dots"
    )


def _refused(error: BaseException) -> ProcessDied:
    told = failure(error)
    return ProcessDied(
        f"no process for the job could be started: {told.type}: {told.message}; see the limits on processes and memory of "
        f"this machine or container, and that {sys.executable} may be executed"
    )


def _spoiled(error: BaseException) -> ProcessDied:
    return ProcessDied(
        f"the process answered out of turn ({failure(error).type}) and was killed; a next attempt gets another process"
    )


def taken_home(answer: Any) -> Returned:
    """What `performed` gave in another process. Raises `RaisedElsewhere` for what was raised there."""
    if answer[0] == "returned":
        return Returned(*answer[1:])
    _, told, classes, when = answer
    kind = next((one for one in map(_known, classes) if one is not None), Exception)
    raise RaisedElsewhere(kind, told, RetryAt(when) if when is not None else None)


def _known(place: tuple[str, str]) -> type[BaseException] | None:
    """The class that stands there, if its module is loaded: nothing is imported for it, which would hold the loop."""
    module, qualname = place
    found: Any = sys.modules.get("__main__" if module == "__mp_main__" else module)
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


# -- what a job tells while it runs


class _Channel:
    """The parent's end of the file that a job writes into."""

    def __init__(self, context: RunContext) -> None:
        self.path = ""
        self.context = context
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.begun = False
        """Whether the process has begun with the job."""
        self.pid: int | None = None
        self.last_words = ""
        self.late = False
        """It had not begun when it should have."""
        self._number = -1
        self._closed = False
        self._offset = HEAD_BYTES
        self._rest = b""
        self._count = ""
        self._lock = Lock()

    def open(self) -> None:
        """Make the file, unless nobody waits for that any more."""
        import tempfile

        with self._lock:
            if not self._closed:
                self._number, self.path = tempfile.mkstemp(prefix="taskloop-", suffix=".told")

    def read(self) -> None:
        """Take over what is new. Raises nothing: a job may have written anything."""
        with self._lock:
            if self._number < 0:
                return
            with suppress(OSError):
                while more := os.pread(self._number, TOLD_BYTES, self._offset):
                    self._offset += len(more)
                    *lines, self._rest = (self._rest + more).split(b"\n")
                    for line in lines:
                        self._hear(line)
                self._hear_progress(os.pread(self._number, HEAD_BYTES, 0).partition(b"\n")[0])

    def close(self) -> None:
        self.read()
        with self._lock:
            self._closed = True
            if self._number < 0:
                return
            os.close(self._number)
            self._number = -1
        with suppress(OSError):
            Path(self.path).unlink()

    def _hear_progress(self, line: bytes) -> None:
        before, _, rest = line.partition(b" ")
        text, _, after = rest.rpartition(b" ")
        if before == after != b"" and before.decode(errors="replace") != self._count:  # else it is being written
            self._count = before.decode(errors="replace")
            with suppress(ValueError, TypeError):
                done, total, message = json.loads(text)
                self.context.progress(done, total, message)

    def _hear(self, line: bytes) -> None:
        try:
            record = json.loads(line)
            kind = record["kind"]
        except (ValueError, TypeError, KeyError):  # the interpreter's own words, on its way out
            self.last_words = f"{self.last_words}\n{line.decode(errors='replace')}".strip()[:LAST_WORDS]
            return
        if kind == "begun":
            self.begun, self.pid = True, record.get("pid")
            if (tell := self.context.began) is not None:
                with suppress(RuntimeError):  # the loop is closed
                    self.loop.call_soon_threadsafe(tell)
        elif kind == "log":
            with suppress(Exception):
                self.context.log(str(record.get("text")), level=str(record.get("level", "info")))


class _Ear:
    """A thread that reads what jobs in processes tell; there while there is one."""

    def __init__(self) -> None:
        self._channels: dict[_Channel, tuple[float, Callable[[], None]]] = {}
        self._thread: Thread | None = None
        self._lock = Lock()

    def listen(self, channel: _Channel, end: Callable[[], None]) -> None:
        """Read it from now on; `end` is called on the loop if the process does not begin in time."""
        from time import monotonic

        with self._lock:
            self._channels[channel] = (monotonic() + START_SECONDS, end)
            if self._thread is None:
                self._thread = Thread(target=self._follow, name="taskloop processes", daemon=True)
                self._thread.start()

    def forget(self, channel: _Channel) -> None:
        with self._lock:
            self._channels.pop(channel, None)

    def _follow(self) -> None:
        from time import monotonic, sleep

        while True:
            with self._lock:
                channels = list(self._channels.items())
                if not channels:
                    self._thread = None
                    return
            for channel, (deadline, end) in channels:
                channel.read()
                if not channel.begun and not channel.late and monotonic() > deadline:
                    channel.late = True
                    with suppress(RuntimeError):  # the loop is closed
                        channel.loop.call_soon_threadsafe(end)
            sleep(LOOK_SECONDS)


# -- in the child


class ProcessContext(RunContext):
    """What a job in a process sees of its run; what it says goes to the parent."""

    __slots__ = ("_name", "_pen")

    def __init__(self, run: Run, pen: Pen, step: str) -> None:
        from time import monotonic

        super().__init__(run, monotonic=monotonic, call=partial(_refuse, "call"))
        self.scrub: Callable[[str], str] | None = scrubber(
            run.params
        )  # here already: what the parent hears was cut before
        self._pen = pen
        self._name = step

    @property
    def step(self) -> StepName:
        """The name of the step in hand; refused when it is called: a step is kept by the scheduler."""
        return _NameOnly(self._name, self)

    def progress(self, done: float | None = None, total: float = 100, message: str = "") -> None:
        super().progress(done, total, message)
        latest = self.latest
        assert latest is not None
        self._pen.progress(latest.done, latest.total, latest.message)

    def log(self, text: object, level: str = "info") -> None:
        """A line for the log of the run; beyond what one attempt may write, nothing."""
        said = str(text) if self.scrub is None else self.scrub(str(text))
        # What no encoding takes, such as the name of a file from elsewhere, would break a cluster's wire, and all on it.
        written, level = (one[:LINE_CHARACTERS].encode(errors="replace").decode() for one in (said, str(level)))
        self._pen.write(kind="log", text=written, level=level)


class _NameOnly(StepName):
    """The name of a step, where none can be begun."""

    __slots__ = ()

    def __call__(self, *_: Any, **__: Any) -> NoReturn:
        _refuse("step")


class Pen(Protocol):
    """Takes what a job tells while it runs."""

    def progress(self, done: float, total: float, message: str) -> None: ...

    def write(self, **record: Any) -> None: ...


class _Pen:
    """The child's end of the file."""

    def __init__(self, path: str) -> None:
        self.number: int = os.open(path, os.O_RDWR)
        os.lseek(self.number, HEAD_BYTES, os.SEEK_SET)
        self._count = 0
        self._left = TOLD_BYTES
        self._lock = Lock()

    def progress(self, done: float, total: float, message: str) -> None:
        """Always in the same place: one short write, however often; the count on both sides tells when it is whole."""
        text = json.dumps([done, total, message], ensure_ascii=False)
        with self._lock:
            self._count += 1
            with suppress(OSError):  # a full disk is no reason for a job to fail
                os.pwrite(self.number, f"{self._count} {text} {self._count}\n".encode(), 0)

    def write(self, **record: Any) -> None:
        line = json.dumps(record).encode() + b"\n"
        with self._lock:
            if self._left <= 0:
                return
            self._left -= len(line)
            if self._left <= 0:
                line = b'{"kind": "log", "level": "warning", "text": "the lines after this are left out"}\n'
            with suppress(OSError):
                os.write(self.number, line)

    def close(self) -> None:
        os.close(self.number)


def perform(module: str, qualname: str, run: Run, path: str, step: str = "") -> tuple[Any, ...]:
    """In the child: call the job, or the step of that name, and give what it came to as plain data. Raises nothing."""
    try:
        pen = _Pen(path)
    except FileNotFoundError:  # the call was given up: an answer would be taken for that to the next one
        os._exit(1)
    pid = os.getpid()
    _in_hand.add(path)
    try:
        with _apart(pen):
            pen.write(kind="begun", pid=pid)
            answer = performed(partial(found, module, qualname), ProcessContext(run, pen, step))
            if os.getpid() != pid:  # a fork that the job has made: it must not answer too, nor wait for the next call
                os._exit(answer[0] != "returned")
            return (path, *answer)
    finally:
        _in_hand.discard(path)
        pen.close()


def performed(find: Callable[[], tuple[Callable[..., Any], Parameters]], context: ProcessContext) -> tuple[Any, ...]:
    """Call what `find` gives, with what the run says and what is injected; what it came to as plain data.

    As in a thread, what it sets in context variables is not seen by the job that is called here next; what its module
    sets as it is imported, as a precision of `decimal`, holds for all that are.
    """
    token = running.set(context)
    try:
        function, parameters = find()
    except BaseException as error:
        return _raised(error)
    finally:
        running.reset(token)
    return copy_context().run(_performed, function, parameters, context)


def _performed(function: Callable[..., Any], parameters: Parameters, context: ProcessContext) -> tuple[Any, ...]:
    running.set(context)
    try:
        arguments = parameters.rebuild(context.params)
        if parameters.context_name is not None:
            arguments[parameters.context_name] = context
        if context.step:
            from taskloop.stepping import call_and_keep  # here, not above: most jobs are no flow

            function = partial(call_and_keep, str(context.step), function)
        if parameters.plan is None:
            result = taken(function(**arguments))
        else:
            report = partial(_report, context)
            plan = parameters.plan
            result = call_within(plan, plan.order, {}, context, _in_time, report, function, **arguments)
    except BaseException as error:
        return _raised(error)
    return "returned", result.result, result.summary


def _raised(error: BaseException) -> tuple[Any, ...]:
    word = decisive(error)
    classes = [(one.__module__, one.__qualname__) for one in type(word).__mro__]
    return "raised", failure(error), classes, _wanted_at(word)


def _wanted_at(error: BaseException) -> Any:
    """When a `RetryAt` wants the next attempt; None: its class is the job's own and does not say, or not what can go home."""
    if not issubclass(type(error), RetryAt):
        return None
    from pickle import dumps

    try:
        when = cast("RetryAt", error).when
        dumps(RetryAt(when).when)
    except BaseException:  # SystemExit too: it would end a worker of a cluster, and all that it has in hand
        return None
    return when


def found(module: str, qualname: str) -> tuple[Callable[..., Any], Parameters]:
    """The function that stands there, and what it takes. Raises `BadJob`."""
    from importlib import import_module

    try:
        if module == "__main__" and module not in sys.modules:  # an import of it would start the program once more
            raise ImportError("the main file of the program is no file of its own, and was not loaded there")
        there: Any = import_module(module)
        for part in qualname.split("."):
            there = getattr(there, part)
    except Exception as error:
        raise BadJob(
            f"another process cannot find {qualname} of module {module}: {type(error).__name__}: {error}; let it stand at the "
            'top of a module that can be imported, outside of any `if __name__ == "__main__":`'
        ) from error
    if isinstance(there, Job):
        return there.function, there.parameters
    return there, Parameters(qualname, there)


@contextmanager
def _apart(pen: _Pen) -> Iterator[None]:
    """Keep from the job what anyio speaks through, and the signals that are meant for the parent."""
    import faulthandler

    _mind_the_parent()
    # For good: idle, anyio's loop would answer a Ctrl-C as if it had been asked, and a terminal that is closed hangs up on all
    # that began in it. A handler that does nothing, not SIG_IGN: that would be inherited by the commands which the job
    # starts, as it is where whoever started the program meant it.
    for meant in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(meant) is not signal.SIG_IGN:
            signal.signal(meant, _heed_nothing)
    kept = [os.dup(number) for number in (0, 1)]
    nothing = os.open(os.devnull, os.O_RDWR)
    _line[:] = kept
    outputs = sys.stdout, sys.stderr
    before = signal.signal(signal.SIGTERM, _heed_nothing)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _MEANT)
    faulthandler.enable(pen.number)
    try:
        for number in (0, 1):
            os.dup2(nothing, number)
        sys.stdout = sys.stderr = _standard_error()
        yield
    finally:
        with suppress(Exception):
            sys.stderr.flush()
        sys.stdout, sys.stderr = outputs
        for number, mine in enumerate(kept):
            os.dup2(mine, number)
        _line[:] = 0, 1
        for one in (*kept, nothing):
            os.close(one)
        faulthandler.disable()
        signal.signal(signal.SIGTERM, before)


def _standard_error() -> Any:
    """What the job prints to: the program's, never closed; nothing where it has none."""
    try:
        return open(2, "w", buffering=1, closefd=False, errors="replace")
    except OSError:
        return Path(os.devnull).open("w")


def _heed_nothing(*_: object) -> None:
    """The parent was told as well, and ends this process when it is time."""


_line: Final[list[int]] = [0, 1]
"""The descriptors by which this process and its parent speak."""
_in_hand: Final[set[str]] = set()
"""The file that the parent reads, and removes when the call is over."""


@cache
def _mind_the_parent() -> None:
    """End with the parent, however it ends: what nobody records must not go on beside its next attempt, nor nobody's file
    stay.
    """
    from time import sleep

    parent = os.getppid()
    in_forks(_leave_alone)

    def mind() -> None:
        while os.getppid() == parent:
            sleep(PARENT_SECONDS)
        for path in _in_hand.copy():
            with suppress(OSError):
                Path(path).unlink()
        os._exit(1)

    Thread(target=mind, name="taskloop parent", daemon=True).start()


def _leave_alone() -> None:
    """In a fork that a job has made, which is its own: it is ended by signals, and holds no end of the line to the parent,
    who hears by the end of that line that this process is gone.
    """
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(one) is _heed_nothing:
            signal.signal(one, signal.SIG_DFL)
    with suppress(OSError):
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in _line:
            os.dup2(nothing, number, inheritable=number < 3)
        os.close(nothing)


def _report(context: ProcessContext, one: Provision, error: BaseException) -> None:
    told = failure(error)
    context.log(f"provider {one.name} failed on leaving: {told.type}: {told.message}", level="warning")


def _in_time() -> None:
    """None: one that is late is killed."""


def _refuse(verb: str, *_: Any, **__: Any) -> NoReturn:
    raise Conflict(
        f"{verb}() needs the scheduler's loop, and this job runs in another process; "
        'use executor="thread", or do it in another job'
    )
