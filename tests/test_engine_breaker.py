"""The circuit breaker: failures in a row switch a job off, one run is tried after a while, and then on again or off."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from stories import START, failing, fates, lasting, nothing, stamp

from taskloop import Every, Options, TaskScheduler
from taskloop.errors import Conflict
from taskloop.store_sqlite import SqliteStore

pytestmark = pytest.mark.anyio


async def condition(scheduler, name="job"):
    return next(one.condition for one in await scheduler.jobs() if one.name == name)


async def test_a_job_that_may_fail_never_is_off_after_a_failure(scheduler, virtual_time):
    scheduler.add_job(failing(100), Every("10m"), name="job", pause_after=1)
    async with virtual_time(scheduler) as time:
        await time.advance("10m")
        assert await fates(time) == ["00:00 failed", "00:10 skipped disabled"]
        [record] = await scheduler.jobs("job")
        assert record.switch.reason == "a failure, in run 1: OSError: no luck"


async def test_so_many_failures_in_a_row_switch_a_job_off_with_the_reason(scheduler, virtual_time):
    scheduler.add_job(failing(100), Every("10m"), name="job", pause_after=3, trial_after="1h")
    async with virtual_time(scheduler) as time:
        await time.advance("59m")
        assert await fates(time) == [
            "00:00 failed", "00:10 failed", "00:20 failed", "00:30 skipped disabled x3"
        ]  # fmt: skip
        [record] = [one for one in await scheduler.jobs() if one.name == "job"]
        assert (record.condition, record.enabled, record.switch.actor) == ("disabled", False, "taskloop")
        assert record.switch.reason == "3 failures in a row, the last in run 3: OSError: no luck"
        assert stamp(record.switch.until) == "01:20"
        [skip] = await time.runs("job", "skipped")
        assert skip.data["disabled_by"] == "taskloop" and "3 failures in a row" in skip.data["disabled_reason"]
        assert "tripped" in [one["condition"] for one in (await scheduler.status()).attention]
        with pytest.raises(Conflict, match="by taskloop"):
            await scheduler.submit("job")


async def test_after_a_while_one_run_is_tried_and_if_it_fails_the_job_is_off_again(scheduler, virtual_time):
    scheduler.add_job(failing(4), Every("10m"), name="job", pause_after=3, trial_after="1h")
    async with virtual_time(scheduler) as time:
        await time.advance("3h5m")
        assert await fates(time) == [
            "00:00 failed", "00:10 failed", "00:20 failed", "00:30 skipped disabled x5",
            "01:20 failed", "01:30 skipped disabled x5",
            "02:20 succeeded", "02:30 succeeded", "02:40 succeeded", "02:50 succeeded", "03:00 succeeded",
        ]  # fmt: skip
        assert await condition(scheduler) == "ok"


async def test_a_run_that_was_asked_for_at_a_later_time_keeps_no_trial_from_being_made(scheduler, virtual_time):
    job = scheduler.add_job(failing(3), Every("10m"), name="job", pause_after=3, trial_after="1h")
    async with virtual_time(scheduler) as time:
        await job.bind().submit(at=timedelta(days=30))
        await time.advance("85m")
        assert "01:20 succeeded" in await fates(time)
        assert await condition(scheduler) == "ok"


async def test_each_time_the_breaker_opens_and_closes_is_told(scheduler, virtual_time):
    scheduler.add_job(failing(4), Every("10m"), name="job", pause_after=3, trial_after="1h")
    scheduler.add_job(failing(9), Every("10m"), name="other")
    told = []
    scheduler.on("disabled", "enabled")(told.append)
    async with virtual_time(scheduler) as time:
        await time.advance("3h5m")
    first = "3 failures in a row, the last in run"
    assert [(one.name, stamp(one.at), one.job, one.data["actor"]) for one in told] == [
        ("disabled", "00:20", "job", "taskloop"), ("disabled", "01:20", "job", "taskloop"),
        ("enabled", "02:20", "job", "taskloop"),
    ]  # fmt: skip
    assert told[0].data["reason"].startswith(first) and "the trial failed too" in told[1].data["reason"]
    assert told[2].data["reason"].endswith("succeeded")


async def test_while_the_trial_runs_no_other_fire_gets_through(scheduler, virtual_time):
    calls = []

    async def job():
        calls.append(1)
        if len(calls) <= 2:
            raise OSError("no luck")
        await asyncio.sleep(600)

    scheduler.add_job(job, Every("1m"), name="job", pause_after=2, trial_after="10m", overlap="allow")
    async with virtual_time(scheduler) as time:
        await scheduler.schedule("job", Every("1m", anchor="2026-01-01T00:00:30Z"), id="other")
        await time.advance("21m")
        trial, after = (await time.runs("job"))[2:4]
        assert (stamp(trial.started_at), stamp(trial.ended_at)) == ("00:10:30", "00:20:30")
        assert after.started_at >= trial.ended_at
        [skip] = [run for run in await time.runs("job", "skipped") if run.due_at > trial.due_at]
        assert skip.data["trial"] == trial.id


async def test_a_success_between_the_failures_keeps_it_on(scheduler, virtual_time):
    outcomes = iter([False, False, True, False, False, True, False])

    async def job():
        if not next(outcomes):
            raise OSError("no luck")

    scheduler.add_job(job, Every("10m"), name="job", pause_after=3)
    async with virtual_time(scheduler) as time:
        await time.advance("1h")
        assert [run.state for run in await time.runs("job")].count("failed") == 5
        assert await condition(scheduler) == "failing"


async def test_who_switches_it_on_by_hand_starts_the_count_anew(scheduler, virtual_time):
    scheduler.add_job(failing(100), Every("10m"), name="job", pause_after=2, trial_after="1d")
    async with virtual_time(scheduler) as time:
        await time.advance("15m")
        assert await condition(scheduler) == "disabled"
        await scheduler.enable("job", actor="ann", reason="mended")
        await time.advance("10m")
        assert await condition(scheduler) == "failing"
        await time.advance("10m")
        assert await condition(scheduler) == "disabled"


async def test_a_reset_gives_back_to_the_declaration_too(scheduler, virtual_time):
    scheduler.add_job(failing(100), Every("10m"), name="job", pause_after=2, trial_after="1d")
    async with virtual_time(scheduler) as time:
        await time.advance("15m")
        await scheduler.reset("job")
        assert (await scheduler.jobs())[0].enabled


@pytest.mark.parametrize("after", ["15m", "80m"])  # it is off; it is on trial, and no run has been made yet
async def test_a_reset_of_what_the_breaker_has_off_is_told(scheduler, virtual_time, after):
    scheduler.add_job(failing(100), name="job", pause_after=1, trial_after="1h")
    told = []
    scheduler.on("disabled", "enabled")(told.append)
    async with virtual_time(scheduler) as time:
        await scheduler.submit("job")
        await time.advance(after)
        await scheduler.reset("job", actor="ann")
        await time.advance(0)
    assert [(one.name, one.data["actor"]) for one in told] == [("disabled", "taskloop"), ("enabled", "ann")]


async def test_retries_are_one_failure_and_a_stop_is_none(scheduler, virtual_time):
    scheduler.add_job(failing(100), Every("1h"), name="job", pause_after=2, retry=3)
    scheduler.add_job(lasting(3600), Every("1h"), name="long", pause_after=1)
    async with virtual_time(scheduler) as time:
        await time.advance("30m")
        assert await condition(scheduler) == "failing"
        await time.restart()
        assert await condition(scheduler, "long") == "failing"
        await time.advance("1h")
        assert await condition(scheduler) == "disabled"
        assert await condition(scheduler, "long") != "disabled"


async def test_a_worker_that_dies_with_every_run_is_a_failure_of_the_job(scheduler, virtual_time):
    scheduler.add_job(lasting(600), Every("1h"), name="job", pause_after=2, trial_after="1w")
    async with virtual_time(scheduler) as time:
        for _ in range(2):
            await time.advance("1m")
            await time.crash()
            await time.restart(after="1h")
        assert await condition(scheduler) == "disabled"


async def test_a_run_asked_for_after_the_pause_is_a_trial_as_well(scheduler, virtual_time):
    scheduler.add_job(failing(2), name="job", pause_after=2, trial_after="1h")
    async with virtual_time(scheduler) as time:
        for _ in range(2):
            await time.until((await scheduler.submit("job")).wait())
        with pytest.raises(Conflict):
            await scheduler.submit("job")
        await time.advance("1h")
        run = await time.until((await scheduler.submit("job")).wait())
        assert run.state == "succeeded"
        assert not [one for one in await scheduler._store.switches() if one.ended_at is None]


async def test_the_breaker_survives_a_restart_and_holds_for_every_worker(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/shared.db"
    first, second = (TaskScheduler(options=Options()) for _ in range(2))
    for one in (first, second):
        one.add_job(failing(100), Every("1m"), name="job", pause_after=2, trial_after="2h")
    async with virtual_time(first, store=address) as time:
        await time.join(second, address)
        await time.advance("3m")
        await time.restart(after="1m")
        await time.advance("2m")
        assert [one.split()[1] for one in await fates(time)] == ["failed", "failed", "skipped"]


async def test_a_late_end_of_a_run_from_before_does_not_lengthen_the_pause(scheduler, virtual_time):
    async def job(seconds: int = 0) -> None:
        await asyncio.sleep(seconds)
        raise OSError("no luck")

    scheduler.add_job(job, name="job", pause_after=2, trial_after="1h")
    async with virtual_time(scheduler) as time:
        await scheduler.submit("job", {"seconds": 600})
        for _ in range(2):
            await time.until((await scheduler.submit("job")).wait())
        await time.advance("11m")
        [tripped] = await scheduler._store.switches()
        assert tripped.until - START == timedelta(hours=1)


async def test_a_job_without_a_breaker_fails_for_ever(scheduler, virtual_time):
    scheduler.add_job(failing(100), Every("10m"), name="job")
    scheduler.add_job(nothing, Every("10m"), name="well", pause_after=1)
    async with virtual_time(scheduler) as time:
        await time.advance("5h")
        assert await condition(scheduler) == "failing" and await condition(scheduler, "well") == "ok"


class Looked(SqliteStore):
    """A store that counts how often its switches are read, and gives what it read when `gate` lets it."""

    looks, gate = 0, None

    async def switches(self):
        self.looks += 1
        found = await super().switches()
        if self.gate is not None:
            await self.gate.wait()
        return found


async def test_a_run_that_succeeds_looks_at_no_breaker_that_is_closed(virtual_time, tmp_path):
    """It cost as much again as the run itself."""
    scheduler, store = TaskScheduler(options=Options()), Looked(tmp_path / "a.db")
    scheduler.add_job(nothing, Every("1m"), name="job", pause_after=3)
    async with virtual_time(scheduler, store=store) as time:
        await time.advance("1s")
        before = store.looks
        await time.advance("1h")
        assert len(await time.runs("job")) == 61
        assert store.looks == before


async def test_a_success_that_closes_the_breaker_while_it_is_still_read_as_open_is_heeded(virtual_time, tmp_path):
    scheduler, store = TaskScheduler(options=Options()), Looked(tmp_path / "a.db")
    ends = {}

    async def ending(how: str) -> None:
        await ends[how].wait()
        if how == "badly":
            raise OSError("no luck")

    scheduler.add_job(ending, name="job", pause_after=1, trial_after="1d")
    async with virtual_time(scheduler, store=store) as time:
        for how in ("badly", "well"):
            ends[how] = asyncio.Event()
            await scheduler.submit("job", {"how": how})
        await time.advance("1s")
        store.gate = asyncio.Event()
        ends["badly"].set()
        await time.advance("1s")
        ends["well"].set()
        await time.advance("1s")
        gate, store.gate = store.gate, None
        gate.set()
        await time.advance("1s")
        assert [switch.ended_because for switch in scheduler._switches] == []
        assert await condition(scheduler) == "ok"
