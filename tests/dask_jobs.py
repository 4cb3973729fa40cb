"""Jobs that workers of a Dask cluster find by their names."""

from __future__ import annotations

import os
import signal
import time
from contextlib import contextmanager
from datetime import date
from pathlib import Path

from taskloop import Inject, Jobs, Retry, RunContext, current_run

jobs = Jobs()
flow = jobs.flow("planned")


class Unwanted(ValueError):
    """Cannot be rebuilt from its arguments."""

    def __init__(self, first, second):
        super().__init__(f"unwanted {first}")


@contextmanager
def opened(run: RunContext):
    run.log(f"open {os.getpid()}")
    yield run.id
    run.log("closed")


@jobs.job(executor="dask", secret=("word",))
def told(run: RunContext, day: date, word: str = "", given: int = Inject(opened)):
    assert current_run() is run
    run.progress(1, 4, f"a quarter {word}")
    run.log(f"hears {word}", level="warning")
    return {"pid": os.getpid(), "year": day.year, "run": run.id, "given": given, "attempt": run.attempt, "word": word}


@jobs.job(executor="dask")
def lists(run: RunContext):
    run.log("reading caf\udce9.txt")  # as os.listdir has a name that is not UTF-8
    return os.getpid()


@jobs.job(executor="dask", retry=Retry(2, first="10ms", on=ValueError))
def raising(what: str):
    if what == "exit":
        raise SystemExit(3)
    raise Unwanted(what, 2)


@jobs.job(executor="dask", retry=Retry(3, first="10ms"))
def dying(run: RunContext, path: str):
    with Path(path).open("a") as file:
        file.write(f"{run.attempt} {os.getpid()}\n")
    if run.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


@jobs.job(executor="dask", retry=Retry(2, first="10ms"))
def lasting(run: RunContext, path: str, deaf: bool = False):
    """Go on until it is asked to end, or the file is gone."""
    Path(path).write_text(str(os.getpid()))
    for number in range(20_000):
        run.progress(number, 20_000, f"round {number}")
    run.log("half way")
    while Path(path).exists():
        time.sleep(0.01)
        if run.cancelled and not deaf:
            Path(path).with_suffix(".heard").touch()
            run.check_cancelled()
    return "done"


@jobs.job(executor="dask")
def talking(run: RunContext):
    for number in range(300):
        run.log(f"line {number} {'x' * 100}")
    run.call(print)


@flow.step()
def halves(number: int):
    return number // 2


@flow.step(executor="dask", retry=Retry(2, first="10ms"))
def doubled(run: RunContext, halves: int):
    run.log(f"call {run.attempt}")
    if run.attempt == 1:
        raise OSError("not at first")
    return [halves * 2, run.step, os.getpid()]


@flow.step()
async def added(doubled: list[object]):
    return [*doubled, "here"]
