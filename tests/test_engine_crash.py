"""Crashes: what kill -9 leaves behind, and what the next life makes of it."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import pytest
from stores import asked, claimed, know, submitted
from stories import failing, fates, lasting, nothing, stamp, starts

from taskloop import Every, Options, Retry, RunContext, State, TaskScheduler
from taskloop.store import open_store
from taskloop.store_sqlite import SqliteStore

pytestmark = pytest.mark.anyio


async def test_a_run_whose_worker_died_is_interrupted_and_not_called_again(scheduler, virtual_time):
    tape = []
    scheduler.add_job(lasting(600, tape), Every("1d"))
    async with virtual_time(scheduler) as time:
        await time.advance("1m")
        await time.crash()
        await time.restart(after="10m")
        await time.advance("1h")
        assert await fates(time) == ["00:00 interrupted worker_died"]
        assert stamp((await time.runs())[0].ended_at) == "00:11"
        [item] = (await scheduler.status()).attention
        assert (item["condition"], item["text"]) == ("failing", "interrupted: worker died")
    assert tape == ["begin"]


async def test_where_attempts_are_left_it_is_called_again_and_the_crash_used_one_up(scheduler, virtual_time):
    attempts = []

    @scheduler.every("1d", retry=3)
    async def job(run: RunContext):
        attempts.append(run.attempt)
        await lasting(600)()

    async with virtual_time(scheduler) as time:
        for _ in range(2):
            await time.advance("1m")
            await time.crash()
            await time.restart(after="1m")
        await time.run_until_idle()
        run = (await time.runs())[0]
        assert (run.state, run.attempt) == (State.SUCCEEDED, 3)
    assert attempts == [1, 2, 3]


async def test_a_crash_in_the_last_attempt_is_final(scheduler, virtual_time):
    scheduler.add_job(lasting(600), Every("1d"), retry=2)
    async with virtual_time(scheduler) as time:
        for _ in range(2):
            await time.advance("1m")
            await time.crash()
            await time.restart(after="1m")
        assert await fates(time) == ["00:00 interrupted worker_died"]


async def test_on_crash_fail_never_calls_again(scheduler, virtual_time):
    scheduler.add_job(lasting(600), Every("1d"), retry=5, on_crash="fail")
    async with virtual_time(scheduler) as time:
        await time.crash()
        await time.restart()
        assert await fates(time) == ["00:00 interrupted worker_died"]


async def test_a_crash_is_settled_at_once_at_a_start_on_the_same_host(scheduler, virtual_time):
    scheduler.add_job(lasting(600), Every("1d"))
    async with virtual_time(scheduler) as time:
        await time.crash()
        await time.restart()
        assert stamp((await time.runs(state="interrupted"))[0].ended_at) == "00:00"


async def test_a_waiting_retry_keeps_its_instant_over_a_crash(scheduler, virtual_time):
    scheduler.add_job(failing(1), name="job", retry=Retry(2, first="1h"))
    async with virtual_time(scheduler) as time:
        await scheduler.submit("job")
        await time.advance("1m")
        await time.crash()
        await time.restart(after="10m")
        await time.run_until_idle()
        run = (await time.runs())[0]
        assert (run.state, run.attempt, stamp(run.ended_at)) == (State.SUCCEEDED, 2, "01:00")


async def test_what_waited_runs_in_the_next_life_and_limits_are_free_again(virtual_time):
    scheduler = TaskScheduler(options=Options(max_running=2))
    scheduler.add_job(lasting(600), name="job", group="one")
    async with virtual_time(scheduler) as time:
        for _ in range(3):
            await scheduler.submit("job")
        await time.advance("1m")
        await time.crash()
        await time.restart(after="1m")
        await time.run_until_idle()
        assert [run.state for run in await time.runs()] == [State.INTERRUPTED, State.SUCCEEDED, State.SUCCEEDED]


async def test_an_interrupted_run_is_not_in_the_way_of_the_next_fire(scheduler, virtual_time):
    scheduler.add_job(lasting(5400), Every("1h"))
    async with virtual_time(scheduler) as time:
        await time.advance("1m")
        await time.crash()
        await time.restart(after="9m")
        await time.advance("1h")
        assert await fates(time) == ["00:00 interrupted worker_died", "01:00 running"]


async def test_crashes_at_many_instants_never_fire_an_instant_twice_nor_lose_one(scheduler, virtual_time):
    called = []

    @scheduler.every("1m", missed="all")
    async def job(run: RunContext):
        called.append(run.due_at)
        await lasting(7)()

    async with virtual_time(scheduler) as time:
        for seconds in (0, 1, 59, 60, 61, 3, 67, 8, 120, 7):
            await time.advance(seconds)
            await time.crash()
            await time.restart(after="13s")
        await time.run_until_idle()
        runs = await time.runs()
        dues = [run.due_at for run in runs]
        assert len(set(dues)) == len(dues)
        assert (max(dues) - min(dues)).total_seconds() / 60 + 1 == len(dues)
        assert {run.state for run in runs} <= {State.SUCCEEDED, State.INTERRUPTED}
    assert len(set(called)) == len(called)


async def test_a_crash_between_submit_and_start_loses_nothing(scheduler, virtual_time):
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler) as time:
        run = await scheduler.submit("job")
        await time.crash()
        await time.restart()
        end = await time.until(scheduler.wait(run.id))
        assert end.state in (State.SUCCEEDED, State.INTERRUPTED)


async def test_another_worker_settles_what_a_dead_one_left(virtual_time, tmp_path):
    first, second = (TaskScheduler(options=Options()) for _ in range(2))
    for scheduler in (first, second):
        scheduler.add_job(lasting(3600), name="job", retry=2)
    address = f"sqlite:///{tmp_path}/shared.db"
    async with virtual_time(first, store=address) as time:
        run = await first.submit("job")
        await time.advance("1s")
        await time.crash()
        await time.join(second, address)
        await time.advance("1s")
        taken = await second.run(run.id)
        assert (taken.state, taken.attempt) == (State.RUNNING, 2)
        assert taken.worker != run.worker


async def test_what_a_thread_of_a_dead_life_returns_is_heard_by_nobody(scheduler, virtual_time):
    enough = threading.Event()

    @scheduler.job(retry=2)
    def job(run: RunContext):
        if run.attempt == 1:
            enough.wait(10)
        return f"attempt {run.attempt}"

    async with virtual_time(scheduler, patience="50ms") as time:
        await job.submit()
        await time.advance("1m")
        await time.crash()
        await time.restart()
        enough.set()
        await time.run_until_idle()
        assert [run.result for run in await time.runs()] == ["attempt 2"]


async def test_an_outage_after_a_crash_is_settled_like_any_other(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"))
    async with virtual_time(scheduler) as time:
        await time.advance("10m")
        await time.crash()
        await time.restart(after="5h")
        assert await fates(time) == ["00:00 succeeded", "01:00 skipped missed x4", "05:00 succeeded"]
        assert await starts(time) == ["00:00", "05:10"]


async def test_workers_that_slept_together_do_not_take_each_other_for_dead(virtual_time, tmp_path):
    """Each wakes to find that nobody has beaten for an hour, itself included."""
    address = f"sqlite:///{tmp_path}/shared.db"
    workers = [TaskScheduler(options=Options()) for _ in range(3)]

    for scheduler in workers:

        @scheduler.job()
        async def long():
            await asyncio.sleep(2 * 3600)

    async with virtual_time(workers[0], store=address) as time:
        for other in workers[1:]:
            await time.join(other, address)
        handles = [await one.submit("long") for one in workers]
        await time.advance("1m")
        await time.suspend("1h")
        await time.advance("5m")
        assert [(await workers[0].run(one.id)).state for one in handles] == ["running"] * 3
        assert len((await workers[0].status()).workers) == 3


@pytest.mark.parametrize(("lease_seconds", "lives_for"), [(60, 60), (6, 15), (None, 15)])
async def test_a_worker_is_dead_after_its_own_lease_or_that_of_who_looks_if_it_is_longer(
    scheduler, virtual_time, tmp_path, lease_seconds, lives_for
):
    """Two programs that share a store, or two hosts in the middle of a deploy, need not have the same."""
    async with virtual_time(scheduler, store=SqliteStore(tmp_path / "a.db")) as time:
        elsewhere = SqliteStore(tmp_path / "a.db")
        await elsewhere.open()
        told = {} if lease_seconds is None else {"lease_seconds": lease_seconds}
        await elsewhere.enlist(replace(scheduler.worker, id="other", host="elsewhere", process="m:b:1:2", health=told))
        await time.advance(lives_for - 2)
        assert {one.id for one in await elsewhere.workers(living=True)} == {scheduler.worker.id, "other"}
        assert {one.id for one in (await scheduler.status()).workers} == {scheduler.worker.id, "other"}
        await time.advance(6)
        [own] = await elsewhere.workers(living=True)
        assert (own.id, own.health["lease_seconds"]) == (scheduler.worker.id, 15.0), "which it says with each beat"
        await elsewhere.close()


async def test_what_dead_workers_left_is_settled_many_at_a_time(tmp_path):
    """One by one it took a start a second for a thousand runs in a file, and three on a server, where that is near."""
    place, turn, turns = f"sqlite:///{tmp_path}/shop.db", [0], []
    store = open_store(place)
    await store.open()
    await know(store, "job")
    await submitted(store, *(asked("job", attempts=2) for _ in range(200)))
    assert len((await claimed(store, "w1", slots=200)).started) == 200  # of a worker that is in no list
    await store.close()

    async def counting():
        while True:
            await asyncio.sleep(0)
            turn[0] += 1

    scheduler = TaskScheduler(place, options=Options(max_running=1))
    scheduler.add_job(lasting(600), name="job", retry=2)
    scheduler.feed.subscribe(lambda event: turns.append(turn[0]), "recovered")
    count = asyncio.create_task(counting())
    async with scheduler:
        count.cancel()
        assert len(turns) == 200 and len({*turns}) < 40
        await scheduler.stop(0)
