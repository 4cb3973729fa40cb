"""The contract every store must pass, second part: firing. Cursors, fates, overlaps, and who wins."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from stores import (
    NOW,
    asked,
    at,
    claimed,
    ended,
    fired,
    firing,
    hourly,
    ids,
    know,
    pair,
    put,
    shared,
    started,
    state,
    store,
    stored,
    stores,
    submitted,
)

from taskloop.policy import Policy
from taskloop.runs import Cause, Failure, Raised, Run, State
from taskloop.schedules import Schedule, plan
from taskloop.store import Store
from taskloop.store_data import Firing, Query, Terms, Wish
from taskloop.triggers import At

__all__ = ["pair", "shared", "store", "stores"]

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


async def again(store: Store, name: str = "s", *, now: Any, **policy: Any) -> Firing:
    """What a worker makes of a schedule as it stands in the store."""
    return firing(await stored(store, name), now=now, **policy)


async def every_run(store: Store) -> list[Run]:
    return list(await store.find(Query(skipped=True, limit=1000)))[::-1]


# -- one fire


async def test_a_fire_moves_the_cursor_and_leaves_a_waiting_run(store):
    schedule = hourly(params={"n": 1})
    await put(store, schedule)
    done = await fired(store, firing(schedule, priority=5, retry=3, max_late="10m"), now=at(2))
    assert (list(done.started), done.waiting, list(done.skipped), done.lost) == ([], 1, [], 0)
    assert await stored(store, "s") == replace(schedule, next_due=NOW + HOUR, last_due=NOW)
    [run] = await every_run(store)
    assert run == Run(
        id=run.id,
        job="a",
        schedule="s",
        state=State.WAITING,
        cause=Cause.SCHEDULE,
        params={"n": 1},
        attempts=3,
        due_at=NOW,
        ready_at=NOW,
        expires_at=at(600),
        created_at=at(2),
        priority=5,
    )


async def test_a_fire_with_a_free_slot_is_running_at_once(store):
    await put(store, hourly())
    done = await fired(store, firing(hourly(), starts=True, max_late="10m"), now=at(2))
    [run] = done.started
    assert (run.state, run.worker, run.attempt, run.token) == (State.RUNNING, "w1", 1, 1)
    assert (run.started_at, run.attempt_started_at, run.expires_at) == (at(2), at(2), None)
    assert done.waiting == 0
    assert await store.run(run.id) == run
    assert list((await claimed(store)).started) == []
    assert await store.settle(ended(run))


@pytest.mark.parametrize("policy", [{"group": "g"}, {"max_running": 1}])
async def test_a_fire_of_a_job_with_limits_waits_to_be_claimed(store, policy):
    await put(store, hourly())
    done = await fired(store, firing(hourly(), starts=True, **policy))
    assert (list(done.started), done.waiting) == ([], 1)


async def test_many_firings_are_one_answer_in_order(store):
    schedules = [hourly(f"s{n:03}", params={"n": n}) for n in range(300)]
    await put(store, *schedules)
    done = await fired(store, *(firing(one, starts=one.params["n"] < 7) for one in schedules))
    assert [run.params["n"] for run in done.started] == list(range(7))
    assert done.waiting == 293
    runs = await every_run(store)
    assert ids(runs) == list(range(1, 301))
    assert [run.schedule for run in runs] == [one.id for one in schedules]


async def test_firing_nothing_does_nothing(store):
    done = await fired(store)
    assert (list(done.started), done.waiting, done.lost) == ([], 0, 0)


async def test_who_asked_for_a_fire_is_told_though_gone(store):
    await put(store, hourly())
    heard: list[Any] = []
    asking = asyncio.create_task(store.fire([firing(hourly(), starts=True)], "w1", NOW, heard.append))
    await asyncio.sleep(0)
    asking.cancel()
    await asyncio.wait({asking})
    await store.counts()
    await store.leave("nobody", NOW)
    assert [ids(one.started) for one in heard] == [[1]]
    assert await state(store, 1) is State.RUNNING


# -- one winner


async def test_of_two_processes_with_the_same_plan_one_wins(pair):
    mine, other = pair
    schedules = [hourly(f"s{n}") for n in range(50)]
    await put(mine, *schedules)
    plans = [firing(one, starts=True) for one in schedules]
    answers = await asyncio.gather(
        *(fired(mine, one, worker="w1") for one in plans), *(fired(other, one, worker="w2") for one in plans[::-1])
    )
    assert sum(one.lost for one in answers) == 50
    assert sorted(run.schedule for one in answers for run in one.started) == sorted(one.id for one in schedules)
    assert len(await every_run(mine)) == 50


async def test_a_plan_carried_out_again_is_lost_while_others_of_the_call_are_not(store):
    await put(store, hourly("s"), hourly("t"))
    await fired(store, firing(hourly("s")))
    done = await fired(store, firing(hourly("t")), firing(hourly("s")), firing(hourly("t")))
    assert (done.waiting, done.lost) == (1, 2)
    assert [run.schedule for run in await every_run(store)] == ["s", "t"]


async def test_a_plan_for_a_schedule_that_was_dropped_is_lost(store):
    await put(store, hourly())
    await store.drop(["s"], NOW)
    assert (await fired(store, firing(hourly()))).lost == 1
    assert await every_run(store) == []


async def test_a_due_instant_that_has_its_record_gets_no_other_wherever_the_cursor_stands(store):
    await put(store, hourly())
    await fired(store, firing(hourly()))
    await put(store, hourly())
    done = await fired(store, firing(hourly(), starts=True, overlap="allow"))
    assert (list(done.started), done.waiting) == ([], 0)
    assert len(await every_run(store)) == 1
    assert (await stored(store, "s")).next_due == NOW + HOUR


# -- the end of a schedule


async def test_a_stored_schedule_that_never_fires_again_is_dropped_and_its_run_stays(store):
    once = Schedule(id="once", job="a", trigger=At(NOW), next_due=NOW, seen_at=at(-60))
    await put(store, once, replace(once, id="code", origin="code"))
    await fired(store, firing(once), firing(replace(once, id="code", origin="code")))
    assert [(one.id, one.next_due) for one in await store.schedules()] == [("code", None)]
    assert [run.schedule for run in await every_run(store)] == ["once", "code"]


# -- skips and counts


def overdue(schedule: Schedule, now: Any, **policy: Any) -> Firing:
    """A firing for which nobody was there before `now`."""
    rules = Policy.of(schedule.job, policy)
    return Firing(plan(schedule, rules, now=now, watched_since=now), rules)


async def test_a_long_outage_is_one_row_with_a_count_and_one_run(store):
    await put(store, hourly())
    done = await fired(store, overdue(hourly(), NOW + 99.5 * HOUR), now=NOW + 99.5 * HOUR)
    assert done.waiting == 1
    [skip] = done.skipped
    assert (skip.reason, skip.count, skip.due_at, skip.until_at) == ("missed", 99, NOW, NOW + 98 * HOUR)
    assert skip.ended_at == skip.created_at == NOW + 99.5 * HOUR
    assert skip.data["late_seconds"] == 99.5 * 3600
    missed, run = await every_run(store)
    assert missed == skip
    assert (run.state, run.due_at, run.cause) == (State.WAITING, NOW + 99 * HOUR, Cause.CATCH_UP)


async def test_with_all_missed_fires_each_is_a_run_and_only_the_oldest_starts_at_once(store):
    await put(store, hourly())
    late = overdue(hourly(), NOW + 3 * HOUR, missed="all")
    done = await fired(store, late._replace(starts=True), now=NOW + 3 * HOUR)
    assert [run.due_at for run in done.started] == [NOW]
    assert done.waiting == 3


async def test_the_fires_beside_a_trial_name_its_run_also_where_a_fire_before_it_was_counted_into_a_row(store):
    now = NOW + 2 * HOUR
    await put(store, hourly(), hourly("t", next_due=now))
    await fired(store, firing(hourly(), enabled=False))
    late = overdue(await stored(store, "s"), now, missed="all")
    await fired(
        store, late._replace(trial=True), firing(hourly("t", next_due=now), now=now)._replace(trial=True), now=now
    )
    off, trial, beside = await every_run(store)
    assert (off.reason, off.count, off.until_at) == ("disabled", 2, NOW + HOUR)
    assert (trial.state, trial.due_at) == (State.WAITING, now)
    assert (beside.schedule, beside.reason, beside.data["trial"]) == ("t", "disabled", trial.id)


async def test_a_fire_too_late_is_a_skip(store):
    await put(store, hourly())
    done = await fired(store, overdue(hourly(), at(61), max_late="1m"), now=at(61))
    assert [(run.state, run.reason) for run in done.skipped] == [(State.SKIPPED, "too_late")]
    assert (await stored(store, "s")).next_due == NOW + HOUR


async def test_the_fires_of_a_disabled_job_lengthen_one_row(store):
    await put(store, hourly())
    for hour in range(5):
        now = NOW + hour * HOUR
        await fired(store, await again(store, now=now, enabled=False), now=now)
    [row] = await every_run(store)
    assert (row.reason, row.count, row.due_at, row.until_at) == ("disabled", 5, NOW, NOW + 4 * HOUR)
    assert row.ended_at == NOW + 4 * HOUR


async def test_what_another_switch_has_off_is_a_row_of_its_own(store):
    """The one row said of all of them what it said of the first: who it was, and why."""
    await put(store, hourly())
    ann, bob = ({"disabled_by": name, "disabled_since": "2026-03-01T12:00:00Z"} for name in ("ann", "bob"))
    declared = {"disabled_by": "its declaration"}
    for hour, because in enumerate([ann, ann, bob, bob, bob, {}, declared, ann]):
        now = NOW + hour * HOUR
        await fired(store, (await again(store, now=now, enabled=False))._replace(because=because), now=now)
    assert [(run.count, run.data["disabled_by"]) for run in await every_run(store)] == [
        (2, "ann"),
        (4, "bob"),  # one of which nothing is said goes on with what is there
        (1, "its declaration"),
        (1, "ann"),
    ]


async def test_a_run_between_them_ends_the_row_of_disabled_fires(store):
    await put(store, hourly())
    for hour, enabled in enumerate([False, False, True, False, False, False]):
        now = NOW + hour * HOUR
        await fired(store, await again(store, now=now, enabled=enabled), now=now)
    assert [(run.state.value, run.count) for run in await every_run(store)] == [
        ("skipped", 2),
        ("waiting", 1),
        ("skipped", 3),
    ]


async def test_a_disabled_fire_from_before_the_row_of_the_others_is_not_counted_into_it(store):
    """As after a clock that was set back."""
    await put(store, hourly())
    for hour in range(2):
        await fired(store, await again(store, now=NOW + hour * HOUR, enabled=False), now=NOW + hour * HOUR)
    await put(store, hourly(next_due=NOW - HOUR, anchor=NOW - HOUR))
    await fired(store, await again(store, now=NOW - HOUR, enabled=False), now=NOW - HOUR)
    assert [(run.due_at, run.count, run.until_at) for run in await every_run(store)] == [
        (NOW, 2, NOW + HOUR),
        (NOW - HOUR, 1, None),
    ]


async def test_rows_of_disabled_fires_are_told_apart_by_schedule(store):
    await put(store, hourly("s"), hourly("t"))
    for hour in range(3):
        now = NOW + hour * HOUR
        await fired(store, *[await again(store, name, now=now, enabled=False) for name in ("s", "t")], now=now)
    assert [(run.schedule, run.count) for run in await every_run(store)] == [("s", 3), ("t", 3)]


# -- overlap


async def with_an_earlier(store: Store, running: bool, **policy: Any) -> Run:
    """A run of the schedule that still runs, or still waits, when the next fire comes."""
    await put(store, hourly())
    done = await fired(store, firing(hourly(), starts=running, **policy))
    return done.started[0] if running else (await every_run(store))[0]


@pytest.mark.parametrize("running", [True, False])
async def test_skip_skips_a_fire_that_finds_an_earlier_run_and_names_it(store, running):
    earlier = await with_an_earlier(store, running)
    done = await fired(store, await again(store, now=NOW + HOUR, starts=True), now=NOW + HOUR)
    assert (list(done.started), done.waiting) == ([], 0)
    [skip] = done.skipped
    assert (skip.reason, skip.due_at) == ("overlap", NOW + HOUR)
    assert dict(skip.data) == {"run": earlier.id, "state": earlier.state.value, "age_seconds": 3600.0}


async def test_queue_lets_one_wait_behind_the_running_one(store):
    await with_an_earlier(store, True, overlap="queue")
    second = await fired(store, await again(store, now=NOW + HOUR, starts=True, overlap="queue"), now=NOW + HOUR)
    third = await fired(store, await again(store, now=NOW + 2 * HOUR, overlap="queue"), now=NOW + 2 * HOUR)
    assert (list(second.started), second.waiting) == ([], 1)
    assert [run.reason for run in third.skipped] == ["overlap"]
    assert [run.state.value for run in await every_run(store)] == ["running", "waiting", "skipped"]


async def test_replace_skips_the_waiting_ones(store):
    earlier = await with_an_earlier(store, False, overlap="replace")
    done = await fired(store, await again(store, now=NOW + HOUR, overlap="replace"), now=NOW + HOUR)
    assert ids(done.gave_way) == ids(done.ended) == [earlier.id]
    assert (done.waiting, done.more, list(done.replaced)) == (1, True, [])
    gone = await store.run(earlier.id)
    assert gone is not None
    assert (gone.state, gone.reason, gone.ended_at) == (State.SKIPPED, "superseded", NOW + HOUR)
    assert gone == done.gave_way[0]


async def test_a_fire_that_waits_for_a_job_that_nobody_has_is_given_up_as_a_skip(store):
    earlier = await with_an_earlier(store, False)
    reason = {"actor": "taskloop", "reason": "unknown_job", "now": NOW + HOUR, "waiting_only": True}
    done = await store.cancel(earlier.id, **reason)
    assert done is not None
    assert done.ended and done.run == await store.run(earlier.id)
    assert (done.run.state, done.run.reason, done.run.ended_at) == (State.SKIPPED, "unknown_job", NOW + HOUR)
    [wanted] = await submitted(store)
    done = await store.cancel(wanted.id, **reason)
    assert done is not None and done.run.state is State.CANCELLED, (
        "somebody asked for it: it is not to vanish from lists"
    )


async def test_replace_asks_for_the_end_of_the_running_one_and_starts_when_it_has_ended(store):
    earlier = await with_an_earlier(store, True, overlap="replace")
    again_due = await again(store, now=NOW + HOUR, starts=True, overlap="replace")
    done = await fired(store, again_due, worker="w2", now=NOW + HOUR)
    assert (list(done.started), list(done.replaced), done.waiting) == ([], [earlier.id], 1)
    assert list(await store.wishes("w1")) == [Wish(earlier.id, None, "superseded")]
    assert list((await claimed(store, now=NOW + HOUR)).started) == []
    assert await store.settle(ended(earlier))
    assert [run.due_at for run in (await claimed(store, now=NOW + HOUR)).started] == [NOW + HOUR]


@pytest.mark.parametrize("breaker", [None, (3, HOUR)])
async def test_what_was_wished_of_a_run_is_forgotten_as_it_ends(store, breaker):
    earlier = await with_an_earlier(store, True, overlap="replace")
    other = await started(store)
    again_due = await again(store, now=NOW + HOUR, starts=True, overlap="replace")
    await fired(store, again_due, worker="w2", now=NOW + HOUR)
    await store.cancel(other.id, actor="ann", reason="enough", now=NOW)
    assert await store.settle(ended(earlier)._replace(breaker=breaker))
    assert list(await store.wishes("w1")) == [Wish(other.id, "ann", "enough")]


@pytest.mark.parametrize("worker", ["w1", "w2"], ids=["its own", "another"])
async def test_what_a_worker_replaces_waits_for_no_other_attempt_whosever_it_is(store, worker):
    earlier = await with_an_earlier(store, True, overlap="replace", retry=3)
    await fired(store, await again(store, now=NOW + HOUR, overlap="replace"), worker=worker, now=NOW + HOUR)
    failing = Raised(Failure("OSError", "no luck"), timedelta(minutes=1))
    stands = await store.settle(ended(earlier, failing, now=NOW + HOUR))
    assert stands is not None
    assert (stands.state, stands.reason) == (State.CANCELLED, "superseded")


async def test_allow_lets_runs_stand_beside_one_another(store):
    await with_an_earlier(store, True, overlap="allow")
    done = await fired(store, await again(store, now=NOW + HOUR, starts=True, overlap="allow"), now=NOW + HOUR)
    assert len(done.started) == 1
    assert [run.state.value for run in await every_run(store)] == ["running", "running"]


async def test_a_run_that_waits_for_its_retry_is_in_the_way_too(store):
    earlier = await with_an_earlier(store, True, retry=2)
    await store.settle(ended(earlier, Raised(Failure("E", "m"), timedelta(hours=5))))
    done = await fired(store, await again(store, now=NOW + HOUR), now=NOW + HOUR)
    assert [run.reason for run in done.skipped] == ["overlap"]


async def test_what_was_asked_for_is_in_nobodys_way(store):
    await put(store, hourly())
    await store.submit([Run(job="a", due_at=NOW, ready_at=NOW, created_at=NOW)])
    await claimed(store)
    done = await fired(store, firing(hourly(), starts=True))
    assert len(done.started) == 1


async def test_a_final_run_is_in_nobodys_way(store):
    earlier = await with_an_earlier(store, True)
    await store.settle(ended(earlier))
    done = await fired(store, await again(store, now=NOW + HOUR, starts=True), now=NOW + HOUR)
    assert len(done.started) == 1


# -- claims of fires


async def test_of_one_gated_schedule_one_run_is_claimed_at_a_time_and_of_the_others_all(store):
    await put(store, hourly("s"), hourly("t", "b"))
    await store.know([Terms("a"), Terms("b", gated=False)])
    for name, job in (("s", "a"), ("t", "b")):
        late = overdue(hourly(name, job), NOW + 2 * HOUR, missed="all")
        await fired(store, late, now=NOW + 2 * HOUR)
    have = await claimed(store, now=NOW + 2 * HOUR)
    assert sorted((run.schedule, run.due_at) for run in have.started) == [
        ("s", NOW),
        ("t", NOW),
        ("t", NOW + HOUR),
        ("t", NOW + 2 * HOUR),
    ]
    assert list((await claimed(store, now=NOW + 2 * HOUR)).started) == []
    await store.settle(ended(next(run for run in have.started if run.schedule == "s")))
    assert [run.due_at for run in (await claimed(store, now=NOW + 2 * HOUR)).started] == [NOW + HOUR]


async def test_gates_hold_across_two_processes(pair):
    mine, other = pair
    await put(mine, hourly())
    await fired(mine, overdue(hourly(), NOW + 2 * HOUR, missed="all"), now=NOW + 2 * HOUR)
    answers = await asyncio.gather(
        *(claimed(one, name, now=NOW + 2 * HOUR) for one, name in ((mine, "w1"), (other, "w2")))
    )
    assert sum(len(one.started) for one in answers) == 1


async def test_a_fire_that_waited_beyond_its_time_is_skipped_for_its_group_only_if_that_is_full(store):
    await know(
        store, Terms("a", expires=True), Terms("b", group="g", expires=True), Terms("c", group="h", expires=True)
    )
    await submitted(store, asked("b", group="g"))
    assert len((await claimed(store)).started) == 1
    await put(store, hourly("s"), hourly("t", "b"), hourly("u", "c"))
    late = {"max_late": "1m"}
    await fired(
        store,
        firing(hourly("s"), **late),
        firing(hourly("t", "b"), group="g", **late),
        firing(hourly("u", "c"), group="h", **late),
    )
    assert [run.schedule for run in (await claimed(store, now=at(60), slots=0)).expired] == []
    have = await claimed(store, now=at(61))
    assert list(have.started) == []
    assert {(run.schedule, run.state.value, run.reason) for run in have.expired} == {
        ("s", "skipped", "too_late"),
        ("t", "skipped", "group_full"),
        ("u", "skipped", "too_late"),
    }
    assert all(run.data["late_seconds"] == 61 and run.ended_at == at(61) for run in have.expired)
    assert [await store.run(run.id) for run in have.expired] == list(have.expired)
    assert list(have.ended) == list(have.expired)
    assert list((await claimed(store, now=at(61))).expired) == []


async def test_of_very_many_fires_that_waited_beyond_their_time_none_begins(store):
    await store.know([Terms("a", expires=True)])
    late = [hourly(f"s{number}") for number in range(1001)]
    await put(store, *late)
    await fired(store, *(firing(one, max_late="1m") for one in late))
    expired = []
    while len(expired) < len(late):
        have = await claimed(store, now=at(3600))
        assert list(have.started) == []
        expired += have.expired
        assert have.more is (len(expired) < len(late))
    assert {run.reason for run in expired} == {"too_late"}


async def test_a_fire_that_began_in_time_does_not_expire_while_it_waits_for_its_retry(store):
    await store.know([Terms("a", expires=True)])
    await put(store, hourly())
    await fired(store, firing(hourly(), max_late="1m", retry=2))
    [run] = (await claimed(store, now=at(30))).started
    await store.settle(ended(run, Raised(Failure("E", "m"), timedelta(minutes=10)), now=at(31)))
    have = await claimed(store, now=at(700))
    assert (list(have.expired), ids(have.started)) == ([], [run.id])


# -- counters


async def test_the_counters_of_a_day_are_what_a_recount_of_its_runs_gives(pair, shared):
    store, _ = pair
    await put(store, hourly("s"), hourly("t", "b"), hourly("u", "b"))
    await fired(
        store,
        overdue(hourly("s"), NOW + 30 * HOUR),
        overdue(hourly("t", "b"), NOW + 30 * HOUR, missed="skip"),
        firing(hourly("u", "b"), now=NOW + 30 * HOUR, enabled=False),
        now=NOW + 30 * HOUR,
    )
    now = NOW + 31 * HOUR
    await fired(store, await again(store, "u", now=now, enabled=False), now=now)
    await fired(store, await again(store, "s", now=now, overlap="replace"), now=now)
    for outcome in (None, Raised(Failure("E", "m"), None)):
        [run] = await store.submit([Run(job="b", due_at=now, ready_at=now, created_at=now)])
        for one in (await claimed(store, now=now)).started:
            await store.settle(ended(one, outcome if one.id == run.id else None, now=now + HOUR))
    [waiting] = await store.submit([Run(job="b", due_at=now, ready_at=now, created_at=now)])
    await store.cancel(waiting.id, actor=None, reason=None, now=now)
    await store.know([Terms("a"), Terms("b", expires=True)])
    await store.submit([Run(job="b", schedule="u", due_at=now, ready_at=now, created_at=now, expires_at=now)])
    assert len((await claimed(store, now=now + 48 * HOUR)).expired) == 1
    counted = shared.rows("SELECT day, job, state, runs, took FROM {}daily ORDER BY 1, 2, 3")
    recount = shared.rows(
        "SELECT ended_at / 86400000000, job, state, sum(count), sum(coalesce(ended_at - started_at, 0)) "
        "FROM {}runs WHERE ended_at IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
    )
    assert counted == recount
    assert len(counted) >= 5
