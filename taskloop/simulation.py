"""What would happen: every fire of a span of time, and what would become of it, without doing any of it.

Level 3, pure. The fires are those of the planner: counted, not walked, by the same timetables; what a pause holds is
settled by `plan`. `rehearsal` walks the runs, with the durations that are given, through overlap, groups and slots.
Nothing is drawn by lot: equal settings give equal results. Start at `simulate`; `simulation_record` is its JSON.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, tzinfo
from itertools import groupby
from typing import Any, Final, Literal, NamedTuple

from taskloop import cron
from taskloop.clock import EPOCH, later
from taskloop.durations import rfc3339
from taskloop.policy import Policy
from taskloop.rehearsal import Blocked, Grid, Lane, Part, Rehearsal, Rule, Tally, rehearse
from taskloop.schedules import Schedule, next_due, offset, plan, timetable
from taskloop.signs import span_text
from taskloop.switches import Missed, Switches
from taskloop.triggers import Cron, Every, Trigger, Unreadable

__all__ = [
    "LONGEST",
    "JobForecast",
    "Load",
    "Note",
    "Overlap",
    "Setting",
    "Simulation",
    "Trouble",
    "clock_notes",
    "held_fires",
    "note_record",
    "overlap_record",
    "quiet_hour",
    "simulate",
    "simulation_record",
    "strip",
    "worst",
]

LONGEST: Final = timedelta(days=366)
"""A longer span cannot be asked for."""
MOST_WORK: Final = 250_000
"""Fires that are walked one by one; see `Simulation.all_until`."""
MOST_OVERLAPS: Final = 200
MOST_ALIKE: Final = 20
"""Notes of one kind."""
NAMED: Final = 3
_MOMENT: Final = timedelta(microseconds=1)
_DAYS_IN_HOURS: Final = timedelta(days=31)
"""Of longer spans the load is told by day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What a simulation goes by: values, and all of them."""

    start: datetime
    end: datetime
    schedules: Sequence[Schedule]
    policies: Mapping[str, Policy]
    """By job; one that is missing has that of a job of which nothing is said."""
    takes: Mapping[str, timedelta] = field(default_factory=dict)
    """By job how long a run takes; one that is missing takes no time and no slot."""
    switches: Switches = field(default_factory=Switches)
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """By job all names it is known by, where there are several."""
    groups: Mapping[str, int] = field(default_factory=dict)
    """Places of each group; one that is missing has one."""
    max_running: int = 64
    """Runs at once in the process."""
    running: Mapping[str, datetime] = field(default_factory=dict)
    """By schedule since when a run of it runs at the start."""
    partial: bool = False
    """There are more schedules than these; they are those that fire first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobForecast:
    """What comes of a job's schedules."""

    job: str
    fires: int
    first: datetime | None
    """Its first fire; None: there is none."""
    last: datetime | None
    skipped: int
    """Fires that make no run: their schedule was still at the one before, the next came before they began, or the job is off."""
    waits: int
    """Runs that start later than they are due."""
    waited: timedelta
    longest_wait: timedelta
    cancelled: int
    """Runs that end for a newer one."""
    held: int
    """Fires that a pause still holds at the end."""
    takes: timedelta | None
    """How long each run takes; None: nobody knows."""
    busy: timedelta
    """How long all of its runs take."""
    troubled: tuple[datetime, ...] = ()
    """The hours in which something of it is skipped, waits or is cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlap:
    """A job whose fires find something taken: by itself, by another job of its group, by all at once."""

    rule: Rule
    jobs: tuple[str, ...]
    """The job that fires, and the one in its way, if it is another one."""
    first: datetime
    last: datetime
    count: int
    skipped: int
    waits: int
    cancelled: int
    longest_wait: timedelta
    text: str


class Note(NamedTuple):
    """Something that is worth knowing; of a `warning` somebody should think."""

    level: Literal["warning", "info"]
    kind: str
    jobs: tuple[str, ...]
    at: datetime | None
    text: str


class Load(NamedTuple):
    """An hour, of long spans a day."""

    at: datetime
    fires: int
    most: int
    """Runs at once at the busiest moment."""
    busy: timedelta
    """How long the runs of its fires take."""


class Trouble(NamedTuple):
    """One fire that does not simply run."""

    at: datetime
    job: str
    fate: Literal["skipped", "waits", "cancels"]
    rule: Rule
    wait: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What would happen between two instants, the second not included."""

    start: datetime
    end: datetime
    fires: int
    jobs: Sequence[JobForecast]
    overlaps: Sequence[Overlap]
    left_out: int
    """Times that something was taken which no overlap tells of, for there are too many."""
    notes: Sequence[Note]
    load: Sequence[Load]
    most: int
    """Runs at once at the busiest moment."""
    most_at: datetime | None
    troubles: Sequence[Trouble]
    """The first of the fires in trouble, in their order."""
    all_until: datetime
    """Up to here every run was walked; after it only those likely to be in each other's way, see `notes`."""
    busy: timedelta

    @property
    def warnings(self) -> int:
        return len(self.overlaps) + sum(one.level == "warning" for one in self.notes)


def simulate(
    setting: Setting, *, most_work: int = MOST_WORK, breathe: Callable[[], object] = lambda: None
) -> Simulation:
    """Everything that comes due in `setting`, and what becomes of it. `breathe` is called after every few fires.

    The counts of fires are exact however many there are. Raises `ValueError` for a span that is empty or too long.
    """
    if not timedelta(0) < setting.end - setting.start <= LONGEST:
        raise ValueError(
            f"the span is {setting.end - setting.start}; allowed is one above zero, up to {LONGEST.days} days"
        )
    return _Simulating(setting, most_work, breathe).result()


def held_fires(schedules: Sequence[Schedule], policies: Mapping[str, Policy], now: datetime) -> int:
    """How many fires a pause holds at `now`: what is due of these schedules since their cursors."""
    return sum(
        _Course(one, policies.get(one.job, Policy()), one.next_due).count(one.next_due, now + _MOMENT)
        for one in schedules
        if one.next_due is not None and one.next_due <= now
    )


def strip(setting: Setting, jobs: Sequence[str], columns: int) -> dict[str, list[int]]:
    """Of each of these jobs how many fires there are in each of so many equal parts of the span."""
    found = {job: [0] * columns for job in jobs}
    edges = [setting.start + (setting.end - setting.start) * place / columns for place in range(columns + 1)]
    for one in setting.schedules:
        if one.job not in found:
            continue
        course = _course(one, setting)
        for place in range(columns):
            found[one.job][place] += course.count(edges[place], edges[place + 1])
    return found


# -- the fires of one schedule


class _Course:
    """The fires of a schedule from `first` on; None: there are none."""

    __slots__ = ("first", "grid", "schedule", "shift")

    def __init__(self, schedule: Schedule, policy: Policy, first: datetime | None) -> None:
        self.schedule, self.first = schedule, first
        self.grid: Trigger = timetable(schedule)
        self.shift = offset(schedule, policy.spread)

    def count(self, start: datetime, end: datetime) -> int:
        """How many there are from `start` up to, not including, `end`."""
        if self.first is None or end <= self.first:
            return 0
        own = start <= self.first
        since = self.first if own else start - _MOMENT
        return own + self.grid.count(since - self.shift, end - _MOMENT - self.shift)

    def next(self, instant: datetime) -> datetime | None:
        """The first at or after `instant`, which is later than the first of all."""
        found = self.grid.after(instant - _MOMENT - self.shift)
        return None if found is None else found + self.shift

    def last(self, end: datetime) -> datetime | None:
        """The last before `end`."""
        if self.first is None or self.first >= end:
            return None
        found = self.grid.latest(end - _MOMENT - self.shift)
        return self.first if found is None else max(self.first, found + self.shift)

    def chunks(self, start: datetime, end: datetime) -> Iterator[Sequence[int]]:
        """All before `end`, in microseconds from `start`, many at a time."""
        if self.first is None or self.first >= end:
            return
        first, length, grid = (self.first - start) // _MOMENT, (end - start) // _MOMENT, self.grid
        if isinstance(grid, Every) and grid.interval is not None:
            step, following = grid.interval // _MOMENT, self.next(self.first + _MOMENT)
            if following is not None and following - self.first == grid.interval:
                yield range(first, length, step)
                return
            yield [first]
            if following is not None and following < end:
                yield range((following - start) // _MOMENT, length, step)
            return
        yield [first]
        if isinstance(grid, Cron):
            since, until = self.first - self.shift, end - self.shift
            moved = (EPOCH + self.shift - start) // _MOMENT
            clock = cron.clock_of(grid.expression, grid.timezone, grid.gap, grid.fold)
            for span in clock.spans(cron.second_of(since) + 1, cron.second_of(until - _MOMENT) + 1):
                if isinstance(span, range):
                    yield range(span.start * _SECOND + moved, span.stop * _SECOND + moved, span.step * _SECOND)
                else:
                    yield [second * _SECOND + moved for second in span]
        else:
            at = self.next(self.first + _MOMENT)
            while at is not None and at < end:
                yield [(at - start) // _MOMENT]
                at = self.next(at + _MOMENT)


_SECOND: Final = 1_000_000


def _course(schedule: Schedule, setting: Setting) -> _Course:
    policy, start = setting.policies.get(schedule.job, Policy()), setting.start
    first = None if isinstance(schedule.trigger, Unreadable) else schedule.next_due
    if first is not None and first < start:
        first = next_due(schedule, policy, start - _MOMENT)
    return _Course(schedule, policy, first)


# -- switches


class _Span(NamedTuple):
    """How a job stands between two switches."""

    start: datetime
    end: datetime
    on: bool
    held: bool
    missed: Missed | None
    """How the pause that ends with it settles what it held."""


# -- the whole


class _Simulating:
    def __init__(self, setting: Setting, most_work: int, breathe: Callable[[], object]) -> None:
        self._setting, self._most_work, self._breathe = setting, most_work, breathe
        rank = {job: -policy.priority for job, policy in setting.policies.items()}
        # Of one instant they are walked in this order, in which the engine fires them.
        self._schedules = sorted(setting.schedules, key=lambda one: (rank.get(one.job, 0), one.id))
        self._policies = [setting.policies.get(one.job, Policy()) for one in self._schedules]
        self._courses = [_course(one, setting) for one in self._schedules]
        ends = {one.until for one in setting.switches if one.until is not None and one.ended_at is None}
        self._edges = [setting.start, *sorted(one for one in ends if setting.start < one < setting.end)]
        self._spans: dict[str, list[_Span]] = {}
        self._tallies = [Tally() for _ in self._schedules]
        self._off = [0] * len(self._schedules)
        self._held = [0] * len(self._schedules)
        self._resumed: dict[datetime, list[tuple[int, Sequence[int]]]] = {}
        self._lanes: list[Lane] = []

    def result(self) -> Simulation:
        setting, start = self._setting, self._setting.start
        for place in range(len(self._schedules)):
            self._switched(place)
            if place % 100 == 0:
                self._breathe()
        walked = self._walked()
        for place, tally in walked.tallies.items():
            self._tallies[place].add(tally)
        jobs = self._forecasts(walked)
        overlaps, left_out = _overlaps(setting, self._lanes, walked, {one.job: one for one in jobs})
        most, most_at = walked.peak
        return Simulation(
            start=start, end=setting.end, fires=sum(one.fires for one in jobs), jobs=jobs, overlaps=overlaps,
            left_out=left_out, notes=self._notes(jobs, walked), load=self._load(walked), most=most,
            most_at=self._at(most_at) if most else None,
            troubles=[
                Trouble(self._at(one.at), self._lanes[one.lane].job, one.fate, one.rule, one.waited * _MOMENT)
                for one in sorted(walked.moments)
            ],
            all_until=self._at(walked.all_until), busy=sum((one.busy for one in jobs), timedelta(0)),
        )  # fmt: skip

    def _at(self, moment: int) -> datetime:
        return self._setting.start + moment * _MOMENT

    def _standing(self, job: str) -> list[_Span]:
        """How a job stands, between all ends of switches."""
        found = self._spans.get(job)
        if found is None:
            setting, names = self._setting, self._setting.names.get(job, (job,))
            declared = setting.policies.get(job, Policy()).enabled
            found = self._spans[job] = []
            for at, end in zip(self._edges, [*self._edges[1:], setting.end], strict=True):
                pause = setting.switches.pause(job, at)
                on = setting.switches.verdict(names, at, declared=declared).on
                found.append(_Span(at, end, on, pause is not None, None if pause is None else pause.missed))
        return found

    def _switched(self, place: int) -> None:
        """Count what is off, and settle what a pause holds as it ends."""
        schedule, course, policy = self._schedules[place], self._courses[place], self._policies[place]
        start, spans = self._setting.start, self._standing(schedule.job)
        for span, following in zip(spans, [*spans[1:], None], strict=True):
            if not span.held:
                if not (span.on and schedule.enabled):
                    self._off[place] += course.count(span.start, span.end)
                continue
            # What is held is so from the start on: when a pause ends is known, and that a new one begins is not foretold.
            if following is not None and following.held:
                continue
            held = course.count(start, span.end)
            if following is None:
                self._held[place] = held
                continue
            self._off[place] += held - self._settle(place, schedule, policy, span, following.on)

    def _settle(self, place: int, schedule: Schedule, policy: Policy, span: _Span, on: bool) -> int:
        """Let the planner settle what was held; gives how many of these fires run."""
        if schedule.next_due is None or schedule.next_due > span.end:
            return 0
        planned = plan(
            schedule, policy, now=span.end, watched_since=span.end,
            enabled=on and schedule.enabled, missed=span.missed,
        )  # fmt: skip
        runs = [one for one in planned.fires if one.reason is None and one.due_at < span.end]
        dues = [(one.due_at - span.end) // _MOMENT for one in runs]
        self._resumed.setdefault(span.end, []).append((place, dues))
        return sum(one.due_at >= self._setting.start for one in runs)

    # -- the walk

    def _walked(self) -> Rehearsal:
        setting = self._setting
        grids: dict[tuple[Any, ...], Grid] = {}
        self._gaps: list[int | None] = []
        for place, course in enumerate(self._courses):
            self._lanes.append(self._lane(place, self._grid_of(grids, place, course)))
        places = {one.id: place for place, one in enumerate(self._schedules)}
        running = []
        for name, began in setting.running.items():
            if name in places and self._lanes[places[name]].takes:
                left = (began - setting.start) // _MOMENT + self._lanes[places[name]].takes
                running.append((max(0, left), places[name]))
        hour = later(setting.start.replace(minute=0, second=0, microsecond=0), timedelta(hours=1))
        return rehearse(
            self._lanes, list(grids.values()), self._parts(), end=(setting.end - setting.start) // _MOMENT,
            hour=(hour - setting.start) // _MOMENT, slots=setting.max_running, places=setting.groups, running=running,
            most_work=self._most_work, breathe=self._breathe,
        )  # fmt: skip

    def _grid_of(self, grids: dict[tuple[Any, ...], Grid], place: int, course: _Course) -> Grid:
        key = (course.grid, course.shift, course.first)
        grid = grids.get(key)
        if grid is None:
            grid = grids[key] = Grid(course.chunks(self._setting.start, self._setting.end))
            if len(grids) % 20 == 0:
                self._breathe()
        grid.lanes.append(place)
        self._gaps.append(grid.gap)
        return grid

    def _lane(self, place: int, grid: Grid) -> Lane:
        schedule, policy = self._schedules[place], self._policies[place]
        takes = self._setting.takes.get(schedule.job, timedelta(0)) // _MOMENT
        meets_itself = grid.gap is not None and takes > grid.gap
        return Lane(job=schedule.job, policy=policy, takes=takes, tight=policy.constrained or meets_itself)

    def _parts(self) -> list[Part]:
        parts = []
        for number, at in enumerate(self._edges):
            off = set()
            for place, schedule in enumerate(self._schedules):
                span = self._standing(schedule.job)[number]
                if span.held or not (span.on and schedule.enabled):
                    off.add(place)
            start = (at - self._setting.start) // _MOMENT
            resumed = sorted(self._resumed.get(at, ()), key=lambda one: self._turn(one[0]))
            parts.append(Part(start, frozenset(off), resumed))
        return parts

    def _turn(self, place: int) -> tuple[int, datetime, int]:
        """When the engine fires what a pause held of a schedule, among others that it held: by priority, then by age."""
        return -self._policies[place].priority, self._schedules[place].next_due or self._setting.start, place

    # -- what is told of it

    def _forecasts(self, walked: Rehearsal) -> list[JobForecast]:
        by_job: dict[str, list[int]] = {}
        for place, schedule in enumerate(self._schedules):
            by_job.setdefault(schedule.job, []).append(place)
        hours = self._hours(len(walked.fires))
        return [self._forecast(job, by_job[job], walked, hours) for job in sorted(by_job)]

    def _hours(self, number: int) -> list[datetime]:
        hour = self._setting.start.replace(minute=0, second=0, microsecond=0)
        return [self._setting.start, *(hour + timedelta(hours=place) for place in range(1, number))]

    def _forecast(self, job: str, places: Sequence[int], walked: Rehearsal, hours: Sequence[datetime]) -> JobForecast:
        start, end, whole = self._setting.start, self._setting.end, Tally()
        for place in places:
            whole.add(self._tallies[place])
        fires = sum(self._courses[place].count(start, end) for place in places)
        firsts = [at for place in places if (at := self._courses[place].first) is not None and at < end]
        lasts = [at for place in places if (at := self._courses[place].last(end)) is not None]
        off, held = sum(self._off[place] for place in places), sum(self._held[place] for place in places)
        takes = self._setting.takes.get(job)
        runs = max(0, fires - off - held - whole.skipped)
        troubled = sorted({hour for place in places for hour in walked.troubled.get(place, ())})
        return JobForecast(
            job=job, fires=fires, first=min(firsts, default=None), last=max(lasts, default=None),
            skipped=off + whole.skipped, waits=whole.waits, waited=whole.waited * _MOMENT,
            longest_wait=whole.longest * _MOMENT, cancelled=whole.cancelled, held=held, takes=takes,
            busy=(takes or timedelta(0)) * runs - whole.cut * _MOMENT, troubled=tuple(hours[one] for one in troubled),
        )  # fmt: skip

    def _load(self, walked: Rehearsal) -> list[Load]:
        found: list[Load] = []
        by_day = self._setting.end - self._setting.start > _DAYS_IN_HOURS
        hours = self._hours(len(walked.fires))
        for at, fires, most, busy in zip(hours, walked.fires, walked.most, walked.busy, strict=True):
            if by_day and found and found[-1].at.date() == at.date():
                last = found[-1]
                found[-1] = Load(last.at, last.fires + fires, max(last.most, most), last.busy + busy * _MOMENT)
            else:
                found.append(Load(at, fires, most, busy * _MOMENT))
        return found

    def _notes(self, jobs: Sequence[JobForecast], walked: Rehearsal) -> list[Note]:
        found: list[Note] = []
        for some in (
            self._never(), self._slow(), self._changes_of_the_clock(), self._about_switches(jobs), self._overdue(),
            self._unknown(jobs), self._cut_short(walked),
        ):  # fmt: skip
            alike = list(some)
            found += alike[:MOST_ALIKE]
            if len(alike) > MOST_ALIKE:
                rest = alike[MOST_ALIKE:]
                worst = next((one for one in rest if one.level == "warning"), rest[0]).level
                text = f"and {len(rest)} more notes of this kind"
                found.append(Note(worst, alike[0].kind, (), None, text))
        return found

    def _never(self) -> Iterator[Note]:
        for schedule, course in zip(self._schedules, self._courses, strict=True):
            if course.first is None and (schedule.trigger.recurring or schedule.last_due is None):
                text = f"schedule {schedule.id}, {schedule.trigger.describe()}, never fires again"
                yield Note("warning", "never", (schedule.job,), None, text)

    def _slow(self) -> Iterator[Note]:
        for place, schedule in enumerate(self._schedules):
            gap, lane = self._gaps[place], self._lanes[place]
            if gap is not None and lane.takes > gap:
                text = (
                    f"a run of {schedule.job} takes {_words(lane.takes)}, and the next is due after {_words(gap)}; give it a "
                    f"longer interval (overlap is '{lane.policy.overlap}')"
                )
                yield Note("warning", "slow", (schedule.job,), None, text)

    def _changes_of_the_clock(self) -> list[Note]:
        pairs = zip(self._schedules, self._courses, strict=True)
        firsts = [(course.grid, one.job, course.first) for one, course in pairs if course.first is not None]
        return clock_notes(firsts, self._setting.start, self._setting.end)

    def _about_switches(self, jobs: Sequence[JobForecast]) -> Iterator[Note]:
        off: dict[tuple[Any, ...], list[str]] = {}
        for one in (one for one in jobs if one.fires):
            # Spans that stand alike for this job are one: between them only a switch of another job has ended.
            alike = groupby(self._standing(one.job), lambda span: (span.held, span.on or span.held))
            for (held, on), spans in ((how, [*spans]) for how, spans in alike):
                if held or not on:
                    off.setdefault((spans[0].start, spans[-1].end, held), []).append(one.job)
        for (start, end, held), names in sorted(off.items()):
            until = "to the end" if end == self._setting.end else f"until {rfc3339(end)}"
            since = "" if start == self._setting.start else f" from {rfc3339(start)}"
            what = "paused, so its fires are held" if held else "off, so its fires are skipped"
            if len(names) > 1:
                what = what.replace("its", "their")
            text = f"{_listed(names)} {'is' if len(names) == 1 else 'are'} {what},{since} {until}"
            yield Note("info", "paused" if held else "disabled", tuple(names), start, text)

    def _overdue(self) -> Iterator[Note]:
        start = self._setting.start
        late = [
            one for one in self._schedules
            if one.next_due is not None and one.next_due < start and not self._standing(one.job)[0].held
        ]  # fmt: skip
        if late:
            oldest = min(one.next_due for one in late if one.next_due is not None)
            names = sorted({one.job for one in late})
            text = f"{_listed(names)} {'is' if len(names) == 1 else 'are'} due since {rfc3339(oldest)}; that is not counted here"
            yield Note("info", "overdue", tuple(names), oldest, text)

    def _unknown(self, jobs: Sequence[JobForecast]) -> Iterator[Note]:
        names = tuple(one.job for one in jobs if one.takes is None and one.fires)
        if names:
            text = (
                f"how long {_listed(names)} {'takes' if len(names) == 1 else 'take'} is not known, and counts as no time: "
                "there is no successful run yet, and the policy has no 'expect'"
            )
            yield Note("info", "unknown", names, None, text)

    def _cut_short(self, walked: Rehearsal) -> Iterator[Note]:
        if self._setting.partial:
            text = f"there are very many schedules: only the {len(self._schedules)} that fire first are looked at"
            yield Note("info", "cut", (), None, text)
        end = (self._setting.end - self._setting.start) // _MOMENT
        if walked.all_until < walked.tight_until:
            at = self._at(walked.all_until)
            text = (
                f"there are too many fires to look at each: from {rfc3339(at)} on waits for a slot, and how many run at "
                "once, are not told; fires are counted to the end"
            )
            yield Note("info", "cut", (), at, text)
        if walked.tight_until < end:
            at = self._at(walked.tight_until)
            yield Note("info", "cut", (), at, f"from {rfc3339(at)} on no waits and no skips are told at all")


_TOLD: Final = {
    "after": "on {day} {time} does not exist in {zone}: {jobs} will run right after the gap, at {at}",
    "left out": "on {day} {time} does not exist in {zone}: {jobs} will not run for it",
    "once": "on {day} {time} comes twice in {zone}: {jobs} will run once, in the first pass",
    "twice": "on {day} {time} comes twice in {zone}: {jobs} will run both times",
    "fewer": "on {day} the clocks of {zone} go forward at {at}: {jobs} {follow} them, {number} fire{s} fewer",
    "more": "on {day} the clocks of {zone} go back at {at}: {jobs} {follow} them, {number} fire{s} more",
}


def _overlaps(
    setting: Setting,
    lanes: Sequence[Lane],
    walked: Rehearsal,
    jobs: Mapping[str, JobForecast],
) -> tuple[list[Overlap], int]:
    """Who is in whose way, by job, the worst of them, in the order in which they come up first."""
    by_job: dict[tuple[Rule, tuple[str, ...]], Blocked] = {}
    for (rule, lane, by), blocked in walked.blocked.items():
        other = () if by < 0 or lanes[by].job == lanes[lane].job else (lanes[by].job,)
        key = (rule, (lanes[lane].job, *other))
        if key in by_job:
            by_job[key].add(blocked)
        else:
            by_job[key] = replace(blocked)
    ordered = sorted(by_job.items(), key=lambda one: (-one[1].skipped - one[1].cancelled, -one[1].longest, one[0]))
    left_out = walked.left_out + sum(_times(blocked) for _, blocked in ordered[MOST_OVERLAPS:])
    found = [
        Overlap(
            rule=rule, jobs=names, first=setting.start + one.first * _MOMENT, last=setting.start + one.last * _MOMENT,
            count=_times(one), skipped=one.skipped, waits=one.waits, cancelled=one.cancelled,
            longest_wait=one.longest * _MOMENT, text=_overlap_text(setting, rule, names, one, jobs[names[0]]),
        )
        for (rule, names), one in ordered[:MOST_OVERLAPS]
    ]  # fmt: skip
    return sorted(found, key=lambda one: (one.first, one.jobs, one.rule)), left_out


def worst(overlaps: Sequence[Overlap], most: int) -> list[Overlap]:
    """So many of them at most, what costs runs first, then what waits longest: a queue of milliseconds hides no other."""
    return sorted(overlaps, key=lambda one: (-one.skipped - one.cancelled, -one.longest_wait, one.first))[:most]


def _times(blocked: Blocked) -> int:
    return blocked.skipped + blocked.waits + blocked.cancelled


def _overlap_text(setting: Setting, rule: Rule, names: Sequence[str], one: Blocked, forecast: JobForecast) -> str:
    policy = setting.policies.get(names[0], Policy())
    fates = [f"{one.skipped:,} skipped"] if one.skipped else []
    fates += [f"{one.waits:,} wait up to {_words(one.longest)}"] if one.waits else []
    fates += [f"{one.cancelled:,} end the run before"] if one.cancelled else []
    if rule == "self":
        what = f"{names[0]} comes due while its previous run is still going"
    elif rule == "group":
        places = setting.groups.get(policy.group or "", 1)
        holder = f" behind {names[1]}" if len(names) > 1 else " behind itself"
        what = f"{names[0]} finds group '{policy.group}' ({places} place{'' if places == 1 else 's'}) full,{holder}"
    elif rule == "max_running":
        what = f"{names[0]} comes due while as many run as max_running allows, {policy.max_running}"
    else:
        what = f"{names[0]} finds all {setting.max_running} slots of the process taken"
    return f"{what}: of {forecast.fires:,} fires {', '.join(fates)}"


def _words(microseconds: int) -> str:
    return span_text(microseconds / _SECOND)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def clock_notes(wanted: Sequence[tuple[Trigger, str, datetime]], start: datetime, end: datetime) -> list[Note]:
    """What changes of the clock do to triggers, each given with its job and first fire; alike ones are one note."""
    found: dict[tuple[Any, ...], set[str]] = {}
    seen: dict[Trigger, list[cron.Disturbed]] = {}
    for grid, job, first in wanted:
        if not isinstance(grid, Cron):
            continue
        if grid not in seen:
            clock = cron.clock_of(grid.expression, grid.timezone, grid.gap, grid.fold)
            seen[grid] = list(clock.disturbed(cron.second_of(start), cron.second_of(end)))
        for one in seen[grid]:
            if first <= EPOCH + timedelta(seconds=one.at, hours=2):
                found.setdefault((one.at, grid.timezone, one.fate, one.shown, one.number), set()).add(job)
    notes = []
    for (change, zone, fate, shown, number), jobs in sorted(found.items(), key=str):
        at, names = EPOCH + timedelta(seconds=change), tuple(sorted(jobs))
        clock_shows = EPOCH + timedelta(seconds=shown)
        text = _TOLD[fate].format(
            jobs=_listed(names), day=f"{clock_shows:%a %d %b %Y}", time=f"{clock_shows:%H:%M}", zone=zone, number=number,
            at=rfc3339(at), s="" if number == 1 else "s", follow="follows" if len(names) == 1 else "follow",
        )  # fmt: skip
        notes.append(Note("warning" if fate in ("after", "left out", "twice") else "info", "dst", names, at, text))
    return notes


def quiet_hour(found: Simulation, zone: tzinfo | None) -> int | None:
    """The hour of the day, on the clock of a zone, in which the least begins; None: of less than a day none is known."""
    if found.end - found.start < timedelta(days=1) or found.end - found.start > _DAYS_IN_HOURS:
        return None
    hours = [timedelta(0)] * 24
    for one in found.load:
        hours[one.at.astimezone(zone).hour] += one.busy if found.busy else timedelta(seconds=one.fires)
    return min(range(24), key=lambda hour: (hours[hour], hour))


# -- as JSON


def simulation_record(found: Simulation) -> dict[str, Any]:
    """As the outside sees it."""
    return {
        "from": rfc3339(found.start),
        "until": rfc3339(found.end),
        "fires": found.fires,
        "warnings": found.warnings,
        "busy_seconds": found.busy.total_seconds(),
        "most": found.most,
        "most_at": _text(found.most_at),
        "jobs": [
            {
                "job": one.job,
                "fires": one.fires,
                "first": _text(one.first),
                "last": _text(one.last),
                "skipped": one.skipped,
                "waits": one.waits,
                "waited_seconds": one.waited.total_seconds(),
                "longest_wait_seconds": one.longest_wait.total_seconds(),
                "cancelled": one.cancelled,
                "held": one.held,
                "takes_seconds": None if one.takes is None else one.takes.total_seconds(),
                "busy_seconds": one.busy.total_seconds(),
            }
            for one in found.jobs
        ],
        "overlaps": [overlap_record(one) for one in found.overlaps],
        "overlaps_left_out": found.left_out,
        "notes": [note_record(one) for one in found.notes],
        "load": [
            {"at": _text(one.at), "fires": one.fires, "most": one.most, "busy_seconds": one.busy.total_seconds()}
            for one in found.load
        ],
    }


def note_record(one: Note) -> dict[str, Any]:
    """Something that is worth knowing."""
    return {"level": one.level, "kind": one.kind, "jobs": list(one.jobs), "at": _text(one.at), "text": one.text}


def overlap_record(one: Overlap) -> dict[str, Any]:
    """A pair in each other's way."""
    return {
        "kind": one.rule,
        "jobs": list(one.jobs),
        "at": _text(one.first),
        "last": _text(one.last),
        "count": one.count,
        "skipped": one.skipped,
        "waits": one.waits,
        "cancelled": one.cancelled,
        "expected_wait_seconds": one.longest_wait.total_seconds(),
        "text": one.text,
    }


def _text(instant: datetime | None) -> str | None:
    return None if instant is None else rfc3339(instant)
