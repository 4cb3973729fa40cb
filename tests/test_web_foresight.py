"""What is foretold over HTTP: overlaps, the timeline to come, what a disable and a resume would mean."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from test_web_pages import BROWSER, text
from web_clients import V1, over_asgi

from taskloop import At, Every, Options, TaskScheduler
from taskloop.simulation import simulation_record

pytestmark = pytest.mark.anyio


def busy():
    """Jobs in each other's way, as they say of themselves."""
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(grace=timedelta(0), timezone="Europe/Berlin"))

    @scheduler.cron("30 2 * * *", group="db", expect="20m")
    def backup(): ...

    @scheduler.cron("30 2 * * *", group="db", expect="3m", overlap="queue")
    def archive(): ...

    @scheduler.every("5m", first="after", expect="6m")
    def sync(): ...

    @scheduler.job()
    def remind(user: int = 1): ...

    return scheduler


@pytest.fixture
async def pair(no_task_outlives_the_fixture):
    scheduler = busy()
    async with over_asgi(scheduler, auth="open") as client:
        yield scheduler, client


async def test_a_queue_of_many_short_waits_hides_no_overlap_that_costs_runs(pair):
    scheduler, client = pair

    def short(): ...

    for number in range(260):  # all of them come due before sync does
        scheduler.add_job(short, Every("1h"), name=f"short{number:03}", group="queue", expect="1ms", overlap="queue")
    client.headers = dict(BROWSER)
    for path in ("/schedules?days=1", "/timeline?to=24h"):
        listed = text(await client.get(path)).split("⚠")
        assert listed[1].strip().startswith("sync comes due while its previous run is still going"), path
        assert "wait up to 3m 0s" in listed[2] and "short259 finds group" in listed[3], "then what waits longest"


async def test_overlaps_are_those_that_a_simulation_tells_on_the_api_and_on_both_pages(pair):
    scheduler, client = pair
    data = (await client.get(f"{V1}/overlaps?for=7d")).data
    told = simulation_record(await scheduler.simulate("7d", start=data["from"]))
    assert data == told and data["fires"] > 2_000
    assert {(one["kind"], *one["jobs"]) for one in data["overlaps"]} == {
        ("self", "sync"),
        ("group", "backup", "archive"),
    }
    client.headers = dict(BROWSER)
    page = text(await client.get("/schedules?days=7"))
    assert f"3 jobs · {data['fires']:,} fires · 2 overlaps" in page and "the quietest hour begins at" in page
    assert "backup finds group 'db' (1 place) full, behind archive: of 7 fires 7 wait up to 3m 0s" in page
    shown = (await client.get("/schedules?days=7")).body.decode()
    [said] = re.findall('aria-label="Fires by hour, from now on: (.*?)"', shown)
    fires = [one["fires"] for one in data["load"]]  # none, it may be, in the rest of the hour that begins it
    bars = [int(one) for one in re.findall(r"<title>(\d+) fires, at most", shown)]
    assert bars == [one for one in fires if one]
    assert said == f"{min(fires)} to {max(fires)} an hour", "what the bars say to who does not see them"
    assert "sync comes due while its previous run is still going" in text(await client.get("/timeline?from=1h&to=24h"))
    month = await client.get("/schedules?days=31")
    bars = [int(one) for one in re.findall(r"<title>(\d+) fires, at most", month.body.decode())]
    [fires] = re.findall(r"3 jobs · ([\d,]+) fires", text(month))
    assert len(month.body) < 60_000 and sum(bars) == int(fires.replace(",", "")), (
        "a bar of several hours counts them all"
    )


async def test_the_timeline_to_come_has_the_fate_of_each_fire(pair):
    scheduler, client = pair
    data = (await client.get(f"{V1}/timeline?from=1h&to=1h")).data
    lanes = {one["job"]: one for one in data["lanes"]}
    fates = [one["fate"] for one in lanes["sync"]["coming"]]
    assert fates == ["runs", "skipped"] * 6 or fates == ["runs", "skipped"] * 5 + ["runs"]
    assert lanes["sync"]["runs"] == [] and data["complete"]
    [overlap] = [one for one in data["overlaps"] if one["jobs"] == ["sync"]]
    assert overlap["skipped"] == fates.count("skipped")
    await (await scheduler.submit("remind")).wait()
    ran = {one["job"]: one for one in (await client.get(f"{V1}/timeline?to=1h")).data["lanes"]}["remind"]
    assert [one["state"] for one in ran["runs"]] == ["succeeded"]
    client.headers = dict(BROWSER)
    page = await client.get("/timeline?from=1h&to=1h")
    assert 'class="trouble"' in page.body.decode() and "with an overlap" in text(page)


async def test_before_a_disable_stands_what_it_would_skip_as_simulated(pair):
    scheduler, client = pair
    [sync] = [one for one in (await scheduler.simulate("24h")).jobs if one.job == "sync"]
    effect = (await client.post(f"{V1}/jobs/sync/disable?dry_run=1", {"reason": "why not"})).data["effect"]
    assert effect == {
        "fires_skipped_per_day": sync.fires,
        "next_skipped": sync.first.isoformat().replace("+00:00", "Z"),
        "active_runs": 0,
    }
    assert (await client.get(f"{V1}/jobs/sync")).data["enabled"]
    nothing = (await client.post(f"{V1}/jobs/remind/disable?dry_run=1", {})).data["effect"]
    assert nothing == {"fires_skipped_per_day": 0, "next_skipped": None, "active_runs": 0}
    client.headers = dict(BROWSER)
    assert f"Disabling skips {sync.fires} fires a day, next" in text(await client.get("/jobs/sync"))


async def test_a_resume_says_how_many_fires_are_held(pair):
    scheduler, client = pair
    await scheduler.pause("remind")
    for minutes in (1, 2, 3):
        at = datetime.now(UTC) - timedelta(minutes=minutes)
        await scheduler.schedule("remind", At(at), id=f"remind-{minutes}")
    client.headers = dict(BROWSER)
    assert "3 fires held by now" in text(await client.get("/jobs/remind"))
    await scheduler.pause()
    for page in ("/", "/jobs"):
        assert "what comes due is held: 3 fires by now" in text(await client.get(page))
    await scheduler.resume()
    await scheduler.resume("remind", missed="skip")
    assert "fires by now" not in text(await client.get("/"))


async def test_a_preview_says_what_a_change_of_the_clock_does(pair):
    _, client = pair
    body = {"trigger": {"cron": "30 2 * * *", "timezone": "Europe/Berlin"}, "start": "2026-03-20T00:00:00Z"}
    told = (await client.post(f"{V1}/schedules/preview", body)).data
    assert [(one["kind"], one["at"]) for one in told["notes"]] == [
        ("dst", "2026-03-29T01:00:00Z"), ("dst", "2026-10-25T01:00:00Z"),
    ]  # fmt: skip
    assert "it will run right after the gap" in told["notes"][0]["text"]
    client.headers = dict(BROWSER)
    assert "does not exist in Europe/Berlin: it will" in text(await client.get("/schedules?when=30+2+*+*+*"))


@pytest.mark.parametrize("span", ["0", "32d", "soon"])
async def test_spans_that_cannot_be_are_refused(pair, span):
    assert (await pair[1].get(f"{V1}/overlaps?for={span}")).code == "invalid-value"
