"""The log of a run: what its job says there, and what it says to the loggers of the host."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import threading
from contextlib import suppress
from contextvars import copy_context
from datetime import UTC, datetime
from unittest.mock import MagicMock

import pytest
from loguru import logger as loguru_logger
from stories import nothing

from taskloop import Options, RunContext, TaskScheduler, current_run, runlog
from taskloop.capture import attach
from taskloop.context import running
from taskloop.errors import BadValue, NoSuchRun
from taskloop.runlog import FULL, LINE_CHARACTERS, RunLog
from taskloop.testing import run_context

pytestmark = pytest.mark.anyio

FLOOD = 1_000_000 if os.environ.get("FULL") == "1" else 400_000


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
        with pytest.raises(BadValue, match="log level is 'loud'; allowed are debug, info"):
            run.log("x", "loud")
        run.log(Hostile())
        run.log("nul \0 and \ud800")
        run.log("x" * 10_000, "WARNING")

    async with virtual_time(scheduler) as time:
        run = await ended(time, job.submit())
        assert run.state == "succeeded"
        (_, hostile), (_, odd), (level, long) = await told(scheduler, run.id)
        assert level == "warning"
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
        lines = [text for _, text in await told(scheduler, run.id)]
        [notice] = [place for place, text in enumerate(lines) if "left out" in text]
        first, last = lines[:notice], lines[notice + 1 :]
        assert first == [f"line {number:03}" for number in range(len(first))] and 15 < len(first) < 20
        assert last == [f"line {number:03}" for number in range(100 - len(last), 100)] and last
        assert lines[notice] == f"{100 - len(first) - len(last)} lines left out: more than the log of a run may hold"


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
    """By the real clock: five reports a line from a thread, beside a job that is due every tenth second."""
    scheduler = TaskScheduler(tmp_path / "flood.db", options=Options())
    lateness: list[float] = []

    @scheduler.job()
    def flood(run: RunContext) -> None:
        log = logging.getLogger("flood")
        for number in range(FLOOD):
            run.progress(number, FLOOD, "on and on")
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
    assert run.state == "succeeded" and run.progress.done == FLOOD - 1
    lateness.sort()
    assert len(lateness) > 10 and lateness[len(lateness) * 9 // 10] < 0.5, lateness[-10:]
    lines = (await scheduler.log(run.id, limit=10_000)).lines
    await scheduler.close()
    dropped = sum(int(one.text.split()[0]) for one in lines if one.text.endswith("may hold"))
    kept = sum(one.text.startswith("line") for one in lines)
    assert kept + dropped == FLOOD // 5 and kept > 500
    assert lines[0].text == "line 0" and lines[-1].text == f"line {FLOOD - 5}", "the first, and the last"
    assert size < 1_000_000, "with the tables, and all that was written meanwhile"


# -- how much is kept


def run_log(room, **more):
    return RunLog(room, lambda: datetime.now(UTC), more.pop("wake", lambda: None), **more)


def test_a_log_that_is_full_says_so_once_however_long_it_goes_on_and_at_the_end_how_much_is_missing():
    log, taken = run_log(10_000), []
    for number in range(5_000):
        log.add("info", f"{number:06}" + "x" * 54)
        if number % 100 == 99:
            taken += [line.text[:6] if line.text != FULL else FULL for line in log.take()]
    first, last = [text for text in taken if text != FULL], [line.text for line in log.end()]
    assert taken == [*(f"{number:06}" for number in range(len(first))), FULL] and len(first) > 50
    missing = 5_000 - len(first) - len(last) + 1
    assert last[0] == f"{missing} lines left out: more than the log of a run may hold"
    assert [text[:6] for text in last[1:]] == [f"{number:06}" for number in range(5_001 - len(last), 5_000)]
    log.add("info", "after the end")
    assert not log and not log.end()


def test_who_writes_is_woken_when_there_is_something_to_write_and_not_by_what_waits_for_the_end():
    woken = []
    log = run_log(1_000, wake=lambda: woken.append(1))
    for _ in range(1_000):
        log.add("info", "text")
    assert len(woken) == 1
    log.take()
    log.add("info", "text")
    assert len(woken) == 1 and not log


@pytest.mark.parametrize("text", ["", "é" * 1_000, "\x01" * 4_000, "x" * 4_000, "x" * 1_000_000], ids=len)
def test_no_text_takes_more_room_than_there_is(text):
    log = run_log(50_000)
    for _ in range(5_000):
        log.add("critical", text)
    lines = [*log.take(), *log.end()]
    assert lines and sum(len(line.text) for line in lines) < 50_200 and len(lines) < 1_300


def test_lines_that_could_not_be_written_come_again_before_what_came_since():
    log = run_log(10_000)
    log.add("info", "one")
    lines = log.take()
    log.add("info", "two")
    log.give_back(lines)
    assert [line.text for line in log.end()] == ["one", "two"]


def test_a_text_is_masked_before_it_is_cut():
    log = run_log(100_000, scrub=lambda text: text.replace("s3cret", "***"))
    log.add("info", "x" * (LINE_CHARACTERS // 2 - 3) + "s3cret" + "y" * LINE_CHARACTERS)
    [line] = log.take()
    assert "s3c" not in line.text and "ret" not in line.text and "***" in line.text


def test_a_forked_process_says_nothing_in_the_log_of_its_parent_and_waits_for_no_lock():
    log = run_log(1_000)
    with runlog._guard.lock:
        child = os.fork()
        if child == 0:
            thread = threading.Thread(target=log.add, args=("info", "from the child"), daemon=True)
            thread.start()
            thread.join(5)
            os._exit(7 if log._lines or thread.is_alive() else 0)
        assert os.waitpid(child, 0)[1] == 0


# -- what the host does with its logging


@pytest.fixture
def loud():
    """A logger of the host's that lets INFO through and writes nowhere."""
    found = logging.getLogger("shop")
    found.setLevel("INFO")
    found.propagate = False
    yield found
    found.propagate = True
    found.setLevel(logging.NOTSET)


@pytest.fixture
def sink():
    """loguru as a host has it, at INFO; gives what it wrote."""
    written = []
    loguru_logger.remove()
    loguru_logger.add(lambda message: written.append(str(message).strip()), level="INFO", format="{message}")
    yield written
    loguru_logger.remove()
    loguru_logger.add(sys.stderr)


async def lines_of(scheduler, virtual_time, function):
    """The texts that one run of `function` leaves."""
    job = scheduler.add_job(function, name="tested")
    async with virtual_time(scheduler) as time:
        run = await ended(time, scheduler.submit(job))
        assert run.state == "succeeded"
        return [text for _, text in await told(scheduler, run.id)]


async def test_a_record_that_the_host_hands_from_logging_to_loguru_is_one_line(scheduler, virtual_time, loud, sink):
    class ToLoguru(logging.Handler):
        def emit(self, record):
            loguru_logger.opt(depth=6, exception=record.exc_info).log(record.levelname, record.getMessage())

    async def job():
        loud.info("same")
        loud.info("same")

    handler = ToLoguru()
    loud.addHandler(handler)
    try:
        assert await lines_of(scheduler, virtual_time, job) == ["same", "same"]
    finally:
        loud.removeHandler(handler)
    assert sink.count("same") == 2


async def test_a_record_of_loguru_that_goes_on_to_logging_is_one_line(scheduler, virtual_time, loud, sink):
    handler = logging.NullHandler()
    handler.handle = lambda record: None
    loguru_logger.add(handler, format="{message}")

    async def job():
        loguru_logger.info("same")
        loguru_logger.info("same")

    assert await lines_of(scheduler, virtual_time, job) == ["same", "same"]


async def test_the_log_of_a_run_that_takes_the_place_of_another_in_memory_is_not_that_one(loud, sink):
    context, heard = run_context(), []
    release, token = attach(), running.set(context)
    try:
        for library in [loud, loguru_logger] * 10:
            context.lines = None
            context.lines = run_log(1_000)
            library.info("same")
            heard += [line.text for line in context.lines.end()]
    finally:
        running.reset(token)
        release()
    assert heard == ["same"] * 20


async def test_a_host_that_removes_all_sinks_of_loguru_is_heard_again_from_the_next_run_on(
    scheduler, virtual_time, sink
):
    @scheduler.job()
    async def job() -> None:
        loguru_logger.info("text")

    async with virtual_time(scheduler) as time:
        loguru_logger.remove()
        loguru_logger.add(sink.append, level="INFO")
        run = await ended(time, job.submit())
        assert await told(scheduler, run.id) == [("info", "text")]


async def test_a_logger_that_a_host_has_replaced_for_a_test_fails_no_run(scheduler, virtual_time, monkeypatch):
    scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler) as time:
        monkeypatch.setattr("loguru.logger", MagicMock())
        run = await time.until((await scheduler.submit("job")).wait())
        monkeypatch.undo()
        assert run.state == "succeeded"


async def test_a_factory_that_others_put_in_front_stays_and_hears_each_record_once(scheduler, virtual_time, loud):
    before = logging.getLogRecordFactory()

    async def job():
        inner = logging.getLogRecordFactory()
        logging.setLogRecordFactory(lambda *given, **named: inner(*given, **named))
        loud.info("text")

    try:
        assert await lines_of(scheduler, virtual_time, job) == ["text"]
    finally:
        logging.setLogRecordFactory(before)


async def test_records_that_make_trouble_make_none_for_their_job(scheduler, virtual_time, loud, capfd):
    class Chatty:
        def __str__(self):
            loud.warning("and I")
            return "chatty"

    async def job():
        with suppress(TypeError):  # raised by the handler of pytest; those of logging print it
            loud.error("%d pages", "no")
        loud.error("%s", Chatty())
        assert logging.makeLogRecord({"msg": "received", "levelno": 20}).getMessage() == "received"

    lines = await lines_of(scheduler, virtual_time, job)
    assert lines[:2] == ["%d pages ('no',)", "chatty"]
    assert set(lines[2:]) <= {"and I"}, "once more, by each handler that makes the text again"


def test_a_program_that_configured_nothing_still_hears_its_warnings_and_configures_later(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(UNCONFIGURED)
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, check=True, timeout=30)
    assert done.stderr == "look out\nconfigured: and this\n"
    assert done.stdout == "['look out', 'and this']\n"


UNCONFIGURED = """
import asyncio, logging
from taskloop import TaskScheduler
scheduler = TaskScheduler("sqlite:///:memory:")
@scheduler.job()
async def job():
    logging.getLogger("shop").warning("look out")
    logging.basicConfig(format="configured: %(message)s", level="INFO")
    logging.getLogger("shop").info("and this")
async def main():
    async with scheduler:
        run = await (await job.submit()).wait()
        print([line.text for line in (await scheduler.log(run.id)).lines])
asyncio.run(main())
"""
