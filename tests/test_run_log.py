"""The log of a run: what its job says there, and what it says to the loggers of the host."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from contextvars import copy_context

import pytest
from loguru import logger as loguru_logger

from taskloop import Options, RunContext, TaskScheduler, current_run
from taskloop.errors import NoSuchRun

pytestmark = pytest.mark.anyio


async def told(scheduler, run_id):
    return [(line.level, line.text) for line in (await scheduler.log(run_id)).lines]


async def ended(time, asking):
    return await time.until((await asking).wait())


async def test_what_a_job_logs_is_kept_with_its_run_in_order(scheduler, virtual_time):
    @scheduler.job()
    async def job(run: RunContext) -> None:
        run.log("begun")
        await asyncio.sleep(60)
        run.log("half", "warning")
        await asyncio.sleep(60)
        run.log({"rows": 3}, level="debug")

    async with virtual_time(scheduler) as time:
        begun = time.now
        handle = await job.submit()
        await time.advance("70s")
        assert await told(scheduler, handle.id) == [("info", "begun"), ("warning", "half")], "while it runs"
        await time.advance("70s")
        found = await scheduler.log(handle.id)
        assert [line.text for line in found.lines] == ["begun", "half", "{'rows': 3}"]
        assert [(line.at - begun).total_seconds() for line in found.lines] == [0, 60, 120]
        assert (await scheduler.log(handle.id, after=found.part)).lines == []
        with pytest.raises(NoSuchRun):
            await scheduler.log(999)


async def test_a_level_that_is_none_is_refused_and_any_object_is_a_text(scheduler, virtual_time):
    class Hostile:
        def __str__(self):
            raise SystemExit("no")

    @scheduler.job()
    async def job(run: RunContext) -> None:
        with pytest.raises(ValueError, match="log level is 'loud'; allowed are debug, info"):
            run.log("x", "loud")
        run.log(Hostile())
        run.log("nul \0 and \ud800")
        run.log("x" * 10_000)

    async with virtual_time(scheduler) as time:
        run = await ended(time, job.submit())
        assert run.state == "succeeded"
        hostile, odd, long = [text for _, text in await told(scheduler, run.id)]
        assert hostile == "(its text could not be made: SystemExit)" and odd == "nul � and ?"
        assert "characters left out" in long and len(long) < 4_100


async def test_records_of_logging_and_loguru_belong_to_the_run_that_makes_them_in_threads_too(scheduler, virtual_time):
    log = logging.getLogger("shop.orders")

    def deeper():
        log.warning("from a thread of its own")
        current_run().log("found from deep down")

    @scheduler.job()
    async def on_loop() -> None:
        log.warning("order %d is late", 7)
        loguru_logger.warning("by {}", "loguru")
        await asyncio.to_thread(deeper)
        try:
            raise OSError("gone")
        except OSError:
            log.exception("it failed")

    @scheduler.job()
    def in_thread() -> None:
        log.error("from a thread of ours")
        thread = threading.Thread(target=copy_context().run, args=(deeper,))
        thread.start()
        thread.join()

    logging.getLogger("shop").warning("before: of nobody")
    async with virtual_time(scheduler) as time:
        one, two = await ended(time, on_loop.submit()), await ended(time, in_thread.submit())
        log.warning("between runs: of nobody")
        lines = await told(scheduler, one.id)
        assert lines[:4] == [
            ("warning", "order 7 is late"), ("warning", "by loguru"), ("warning", "from a thread of its own"),
            ("info", "found from deep down")
        ]  # fmt: skip
        assert (
            lines[4][0] == "error" and lines[4][1].startswith("it failed\nTraceback") and "OSError: gone" in lines[4][1]
        )
        assert await told(scheduler, two.id) == [
            ("error", "from a thread of ours"), ("warning", "from a thread of its own"), ("info", "found from deep down")
        ]  # fmt: skip


async def test_the_logging_of_the_host_is_left_as_it_was(virtual_time, capsys):
    root = logging.getLogger()
    before = (logging.getLogRecordFactory(), list(root.handlers), root.level)
    scheduler = TaskScheduler(options=Options())

    @scheduler.job()
    async def job() -> None:
        assert (list(root.handlers), root.level) == before[1:]
        logging.getLogger("quiet").debug("below the level of the host")

    async with virtual_time(scheduler) as time:
        run = await ended(time, job.submit())
        assert await told(scheduler, run.id) == []
    assert (logging.getLogRecordFactory(), list(root.handlers), root.level) == before


async def test_of_two_schedulers_the_last_to_stop_ends_the_capture(tmp_path):
    factory = logging.getLogRecordFactory()
    one, two = (TaskScheduler(tmp_path / f"{name}.db", options=Options()) for name in "ab")
    await one.start()
    await two.start()
    await one.stop()
    assert logging.getLogRecordFactory() is not factory
    await two.stop()
    assert logging.getLogRecordFactory() is factory


async def test_what_taskloop_says_about_a_run_is_not_in_its_log(virtual_time):
    scheduler = TaskScheduler(options=Options())

    @scheduler.job()
    async def inner() -> None:
        raise ValueError("told by the host's log: run.failed")

    @scheduler.job()
    async def outer() -> None:
        await (await inner.submit()).wait()

    async with virtual_time(scheduler) as time:
        run = await ended(time, outer.submit())
        assert await told(scheduler, run.id) == []


async def test_a_log_ends_where_there_is_no_room_and_says_how_much_was_left_out(virtual_time):
    scheduler = TaskScheduler(options=Options(capture=1_000))

    @scheduler.job()
    async def job(run: RunContext) -> None:
        for number in range(100):
            run.log(f"line {number:03}")

    async with virtual_time(scheduler) as time:
        run = await ended(time, job.submit())
        lines = await told(scheduler, run.id)
        assert 15 < len(lines) < 25
        assert lines[-1] == ("warning", f"{101 - len(lines)} lines left out: more than the log of a run may hold")


async def test_with_capture_off_nothing_is_kept(virtual_time):
    scheduler = TaskScheduler(options=Options(capture=0))
    factory = logging.getLogRecordFactory()

    @scheduler.job()
    async def job(run: RunContext) -> None:
        run.log("nobody hears")
        assert logging.getLogRecordFactory() is factory

    async with virtual_time(scheduler) as time:
        run = await ended(time, job.submit())
        assert run.state == "succeeded" and await told(scheduler, run.id) == []


async def test_the_lines_of_all_attempts_are_there_and_those_of_steps_name_them(scheduler, virtual_time):
    @scheduler.job(retry=2)
    async def job(run: RunContext) -> None:
        def load() -> None:
            logging.getLogger("x").warning("loading")

        run.log(f"attempt {run.attempt}")
        if run.attempt == 1:
            await run.step("load", load)
            raise OSError

    async with virtual_time(scheduler) as time:
        run = await ended(time, job.submit())
        lines = (await scheduler.log(run.id)).lines
        assert [(line.text, line.step) for line in lines] == [
            ("attempt 1", None), ("loading", "load"), ("attempt 2", None)
        ]  # fmt: skip


async def test_a_flood_of_lines_and_of_progress_costs_neither_the_store_nor_the_job_beside_it(tmp_path):
    """By the real clock: a million reports and 200,000 lines from a thread, beside a job that is due every tenth second."""
    scheduler = TaskScheduler(tmp_path / "flood.db", options=Options())
    lateness: list[float] = []

    @scheduler.job()
    def flood(run: RunContext) -> None:
        log = logging.getLogger("flood")
        for number in range(1_000_000):
            run.progress(number, 1_000_000, "on and on")
            if number % 10 == 0:
                run.log(f"line {number}")
            if number % 10 == 5:
                log.error("line %d", number)

    @scheduler.every("100ms", overlap="allow")
    async def healthy(run: RunContext) -> None:
        lateness.append((scheduler._clock.now() - run.due_at).total_seconds())

    log = logging.getLogger("flood")
    log.propagate, log.handlers = False, [logging.NullHandler()]
    async with scheduler:
        run = await (await flood.submit()).wait()
    size = sum((tmp_path / name).stat().st_size for name in os.listdir(tmp_path))
    assert run.state == "succeeded" and run.progress.done == 999_999
    lateness.sort()
    assert len(lateness) > 10 and lateness[len(lateness) * 9 // 10] < 0.5, lateness[-10:]
    lines = (await scheduler.log(run.id, limit=1000)).lines
    await scheduler.close()
    dropped = sum(int(one.text.split()[0]) for one in lines if "left out" in one.text)
    kept = sum("left out" not in one.text for one in lines)
    assert kept + dropped == 200_000 and kept > 500
    assert size < 1_000_000, "with the tables, and all that was written meanwhile"
