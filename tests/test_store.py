"""The contract every store must pass, first part: opening, schedules, jobs, workers, switches.

The other parts are `test_store_fires`, `test_store_runs` and `test_store_pruning`; the kinds of stores stand in `stores`.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from stores import (
    NOW,
    as_declared,
    asked,
    at,
    claimed,
    ended,
    fired,
    finished,
    firing,
    hourly,
    ids,
    know,
    put,
    pair,
    shared,
    started,
    state,
    store,
    stored,
    stores,
    submitted,
)

from taskloop.errors import BadStore, StoreUnavailable, TaskloopError
from taskloop.runs import Cause, Failure, Lost, Raised, Reason, Returned, RunId, ShutDown, State, settle
from taskloop.schedules import Schedule
from taskloop.store import Store, Switch, open_store
from taskloop.store_data import DayCount, Definition, Incident, Newest, Query, Settling, Terms, Worker
from taskloop.triggers import At, Cron, Every

__all__ = ["pair", "shared", "store", "stores"]

pytestmark = pytest.mark.anyio


def worker(id: str = "w1", **changes: Any) -> Worker:
    facts = {"id": id, "name": "shop", "host": "h", "pid": 7, "process": "p", "started_at": NOW, "beat_at": NOW}
    return Worker(**(facts | changes))


# -- opening and closing


async def test_a_store_opened_twice_is_open_once(store):
    await store.open()
    assert ids(await submitted(store)) == [1]


async def test_a_store_closed_unopened_or_twice_is_closed(stores):
    made = stores.new()
    await made.close()
    await made.open()
    await made.close()
    await made.close()
    with pytest.raises(StoreUnavailable):
        await made.counts()


async def test_a_closed_store_can_be_opened_again(store):
    await store.close()
    await store.open()
    await know(store, "a")
    assert len(await submitted(store)) == 1
    await store.close()


async def test_what_was_written_is_there_after_the_store_was_opened_again(pair):
    store, _ = pair
    [run] = await submitted(store)
    await put(store, hourly())
    await store.close()
    await store.open()
    assert await store.run(run.id) == run
    assert await stored(store, "s") == hourly()
    await store.close()


VERBS: list[Callable[[Store], Awaitable[Any]]] = [
    lambda store: store.submit([asked()]),
    lambda store: store.claim("w1", NOW, 1),
    lambda store: store.fire([], "w1", NOW),
    lambda store: store.due(NOW, 1),
    lambda store: store.put([hourly()], as_declared, NOW),
    lambda store: store.find(Query()),
    lambda store: store.counts(),
    lambda store: store.know([]),
]


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("closed", [False, True])
async def test_a_store_that_is_not_open_says_so(stores, verb, closed):
    made = stores.new()
    if closed:
        await made.open()
        await made.close()
    with pytest.raises(StoreUnavailable, match="not open"):
        await verb(made)


async def test_closing_writes_what_is_queued(pair):
    store, other = pair
    asking = [asyncio.create_task(store.submit([asked()])) for _ in range(50)]
    await asyncio.sleep(0)
    await store.close()
    answers = await asyncio.gather(*asking)
    assert sorted(ids(await other.find(Query()))) == sorted(answer[0].id for answer in answers)


async def test_opening_cancelled_at_any_tick_leaves_nothing_behind_and_the_store_can_be_opened(stores):
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    ticks, opened = 0, False
    while not opened:
        made = stores.new()
        opening = asyncio.create_task(made.open())
        for _ in range(ticks):
            await asyncio.sleep(0)
        opened = opening.done()
        opening.cancel()
        await asyncio.wait({opening})
        await made.open()
        await submitted(made)
        await made.close()
        ticks += 1 + ticks // 2
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)
    assert set(threading.enumerate()) <= threads
    assert asyncio.all_tasks() == tasks


@pytest.mark.parametrize("later", [0, 1, 2])
async def test_who_opens_a_store_while_the_opening_of_another_is_being_cancelled_has_it_open(stores, later):
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    ticks, opened = 0, False
    while not opened:
        made = stores.new()
        first = asyncio.create_task(made.open())
        for _ in range(ticks):
            await asyncio.sleep(0)
        opened = first.done()
        first.cancel()
        for _ in range(later):
            await asyncio.sleep(0)
        await made.open()
        await asyncio.wait({first})
        await know(made, "a")
        assert len(await submitted(made)) == 1
        await made.close()
        ticks += 1 + ticks // 2
    for thread in set(threading.enumerate()) - threads:
        thread.join(5)
    assert set(threading.enumerate()) <= threads
    assert asyncio.all_tasks() == tasks


async def test_opening_twice_at_once_opens_once(stores):
    tasks, threads = asyncio.all_tasks(), set(threading.enumerate())
    made = stores.new()
    await asyncio.gather(made.open(), made.open())
    await submitted(made)
    await made.close()
    for thread in set(threading.enumerate()) - threads:
        thread.join(1)
    assert set(threading.enumerate()) <= threads
    assert asyncio.all_tasks() == tasks


async def test_cancelling_one_of_two_that_open_a_store_leaves_it_open_for_the_other(stores):
    made = stores.new()
    first, second = asyncio.create_task(made.open()), asyncio.create_task(made.open())
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait({first, second})
    assert second.exception() is None
    await know(made, "a")
    assert len(await submitted(made)) == 1
    await made.close()


async def test_a_store_that_could_not_be_opened_can_be_opened_when_it_can(shared):
    made = shared.new()
    with shared.spoiled(), pytest.raises(BadStore):
        await made.open()
    await made.open()
    assert len(await submitted(made)) == 1
    await made.close()


def test_an_address_of_an_unknown_scheme_is_refused_with_those_that_are_known():
    with pytest.raises(BadStore, match=r"'mongodb' is unknown.*sqlite:///file\.db"):
        open_store("mongodb://localhost/runs")
    for nothing in ("", "sqlite:///", "sqlite://"):  # of a variable that was not set; it was kept in memory
        with pytest.raises(BadStore, match="which names (no file|nothing); allowed is sqlite:///file.db"):
            open_store(nothing)


@pytest.mark.parametrize("given", [5, ["sqlite:///app.db"], object, b"app.db"])
def test_what_is_no_address_is_refused_and_names_no_file(given):
    with pytest.raises(
        BadStore, match="store is .*; an address such as 'sqlite:///app.db', a path or a Store is allowed"
    ):
        open_store(given)


def test_a_store_is_an_address_of_itself(tmp_path):
    made = open_store(tmp_path / "runs.db")
    assert open_store(made) is made
    assert made.url == f"sqlite:///{tmp_path}/runs.db"


# -- schedules


@pytest.mark.parametrize(
    "schedule",
    [
        hourly(),
        hourly(trigger=Every("90s", anchor=NOW), anchor=None),
        hourly(trigger=Every(), next_due=None, anchor=None, seen_at=at(5)),
        hourly(trigger=Cron("0 2 * * 1-5", timezone="Europe/London", gap="skip", fold="both"), last_due=at(-60)),
        hourly(trigger=At(at(90)), enabled=False, origin="file"),
        hourly("i d'\"%_🙂", params={"list": [1, None, {"deep": "🙂\0"}], "big": 2**80, "": 0.1}, origin="code"),
        hourly(next_due=NOW + timedelta(microseconds=1), last_due=NOW - timedelta(microseconds=1)),
        hourly("x" * 1000, params={"text": "é" * 500_000}),
    ],
)
async def test_a_schedule_comes_back_as_it_was_put(store, schedule):
    assert list(await store.put([schedule], as_declared, NOW)) == [schedule]
    assert await stored(store, schedule.id) == schedule
    due = await store.due(at(7200), 10)
    assert list(due.schedules) == ([schedule] if schedule.next_due else [])


async def test_what_is_put_is_merged_with_what_stands_there(store):
    seen: list[tuple[Schedule | None, Schedule]] = []

    def merge(old: Schedule | None, new: Schedule) -> Schedule:
        seen.append((old, new))
        return old or new

    old, changed = hourly("s"), hourly("s", trigger=Every("2h"))
    await store.put([old], merge, NOW)
    assert list(await store.put([changed, hourly("t")], merge, NOW)) == [old, hourly("t")]
    assert seen == [(None, old), (old, changed), (None, hourly("t"))]
    assert list(await store.schedules()) == [old, hourly("t")]


async def test_schedules_are_put_all_or_none(store):
    def merge(old: Schedule | None, new: Schedule) -> Schedule:
        if new.id == "c":
            raise TaskloopError("no c here")
        return new

    with pytest.raises(TaskloopError, match="no c here"):
        await store.put([hourly("a"), hourly("b"), hourly("c")], merge, NOW)
    assert list(await store.schedules()) == []


async def test_dropping_gives_how_many_there_were_and_leaves_their_runs(store):
    await put(store, hourly("a"), hourly("b"), hourly("c"))
    await fired(store, firing(hourly("a")))
    assert await store.drop(["a", "b", "nobody"], NOW) == 2
    assert await store.drop(["a"], NOW) == 0
    assert await store.drop([], NOW) == 0
    assert [one.id for one in await store.schedules()] == ["c"]
    assert [run.schedule for run in await store.find(Query())] == ["a"]


async def test_schedules_are_paged_by_id(store):
    await put(store, *(hourly(f"s{n:03}") for n in range(25)))
    pages = [await store.schedules(limit=10)]
    while pages[-1]:
        pages.append(await store.schedules(after=pages[-1][-1].id, limit=10))
    assert [one.id for page in pages for one in page] == [f"s{n:03}" for n in range(25)]
    assert [len(page) for page in pages] == [10, 10, 5, 0]


async def test_schedules_are_found_by_job_id_and_prefix_together(store):
    names = ["a", "a%", "a_", "aa", "ab", "a🙂x", "b", "A"]
    await put(store, *(hourly(name, "b" if name == "ab" else "a") for name in names))

    async def found(**conditions: Any) -> set[str]:
        return {one.id for one in await store.schedules(**conditions)}

    assert await found() == set(names)
    assert await found(prefix="a") == set(names) - {"b", "A"}
    assert await found(prefix="a_") == {"a_"}
    assert await found(prefix="a%") == {"a%"}
    assert await found(prefix="a🙂") == {"a🙂x"}
    assert await found(prefix="a", job="b") == {"ab"}
    assert await found(ids=["a", "b", "nobody"]) == {"a", "b"}
    assert await found(ids=["a", "ab"], job="a") == {"a"}
    assert await found(ids=[]) == set()


async def test_due_schedules_come_earliest_first_up_to_the_limit(store):
    await put(store, *(hourly(f"s{n}", next_due=at(-n)) for n in (3, 1, 5, 2, 4)), hourly("later", next_due=at(1)))
    assert [one.id for one in (await store.due(NOW, 3)).schedules] == ["s5", "s4", "s3"]
    assert [one.id for one in (await store.due(NOW, 100)).schedules] == ["s5", "s4", "s3", "s2", "s1"]


async def test_a_schedule_is_due_at_its_instant_and_not_before(store):
    await put(store, hourly(next_due=at(1)))
    nothing = await store.due(at(1) - timedelta(microseconds=1), 10)
    assert (list(nothing.schedules), nothing.next_at) == ([], at(1))
    assert len((await store.due(at(1), 10)).schedules) == 1


async def test_when_nothing_is_due_the_next_instant_is_told(store):
    assert (await store.due(NOW, 10)).next_at is None
    await put(store, hourly("x", next_due=at(9)), hourly("y", next_due=at(5)), hourly("never", next_due=None))
    assert (await store.due(NOW, 10)).next_at == at(5)


async def test_schedules_of_unknown_and_held_jobs_are_not_due(store):
    await put(store, hourly("s", "a"), hourly("t", "b"), hourly("u", "c"))
    await know(store, "a", Terms("b", held=True))
    assert [one.id for one in (await store.due(NOW, 10)).schedules] == ["s"]
    await know(store, Terms("b", held=False), "c")
    assert {one.id for one in (await store.due(NOW, 10)).schedules} == {"t", "u"}
    await know(store)
    nothing = await store.due(NOW, 10)
    assert (list(nothing.schedules), nothing.next_at) == ([], None)


async def test_the_coming_schedules_are_told_whatever_their_job(store):
    await put(store, hourly("z", "c", next_due=at(2)), hourly("y", next_due=at(-1)), hourly("x", next_due=None))
    assert [one.id for one in await store.coming(10)] == ["y", "z"]
    assert [one.id for one in await store.coming(1)] == ["y"]
    assert [one.id for one in await store.coming(10, jobs=["c", "d"])] == ["z"] and not await store.coming(10, jobs=[])


async def test_the_next_due_instant_of_a_job_is_that_of_its_earliest_schedule(store):
    await put(
        store,
        hourly("s", "a", next_due=at(5)),
        hourly("t", "a", next_due=at(3)),
        hourly("u", "b", next_due=None),
        hourly("v", "c", next_due=at(1)),
    )
    assert await store.next_dues(["a", "b", "nobody"]) == {"a": at(3)}
    assert await store.next_dues([]) == {}


async def test_a_job_is_due_next_also_beyond_the_soonest_schedules_that_are_looked_through_first(store, monkeypatch):
    for room in ("keeping_sqlite", "keeping_postgres"):
        monkeypatch.setattr(f"taskloop.{room}.SOONEST", 2)
    dues = {"a": 1, "b": 5, "c": 7, "d": 9}
    await put(
        store, *(hourly(f"{job}{more}", job, next_due=at(due + more)) for job, due in dues.items() for more in (0, 1))
    )
    assert await store.next_dues(["a", "b", "d", "nobody"]) == {"a": at(1), "b": at(5), "d": at(9)}


# -- jobs


async def test_a_job_is_remembered_as_it_was_declared_last(store):
    first = Definition("a", {"title": "é🙂", "n": [1, None]}, "code", NOW)
    await store.define([first, Definition("b", {}, "file", NOW)])
    await store.define([Definition("a", {"title": "new"}, "code", at(60))])
    assert list(await store.definitions()) == [
        Definition("a", {"title": "new"}, "code", at(60)),
        Definition("b", {}, "file", NOW),
    ]
    assert [one.name for one in await store.definitions(without=["a", "nobody"])] == ["b"]


# -- workers


async def test_a_worker_that_enlists_hears_of_the_others_that_have_not_stopped(store):
    assert list(await store.enlist(worker("w1"))) == []
    assert list(await store.enlist(worker("w2", name=None))) == [worker("w1")]
    await store.leave("w1", at(5))
    assert list(await store.enlist(worker("w3"))) == [worker("w2", name=None)]


async def test_a_worker_keeps_all_that_it_said_of_itself(store):
    one = worker(beat_tick=1.5, fires=False, jobs=frozenset(["a", "b"]), version="1.0", health={"lag_ms": 2.5})
    await store.enlist(one)
    assert list(await store.workers()) == [one]


async def test_a_beat_is_kept_and_the_living_come_before_those_that_left(store):
    for name in ("w1", "w2", "w3"):
        await store.enlist(worker(name))
    assert await store.beat(worker("w2"), at(9), 9.0, {})
    assert await store.beat(worker("w3"), at(5), 5.0, {"lag_ms": 1.0})
    await store.leave("w2", at(10))
    found = list(await store.workers())
    assert [one.id for one in found] == ["w3", "w1", "w2"]
    assert found[0] == worker("w3", beat_at=at(5), beat_tick=5.0, health={"lag_ms": 1.0})
    assert found[2] == worker("w2", beat_at=at(9), beat_tick=9.0, stopped_at=at(10), ended="stopped")
    assert [one.id for one in await store.workers(living=True)] == ["w3", "w1"]


async def test_a_worker_taken_for_dead_hears_of_it_with_its_next_beat_and_lives_again(store):
    await store.enlist(worker())
    assert await store.bury(worker())
    assert [one.ended for one in await store.workers()] == ["died"]
    assert not await store.beat(worker(), at(60), 60.0, {})
    assert await store.beat(worker(), at(65), 65.0, {})
    assert list(await store.workers(living=True)) == [worker(beat_at=at(65), beat_tick=65.0)]


async def test_a_worker_that_beat_since_it_was_last_seen_is_not_buried(store):
    await store.enlist(worker())
    await store.beat(worker(), at(60), 60.0, {})
    assert not await store.bury(worker())
    assert [one.stopped_at for one in await store.workers()] == [None]


async def test_a_worker_that_has_stopped_does_not_die_after_that(store):
    await store.enlist(worker())
    await store.leave("w1", at(10))
    assert not await store.bury(worker())
    assert [one.ended for one in await store.workers()] == ["stopped"]


async def test_the_run_of_a_worker_that_beat_again_is_not_settled_in_its_place(store):
    await store.enlist(worker("w1"))
    run = await started(store, "w1")
    assert await store.bury(worker("w1"))
    (orphan,) = await store.orphans()
    assert not await store.beat(worker("w1"), at(60), 60.0, {})
    lost = settle(orphan, Lost(), now=at(61), repeatable=False)
    assert not await store.settle(Settling(orphan, lost, Lost(), for_the_dead=True))
    assert (await store.run(run.id)).state is State.RUNNING
    own = settle(orphan, Returned(), now=at(62), repeatable=False)
    assert await store.settle(Settling(orphan, own, Returned()))


async def test_a_worker_whose_row_is_gone_beats_itself_back_into_it(store):
    assert not await store.beat(worker(), at(60), 60.0, {})
    assert list(await store.workers(living=True)) == [worker(beat_at=at(60), beat_tick=60.0)]


async def test_a_worker_that_stopped_is_not_brought_back_by_a_beat_that_was_under_way(store):
    await store.enlist(worker())
    await store.leave("w1", at(10))
    assert await store.beat(worker(), at(11), 11.0, {})
    assert [one.ended for one in await store.workers()] == ["stopped"]


async def test_the_orphans_are_the_running_runs_of_the_dead_and_of_whoever_is_not_known_to_live(store):
    await store.enlist(worker("alive"))
    one = await started(store, "dead")
    await started(store, "alive")
    two = await started(store, "gone")
    await finished(store)
    await submitted(store)
    assert ids(await store.orphans()) == [one.id, two.id]
    await store.bury(worker("alive"))
    assert ids(await store.orphans()) == [one.id, one.id + 1, two.id]
    assert await store.in_hand("dead") == {one.id: one.token}
    assert await store.in_hand("nobody") == {}


# -- what other processes wrote


async def test_a_store_sees_that_another_process_wrote_and_not_its_own_writes(pair):
    mine, other = pair
    await mine.changed()
    assert not await mine.changed()
    await submitted(mine)
    assert not await mine.changed()
    await submitted(other)
    assert await mine.changed()
    assert not await mine.changed()
    await other.find(Query())
    assert not await mine.changed()


async def test_a_closed_store_has_not_changed(stores):
    assert not await stores.new().changed()


async def test_a_store_of_one_process_never_changes_by_itself(store):
    await store.changed()
    await submitted(store)
    assert not await store.changed()


# -- switches


def off(**changes: Any) -> Switch:
    facts = {"kind": "disabled", "job": "a", "since": NOW, "actor": "ann", "reason": "é🙂"}
    return Switch(**(facts | changes))


async def test_a_switch_is_an_interval_that_the_next_one_of_its_job_ends(store):
    await store.switch(off(until=at(600)))
    await store.switch(off(job="b"))
    assert list(await store.switches()) == [off(until=at(600)), off(job="b")]
    await store.switch(off(kind="enabled", since=at(60), actor="bob"))
    assert list(await store.switches()) == [off(job="b"), off(kind="enabled", since=at(60), actor="bob")]


async def test_a_pause_and_a_switch_of_one_job_do_not_end_each_other(store):
    await store.switch(off())
    await store.switch(off(kind="paused", since=at(1)))
    await store.switch(off(kind="paused", job=None, since=at(2)))
    assert [one.kind for one in await store.switches()] == ["disabled", "paused", "paused"]
    assert await store.unswitch(None, ["paused"], at(3)) == 1
    assert [(one.kind, one.job) for one in await store.switches() if one.ended_at is None] == [
        ("disabled", "a"),
        ("paused", "a"),
    ]


async def test_an_ended_pause_is_kept_with_who_ended_it_and_how_its_fires_are_settled(store):
    await store.switch(off(kind="paused"))
    assert await store.unswitch("a", ["paused", "disabled"], at(60), actor="bob", missed="all") == 1
    pause = off(kind="paused", ended_at=at(60), ended_by="bob", missed="all")
    assert list(await store.switches()) == [pause]
    assert await store.unswitch("a", ["paused"], at(61)) == 0
    assert list(await store.switches()) == [pause]


async def test_of_the_ended_pauses_only_the_newest_of_each_job_is_told(store):
    for begin, job in ((0, "a"), (10, "b"), (20, "a"), (30, None), (40, None)):
        await store.switch(off(kind="paused", job=job, since=at(begin)))
        await store.unswitch(job, ["paused"], at(begin + 5))
    assert [(one.job, one.since) for one in await store.switches()] == [("b", at(10)), ("a", at(20)), (None, at(40))]


async def test_a_pause_that_ended_is_told_as_long_as_a_schedule_has_not_decided_what_it_held(store):
    await put(store, hourly(next_due=at(60)))
    for begin in (0, 120, 240):
        await store.switch(off(kind="paused", since=at(begin)))
        await store.unswitch("a", ["paused"], at(begin + 60), missed="skip")
    assert [one.since for one in await store.switches()] == [at(120), at(240)]
    await put(store, hourly(next_due=at(200)))
    assert [one.since for one in await store.switches()] == [at(240)]


async def test_an_ended_switch_is_told_no_more(store):
    await store.switch(off())
    assert await store.unswitch("a", ["enabled", "disabled"], at(60)) == 1
    assert list(await store.switches()) == []


async def test_a_switch_that_ran_out_ended_when_it_ran_out(store):
    await store.switch(off(kind="paused", until=at(60)))
    await store.unswitch("a", ["paused"], at(600))
    assert [one.ended_at for one in await store.switches()] == [at(60)]


@pytest.mark.parametrize(
    ("switch", "holds"),
    [(off(), True), (off(until=at(1)), True), (off(until=NOW), False), (off(ended_at=at(-1)), False)],
)
def test_a_switch_holds_until_it_is_ended_or_runs_out(switch, holds):
    assert switch.holds(NOW) is holds


# -- a clock that is set back


async def test_what_waits_and_what_is_tripped_goes_back_with_the_clock_and_an_instant_of_the_wall_clock_stays(store):
    await know(store, "a")
    waits, wanted, soon = await submitted(
        store,
        asked(created_at=at(3600), due_at=at(3600), ready_at=at(3700)),
        asked(created_at=at(3600), due_at=at(3700), ready_at=at(3700)),
        asked(created_at=at(3600), due_at=at(3600), ready_at=at(3600)),
    )
    await store.switch(off(kind="tripped", job="a", since=at(3600), until=at(4200)))
    await store.switch(off(kind="paused", job="b", since=at(3600), until=at(9000)))
    await store.rewind(lambda one, _: one, NOW, back=timedelta(hours=1), boot="b", since=0.0, tick=1.0)
    assert [(await store.run(run.id)).ready_at for run in (waits, wanted, soon)] == [at(100), at(3700), NOW]
    assert [(one.since, one.until) for one in await store.switches()] == [(NOW, at(600)), (NOW, at(9000))]


async def test_what_a_clock_ahead_has_written_waits_no_longer_and_a_breaker_is_open_for_its_time_from_now_on(store):
    """It was off for as long as the clock had been ahead, of which nobody knows any more."""
    await know(store, "a")
    waits, wanted, before = await submitted(
        store,
        asked(created_at=at(3600), due_at=at(3600), ready_at=at(3700)),
        asked(created_at=at(3600), due_at=at(3700), ready_at=at(3700)),
        asked(created_at=at(-9), due_at=at(-9), ready_at=at(60)),
    )
    retried = []
    for ends in (at(3600), at(-2)):  # both were asked for before the clock went ahead
        run = await started(store, attempts=2, created_at=at(-9), due_at=at(-9), ready_at=at(-9))
        retried.append(run)
        await store.settle(ended(run, Raised(Failure("E", "m"), timedelta(hours=2)), now=ends))
    await store.switch(off(kind="tripped", job="a", since=at(3600), until=at(4200)))
    await store.switch(off(kind="tripped", job="b", since=at(-9), until=at(600)))
    await store.switch(off(kind="paused", job="c", since=at(3600), until=at(9000)))
    await store.rewind(lambda one, _: one, NOW, back=None, boot="b", since=0.0, tick=1.0)
    assert [(await store.run(run.id)).ready_at for run in (waits, wanted, before)] == [NOW, at(3700), at(60)]
    assert [(await store.run(run.id)).ready_at for run in retried] == [NOW, at(7198)]
    open_for = {one.job: (one.since, one.until) for one in await store.switches()}
    assert open_for == {"a": (NOW, at(600)), "b": (at(-9), at(600)), "c": (NOW, at(9000))}


async def test_of_the_workers_of_a_machine_each_moves_for_a_step_of_the_clock_what_no_other_has_moved(store):
    await put(store, hourly("s", "a"), hourly("t", "b"))

    async def step(*jobs, since, tick, boot="b"):
        await know(store, *jobs)
        return await store.rewind(
            lambda one, _: one.changed(next_due=one.next_due - timedelta(hours=1)),
            NOW, back=timedelta(hours=1), boot=boot, since=since, tick=tick
        )  # fmt: skip

    assert [await step("a", since=1.0, tick=5.0), await step("a", "b", since=2.0, tick=6.0)] == [1, 1]
    assert await step("a", "b", since=2.0, tick=6.0) == 0
    assert [one.next_due for one in await store.schedules()] == [at(-3600)] * 2
    assert [await step("a", since=7.0, tick=9.0), await step("a", since=7.0, tick=9.0, boot="c")] == [1, 1]


# -- the past


async def test_incidents_of_a_span_are_told_newest_first(store):
    one = Incident("w1", "loop_blocked", NOW, at(1), {"ms": 1000, "where": "é.py:1 f"})
    two = Incident("w1", "clock", at(10), at(11), {"step_seconds": -3600.0})
    await store.note([one, two])
    assert list(await store.incidents(NOW, at(60))) == [two, one]
    assert list(await store.incidents(at(2), at(60))) == [two]
    assert list(await store.incidents(NOW, at(5))) == [one]
    assert list(await store.incidents(NOW, at(60), 1)) == [two]


async def test_the_usual_durations_are_of_the_newest_attempts_that_succeeded(store):
    for seconds in (1, 2, 3):
        await finished(store, now=at(seconds))
    await finished(store, Raised(Failure("E", "m"), None), now=at(99))
    assert await store.usual(["a", "b"]) == {"a": [3.0, 2.0, 1.0]}


async def test_runs_are_counted_by_the_day_and_the_state_they_ended_in(store):
    day = timedelta(days=1)
    for seconds in (1, 2):
        await finished(store, now=at(seconds))
    await finished(store, Raised(Failure("E", "m"), None), now=at(3))
    await finished(store, now=NOW + 2 * day)
    first, last = NOW.date(), (NOW + 2 * day).date()
    assert list(await store.days(["old", "a"], first, last)) == [
        DayCount(first, State.FAILED, 1, 3.0),
        DayCount(first, State.SUCCEEDED, 2, 3.0),
        DayCount(last, State.SUCCEEDED, 1, (2 * day).total_seconds()),
    ]
    assert list(await store.days(["a"], last, last)) == [DayCount(last, State.SUCCEEDED, 1, (2 * day).total_seconds())]
    assert list(await store.days(["b"], first, last)) == []


async def test_what_waits_for_too_long_is_told_unless_it_is_held(store):
    await submitted(store, asked(), asked(ready_at=at(60)), asked("b"))
    await store.switch(off(kind="paused", job="b"))
    assert ids(await store.late(at(30), 9)) == [1]
    await store.switch(off(kind="paused", job=None))
    assert ids(await store.late(at(30), 9)) == []


async def test_of_what_waits_for_too_long_each_job_is_told_however_many_another_has(store):
    await submitted(store, *(asked(ready_at=at(number)) for number in range(200)))  # runs 1 to 200
    [low, high, soon] = await submitted(
        store, asked("b", ready_at=at(300)), asked("b", ready_at=at(250), priority=5), asked("b", ready_at=at(900))
    )
    assert ids(await store.late(at(600), 1)) == [1, high.id]
    assert ids(await store.late(at(600), 3)) == [1, 2, 3, high.id, low.id]
    assert ids(await store.late(at(901), 3)) == [1, 2, 3, high.id, low.id, soon.id]
    assert ids(await store.late(at(0), 3)) == []
    assert ids(await store.late(at(901), 3, 2)) == [1, high.id]
    assert ids(await store.late(at(901), 3, 4)) == [1, 2, high.id, low.id]


async def test_declared_schedules_are_told_from_stored_ones(store):
    await put(store, hourly("c", origin="code"), hourly("f", "b", origin="file"), hourly("s"))
    assert list(await store.declared_schedules()) == [("c", "a"), ("f", "b")]


async def test_counts_are_of_the_waiting_and_the_running(store):
    assert dict(await store.counts()) == {State.WAITING: 0, State.RUNNING: 0}
    await finished(store)
    await started(store)
    await submitted(store, asked(), asked(ready_at=at(60)))
    assert dict(await store.counts()) == {State.WAITING: 2, State.RUNNING: 1}


async def test_a_run_that_is_not_there_is_none(store):
    assert await store.run(RunId(1)) is None
    assert await store.cancel(RunId(1), actor=None, reason=None, now=NOW) is None


# -- finding


async def ten(store: Store) -> None:
    """Ten runs: five states, two jobs, two causes, ids 1 to 10, made a minute apart."""
    await put(store, hourly("s", "b"))
    for minute in range(6):
        await finished(store, Raised(Failure("E", "m"), None) if minute == 2 else None, created_at=at(60 * minute))
    await started(store, created_at=at(360), cause=Cause.CLI)
    await fired(store, firing(hourly("s", "b")), now=at(420))
    skip = firing(hourly("s", "b", next_due=at(3600)), now=at(3600))
    await fired(store, skip, now=at(3600))
    [last] = await submitted(store, asked("b", created_at=at(3660), cause=Cause.MANUAL))
    await store.cancel(last.id, actor=None, reason=None, now=at(3661))


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (Query(), [10, 8, 7, 6, 5, 4, 3, 2, 1]),
        (Query(skipped=True), [10, 9, 8, 7, 6, 5, 4, 3, 2, 1]),
        (Query(limit=3), [10, 8, 7]),
        (Query(before=8, limit=3), [7, 6, 5]),
        (Query(jobs=["b"]), [10, 8]),
        (Query(jobs=["a", "b"], limit=2), [10, 8]),
        (Query(jobs=[]), []),
        (Query(jobs=["nobody"]), []),
        (Query(states=[State.FAILED]), [3]),
        (Query(states=[State.SKIPPED]), [9]),
        (Query(states=[State.SKIPPED, State.CANCELLED, State.RUNNING]), [10, 9, 7]),
        (Query(states=[]), []),
        (Query(cause="cli"), [7]),
        (Query(cause="schedule", jobs=["b"], skipped=True), [9, 8]),
        (Query(schedule="s"), [8]),
        (Query(schedule="s", skipped=True), [9, 8]),
        (Query(since=at(300)), [10, 8, 7, 6]),
        (Query(until=at(120)), [2, 1]),
        (Query(since=at(60), until=at(180), jobs=["a"], states=[State.SUCCEEDED]), [2]),
    ],
)
async def test_runs_are_found_newest_first_by_every_condition(store, query, found):
    await ten(store)
    runs = await store.find(query)
    assert ids(runs) == found
    same = ("id", "job", "state", "reason", "due_at", "started_at", "ended_at", "count")
    spans = await store.spans(query)
    assert [[getattr(one, name) for name in same] for one in spans] == [
        [getattr(one, name) for name in same] for one in runs
    ]


async def test_spans_of_each_job_are_those_of_one_after_the_other(store):
    await ten(store)
    for among in (Query(states=[*State], limit=2), Query(since=at(60), until=at(300), skipped=True), Query(before=8)):
        alone = [one for job in ("b", "nobody", "a") for one in await store.spans(among._replace(jobs=[job]))]
        assert list(await store.spans(among._replace(jobs=["b", "nobody", "a"]), each=True)) == alone
    assert not await store.spans(Query(jobs=[]), each=True) and len(alone) > 3


async def test_found_runs_are_paged_by_id(store):
    await store.submit([asked() for _ in range(25)])
    pages = [await store.find(Query(limit=10))]
    while pages[-1]:
        pages.append(await store.find(Query(limit=10, before=pages[-1][-1].id)))
    assert [run.id for page in pages for run in page] == list(range(25, 0, -1))


FAILED = Raised(Failure("E", "m"), None)


async def test_a_job_stands_as_its_newest_run_its_last_success_and_its_failures_since(store):
    await finished(store, FAILED)
    await finished(store, now=at(60))
    await finished(store, ShutDown(), now=at(65))  # which is no failure
    first = await finished(store, FAILED, now=at(70))
    newest = await finished(store, FAILED, now=at(90))
    await put(store, hourly("s", "b"))
    await fired(store, firing(hourly("s", "b"), enabled=False))
    assert dict(await store.standing(["a", "b", "nobody"])) == {"a": (newest, at(60), 2)}
    assert dict(await store.standing([])) == {}
    brief = Newest(newest.id, State.FAILED, at(60), 2, f"E: {newest.summary}", first.ended_at, True)
    assert dict(await store.newest(["a", "b", "nobody"])) == {"a": brief}
    assert dict(await store.newest([])) == {}


async def test_a_job_that_failed_and_runs_again_has_still_failed_since_its_last_success(store):
    await finished(store)
    await finished(store, FAILED)
    await finished(store, FAILED)
    running = await started(store)
    assert dict(await store.standing(["a"])) == {"a": (running, NOW, 2)}
    found = (await store.newest(["a"]))["a"]
    assert (found.run, found.state, found.failures, found.failure) == (running.id, State.RUNNING, 2, "E: m")


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (Lost(), "interrupted: worker died"),
        (Lost(Reason.ABANDONED), "interrupted: abandoned"),
        (Lost(Reason.LEASE_LOST), "interrupted: lease lost"),
        (ShutDown(), "interrupted: shutting down"),
        (Raised(Failure("KeyError", ""), None), "KeyError, without a message"),
        (FAILED, "E: m"),
    ],
)
async def test_whatever_way_a_run_failed_its_job_says_what_is_wrong(store, outcome, told):
    await finished(store, outcome)
    assert (await store.newest(["a"]))["a"].failure == told


async def test_what_is_wrong_is_how_the_last_attempt_ended_not_what_an_earlier_one_raised(store):
    run = await started(store, attempts=2)
    await store.settle(ended(run, Raised(Failure("E", "m"), timedelta(0))))
    [again] = (await claimed(store)).started
    await store.settle(ended(again, Lost()))
    assert (await store.newest(["a"]))["a"].failure == "interrupted: worker died"


async def test_a_run_between_two_attempts_has_begun_and_one_that_only_waits_has_not(store):
    await submitted(store)
    assert not (await store.newest(["a"]))["a"].begun
    [run] = (await claimed(store)).started
    assert (await store.newest(["a"]))["a"].begun
    await store.settle(ended(run.changed(attempts=2), Raised(Failure("E", "m"), timedelta(hours=1))))
    newest = (await store.newest(["a"]))["a"]
    assert (newest.state, newest.begun) == (State.WAITING, True)


async def test_a_success_ends_the_failures_and_a_job_that_never_succeeded_has_none(store):
    await finished(store, FAILED)
    newest = await finished(store, FAILED)
    assert dict(await store.standing(["a"])) == {"a": (newest, None, 2)}
    newest = await finished(store, now=at(7))
    assert dict(await store.standing(["a"])) == {"a": (newest, at(7), 0)}
    assert dict(await store.newest(["a"])) == {"a": Newest(newest.id, State.SUCCEEDED, at(7), 0, None, None, True)}


async def test_of_many_jobs_the_newest_runs_come_in_brief_each_under_all_of_its_names(store):
    await know(store, "a", "b", "old")
    runs = [await finished(store, job=job) for job in ("old", "a", "old", "b", "a")]
    await finished(store, FAILED, job="b")
    running = await started(store, job="a")
    of_a, of_b, none = await store.recent([["a", "old"], ["b"], ["nobody"]], 4)
    assert [one.id for one in of_a] == [running.id, runs[4].id, runs[2].id, runs[1].id]
    assert [(one.state, one.took_seconds) for one in of_a[:2]] == [(State.RUNNING, None), (State.SUCCEEDED, 0.0)]
    assert ([one.state for one in of_b], list(none)) == ([State.FAILED, State.SUCCEEDED], [])


async def test_failures_are_counted_up_to_a_hundred(store):
    await know(store, "a")
    runs = await submitted(store, *(asked() for _ in range(120)))
    have = await claimed(store, slots=200)
    assert len(have.started) == len(runs)
    await asyncio.gather(*(store.settle(ended(run, FAILED)) for run in have.started))
    assert (await store.standing(["a"]))["a"][2] == 100
    assert (await store.newest(["a"]))["a"].failures == 100
