"""Something changes while an answer is put together from several reads: what it says fits together all the same."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime, timedelta

import pytest
from stories import START, hours, lasting
from test_between_two_looks import meanwhile
from web_clients import V1, over_asgi

from taskloop import At, Every, Options, Retry, TaskScheduler
from taskloop.cli.ask import ask_to_end, waits_for
from taskloop.cli.timetable import take_out
from taskloop.errors import Conflict, NoSuchSchedule
from taskloop.ledger import Ledger
from taskloop.looking import run_in_full
from taskloop.store import open_store

pytestmark = pytest.mark.anyio

PAGE = {"accept": "text/html"}


def just_before(store, verb, change):
    """Have `change` done when that verb is called next, before it is answered."""
    asked = getattr(store, verb)

    async def changed_first(*args, **options):
        if store.__dict__.pop(verb, None) is not None:
            await change()
        return await asked(*args, **options)

    setattr(store, verb, changed_first)


@pytest.fixture
async def shop(tmp_path, no_task_outlives_the_fixture):
    scheduler = TaskScheduler(tmp_path / "app.db", options=Options(grace=timedelta(0)))
    scheduler.begun, scheduler.gate, scheduler.well = asyncio.Event(), asyncio.Event(), True

    @scheduler.job()
    async def slow():
        scheduler.begun.set()
        await scheduler.gate.wait()

    @scheduler.job()
    async def mail():
        assert scheduler.well

    @scheduler.job()
    async def news():
        pass

    video = scheduler.flow("video")

    @video.step()
    async def fetch():
        scheduler.begun.set()
        await scheduler.gate.wait()

    async with scheduler:
        yield scheduler


@pytest.fixture
async def client(shop, no_task_outlives_the_fixture):
    async with over_asgi(shop, auth="open") as one:
        yield one


async def is_removed(shop, name):
    shop.remove_job(name)


async def ran(shop, name):
    await (await shop.submit(name)).wait()


# -- jobs


async def test_a_list_of_jobs_goes_on_after_one_that_is_removed_while_it_is_read(shop, client):
    meanwhile(shop._store, "standing", lambda: is_removed(shop, "mail"))
    first = (await client.get(f"{V1}/jobs?limit=1")).data
    assert (first["items"], first["next"]) == ([], "mail")
    rest = (await client.get(f"{V1}/jobs?before=mail")).data
    assert [one["name"] for one in rest["items"]] == ["news", "slow", "video"]


async def test_a_job_that_stands_otherwise_by_the_time_it_is_read_is_in_no_list_of_those_that_fail(shop, client):
    shop.well = False
    await ran(shop, "mail")
    shop.well = True
    meanwhile(shop._store, "find", lambda: ran(shop, "mail"))
    assert (await client.get(f"{V1}/jobs?condition=failing")).items == []

    shop.well = False
    await ran(shop, "mail")
    shop.well = True
    meanwhile(shop._store, "find", lambda: ran(shop, "mail"))
    page = (await client.get("/jobs?condition=failing", headers=PAGE)).body.decode()
    assert "<p>0 of 4 jobs" in page and "No job is like that" in page


async def test_the_page_of_jobs_counts_as_many_as_it_shows(shop, client):
    meanwhile(shop._store, "standing", lambda: is_removed(shop, "mail"))
    page = (await client.get("/jobs", headers=PAGE)).body.decode()
    assert re.findall(r'id="job-(\w+)"', page) == ["news", "slow", "video"]
    assert "<p>3 of 3 jobs" in page


async def test_the_figures_of_a_job_that_runs_while_they_are_read_know_the_run_in_all_places_or_in_none(shop, client):
    for number, between in enumerate(("standing", "find"), 1):
        meanwhile(shop._store, between, lambda: ran(shop, "mail"))
        told = (await client.get(f"{V1}/jobs/mail/stats")).data
        assert (told["runs"]["succeeded"], told["last_run"], told["success_rate"]) == (number, number, 1.0)
        assert told["last_success"] is not None


async def test_a_job_that_is_switched_off_while_all_are_submitted_keeps_no_other_from_its_run(shop, tmp_path):
    desk = TaskScheduler(tmp_path / "app.db", jobs=[shop], options=Options())
    await desk.jobs()
    meanwhile(desk._store, "switches", lambda: shop.disable("mail"))
    assert sorted(one.job for one in await desk.submit_all()) == ["news", "slow", "video"]
    await desk.close()


# -- runs


async def test_the_page_of_a_run_is_there_although_its_job_is_removed_while_it_is_made(shop, client):
    shop.gate.set()
    run = (await (await shop.submit("video")).wait()).id
    meanwhile(shop._store, "standing", lambda: is_removed(shop, "video"))
    page = await client.get(f"/runs/{run}", headers=PAGE)
    assert page.status == 200 and "fetch" in page.body.decode()


async def test_the_page_of_a_run_that_still_has_the_old_name_of_its_job_shows_the_steps_of_the_new_one(shop, tmp_path):
    shop.gate.set()
    run = (await (await shop.submit("video")).wait()).id
    await shop.stop()
    heir = TaskScheduler(tmp_path / "app.db", options=Options())
    film = heir.flow("film", aliases=("video",))

    @film.step()
    async def fetch():
        pass

    await (await heir._opened()).rename({"video": "film"}, datetime.now(UTC), 0)  # its newest runs first, and none yet
    async with over_asgi(heir, start=False, auth="open") as client:
        page = await client.get(f"/runs/{run}", headers=PAGE)
    await heir.close()
    assert page.status == 200 and "<svg" in page.body.decode()


@pytest.fixture
async def desk(shop, tmp_path, no_task_outlives_the_fixture):
    """What a command has of the records, in a process of its own."""
    ledger = Ledger(open_store(tmp_path / "app.db"))
    await ledger.jobs()  # its store is open
    yield ledger
    await ledger.close()


async def test_a_run_that_ends_while_it_is_shown_is_as_old_as_its_steps(shop, client, desk):
    async def ends():
        shop.gate.set()
        await shop.wait(run.id)

    run = await shop.submit("video")
    await shop.begun.wait()
    meanwhile(shop._store, "run", ends)
    page = (await client.get(f"/runs/{run.id}", headers=PAGE)).body.decode()
    assert "Cancel this run" not in page and re.search("<td>fetch</td><td[^>]*>.*succeeded", page)

    shop.gate.clear()
    shop.begun.clear()
    run = await shop.submit("video")
    await shop.begun.wait()
    meanwhile(desk._store, "attempts", ends)  # between these and the steps
    found, attempts, steps = await run_in_full(desk, run.id)
    assert {found.state, *(one.outcome for one in attempts), *(one.state for one in steps)} == {"succeeded"}


# -- the whole


async def test_the_whole_is_told_as_paused_or_not_and_each_of_its_jobs_the_same(shop):
    meanwhile(shop._store, "counts", lambda: shop.pause(reason="a move"))
    before = await shop.status()
    assert before.paused is None and {one.condition for one in before.standings} == {"never_ran"}
    after = await shop.status()
    assert after.paused.reason == "a move" and {one.condition for one in after.standings} == {"paused"}


async def as_the_summary_says(shop, client):
    runs = (await client.get(f"{V1}/summary")).data["runs"]
    return runs["waiting"], runs["running"]


async def as_the_figures_say(shop, client):
    found = dict(re.findall(r"taskloop_runs_(\w+) (\d+)", (await client.get("/metrics")).body.decode()))
    return int(found["waiting"]), int(found["running"])


@pytest.mark.parametrize("told", [as_the_summary_says, as_the_figures_say])
async def test_a_run_that_begins_or_is_to_be_tried_again_while_runs_are_counted_is_counted_once(shop, client, told):
    @shop.job(retry=Retry(2, first="1h", max="1h"))
    async def again():
        shop.begun.set()
        await shop.gate.wait()
        raise ValueError

    retrying = asyncio.Event()
    shop.feed.subscribe(lambda _: retrying.set(), "retrying")

    async def begins():
        await shop.resume("again")
        await shop.begun.wait()

    async def fails():
        shop.gate.set()
        await retrying.wait()

    await shop.pause("again")
    await shop.submit("again")
    meanwhile(shop._store, "counts", begins)
    assert sum(await told(shop, client)) == 1
    meanwhile(shop._store, "counts", fails)
    assert sum(await told(shop, client)) == 1


async def test_as_many_runs_are_shown_in_hand_as_are_counted(shop, desk):
    async def ends():
        shop.gate.set()
        await run.wait()

    run = await shop.submit("slow")
    meanwhile(desk._store, "counts", ends)
    status = await desk.status()
    assert (status.in_hand, len(status.active)) == (0, 0)


# -- the timeline


@pytest.mark.parametrize("verb", ["coming", "spans"])
async def test_a_fire_that_comes_while_the_timeline_is_made_is_on_it_once(shop, client, verb):
    fired = asyncio.Event()
    shop.feed.subscribe(lambda _: fired.set(), "succeeded")
    await shop.schedule("news", At(datetime.now(UTC) + timedelta(seconds=0.3)), id="soon")
    meanwhile(shop._store, verb, fired.wait)
    [lane] = (await client.get(f"{V1}/timeline?from=1m&to=1m")).data["lanes"]
    assert lane["job"] == "news" and len(lane["runs"]) + len(lane["coming"]) == 1


# -- why


@pytest.mark.parametrize(("when", "verb"), [(meanwhile, "usual"), (just_before, "evidence")])
async def test_a_run_of_a_paused_job_that_is_asked_for_while_its_reason_is_sought_waits_for_the_pause(shop, when, verb):
    await shop.pause("mail", actor="ann")
    when(shop._store, verb, lambda: shop.submit("mail"))
    told = await shop.why("mail")
    assert (told.verdict, told.code) == ("waiting", "paused") and "by ann" in told.text


# -- the command line


async def test_who_waits_for_a_run_is_told_nothing_of_a_worker_that_left_after_it_had_ended(shop, desk):
    async def ends_and_leaves():
        shop.gate.set()
        await shop.wait(run.id)
        await shop.stop()

    run = await shop.submit("slow")
    await shop.begun.wait()
    seen = await desk.run(run.id)
    just_before(desk._store, "workers", ends_and_leaves)
    assert seen.state == "running" and await waits_for(desk, seen) is None


async def test_who_waits_for_a_run_that_begins_meanwhile_is_told_nothing_of_what_it_waited_for(shop, desk):
    async def begins():
        await shop.resume("slow")
        await shop.begun.wait()

    await shop.pause("slow")
    run = await shop.submit("slow")
    assert await waits_for(desk, run.run) == "its job is paused; taskloop resume slow"
    meanwhile(desk._store, "next_dues", begins)
    assert await waits_for(desk, run.run) is None


async def test_a_cancel_that_comes_too_late_says_how_the_run_ended(shop, desk):
    async def ends():
        shop.gate.set()
        await shop.wait(run.id)

    run = await shop.submit("slow")
    await shop.begun.wait()
    meanwhile(desk._store, "run", ends)
    with pytest.raises(Conflict, match=f"run {run.id} succeeded already"):
        await ask_to_end(desk, run.id, reason=None, actor="ann")


async def test_what_is_removed_is_told_though_another_of_the_same_command_is_gone_by_then(shop, desk):
    for name in ("one", "two", "three"):
        await shop.schedule("mail", Every("1h"), id=name)
    found, told = await desk.schedules("mail"), []
    meanwhile(desk._store, "drop", lambda: shop.unschedule(found[1].id))
    with pytest.raises(NoSuchSchedule, match=found[1].id):
        async for one in take_out(desk, found, actor="ann", reason=None):
            told.append(one)
    assert told == [found[0], found[2]] and await shop.schedules() == []


# -- what is foretold


async def test_a_fire_that_begins_while_its_forecast_is_gathered_is_not_skipped_for_its_own_run(virtual_time):
    scheduler = TaskScheduler(options=Options())
    scheduler.add_job(lasting(600), Every("1h"), name="report", first="aligned", expect="10m")
    async with virtual_time(scheduler) as time:
        await time.advance("30m")
        meanwhile(time.scheduler._store, "schedules", lambda: time.advance("31m"))
        [told] = (await scheduler.simulate("2h")).jobs
        assert [(one.due_at, one.state) for one in await time.runs("report")] == [(START + hours(1), "running")]
    assert (told.fires, told.skipped, told.first) == (2, 0, START + hours(1))
