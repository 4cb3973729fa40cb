"""Jobs with awful names (J12), and jobs that are gone while their records stay (J13)."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest
from command_line import call as call
from command_line import nothing_blocks_the_loop as nothing_blocks_the_loop
from command_line import shop as shop
from misbehaviour import crowded as crowded
from misbehaviour import hosted, readable, unharmed
from stories import failing, fates, lasting, nothing

from taskloop import Every, Jobs, Options, Retry, State, TaskScheduler
from taskloop.errors import BadJob, Conflict, NoSuchJob

pytestmark = pytest.mark.anyio


# -- J12: names

NAMES = [
    "", " ", "  job", "job ", "a b", "a\tb", "a\nb", "a\r\nb", "job\n", "\0", "a\0b", "\x1b[2J", "\x7f", "\u200b", "a\u202eb",
    "\ufeffjob", "<b>job</b>", "<script>alert(1)</script>", "'", '"', "a'b", 'a"b', "`id`", "$(id)", "${HOME}", "%s",
    "{job}", "../etc/passwd", "..", ".", "./a", "/", "a/b", "\\", "C:\\a", "-", "-rf", "--help", "_private", ":a", ".hidden",
    "job;drop table", "a,b", "a=b", "a&b", "a|b", "a?b", "a#b", "a@b", "a*b", "job!", "jоb", "größe", "日報", "🙂", "ﬁle",
    "١٢٣", "\ud800", "a" * 129, "a" * 10_000, "ß" * 64,
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=[f"{number} {ascii(name)[:20]}" for number, name in enumerate(NAMES)])
def test_a_hostile_name_is_refused_where_it_is_written_with_the_rule(name):
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options())

    async def job(): ...

    ways = [
        lambda: scheduler.add_job(job, name=name),
        lambda: scheduler.every("1h", name=name)(job),
        lambda: scheduler.job(name="good", aliases=(name,))(job),
        lambda: Jobs(prefix=name + "/").job()(job),
    ]
    job.__name__ = name if "\0" not in name and "\ud800" not in name else "-"
    for way in [*ways, lambda: scheduler.add_job(job)]:
        with pytest.raises(
            BadJob, match=r"allowed are 1 to 128 letters, digits and '\._:-', the first a letter or digit"
        ):
            way()
    assert len(scheduler) == 0


@pytest.mark.parametrize("name", ["7", "b'job'", "['job']", "object()"])
def test_a_name_that_is_no_text_is_refused_with_the_rule(name):
    refused = None
    try:
        TaskScheduler("sqlite:///:memory:", options=Options()).add_job(nothing, name=eval(name))
    except (BadJob, TypeError) as error:
        refused = error
    assert isinstance(refused, BadJob)


def test_an_old_record_with_a_hostile_name_is_shown_safely_and_in_full(shop, call):
    assert call("once", "add", "a=1").code == 0
    with closing(sqlite3.connect("taskloop.db")) as db, db:
        db.executemany(
            "INSERT INTO taskloop_runs (job, state, cause, attempt, attempts, due_at, ready_at, created_at, ended_at, "
            "token, priority, count) SELECT ?, 'failed', cause, 1, 1, due_at, ready_at, created_at, ended_at, 0, 0, 1 "
            "FROM taskloop_runs WHERE id = 1",
            [(name,) for name in NAMES if "\ud800" not in name],
        )
    table = call("runs", "--limit", "1000")
    assert table.code == 0 and len(table.out.splitlines()) >= len(NAMES)
    assert not {"\x1b", "\0", "\r", "\t", "\x7f", "\u202e"} & set(table.out)
    records = call("runs", "--limit", "1000", "--format", "json").items
    assert {record["job"] for record in records} == {"add", *NAMES} - {"\ud800"}
    assert call("list").code == call("status").code == 0


# -- J13: jobs that are gone


async def gone(time, *names, after="1m"):
    """The next life of the program, which has these jobs no more."""
    await time.until(time.scheduler.stop())
    for name in names:
        time.scheduler.remove_job(name)
    await time.restart(after=after)


@hosted
async def test_what_a_removed_job_did_stays_readable(crowded, virtual_time):
    crowded.add_job(failing(1, ValueError), Every("1m"), name="old", retry=1)
    async with virtual_time(crowded) as time:
        await time.advance("1m")
        await gone(time, "old")
        assert await fates(time, "old") == ["00:00 failed", "00:01 succeeded"]
        assert (await crowded.runs("old"))[-1].error.type == "ValueError"
        assert "old" in [job.name for job in await crowded.jobs()]
        await readable(crowded)
        await unharmed(time)
        assert len(await fates(time, "old")) == 2


@hosted
async def test_a_job_that_nobody_has_any_more_is_marked_as_an_orphan(crowded, virtual_time):
    crowded.add_job(nothing, Every("1m"), name="old")
    async with virtual_time(crowded) as time:
        await time.advance("1m")
        await gone(time, "old")
        conditions = {job.name: job.condition for job in await crowded.jobs()}
        assert conditions == {"old": "orphan", "on_loop": "ok", "in_thread": "ok"}


@pytest.mark.parametrize("waits", ["retry", "submitted"])
@hosted
async def test_what_is_due_for_a_job_that_nobody_has_any_more_is_closed_with_a_reason(crowded, virtual_time, waits):
    crowded.add_job(failing(9), name="old", retry=Retry(3, first="10m"))
    async with virtual_time(crowded) as time:
        run = await crowded.submit("old", at=None if waits == "retry" else "+10m")
        await time.advance("1m")
        await gone(time, "old")
        await time.advance("1d")
        assert (await crowded.run(run.id)).state is State.WAITING  # a deploy may bring the job back
        await time.advance("90m")
        closed = await crowded.run(run.id)
        assert (closed.state, closed.reason, closed.data["cancelled_by"]) == (
            State.CANCELLED,
            "unknown_job",
            "taskloop",
        )


@hosted
async def test_what_a_removed_job_was_doing_when_its_worker_died_is_interrupted(crowded, virtual_time):
    crowded.add_job(lasting(600), name="old")
    async with virtual_time(crowded) as time:
        run = await crowded.submit("old")
        await time.advance("1m")
        await time.crash()
        crowded.remove_job("old")
        await time.restart()
        ended = await crowded.run(run.id)
        assert (ended.state, ended.reason) == (State.INTERRUPTED, "worker_died")
        assert (await crowded.cancel(run.id)).state is State.INTERRUPTED
        await unharmed(time)


@hosted
async def test_a_job_taken_out_while_it_runs_ends_its_run_and_is_asked_for_no_more(crowded, virtual_time):
    crowded.add_job(lasting(90), Every("10m"), name="old")
    async with virtual_time(crowded) as time:
        await time.advance("10s")
        crowded.remove_job("old")
        with pytest.raises(NoSuchJob):
            await crowded.submit("old")
        [run] = await time.runs("old")
        with pytest.raises(NoSuchJob):
            await crowded.rerun(run.id)
        await time.advance("1h")
        assert await fates(time, "old") == ["00:00 succeeded"]
        await unharmed(time)


@hosted
async def test_another_function_under_the_name_of_one_in_hand_is_called_from_the_next_fire_on(crowded, virtual_time):
    tape = []
    crowded.add_job(lasting(90, tape), Every("10m"), name="job")

    async def other():
        tape.append("other")

    async with virtual_time(crowded) as time:
        await time.advance("10s")
        crowded.remove_job("job")
        crowded.add_job(other, Every("10m"), name="job")
        await time.advance("10m")
        assert tape == ["begin", "end", "other"]
        assert await fates(time, "job") == ["00:00 succeeded", "00:10 succeeded"]
        await unharmed(time)


@hosted
async def test_a_switch_stays_with_its_name_and_passes_to_no_other_job(crowded, virtual_time):
    crowded.add_job(nothing, Every("1m"), name="old")
    async with virtual_time(crowded) as time:
        await crowded.disable("old", reason="broken", actor="ann")
        await gone(time, "old", after=0)
        crowded.add_job(nothing, Every("1m"), name="new")
        await time.advance("2m")
        assert {run.state for run in await time.runs("new", state=list(State))} == {State.SUCCEEDED}
        crowded.add_job(nothing, Every("1m"), name="old")
        await time.advance("2m")
        with pytest.raises(Conflict, match="broken"):
            await crowded.submit("old")
        assert {job.name: job.enabled for job in await crowded.jobs()}["old"] is False


@hosted
async def test_a_job_that_comes_back_catches_up_with_its_schedules_and_its_waiting_runs(crowded, virtual_time):
    crowded.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(crowded) as time:
        later = await crowded.submit("job", at="+2h")
        await crowded.schedule("job", Every("1h"), id="stored")
        await time.advance("1m")
        await gone(time, "job", after=0)
        await time.advance("3h")
        assert (await crowded.run(later.id)).state is State.WAITING
        crowded.add_job(nothing, Every("1h"), name="job")
        await time.advance("1m")
        told = [fate for fate in await fates(time, "job") if not fate.startswith("00:00 ")]
        assert told == [
            "01:00 skipped missed x2",
            "01:00 skipped missed x2",
            "02:00 succeeded",
            *["03:00 succeeded"] * 2,
        ]
        await time.advance("57m")
        await unharmed(time)
