"""A fire that finds an earlier run of its schedule active; groups, limits and the order of those that wait."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from stories import START, failing, fates, lasting, nothing, stamp, starts, stubborn

from taskloop import Cron, Every, Options, Retry, RunContext, State, TaskScheduler
from taskloop.store_sqlite import SqliteStore

pytestmark = pytest.mark.anyio

NINETY = 90 * 60


async def test_skip_leaves_a_trace_with_its_reason(scheduler, virtual_time):
    scheduler.add_job(lasting(NINETY), Every("1h"))
    async with virtual_time(scheduler) as time:
        await time.advance("2h")
        assert await fates(time) == ["00:00 succeeded", "01:00 skipped overlap", "02:00 running"]
        skip = (await time.runs(state="skipped"))[0]
        assert skip.data["run"] == 1
        assert skip.data["age_seconds"] == 3600


async def test_queue_keeps_one_waiting_and_skips_the_others(scheduler, virtual_time):
    scheduler.add_job(lasting(150 * 60), Every("1h"), overlap="queue")
    async with virtual_time(scheduler) as time:
        await time.advance("2h30m")
        assert await fates(time) == ["00:00 succeeded", "01:00 running", "02:00 skipped overlap"]
        await time.advance("2h")
        assert (await fates(time))[1:] == [
            "01:00 running",
            "02:00 skipped overlap",
            "03:00 waiting",
            "04:00 skipped overlap",
        ]
        assert await starts(time) == ["00:00", "02:30"]


async def test_replace_cancels_the_old_and_starts_when_it_has_ended(scheduler, virtual_time):
    tape = []

    @scheduler.every("1h", overlap="replace")
    async def job(run: RunContext):
        try:
            await asyncio.sleep(NINETY)
        finally:
            await asyncio.sleep(2)
            tape.append(run.id)

    async with virtual_time(scheduler) as time:
        await time.advance("1h1m")
        assert await fates(time) == ["00:00 cancelled superseded", "01:00 running"]
        assert await starts(time) == ["00:00", "01:00:02"]
    assert tape[0] == 1


async def test_replace_skips_a_fire_that_waits_and_was_never_begun(scheduler, virtual_time):
    told = []
    scheduler.add_job(lasting(150 * 60), name="other", group="one")
    scheduler.add_job(nothing, Every("1h"), name="job", first="after", overlap="replace", group="one")
    scheduler.on("skipped", "cancelled")(lambda event: told.append((event.name, stamp(event.run.due_at))))
    async with virtual_time(scheduler) as time:
        await scheduler.submit("other")
        await time.advance("3h")
        assert await fates(time, "job") == ["01:00 skipped superseded", "02:00 succeeded", "03:00 succeeded"]
        assert await starts(time, "job") == ["02:30", "03:00"]
        found = await scheduler.why("job", at=START + timedelta(hours=1))
        assert (found.verdict, found.code) == ("did_not_run", "superseded")
    assert told == [("skipped", "01:00")]


async def test_replace_leaves_no_other_attempt_to_a_run_that_fails_while_the_fire_is_written(virtual_time, tmp_path):
    fired, calls = asyncio.Event(), []

    class Slow(SqliteStore):
        async def fire(self, firings, worker, now, heed=None):
            answer = await super().fire(firings, worker, now, heed)
            if answer.replaced:
                fired.set()
            return answer

        async def settle(self, settling):
            if settling.after.state is State.WAITING:
                await fired.wait()
            return await super().settle(settling)

    scheduler = TaskScheduler(options=Options())

    @scheduler.every("1h", overlap="replace", retry=Retry(2, first="10m"))
    async def job(run: RunContext):
        calls.append((stamp(run.due_at), run.attempt))
        if len(calls) == 1:
            await asyncio.sleep(3599)
            raise OSError("the peer is away")

    async with virtual_time(scheduler, store=Slow(tmp_path / "a.db")) as time:
        await time.advance("1h30m")
        assert await fates(time) == ["00:00 cancelled superseded", "01:00 succeeded"]
        assert calls == [("00:00", 1), ("01:00", 1)]


async def test_replace_starts_when_the_old_was_abandoned(scheduler, virtual_time):
    job = stubborn()
    scheduler.add_job(job, Every("1h"), overlap="replace")
    async with virtual_time(scheduler) as time:
        await time.advance("1h1m")
        assert (await fates(time))[0].startswith("00:00 interrupted")
        assert await starts(time) == ["00:00", "01:00:05"]
        job.enough = True
        await time.advance("1s")


async def test_allow_lets_them_run_side_by_side(scheduler, virtual_time):
    scheduler.add_job(lasting(NINETY), Every("1h"), overlap="allow")
    async with virtual_time(scheduler) as time:
        await time.advance("1h")
        assert await fates(time) == ["00:00 running", "01:00 running"]


async def test_a_waiting_retry_is_active_under_skip(scheduler, virtual_time):
    scheduler.add_job(failing(1), Every("1h"), retry=Retry(2, first="90m", max="2h"))
    async with virtual_time(scheduler) as time:
        await time.advance("1h45m")
        assert await fates(time) == ["00:00 succeeded", "01:00 skipped overlap"]


async def test_a_waiting_retry_is_the_one_that_waits_under_queue(scheduler, virtual_time):
    scheduler.add_job(failing(1), Every("1h"), retry=Retry(2, first="90m", max="2h"), overlap="queue")
    async with virtual_time(scheduler) as time:
        await time.advance("1h45m")
        assert await fates(time) == ["00:00 succeeded", "01:00 skipped overlap"]


async def test_a_waiting_retry_gives_way_under_replace(scheduler, virtual_time):
    scheduler.add_job(failing(1), Every("1h"), retry=Retry(2, first="90m", max="2h"), overlap="replace")
    async with virtual_time(scheduler) as time:
        await time.advance("2h")
        assert await fates(time) == ["00:00 cancelled superseded", "01:00 succeeded", "02:00 succeeded"], "it was begun"


async def test_a_fire_that_was_begun_before_a_stop_and_gives_way_after_it_is_cancelled(scheduler, virtual_time):
    """The stop gave its attempt back, so it counted as never begun."""
    scheduler.add_job(
        lasting(90 * 60), Every("1h"), name="job", overlap="replace", on_crash="retry", retry=2, group="one"
    )
    scheduler.add_job(lasting(90 * 60), name="other", group="one", priority=9)
    async with virtual_time(scheduler) as time:
        await time.advance("10m")
        await time.until(scheduler.stop())
        await scheduler.submit("other")
        await time.restart()
        await time.advance("1h")
        assert await fates(time, "job") == ["00:00 cancelled superseded", "01:00 waiting"]
        [attempt] = await scheduler.attempts((await time.runs("job"))[0].id)
        assert attempt.outcome == "shut_down"


async def test_only_runs_of_the_same_schedule_are_in_the_way(scheduler, virtual_time):
    job = scheduler.add_job(lasting(NINETY), Every("1h"), name="job", first="after")
    async with virtual_time(scheduler) as time:
        await scheduler.submit("job")
        await scheduler.schedule(job, Every("1h"), id="other")
        await time.advance("1h")
        assert sorted(run.schedule or "" for run in await time.runs(state="running")) == ["", "job", "other"]


async def test_what_was_submitted_is_never_skipped(scheduler, virtual_time):
    scheduler.add_job(lasting(60), name="job", overlap="skip")
    async with virtual_time(scheduler) as time:
        for _ in range(5):
            await scheduler.submit("job")
        await time.run_until_idle()
        assert [run.state for run in await time.runs()] == [State.SUCCEEDED] * 5


# -- groups, limits, order


async def test_jobs_of_one_group_take_turns(scheduler, virtual_time):
    for name in ("a", "b", "c"):
        scheduler.add_job(lasting(600), Every("1d"), name=name, group="worker")
    async with virtual_time(scheduler) as time:
        await time.run_until_idle()
        assert await starts(time) == ["00:00", "00:10", "00:20"]
        assert {run.state for run in await time.runs()} == {State.SUCCEEDED}


async def test_a_group_has_as_many_places_as_the_options_give_it(virtual_time):
    scheduler = TaskScheduler(options=Options(groups={"worker": 2}))
    scheduler.add_job(lasting(600), name="job", group="worker")
    async with virtual_time(scheduler) as time:
        for _ in range(5):
            await scheduler.submit("job")
        await time.run_until_idle()
        assert await starts(time) == ["00:00", "00:00", "00:10", "00:10", "00:20"]


async def test_a_place_in_the_group_is_waited_for_until_max_late(scheduler, virtual_time):
    scheduler.add_job(lasting(3600), name="long", group="worker")
    scheduler.add_job(
        nothing, Every("1d", anchor=START + timedelta(minutes=1)), name="short", group="worker", max_late="30m"
    )
    async with virtual_time(scheduler) as time:
        await scheduler.submit("long")
        await time.advance("32m")
        assert await fates(time, "short") == ["00:01 skipped group_full"]


async def test_a_group_holds_across_workers(virtual_time, tmp_path):
    first, second = (TaskScheduler(options=Options()) for _ in range(2))
    for scheduler in (first, second):
        scheduler.add_job(lasting(20), name="job", group="worker")
    address = f"sqlite:///{tmp_path}/shared.db"
    async with virtual_time(first, store=address) as time:
        await time.join(second, address)
        for scheduler in (first, second, first):
            await scheduler.submit("job")
        await time.run_until_idle(limit="5m")
        runs = sorted(await time.runs(), key=lambda run: run.started_at)
        assert len(runs) == 3
        assert all(one.ended_at <= other.started_at for one, other in zip(runs, runs[1:], strict=False))


async def test_a_waiting_run_names_the_one_in_its_way(virtual_time, tmp_path):
    first, second = (TaskScheduler(options=Options()) for _ in range(2))
    for scheduler in (first, second):
        scheduler.add_job(lasting(30), name="one", group="worker")
        scheduler.add_job(lasting(30), name="two", group="worker")
        scheduler.add_job(lasting(30), name="alone", max_running=1)
        scheduler.add_job(stubborn(), Every("1m"), name="fires", overlap="queue")
    address = f"sqlite:///{tmp_path}/shared.db"
    async with virtual_time(first, store=address) as time:
        await time.join(second, address)
        ahead = [await first.submit("one"), await first.submit("alone")]
        await time.advance("1s")
        behind = [await second.submit("two"), await second.submit("alone")]
        await time.advance("1s")
        for scheduler in (first, second):
            group, limit = [await scheduler.why(run=run.id) for run in behind]
            assert (group.code, limit.code) == ("group", "max_running")
            assert f"group 'worker' is held by run {ahead[0].id} of 'one'" in group.text
            assert f"max_running is 1, and so many are running: run {ahead[1].id}" in limit.text
        await time.advance("1m")
        [running] = await first.runs("fires", state="running")
        [queued] = await first.runs("fires", state="waiting")
        assert f"run {running.id} of its schedule is still running" in (await second.why(run=queued.id)).text
        for scheduler in (first, second):
            scheduler["fires"].function.enough = True
        await time.advance("2s")


async def test_max_running_of_a_job_holds_for_fires_and_submits(scheduler, virtual_time):
    scheduler.add_job(lasting(600), Every("1d"), name="job", max_running=2)
    async with virtual_time(scheduler) as time:
        for _ in range(3):
            await scheduler.submit("job")
        await time.run_until_idle()
        assert await starts(time) == ["00:00", "00:00", "00:10", "00:10"]


async def test_max_running_of_the_process_holds_for_all(virtual_time):
    scheduler = TaskScheduler(options=Options(max_running=3))
    for number in range(7):
        scheduler.add_job(lasting(600), Every("1d"), name=f"job-{number}")
    async with virtual_time(scheduler) as time:
        await time.run_until_idle()
        assert await starts(time) == ["00:00"] * 3 + ["00:10"] * 3 + ["00:20"]


async def test_the_waiting_start_by_priority_then_by_age(virtual_time):
    scheduler = TaskScheduler(options=Options(max_running=1))
    scheduler.add_job(lasting(60), name="blocker")
    for name, priority in (("low", -5), ("normal", 0), ("high", 10)):
        scheduler.add_job(lasting(1), name=name, priority=priority)
    async with virtual_time(scheduler) as time:
        await scheduler.submit("blocker")
        for name in ("low", "normal", "high", "low", "normal", "high"):
            await scheduler.submit(name)
        await time.run_until_idle()
        runs = sorted(await time.runs(), key=lambda run: run.started_at)
    assert [(run.job, run.id) for run in runs[1:]] == [
        ("high", 4),
        ("high", 7),
        ("normal", 3),
        ("normal", 6),
        ("low", 2),
        ("low", 5),
    ]


async def test_of_fires_due_at_one_instant_those_of_the_highest_priority_have_the_slots_as_foretold(virtual_time):
    scheduler = TaskScheduler(options=Options(max_running=2))
    for name, priority in (("archive", 0), ("mails", 5), ("report", 0), ("sums", 10)):
        scheduler.add_job(lasting(600), Cron("0 2 * * *"), name=name, priority=priority, expect="10m")
    async with virtual_time(scheduler) as time:
        told = await scheduler.simulate("1d")
        await time.advance("3h")
        waited = {run.job for run in await time.runs() if run.started_at > run.due_at}
    assert waited == {one.job for one in told.jobs if one.waits} == {"archive", "report"}


async def test_fires_that_were_missed_begin_by_priority_too(virtual_time):
    scheduler = TaskScheduler(options=Options(max_running=1))
    scheduler.add_job(lasting(600), Cron("0 2 * * *"), name="first")
    scheduler.add_job(lasting(600), Cron("0 3 * * *"), name="urgent", priority=1)
    async with virtual_time(scheduler) as time:
        await time.restart(after="4h")
        await time.run_until_idle()
        runs = sorted(await time.runs(), key=lambda run: run.started_at)
    assert [run.job for run in runs] == ["urgent", "first"]


async def test_of_runs_asked_for_together_that_of_the_highest_priority_has_the_slot(virtual_time):
    scheduler = TaskScheduler(options=Options(max_running=1))
    jobs = [scheduler.add_job(lasting(60), name=f"of-{priority}", priority=priority) for priority in (0, 2, 1)]
    async with virtual_time(scheduler) as time:
        asked = await scheduler.submit_many([job.bind() for job in jobs])
        assert [run.job for run in asked] == ["of-0", "of-2", "of-1"]
        await time.run_until_idle()
        runs = sorted(await time.runs(), key=lambda run: run.started_at)
    assert [run.job for run in runs] == ["of-2", "of-1", "of-0"]


async def test_a_high_priority_that_has_no_place_does_not_hold_up_the_others(virtual_time):
    scheduler = TaskScheduler(options=Options(max_running=2))
    scheduler.add_job(lasting(600), name="full", group="one", priority=10)
    scheduler.add_job(nothing, name="free")
    async with virtual_time(scheduler) as time:
        for name in ("full", "full", "full", "free"):
            await scheduler.submit(name)
        await time.advance("1s")
        assert (await time.runs("free"))[0].state is State.SUCCEEDED


async def test_a_run_that_awaits_another_gives_its_slot_back(virtual_time):
    scheduler = TaskScheduler(options=Options(max_running=1))

    @scheduler.job()
    async def child(number: int) -> int:
        await asyncio.sleep(60)
        return number * 2

    @scheduler.job()
    async def parent() -> int:
        first = await child.submit(1)
        both = await asyncio.gather(first.value(), (await child.submit(2)).value())
        return sum(both)

    async with virtual_time(scheduler) as time:
        run = await parent.submit()
        await time.advance("1h")
        assert await run.value() == 6
        assert [stamp(one.started_at) for one in await time.runs("child")] == ["00:00", "00:01"]


async def test_a_slot_that_was_lent_to_the_last_is_given_back_once(virtual_time):
    """What a job leaves behind waits on for another run, while the job has ended."""
    scheduler, left, going = TaskScheduler(options=Options(max_running=2)), [], [0]
    scheduler.add_job(nothing, name="later")

    async def waits(later, turns):  # some begin to as the end of the job is being written
        for _ in range(turns):
            await asyncio.sleep(0)
        await later.wait()

    @scheduler.job(retry=Retry(2, first=0))
    async def parent(run: RunContext):
        later = await scheduler.submit("later", at="+1d")
        left.extend(asyncio.create_task(waits(later, turns)) for turns in range(6))
        await asyncio.sleep(0)
        if run.attempt == 1:
            raise OSError("once more")

    @scheduler.job()
    async def child():
        going[0] += 1
        assert going[0] <= 2
        await asyncio.sleep(60)
        going[0] -= 1

    async with virtual_time(scheduler) as time:
        for _ in range(3):
            await time.until((await parent.submit()).wait())
        for _ in range(6):
            await child.submit()
        await time.advance("1h")
        await time.advance("1d")
        assert {run.state for run in await time.runs("child")} == {State.SUCCEEDED}
        assert len(left) == 36 and all(task.done() for task in left)
        assert scheduler._slots.free == 2


@pytest.mark.parametrize("attempts", [1, 2], ids=["whose run has ended", "whose run is tried again"])
async def test_what_a_job_left_behind_has_no_slot_to_lend(virtual_time, attempts):
    scheduler, left = TaskScheduler(options=Options(max_running=attempts)), []
    scheduler.add_job(lasting(60), name="child")
    scheduler.add_job(nothing, name="other")

    async def waits_later():
        await asyncio.sleep(1)
        await (await scheduler.submit("child")).wait()

    @scheduler.job(retry=Retry(2, first=0))
    async def parent(run: RunContext):
        if run.attempt == 2:
            await asyncio.sleep(90)
            return
        left.append(asyncio.create_task(waits_later()))
        if attempts == 2:
            raise OSError("once more")

    async with virtual_time(scheduler) as time:
        await parent.submit()
        await time.advance("2s")
        other = await scheduler.submit("other")
        await time.advance("3m")
        assert stamp((await scheduler.run(other.id)).started_at) == "00:01:01"
        await asyncio.gather(*left)


async def test_a_slot_given_back_is_taken_again_when_the_wait_is_over(virtual_time):
    """The parent goes on at once, beside the one that got its slot; nothing else starts until both slots are free."""
    scheduler = TaskScheduler(options=Options(max_running=1))

    @scheduler.job()
    async def parent():
        await (await scheduler.submit("child")).wait()
        await asyncio.sleep(60)

    scheduler.add_job(lasting(60), name="child")
    scheduler.add_job(lasting(30), name="other")
    async with virtual_time(scheduler) as time:
        await parent.submit()
        for _ in range(3):
            await scheduler.submit("other")
        await time.run_until_idle()
        assert await starts(time, "parent") == ["00:00"]
        spans = [(run.started_at, run.ended_at) for run in await time.runs() if run.job != "parent"]
        assert all(one[1] <= other[0] or other[1] <= one[0] for one in spans for other in spans if one is not other)
        assert len(spans) == 4
        assert await starts(time, "child") == ["00:00"]
        assert await starts(time, "other") == ["00:01", "00:02", "00:02:30"]
