"""How long records are kept: by default, by job, in number, and never at the cost of uniqueness or of a fire."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from stores import asked
from stories import START, failing, nothing

from taskloop import At, Every, Options, Retry, TaskScheduler
from taskloop.built_in import prune_history
from taskloop.runs import State
from taskloop.store_sqlite import SqliteStore

pytestmark = pytest.mark.anyio


async def kept(scheduler, job="job"):
    return [run.due_at for run in await scheduler.runs(job, limit=1000)][::-1]


async def test_records_are_kept_for_ninety_days_unless_told_otherwise(scheduler, virtual_time):
    scheduler.add_job(nothing, Every("1d"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("100d")
        assert Options().keep == timedelta(days=90)
        found = await kept(scheduler)
        assert found[0] >= START + timedelta(days=9) and len(found) in (91, 92)
        assert (await scheduler.status()).running


async def test_keep_of_the_scheduler_and_of_each_job(virtual_time):
    scheduler = TaskScheduler(options=Options(keep=timedelta(days=10)))
    for name, options in {"a": {}, "b": {"keep": "3d"}, "c": {"keep_runs": 4}, "d": {"keep": "20d"}}.items():
        scheduler.add_job(nothing, Every("1d"), name=name, **options)
    async with virtual_time(scheduler) as time:
        await time.advance("30d12h")
        assert {name: len(await kept(scheduler, name)) for name in "abcd"} == {"a": 10, "b": 3, "c": 4, "d": 20}


async def test_a_store_without_end_keeps_all_and_a_job_may_still_be_short(virtual_time):
    scheduler = TaskScheduler(options=Options(keep=None))
    scheduler.add_job(nothing, Every("1d"), name="job")
    scheduler.add_job(nothing, Every("1d"), name="short", keep="2d")
    scheduler.add_job(nothing, Every("1d"), name="few", keep_runs=2)
    async with virtual_time(scheduler) as time:
        await time.advance("100d")
        assert len(await kept(scheduler)) == 101
        assert len(await kept(scheduler, "short")) <= 4 and len(await kept(scheduler, "few")) <= 4


async def test_a_span_longer_than_all_time_keeps_all(virtual_time):
    scheduler = TaskScheduler(options=Options(keep=timedelta(days=300000)))
    scheduler.add_job(nothing, Every("1d"), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("10d")
        assert len(await kept(scheduler)) == 11


async def test_what_waits_or_runs_is_never_deleted_however_old(virtual_time):
    scheduler = TaskScheduler(options=Options(keep=timedelta(days=1)))
    scheduler.add_job(failing(2), name="job", retry=Retry(3, first="20d", max="20d", jitter=0))
    scheduler.add_job(nothing, Every("1d"), name="other")
    async with virtual_time(scheduler) as time:
        run = await scheduler.submit("job")
        await time.advance("39d")
        found = await scheduler.run(run.id)
        assert (found.state, found.attempt) == ("waiting", 2)
        assert len(await scheduler.attempts(run.id)) == 2


async def test_an_instant_within_a_day_keeps_its_record_so_that_a_clock_set_back_repeats_nothing(virtual_time):
    scheduler = TaskScheduler(options=Options(keep=timedelta(minutes=1)))
    scheduler.add_job(nothing, Every("1h", anchor=START), name="job")
    async with virtual_time(scheduler) as time:
        await time.advance("3d30m")
        before = await kept(scheduler)
        assert START + timedelta(days=2, hours=1) in before and before[0] >= START + timedelta(days=2)
        time.step("-12h")
        await time.advance("13h")
        after = [run.due_at for run in await scheduler.runs("job", limit=1000)]
        assert len(after) == len(set(after))


async def test_nothing_is_deleted_for_a_day_after_a_clock_jumped_a_year(virtual_time):
    scheduler = TaskScheduler(options=Options(keep=timedelta(days=10)))
    scheduler.add_job(nothing, Every("1d"), name="job", missed="skip")
    async with virtual_time(scheduler) as time:
        await time.advance("5d")
        time.step("365d")
        await time.advance("12h")
        assert START in await kept(scheduler)
        time.step("-365d")
        await time.advance("2d")
        assert START in await kept(scheduler)


async def test_the_built_in_job_deletes_at_once_what_is_kept_no_longer_and_says_how_much(virtual_time):
    scheduler = TaskScheduler(options=Options(keep=timedelta(minutes=30)))
    scheduler.add_job(nothing, name="job")
    scheduler.add_job(prune_history)
    async with virtual_time(scheduler) as time:
        await scheduler.submit_many([scheduler["job"].bind()] * 5)
        await time.advance("40m")  # the engine's own round comes each hour
        before = len(await scheduler.runs("job"))
        run = await time.until((await scheduler.submit("prune_history")).wait())
        assert (run.state, run.result) == (State.SUCCEEDED, "4 runs deleted") and run.summary == "4 runs deleted"
        assert before == 5 and len(await scheduler.runs("job")) == 1, "its newest success tells how it stands"


@pytest.mark.parametrize("meanwhile", ["it runs", "nobody runs"])
async def test_the_built_in_job_deletes_nothing_either_after_a_clock_jumped_a_year(virtual_time, meanwhile):
    """Of a year in which nobody ran it claims no jump either: that may be all there was."""
    scheduler = TaskScheduler(options=Options(keep=timedelta(days=10)))
    scheduler.add_job(nothing, Every("1d"), name="job", missed="skip")
    scheduler.add_job(prune_history)
    async with virtual_time(scheduler) as time:
        await time.advance("5d")
        if meanwhile == "it runs":
            time.step("365d")
        else:
            await time.crash()
            await time.restart(after="365d")
        run = await time.until((await scheduler.submit("prune_history")).wait())
        assert run.state is State.FAILED
        assert "is more than 30 days ahead of what was last on record, as if it had jumped" in run.error.message
        assert START in await kept(scheduler)


async def test_records_go_after_that_day_where_the_clock_stays(virtual_time):
    scheduler = TaskScheduler(options=Options(keep=timedelta(days=10)))
    scheduler.add_job(nothing, Every("1d"), name="job", missed="skip")
    async with virtual_time(scheduler) as time:
        await time.advance("5d")
        time.step("365d")
        await time.advance("26h")
        assert START not in await kept(scheduler)


async def test_a_removed_jobs_records_go_as_it_said_when_it_was_there(virtual_time):
    scheduler = TaskScheduler(options=Options(keep=timedelta(days=10)))
    scheduler.add_job(nothing, Every("1d"), name="job")
    for name, keep in {"short": "5m", "plain": None, "long": "30d"}.items():
        scheduler.add_job(nothing, At(START + timedelta(hours=1)), name=name, keep=keep)
    async with virtual_time(scheduler) as time:
        await time.advance("2h")
        for name in ("short", "plain", "long"):
            scheduler.remove_job(name)
        left = []
        for _ in range(4):
            await time.advance("9d")
            left.append({name: len(await kept(scheduler, name)) for name in ("short", "plain", "long")})
        assert left[0] == {"short": 0, "plain": 1, "long": 1}
        assert left[1] == left[2] == {"short": 0, "plain": 0, "long": 1}
        assert left[3] == {"short": 0, "plain": 0, "long": 0}


async def test_a_program_that_does_not_have_a_job_keeps_its_records_as_long_as_the_job_says(virtual_time, tmp_path):
    path = tmp_path / "app.db"
    books = TaskScheduler()
    books.add_job(nothing, name="invoice", keep="1825d")
    books.add_job(nothing, name="receipt")
    async with virtual_time(books, store=path) as time:
        await books.submit("invoice")
        await books.submit("receipt")
        await time.run_until_idle()
    web = TaskScheduler(options=Options(keep=timedelta(days=10)))
    web.add_job(nothing, Every("1h"), name="mail")
    async with virtual_time(web, store=path, at=START + timedelta(days=20)) as time:
        await time.advance("5s")
        assert (len(await kept(web, "invoice")), len(await kept(web, "receipt"))) == (1, 0)


async def test_records_of_a_jobs_former_name_stay_as_long_as_it_says(virtual_time):
    scheduler = TaskScheduler(options=Options(keep=timedelta(days=10)))
    scheduler.add_job(nothing, name="invoice", keep="1825d")
    async with virtual_time(scheduler) as time:
        await scheduler.submit("invoice")
        await time.run_until_idle()
        scheduler.remove_job("invoice")
        scheduler.add_job(nothing, name="bill", keep="1825d", aliases=("invoice",))
        await time.advance("1m")
        await scheduler.submit("bill")
        await time.advance("12d")
        assert len(await scheduler.runs("bill")) == 2


async def test_failures_further_apart_than_records_are_kept_are_failures_in_a_row(virtual_time):
    scheduler = TaskScheduler(options=Options(keep=timedelta(days=5)))
    scheduler.add_job(failing(9), Every("10d"), name="job", pause_after=3)
    scheduler.add_job(nothing, Every("1d"), name="other")
    async with virtual_time(scheduler) as time:
        await time.advance("19d")
        [found] = await scheduler.jobs("job")
        assert found.consecutive_failures == 2
        await time.advance("1d1m")
        [found] = await scheduler.jobs("job")
        assert (found.enabled, found.condition, found.consecutive_failures) == (False, "disabled", 3)


async def test_a_job_that_runs_once_a_year_does_not_look_as_if_it_had_never_run(virtual_time):
    scheduler = TaskScheduler(options=Options(keep=timedelta(days=5)))
    scheduler.add_job(nothing, name="report")
    scheduler.add_job(nothing, Every("1d"), name="other")
    async with virtual_time(scheduler) as time:
        await scheduler.submit("report")
        await time.advance("60d")
        [found] = await scheduler.jobs("report")
        assert (found.condition, found.last_success, found.last_run.state) == ("ok", START, "succeeded")


async def test_what_waits_for_a_year_hides_no_old_records(virtual_time):
    scheduler = TaskScheduler(options=Options(keep=timedelta(days=10)))
    job = scheduler.add_job(nothing, name="remind")
    async with virtual_time(scheduler) as time:
        first = await scheduler.submit("remind", at="+365d")
        await scheduler.cancel(first.run.id)
        await asyncio.gather(*(scheduler.submit("remind", at="+365d") for _ in range(1300)))
        await scheduler.submit_many([job.bind()] * 50)
        await time.advance("12d")
        assert len(await scheduler.runs("remind", state=["succeeded", "cancelled"])) == 1  # the newest of all
        assert len(await scheduler.runs("remind", state="waiting", limit=1000)) == 1000


async def test_deleting_leaves_fires_their_time(virtual_time, tmp_path):
    """Five thousand old records, and jobs every second: none begins late while they are deleted."""
    path = tmp_path / "app.db"
    scheduler = TaskScheduler(options=Options(keep=None))
    job = scheduler.add_job(nothing, name="job")
    async with virtual_time(scheduler, store=path) as time:
        for _ in range(5):
            await scheduler.submit_many([job.bind()] * 1000)
            await time.advance("1s")
    again = TaskScheduler(options=Options(keep=timedelta(days=1)))
    again.add_job(nothing, Every("1s"), name="tick")
    again.add_job(nothing, name="job")
    async with virtual_time(again, store=path, at=START + timedelta(days=3)) as time:
        await time.advance("2m")
        assert len(await again.runs("job")) <= 1
        ticks = await again.runs("tick", limit=200)
        assert max(run.started_at - run.due_at for run in ticks) < timedelta(seconds=1)


async def test_a_round_of_deleting_goes_on_until_nothing_old_is_left(virtual_time, tmp_path):
    """Of ten thousand records, which are more than fit between two looks at other duties."""
    store = SqliteStore(tmp_path / "app.db")
    await store.open()
    old = asked("job", due_at=START, ready_at=START, created_at=START, ended_at=START, state=State.SUCCEEDED)
    for _ in range(10):
        await store.submit([old] * 1000)
    await store.close()
    scheduler = TaskScheduler(options=Options(keep=timedelta(days=1)))
    scheduler.add_job(nothing, Every("1s"), name="tick")
    async with virtual_time(scheduler, store=tmp_path / "app.db", at=START + timedelta(days=3)) as time:
        await time.advance("10s")
        assert await kept(scheduler, "job") == []
