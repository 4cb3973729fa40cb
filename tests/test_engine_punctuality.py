"""Overdue and stuck, told from a job's own history; services that are pinged; what a start tells; the end of its time."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest
from stories import START, lasting, nothing, stamp, stubborn

from taskloop import Cron, Every, Options, State, TaskScheduler, tending
from taskloop.errors import StoreUnavailable
from taskloop.punctuality import Curfew, Usual, allowed, condition, overdue, stuck
from taskloop.store_sqlite import SqliteStore

pytestmark = pytest.mark.anyio


@pytest.fixture
def told(scheduler):
    """The `overdue` events, as condition and job."""
    found = []
    scheduler.feed.subscribe(lambda event: found.append((event.data["condition"], event.job)), "overdue")
    return found


async def conditions(scheduler):
    return {one.name: one.condition for one in await scheduler.jobs()}


async def test_a_run_far_beyond_what_is_usual_is_stuck(scheduler, virtual_time, told):
    async def job(seconds: int = 60) -> None:
        await asyncio.sleep(seconds)

    scheduler.add_job(job, name="job")
    async with virtual_time(scheduler) as time:
        for _ in range(20):
            await time.until((await scheduler.submit("job")).wait())
        await scheduler.submit("job", {"seconds": 36_000})
        await time.advance("9m")
        assert (await conditions(scheduler))["job"] == "running" and told == []
        await time.advance("90s")
        assert (await conditions(scheduler))["job"] == "stuck" and told == [("stuck", "job")]
        [item] = (await scheduler.status()).attention
        assert (item["condition"], item["text"]) == ("stuck", "run 21 has been running for 10 minutes 30 seconds")
        await time.advance("1h")
        assert told == [("stuck", "job")], "told once"


async def test_what_a_job_says_of_its_usual_time_outweighs_its_history(scheduler, virtual_time, told):
    scheduler.add_job(lasting(3600), Every("1d"), name="job", expect="5m")
    async with virtual_time(scheduler) as time:
        await time.advance("4m")
        assert told == []
        await time.advance("2m")
        assert told == [("stuck", "job")]


async def test_how_long_a_run_is_stuck_is_told_in_milliseconds_where_it_is_less_than_a_second(scheduler, virtual_time):
    scheduler.add_job(lasting(3600), name="job", expect="0.1s")
    async with virtual_time(scheduler) as time:
        await scheduler.submit("job")
        await time.advance("300ms")
        [item] = (await scheduler.status()).attention
        assert item["text"] == "run 1 has been running for 300 milliseconds"


async def test_without_a_history_nothing_is_stuck(scheduler, virtual_time, told):
    scheduler.add_job(lasting(360_000), Every("30d"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("3d")
        assert told == [] and (await conditions(scheduler))["job"] == "running"


async def test_a_run_that_waits_for_its_place_is_overdue(scheduler, virtual_time, told):
    scheduler.add_job(lasting(600), name="long", group="one")
    scheduler.add_job(nothing, Every("1h"), name="job", group="one", first="after")
    async with virtual_time(scheduler) as time:
        await time.advance("55m")
        await scheduler.submit("long")
        await time.advance("5m20s")
        assert told == []
        await time.advance("30s")
        assert told == [("overdue", "job")]
        assert (await conditions(scheduler))["job"] == "overdue"
        await time.advance("10m")
        assert (await conditions(scheduler))["job"] == "ok"


async def test_a_run_is_overdue_too_where_hundreds_of_another_job_have_waited_for_longer(scheduler, virtual_time, told):
    scheduler.add_job(lasting(3600), name="slow", max_running=1)
    scheduler.add_job(lasting(3600), name="short_of_places", max_running=1)
    async with virtual_time(scheduler) as time:
        await scheduler.submit_many([scheduler["slow"].bind() for _ in range(200)])
        await time.advance("10m")
        for _ in range(2):
            await scheduler.submit("short_of_places")
        await time.advance("2m")
        assert ("overdue", "short_of_places") in told
        assert await conditions(scheduler) == {"slow": "overdue", "short_of_places": "overdue"}


async def test_where_very_many_runs_of_many_jobs_are_overdue_those_that_wait_longest_are_told_of_each(
    scheduler, virtual_time, told
):
    """Of twenty of each of a thousand jobs it was told at once: the loop stood still for four seconds."""
    names = [f"job{number}" for number in range(40)]
    for name in names:
        scheduler.add_job(lasting(3600), name=name, max_running=1)
    async with virtual_time(scheduler) as time:
        await scheduler.submit_many([scheduler[name].bind() for name in names for _ in range(10)])
        await time.advance("2m")
        of_each = Counter(job for event, job in told if event == "overdue")
    assert set(of_each) == set(names) and sum(of_each.values()) == tending.MOST_LATE_OF_ALL


async def test_what_waited_while_nobody_was_there_is_overdue_only_if_it_waits_on(
    scheduler, virtual_time, tmp_path, told
):
    scheduler.add_job(lasting(1), Every("1m"), name="job", missed="all", overlap="allow", max_running=2)
    scheduler.add_job(lasting(60), Every("1h"), name="long", missed="all", overlap="allow", max_running=1)
    async with virtual_time(scheduler, store=f"sqlite:///{tmp_path}/shared.db") as time:
        await time.advance("2h1m")
        await time.restart(after="9m30s")
        await time.advance("59s")
        assert told == [], "what ran at once is told of nobody"
        await time.restart(after="3h")
        await time.advance("59s")
        assert {job for _, job in told} == {"job", "long"}, "what still waits is"


async def test_of_two_workers_one_tells(virtual_time, tmp_path):
    address, told = f"sqlite:///{tmp_path}/shared.db", []
    first, second = (TaskScheduler(options=Options(max_running=1)) for _ in range(2))
    for one in (first, second):
        one.add_job(lasting(600), name="job")
        one.feed.subscribe(lambda event: told.append(event.run.id), "overdue")
    async with virtual_time(first, store=address) as time:
        await time.join(second, address)
        for _ in range(3):
            await first.submit("job")
        await time.advance("2m")
        assert told == [3]


async def test_nothing_is_overdue_while_it_is_paused(scheduler, virtual_time, told):
    scheduler.add_job(nothing, Every("1h"), name="job")
    async with virtual_time(scheduler) as time:
        await scheduler.pause()
        await scheduler.submit("job")
        await time.advance("3h")
        assert told == [] and (await conditions(scheduler))["job"] == "paused"


async def test_a_run_that_waits_for_a_day_for_a_job_that_nobody_has_any_more_is_cancelled(scheduler, virtual_time):
    scheduler.add_job(nothing, name="gone")
    scheduler.add_job(lasting(60), name="long")
    async with virtual_time(scheduler) as time:
        now, later = await scheduler.submit("gone", at="+1s"), await scheduler.submit("gone", at="+10h")
        scheduler.remove_job("gone")
        await time.advance("23h")
        assert {(await scheduler.run(one.id)).state for one in (now, later)} == {State.WAITING}, "a deploy may bring it"
        await time.advance("3h")
        ended = await scheduler.run(now.id)
        assert (ended.state, ended.reason, ended.data) == (State.CANCELLED, "unknown_job", {"cancelled_by": "taskloop"})
        assert (await scheduler.run(later.id)).state is State.WAITING, "its day begins when it is ready"
        await time.restart(after="3d")
        await scheduler.submit("long")  # for the housekeeping to look before an hour is over
        await time.advance("50m")
        assert (await scheduler.run(later.id)).state is State.WAITING, "whoever has it may be about to start, too"
        await time.advance("3h")
        assert (await scheduler.run(later.id)).state is State.CANCELLED


async def test_a_job_that_no_live_worker_has_is_an_orphan(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/shared.db"
    before, after = TaskScheduler(options=Options()), TaskScheduler(options=Options())
    before.add_job(nothing, Every("1h"), name="old")
    before.add_job(nothing, Every("1h"), name="kept")
    after.add_job(nothing, Every("1h"), name="kept")
    after.add_job(nothing, Every("1h"), name="new")
    async with virtual_time(before, store=address):
        assert set((await conditions(before)).values()) == {"ok"}
    async with virtual_time(after, store=address):
        assert await conditions(after) == {"old": "orphan", "kept": "ok", "new": "ok"}
        [item] = (await after.status()).attention
        assert item["condition"] == "orphan" and "if it is gone for good, `taskloop disable old`" in item["text"]
        assert after.start_plan.orphaned == ["old"]
        await after.disable("old", reason="gone for good")
        assert (await after.status()).attention == [], "what was said to do has helped"


# -- what a start tells


async def test_a_start_tells_what_it_changes_and_what_it_fires_at_once(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/app.db"
    before, after = TaskScheduler(options=Options()), TaskScheduler(options=Options())
    before.add_job(nothing, Every("1h"), name="hourly")
    before.add_job(nothing, Every("1h"), name="old")
    before.add_job(nothing, Every("1h"), name="gone")
    before.add_job(nothing, Every("1h"), name="bare")
    after.add_job(nothing, name="bare")
    after.add_job(nothing, Every("2h"), name="hourly")
    after.add_job(nothing, Every("1h"), name="new", aliases=("old",))
    after.add_job(nothing, Every("1d"), name="fresh", first="after")
    async with virtual_time(before, store=address) as time:
        await time.advance("10m")
    async with virtual_time(after, at="2026-01-01T05:00Z", store=address):
        plan = after.start_plan
        assert plan.added == ["fresh"]
        assert plan.changed == {"hourly": ("every 1h", "every 2h")}
        assert plan.dropped == ["bare"]
        assert plan.renamed == {"old": "new"}
        assert plan.orphaned == ["gone"]
        assert plan.due == {"hourly": timedelta(hours=3), "new": timedelta(hours=4)}
        assert plan.told() == {
            "added": "fresh",
            "changed": "hourly (every 1h -> every 2h)",
            "dropped": "bare",
            "renamed": "old -> new",
            "orphaned": "gone",
            "due_now": "hourly (3h late), new (4h late)",
        }


async def test_a_start_that_changes_nothing_tells_nothing(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/app.db"
    for _ in range(2):
        scheduler = TaskScheduler(options=Options())
        scheduler.add_job(nothing, Every("1d"), name="job", first="after")
        async with virtual_time(scheduler, store=address):
            told = scheduler.start_plan.told()
    assert told == {}


async def test_many_names_are_counted(virtual_time):
    scheduler = TaskScheduler(options=Options())
    for number in range(30):
        scheduler.add_job(nothing, Every("1d"), name=f"job{number:02}", first="after")
    async with virtual_time(scheduler):
        assert scheduler.start_plan.told()["added"].endswith("job19 and 10 more")


async def test_crons_whose_zone_nobody_has_said_are_named_once(scheduler, virtual_time, lines):
    scheduler.speaker.level = "INFO"
    scheduler.add_job(nothing, Cron("0 2 * * *"), name="nightly")
    scheduler.add_job(nothing, Cron("0 2 * * *", timezone="UTC"), name="meant")
    async with virtual_time(scheduler):
        assert lines.count("advice.no_zone") == 1
    said = TaskScheduler(options=Options(timezone="UTC"))
    said.speaker.level = "INFO"
    said.add_job(nothing, Cron("0 2 * * *"), name="nightly")
    async with virtual_time(said):
        assert lines.count("advice.no_zone") == 1


async def test_a_job_that_hung_once_and_has_no_timeout_is_named(virtual_time, tmp_path, lines):
    address = f"sqlite:///{tmp_path}/app.db"

    hangs = stubborn()
    first, second, mended = (TaskScheduler(options=Options()) for _ in range(3))
    for scheduler, timeout in ((first, None), (second, None), (mended, "1h")):
        scheduler.add_job(hangs, name="job", timeout=timeout)
    async with virtual_time(first, store=address) as time:
        await first.submit("job")
        await time.advance("1s")
        await time.until(first.stop(grace="1s"))
        hangs.enough = True
        await time.advance("2s")
    assert lines.count("advice.no_timeout") == 0
    async with virtual_time(second, store=address):
        assert lines.count("advice.no_timeout") == 1
    async with virtual_time(mended, store=address):
        assert lines.count("advice.no_timeout") == 1


# -- the end of its time


def test_what_takes_longer_than_the_time_left_may_not_begin():
    curfew = Curfew(START + timedelta(hours=1), {"long": timedelta(minutes=30), "short": timedelta(minutes=1)})
    assert not curfew.forbids("long", START + timedelta(minutes=29))
    assert curfew.forbids("long", START + timedelta(minutes=30))
    assert not curfew.forbids("short", START + timedelta(minutes=31))
    assert not curfew.forbids("unknown", START + timedelta(minutes=59))
    assert curfew.next_at(START) == START + timedelta(minutes=30)
    assert curfew.next_at(START + timedelta(minutes=30)) == START + timedelta(minutes=59)
    assert curfew.next_at(START + timedelta(minutes=59)) is None


async def test_near_its_end_a_worker_leaves_what_would_not_end_in_time_to_another(virtual_time, tmp_path):
    address = f"sqlite:///{tmp_path}/shared.db"
    leaving, staying = (TaskScheduler(options=Options(grace=timedelta(minutes=1)), name=name) for name in ("a", "b"))
    for one in (leaving, staying):
        one.add_job(lasting(600), Every("20m"), name="long", expect="10m")
        one.add_job(nothing, Every("1m"), name="short", expect="5s")
    async with virtual_time(leaving, store=address) as time:
        serving = asyncio.ensure_future(leaving.serve(run_for="1h"))
        await time.advance("59m30s")
        long = [stamp(run.due_at) for run in await time.runs("long")]
        assert long == ["00:00", "00:20", "00:40"]
        await leaving.submit("long")
        await time.advance("10s")
        assert (await leaving.runs("long"))[0].state == "waiting"
        await time.join(staying, address)
        await time.advance("30s")
        assert (await leaving.runs("long"))[0].worker == staying.worker.id
        await time.until(serving)


async def test_a_store_that_is_away_as_its_end_is_set_ends_no_worker_before_its_time(virtual_time, tmp_path):
    class Away(SqliteStore):
        left = 3

        async def usual(self, jobs):
            self.left -= 1
            if self.left >= 0:
                raise StoreUnavailable("the server does not answer")
            return await super().usual(jobs)

    store, scheduler = Away(tmp_path / "a.db"), TaskScheduler(options=Options(grace=timedelta(0)))
    scheduler.add_job(lasting(600), Every("20m"), name="long", expect="10m")
    async with virtual_time(scheduler, store=store) as time:
        assert await time.until(scheduler.serve(run_for="45m")) is None
        assert time.now - START >= timedelta(minutes=45) and store.left < 0
        assert [stamp(run.due_at) for run in await time.runs("long")] == ["00:00", "00:20"], "at 00:40 it is too late"


# -- pure


def test_what_is_usual_is_the_median_and_the_longest_but_a_twentieth():
    usual = Usual.of([float(second) for second in range(1, 101)])
    assert (usual.runs, usual.median, usual.p95) == (100, timedelta(seconds=50), timedelta(seconds=95))
    assert Usual.of([2.0]) == (1, timedelta(seconds=2), timedelta(seconds=2))


@pytest.mark.parametrize(
    ("seconds", "number", "expect", "limit"),
    [
        (60, 20, None, timedelta(minutes=10)),
        (600, 20, None, timedelta(minutes=100)),
        (600, 19, None, None),
        (600, 20, timedelta(minutes=5), timedelta(minutes=5)),
    ],
)
def test_how_long_an_attempt_may_run_before_it_counts_as_stuck(seconds, number, expect, limit):
    assert allowed(Usual.of([float(seconds)] * number), expect) == limit
    assert allowed(None, expect) == expect


def test_stuck_and_overdue_come_with_their_numbers():
    usual = Usual.of([1.0] * 20)
    assert stuck(START, START + timedelta(minutes=10), usual, None) is None
    assert stuck(START, START + timedelta(minutes=11), usual, None) == {
        "running_seconds": 660.0, "allowed_seconds": 600.0, "usual_seconds": 1.0
    }  # fmt: skip
    assert stuck(None, START, usual, None) is None
    assert overdue(START, START + timedelta(seconds=30)) is None
    assert overdue(START, START + timedelta(seconds=31)) == {"late_seconds": 31.0}
    assert overdue(None, START) is None


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"state": None}, "never_ran"),
        ({"state": "succeeded"}, "ok"),
        ({"state": "cancelled"}, "ok"),
        ({"state": "failed"}, "failing"),
        ({"state": "interrupted"}, "failing"),
        ({"state": "running"}, "running"),
        ({"state": "waiting"}, "never_ran"),
        ({"state": "waiting", "begun": True}, "running"),
        ({"state": "waiting", "begun": True, "succeeded": True, "failures": 1}, "running"),
        ({"state": "waiting", "succeeded": True}, "ok"),
        ({"state": "waiting", "succeeded": True, "failures": 1}, "failing"),
        ({"state": "waiting", "succeeded": True, "failures": 1, "running": True}, "running"),
        ({"state": "running", "overdue": True}, "overdue"),
        ({"state": "running", "overdue": True, "stuck": True}, "stuck"),
        ({"state": "running", "stuck": True, "paused": True}, "paused"),
        ({"state": "failed", "paused": True, "enabled": False}, "disabled"),
        ({"state": "failed", "enabled": False, "orphan": True}, "orphan"),
    ],
)
def test_of_all_that_is_true_of_a_job_the_worst_is_its_condition(facts, word):
    assert condition(**({"enabled": True, "paused": False} | facts)) == word
