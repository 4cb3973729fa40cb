"""What `taskloop doctor` asks of the program: does it load, what does that leave behind, can its jobs ever run.

`loaded` imports the program; all else here looks at what it declares.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from taskloop.cli.findings import Finding, of_error, problem, warning, well
from taskloop.triggers import Cron

if TYPE_CHECKING:
    from taskloop.scheduler import TaskScheduler
    from taskloop.settings import Settings

__all__ = ["ClockChange", "jobs", "loaded", "next_change", "shows_within", "zones"]

T = TypeVar("T")
IMPORT_SECONDS: Final = 30.0
SLOW_SECONDS: Final = 2.0
AHEAD_DAYS: Final = 400
_LISTED: Final = 5


# -- loading it


def loaded(compose: Callable[[], TaskScheduler], folder: Path) -> tuple[TaskScheduler | None, list[Finding]]:
    """The program and what its loading left behind; None: it cannot be loaded. What it prints goes to stderr."""
    before, began = _Surroundings.now(folder), time.monotonic()
    try:
        with redirect_stdout(sys.stderr), _at_most(IMPORT_SECONDS):
            scheduler = compose()
    except Exception as error:  # a module may fail in any way
        return None, of_error("jobs", error)
    took = time.monotonic() - began
    found = [warning("import", f"importing the jobs {text}", mend) for text, mend in before.left(folder)]
    if took > SLOW_SECONDS:
        text = f"importing the jobs took {took:.1f} s, which each command that needs them waits for"
        found.append(warning("import", text, "import what is slow inside the jobs' functions"))
    return scheduler, found or [well("import", f"{took:.1f} s, and nothing was left behind")]


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise `TimeoutError` in what takes longer; only a main thread can be interrupted so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def ring(_number: int, _frame: object) -> None:
        raise TimeoutError(f"importing the jobs was not done after {seconds:g} s")

    former = signal.signal(signal.SIGALRM, ring)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
        signal.setitimer(signal.ITIMER_REAL, left, interval)  # of whoever called us


@dataclass(frozen=True)
class _Surroundings:
    """What an import can leave behind, as it was before."""

    threads: frozenset[int]
    children: frozenset[str]
    sockets: frozenset[str]
    files: frozenset[str]
    folder: str | None
    handlers: dict[int, object] = field(default_factory=dict)

    @classmethod
    def now(cls, folder: Path) -> _Surroundings:
        return cls(
            frozenset(one.ident or 0 for one in threading.enumerate()),
            _children(),
            _sockets(),
            frozenset(one.name for one in folder.iterdir() if one.name != "__pycache__"),
            _here(),
            {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)},
        )

    def left(self, folder: Path) -> Iterator[tuple[str, str]]:
        """What is there now and was not, each with its mend."""
        now = self.now(folder)
        threads = [one.name for one in threading.enumerate() if (one.ident or 0) not in self.threads]
        if threads:
            yield f"started threads: {_list(threads)}", _LATER
        if now.children - self.children:
            yield f"started processes: {_list(sorted(now.children - self.children))}", _LATER
        if now.sockets - self.sockets:
            yield f"opened {len(now.sockets - self.sockets)} sockets, which a fork would share", _LATER
        if now.files - self.files:
            yield f"made files: {_list(sorted(now.files - self.files))}", _LATER
        if now.folder != self.folder:
            yield f"changed the current directory to {now.folder}", "name paths in full instead"
        if now.handlers != self.handlers:
            yield (
                "took over signals, by which a scheduler is stopped",
                "leave signals to `taskloop run`, or to your server",
            )


_LATER: Final = "do it in a job, in an Inject provider, or where your server starts: looking at jobs imports them too"


def _children() -> frozenset[str]:
    try:
        return frozenset(Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii").split())
    except OSError:
        return frozenset()


def _sockets() -> frozenset[str]:
    found = set()
    with suppress(OSError):
        for one in Path("/proc/self/fd").iterdir():
            with suppress(OSError):
                found.add(str(one.readlink()))
    return frozenset(one for one in found if one.startswith("socket:"))


def _here() -> str | None:
    try:
        return str(Path.cwd())
    except OSError:
        return None


def _list(names: list[str]) -> str:
    return ", ".join(names[:_LISTED]) + (f" and {len(names) - _LISTED} more" if len(names) > _LISTED else "")


# -- its jobs


def jobs(scheduler: TaskScheduler, settings: Settings, now: datetime) -> Iterator[Finding]:
    """What is wrong with single jobs, else how many there are."""
    from taskloop.cli import plan, program

    wrong = plan.unfit(scheduler, now)
    for name, text in wrong:
        yield problem(
            "jobs", f"job {name}: {text}", "mend its declaration; `taskloop cron EXPR` shows what a cron means"
        )
    clean = "" if wrong else "; schedules come, parameters have their forms"
    yield well("jobs", f"{len(scheduler)}, {program.origin(settings)}{clean}")


# -- its clocks


def zones(scheduler: TaskScheduler, now: datetime) -> Iterator[Finding]:
    """Which zones the jobs go by, when their clocks change next, and which jobs that touches; who names no zone."""
    from zoneinfo import ZoneInfo

    crons = {job.name: job.trigger for job in scheduler if isinstance(job.trigger, Cron)}
    without = [name for name, cron in crons.items() if cron.timezone is None]
    if without and scheduler.options.timezone is None and scheduler.options.dev is None:
        verb = "names no zone and follows" if len(without) == 1 else "name no zone and follow"
        mend = 'say timezone="Europe/London" there or as scheduler.timezone; "UTC", if that is meant'
        yield warning("time zone", f"{len(without)} of the jobs {verb} UTC: {_list(without)}", mend)
    bound = {name: scheduler.resolved(cron) for name, cron in crons.items()}
    by_zone: dict[str, dict[str, Cron]] = {}
    for name, cron in bound.items():
        if isinstance(cron, Cron):
            by_zone.setdefault(cron.timezone or "UTC", {})[name] = cron
    by_zone.setdefault(scheduler.options.timezone or "UTC", {})
    for zone, there in sorted(by_zone.items()):
        change = None if zone == "UTC" else next_change(ZoneInfo(zone), now)
        if change is None:
            yield well("time zone", f"{zone}: its clocks do not change" + ("" if zone == "UTC" else " within a year"))
            continue
        touched = [name for name, cron in there.items() if shows_within(cron, change)]
        said = f"; that touches {_list(touched)}" if touched else "; that touches no job"
        yield well("time zone", f"{zone}: clocks go {change.text}{said}")


@dataclass(frozen=True)
class ClockChange:
    """A zone's clock is set to another time: from `shown` to `after`, as it shows them."""

    at: datetime
    shown: datetime
    after: datetime

    @property
    def text(self) -> str:
        """When and how, for people."""
        return (
            f"{'forward' if self.after > self.shown else 'back'} {self.shown:%a %d %b %Y %H:%M} to {self.after:%H:%M}"
        )


def next_change(zone: tzinfo, now: datetime) -> ClockChange | None:
    """The next change of a zone's clock; None: none within AHEAD_DAYS."""
    begin, offset = now.replace(microsecond=0), now.astimezone(zone).utcoffset()
    for _ in range(AHEAD_DAYS):
        end = begin + timedelta(days=1)
        if end.astimezone(zone).utcoffset() != offset:
            break
        begin = end
    else:
        return None
    while end - begin > timedelta(seconds=1):
        middle = begin + timedelta(seconds=(end - begin) // timedelta(seconds=2))
        begin, end = (begin, middle) if middle.astimezone(zone).utcoffset() != offset else (middle, end)
    assert offset is not None
    return ClockChange(end, (end + offset).replace(tzinfo=None), end.astimezone(zone).replace(tzinfo=None))


def shows_within(cron: Cron, change: ClockChange) -> bool:
    """Whether a cron names a time that the change leaves out, or that comes twice; one that follows the clock does not."""
    from dataclasses import replace

    fields = cron.expression.split()
    if len(fields) != 5 or any(one.startswith("*") for one in fields[:2]):
        return False
    first, last = sorted((change.shown.replace(tzinfo=UTC), change.after.replace(tzinfo=UTC)))
    due = replace(cron, timezone="UTC").after(first - timedelta(seconds=1))
    return due is not None and due < last
