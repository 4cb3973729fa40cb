"""Jobs that are found in a process of their own by their names."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date, timedelta
from pathlib import Path

from taskloop import Fatal, Inject, Jobs, Retry, RetryAt, RunContext, current_run

jobs = Jobs()
language = ContextVar("language", default="en")
precision = ContextVar("precision", default="roughly")
precision.set("to the cent")  # for all jobs here


class RetryWhenever(RetryAt):
    """Ends whoever asks when, or cannot be sent home; as classes of jobs may."""

    def __init__(self, answer):
        super().__init__("1s")
        self.answer = answer

    when = property(lambda self: self.answer(), lambda self, _: None)


class Unwanted(ValueError):
    """Cannot be rebuilt from its arguments."""

    def __init__(self, first, second):
        super().__init__("unwanted", threading.Lock())


@jobs.job(executor="process")
def told(run: RunContext, day: date, number: int = 2):
    context = current_run()
    assert context is run
    return {
        "pid": os.getpid(), "day": day.year, "number": number, "id": run.id, "job": run.job, "attempt": run.attempt,
        "key": run.key, "worker": run.worker, "params": dict(run.params), "schedule": run.schedule,
        "due_at": run.due_at, "cancelled": run.cancelled, "main": threading.current_thread() is threading.main_thread(),
    }  # fmt: skip


@jobs.job(executor="process", secret=("word",))
def hushed(run: RunContext, word: str, fails: bool = False):
    run.progress(1, message="x" * 995 + word)
    run.log("x" * 3995 + word)
    if fails:
        raise OSError(f"no luck with {word}")
    return {"word": word, "params": dict(run.params), "length": len(word)}


class UnsentDelta(timedelta):
    """Cannot be pickled."""

    def __reduce__(self):
        raise TypeError("not sent")


@jobs.job(executor="process")
def speaking(wanted: str = ""):
    before = language.get()
    language.set(wanted)
    return [before, os.getpid()]


@jobs.job(executor="process")
def exact():
    return precision.get()


@jobs.job(executor="process")
def pid(path: str = ""):
    return os.getpid()


@jobs.job(executor="process")
def forking(fails: bool = False):
    child = os.fork()
    if child == 0:
        if fails:
            raise ValueError("of the fork")
        return "the fork"
    return [os.getpid(), os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]


@jobs.job(executor="process")
def orphaning(path: str):
    """Dies while what it has forked lives on."""
    if os.fork() == 0:
        Path(path).write_text(str(os.getpid()))
        signal.pause()
    while not Path(path).exists() or not Path(path).read_text():
        time.sleep(0.01)
    os._exit(1)


@jobs.job(executor="process")
def cramping(how: str):
    """Leaves a process in which nothing can be opened, or found."""
    if how == "files":
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    else:
        sys.modules.clear()


@jobs.job(executor="process")
def talkative():
    print("x" * 300_000)
    return os.getpid()


@jobs.job(executor="process")
def parental():
    """How forks of the job end that are asked to by signals."""
    ends = []
    for number in (signal.SIGTERM, signal.SIGINT):
        child = os.fork()
        if child == 0:
            signal.pause()
        os.kill(child, number)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return ends


@jobs.job(executor="process")
def lasting(path: str):
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)


@jobs.job(executor="process", retry=Retry(2, first="10ms"))
def dying(how: str):
    run = current_run()
    if run.attempt > 1:
        return os.getpid()
    if how == "exit":
        os._exit(0)
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    ctypes.string_at(0)


@jobs.job(executor="process", retry=Retry(3, first="10ms"))
def raising(what: str):
    if what == "exit":
        sys.exit(3)
    if what == "interrupt":
        raise KeyboardInterrupt
    if what == "stop":
        raise StopIteration
    if what == "fatal":
        raise Fatal("never")
    if what == "later" and current_run().attempt == 1:
        raise RetryAt("10m")
    if what == "whenever":
        raise RetryWhenever(sys.exit)
    if what == "never sent":
        raise RetryWhenever(lambda: UnsentDelta(seconds=1))
    if what == "local":

        class Local(OSError):
            pass

        raise Local("of a function")
    if what == "group":
        raise ExceptionGroup("two", [ValueError("one"), Fatal("never")])
    if what == "unwanted":
        raise Unwanted(1, 2)


@jobs.job(executor="process")
def odd_result(what: str):
    return threading.Lock() if what == "lock" else iter([1, 2]) if what == "iterator" else "x" * 2_000_000


@jobs.job(executor="process")
def noisy():
    """Write and read where anyio speaks with its parent."""
    os.write(1, b"RETURN 3\nxxx")
    subprocess.run(["echo", "hello"], check=True)
    print("printed")
    read = subprocess.run(["cat"], check=True, stdout=subprocess.PIPE).stdout
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    return [len(read), sys.stdin.read()]


@jobs.job(executor="process")
def reporting(run: RunContext, path: str):
    for number in range(20_000):
        run.progress(number, 20_000, f'line {number}\n"ü"')
    run.log("half way", level="warning")
    run.progress(10_000, 20_000, "half way")
    while not Path(path).exists():
        time.sleep(0.01)
    run.progress(20_000, 20_000, "done")


@jobs.job(executor="process")
def chatting(run: RunContext):
    for number in range(3_000):
        run.log(f"line {number} {'x' * 1_000}")


@jobs.job(executor="process")
def calling(run: RunContext, verb: str):
    getattr(run, verb)("name", print)


@jobs.job(executor="process")
def checking(run: RunContext):
    run.check_cancelled()
    return run.cancelled


TAPE = []


def opened(run: RunContext):
    TAPE.append(f"open {run.id}")
    try:
        yield os.getpid()
    finally:
        TAPE.append("close")


@contextmanager
def refusing(value=Inject(opened)):
    try:
        yield value
    finally:
        if current_run().params.get("fails"):
            raise OSError("no commit")


@jobs.job(executor="process")
def given(fails: bool = False, value: int = Inject(refusing), other: int = Inject(opened)):
    TAPE.append("job")
    return [value == other == os.getpid(), *TAPE]


@jobs.job(executor="process")
def tape():
    return TAPE


@jobs.job(executor="process")
def hidden():
    return 1


plain = hidden
hidden = None
