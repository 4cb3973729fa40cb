"""What a newcomer meets in the first hour: an empty folder, a pause that was forgotten, jobs that nobody has any more."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import call as call
from command_line import nothing_blocks_the_loop as nothing_blocks_the_loop
from command_line import shop as shop

from taskloop import Every, Options, TaskScheduler
from taskloop.errors import BadParameters


def test_a_pause_of_everything_says_until_when_and_what_ends_it(shop, call):
    assert " until " in call("disable", "nightly", "--until", "+2h").out
    assert " until " in call("pause", "--until", "+1h").out
    assert ", until " in call("status").out
    for command in ("resume", "enable"):
        done = call(command, "add")
        assert done.code == 0 and "`taskloop resume` ends that" in done.err
    assert "ends that" not in call("resume").err


def test_a_list_that_is_empty_or_cut_says_so(shop, call):
    assert call("once", "add", "a=1").code == 0
    none = call("runs", "--state", "failed")
    assert (none.code, none.out) == (0, "") and "no such run" in none.err
    assert call("schedule", "add", "add", "a=1", "--every", "1m").code == 0
    cut = call("next", "--for", "1h", "--limit", "5")
    assert len(cut.out.splitlines()) == 6 and "--limit 25" in cut.err
    assert call("next", "--for", "3m", "--limit", "5").err == ""


def test_a_complaint_reads_as_a_sentence():
    assert "parameter 'a': input should be" in str(BadParameters("add", {"a": "input should be a valid integer"}))
    assert "parameter 'a' is missing" in str(BadParameters("add", {"a": "is missing"}))


@pytest.mark.anyio
async def test_of_jobs_that_no_worker_has_any_more_only_those_that_were_at_work_need_a_person(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/shared.db"
    before, after = TaskScheduler(options=Options()), TaskScheduler(options=Options())
    before.add_job(work, Every("1h"), name="at_work")
    before.add_job(work, name="switched_off", enabled=False)
    before.add_job(work, name="never_asked_for")
    async with virtual_time(before, store=address):
        pass
    async with virtual_time(after, store=address):
        assert {one.condition for one in await after.jobs()} == {"orphan"}
        assert [one["job"] for one in (await after.status()).attention] == ["at_work"]


def work() -> None: ...


@pytest.mark.anyio
@pytest.mark.parametrize("executor", ["thread", "loop"])
async def test_a_traceback_begins_with_the_lines_of_the_job(virtual_time, executor):
    scheduler = TaskScheduler("sqlite:///:memory:")

    async def waits() -> None:
        raise ValueError("no luck")

    def works() -> None:
        raise ValueError("no luck")

    job = scheduler.add_job(waits if executor == "loop" else works)
    async with virtual_time(scheduler) as time:
        run = await job.submit()
        await time.advance("1s")
        lines = (await run.wait()).error.traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "test_first_hour.py" in lines[1] and lines[-1] == "ValueError: no luck"
