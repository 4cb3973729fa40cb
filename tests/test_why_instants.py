"""Why at an instant: which record holds it, what was due then and what was not, and what nobody can know any more."""

from __future__ import annotations

import random
from datetime import datetime, timedelta

import pytest
from stores import shared as shared
from stories import START, failing, lasting, nothing

from taskloop import At, Cron, Every, Options, State, TaskScheduler, durations
from taskloop.explaining import window

pytestmark = pytest.mark.anyio

HOUR = timedelta(hours=1)


def at(day, clock="00:00"):
    """`01:30` on a day of January 2026."""
    return datetime.fromisoformat(f"2026-01-{day:02}T{clock}:00+00:00")


async def told(scheduler, when=None, job="job"):
    found = await scheduler.why(job, when)
    return found.verdict, found.code, found.evidence


def link(found, name):
    return next((one for one in found.checks if one.name == name), None)


async def prune(scheduler, time, days):
    after = None
    while True:
        step = await scheduler._store.prune(timedelta(days=days), now=time.now, after=after)
        if (after := step.after) is None:
            return


# -- within what a record counts


async def test_the_last_second_that_can_be_said_is_answered_as_any(scheduler, virtual_time):
    last = datetime.max.replace(microsecond=0, tzinfo=START.tzinfo)
    scheduler.add_job(nothing, Every("1h"), name="hourly")
    scheduler.add_job(nothing, Cron("0 3 * * *"), name="nightly")
    scheduler.add_job(nothing, Cron("0 3 * * *", timezone="Europe/Berlin"), name="ahead")
    job = scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler):
        for name in ("hourly", "nightly", "ahead", "job"):
            assert (await scheduler.why(name, at=last)).code == "not_due"
        run = await job.bind().submit(at=last)
        assert (await scheduler.why(run=run.id)).verdict == "waiting"


async def test_what_an_interval_named_before_the_clock_was_set_back_is_asked_of_it_as_it_stood(shared, virtual_time):
    """Its grid goes back with the clock: an instant of the new one, before that, was said to be due and unexplained."""
    scheduler = TaskScheduler(options=Options())
    scheduler.add_job(nothing, Every("1m"), name="job")
    async with virtual_time(scheduler, store=shared.url) as time:
        await time.advance("150s")
        time.step("-20s")
        await time.advance("150s")
        found = await scheduler.why("job", START + timedelta(seconds=100))
        assert (found.verdict, found.code, found.evidence) == ("not_due", "not_due", "full")
        assert found.text.endswith("is every minute, the fire before was due at 2026-01-01T00:01:00Z")
        told_at = [(await told(scheduler, START + timedelta(seconds=one)))[0] for one in (120, 160, 179, 220)]
        assert told_at == ["ran", "ran", "not_due", "ran"]


@pytest.mark.parametrize("code", ["disabled", "process_down"])
async def test_within_what_a_record_counts_only_what_was_due_is_answered_by_it(virtual_time, code):
    scheduler = TaskScheduler(options=Options())
    scheduler.add_job(nothing, Cron("0 2 * * *"), name="job", missed="skip")
    async with virtual_time(scheduler) as time:
        await time.advance("12h")
        if code == "disabled":
            await scheduler.disable("job", actor="ann")
            await time.advance("20d")
        else:
            await time.restart(after="20d")
            await time.advance("1m")
        due = await scheduler.why("job", at(15, "02:00"))
        assert (due.verdict, due.code, due.at) == ("did_not_run", code, at(15, "02:00"))
        assert "one of 20 from 2026-01-02T02:00:00Z to 2026-01-21T02:00:00Z" in due.text
        between = await scheduler.why("job", at(15, "14:37"))
        assert (between.verdict, between.code) == ("not_due", "not_due")
        assert (
            "the fire before was due at 2026-01-15T02:00:00Z, the fire after is due at 2026-01-16T02:00:00Z"
            in between.text
        )


async def test_the_newest_of_what_a_record_counts_is_told_without_an_instant(scheduler, virtual_time):
    scheduler.add_job(nothing, Cron("0 2 * * *"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("12h")
        await scheduler.disable("job", actor="ann")
        await time.advance("5d")
        await scheduler.enable("job")
        await scheduler.disable("job", actor="bob")
        await time.advance("5d")
        found = await scheduler.why("job")
        assert (found.at, found.code) == (at(11, "02:00"), "disabled") and "by bob" in found.text
        assert "by ann" in (await scheduler.why("job", at(3, "02:00"))).text


async def test_what_a_record_counts_is_asked_of_the_schedule_that_counted_it(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/app.db"
    before, after = TaskScheduler(options=Options()), TaskScheduler(options=Options())
    before.add_job(nothing, Cron("0 2 * * *"), name="job")
    after.add_job(nothing, Cron("0 5 * * *"), name="job", missed="skip")
    async with virtual_time(before, at="2026-01-01T01:59Z", store=address) as time:
        await time.advance("2m")
    async with virtual_time(after, at="2026-01-11T12:00Z", store=address) as time:
        await time.advance("1m")
        assert await told(after, at(6, "05:00")) == ("did_not_run", "process_down", "full")
        assert (await told(after, at(6, "02:00")))[:2] == ("did_not_run", "process_down"), "as it stood then"


async def test_an_instant_with_a_record_of_its_own_is_answered_by_that(scheduler, virtual_time):
    scheduler.add_job(lasting(25), Every("10s"), name="job", first="aligned")
    async with virtual_time(scheduler) as time:
        await time.advance("3m")
        for second in range(0, 60, 10):
            when = START + timedelta(minutes=1, seconds=second)
            found = await scheduler.why("job", when)
            assert found.at == when and found.run.due_at == when


# -- without an instant


async def test_the_facts_are_those_around_what_was_decided_last_however_long_ago(scheduler, virtual_time):
    scheduler.add_job(nothing, Cron("0 2 1 * *"), name="job")
    async with virtual_time(scheduler) as time:
        await scheduler.pause("job", actor="ann", reason="db")
        await time.advance("5h")
        await scheduler.resume("job", missed="skip")
        for _ in range(3):
            await time.advance("2d")
            await time.restart(after="1h")
        found = await scheduler.why("job")
        assert (found.code, found.evidence) == ("paused", "full") and 'by ann: "db"' in found.text
        assert [one.name for one in found.checks if one.ok is False] == ["pause"]


async def test_of_several_schedules_the_one_decided_last_is_told(scheduler, virtual_time):
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler) as time:
        await scheduler.schedule("job", Cron("0 1 * * *"), id="a")
        await scheduler.schedule("job", Every("1h"), id="b")
        await time.advance("15h30m")
        found = await scheduler.why("job")
        assert (found.at, found.run.schedule) == (at(1, "15:00"), "b")


async def test_a_one_off_in_the_past_was_decided_last_though_it_was_due_before(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("3h30m")
        await scheduler.schedule("job", At("2026-01-01T00:30Z"), id="past")
        await time.advance("1m")
        found = await scheduler.why("job")
        assert (found.at, found.run.schedule, found.code) == (at(1, "00:30"), "past", "missed")


async def test_a_clock_that_was_set_back_made_nothing_late_and_what_was_decided_ahead_of_it_is_known(
    scheduler, virtual_time
):
    scheduler.add_job(nothing, Cron("0 * * * *"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("2h30m")
        time.step("10h")
        await time.advance("2m")
        time.step("-10h")
        await time.advance("5m")
        missed = await scheduler.why("job", at(1, "05:00"))
        assert (missed.code, missed.at) == ("clock_jump", at(1, "05:00")) and "went forward by 10h" in missed.text
        assert (await scheduler.why("job", at(1, "05:30"))).verdict == "not_due"
        last = await scheduler.why("job")
        assert (last.verdict, last.code, last.at) == ("ran", "ran_late", at(1, "12:00"))
        assert (await scheduler.why("job", at(1, "02:00"))).code == "ran"


async def test_what_was_held_when_its_schedule_was_removed_says_both(scheduler, virtual_time):
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler) as time:
        await scheduler.schedule("job", Every("1h"), id="hourly")
        await time.advance("90m")
        await scheduler.pause("job", actor="ann")
        await time.advance("3h")
        await scheduler.unschedule("hourly")
        await scheduler.resume("job")
        await time.advance("1d")
        found = await scheduler.why("job", at(1, "03:00"))
        assert (found.verdict, found.code) == ("did_not_run", "paused")
        assert found.text.endswith("; its schedule was changed or removed at 2026-01-01T04:30:00Z")


async def test_a_run_at_the_start_of_a_scheduler_is_not_laid_to_the_timetable(scheduler, virtual_time):
    scheduler.add_job(nothing, Cron("0 2 * * *"), name="job", on_start=True)
    async with virtual_time(scheduler) as time:
        await time.advance("3h")
        found = await scheduler.why("job", at(1, "00:00"))
        assert link(found, "timetable").text == "it began with a scheduler, whatever its timetable"
        assert (await scheduler.why("job")).at == at(1, "02:00")


async def test_what_else_was_due_at_that_time_is_told_beside_it(scheduler, virtual_time):
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler) as time:
        for number in range(8):
            await scheduler.schedule("job", Cron("0 1 * * *"), id=f"s{number}")
        await time.advance("2h")
        found = await scheduler.why("job", at(1, "01:00"))
        assert found.run.schedule == "s0"
        text = link(found, "beside").text
        assert text.startswith("run 2 of 's1', due at 2026-01-01T01:00:00Z: succeeded; ") and text.endswith(
            "and 2 more"
        )


# -- schedules that are gone, and too many


async def test_a_fire_of_a_one_off_is_answered_by_its_record(scheduler, virtual_time):
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler) as time:
        await scheduler.schedule("job", At("2026-01-01T01:00Z"), id="once")
        await time.advance("3h")
        found = await scheduler.why("job", at(1, "01:00"))
        assert (found.verdict, found.at, found.evidence) == ("ran", at(1, "01:00"), "full")
        assert link(found, "timetable").text == "schedule 'once' was due then, by this record; it is gone since"
        assert (await scheduler.why("job")).run == found.run
        before = await scheduler.why("job", at(1, "00:59"))
        assert before.verdict == "not_due" and before.next == found.run
        after = await scheduler.why("job", at(1, "01:01"))
        assert after.verdict == "not_due" and after.previous == found.run


async def test_of_very_many_schedules_those_with_a_record_are_found_and_what_was_not_looked_at_is_said(
    scheduler, virtual_time
):
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler) as time:
        each = [(scheduler["job"].bind(), Cron("0 12 * * *"), f"s{number:04}") for number in range(1100)]
        each[1050] = (scheduler["job"].bind(), Cron("0 13 * * *"), "s1050")
        await scheduler.schedule_many(each)
        await time.advance("15h")
        found = await scheduler.why("job", at(1, "13:00"))
        assert (found.verdict, found.run.schedule) == ("ran", "s1050")
        nobody = await scheduler.why("job", at(1, "14:00"))
        assert (nobody.verdict, nobody.code, nobody.evidence) == ("unknown", "too_many", "partial")
        assert nobody.text.startswith("100 schedules of it were not looked at") and "and 995 more" in nobody.text


# -- asked for


async def test_runs_on_demand_are_answers_too(scheduler, virtual_time):
    scheduler.add_job(failing(9), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("5m")
        run = await scheduler.submit("job", actor="ann")
        later = await scheduler.submit("job", at="+9h")
        await time.advance("10m")
        for when in (at(1, "00:05"), at(1, "09:05")):
            found = await scheduler.why("job", when)
            assert found.run.id == (run.id if when == at(1, "00:05") else later.id)
        found = await scheduler.why("job", at(1, "00:10"))
        assert (found.verdict, found.code) == ("not_due", "not_due")
        assert (
            f"the last run by no schedule was run {later.id}, asked for, due at 2026-01-01T09:05:00Z: waiting"
            in found.text
        )
        assert await told(scheduler) == ("waiting", "later", "full")


async def test_a_run_on_demand_is_told_beside_what_the_schedule_did(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job", first="after")
    async with virtual_time(scheduler) as time:
        await time.advance("90m")
        run = await scheduler.submit("job", actor="ann")
        await time.advance("1m")
        found = await scheduler.why("job")
        assert found.run.id == 1
        assert link(found, "on_demand").text == (
            f"the last run by no schedule was run {run.id}, asked for by ann, due at 2026-01-01T01:30:00Z: succeeded"
        )
        assert (await scheduler.why("job", at(1, "01:30"))).run.id == run.id


# -- names


async def test_a_renamed_job_is_explained_under_both_names_with_the_workers_of_its_old_one(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="old")
    async with virtual_time(scheduler) as time:
        await time.advance("3h30m")
        await time.crash()
        scheduler.remove_job("old")
        scheduler.add_job(nothing, Every("1h"), name="new", aliases=("old",))
        await time.restart(after="5m")
        await time.advance("2h")
        for name in ("old", "new"):
            found = await scheduler.why(name, at(1, "02:00"))
            assert (found.verdict, link(found, "worker").ok) == ("ran", True)
            assert (await scheduler.why(name, at(1, "05:00"))).verdict == "ran"


# -- how exactly an instant is meant


@pytest.mark.parametrize(
    ("written", "middle", "reach"),
    [
        ("2h", "22:00", "30m"),
        ("24h", "00:00", "30m"),
        ("90m", "22:30", "30s"),
        ("1h30m", "22:30", "30s"),
        ("1d", "00:00", "12h"),
        ("PT2H", "22:00", "30m"),
        ("7200", "22:00", "30s"),
        (7200, "22:00", "30s"),
        (timedelta(hours=2), "22:00", "30m"),
        (timedelta(minutes=90), "22:30", "30s"),
        (timedelta(seconds=90), "23:58:30", "30s"),
    ],
)
def test_a_length_of_time_is_meant_as_exactly_as_its_unit(written, middle, reach):
    found, half = window(written, at(2)), durations.parse(reach)
    middle = datetime.fromisoformat(f"2026-01-01T{middle}+00:00")
    assert found == (middle, middle - half, middle + half)


@pytest.mark.parametrize(
    ("written", "reach"), [("2026-01-01T02:00Z", 60), ("2026-01-01T02:00:07Z", 1), (at(1, "02:00"), 60)]
)
def test_an_instant_is_meant_as_it_is_written(written, reach):
    found = window(written, at(2))
    assert found.at == found.since and found.until - found.since == timedelta(seconds=reach)


async def test_some_seconds_ago_mean_the_nearest_fire_of_the_past(scheduler, virtual_time):
    scheduler.add_job(nothing, Cron("* * * * *"), name="job")
    async with virtual_time(scheduler, at="2026-01-01T00:00:30Z") as time:
        await time.advance("3m25s")  # 00:03:55
        for written in ("30s", "40s", "55s", "80s", 30):
            found = await scheduler.why("job", written)
            assert (found.verdict, found.at) == ("ran", at(1, "00:03")), written
        assert (await scheduler.why("job", "5s")).verdict == "not_due", "what is to come in 5 s is no past"


async def test_two_hours_ago_means_the_fire_nearest_to_that(scheduler, virtual_time):
    scheduler.add_job(nothing, Cron("*/5 * * * *"), name="job")
    async with virtual_time(scheduler, at="2026-01-01T00:00:30Z") as time:
        await time.advance("5h")
        found = await scheduler.why("job", "2h")
        assert (found.verdict, found.at) == ("ran", at(1, "03:00"))
        assert (await scheduler.why("job", "1h58m")).verdict == "not_due"


# -- what is forgotten


async def test_what_happened_before_facts_were_deleted_is_not_known_any_more(virtual_time):
    scheduler = TaskScheduler(options=Options(keep=timedelta(days=3)))
    scheduler.add_job(nothing, Cron("0 2 * * *"), name="job", keep="60d")
    async with virtual_time(scheduler) as time:
        await time.advance("5d")
        await scheduler.disable("job", actor="ann", reason="moving")
        await time.advance("2d")
        await scheduler.enable("job")
        await time.advance("1d")
        await time.restart(after="1h")
        await time.advance("7d")
        ran = await scheduler.why("job", at(3, "02:00"))
        assert (ran.verdict, ran.evidence) == ("ran", "partial")
        assert {one.name for one in ran.checks if one.ok is None} == {"pause", "worker", "clock", "loop", "store"}
        assert not [one for one in ran.checks if one.ok is False]
        off = await scheduler.why("job", at(6, "02:00"))
        assert (off.code, off.evidence) == ("disabled", "partial") and 'by ann: "moving"' in off.text
        assert await told(scheduler, at(6, "14:00")) == ("unknown", "unknown_pruned", "partial")


async def test_a_job_that_keeps_less_than_the_store_says_that_its_records_are_gone(scheduler, virtual_time):
    scheduler.add_job(nothing, Cron("0 2 * * *"), name="job", keep_runs=2)
    scheduler.add_job(nothing, Cron("0 3 * * *"), name="other")
    async with virtual_time(scheduler) as time:
        await time.advance("10d")
        assert (await scheduler.runs("job"))[-1].due_at > at(4)
        assert await told(scheduler, at(3, "02:00")) == ("unknown", "unknown_pruned", "partial")
        assert await told(scheduler, at(3, "14:00")) == ("not_due", "not_due", "partial")
        assert await told(scheduler, at(10, "14:00")) == ("not_due", "not_due", "full")


async def test_an_old_instant_whose_record_is_gone_amid_others_is_not_laid_at_a_link(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("3d")
        await scheduler._store._do(lambda db: db.execute("DELETE FROM taskloop_runs WHERE id = 5"))
        assert await told(scheduler, at(1, "04:00")) == ("unknown", "unknown_pruned", "partial")


async def test_a_pause_that_is_older_than_what_is_kept_still_explains_what_it_holds(scheduler, virtual_time):
    scheduler.add_job(nothing, Cron("0 2 * * *"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("12h")
        await scheduler.pause("job", actor="ann")
        await time.advance("4d")
        await prune(scheduler, time, 1)
        assert (await told(scheduler, at(2, "02:00")))[:2] == ("did_not_run", "paused")


async def test_what_nobody_has_decided_yet_is_laid_at_what_holds_it_now_not_at_a_switch_that_is_over(
    scheduler, virtual_time
):
    scheduler.add_job(nothing, Cron("0 2 * * *"), name="job", missed="all")
    async with virtual_time(scheduler, at=at(1, "01:00")) as time:
        await scheduler.disable("job", until="+4h")
        await scheduler.pause("job", actor="ann")
        await time.advance("8h")
        found = await scheduler.why("job", at(1, "02:00"))
        assert (found.code, found.remedies) == ("paused", ("taskloop resume job",))
        await time.crash()
        await time.advance("1h")
        ledger = TaskScheduler(scheduler._store, clock=scheduler._clock)
        assert (await told(ledger, at(1, "02:00")))[1] == "paused"
        await ledger.resume("job")
        assert (await told(ledger, at(1, "02:00")))[1] == "process_down"
        await ledger.disable("job", actor="bob")
        assert (await told(ledger, at(1, "02:00")))[1] == "disabled"
        await ledger.enable("job")
        await time.restart()
        assert (await told(scheduler, at(1, "02:00")))[:2] == ("ran", "ran_late")


async def test_what_one_record_counts_is_laid_at_the_pause_only_as_long_as_that_lasted(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("15m"), name="job", first="aligned", missed="skip")
    async with virtual_time(scheduler) as time:
        await scheduler.pause("job", until="+100m")
        await time.restart(after="6h")
        [row] = await time.runs("job", state="skipped")
        assert row.count > 20 and "paused_since" in row.data
        assert (await told(scheduler, at(1, "01:30")))[:2] == ("did_not_run", "paused")
        assert (await told(scheduler, at(1, "01:45")))[:2] == ("did_not_run", "process_down")


async def test_who_lives_is_found_beside_however_many_workers_came_and_went_while_a_run_waited(scheduler, virtual_time):
    scheduler.add_job(lasting(60), name="hog", group="g")
    scheduler.add_job(nothing, name="job", group="g")
    async with virtual_time(scheduler) as time:
        await scheduler.pause("job")
        run = await scheduler.submit("job")
        for _ in range(101):
            await time.restart(after="1m")
        await scheduler.submit("hog")
        await scheduler.resume("job")
        assert (await scheduler.why(run=run.id)).code == "group"


# -- spread, and what is to come


async def test_a_spread_job_is_found_by_the_instant_of_its_timetable(scheduler, virtual_time):
    scheduler.add_job(nothing, Cron("0 2 * * *"), name="job", spread="1h")
    async with virtual_time(scheduler) as time:
        await time.advance("2d")
        [_, run] = await scheduler.runs("job")
        found = await scheduler.why("job", at(1, "02:00"))
        assert (found.verdict, found.at) == ("ran", run.due_at) and "(spread)" in link(found, "timetable").text
        assert (await scheduler.why("job", run.due_at)).run == found.run
        coming = await scheduler.why("job", at(9, "02:00"))
        assert (coming.verdict, coming.code) == ("will_run", "will_run") and coming.at > at(9, "02:00")
        never = await scheduler.why("job", at(1, "05:00"))
        assert never.verdict == "not_due" and "(spread)" in never.text and "does not match" not in never.text


@pytest.mark.parametrize(("first", "every"), [("after", "1h"), ("now", "5m")])
async def test_before_the_first_fire_of_a_spread_interval_none_was_due(scheduler, virtual_time, first, every):
    scheduler.add_job(nothing, Every(every), name="job", spread="1h", first=first)
    async with virtual_time(scheduler) as time:
        [(due, _)] = await scheduler.upcoming(limit=1)
        before = due - Every(every).interval
        assert before > START  # else there is nothing to ask
        for _ in range(2):
            never = await scheduler.why("job", before)
            assert never.verdict == "not_due" and f"the fire after is due at {durations.rfc3339(due)}" in never.text
            assert (await scheduler.why("job", due)).at == due
            await time.advance("3h")


async def test_of_a_single_instant_nobody_says_that_spread_has_moved_it(scheduler, virtual_time):
    scheduler.add_job(nothing, name="job", spread="1h")
    async with virtual_time(scheduler) as time:
        await scheduler.schedule("job", At(at(1, "02:00")), id="once")
        await time.advance("3h")
        [run] = await scheduler.runs("job")
        found = await scheduler.why("job", at(1, "02:00"))
        assert (found.verdict, found.at) == ("ran", at(1, "02:00")) == ("ran", run.due_at)
        assert "spread" not in link(found, "timetable").text
        never = await scheduler.why("job", at(1, "02:30"))
        assert never.verdict == "not_due" and "spread" not in never.text


async def test_what_ends_by_itself_before_a_fire_to_come_does_not_hinder_it(scheduler, virtual_time):
    scheduler.add_job(nothing, Cron("0 2 * * *"), name="job")
    async with virtual_time(scheduler):
        await scheduler.disable("job", until="+3d")
        assert (await told(scheduler, at(2, "02:00")))[:2] == ("will_run", "disabled")
        assert (await told(scheduler, at(9, "02:00")))[:2] == ("will_run", "will_run")
        assert (await told(scheduler, at(9, "03:00")))[:2] == ("not_due", "not_due")


# -- what made it late, or too late


async def test_a_fire_that_waited_for_the_one_before_it_says_so(scheduler, virtual_time):
    scheduler.add_job(lasting(150), Every("1m"), name="job", first="aligned", overlap="queue")
    async with virtual_time(scheduler) as time:
        await time.advance("6m")
        found = await scheduler.why("job", at(1, "00:02"))
        assert (found.verdict, found.code) == ("ran", "ran_late")
        assert "because overlap: run 1 of its schedule ran until 2026-01-01T00:03:30Z" in found.text


async def test_a_fire_that_waited_for_a_place_says_whose_it_took(virtual_time):
    scheduler = TaskScheduler(options=Options(groups={"db": 1}))
    scheduler.add_job(lasting(2400), Cron("0 2 * * *"), name="backup", group="db", priority=1)
    scheduler.add_job(lasting(60), Cron("0 2 * * *"), name="job", group="db")
    scheduler.add_job(lasting(700), Every("10m"), name="poll", first="aligned", overlap="allow", max_running=1)
    async with virtual_time(scheduler, at=at(1, "01:50")) as time:
        await time.advance("2h")
        taken = {run.job: run.id for run in await time.runs() if run.due_at == at(1, "02:00")}
        found = await scheduler.why("job", at(1, "02:00"))
        held = f"group 'db' had no place until run {taken['backup']} of 'backup' ended at 2026-01-01T02:40:00Z"
        assert f"40m late because group: {held}; succeeded" in found.text
        assert link(found, "group").code == "group"
        found = await scheduler.why("poll", at(1, "02:10"))
        held = f"max_running is 1, and so many were running until run {taken['poll']} of 'poll' ended at 2026-01-01T02:11:40Z"
        assert f"late because overlap: {held}; succeeded" in found.text
        assert link(found, "overlap").code == "max_running"
        assert (await told(scheduler, at(1, "02:00"), "backup"))[1] == "ran"


async def test_a_group_with_a_place_is_not_blamed_for_want_of_a_slot(virtual_time):
    scheduler = TaskScheduler(options=Options(max_running=1))
    scheduler.add_job(lasting(3600), Cron("59 1 * * *"), name="hog")
    scheduler.add_job(nothing, Cron("0 2 * * *"), name="job", group="g", max_late="10m")
    async with virtual_time(scheduler) as time:
        await time.advance("5h")
        found = await scheduler.why("job", at(1, "02:00"))
        assert (found.code, found.run.reason, link(found, "group").ok) == ("too_late", "too_late", True)


async def test_a_breaker_that_stayed_open_is_told_as_it_was_known_then(scheduler, virtual_time):
    scheduler.add_job(failing(99), Every("1m"), name="job", first="aligned", pause_after=3, trial_after="10m")
    async with virtual_time(scheduler) as time:
        await time.advance("25m")
        first, second = [(await scheduler.why("job", at(1, f"00:{minute:02}"))).text for minute in (8, 20)]
        assert "until 2026-01-01T00:13:00Z; at 2026-01-01T00:13:00Z the trial failed, run 5: OSError: no luck" in first
        assert "since 2026-01-01T00:13:00Z by taskloop" in second and "the trial failed too, run 5" in second


# -- whatever was done to it


@pytest.mark.parametrize("seed", range(5))
async def test_after_a_day_of_switches_and_restarts_every_due_instant_is_explained_and_no_other(virtual_time, seed):
    dice = random.Random(seed)
    scheduler = TaskScheduler(options=Options(max_running=2))
    trigger = Cron(dice.choice(["*/7 * * * *", "3 * * * *", "10,12,40 * * * *"]))
    policy = {"missed": ("skip", "latest", "all"), "overlap": ("skip", "queue", "replace"), "max_late": (None, "15m")}
    some = {name: dice.choice(values) for name, values in policy.items()}
    scheduler.add_job(lasting(dice.choice([0, 90, 1000])), trigger, name="job", **some)
    async with virtual_time(scheduler) as time:
        for _ in range(14):
            what = dice.choice(["disable", "enable", "pause", "resume", "crash", "restart", "nothing"])
            if what == "crash":
                await time.crash()
            if what in ("crash", "restart"):
                await time.restart(after=f"{dice.randint(1, 180)}m")
            elif what != "nothing":
                await getattr(scheduler, what)("job", actor="ann")
            await time.advance(f"{dice.randint(1, 90)}m")
        own = {run.due_at: run for run in await time.runs("job", state=list(State))}
        due = trigger.after(START)
        while due <= time.now:
            found = await scheduler.why("job", due)
            assert (found.at, found.evidence) == (due, "full")
            assert found.verdict in ("ran", "running", "waiting", "did_not_run"), found.text
            assert due not in own or found.run == own[due]
            beside = await scheduler.why("job", due + timedelta(minutes=1))
            assert (beside.verdict, beside.evidence) == ("not_due", "full"), beside.text
            due = trigger.after(due)
