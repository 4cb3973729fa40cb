"""Events: what is told, when, and that no listener ever touches a run."""

from __future__ import annotations

import asyncio
import dataclasses
import threading

import pytest
from stories import failing, lasting, nothing, stamp

from taskloop import Every, Retry, RunContext, State
from taskloop.errors import BadValue

pytestmark = pytest.mark.anyio


@pytest.fixture
def heard(scheduler):
    """Every event, as its name and its job."""
    events = []

    @scheduler.on()
    async def hear(event):
        events.append(event)

    return events


def names(events):
    return [event.name for event in events]


async def test_a_run_is_submitted_started_and_succeeded(scheduler, virtual_time, heard):
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler) as time:
        run = await scheduler.submit("job")
        await time.run_until_idle()
    assert names(heard) == ["submitted", "started", "succeeded"]
    assert {(event.run.id, event.job) for event in heard} == {(run.id, "job")}
    assert heard[-1].run.state is State.SUCCEEDED


async def test_a_retry_is_told_with_its_error_and_the_end_with_the_last(scheduler, virtual_time, heard):
    scheduler.add_job(failing(9), name="job", retry=Retry(2, first="1m"))
    async with virtual_time(scheduler) as time:
        await scheduler.submit("job")
        await time.run_until_idle()
    assert names(heard) == ["submitted", "started", "retrying", "started", "failed"]
    assert heard[2].run.error.type == "OSError"
    assert [stamp(event.at) for event in heard] == ["00:00", "00:00", "00:00", "00:01", "00:01"]


async def test_a_retry_is_told_at_the_instant_its_attempt_ended(scheduler, virtual_time, heard):
    async def slow():
        await asyncio.sleep(600)
        raise OSError("no answer")

    scheduler.add_job(slow, name="job", retry=Retry(2, first="1m"))
    async with virtual_time(scheduler) as time:
        await scheduler.submit("job")
        await time.run_until_idle()
    assert [(event.name, stamp(event.at)) for event in heard] == [
        ("submitted", "00:00"), ("started", "00:00"), ("retrying", "00:10"), ("started", "00:11"), ("failed", "00:21")
    ]  # fmt: skip


async def test_what_a_dead_worker_left_is_told_at_the_instant_it_was_found(scheduler, virtual_time, heard):
    scheduler.add_job(lasting(5400), name="job", retry=2)
    async with virtual_time(scheduler) as time:
        await scheduler.submit("job")
        await time.advance("10m")
        await time.crash()
        await time.restart(after="20m")
        await time.advance("1m")
        told = [(event.name, stamp(event.at)) for event in heard[2:]]
    assert told == [("recovered", "00:30"), ("retrying", "00:30"), ("started", "00:30")]


async def test_skips_cancels_and_switches_are_told(scheduler, virtual_time, heard):
    scheduler.add_job(lasting(5400), Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("1h")
        await scheduler.cancel(1, actor="ann")
        await time.advance("1m")
        await scheduler.disable("job", reason="why")
        await scheduler.enable("job")
        await scheduler.pause("job")
        await scheduler.resume("job")
        await scheduler.pause()
        await time.advance(0)
    assert names(heard) == ["started", "skipped", "cancelled", "disabled", "enabled", "paused", "resumed", "paused"]
    assert [event.job for event in heard[-5:]] == ["job"] * 4 + [None]
    assert heard[3].data["reason"] == "why"


async def test_a_crash_is_told_as_recovered_and_interrupted(scheduler, virtual_time, heard):
    scheduler.add_job(lasting(600), Every("1d"), name="job")
    async with virtual_time(scheduler) as time:
        await time.crash()
        heard.clear()
        await time.restart()
        await time.advance(0)
    assert names(heard) == ["recovered", "interrupted"]


async def test_progress_is_told(scheduler, virtual_time, heard):
    @scheduler.job()
    async def job(run: RunContext):
        run.progress(1, 2)
        await asyncio.sleep(2)

    async with virtual_time(scheduler) as time:
        await job.submit()
        await time.run_until_idle()
    assert names(heard) == ["submitted", "started", "progress", "succeeded"]


async def test_only_the_named_events_are_heard_and_a_wrong_name_is_refused(scheduler, virtual_time):
    events = []
    scheduler.on("failed", "succeeded")(events.append)
    with pytest.raises(BadValue, match="did you mean 'failed'"):
        scheduler.on("faild")(events.append)
    scheduler.add_job(failing(1), Every("1h"))
    async with virtual_time(scheduler) as time:
        await time.advance("1h")
        await time.advance(0)
    assert names(events) == ["failed", "succeeded"]


async def test_an_event_cannot_be_changed(scheduler, virtual_time, heard):
    scheduler.add_job(nothing, Every("1h"))
    async with virtual_time(scheduler) as time:
        await time.advance(0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        heard[0].name = "other"


async def test_a_listener_that_fails_touches_no_run_and_no_other_listener(scheduler, virtual_time, heard, lines):
    @scheduler.on("started", "succeeded")
    def fails(event):
        raise ZeroDivisionError

    @scheduler.on("started", "succeeded")
    async def fails_too(event):
        raise SystemError

    scheduler.add_job(nothing, Every("1h"))
    async with virtual_time(scheduler) as time:
        await time.advance("1h")
        assert [run.state for run in await time.runs()] == [State.SUCCEEDED] * 2
    assert names(heard) == ["started", "succeeded"] * 2
    assert lines.count("listener.failed") == 8


async def test_a_listener_that_hangs_delays_nobody_and_is_given_up(scheduler, virtual_time, lines):
    @scheduler.on("started")
    async def hangs(event):
        await asyncio.Event().wait()

    scheduler.add_job(lasting(1), Every("1h"))
    async with virtual_time(scheduler) as time:
        await time.advance("1m")
        assert [stamp(run.ended_at) for run in await time.runs()] == ["00:00:01"]
    assert "listener.failed" in lines


def test_a_listener_that_exits_ends_nothing(scheduler, virtual_time):
    """Foreign code: what would end a process ends its call alone."""

    @scheduler.on("started")
    async def exits(event):
        raise SystemExit(3)

    @scheduler.on("started")
    def exits_too(event):
        raise SystemExit(3)

    async def story():
        scheduler.add_job(nothing, Every("1h"))
        async with virtual_time(scheduler) as time:
            await time.advance("2h")
            return [run.state for run in await time.runs()]

    try:
        assert asyncio.run(story()) == [State.SUCCEEDED] * 3
    except SystemExit:
        pytest.fail("a listener ended the loop of its host")


async def test_a_plain_listener_is_called_off_the_loop(scheduler, virtual_time):
    threads = []

    @scheduler.on("succeeded")
    def listener(event):
        threads.append(threading.current_thread())

    scheduler.add_job(nothing, Every("1h"))
    async with virtual_time(scheduler) as time:
        await time.advance(0)
    assert threads != []
    assert threading.current_thread() not in threads


async def test_a_listener_may_ask_for_runs(scheduler, virtual_time):
    scheduler.add_job(nothing, name="after")
    scheduler.add_job(failing(1), Every("1d"), name="fails")

    @scheduler.on("failed")
    async def alarm(event):
        await scheduler.submit("after")

    async with virtual_time(scheduler) as time:
        await time.advance("1s")
        assert [run.state for run in await time.runs("after")] == [State.SUCCEEDED]


async def test_an_event_is_told_once_where_it_happened(virtual_time, tmp_path):
    from taskloop import Options, TaskScheduler

    first, second = TaskScheduler(options=Options()), TaskScheduler(options=Options(enabled=False))
    events = {first: [], second: []}
    for scheduler, list_ in events.items():
        scheduler.add_job(nothing, Every("1d"), name="job")
        scheduler.feed.subscribe(list_.append)
    address = f"sqlite:///{tmp_path}/shared.db"
    async with virtual_time(first, store=address) as time:
        await time.join(second, address)
        await time.advance("5s")
        assert names(events[first]) == ["started", "succeeded"]
        assert names(events[second]) == []


async def test_a_plain_listener_that_cannot_keep_up_is_told_a_thousand_and_no_more(scheduler, virtual_time, lines):
    enough, heard = threading.Event(), []

    @scheduler.on("started")
    def slow(event):
        enough.wait(10)
        heard.append(event.run.id)

    job = scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler, patience="50ms") as time:
        await scheduler.submit_many([job.bind() for _ in range(1005)])
        await time.advance("1s")
        enough.set()
        while scheduler.in_flight:
            await time.advance(0)
    assert len(set(heard)) == len(heard) == 1000
    assert lines.count("listener.failed") == 5
