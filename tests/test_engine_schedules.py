"""Schedules that are made at run time and live in the store."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from stories import START, fates, lasting, nothing, stamp, starts

from taskloop import At, Cron, Every, Job, RunContext, State, scheduling
from taskloop.errors import BadParameters, BadTrigger, Conflict, NoSuchJob, NoSuchSchedule

pytestmark = pytest.mark.anyio


@pytest.fixture
def remind(scheduler):
    @scheduler.job()
    async def remind(user: int = 0):
        """Remind somebody."""

    return remind


async def test_a_stored_schedule_fires_with_its_parameters_and_survives_restarts(scheduler, virtual_time, remind):
    async with virtual_time(scheduler) as time:
        made = await scheduler.schedule(remind, Every("1h"), id="remind-7", params={"user": 7})
        assert (made.id, made.job, made.origin, made.next_due) == ("remind-7", "remind", "stored", START)
        await time.restart(after="30m")
        await time.advance("45m")
        assert [(run.schedule, run.params, stamp(run.due_at)) for run in await time.runs()] == [
            ("remind-7", {"user": 7}, "00:00"),
            ("remind-7", {"user": 7}, "01:00"),
        ]


async def test_who_switches_a_schedule_is_told_that_a_job_is_switched_and_what_a_schedule_has(
    scheduler, virtual_time, remind
):
    async with virtual_time(scheduler):
        await scheduler.schedule(remind, Every("1h"), id="remind-7")
        for verb in (scheduler.pause, scheduler.disable, scheduler.resume, scheduler.enable, scheduler.reset):
            with pytest.raises(NoSuchJob, match=r"it is a schedule of job 'remind', and alone .* unschedule\(\)"):
                await verb("remind-7")


async def test_a_stored_schedule_outlives_a_crash(scheduler, virtual_time, remind):
    async with virtual_time(scheduler) as time:
        await remind.bind(7).schedule(Cron("0 12 * * *"), id="noon")
        await time.crash()
        await time.restart(after="11h")
        await time.advance("2h")
        assert await fates(time) == ["12:00 succeeded"]


async def test_a_known_id_with_an_equal_trigger_keeps_its_cursor(scheduler, virtual_time, remind):
    async with virtual_time(scheduler) as time:
        for user in range(4):
            await remind.bind(user).schedule(Every("1h"), id="same")
            await time.advance("25m")
        assert [(run.params["user"], stamp(run.due_at)) for run in await time.runs()] == [(0, "00:00"), (2, "01:00")]


async def test_a_known_id_with_another_trigger_is_asked_anew_from_the_last_due_instant(scheduler, virtual_time, remind):
    async with virtual_time(scheduler) as time:
        await remind.bind().schedule(Every("1h"), id="same")
        await time.advance("1h10m")
        await remind.bind().schedule(Every("20m"), id="same")
        await time.advance("15m")
        assert await starts(time) == ["00:00", "01:00", "01:20"]


async def test_a_schedule_that_never_fires_again_is_removed_and_its_runs_stay(scheduler, virtual_time, remind):
    async with virtual_time(scheduler) as time:
        await remind.bind(7).schedule(At("2026-01-01T05:00Z"), id="once")
        assert [one.id for one in await scheduler.schedules()] == ["once"]
        await time.advance("6h")
        assert await scheduler.schedules() == []
        assert await fates(time) == ["05:00 succeeded"]


async def test_at_in_the_past_is_one_skip_and_removed(scheduler, virtual_time, remind):
    async with virtual_time(scheduler) as time:
        await remind.bind(7).schedule(At("2025-12-31T23:00Z"), id="late")
        await time.advance("1m")
        assert await fates(time) == ["-1d 23:00 skipped missed"]
        assert await scheduler.schedules() == []


async def test_thousands_are_stored_at_once(scheduler, virtual_time, remind):
    async with virtual_time(scheduler) as time:
        made = await scheduler.schedule_many([(remind.bind(n), Every("1d"), f"user-{n:04}") for n in range(2500)])
        assert len(made) == 2500
        await time.advance("1m")
        assert len(await time.runs()) == 2500


async def test_what_is_due_at_one_instant_runs_with_its_own_parameters(scheduler, virtual_time):
    """Fires that are alike are decided once: not their parameters, of which 1, True and 1.0 are equal and not the same."""
    told = {}

    def note(run: RunContext, value: Any, text: str = "") -> None:
        told[run.schedule] = repr(value), text

    noted, other = scheduler.add_job(note), scheduler.add_job(note, name="other", priority=3, retry=2)
    values = [(1, True, 1.0, "1", None, [], [1], [True])[number % 8] for number in range(300)]
    async with virtual_time(scheduler) as time:
        each = Every("1d", anchor=START + timedelta(hours=1))
        await scheduler.schedule_many(
            ((other if number % 3 else noted).bind(value, text=str(number // 100)), each, f"{number:03}")
            for number, value in enumerate(values)
        )
        await time.advance("61m")
        runs = {run.schedule: run for run in await scheduler.runs(limit=1000)}
    assert told == {f"{number:03}": (repr(value), str(number // 100)) for number, value in enumerate(values)}
    assert {(run.job, run.priority, run.attempts, run.state) for run in runs.values()} == {
        ("note", 0, 1, State.SUCCEEDED),
        ("other", 3, 2, State.SUCCEEDED),
    }
    assert [repr(runs[f"{number:03}"].params["value"]) for number in range(300)] == [repr(one) for one in values]


async def test_of_runs_that_began_together_each_has_its_own_record(scheduler, virtual_time):
    """They were made of one run, with one `data` for all."""
    job = scheduler.add_job(lasting(60))
    async with virtual_time(scheduler) as time:
        await scheduler.schedule_many(
            (job.bind(), Every("1h", anchor=START + timedelta(hours=1)), name) for name in "ab"
        )
        await time.advance("1h")
        waiting = [asyncio.ensure_future(scheduler.wait(run.id)) for run in await scheduler.runs(state="running")]
        await time.advance("2m")
        one, other = [await run for run in waiting]
    one.data["note"] = one.params["note"] = "mine"
    assert (other.data, other.params) == ({}, {})


async def test_schedule_many_is_refused_as_a_whole(scheduler, virtual_time, remind):
    async with virtual_time(scheduler):
        with pytest.raises(BadTrigger):
            await scheduler.schedule_many([(remind.bind(), Every("1d"), "good"), (remind.bind(), Every("1d"), "bad\n")])
        assert await scheduler.schedules() == []


async def test_what_is_stored_fires_in_time_though_who_asked_is_cancelled_or_the_rest_refused(
    scheduler, virtual_time, remind, monkeypatch
):
    """An engine that nobody had told found it within a minute."""
    monkeypatch.setattr(scheduling, "TOGETHER", 2)

    def some():
        yield remind.bind(user=1), Every("1d"), "one"
        yield remind.bind(user=2), Every("1d"), "two"
        raise ValueError("the list cannot be read on")

    async with virtual_time(scheduler) as time:
        await time.advance("1s")
        with pytest.raises(ValueError, match="read on"):
            await scheduler.schedule_many(some())
        await time.advance("2s")
        assert sorted(run.schedule for run in await time.runs()) == ["one", "two"]
        asking = asyncio.create_task(scheduler.schedule("remind", Every("1d"), id="left", params={"user": 7}))
        for _ in range(3):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait({asking})
        await time.advance("2s")
        assert asking.cancelled() and sorted(run.schedule for run in await time.runs()) == ["left", "one", "two"]


async def test_the_schedule_of_a_declared_job_cannot_be_removed(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="hourly")
    async with virtual_time(scheduler) as time:
        with pytest.raises(Conflict, match="declared by code, and would be as before at the next start"):
            await scheduler.unschedule("hourly")
        await time.advance("90m")
        assert await fates(time) == ["00:00 succeeded", "01:00 succeeded"]


async def test_of_many_schedules_with_one_id_twice_none_of_the_batch_is_stored(scheduler, virtual_time, remind):
    async with virtual_time(scheduler):
        with pytest.raises(Conflict, match="schedule 'one' comes twice"):
            await scheduler.schedule_many([(remind.bind(1), Every("1h"), "one"), (remind.bind(2), Every("2h"), "one")])
        assert await scheduler.schedules() == []


async def test_many_schedules_are_stored_as_each_alone_would_be(scheduler, virtual_time, remind):
    """Those in a row of one job and an equal trigger are made after the first of them."""
    spread = scheduler.add_job(nothing, name="spread", spread="1h")
    after = scheduler.add_job(nothing, name="after", first="after")
    each = [
        (call, trigger)
        for trigger in (Every("1h"), Every("1h", anchor=START), Every("2h"), Cron("5 * * * *"), At("2026-03-02T09:00Z"))
        for call in (
            remind.bind(1),
            remind.bind(2),
            remind.bind(),
            spread.bind(),
            spread.bind(),
            after.bind(),
            remind.bind(3),
        )
    ]
    async with virtual_time(scheduler):
        many = await scheduler.schedule_many((call, trigger, f"one-{at}") for at, (call, trigger) in enumerate(each))
        for at, (call, trigger) in enumerate(each):
            await scheduler.unschedule(f"one-{at}")
            assert await call.schedule(trigger, id=f"one-{at}") == many[at]
    assert len({one.next_due for one in many if one.job == "spread"}) == 9  # an `At` is not spread


async def test_of_many_schedules_those_of_a_job_that_is_not_here_are_refused_as_each_alone_would_be(
    scheduler, virtual_time, remind
):
    """They were stored, and fired by nobody, of which nothing was said."""
    theirs = Job(nothing, None, name="theirs")
    gone = scheduler.add_job(nothing, name="gone").bind()
    async with virtual_time(scheduler):
        scheduler.remove_job("gone")
        for call in (theirs.bind(), gone):
            with pytest.raises(NoSuchJob, match=call.job.name):
                await scheduler.schedule_many([(remind.bind(), Every("1h"), "one"), (call, Every("1h"), "two")])
        assert await scheduler.schedules() == []


async def test_a_loop_has_its_turns_while_many_schedules_are_bound(scheduler, virtual_time, remind):
    """A thousand of them held it up for as long as it took to ask each when it is due: 0.7 s, where that is on some days."""
    turns = []

    async def others():
        while True:
            turns.append(len(turns))
            await asyncio.sleep(0)

    seen = []

    def some():
        for number in range(900):
            seen.append(len(turns))
            yield remind.bind(), Every(f"{number + 1}s"), f"user-{number}"

    async with virtual_time(scheduler):
        beside = asyncio.create_task(others())
        await scheduler.schedule_many(some())
        beside.cancel()
    assert max(seen.count(turn) for turn in seen) == scheduling.TURN


async def test_unschedule_ends_the_fires_and_keeps_the_runs(scheduler, virtual_time, remind):
    async with virtual_time(scheduler) as time:
        await remind.bind().schedule(Every("1h"), id="often")
        await time.advance("1h")
        await scheduler.unschedule("often")
        await time.advance("5h")
        assert await starts(time) == ["00:00", "01:00"]
        with pytest.raises(NoSuchSchedule, match="often"):
            await scheduler.unschedule("often")


async def test_schedules_are_listed_by_id_job_and_prefix_page_by_page(scheduler, virtual_time, remind):
    scheduler.add_job(nothing, Every("1h"), name="declared")
    async with virtual_time(scheduler):
        for name in ("b-2", "b-1", "a-1", "b-3"):
            await remind.bind().schedule(Every("1h"), id=name)
        assert [one.id for one in await scheduler.schedules()] == ["a-1", "b-1", "b-2", "b-3", "declared"]
        assert [one.id for one in await scheduler.schedules("declared")] == ["declared"]
        assert [one.id for one in await scheduler.schedules(remind, prefix="b-", limit=2)] == ["b-1", "b-2"]
        assert [one.id for one in await scheduler.schedules(prefix="b-", before="b-2")] == ["b-3"]


async def test_what_cannot_be_scheduled_is_refused_before_anything_is_stored(scheduler, virtual_time, remind):
    scheduler.add_job(nothing, Every("1h"), name="declared")
    async with virtual_time(scheduler):
        with pytest.raises(Conflict, match="declared"):
            await scheduler.schedule(remind, Every("1h"), id="declared")
        with pytest.raises(NoSuchJob, match="did you mean 'remind'"):
            await scheduler.schedule("remnid", Every("1h"), id="x")
        with pytest.raises(BadParameters):
            await scheduler.schedule(remind, Every("1h"), id="x", params={"usr": 1})
        assert [one.id for one in await scheduler.schedules()] == ["declared"]


async def test_a_job_may_schedule_another(scheduler, virtual_time, remind):
    @scheduler.job()
    async def sign_up(user: int):
        await remind.bind(user).schedule(At("2026-01-08T00:00Z"), id=f"welcome-{user}")

    async with virtual_time(scheduler) as time:
        await sign_up.submit(7)
        await time.advance("8d")
        assert [(run.params, stamp(run.due_at)) for run in await time.runs(remind)] == [({"user": 7}, "+7d 00:00")]


async def test_an_outage_is_settled_for_each_schedule_of_a_job(scheduler, virtual_time, remind):
    async with virtual_time(scheduler) as time:
        for user in (1, 2):
            await remind.bind(user).schedule(Every("1h"), id=f"user-{user}")
        await time.advance("1m")
        await time.restart(after="3h")
        assert await fates(time) == [
            "00:00 succeeded",
            "00:00 succeeded",
            "01:00 skipped missed x2",
            "01:00 skipped missed x2",
            "03:00 succeeded",
            "03:00 succeeded",
        ]


@pytest.mark.parametrize("given", ["every 5m", 300, Every, timedelta(minutes=5)])
async def test_what_is_no_trigger_is_refused_where_it_is_given(scheduler, virtual_time, given):
    scheduler.add_job(nothing, name="job")
    with pytest.raises(BadTrigger, match=r"is no trigger; write Every\('5m'\), Cron"):
        scheduler.add_job(nothing, given, name="other")
    async with virtual_time(scheduler):
        with pytest.raises(BadTrigger, match=r"is no trigger; write Every"):
            await scheduler.schedule("job", given, id="one")
        assert ("other" in scheduler, await scheduler.schedules()) == (False, [])
