"""What a job, a caller or a receiver may say without bringing a page down: each found by who tried to."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from test_web_pages import BROWSER, filled, text
from web_clients import HOSTS, V1

from taskloop import Options, TaskScheduler
from taskloop.chain import Check
from taskloop.options import Http
from taskloop.runs import State
from taskloop.web import Principal
from taskloop.web.api import asking, events
from taskloop.web.discretion import UNTOLD, explained
from taskloop.why import Explanation

pytestmark = pytest.mark.anyio
FIRST, LAST = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"


def shop(**options):
    scheduler = TaskScheduler(
        "sqlite:///:memory:", options=Options(grace=timedelta(0), http=Http(submit_limit=None), **options)
    )

    @scheduler.job()
    async def fails():
        raise ValueError(f"neither {FIRST} nor {LAST}")

    @scheduler.job()
    async def adds(at: datetime | None = None) -> int:
        return 1

    return scheduler


@pytest.fixture
def principal():
    return Principal("ann", "admin")


@pytest.fixture(params=sorted(HOSTS))
def host(request):
    return HOSTS[request.param]


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
async def test_no_instant_is_too_far_away_for_a_page_on_any_clock(zone, host, no_task_outlives_the_fixture):
    scheduler = shop(timezone=zone)
    async with host(scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        await (await scheduler.submit("fails")).wait(10)
        await (await scheduler.submit("adds", at=FIRST)).wait(10)
        await scheduler.submit("adds", at=LAST)
        runs = [await (await scheduler.submit("adds", {"at": one})).wait(10) for one in (FIRST, LAST)]
        assert {one.state for one in runs} == {State.SUCCEEDED}
        again = [f"/jobs/adds?from_run={one.id}" for one in runs]
        why = [f"{path}?at={at}" for path in ("/jobs/adds", f"{V1}/jobs/adds/why") for at in (FIRST, LAST)]
        for path in ("/", "/runs", "/jobs/fails", "/jobs/adds", "/timeline", "/schedules", *again, *why):
            answer = await client.get(path)
            assert answer.status < 500, f"{path}: {text(answer)}"


@pytest.fixture
async def pair(host, principal, no_task_outlives_the_fixture):
    scheduler = shop()
    async with host(scheduler, auth=lambda _: principal) as client:
        client.headers = dict(BROWSER)
        yield scheduler, client


async def test_a_form_that_repeats_what_is_no_run_is_refused_and_submits_nothing(pair):
    scheduler, client = pair
    for written in ("9" * 30, "9" * 6_000, "²", "-1", "one"):
        answer = await filled(client, "/jobs/adds/submit", from_run=written)
        assert answer.status == 404 and "No such run" in text(answer), written
    assert not await scheduler.runs()


async def test_a_parameter_that_is_nested_too_deep_is_refused_and_the_deepest_that_is_not_can_be_read_everywhere(pair):
    scheduler, client = pair
    scheduler.add_job(echo)
    for levels, status in ((900, 422), (199, 202)):
        raw = f'{{"params": {{"value": {"[" * levels}1{"]" * levels}}}}}'.encode()
        answer = await client.post(f"{V1}/jobs/echo/submit", raw=raw, headers={"accept": "*/*"})
        assert answer.status == status, answer.body
    run = await scheduler.wait(answer.data["id"], 10)
    assert run.state is State.SUCCEEDED and run.result == run.params["value"]
    await (await scheduler.rerun(run.id)).wait(10)
    for path in (f"{V1}/runs", f"{V1}/runs/export", f"{V1}/runs/{run.id}", "/runs", f"/runs/{run.id}", "/jobs/echo"):
        assert (await client.get(path)).status == 200, path


async def test_of_runs_that_came_to_much_a_page_has_fewer_and_all_pages_have_every_one_once(pair, monkeypatch):
    monkeypatch.setattr(asking, "PAGE_CHARACTERS", 20_000)
    scheduler, client = pair
    scheduler.add_job(echo)
    large = [{"value": "x" * 3_000}, {"value": ["y" * 100] * 30}]
    calls = [scheduler["echo"].bind(**(large[n % 2] if n < 40 else {"value": n})) for n in range(120)]
    made = [one.run.id for one in await scheduler.submit_many(calls)]
    for one in made:
        await scheduler.wait(one, 10)
    for limit, most in ((1000, 83), (50, 50)):  # the newest eighty have little, and of the others three fill a page
        found, sizes, before = [], [], ""
        while before is not None:
            page = (await client.get(f"{V1}/runs?limit={limit}&before={before}")).data
            found += [one["id"] for one in page["items"]]
            sizes.append(len(page["items"]))
            before = page["next"]
        assert found == made[::-1], limit
        assert max(sizes) == most and 3 in sizes, sizes
    exported = (await client.get(f"{V1}/runs/export")).body.splitlines()
    assert [json.loads(one)["id"] for one in exported] == made[::-1]


async def test_statistics_of_runs_that_came_to_much_hold_only_some_of_them_at_once(pair, monkeypatch):
    monkeypatch.setattr(asking, "AT_ONCE", 5)
    scheduler, client = pair
    scheduler.add_job(echo, name="large")
    for _ in range(42):
        await (await scheduler.submit("large", {"value": "x" * 400_000})).wait(10)
    tracemalloc.start()
    try:
        told = (await client.get(f"{V1}/jobs/large/stats")).data
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (told["runs"]["succeeded"], told["complete"]) == (42, True)
    assert peak < 42 * 2 * 400_000 / 2, peak  # each was given as much as it came to


async def echo(value=None):
    return value


# -- what is for admins alone


async def test_where_the_store_lies_is_told_to_admins_alone_also_by_what_went_wrong_with_it(
    host, tmp_path, no_task_outlives_the_fixture
):
    folder, who = tmp_path / "vault", {"scope": "admin"}
    folder.mkdir()
    scheduler = shop()
    scheduler.furnish(store=folder / "shop.db")
    async with host(scheduler, auth=lambda _: Principal("ann", who["scope"])) as client:

        async def telling(*paths):
            """Of each path, whether its answer tells it."""
            answers = {path: await client.get(path, headers={"accept": "text/html"}) for path in paths}
            assert {one.status for one in answers.values()} == {200}
            return [path for path, one in answers.items() if b"vault" in one.body]

        paths = ["/", f"{V1}/status", f"{V1}/attention"]
        heard = {}
        async with client.stream(f"{V1}/events?name=store_lost") as admins:
            who["scope"] = "operate"
            async with client.stream(f"{V1}/events?name=store_lost") as others:
                folder.rename(tmp_path / "unplugged")
                heard = {"admin": await admins.event(), "operate": await others.event()}
        assert [name for name, one in heard.items() if "vault" in one["data"]["data"]["error"]] == ["admin"]
        assert await telling(*paths) == []
        who["scope"] = "admin"
        assert await telling(*paths) == paths
        (tmp_path / "unplugged").rename(folder)
        async with asyncio.timeout(10):
            while not await telling(f"{V1}/loop"):
                await asyncio.sleep(0.05)
        assert await telling("/workers") == ["/workers"]
        who["scope"] = "read"
        assert await telling("/workers", f"{V1}/loop", "/", f"{V1}/jobs/adds/why?at=0s", "/jobs/adds?at=0s") == []


async def test_who_signs_out_at_the_host_or_may_less_there_hears_no_more(
    host, monkeypatch, no_task_outlives_the_fixture
):
    monkeypatch.setattr(events, "ASK_SECONDS", 0.1)
    scheduler, who = shop(), {}
    async with host(scheduler, auth=lambda _: who["ann"]) as client:
        for path, after in (("/changes", None), (f"{V1}/events", Principal("ann", "read"))):
            who["ann"] = Principal("ann", "admin")
            async with client.stream(path) as stream:
                await scheduler.submit("adds")
                assert await stream.event() is not None
                who["ann"] = after
                async with asyncio.timeout(5):
                    while await stream.event() is not None:
                        pass


def test_an_explanation_loses_the_words_of_the_store_wherever_they_stand_and_nothing_else():
    words = "store /srv/vault/shop.db was deleted"
    away = Check("store", False, f"was away for 3s from {FIRST}: {words}", {"error": words}, "store_unavailable")
    loop = Check("loop", True, "stood still for 3 ms", {"error": "of a job"})
    known = Explanation(verdict="did_not_run", code="store", text=f"not run: {away.text}", at=None, checks=(loop, away))
    told = explained(known)
    assert told.text == f"not run: was away for 3s from {FIRST}: {UNTOLD}" and told.checks[0] == loop
    assert told.checks[1].text == f"was away for 3s from {FIRST}: {UNTOLD}" and told.checks[1].data == {"error": UNTOLD}
    now = replace(known, text=f"late: is away: {words}", checks=(Check("store", False, f"is away: {words}"),))
    assert (explained(now).text, explained(now).checks[0].text) == (f"late: is away: {UNTOLD}", f"is away: {UNTOLD}")
