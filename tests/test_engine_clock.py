"""The clock steps, the machine sleeps, the year is wrong: no due instant twice, one bounded catch-up, nothing silent."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from stores import database
from stories import START, failing, fates, nothing, stamp, starts

from taskloop import At, Call, Cron, Every, Options, Retry, RunContext, State, TaskScheduler
from taskloop.clock import microseconds

pytestmark = pytest.mark.anyio


async def dues(time, job):
    """The due instants that have a record, skipped ones too."""
    return [run.due_at for run in await time.runs(job, state=list(State))]


@pytest.mark.parametrize("back", ["1s", "90s", "1h", "1d", "30d"])
async def test_an_interval_counts_elapsed_time_whatever_the_wall_clock_does(scheduler, virtual_time, back):
    scheduler.add_job(nothing, Every("5m"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("2h2m")
        before, elapsed = len(await time.runs("job")), time.clock.monotonic()
        time.step(f"-{back}")
        await time.advance("1h")
        fired = (await time.runs("job"))[before:]
        assert len(fired) == 12
        ends = [(run.started_at - time.now).total_seconds() + time.clock.monotonic() - elapsed for run in fired]
        assert [round(one) for one in ends] == [180 + 300 * number for number in range(12)]
        assert max(Counter(await dues(time, "job")).values()) == 1


@pytest.mark.parametrize("trigger", [Cron("*/5 * * * *"), Every("5m", anchor="2020-01-01T00:00Z")], ids=str)
async def test_what_follows_the_wall_clock_is_silent_where_it_has_fired_and_goes_on_after_that(
    scheduler, virtual_time, trigger
):
    scheduler.add_job(nothing, trigger, name="job", first="after")
    async with virtual_time(scheduler) as time:
        await time.advance("2h2m")
        time.step("-1h")
        await time.advance("58m")
        assert stamp((await time.runs("job"))[-1].due_at) == "02:00"
        await time.advance("10m")
        assert [stamp(run.due_at) for run in (await time.runs("job"))[-2:]] == ["02:05", "02:10"]
        assert max(Counter(await dues(time, "job")).values()) == 1


@pytest.mark.parametrize("trigger", [Cron("0 * * * *"), Every("1h"), Every("1h", anchor="2020-01-01T00:00Z")], ids=str)
@pytest.mark.parametrize("year", [2027, 2038, 9999])
async def test_a_clock_that_was_years_ahead_by_mistake_silences_nothing(scheduler, virtual_time, trigger, year):
    scheduler.add_job(nothing, trigger, name="job")
    ahead = datetime(year, 12, 31, 23, 50, 30, tzinfo=UTC) - START
    async with virtual_time(scheduler) as time:
        await time.advance("2h30m")
        normal = len(await time.runs("job"))
        time.step(ahead - timedelta(hours=2, minutes=30))
        await time.advance("1m")
        assert len(await time.runs("job")) - normal == 1, "one catch-up, however far the clock went"
        time.step(-(ahead - timedelta(hours=2, minutes=30)))
        await time.advance("5h")
        assert len(await time.runs("job")) - normal - 1 in (4, 5)
        assert max(Counter(await dues(time, "job")).values()) == 1


@pytest.mark.parametrize("year", [2027, 9999])
async def test_a_paused_interval_stays_where_it_was_while_the_clock_was_years_ahead(scheduler, virtual_time, year):
    """No clock has moved its cursor: taken back by years it was due for all of them, or led out of all years, and then
    nothing of its worker was fired any more.
    """
    for name, interval in (("held", "1h"), ("other", "10m")):
        scheduler.add_job(nothing, Every(interval), name=name)
    ahead = datetime(year, 12, 31, 23, 0, tzinfo=UTC) - START
    async with virtual_time(scheduler) as time:
        await time.advance("30m")
        await scheduler.pause("held")
        time.step(ahead)
        await time.advance("2m")
        time.step(-ahead)
        await time.advance("58m")
        before = len(await time.runs("other"))
        await time.advance("2h")
        assert len(await time.runs("other")) - before == 12
        await scheduler.resume("held")
        await time.advance("1m")
        assert await fates(time, "held") == ["00:00 succeeded", "01:00 skipped missed x2", "03:00 succeeded"]


@pytest.mark.parametrize("back", ["1h", "2h", "40m"])
async def test_a_fire_that_is_held_as_the_clock_is_set_back_comes_when_the_pause_is_over(scheduler, virtual_time, back):
    """Set back by whole intervals it was due at an instant that had its record, and nothing came of it."""
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("3h30m")
        await scheduler.pause("job")
        await time.advance("55m")
        assert len(await dues(time, "job")) == 4
        time.step(f"-{back}")
        await time.advance("2m")
        await scheduler.resume("job")
        await time.advance("1m")
        runs = await time.runs("job")
        assert len(runs) == 5 and max(Counter(await dues(time, "job")).values()) == 1
        await time.advance("2h")
        assert len(await time.runs("job")) in (6, 7)


async def test_a_stored_schedule_survives_the_year_9999(scheduler, virtual_time):
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler) as time:
        await scheduler.schedule("job", Cron("0 0 * * *"), id="daily")
        ahead = datetime(9999, 12, 31, 23, 50, tzinfo=UTC) - START
        time.step(ahead)
        await time.advance("1m")
        time.step(-ahead)
        await time.advance("3d")
        assert [stamp(run.due_at) for run in (await time.runs("job"))[-2:]] == ["+2d 00:00", "+3d 00:00"]
        assert [one.id for one in await scheduler.schedules()] == ["daily"]


async def test_a_step_is_noticed_within_a_minute(scheduler, virtual_time):
    scheduler.add_job(nothing, Cron("0 12 * * *"), name="noon")
    async with virtual_time(scheduler) as time:
        await time.advance("1h")
        time.step("11h")
        await time.advance("60s")
        assert await fates(time) == ["12:00 succeeded"]


@pytest.mark.parametrize(
    ("missed", "told"),
    [
        ("latest", ["00:00 succeeded", "01:00 skipped missed x4", "05:00 succeeded"]),
        ("skip", ["00:00 succeeded", "01:00 skipped missed x5"]),
        ("all", ["00:00 succeeded", *(f"0{hour}:00 succeeded" for hour in range(1, 6))]),
    ],
)
@pytest.mark.parametrize("how", ["step", "suspend"])
async def test_a_clock_that_went_forward_is_a_missed_period(scheduler, virtual_time, how, missed, told):
    scheduler.add_job(nothing, Every("1h"), name="job", missed=missed)
    async with virtual_time(scheduler) as time:
        await time.advance("10m")
        if how == "step":
            time.step("5h")
        else:
            await time.suspend("5h")
        await time.advance("1m")
        assert await fates(time) == told
        skips = await time.runs("job", "skipped")
        assert all(run.data["down_seconds"] == pytest.approx(5 * 3600, abs=61) for run in skips)


async def test_a_step_is_noticed_though_there_is_never_time_to_sleep(virtual_time):
    """As long as more runs wait than there are slots, each end of one is a reason to look at once."""
    scheduler = TaskScheduler(options=Options(max_running=1))
    scheduler.add_job(nothing, Every("1h"), name="hourly", missed="skip")

    @scheduler.job()
    async def job(number: int) -> None:
        if number == 20:
            time.step("5h")

    async with virtual_time(scheduler) as time:
        await time.advance("30m")
        await scheduler.submit_many([Call(job, {"number": number}) for number in range(100)])
        await time.advance()
        assert await fates(time, "hourly") == ["00:00 succeeded", "01:00 skipped missed x5"]


async def test_a_short_sleep_is_lateness_and_no_missed_period(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("10s"), name="job", missed="skip")
    async with virtual_time(scheduler) as time:
        await time.advance("1s")
        await time.suspend("25s")
        assert (await fates(time))[-1] == "00:00:20 succeeded"


async def test_a_job_that_was_off_in_the_repeated_hour_is_not_asked_again(scheduler, virtual_time):
    scheduler.add_job(nothing, Cron("*/10 * * * *"), name="job")
    async with virtual_time(scheduler) as time:
        await scheduler.disable("job")
        await time.advance("1h1m")
        await scheduler.enable("job")
        time.step("-1h")
        await time.advance("65m")
        assert await fates(time) == ["00:10 skipped disabled x6"]
        await time.advance("5m")
        assert (await fates(time))[-1] == "01:10 succeeded"


async def test_what_was_missed_and_not_lived_through_comes_when_its_time_comes(scheduler, virtual_time):
    scheduler.add_job(nothing, Cron("0 * * * *"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("30m")
        time.step("10h")
        await time.advance("1m")
        assert await fates(time) == ["01:00 skipped missed x9", "10:00 succeeded"]
        time.step("-10h")
        await time.advance("3h")
        assert "03:00 succeeded" in await fates(time)
        assert max(Counter(await dues(time, "job")).values()) == 1


async def test_of_two_workers_that_notice_a_step_one_moves_the_cursors(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/shared.db"
    first, second = (TaskScheduler(options=Options()) for _ in range(2))
    for one in (first, second):
        one.add_job(nothing, Every("1m"), name="job")
    async with virtual_time(first, store=address) as time:
        await time.join(second, address)
        await time.advance("4m10s")
        for _ in range(2):
            before = len(await time.runs("job"))
            time.step("-3m")
            await time.advance("3m")
            assert len(await time.runs("job")) - before == 3
        assert max(Counter(await dues(time, "job")).values()) == 1


async def test_a_clock_that_is_set_right_as_its_worker_stops_silences_no_interval(virtual_time, tmp_path):
    """Its last word is said by the right clock, so nobody else could know that it moved the cursors ahead."""
    address = f"sqlite:///{tmp_path}/shared.db"
    one, two = TaskScheduler(options=Options()), TaskScheduler(options=Options())
    for scheduler in (one, two):
        scheduler.add_job(nothing, Every("1m"), name="job")
    async with virtual_time(one, store=address) as time:
        await time.advance("90s")
        time.step("2h")
        await time.advance("1m")
        stopping = asyncio.ensure_future(one.stop(grace=0))
        time.step("-2h")
        await time.until(stopping)
        before = len(await time.runs("job"))
        await time.join(two, address)
        await time.advance("3m")
        assert len(await time.runs("job")) - before >= 2


async def test_a_clock_that_is_set_right_while_its_worker_stops_silences_no_interval_until_the_stop_is_over(
    virtual_time, tmp_path
):
    """Runs in hand have a grace, and who starts meanwhile fires by the same cursors."""
    address = f"sqlite:///{tmp_path}/shared.db"
    one, two = TaskScheduler(options=Options()), TaskScheduler(options=Options())
    for scheduler in (one, two):
        scheduler.add_job(nothing, Every("5s"), name="job")

    @one.job()
    async def long():
        await asyncio.sleep(3600)

    async with virtual_time(one, store=address) as time:
        handle = await one.submit("long")
        await time.advance("20s")
        time.step("2h")
        await time.advance("20s")
        stopping = asyncio.ensure_future(one.stop(grace="5m"))
        time.step("-2h")
        await time.advance("3s")
        await time.join(two, address)
        before = len(await time.runs("job"))
        await time.advance("1m")
        assert not stopping.done() and (await two.run(handle.id)).state == "running"
        assert len(await time.runs("job")) - before >= 10
        await time.advance("5m")
        await time.until(stopping)


async def test_what_came_due_right_after_a_step_ahead_was_late_but_not_missed(scheduler, virtual_time):
    """Seen a little later than it happened, as every step is: the instant between the two had somebody there."""
    scheduler.add_job(nothing, Every("1m"), name="job", missed="skip")
    async with virtual_time(scheduler) as time:
        await time.advance("30s")
        time.step("1h10s")
        await time.advance("2m")
        assert await fates(time) == [
            "00:00 succeeded",
            "00:01 skipped missed x60",
            "01:01 succeeded",
            "01:02 succeeded",
        ]


async def test_while_another_worker_watches_a_sleeper_misses_nothing(virtual_time, tmp_path):
    """A process that stood still does not call missed what nobody missed."""
    address = f"sqlite:///{tmp_path}/shared.db"
    first, second = (TaskScheduler(options=Options()) for _ in range(2))
    for one in (first, second):
        one.add_job(nothing, Every("1m"), name="job", missed="skip")
    async with virtual_time(first, store=address) as time:
        await time.join(second, address)
        await time.advance("10s")
        first._fires.slept(time.now - timedelta(minutes=5), 300)
        await time.advance("3m")
        assert await fates(time) == [f"00:0{minute} succeeded" for minute in range(4)]


async def test_an_instant_of_an_at_that_has_come_does_not_come_again(scheduler, virtual_time):
    scheduler.add_job(nothing, At("2026-01-01T01:00Z"), name="once")
    async with virtual_time(scheduler) as time:
        await time.advance("1h5m")
        time.step("-1h")
        await time.advance("2h")
        assert await fates(time) == ["01:00 succeeded"]


async def test_a_step_is_on_record(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("1m")
        time.step("-2h")
        await time.advance("1m")
        time.step("3h")
        await time.advance("2m")
        found = await scheduler._store.incidents(START - timedelta(days=1), time.now)
        assert sorted(round(one.data["step_seconds"]) for one in found) == [-7200, 10800]


async def test_retries_and_timeouts_do_not_mind_the_wall_clock(scheduler, virtual_time):
    @scheduler.job(timeout="10m")
    async def long() -> None:
        import asyncio

        await asyncio.sleep(3600)

    async with virtual_time(scheduler) as time:
        run = await long.submit()
        await time.advance("1m")
        time.step("-1d")
        await time.advance("9m")
        assert (await scheduler.run(run.id)).error.type == "Timeout"
        assert await starts(time) == ["00:00"]


# -- a clock that was ahead and is set right while nobody runs


@pytest.mark.parametrize(
    "trigger", [Every("1m"), Every("1m", anchor="2020-01-01T00:00Z"), Cron("* * * * *")], ids=["own", "wall", "cron"]
)
async def test_a_clock_that_is_set_right_while_nobody_runs_silences_no_interval(virtual_time, tmp_path, trigger):
    address = f"sqlite:///{tmp_path}/app.db"
    first, second = TaskScheduler(options=Options()), TaskScheduler(options=Options())
    for one in (first, second):
        one.add_job(nothing, trigger, name="job")
    async with virtual_time(first, at="2026-01-01T00:00:10Z", store=address) as time:
        await time.advance("3m")
        time.step("1h")
        await time.advance("3m")
        await time.crash()
    async with virtual_time(second, at="2026-01-01T00:07:10Z", store=address) as time:
        began = time.now
        await time.advance("5m")
        fired = [run for run in await time.runs("job") if run.started_at >= began and run.started_at <= time.now]
        assert len(fired) in (4, 5, 6)
        assert max(Counter(await dues(time, "job")).values()) == 1


@pytest.mark.parametrize("asked", ["by the clock ahead", "before it went ahead"])
async def test_what_a_clock_that_was_ahead_lets_wait_for_a_retry_waits_no_longer_once_it_is_right(
    virtual_time, tmp_path, asked
):
    """Of what had been asked for before only its attempt says that: it waited for a month."""
    address = f"sqlite:///{tmp_path}/app.db"
    first, second = TaskScheduler(options=Options()), TaskScheduler(options=Options())

    async def flaky(run: RunContext):
        if run.attempt == 1:
            await asyncio.sleep(60)
            raise ValueError

    for one in (first, second):
        one.add_job(nothing, Every("1m"), name="job")
        one.add_job(flaky, retry=Retry(2, first="5m"))
    async with virtual_time(first, at="2026-01-01T00:00:10Z", store=address) as time:
        if asked == "by the clock ahead":
            time.step("30d")
            await time.advance("1m")
        run = await first.submit("flaky")
        await time.advance("30s")
        if asked != "by the clock ahead":
            time.step("30d")
        await time.advance("1m")
        assert (await first.run(run.id)).state is State.WAITING
        await time.crash()
    async with virtual_time(second, at="2026-01-01T00:07:10Z", store=address) as time:
        await time.advance("2m")
        assert (await second.run(run.id)).state is State.SUCCEEDED


async def test_a_breaker_that_opened_by_a_clock_that_was_ahead_is_open_for_its_time_and_no_longer(
    virtual_time, tmp_path
):
    """The job was off for as long as the clock had been ahead: a month, or years."""
    address = f"sqlite:///{tmp_path}/app.db"
    first, second = TaskScheduler(options=Options()), TaskScheduler(options=Options())
    for one in (first, second):
        one.add_job(failing(2), Every("1m"), name="job", pause_after=2, trial_after="10m")
    async with virtual_time(first, at="2026-01-01T00:00:10Z", store=address) as time:
        time.step("30d")
        await time.advance("3m")
        await time.crash()
    async with virtual_time(second, at="2026-01-01T00:07:10Z", store=address) as time:
        before = len(await time.runs("job"))
        await time.advance("9m")
        assert len(await time.runs("job")) == before
        await time.advance("2m")
        assert len(await time.runs("job")) > before


async def test_a_clock_that_was_ahead_is_noticed_by_those_that_outlive_its_worker(virtual_time, tmp_path):
    scheduler = TaskScheduler(options=Options())
    scheduler.add_job(nothing, Every("1m"), name="job")
    scheduler.add_job(nothing, Every("1m"), name="tripped", pause_after=2, trial_after="2m")
    async with virtual_time(scheduler, store=f"sqlite:///{tmp_path}/app.db") as time:
        await time.advance("90s")
        before = len(await time.runs("job"))
        with database(tmp_path / "app.db") as db:  # as a process that goes on would write it
            ahead = microseconds(time.now) + 600_000_000
            switch = ("tripped", "tripped", ahead, ahead + 120_000_000)
            db.execute("INSERT INTO taskloop_switches (kind, job, since, until) VALUES (?, ?, ?, ?)", switch)
        await time.advance("2s")
        with database(tmp_path / "app.db") as db:  # as a process that has ended would leave them
            db.execute("UPDATE taskloop_schedules SET next_due = next_due + 600000000, last_due = last_due + 600000000")
            db.execute("CREATE TEMP TABLE one AS SELECT * FROM taskloop_workers")
            db.execute("UPDATE one SET id = 'gone', pid = 4194999, beat_at = beat_at + 600000000")
            db.execute("INSERT INTO taskloop_workers SELECT * FROM one")
        await time.advance("70s")
        assert len(await time.runs("job")) > before
        tried = len(await time.runs("tripped"))
        await time.advance("3m")
        assert len(await time.runs("tripped")) > tried
