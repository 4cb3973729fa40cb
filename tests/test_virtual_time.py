"""The testing kit: time that passes at a word, in a real engine."""

from __future__ import annotations

import asyncio
import inspect
import re
import sqlite3
import subprocess
import sys
import threading
import time as real_time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from taskloop import (
    BackgroundTasks,
    Every,
    Jobs,
    Options,
    RetryAt,
    RunContext,
    State,
    TaskScheduler,
    loop_time,
    testing,
)
from taskloop.errors import BadDuration, Conflict, NoSuchJob, NotRunning, RunFailed
from taskloop.store_sqlite import SqliteStore
from taskloop.clock import ClockWatch
from taskloop.testing import Standstill, run_context

pytestmark = pytest.mark.anyio

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(text):
    """An instant of the first of January 2026, or of the date given."""
    return datetime.fromisoformat(text if "T" in text else f"2026-01-01T{text}").replace(tzinfo=UTC)


@pytest.fixture
def scheduler():
    return TaskScheduler("sqlite:///never-made.db", options=Options())


async def nothing():
    """A job that does nothing."""


async def test_twenty_four_hours_of_ten_five_minute_jobs_pass_in_a_second(scheduler, virtual_time, record_property):
    for number in range(10):
        scheduler.add_job(nothing, Every("5m"), name=f"job-{number}")
    async with virtual_time(scheduler) as time:
        began = real_time.process_time()
        await time.advance("24h")
        took = real_time.process_time() - began
        runs = await time.runs(state="succeeded")
    record_property("seconds", round(took, 3))
    assert len(runs) == 10 * 288 + 10
    assert took < 3


async def test_two_idle_weeks_pass_in_milliseconds_and_the_job_fires_when_due(scheduler, virtual_time):
    scheduler.add_job(nothing, Every(), name="fortnightly")
    async with virtual_time(scheduler, interval="2w") as time:
        began = real_time.process_time()
        await time.advance("2w")
        took = real_time.process_time() - began
        assert [run.due_at for run in await time.runs()] == [START, START + timedelta(weeks=2)]
    assert took < 3


async def test_the_clock_stands_where_it_was_told_and_moves_by_what_it_was_told(scheduler, virtual_time):
    async with virtual_time(scheduler, at="2026-03-29T00:59:59+00:00") as time:
        assert time.now == at("2026-03-29T00:59:59")
        await time.advance("1h30m")
        await time.advance(timedelta(seconds=1), minutes=29, hours=-0 + 1)
        assert time.now == at("2026-03-29T03:59:00")
        with pytest.raises(BadDuration):
            await time.advance("a while")
        for weeks in ("x", None, float("nan"), 1e30):
            with pytest.raises(BadDuration, match="each unit takes a number"):
                await time.advance(weeks=weeks)
        assert time.now == at("2026-03-29T03:59:00")


async def test_the_same_instant_may_be_given_as_a_datetime(scheduler, virtual_time):
    async with virtual_time(scheduler, at=START) as time:
        assert time.now == START


async def test_sleep_timeouts_and_timers_inside_a_job_follow_virtual_time(scheduler, virtual_time):
    seen = []

    @scheduler.job()
    async def job():
        loop = asyncio.get_running_loop()
        began = loop.time()
        loop.call_later(60, seen.append, "timer")
        await asyncio.sleep(3600)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1800):
                await asyncio.Event().wait()
        with anyio.move_on_after(1800):
            await anyio.sleep_forever()
        return loop.time() - began

    async with virtual_time(scheduler) as time:
        run = await job.submit()
        await time.advance("1h59m59s")
        assert (await scheduler.run(run.id)).state is State.RUNNING
        await time.advance("1s")
        assert await run.value() == 7200
    assert seen == ["timer"]


async def test_timers_of_one_way_fire_in_their_order_at_their_instants(scheduler, virtual_time):
    seen = []

    async def wait(seconds):
        await asyncio.sleep(seconds)
        seen.append((seconds, time.now))

    async with virtual_time(scheduler) as time, asyncio.TaskGroup() as group:
        for seconds in (30, 0.25, 1 / 3, 7200):
            group.create_task(wait(seconds))
        await time.advance("3h")
    assert [seconds for seconds, _ in seen] == [0.25, 1 / 3, 30, 7200]
    assert [moment - START for _, moment in seen] == [timedelta(seconds=seconds) for seconds in (0.25, 1 / 3, 30, 7200)]


async def test_a_century_of_sleep_wakes_to_the_microsecond(scheduler, virtual_time):
    async with virtual_time(scheduler, start=False) as time:
        sleeper = asyncio.create_task(asyncio.sleep(36_500 * 86_400))
        await time.advance("36500d")
        assert sleeper.done()
        assert time.now == START + timedelta(days=36_500)


async def test_time_waits_for_threads(scheduler, virtual_time):
    """Whatever makes the thread: a job, asyncio or anyio."""
    instants = []

    def slow():
        real_time.sleep(0.03)
        return "slow"

    async def in_asyncio():
        instants.append((await asyncio.to_thread(slow), time.now))

    async def in_anyio():
        instants.append((await anyio.to_thread.run_sync(slow), time.now))

    scheduler.add_job(slow, name="job")
    for function in (in_asyncio, in_anyio):
        scheduler.add_job(function)
    async with virtual_time(scheduler) as time:
        runs = [await scheduler.submit(name) for name in ("job", "in_asyncio", "in_anyio")]
        await time.advance("1h")
        assert [(await scheduler.run(run.id)).ended_at for run in runs] == [START] * 3
    assert instants == [("slow", START)] * 2


async def test_time_goes_on_without_a_thread_that_takes_longer_than_the_patience(scheduler, virtual_time):
    enough = threading.Event()

    @scheduler.job()
    def stuck():
        enough.wait(5)

    async with virtual_time(scheduler, patience="50ms") as time:
        run = await stuck.submit()
        await time.advance("1h")
        assert time.now == START + timedelta(hours=1)
        enough.set()
        await time.until(run.wait())
        assert (await time.runs())[0].ended_at >= START + timedelta(hours=1)


async def test_until_lets_time_pass_until_something_is_done(scheduler, virtual_time):
    @scheduler.job()
    async def job():
        await asyncio.sleep(100)
        return 7

    async with virtual_time(scheduler) as time:
        run = await job.submit()
        assert await time.until(run.value()) == 7
        assert time.now == START + timedelta(seconds=100)
        with pytest.raises(ZeroDivisionError):
            await time.until(_failing())


async def _failing():
    await asyncio.sleep(1)
    raise ZeroDivisionError


async def test_run_until_idle_waits_for_retries_and_for_what_waits_for_its_instant(scheduler, virtual_time):
    @scheduler.job(retry=3)
    async def job(run: RunContext):
        await asyncio.sleep(60)
        if run.attempt < 3:
            raise OSError

    async with virtual_time(scheduler) as time:
        await job.bind().submit(at="+1d")
        await time.run_until_idle()
        assert [run.attempt for run in await time.runs(state="succeeded")] == [3]
        assert time.now == START + timedelta(days=1, seconds=183)
        await time.run_until_idle()
        assert time.now == START + timedelta(days=1, seconds=183)


async def test_run_until_idle_names_what_is_still_active_at_its_limit(scheduler, virtual_time):
    scheduler.add_job(nothing, name="held")
    async with virtual_time(scheduler) as time:
        await scheduler.pause()
        await scheduler.submit("held")
        with pytest.raises(TimeoutError, match="run 1 of 'held' waiting"):
            await time.run_until_idle(limit="1h")
        assert time.now == START + timedelta(hours=1)


async def test_a_step_of_the_wall_clock_moves_no_timer(scheduler, virtual_time):
    async with virtual_time(scheduler, start=False) as time:
        sleeper = asyncio.create_task(asyncio.sleep(60))
        monotonic = time.clock.monotonic()
        time.step("1h")
        assert time.now == START + timedelta(hours=1)
        time.step("-2h")
        time.step(timedelta(hours=-1))
        assert time.now == START - timedelta(hours=2)
        assert time.clock.monotonic() == monotonic
        await time.advance("59s")
        assert not sleeper.done()
        await time.advance("1s")
        assert sleeper.done()


async def test_a_suspend_wakes_late_what_fell_due_in_it(scheduler, virtual_time):
    woken = []

    async def sleep(seconds):
        await asyncio.sleep(seconds)
        woken.append(time.now - START)

    async with virtual_time(scheduler, start=False) as time, asyncio.TaskGroup() as group:
        for seconds in (10, 20, 100):
            group.create_task(sleep(seconds))
        await time.advance(0)
        await time.suspend("90s")
        assert woken == [timedelta(seconds=90)] * 2
        await time.advance("10s")


async def test_a_machine_falls_asleep_when_what_was_just_asked_for_is_done(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("5m"), name="job", first="aligned", missed="skip")
    async with virtual_time(scheduler) as time:
        await time.advance("2m")
        await scheduler.pause("job", until="+1m")
        await time.suspend("2h")
        await time.advance("1m")
        found = await scheduler._store.incidents(time.now - timedelta(days=1), time.now)
        assert [one.kind for one in found] == ["clock"]
        assert (await scheduler.why("job", at="1h")).code == "clock_jump"


async def test_a_crash_runs_no_clean_up_and_records_nothing(scheduler, virtual_time):
    seen = []

    @scheduler.every("1d")
    async def job():
        child = asyncio.create_task(asyncio.sleep(5))
        try:
            await asyncio.sleep(600)
        finally:
            seen.append("cleaned up")
        await child

    async with virtual_time(scheduler) as time:
        await time.advance("1s")
        await time.crash()
        assert not scheduler.is_running
        assert [run.state for run in await time.runs()] == [State.RUNNING]
        assert (await scheduler.status()).running is False
        await time.advance("1h")
        assert [run.state for run in await time.runs()] == [State.RUNNING]
        await time.restart()
        assert [run.state for run in await time.runs()] == [State.INTERRUPTED]
    assert seen == []


async def test_a_crash_leaves_tasks_of_the_test_alone(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"))
    async with virtual_time(scheduler) as time:
        mine = asyncio.create_task(asyncio.sleep(60, "mine"))
        await time.crash()
        await time.restart(after="1m")
        assert mine.result() == "mine"


async def test_a_store_in_a_file_survives_crashes_too(scheduler, virtual_time, tmp_path):
    scheduler.add_job(nothing, Every("1m"))
    async with virtual_time(scheduler, store=f"sqlite:///{tmp_path}/runs.db") as time:
        for _ in range(3):
            await time.advance("1m")
            await time.crash()
            await time.restart()
        assert len(await time.runs()) == 4
    assert (tmp_path / "runs.db").exists()


async def test_crash_needs_a_running_scheduler(scheduler, virtual_time):
    async with virtual_time(scheduler, start=False) as time:
        with pytest.raises(NotRunning):
            await time.crash()


async def test_a_restart_stops_and_starts_on_the_same_store(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"))
    async with virtual_time(scheduler) as time:
        await time.restart(after="10m")
        assert time.now == START + timedelta(minutes=10)
        await time.advance("50m")
        assert [run.due_at for run in await time.runs()] == [START, START + timedelta(hours=1)]


async def test_runs_come_oldest_first_by_job_and_state(scheduler, virtual_time):
    scheduler.add_job(nothing, name="a")
    scheduler.add_job(nothing, name="b")
    async with virtual_time(scheduler) as time:
        for name in ("a", "b", "a"):
            await scheduler.submit(name)
        await time.run_until_idle()
        assert [run.job for run in await time.runs()] == ["a", "b", "a"]
        assert [run.id for run in await time.runs("a")] == [1, 3]
        assert await time.runs(scheduler["b"], state="failed") == []


async def test_submitted_gives_what_was_asked_for_and_not_what_fired(scheduler, virtual_time):
    @scheduler.every("1h")
    async def remind(user: int = 0):
        """Remind somebody."""

    async with virtual_time(scheduler) as time:
        await time.advance("3h")
        await remind.submit(user=7)
        await remind.bind(user=8).submit(key="k")
        await remind.bind(user=8).submit(key="k")
        assert [run.params for run in time.submitted(remind)] == [{"user": 7}, {"user": 8}]
        assert len(await time.submitted("remind")) == len(time.submitted()) == 2


async def test_a_job_that_nobody_knows_is_told_and_not_one_without_runs(scheduler, virtual_time):
    scheduler.add_job(nothing, name="hourly", aliases=("often",))
    scheduler.add_job(nothing, name="gone")
    other = TaskScheduler(options=Options())
    other.add_job(nothing, name="beside")
    async with virtual_time(scheduler) as time:
        await time.join(other, ":memory:")
        for ask in (time.runs, time.submitted):
            with pytest.raises(NoSuchJob, match="did you mean 'hourly'"):
                await ask("houly")
            assert await ask("hourly") == await ask("often") == []
        assert time.submitted("beside") == []
        await scheduler.submit("gone")
        scheduler.remove_job("gone")
        assert len(time.submitted("gone")) == len(await time.runs("gone", state=list(State))) == 1


async def test_leaving_puts_loop_and_scheduler_back(virtual_time, tmp_path):
    scheduler = TaskScheduler(tmp_path / "own.db", options=Options())
    loop = asyncio.get_running_loop()
    before = (loop._selector, loop._clock_resolution, loop.get_task_factory(), scheduler._store, scheduler._clock)
    timer = loop.call_later(30, nothing)
    due = timer.when()
    async with virtual_time(scheduler) as time:
        inner = loop.call_later(3600, nothing)
        await time.advance("30m")
    assert (
        loop._selector,
        loop._clock_resolution,
        loop.get_task_factory(),
        scheduler._store,
        scheduler._clock,
    ) == before
    assert not {"time", "run_in_executor"} & set(vars(loop))
    assert timer.when() == due
    assert inner.when() == pytest.approx(loop.time() + 1800, abs=1)
    timer.cancel()
    inner.cancel()
    assert not (tmp_path / "own.db").exists()


async def test_leaving_by_an_error_puts_everything_back_and_lets_the_error_out(scheduler, virtual_time):
    @scheduler.every("1h")
    async def job():
        await asyncio.sleep(600)

    with pytest.raises(ZeroDivisionError):
        async with virtual_time(scheduler):
            raise ZeroDivisionError
    assert not scheduler.is_running
    assert "time" not in vars(asyncio.get_running_loop())


async def test_a_failing_start_puts_everything_back(scheduler, virtual_time, tmp_path):
    with pytest.raises(OSError):
        async with virtual_time(scheduler, store=f"sqlite:///{tmp_path}/no/such.db"):
            pass
    assert "time" not in vars(asyncio.get_running_loop())


async def test_a_scheduler_that_runs_already_is_refused_with_the_mend(scheduler, virtual_time):
    async with virtual_time(scheduler):
        with pytest.raises(Conflict, match=r"runs already; enter virtual_time\(\) before what starts it"):
            async with virtual_time(scheduler):
                pass


async def test_a_scheduler_may_live_through_several_virtual_times(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"))
    for _ in range(3):
        async with virtual_time(scheduler) as time:
            await time.advance("1h")
            assert len(await time.runs()) == 2


async def test_a_limit_around_the_test_is_one_of_real_time(scheduler, virtual_time):
    began = real_time.monotonic()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1), virtual_time(scheduler) as time:
            await time.advance("1d")
            await asyncio.sleep(1)
    assert 0.09 < real_time.monotonic() - began < 5


async def test_a_test_that_waits_for_time_that_nobody_moves_is_told_so(scheduler, virtual_time, monkeypatch):
    with pytest.raises(Standstill, match=r"(?s)stood still .* time\.advance"):
        async with virtual_time(scheduler):
            monkeypatch.setattr(loop_time, "STANDSTILL_SECONDS", 0.1)
            await asyncio.sleep(1)


@pytest.fixture(scope="module")
def of_the_module(virtual_time):
    return virtual_time


@pytest.fixture
async def entered(scheduler, of_the_module):
    async with of_the_module(scheduler) as time:
        yield time


@pytest.mark.parametrize("waits", ["for a future", "for a task", "for several", "for a run"])
async def test_a_test_that_hangs_is_told_so_where_a_fixture_has_entered_virtual_time(entered, monkeypatch, waits):
    """Plugins run fixture and test in one task, or the test in one of its own: neither may be cancelled for it."""
    monkeypatch.setattr(loop_time, "STANDSTILL_SECONDS", 0.2)
    with pytest.raises(Standstill, match=r"await time.until\("):
        if waits == "for a future":
            await asyncio.sleep(60)
        elif waits == "for a task":
            await asyncio.create_task(asyncio.sleep(60))
        elif waits == "for a run":
            entered.scheduler.add_job(nothing, name="later")
            later = await entered.scheduler.submit("later", at="+1h")
            await later.value(timeout="2h")
        else:
            await asyncio.gather(asyncio.sleep(60), asyncio.sleep(70))
    await entered.advance("1h")
    assert entered.now == at("01:00:00")


async def test_a_test_that_hangs_is_told_so_where_the_clocks_of_python_are_frozen(entered, monkeypatch):
    """As freezegun does it."""
    monkeypatch.setattr(loop_time, "STANDSTILL_SECONDS", 0.2)
    monkeypatch.setattr(real_time, "monotonic", lambda: 0.0)
    with pytest.raises(Standstill, match=r"await time.until\("):
        await asyncio.sleep(60)


def test_a_test_that_hangs_is_told_so_where_another_task_has_entered_virtual_time(scheduler, monkeypatch):
    monkeypatch.setattr(loop_time, "STANDSTILL_SECONDS", 0.2)
    time = testing.virtual_time(scheduler)
    with asyncio.Runner() as runner:
        runner.run(time.__aenter__())
        with pytest.raises(Standstill, match=r"await time.until\("):
            runner.run(asyncio.wait_for(asyncio.sleep(60), 600))
        runner.run(time.__aexit__(None, None, None))


async def test_a_job_that_fails_is_told_with_its_traceback(scheduler, virtual_time, capsys):
    async def fails():
        raise ValueError("no such user")

    async def asks_for_another():
        raise RetryAt("10m")

    job = scheduler.add_job(fails, retry=2)
    scheduler.add_job(asks_for_another, Every("1h"), retry=2)
    async with virtual_time(scheduler) as time:
        run = await job.submit()
        await time.advance()
        assert 'raise ValueError("no such user")' in capsys.readouterr().err
        with pytest.raises(RunFailed, match="no such user") as told:
            await time.until(run.value())
    assert 'raise ValueError("no such user")' in told.value.__notes__[0]
    assert "RetryAt: " not in capsys.readouterr().err.replace('error="RetryAt: ', "")


async def test_a_virtual_time_that_was_never_entered_tells_nothing_of_a_later_one(scheduler, virtual_time, capsys):
    async def fails():
        raise ValueError("no such user")

    job = scheduler.add_job(fails)
    never = virtual_time(scheduler)
    async with virtual_time(scheduler) as time:
        with pytest.raises(Conflict, match="runs already"):
            await virtual_time(scheduler).__aenter__()
        await job.submit()
        await time.advance()
    assert capsys.readouterr().err.count('raise ValueError("no such user")') == 1
    assert never.submitted() == []


async def test_the_debug_mode_of_asyncio_takes_no_jump_of_the_clock_for_a_callback_that_was_slow(
    scheduler, virtual_time, caplog, monkeypatch
):
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    usual, loop.slow_callback_duration = loop.slow_callback_duration, 1e-9
    try:
        async with virtual_time(scheduler) as time:
            await time.suspend("8h")
            later = asyncio.BaseEventLoop.time(loop) + 3600
            monkeypatch.setattr(asyncio.BaseEventLoop, "time", lambda self: later)  # as after a test that took an hour
        async with virtual_time(scheduler):
            pass
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert loop.slow_callback_duration == 1e-9
    finally:
        loop.slow_callback_duration = usual
        loop.set_debug(False)
        monkeypatch.undo()
    slow = [one.getMessage() for one in caplog.records if one.name == "asyncio" and " took " in one.getMessage()]
    assert [one for one in slow if "Handle setattr" not in one] == []


async def test_a_start_that_stands_still_is_told_so_and_one_that_sleeps_is_let_sleep(
    scheduler, virtual_time, monkeypatch
):
    class Slow(SqliteStore):
        async def workers(self, **more):
            await (asyncio.sleep(3600) if sleeps else asyncio.Event().wait())
            return await super().workers(**more)

    sleeps = True
    async with virtual_time(scheduler, at=START, store=Slow(":memory:")) as time:
        assert time.now >= START + timedelta(hours=1)
    sleeps = False
    monkeypatch.setattr(loop_time, "STANDSTILL_SECONDS", 0.1)
    with pytest.raises(Standstill, match=r"(?s)stood still .*TaskScheduler\._begin"):
        async with virtual_time(scheduler, store=Slow(":memory:")):
            pass
    assert not scheduler.is_running


async def test_a_job_that_spins_is_told_as_a_standstill(scheduler, virtual_time, monkeypatch):
    async def spin():
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Standstill, match="spin"):
        async with virtual_time(scheduler) as time:
            spinning = asyncio.create_task(spin())
            monkeypatch.setattr(loop_time, "STANDSTILL_SECONDS", 0.1)
            try:
                await time.advance("1h")
            finally:
                spinning.cancel()


async def test_only_one_verb_may_move_time(scheduler, virtual_time):
    async with virtual_time(scheduler) as time:
        with pytest.raises(RuntimeError, match="passing already"):
            await asyncio.gather(time.advance("1h"), time.advance("1h"))


def test_a_loop_that_is_no_selector_loop_is_refused(scheduler):
    """Such as uvloop, which keeps its time where nobody can reach it."""

    class OtherLoop(asyncio.AbstractEventLoop):
        pass

    with pytest.raises(NotRunning, match="selector loop"):
        loop_time.LoopTime(OtherLoop(), [], 1.0)


def verbs(time):
    """What lets time pass, each asked for."""
    for name in ("advance", "suspend", "restart", "start", "run_until_idle"):
        yield getattr(time, name)(*["1h"] * (name in ("advance", "suspend")))
    yield time.until(asyncio.sleep(1))
    yield time.join(TaskScheduler(options=Options()), ":memory:")


async def test_no_time_passes_before_it_is_entered_or_after_it_is_left(scheduler, virtual_time):
    time = virtual_time(scheduler)
    for verb in verbs(time):
        with pytest.raises(NotRunning, match="has not begun; enter it: `async with"):
            await verb
    async with time:
        await time.advance("1h")
    for verb in verbs(time):
        with pytest.raises(NotRunning, match="virtual time is over"):
            await verb
    with pytest.raises(Conflict, match="entered once; make another one"):
        async with time:
            pass
    assert not scheduler.is_running and not Path("never-made.db").exists()


def test_no_time_passes_on_another_loop_than_it_was_entered_on(scheduler):
    """As where a fixture lives on a loop of its own."""
    with asyncio.Runner() as home, asyncio.Runner() as elsewhere:
        time = testing.virtual_time(scheduler)
        home.run(time.__aenter__())
        before = time.now
        for verb in verbs(time):
            with pytest.raises(NotRunning, match="another event loop"):
                elsewhere.run(verb)
        assert time.now == before
        home.run(time.advance("1h"))
        home.run(time.__aexit__(None, None, None))


def test_virtual_time_says_that_it_needs_asyncio(scheduler):
    """As a test is told that anyio's plugin runs on trio."""
    with pytest.raises(NotRunning, match='needs asyncio.* `anyio_backend` give "asyncio"'):
        testing.virtual_time(scheduler).__aenter__().send(None)


@pytest.mark.parametrize("given", ["shop:scheduler", Jobs().add_job(nothing)])
def test_virtual_time_takes_a_scheduler_alone(given):
    with pytest.raises(TypeError, match=r"scheduler is .*(nothing|shop).*; a TaskScheduler is allowed: .* itself"):
        testing.virtual_time(given)
    with pytest.raises(
        TypeError, match=r"scheduler is .*BackgroundTasks.*; a TaskScheduler is allowed: .* \.scheduler"
    ):
        testing.virtual_time(BackgroundTasks())


async def test_two_schedulers_share_one_time(virtual_time, tmp_path):
    first, second = (TaskScheduler(options=Options()) for _ in range(2))
    first.add_job(nothing, Every("2m"), name="first")
    second.add_job(nothing, Every("1m"), name="second")
    async with virtual_time(first) as time:
        await time.join(second, f"sqlite:///{tmp_path}/second.db")
        await time.advance("4m")
        assert len(await first.runs()) == 3
        assert len(await second.runs()) == 5
    assert not second.is_running


async def test_a_scheduler_that_runs_or_lives_there_already_cannot_join(scheduler, virtual_time):
    """Its store was taken from the engine that ran on it."""
    async with TaskScheduler(":memory:", options=Options()) as other, virtual_time(scheduler) as time:
        with pytest.raises(Conflict, match="lives in this virtual time already"):
            await time.join(scheduler, ":memory:")
        with pytest.raises(Conflict, match="runs already, in real time"):
            await time.join(other, ":memory:")
        scheduler.add_job(nothing, Every("1h"))
        await time.advance("1h")
        assert len(await time.runs("nothing")) == 2


async def test_a_crash_ends_all_schedulers_of_the_process_and_a_restart_starts_them_again(virtual_time, tmp_path):
    first, second = (TaskScheduler(options=Options()) for _ in range(2))
    for scheduler in (first, second):
        scheduler.add_job(nothing, Every("1m"), name="job")
    address = f"sqlite:///{tmp_path}/shared.db"
    async with virtual_time(first, store=address) as time:
        await time.join(second, address)
        await time.crash()
        assert not first.is_running
        assert not second.is_running
        await time.restart(after="30s")
        assert first.is_running
        assert second.is_running
        await time.advance("2m")
        assert len(await time.runs()) == 3


async def test_time_waits_for_the_store_of_a_scheduler_that_only_asks(virtual_time, tmp_path):
    """It leapt from timer to timer meanwhile, and half a second of a busy disk was told as one that hangs for 30."""
    scheduler = TaskScheduler(options=Options())
    scheduler.add_job(nothing, Every("1s"), name="job")
    async with virtual_time(scheduler) as time:
        desk = TaskScheduler(f"sqlite:///{tmp_path}/b.db")
        desk.add_job(nothing, name="asked")
        await time.until(desk.submit("asked"))
        other = sqlite3.connect(tmp_path / "b.db", check_same_thread=False, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(0.3, other.close).start()
        began = time.now
        await time.until(desk.submit("asked"))
        assert time.now - began < timedelta(seconds=5)
        await time.until(desk.close())


def test_run_context_lets_a_job_be_called_plainly():
    context = run_context(job="mail", attempt=2, params={"batch": 3}, step="send", cancelled=True)
    context.progress(5, 10, "half")
    assert (context.job, context.attempt, context.params, context.step) == ("mail", 2, {"batch": 3}, "send")
    assert context.latest.fraction == 0.5
    assert context.cancelled


def test_run_context_refuses_a_field_it_does_not_have():
    with pytest.raises(TypeError, match="did you mean 'attempt'"):
        run_context(atempt=2)


def examples():
    """The tests on the page for users, by name."""
    page = (Path(__file__).parents[1] / "docs" / "testing.md").read_text("utf-8")
    names = {}
    exec("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)), names)
    return {name: one for name, one in names.items() if name.startswith("test_")}


@pytest.mark.parametrize("name", examples())
async def test_what_the_page_shows_is_true(name, virtual_time):
    test = examples()[name]
    await (test(virtual_time) if inspect.signature(test).parameters else test())


def test_the_client_of_a_framework_lets_the_time_of_the_lifespan_pass_as_the_page_shows_it(tmp_path):
    """A program of its own, for that client has a loop in a thread of its own."""
    page = (Path(__file__).parents[1] / "docs" / "testing.md").read_text("utf-8")
    (tmp_path / "test_page.py").write_text("\n".join(re.findall(r"```py(?:thon)?\n(.*?)```", page, re.DOTALL)), "utf-8")
    tests = (sys.executable, "-m", "pytest", "-q", "test_page.py", "-k", "view_asks_for_a_reminder")
    said = subprocess.run(tests, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "1 passed" in said.stdout, said.stdout + said.stderr


async def test_there_is_one_virtual_time_for_a_loop(scheduler, virtual_time):
    async with virtual_time(scheduler) as time:
        with pytest.raises(Conflict, match=r"there is one time for all; use `await time\.join"):
            async with virtual_time(TaskScheduler()):
                pass
        await time.advance("1m")


async def test_tasks_of_the_engine_are_made_by_the_factory_of_the_host_there_too(scheduler, virtual_time):
    loop, made = asyncio.get_running_loop(), []

    def factory(loop, coroutine, **more):
        task = asyncio.Task(coroutine, loop=loop, **more)
        made.append(task)
        return task

    @scheduler.job()
    async def who() -> bool:
        return asyncio.current_task() in made

    loop.set_task_factory(factory)
    try:
        async with virtual_time(scheduler) as time:
            run = await time.until((await who.submit()).wait())
            assert run.result is True
        assert loop.get_task_factory() is factory
    finally:
        loop.set_task_factory(None)


@pytest.mark.parametrize("clock", ["true", "set back", "set forward", "asleep"])
async def test_a_month_of_looks_at_the_clock_that_find_nothing_is_passed_by_and_the_next_look_finds_what_was_done_to_it(
    virtual_time, monkeypatch, lines, clock
):
    looks = []
    look = ClockWatch.look

    def counted(self, *times):
        looks.append(times)
        return look(self, *times)

    monkeypatch.setattr(ClockWatch, "look", counted)
    scheduler = TaskScheduler(options=Options(keep=None))

    @scheduler.every("7d")
    async def weekly() -> None: ...

    async with virtual_time(scheduler) as time:
        await time.advance("30d")
        assert len(await scheduler.runs("weekly")) == 5
        assert len(looks) < 3000, "there is one a minute, 43,200"
        seen = looks[-1][0]
        assert time.now - seen <= timedelta(minutes=1), "as if it had looked each minute"
        del looks[:], lines[:]
        if clock == "asleep":
            await time.suspend("2d")
        elif clock != "true":
            time.step("-2d" if clock == "set back" else "2d")
        await time.advance("1m")
        expected = {"set back": ["clock.set_back"], "true": []}.get(clock, ["clock.gap"])
        assert [line for line in lines if line in ("clock.gap", "clock.set_back")] == expected
