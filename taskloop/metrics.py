"""Figures for Prometheus: what this process did, counted from its events, and how the whole stands, asked of the store.

Level 6. Counting is a few additions an event; the figures are written down in a thread, and by no library: with an object
a figure, as `prometheus_client` has, two thousand jobs kept the loop from its turn for up to 0.2 s at each scrape.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from taskloop.errors import TaskloopError
from taskloop.events import Event
from taskloop.records import Status
from taskloop.runs import Run, State

if TYPE_CHECKING:
    from taskloop.scheduler import TaskScheduler

__all__ = ["CONTENT_TYPE", "Metrics"]

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
SECONDS: Final = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0)
"""Upper bounds of the buckets of durations and latenesses."""
STORE_SECONDS: Final = 5.0
"""How long the store may take to say how the whole stands."""
_COUNTED: Final = ("succeeded", "failed", "interrupted")
"""Ends that are shown before there is one."""
_KINDS: Final = (
    "store", "stalled", "silent", "failing", "overdue", "stuck", "orphan", "tripped", "loop_blocked", "clock"
)  # fmt: skip
"""Of what needs a person."""


class _Spread:
    """How many values fell below each bound, and their sum."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts: list[int] = [0] * (len(SECONDS) + 1)
        self.total: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds


class Metrics:
    """The figures of one scheduler, from its making on; those of runs are what this process executed."""

    def __init__(self, scheduler: TaskScheduler) -> None:
        self._scheduler = scheduler
        self._runs: Counter[tuple[str, str]] = Counter()
        self._skips: Counter[tuple[str, str]] = Counter()
        self._retries: Counter[str] = Counter()
        self._took: dict[str, _Spread] = {}
        self._late: dict[str, _Spread] = {}
        self._blocks = 0
        self._losses = 0
        self._end: Callable[[], None] | None = None
        self.open()

    def open(self) -> None:
        """Count, from now on."""
        if self._end is None:
            self._end = self._scheduler.feed.subscribe(
                self._count, "started", "retrying", "skipped", "loop_blocked", "store_lost",
                *(state.value for state in (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.INTERRUPTED))
            )  # fmt: skip

    def close(self) -> None:
        """Count no more; what was counted stays."""
        if self._end is not None:
            self._end()
            self._end = None

    def _count(self, event: Event) -> None:
        run = event.run
        if event.name == "loop_blocked":
            self._blocks += 1
        elif event.name == "store_lost":
            self._losses += 1
        elif run is None:
            return
        elif event.name == "started":
            if run.attempt == 1:
                self._spread(self._late, run.job, run.due_at, run.attempt_started_at or event.at)
        elif event.name == "retrying":
            self._retries[run.job] += 1
        elif event.name == "skipped":
            self._skips[run.job, str(run.reason)] += run.count
        else:
            self._runs[run.job, event.name] += 1
            # Else nothing ran to the end: it waited, for another attempt too, or its worker had died whenever that was.
            if run.attempt_started_at is not None and self._is_ours(run):
                self._spread(self._took, run.job, run.attempt_started_at, run.ended_at or event.at)

    def _is_ours(self, run: Run) -> bool:
        worker = self._scheduler.worker
        return worker is not None and run.worker == worker.id

    @staticmethod
    def _spread(spreads: dict[str, _Spread], job: str, since: datetime, until: datetime) -> None:
        found = spreads.get(job)
        if found is None:
            found = spreads[job] = _Spread()
        found.add(max(0.0, (until - since).total_seconds()))

    async def text(self) -> bytes:
        """All figures in Prometheus' text format; where the store does not answer within 5 s, those of this process alone.

        Written in a thread: two thousand jobs have 80,000 figures.
        """
        status: Status | None = None
        try:
            async with asyncio.timeout(STORE_SECONDS):
                status = await self._scheduler.status()
        except (TimeoutError, TaskloopError):
            status = None
        if status is not None and not status.answered:  # what this process knows by itself is no figure of the whole
            status = None
        from taskloop.looking import is_lost

        up = status is not None and not is_lost(self._scheduler)  # of a full disk all can be read, and it takes nothing
        counted = list(self._families_of_runs())
        return await asyncio.to_thread(lambda: _written([*counted, *_families_of_the_whole(status, up)]))

    def _families_of_runs(self) -> Iterator[_Family]:
        """What was counted, copied on the loop, where it changes.

        Of a job that is known here from 0 on: of a count that begins with 1, Prometheus' `increase` misses the first.
        """
        names = [job.name for job in self._scheduler]
        runs = {(name, state): 0 for name in names for state in _COUNTED} | self._runs
        yield "counter", "taskloop_runs", "Runs that ended, by how", ("job", "state"), list(runs.items())
        yield (
            "counter", "taskloop_skips", "Fires that became no run, by why", ("job", "reason"), list(self._skips.items())
        )  # fmt: skip
        tried = {job.name: 0 for job in self._scheduler if job.policy.retry.attempts > 1} | self._retries
        retries = [((job,), count) for job, count in tried.items()]
        yield "counter", "taskloop_retries", "Attempts that failed and were to be tried again", ("job",), retries
        for name, words, spreads in (
            ("taskloop_run_duration_seconds", "How long the last attempt of a run took that ended here", self._took),
            ("taskloop_run_lateness_seconds", "From the due instant to the start of the first attempt", self._late),
        ):
            values = [((job,), (one.counts.copy(), one.total)) for job, one in spreads.items()]
            yield "histogram", name, words, ("job",), values
        yield "counter", "taskloop_loop_blocks", "Times that the loop stood still", (), [((), self._blocks)]
        yield "counter", "taskloop_store_losses", "Times that the store did not answer", (), [((), self._losses)]


_Family = tuple[str, str, str, tuple[str, ...], list[tuple[Any, Any]]]


def _families_of_the_whole(status: Status | None, up: bool) -> Iterator[_Family]:
    from taskloop import __version__

    yield "gauge", "taskloop_info", "The version", ("version",), [((__version__,), 1)]
    words = "Whether the store answers, and takes what this process writes"
    yield "gauge", "taskloop_store_up", words, (), [((), int(up))]
    if status is None:
        return
    jobs = status.standings
    whole = {
        "workers": ("Workers that are alive, but those that only submit", len(status.at_work)),
        "paused": ("Whether everything is paused", status.paused is not None),
        "runs_waiting": ("Runs that wait", status.waiting),
        "runs_running": ("Runs in hand, of all workers", status.in_hand),
    }
    for name, (words, value) in whole.items():
        yield "gauge", f"taskloop_{name}", words, (), [((), int(value))]
    if status.loop_lag_ms is not None:
        lag = status.loop_lag_ms / 1000
        yield "gauge", "taskloop_loop_lag_seconds", "How late the loop is, the worst of all workers", (), [((), lag)]
    kinds = dict.fromkeys(_KINDS, 0) | Counter(one["condition"] for one in status.attention)
    words = "Things that need a person, as GET /api/v1/attention lists them"
    yield "gauge", "taskloop_attention", words, ("kind",), [((kind,), count) for kind, count in kinds.items()]
    from taskloop.conditions import needs

    # Goes by what they need a person for, not by the condition alone: a job that is paused may still be failing or stuck.
    needed = [(one.name, "disabled" if one.condition == "disabled" else needs(one)) for one in jobs]
    for condition in ("overdue", "failing", "stuck", "disabled"):
        flags = [((name,), int(word == condition)) for name, word in needed]
        yield "gauge", f"taskloop_job_{condition}", f"Whether the job is {condition}", ("job",), flags
    times = {
        "last_success": ("When the job last succeeded", [(one, one.last_success) for one in jobs]),
        "next_due": ("When the job is due next", [(one, one.next_due) for one in jobs]),
    }
    for name, (words, found) in times.items():
        values = [((one.name,), at.timestamp()) for one, at in found if at is not None]
        yield "gauge", f"taskloop_job_{name}_timestamp_seconds", words, ("job",), values
    failures = [((one.name,), one.failures) for one in jobs]
    yield "gauge", "taskloop_job_consecutive_failures", "Failures since the last success", ("job",), failures


def _written(families: list[_Family]) -> bytes:
    bounds = [*map(str, SECONDS), "+Inf"]
    lines: list[str] = []
    for kind, called, words, labels, values in families:
        name = f"{called}_total" if kind == "counter" else called
        lines += f"# HELP {name} {words}", f"# TYPE {name} {kind}"
        for given, value in values:
            of = ",".join(f'{label}="{_escaped(word)}"' for label, word in zip(labels, given, strict=True))
            if kind == "histogram":
                counts, total = value
                below = list(accumulate(counts))  # Prometheus counts up to each bound
                lines += [
                    f'{name}_bucket{{{of},le="{bound}"}} {count}' for bound, count in zip(bounds, below, strict=True)
                ]
                lines += f"{name}_count{{{of}}} {below[-1]}", f"{name}_sum{{{of}}} {total}"
            else:
                lines.append(f"{name}{{{of}}} {value}" if of else f"{name} {value}")
    return "\n".join([*lines, ""]).encode()


def _escaped(word: str) -> str:
    return word.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
