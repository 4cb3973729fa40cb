"""What must hold when several processes share a store, as pure functions of a `Story`; each gives the promises broken.

    unique    one record and one chain of calls for a due instant, whoever fired it and whatever the job was called then
    fencing   what a claim wrote is never changed by an older one; an owner that was outlived leaves a note, no result
    overlap   under skip, queue and replace no two calls of a schedule at once
    limits    no more calls at once than the group or `max_running` allows
    liveness  every instant has a fate, nothing is stuck, and soon after the last fault nothing is late
    silence   a job that is off, or paused, is not called
    toggles   switches stand as last acknowledged
    takeover  what a killed process had, and what falls due after it, is another's within the lease and two seconds
    clock     no interval waits longer because somebody's clock was wrong
    leak      a process that lived through it holds no more than after the first quarter

A process that was frozen for so long that its lease may have lapsed is an excuse for two calls at once; that nothing came
through between it and its server is one only where the call is of a thread, which cannot be cancelled. Such pairs are
counted in `Excuses`, not reported. That the clock of a process is wrong is no excuse, nor is a server that was away.
Start at `broken`.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

import invariants
from facts import FINAL, SECOND, SLACK, Broken, Call, Freeze, Life, Rule, Story, Switched, in_words

LATE = round(2 * SECOND * SLACK)
"""How late a call may be once everything is well again."""
SEEN = round(2 * SECOND * SLACK)
"""Within this every process has taken note of a switch."""
ROOM = {"files": 6, "threads": 4, "memory": 1.25, "memory_kb": 12_000}
"""What a process may hold more at the end than after the first quarter."""


@dataclass
class Excuses:
    """What would be a broken promise, had the owner not been frozen past its lease."""

    overlaps: list[str] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)
    outlived: int = 0
    """Calls that went on after another owner had taken their run."""

    def __len__(self) -> int:
        return len(self.overlaps) + len(self.limits)


def broken(story: Story, excuses: Excuses | None = None) -> list[Broken]:
    """Every promise broken, after all processes have stopped."""
    excuses = Excuses() if excuses is None else excuses
    found = [one for check in CHECKS for one in check(story)]
    found += overlaps(story, excuses)
    found += limits(story, excuses)
    excuses.outlived = sum(1 for _ in outlived(story))
    return found


# -- unique and fencing


def unique(story: Story) -> Iterator[Broken]:
    for one in invariants.one_record(story):
        yield Broken("unique", one.text)
    runs: dict[tuple[str, int], dict[str, list[Call]]] = defaultdict(lambda: defaultdict(list))
    for call in story.calls:
        if call.schedule is not None and call.due is not None:
            runs[story.canonical(call.schedule), call.due][call.run].append(call)
    for (name, due), found in runs.items():
        if len(found) > 1:
            who = ", ".join(f"run {run} by pid {calls[0].pid}" for run, calls in found.items())
            yield Broken("unique", f"{name} due {in_words(due)} was called under {len(found)} records: {who}")
    for one in invariants.calls_within_policy(story):
        yield Broken("unique", one.text)


def fencing(story: Story) -> Iterator[Broken]:
    """The record of a run names the newest claim, and what that claim's call came to."""
    newest: dict[str, int] = defaultdict(int)
    for call in story.calls:
        newest[call.run] = max(newest[call.run], call.token or 0)
    for run in story.books.runs:
        if newest[run.id] > (run.token or 0):
            yield Broken(
                "fencing", f"run {run.id} of {run.job} was called under claim {newest[run.id]}, names {run.token}"
            )
    for one in (*invariants.claims_are_true(story), *invariants.attempts_are_true(story)):
        yield Broken("fencing", one.text)
    for call in outlived(story):
        if call.outcome is not None and call.run not in story.fenced and not _was_killed_soon(call, story):
            yield Broken("fencing", f"{_who(call)} of {call.job} outlived its claim, and its owner does not say so")
    for call in story.calls:
        if call.token is None:
            yield Broken("fencing", f"run {call.run} of {call.job} was called under no claim at all")
            return


def records(story: Story) -> Iterator[Broken]:
    for one in (*invariants.records_before_calls(story), *invariants.what_was_told(story)):
        yield Broken("fencing" if one.promise == "a" else "liveness", one.text)


def _was_killed_soon(call: Call, story: Story) -> bool:
    """Whether the owner of a call was killed before it can have heard from the store whose the run is."""
    ended = call.began if call.ended is None else call.ended
    return any(
        one.pid == call.pid and one.how == "killed" and one.ended is not None and 0 <= one.ended - ended <= SECOND
        for one in story.lives
    )


def outlived(story: Story) -> Iterator[Call]:
    """Calls that went on after their run had been claimed anew: owners that were taken for dead."""
    runs = story.books.by_id()
    later = {(call.run, call.token or 0): call for call in story.calls}
    for call in story.calls:
        successor = later.get((call.run, (call.token or 0) + 1))
        run = runs.get(call.run)
        if successor is not None and run is not None and (call.ended is None or call.ended > successor.began):
            yield call


# -- overlap and limits


def lapses(call: Call, story: Story) -> int | None:
    """The first moment of a call at which others may rightly take its owner for dead; None: there is none.

    The owner was frozen at some moment between its claim and the end of the call, or, where the call is of a thread, was
    set apart from its server. What it claims after it was thawed is
    no excuse: it had stood still and could know. The last beat may be as old as the heartbeat when a process is frozen,
    and older where another one was frozen at that moment, which may have held the file.
    """
    silence = round((story.lease - story.heartbeat) * SECOND)
    claimed = call.began if call.pid in story.shifted else story.claims.get((call.run, call.token), call.began)
    moments = [
        max(since + silence, call.began)
        for freeze in story.freezes
        if freeze.pid == call.pid and freeze.since < _end(call, story) and freeze.until > min(claimed, call.began)
        if freeze.until - (since := _unheard_since(freeze, story)) >= silence
    ]
    rule = story.rule(call.job)
    if rule is not None and rule.thread:
        moments += [
            max(apart.since + silence, call.began)
            for apart in story.aparts
            if apart.pid == call.pid and apart.since < _end(call, story) and apart.until > min(claimed, call.began)
        ]
    return min(moments, default=None)


def _unheard_since(freeze: Freeze, story: Story) -> int:
    """From when on the frozen one may have been unable to beat: another, frozen a moment before, may have held the file."""
    late = freeze.since - round(story.heartbeat * SECOND)
    held = [
        one.since for one in story.freezes if one.pid != freeze.pid and one.since < freeze.since and one.until > late
    ]
    return min([freeze.since, *held])


def _end(call: Call, story: Story) -> int:
    """When a call was over: by its own last line, or by the end of its process."""
    if call.ended is not None:
        return call.ended
    ends = [
        one.ended for one in story.lives if one.pid == call.pid and one.ended is not None and one.ended > call.began
    ]
    return min(ends, default=2**62)


def overlaps(story: Story, excuses: Excuses) -> Iterator[Broken]:
    by_job: dict[str, list[Call]] = defaultdict(list)
    for call in story.calls:
        if call.schedule is not None:
            by_job[story.canonical(call.schedule)].append(call)
    for name, calls in by_job.items():
        rule = story.rules.get(name)
        if rule is None or rule.overlap == "allow":
            continue
        for first, second in _at_once(sorted(calls, key=lambda call: call.began), story):
            lapse = lapses(first, story)
            text = f"{name}: {_who(second)} began while {_who(first)} went on, until {in_words(_end(first, story))}"
            if lapse is not None and lapse <= second.began:
                excuses.overlaps.append(text)
            else:
                yield Broken("overlap", text)


def _at_once(calls: Sequence[Call], story: Story) -> Iterator[tuple[Call, Call]]:
    """Pairs of calls of which the second began before the first was over."""
    going: list[Call] = []
    for call in calls:
        going = [one for one in going if _end(one, story) > call.began]
        yield from ((one, call) for one in going)
        going.append(call)


def limits(story: Story, excuses: Excuses) -> Iterator[Broken]:
    """At no moment more calls of a group, or of a job with `max_running`, than it has places."""
    kinds: dict[tuple[str, int], list[Call]] = defaultdict(list)
    for call in story.calls:
        rule = story.rule(call.job)
        if rule is not None and rule.group is not None:
            kinds[rule.group, story.places.get(rule.group, 1)].append(call)
        if rule is not None and rule.max_running is not None:
            kinds[rule.name, rule.max_running].append(call)
    for (name, places), calls in kinds.items():
        going: list[Call] = []
        for call in sorted(calls, key=lambda one: one.began):
            going = [one for one in going if _end(one, story) > call.began]
            counted = [one for one in going if (lapses(one, story) or 2**62) > call.began]
            text = f"{name}: {_who(call)} began as number {len(going) + 1} of {places}"
            if len(counted) + 1 > places:
                yield Broken("limits", text)
            elif len(going) + 1 > places:
                excuses.limits.append(text)
            going.append(call)


# -- takeovers


class Takeover(NamedTuple):
    """What became of the work of a process that was killed."""

    life: Life
    seconds: float
    """From its end until the last of its runs was settled by another; 0: it had none, or they were settled before."""
    silent: float
    """From its end until every job that falls due each second had been called by another."""
    hindered: bool
    """Whether the server was away meanwhile, or nobody else was there, awake and in touch all the time."""


def takeovers(story: Story) -> list[Takeover]:
    """Of each process that was killed, where no clock is wrong."""
    if story.shifted:
        return []
    return [_takeover(life, story) for life in story.lives if life.how == "killed" and life.ended is not None]


def _takeover(life: Life, story: Story) -> Takeover:
    died = life.ended or 0
    ids = {one.id for one in story.books.workers if one.pid == life.pid and life.began <= one.started <= died}
    settled = [one.ended for one in story.books.attempts if one.worker in ids and one.outcome == "lost"]
    settled += [run.ended for run in story.books.runs if run.worker in ids and run.reason == "worker_died"]
    last = max((at for at in settled if at is not None), default=died)
    until = died + _takeover_span(story)
    silent = [
        _first_call(rule.name, died, life.pid, story) - died for rule in story.rules.values() if _is_steady(rule, story)
    ]
    if story.stopped is not None and story.stopped < until:
        silent = []
    span = (died, max(last, until))
    return Takeover(
        life, max(0, last - died) / SECOND, max(silent, default=0) / SECOND, _is_hindered(life.pid, *span, story)
    )


def _takeover_span(story: Story) -> int:
    return round(story.lease * SECOND) + LATE


def _is_steady(rule: Rule, story: Story) -> bool:
    """Whether a job is called each second, whatever else goes on."""
    calm = rule.overlap == "skip" and rule.takes < rule.period and rule.group is None and rule.max_running is None
    return calm and rule.period == 1.0 and not rule.fails and rule.name not in {one.job for one in story.switched}


def _first_call(name: str, since: int, not_by: int, story: Story) -> int:
    began = [
        call.began
        for call in story.calls
        if call.began > since and call.pid != not_by and call.schedule and story.canonical(call.schedule) == name
    ]
    return min(began, default=2**62)


def _is_hindered(pid: int, since: int, until: int, story: Story) -> bool:
    if any(one.since < until and one.until > since for one in story.outages):
        return True
    troubled = {one.pid for one in (*story.freezes, *story.aparts) if one.since < until and one.until > since}
    return not any(
        one.pid not in {pid, *troubled}
        and one.ready is not None
        and one.ready < since
        and _works_until(one, until, story)
        for one in story.lives
    )


def _works_until(life: Life, until: int, story: Story) -> bool:
    if life.how == "stopped":  # when it was told to is only known of those that were there to the end
        return story.stopped is not None and until < story.stopped < (life.ended or 0)
    return life.ended is None or life.ended > until


def taken_over(story: Story) -> Iterator[Broken]:
    most = _takeover_span(story) / SECOND
    for one in takeovers(story):
        when = f"pid {one.life.pid} was killed at {in_words(one.life.ended)}"
        if one.seconds > most and not one.hindered:
            yield Broken("takeover", f"{when}; the last of its runs was settled {one.seconds:.1f} s later")
        if one.silent > most + 1 and not one.hindered:
            yield Broken("takeover", f"{when}; a job that is due each second was called {one.silent:.1f} s later")


# -- liveness


def fates(story: Story) -> Iterator[Broken]:
    if story.steps:
        return  # an interval goes by elapsed time, so its grid may have moved with a clock; `clocks` looks at that
    for one in invariants.every_instant_has_a_fate(story):
        yield Broken("liveness", one.text)


def nothing_is_stuck(story: Story) -> Iterator[Broken]:
    """After an orderly end of all nothing is running; nothing waits that was ready long before, but for a switch."""
    held = {job for (job, _), word in story.books.switched.items() if word in ("disabled", "paused")}
    grace = round(5 * SECOND * SLACK)  # queues and groups may have something left to do
    for run in story.books.runs:
        if run.state == "running":
            yield Broken("liveness", f"run {run.id} of {run.job} is running after all have stopped")
        ready = run.ready or run.due
        if run.state == "waiting" and run.job not in held and ready + grace < (story.stopped or 0):
            yield Broken("liveness", f"run {run.id} of {run.job} has waited since {in_words(ready)}")
    runs = story.books.by_id()
    for said in story.said:
        run = runs.get(said.run)
        if said.word == "submitted" and run is not None and run.state not in FINAL:
            yield Broken("liveness", f"run {run.id} of {run.job}, submitted, is {run.state} at the end")


def nothing_is_late(story: Story) -> Iterator[Broken]:
    """A while after the last fault no call is late, and no schedule waits for an instant that is long to come."""
    if story.healed is None:
        return
    since = story.healed + round((story.lease + 3 * SLACK) * SECOND)
    first: dict[str, Call] = {}
    for call in sorted(story.calls, key=lambda one: one.began):
        first.setdefault(call.run, call)
    for call in first.values():
        rule = story.rule(call.job)
        waits = rule is not None and (rule.overlap in ("queue", "replace") or rule.group or rule.max_running)
        if call.due is None or call.schedule is None or waits or call.due < since:
            continue
        if call.began - call.due > LATE:
            yield Broken(
                "liveness", f"{_who(call)} of {call.job}, due {in_words(call.due)}, is late after all was well"
            )
    yield from _cursors(story)


def _cursors(story: Story) -> Iterator[Broken]:
    """Behind the clock: something was not fired. More than a period ahead of it: the job is silent until then."""
    if story.stopped is None:
        return
    held = {job for (job, _), word in story.books.switched.items() if word == "paused"}
    for schedule in story.books.schedules:
        rule = story.rules.get(story.canonical(schedule.id))
        if rule is None or not rule.period or schedule.next_due is None or rule.name in held:
            continue
        if schedule.next_due < story.stopped - LATE:
            yield Broken("liveness", f"{schedule.id} has not been fired since {in_words(schedule.next_due)}")
        # Only intervals, which go by elapsed time: a cron instant that was fired before its time must not come again.
        if rule.every and schedule.next_due > story.stopped + round(rule.period * SECOND) + LATE:
            ahead = (schedule.next_due - story.stopped) / SECOND
            yield Broken("clock", f"{schedule.id} is silent for {ahead:.0f} s more; its period is {rule.period:g} s")


def clocks(story: Story) -> Iterator[Broken]:
    """A clock that is set wrong makes no interval wait longer by the true time, and no job run more than its policy says.

    A step forward is a missed period: each instant of it under `all`, the last one under `latest`.
    """
    if not story.steps:
        return
    began: dict[str, dict[str, int]] = defaultdict(dict)
    for call in story.calls:
        if call.schedule is not None:
            began[story.canonical(call.schedule)].setdefault(call.run, call.began)
    forward = [step.seconds for step in story.steps if step.seconds > 0]
    for name, moments in began.items():
        rule = story.rules.get(name)
        if rule is None or not rule.every or name in {one.job for one in story.switched}:
            continue
        times = sorted(moments.values())
        by_moment = {at: run for run, at in moments.items()}
        spare = rule.overlap == "skip" and rule.takes < rule.period
        for before, after in pairwise(times if spare else ()):
            excused = _excused_silence(before, after, story) + _decided_within(
                name, before, after, by_moment[before], story
            )
            if after - before > round(rule.period * SECOND) + LATE + excused:
                gap = (after - before) / SECOND
                yield Broken(
                    "clock", f"{name} was silent for {gap:.1f} s from {in_words(before)}, period {rule.period:g} s"
                )
        missed = sum(seconds / rule.period + 1 if rule.missed == "all" else 1 for seconds in forward)
        most = (times[-1] - times[0]) / SECOND / rule.period + len(story.steps) + missed + 3
        if len(times) > most:
            yield Broken("clock", f"{name} had {len(times)} runs; the time and the steps of the clocks make {most:.0f}")


def _excused_silence(since: int, until: int, story: Story) -> int:
    """How much longer a job may be silent then: a run in the hands of the frozen or the dead holds up the next ones
    until it is settled, which takes the lease and two seconds; who was frozen in a transaction on a file, and the others
    said so, lets nobody write for as long as it stands still.
    """
    frozen = [one for one in story.freezes if one.since < until and one.until > since]
    died = any(one.ended is not None and since <= one.ended <= until for one in story.lives)
    held = max((one.until - max(since, one.since) for one in frozen if one.pid in story.holding), default=0)
    return max(round(story.lease * SECOND), held) + LATE if frozen or died else 0


def _decided_within(name: str, since: int, until: int, last: str, story: Story) -> int:
    """How much of that time a schedule that keeps its grid is silent for instants which a clock that was ahead has decided
    before they came: each of them is on record from before the run that was the `last`, and none comes twice.
    """
    rule = story.rules[name]
    if not rule.fixed_grid:
        return 0
    period = round(rule.period * SECOND)
    spans = [
        (run.due, run.last_due)
        for run in story.books.runs
        if run.schedule is not None and story.canonical(run.schedule) == name and run.due < until and run.last_due > since
        and int(run.id) < int(last)  # the clock that wrote it may be the wrong one; ids only grow
    ]  # fmt: skip
    instants = range(-(-since // period) * period, until, period)
    return period * sum(any(first <= instant <= last for first, last in spans) for instant in instants)


# -- switches


def silence(story: Story) -> Iterator[Broken]:
    """A job that is off or paused is not called for what falls due meanwhile, once everybody has taken note."""
    for since, until, switch in _spans(story.switched):
        for call in story.calls:
            named = story.canonical(call.job) == switch.job and call.due is not None
            if named and since + SEEN < call.began < until and call.due and call.due > since:
                if not _claimed_before(call, story, since + SEEN) and not _frozen_across(call, story.freezes, since):
                    yield Broken(
                        "silence", f"{_who(call)} of {call.job} while it was {switch.word} since {in_words(since)}"
                    )


def _spans(switched: Sequence[Switched]) -> Iterator[tuple[int, int, Switched]]:
    """Spans in which a switch was surely in force: from its acknowledgement until the opposite was asked for."""
    by_kind: dict[tuple[str, str], list[Switched]] = defaultdict(list)
    for one in sorted(switched, key=lambda one: one.asked):
        by_kind[one.job, one.kind].append(one)
    for found in by_kind.values():
        last = replace(found[-1], asked=2**62, done=2**62)
        for one, following in pairwise([*found, last]):
            if one.acknowledged and one.word in ("disabled", "paused"):
                yield one.done, following.asked, one


def _claimed_before(call: Call, story: Story, at: int) -> bool:
    """The answer to its claim was long on its way: its owner was set apart meanwhile."""
    claimed = story.claims.get((call.run, call.token), call.began)
    return claimed < at and any(
        one.pid == call.pid and one.since < call.began and one.until > claimed for one in story.aparts
    )


def _frozen_across(call: Call, freezes: Sequence[Freeze], since: int) -> bool:
    """The caller was frozen at or after the switch: it began what it had claimed before."""
    return any(one.pid == call.pid and one.until > since and one.since < call.began for one in freezes)


def toggles(story: Story) -> Iterator[Broken]:
    for one in invariants.switches_stand(story):
        yield Broken("toggles", one.text)


# -- leaks


def leaks(story: Story) -> Iterator[Broken]:
    """Of the process that lived longest: files, threads and memory at the end as after the first quarter."""
    if not story.uses:
        return
    pid, number = Counter(use.pid for use in story.uses).most_common(1)[0]
    uses = [use for use in story.uses if use.pid == pid]
    if number < 12:
        return
    early, late = uses[number // 5 : number // 3], uses[-max(3, number // 10) :]
    for name in ("files", "threads"):
        before, after = max(getattr(use, name) for use in early), min(getattr(use, name) for use in late)
        if after > before + ROOM[name]:
            yield Broken("leak", f"pid {pid} holds {after} {name}, {before} after the first quarter")
    before, after = max(use.memory_kb for use in early), min(use.memory_kb for use in late)
    if after > before * ROOM["memory"] + ROOM["memory_kb"]:
        yield Broken("leak", f"pid {pid} holds {after} kB of memory, {before} after the first quarter")


CHECKS: tuple[Callable[[Story], Iterator[Broken]], ...] = (
    unique, fencing, records, fates, taken_over, nothing_is_stuck, nothing_is_late, clocks, silence, toggles, leaks,
)  # fmt: skip


def _who(call: Call) -> str:
    return f"run {call.run} attempt {call.attempt} claim {call.token} by pid {call.pid} at {in_words(call.began)}"
