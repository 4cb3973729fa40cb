"""A schedule, and what becomes of its fires: which instants are due, with which fate, and the new cursor.

Pure. Start at `plan`; `admit` decides the one thing that only the store can know, whether an earlier run of the
same schedule is still active.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final, Literal, NamedTuple

from taskloop.clock import EPOCH
from taskloop.frozen import Frozen, in_one_go
from taskloop.policy import Policy
from taskloop.runs import Cause, Reason, State
from taskloop.triggers import At, Cron, Every, Trigger

__all__ = [
    "Admission",
    "Fire",
    "Plan",
    "Schedule",
    "admit",
    "alike",
    "bind",
    "cut",
    "last_due",
    "next_due",
    "plan",
    "rebind",
    "replanned",
    "rewind",
    "timetable",
    "usual_id",
]

Origin = Literal["code", "file", "stored"]
ON_THE_WAY: Final = timedelta(milliseconds=100)
"""An `At` that passed by so little before it was stored was no more missed than one a moment later would be."""
_MOMENT: Final = timedelta(microseconds=1)
_NOTHING: Final = timedelta(0)


@in_one_go
@dataclass(frozen=True, kw_only=True)
class Schedule(Frozen):
    """A trigger bound to a job, with the cursor that says when it fires next."""

    id: str
    job: str
    trigger: Trigger
    """As declared: an `Every` stands here without the anchor that `anchor` gives it."""
    params: dict[str, Any] = field(default_factory=dict)
    next_due: datetime | None = None
    """The next instant that needs a decision; None: never again."""
    last_due: datetime | None = None
    """The last instant that was decided; None: none yet."""
    anchor: datetime | None = None
    seen_at: datetime = EPOCH
    """When this trigger was first seen; an `At` before it is missed."""
    enabled: bool = True
    origin: Origin = "stored"


def usual_id(job: str, trigger: Trigger | str) -> str:
    """The id of a stored schedule for which nobody chose one: the same job and trigger are the same schedule."""
    return f"{job}:{trigger}".replace(" ", "_")


@dataclass(frozen=True, slots=True)
class Fire:
    """One due instant, or `count` of them up to `until_at`, with its fate: a run where `reason` is None."""

    due_at: datetime
    reason: Reason | None = None
    cause: Cause = Cause.SCHEDULE
    count: int = 1
    until_at: datetime | None = None


class Plan(NamedTuple):
    """What to do about a due schedule: its fires, oldest first, and where its cursor goes."""

    schedule: Schedule
    fires: tuple[Fire, ...]
    next_due: datetime | None
    last_due: datetime

    def of(self, schedule: Schedule) -> Plan:
        """The same plan for a schedule that is `alike`."""
        return Plan(schedule, self.fires, self.next_due, self.last_due)


def timetable(schedule: Schedule) -> Trigger:
    """The trigger with its anchor: the grid that the cursor walks."""
    return _anchored(schedule.trigger, schedule.anchor)


def _anchored(trigger: Trigger, anchor: datetime | None) -> Trigger:
    if isinstance(trigger, Every) and trigger.anchor is None and anchor is not None:
        return Every(trigger.interval, anchor=anchor)
    return trigger


def offset(schedule: Schedule, spread: timedelta | None) -> timedelta:
    """Where in [0, spread) this schedule stands: the same in every process and life. An `At` is not spread."""
    if not spread or isinstance(schedule.trigger, At):
        return _NOTHING
    from hashlib import blake2b  # here, not above: it costs 10 ms, and few jobs are spread

    digest = int.from_bytes(blake2b(schedule.id.encode(), digest_size=8).digest(), "big")
    return spread * (digest / 2**64)


def next_due(schedule: Schedule, policy: Policy, instant: datetime) -> datetime | None:
    """The first due instant strictly after `instant`, the policy's `spread` included."""
    return _shifted(timetable(schedule), offset(schedule, policy.spread), instant)


def last_due(schedule: Schedule, policy: Policy, instant: datetime) -> datetime:
    """The last instant due by then of a schedule that is due: of several that are, the one `plan` decides last."""
    shift = offset(schedule, policy.spread)
    found = timetable(schedule).latest(instant - shift)
    due = schedule.next_due or instant
    return due if found is None else max(due, found + shift)


def _shifted(grid: Trigger, shift: timedelta, instant: datetime) -> datetime | None:
    found = grid.after(instant - shift)
    return found + shift if found is not None else None


def bind(schedule: Schedule, policy: Policy, now: datetime) -> Schedule:
    """A schedule seen for the first time, with its anchor and first due instant by the policy's `first`."""
    trigger, shift = schedule.trigger, offset(schedule, policy.spread)
    anchor: datetime | None = None
    first: datetime | None
    if isinstance(trigger, At):
        first = trigger.instant
    elif isinstance(trigger, Every) and trigger.anchor is None:
        anchor = EPOCH if policy.first == "aligned" else now
        # After one interval: of its own grid the shifted anchor, a moment from now, is no fire.
        seen = now + shift if policy.first == "after" else now
        first = now + shift if policy.first == "now" else _shifted(_anchored(trigger, anchor), shift, seen)
    else:
        first = _shifted(trigger, shift, now)
    return schedule.changed(anchor=anchor, seen_at=now, next_due=first)


def rebind(old: Schedule, new: Schedule, policy: Policy, now: datetime) -> Schedule:
    """`new` as it continues `old`, a stored schedule of the same id.

    An equal trigger keeps the cursor. A changed one is asked anew from the last due instant, so that a schedule
    edited at each deploy still fires; one that never fired is bound as if first seen.
    """
    if old.trigger == new.trigger:
        kept = new.changed(next_due=old.next_due, last_due=old.last_due, anchor=old.anchor, seen_at=old.seen_at)
        return replanned(kept.changed(enabled=old.enabled), policy, now)
    if old.last_due is None or isinstance(new.trigger, At):
        return bind(new, policy, now).changed(enabled=old.enabled)
    anchored = isinstance(new.trigger, Every) and new.trigger.anchor is None
    # Less its share of the spread, with which the grid is at the last due instant again: the next is one interval off.
    aligned = EPOCH if policy.first == "aligned" else old.last_due - offset(new, policy.spread)
    moved = new.changed(last_due=old.last_due, anchor=aligned if anchored else None, seen_at=now, enabled=old.enabled)
    return moved.changed(next_due=next_due(moved, policy, old.last_due))


def rewind(
    schedule: Schedule,
    policy: Policy,
    *,
    now: datetime,
    back: timedelta,
    decided: Sequence[tuple[datetime, datetime]],
) -> Schedule:
    """The schedule after the wall clock was set back by `back`, to `now`.

    An interval without an anchor of its own counts elapsed time: its grid goes back with the clock. Whatever follows
    the wall clock keeps its grid and comes again only where nothing was decided: `decided` are spans (first and last)
    of due instants after `now` that have a record, in their order. So no instant is due twice, and a clock that was a
    year ahead does not silence a schedule for a year.
    """
    if schedule.next_due is None and not schedule.trigger.recurring:
        return schedule
    if isinstance(schedule.trigger, Every) and schedule.trigger.anchor is None and schedule.anchor not in (None, EPOCH):
        return _set_back(schedule, back, now, decided)
    shift, grid = offset(schedule, policy.spread), timetable(schedule)
    found = _shifted(grid, shift, now)
    for first, last in decided:
        if found is None or found < first:
            break
        if found <= last:
            found = _shifted(grid, shift, last)
    if found is None or (schedule.next_due is not None and found >= schedule.next_due):
        return schedule
    return schedule.changed(next_due=found, last_due=_before(schedule, policy, found))


def recalled(
    schedule: Schedule, policy: Policy, *, now: datetime, decided: Sequence[tuple[datetime, datetime]]
) -> Schedule:
    """The schedule at `now`, brought back if a worker whose clock was ahead has moved its cursor there.

    As `rewind`, for a step that nobody has seen: a cursor that is further off than its interval cannot be right.
    """
    back, trigger = _NOTHING, schedule.trigger
    if isinstance(trigger, Every) and trigger.anchor is None and schedule.next_due is not None:
        assert trigger.interval is not None
        back = (schedule.next_due - now) // trigger.interval * trigger.interval
        if schedule.anchor not in (None, EPOCH) and back <= _NOTHING:
            return schedule
    return rewind(schedule, policy, now=now, back=back, decided=decided)


_APART: Final = timedelta(milliseconds=1)


def _set_back(
    schedule: Schedule, back: timedelta, now: datetime, decided: Sequence[tuple[datetime, datetime]]
) -> Schedule:
    """The grid of elapsed time moved by `back`, and a little apart from every instant that has a record."""
    assert isinstance(schedule.trigger, Every) and schedule.anchor is not None and schedule.trigger.interval is not None
    interval = schedule.trigger.interval
    ahead = schedule.next_due - now if schedule.next_due is not None else None
    if ahead is not None and ahead <= interval and ahead - back < -interval:
        return schedule  # held, as by a pause: no clock that was ahead has moved it
    anchor = schedule.anchor - back % interval  # the same grid as by all of `back`, which may lead out of all years
    due = schedule.next_due - back if schedule.next_due is not None else _anchored(schedule.trigger, anchor).after(now)
    if due is None:
        return schedule
    taken = {(first - anchor) % interval for first, _ in decided}
    # Held, as by a pause: what came before it is not among those after now.
    if due <= now and schedule.last_due is not None:
        taken.add((schedule.last_due - anchor) % interval)
    apart = _NOTHING
    while apart in taken:
        apart += _APART
    due += apart
    return schedule.changed(anchor=anchor + apart, next_due=due, last_due=due - interval)


def replanned(schedule: Schedule, policy: Policy, now: datetime) -> Schedule:
    """The schedule with its cursor asked anew, since its spread or its zone's rules may have changed.

    What is due already stays due, and what was decided is decided: no instant of the trigger comes twice. Where a share
    of the old spread was longer than the way from one instant to the next, those that lie within it are left out.
    """
    due, last = schedule.next_due, schedule.last_due
    if not isinstance(schedule.trigger, Cron | Every) or due is None or due <= now:
        return schedule
    shift, grid = offset(schedule, policy.spread), timetable(schedule)
    of_this_spread = grid.latest(due - shift) == due - shift
    if isinstance(schedule.trigger, Cron) and (
        of_this_spread or last is None or grid.latest(last - shift) == last - shift
    ):
        seen_at = min(schedule.seen_at, now)  # a clock that was ahead may have seen it in the future
        found = next_due(schedule, policy, max(last or seen_at, seen_at))
    elif of_this_spread:
        return schedule
    else:
        base = grid.latest(due)
        found = None if base is None else base + shift
    return schedule if found is None or found <= now else schedule.changed(next_due=found)


def plan(
    schedule: Schedule,
    policy: Policy,
    *,
    now: datetime,
    watched_since: datetime,
    enabled: bool = True,
    missed: Literal["skip", "latest", "all"] | None = None,
    upto: datetime | None = None,
) -> Plan:
    """Decide every instant of `schedule` that is due at `now`; those after `upto` are left for another plan.

    `watched_since`: the instant from which somebody was there to fire; what was due before it fell into down time or
    a pause and is settled by `missed`, None: by the policy's own. Counts and the last instant are computed, not
    walked, so a year of minutes costs what a minute costs.
    """
    end = now if upto is None else upto
    due = schedule.next_due
    if due is None or due > now:
        raise ValueError(f"schedule '{schedule.id}' is not due at {now.isoformat()}")
    shift = offset(schedule, policy.spread)
    grid = timetable(schedule)
    base = due - shift
    if shift and grid.latest(base) != base:
        base = due  # of another spread: its instant of the trigger lies before it, and has no other fire
    following = grid.after(base)
    if following is None or following + shift > end:
        last, after, count = due, following, 1
    else:
        last = (grid.latest(end - shift) or base) + shift
        after = grid.after(last - shift)
        count = 1 + grid.count(base, last - shift)
    fires = _fates(schedule, policy, due, last, count, now, watched_since, enabled, missed or policy.missed)
    return Plan(schedule, fires, after + shift if after is not None else None, last)


def alike(one: Schedule, other: Schedule, policy: Policy) -> bool:
    """Whether two schedules of a job that are due have the same plan but for who they are.

    Where both are planned at the same instant, and nothing was switched in between.
    """
    return (
        one.next_due == other.next_due
        and one.trigger is other.trigger
        and one.anchor == other.anchor
        and not policy.spread
        and (one.seen_at == other.seen_at or not isinstance(one.trigger, At))
    )


def cut(planned: Plan, policy: Policy, decided: Sequence[tuple[datetime, datetime]]) -> Plan:
    """The plan without those of its counted instants that have a record, as after a clock that was set to and fro.

    `decided`: spans of such instants, first and last, in their order.
    """
    fires: list[Fire] = []
    for one in planned.fires:
        fires += [one] if one.until_at is None else _gaps(planned.schedule, policy, one, one.until_at, decided)
    return planned._replace(fires=tuple(fires))


def _gaps(
    schedule: Schedule, policy: Policy, fire: Fire, end: datetime, decided: Sequence[tuple[datetime, datetime]]
) -> list[Fire]:
    shift, grid = offset(schedule, policy.spread), timetable(schedule)
    parts: list[Fire] = []

    def add(first: datetime, last: datetime) -> None:
        count = 1 + grid.count(first - shift, last - shift)
        parts.append(replace(fire, due_at=first, count=count, until_at=last if count > 1 else None))

    due: datetime | None = fire.due_at
    for first, last in decided:
        if due is None or first > end:
            break
        if grid.latest(first - shift) != first - shift:  # of the grid as it was before it was moved or changed
            continue
        if due < first:
            add(due, _before(schedule, policy, first))
        if last >= due:
            due = _shifted(grid, shift, last)
    if due is not None and due <= end:
        add(due, end)
    return parts


def _fates(
    schedule: Schedule,
    policy: Policy,
    due: datetime,
    last: datetime,
    count: int,
    now: datetime,
    watched_since: datetime,
    enabled: bool,
    missed: Literal["skip", "latest", "all"],
) -> tuple[Fire, ...]:
    if not enabled:
        return (_counted(Reason.DISABLED, due, last, count),)
    if isinstance(schedule.trigger, At) and due < schedule.seen_at - ON_THE_WAY:
        return (Fire(due, Reason.MISSED),)
    late = last < watched_since
    if missed == "skip" and late:
        return (_counted(Reason.MISSED, due, last, count),)
    cause = Cause.CATCH_UP if late or count > 1 else Cause.SCHEDULE
    if missed == "all" and count > 1:
        return _each(schedule, policy, due, last, count, now)
    newest = Fire(last, _too_late(policy, last, now), cause)
    if count == 1:
        return (newest,)
    return (_counted(Reason.MISSED, due, _before(schedule, policy, last), count - 1), newest)


def _each(
    schedule: Schedule, policy: Policy, due: datetime, last: datetime, count: int, now: datetime
) -> tuple[Fire, ...]:
    """The newest `missed_limit` instants one by one, and one row for all older ones."""
    newest: list[datetime] = [last]
    while len(newest) < min(count, policy.missed_limit):
        newest.append(_before(schedule, policy, newest[-1]))
    fires = [Fire(at, _too_late(policy, at, now), Cause.CATCH_UP) for at in reversed(newest)]
    older = count - len(newest)
    if older:
        fires.insert(0, _counted(Reason.MISSED, due, _before(schedule, policy, newest[-1]), older))
    return tuple(fires)


def _before(schedule: Schedule, policy: Policy, instant: datetime) -> datetime:
    shift = offset(schedule, policy.spread)
    found = timetable(schedule).latest(instant - shift - _MOMENT)
    return (found + shift) if found is not None else instant


def _too_late(policy: Policy, due: datetime, now: datetime) -> Reason | None:
    return Reason.TOO_LATE if policy.max_late is not None and now - due > policy.max_late else None


def _counted(reason: Reason, due: datetime, last: datetime, count: int) -> Fire:
    return Fire(due, reason, Cause.SCHEDULE, count, last if count > 1 else None)


class Admission(Enum):
    """What an earlier active run of the same schedule means for a new fire."""

    ADMIT = "admit"
    SKIP = "skip"
    REPLACE = "replace"


def admit(policy: Policy, active: Sequence[State]) -> Admission:
    """Whether a fire may become a run beside the active runs of its schedule, given their states.

    `queue` lets one wait behind the running one; what waits already, a retry too, is the one.
    """
    if not active or policy.overlap == "allow":
        return Admission.ADMIT
    if policy.overlap == "replace":
        return Admission.REPLACE
    if policy.overlap == "queue" and State.WAITING not in active:
        return Admission.ADMIT
    return Admission.SKIP
