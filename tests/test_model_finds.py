"""What the model test found, each reduced to a story."""

from __future__ import annotations

from datetime import timedelta

import pytest
from stories import START, failing, fates, lasting, nothing

from taskloop import Cron, Every, Options, Retry, State, TaskScheduler

pytestmark = pytest.mark.anyio


async def test_a_retry_waits_no_longer_because_the_clock_was_set_back(scheduler, virtual_time):
    scheduler.add_job(failing(1), name="job", retry=Retry(2, first="5m"))
    async with virtual_time(scheduler) as time:
        await scheduler.submit("job")
        await time.advance("1m")
        time.step("-1d")
        await time.advance("10m")
        assert [run.state for run in await time.runs()] == [State.SUCCEEDED]


async def test_what_waits_for_its_place_waits_no_longer_because_the_clock_was_set_back(scheduler, virtual_time):
    scheduler.add_job(lasting(600), name="long", group="one")
    scheduler.add_job(nothing, Every("1h"), name="short", group="one")
    async with virtual_time(scheduler) as time:
        await scheduler.submit("long")
        await time.advance("1m")
        time.step("-1d")
        await time.advance("30m")
        assert [run.state for run in await time.runs()] == [State.SUCCEEDED] * 2


async def test_an_instant_in_the_minute_before_a_step_back_is_noticed_is_not_lost(scheduler, virtual_time):
    scheduler.add_job(nothing, Cron("0 1 * * *"), name="nightly")
    async with virtual_time(scheduler, at="2027-01-01T00:00Z") as time:
        await time.advance("30s")
        time.clock.step(START + timedelta(minutes=59, seconds=40) - time.now)
        await time.advance("1h")
        assert await fates(time) == ["01:00 succeeded"]


async def test_a_cron_first_seen_in_a_wrong_year_is_not_silent_until_then_after_a_restart(scheduler, virtual_time):
    scheduler.add_job(nothing, Cron("0 * * * *"), name="hourly")
    async with virtual_time(scheduler, at="2027-01-01T00:10Z") as time:
        await time.advance("10m")
        time.step("365d")
        await time.advance("1m")
        time.clock.step(START + timedelta(minutes=30) - time.now)
        await time.advance("1h")
        assert (await fates(time))[0] == "01:00 succeeded"
        await time.restart(after="1m")
        await time.advance("1h")
        assert (await fates(time))[1] == "02:00 succeeded"


async def test_the_row_of_disabled_fires_does_not_grow_backwards(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job", first="after")
    async with virtual_time(scheduler) as time:
        await scheduler.disable("job")
        await time.advance("3h30m")
        time.step("-3h")
        await time.advance("1h")
        rows = await time.runs(state="skipped")
        assert sum(one.count for one in rows) == 4
        assert max(one.until_at or one.due_at for one in rows) == START + timedelta(hours=3)


async def test_on_trial_a_row_of_disabled_fires_does_not_grow_over_other_rows(scheduler, virtual_time):
    scheduler.add_job(
        failing(99), Every("1m"), name="job", missed="all", missed_limit=2, pause_after=3, trial_after="10m"
    )
    async with virtual_time(scheduler) as time:
        await time.advance("4m")
        assert await fates(time) == [*(f"00:0{n} failed" for n in range(3)), "00:03 skipped disabled x2"]
        await time.suspend("10m")
        rows = await time.runs(state="skipped")
        for row in rows:
            assert row.count == ((row.until_at or row.due_at) - row.due_at) / timedelta(minutes=1) + 1


async def test_an_interval_moved_onto_an_instant_with_a_record_loses_no_fire(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1m"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("1m10s")
        time.step("-60s")
        await time.advance("51s")
        assert len(await time.runs()) == 3  # at 0, 1 and 2 minutes of elapsed time


async def test_resume_settles_the_held_fires_as_it_says_though_the_clock_was_set_back(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("10m")
        await scheduler.pause("job")
        await time.advance("10m")
        time.step("-5h")
        await time.advance("50m")
        await scheduler.resume("job", missed="skip")
        await time.advance("1m")
        assert [run.state for run in await time.runs()] == [State.SUCCEEDED]


@pytest.mark.parametrize("trigger", [Every("1h"), Cron("0 * * * *")], ids=str)
async def test_a_clock_that_was_set_back_while_nobody_ran_silences_nothing(scheduler, virtual_time, trigger):
    scheduler.add_job(nothing, trigger, name="job")
    async with virtual_time(scheduler, at="2027-01-01T00:10Z") as time:
        await time.advance("2h")
        await time.until(scheduler.stop())
        time.step("365d")
        time.clock.step(START - time.now)
        before = len(await time.runs())
        await time.start()
        await time.advance("3h")
        assert len(await time.runs()) - before in (3, 4)


async def a_past_with_a_hole(scheduler, time, back):
    """Each hour up to 3:00 and 6:00 ran, 4:00 and 5:00 were missed; then the clock is set back and later right again."""
    scheduler.add_job(nothing, Cron("0 * * * *"), name="job")
    async with time:
        await time.advance("3h30m")
        for step in ("3h", back, "5h"):
            time.step(step)
            await time.advance("2m")
        return await time.runs(state=list(State))


async def test_a_counted_skip_counts_nothing_that_has_its_record(scheduler, virtual_time):
    rows = await a_past_with_a_hole(scheduler, virtual_time(scheduler), back="-2h")
    ran = [row.due_at for row in rows if row.state is State.SUCCEEDED]
    assert [row for row in rows if row.until_at and any(row.due_at <= at <= row.until_at for at in ran)] == []


async def test_a_counted_skip_whose_first_instant_has_a_record_is_not_lost_with_all_that_it_counts(
    scheduler, virtual_time
):
    rows = await a_past_with_a_hole(scheduler, virtual_time(scheduler), back="-2h50m")
    spans = [(row.due_at, row.until_at or row.due_at) for row in rows]
    for hour in range(1, 9):
        at = START + timedelta(hours=hour)
        assert any(first <= at <= last for first, last in spans), f"{at} has no record"


async def test_a_breaker_counts_failures_though_the_clock_was_set_back(scheduler, virtual_time):
    scheduler.add_job(failing(99), Every("1h"), name="job", pause_after=3, trial_after="1d")
    async with virtual_time(scheduler) as time:
        await time.advance("10m")
        await scheduler.enable("job")
        time.step("-5h")
        await time.advance("5h")
        assert {run.reason for run in await time.runs(state="skipped")} == {"disabled"}


async def test_what_a_stop_gave_back_waits_no_longer_because_the_clock_was_set_back(scheduler, virtual_time):
    scheduler.add_job(lasting(600), name="job", retry=Retry(2))
    async with virtual_time(scheduler) as time:
        run = await scheduler.submit("job")
        await time.advance("1m")
        await time.until(scheduler.stop(grace=0))
        assert (await scheduler.run(run.id)).state is State.WAITING
        await scheduler.pause("job")
        await time.start()
        time.step("-30d")
        await time.advance("2m")
        await scheduler.resume("job")
        await time.advance("11m")
        assert (await scheduler.run(run.id)).state is State.SUCCEEDED
