"""What becomes of the fires of a schedule: which instants are due, with which fate, and where the cursor goes."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from taskloop import durations
from taskloop.clock import EPOCH
from taskloop.policy import Policy
from taskloop.runs import Cause, Reason, State
from taskloop.schedules import (
    Admission,
    Fire,
    Plan,
    Schedule,
    admit,
    alike,
    bind,
    cut,
    last_due,
    next_due,
    offset,
    plan,
    rebind,
    replanned,
    recalled,
    rewind,
    timetable,
)
from taskloop.triggers import At, Cron, Every, Trigger

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
LONG_AGO = NOW - timedelta(days=999)


def at(hours: float) -> datetime:
    return NOW + hours * HOUR


def hourly(**changes: Any) -> Schedule:
    facts = {"id": "s", "job": "a", "trigger": Every("1h"), "next_due": NOW, "anchor": NOW, "seen_at": NOW}
    return Schedule(**(facts | changes))


def planned(schedule: Schedule, now: datetime, *, watched: datetime = LONG_AGO, **options: Any) -> Plan:
    switches = {name: options.pop(name) for name in ("enabled", "settled") if name in options}
    how = {"enabled": switches.get("enabled", True), "missed": switches.get("settled")}
    return plan(schedule, Policy.of("a", options), now=now, watched_since=watched, **how)


ON_TIME = (Fire(NOW),)
OUTAGE = {"now": at(4.5), "watched": at(4.5)}
LATE = Fire(at(4), None, Cause.CATCH_UP)
OLDER = Fire(NOW, Reason.MISSED, count=4, until_at=at(3))


@pytest.mark.parametrize(
    ("given", "fires"),
    [
        ({"now": NOW}, ON_TIME),
        ({"now": at(0.5)}, ON_TIME),
        ({"now": NOW, "enabled": False}, (Fire(NOW, Reason.DISABLED),)),
        ({"now": NOW, "max_late": "1m"}, ON_TIME),
        ({"now": at(0.5), "max_late": "1m"}, (Fire(NOW, Reason.TOO_LATE),)),
        ({"now": at(0.5), "max_late": "30m"}, ON_TIME),
        ({"now": NOW, "missed": "all"}, ON_TIME),
        ({"now": at(0.5), "watched": NOW, "missed": "skip"}, ON_TIME),
        ({"now": at(0.5), "watched": at(0.1)}, (Fire(NOW, None, Cause.CATCH_UP),)),
        ({"now": at(0.5), "watched": at(0.1), "missed": "all"}, (Fire(NOW, None, Cause.CATCH_UP),)),
        ({"now": at(0.5), "watched": at(0.1), "missed": "skip"}, (Fire(NOW, Reason.MISSED),)),
        ({"now": at(0.5), "missed": "skip"}, ON_TIME),
        (OUTAGE, (OLDER, LATE)),
        (OUTAGE | {"missed": "skip"}, (Fire(NOW, Reason.MISSED, count=5, until_at=at(4)),)),
        (OUTAGE | {"missed": "skip", "watched": at(3.9)}, (OLDER, LATE)),
        (OUTAGE | {"missed": "all"}, tuple(Fire(at(n), None, Cause.CATCH_UP) for n in range(5))),
        (OUTAGE | {"missed": "all", "missed_limit": 2},
         (Fire(NOW, Reason.MISSED, count=3, until_at=at(2)), Fire(at(3), None, Cause.CATCH_UP), LATE)),
        (OUTAGE | {"missed": "all", "missed_limit": 4},
         (Fire(NOW, Reason.MISSED), *(Fire(at(n), None, Cause.CATCH_UP) for n in range(1, 5)))),
        (OUTAGE | {"missed": "all", "max_late": "90m"},
         (*(Fire(at(n), Reason.TOO_LATE, Cause.CATCH_UP) for n in range(3)),
          Fire(at(3), None, Cause.CATCH_UP), LATE)),
        (OUTAGE | {"max_late": "10m"}, (OLDER, replace(LATE, reason=Reason.TOO_LATE))),
        (OUTAGE | {"enabled": False}, (Fire(NOW, Reason.DISABLED, count=5, until_at=at(4)),)),
        (OUTAGE | {"settled": "skip"}, (Fire(NOW, Reason.MISSED, count=5, until_at=at(4)),)),
        (OUTAGE | {"settled": "latest", "missed": "skip"}, (OLDER, LATE)),
        (OUTAGE | {"settled": "all", "missed": "skip", "missed_limit": 1}, (OLDER, LATE)),
    ],
    ids=str,
)  # fmt: skip
def test_each_instant_that_is_due_gets_the_fate_of_the_table(given, fires):
    given = dict(given)
    done = planned(hourly(), given.pop("now"), **given)
    assert done.fires == fires
    newest = max(fire.until_at or fire.due_at for fire in fires)
    assert (done.last_due, done.next_due) == (newest, newest + HOUR)


def test_what_is_due_later_than_wanted_is_left_for_another_plan():
    now, policy = at(4.5), Policy.of("a", {})
    done = plan(hourly(), policy, now=now, watched_since=now, missed="skip", upto=at(2))
    assert done.fires == (Fire(NOW, Reason.MISSED, count=3, until_at=at(2)),)
    assert (done.last_due, done.next_due) == (at(2), at(3))
    rest = plan(hourly(next_due=done.next_due), policy, now=now, watched_since=now)
    assert rest.fires == (Fire(at(3), Reason.MISSED), LATE)


def test_the_last_instant_that_is_due_is_the_one_a_plan_decides_last():
    policy = Policy.of("a", {})
    assert [last_due(hourly(), policy, at(hours)) for hours in (0, 0.5, 4.5)] == [NOW, NOW, at(4)]
    assert last_due(hourly(trigger=At(NOW), anchor=None), policy, at(4.5)) == NOW
    spread = Policy.of("a", {"spread": "1h"})
    bound = bind(hourly(trigger=Cron("0 * * * *", timezone="UTC")), spread, NOW)
    assert bound.next_due is not None
    assert last_due(bound, spread, at(4.9)) == plan(bound, spread, now=at(4.9), watched_since=NOW).last_due


def test_a_schedule_that_is_not_due_has_no_plan():
    for schedule in (hourly(next_due=None), hourly(next_due=at(1))):
        with pytest.raises(ValueError, match="schedule 's' is not due"):
            planned(schedule, NOW)


def test_an_instant_first_seen_after_it_had_passed_is_missed():
    once = hourly(trigger=At(NOW), anchor=None, seen_at=at(1))
    assert planned(once, at(2)) == Plan(once, (Fire(NOW, Reason.MISSED),), None, NOW)
    assert planned(replace(once, seen_at=at(-1)), at(2)).fires == ON_TIME


def test_an_instant_that_passed_while_it_was_on_its_way_to_the_store_fires():
    once = hourly(trigger=At(NOW), anchor=None, seen_at=NOW + timedelta(milliseconds=5))
    assert planned(once, at(1)).fires == ON_TIME


def test_cron_walks_its_own_grid_over_a_change_of_the_clocks():
    nightly = hourly(
        trigger=Cron("30 1 * * *", timezone="Europe/London"),
        anchor=None,
        next_due=datetime(2026, 3, 27, 1, 30, tzinfo=UTC),
    )
    done = planned(nightly, datetime(2026, 3, 30, 12, tzinfo=UTC), missed="all")
    # The clocks go from 1:00 to 2:00 on the 29th, and what the gap skipped runs right after it.
    assert [fire.due_at.isoformat() for fire in done.fires] == [
        "2026-03-27T01:30:00+00:00",
        "2026-03-28T01:30:00+00:00",
        "2026-03-29T01:00:00+00:00",
        "2026-03-30T00:30:00+00:00",
    ]
    assert done.next_due == datetime(2026, 3, 31, 0, 30, tzinfo=UTC)


def test_a_schedule_with_an_end_of_time_has_no_next_instant():
    last = datetime(9999, 12, 31, 23, 30, tzinfo=UTC)
    assert planned(hourly(next_due=last, anchor=last), last).next_due is None


def test_a_trigger_that_changed_under_its_cursor_still_gets_the_cursors_instant():
    off_grid = hourly(next_due=at(0.25))
    done = planned(off_grid, at(0.5))
    assert (done.fires, done.next_due) == ((Fire(at(0.25)),), at(1))


TRIGGERS: list[Trigger] = [
    Every("7m", anchor=NOW), Every("1h", anchor=NOW), Cron("*/13 * * * *"), Cron("30 1 * * *", timezone="Europe/London"),
    Cron("0 12 * * 1-5"), At(NOW),
]  # fmt: skip
spans = st.timedeltas(timedelta(0), timedelta(days=3))


@given(
    st.sampled_from(TRIGGERS), spans, spans, st.sampled_from(["skip", "latest", "all"]), st.integers(1, 9),
    st.none() | st.timedeltas(timedelta(seconds=1), timedelta(days=1)),
    st.none() | st.timedeltas(timedelta(seconds=1), timedelta(hours=2)), st.booleans(),
)  # fmt: skip
def test_every_due_instant_is_decided_exactly_once(trigger, passed, watched, missed, limit, late, spread, enabled):
    rules = Policy(missed=missed, missed_limit=limit, max_late=late, spread=spread)
    schedule = Schedule(id="s", job="a", trigger=trigger, seen_at=LONG_AGO)
    first = next_due(schedule, rules, NOW - timedelta(microseconds=1))
    assume(first is not None)
    now = first + passed
    schedule = replace(schedule, next_due=first)
    walked, instant = [], first
    while instant is not None and instant <= now:
        walked.append(instant)
        instant = next_due(schedule, rules, instant)
    done = plan(schedule, rules, now=now, watched_since=NOW + watched, enabled=enabled)
    assert sum(fire.count for fire in done.fires) == len(walked)
    assert (done.last_due, done.next_due) == (walked[-1], instant)
    covered = [one for fire in done.fires for one in walked if fire.due_at <= one <= (fire.until_at or fire.due_at)]
    assert covered == walked
    assert all(
        fire.count == sum(fire.due_at <= one <= (fire.until_at or fire.due_at) for one in walked) for fire in done.fires
    )
    ready = [fire for fire in done.fires if fire.reason is None]
    assert len(ready) <= (limit if missed == "all" else 1)
    assert enabled or [fire.reason for fire in done.fires] == [Reason.DISABLED]
    assert all(late is None or now - fire.due_at <= late for fire in ready)
    assert all(fire.reason in {Reason.DISABLED, Reason.MISSED} for fire in done.fires if fire.count > 1)


def test_a_year_of_seconds_is_planned_at_once():
    done = planned(hourly(trigger=Every("1s")), NOW + timedelta(days=365))
    assert sum(fire.count for fire in done.fires) == 365 * 86_400 + 1
    assert len(done.fires) == 2


# -- binding


def unbound(trigger: Trigger, **changes: Any) -> Schedule:
    return Schedule(**({"id": "s", "job": "a", "trigger": trigger} | changes))


ALIGNED = datetime(2026, 3, 1, 14, tzinfo=UTC)  # 7 h divide the hours since 1970 there


@pytest.mark.parametrize(
    ("trigger", "first", "anchor", "due"),
    [
        (Every("7h"), "now", NOW, NOW),
        (Every("7h"), "after", NOW, at(7)),
        (Every("7h"), "aligned", EPOCH, EPOCH + ((NOW - EPOCH) // (7 * HOUR) + 1) * 7 * HOUR),
        (Every("7h", anchor=at(1)), "now", None, at(1)),
        (Every("7h", anchor=at(-1)), "after", None, at(6)),
        (Cron("0 14 * * *"), "now", None, ALIGNED),
        (At(at(3)), "now", None, at(3)),
        (At(at(-3)), "now", None, at(-3)),
    ],
)
def test_a_schedule_seen_first_is_bound_by_the_policys_first(trigger, first, anchor, due):
    bound = bind(unbound(trigger), Policy(first=first), NOW)
    assert bound == unbound(trigger, anchor=anchor, next_due=due, seen_at=NOW)
    assert bound.next_due == due


OLD = hourly(last_due=at(-1), enabled=False)


@pytest.mark.parametrize(
    ("old", "trigger", "first", "changes"),
    [
        (OLD, Every("1h"), "now", {"next_due": NOW, "anchor": NOW, "seen_at": NOW, "last_due": at(-1)}),
        (OLD, Every("3h"), "now", {"next_due": at(2), "anchor": at(-1), "seen_at": at(0.5), "last_due": at(-1)}),
        (OLD, Every("3h"), "aligned", {
            "next_due": EPOCH + ((at(-1) - EPOCH) // (3 * HOUR) + 1) * 3 * HOUR, "anchor": EPOCH, "seen_at": at(0.5),
            "last_due": at(-1),
        }),
        (OLD, Every("3h", anchor=NOW), "now", {"next_due": NOW, "seen_at": at(0.5), "last_due": at(-1)}),
        (OLD, Cron("0 14 * * *"), "now", {"next_due": ALIGNED, "seen_at": at(0.5), "last_due": at(-1)}),
        (OLD, At(at(9)), "now", {"next_due": at(9), "seen_at": at(0.5)}),
        (replace(OLD, last_due=None), Every("3h"), "now", {"next_due": at(0.5), "anchor": at(0.5), "seen_at": at(0.5)}),
        (replace(OLD, next_due=None), Every("1h"), "now",
         {"next_due": None, "anchor": NOW, "seen_at": NOW, "last_due": at(-1)}),
    ],
)  # fmt: skip
def test_a_stored_schedule_is_continued_by_an_equal_trigger_and_moved_by_another(old, trigger, first, changes):
    new = unbound(trigger, params={"n": 1}, origin="code")
    expected = unbound(trigger, **({"params": {"n": 1}, "origin": "code", "enabled": False} | changes))
    assert rebind(old, new, Policy(first=first), at(0.5)) == expected


def test_a_schedule_edited_at_each_deploy_still_fires():
    schedule = bind(unbound(Every("14d")), Policy(first="after"), NOW)
    schedule = replace(schedule, last_due=NOW)
    for day in range(1, 14):
        edited = unbound(Every(f"{14 + day % 2}d"))
        schedule = rebind(schedule, edited, Policy(), NOW + timedelta(days=day))
        assert schedule.next_due == NOW + edited.trigger.interval


@pytest.mark.parametrize("old", [Every("1h"), Cron("0 * * * *", timezone="UTC")])
def test_a_spread_schedule_whose_trigger_is_changed_waits_one_interval_from_its_last_fire(old):
    rules = Policy(spread=HOUR / 2)
    fired = bind(unbound(old), rules, NOW)
    fired = replace(fired, last_due=fired.next_due, next_due=next_due(fired, rules, fired.next_due))
    moved = rebind(fired, unbound(Every("3h")), rules, fired.last_due + timedelta(minutes=1))
    assert moved.next_due == fired.last_due + 3 * HOUR
    assert next_due(moved, rules, moved.next_due) == fired.last_due + 6 * HOUR


def test_the_timetable_of_a_bound_interval_is_its_grid():
    assert timetable(hourly()) == Every("1h", anchor=NOW)
    assert timetable(hourly(anchor=None)) == Every("1h")
    assert timetable(hourly(trigger=At(NOW))) == At(NOW)


def test_spread_shifts_each_schedule_by_its_own_share_the_same_in_every_life():
    shares = {offset(hourly(id=f"s{n}"), HOUR) for n in range(100)}
    assert len(shares) == 100
    assert all(timedelta(0) <= share < HOUR for share in shares)
    assert offset(unbound(Every(HOUR)), HOUR) == timedelta(
        microseconds=offset(unbound(Every(HOUR)), HOUR) // timedelta(microseconds=1)
    )
    assert offset(unbound(Every(HOUR)), None) == offset(unbound(Every(HOUR)), timedelta(0)) == timedelta(0)
    assert offset(unbound(At(NOW)), HOUR) == timedelta(0)


def test_a_spread_schedule_fires_first_and_next_with_its_shift():
    rules = Policy(spread=HOUR)
    shift = offset(unbound(Every(HOUR)), HOUR)
    bound = bind(unbound(Every("2h")), rules, NOW)
    assert bound.next_due == NOW + shift
    done = plan(bound, rules, now=NOW + shift, watched_since=NOW)
    assert done.next_due == NOW + 2 * HOUR + shift
    late = plan(bound, rules, now=NOW + 5 * HOUR + shift, watched_since=NOW)
    assert (late.last_due, late.next_due) == (NOW + 4 * HOUR + shift, NOW + 6 * HOUR + shift)


def test_a_spread_schedule_that_is_to_wait_one_interval_waits_that_and_its_shift():
    rules = Policy(spread=HOUR, first="after")
    bound = bind(unbound(Every("2h")), rules, NOW)
    assert bound.next_due == NOW + 2 * HOUR + offset(unbound(Every(HOUR)), HOUR)


def test_a_spread_schedule_on_the_grid_of_the_epoch_is_due_at_its_shift_after_an_instant_that_has_just_passed():
    rules = Policy(spread=HOUR, first="aligned")
    shift = offset(unbound(Every(HOUR)), HOUR)
    bound = bind(unbound(Every(HOUR)), rules, NOW + shift / 2)
    assert bound.next_due == NOW + shift


# -- overlap

RUNNING, WAITING = State.RUNNING, State.WAITING


@pytest.mark.parametrize(
    ("overlap", "active", "answer"),
    [
        ("skip", [], Admission.ADMIT),
        ("skip", [RUNNING], Admission.SKIP),
        ("skip", [WAITING], Admission.SKIP),
        ("queue", [], Admission.ADMIT),
        ("queue", [RUNNING], Admission.ADMIT),
        ("queue", [WAITING], Admission.SKIP),
        ("queue", [RUNNING, WAITING], Admission.SKIP),
        ("replace", [], Admission.ADMIT),
        ("replace", [RUNNING, WAITING], Admission.REPLACE),
        ("allow", [], Admission.ADMIT),
        ("allow", [RUNNING, WAITING], Admission.ADMIT),
    ],
)
def test_what_an_earlier_run_means_for_a_fire(overlap, active, answer):
    assert admit(Policy(overlap=overlap), active) is answer


# -- clocks that are set back


def rewound(
    schedule: Schedule, now: datetime, back: float, *decided: tuple[datetime, datetime], **options: Any
) -> Schedule:
    span = timedelta(hours=back)
    return rewind(schedule, Policy.of("a", options), now=now, back=span, decided=list(decided))


def once(hours: float) -> tuple[datetime, datetime]:
    return at(hours), at(hours)


def test_the_grid_of_an_interval_goes_back_with_the_clock():
    moved = rewound(hourly(next_due=at(5), last_due=at(4)), at(2.5), 2)
    assert (moved.next_due, moved.last_due) == (at(3), at(2))
    assert timetable(moved).after(at(3)) == at(4)


def test_it_goes_back_a_little_apart_from_instants_that_have_a_record():
    moved = rewound(hourly(next_due=at(5), last_due=at(4)), at(2.5), 2, once(3), once(4))
    apart = timedelta(milliseconds=1)
    assert moved.next_due == at(3) + apart
    again = rewound(moved, at(0.5), 2, once(3), (at(3) + apart, at(3) + apart))
    assert again.next_due == at(1) + 2 * apart


def test_an_interval_that_is_held_as_the_clock_goes_back_goes_with_it_apart_from_its_last_instant():
    held = hourly(next_due=at(4), last_due=at(3))
    moved = rewound(held, at(3.4), 1)
    assert moved.next_due == at(3) + timedelta(milliseconds=1)
    assert rewound(held, at(3.8), 0.6).next_due == at(3.4)
    assert rewound(hourly(next_due=NOW, last_due=None), at(-0.4), 1).next_due == at(-1)


@pytest.mark.parametrize("trigger", [Every("1h"), Every("1h", anchor=NOW), Cron("0 * * * *")], ids=str)
def test_what_is_held_for_longer_than_its_interval_stays_due_as_the_clock_goes_back(trigger):
    for last in (NOW, None):
        held = hourly(trigger=trigger, next_due=at(1), last_due=last)
        assert rewound(held, at(4.5), 1) == held


def test_an_interval_that_a_clock_ahead_has_moved_and_that_was_held_there_is_due_as_the_clock_goes_back():
    moved = rewound(hourly(next_due=at(11), last_due=at(10)), at(0.5), 20)
    assert moved.next_due is not None and moved.next_due <= at(0.5)


def test_an_interval_that_had_come_to_the_end_of_time_goes_on():
    end = datetime(9999, 12, 31, 23, 30, tzinfo=UTC)
    moved = rewound(hourly(next_due=None, last_due=end), NOW, (end - NOW) / HOUR)
    assert moved.next_due is not None and NOW < moved.next_due <= at(1)
    far = replace(hourly(next_due=None, last_due=end), trigger=Every(timedelta(days=36_525)))
    assert rewound(replace(far, anchor=end), end, 0.001).next_due is None


WALL = [Every("1h", anchor=NOW), Cron("0 * * * *")]


@pytest.mark.parametrize("trigger", WALL, ids=str)
def test_what_follows_the_wall_clock_comes_again_only_where_nothing_was_decided(trigger):
    ahead = hourly(trigger=trigger, next_due=at(100), last_due=at(99))
    assert rewound(ahead, at(2.5), 96).next_due == at(3)
    assert rewound(ahead, at(2.5), 96, once(3), once(4), once(99)).next_due == at(5)
    assert rewound(ahead, at(2.5), 96, (at(1), at(4)), once(6)).next_due == at(5)
    assert rewound(ahead, at(2.5), 96, (at(1), at(99))) == ahead
    assert rewound(ahead, at(2.5), 96, (at(2.6), at(2.8)), once(3)).next_due == at(4)
    assert rewound(ahead, at(2.5), 96).last_due == at(2)


@pytest.mark.parametrize("trigger", WALL, ids=str)
def test_a_cursor_that_stands_right_stays(trigger):
    for last in (at(2), None):
        right = hourly(trigger=trigger, next_due=at(3), last_due=last)
        assert rewound(right, at(2.5), 1) == right


def test_an_aligned_interval_follows_the_wall_clock_and_an_instant_is_left_alone():
    aligned = hourly(anchor=EPOCH, next_due=at(100))
    assert rewound(aligned, at(2.5), 96).next_due == at(3)
    done = hourly(trigger=At(NOW), next_due=None, anchor=None)
    assert rewound(done, at(-2), 3) == done


@given(interval=st.integers(1, 7200), back=st.integers(1, 10**9), lived=st.integers(0, 50), offset=st.integers(0, 7199))
def test_no_instant_of_a_grid_that_was_set_back_meets_one_that_has_a_record(interval, back, lived, offset):
    step = timedelta(seconds=interval)
    due = NOW + step * lived + timedelta(seconds=offset % interval)
    schedule = hourly(trigger=Every(step), anchor=due, next_due=due + step, last_due=due)
    decided = [(due - number * step, due - number * step) for number in range(lived)]
    now = due - timedelta(seconds=back)
    moved = rewind(schedule, Policy(), now=now, back=timedelta(seconds=back), decided=decided[::-1])
    grid = timetable(moved)
    assert all(grid.latest(first) != first for first, _ in decided)
    assert moved.next_due is not None and timedelta(0) < moved.next_due - now <= step + timedelta(milliseconds=60)


@pytest.mark.parametrize("trigger", [Every(HOUR), Cron("0 * * * *")], ids=str)
@pytest.mark.parametrize(("before", "after"), [(None, "30m"), ("30m", None), ("10m", "50m"), ("50m", "10m")])
def test_a_new_spread_moves_the_cursor_and_no_instant_of_the_trigger_comes_twice_or_never(trigger, before, after):
    rules = Policy.of("a", {"spread": after} if after else {})
    first, second = (
        offset(unbound(Every(HOUR)), durations.parse(before or 0)),
        offset(unbound(Every(HOUR)), rules.spread),
    )
    old = hourly(
        trigger=trigger, anchor=NOW if isinstance(trigger, Every) else None, last_due=at(2) + first,
        next_due=at(3) + first,
    )  # fmt: skip
    for minutes in (0, 20, 59):
        now = old.last_due + timedelta(minutes=minutes)
        moved = replanned(old, rules, now)
        assert moved.next_due == (at(3) + second if at(3) + second > now else old.next_due)
        assert next_due(moved, rules, at(3.99)) == at(4) + second
        assert plan(moved, rules, now=moved.next_due, watched_since=LONG_AGO).next_due == at(4) + second
    now = old.next_due + timedelta(minutes=1)  # it came due while nobody was there
    done = plan(replanned(old, rules, now), rules, now=now, watched_since=LONG_AGO)
    assert ([fire.due_at for fire in done.fires], done.next_due) == ([old.next_due], at(4) + second)
    young = replace(old, last_due=None)
    if isinstance(trigger, Every):
        assert replanned(young, rules, at(2.1)).next_due == at(3) + second


@pytest.mark.parametrize("spread", ["4h", "10h"])
def test_a_share_of_its_spread_longer_than_its_interval_moves_no_cursor_at_a_restart(spread):
    rules = Policy.of("a", {"spread": spread, "first": "after"})
    bound = bind(hourly(anchor=None, next_due=None), rules, NOW)
    for hours in (0.9, 1.8, 2.7):
        assert replanned(bound, rules, at(hours)) == bound or bound.next_due <= at(hours)


def test_a_schedule_of_another_trigger_and_a_spread_keeps_its_cursor_at_the_next_restart():
    rules = Policy.of("a", {"spread": "6h"})
    daily = hourly(trigger=Cron("0 3 * * *"), anchor=None)
    moved = rebind(hourly(last_due=at(-7), next_due=at(-6)), daily, rules, at(-6.9))
    assert moved.next_due is not None and moved.next_due > at(-6.8)
    assert rebind(moved, daily, rules, at(-6.8)).next_due == moved.next_due


def test_new_rules_of_a_zone_move_a_cursor_that_is_yet_to_come():
    cron = hourly(trigger=Cron("0 * * * *"), anchor=None, next_due=at(3.5), last_due=at(2), seen_at=at(-1))
    assert replanned(cron, Policy(), at(2.5)).next_due == at(3)
    assert replanned(replace(cron, last_due=None), Policy(), at(-0.5)).next_due == NOW
    due = replace(cron, next_due=at(2.4))
    assert replanned(due, Policy(), at(2.5)) == due
    past = replace(cron, last_due=at(1))
    assert replanned(past, Policy(), at(2.5)) == past
    for other in (hourly(), replace(cron, next_due=None)):
        assert replanned(other, Policy(), at(-9)) == other


# -- clocks that were ahead and were set right unseen


def test_a_cursor_that_is_further_off_than_its_interval_is_brought_back():
    moved = recalled(hourly(next_due=at(100), last_due=at(99)), Policy(), now=at(2.5), decided=[once(99)])
    assert at(2.5) < moved.next_due <= at(3.5) + timedelta(milliseconds=1)
    assert timetable(moved).after(moved.next_due) == moved.next_due + HOUR


def test_a_cursor_within_its_interval_is_left_alone():
    for right in (hourly(next_due=at(3), last_due=at(2)), hourly(next_due=at(2), last_due=at(1))):
        assert recalled(right, Policy(), now=at(2.5), decided=[]) == right


@pytest.mark.parametrize(
    "schedule", [hourly(trigger=trigger, anchor=None) for trigger in WALL] + [hourly(anchor=EPOCH)]
)
def test_what_follows_the_wall_clock_is_brought_back_to_the_next_instant_without_a_record(schedule):
    ahead = replace(schedule, next_due=at(100), last_due=at(99))
    assert recalled(ahead, Policy(), now=at(2.5), decided=[once(3), once(99)]).next_due == at(4)
    right = replace(schedule, next_due=at(3), last_due=at(2))
    assert recalled(right, Policy(), now=at(2.5), decided=[]) == right


def test_a_schedule_that_is_done_stays_done():
    done = hourly(trigger=At(NOW), next_due=None, anchor=None)
    assert recalled(done, Policy(), now=at(-2), decided=[]) == done


# -- counted instants that have a record already


@pytest.mark.parametrize(
    ("decided", "left"),
    [
        ([], [(1, 6, 6)]),
        ([once(1)], [(2, 6, 5)]),
        ([once(6)], [(1, 5, 5)]),
        ([(at(3), at(4))], [(1, 2, 2), (5, 6, 2)]),
        ([(at(1), at(5))], [(6, 6, 1)]),
        ([once(2), once(4)], [(1, 1, 1), (3, 3, 1), (5, 6, 2)]),
        ([(at(-3), at(2)), once(2), (at(6), at(9))], [(3, 5, 3)]),
        ([(at(0), at(9))], []),
        ([once(-1), once(8)], [(1, 6, 6)]),
        ([(at(1.5), at(4.5)), once(6)], [(1, 5, 5)]),
    ],
)
def test_a_counted_fire_is_cut_where_instants_have_a_record(decided, left):
    counted = Fire(at(1), Reason.MISSED, Cause.SCHEDULE, 6, at(6))
    newest = Fire(at(7), None, Cause.CATCH_UP)
    planned = Plan(hourly(next_due=at(1)), (counted, newest), at(8), at(7))
    fires = cut(planned, Policy(), decided).fires
    assert [(one.due_at, one.until_at or one.due_at, one.count) for one in fires[:-1]] == [
        (at(first), at(last), count) for first, last, count in left
    ]
    assert all((one.until_at is None) == (one.count == 1) for one in fires) and fires[-1] == newest


def test_what_is_cut_at_the_end_of_a_trigger_is_over():
    single = hourly(trigger=At(at(1)), next_due=at(1), anchor=None)
    planned = Plan(single, (Fire(at(1), Reason.MISSED, Cause.SCHEDULE, 2, at(2)),), None, at(1))
    assert cut(planned, Policy(), [once(1)]).fires == ()


@given(
    st.lists(
        st.builds(
            hourly,
            trigger=st.sampled_from([Every("1h"), Every("1h", anchor=NOW), Cron("0 * * * *"), At(NOW)]),
            next_due=st.sampled_from([NOW, at(-2)]),
            anchor=st.sampled_from([NOW, at(0.5)]),
            seen_at=st.sampled_from([NOW, at(3)]),
            id=st.sampled_from(["s", "another"]),
        ),
        min_size=2,
        max_size=2,
    ),
    st.sampled_from([{}, {"spread": "30m"}, {"missed": "all"}]),
)
def test_schedules_that_are_alike_have_the_same_plan(schedules, policy):
    one, other = schedules
    if one.trigger is other.trigger and alike(one, other, Policy.of("a", policy)):
        assert planned(one, at(3.5), **policy).of(other) == planned(other, at(3.5), **policy)


@pytest.mark.parametrize(
    ("changes", "policy", "answer"),
    [
        ({"id": "another", "params": {"n": 1}, "seen_at": at(-5), "last_due": at(-1)}, {}, True),
        ({"next_due": at(1)}, {}, False),
        ({"anchor": at(0.5)}, {}, False),
        ({"trigger": Every("2h")}, {}, False),
        ({"id": "another"}, {"spread": "30m"}, False),
    ],
)
def test_schedules_are_alike_but_for_who_they_are_and_what_they_were(changes, policy, answer):
    one = hourly()
    assert alike(one, one.changed(**changes), Policy.of("a", policy)) is answer


def test_what_is_due_once_is_alike_only_where_it_was_seen_at_the_same_moment():
    once = hourly(trigger=At(NOW))
    assert alike(once, once.changed(id="another"), Policy.of("a", {}))
    assert not alike(once, once.changed(seen_at=at(1)), Policy.of("a", {}))
