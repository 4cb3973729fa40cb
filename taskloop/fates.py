"""What becomes of a fire, of a claim and of an end: decided from values, for every store alike.

Level 5. No connection, no clock: a store reads what these ask for, and writes what they answer. Start at `outcome`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, Final

from taskloop.clock import EPOCH, from_microseconds, later, microseconds
from taskloop.errors import KeyConflict
from taskloop.rows import (
    Column,
    Row,
    columns_of,
    encode,
    moment,
    read_run,
    write_failure,
    write_moments,
    write_progress,
    write_result,
    write_results,
    write_words,
)
from taskloop.runs import Lost, Raised, Reason, Run, RunId, ShutDown, State, cancelled_by, given_up
from taskloop.schedules import Admission, Fire, admit
from taskloop.store_data import Firing, Settling, Terms

__all__ = [
    "MOST_EXPIRED",
    "PLAIN_COLUMNS",
    "SETTLED_COLUMNS",
    "Fullness",
    "Made",
    "admitted",
    "attempted",
    "cancelled",
    "claimed",
    "counted",
    "is_plain",
    "lengthens",
    "numbered",
    "outcome",
    "plainly_settled",
    "regrouped",
    "settled",
    "take",
    "tried",
]

SETTLED_COLUMNS: Final = (
    "id",
    "token",
    "state",
    "reason",
    "data",
    "attempt",
    "ready_at",
    "ended_at",
    "worker",
    "progress",
    "summary",
    "result",
    "error",
)
PLAIN_COLUMNS: Final = ("id", "token", "state", "ended_at", "summary", "result")
"""All that a plain end changes."""
_NOTHING: Final = timedelta(0)
_MICROSECOND: Final = timedelta(microseconds=1)


# -- fires

Made = dict[tuple[str, int, int, bool], tuple[Firing, Run]]
"""What firings have become: runs by job, policy, fire and whether they start; each with its firing, so that no other object
has the `id` of its parts.
"""


def outcome(
    firing: Firing, active: Sequence[Run], worker: str, now: datetime, made_before: Made
) -> tuple[list[Run], list[Run], list[RunId]]:
    """The rows a firing becomes, the waiting runs that give way to it, and the running ones asked to.

    `made_before`: what was made of others carried out together with it, for the same worker and instant. Empty for the
    first, and added to: of those that are alike one run is made, and the others from it.
    """
    fires = firing.plan.fires
    if not active and len(fires) == 1 and fires[0].reason is None:  # what nearly every fire is
        schedule, policy = firing.plan.schedule, firing.policy
        kind = schedule.job, id(policy), id(fires[0]), firing.starts
        if kind not in made_before:
            starts = firing.starts and not policy.constrained
            made_before[kind] = firing, _begin(firing, fires[0], worker if starts else None, now)
        run = made_before[kind][1]
        return [run.changed(schedule=schedule.id, params=firing.params, data={})], [], []
    answer = admit(firing.policy, [run.state for run in active])
    runs: list[Run] = []
    gone: list[Run] = []
    asked: list[RunId] = []
    ready = [one for one in fires if one.reason is None]
    for one in fires:
        if one.reason is None and answer is Admission.SKIP:
            runs.append(_skip(firing, one, Reason.OVERLAP, now, _in_the_way(active, now)))
        elif one.reason is None:
            starts = firing.starts and not active and one is ready[0] and not firing.policy.constrained
            runs.append(_begin(firing, one, worker if starts else None, now))
        else:
            late: dict[str, Any] = {"late_seconds": round((now - one.due_at).total_seconds(), 3)}
            runs.append(_skip(firing, one, one.reason, now, {**late, **firing.because}))
    if ready and answer is Admission.REPLACE:
        gone = [given_up(run, Reason.SUPERSEDED.value, now) for run in active if run.state is State.WAITING]
        asked = [run.id for run in active if run.state is State.RUNNING]
    return runs, gone, asked


def _in_the_way(active: Sequence[Run], now: datetime) -> dict[str, Any]:
    blocking = active[0]
    since = blocking.started_at or blocking.created_at
    return {
        "run": blocking.id,
        "state": blocking.state.value,
        "age_seconds": round((now - since).total_seconds(), 3),
    }


def _begin(firing: Firing, fire: Fire, worker: str | None, now: datetime) -> Run:
    """The run of a fire: running where `worker` has a slot for it, else waiting."""
    policy, schedule = firing.policy, firing.plan.schedule
    started = worker is not None
    return Run(
        job=schedule.job,
        schedule=schedule.id,
        state=State.RUNNING if started else State.WAITING,
        cause=fire.cause,
        params=firing.params,
        attempt=int(started),
        attempts=policy.retry.attempts,
        due_at=fire.due_at,
        ready_at=fire.due_at,
        created_at=now,
        started_at=now if started else None,
        attempt_started_at=now if started else None,
        worker=worker,
        token=int(started),
        priority=policy.priority,
        group=policy.group,
        expires_at=None if started or policy.max_late is None else later(fire.due_at, policy.max_late),
    )


def _skip(firing: Firing, fire: Fire, reason: Reason, now: datetime, data: dict[str, Any]) -> Run:
    schedule = firing.plan.schedule
    return Run(
        job=schedule.job,
        schedule=schedule.id,
        state=State.SKIPPED,
        reason=reason.value,
        cause=fire.cause,
        params=firing.params,
        due_at=fire.due_at,
        until_at=fire.until_at,
        ready_at=fire.due_at,
        created_at=now,
        ended_at=now,
        count=fire.count,
        data=data,
    )


def lengthens(run: Run, last: Sequence[Any]) -> bool:
    """Whether a disabled fire is counted into the last row of its schedule, so that a job off for a year is one row.

    `last` has the reason, the state, the instant up to which it counts, and the data. Only on: after a clock was set back a
    fire may be due before that. What another switch has off, or the declaration once a switch is over, is a row of its own,
    for each says who it was and why.
    """
    reason, state, until, data = last
    if (reason, state) != (Reason.DISABLED, State.SKIPPED) or until >= microseconds(run.due_at):
        return False
    return (off := _off_by(run.data)) == {} or off == _off_by(json.loads(data) if data else {})


def _off_by(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: fact for name, fact in data.items() if name.startswith("disabled_")}


def numbered(run: Run, number: int) -> Run:
    object.__setattr__(run, "id", number)  # ours alone until it is returned: a copy of 30 fields costs 10 µs
    return run


def tried(firing: Firing, trials: Mapping[str, int | None]) -> Firing:
    """A firing of a job whose breaker lets one run through: its newest fire alone, none beside an active run."""
    trial = trials[firing.plan.schedule.job]
    ready = [one for one in firing.plan.fires if one.reason is None]
    through = ready[-1:] if trial is None else []
    fires = tuple(
        one if one.reason is not None or one in through else replace(one, reason=Reason.DISABLED)
        for one in firing.plan.fires
    )
    because = {**firing.because, **({"trial": trial} if trial is not None else {})}
    return firing._replace(plan=firing.plan._replace(fires=fires), because=because)


# -- claims

MOST_EXPIRED: Final = 1_000
"""Fires that are skipped in one go because they waited too long: where there are so many the next go looks for more."""


class Fullness:
    """Which jobs may start no other run: their own limit or their group's is reached."""

    def __init__(self, terms: Mapping[str, Terms], running: Sequence[Sequence[Any]]) -> None:
        """`running`: job, group and number of what runs; not asked for where no job has a limit."""
        self._terms = terms
        self._jobs: Counter[str] = Counter()
        self._groups: Counter[str | None] = Counter()
        for job, group, number in running:
            # By the group that stands in the row: a run of a job that only another program knows takes a place too.
            self._jobs[job] += number
            self._groups[group or (terms[job].group if job in terms else None)] += number
        self.jobs: set[str] = {job for job in terms if self._is_full(job)} if running else set()

    def _is_full(self, job: str) -> bool:
        one = self._terms[job]
        return self.waits_for_group(job) or (one.max_running is not None and self._jobs[job] >= one.max_running)

    def waits_for_group(self, job: str) -> bool:
        """Whether the group of a job has no place."""
        one = self._terms.get(job)
        return one is not None and one.group is not None and self._groups[one.group] >= one.places

    def gated(self, job: str) -> bool:
        return self._terms[job].gated

    def take(self, job: str) -> bool:
        """Count one more run of `job`, unless there is no place."""
        if job in self.jobs or self._is_full(job):
            self.jobs.add(job)
            return False
        self._jobs[job] += 1
        group = self._terms[job].group
        if group:
            self._groups[group] += 1
        return True


def take(rows: Sequence[list[Any]], full: Fullness, chosen: list[list[Any]]) -> int:
    """Add those rows to `chosen` that no limit refuses; gives how many."""
    schedules = {row[2] for row in chosen}
    taken = 0
    for row in rows:
        gated = row[2] is not None and row[2] in schedules and full.gated(row[1])
        if not gated and full.take(row[1]):
            chosen.append(row)
            schedules.add(row[2])
            taken += 1
    return taken


def regrouped(rows: Sequence[list[Any]], terms: Mapping[str, Terms]) -> list[tuple[str | None, int]]:
    """Let rows that begin take a place in the group that their job is in by now, as their limits were reckoned: a version of
    before had it in another, it may be, when they were asked for. Gives group and id of those.
    """
    found = []
    for row in rows:
        group = terms[row[1]].group
        if row[29] != group:
            row[29] = group
            found.append((group, row[0]))
    return found


def claimed(row: list[Any], worker: str, now: datetime) -> Run:
    at = microseconds(now)
    row[3], row[9], row[14], row[19], row[20] = "running", row[9] + 1, None, worker, row[20] + 1
    row[16], row[17], row[22], row[25] = row[16] if row[16] is not None else at, at, None, None
    return read_run(row)


# -- ends


def cancelled(one: Settling, actor: str | None, reason: str | None, at: int) -> Settling:
    if one.after.state is not State.WAITING:
        return one
    started = one.before.attempt_started_at
    ended_at = max(from_microseconds(at), started) if started is not None else from_microseconds(at)
    run = one.before.changed(data=one.after.data, error=one.after.error, progress=one.after.progress)
    return one._replace(after=cancelled_by(actor, run, reason, ended_at))


def settled(one: Settling) -> Row:
    run = one.after
    return (
        run.id,
        one.before.token,
        run.state.value,
        run.reason,
        encode(run.data),
        run.attempt,
        microseconds(run.ready_at),
        moment(run.ended_at),
        run.worker,
        write_progress(run.progress),
        run.summary,
        write_result(run.result),
        write_failure(run.error),
    )


def is_plain(one: Settling) -> bool:
    """Whether a run ended as nearly all do: well, by itself, and with no progress to be kept."""
    run = one.after
    return run.state is State.SUCCEEDED and run.reason is None and run.progress is None and run.error is None


_plain: Final = attrgetter("after.id", "before.token", "after.state", "after.ended_at", "after.summary", "after.result")
_PLAIN: Final = (None, None, write_words, write_moments, None, write_results)


def plainly_settled(settlings: Sequence[Settling]) -> list[Column]:
    """The values of PLAIN_COLUMNS, a column each; of no ends no columns."""
    return columns_of(settlings, _plain, _PLAIN)


def attempted(one: Settling) -> Row:
    """The row of an attempt after which the run goes on."""
    run, outcome = one.before, one.outcome
    ended = one.after.ready_at if isinstance(outcome, ShutDown | Lost) else None
    word = {Raised: "failed", ShutDown: "shut_down", Lost: "lost"}.get(type(outcome), "ended")
    error = outcome.failure if isinstance(outcome, Raised) else None
    if isinstance(outcome, Raised) and outcome.retry_in is not None:
        ended = one.after.ready_at - outcome.retry_in
    return (
        run.id,
        run.attempt,
        run.token,
        run.worker,
        moment(run.attempt_started_at),
        moment(ended),
        word,
        write_failure(error),
    )


def too_many(failures: int, last: str | None) -> str:
    """Why a breaker opens after so many failures; `last`: the run that was the last of them."""
    return f"{failures} failures in a row, the last in {last}" if failures > 1 else f"a failure, in {last}"


def counted(ended: Iterable[Run]) -> list[Row]:
    """What final runs add to the counters of their days: day, job, state, how many, microseconds in all."""
    runs: Counter[tuple[int, str, State]] = Counter()
    took: dict[tuple[int, str, State], timedelta] = {}
    for run in ended:
        if run.ended_at is None:
            continue
        key = (run.ended_at - EPOCH).days, run.job, run.state
        runs[key] += run.count
        if run.started_at is not None and run.started_at < run.ended_at:
            took[key] = took.get(key, _NOTHING) + (run.ended_at - run.started_at)
    return [
        (day, job, state.value, number, took.get((day, job, state), _NOTHING) // _MICROSECOND)
        for (day, job, state), number in runs.items()
    ]


# -- runs asked for


def admitted(
    calls: Iterable[Sequence[Run]], earlier: Mapping[tuple[str, str], Run], number: Callable[[int], int]
) -> tuple[list[list[Run] | KeyConflict], list[Run]]:
    """What each call is answered, and the runs to write for all of them, each with its id: the number of the first, the second, …

    `earlier`: the runs that have keys of these calls. A call of which one run's key has other parameters is refused whole.
    """
    answers: list[list[Run] | KeyConflict] = []
    fresh: list[Run] = []
    taken = dict(earlier)
    for runs in calls:
        written: list[Run] = []
        answer: list[Run] = []
        keys = dict(taken)
        try:
            for run in runs:
                found = _earlier(run, keys)
                if found is None:
                    written.append(run.changed(id=RunId(number(len(fresh) + len(written)))))
                    keys |= {(run.job, run.key): written[-1]} if run.key is not None else {}
                answer.append(found or written[-1])
        except KeyConflict as error:
            answers.append(error)
            continue
        answers.append(answer)
        fresh += written
        taken = keys
    return answers, fresh


def _earlier(run: Run, keyed: Mapping[tuple[str, str], Run]) -> Run | None:
    found = None if run.key is None else keyed.get((run.job, run.key))
    if found is None:
        return None
    if dict(found.params) != dict(run.params) and not run.is_only_repeat:
        raise KeyConflict(run.job, str(run.key), found.id)
    return replace(found, existed=True)
