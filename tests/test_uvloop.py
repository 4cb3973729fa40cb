"""A scheduler on uvloop, which servers take where it is installed: its timers, threads, processes and its end.

The time is real: uvloop keeps it where no test can reach it.
"""

from __future__ import annotations

import asyncio
import os
import time

import pytest
import uvloop
from process_jobs import jobs as elsewhere

from taskloop import Options, Retry, State, TaskScheduler

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def scheduler(tmp_path):
    return TaskScheduler(tmp_path / "app.db", options=Options(), jobs=[elsewhere])


async def test_it_wakes_for_what_is_due_in_less_time_than_its_timers_can_tell(scheduler, lines):
    """Such a timer is none: uvloop calls at once, and its handle does not know when."""
    assert "uvloop" in type(asyncio.get_running_loop()).__module__

    @scheduler.job()
    async def soon() -> None: ...

    async with scheduler:
        for tenths in range(60):
            handle = await soon.bind().submit(at=f"+{tenths / 10}ms")
            assert (await handle.wait(timeout=5)).state is State.SUCCEEDED
    assert "tick.failed" not in lines


def test_it_fires_retries_calls_threads_and_processes_and_ends_what_takes_too_long(scheduler):
    fired, tried = [], []

    @scheduler.every("1s")
    async def tick() -> None:
        fired.append(time.monotonic())

    @scheduler.job()
    def in_a_thread() -> int:
        return os.getpid()

    @scheduler.job(retry=Retry(2, first="20ms", jitter=0))
    async def at_the_second_try() -> None:
        tried.append(1)
        if len(tried) < 2:
            raise ValueError("not yet")

    @scheduler.job(timeout="50ms")
    async def endless() -> None:
        await asyncio.sleep(100)

    async def main() -> None:
        async with scheduler:
            asked = [await scheduler.submit(name) for name in ("in_a_thread", "at_the_second_try", "endless", "pid")]
            runs = [await one.wait(timeout=30) for one in asked]
            assert [one.state for one in runs] == [State.SUCCEEDED, State.SUCCEEDED, State.FAILED, State.SUCCEEDED]
            assert (
                runs[0].result == os.getpid() != runs[3].result and runs[2].error.type == "Timeout" and len(tried) == 2
            )
            async with asyncio.timeout(10):
                while len(fired) < 3:
                    await asyncio.sleep(0.05)
            lasting = await scheduler.submit("endless")
            await scheduler.stop(grace=0)
            assert (await scheduler.run(lasting.id)).state is not State.RUNNING

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # its own, for the processes stay as long as it
        runner.run(main())
    assert [round(later - before) for before, later in zip(fired, fired[1:], strict=False)] == [1] * (len(fired) - 1)
