"""Hosts whose tasks begin as they are made, by asyncio's `eager_task_factory` or what somebody has wrapped around it."""

from __future__ import annotations

import asyncio
import sys

import pytest

from taskloop import Inject, Options, RunContext, State, TaskScheduler

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(sys.version_info < (3, 12), reason="there are such tasks from Python 3.12 on"),
]


def wrapped(loop, coroutine, **more):
    return asyncio.eager_task_factory(loop, coroutine, **more)


@pytest.fixture(autouse=True, params=["as it is", "wrapped"])
async def eager(request):
    loop = asyncio.get_running_loop()
    loop.set_task_factory(wrapped if request.param == "wrapped" else asyncio.eager_task_factory)
    yield
    loop.set_task_factory(None)


async def test_the_scheduler_fires_and_stops_as_anywhere(scheduler, lines):
    fired = asyncio.Event()

    @scheduler.every("1h")
    async def tick() -> None:
        fired.set()

    async with scheduler:
        await asyncio.wait_for(fired.wait(), 10)
        factory = asyncio.get_running_loop().get_task_factory()
    assert "scheduler.died" not in lines and factory in (wrapped, asyncio.eager_task_factory)


async def test_a_job_that_cancels_itself_before_its_first_wait_is_cancelled(scheduler):
    @scheduler.job()
    async def last(run: RunContext) -> None:
        await scheduler.cancel(run.id, reason="enough", actor="itself")
        await asyncio.sleep(60)

    async with scheduler:
        run = await (await last.submit()).wait(10)
    assert (run.state, run.reason) == (State.CANCELLED, "enough")


async def test_of_runs_that_are_launched_together_none_takes_the_slot_of_another_for_what_it_asks_for(tmp_path):
    """Four ran where three were allowed."""
    scheduler = TaskScheduler(tmp_path / "a.db", options=Options(max_running=3))
    free = []

    @scheduler.job()
    async def child() -> None:
        free.append(scheduler._slots.free)
        await asyncio.sleep(0.02)

    @scheduler.job()
    async def parent() -> None:
        await (await child.submit()).wait()

    async with scheduler:
        for _ in range(3):
            for run in await scheduler.submit_many([parent.bind()] * 3):
                await scheduler.wait(run.id)
    assert len(free) == 9 and min(free) == 0


async def test_a_run_is_told_as_started_before_its_job_is_called(scheduler):
    told = []
    scheduler.feed.subscribe(lambda event: told.append(event.name), "started")

    @scheduler.job()
    async def work() -> None:
        told.append("called")

    async with scheduler:
        await (await work.submit()).wait(10)
    assert told == ["started", "called"]


async def test_a_job_that_waits_for_itself_is_told_so(scheduler):
    @scheduler.job()
    async def selfish(run: RunContext) -> None:
        await scheduler.wait(run.id)

    async with scheduler:
        run = await (await selfish.submit()).wait(10)
    assert run.state is State.FAILED and "would wait for its own end" in run.error.message


async def test_a_timeout_holds_for_what_is_injected_too(scheduler):
    async def hanging() -> None:
        await asyncio.sleep(60)

    @scheduler.job(timeout="50ms")
    def work(value: None = Inject(hanging)) -> None: ...

    async with scheduler:
        run = await (await work.submit()).wait(10)
    assert (run.state, run.error.type) == (State.FAILED, "Timeout")


async def test_virtual_time_passes_there_too(scheduler, virtual_time):
    @scheduler.every("1h")
    async def tick() -> None: ...

    async with virtual_time(scheduler) as time:
        await time.advance("1d")
        await time.crash()
        await time.restart(after="1h")
        await time.advance("1d")
        assert len(await time.runs(tick, state=["succeeded"])) >= 48
