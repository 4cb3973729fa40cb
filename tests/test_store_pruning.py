"""What a store deletes and what it never does, whoever asks it to."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest
from stores import (
    NOW,
    asked,
    at,
    claimed,
    ended,
    finished,
    fired,
    firing,
    hourly,
    ids,
    know,
    put,
    started,
    state,
    stored,
    store,
    stores,
    submitted,
)

from taskloop import pruning_postgres, pruning_sqlite
from taskloop.runs import Failure, Raised, ShutDown, State
from taskloop.store import Store, Switch
from taskloop.store_data import Definition, Incident, Query, Worker

__all__ = ["store", "stores"]

pytestmark = pytest.mark.anyio

LATER = NOW + timedelta(days=10)


def enlisted(id: str, **changes: Any) -> Worker:
    facts = {"id": id, "name": "shop", "host": "h", "pid": 7, "process": "p", "started_at": NOW, "beat_at": NOW}
    return Worker(**(facts | changes))


async def pruned(store: Store, before: datetime | None, *, limit: int = 200, now: datetime = LATER) -> int:
    """A whole round of pruning, ten days later: what ended before an instant goes."""
    total, after = 0, None
    while True:
        keep = None if before is None else now - before
        step = await store.prune(keep, now=now, after=after, limit=limit)
        assert step.deleted <= limit
        total, after = total + step.deleted, step.after
        if after is None:
            return total


async def say(store: Store, job: str, *aliases: str, seen_at: datetime = NOW, **policy: Any) -> None:
    """Declare a job as another program does that has this store open too."""
    facts = {"policy": {"keep": None, "keep_runs": None, **policy}, "aliases": list(aliases)}
    await store.define([Definition(job, facts, "code", seen_at)])


async def cancelled(store: Store) -> None:
    [run] = await submitted(store)
    await store.cancel(run.id, actor=None, reason=None, now=NOW)


async def broken(store: Store) -> None:
    await store.settle(ended(await started(store), Raised(Failure("E", "m"), None)))


async def test_pruning_deletes_the_oldest_ended_runs_of_every_job_in_steps_of_the_limit(store):
    for minute in range(6):
        await finished(store, now=at(60 * minute), job="ab"[minute % 2])
    assert (await store.prune(LATER - at(240), now=LATER, limit=1)).deleted == 1
    assert await pruned(store, at(240), limit=1) == 3
    assert await pruned(store, at(240)) == 0
    assert ids(await store.find(Query())) == [6, 5]


async def test_pruning_keeps_active_runs_and_takes_the_attempts_with_a_run(store):
    waiting, running = (await submitted(store, asked(ready_at=at(9)), asked()))[0], (await claimed(store)).started[0]
    retried = ended(await started(store, attempts=2), Raised(Failure("E", "m"), timedelta(0)))
    await store.settle(retried)
    again = (await claimed(store)).started[0]
    await store.settle(ended(again))
    await finished(store)
    assert await pruned(store, at(1)) == 1
    assert await store.run(again.id) is None
    assert len(await store.attempts(retried.before)) <= 1
    assert {await state(store, waiting.id), await state(store, running.id)} == {State.WAITING, State.RUNNING}


async def test_the_newest_run_is_never_pruned_so_that_no_id_comes_twice(store):
    await finished(store)
    last = await finished(store)
    assert await pruned(store, at(3600)) == 1
    assert await pruned(store, at(3600)) == 0
    assert await store.run(last.id) is not None
    [fresh] = await submitted(store)
    assert fresh.id > last.id


async def test_a_fire_that_was_due_lately_stays_for_a_clock_that_may_be_set_back(store):
    for hours in (25, 23):
        due = hourly(f"s{hours}", next_due=LATER - timedelta(hours=hours))
        await put(store, due)
        await fired(store, firing(due, now=due.next_due), now=due.next_due)
        for run in (await claimed(store, now=due.next_due)).started:
            await store.settle(ended(run, now=due.next_due))
    await finished(store)
    assert await pruned(store, LATER + timedelta(days=1)) == 1
    assert ids(await store.find(Query())) == [3, 2]


async def test_a_run_that_was_asked_for_goes_by_its_end_whenever_it_was_due(store):
    [far] = await submitted(store, asked(due_at=LATER + timedelta(days=300), ready_at=LATER + timedelta(days=300)))
    await store.cancel(far.id, actor=None, reason=None, now=NOW)
    await finished(store, due_at=LATER, now=NOW)
    await finished(store)
    assert await pruned(store, at(1)) == 2


async def test_rows_that_stay_are_passed_by_however_many_they_are(store):
    """1,200 that wait and 1,200 that ended a day too late, all of them older than the one that is to go."""
    await submitted(store, *(asked(ready_at=at(10**7)) for _ in range(1200)))
    late = await submitted(store, *(asked() for _ in range(1200)))
    await asyncio.gather(*(store.cancel(run.id, actor=None, reason=None, now=NOW + timedelta(days=1)) for run in late))
    [old] = await submitted(store)
    await store.cancel(old.id, actor=None, reason=None, now=NOW)
    await submitted(store)
    assert await pruned(store, at(60)) == 1
    assert await store.run(old.id) is None


async def test_a_row_of_a_clock_that_was_wrong_hides_none_that_are_old(store):
    ahead = LATER + timedelta(days=4000)
    await finished(store, created_at=ahead, now=ahead)
    old = await finished(store)
    await finished(store, created_at=LATER, now=LATER)
    assert await pruned(store, at(60)) == 1
    assert await store.run(old.id) is None


async def test_a_job_may_keep_its_runs_longer_or_shorter_or_so_many_of_them(store):
    await know(store, "a", "b", "c", "d", "e")
    for _ in range(4):
        for job in ("a", "b", "c", "d", "e"):
            await finished(store, job=job)
    await say(store, "a", keep="15d")
    await say(store, "b", keep_runs=2)
    await say(store, "c", keep="1d")
    await say(store, "now-d", "d", keep="15d")
    assert await pruned(store, None) == 2 + 4
    assert await pruned(store, at(1), limit=3) == 2 + 3
    kept = [run.job for run in await store.find(Query())]
    assert {job: kept.count(job) for job in "abcde"} == {"a": 4, "b": 0, "c": 0, "d": 4, "e": 1}


@pytest.mark.parametrize(("breaker", "left"), [(None, [1, 5, 6]), (2, [1, 4, 5, 6]), (9, [1, 3, 4, 5, 6])])
async def test_what_tells_how_a_job_stands_stays_however_old_while_somebody_has_the_job(store, breaker, left):
    """A success, a cancelled run, three failures and a cancelled one that is the newest: its last success, the failures
    that its breaker counts, and its last run."""
    await know(store, "a", "b")
    await finished(store)
    await cancelled(store)
    for _ in range(3):
        await broken(store)
    await cancelled(store)
    await finished(store, job="b")
    await finished(store, job="b")
    await say(store, "a", seen_at=LATER, pause_after=breaker)
    assert await pruned(store, at(1), limit=1) == 6 - len(left) + 1
    assert await pruned(store, at(1)) == 0
    assert sorted(ids(await store.find(Query(jobs=["a"])))) == left
    [(job, stands)] = (await store.newest(["a"])).items()
    assert (job, stands.state, stands.failures) == ("a", State.CANCELLED, len(left) - 2)
    assert await pruned(store, LATER + timedelta(days=1), now=LATER + timedelta(days=10)) == len(left)


async def test_runs_that_a_stop_interrupted_are_no_failures_that_stay(store):
    await know(store, "a", "b")
    await broken(store)
    for _ in range(5):
        run = await started(store)
        await store.settle(ended(run, ShutDown()))
    await cancelled(store)
    await finished(store, job="b")
    await say(store, "a", seen_at=LATER, pause_after=3)
    assert await pruned(store, at(1)) == 5
    assert ids(await store.find(Query(jobs=["a"]))) == [7, 1]


@pytest.mark.parametrize("policy", [None, "as ever", 7, [], {"pause_after": "often"}, {"pause_after": -1}])
async def test_a_policy_that_makes_no_sense_ends_no_round(store, policy):
    for _ in range(3):
        await finished(store)
    await finished(store, job="b")
    await store.define([Definition("a", {"policy": policy}, "code", LATER)])
    assert await pruned(store, at(1)) == (2 if policy is None or isinstance(policy, dict) else 0)


async def test_a_worker_that_has_a_job_keeps_what_tells_how_it_stands_however_long_it_lives(store):
    await finished(store)
    await finished(store)
    await finished(store, job="b")
    await say(store, "a", seen_at=NOW - timedelta(days=400))
    await store.enlist(enlisted("w", jobs=frozenset(["a"])))
    assert await pruned(store, at(1)) == 1
    await store.leave("w", LATER)
    assert await pruned(store, at(1)) == 0
    assert await pruned(store, LATER + timedelta(days=1), now=LATER + timedelta(days=10)) == 1


async def test_what_is_not_understood_of_a_jobs_keep_deletes_nothing(store):
    for _ in range(3):
        await finished(store)
    await say(store, "a", keep="until further notice")
    assert await pruned(store, at(1)) == 0


async def test_skips_do_not_count_among_the_runs_that_are_kept_and_go_with_the_last_of_them(store):
    for hour in range(6):
        due = hourly(next_due=NOW + timedelta(hours=hour))
        await put(store, due)
        await fired(store, firing(due, enabled=hour not in (1, 4), now=due.next_due), now=due.next_due)
        for run in (await claimed(store, now=due.next_due)).started:
            await store.settle(ended(run, now=due.next_due))
    await submitted(store, asked("b"))
    await say(store, "a", keep_runs=2)
    assert await pruned(store, None) == 3
    assert [run.due_at.hour for run in await store.find(Query(jobs=["a"], skipped=True))] == [17, 16, 15]


async def test_what_waits_and_runs_is_none_of_the_runs_that_are_kept(store):
    """However long the queue, the history keeps its length."""
    ended_ones = [await finished(store) for _ in range(4)]
    await started(store)
    for _ in range(5):
        await submitted(store)
    await say(store, "a", keep_runs=3)
    assert await pruned(store, None) == 1
    kept = await store.find(Query(states=[State.SUCCEEDED]))
    assert [run.id for run in kept] == [run.id for run in reversed(ended_ones[1:])]


async def test_a_skip_that_counts_another_fire_since_it_was_found_stays(store):
    due = hourly()
    await put(store, due)
    await fired(store, firing(due, enabled=False))
    await finished(store)
    rooms = pruning_postgres if "postgres" in store.url else pruning_sqlite
    found = await store._read(rooms.look, LATER - at(1), LATER, None, 200)
    await fired(store, firing(await stored(store, "s"), enabled=False, now=LATER), now=LATER)
    assert (len(found.ids), await store._do(rooms.delete, list(found.ids), LATER)) == (1, 0)
    assert (await store.find(Query(states=[State.SKIPPED])))[0].until_at == LATER


async def test_nothing_is_pruned_where_nothing_is_said_of_it(store):
    for _ in range(3):
        await finished(store)
    assert await pruned(store, None) == 0


async def test_a_span_longer_than_all_time_prunes_nothing(store):
    await finished(store)
    await finished(store)
    assert (await store.prune(timedelta(days=36_525), now=NOW)).deleted == 0


async def test_jobs_of_which_nothing_is_left_are_forgotten(store):
    await know(store, "known")
    long_ago = NOW - timedelta(days=400)
    for job in ("gone", "known", "ran", "scheduled", "waits", "lives", "new"):
        await say(store, job, seen_at=at(9) if job == "new" else long_ago)
    await say(store, "renamed", "was", seen_at=long_ago)
    await submitted(store, asked("waits"))
    await know(store, "known", "ran", "was")
    await finished(store, job="was", now=at(9))
    await finished(store, job="ran", now=at(9))
    await put(store, hourly(job="scheduled"))
    await store.enlist(enlisted("w", jobs=frozenset(["lives"])))
    await pruned(store, at(5))
    left = {"known", "ran", "scheduled", "waits", "lives", "new", "renamed"}
    assert {one.name for one in await store.definitions()} == left
    await store.enlist(enlisted("v"))
    await say(store, "gone", seen_at=long_ago)
    await pruned(store, at(5))
    assert "gone" in {one.name for one in await store.definitions()}


async def test_other_records_go_in_small_steps_too(store):
    await store.note([Incident("old", "clock", NOW, at(1))] * 2500)
    steps, step = 1, await store.prune(LATER - at(5), now=LATER)
    while step.after is not None:
        steps, step = steps + 1, await store.prune(LATER - at(5), now=LATER, after=step.after)
    assert steps == 3
    assert list(await store.incidents(NOW, LATER)) == []


async def test_old_workers_switches_incidents_and_former_schedules_go_with_the_old_runs(store):
    await store.enlist(enlisted("old"))
    await store.leave("old", at(1))
    await store.enlist(enlisted("new"))
    await store.switch(Switch("disabled", "a", NOW, "ann", None))
    await store.unswitch("a", ["disabled"], at(1))
    await store.note([Incident("old", "clock", NOW, at(1)), Incident("old", "clock", NOW, at(9))])
    await pruned(store, at(5))
    assert [one.id for one in await store.workers()] == ["new"]
    assert [one.until for one in await store.incidents(NOW, LATER)] == [at(9)]
