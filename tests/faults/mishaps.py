"""Errors instead of death: calls on the store's files fail for a while, or once, and the process must live.

A `Mishap` is an error at the k-th call of a kind, once (`span` 0) or from then on for `span` seconds. The process must go
on living, say so in its log while the fault lasts, answer `status`, be well soon after the fault ended, and keep every
promise of the torture. A store that cannot be opened at the start is refused with its exit code instead; the next start
must then succeed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import rules
import torture
import tracing
import witness
from adapter import Scheduler
from facts import SLACK, now_us
from lives import Process, TooLong, wait_until
from torture import Errands, Outcome, Round

WELL_SECONDS = 12.0 * SLACK
"""Within this after the end of a fault every job runs again."""
SPAN = 2.5
CAUSES = ("full", "I/O", "unable to open", "cannot be read", "Too many open files")
"""One of these must stand in the message that refuses a store: what the system said, not what followed from it."""


@dataclass(frozen=True)
class Mishap:
    """Which calls fail, how, and for how long."""

    call: str
    error: str
    number: int
    """The first of them: the k-th in its thread, counted from the start or, with `late`, from when all jobs ran."""
    span: float = 0.0
    """Seconds for which they go on failing; 0: only this one fails."""
    times: int = 1
    """Without a span: how many fail in a row. SQLite repeats an interrupted call for as long as it is interrupted."""
    late: bool = False
    anywhere: bool = False
    """Every call of the process, not only those on the store's files."""

    @property
    def name(self) -> str:
        more = f"-for-{self.span:g}s" if self.span else f"-times-{self.times}" if self.times > 1 else ""
        return f"{self.error}-at-{self.call}-{self.number}{more}{'-late' if self.late else ''}"

    @property
    def when(self) -> str:
        return f"{self.number}+" if self.span else f"{self.number}..{self.number + self.times - 1}"


def singles(numbers: Sequence[int]) -> Iterator[Mishap]:
    """One failing call each; the first numbers strike the start, which may be refused, others the running program."""
    for number in numbers:
        for error in ("EIO", "ENOSPC", "EINTR"):
            yield Mishap("pwrite64", error, number)
        yield Mishap("fdatasync", "EIO", 1 + number // 10)
        yield Mishap("pread64", "EIO", 1 + number // 5)
        yield Mishap("pread64", "EIO", 1 + number // 20, late=True)
    yield Mishap("pwrite64", "EINTR", 40, times=50)
    yield Mishap("ftruncate", "EIO", 1)
    yield Mishap("unlink", "EIO", 1)
    yield Mishap("openat", "EMFILE", 1)


def spans() -> Iterator[Mishap]:
    """Faults that last, and fall upon a program that has been at work."""
    yield Mishap("pwrite64", "ENOSPC", 7, SPAN, late=True)
    yield Mishap("fdatasync", "EIO", 2, SPAN, late=True)
    yield Mishap("pwrite64", "EIO", 10, SPAN, late=True)
    yield Mishap("pread64", "EIO", 1, SPAN, late=True)
    yield Mishap("openat", "EMFILE", 1, SPAN, late=True, anywhere=True)


def carry_out(scheduler: Scheduler, mishap: Mishap, folder: Path, *, seed: int = 0, keep: bool = False) -> Outcome:
    """Do a round; its folder is removed again unless something was broken."""
    one = Round(scheduler, torture.Blow(), folder, seed)
    one.tell("mishaps", mishap.name, mishap=asdict(mishap))
    try:
        if _begin(one, mishap):
            _be_well(one)
            one.look("after the fault", settled=True)
            one.finish()
    finally:
        one.close()
    if one.errands is not None:
        one.outcome.broken += one.errands.broken
    one.outcome.struck = tracing.injected(folder / "trace") > 0
    if not keep and not one.outcome.broken:
        shutil.rmtree(folder)
    return one.outcome


def _begin(one: Round, mishap: Mishap) -> bool:
    """The life with its fault, up to its end; gives whether the process lives, as it must."""
    store = one.scheduler.store(one.folder)
    files = [] if mishap.anywhere else [store, store.with_name(store.name + "-wal")]
    words = tracing.failing(mishap.call, mishap.error, mishap.when, one.folder / "trace", files)
    process = one.start(() if mishap.late else [words[0], "-D", *words[1:]])
    if not _ready(one, process):
        return _refused(one, process)
    if mishap.late:
        _first_calls(one, process)
        tracer: subprocess.Popen[bytes] | None = torture.attach(words, process)
    else:
        tracer = None
    with Errands(one, lambda: process.lives) as one.errands:
        _go_on(one, process, mishap)
    let_go(process)
    if tracer is not None:
        tracer.wait(timeout=10)
    if not process.lives:
        one.broke("errors", f"it died of {mishap.name}, code {process.code}:\n{process.log[-1500:]}")
    return process.lives


def _ready(one: Round, process: Process) -> bool:
    try:
        process.get_ready()
    except TooLong as error:
        if process.lives:
            one.broke("errors", f"neither ready nor refused: {error}")
            let_go(process)
        return False
    return True


def _refused(one: Round, process: Process) -> bool:
    """It could not open its store: the code, the cause and no traceback; the next start must succeed."""
    if process.code not in one.scheduler.refused or "Traceback" in process.log:
        one.broke("errors", f"at the start it ended with {process.code}:\n{process.log[-1500:]}")
    elif not any(word in process.log for word in CAUSES):
        one.broke("errors", f"at the start it was refused, and not why:\n{process.log[-400:]}")
    process.kill()
    one.recover()
    return one.processes[-1].lives


def _first_calls(one: Round, process: Process) -> None:
    """Before the fault begins every job has run: what it opens, it has opened."""
    wait_until(lambda: not one.unsettled(), seconds=torture.SETTLE_SECONDS, what="every job has run once")


def _go_on(one: Round, process: Process, mishap: Mishap) -> None:
    """Live with the fault for its span; while it lasts, the log must say so and `status` must answer."""
    began = time.monotonic()
    while process.lives and time.monotonic() - began < max(mishap.span, torture.SCRIPT_SECONDS):
        time.sleep(0.05)
    if not mishap.span or not process.lives:
        return
    struck = tracing.injected(one.folder / "trace")
    if struck and mishap.error in ("EIO", "ENOSPC") and not one.scheduler.troubles(process.log):
        one.broke("errors", f"{struck} calls failed with {mishap.error} and the log says nothing of it")
    answer = one.command(one.scheduler.health())
    if answer.code not in (0, 1):
        one.broke("errors", f"`status` ended with {answer.code} during the fault: {answer.err[-300:]}")


def let_go(process: Process) -> None:
    """The end of the fault: its tracer, which is our grandchild, heeds SIGTERM and detaches."""
    tracer = process.tracer()
    if tracer:
        os.kill(tracer, signal.SIGTERM)
        wait_until(lambda: not process.tracer() or not process.lives, seconds=10, what="the tracer lets go")


def _be_well(one: Round) -> None:
    """Every job runs again, begun after the fault was over; measured."""
    since = now_us()
    off = rules.TOGGLED  # the errands left it switched off

    def owed() -> list[str]:
        ran = {call.job for call in witness.read(one.folder).calls if call.outcome and call.began > since}
        return [
            f"{rule.name} has not run" for rule in rules.ALONE.values() if rule.period and rule.name not in {*ran, off}
        ]

    began = time.monotonic()
    one.expect("errors", owed, WELL_SECONDS, "every job runs again after the fault")
    one.outcome.catch_ups.append(time.monotonic() - began)
    one.expect("errors", one.unsettled, torture.SETTLE_SECONDS, "nothing is stuck after the fault")


@dataclass(frozen=True)
class SlowStop:
    """An orderly stop on a disk that takes its time: `after` so many seconds, with each flush so much longer."""

    after: float
    flush_seconds: float = 0.04

    @property
    def name(self) -> str:
        return f"slow-stop-after-{self.after:.3f}s"


def stop_slowly(scheduler: Scheduler, stop: SlowStop, folder: Path, *, seed: int = 0, keep: bool = False) -> Outcome:
    """Do a round; what is begun while the stop begins must be on record as ended when it is over."""
    one = Round(scheduler, torture.Blow(), folder, seed)
    one.tell("slow stop", stop.name, stop=asdict(stop))
    try:
        process = one.start(tracing.slow("fdatasync", stop.flush_seconds, folder / "trace"))
        process.get_ready()
        time.sleep(stop.after)  # the moment itself is what is tried
        one.finish()
        one.outcome.struck = True
    finally:
        one.close()
    if not keep and not one.outcome.broken:
        shutil.rmtree(folder)
    return one.outcome
