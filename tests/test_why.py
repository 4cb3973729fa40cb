"""Why did it run, why did it not: each link of the chain broken once, in the engine, and explained from the record."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from stores import shared as shared
from stories import START, failing, lasting, nothing, stubborn

from taskloop import Cron, Every, Options, Retry, TaskScheduler
from taskloop.durations import rfc3339
from taskloop.errors import BadValue, NoSuchJob, NoSuchRun
from taskloop.explaining import lost_by, waits_for
from taskloop.runs import RunId
from taskloop.store_data import Incident
from taskloop.why import explanation_record

pytestmark = pytest.mark.anyio


def at(text):
    """`01:30` on the first day, `+2d 01:30`."""
    days, _, clock = text.rpartition(" ")
    hour, minute = clock.split(":")
    return START + timedelta(days=int(days.strip("+d") or 0), hours=int(hour), minutes=float(minute))


async def told(scheduler, job="job", when=None, run=None):
    found = await scheduler.why(job if run is None else None, at(when) if isinstance(when, str) else when, run)
    return found.verdict, found.code, found.text


def broken(found):
    return [one.name for one in found.checks if one.ok is False]


# -- it ran


async def test_it_ran_on_time(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("90m")
        found = await scheduler.why("job", at("01:00"))
        assert (found.verdict, found.code, found.evidence) == ("ran", "ran", "full")
        assert found.text == "run 2, of its schedule, began at 2026-01-01T01:00:00Z; succeeded after 0s"
        assert [one.name for one in found.checks] == [
            "timetable", "switch", "pause", "worker", "clock", "loop", "lateness", "overlap", "group", "store"
        ]  # fmt: skip
        assert broken(found) == [] and found.previous.id == 1
        assert found.next is None and found.next_due == at("02:00")


async def test_it_is_running_for_so_long_and_usually_takes_so_long(scheduler, virtual_time):
    async def job(seconds: int = 60) -> None:
        await asyncio.sleep(seconds)

    scheduler.add_job(job, name="job")
    async with virtual_time(scheduler) as time:
        await time.until((await scheduler.submit("job")).wait())
        run = await scheduler.submit("job", {"seconds": 7200}, actor="ann")
        await time.advance("1h")
        found = await scheduler.why("job")
        assert (found.verdict, found.run.id) == ("running", run.id)
        assert found.text == f"run {run.id}, asked for by ann, began at 2026-01-01T00:01:00Z; it is running"
        [usual] = [one for one in found.checks if one.name == "usual"]
        assert usual.ok is False and usual.text == "running for 1h; usually it takes 1m, p95 1m"


async def test_it_ran_late_because_the_loop_was_held_by_another_job(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job", first="after")
    async with virtual_time(scheduler) as time:
        await time.advance("59m50s")
        await time.suspend("20s")
        block = {"ms": 9500, "where": "shop/img.py:88 resize", "job": "resize", "run": 7}
        await scheduler._store.note([Incident("w", "loop_blocked", at("00:59.9"), at("01:00.1"), block)])
        found = await scheduler.why("job", at("01:00"))
        assert (found.verdict, found.code) == ("ran", "ran_late")
        assert "10s late because loop: stood still for 9500 ms" in found.text
        assert "held by job 'resize', run 7 at shop/img.py:88 resize" in found.text


async def test_a_run_that_was_called_twice_says_so(scheduler, virtual_time):
    scheduler.add_job(failing(1), name="job", retry=Retry(2, first="1m"))
    async with virtual_time(scheduler) as time:
        run = await time.until((await scheduler.submit("job", key="k1")).wait())
        again = await time.until((await scheduler.rerun(run.id)).wait())
        found = await scheduler.why(run=run.id)
        assert {one.name: one.text for one in found.checks if one.name in ("calls", "key")} == {
            "calls": "called 2 times, 2 are allowed: an attempt failed or was lost before",
            "key": "key 'k1': asked again with it, the same run is given",
        }
        [one] = [one for one in (await scheduler.why(run=again.id)).checks if one.name == "rerun"]
        assert one.text == f"asked for again, like run {run.id}"


async def test_a_failed_run_ran_and_its_error_is_told(scheduler, virtual_time):
    scheduler.add_job(failing(9), Every("1h"), name="job")
    async with virtual_time(scheduler):
        assert (await told(scheduler, when="00:00")) == (
            "ran", "ran", "run 1, of its schedule, began at 2026-01-01T00:00:00Z; failed after 0s: OSError: no luck"
        )  # fmt: skip


async def test_what_a_dead_worker_left_is_told(scheduler, virtual_time):
    scheduler.add_job(lasting(3600), Every("1d"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("5m")
        await time.crash()
        await time.restart(after="5m")
        verdict, _, text = await told(scheduler, when="00:00")
        assert verdict == "ran" and text.endswith("interrupted after 10m (worker_died)")


async def test_a_run_whose_worker_is_gone_is_not_said_to_be_running(scheduler, virtual_time):
    """It was, as long as no other worker had settled it."""
    scheduler.add_job(lasting(3600), Every("1d"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("5m")
        assert (await told(scheduler, when="00:00"))[::2] == (
            "running", "run 1, of its schedule, began at 2026-01-01T00:00:00Z; it is running"
        )  # fmt: skip
        await time.crash()
        await time.advance("1m")
        found = await scheduler.why("job", at("00:00"))
        assert (found.verdict, found.code) == ("running", "process_down")
        assert "; it is on record as running, but worker " in found.text
        assert found.text.endswith(") was last seen at 2026-01-01T00:05:00Z")
        assert found.remedies[0].startswith("keep a worker running")
        run = await scheduler.run(1)
        assert found.text.endswith(f"on record as running, but {await lost_by(scheduler, run)}")
        await time.restart(after="5m")
        assert await lost_by(scheduler, run) == "", "it is settled since it was read"


async def test_a_run_that_was_cancelled_before_it_began_did_not_run(scheduler, virtual_time):
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler):
        run = await scheduler.submit("job", at="+1h", actor="ann")
        await scheduler.cancel(run.id, reason="not needed", actor="bob")
        assert await told(scheduler, run=run.id) == (
            "did_not_run", "cancelled", f"run {run.id}, asked for by ann, never began; cancelled by bob (not needed)"
        )  # fmt: skip


async def test_a_run_whose_attempt_was_lost_says_how_and_whose_it_was(scheduler, virtual_time):
    events = []
    scheduler.add_job(lasting(3600), name="job", retry=2)
    scheduler.name = "east"
    async with virtual_time(scheduler) as time:
        scheduler.feed.subscribe(events.append, "recovered", "retrying")
        run = await scheduler.submit("job")
        await time.advance("5m")
        await time.crash()
        await time.restart(after="5m")
        await time.advance("5m")
        [calls] = [one.text for one in (await scheduler.why(run=run.id)).checks if one.name == "calls"]
        assert calls == "called 2 times, 2 are allowed: an attempt was lost (worker_died) before"
        whose = {"worker": "east", "host": os.uname().nodename}
        assert [(one.name, one.data, one.run.data["lost"]) for one in events] == [
            ("recovered", whose, "worker_died"), ("retrying", whose, "worker_died")
        ]  # fmt: skip


# -- it was not due


async def test_a_wrong_weekday_names_the_field(scheduler, virtual_time):
    scheduler.add_job(nothing, Cron("30 9 * * mon-fri", timezone="Europe/Berlin"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("5d")
        found = await scheduler.why("job", "2026-01-03T09:30:00+01:00")
        assert (found.verdict, found.code) == ("not_due", "not_due")
        assert "day-of-week Saturday 3 does not match" in found.text
        assert (
            "the fire before was due at 2026-01-02T08:30:00Z, the fire after is due at 2026-01-05T08:30:00Z"
            in found.text
        )
        assert found.remedies[0] == "taskloop show job lists its next fires"


@pytest.mark.parametrize(
    ("expression", "when", "fields"),
    [
        ("0 2 * * *", "2026-01-01T03:15Z", "minute 15 does not match, hour 3 does not match"),
        ("0 2 * feb *", "2026-01-01T02:00Z", "month January does not match"),
        ("0 2 5 * *", "2026-01-01T02:00Z", "day-of-month Thursday 1 does not match"),
        ("0 2 5 * mon", "2026-01-01T02:00Z", "day-of-month and day-of-week Thursday 1 does not match"),
        ("30 0 2 * * *", "2026-01-01T02:00:31Z", "second 31 does not match"),
    ],
)
async def test_every_field_that_does_not_match_is_named(scheduler, virtual_time, expression, when, fields):
    scheduler.add_job(nothing, Cron(expression), name="job")
    async with virtual_time(scheduler, at="2025-01-01T00:00Z"):
        assert fields in (await scheduler.why("job", when)).text


async def test_a_time_that_the_clocks_repeat_is_explained(scheduler, virtual_time):
    scheduler.add_job(nothing, Cron("30 1 * * *", timezone="Europe/London"), name="job")
    async with virtual_time(scheduler, at="2026-10-24T00:00Z") as time:
        await time.advance("3d")
        assert (await told(scheduler, when=datetime.fromisoformat("2026-10-25T01:30:00+01:00")))[0] == "ran"
        second = await scheduler.why("job", "2026-10-25T01:30:00+00:00")
        assert second.verdict == "not_due" and "a change of the clock moved or skipped this time" in second.text


async def test_between_two_instants_of_an_interval_nothing_was_due(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("3h")
        verdict, _, text = await told(scheduler, when="01:17")
        assert (
            verdict == "not_due"
            and "the fire before was due at 2026-01-01T01:00:00Z, the fire after is due at 2026-01-01T02:00:00Z" in text
        )


async def test_before_it_was_first_seen_a_schedule_was_not_there(scheduler, virtual_time):
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("3h")
        await scheduler.schedule("job", Every("1h"), id="hourly")
        found = await scheduler.why("job", at("02:00"))
        assert (found.verdict, found.code) == ("not_due", "not_registered_yet")
        assert "first seen at 2026-01-01T03:00:00Z" in found.text


async def test_before_the_store_was_begun_nothing_is_on_record(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler):
        found = await scheduler.why("job", START - timedelta(hours=5))
        assert (found.verdict, found.code, found.evidence) == ("unknown", "not_on_record", "partial")
        assert found.text == "the store was begun at 2026-01-01T00:00:00Z, after that"


async def test_a_job_without_a_schedule_runs_when_asked_for(scheduler, virtual_time):
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler):
        assert (await told(scheduler, when="01:00"))[1:] == (
            "not_due",
            "no schedule of it was due then; it runs when asked for",
        )
        assert (await told(scheduler))[1:] == ("not_due", "no schedule of it fires; it runs when asked for")


async def test_a_job_with_a_trigger_that_no_scheduler_was_started_with_is_not_said_to_run_when_asked_for():
    scheduler = TaskScheduler(":memory:")
    scheduler.add_job(nothing, Every("1h"), name="job")
    now, then = [await scheduler.why("job", instant) for instant in (None, START)]
    await scheduler.close()
    for found in (now, then):
        assert (found.verdict, found.code, broken(found)) == ("not_due", "not_registered_yet", ["timetable"])
        assert "a scheduler that has the job puts it there when it is started" in found.text
    assert now.remedies[0] == "taskloop run, or await scheduler.start()"


async def test_before_its_first_fire_a_job_will_run(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job", first="after")
    async with virtual_time(scheduler):
        assert await told(scheduler) == (
            "will_run",
            "will_run",
            "nothing was due yet; it will be due at 2026-01-01T01:00:00Z",
        )
        assert await told(scheduler, when="05:00") == ("will_run", "will_run", "it will be due at 2026-01-01T05:00:00Z")
        await scheduler.pause("job", actor="ann")
        verdict, code, text = await told(scheduler, when="05:00")
        assert (verdict, code) == ("will_run", "paused") and "but the job was paused" in text
        assert (await scheduler.why("job", at("05:00"))).remedies == ("taskloop resume job",)


async def test_the_past_is_asked_of_the_schedule_as_it_was_then(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/app.db"
    before, after = TaskScheduler(options=Options()), TaskScheduler(options=Options())
    before.add_job(nothing, Every("2m"), name="job")
    after.add_job(nothing, Every("2h"), name="job")
    async with virtual_time(before, store=address) as time:
        await time.advance("5m")
    async with virtual_time(after, at="2026-01-01T05:30Z", store=address) as time:
        await time.advance("1m")
        assert (await told(after, when="00:02"))[0] == "ran"
        assert "every 2 minutes" in (await told(after, when="00:03"))[2]
        assert "every 2 hours" in (await told(after, when="05:35"))[2]


async def test_a_schedule_that_was_removed_is_still_known(scheduler, virtual_time):
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler) as time:
        await scheduler.schedule("job", Every("1h"), id="hourly")
        await time.advance("90m")
        await scheduler.unschedule("hourly")
        await time.advance("3h")
        assert (await told(scheduler, when="01:00"))[0] == "ran"
        assert "schedule 'hourly' is every hour" in (await told(scheduler, when="01:15"))[2]
        assert (await told(scheduler, when="03:00"))[1] == "not_due"


# -- it was skipped


async def test_an_overlap_names_the_run_in_the_way_and_its_age(scheduler, virtual_time):
    scheduler.add_job(lasting(5400), Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("2h")
        found = await scheduler.why("job", at("01:00"))
        assert (found.verdict, found.code) == ("did_not_run", "overlap") and broken(found) == ["overlap"]
        assert found.text == (
            "it was due at 2026-01-01T01:00:00Z and was skipped (overlap): run 1 was running, for 1h by then"
        )
        assert any("timeout" in one for one in found.remedies)
        assert dict(found.checks[7].data)["run"] == 1


async def test_a_queued_fire_that_gave_way_is_superseded(scheduler, virtual_time):
    scheduler.add_job(lasting(9000), Every("1h"), name="job", overlap="replace")
    async with virtual_time(scheduler) as time:
        await time.advance("61m")
        found = await scheduler.why("job", at("00:00"))
        assert found.run.reason == "superseded" and found.verdict == "ran"


async def test_a_job_that_was_off_names_who_switched_it_off_and_why(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("30m")
        await scheduler.disable("job", actor="tom", reason="db migration")
        await time.advance("5h")
        assert (await scheduler.why("job", at("03:00"))).remedies == ("taskloop enable job",)
        await scheduler.enable("job", actor="eve")
        found = await scheduler.why("job", at("03:00"))
        assert (found.verdict, found.code, found.at) == ("did_not_run", "disabled", at("03:00"))
        assert 'switched off since 2026-01-01T00:30:00Z by tom: "db migration"' in found.text
        assert "on again at 2026-01-01T05:30:00Z by eve" in found.text
        assert "one of 5 from 2026-01-01T01:00:00Z to 2026-01-01T05:00:00Z" in found.text
        assert found.remedies == ()  # it is on again: there is nothing left to do
        [skip] = await time.runs("job", "skipped")
        assert skip.data["disabled_by"] == "tom"


async def test_a_job_that_is_off_again_by_now_is_told_how_to_enable_it(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("30m")
        await scheduler.disable("job", reason="one")
        await time.advance("1h")
        await scheduler.enable("job")
        await time.advance("5m")
        await scheduler.disable("job", reason="two")
        found = await scheduler.why("job")
        assert "on again at 2026-01-01T01:30:00Z" in found.text and found.remedies == ("taskloop enable job",)


@pytest.mark.parametrize("enabled", [True, False])
async def test_a_job_that_stays_off_as_its_switch_ends_is_not_told_to_be_on_again(scheduler, virtual_time, enabled):
    scheduler.add_job(nothing, Every("1h"), name="job", enabled=enabled)
    async with virtual_time(scheduler) as time:
        await time.advance("30m")
        await scheduler.disable("job", reason="one")
        await time.advance("1h")
        await (scheduler.disable("job", reason="two") if enabled else scheduler.reset("job"))
        await time.advance("5m")
        found = await scheduler.why("job", at("01:00"))
        assert "that ended at 2026-01-01T01:30:00Z, and it stayed off" in found.text
        assert found.remedies == ("taskloop enable job",)


async def test_a_job_that_a_second_switch_kept_off_is_not_told_to_have_been_on_in_between(shared, virtual_time):
    """It was, once that second one was over too: what began after the fire was not looked at."""
    scheduler = TaskScheduler(options=Options())
    scheduler.add_job(nothing, Every("1m"), name="job")
    async with virtual_time(scheduler, store=shared.url) as time:
        await time.advance("30s")
        await scheduler.disable("job", reason="one")
        await time.advance("5m")
        await scheduler.disable("job", reason="two")
        await time.advance("1m")
        await scheduler.enable("job")
        await time.advance("1m")
        found = await scheduler.why("job", at("00:01"))
        assert 'since 2026-01-01T00:00:30Z: "one"; that ended at 2026-01-01T00:05:30Z, and it stayed off' in found.text
        assert found.remedies == ()
        assert "on again at 2026-01-01T00:06:30Z" in (await told(scheduler, when="00:06"))[2]


async def test_a_job_declared_off_is_off_by_its_declaration(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job", enabled=False)
    async with virtual_time(scheduler) as time:
        await time.advance("2h")
        assert (await told(scheduler, when="01:00"))[2].endswith("off by its declaration")


async def test_what_was_due_after_a_switch_was_over_by_itself_is_off_as_declared_and_not_by_that_switch(
    scheduler, virtual_time
):
    """One row counted both: an operator had the job on, off for two hours, and then it was off as the code has it."""
    scheduler.add_job(nothing, Every("1h"), name="job", enabled=False)
    async with virtual_time(scheduler) as time:
        await scheduler.enable("job")
        await time.advance("90m")
        await scheduler.disable("job", actor="tom", reason="move", until="+2h")
        await time.advance("5h")
        assert 'switched off since 2026-01-01T01:30:00Z by tom: "move"' in (await told(scheduler, when="02:00"))[2]
        assert (await told(scheduler, when="05:00"))[2].endswith("off by its declaration")


async def test_a_job_that_was_declared_off_and_is_on_by_now_is_not_told_how_to_enable_it(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job", enabled=False)
    async with virtual_time(scheduler) as time:
        await time.advance("90m")
        assert (await scheduler.why("job", at("01:00"))).remedies == ("taskloop enable job",)
        await scheduler.enable("job")
        assert (await scheduler.why("job", at("01:00"))).remedies == ()


async def test_what_was_due_before_its_job_was_switched_off_and_was_decided_after_names_that_switch(
    shared, virtual_time
):
    """It was told without who switched it on again, and to enable a job that was on."""
    scheduler = TaskScheduler(options=Options())
    scheduler.add_job(nothing, Every("1h"), name="job", first="after")
    async with virtual_time(scheduler, store=shared.url) as time:
        await time.advance("30m")
        await time.until(scheduler.stop())
        await scheduler.disable("job", reason="one")
        await time.advance("45m")  # it is due at 01:00, and nobody is there
        await scheduler.enable("job")
        await scheduler.disable("job", actor="tom", reason="two")
        await time.advance("15m")
        await time.start()
        await time.advance("5m")
        assert (await scheduler.why("job", at("01:00"))).remedies == ("taskloop enable job",)
        await scheduler.enable("job", actor="eve")
        found = await scheduler.why("job", at("01:00"))
        assert found.text == (
            "it was due at 2026-01-01T01:00:00Z and was skipped (disabled): it was decided at 2026-01-01T01:30:00Z; switched "
            'off since 2026-01-01T01:15:00Z by tom: "two"; on again at 2026-01-01T01:35:00Z by eve'
        )
        assert found.remedies == ()


async def test_what_ran_late_tells_why_though_by_a_clock_that_was_set_back_since_its_instant_is_to_come(
    scheduler, virtual_time
):
    """It was asked who lives now, and nothing on record told why."""
    scheduler.add_job(nothing, Every("1h"), name="job", first="after")
    async with virtual_time(scheduler) as time:
        await time.advance("30m")
        await time.restart(after="45m")
        time.step("-70m")
        await time.advance("2m")
        found = await scheduler.why("job", at("01:00"))
        assert (found.verdict, found.code) == ("ran", "ran_late") and broken(found) == ["worker", "lateness"]
        assert "no worker lived" in found.text and "the next one started at 2026-01-01T01:15:00Z" in found.text


async def test_what_was_due_while_nothing_ran_before_the_first_record_of_its_job_was_not_deleted(
    virtual_time, tmp_path
):
    """A deploy with another trigger left it undecided: that its record was not kept was the answer."""
    before, after = TaskScheduler(options=Options()), TaskScheduler(options=Options())
    before.add_job(nothing, Cron("0 * * * *"), name="job")
    after.add_job(nothing, Cron("30 * * * *"), name="job")
    address = f"sqlite:///{tmp_path}/app.db"
    async with virtual_time(before, at="2026-01-01T00:10Z", store=address) as time:
        await time.advance("5m")
    async with virtual_time(after, at="2026-01-01T02:10Z", store=address) as time:
        await time.advance("1h")
        found = await after.why("job", at("01:00"))
        assert (found.verdict, found.code) == ("did_not_run", "process_down")
        assert "has no record: no worker lived" in found.text
        assert found.text.endswith("; its schedule was changed or removed at 2026-01-01T02:10:00Z")


async def test_what_still_waits_for_a_worker_that_has_its_job_says_so_whoever_was_there_as_it_came_due(
    virtual_time, tmp_path
):
    """It said that no worker lived, and to keep one running, which by now one did."""
    address = f"sqlite:///{tmp_path}/app.db"
    before, after = TaskScheduler(options=Options()), TaskScheduler(options=Options())
    before.add_job(nothing, Every("10m"), name="job")
    after.add_job(nothing, name="other")
    async with virtual_time(before, store=address) as time:
        await time.advance("5m")
    async with virtual_time(after, at="2026-01-01T00:12Z", store=address) as time:
        found = await after.why("job")
        assert (found.verdict, found.code) == ("did_not_run", "unknown_job") and "does not know this job" in found.text


async def test_a_run_that_waits_behind_another_is_not_told_to_queue(scheduler, virtual_time):
    scheduler.add_job(lasting(7200), Every("1h"), name="job", overlap="queue")
    async with virtual_time(scheduler) as time:
        await time.advance("61m")
        found = await scheduler.why("job")
        assert (found.verdict, found.code) == ("waiting", "overlap")
        assert found.remedies == ("give job a timeout below its interval", 'overlap = "allow" runs it beside the other')


async def test_a_breaker_that_was_open_is_named_with_its_failures(scheduler, virtual_time):
    scheduler.add_job(failing(99), Every("10m"), name="job", pause_after=2, trial_after="1h")
    async with virtual_time(scheduler) as time:
        await time.advance("75m")
        text = (await told(scheduler, when="00:30"))[2]
        assert "its circuit breaker was open" in text and "2 failures in a row" in text
        assert (await told(scheduler, when="01:10"))[0] == "ran"


async def test_a_pause_that_held_a_fire_is_named_and_how_it_was_settled(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("30m")
        await scheduler.pause(actor="eve", reason="a move")
        await time.advance("3h")
        found = await scheduler.why("job")
        assert (found.verdict, found.code) == ("did_not_run", "paused")
        assert 'all jobs were paused since 2026-01-01T00:30:00Z by eve: "a move": its fires are held' in found.text
        assert found.remedies == ("taskloop resume ends the pause of all jobs",)
        await scheduler.resume(missed="skip", actor="eve")
        await time.advance("1m")
        found = await scheduler.why("job", at("02:00"))
        assert (found.code, found.run.data["paused_by"]) == ("paused", "eve")
        assert "resumed at 2026-01-01T03:30:00Z by eve, and then settled by missed=skip" in found.text
        assert found.remedies == ()
        await scheduler.pause("job", actor="eve", until="+1h")
        await time.advance("2h")  # that it ends by itself is on record nowhere else
        found = await scheduler.why("job", at("04:00"))
        assert "paused since 2026-01-01T03:31:00Z by eve until 2026-01-01T04:31:00Z, and then settled by" in found.text
        assert "resume" not in "".join(found.remedies)


async def test_a_fire_of_a_job_that_is_both_off_and_paused_is_held_and_not_told_as_dropped(scheduler, virtual_time):
    """It was told to be switched off, with nothing but `enable` as the mend: it would have stayed held."""
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("30m")
        await scheduler.pause("job", actor="eve")
        await scheduler.disable("job", reason="a move")
        await time.advance("2h")
        found = await scheduler.why("job")
        assert (found.verdict, found.code) == ("did_not_run", "paused")
        assert "by eve: its fires are held, and skipped if the job is still off then: switched off since" in found.text
        assert found.remedies == ("taskloop resume job", "taskloop enable job")
        await scheduler.enable("job")
        await scheduler.resume("job", missed="all")
        await time.advance("1m")
        assert [run.due_at for run in await time.runs("job", "succeeded")] == [at("00:00"), at("01:00"), at("02:00")]


async def test_of_two_pauses_the_one_that_ended_last_is_named_and_of_those_in_force_how_each_ends(
    scheduler, virtual_time
):
    """The newest was named, and how that was settled; and `resume` of the job, which leaves that of all jobs in force."""
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("10m")
        await scheduler.pause(actor="ann", reason="a move")
        await scheduler.pause("job", actor="bob")
        run = await scheduler.submit("job")
        found = await scheduler.why(run=run.id)
        assert 'all jobs are paused since 2026-01-01T00:10:00Z by ann: "a move", and it is paused itself' in found.text
        both = ("taskloop resume ends the pause of all jobs", "taskloop resume job")
        assert found.remedies == (await scheduler.why("job", at("01:00"))).remedies == both
        await time.advance("1h")
        await scheduler.resume("job", missed="latest")
        assert (await scheduler.why("job", at("01:00"))).remedies == both[:1]
        await scheduler.resume(missed="skip")
        await time.advance("1m")
        text = (await told(scheduler, when="01:00"))[2]
        assert "all jobs were paused" in text and "and then settled by missed=skip" in text


async def test_of_a_job_that_ran_last_it_is_said_what_keeps_its_next_fire_from_running(scheduler, virtual_time):
    """It ran, and that was all: who asks why of a job that was switched off since wants to know of that."""
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("10m")
        ran = "run 1, of its schedule, began at 2026-01-01T00:00:00Z; succeeded after 0s"
        assert (await told(scheduler))[2] == ran
        await scheduler.disable("job", actor="ann", reason="a move", until="+2h")
        found = await scheduler.why("job")
        assert (found.verdict, found.code, found.remedies) == ("ran", "ran", ("taskloop enable job",))
        off = 'switched off since 2026-01-01T00:10:00Z by ann: "a move", until 2026-01-01T02:10:00Z'
        assert found.text == f"{ran}; it will be due at 2026-01-01T01:00:00Z, but {off}"
        assert broken(found) == ["next"]
        assert (await told(scheduler, when="00:00"))[2] == ran, "an instant that is asked of is answered by itself"
        await scheduler.disable("job", until="+5m")
        assert (await told(scheduler))[2] == ran, "that ends before it is due"
        await scheduler.enable("job")
        await scheduler.pause("job")
        await scheduler.pause()
        assert (await scheduler.why("job")).remedies == (
            "taskloop resume job",
            "taskloop resume ends the pause of all jobs",
        )


async def test_a_run_that_waited_for_its_place_and_then_through_a_pause_is_late_because_of_the_pause(
    scheduler, virtual_time
):
    scheduler.add_job(lasting(90), name="other", group="db")
    scheduler.add_job(nothing, Every("1h"), name="job", first="after", group="db")
    async with virtual_time(scheduler) as time:
        await time.advance("59m")
        await scheduler.submit("other")
        await time.advance("70s")
        await scheduler.pause("job", actor="ann", reason="migration")
        await time.advance("10m")
        await scheduler.resume("job", actor="bob")
        await time.advance("1m")
        found = await scheduler.why("job", at("01:00"))
        assert (found.verdict, found.code) == ("ran", "ran_late")
        assert "because pause: the job was paused since 2026-01-01T01:00:10Z by ann: " in found.text
        assert "resumed at 2026-01-01T01:10:10Z by bob, and it waited for that" in found.text


async def test_what_came_due_while_a_worker_gave_its_runs_their_grace_is_late_because_of_its_stop(
    scheduler, virtual_time
):
    """As in a deploy on the hour: nothing on record said why, for at the hour a worker lived."""
    scheduler.add_job(lasting(3600), name="long")
    scheduler.add_job(nothing, Cron("0 * * * *"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("59m")
        await scheduler.submit("long")
        await time.advance("50s")
        await time.restart(after="10s")
        await time.advance("1s")
        found = await scheduler.why("job", at("01:00"))
        assert (found.verdict, found.code) == ("ran", "ran_late") and "because worker: none fired it: " in found.text
        assert "stopped at 2026-01-01T01:00:20Z, the next one started at 2026-01-01T01:00:30Z" in found.text
        await scheduler.pause("job")
        await time.advance("1h")
        await time.restart(after="1m")
        await scheduler.resume("job", missed="latest")
        await time.advance("1s")
        found = await scheduler.why("job", at("02:00"))
        assert found.code == "ran_late" and "pause" in broken(found) and "worker" not in broken(found)


async def test_down_time_names_the_gap_and_the_worker_before_it(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job", missed="skip")
    async with virtual_time(scheduler) as time:
        await time.advance("30m")
        await time.restart(after="5h")
        found = await scheduler.why("job", at("02:00"))
        assert (found.verdict, found.code) == ("did_not_run", "process_down") and "worker" in broken(found)
        assert "stopped at 2026-01-01T00:30:00Z, the next one started at 2026-01-01T05:30:00Z" in found.text
        assert found.run.data["down_seconds"] == 5 * 3600
        worker = next(one for one in found.checks if one.name == "worker")
        assert worker.data["down_seconds"] == 5 * 3600


async def test_a_crash_is_told_from_a_stop(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job", missed="skip")
    async with virtual_time(scheduler) as time:
        await time.advance("30m")
        await time.crash()
        await time.restart(after="5h")
        assert "died without a word, last seen at 2026-01-01T00:30:00Z" in (await told(scheduler, when="02:00"))[2]


async def test_what_was_caught_up_ran_late_because_nobody_was_there(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("30m")
        await time.restart(after="2h")
        verdict, code, text = await told(scheduler, when="02:00")
        assert (verdict, code) == ("ran", "ran_late")
        assert "making up for what was missed" in text and "30m late because worker: no worker lived" in text


async def test_a_fire_too_late_names_the_limit_and_what_made_it_late(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job", max_late="10m", first="after")
    async with virtual_time(scheduler) as time:
        await time.advance("30m")
        await time.restart(after="45m")
        found = await scheduler.why("job", at("01:00"))
        assert (found.verdict, found.run.reason) == ("did_not_run", "too_late")
        assert found.code == "process_down" and "lateness" in broken(found)


async def test_a_full_group_names_how_long_there_was_no_place(scheduler, virtual_time):
    scheduler.add_job(lasting(3600), name="long", group="db")
    scheduler.add_job(nothing, Every("1h"), name="job", group="db", max_late="10m", first="after")
    async with virtual_time(scheduler) as time:
        await time.advance("55m")
        await scheduler.submit("long")
        await time.advance("20m")
        found = await scheduler.why("job", at("01:00"))
        assert (found.verdict, found.code) == ("did_not_run", "group_full")
        assert "group 'db' had no place when it had waited for 10m" in found.text


async def test_a_machine_that_slept_is_named(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job", missed="skip", first="after")
    async with virtual_time(scheduler) as time:
        await time.advance("30m")
        await time.suspend("45m")
        await time.advance("1m")
        found = await scheduler.why("job", at("01:00"))
        assert (found.verdict, found.code) == ("did_not_run", "clock_jump")
        assert "the clock went forward by 44m" in found.text, "but for the minute that it would have slept anyway"
        assert found.text.endswith(": it was set, or the machine slept")
        assert [("sleeps" in one, "NTP" in one) for one in found.remedies] == [(True, False), (False, True)]


# -- it has no record


async def test_a_fire_that_is_due_now_is_about_to_begin(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job", first="after")
    async with virtual_time(scheduler) as time:
        await time.advance("30m")
        time.step("30m")
        assert (await told(scheduler))[:2] == ("waiting", "due_now")


async def test_what_a_clock_that_was_set_just_now_made_due_is_not_said_to_be_unexplained(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job", first="after")
    async with virtual_time(scheduler) as time:
        await time.advance("30m")
        time.step("45m")
        found = await scheduler.why("job", at("01:00"))
        assert (found.verdict, found.code) == ("waiting", "due_now") and "is noticed within a minute" in found.text
        await time.advance("1m")
        assert (await told(scheduler, when="01:00"))[1] == "ran_late"


async def test_a_store_that_is_away_is_the_reason(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job", first="after")
    async with virtual_time(scheduler) as time:
        await time.advance("30m")
        time.step("31m")
        scheduler._store_watch.lost(OSError("disk full"))
        found = await scheduler.why("job", at("01:00"))
        assert (found.verdict, found.code) == ("did_not_run", "store_unavailable") and "disk full" in found.text
        scheduler._store_watch.well()


async def test_an_outage_of_the_store_in_the_past_is_named(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job", first="after")
    async with virtual_time(scheduler) as time:
        await time.advance("59m50s")
        await time.suspend("20s")
        await scheduler._store.note([Incident("w", "store", at("00:59"), at("01:00.2"), {"error": "locked"})])
        assert "because store: was away for 1m12s" in (await told(scheduler, when="01:00"))[2]


@pytest.mark.parametrize(
    ("kind", "code"), [("frozen", "frozen"), ("stalled", "stalled"), ("loop_blocked", "loop_blocked")]
)
async def test_other_disturbances_are_named_too(scheduler, virtual_time, kind, code):
    scheduler.add_job(nothing, Every("1h"), name="job", first="after")
    async with virtual_time(scheduler) as time:
        await time.advance("30m")
        time.step("31m")
        await scheduler._store.note(
            [Incident("w", kind, at("00:59"), at("01:00.5"), {"ms": 90_000, "where": "a.py:1 f"})]
        )
        found = await scheduler.why("job", at("01:00"))
        assert (found.verdict, found.code) == ("did_not_run", code)


async def test_a_loop_that_stands_still_right_now_is_told(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job", first="after")
    async with virtual_time(scheduler) as time:
        await time.advance("30m")
        time.step("31m")
        scheduler._guard.health = lambda: {"blocked": {"ms": 5000, "where": "a.py:1 f", "task": "web"}}
        verdict, code, text = await told(scheduler, when="01:00")
        assert (verdict, code) == ("did_not_run", "loop_blocked") and "held by web at a.py:1 f" in text


async def test_records_that_are_pruned_cannot_be_explained_and_that_is_said(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("5d")
        await scheduler._store.prune(timedelta(days=1), now=time.now, limit=1000)
        found = await scheduler.why("job", at("02:00"))
        assert (found.verdict, found.code, found.evidence) == ("unknown", "unknown_pruned", "partial")


async def test_what_no_link_explains_is_admitted(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("3h30m")
        await scheduler._store._do(lambda db: db.execute("DELETE FROM taskloop_runs WHERE id = 2"))
        found = await scheduler.why("job", at("01:00"))
        assert (found.verdict, found.code) == ("unknown", "unexplained") and "report it" in found.remedies[0]


# -- it still waits


async def waits(scheduler, run):
    found = await scheduler.why(run=run.id)
    assert found.verdict == "waiting", found.text
    return found.code


async def test_each_reason_to_wait_is_told(virtual_time):
    scheduler = TaskScheduler(options=Options(max_running=3))
    scheduler.add_job(lasting(7200), name="long", group="db")
    scheduler.add_job(nothing, name="grouped", group="db")
    scheduler.add_job(lasting(3600), name="limited", max_running=1)
    scheduler.add_job(
        lasting(3600), Every("30m", anchor="2026-01-01T00:00Z"), name="queued", overlap="queue", first="after"
    )
    scheduler.add_job(failing(1), name="retried", retry=Retry(2, first="1h"))
    scheduler.add_job(nothing, name="plain")
    async with virtual_time(scheduler) as time:
        await scheduler.submit("long")
        grouped = await scheduler.submit("grouped")
        await time.advance("1m")
        assert await waits(scheduler, grouped) == "group"
        assert "group 'db' is held by run 1 of 'long'" in (await scheduler.why(run=grouped.id)).text
        await scheduler.submit("limited")
        limited = await scheduler.submit("limited")
        retried = await scheduler.submit("retried")
        await time.advance("1m")
        assert await waits(scheduler, limited) == "max_running"
        assert await waits(scheduler, retried) == "retry_wait"
        assert "after OSError: no luck" in (await scheduler.why(run=retried.id)).text
        assert await waits(scheduler, await scheduler.submit("plain", at="+2h")) == "later"
        await time.advance("58m30s")
        await time.advance("2m")
        [queued] = await time.runs("queued", "waiting")
        assert await waits(scheduler, queued) == "overlap"
        await scheduler.submit("limited")
        await scheduler.submit_many([scheduler["long"].bind() for _ in range(3)])
        await time.advance("1s")
        full = await scheduler.submit("plain")
        await time.advance("6s")
        assert await waits(scheduler, full) == "slots"
        await scheduler.pause("plain", actor="ann")
        assert await waits(scheduler, full) == "paused"
        assert "paused since" in (await scheduler.why(run=full.id)).text


async def test_a_retry_that_waits_for_a_slot_does_not_say_that_it_waits_for_the_place_its_first_attempt_waited_for(
    virtual_time,
):
    scheduler = TaskScheduler(options=Options(max_running=1))
    scheduler.add_job(lasting(60), name="holder", group="db")
    scheduler.add_job(failing(1), name="retried", group="db", retry=Retry(2, first="1m"))
    scheduler.add_job(lasting(3600), name="long")
    async with virtual_time(scheduler) as time:
        await scheduler.submit("holder")
        retried = await scheduler.submit("retried")
        await time.advance("90s")
        await scheduler.submit("long")
        await time.advance("1m")
        assert await waits(scheduler, retried) == "slots"
        assert all(one.ok for one in (await scheduler.why(run=retried.id)).checks if one.name == "group")


async def test_a_run_that_waits_for_a_worker_says_so(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/app.db"
    asking, working = TaskScheduler(options=Options(enabled=False)), TaskScheduler(options=Options())
    asking.add_job(nothing, name="job")
    working.add_job(nothing, name="other")
    async with virtual_time(asking, store=address, start=False) as time:
        run = await asking.submit("job")
        assert await waits(asking, run) == "process_down"
        await time.join(working, address)
        assert await waits(asking, run) == "unknown_job"


async def test_a_fire_that_waited_in_vain_for_a_worker_that_has_its_job_says_so(scheduler, virtual_time):
    """It said that a worker lived, which was so as it came due."""
    scheduler.add_job(lasting(3 * 3600), name="other", group="one")
    scheduler.add_job(nothing, Every("1h"), name="job", first="after", group="one")
    async with virtual_time(scheduler) as time:
        await scheduler.submit("other")
        await time.advance("70m")
        await time.until(scheduler.stop())
        scheduler.remove_job("job")
        await time.restart()
        await time.advance("30h")
        [run] = [one for one in await scheduler.runs(state="skipped") if one.job == "job"]
        found = await scheduler.why(run=run.id)
        assert (found.verdict, found.code) == ("did_not_run", "unknown_job")
        assert f"it waited until {rfc3339(run.ended_at)}, and no worker that lived then had the job" in found.text
        assert [one.name for one in found.checks if one.ok is False] == ["worker"]


async def test_a_run_whose_workers_all_fire_nothing_is_not_about_to_start(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/app.db"
    asking, working = TaskScheduler(options=Options(enabled=False)), TaskScheduler(options=Options())
    for one in (asking, working):
        one.add_job(nothing, name="job")
    async with virtual_time(asking, store=address) as time:
        run = await asking.submit("job")
        found = await asking.why(run=run.id)
        assert (found.verdict, found.code) == ("waiting", "unknown_job") and "fire nothing" in found.text
        assert "enabled = false" in found.remedies[0]
        await time.join(working, address)
        assert (await asking.run(run.id)).state == "succeeded"


async def test_a_run_that_began_since_it_was_read_waits_for_nothing(scheduler, virtual_time):
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler) as time:
        run = await scheduler.run((await scheduler.submit("job", at="+1m")).id)
        assert await waits_for(scheduler, run) == "it may begin at 2026-01-01T00:01:00Z, as it was asked for"
        await time.advance("2m")
        assert await waits_for(scheduler, run) == ""
        gone = replace(run, id=RunId(99))
        assert await waits_for(scheduler, gone) == "", "removed by the retention meanwhile"


async def test_while_its_worker_stops_a_run_is_not_about_to_start_and_a_fire_is_not_unexplained(
    scheduler, virtual_time
):
    """A stop may wait long for what runs; it was said to start any moment, and of the fire that it should be reported."""
    scheduler.add_job(lasting(3600), name="long")
    scheduler.add_job(nothing, Every("10m"), name="job")
    async with virtual_time(scheduler) as time:
        await scheduler.submit("long")
        await time.advance("9m50s")
        stop = asyncio.create_task(scheduler.stop(grace="1h"))
        await time.advance("1s")
        run = await scheduler.submit("job")
        found = await scheduler.why(run=run.id)
        assert (found.verdict, found.code) == ("waiting", "process_down") and "are stopping" in found.text
        await time.advance("1m")
        found = await scheduler.why("job", at("00:10"))
        assert (found.verdict, found.code) == ("did_not_run", "process_down")
        assert found.text.endswith("is stopping: it fires and starts nothing any more")
        await time.until(stop)


async def test_a_run_that_may_start_any_moment_says_so_and_what_holds_it_up(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/app.db"
    asking, working = TaskScheduler(options=Options(enabled=False)), TaskScheduler(options=Options())
    for one in (asking, working):
        one.add_job(nothing, name="job")
    async with virtual_time(asking, store=address) as time:
        await time.join(working, address)
        run = await asking.submit("job")
        assert await waits(asking, run) == "due_now"
        await asking._store.note([Incident("w", "loop_blocked", time.now, time.now, {"ms": 9000, "where": "a.py:1 f"})])
        assert await waits(asking, run) == "loop_blocked"


# -- questions


async def test_a_run_is_asked_by_its_number_and_what_is_not_there_is_refused(scheduler, virtual_time):
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler):
        with pytest.raises(NoSuchRun):
            await scheduler.why(run=99)
        with pytest.raises(NoSuchJob, match="did you mean 'job'"):
            await scheduler.why("jbo")
        with pytest.raises(BadValue, match="a job or a run"):
            await scheduler.why()


async def test_an_instant_written_to_the_minute_means_the_minute(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler, at="2026-01-01T00:00:37Z") as time:
        await time.advance("2h")
        assert (await told(scheduler, when="01:00"))[0] == "ran"
        assert (await told(scheduler, when=START + timedelta(hours=1, seconds=20)))[0] == "not_due"
        assert (await scheduler.why("job", "1h")).verdict == "ran"


async def test_the_same_question_has_the_same_answer(scheduler, virtual_time):
    scheduler.add_job(lasting(5400), Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("2h1m")
        first = explanation_record(await scheduler.why("job", at("01:00")))
        await time.advance("10h")
        again = explanation_record(await scheduler.why("job", at("01:00")))
        assert {**first, "next": None, "checks": None} == {**again, "next": None, "checks": None}
        assert set(first) == {
            "verdict", "code", "text", "at", "checks", "remedies", "run", "previous", "next", "evidence"
        }  # fmt: skip
        assert set(first["checks"][0]) == {"name", "ok", "text", "data"}


async def test_a_program_that_has_not_the_job_can_explain_it(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/app.db"
    working, looking = TaskScheduler(options=Options()), TaskScheduler(options=Options())
    working.add_job(nothing, Every("2m"), name="job", spread="1m")
    async with virtual_time(working, store=address) as time:
        await time.advance("5m")
        await time.join(looking, address, start=False)
        due = (await time.runs("job"))[-1].due_at
        assert (await looking.why("job", due)).verdict == "ran"


async def test_a_stubborn_job_that_was_abandoned_is_told(scheduler, virtual_time):
    hangs = stubborn()
    scheduler.add_job(hangs, name="job", timeout="1m")
    async with virtual_time(scheduler) as time:
        run = await scheduler.submit("job")
        await time.advance("2m")
        assert "Timeout" in (await told(scheduler, run=run.id))[2]
        hangs.enough = True
        await time.advance("2s")


async def test_a_run_of_a_program_that_never_started_waits_for_a_worker_though_nobody_told_of_its_job(tmp_path):
    asking, looking = (TaskScheduler(str(tmp_path / "a.db"), options=Options()) for _ in range(2))
    asking.add_job(nothing, name="job")
    try:
        run = await asking.submit("job")
        found = await looking.why(run=run.id)
        assert (found.verdict, found.code) == ("waiting", "process_down") and "no worker runs" in found.text
        with pytest.raises(NoSuchJob):
            await looking.why("job")
    finally:
        await looking.close()
        await asking.close()
