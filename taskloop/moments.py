"""Which due instant of a job a question is about, and which record holds it.

Level 4, pure. An instant has a record of its own, or stands among those that a record counts, or has none yet; what
was due is asked of the schedules as they stood then. Start at `meant`; `chain` looks at the links of what it gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from taskloop.clock import later
from taskloop.punctuality import Usual
from taskloop.runs import Reason, Run, State
from taskloop.schedules import Schedule, offset, timetable
from taskloop.store_data import Evidence, Subject, Window
from taskloop.switches import Switch

__all__ = ["Moment", "Question", "Version", "in_force", "meant", "nearest", "subject"]

_MOMENT: Final = timedelta(microseconds=1)
_NOTHING: Final = timedelta(0)
_REACH: Final = timedelta(minutes=2)
"""What disturbs a fire is looked for so long after it was due, or began."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked, and what the asking process knows itself."""

    job: str
    names: frozenset[str]
    """The job's name and its aliases: workers of the past know it by those."""
    window: Window | None
    """The instant asked about; None: now."""
    run: int | None
    now: datetime
    policy: Mapping[str, Any]
    trigger_text: str
    is_periodic: bool = False
    """Whether the job declares a trigger of its own."""
    usual: Usual | None = None
    spread: timedelta = _NOTHING
    living: frozenset[str] = frozenset()
    """The workers that live now."""
    vitals: Mapping[str, Any] = field(default_factory=dict)
    places: int | None = None
    """Runs at once in the job's group; None: not known here."""
    switch: Switch | None = None
    """By which the job is on or off now; None: by its declaration."""
    pauses: Sequence[Switch] = ()
    """By which it is held now: its own, that of all jobs, or both."""

    @property
    def is_off(self) -> bool:
        return self.switch.kind != "enabled" if self.switch is not None else not self.policy.get("enabled", True)


class Version(NamedTuple):
    """A schedule as it stood, and until when; None: it stands so now."""

    schedule: Schedule
    until: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One due instant of a schedule, and what became of it."""

    at: datetime
    schedule: Schedule | None
    row: Run | None
    """Its record; None: there is none."""
    current: bool = False
    """Without a record: whether the schedule still stands as it did."""
    changed_at: datetime | None = None
    """Without a record: when the schedule was changed or removed."""
    certain: bool = True
    """Whether `at` was due; False: it lies among those that the row counts, and the schedule is not on record."""

    def looked_at(self, now: datetime) -> datetime:
        """When the links matter: at the due instant; now, for what is to come or waits.

        What has its record is not to come, though its instant may be once more, by a clock that was set back since.
        """
        undecided = self.at > now if self.row is None else self.row.state is State.WAITING
        return now if undecided else self.at

    def decided_by(self, now: datetime) -> datetime:
        """Which switches and pauses matter: those of that instant; of now, for what nobody has decided yet."""
        return max(now if self.pending else self.looked_at(now), self.at)

    def dropped_by(self, now: datetime) -> datetime:
        """Which switch matters. What a job that is off drops goes by how it was switched when somebody looked, which may be
        long after it was due: once a worker was there again.
        """
        decided_at = self.decided_by(now)
        if self.row is not None and self.row.reason == Reason.DISABLED:
            return max(decided_at, self.row.created_at)
        return decided_at

    @property
    def pending(self) -> bool:
        """Whether its cursor has not passed it yet. Each instant that a cursor passes is given a record."""
        due = self.schedule.next_due if self.current and self.schedule is not None else None
        return self.row is None and due is not None and due <= self.at

    @property
    def decided_at(self) -> datetime | None:
        """When it began, or was decided against; None: it waits, or has no record."""
        return None if self.row is None else self.row.started_at or self.row.ended_at

    @property
    def began_at(self) -> datetime | None:
        return self.row.started_at if self.row is not None else None


def meant(question: Question, facts: Evidence) -> Moment | None:
    """The due instant that a question is about; None: nothing was due then, or yet."""
    if question.run is not None:
        return next((_recorded(row, row.due_at, facts) for row in facts.rows), None)
    if question.window is None:
        return _now(question, facts)
    found = list(_then(question, facts, question.window))
    if not found:
        found = [_recorded(run, run.due_at, facts) for run in facts.asked if _is_within(run, question.window)]
    if not found and question.spread:
        found = list(_spread(question, facts, question.window))
    at = question.window.at
    return min(found, key=lambda one: (abs(one.at - at), one.row is None, _is_skip(one.row)), default=None)


def subject(question: Question, facts: Evidence) -> Subject:
    """Of which time the facts are needed that explain what is meant."""
    moment = meant(question, facts)
    if moment is None:
        at = question.now if question.window is None else question.window.at
        return Subject(None, at, at, None)
    began = moment.began_at or moment.at
    now = question.now if moment.pending else moment.looked_at(question.now)
    schedule = moment.row.schedule if moment.row is not None else moment.schedule.id if moment.schedule else None
    last = max(began, now, moment.dropped_by(now))
    return Subject(schedule, min(moment.at, now), later(last, _REACH), moment.row)


def in_force(facts: Evidence, instant: datetime) -> dict[str, Version]:
    """The schedules as they stood at an instant, by id."""
    found = {one.id: Version(one, None) for one in facts.schedules if one.seen_at <= instant}
    for old in sorted(facts.former, key=lambda one: one.until, reverse=True):
        if old.schedule.seen_at <= instant < old.until:
            found[old.schedule.id] = Version(old.schedule, old.until)
    return found


def _is_skip(row: Run | None) -> bool:
    return row is not None and row.state is State.SKIPPED


def _is_within(run: Run, window: Window) -> bool:
    return any(window.since <= at < window.until for at in (run.due_at, run.created_at))


# -- without an instant


def _now(question: Question, facts: Evidence) -> Moment | None:
    """What waits or runs, else what is due and has no record yet, else what was decided last, else what comes first."""
    waiting = [one for one in facts.active if one.state is State.WAITING and one.ready_at <= question.now]
    running = [one for one in facts.active if one.state is State.RUNNING]
    due = sorted(((one.next_due, one) for one in facts.schedules if one.next_due is not None), key=lambda one: one[0])
    for row in [*waiting, *running][:1]:
        return _recorded(row, row.due_at, facts)
    coming = [Moment(at=at, schedule=schedule, row=None, current=True) for at, schedule in due[:1]]
    if due and due[0][0] <= question.now:
        return coming[0]
    for row in [*_decided_last(facts.rows, question.now), *facts.asked][:1]:
        return _recorded(row, row.until_at or row.due_at, facts)
    return next(iter(coming), None)


def _decided_last(rows: Sequence[Run], now: datetime) -> list[Run]:
    """The newest of some records, if any: written last, whatever the clock showed; what one counts, it got later."""
    newest = max(rows, key=lambda row: row.id, default=None)
    if newest is None:
        return []
    since = newest.created_at
    grown = [(row.until_at, row) for row in rows if row.until_at and max(since, row.created_at) < row.until_at <= now]
    return [max(grown, key=lambda one: one[0])[1] if grown else newest]


def _recorded(row: Run, at: datetime, facts: Evidence) -> Moment:
    version = in_force(facts, max(at, row.created_at)).get(row.schedule or "")
    return Moment(at=at, schedule=version.schedule if version else None, row=row)


# -- at an instant


def _then(question: Question, facts: Evidence, window: Window) -> Iterator[Moment]:
    """What was due within the window: what has a record of its own, stands among those of one, or has none."""
    for row in facts.rows:
        at, certain = _held(row, question, facts, window)
        if at is not None:
            moment = _recorded(row, at, facts)
            yield Moment(at=at, schedule=moment.schedule, row=row, certain=certain)
    for version in _standing(facts, window):
        at = _due(version.schedule, question.spread, window)
        stood = (
            at is not None
            and _may_fire(version.schedule, at, question)
            and (version.until is None or at < version.until)
        )
        if at is not None and stood and not _has_record(version.schedule, at, facts):
            yield _open(at, version)


def _may_fire(schedule: Schedule, at: datetime, question: Question) -> bool:
    """Whether an instant of a schedule's timetable lies within its life.

    An interval counts from its anchor, when it was seen, or one interval later: a spread moves what lies before that to
    after it was seen, and it is due no more for that.
    """
    if schedule.anchor is None:
        return schedule.seen_at < at
    beyond = at - offset(schedule, question.spread) - schedule.anchor
    return schedule.seen_at < at and beyond >= (_MOMENT if question.policy.get("first") == "after" else _NOTHING)


def _standing(facts: Evidence, window: Window) -> list[Version]:
    """The schedules as they stood at the instant, and those that were new within the window."""
    return list((in_force(facts, window.until) | in_force(facts, window.at)).values())


def _open(at: datetime, version: Version) -> Moment:
    return Moment(at=at, schedule=version.schedule, row=None, current=version.until is None, changed_at=version.until)


def _held(row: Run, question: Question, facts: Evidence, window: Window) -> tuple[datetime | None, bool]:
    """The instant nearest to the one asked about that a record holds, and whether it is known to have been due.

    What a record counts was decided when it had come and somebody looked, by the schedule as it stood by then.
    """
    last = row.until_at or row.due_at
    known = [at for at in (row.due_at, last) if window.since <= at < window.until]
    between = Window(window.at, max(window.since, row.due_at), min(window.until, last + _MOMENT))
    if row.count > 1 and between.since < between.until:
        version = in_force(facts, max(window.at, row.created_at)).get(row.schedule or "")
        at = _due(version.schedule, question.spread, between) if version is not None else None
        known += [at] if at is not None else []
        if version is None and not known:
            return window.at, False
    return min(known, key=lambda at: abs(at - window.at), default=None), True


def _has_record(schedule: Schedule, at: datetime, facts: Evidence) -> bool:
    """Whether a record holds an instant: it is the row's own, or the row counts what this schedule names."""
    for row in facts.rows:
        if row.schedule == schedule.id and row.due_at <= at <= (row.until_at or row.due_at):
            counted = in_force(facts, max(at, row.created_at)).get(schedule.id)
            if counted is None or counted.schedule == schedule or at in (row.due_at, row.until_at):
                return True
    return False


def _due(schedule: Schedule, spread: timedelta, window: Window) -> datetime | None:
    """The due instant of a schedule within a window that is nearest to its instant; None: there is none."""
    shift, grid = offset(schedule, spread), timetable(schedule)
    around = (grid.latest(window.at - shift), grid.after(window.at - shift))
    due = [one + shift for one in around if one is not None and window.since <= one + shift < window.until]
    return min(due, key=lambda one: abs(one - window.at), default=None)


def _spread(question: Question, facts: Evidence, window: Window) -> Iterator[Moment]:
    """What the timetable names, asked for without the offset by which `spread` moves it."""
    for version in _standing(facts, window):
        at = _due(version.schedule, _NOTHING, window)
        if at is None:
            continue
        due = at + offset(version.schedule, question.spread)
        of_it = [row for row in facts.rows if row.schedule == version.schedule.id]
        held = [row for row in of_it if row.due_at <= due <= (row.until_at or row.due_at)]
        if held:
            yield _recorded(held[0], due, facts)
        elif _may_fire(version.schedule, due, question) and not any(window.at < row.due_at < due for row in of_it):
            yield _open(due, version)


def nearest(
    schedules: Sequence[Version], question: Question, at: datetime
) -> list[tuple[Version, list[datetime | None]]]:
    """Schedules with the instants at which each was due before and after one, the nearest schedule first."""
    found = []
    for version in schedules:
        shift, grid = offset(version.schedule, question.spread), timetable(version.schedule)
        before, after = grid.latest(at - shift), grid.after(at - shift)
        while after is not None and not _may_fire(version.schedule, after + shift, question):
            after = grid.after(max(after, (version.schedule.anchor or after) - _MOMENT))
        around = [
            before + shift if before is not None and _may_fire(version.schedule, before + shift, question) else None,
            after + shift if after is not None and (version.until is None or after + shift < version.until) else None,
        ]
        found.append((version, around))
    far = timedelta.max
    return sorted(found, key=lambda one: min((abs(due - at) for due in one[1] if due is not None), default=far))
