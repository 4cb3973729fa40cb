"""The promises of taskloop as a model: what may stand on record and what may be called, whatever happened.

It knows nothing of the engine. Due instants come from `model_schedules`, calls from what the job bodies wrote down,
records from the store. Each promise is a method that raises AssertionError; start at `Model.look`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from taskloop.runs import FINAL, MOVES, State

GRACE, KILL_GRACE, LEASE = 30.0, 5.0, 15.0
NOTICED, HEARD = 61.0, 1.1
"""Seconds until a set clock is noticed; until other workers hear what was said to one."""
SURE = 91.0
"""Seconds: after a longer absence an engine that naps for a minute at most knows that nobody was there."""
FAILURES = 3
"""In a row: they switch a job with a breaker off."""
LONGEST_RETRY = timedelta(seconds=40)

ENDED = (State.SUCCEEDED, State.FAILED, State.INTERRUPTED)
REACHABLE = {state: frozenset(State) if moves else {state} for state, moves in MOVES.items()}
"""What a run may have become between two looks: by any number of moves from an active state, never from a final one."""


@dataclass
class Call:
    """One call of a job's function, written down by the function itself; `begin` and `end` in virtual seconds."""

    run: int
    job: str
    schedule: str | None
    attempt: int
    due_at: datetime
    worker: str
    who: str
    begin: float
    end: float | None = None
    how: str | None = None
    """well, badly, hopelessly, asked to end, timed out, killed."""
    ignored_at: float | None = None
    """When it was first asked to end and went on."""

    def abandoned(self, now):
        return self.ignored_at is not None and now >= self.ignored_at + KILL_GRACE


@dataclass
class Word:
    """The last word about a job, or a pause: in force until an instant, or for good."""

    kind: str
    until: datetime | None
    who: str
    given_at: float
    over: bool = False
    """Its end was seen. If the clock is set back to before that, nobody says whether it holds again."""

    def holds(self, wall):
        return not self.over and (self.until is None or wall < self.until)


@dataclass
class Gap:
    """A time of the wall clock in which nobody was there to fire `job` (None: any job); `newest`: the newest run then."""

    job: str | None
    begin: datetime
    end: datetime
    newest: int
    sure: bool
    """Long enough, and truly nobody: what fell due in it was missed for certain."""


class Model:
    """What must be true of records and calls. `fleet`: what is declared of each job."""

    def __init__(self, fleet):
        self.fleet = {one.name: one for one in fleet}
        self.tracks, self.calls, self.rows = {}, [], {}
        self.words, self.pauses, self.gaps = {}, {}, []
        self.overrides = defaultdict(set)
        """The ways in which ends of pauses settled the fires of a job, other than its own policy."""
        self.broken = []
        """What a body saw when it began that no body may see."""
        self.forgiven = defaultdict(set)
        """Of each job the failed runs that its breaker counts no more."""
        self.moved = False
        """Whether the clock was ever set back."""
        self.off_lately = set()
        """Jobs that were switched off since the last look."""
        self._off, self._fresh = {}, {}

    def paused(self, job, wall, heard=lambda word: True):
        return any(one and one.holds(wall) and heard(one) for one in (self.pauses.get(None), self.pauses.get(job)))

    def off(self, job, wall):
        word = self.words.get(job)
        return word if word is not None and word.kind == "disabled" and word.holds(wall) else None

    def begins(self, call, wall):
        """A body begins: is anything in its way?"""
        spec, now = self.fleet[call.job], call.begin
        beside = [one for one in self.calls if one.end is None and not one.abandoned(now)]
        if any(one.run == call.run and one.end is None for one in self.calls):
            self.broken.append(f"run {call.run} is called while a call of it goes on")
        if spec.overlap != "allow" and call.schedule and any(one.schedule == call.schedule for one in beside):
            self.broken.append(f"run {call.run} overlaps another of schedule {call.schedule}")
        if spec.group and any(self.fleet[one.job].group for one in beside):
            self.broken.append(f"run {call.run} is the second one of its group")
        if spec.max_running and sum(one.job == call.job for one in beside) >= spec.max_running:
            self.broken.append(f"run {call.run} is one more than max_running of {call.job}")
        late, first = wall - call.due_at, call.attempt == 1 and all(one.run != call.run for one in self.calls)
        if call.schedule and spec.max_late and first and late.total_seconds() > spec.max_late + HEARD:
            self.broken.append(f"run {call.run} begins {late} late, max_late is {spec.max_late} s")
        if self.paused(call.job, wall, lambda word: word.who == call.who or now > word.given_at + HEARD):
            self.broken.append(f"run {call.run} of the paused {call.job} begins")
        self.calls.append(call)

    def look(self, rows, schedules, given_back, wall):
        """Hold what stands on record against what stood there before and against the calls; gives what is next due.

        `given_back`: the attempts that stops gave back, as (run, attempt), one each.
        """
        assert not self.broken, self.broken
        rows = {row.id: row for row in rows}
        self._fresh = {run: row for run, row in rows.items() if row != self.rows.get(run)}
        for run, before in self.rows.items():
            assert run in rows, f"lost: {before}"
            self.only_allowed_moves_are_made(before, rows[run])
        self.every_call_is_on_record(rows, given_back)
        self.catching_up_is_bounded(rows.values())
        self.what_is_in_the_way_is_named(rows)
        self.what_is_off_fires_nothing(wall)
        self.rows, following = rows, {}
        for schedule in schedules:
            mine = [row for row in rows.values() if row.schedule == schedule.id]
            following[schedule.id] = self.tracks[schedule.id].next_due(mine, schedule.next_due)
            self.missed_means_that_nobody_was_there(self.fleet[schedule.job], mine)
        return following

    def only_allowed_moves_are_made(self, before, row):
        if before.reason == "disabled" and row.count > before.count:  # the one row of a job that is off grows
            row = replace(row, count=before.count, until_at=before.until_at, ended_at=before.ended_at)
        assert before.state not in FINAL or row == before, f"a final record changed: {before} -> {row}"
        assert row.state in REACHABLE[before.state], f"{before} -> {row}"
        assert row.state is not State.SKIPPED or row.started_at is None, f"it began and was skipped: {row}"

    def every_call_is_on_record(self, rows, given_back):
        """No call without its record; never more than attempts allow, nor again where a cut may not be repeated."""
        calls = defaultdict(list)
        for call in self.calls:
            row = rows.get(call.run)
            assert row and (row.job, row.schedule, row.due_at) == (call.job, call.schedule, call.due_at), (call, row)
            calls[call.run].append(call)
        for run, mine in calls.items():
            row, numbers = rows[run], [one.attempt for one in mine]
            for attempt in set(numbers):
                repeats = given_back.count((run, attempt))
                assert numbers.count(attempt) <= 1 + repeats, f"attempt {attempt} is called too often: {mine}"
                assert attempt <= row.attempt + repeats, f"{mine} of {row}"
            assert row.attempt <= row.attempts, row
            cut = [one for one in mine[:-1] if one.how in ("killed", "asked to end")]
            assert self.fleet[row.job].repeatable or not cut, f"called again after it was cut short: {mine}"
            assert row.state is not State.SUCCEEDED or mine[-1].how == "well", f"{mine[-1]} of {row}"
            assert row.state is not State.FAILED or mine[-1].how != "well" or row.error.type == "Timeout", (mine, row)
            given_up = row.state is State.FAILED and mine[-1].how == "badly"
            assert not given_up or row.attempt == row.attempts, f"attempts were left: {row}"

    def catching_up_is_bounded(self, rows):
        """What one look at the clock decides starts one run of a schedule, or missed_limit where all are wanted."""
        plans = [[]]
        for row in rows:
            last = plans[-1][-1] if plans[-1] else row
            same = (row.schedule, row.created_at) == (last.schedule, last.created_at) and row.due_at > last.due_at
            plans[-1].append(row) if same else plans.append([row])
        for together in (plan for plan in plans if plan and plan[0].schedule):
            spec, ways = self.fleet[together[0].job], self.overrides[together[0].job]
            runs = [row for row in together if row.state is not State.SKIPPED or row.reason == "overlap"]
            assert len(runs) <= (spec.missed_limit if "all" in {spec.missed, *ways} else 1), together
            excused = self.moved or "trial" in together[-1].data  # it may have its record; KNOWN: test_on_trial_...
            if together[-1].reason == "missed" and spec.recurring and not excused:
                assert "skip" in {spec.missed, *ways}, f"the newest is not run: {together}"

    def what_is_in_the_way_is_named(self, rows):
        """What is skipped for an earlier run, or for being late, tells the truth; no more wait than may."""
        for row in (row for row in self._fresh.values() if row.state is State.SKIPPED):
            spec = self.fleet[row.job]
            if row.reason == "overlap":
                other = rows[row.data["run"]]
                assert spec.overlap in ("skip", "queue") and other.schedule == row.schedule, (row, other)
                assert self.moved or not other.final or other.ended_at >= row.created_at, f"{row}, but {other}"
            if row.reason == "too_late":
                assert spec.max_late and (row.ended_at - row.due_at).total_seconds() > spec.max_late, row
        active = Counter(row.schedule for row in rows.values() if row.schedule and row.state not in FINAL)
        for schedule, number in active.items():
            spec = self.fleet[schedule]
            at_once = spec.missed_limit if "all" in {spec.missed, *self.overrides[spec.name]} else 1
            bound = {"skip": at_once, "queue": at_once + 1, "replace": at_once + 1}.get(spec.overlap, number)
            assert number <= bound, f"{number} runs of {schedule} are active, {bound} may be"

    def what_is_off_fires_nothing(self, wall):
        now = {name: word for name in self.fleet if (word := self.off(name, wall))}
        for row in (row for row in self._fresh.values() if row.schedule and row.id not in self.rows):
            all_along = row.job in now and now[row.job] is self._off.get(row.job)
            assert not all_along or row.reason == "disabled", f"{row.job} is off: {row}"
            word = self.words.get(row.job)
            again = word is not None and word.over and wall < word.until
            was_off = again or row.job in {*now, *self._off, *self.off_lately} or self.fleet[row.job].breaker
            assert row.reason != "disabled" or was_off, f"{row.job} was on: {row}"
        self._off = now
        self.off_lately.clear()

    def missed_means_that_nobody_was_there(self, spec, rows):
        gaps = [gap for gap in self.gaps if gap.job in (None, spec.name)]
        late = timedelta(seconds=NOTICED)
        for row in rows:
            missed = row.reason == "missed" or row.cause == "catch_up"
            if missed and spec.recurring and row.id in self._fresh:
                for at in (row.due_at, row.until_at or row.due_at) if row.reason == "missed" else (row.due_at,):
                    assert any(gap.begin <= at < gap.end + late for gap in gaps), f"somebody was there: {row}"
            if row.state is not State.SKIPPED and spec.missed == "skip" and not self.overrides[spec.name]:
                within = [gap for gap in gaps if gap.sure and gap.begin < row.due_at < gap.end and row.id > gap.newest]
                assert not within, f"it was to be skipped, {within}: {row}"

    def failures_in_a_row_switch_off(self, tripped):
        """`tripped`: the jobs that their breakers have off, or on trial."""
        for name in (one.name for one in self.fleet.values() if one.breaker):
            ended = [row for row in self.rows.values() if row.job == name and row.state in ENDED]
            ended = [row for row in ended if row.reason != "shutting_down"]
            if name in tripped or any(row.state is State.SUCCEEDED for row in ended if row.id in self._fresh):
                self.forgiven[name] |= {row.id for row in ended}
            newest = {row.id for row in ended[-FAILURES:] if row.state is not State.SUCCEEDED} - self.forgiven[name]
            # KNOWN: test_a_breaker_counts_failures_though_the_clock_was_set_back
            assert len(newest) < FAILURES or self.moved, f"{name} has failed {FAILURES} times and is on: {ended}"

    def switches_stand_as_last_said(self, switches):
        """`switches`: those in the store that nobody has ended. A breaker's own come and go by themselves."""
        for kinds, words in ((("enabled", "disabled"), self.words), (("paused",), self.pauses)):
            found = {one.job: (one.kind, one.until) for one in switches if one.kind in kinds}
            said = {job: (word.kind, word.until) for job, word in words.items() if word is not None}
            assert found == said, f"switched are {found}, said was {said}"

    def nothing_waits_without_a_reason(self, waiting, running, wall, is_full):
        """Of the runs that wait, each is not ready yet, or something is in its way."""
        for row in waiting:
            spec = self.fleet[row.job]
            if row.ready_at > wall:
                asked = row.schedule is None and row.attempt == 0 and row.started_at is None
                assert asked or row.ready_at <= wall + LONGEST_RETRY, f"its wait is longer than any retry's: {row}"
                continue
            in_the_way = (
                is_full
                or self.paused(row.job, wall)
                or (row.schedule and spec.overlap != "allow" and any(one.schedule == row.schedule for one in running))
                or (spec.group and any(self.fleet[one.job].group for one in running))
                or (spec.max_running and sum(one.job == row.job for one in running) >= spec.max_running)
            )
            assert in_the_way, f"it waits for nothing at {wall}: {row}"

    def running_means_being_called(self, running, now, living):
        """What a living worker has running is being called, and what is called is running or abandoned."""
        going = [one for one in self.calls if one.end is None]
        for row in (row for row in running if row.worker in living):
            found = [one for one in going if (one.run, one.attempt, one.worker) == (row.id, row.attempt, row.worker)]
            assert found, f"nobody is at it: {row}"
        for one in going:
            limit = self.fleet[one.job].timeout
            in_time = limit is None or now <= one.begin + limit + HEARD
            assert in_time or one.ignored_at is not None, f"its timeout is over: {one}"
            on_record = any((row.id, row.attempt, row.worker) == (one.run, one.attempt, one.worker) for row in running)
            assert on_record or one.abandoned(now), f"it goes on without a record: {one} {self.rows[one.run]}"
