"""Switches: disable drops, pause holds, enable overrules the code, reset gives back to it."""

from __future__ import annotations

import asyncio

import pytest
from stories import fates, lasting, nothing, starts

from taskloop import Every, Retry, State, TaskScheduler
from taskloop.errors import Conflict

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("missed", "told"),
    [
        (None, ["01:00 skipped missed x2", "03:00 succeeded"]),
        ("latest", ["01:00 skipped missed x2", "03:00 succeeded"]),
        ("skip", ["01:00 skipped missed x3"]),
        ("all", ["01:00 succeeded", "02:00 succeeded", "03:00 succeeded"]),
    ],
)
async def test_resume_settles_what_a_pause_held(scheduler, virtual_time, missed, told):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("10m")
        await scheduler.pause("job", reason="migration", actor="ann")
        await time.advance("3h")
        assert await fates(time) == ["00:00 succeeded"]
        await scheduler.resume("job", missed=missed)
        await time.advance("30m")
        assert (await fates(time))[1:] == told
        await time.advance("1h")
        assert (await fates(time))[-1] == "04:00 succeeded"


@pytest.mark.parametrize(
    ("missed", "told"),
    [
        (None, ["00:01 skipped missed x2", "00:03 skipped missed", "00:04 succeeded"]),
        ("skip", ["00:01 skipped missed x4"]),
        ("all", ["00:01 skipped missed x2", "00:03 succeeded", "00:04 succeeded"]),
    ],
)
async def test_what_two_pauses_held_is_settled_by_the_word_of_each_however_soon_the_second_began(
    scheduler, virtual_time, tmp_path, missed, told
):
    """Of the first nothing was known any more, where the second began before its fires were settled."""
    operator, place = TaskScheduler(), f"sqlite:///{tmp_path}/shop.db"
    scheduler.add_job(nothing, Every("1m"), name="job")
    async with virtual_time(scheduler, store=place) as time:
        await time.join(operator, place, start=False)
        await time.advance("10s")
        await time.until(operator.pause("job"))
        await time.advance("2m")
        await time.until(operator.resume("job", missed="skip"))
        await time.until(operator.pause("job"))
        await time.advance("2m")
        await time.until(operator.resume("job", missed=missed))
        await time.advance("30s")
        assert (await fates(time))[1:] == told


@pytest.mark.parametrize("first", [None, "job"])
async def test_what_two_pauses_held_one_after_the_other_without_a_break_is_settled_as_a_whole(
    scheduler, virtual_time, first
):
    scheduler.add_job(nothing, Every("1h"), name="job", missed="skip")
    second = "job" if first is None else None
    async with virtual_time(scheduler) as time:
        await time.advance("10m")
        await scheduler.pause(first)
        await time.advance("2h")
        await scheduler.pause(second)
        await scheduler.resume(first)
        await time.advance("2h")
        await scheduler.resume(second)
        await time.advance("30m")
        assert (await fates(time))[1:] == ["01:00 skipped missed x4"]


async def test_a_pause_of_all_holds_every_job_and_resume_frees_them(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="a", missed="skip")
    scheduler.add_job(nothing, Every("1h"), name="b")
    async with virtual_time(scheduler) as time:
        await time.advance("10m")
        await scheduler.pause()
        assert (await scheduler.status()).paused is not None
        await time.advance("3h")
        assert len(await fates(time)) == 2
        await scheduler.resume()
        await time.advance("1m")
        assert await fates(time, "a") == ["00:00 succeeded", "01:00 skipped missed x3"]
        assert await fates(time, "b") == ["00:00 succeeded", "01:00 skipped missed x2", "03:00 succeeded"]


async def test_a_pause_of_one_job_holds_no_other(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="a")
    scheduler.add_job(nothing, Every("1h"), name="b")
    async with virtual_time(scheduler) as time:
        await scheduler.pause("a")
        await time.advance("2h")
        assert await starts(time, "a") == ["00:00"]
        assert await starts(time, "b") == ["00:00", "01:00", "02:00"]


async def test_a_pause_ends_by_itself_at_its_until(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("10m")
        await scheduler.pause("job", until="+2h")
        await time.advance("2h1m")
        assert await fates(time) == ["00:00 succeeded", "01:00 skipped missed", "02:00 succeeded"]
        assert await starts(time) == ["00:00", "02:10"]


async def test_submits_wait_through_a_pause_and_running_runs_go_on(scheduler, virtual_time):
    scheduler.add_job(lasting(600), name="job")
    async with virtual_time(scheduler) as time:
        running = await scheduler.submit("job")
        await time.advance("1m")
        await scheduler.pause("job")
        held = await scheduler.submit("job")
        await time.advance("1h")
        assert (await scheduler.run(running.id)).state is State.SUCCEEDED
        assert (await scheduler.run(held.id)).state is State.WAITING
        await scheduler.resume("job")
        await time.advance("10m")
        assert (await scheduler.run(held.id)).state is State.SUCCEEDED


async def test_a_retry_waits_through_a_pause(scheduler, virtual_time):
    tries = []

    @scheduler.job(retry=Retry(2, first="1m"))
    async def job():
        tries.append(1)
        if len(tries) == 1:
            raise OSError

    async with virtual_time(scheduler) as time:
        await job.submit()
        await time.advance("10s")
        await scheduler.pause("job")
        await time.advance("1h")
        assert len(tries) == 1
        await scheduler.resume("job")
        await time.advance("1s")
        assert len(tries) == 2


async def test_a_pause_outlives_restarts(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await scheduler.pause()
        await time.restart(after="90m")
        await time.advance("1h")
        assert await starts(time) == ["00:00"]
        await scheduler.resume()
        await time.advance("1s")
        assert await fates(time) == ["00:00 succeeded", "01:00 skipped missed", "02:00 succeeded"]


async def test_resume_of_what_is_not_paused_does_nothing(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await scheduler.resume("job")
        await scheduler.resume()
        await time.advance("1h")
        assert await starts(time) == ["00:00", "01:00"]


async def test_each_fire_of_a_disabled_job_is_counted_in_one_row(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("10m")
        await scheduler.disable("job", reason="broken upstream", actor="ann")
        await time.advance("5h")
        assert await fates(time) == ["00:00 succeeded", "01:00 skipped disabled x5"]
        await scheduler.enable("job")
        await time.advance("1h")
        assert (await fates(time))[2:] == ["06:00 succeeded"]


async def test_a_submit_to_a_disabled_job_is_refused_with_who_and_why(scheduler, virtual_time):
    job = scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler) as time:
        await scheduler.disable("job", reason="broken upstream", actor="ann")
        for ask in (job.submit, lambda: scheduler.submit("job"), lambda: scheduler.submit_many([job.bind()])):
            with pytest.raises(Conflict, match="ann.*broken upstream"):
                await ask()
        assert await fates(time) == []


async def test_disable_drops_what_falls_into_down_time_too(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await scheduler.disable("job")
        await time.restart(after="3h30m")
        assert await fates(time) == ["00:00 succeeded", "01:00 skipped disabled x3"]


async def test_disable_ends_by_itself_at_its_until(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await scheduler.disable("job", until="+90m")
        await time.advance("2h")
        assert await fates(time) == ["00:00 succeeded", "01:00 skipped disabled", "02:00 succeeded"]


async def test_enable_overrules_the_code_and_outlives_a_restart_and_reset_gives_back(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job", enabled=False)
    async with virtual_time(scheduler) as time:
        await time.advance("90m")
        assert await fates(time) == ["00:00 skipped disabled x2"]
        await scheduler.enable("job")
        await time.restart()
        await time.advance("1h")
        assert (await fates(time))[-1] == "02:00 succeeded"
        await scheduler.reset("job")
        await time.advance("1h")
        assert (await fates(time))[-1] == "03:00 skipped disabled"
        assert (await scheduler.jobs())[0].switch is None


@pytest.mark.parametrize(("declared", "turn", "word"), [(True, "disable", "enabled"), (False, "enable", "disabled")])
async def test_a_reset_is_told_where_it_turns_a_job_on_or_off_and_not_where_all_stays(
    virtual_time, tmp_path, declared, turn, word
):
    """By whom and why; also where another program resets it, which knows the declaration from the store alone."""
    scheduler, operator, place = TaskScheduler(), TaskScheduler(), f"sqlite:///{tmp_path}/shop.db"
    scheduler.add_job(nothing, name="job", enabled=declared)
    told = []
    for one in (scheduler, operator):
        one.on("enabled", "disabled")(told.append)
    async with virtual_time(scheduler, store=place) as time:
        await time.join(operator, place)
        for one in (scheduler, operator):
            await time.until(getattr(one, turn)("job"))
            await time.advance("1s")
            told.clear()
            for _ in range(2):
                await time.until(one.reset("job", reason="mended", actor="ann"))
            await time.advance("1s")
            assert [(event.name, event.job, dict(event.data)) for event in told] == [
                (word, "job", {"reason": "mended", "actor": "ann"})
            ]


async def test_a_running_run_goes_on_when_its_job_is_disabled(scheduler, virtual_time):
    scheduler.add_job(lasting(600), Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await scheduler.disable("job")
        await time.advance("10m")
        assert await fates(time) == ["00:00 succeeded"]


async def test_what_waits_begins_though_its_job_is_disabled_unless_it_is_cancelled_before_the_next_start_too(
    scheduler, virtual_time
):
    """As after a backup was put back: what ran as it was made, and what waited then, must not run twice."""
    scheduler.add_job(lasting(60), name="job", retry=3, max_running=1)
    async with virtual_time(scheduler) as time:
        runs = [await scheduler.submit("job") for _ in range(4)]
        await time.advance("1s")
        await time.crash()
        await scheduler.disable("job")
        for run in runs[:2]:  # one that ran, and one that waited
            await scheduler.cancel(run.id)
        await time.restart(after="1m")
        await time.advance("10m")
        assert [run.state for run in await time.runs()] == [State.CANCELLED] * 2 + [State.SUCCEEDED] * 2


async def test_a_job_may_be_disabled_and_paused_at_once(scheduler, virtual_time):
    """Two questions with an answer each: a resume does not switch it on."""
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await scheduler.disable("job")
        await scheduler.pause("job")
        await time.advance("2h")
        await scheduler.resume("job", missed="all")
        await time.advance("1h")
        assert {run.state for run in await time.runs(state=list(State)) if run.id > 1} == {State.SKIPPED}


async def test_the_record_of_a_job_tells_its_switch(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await scheduler.disable("job", reason="why", actor="ann", until="+1d")
        record = (await scheduler.jobs())[0]
        assert (record.enabled, record.condition) == (False, "disabled")
        assert (record.switch.actor, record.switch.reason, record.switch.since) == ("ann", "why", time.now)


@pytest.mark.parametrize("store", ["sqlite:///:memory:", "sqlite:///{}/shop.db"])
@pytest.mark.parametrize("turns", [1, 2, 3])
async def test_what_is_written_is_told_also_if_who_asked_for_it_is_cancelled_meanwhile(
    scheduler, virtual_time, tmp_path, store, turns
):
    """As by a request whose client has gone: it stood on record, no listener heard of it, and who waited for the run of a
    store in memory did so for ever."""
    heard: list[str] = []
    events = ("cancelled", "disabled", "enabled", "paused", "resumed")
    scheduler.feed.subscribe(lambda event: heard.append(event.name), *events)
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler, store=store.format(tmp_path)) as time:

        async def given_up(verb):
            asking = asyncio.create_task(verb)
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await time.until(asking)
            await time.advance("1s")

        run = await scheduler.submit("job", at="+1h")
        waiting = asyncio.create_task(run.wait(timeout="30m"))
        await time.advance("1m")
        await given_up(scheduler.cancel(run.id))
        assert (await time.until(waiting)).state is State.CANCELLED
        for verb in (scheduler.disable, scheduler.enable, scheduler.pause, scheduler.resume):
            await given_up(verb("job"))
        assert heard == ["cancelled", "disabled", "enabled", "paused", "resumed"]
