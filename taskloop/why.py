"""Why did it run, why did it not: the chain from timetable to call for one instant, and its first broken link.

Level 4, pure: from recorded facts alone, so the same question has the same answer as long as the facts are kept. The
links are in `chain`; here is which of them decided, what that is called, and what can be done. Start at `explain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from taskloop.chain import Check, ahead, is_stopping, knows, links, lives_until, named, span, takes
from taskloop.durations import rfc3339
from taskloop.moments import Moment, Question, in_force, meant, nearest
from taskloop.runs import Cause, Reason, Run, State
from taskloop.schedules import Schedule, offset
from taskloop.store_data import Evidence, Worker
from taskloop.switches import Switch
from taskloop.triggers import Cron

__all__ = ["Check", "Explanation", "Question", "explain", "explanation_record", "said"]

KEPT_FOR: Final = timedelta(days=1)
"""No record of what was due within this is ever deleted."""

_SAID: Final = ("because", "by", "error", "key", "reason")
"""Last words of the names of facts that others wrote."""

_RESUME_ALL: Final = "taskloop resume ends the pause of all jobs"

Verdict = Literal["ran", "running", "waiting", "did_not_run", "not_due", "will_run", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What became of an instant or a run, and why."""

    verdict: Verdict
    code: str
    """One word for the reason, of a small set: docs/guarantees.md lists them."""
    text: str
    at: datetime | None
    """The due instant it is about; None: of none."""
    checks: tuple[Check, ...] = ()
    """The links in the order in which they must hold."""
    remedies: tuple[str, ...] = ()
    run: Run | None = None
    previous: Run | None = None
    next: Run | None = None
    next_due: datetime | None = None
    evidence: Literal["full", "partial"] = "full"
    """`partial`: some facts of that time are pruned, or were never kept."""


def said(one: Explanation) -> list[str]:
    """What stands in an explanation as others said it: an error, a reason."""
    facts = [fact for each in one.checks for fact in each.data.items()]
    found = [str(value) for name, value in facts if name.rpartition("_")[2] in _SAID and value]
    if one.run is not None and one.run.error is not None:
        found += [one.run.error.message, one.run.summary or ""]
    return found


def explain(question: Question, facts: Evidence) -> Explanation:
    """Answer a question from the facts."""
    moment = meant(question, facts)
    if moment is None:
        return _complete(question, facts, None, _not_due(question, facts))
    checks = [*links(question, facts, moment), *_beside(question, facts, moment)]
    row = moment.row
    if row is None:
        answer = _no_record(question, facts, moment, checks)
    elif not moment.certain:
        answer = _perhaps(question, moment, checks, row)
    elif row.state is State.SKIPPED:
        answer = _skipped(question, moment, checks, row)
    elif row.state is State.WAITING:
        answer = _waiting(question, facts, moment, checks, row)
    else:
        answer = _ran(question, facts, moment, checks, row)
    return _complete(question, facts, moment, answer)


def _complete(question: Question, facts: Evidence, moment: Moment | None, answer: Explanation) -> Explanation:
    due = [one.next_due for one in facts.schedules if one.next_due is not None]
    partial = answer.verdict == "unknown" or any(one.ok is None for one in answer.checks)
    if moment is None and question.window is not None:
        partial |= facts.cut or facts.left_out > 0 or not _is_kept(facts, question.window.at, question.now)
    if question.window is None and question.run is None and answer.verdict in ("ran", "did_not_run"):
        answer = _from_now_on(question, facts, answer)
    return replace(
        answer,
        run=moment.row if moment is not None else None,
        previous=facts.previous,
        next=facts.next,
        next_due=min(due, default=None),
        evidence="partial" if partial else "full",
    )


def _from_now_on(question: Question, facts: Evidence, answer: Explanation) -> Explanation:
    """Of a job that nobody asked an instant of: beside the fire decided last, what stands in the way of the next one."""
    coming = ahead(question, facts)
    if coming is None or (coming.code == answer.code and answer.remedies):  # that is said already
        return answer
    checks, remedies = (*answer.checks, coming), (*answer.remedies, *_remedies(coming.code, question))
    return replace(answer, text=f"{answer.text}; {coming.text}", checks=checks, remedies=remedies)


def _is_kept(facts: Evidence, at: datetime, now: datetime) -> bool:
    """Whether what was decided about an instant must still be on record, if anything was."""
    since = [one for one in (facts.began_at, facts.known_since, facts.kept_since) if one is not None]
    return at > now or all(one <= at for one in since)


def _beside(question: Question, facts: Evidence, moment: Moment) -> list[Check]:
    """What else was due at the same time, and what was asked for."""
    found = []
    if question.window is not None:
        since, until = question.window.since, question.window.until
        others = [one for one in facts.rows if one != moment.row and since <= one.due_at < until]
        others = [one for one in others if one.schedule not in (None, moment.row.schedule if moment.row else None)]
        told = [f"run {one.id} of '{one.schedule}', due at {rfc3339(one.due_at)}: {_state(one)}" for one in others[:5]]
        told += [f"and {len(others) - 5} more"] if len(others) > 5 else []
        found += [Check("beside", True, "; ".join(told), {"runs": [one.id for one in others]})] if told else []
    asked = [one for one in facts.asked if moment.row is None or one.id != moment.row.id]
    found += [Check("on_demand", True, _on_demand(asked), {"runs": [one.id for one in asked]})] if asked else []
    return found


def _on_demand(asked: Sequence[Run]) -> str:
    last = max(asked, key=lambda one: one.id)
    why = f"{_CAUSES[last.cause]}{_actor(last)}"
    return f"the last run by no schedule was run {last.id}, {why}, due at {rfc3339(last.due_at)}: {_state(last)}"


def _state(row: Run) -> str:
    return f"{row.state.value} ({row.reason})" if row.reason else row.state.value


def _actor(row: Run) -> str:
    return _actor_of(row.actor)


def _actor_of(actor: str | None) -> str:
    return f" by {actor}" if actor else ""


# -- it was not due


_NOT_YET: Final = "its schedule is not in the store yet: a scheduler that has the job puts it there when it is started"


def _not_due(question: Question, facts: Evidence) -> Explanation:
    if question.window is None:
        code, text = "not_due", "no schedule of it fires; it runs when asked for"
        if question.is_periodic:
            code, text = "not_registered_yet", _NOT_YET
        check = Check("timetable", not question.is_periodic, question.trigger_text)
        return Explanation(verdict="not_due", code=code, text=text, at=None, checks=(check,),
                           remedies=_remedies(code, question))  # fmt: skip
    at, asked = question.window.at, f"; {_on_demand(facts.asked)}" if facts.asked else ""
    if facts.began_at is not None and at < facts.began_at:
        return _unknown(f"the store was begun at {rfc3339(facts.began_at)}, after that", "not_on_record", at)
    if facts.known_since is not None and at < facts.known_since:
        text = (
            f"what is on record is complete from {rfc3339(facts.known_since)} on; before, no fire of that time is left"
        )
        return _unknown(f"{text}{asked}", "unknown_pruned", at)
    versions = list(in_force(facts, at).values())
    if not versions:
        first = min((one.seen_at for one in (*facts.schedules, *(old.schedule for old in facts.former))), default=None)
        if first is not None and at < first:
            text, code = f"its schedule was first seen at {rfc3339(first)}, after that", "not_registered_yet"
        elif first is None and question.is_periodic:
            text, code = f"{_NOT_YET}{asked}", "not_registered_yet"
        else:
            text, code = f"no schedule of it was due then; it runs when asked for{asked}", "not_due"
        check = Check("timetable", False, text)
        return Explanation(verdict="not_due", code=code, text=text, at=at, checks=(check,))
    around = nearest(versions, question, at)
    told = [_misfit(version.schedule, question, at, *beside) for version, beside in around[:5]]
    told += [f"and {len(around) - 5} more schedules"] if len(around) > 5 else []
    text = "; ".join(told)
    check = Check("timetable", False, text, {"schedules": [one.schedule.id for one, _ in around[:100]]})
    if facts.left_out:
        text = f"{facts.left_out} schedules of it were not looked at, for it has so many; of the others, {text}"
        return replace(_unknown(f"{text}{asked}", "too_many", at), checks=(check,))
    return Explanation(verdict="not_due", code="not_due", text=f"it was not due then: {text}{asked}", at=at, checks=(check,),
                       remedies=_remedies("not_due", question))  # fmt: skip


def _unknown(text: str, code: str, at: datetime) -> Explanation:
    return Explanation(verdict="unknown", code=code, text=text, at=at, checks=(Check("timetable", None, text),))


def _misfit(
    schedule: Schedule, question: Question, at: datetime, before: datetime | None, after: datetime | None
) -> str:
    """Why a schedule was not due at an instant: the fields that do not match, and when it was due around then."""
    around = [f"the fire {word} {was} due at {rfc3339(one)}" for word, was, one in
              (("before", "was", before), ("after", "is", after)) if one]  # fmt: skip
    text = f"schedule '{schedule.id}' is {schedule.trigger.describe()}"
    moved = offset(schedule, question.spread)
    if moved:
        text += f", moved by {span(moved)} (spread)"
    elif isinstance(schedule.trigger, Cron):
        fields = schedule.trigger.misfits(at)
        text += "".join(f", {name} {shown} does not match" for name, shown in fields)
        if not fields:
            text += ", and a change of the clock moved or skipped this time"
    return ", ".join([text, *around])


# -- what became of it


def _skipped(question: Question, moment: Moment, checks: Sequence[Check], row: Run) -> Explanation:
    link = {
        Reason.OVERLAP: "overlap",
        Reason.SUPERSEDED: "overlap",
        Reason.DISABLED: "switch",
        Reason.TOO_LATE: "lateness",
        Reason.GROUP_FULL: "group",
        Reason.UNKNOWN_JOB: "worker",
    }.get(Reason(row.reason), "") if row.reason in list(Reason) else ""  # fmt: skip
    first = next((one for one in checks if one.name == link), None)
    if first is None or first.name == "lateness":  # what was missed, or late: by whose doing?
        first = _missed(row, checks) or first
    what = f"it was due at {rfc3339(moment.at)} and was skipped ({row.reason}){_counted(row)}"
    code = first.code if first is not None and first.code else row.reason or "skipped"
    text = f"{what}: {first.text}" if first is not None else what
    return _did_not(code, text, moment, checks, question)


def _counted(row: Run) -> str:
    if row.count == 1 or row.until_at is None:
        return ""
    return f", one of {row.count} from {rfc3339(row.due_at)} to {rfc3339(row.until_at)}"


def _perhaps(question: Question, moment: Moment, checks: Sequence[Check], row: Run) -> Explanation:
    """Within what a record counts, of a schedule that is not on record: whether it was due then, nobody can tell."""
    text = (
        f"whether it was due at {rfc3339(moment.at)} is not on record; run {row.id} stands for {row.count} instants "
        f"from {rfc3339(row.due_at)} to {rfc3339(row.until_at or row.due_at)}, skipped ({row.reason})"
    )
    return Explanation(
        verdict="unknown", code="unknown_pruned", text=text, at=moment.at, checks=tuple(checks),
        remedies=_remedies("unknown_pruned", question)
    )  # fmt: skip


def _missed(row: Run, checks: Sequence[Check]) -> Check | None:
    """The link that made a fire miss its time: a pause, no worker, a clock, a loop, a store."""
    broken = {one.name: one for one in checks if one.ok is False}
    held = "paused_since" in row.data  # the first that it counts, at least: the pause may have ended before the others
    others = ("worker", "clock", "loop", "store")
    for name in ("pause", *others) if held else (*others, "pause"):
        if name in broken:
            return broken[name]
    if held:
        return _was_paused(row)
    if "down_since" in row.data:
        seconds = timedelta(seconds=row.data.get("down_seconds", 0))
        return Check(
            "worker",
            False,
            f"nobody was there for {span(seconds)} from {row.data['down_since']}",
            row.data,
            "process_down",
        )
    return None


def _was_paused(row: Run) -> Check:
    """The pause that held a fire, by its record: the pause itself is not on record any more."""
    text = f"paused since {row.data['paused_since']}{_actor_of(row.data.get('paused_by'))}"
    return Check("pause", False, text, row.data, "paused")


def _no_record(question: Question, facts: Evidence, moment: Moment, checks: Sequence[Check]) -> Explanation:
    """Due, and no record of it: the first broken link says why it has none yet, or never will."""
    first = next((one for one in checks if one.ok is False), None)
    at = rfc3339(moment.at)
    if moment.at > question.now:
        text = "nothing was due yet; " if question.window is None else ""
        text += f"it will be due at {at}" + (f", but {first.text}" if first is not None else "")
        code = first.code if first is not None else "will_run"
        return Explanation(verdict="will_run", code=code, text=text, at=moment.at, checks=tuple(checks),
                           remedies=_remedies(code, question))  # fmt: skip
    deleted = _deleted(question, facts, moment)
    if deleted is not None:
        text = f"it was due at {at}, and its record is not kept any more{deleted}"
        return replace(_did_not("unknown_pruned", text, moment, checks, question), verdict="unknown")
    held = next((one for one in checks if one.name == "pause" and one.ok is False), None)
    if held is not None and moment.pending and question.pauses and first is not None and first.code == "disabled":
        text = (
            f"it was due at {at} and has no record: {held.text}, and skipped if the job is still off then: {first.text}"
        )
        found = _did_not("paused", text, moment, checks, question)
        return replace(found, remedies=(*found.remedies, *_remedies("disabled", question)))
    if first is not None:
        gone = f"; its schedule was changed or removed at {rfc3339(moment.changed_at)}" if moment.changed_at else ""
        text = f"it was due at {at} and has no record: {first.text}{gone}"
        return _did_not(first.code or first.name, text, moment, checks, question)
    if question.now - moment.at <= timedelta(seconds=2):
        return Explanation(
            verdict="waiting", code="due_now", text=f"it is due since {at}", at=moment.at, checks=tuple(checks)
        )
    if any(one.ok is None for one in checks):
        text = f"it was due at {at} and has no record; what else is on record of that time does not tell why"
        return replace(_did_not("unknown_pruned", text, moment, checks, question), verdict="unknown")
    if moment.pending:  # it will be decided: a worker that sleeps until then looks at the clock once a minute
        text = (
            f"it is due since {at}, and no worker has decided it yet: that the clock was set is noticed within a minute"
        )
        return Explanation(verdict="waiting", code="due_now", text=text, at=moment.at, checks=tuple(checks),
                           remedies=("if it lasts for longer: taskloop status, and please report it with this answer",))  # fmt: skip
    text = f"it was due at {at} and has no record, although every link held that is known of"
    return replace(_did_not("unexplained", text, moment, checks, question), verdict="unknown")


def _deleted(question: Question, facts: Evidence, moment: Moment) -> str | None:
    """Of an instant that was decided, and has no record: a text that says how that can be; None: it should have one."""
    if moment.pending:
        return None
    may_be = question.now - moment.at > KEPT_FOR
    since = (facts.kept_since if may_be else None, facts.known_since)
    kept = max((one for one in since if one is not None), default=None)
    if kept is not None and moment.at < kept:
        return f", the oldest kept is of {rfc3339(kept)}"
    return "" if may_be and moment.current else None


def _did_not(code: str, text: str, moment: Moment, checks: Sequence[Check], question: Question) -> Explanation:
    remedies = () if _is_over(code, checks, question) else _remedies(code, question)
    return Explanation(
        verdict="did_not_run", code=code, text=text, at=moment.at, checks=tuple(checks), remedies=remedies
    )


def _is_over(code: str, checks: Sequence[Check], question: Question) -> bool:
    """Whether the pause that held a fire has ended, or the job that was off is on again, so that there is nothing to resume
    or enable; a pause that is forgotten by now has ended.
    """
    if code == "disabled":
        return not question.is_off
    held = next((one for one in checks if one.name == "pause" and one.ok is False), None)
    return code == "paused" and (held is None or "pause_ended_at" in held.data)


def _remedies(code: str, question: Question, *, of_run: bool = False) -> tuple[str, ...]:
    if code == "paused":  # the end of one pause may leave another in force
        return tuple(_RESUME_ALL if one.job is None else f"taskloop resume {question.job}" for one in question.pauses)
    return tuple(one.format(job=question.job) for one in (_OF_A_RUN if of_run else _REMEDIES).get(code, ()))


def _waiting(question: Question, facts: Evidence, moment: Moment, checks: Sequence[Check], row: Run) -> Explanation:
    """Why a run still waits."""
    if row.created_at > question.now:  # it was asked for after the question, and before the facts were read
        question = replace(question, now=row.created_at)
    code, why = _hindrance(question, facts, checks, row)
    since = span(question.now - max(row.ready_at, row.created_at))
    text = f"run {row.id} waits{'' if row.ready_at > question.now else f' for {since}'}: {why}"
    remedies = _remedies(code, question, of_run=True)
    return Explanation(verdict="waiting", code=code, text=text, at=moment.at, checks=tuple(checks), remedies=remedies)


def _hindrance(question: Question, facts: Evidence, checks: Sequence[Check], row: Run) -> tuple[str, str]:
    held = {one.name: one for one in checks if one.ok is False}
    alive = [one for one in facts.workers if one.id in question.living]
    knowing = [one for one in alive if knows(one, question)]
    running = [one for one in facts.active if one.state is State.RUNNING]
    ahead = [one for one in running if one.schedule == row.schedule and row.schedule is not None]
    limit = question.policy.get("max_running")
    paused = [one for one in facts.switches if one.kind == "paused" and one.holds(question.now)]
    if row.ready_at > question.now and row.attempt > 0:
        error = f" after {row.error.told()}" if row.error else ""
        return "retry_wait", f"attempt {row.attempt + 1} of {row.attempts} begins at {rfc3339(row.ready_at)}{error}"
    if row.ready_at > question.now:
        return "later", f"it may begin at {rfc3339(row.ready_at)}, as it was asked for"
    if paused:
        return "paused", _held_by(paused)
    if (nobody := _nobody(alive, knowing)) is not None:
        return nobody
    if ahead and question.policy.get("overlap") != "allow":
        return "overlap", f"run {ahead[0].id} of its schedule is still running"
    if limit is not None and len(running) >= limit:
        named = ", ".join(f"run {one.id}" for one in running[:5])
        return "max_running", f"max_running is {limit}, and so many are running: {named}"
    if "group" in held:
        return "group", held["group"].text
    for name in ("loop", "store"):
        if name in held:
            return held[name].code, held[name].text
    if (why := _unready(knowing, question)) is not None:
        return "slots", why
    return "due_now", "it may start any moment"


def _nobody(alive: Sequence[Worker], knowing: Sequence[Worker]) -> tuple[str, str] | None:
    """Why no worker runs anything of a job, of those that live and those of them that have it; None: one does."""
    if not alive:
        return "process_down", "no worker runs"
    if not knowing:
        return "unknown_job", "no live worker has this job"
    staying = [one for one in knowing if not is_stopping(one)]
    if not staying:
        return "process_down", "the workers that have this job are stopping, and start nothing any more"
    if all(one.only_submits for one in staying):
        return "unknown_job", "the live workers that have this job fire nothing and run nothing (enabled = false)"
    return None


def _held_by(paused: Sequence[Switch]) -> str:
    """By which pauses a run is held: by its job's own, by that of all jobs, or by both."""
    told = []
    for one in paused:
        until = f" until {rfc3339(one.until)}" if one.until else ""
        why = f': "{one.reason}"' if one.reason else ""
        what = "all jobs are paused" if one.job is None else "it is paused itself" if len(paused) > 1 else "paused"
        told.append(f"{what} since {rfc3339(one.since)}{until} by {one.actor or 'somebody'}{why}")
    return ", and ".join(told)


def _unready(knowing: Sequence[Worker], question: Question) -> str | None:
    """Why none of the workers that have the job begins it just now; None: one may."""
    taking = [one for one in knowing if takes(one, question)]
    if not taking:
        only_fire = all(one.health.get("takes") == [] for one in knowing)
        return "the workers that have the job " + ("only fire" if only_fire else "run other jobs only")
    return "every worker that has the job is full" if all(one.health.get("free", 1) <= 0 for one in taking) else None


def _ran(question: Question, facts: Evidence, moment: Moment, checks: Sequence[Check], row: Run) -> Explanation:
    late = None if row.started_at is None else row.started_at - moment.at
    begun = "never began" if row.started_at is None else f"began at {rfc3339(row.started_at)}"
    if late is not None and late > timedelta(seconds=1) and row.cause in (Cause.SCHEDULE, Cause.CATCH_UP):
        begun += f", {span(late)} late"
        reason = next((one for one in checks if one.ok is False and one.name not in ("lateness", "switch")), None)
        code = "ran_late"
        begun += f" because {reason.name}: {reason.text}" if reason is not None else ", and nothing on record says why"
    else:
        code = "ran"
    by = f", {_CAUSES[row.cause]}{_actor(row) if row.cause is not Cause.SCHEDULE else ''},"
    verdict: Verdict = "ran" if row.started_at else "did_not_run"
    ended = f"{row.state.value}{_end(row)}"
    if row.state is State.RUNNING:
        gone = next((one for one in facts.workers if one.id == row.worker and one.id not in question.living), None)
        ended, verdict = "it is running", "running"
        if gone is not None:
            ended = (
                f"it is on record as running, but {named(gone)} was last seen at {rfc3339(lives_until(gone, question))}"
            )
            code = "process_down"
    text = f"run {row.id}{by} {begun}; {ended}"
    calls = _calls(row, question)
    code = code if row.started_at is not None else row.state.value
    remedies = _remedies(code, question, of_run=True)
    return Explanation(verdict=verdict, code=code, text=text, at=moment.at, checks=(*checks, *calls), remedies=remedies)


def _end(row: Run) -> str:
    took = "" if row.started_at is None or row.ended_at is None else f" after {span(row.ended_at - row.started_at)}"
    why = f" ({row.reason})" if row.reason else f": {row.error.told(row.summary)}" if row.error else ""
    return f"{_actor_of(row.data.get('cancelled_by'))}{took}{why}"


def _calls(row: Run, question: Question) -> list[Check]:
    """Why it was called more than once, or asked for twice: the attempts, the key, the run it repeats."""
    found = []
    if row.attempt > 1:
        lost = f"was lost ({row.data['lost']})" if "lost" in row.data else "failed or was lost"
        text = f"called {row.attempt} times, {row.attempts} are allowed: an attempt {lost} before"
        found.append(Check("calls", True, text, {"attempt": row.attempt, "attempts": row.attempts}))
    if row.key is not None:
        found.append(
            Check("key", True, f"key '{row.key}': asked again with it, the same run is given", {"key": row.key})
        )
    if row.rerun_of is not None:
        found.append(Check("rerun", True, f"asked for again, like run {row.rerun_of}", {"run": row.rerun_of}))
    if row.state is State.RUNNING and question.usual is not None and row.attempt_started_at is not None:
        now = question.now - row.attempt_started_at
        usual = (
            f"running for {span(now)}; usually it takes {span(question.usual.median)}, p95 {span(question.usual.p95)}"
        )
        found.append(Check("usual", now <= question.usual.p95 * 10, usual))
    return found


_CAUSES: Final[dict[Cause, str]] = {
    Cause.SCHEDULE: "of its schedule",
    Cause.MANUAL: "asked for",
    Cause.API: "asked for over HTTP",
    Cause.CLI: "asked for on the command line",
    Cause.RERUN: "asked for again",
    Cause.ON_START: "because a scheduler started",
    Cause.CATCH_UP: "making up for what was missed",
}
_REMEDIES: Final[dict[str, tuple[str, ...]]] = {
    "not_due": ("taskloop show {job} lists its next fires", "taskloop submit {job} runs it now"),
    "not_registered_yet": ("taskloop run, or await scheduler.start()", "taskloop submit {job} asks for a run"),
    "disabled": ("taskloop enable {job}",),
    "process_down": (
        "keep a worker running: taskloop run, under a supervisor that restarts it",
        'missed = "latest" or "all" makes up for what fell into down time',
    ),
    "unknown_job": (
        "start a worker that has the job, without enabled = false; if it was renamed, give the new one aliases=(...)",
    ),
    "loop_blocked": (
        "move the blocking call off the loop: await asyncio.to_thread(...), or write the job as a plain def",
    ),
    "too_late": (  # where a link is known to have made it late, its code is that of the link
        "raise max_late of {job}",
        "if its workers were full: raise scheduler.max_running, or start another worker",
    ),
    "overlap": (
        "give {job} a timeout below its interval",
        'overlap = "queue" runs it afterwards, "allow" beside the other',
    ),
    "superseded": ('overlap = "replace" lets the newest fire win; "queue" or "skip" keep the older one',),
    "group_full": ("give the group more places: [groups]", "raise max_late of {job}"),
    "group": ("give the group more places: [groups]",),
    "max_running": ("raise max_running of {job}",),
    "slots": ("raise scheduler.max_running, or start another worker",),
    "store_unavailable": ("see what the store says, above; taskloop db check",),
    "frozen": ("see who stopped the process, or lets its machine sleep",),
    "clock_jump": (
        "if the machine sleeps, keep it awake, or run a worker on one that is",
        "if its clock is set, let NTP keep it, which slews instead of stepping",
    ),
    "retry_wait": ("taskloop cancel RUN ends the retries",),
    "unexplained": ("this should not be: taskloop status, and please report it with this answer",),
}
"""What can be done, by code; `{job}` stands for the job's name."""
_OF_A_RUN: Final[dict[str, tuple[str, ...]]] = _REMEDIES | {
    "overlap": ("give {job} a timeout below its interval", 'overlap = "allow" runs it beside the other'),
    "process_down": ("keep a worker running: taskloop run, under a supervisor that restarts it",),
}
"""The same for a run that waits or that a worker has left, which is on record whatever `overlap` and `missed` say."""


def explanation_record(one: Explanation) -> dict[str, Any]:
    """An explanation as plain JSON."""
    return {
        "verdict": one.verdict,
        "code": one.code,
        "text": one.text,
        "at": None if one.at is None else rfc3339(one.at),
        "checks": [
            {"name": each.name, "ok": each.ok, "text": each.text, "data": dict(each.data)} for each in one.checks
        ],
        "remedies": list(one.remedies),
        "run": _brief(one.run),
        "previous": _brief(one.previous),
        "next": _brief(one.next)
        or ({"run": None, "state": None, "due_at": rfc3339(one.next_due)} if one.next_due else None),
        "evidence": one.evidence,
    }


def _brief(run: Run | None) -> dict[str, Any] | None:
    if run is None:
        return None
    return {"run": run.id, "state": run.state.value, "reason": run.reason, "due_at": rfc3339(run.due_at)}
