"""Jobs that never end (J4), swallow cancellation (J5), hear nothing (J7), leave things behind (J9) or stop the scheduler (J15)."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from datetime import timedelta

import pytest
from misbehaviour import crowded as crowded
from misbehaviour import hosted, three_runs, unharmed
from stories import lasting, nothing, stamp, stubborn, threads_ended

from taskloop import Every, Options, RunContext, State, TaskScheduler
from taskloop.errors import NotRunning

pytestmark = pytest.mark.anyio

KILL_GRACE = timedelta(seconds=5)


def swallowing(times, then="the end"):
    """A job that swallows so many cancellations, and a while later ends well."""

    async def job():
        for _ in range(times):
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                await asyncio.sleep(then if isinstance(then, float) else 1)
        return "came back"

    return job


def cleaning(seconds):
    """A job that cleans up for so long."""

    async def job():
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(seconds)

    return job


def deaf(enough):
    """A job in a thread that hears nothing until it is let go."""

    def job():
        enough.wait(15)
        return "came back"

    return job


async def span(time, awaitable):
    """How long something took."""
    before = time.now
    await time.until(awaitable)
    return time.now - before


# -- J4: never ends


@pytest.mark.parametrize("kept_in", ["memory", "file"])
@hosted
async def test_a_run_that_never_ends_is_shown_as_running_since_it_began(crowded, virtual_time, tmp_path, kept_in):
    crowded.add_job(lasting(10**9), name="endless")
    store = None if kept_in == "memory" else f"sqlite:///{tmp_path}/runs.db"
    async with virtual_time(crowded, store=store) as time:
        await time.advance("30s")
        run = await crowded.submit("endless")
        await time.advance("20m")
        status = await crowded.status()
        assert [(one.id, stamp(one.started_at)) for one in status.active] == [(run.id, "00:00:30")]
        assert {job.name: job.condition for job in await crowded.jobs()}["endless"] == "running"
        await unharmed(time)
        assert status.running


@hosted
async def test_a_hundred_runs_that_never_end_stop_in_the_time_of_one(virtual_time):
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(max_running=200))
    jobs = {"never": lasting(10**9), "swallows": stubborn(), "cleans": cleaning(600), "late": cleaning(2)}
    for name, job in jobs.items():
        scheduler.add_job(job, name=name)
    async with virtual_time(scheduler) as time:
        await scheduler.submit_many([scheduler[name].bind() for name in jobs for _ in range(25)])
        await time.advance("1m")
        assert await span(time, scheduler.stop(grace="10s")) <= timedelta(seconds=10) + KILL_GRACE + timedelta(
            seconds=2
        )
        ended = {name: {(run.state, run.reason) for run in await time.runs(name)} for name in jobs}
        assert ended == {
            "never": {(State.INTERRUPTED, "shutting_down")},
            "swallows": {(State.INTERRUPTED, "abandoned")},
            "cleans": {(State.INTERRUPTED, "abandoned")},
            "late": {(State.INTERRUPTED, "shutting_down")},
        }
        jobs["swallows"].enough = True
        await time.advance("10m")


# -- J5: swallows cancellation


@pytest.mark.parametrize(
    ("job", "record", "after"),
    [
        (swallowing(1), (State.SUCCEEDED, None), 1),
        (swallowing(1, 4.9), (State.SUCCEEDED, None), 4.9),
        (swallowing(1, 20.0), (State.INTERRUPTED, "abandoned"), 5),
        (swallowing(2), (State.INTERRUPTED, "abandoned"), 5),
        (cleaning(0), (State.CANCELLED, "why"), 0),
        (cleaning(4.9), (State.CANCELLED, "why"), 4.9),
        (cleaning(20), (State.INTERRUPTED, "abandoned"), 5),
    ],
    ids=["once", "once and long", "once and too long", "twice", "cleans", "cleans long", "cleans too long"],
)
@hosted
async def test_a_cancel_that_is_swallowed_is_on_record_within_the_kill_grace(crowded, virtual_time, job, record, after):
    """Returned in time, it did succeed; else it is abandoned, and what it comes to later is dropped."""
    crowded.add_job(job, name="bad", max_running=1)
    async with virtual_time(crowded) as time:
        run = await crowded.submit("bad")
        await time.advance("30s")
        await crowded.cancel(run.id, reason="why")
        ended = await time.until(run.wait())
        assert (ended.state, ended.reason) == record
        assert (ended.ended_at - ended.started_at).total_seconds() == 30 + after
        await time.advance("2h")
        assert await crowded.run(run.id) == ended
        again = await crowded.submit("bad")
        await time.advance("1s")
        assert (await crowded.run(again.id)).state is State.RUNNING
        await unharmed(time)
        await crowded.cancel(again.id)
        await time.advance("2h")


@pytest.mark.parametrize("kind", ["loop", "thread"])
@hosted
async def test_an_abandoned_run_keeps_its_place_until_it_ends_and_its_result_is_dropped(crowded, virtual_time, kind):
    on_loop, enough = stubborn(), threading.Event()
    crowded.add_job(on_loop if kind == "loop" else deaf(enough), name="bad")
    async with virtual_time(crowded, patience="100ms") as time:
        runs = [await crowded.submit("bad") for _ in range(3)]  # as many as there are places
        await time.advance("10s")
        for run in runs:
            await crowded.cancel(run.id)
        await time.advance("10s")
        ended = [await crowded.run(run.id) for run in runs]
        assert {(run.state, run.reason) for run in ended} == {(State.INTERRUPTED, "abandoned")}
        await time.advance("2m")
        assert {run.state for run in await time.runs("on_loop") if run.due_at > ended[0].ended_at} == {State.WAITING}
        on_loop.enough = True
        enough.set()
        await threads_ended(time)
        await time.advance("2m")
        assert [await crowded.run(run.id) for run in runs] == ended
        late = [run for run in await time.runs("on_loop") if run.started_at > ended[0].ended_at]
        assert len(late) >= 2 and {run.state for run in late} == {State.SUCCEEDED}


@hosted
async def test_what_a_job_shields_goes_on_without_it_and_the_run_is_cancelled(crowded, virtual_time):
    tape = []

    async def job():
        await asyncio.shield(lasting(60, tape)())

    crowded.add_job(job, name="bad")
    async with virtual_time(crowded) as time:
        run = await crowded.submit("bad")
        await time.advance("10s")
        await crowded.cancel(run.id)
        ended = await time.until(run.wait())
        assert (ended.state, ended.ended_at - ended.started_at) == (State.CANCELLED, timedelta(seconds=10))
        await time.advance("1m")
        assert tape == ["begin", "end"]
        await unharmed(time)


# -- J7: hears nothing


@pytest.mark.parametrize("asked", ["cancel", "timeout", "stop"])
@hosted
async def test_what_a_deaf_thread_comes_to_after_it_was_given_up_is_nobodys(crowded, virtual_time, asked):
    enough = threading.Event()
    crowded.add_job(deaf(enough), name="bad", timeout="30s" if asked == "timeout" else None, retry=3)
    async with virtual_time(crowded, patience="100ms") as time:
        run = await crowded.submit("bad")
        await time.advance("10s")
        if asked == "cancel":
            await crowded.cancel(run.id)
        if asked == "stop":
            spent = await span(time, crowded.stop(grace="10s"))
            assert spent <= timedelta(seconds=10) + KILL_GRACE + timedelta(seconds=2)
        else:
            await time.advance("25s")
        ended = await crowded.run(run.id)
        assert (ended.state, ended.reason, ended.attempt, ended.error and ended.error.type) == {
            "cancel": (State.INTERRUPTED, "abandoned", 1, None),
            "timeout": (State.FAILED, None, 1, "Timeout"),
            "stop": (State.INTERRUPTED, "abandoned", 1, None),
        }[asked]
        enough.set()
        await threads_ended(time)
        if asked == "stop":
            await time.restart()
        await time.advance("2m")
        assert await crowded.run(run.id) == ended


# -- J9: leaves things behind


@hosted
async def test_a_task_left_behind_goes_on_and_touches_no_record(crowded, virtual_time):
    left, seen = [], []

    async def orphan(run: RunContext):
        await asyncio.sleep(45)
        run.progress(99, 100, "still here")
        run.check_cancelled()
        seen.append(run.id)
        raise ValueError("heard by nobody")

    async def job(run: RunContext):
        run.progress(50)
        left.append(asyncio.create_task(orphan(run)))

    for run in await three_runs(crowded, virtual_time, job):
        assert (run.state, run.progress.done, run.progress.message) == (State.SUCCEEDED, 50, "")
    assert len(seen) == 3
    assert {str(task.exception()) for task in left} == {"heard by nobody"}


@hosted
async def test_neither_tasks_nor_threads_nor_processes_left_behind_delay_a_stop(crowded, virtual_time):
    left, enough = [], threading.Event()

    async def job():
        left.append(asyncio.create_task(asyncio.sleep(3600)))
        thread = threading.Thread(target=enough.wait, args=(15,))
        thread.start()
        left.append(thread)
        left.append(await asyncio.to_thread(subprocess.Popen, [sys.executable, "-c", "import time; time.sleep(60)"]))

    try:
        crowded.add_job(job, name="bad")
        async with virtual_time(crowded) as time:
            run = await crowded.submit("bad")
            assert (await time.until(run.wait())).state is State.SUCCEEDED
            assert await span(time, crowded.stop()) < timedelta(seconds=1)
            task, thread, process = left
            assert not task.done() and thread.is_alive() and process.poll() is None
            await time.restart()
            await unharmed(time)
            task.cancel()
    finally:
        enough.set()
        _, thread, process = left
        thread.join()
        process.kill()
        process.wait()


@hosted
async def test_a_thread_left_behind_may_call_until_the_scheduler_stops_and_is_then_told(crowded, virtual_time):
    told, go, contexts = [], threading.Event(), []

    def orphan(run):
        told.append(run.call(crowded.submit, "on_loop").job)
        go.wait(15)
        try:
            run.call(crowded.submit, "on_loop")
        except NotRunning:
            told.append("not running")

    def job(run: RunContext):
        contexts.append(threading.Thread(target=orphan, args=(run,), daemon=True))
        contexts[0].start()

    crowded.add_job(job, name="bad")
    async with virtual_time(crowded) as time:
        await crowded.submit("bad")
        while not told:
            await time.advance("1s")
        await time.until(crowded.stop())
        go.set()
        contexts[0].join(10)
    assert told == ["on_loop", "not running"]


# -- J15: stops the scheduler


async def ends(time, within="1m"):
    await time.advance(within)
    assert not time.scheduler.is_running
    return [(run.state, run.reason, run.result) for run in await time.runs("bad")]


@hosted
async def test_a_job_that_stops_twice_and_another_that_stops_too_get_the_grace_of_the_first(crowded, virtual_time):
    @crowded.job()
    async def bad():
        await crowded.stop(grace="20s")
        await crowded.stop(grace="1s")
        await asyncio.sleep(10)
        await crowded.stop(grace="1s")
        return "said goodbye"

    async with virtual_time(crowded) as time:
        await bad.submit()
        await bad.submit()
        assert await ends(time) == [(State.SUCCEEDED, None, "said goodbye")] * 2


@hosted
async def test_a_job_that_stops_without_grace_is_asked_to_end_like_the_others(crowded, virtual_time):
    @crowded.job()
    async def bad():
        await crowded.stop(grace=0)
        await asyncio.sleep(10)

    crowded.add_job(lasting(600), name="long")
    async with virtual_time(crowded) as time:
        await crowded.submit("long")
        await bad.submit()
        assert await ends(time) == [(State.INTERRUPTED, "shutting_down", None)]
        assert [run.state for run in await time.runs("long")] == [State.INTERRUPTED]


@hosted
async def test_a_second_stop_of_a_job_without_grace_ends_the_grace(crowded, virtual_time):
    @crowded.job()
    async def bad():
        await crowded.stop(grace="10m")
        await asyncio.sleep(10)
        await crowded.stop(grace=0)
        await asyncio.sleep(3600)

    async with virtual_time(crowded) as time:
        await bad.submit()
        assert await ends(time, "15s") == [(State.INTERRUPTED, "shutting_down", None)]


@hosted
async def test_a_job_in_a_thread_may_stop_twice_by_call(crowded, virtual_time):
    @crowded.job()
    def bad(run: RunContext):
        run.call(crowded.stop, grace="10s")
        run.call(crowded.stop)
        return "said goodbye"

    async with virtual_time(crowded) as time:
        await bad.submit()
        assert await ends(time) == [(State.SUCCEEDED, None, "said goodbye")]


@pytest.mark.parametrize("where", ["child", "orphan"])
@hosted
async def test_a_task_of_a_job_that_stops_waits_for_nothing(crowded, virtual_time, where):
    left = []

    @crowded.job()
    async def bad():
        left.append(asyncio.create_task(crowded.stop(grace="30s")))
        if where == "child":
            await left[0]
        return "done"

    async with virtual_time(crowded) as time:
        await bad.submit()
        assert await ends(time) == [(State.SUCCEEDED, None, "done")]
    assert left[0].done()


@hosted
async def test_a_job_that_stops_and_starts_again_stops(crowded, virtual_time, lines):
    @crowded.job()
    async def bad():
        await crowded.stop(grace="10s")
        await crowded.start()

    async with virtual_time(crowded) as time:
        await bad.submit()
        assert await ends(time) == [(State.FAILED, None, None)]
        [run] = await crowded.runs("bad")
        assert str(run.error.message).startswith("the scheduler is stopping and waits for this job")
        await time.restart()
        await time.advance("1m")
        assert crowded.is_running


@hosted
async def test_a_job_of_one_scheduler_that_stops_another_waits_for_its_end(virtual_time, tmp_path):
    one, other = (TaskScheduler(options=Options()) for _ in range(2))
    other.add_job(lasting(20), Every("1h"), name="long")

    @one.job()
    async def bad():
        await other.stop(grace="1m")
        return [run.state for run in await other.runs()]

    async with virtual_time(one) as time:
        await time.join(other, f"sqlite:///{tmp_path}/other.db")
        run = await bad.submit()
        assert await time.until(run.value()) == ["succeeded"]
        assert one.is_running and not other.is_running
        await other.close()


@pytest.mark.parametrize("kind", ["async", "plain"])
@pytest.mark.parametrize("event", ["submitted", "started", "succeeded"])
@hosted
async def test_a_listener_that_stops_the_scheduler_lets_runs_end_and_does_not_lock_it(
    crowded, virtual_time, event, kind
):
    @crowded.on(event)
    async def on_loop(told):
        if kind == "async" and told.job == "bad":
            await crowded.stop(grace="30s")

    @crowded.on(event)
    def in_thread(told):
        if kind == "plain" and told.job == "bad":
            crowded.call(crowded.stop, grace="30s")

    async def bad():
        await asyncio.sleep(10)
        return "done"

    crowded.add_job(bad, name="bad")
    crowded.add_job(nothing, name="quick")
    async with virtual_time(crowded, patience="100ms") as time:
        await crowded.submit("bad")
        assert await ends(time) == [(State.SUCCEEDED, None, "done")]
        await time.restart()
        assert (await time.until((await crowded.submit("quick")).wait())).state is State.SUCCEEDED
