"""Jobs that raise what nobody would expect (J1): errors that cannot be looked at, have no end, or lie about themselves."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import types
from contextlib import suppress

import pytest
from misbehaviour import crowded as crowded
from misbehaviour import hosted, three_runs, unharmed

from taskloop import Fatal, Retry, RetryAt, RunContext, State
from taskloop.outcomes import MESSAGE_CHARACTERS, TRACEBACK_CHARACTERS

pytestmark = pytest.mark.anyio


def mute(what):
    """An error that raises `what` when it is asked for its text."""

    def say(_):
        raise what

    return type("Mute", (Exception,), {"__str__": say, "__repr__": say})()


class OddText(str):
    """A text that will not even tell its length."""

    def __len__(self):
        raise RuntimeError

    encode = strip = partition = __getitem__ = __len__


class SaysOddText(Exception):
    def __str__(self):
        return OddText("odd")


class Endless(Exception):
    def __str__(self):
        return str(self)


class Untouchable(Exception):
    def __getattribute__(self, name):
        raise RuntimeError(name)


class NoClass(Exception):
    @property
    def __class__(self):
        raise RuntimeError


class Liar(Exception):
    """Says it is what ends a program, or what cancels a task."""

    __class__ = asyncio.CancelledError


class Nameless(type):
    def __getattribute__(cls, name):
        if name in ("__qualname__", "__name__", "__module__"):
            raise RuntimeError(name)
        return super().__getattribute__(name)


def nameless():
    class Unknown(Exception, metaclass=Nameless): ...

    return Unknown()


class Notes(Exception):
    @property
    def __notes__(self):
        raise SystemExit(3)


class Unequal(Exception):
    def __eq__(self, other):
        raise RuntimeError

    __bool__ = __len__ = __eq__
    __hash__ = None


class BornWrong(RetryAt):
    def __init__(self):
        """Forget what RetryAt needs to know."""


class RudeFatal(Fatal):
    def __str__(self):
        raise SystemExit(3)


class HostileGroup(ExceptionGroup):
    def derive(self, excs):
        raise RuntimeError

    __str__ = derive


class Own(BaseException):
    """An end of the world that only this job knows."""


def chain(length, link="__cause__"):
    error = ValueError("first")
    for number in range(length):
        error, before = ValueError(f"number {number}"), error
        setattr(error, link, before)
    return error


def ring():
    one, other = ValueError("one"), ValueError("other")
    one.__context__, other.__cause__ = other, one
    return one


def nested(levels):
    error = ValueError("innermost")
    for _ in range(levels):
        error = ExceptionGroup("outer", [error])
    return error


def tall():
    """An error whose traceback has twenty thousand steps."""
    trace = None
    for _ in range(20_000):
        trace = types.TracebackType(trace, sys._getframe(), 0, 1)
    return ValueError("from far below").with_traceback(trace)


def unpicklable():
    error = ValueError("held", threading.Lock())
    error.function = lambda: error
    return error


def caused(cause):
    error = ValueError("told")
    error.__cause__ = cause
    return error


def text_of(what):
    return f"(its text could not be made: {what})"


ERRORS = {
    "text raises": (lambda: mute(RuntimeError()), "Mute", text_of("RuntimeError")),
    "text exits": (lambda: mute(SystemExit(3)), "Mute", text_of("SystemExit")),
    "text interrupts": (lambda: mute(KeyboardInterrupt()), "Mute", text_of("KeyboardInterrupt")),
    "text cancels": (lambda: mute(asyncio.CancelledError()), "Mute", text_of("CancelledError")),
    "text is the job's own end": (lambda: mute(Own()), "Mute", text_of("Own")),
    "text recurses": (Endless, "Endless", text_of("RecursionError")),
    "text is odd": (SaysOddText, "SaysOddText", "odd"),
    "cannot be touched": (Untouchable, "Untouchable", None),
    "has no class": (NoClass, "NoClass", ""),
    "lies about its class": (Liar, "Liar", ""),
    "has no name": (nameless, None, ""),
    "notes exit": (Notes, "Notes", ""),
    "cannot be compared": (Unequal, "Unequal", ""),
    "cause exits when asked": (lambda: caused(mute(SystemExit(3))), "ValueError", "told"),
    "cause has notes that exit": (lambda: caused(Notes()), "ValueError", "told"),
    "group": (lambda: ExceptionGroup("two", [ValueError(1), nested(2)]), "ExceptionGroup", "two (2 sub-exceptions)"),
    "group of what exits": (
        lambda: BaseExceptionGroup("ends", [SystemExit(3), KeyboardInterrupt(), asyncio.CancelledError()]),
        "BaseExceptionGroup",
        "ends (3 sub-exceptions)",
    ),
    "hostile group": (lambda: HostileGroup("h", [mute(SystemExit(3))]), "HostileGroup", text_of("TypeError")),
    "huge group": (
        lambda: ExceptionGroup("many", [ValueError(number) for number in range(5_000)]),
        "ExceptionGroup",
        "many (5000 sub-exceptions)",
    ),
    "deep group": (lambda: nested(5_000), "ExceptionGroup", "outer (1 sub-exception)"),
    "long chain of causes": (lambda: chain(3_000), "ValueError", "number 2999"),
    "long chain of contexts": (lambda: chain(3_000, "__context__"), "ValueError", "number 2999"),
    "ring of contexts": (ring, "ValueError", "one"),
    "tall traceback": (tall, "ValueError", "from far below"),
    "surrogate and nul": (lambda: ValueError("\ud800 \0 \udfff"), "ValueError", "? � ?"),
    "cannot be pickled": (unpicklable, "ValueError", None),
    "end of its own": (lambda: Own("over"), "Own", "over"),
    "hostile fatal": (RudeFatal, "RudeFatal", text_of("SystemExit")),
    "retry at no time": (BornWrong, "BornWrong", None),
}


@pytest.mark.parametrize("kept", ["on loop, in memory", "in thread, in a file"])
@pytest.mark.parametrize("name", ERRORS)
@hosted
async def test_whatever_an_error_is_its_run_has_failed_and_says_so(crowded, virtual_time, tmp_path, kept, name):
    make, kind, message = ERRORS[name]

    async def on_loop():
        raise make()

    def in_thread():
        raise make()

    function, store = (on_loop, None) if "loop" in kept else (in_thread, f"sqlite:///{tmp_path}/runs.db")
    for run in await three_runs(crowded, virtual_time, function, store=store):
        assert (run.state, run.attempt, run.result) == (State.FAILED, 1, None)
        assert run.error.type == kind or kind is None
        assert run.error.message == message or message is None
        assert run.summary == run.error.message.strip()
        assert len(run.error.message) < MESSAGE_CHARACTERS + 100
        assert len(run.error.traceback) < TRACEBACK_CHARACTERS + 100


@hosted
async def test_an_error_that_dies_badly_is_let_go_and_has_failed_like_others(crowded, virtual_time, monkeypatch):
    died = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: died.append(unraisable.exc_value))

    class Dies(Exception):
        def __del__(self):
            raise RuntimeError("not even dead")

    Dies.__qualname__ = "Dies"

    async def job():
        raise Dies("told")

    runs = await three_runs(crowded, virtual_time, job)
    gc.collect()
    assert {(run.state, run.error.type, run.summary) for run in runs} == {(State.FAILED, "Dies", "told")}
    assert len(died) == 3


@hosted
async def test_a_retry_on_errors_that_cannot_be_asked_fails_the_run(crowded, virtual_time):
    class Asks(type):
        def __instancecheck__(cls, instance):
            raise RuntimeError

    class Flaky(Exception, metaclass=Asks): ...

    async def job():
        raise ValueError("told")

    runs = await three_runs(crowded, virtual_time, job, retry=Retry(2, on=Flaky))
    assert {(run.state, run.error.type, run.attempt) for run in runs} == {(State.FAILED, "ValueError", 1)}


@pytest.mark.parametrize("error", [OSError, lambda: mute(RuntimeError()), lambda: nested(50), ring])
@hosted
async def test_hostile_errors_are_retried_like_others_and_none_is_called_too_often(crowded, virtual_time, error):
    calls = []

    def job(run: RunContext):
        calls.append(run.attempt)
        raise error()

    runs = await three_runs(crowded, virtual_time, job, retry=Retry(3, first="1s"))
    assert {(run.state, run.attempt) for run in runs} == {(State.FAILED, 3)}
    assert calls == [1, 2, 3] * 3


@hosted
async def test_a_step_that_is_begun_where_a_recursion_ends_keeps_nobody_from_the_store(crowded, virtual_time):
    async def nothing(): ...

    async def deep(levels, run, name):
        await (deep(levels - 1, run, name) if levels else run.step(name, nothing))

    async def dig(run: RunContext):
        begun, limit = 0, sys.getrecursionlimit()
        for levels in range(limit - 300, limit):  # the end comes at each call on the way to the store in turn
            with suppress(RecursionError):
                await deep(levels, run, f"at {levels}")
                begun += 1
        return begun

    job = crowded.add_job(dig, retry=1)
    async with virtual_time(crowded) as time:
        run = await job.submit()
        await unharmed(time)
        assert 0 < await time.until(run.value()) < 300
