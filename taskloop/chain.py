"""The links between a timetable and a call, each looked at for one instant, from what is on record.

Level 4, pure. Each function gives a `Check`: whether the link held (None: nothing is known of it), and a sentence with
the facts. `moments` finds the instant, `why` strings the links together. Start at `links`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from taskloop import durations
from taskloop.clock import later
from taskloop.durations import rfc3339
from taskloop.moments import Moment, Question
from taskloop.runs import Cause, Reason, Run, State
from taskloop.schedules import offset
from taskloop.store_data import Evidence, Incident, Worker
from taskloop.switches import Switch, Switches
from taskloop.triggers import Cron

__all__ = ["Check", "ahead", "identified", "is_stopping", "knows", "links", "lives_until", "named", "span", "takes"]

SOON: Final = timedelta(seconds=1)
"""A start within this is on time."""


class Check(NamedTuple):
    """One link of the chain: whether it held, None: nothing is known, and why."""

    name: str
    ok: bool | None
    text: str
    data: Mapping[str, Any] = {}
    code: str = ""
    """The verdict that a broken link leads to."""


def span(length: timedelta) -> str:
    """A length of time as a reader wants it: `7m31s`, `2.5s`, `3ms`."""
    seconds = max(0.0, length.total_seconds())
    if 0 < seconds < 1:
        return durations.format(timedelta(milliseconds=max(1, round(seconds * 1000))))
    return f"{seconds:.3g}s" if seconds < 10 else durations.format(timedelta(seconds=round(seconds)))


def links(question: Question, facts: Evidence, moment: Moment) -> list[Check]:
    """Every link for a moment, in the order in which they must hold."""
    return [
        _timetable(question, moment),
        _switch(question, facts, moment),
        _pause(question, facts, moment),
        _worker(question, facts, moment),
        _clock(question, facts, moment),
        _loop(question, facts, moment),
        _lateness(question, moment),
        _overlap(question, facts, moment),
        _group(question, facts, moment),
        _store(question, facts, moment),
    ]


def ahead(question: Question, facts: Evidence) -> Check | None:
    """What will keep the fire that is due next from running, as it stands now; None: nothing, or it is due already."""
    due = min((one.next_due for one in facts.schedules if one.next_due is not None), default=None)
    if due is None or due <= question.now:
        return None
    moment = Moment(at=due, schedule=None, row=None, current=True)
    thrown = [] if question.switch is None else [question.switch]
    now = facts._replace(switches=Switches([*thrown, *question.pauses]))
    for one in (_switch(question, now, moment), _pause(question, now, moment)):
        if one.ok is False:
            return Check("next", False, f"it will be due at {rfc3339(due)}, but {one.text}", one.data, one.code)
    return None


def _is_forgotten(facts: Evidence, at: datetime) -> bool:
    """Whether facts of that time are deleted, or older than the store: what is not there may have been."""
    return any(since is not None and at < since for since in (facts.known_since, facts.began_at))


def _unless_forgotten(check: Check, facts: Evidence, at: datetime) -> Check:
    """A link of which nothing bad is known; of a time that is not on record, that says nothing."""
    return Check(check.name, None, "not on record any more") if _is_forgotten(facts, at) else check


def _timetable(question: Question, moment: Moment) -> Check:
    if moment.row is not None and moment.row.cause is Cause.ON_START:
        return Check("timetable", True, "it began with a scheduler, whatever its timetable")
    if moment.row is not None and moment.row.schedule is None:
        return Check("timetable", True, "asked for, by no schedule")
    if not moment.certain:
        return Check("timetable", None, "its schedule is not on record as it stood then")
    if moment.schedule is None:  # only a record leads to one that is gone
        name = moment.row.schedule if moment.row is not None else None
        return Check("timetable", True, f"schedule '{name}' was due then, by this record; it is gone since")
    text = moment.schedule.trigger.describe()
    name = f"schedule '{moment.schedule.id}'"
    moved = offset(moment.schedule, question.spread)
    text += f", moved by {span(moved)} (spread)" if moved else ""
    if isinstance(moment.schedule.trigger, Cron) and question.window is not None and moment.row is None and not moved:
        return Check("timetable", True, f"{name}: {text}; all fields match {rfc3339(moment.at)}")
    return Check("timetable", True, f"{name}: {text}; due at {rfc3339(moment.at)}")


# -- switches


def _covers(one: Switch, at: datetime) -> bool:
    end = one.ended_at or (None if one.kind == "tripped" else one.until)
    return one.since <= at and (end is None or at < end)


def _lasts_until(pause: Switch) -> datetime:
    """When a pause ends; of two that hold a fire, its own and that of all jobs, the one that ends last settles it."""
    return pause.ended_at or pause.until or datetime.max.replace(tzinfo=UTC)


def _switch(question: Question, facts: Evidence, moment: Moment) -> Check:
    at = moment.dropped_by(question.now)  # what ends before a fire to come is no hindrance to it
    thrown = _thrown(facts, at)
    if moment.row is not None and moment.row.reason == Reason.DISABLED:
        text, data = _off(question, facts, thrown, moment.row.data)
        decided = f"it was decided at {rfc3339(at)}; " if at - moment.at > SOON else ""
        return Check("switch", False, f"{decided}{text}", data, code="disabled")
    if not thrown:
        on = bool(question.policy.get("enabled", True))
        if moment.row is not None and moment.row.state is not State.WAITING:
            return Check("switch", True, "on, as declared" if on else "on when it was decided")
        if moment.row is None and _is_forgotten(facts, at):
            return Check("switch", None, "not on record any more")
        return Check("switch", on, "on, as declared" if on else "off, as declared", code="disabled")
    last = thrown[-1]
    if last.kind == "enabled":
        return Check("switch", True, f"switched on since {rfc3339(last.since)}{_by(last)}", last.told("enabled"))
    on_trial = _is_on_trial(last, at)
    if on_trial or (moment.row is not None and moment.row.state is not State.SKIPPED):
        told = last.told("disabled") if on_trial else {}
        return Check("switch", True, f"on trial after {last.reason}" if on_trial else "on when it fired", told)
    return Check("switch", False, *_off(question, facts, thrown, {}), code="disabled")


def _thrown(facts: Evidence, at: datetime) -> Sequence[Switch]:
    return [one for one in facts.switches if one.kind != "paused" and _covers(one, at)]


def _is_on_trial(switch: Switch, at: datetime) -> bool:
    return switch.kind == "tripped" and switch.until is not None and at >= switch.until


def _stayed_off(question: Question, facts: Evidence, at: datetime) -> bool:
    """Whether a job was off from an instant on at which a switch that had it off had ended: by the next one, or as declared."""
    if (now := question.switch) is not None and now.since <= at:
        return question.is_off
    if thrown := _thrown(facts, at):
        return thrown[-1].kind != "enabled" and not _is_on_trial(thrown[-1], at)
    return not question.policy.get("enabled", True)


def _off(
    question: Question, facts: Evidence, thrown: Sequence[Switch], data: Mapping[str, Any]
) -> tuple[str, Mapping[str, Any]]:
    last = next((one for one in reversed(thrown) if one.kind in ("disabled", "tripped")), None)
    if last is not None:
        word = "its circuit breaker was open" if last.kind == "tripped" else "switched off"
        until = f", until {rfc3339(last.until)}" if last.until else ""
        ended, told = "", last.told("disabled")
        if last.ended_at and last.kind == "tripped" and last.ended_by == "taskloop":
            ended = f"; at {rfc3339(last.ended_at)} {last.ended_because}"
            told["ended_because"] = last.ended_because
        elif last.ended_at:
            when = f"{rfc3339(last.ended_at)}{_by_whom(last.ended_by)}"
            stayed = _stayed_off(question, facts, last.ended_at)
            ended = f"; that ended at {when}, and it stayed off" if stayed else f"; on again at {when}"
        if not question.is_off and not _covers(last, question.now) and (end := last.ended_at or last.until):
            told["disabled_ended_at"] = rfc3339(end)
        return f"{word} since {rfc3339(last.since)}{_by(last)}{until}{ended}", told
    since = f" since {data['disabled_since']}" if "disabled_since" in data else ""
    who = _by_whom(data.get("disabled_by"))
    why = f': "{data["disabled_reason"]}"' if "disabled_reason" in data else ""
    trial = f"; its breaker's trial run {data['trial']} had not ended" if "trial" in data else ""
    return f"off{since}{who}{why}{trial}", dict(data)


def _by(one: Switch) -> str:
    return _by_whom(one.actor) + (f': "{one.reason}"' if one.reason else "")


def _by_whom(actor: str | None) -> str:
    return f" by {actor}" if actor else ""


def _pause(question: Question, facts: Evidence, moment: Moment) -> Check:
    at = moment.decided_by(question.now)
    held = [one for one in facts.switches if one.kind == "paused" and _covers(one, at)]
    if not held:
        not_paused = _unless_forgotten(Check("pause", True, "not paused"), facts, at)
        return _paused_meanwhile(question, facts, moment) or not_paused
    one = max(held, key=_lasts_until)
    text = _paused_since(one)
    text += f" until {rfc3339(one.until)}" if one.ended_at is None and one.until else ""
    if one.ended_at is None and (one.until is None or question.now < one.until):
        return Check("pause", False, f"{text}: its fires are held", one.told("paused"), "paused")
    text += f"; resumed at {rfc3339(one.ended_at)}{_by_whom(one.ended_by)}" if one.ended_at else ""
    if moment.row is not None:
        text += f", and then settled by missed={one.missed or 'its policy'}"
    over = {"pause_ended_at": rfc3339(end)} if (end := one.ended_at or one.until) else {}
    return Check("pause", False, text, one.told("paused") | over, "paused")


def _paused_since(one: Switch) -> str:
    what = "all jobs were" if one.job is None else "the job was"
    return f"{what} paused since {rfc3339(one.since)}{_by(one)}"


def _paused_meanwhile(question: Question, facts: Evidence, moment: Moment) -> Check | None:
    """The pause that took a good part of the delay of a run which waited before that began; None: none did."""
    began = moment.began_at
    if began is None or began - moment.at <= SOON:
        return None
    for one in facts.switches:
        end = one.ended_at or one.until
        if one.kind != "paused" or end is None:
            continue
        lost = min(end, began) - max(one.since, moment.at)
        if lost > timedelta(0) and _accounts_for(lost, question, moment):
            text = f"{_paused_since(one)}; resumed at {rfc3339(end)}{_by_whom(one.ended_by)}, and it waited for that"
            return Check("pause", False, text, one.told("paused") | {"pause_ended_at": rfc3339(end)}, "paused")
    return None


# -- workers, clocks, loops, stores


def lives_until(worker: Worker, question: Question) -> datetime:
    """The last instant at which it is known, or to be believed, that a worker lived."""
    if worker.stopped_at is not None:
        return worker.stopped_at
    return question.now if worker.id in question.living else worker.beat_at


def _worker(question: Question, facts: Evidence, moment: Moment) -> Check:
    row = moment.row
    if row is not None and row.reason == Reason.UNKNOWN_JOB and row.ended_at is not None:
        # Whoever had it as it came due.
        text = f"it waited until {rfc3339(row.ended_at)}, and no worker that lived then had the job"
        return Check("worker", False, text, code="unknown_job")
    if moment.pending and (now := _worker_at(question, facts, row, question.now)).ok is False:
        return now  # whoever was there then, nobody could decide it
    return _left_undone(question, facts, moment) or _worker_at(question, facts, row, moment.looked_at(question.now))


def _left_undone(question: Question, facts: Evidence, moment: Moment) -> Check | None:
    """Of a fire that was made up for: the workers that lived as it came due ended without having fired it, as one does that
    gives its runs their grace; None: it was not so.
    """
    row = moment.row
    if row is None or row.cause is not Cause.CATCH_UP:
        return None
    if any(one.kind == "paused" and _covers(one, moment.at) for one in facts.switches):
        return None
    having = [one for one in facts.workers if one.fires and knows(one, question) and one.started_at <= row.created_at]
    there = [one for one in having if one.started_at <= moment.at <= lives_until(one, question)]
    later = [one for one in having if one.started_at > moment.at]
    if not there or not later or any(lives_until(one, question) >= row.created_at for one in there):
        return None
    last = max(there, key=lambda one: lives_until(one, question))
    text, data = _gap(question, last, min(later, key=lambda one: one.started_at))
    return Check("worker", False, f"none fired it: {text}", data, "process_down")


def _worker_at(question: Question, facts: Evidence, row: Run | None, at: datetime) -> Check:
    # Who lives now lived at what a clock that was set back since shows as still to come.
    there = [one for one in facts.workers if one.id in question.living or at <= lives_until(one, question)]
    alive = [one for one in there if one.started_at <= at]
    ran_it = None if row is None else row.worker  # as `taskloop once`, which fires nothing
    ending = [one for one in alive if at == question.now and one.stopped_at is None and is_stopping(one)]
    knowing = [one for one in alive if one.id == ran_it or (one.fires and knows(one, question) and one not in ending)]
    if knowing:
        one = knowing[0]
        return Check(
            "worker",
            True,
            f"{named(one)} lived, since {rfc3339(one.started_at)}",
            {"worker": one.id, "alive": len(knowing)},
        )
    if not facts.workers or _is_forgotten(facts, at):
        return Check("worker", None, "nothing is known of any worker at that time")
    for one in ending:
        if one.fires and knows(one, question):
            text = f"{named(one)} is stopping: it fires and starts nothing any more"
            return Check("worker", False, text, {"worker": one.id}, "process_down")
    if alive:
        text = f"{named(alive[0])} lived, but " + ("fires nothing" if not alive[0].fires else "does not know this job")
        return Check("worker", False, text, {"worker": alive[0].id}, "unknown_job")
    before = [one for one in facts.workers if lives_until(one, question) < at]
    after = [one for one in facts.workers if one.started_at > at]
    last = max(before, key=lambda one: lives_until(one, question), default=None)
    first = min(after, key=lambda one: one.started_at, default=None)
    text, data = _gap(question, last, first)
    return Check("worker", False, f"no worker lived: {text}" if text else "no worker lived", data, "process_down")


def _gap(question: Question, last: Worker | None, first: Worker | None) -> tuple[str, dict[str, Any]]:
    """What is known of the time between one worker and the next."""
    told: list[str] = []
    data: dict[str, Any] = {}
    if last is not None:
        end = lives_until(last, question)
        how = {"stopped": "stopped", "died": "died without a word, last seen"}.get(last.ended or "", "was last seen")
        told.append(f"{named(last)} {how} at {rfc3339(end)}")
        data |= {"down_since": rfc3339(end), "worker": last.id}
    if first is not None:
        told.append(f"the next one started at {rfc3339(first.started_at)}")
        data |= {"down_until": rfc3339(first.started_at)}
        if last is not None:
            data["down_seconds"] = round((first.started_at - lives_until(last, question)).total_seconds(), 1)
    return ", ".join(told), data


def knows(worker: Worker, question: Question) -> bool:
    """Whether a worker has the job, by its name or one that it had."""
    return worker.jobs is None or not question.names.isdisjoint(worker.jobs)


def is_stopping(worker: Worker) -> bool:
    """Whether a worker that lives has begun to stop, as far as it says: it may wait for its runs for a while."""
    return bool(worker.health.get("stopping"))


def takes(worker: Worker, question: Question) -> bool:
    """Whether a worker runs the job, as far as it says: one of the command line may run none, or certain ones only."""
    told = worker.health.get("takes", "all")
    return bool(told == "all") or not question.names.isdisjoint(told)


def named(worker: Worker) -> str:
    return f"worker {identified(worker)}"


def identified(worker: Worker) -> str:
    """Who a worker is, and where, for people."""
    return f"{worker.name or worker.id} ({worker.host} pid {worker.pid})"


def _touching(facts: Evidence, moment: Moment, kinds: Sequence[str], reach: timedelta) -> list[Incident]:
    """Incidents that overlap the time from the due instant to the start, or so long after it."""
    until = moment.began_at or later(moment.at, reach)
    return [one for one in facts.incidents if one.kind in kinds and one.since <= until and one.until >= moment.at]


def _are_to_blame(found: Sequence[Incident], question: Question, moment: Moment) -> bool:
    """Whether incidents took a good part of the delay, a quarter at least: a blink holds no fire up for an hour."""
    end = moment.decided_at or question.now
    lost = sum((max(timedelta(0), min(one.until, end) - max(one.since, moment.at)) for one in found), timedelta(0))
    return _accounts_for(lost, question, moment)


def _accounts_for(lost: timedelta, question: Question, moment: Moment) -> bool:
    delay = (moment.decided_at or question.now) - moment.at
    return moment.decided_at is None if delay <= SOON else lost * 4 >= delay


def _clock(question: Question, facts: Evidence, moment: Moment) -> Check:
    steps = [one for one in _touching(facts, moment, ("clock",), SOON) if abs(one.data.get("step_seconds", 0)) >= 1]
    asleep = _touching(facts, moment, ("frozen",), SOON)
    if steps:  # a clock that was set back makes nothing late: what it showed before is only shown again
        most = max(steps, key=lambda one: float(one.data["step_seconds"]))
        step = timedelta(seconds=most.data["step_seconds"])
        back = step < timedelta(0)
        how = "was set back" if back else "went forward"
        text = f"the clock {how} by {span(abs(step))} at {rfc3339(most.since)}"
        text += "" if back else ": it was set, or the machine slept"  # nothing tells the one from the other
        ok = back or not _accounts_for(step, question, moment)
        return Check("clock", ok, text, dict(most.data), "clock_jump")
    if asleep:
        longest = max(asleep, key=lambda one: one.until - one.since)
        text = f"the process stood still for {span(longest.until - longest.since)} from {rfc3339(longest.since)}"
        ok = not _are_to_blame(asleep, question, moment)
        return Check("clock", ok, f"{text}: stopped, or its machine asleep", dict(longest.data), "frozen")
    return _unless_forgotten(Check("clock", True, "steady"), facts, moment.at)


def _loop(question: Question, facts: Evidence, moment: Moment) -> Check:
    blocks = _touching(facts, moment, ("loop_blocked",), timedelta(minutes=1))
    now = question.vitals.get("blocked")
    if not blocks and now and moment.pending:
        return Check("loop", False, f"stands still for {now['ms']} ms{_culprit(now)}", dict(now), "loop_blocked")
    if not blocks:
        return _unless_forgotten(Check("loop", True, "no block on record"), facts, moment.at)
    worst = max(blocks, key=lambda one: one.data.get("ms", 0))
    text = f"stood still for {worst.data.get('ms')} ms at {rfc3339(worst.since)}{_culprit(worst.data)}"
    return Check("loop", not _are_to_blame(blocks, question, moment), text, dict(worst.data), "loop_blocked")


def _culprit(data: Mapping[str, Any]) -> str:
    who = f"job '{data['job']}', run {data['run']}" if "job" in data else data.get("task")
    return (f", held by {who}" if who else ", held by a callback") + f" at {data.get('where')}"


def _store(question: Question, facts: Evidence, moment: Moment) -> Check:
    away = _touching(facts, moment, ("store",), timedelta(minutes=1))
    if question.vitals.get("store") and moment.pending:
        return Check("store", False, f"is away: {question.vitals['store']}", {}, "store_unavailable")
    stalls = _touching(facts, moment, ("stalled",), timedelta(minutes=2))
    if stalls and _are_to_blame(stalls, question, moment):
        return Check("store", False, "the engine itself stood still", dict(stalls[0].data), "stalled")
    if not away:
        return _unless_forgotten(Check("store", True, "no outage on record"), facts, moment.at)
    held = [one for one in away if one.since <= moment.at <= one.until]
    one = max(held or away, key=lambda one: one.until - one.since)
    text = f"was away for {span(one.until - one.since)} from {rfc3339(one.since)}: {one.data.get('error')}"
    return Check("store", not _are_to_blame(away, question, moment), text, dict(one.data), "store_unavailable")


# -- lateness, overlap, groups


def _lateness(question: Question, moment: Moment) -> Check:
    limit = question.policy.get("max_late")
    allowed = f"max_late is {limit}" if limit else "no limit"
    row = moment.row
    if row is not None and row.reason == Reason.TOO_LATE:
        allowed = allowed if limit else "the max_late of then was less; now there is none"
        late = timedelta(seconds=row.data.get("late_seconds", 0))
        return Check("lateness", False, f"{span(late)} late; {allowed}", dict(row.data), "too_late")
    if moment.began_at is None:
        return Check("lateness", True, allowed)
    late = moment.began_at - moment.at
    on_time = late <= SOON
    said = "on time" if on_time else f"{span(late)} late"
    return Check("lateness", on_time, f"{said}; {allowed}", {"late_seconds": round(late.total_seconds(), 3)}, "late")


def _overlap(question: Question, facts: Evidence, moment: Moment) -> Check:
    row, ahead = moment.row, facts.ahead if question.policy.get("overlap") != "allow" else None
    if row is not None and row.reason == Reason.OVERLAP:
        data = row.data
        age = span(timedelta(seconds=data.get("age_seconds", 0)))
        state = "was running" if data.get("state") == "running" else "was waiting"
        return Check("overlap", False, f"run {data.get('run')} {state}, for {age} by then", dict(data), "overlap")
    if row is not None and row.reason == Reason.SUPERSEDED:
        return Check("overlap", False, "a newer fire of its schedule took its place", dict(row.data), "superseded")
    if ahead is not None and ahead.started_at and ahead.ended_at and moment.began_at:
        lost = min(ahead.ended_at, moment.began_at) - max(ahead.started_at, moment.at)
        if lost > timedelta(0) and _accounts_for(lost, question, moment):
            text = f"run {ahead.id} of its schedule ran until {rfc3339(ahead.ended_at)}, and it waited for that"
            return Check("overlap", False, text, {"run": ahead.id}, "overlap")
    limit = question.policy.get("max_running")
    if limit is not None and (freed := _freed(moment, [one for one in facts.freed if one.job in question.names])):
        text = f"max_running is {limit}, and so many were running until {freed.text}"
        return Check("overlap", False, text, {"run": freed.run}, "max_running")
    return Check("overlap", True, "no earlier run was in the way")


class _Freed(NamedTuple):
    """The run whose place a late one took."""

    run: int
    text: str


def _freed(moment: Moment, ended: Sequence[Run]) -> _Freed | None:
    """Of some that had ended the one with whose end it began; None: it was on time, began at another time, or waits again:
    for what, is another matter.
    """
    began = moment.began_at
    if began is None or began - moment.at <= SOON or (moment.row is not None and moment.row.state is State.WAITING):
        return None
    for one in ended:
        if one.ended_at is not None and began - SOON <= one.ended_at <= began:
            return _Freed(one.id, f"run {one.id} of '{one.job}' ended at {rfc3339(one.ended_at)}")
    return None


def _group(question: Question, facts: Evidence, moment: Moment) -> Check:
    name = question.policy.get("group")
    row = moment.row
    if row is not None and row.reason == Reason.GROUP_FULL:
        late = span(timedelta(seconds=row.data.get("late_seconds", 0)))
        text = f"group '{name}' had no place when it had waited for {late}, longer than max_late"
        return Check("group", False, text, dict(row.data), "group_full")
    full = question.places is not None and len(facts.group) >= question.places
    if row is not None and row.state is State.WAITING and facts.group and (full or question.places is None):
        holders = ", ".join(f"run {one.id} of '{one.job}'" for one in facts.group[:5])
        return Check(
            "group", False, f"group '{name}' is held by {holders}", {"runs": [one.id for one in facts.group]}, "group"
        )
    held = row.group if row is not None else None
    if held is not None and (freed := _freed(moment, [one for one in facts.freed if one.group == held])):
        return Check("group", False, f"group '{held}' had no place until {freed.text}", {"run": freed.run}, "group")
    return Check("group", True, f"group '{name}' had a place" if name else "in no group")
