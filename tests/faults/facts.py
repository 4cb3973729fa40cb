"""What the harnesses reason about, as plain values: what a witness saw, what the tables claim, what was said and done.

Nothing here knows the product. Instants are whole microseconds since 1970 UTC by the true clock of the machine; the
witness itself writes monotonic nanoseconds, which no shifted clock touches, and `witness` turns them into these.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, NamedTuple

SECOND: Final = 1_000_000
SLACK: Final = float(os.environ.get("FAULTS_SLACK", "1"))
"""How many times as long everything may take that is promised in seconds: more than 1 on a machine that is busy with other
things. What is promised without a time, that nothing is doubled, lost, changed or too many at once, knows no slack.
"""
SPAN: Final = min(SLACK, 2.0)
"""How many times as long the lease is, then."""
FINAL: Final = ("succeeded", "failed", "cancelled", "interrupted", "skipped")


def now_us() -> int:
    return time.time_ns() // 1000


def in_words(instant: int | None) -> str:
    """An instant as a time of day: what a person compares with a log."""
    if instant is None:
        return "never"
    return f"{time.strftime('%H:%M:%S', time.gmtime(instant // SECOND))}.{instant % SECOND // 1000:03}"


@dataclass(frozen=True, slots=True)
class Rule:
    """A job of the harness and what is asked of the scheduler for it; durations in seconds."""

    name: str
    every: float | None = None
    cron: str | None = None
    """A cron expression whose fires are `period` apart."""
    period: float = 0.0
    """Seconds between two due instants; 0: runs only when asked."""
    takes: float = 0.0
    fails: int = 0
    """How many of the first attempts raise."""
    attempts: int = 1
    overlap: str = "skip"
    missed: str = "latest"
    on_crash: str | None = None
    thread: bool = False
    group: str | None = None
    max_running: int | None = None
    first: str = "now"
    formerly: str | None = None
    """The name an earlier version of the program has for it."""
    fixed_grid: bool = False
    """Whether the due instants are the same in every life, whoever saw the job first."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a job, as the witness saw it."""

    job: str
    schedule: str | None
    due: int | None
    run: str
    key: str
    attempt: int
    token: int | None
    worker: str | None
    pid: int
    began: int
    ended: int | None = None
    outcome: str | None = None
    """`returned`, `raised` or `cancelled`; None: the call never came to its last line."""


@dataclass(frozen=True, slots=True)
class Run:
    """A row of runs, as the tables claim it."""

    id: str
    job: str
    schedule: str | None
    state: str
    due: int
    reason: str | None = None
    cause: str | None = None
    key: str | None = None
    attempt: int = 1
    attempts: int = 1
    until: int | None = None
    count: int = 1
    ready: int | None = None
    created: int | None = None
    attempt_started: int | None = None
    ended: int | None = None
    worker: str | None = None
    token: int | None = None

    @property
    def last_due(self) -> int:
        """The last instant this row stands for."""
        return self.due if self.until is None else self.until


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that ended before its run did."""

    run: str
    attempt: int
    token: int
    started: int | None
    outcome: str
    ended: int | None = None
    worker: str | None = None


@dataclass(frozen=True, slots=True)
class Worker:
    id: str
    pid: int
    started: int
    stopped: int | None


@dataclass(frozen=True, slots=True)
class Schedule:
    id: str
    job: str
    next_due: int | None


@dataclass(frozen=True, slots=True)
class Books:
    """All that the tables claim at one moment."""

    runs: Sequence[Run] = ()
    attempts: Sequence[Attempt] = ()
    workers: Sequence[Worker] = ()
    schedules: Sequence[Schedule] = ()
    switched: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """By job and `enabled` or `paused`: how it stands by hand, `disabled`, `enabled`, `paused`, `resumed`."""
    taken: int = 0
    """What was committed before this moment is in here."""

    def by_id(self) -> dict[str, Run]:
        return {run.id: run for run in self.runs}


@dataclass(frozen=True, slots=True)
class Said:
    """A state that somebody was told: by a line of the log, or by what a command printed."""

    word: str
    run: str
    job: str
    attempt: int = 0
    key: str | None = None
    where: str = "log"


@dataclass(frozen=True, slots=True)
class Switched:
    """A command that switched a job, and whether it was acknowledged; `asked` and `done` bound the moment."""

    job: str
    word: str
    asked: int
    done: int
    acknowledged: bool

    @property
    def kind(self) -> str:
        return "paused" if self.word in ("paused", "resumed") else "enabled"


@dataclass(frozen=True, slots=True)
class Life:
    """A process of the product, from its start to its end."""

    pid: int
    began: int
    ended: int | None = None
    how: str = ""
    """`killed`, `stopped`, or empty while it lives."""
    ready: int | None = None


@dataclass(frozen=True, slots=True)
class Freeze:
    """A span in which a process was stopped by SIGSTOP."""

    pid: int
    since: int
    until: int


@dataclass(frozen=True, slots=True)
class Apart:
    """A span in which nothing, or no answer, came through between a process and the server of its store."""

    pid: int
    since: int
    until: int


@dataclass(frozen=True, slots=True)
class Outage:
    """A span in which the server of the store was away, or threw out everybody, or a line to it was cut."""

    since: int
    until: int


@dataclass(frozen=True, slots=True)
class Step:
    """A moment at which the clock of a process was set: by how many seconds, forward above zero."""

    pid: int
    at: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Use:
    """What a process held at one moment."""

    pid: int
    at: int
    files: int
    threads: int
    memory_kb: int


@dataclass(frozen=True)
class Story:
    """Everything known of one round; the checks are functions of this and of nothing else."""

    rules: Mapping[str, Rule]
    calls: Sequence[Call] = ()
    books: Books = Books()
    said: Sequence[Said] = ()
    switched: Sequence[Switched] = ()
    lives: Sequence[Life] = ()
    freezes: Sequence[Freeze] = ()
    aparts: Sequence[Apart] = ()
    outages: Sequence[Outage] = ()
    steps: Sequence[Step] = ()
    uses: Sequence[Use] = ()
    fenced: frozenset[str] = frozenset()
    """Runs of which an owner said that they had become another's."""
    holding: frozenset[int] = frozenset()
    """Pids of which others said that they were stopped in a transaction, and let nobody else write."""
    lease: float = 1.0
    heartbeat: float = 0.2
    places: Mapping[str, int] = field(default_factory=dict)
    healed: int | None = None
    """When the last fault was over; None: nobody says."""
    stopped: int | None = None
    """When all were asked to stop: from then on nothing new begins."""
    strangers: Sequence[str] = ()
    """Files that appeared beside the store and are not the store's own."""
    torn: int = 0
    """Lines of the witness that were cut by a kill."""

    @property
    def shifted(self) -> set[int]:
        """Pids of processes whose clock was wrong for a while: what they wrote of time is no measure."""
        return {step.pid for step in self.steps}

    @cached_property
    def claims(self) -> dict[tuple[str, int | None], int]:
        """By run and token, the moment at which a record says that it was claimed."""
        claimed = {(one.run, one.token): one.started for one in self.books.attempts}
        claimed |= {(run.id, run.token): run.attempt_started for run in self.books.runs}
        return {place: at for place, at in claimed.items() if at is not None}

    def rule(self, job: str) -> Rule | None:
        """The rule of a job by its name now or by an earlier one."""
        return self.rules.get(self.canonical(job))

    def canonical(self, job: str) -> str:
        for rule in self.rules.values():
            if rule.formerly == job:
                return rule.name
        return job


class Broken(NamedTuple):
    """A promise that was not kept: which one, and what was seen."""

    promise: str
    text: str
