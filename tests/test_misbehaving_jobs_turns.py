"""Cancels, stops and submits at every turn of the loop (J6): nothing is left, and the record says what happened."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
import pytest
from misbehaviour import crowded as crowded
from misbehaviour import hosted, unharmed
from misbehaviour import program as program
from stories import lasting, nothing

from taskloop import Options, RunContext, State, TaskScheduler
from taskloop.runs import ACTIVE, FINAL

pytestmark = pytest.mark.anyio

TURNS = [*range(60), *range(60, 300, 10)]
"""From at once to long after the store has answered."""


async def turns(number):
    for _ in range(number):
        await asyncio.sleep(0)


@asynccontextmanager
async def one_place(job, address="sqlite:///:memory:", **policy):
    """A scheduler in real time with one slot, so that a slot that was lost stops everything."""
    options = Options(max_running=1, threads=1, grace=timedelta(0), synchronous="normal")
    scheduler = TaskScheduler(address, options=options)
    scheduler.add_job(job, name="job", **policy)
    scheduler.add_job(nothing, name="healthy")
    try:
        async with scheduler:
            yield scheduler
    finally:
        await scheduler.close()


async def nothing_is_lost(scheduler):
    """The one slot is free, and no run is running or waiting."""
    assert (await (await scheduler.submit("healthy")).wait("5s")).state is State.SUCCEEDED
    assert await scheduler.runs(state=sorted(ACTIVE)) == []


async def brief(run: RunContext):
    await turns(20)


def in_thread(): ...


async def guarded():
    """Waits as anyio does: a cancellation comes at every await."""
    with anyio.CancelScope():
        await anyio.sleep(3600)


async def grouped():
    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(asyncio.sleep(3600))


JOBS = {
    "nothing": nothing, "brief": brief, "in_thread": in_thread, "lasting": lasting(3600), "guarded": guarded,
    "grouped": grouped,
}  # fmt: skip


def each_way():
    """A run is claimed by the submit itself, or, where its job has a limit of its own, by the engine a moment later."""
    for name in JOBS:
        yield pytest.param(name, "at once", id=f"{name}, claimed at once")
        yield pytest.param(name, "later", id=f"{name}, claimed later")


@pytest.mark.parametrize(("name", "claimed"), [*each_way()])
@hosted
async def test_a_cancel_at_any_turn_after_the_submit_ends_the_run_once(name, claimed):
    async with one_place(JOBS[name], max_running=1 if claimed == "later" else None) as scheduler:
        await nothing_is_lost(scheduler)
        for number in TURNS:
            run = await scheduler.submit("job")
            await turns(number)
            await scheduler.cancel(run.id, reason="why")
            ended = await final(scheduler, run)
            assert (ended.state, ended.reason) in ((State.CANCELLED, "why"), (State.SUCCEEDED, None)), number
            assert await scheduler.run(run.id) == ended
        await nothing_is_lost(scheduler)


async def final(scheduler, run):
    """The record of a run that should end at once, whether it did or not."""
    try:
        return await run.wait("1s")
    except TimeoutError:
        return await scheduler.run(run.id)


@hosted
async def test_a_submit_cancelled_at_any_turn_has_a_run_or_none_and_loses_no_slot(tmp_path):
    called = []

    async def job(number: int):
        called.append(number)

    async with one_place(job) as scheduler:
        for number in TURNS:
            submitting = asyncio.create_task(scheduler.submit("job", {"number": number}))
            await turns(number)
            submitting.cancel()
            await asyncio.wait({submitting})
        await nothing_is_lost(scheduler)
        runs = await scheduler.runs("job", limit=1000)
        assert {run.state for run in runs} == {State.SUCCEEDED}
        assert sorted(run.params["number"] for run in runs) == sorted(called)
        assert len(called) == len(set(called)) and called[-1] == TURNS[-1]


@hosted
async def test_a_wait_cancelled_at_any_turn_touches_no_run():
    async with one_place(brief) as scheduler:
        for number in TURNS:
            run = await scheduler.submit("job")
            waiting = asyncio.create_task(run.wait())
            await turns(number)
            waiting.cancel()
            await asyncio.wait({waiting})
            assert (await run.wait("5s")).state is State.SUCCEEDED
        await nothing_is_lost(scheduler)


@pytest.mark.parametrize("name", JOBS)
@hosted
async def test_a_stop_at_any_turn_after_the_submit_leaves_nothing_running_and_the_next_start_is_well(tmp_path, name):
    seen = set()
    for number in TURNS[::3]:
        async with one_place(JOBS[name], tmp_path / "runs.db") as scheduler:
            if number % 2 or number > 60:  # once it has settled, a submit begins the run itself
                await nothing_is_lost(scheduler)
            run = await scheduler.submit("job")
            await turns(number)
            await scheduler.stop(grace=0)
            ended = await scheduler.run(run.id)
            seen.add((ended.state, ended.reason))
            await scheduler.cancel(run.id)
            await scheduler.start()
            await nothing_is_lost(scheduler)
    allowed = {(State.WAITING, None), (State.SUCCEEDED, None), (State.INTERRUPTED, "shutting_down")}
    assert seen <= allowed and len(seen) > 1


AT_ONCE = """
import asyncio, threading
from taskloop import Options, TaskScheduler

async def main():
    scheduler = TaskScheduler("app.db", options=Options())
    @scheduler.job()
    async def job(): ...
    verbs, stopping = [], None
    if WHEN == "of a stop":
        await scheduler.start()
        stopping = asyncio.create_task(scheduler.stop())
    while len(verbs) < 10 or (stopping is not None and not stopping.done()):
        verbs.append(asyncio.create_task(scheduler.submit("job") if len(verbs) % 2 else scheduler.runs()))
        await asyncio.sleep(0)
    done = await asyncio.gather(*verbs, return_exceptions=True)
    await scheduler.close()
    refused = {type(one).__name__ for one in done} - {"list", "RunHandle"}
    await asyncio.sleep(0.3)  # a thread that was told to end may need a moment
    print(len(done) >= 10, refused, sum("connection" in thread.name for thread in threading.enumerate()))

asyncio.run(main())
"""


@pytest.mark.parametrize("when", ["before the start", "of a stop"])
def test_verbs_at_every_turn_share_one_store_and_none_is_left_open(program, when):
    """While a stop closes the store a verb may be refused; before the start none may."""
    program.write("host.py", f"WHEN = {when!r}\n{AT_ONCE}")
    refused = "{'StoreUnavailable'}" if when == "of a stop" else "set()"
    assert program.run().stdout in ("True set() 0\n", f"True {refused} 0\n")


@hosted
async def test_starts_and_stops_that_overtake_each_other_at_any_turn_end_stopped(tmp_path):
    async with one_place(nothing, tmp_path / "runs.db") as scheduler:
        for number in TURNS[::3]:
            await scheduler.stop(grace=0)
            starting = asyncio.create_task(scheduler.start())
            await turns(number)
            await asyncio.gather(scheduler.stop(grace=0), scheduler.stop(), starting, return_exceptions=True)
            await scheduler.stop(grace=0)
            assert not scheduler.is_running
        await scheduler.start()
        await nothing_is_lost(scheduler)


@hosted
async def test_a_cancel_that_wait_for_loses_is_on_record_as_what_the_job_then_did(crowded, virtual_time):
    """On Python 3.11 a cancellation is lost when what `wait_for` waits for is ready in the same turn."""
    ready = {}

    @crowded.job()
    async def bad(run: RunContext):
        ready[run.id] = asyncio.get_running_loop().create_future()
        await asyncio.wait_for(ready[run.id], 3600)
        await asyncio.sleep(60)
        return "went on"

    async with virtual_time(crowded) as time:
        run = await bad.submit()
        await time.advance("1s")
        ready[run.id].set_result(None)
        await crowded.cancel(run.id)
        ended = await time.until(run.wait())
        assert (ended.state, ended.reason) in ((State.INTERRUPTED, "abandoned"), (State.CANCELLED, None))
        assert (time.now - ended.started_at).total_seconds() <= 1 + 5
        await time.advance("2m")
        assert await crowded.run(run.id) == ended
        await unharmed(time)


@hosted
async def test_cancel_timeout_and_stop_in_one_turn_write_one_end(crowded, virtual_time):
    crowded.add_job(lasting(3600), name="bad", timeout="1m", retry=3)
    async with virtual_time(crowded) as time:
        runs = [await crowded.submit("bad") for _ in range(3)]
        heard = []
        crowded.feed.subscribe(heard.append, *(state.value for state in FINAL))
        loop = asyncio.get_running_loop()
        for run in runs:
            loop.call_later(60, lambda one=run: one_task(crowded.cancel(one.id, reason="why")))
        loop.call_later(60, lambda: one_task(crowded.stop(grace=0)))
        await time.advance("2m")
        assert not crowded.is_running
        assert sorted(event.run.id for event in heard if event.job == "bad") == sorted(run.id for run in runs)
        assert {(run.state, run.reason) for run in await time.runs("bad")} == {(State.CANCELLED, "why")}


tasks = set()


def one_task(coroutine):
    task = asyncio.get_running_loop().create_task(coroutine)
    tasks.add(task)
    task.add_done_callback(tasks.discard)


@hosted
async def test_calls_from_a_thread_at_any_turn_of_a_stop_end_and_are_kept(tmp_path):
    begun, made = threading.Event(), []

    def calls(run: RunContext):
        begun.set()
        for _ in range(5):
            made.append(run.call(run.scheduler.submit, "healthy").id)

    for number in TURNS[::6]:
        begun.clear()
        async with one_place(calls, tmp_path / "runs.db") as scheduler:
            run = await scheduler.submit("job")
            while not begun.is_set():
                await asyncio.sleep(0)
            await turns(number)
            await scheduler.stop("5s")
            assert (await scheduler.run(run.id)).state is State.SUCCEEDED
    async with one_place(calls, tmp_path / "runs.db") as scheduler:
        assert len(made) == 5 * len(TURNS[::6])
        for run in made:
            assert (await scheduler.wait(run, "5s")).state is State.SUCCEEDED
