"""Starting and stopping: what holds whoever calls which, when and how often."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import sys
import threading
import time
from contextlib import asynccontextmanager, closing, suppress
from datetime import timedelta

import anyio
import pytest
from stories import START, failing, fates, lasting, nothing, starts, stubborn, threads_ended

from taskloop import Cron, Every, Inject, Jobs, Options, RunContext, State, TaskScheduler, current_run
from taskloop.audience import LOOK_SECONDS
from taskloop.clock import SystemClock
from taskloop.errors import BadDuration, BadJob, Conflict, NotRunning, StoreUnavailable
from taskloop.jobs import Job
from taskloop.web.asgi import lifespan

pytestmark = pytest.mark.anyio


def test_making_a_scheduler_opens_nothing(tmp_path):
    threads = threading.active_count()
    scheduler = TaskScheduler(tmp_path / "app.db", options=Options())
    scheduler.add_job(nothing, Every("1h"))
    assert threading.active_count() == threads
    assert list(tmp_path.iterdir()) == []
    assert not scheduler.is_running


async def test_a_second_start_warns_and_changes_nothing(scheduler, virtual_time, lines):
    scheduler.add_job(nothing, Every())
    async with virtual_time(scheduler, interval="1h") as time:
        await scheduler.start("1m")
        await time.advance("1h")
        assert await starts(time) == ["00:00", "01:00"]
    assert "scheduler.already_running" in lines


async def test_a_start_during_a_stop_begins_when_that_is_over(scheduler, virtual_time):
    release = asyncio.Event()

    @scheduler.job()
    async def lasting():
        await release.wait()

    async with virtual_time(scheduler) as time:
        await lasting.submit()
        await time.advance("1s")
        stopping = asyncio.create_task(scheduler.stop(grace="1m"))
        await time.advance("1s")
        starting = asyncio.create_task(scheduler.start())
        await time.advance("1s")
        assert not starting.done() and not scheduler.is_running
        release.set()
        await time.until(asyncio.gather(stopping, starting))
        assert scheduler.is_running and await scheduler.runs(state="succeeded")


async def test_a_job_may_start_another_scheduler_that_is_stopping(tmp_path):
    scheduler = TaskScheduler(tmp_path / "app.db", options=Options())
    other = TaskScheduler(tmp_path / "other.db", options=Options())
    release = asyncio.Event()

    @other.job()
    async def lasting():
        await release.wait()

    @scheduler.job()
    async def revives():
        stopping = asyncio.create_task(other.stop(grace="1m"))
        while other.is_running:
            await asyncio.sleep(0)
        starting = asyncio.create_task(other.start())
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(starting, stopping)
        return other.is_running

    async with scheduler:
        await other.start()
        await lasting.submit()
        assert await (await revives.submit()).value() is True
        await other.stop()


async def test_a_time_to_serve_that_is_none_is_refused(tmp_path):
    scheduler = TaskScheduler(tmp_path / "app.db", options=Options())
    with pytest.raises(BadDuration):
        await scheduler.serve(run_for=0)
    await scheduler.stop()


def test_a_listener_without_parentheses_is_refused_with_what_to_write(scheduler):
    with pytest.raises(ValueError, match=r"write @scheduler.on\(\)"):

        @scheduler.on
        def heard(event):
            pass


def test_a_listener_that_cannot_be_called_is_refused(scheduler):
    with pytest.raises(TypeError, match="a listener is a function that takes the event, got int"):
        scheduler.on("failed")(5)


async def test_a_stop_before_the_start_and_a_second_stop_do_nothing(tmp_path):
    scheduler = TaskScheduler(tmp_path / "app.db", options=Options())
    await scheduler.stop()
    await scheduler.start()
    assert scheduler.is_running
    await scheduler.stop()
    await scheduler.stop()
    assert not scheduler.is_running


async def test_start_and_stop_may_be_called_from_different_tasks(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"))
    async with virtual_time(scheduler, start=False) as time:
        await asyncio.create_task(scheduler.start())
        await time.advance("1h")
        await asyncio.gather(scheduler.stop(), scheduler.stop())
        assert not scheduler.is_running
        assert await starts(time) == ["00:00", "01:00"]


async def test_a_stopped_scheduler_can_be_started_again(tmp_path):
    scheduler = TaskScheduler(tmp_path / "app.db", options=Options())
    scheduler.add_job(nothing, name="job")
    for _ in range(3):
        await scheduler.start()
        await (await scheduler.submit("job")).wait()
        await scheduler.stop()
    assert len(await scheduler.runs()) == 3
    await scheduler.stop()


async def test_async_with_starts_and_stops(tmp_path, lines):
    scheduler = TaskScheduler(tmp_path / "app.db", options=Options())
    scheduler.speaker.level = "DEBUG"
    with pytest.raises(ZeroDivisionError):
        async with scheduler as entered:
            assert entered is scheduler
            assert scheduler.is_running
            raise ZeroDivisionError
    assert not scheduler.is_running
    words = ["starting", "started", "stopping", "stopped"]
    assert [one for one in lines if one != "timer.cancelled"] == [f"scheduler.{word}" for word in words]
    assert lines.index("timer.cancelled") == lines.index("scheduler.stopping") - 1


async def test_a_start_cancelled_at_any_tick_leaves_nothing_and_can_be_repeated(tmp_path):
    for ticks in [*range(25), 50, 100, 200, 400]:
        scheduler = TaskScheduler(tmp_path / "app.db", options=Options())
        starting = asyncio.create_task(scheduler.start())
        for _ in range(ticks):
            await asyncio.sleep(0)
        starting.cancel()
        await asyncio.wait({starting})
        if starting.cancelled():
            assert not scheduler.is_running
            await scheduler.start()
        assert scheduler.is_running
        await scheduler.stop()


async def test_a_stop_that_is_cancelled_goes_on_stopping(scheduler, virtual_time):
    scheduler.add_job(lasting(10), Every("1h"))
    async with virtual_time(scheduler) as time:
        stopping = asyncio.create_task(scheduler.stop())
        await time.advance("1s")
        stopping.cancel()
        await time.advance("10s")
        assert not scheduler.is_running
        assert await fates(time) == ["00:00 succeeded"]


async def test_stop_inside_a_job_returns_at_once_and_the_job_gets_the_grace_too(scheduler, virtual_time):
    @scheduler.job()
    async def last():
        await scheduler.stop(grace="10s")
        await asyncio.sleep(5)
        return "said goodbye"

    async with virtual_time(scheduler) as time:
        await last.submit()
        await time.advance("1m")
        assert not scheduler.is_running
        assert [run.summary for run in await time.runs()] == ["said goodbye"]


async def test_stop_inside_a_job_in_a_thread_works_by_call(scheduler, virtual_time):
    from taskloop import RunContext

    @scheduler.job()
    def last(run: RunContext):
        run.call(scheduler.stop, grace="10s")
        return "said goodbye"

    async with virtual_time(scheduler) as time:
        await last.submit()
        await time.advance("1m")
        assert not scheduler.is_running
        assert [run.summary for run in await time.runs()] == ["said goodbye"]


@asynccontextmanager
async def serving(scheduler):
    async with anyio.create_task_group() as group:
        group.start_soon(scheduler.serve)
        yield


@pytest.mark.parametrize(
    "host", [lambda one: one, lambda one: lifespan(one)(None), serving], ids=["with", "lifespan", "serve"]
)
async def test_runs_in_hand_have_their_grace_where_a_scope_of_anyio_is_given_up(host, tmp_path):
    """Such a scope cancels at each await, those of a stop too."""
    scheduler = TaskScheduler(tmp_path / "app.db", options=Options())
    begun, may_end = asyncio.Event(), asyncio.Event()

    @scheduler.job()
    async def job():
        begun.set()
        await may_end.wait()

    await job.submit()
    with anyio.CancelScope() as scope:
        async with host(scheduler):
            await begun.wait()
            asyncio.get_running_loop().call_later(0.05, may_end.set)
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught and not scheduler.is_running
    async with TaskScheduler(tmp_path / "app.db", options=Options()) as later:
        assert [run.state for run in await later.runs()] == ["succeeded"]


async def test_a_start_that_failed_closes_all_and_can_be_tried_again(tmp_path):
    folder = tmp_path / "later"
    scheduler = TaskScheduler(folder / "app.db", options=Options())
    with pytest.raises(StoreUnavailable) as caught:
        await scheduler.start()
    assert "folder" in str(caught.value)
    assert not scheduler.is_running
    await scheduler.stop()
    folder.mkdir()
    await scheduler.start()
    assert scheduler.is_running
    await scheduler.stop()


async def test_inside_another_program_too_mistakes_in_the_environment_and_dev_mode_are_said(
    tmp_path, monkeypatch, lines
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TASKLOOP_SCHEDULR__GRACE", "3s")
    async with asyncio.TaskGroup() as verbs:  # both find that nothing is read yet
        scheduler = TaskScheduler()
        verbs.create_task(scheduler.runs())
        verbs.create_task(scheduler.schedules())
    async with scheduler:
        assert lines == ["config.warning"]
    monkeypatch.setenv("TASKLOOP_LOG__LEVEL", "info")
    async with TaskScheduler():
        assert lines[1:] == ["config.warning", "scheduler.started"]
    del lines[:]
    monkeypatch.setenv("TASKLOOP_DEV", "1m")
    quieter = TaskScheduler()
    quieter.speaker.level = "ERROR"  # whoever made it has said so
    async with quieter, TaskScheduler():
        assert lines == ["config.warning", "dev.mode", "scheduler.started"]


async def test_in_dev_mode_no_spread_holds_a_job_back_for_longer_than_its_pace(virtual_time):
    options = Options(dev=timedelta(seconds=10), defaults={"spread": "6h"}, jobs={"daily": {"spread": "1d"}})
    scheduler = TaskScheduler(options=options)
    scheduler.add_job(nothing, Every("1d"), name="daily")
    scheduler.add_job(nothing, Cron("0 2 * * *"), name="nightly", spread="1h")
    async with virtual_time(scheduler) as time:
        await time.advance("10s")
        assert {run.job for run in await time.runs()} == {"daily", "nightly"}


async def test_a_job_that_contradicts_the_configuration_is_refused_where_it_is_added_to_a_started_scheduler(
    virtual_time, lines
):
    scheduler = TaskScheduler(options=Options(jobs={"late": {"executor": "thread"}}))
    async with virtual_time(scheduler) as time:
        with pytest.raises(BadJob, match="'late' is an async def"):
            scheduler.add_job(nothing, Every("1m"), name="late")
        assert "late" not in scheduler
        await time.advance("1m")
        scheduler._listeners.begin(failing(1)())
        await time.advance()
        assert lines[-1] == "engine.failed"


async def test_a_start_with_many_jobs_leaves_its_host_a_turn_between_few_of_them(virtual_time, monkeypatch):
    """What 100,000 crons declare held the loop for 7.7 seconds."""
    made = [0]
    definition = TaskScheduler.definition
    scheduler = TaskScheduler(options=Options())
    for number in range(1050):
        scheduler.add_job(nothing, Cron("0 2 * * *"), name=f"job-{number}")

    def counted(self, job):
        if not made[-1]:
            asyncio.get_running_loop().call_soon(made.append, 0)
        made[-1] += 1
        return definition(self, job)

    monkeypatch.setattr(TaskScheduler, "definition", counted)
    async with virtual_time(scheduler) as time:
        monkeypatch.undo()
        assert sum(made) == 1050 and max(made) <= 100
        assert len(await scheduler.jobs()) == 1050
        await time.advance("1d")
        assert len(await scheduler.runs(limit=1000)) == 1000


async def test_many_jobs_that_are_declared_anew_leave_the_host_a_turn_between_few_of_them(virtual_time, monkeypatch):
    """As when a store is back, or a worker of another version has gone: 20,000 held the loop for 0.3 seconds."""
    laid, configure = [0], Job.configure
    scheduler = TaskScheduler(options=Options())
    for number in range(250):
        scheduler.add_job(nothing, Every("1m"), name=f"job-{number}")

    def counted(self, *args):
        if not laid[-1]:
            asyncio.get_running_loop().call_soon(laid.append, 0)
        laid[-1] += 1
        configure(self, *args)

    async with virtual_time(scheduler) as time:
        monkeypatch.setattr(Job, "configure", counted)
        scheduler._redeclared(*scheduler)
        await time.advance("1s")
        monkeypatch.undo()
        assert sum(laid) == 250 and max(laid) <= 100


async def test_jobs_that_are_added_one_by_one_to_a_started_scheduler_are_declared_a_few_times_together(
    virtual_time, monkeypatch
):
    """Each time looks at all jobs: for each of two thousand that held the loop for four seconds at a stretch."""
    told: list[int] = []
    know = TaskScheduler._know
    scheduler = TaskScheduler(options=Options())
    async with virtual_time(scheduler) as time:
        monkeypatch.setattr(TaskScheduler, "_know", lambda self: told.append(len(self)) or know(self))
        for number in range(100):
            scheduler.add_job(nothing, Every("1m"), name=f"late-{number:02}")
            if number % 10 == 9:
                await asyncio.sleep(0)
        for number in range(50):
            scheduler.remove_job(f"late-{number:02}")
        await time.advance("1m")
        monkeypatch.undo()
        assert {run.job for run in await time.runs()} == {f"late-{number}" for number in range(50, 100)}
        assert len(told) < 10


async def test_the_interval_given_to_start_is_that_of_every_every_without_one(scheduler, virtual_time):
    scheduler.add_job(nothing, Every(), name="open")
    scheduler.add_job(nothing, Every("1h"), name="own")
    async with virtual_time(scheduler, interval=1800) as time:
        await time.advance("1h")
        assert await starts(time, "open") == ["00:00", "00:30", "01:00"]
        assert await starts(time, "own") == ["00:00", "01:00"]


async def test_without_an_interval_it_is_two_weeks(scheduler, virtual_time):
    scheduler.add_job(nothing, Every())
    async with virtual_time(scheduler) as time:
        await time.advance("14d")
        assert await starts(time) == ["00:00", "+14d 00:00"]


async def test_two_schedulers_on_one_file_fire_each_instant_once(virtual_time, tmp_path):
    first, second = (TaskScheduler(options=Options()) for _ in range(2))
    for scheduler in (first, second):
        scheduler.add_job(nothing, Every("1m"), name="job")
    address = f"sqlite:///{tmp_path}/shared.db"
    async with virtual_time(first, store=address) as time:
        await time.join(second, address)
        await time.advance("10m")
        runs = await time.runs()
        assert len({run.due_at for run in runs}) == len(runs) == 11
        assert {run.state for run in runs} == {State.SUCCEEDED}


async def test_a_scheduler_that_is_not_enabled_submits_and_leaves_the_work_to_others(virtual_time, tmp_path):
    quiet, busy = TaskScheduler(options=Options(enabled=False)), TaskScheduler(options=Options())
    for scheduler in (quiet, busy):
        scheduler.add_job(nothing, name="asked")
        scheduler.add_job(nothing, Every("1m"), name="fired")
    address = f"sqlite:///{tmp_path}/shared.db"
    async with virtual_time(quiet, store=address) as time:
        run = await quiet.submit("asked")
        await time.advance("2m")
        assert [one.state for one in await time.runs()] == [State.WAITING]
        await time.join(busy, address)
        done = await time.until(run.wait())
        assert done.state is State.SUCCEEDED
        assert {one.state for one in await time.runs("fired")} == {State.SUCCEEDED}


async def test_what_was_submitted_before_the_start_runs_after_it(scheduler, virtual_time):
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler, start=False) as time:
        run = await scheduler.submit("job")
        assert (await scheduler.run(run.id)).state is State.WAITING
        await time.advance("1h")
        await time.start()
        assert (await scheduler.run(run.id)).state is State.SUCCEEDED


async def test_a_stop_lets_running_jobs_end_within_the_grace(scheduler, virtual_time):
    scheduler.add_job(lasting(20), Every("1h"))
    async with virtual_time(scheduler) as time:
        await time.until(scheduler.stop())
        assert await fates(time) == ["00:00 succeeded"]
        assert (time.now - (await time.runs())[0].created_at).total_seconds() == 20


async def test_a_stop_waits_for_what_the_store_is_about_to_hand_out_and_no_longer(scheduler, virtual_time):
    job = scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler) as time:
        await (await job.submit()).wait()
        began = time.now
        asking = [asyncio.ensure_future(job.submit()) for _ in range(2)]
        await asyncio.sleep(0)
        await scheduler.stop(grace="30s")
        await asyncio.gather(*asking)
        assert await fates(time) == ["00:00 succeeded"] * 3
        assert time.now - began < timedelta(seconds=0.4)


async def test_a_stop_cancels_what_outlives_the_grace(scheduler, virtual_time):
    tape = []
    scheduler.add_job(lasting(600, tape), Every("1h"))
    async with virtual_time(scheduler) as time:
        await time.until(scheduler.stop(grace="1m"))
        assert await fates(time) == ["00:00 interrupted shutting_down"]
        assert 60 <= (await time.runs())[0].ended_at.minute * 60 < 66
    assert tape == ["begin"]


async def test_a_run_cut_short_by_a_stop_waits_again_with_its_attempt_given_back(scheduler, virtual_time):
    told = []
    scheduler.on("retrying")(lambda event: told.append(dict(event.data)))
    scheduler.add_job(lasting(600), Every("1h"), retry=2)
    async with virtual_time(scheduler) as time:
        await time.until(scheduler.stop(grace=0))
        waiting = (await time.runs())[0]
        assert (waiting.state, waiting.attempt) == (State.WAITING, 0)
        assert told == [{"reason": "shutting_down"}]
        await time.restart(after="5m")
        await time.advance("10m")
        ended = (await time.runs())[0]
        assert (ended.state, ended.attempt) == (State.SUCCEEDED, 1)


async def test_on_crash_fail_makes_a_run_cut_short_final(scheduler, virtual_time):
    scheduler.add_job(lasting(600), Every("1h"), retry=2, on_crash="fail")
    async with virtual_time(scheduler) as time:
        await time.until(scheduler.stop(grace=0))
        assert await fates(time) == ["00:00 interrupted shutting_down"]


async def test_a_job_that_swallows_the_stop_is_abandoned_after_the_kill_grace(scheduler, virtual_time):
    job = stubborn()
    scheduler.add_job(job, Every("1d"), retry=2)
    async with virtual_time(scheduler) as time:
        await time.until(scheduler.stop(grace="10s"))
        assert 15 <= time.now.second <= 17
        assert (await time.runs())[0].state is State.INTERRUPTED
        job.enough = True
        await time.advance("1s")


async def test_a_run_that_is_abandoned_says_who_had_asked_for_its_end(scheduler, virtual_time):
    job = stubborn()
    added = scheduler.add_job(job)
    async with virtual_time(scheduler) as time:
        run = await added.submit()
        await time.advance("1s")
        await scheduler.cancel(run.id, reason="enough", actor="ann")
        await time.advance("10s")
        run = await scheduler.run(run.id)
        assert (run.state, run.reason, run.data) == ("interrupted", "abandoned", {"cancelled_by": "ann"})
        assert "interrupted by ann after" in (await scheduler.why(run=run.id)).text
        job.enough = True
        await time.advance("1s")


async def test_a_job_in_a_thread_that_does_not_end_is_abandoned_and_never_repeated(scheduler, virtual_time):
    enough = threading.Event()

    @scheduler.job(retry=3)
    def stuck():
        enough.wait(10)
        return "too late"

    async with virtual_time(scheduler, patience="50ms") as time:
        await stuck.submit()
        await time.until(scheduler.stop(grace="1s"))
        assert [(run.state, run.reason) for run in await time.runs()] == [(State.INTERRUPTED, "abandoned")]
        enough.set()
        await threads_ended(time)
        await time.restart()
        await time.advance("1h")
        assert [(run.state, run.result) for run in await time.runs()] == [(State.INTERRUPTED, None)]


async def test_who_waits_for_a_run_of_a_store_in_memory_is_told_of_the_stop_with_which_that_goes():
    """The run had not begun: nobody would ever have told of its end, and there was nothing to look at."""
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options())
    scheduler.add_job(nothing, name="job")
    await scheduler.start()
    run = await scheduler.submit("job", at="+1h")
    waiting = asyncio.create_task(run.wait())
    await asyncio.sleep(2 * LOOK_SECONDS)  # it has looked, and only listens from now on
    await scheduler.stop()
    async with asyncio.timeout(5):
        with pytest.raises(NotRunning, match="its store in memory is gone"):
            await waiting


async def test_a_switch_that_a_stop_leaves_unwritten_opens_the_store_for_nobody(tmp_path):
    scheduler = TaskScheduler(tmp_path / "app.db", options=Options())
    scheduler.add_job(nothing, name="job")
    await scheduler.start()
    with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        switching = asyncio.create_task(scheduler.disable("job"))
        await asyncio.sleep(0.1)
        await scheduler.stop(0)
        with pytest.raises(StoreUnavailable, match="is closed"):
            await switching
    assert not scheduler._store_is_open


async def test_a_second_stop_with_no_grace_ends_the_grace_of_the_first(scheduler, virtual_time):
    scheduler.add_job(lasting(600), Every("1h"))
    async with virtual_time(scheduler) as time:
        first = asyncio.create_task(scheduler.stop(grace="5m"))
        await time.advance("1m")
        await time.until(scheduler.stop(grace=0))
        await first
        assert time.now.minute == 1


async def test_nothing_new_starts_while_stopping(scheduler, virtual_time):
    scheduler.add_job(lasting(600), Every("1d"), name="long")
    scheduler.add_job(nothing, Every("1m"), name="often")
    async with virtual_time(scheduler) as time:
        await time.until(scheduler.stop(grace="20m"))
        assert await starts(time, "often") == ["00:00"]
        assert await fates(time, "long") == ["00:00 succeeded"]


async def test_a_stop_that_waits_long_for_a_run_wakes_up_for_nothing_and_gathers_nothing(scheduler, virtual_time):
    """It looked each 0.4 seconds, in which nothing had changed, and left a future behind for each look."""
    scheduler.add_job(lasting(3600), name="long")
    async with virtual_time(scheduler) as time:
        await scheduler.submit("long")
        await time.advance("1s")
        stopping = asyncio.ensure_future(scheduler.stop(grace="1h"))
        await time.advance("1s")
        before = pending()
        await time.advance("10m")
        assert pending() - before < 20
        await time.until(stopping)


def pending():
    return sum(isinstance(one, asyncio.Future) and not one.done() for one in gc.get_objects())


async def test_a_worker_that_stops_is_not_told_to_stand_still_while_its_runs_have_their_grace(virtual_time, tmp_path):
    """It was, every ten seconds, and on record as the reason why nothing was fired."""
    scheduler = TaskScheduler(options=Options())
    scheduler.add_job(nothing, Cron("* * * * *"), name="tick")
    scheduler.add_job(lasting(3600), name="long")
    async with virtual_time(scheduler, store=f"sqlite:///{tmp_path}/a.db") as time:
        await scheduler.submit("long")
        await time.advance("90s")
        stopping = asyncio.ensure_future(scheduler.stop(grace="10m"))
        await time.advance("8m")
        assert not stopping.done() and await scheduler._store.incidents(START, time.now) == []
        await time.until(stopping)


class FailingClock(SystemClock):
    """A host's own, which gives no time any more to what fires from some moment on; what runs can still be ended."""

    def __init__(self):
        self.fails = False

    def monotonic(self):
        if self.fails and sys._getframe(1).f_globals["__name__"] == "taskloop.firing":
            raise RuntimeError("no time any more")
        return super().monotonic()


async def test_a_scheduler_that_cannot_go_on_says_so_ends_what_runs_and_fails_who_serves_it(tmp_path, lines):
    clock, running = FailingClock(), asyncio.Event()
    scheduler = TaskScheduler(tmp_path / "app.db", clock=clock, options=Options())

    @scheduler.job()
    async def lasting():
        running.set()
        await asyncio.Event().wait()

    serving = asyncio.create_task(scheduler.serve())
    run = await lasting.submit()
    await running.wait()
    clock.fails = True
    with pytest.raises(RuntimeError, match="no time any more"):
        await serving
    assert "scheduler.died" in lines and not scheduler.is_running
    assert (await scheduler.run(run.id)).state is not State.RUNNING
    clock.fails = False
    async with scheduler:
        assert scheduler.is_running
    await scheduler.close()


async def test_a_scheduler_that_dies_begins_nothing_any_more_and_a_start_waits_for_its_end(tmp_path, lines):
    """What was asked for while it waited for a deaf job was begun, abandoned at once and counted as tried."""
    clock, running, let_go = FailingClock(), asyncio.Event(), asyncio.Event()
    scheduler = TaskScheduler(tmp_path / "app.db", clock=clock, options=Options(kill_grace=timedelta(seconds=20)))

    @scheduler.job()
    async def deaf():
        running.set()
        while not let_go.is_set():
            with suppress(asyncio.CancelledError):
                await let_go.wait()

    @scheduler.job()
    async def charge(): ...

    await scheduler.start()
    host = scheduler._host
    await deaf.submit()
    await running.wait()
    clock.fails = True
    while "scheduler.died" not in lines:
        await asyncio.sleep(0.01)
    clock.fails = False
    charged = await charge.submit()
    starting = asyncio.create_task(scheduler.start())
    await asyncio.sleep(0)  # it has begun: else it would have found the scheduler running, and returned
    stands = scheduler.is_running, starting.done(), (await scheduler.run(charged.id)).state
    let_go.set()
    await starting
    assert stands == (False, False, State.WAITING)
    assert str(host.exception()) == "no time any more"
    assert (await charged.wait()).state is State.SUCCEEDED
    await scheduler.stop()


async def test_a_removed_job_fires_no_more_and_keeps_its_history(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="gone")
    async with virtual_time(scheduler) as time:
        await time.advance("1h")
        await time.until(scheduler.stop())
        scheduler.remove_job("gone")
        await time.restart()
        await time.advance("5h")
        assert await fates(time, "gone") == ["00:00 succeeded", "01:00 succeeded"]


async def test_a_name_that_was_removed_is_free_for_a_module_that_declares_it_later(virtual_time):
    """Whatever was removed was left out at each later start, and remembered for ever."""
    shop = Jobs()
    scheduler = TaskScheduler(jobs=[shop], options=Options())
    scheduler.add_job(nothing, name="tidy")
    scheduler.remove_job("tidy")
    shop.add_job(nothing, Every("1h"), name="tidy")
    async with virtual_time(scheduler) as time:
        assert await fates(time, "tidy") == ["00:00 succeeded"]
        await time.until(scheduler.stop())
        scheduler.remove_job("tidy")
        await time.restart()
        assert "tidy" not in scheduler


async def test_a_job_that_stops_its_scheduler_cannot_start_it_before_it_has_ended(scheduler, virtual_time):
    """It was told that the scheduler was started already, which then stopped."""
    told = []

    @scheduler.job()
    async def reboot():
        await scheduler.stop()
        try:
            await scheduler.start()
        except Conflict as error:
            told.append(str(error))

    async with virtual_time(scheduler) as time:
        await scheduler.submit("reboot")
        await time.advance("1s")
        assert told == ["the scheduler is stopping and waits for this job; start it again when that has ended"]
        assert not scheduler.is_running


def test_a_host_that_ended_its_loop_without_a_stop_leaves_nothing_open(tmp_path):
    scheduler = TaskScheduler(tmp_path / "app.db", options=Options())
    scheduler.add_job(lasting(600), name="job")
    scheduler.add_job(lasting(600), name="again", retry=2)

    async def host():
        await scheduler.start()
        await scheduler.submit("job")
        await scheduler.submit("again")
        while sum(one.begun for one in scheduler._slots.attempts.values()) < 2:
            await asyncio.sleep(0)

    async def afterwards():
        await scheduler.stop()
        runs = await scheduler.runs()
        await scheduler.stop()
        return runs

    asyncio.run(host())
    assert not scheduler.is_running
    again, job = asyncio.run(afterwards())
    assert (job.state, again.state) == (State.INTERRUPTED, State.WAITING)


@pytest.fixture
def collected():
    """What a story leaves behind ends with it, and not while another one compiles something, which Python 3.11 takes ill.

    It ends in the context of whoever is there when it is collected, who is no part of its run.
    """
    yield
    gc.collect()
    with pytest.raises(LookupError):
        current_run()


@pytest.mark.usefixtures("collected")
@pytest.mark.parametrize(
    "what", ["a job", "after its timeout", "a step of a flow", "a step beside others", "a listener", "a provider"]
)
def test_a_program_ends_though_something_was_deaf_to_its_end(what):
    """Deaf for twenty seconds, and left behind, a job before the stop."""
    scheduler = TaskScheduler(":memory:", options=Options(grace=timedelta(0), kill_grace=timedelta(seconds=0.2)))
    began = time.monotonic()

    async def deaf() -> None:
        while time.monotonic() < began + 20:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(20)

    async def provider():
        yield 1
        await deaf()

    async def aside(run: RunContext) -> None:
        await asyncio.gather(run.step("one", deaf), run.step("two", deaf))

    async def given(one: int = Inject(provider, scope="worker")) -> None: ...

    if what == "a step of a flow":
        scheduler.flow("job").step()(deaf)
    else:
        jobs = {"a listener": nothing, "a provider": given, "a step beside others": aside}
        timeout = "0.1s" if what == "after its timeout" else None
        scheduler.add_job(jobs.get(what, deaf), name="job", timeout=timeout)
    if what == "a listener":
        scheduler.on("succeeded")(lambda event: deaf())

    async def main():
        await scheduler.start()
        handle = await scheduler.submit("job")
        await asyncio.sleep(0.1)
        if what in ("a job", "a step of a flow", "a step beside others"):
            await scheduler.cancel(handle.id)
        await handle.wait()
        await scheduler.stop()

    asyncio.run(main())
    assert time.monotonic() < began + 10
