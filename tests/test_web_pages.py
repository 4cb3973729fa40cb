"""The dashboard without a browser: what its pages say, what its forms do, and that nothing a job says becomes HTML."""

from __future__ import annotations

import asyncio
import html
import os
import re
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Literal
from urllib.parse import unquote, urlencode
from zoneinfo import ZoneInfo

import pytest
from pydantic import BaseModel, Field, SecretStr
from web_clients import HOSTS, PREFIX, over_asgi

from taskloop import At, Cron, Every, Jobs, Options, Retry, RunContext, TaskScheduler
from taskloop.errors import BadParameters
from taskloop.masking import MASK, Secret
from taskloop.options import Http
from taskloop.parameters import Parameters
from taskloop.policy import Policy
from taskloop.runs import Run, State
from taskloop.schedules import Schedule
from taskloop.store_data import Incident, Worker
from taskloop.testing import virtual_time
from taskloop.web.pages import ROUTES
from taskloop.web.pages.forms import PREFIX as FIELD
from taskloop.web.pages.forms import fields, in_a_gap, typed
from taskloop.web.pages.rendering import HERE, linked
from taskloop.web.pages.repeating import changes
from taskloop.web.pages.schedules import meant
from taskloop.web.pages.loops import culprit, loop_strip
from taskloop.web.pages.strips import brief, strip, took
from taskloop.web.security import Principal, Scope

pytestmark = pytest.mark.anyio

TEMPLATES = HERE / "templates"
EVIL = "<script>alert(1)</script>\"'&"
BROWSER = {"accept": "text/html,application/xhtml+xml", "sec-fetch-site": "same-origin"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


def shop(store="sqlite:///:memory:", submit_limit=None):
    options = Options(grace=timedelta(0), http=Http(submit_limit=submit_limit))
    scheduler = TaskScheduler(store, options=options, name="shop")

    @scheduler.job(title="Adds up", tags=("sums",))
    async def add(a: int, b: int = 2, mode: Literal["fast", "full"] = "full", loud: bool = True) -> int:
        return a + b

    @scheduler.job(title=EVIL, description=EVIL)
    async def evil(run: RunContext, text: str = EVIL):
        run.log(EVIL)
        run.progress(1, 2, EVIL)
        raise ValueError(EVIL)

    @scheduler.job(secret=("key",))
    async def secretive(key: str): ...

    @scheduler.job()
    async def waits():
        await asyncio.sleep(60)

    @scheduler.every("1h", first="after")
    async def hourly(): ...

    flow = scheduler.flow("video")

    @flow.step()
    async def fetch() -> str:
        return EVIL

    @flow.step()
    async def cut(fetch: str) -> int:
        return len(fetch)

    return scheduler


@pytest.fixture(params=sorted(HOSTS))
def host(request):
    return HOSTS[request.param]


@pytest.fixture
async def pair(host, no_task_outlives_the_fixture):
    scheduler = shop()
    async with host(scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        yield scheduler, client


async def filled(client, path, **form):
    return await client.post(path, raw=urlencode(form).encode(), headers=FORM)


def text(answer):
    """What a reader sees."""
    plain = re.sub(r"</?bdi>", "", answer.body.decode())
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", plain)))


# -- what is shown


async def test_the_first_page_says_that_all_is_well_or_what_is_not(pair):
    scheduler, client = pair
    before = await client.get("/")
    await (await scheduler.submit("evil")).wait()
    after = await client.get("/")
    assert before.status == 200 and "Nothing needs you." in text(before) and "hourly" in text(before)
    assert "Needs attention (1) ✗ failing evil" in text(after) and "Last failures" in text(after)
    assert "Since midnight UTC: no run has ended." in text(before) and "Since midnight UTC: 1 failed" in text(after)
    led = html.unescape(re.search(r'href="/taskloop(/runs\?state=failed&amp;since[^"]*)"', after.body.decode())[1])
    assert "evil" in text(await client.get(led)), "a figure leads to what it counts"
    run = await client.get("/runs/1")
    same = html.unescape(re.search(r'href="/taskloop(/failures\?[^"]*)">all that', run.body.decode())[1])
    assert "1 run failed of it" in text(await client.get(same))
    why = html.unescape(re.search(r'href="/taskloop(/jobs/evil\?at=[^"]*)#why"', run.body.decode())[1])
    assert "run 1 , asked for" in text(await client.get(why))


async def test_where_nobody_runs_anything_the_first_page_does_not_say_that_nothing_needs_you(
    host, no_task_outlives_the_fixture
):
    async with host(TaskScheduler("sqlite:///:memory:", options=Options(enabled=False)), auth="open") as client:
        client.headers = dict(BROWSER)
        said = text(await client.get("/"))
    assert "only submits: nothing will run until a worker is started" in said and "Nothing needs you" not in said


async def test_while_the_store_is_away_the_first_page_shows_what_is_known_without_it(
    host, tmp_path, no_task_outlives_the_fixture
):
    scheduler, folder = shop(), tmp_path / "store"
    folder.mkdir()
    scheduler.furnish(store=folder / "shop.db")
    async with host(scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        run = await scheduler.submit("waits")
        async with asyncio.timeout(5):
            while (await scheduler.run(run.id)).state != "running":
                await asyncio.sleep(0.01)
        folder.rename(tmp_path / "unplugged")
        away, other = await client.get("/"), await client.get("/jobs")
        sent = await filled(client, "/jobs/waits/disable", reason="moving", until="")
        (tmp_path / "unplugged").rename(folder)
        back = await client.get("/")
    assert away.status == back.status == 200
    assert "The store does not answer." in text(away) and "running waits run 1" in text(away)
    assert 'method="post"' not in away.body.decode() and "Nothing needs you" not in text(away)
    assert "The store does not answer." not in text(back) and "hourly" in text(back)
    assert (other.status, other.headers["refresh"]) == (503, "5") and "asks again by itself" in text(other)
    assert sent.status == 503 and "was not done as far as is known. One step back it stands as you typed it" in text(
        sent
    )
    assert "asks again by itself" not in text(sent) and "as you typed it" not in text(other)


async def test_all_jobs_are_listed_with_how_they_stand_and_can_be_narrowed(pair):
    scheduler, client = pair
    await (await scheduler.submit("evil")).wait()
    await scheduler.disable("hourly", reason="moving house", actor="anna")
    whole = text(await client.get("/jobs"))
    assert "6 of 6 jobs" in whole and "by anna: moving house" in whole and "Adds up" in whole
    assert "1 of 6 jobs" in text(await client.get("/jobs?condition=failing"))
    assert "1 of 6 jobs" in text(await client.get("/jobs?tag=sums"))
    none = text(await client.get("/jobs?text=nothing+like+this"))
    assert "0 of 6 jobs" in none and "No job is like that." in none


@pytest.mark.parametrize(
    ("path", "leads"),
    [
        ("/jobs?tag=sumz&condition=never_ran", "/jobs?condition=never_ran&tag=sums"),
        ("/jobs?text=hourli", "/jobs?text=hourly"),
        ("/runs?job=hourli&state=failed", "/runs?job=hourly&state=failed"),
        ("/jobs?text=xyz", None),
        ("/jobs?tag=sums&condition=failing", None),
        ("/runs?job=hourly", None),
    ],
)
async def test_a_filter_that_is_misspelt_leads_to_what_may_be_meant(pair, path, leads):
    page = (await pair[1].get(path)).body.decode()
    found = re.search(r'Did you mean (?:the tag )?<a href="/taskloop([^"]*)"', page)
    assert (html.unescape(found[1]) if found else None) == leads


async def test_where_there_is_nothing_the_pages_say_so_and_where_nothing_fits_they_lead_to_all(
    no_task_outlives_the_fixture,
):
    async with over_asgi(TaskScheduler("sqlite:///:memory:"), auth="open") as client:
        client.headers = dict(BROWSER)
        jobs, runs, schedules = [text(await client.get(path)) for path in ("/jobs", "/runs", "/schedules")]
    assert "No job is declared." in jobs and "No run is on record." in runs and "There is no schedule:" in schedules
    assert not [page for page in (jobs, runs, schedules) if "like that" in page] and "quietest" not in schedules
    async with over_asgi(shop(), auth="open") as client:
        client.headers = dict(BROWSER)
        for path, narrowed in (("/jobs", "text=nope"), ("/runs", "job=nope"), ("/schedules", "prefix=nope")):
            page = await client.get(f"{path}?{narrowed}")
            assert "is like that." in text(page) and f'href="{PREFIX}{path}">All ' in page.body.decode(), path
        assert "All schedules" in text(await client.get("/schedules?prefix=hour")), "also where some fit"
        of_the_job = re.search(
            r'href="/taskloop(/schedules[^"]*)"',
            (await client.get("/jobs/hourly")).body.decode().split('id="coming"')[1],
        )
        led = (await client.get(of_the_job[1])).body.decode()
        assert 'name="prefix" value=""' in led and 'name="job" value="hourly"' in led and 'id="schedule-hourly"' in led


async def test_a_job_that_fails_is_said_to_on_all_pages_also_while_it_is_at_it_again(pair):
    scheduler, client = pair
    again = asyncio.Event()

    async def imports(well: bool = False):
        if not again.is_set():
            raise OSError("no space")
        await asyncio.sleep(60 if not well else 0)

    scheduler.add_job(imports)
    for _ in range(2):
        await (await scheduler.submit("imports")).wait()
    again.set()
    handle = await scheduler.submit("imports")
    async with asyncio.timeout(5):
        while (await scheduler.run(handle.id)).state != "running":
            await asyncio.sleep(0)
    jobs = text(await client.get("/jobs?text=imports"))
    assert "failing 2× imports OSError: no space" in text(await client.get("/"))
    assert re.search(r"imports ▶ running ✗ failing 2× on demand", jobs), jobs
    assert re.search(r"▶ running ✗ failing 2× · on demand", text(await client.get("/jobs/imports")))
    await scheduler.cancel(handle.id)
    await handle.wait(5)
    await (await scheduler.submit("imports", {"well": True})).wait()
    assert "failing" not in text(await client.get("/jobs/imports")).split("on demand")[0]


async def test_what_waits_is_named_on_the_first_page_with_what_it_waits_for(pair):
    scheduler, client = pair
    await scheduler.pause("waits", actor="tom")
    for _ in range(4):
        await scheduler.submit("waits")
    first = await client.get("/")
    assert "waiting (4)" in text(first) and "all that wait" in text(first)
    assert re.search(r"waiting waits run 1 : paused since [^:]*:\d\d:\d\d UTC by tom", text(first))


async def test_what_waits_now_stands_before_what_was_asked_for_a_time_to_come(host, no_task_outlives_the_fixture):
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(grace=timedelta(0), max_running=1), name="shop")

    @scheduler.job()
    async def holds():
        await asyncio.sleep(60)

    @scheduler.job()
    async def remind(user: int): ...

    async with host(scheduler, auth="open") as client:
        await scheduler.submit("holds")
        ready = await scheduler.submit("remind", {"user": 0})
        for user in range(1, 60):
            await scheduler.submit("remind", {"user": user}, at="+300d")
        shown = re.findall(r"waiting remind run (\d+)", text(await client.get("/", headers=BROWSER)))
    assert shown[0] == str(ready.id) and len(shown) == 3


async def test_what_a_job_says_at_length_takes_no_room_from_the_others_and_is_whole_on_the_page_of_its_run(
    host, no_task_outlives_the_fixture
):
    scheduler, said = shop(), asyncio.Event()

    @scheduler.job()
    async def talks(run: RunContext):
        run.progress(1, 2, "talk " * 100)
        said.set()
        await asyncio.sleep(60)

    @scheduler.job(retry=Retry(2, first="1h"))
    async def fails(run: RunContext):
        raise ValueError("woe " * 200)

    async with host(scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        failed = await scheduler.submit("fails")
        await scheduler.submit("talks")
        await said.wait()
        while not (await scheduler.run(failed.id)).error or not (await scheduler.run(failed.id + 1)).progress:
            await asyncio.sleep(0)
        for path in ("/", "/runs"):
            page = text(await client.get(path))
            assert 10 < page.count("talk ") < 30, path
            assert 10 < page.count("woe ") < 80, path
        assert text(await client.get("/runs/2")).count("talk ") == 100
        assert text(await client.get(f"/runs/{failed.id}")).count("woe ") >= 200


async def test_of_a_job_that_was_switched_on_the_list_does_not_say_that_it_fails_since_then_by_whoever_did_that(pair):
    scheduler, client = pair
    await scheduler.disable("evil", actor="ann", reason="moving")
    await scheduler.disable("hourly", actor="tom", reason="later")
    off = text(await client.get("/jobs?text=a"))
    await scheduler.enable("evil", actor="ann")
    await (await scheduler.submit("evil")).wait()
    on = text(await client.get("/jobs"))
    assert re.search(r"disabled (now|[^:]* ago) by ann: moving", off)
    assert "failing" in on and "by ann" not in on and "by tom: later" in on


async def test_what_is_left_of_a_run_is_counted_on_and_where_it_reports_nothing_more_since_when_is_said():
    """Of a job that hung at nine tenths the pages said for hours that four seconds were left."""
    scheduler = TaskScheduler("sqlite:///:memory:")

    @scheduler.job()
    async def hangs(run: RunContext):
        await asyncio.sleep(30)
        run.progress(3, 4)
        await asyncio.sleep(10**6)

    async with virtual_time(scheduler) as time, over_asgi(scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        run = await scheduler.submit("hangs")
        said = []
        for span in ("31s", "5s", "2h"):
            await time.advance(span)
            said.append([text(await client.get(path)) for path in ("/", "/runs", f"/runs/{run.id}")])
    assert all("75 % · 9.0 s left" in page for page in said[0])
    assert all("75 % · 4.0 s left" in page for page in said[1])
    assert all("75 % · last reported 2h 0m ago" in page and " s left" not in page for page in said[2])


async def test_what_has_succeeded_is_not_on_its_way_any_more(no_task_outlives_the_fixture):
    scheduler = TaskScheduler("sqlite:///:memory:")
    flow = scheduler.flow("video")

    @flow.step(optional=True)
    async def captions():
        raise TimeoutError

    @flow.step()
    async def cut(captions: None): ...

    @scheduler.job()
    async def halfway(run: RunContext):
        run.progress(1, 2)
        raise OSError

    async with over_asgi(scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        ended = [(await (await scheduler.submit(job)).wait()).id for job in ("video", "halfway")]
        pages = [(await client.get(f"/runs/{one}")).body.decode() for one in ended]
    assert ["<progress" in page for page in pages] == [False, True]


async def test_a_thousand_jobs_come_page_by_page(host, no_task_outlives_the_fixture):
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options())

    async def job(): ...

    for number in range(120):
        scheduler.add_job(job, name=f"job-{number:03}")
    async with host(scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        path, seen = "/jobs", []
        while path:
            answer = await client.get(path)
            seen += re.findall(r'class="job" href="[^"]*/jobs/(job-\d+)"', answer.body.decode())
            following = re.search(r'rel="next" href="/taskloop([^"]*)"', answer.body.decode())
            path = html.unescape(following[1]) if following else None
    assert seen == [f"job-{number:03}" for number in range(120)]


async def test_the_history_comes_page_by_page_and_can_be_narrowed(pair):
    scheduler, client = pair
    for handle in await scheduler.submit_many([scheduler["add"].bind(a=number) for number in range(60)]):
        await handle.wait()
    await (await scheduler.submit("evil")).wait()
    first = await client.get("/runs")
    older = html.unescape(re.search(r'rel="next" href="/taskloop([^"]*)"', first.body.decode())[1])
    ids = [int(one) for one in re.findall(r'class="run" href="[^"]*/runs/(\d+)"', first.body.decode())]
    rest = [int(one) for one in re.findall(r'/runs/(\d+)"', (await client.get(older)).body.decode())]
    assert ids == list(range(61, 11, -1)) and rest == list(range(11, 0, -1))
    assert 'rel="next"' not in (await client.get("/runs?state=failed")).body.decode()
    assert "No run is like that. The next is due" in text(await client.get("/runs?state=cancelled"))


async def test_a_link_for_several_states_stays_so_in_its_filter_and_what_is_on_the_page_is_had_as_a_file(pair):
    scheduler, client = pair
    for job in ("evil", "evil", "add"):
        await (await scheduler.submit(job, {"a": 1} if job == "add" else {})).wait()

    def chosen(answer):
        return re.findall(r'<option(?: value="([^"]*)")? selected>([^<]*)', answer.body.decode())

    page = await client.get("/runs?state=failed,interrupted&job=evil")
    assert chosen(page) == [("failed,interrupted", "failed, interrupted")]
    links = [html.unescape(one) for one in re.findall(r'href="/taskloop(/api/v1/runs[^"]*)"', page.body.decode())]
    assert [one["id"] for one in (await client.get(links[0])).items] == [2, 1]
    assert "since=7d" in links[1] and len((await client.get(links[1])).body.decode().splitlines()) == 3
    page = await client.get("/runs?since=2h")
    assert "since=2h" in page.body.decode() and "since=7d" not in page.body.decode() and "of 7 days" not in text(page)
    assert 'href="/taskloop/runs?state=failed,interrupted">all failures' in (await client.get("/")).body.decode()
    page = await client.get("/jobs?condition=failing,never_ran")
    assert chosen(page) == [("failing,never_ran", "failing, never ran")]
    assert "/api/v1/jobs?condition=failing%2Cnever_ran" in page.body.decode()


async def test_a_run_is_told_from_its_start_to_its_end(pair):
    scheduler, client = pair
    flow = await (await scheduler.submit("video")).wait()
    bad = await (await scheduler.submit("evil", actor="anna")).wait()
    shown = text(await client.get(f"/runs/{flow.id}"))
    assert "succeeded after" in shown and "fetch ✓ succeeded 1" in shown and "This run left no lines" in shown
    shown = text(await client.get(f"/runs/{bad.id}"))
    assert "manual by anna" in shown and f"ValueError {EVIL}" in shown and "Traceback" in shown
    assert f"info {EVIL}" in shown


async def test_a_run_that_waits_names_what_it_waits_for(pair):
    scheduler, client = pair
    await scheduler.pause("add", reason="no")
    handle = await scheduler.submit("add", {"a": 1})
    assert "It waits:" in text(await client.get(f"/runs/{handle.id}"))
    assert "paused" in text(await client.get("/jobs/add"))


async def test_a_run_whose_worker_is_gone_is_not_shown_as_if_it_went_on(pair):
    scheduler, client = pair
    handle = await scheduler.submit("add", {"a": 1}, at="+1h")
    store, long_ago = scheduler._open_store, datetime.now(UTC) - timedelta(hours=1)
    await store.enlist(Worker("gone", None, "elsewhere", 1, "p", long_ago, long_ago))
    taken = (
        "state = 'running', worker = 'gone', token = 1, attempt = 1, started_at = due_at, attempt_started_at = due_at"
    )
    await store._do(lambda db: db.execute(f"UPDATE taskloop_runs SET {taken} WHERE id = {handle.id}").fetchall())
    shown = text(await client.get(f"/runs/{handle.id}"))
    assert "It is on record as running, but worker gone (elsewhere pid 1) was last seen" in shown


async def test_what_a_page_was_asked_in_vain_is_said_within_its_frame_with_the_way_back(pair):
    scheduler, client = pair
    for path, name, value, sentence in (
        ("/runs?since=banana&job=add", "since", "banana", "instant 'banana': it cannot be read"),
        ("/failures?since=x%22y", "since", 'x"y', "it cannot be read"),
        ("/timeline?from=x&to=5h", "from", "x", "the window cannot be: duration 'x'"),
        ("/runs?state=fialed", "state", "fialed", "did you mean 'failed'?"),
    ):
        page = await client.get(path)
        body, said = page.body.decode(), text(page)
        assert page.status == 422 and sentence in said and "aware datetime" not in said, path
        assert 'aria-label="Pages"' in body and "anyone (admin)" in said and "· anyone" not in said, path
        assert f'<input name="{name}" value="{html.escape(value, quote=True)}"'.replace("&quot;", "&#34;") in body, path
        assert f'action="{PREFIX}{path.partition("?")[0]}"' in body and "hx-get" not in body, path
    unknown = text(await client.get("/runs?foo=1"))
    assert "'foo' is unknown; known here: job, state, cause, since, before" in unknown and "refresh" not in unknown
    for path in ("/nope", "/runs/99", "/jobs/nope", "/runs/99/x"):
        page = await client.get(path)
        assert page.status == 404 and 'aria-label="Pages"' in page.body.decode(), path
        assert "`" not in text(page) and "openapi" not in text(page), path
    stranger = await client.get("/runs", headers={"host": "foreign.example"})
    assert stranger.status == 403 and 'aria-label="Pages"' not in stranger.body.decode()


async def test_an_empty_instant_asks_why_as_of_now(pair):
    _, client = pair
    empty, none = await client.get("/jobs/hourly?at="), await client.get("/jobs/hourly")
    why = [re.search(r"<p><b>(.*?)</b></p>", one.body.decode(), re.DOTALL)[1] for one in (empty, none)]
    assert empty.status == 200 and "state failed" not in empty.body.decode() and why[0][:30] == why[1][:30]


async def test_why_is_answered_on_the_page_of_a_job(pair):
    _, client = pair
    answered = text(await client.get("/jobs/hourly?at=2h"))
    assert "link by link" in answered and "timetable:" in answered
    wrong = await client.get("/jobs/hourly?at=yesterday")
    assert wrong.status == 200 and "yesterday" in text(wrong)


async def test_an_instant_in_the_words_of_an_error_or_a_reason_stays_as_it_was_written(no_task_outlives_the_fixture):
    scheduler, at = TaskScheduler("sqlite:///:memory:"), "2026-01-01T00:00:00Z"

    @scheduler.job()
    async def rates():
        raise ValueError(f"no rates since {at}")

    @scheduler.job(retry=Retry(attempts=2, first="1h"))
    async def again():
        raise ValueError(f"no rates since {at}")

    async with over_asgi(scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        await scheduler.disable("rates")
        await scheduler.enable("rates", reason=f"from {at}")
        await (await scheduler.submit("rates")).wait()
        retried = await scheduler.submit("again")
        while (await scheduler.run(retried.id)).error is None:
            await asyncio.sleep(0.01)
        first = text(await client.get("/"))
        assert f"failing rates ValueError: no rates since {at}" in first
        waits = text(await client.get(f"/runs/{retried.id}"))
        assert re.search(rf"begins at (\w+ \d+ \w+ )?\d\d:\d\d:\d\d UTC after ValueError: no rates since {at}", waits)
        why = text(await client.get("/jobs/rates?at=1s"))
        assert f"ValueError: no rates since {at}" in why and f'"from {at}"' in why
        assert len(re.findall(r"\d\d:\d\d:\d\d UTC", why)) > 2


async def test_what_a_job_says_is_shown_as_text_wherever_it_stands(pair):
    scheduler, client = pair
    bad = await (await scheduler.submit("evil", actor=EVIL, key=EVIL[:40], reason=EVIL)).wait()
    flow = await (await scheduler.submit("video")).wait()
    await scheduler.disable("evil", reason=EVIL, actor=EVIL)
    await scheduler.pause(reason=EVIL, actor=EVIL)
    for path in ("/", "/jobs", "/jobs/evil", "/runs", f"/runs/{bad.id}", f"/runs/{flow.id}", "/jobs/%3Cscript%3E",
                 f"/jobs/evil?from_run={bad.id}", "/failures", "/schedules?when=%3Cscript%3E", "/workers", "/jobs?text=%3Cscript%3E", "/runs?job=%3Cscript%3E%22"):  # fmt: skip
        answer = await client.get(path)
        body = answer.body.decode()
        assert body.lower().count("<script") == body.count(f'<script defer src="{PREFIX}/static/'), path
        assert answer.headers["content-type"] == "text/html; charset=utf-8", path
        assert "style=" not in body and "onclick" not in body, "the policy would forbid it"
    assert EVIL in text(await client.get(f"/runs/{bad.id}"))


async def test_what_turns_the_direction_of_writing_is_shown_instead_of_obeyed_but_goes_back_as_it_was(
    no_task_outlives_the_fixture,
):
    scheduler, turned = TaskScheduler("sqlite:///:memory:"), "مرحبا \u202e reversed \u2067 run 1 \u200f"

    @scheduler.job(title=turned, description=turned)
    async def turns(run: RunContext, text: str = turned):
        run.log(turned)
        run.progress(1, 2, turned)
        raise ValueError(turned)

    async with over_asgi(scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        await (await scheduler.submit("turns", key=turned, actor=turned, reason=turned)).wait()
        await scheduler.pause("turns", reason=turned, actor=turned)
        await scheduler.submit("turns")
        for path in ("/", "/jobs", "/jobs/turns", "/runs", "/runs/1", "/runs/2", "/failures", "/audit"):
            page = (await client.get(path)).body.decode()
            assert r"\u202e reversed" in page, path
            left = re.sub(r"<textarea.*?</textarea>", "", page, flags=re.DOTALL)
            assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f]", left), path
        form = {one.name: one.value for one in fields((await scheduler.jobs("turns"))[0].params_schema)}
        page = html.unescape((await client.get("/jobs/turns")).body.decode())
    assert form == {"text": turned} and f">\n{turned}</textarea>" in page


def test_the_value_of_a_field_is_given_as_it_is():
    """What a template says is changed where it would turn the page around; what is escaped already is not."""
    for template in TEMPLATES.glob("*.html"):
        for value in re.findall(r'<(?:input|option)[^>]* value="\{\{(.*?)\}\}"', template.read_text()):
            assert value.endswith("| e ") or value.strip() in ("once", "one.last", "source.id"), (template.name, value)


async def test_pages_are_sent_with_a_policy_that_allows_no_script_but_our_files(pair):
    _, client = pair
    policy = (await client.get("/")).headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self';" in policy and "frame-ancestors 'none'" in policy
    css = await client.get("/static/taskloop.css")
    assert css.status == 200 and css.headers["content-type"].startswith("text/css")
    for name in ("nothing.css", "..%2Frendering.py", "%2Fetc%2Fpasswd"):
        assert (await client.get(f"/static/{name}")).status == 404


async def test_a_page_refreshes_itself_only_where_it_was_asked_to(pair):
    _, client = pair
    assert "refresh" not in (await client.get("/")).headers
    assert (await client.get("/?refresh=10")).headers["refresh"] == "10"
    assert (await client.get("/?refresh=1")).status == 422


async def test_a_refusal_is_a_page_for_people_and_a_problem_for_programs(pair):
    _, client = pair
    page = await client.get("/runs/99")
    plain = await client.get("/runs/99", headers={"accept": "*/*"})
    api = await client.get("/api/v1/runs/99")
    assert page.status == plain.status == api.status == 404
    assert "No such run" in text(page) and page.headers["content-type"].startswith("text/html")
    assert plain.code == api.code == "run-not-found"


async def test_the_old_address_of_the_switches_is_a_page_for_a_browser_and_json_for_a_program(pair):
    _, client = pair
    page = await client.get("/admin/control_processors")
    plain = await client.get("/admin/control_processors", headers={"accept": "application/json"})
    assert "6 of 6 jobs" in text(page) and page.headers["content-type"].startswith("text/html")
    assert {one["name"] for one in plain.data} >= {"add", "hourly"}


async def test_the_list_of_keys_has_the_key_of_every_page(pair):
    _, client = pair
    body = (await client.get("/")).body.decode()
    keys = re.findall(r'<a href="[^"]*" data-key="(\w)"[^>]*>(\w+)</a>', body)
    assert ("a", "Audit") in keys and len(keys) == 8
    listed = f"g then {' '.join(key for key, _ in keys)} go to {', '.join(page for _, page in keys)}"
    assert listed in text(await client.get("/"))


# -- what is done


async def test_a_submit_by_the_form_leads_to_its_run(pair):
    scheduler, client = pair
    answer = await filled(client, "/jobs/add/submit", **{"p.a": "3", "p.b": "", "p.mode": "fast", "reason": "by hand"})
    assert answer.status == 303 and answer.headers["location"] == "/taskloop/runs/1?said=submitted"
    run = await scheduler.wait(1, timeout=20)
    assert (run.result, dict(run.params), run.actor) == (5, {"a": 3, "mode": "fast", "loud": False}, "anyone")
    assert "the run waits for its turn" in text(await client.get("/runs/1?said=submitted"))
    assert "nobody" not in text(await client.get("/runs/1?said=nobody+says+this"))


async def test_a_run_that_lasts_longer_than_usual_is_told_so_by_the_history_of_its_job(
    monkeypatch, no_task_outlives_the_fixture
):
    monkeypatch.setattr("taskloop.web.foresight.USUAL_SECONDS", 0)
    scheduler = shop()

    @scheduler.job()
    async def copies(wait: bool = False):
        await asyncio.sleep(60 if wait else 0)

    async with over_asgi(scheduler, auth="open") as client:
        client.headers = dict(BROWSER)

        async def seen(run):
            while (await scheduler.run(run.id)).state is not State.RUNNING:
                await asyncio.sleep(0.01)
            return [text(await client.get(path)) for path in ("/", f"/runs/{run.id}")]

        first = await seen(await scheduler.submit("copies", {"wait": True}))
        assert not any("usual" in one for one in first), "nothing is usual yet"
        for handle in await scheduler.submit_many([scheduler["copies"].bind()] * 20):
            await handle.wait()
        assert all("slower than usual : 95 % take at most" in one for one in await seen(await scheduler.run(1)))


async def test_a_form_that_is_sent_twice_is_one_run_however_that_ended_and_one_that_was_changed_another(pair):
    scheduler, client = pair

    async def sent(job, **form):
        answer = await filled(client, f"/jobs/{job}/submit", **form)
        run, _, said = answer.headers["location"].removeprefix("/taskloop/runs/").partition("?said=")
        return int(run), said

    form = {"p.a": "3", "p.loud": "on", "once": "0123456789abcdef"}
    assert [await sent("add", **form) for _ in range(2)] == [(1, "submitted"), (1, "existed")]
    assert await sent("add", **form | {"p.a": "4"}) == (2, "submitted"), "somebody went back to it and changed it"
    assert await sent("add", **form) == (1, "existed")

    sign = re.search(r'name="once" value="(\w+)"', (await client.get("/jobs/evil")).body.decode())[1]
    assert await sent("evil", once=sign) == (3, "submitted")
    assert (await scheduler.wait(3, timeout=20)).state is State.FAILED
    again = {"from_run": "3", "p.text": "x", "once": "fedcba9876543210"}
    assert await sent("evil", **again) == (4, "submitted")
    assert (await scheduler.wait(4, timeout=20)).state is State.FAILED
    for one in (again, again | {"key": "mine"}, again | {"key": "mine"}):  # a key of one's own, the form changed by it
        await sent("evil", **one)
        await scheduler.wait(5, timeout=20) if "key" in one else None
    assert await sent("evil", once=sign) == (3, "existed"), "what has failed gave up its key, yet was asked for already"
    assert [one.key for one in await scheduler.runs("evil")][:1] == ["mine"] and len(await scheduler.runs()) == 5
    assert "asked for already" in text(await client.get("/runs/3?said=existed"))
    assert "Repeats run 3" in text(await client.get("/runs/4"))


async def test_a_form_that_reaches_another_process_the_second_time_finds_its_run_there(tmp_path):
    scheduler = shop(f"sqlite:///{tmp_path}/shop.db")
    form = {"once": "0123456789abcdef", "p.text": "a secret that the key must not tell"}
    async with over_asgi(scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        await filled(client, "/jobs/evil/submit", **form)
        assert (await scheduler.wait(1, timeout=20)).state is State.FAILED
    other = shop(f"sqlite:///{tmp_path}/shop.db")
    async with over_asgi(other, auth="open") as client:
        client.headers = dict(BROWSER)
        answer = await filled(client, "/jobs/evil/submit", **form)
        assert answer.headers["location"].endswith("/runs/1?said=existed")
        (run,) = await other.runs()
        assert re.fullmatch("form-[0-9a-f]{24}", run.key)


async def test_what_is_wrong_stands_beside_its_field_and_what_was_typed_is_kept(pair):
    scheduler, client = pair
    answer = await filled(client, "/jobs/add/submit", **{"p.a": "three", "p.b": "4", "key": "k-1"})
    body = answer.body.decode()
    assert answer.status == 422 and "Nothing was submitted" in text(answer)
    assert 'value="three"' in body and 'value="4"' in body and 'value="k-1"' in body and 'aria-invalid="true"' in body
    assert "<details open><summary>More" in body, "nothing that was typed is out of sight"
    assert await scheduler.runs() == []


async def test_a_secret_is_typed_into_a_field_that_hides_it_and_shown_nowhere(pair):
    scheduler, client = pair
    assert 'type="password"' in (await client.get("/jobs/secretive")).body.decode()
    done = await filled(client, "/jobs/secretive/submit", **{"p.key": "hunter2-and-more"})
    run = int(done.headers["location"].rpartition("/")[2].partition("?")[0])
    await scheduler.wait(run, timeout=20)
    pages = [await client.get(path) for path in (f"/runs/{run}", f"/jobs/secretive?from_run={run}", "/runs")]
    assert [one.status for one in pages] == [200] * 3 and not any(b"hunter2" in one.body for one in pages)


async def test_a_run_is_repeated_by_the_form_with_its_parameters(pair):
    scheduler, client = pair
    await (await scheduler.submit("add", {"a": 3, "b": 9})).wait()
    assert 'value="9"' in (await client.get("/jobs/add?from_run=1")).body.decode()
    await filled(client, "/jobs/add/submit", **{"from_run": "1", "p.a": "4", "p.b": "9", "p.mode": "full"})
    again = await scheduler.wait(2, timeout=20)
    assert (again.rerun_of, again.result) == (1, 13)
    assert "Repeats run 1" in text(await client.get("/runs/2")) and "Run again 2" in text(await client.get("/runs/1"))
    assert (await client.get("/jobs/evil?from_run=1")).status == 404, "it is of another job"


async def test_a_parameter_that_is_gone_with_a_deploy_is_named_by_the_form_that_cannot_be_sent_for_it(
    host, tmp_path, no_task_outlives_the_fixture
):
    """The page said 'see the fields below', where nothing stood; and what an older page had typed was dropped."""
    older, newer = (TaskScheduler(tmp_path / "shop.db") for _ in range(2))

    @older.job(name="load")
    async def with_region(day: int, region: str): ...

    @newer.job(name="load")
    async def without(day: int): ...

    async with host(older, auth="open"):
        run = await (await older.submit("load", {"day": 1, "region": "north"})).wait()
    async with host(newer, auth="open") as client:
        client.headers = dict(BROWSER)
        again = await filled(client, "/jobs/load/submit", from_run=run.id, **{f"{FIELD}day": "2"})
        both = await filled(client, "/jobs/load/submit", from_run=run.id, **{f"{FIELD}day": "x"})
        typed_ = await filled(client, "/jobs/load/submit", **{f"{FIELD}day": "2", f"{FIELD}region": "north"})
        empty = await filled(client, "/jobs/load/submit", **{f"{FIELD}day": "2", f"{FIELD}region": ""})
    gone = "parameter 'region' is unknown: another version of the program took it, this one does not; ask for a new run"
    assert again.status == 422 and f"Nothing was submitted: {gone} instead, without it." in text(again)
    assert both.status == 422 and f"Nothing was submitted: see the fields below; {gone}" in text(both)
    assert typed_.status == 422 and "parameter 'region' is none of the job by now, and what was typed" in text(typed_)
    assert 'value="2"' in typed_.body.decode() and empty.status == 303


async def test_a_run_that_failed_names_the_last_one_that_did_not_and_what_differs(pair):
    scheduler, client = pair

    @scheduler.job()
    async def divides(by: int = 1, share: int = 2):
        return share / by

    await (await scheduler.submit("divides", {"by": 4})).wait()
    await (await scheduler.submit("divides", {"by": 0})).wait()
    shown = text(await client.get("/runs/2"))
    assert "The last one before it that succeeded: run 1 ," in shown
    assert re.search("this one ran, with by 0 instead of 4 ?[.]", shown), shown[-900:]
    assert "The last one before it" not in text(await client.get("/runs/1"))


async def test_a_flow_is_run_again_from_a_step(pair):
    scheduler, client = pair
    await (await scheduler.submit("video")).wait()
    await filled(client, "/jobs/video/submit", from_run="1", from_step="cut")
    await scheduler.wait(2, timeout=20)
    assert "fetch ✓ succeeded kept" in text(await client.get("/runs/2"))
    assert "Repeats run 1 from step cut with the same parameters" in text(await client.get("/runs/2"))


async def test_the_step_to_begin_at_stays_chosen_where_a_field_is_refused_and_is_one_that_the_flow_has(pair):
    """Set right and sent again, the form called all of the steps anew; and it offered those that are refused."""
    scheduler, client = pair
    flow = Jobs().flow("bill")

    async def send() -> None: ...

    @flow.step()
    async def total(run: RunContext, rate: int = 1) -> int:
        await run.step("inner", send)
        return rate

    @flow.step(retry=1)
    async def sent(total: int) -> None:
        raise OSError("no mail")

    scheduler.adopt(flow)
    await (await flow.submit()).wait()

    def offered(page):
        options = page.body.decode().partition('<select id="from_step"')[2].partition("</select>")[0]
        return re.findall(r"<option( selected)?>(\w+)</option>", options)

    assert offered(await client.get("/jobs/bill?from_run=1")) == [("", "total"), ("", "sent")]
    refused = await filled(client, "/jobs/bill/submit", **{"from_run": "1", "from_step": "sent", "p.rate": "x"})
    assert refused.status == 422 and offered(refused) == [("", "total"), (" selected", "sent")]


async def test_of_a_flow_that_was_cancelled_no_step_is_shown_as_if_it_went_on(pair):
    scheduler, client = pair
    flow, begun = Jobs().flow("halfway"), asyncio.Event()

    @flow.step(retry=Retry(2, first="1h"))
    async def again() -> None:
        raise OSError("busy")

    @flow.step()
    async def lasts() -> None:
        begun.set()
        await asyncio.sleep(3600)

    @flow.step()
    async def ends(lasts: None) -> None: ...

    scheduler.adopt(flow)
    run = await flow.submit()
    await begun.wait()
    while (await scheduler.steps(run.id))[0].state != "waiting":
        await asyncio.sleep(0)
    await scheduler.cancel(run.id)
    await run.wait()
    page = await client.get("/runs/1")
    table = text(page).split("what came of it")[1]
    assert "again ⚡ interrupted 1 OSError busy lasts ⚡ interrupted 1" in table, table[:300]
    assert "again: ⚡ interrupted; lasts: ⚡ interrupted; ends, after lasts: ◯ not begun" in page.body.decode()


async def test_what_a_step_gave_is_shown_as_json(pair):
    scheduler, client = pair
    flow = Jobs().flow("stock")

    @flow.step()
    async def count() -> dict[str, bool | None]:
        return {"shelf": True, "cellar": None}

    scheduler.adopt(flow)
    await (await flow.submit()).wait()
    assert '{"shelf": true, "cellar": null}' in text(await client.get("/runs/1")).split("what came of it")[1][:200]


async def test_a_job_is_switched_off_and_on_and_held_and_let_go(pair):
    scheduler, client = pair

    async def stands():
        return (await scheduler.jobs("hourly"))[0].condition

    await filled(client, "/jobs/hourly/disable", reason="moving", until="")
    off = text(await client.get("/jobs/hourly"))
    assert await stands() == "disabled" and "by anyone: moving" in off and "while it is, these are skipped" in off
    refused = await filled(client, "/jobs/hourly/submit")
    assert refused.status == 409 and "Nothing was submitted" in text(refused)
    await filled(client, "/jobs/hourly/enable", reason="")
    wrong = await filled(client, "/jobs/hourly/pause", reason="moving", until="tomorrow")
    assert wrong.status == 422 and "Nothing was done" in text(wrong) and await stands() == "never_ran"
    assert wrong.body.count(b'value="moving"') == wrong.body.count(b'value="tomorrow"') == 1, "what was typed is kept"
    await filled(client, "/jobs/hourly/pause", reason="", until="+2h")
    assert await stands() == "paused" and "every hour; held by a pause" in text(await client.get("/"))
    await filled(client, "/jobs/hourly/resume", missed="")
    assert await stands() == "never_ran"
    await filled(client, "/pause", reason="move")
    assert "Everything is paused" in text(await client.get("/jobs")) and "by anyone: move" in text(
        await client.get("/")
    )
    await filled(client, "/resume", missed="skip")
    assert "Everything is paused" not in text(await client.get("/runs"))


async def test_what_holds_a_job_beside_its_switch_or_beside_all_is_told_and_ends_where_it_can_be_ended(pair):
    scheduler, client = pair
    page, on, hold, go = "/jobs/hourly", 'hourly/enable"', 'hourly/pause"', 'hourly/resume"'

    async def buttons():
        body = (await client.get(page)).body.decode()
        return [one for one in (on, hold, go) if one in body]

    await filled(client, f"{page}/pause", reason="moving", until="")
    held = text(await client.get(page))
    assert "; held by a pause" in held and "The job is paused: while it is, these are held." in held
    await filled(client, f"{page}/disable", reason="gone", until="")
    both = text(await client.get(page))
    assert "by anyone: gone." in both and re.search(r"And paused .* by anyone: moving\.", both)
    assert "On: what comes due is held, as long as it is paused." in both
    assert await buttons() == [on, go], "its pause can be ended while it is off"
    await filled(client, f"{page}/resume", missed="")
    await filled(client, f"{page}/enable", reason="")
    await filled(client, "/pause", reason="")
    assert "Everything is paused: while it is, these are held." in text(await client.get(page))
    assert await buttons() == [hold], "what holds all is not ended for one"
    of_an_older_page = await filled(client, f"{page}/resume", missed="")
    assert "goes on when that of everything is" in text(await client.get(of_an_older_page.headers["location"][9:]))


async def test_a_long_reason_is_whole_where_it_is_told_and_fills_neither_every_page_nor_the_list_of_jobs(pair):
    scheduler, client = pair
    await filled(client, "/pause", reason="disk " * 1000)
    await filled(client, "/jobs/hourly/disable", reason="later " * 1000)
    for path in ("/", "/runs", "/timeline"):
        assert 30 < text(await client.get(path)).count("disk ") < 70, path
    jobs = text(await client.get("/jobs"))
    assert 10 < jobs.count("later ") < 25 and jobs.count("disk ") < 70 + 25 * len([*scheduler])
    assert text(await client.get("/jobs/hourly")).count("later ") >= 1000
    told = text(await client.get("/audit"))
    assert told.count("disk ") >= 1000 and told.count("later ") >= 1000


async def test_who_ends_a_pause_that_another_has_ended_is_not_told_that_it_goes_on_as_was_chosen(pair):
    scheduler, client = pair
    for path, held in (("", None), ("/jobs/hourly", "hourly")):
        await scheduler.pause(held)
        first = await filled(client, f"{path}/resume", missed="skip")
        second = await filled(client, f"{path}/resume", missed="all")
        assert first.headers["location"].endswith("said=resumed")
        assert "Nothing was done: the pause was over already" in text(
            await client.get(second.headers["location"].removeprefix("/taskloop"))
        )
    assert [one.action for one in await scheduler.audit()] == ["resume", "resume"], "one for each that was ended"


async def test_whoever_looks_at_a_run_that_was_asked_to_end_and_goes_on_is_told(pair):
    scheduler, client = pair
    let_go = asyncio.Event()

    async def stubborn():
        while not let_go.is_set():
            with suppress(asyncio.CancelledError):
                await let_go.wait()

    scheduler.add_job(stubborn)
    handle = await scheduler.submit("stubborn")
    async with asyncio.timeout(5):
        while (await scheduler.run(handle.id)).state != "running":
            await asyncio.sleep(0)
    assert "asked it to end" not in text(await client.get(f"/runs/{handle.id}"))
    await filled(client, f"/runs/{handle.id}/cancel", reason="it hangs")
    told = text(await client.get(f"/runs/{handle.id}"))
    assert re.search(r"anyone asked it to end (now|.* ago) ?: it hangs\. It has not ended yet\.", told)
    let_go.set()
    await handle.wait(5)
    assert "asked it to end" not in text(await client.get(f"/runs/{handle.id}"))


async def test_a_list_without_runs_names_the_next_fire_of_that_job(pair):
    scheduler, client = pair
    assert "The next is due" not in text(await client.get("/runs?job=waits&state=failed")), "it has no schedule"
    assert ": hourly." in text(await client.get("/runs?job=hourly&state=failed"))


async def test_a_run_is_cancelled(pair):
    scheduler, client = pair
    handle = await scheduler.submit("waits")
    async with asyncio.timeout(5):
        while (await scheduler.run(handle.id)).state != "running":
            await asyncio.sleep(0)
    done = await filled(client, f"/runs/{handle.id}/cancel", reason="no need")
    assert done.headers["location"] == f"/taskloop/runs/{handle.id}?said=cancelled"
    assert (await handle.wait(5)).state == "cancelled"
    shown = text(await client.get(f"/runs/{handle.id}"))
    assert "cancelled by anyone (no need)" in shown and f"{os.uname().nodename} pid {os.getpid()})" in shown
    late = await filled(client, f"/runs/{handle.id}/cancel")
    assert late.headers["location"].endswith("?said=ended"), "nothing was done, and nothing else is said"


async def test_a_form_that_is_sent_too_often_is_kept_for_later(no_task_outlives_the_fixture):
    scheduler = shop(submit_limit=(1, timedelta(minutes=1)))
    async with over_asgi(scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        form = {"p.a": "3", "once": "0123456789abcdef"}
        for said in ("submitted", "existed"):  # what is sent twice by mistake does not count twice
            assert said in (await filled(client, "/jobs/add/submit", **form)).headers["location"]
        answer = await filled(client, "/jobs/add/submit", **form | {"p.a": "417"})
        assert (answer.status, answer.headers["retry-after"]) == (429, "60")
        assert 'value="417"' in answer.body.decode() and "more than 1 submits" in text(answer)


# -- who may do it


MUTATING = [one for one in ROUTES if one.writes and one.scope in (Scope.operate, Scope.admin)]


@pytest.mark.parametrize("route", MUTATING, ids=lambda one: one.name)
async def test_no_form_does_anything_for_a_reader_another_site_or_a_foreign_name(
    route, host, no_task_outlives_the_fixture
):
    scheduler = shop()

    def reader(_):
        return Principal("ann", "read")

    path = route.path.replace("{job}", "hourly").replace("{id}", "1")
    for auth, headers in (
        (reader, BROWSER),
        ("open", {**BROWSER, "sec-fetch-site": "cross-site"}),
        ("open", {"accept": "text/html", "origin": "http://evil.example"}),
        ("open", {**BROWSER, "host": "evil.example"}),
        (None, BROWSER),
    ):
        async with host(scheduler, auth=auth) as client:
            client.headers = dict(headers)
            assert (await filled(client, path)).status in (401, 403), headers
            assert await scheduler.runs() == [] and (await scheduler.jobs("hourly"))[0].condition == "never_ran"
        scheduler = shop()


async def test_who_may_only_read_sees_no_buttons(host, no_task_outlives_the_fixture):
    async with host(shop(), auth=lambda _: Principal("ann", "read")) as client:
        client.headers = dict(BROWSER)
        pages = [await client.get(path) for path in ("/", "/jobs/hourly", "/jobs", "/schedules")]
    assert [one.status for one in pages] == [200] * 4
    assert not any('method="post"' in one.body.decode() for one in pages)


async def test_a_form_is_a_form_and_no_json(pair):
    _, client = pair
    answer = await client.post("/jobs/hourly/disable", {"reason": "x"})
    assert answer.status == 415


# -- forms, by themselves


def every_kind(
    number: int, share: float = 0.5, flag: bool = False, mode: Literal["a", "b"] = "b", day: date | None = None,
    names: list[str] = ["x"], anything=None, choice: Literal[1, 2] = 2,  # noqa: B006
): ...  # fmt: skip


def test_each_parameter_has_the_field_that_suits_it():
    found = {one.name: one for one in fields(Parameters("job", every_kind).schema())}
    kinds = {name: one.kind for name, one in found.items()}
    assert kinds == {
        "number": "number", "share": "number", "flag": "checkbox", "mode": "select", "day": "date", "names": "textarea",
        "anything": "textarea", "choice": "select",
    }  # fmt: skip
    assert (found["number"].required, found["share"].required) == (True, False)
    assert (
        found["names"].value == '["x"]' and found["choice"].choices == ("", "1", "2") and found["choice"].value == "2"
    )
    assert "may be left empty" in found["day"].hint and "default 0.5" in found["share"].hint


class Address(BaseModel):
    street: str
    city: str
    floor: int = 0


class Part(BaseModel):
    name: str = ""


def delivered(
    to: Address, parts: list[Part], rest: Part | None, names: set[str], sizes: dict[str, int], pairs: list[list[int]],
    one: int | Address, long: list[dict[str, Address]],
): ...  # fmt: skip


def test_what_is_typed_as_json_is_told_with_the_keys_that_a_model_has():
    found = {one.name: one.hint for one in fields(Parameters("job", delivered).schema())}
    assert found == {
        "to": 'JSON object with "street", "city" and, if wanted, "floor"',
        "parts": 'JSON list of objects with, if wanted, "name"',
        "rest": 'JSON object with, if wanted, "name", may be left empty',
        "names": "JSON list of texts",
        "sizes": "JSON object",
        "pairs": "JSON list of lists",
        "one": "JSON",
        "long": "JSON list of objects",
    }


def test_what_was_typed_is_read_by_the_schema_and_left_to_the_job_where_it_cannot_be():
    schema = Parameters("job", every_kind).schema()
    form = {"number": "7", "share": "0.25", "flag": "on", "mode": "a", "day": "2026-03-01", "names": '["y"]', "choice": "1",
            "anything": "{not json"}  # fmt: skip
    assert typed(schema, {FIELD + name: value for name, value in form.items()}) == {
        "number": 7, "share": 0.25, "flag": True, "mode": "a", "day": "2026-03-01", "names": ["y"], "choice": 1,
        "anything": "{not json",
    }  # fmt: skip
    assert typed(schema, {FIELD + "number": ""}) == {"flag": False}


@pytest.mark.parametrize("wrong", ["5,5", "1-3", "1e", "true", "[1]", "null", "0x10", "five"])
def test_what_is_no_number_is_handed_on_as_it_was_typed_and_refused(wrong):
    def pay(amount: float, days: int = 7): ...

    parameters = Parameters("job", pay)
    given = typed(parameters.schema(), {"p.amount": wrong, "p.days": wrong})
    with pytest.raises(BadParameters) as refused:
        parameters.check(given)
    assert {*refused.value.problems} == {"amount", "days"}, given


def test_a_phone_shows_digits_alone_only_where_no_minus_is_wanted():
    def pay(
        count: Annotated[int, Field(ge=0)], share: Annotated[float, Field(gt=0)], change: int, near: Annotated[int, Field(ge=-5)]
    ): ...  # fmt: skip

    found = {one.name: one.keys for one in fields(Parameters("job", pay).schema())}
    assert found == {"count": "numeric", "share": "decimal", "change": "", "near": ""}


def test_a_date_with_a_time_is_typed_on_the_clock_of_the_pages_and_means_one_instant():
    def remind(at: datetime): ...

    schema, zone = Parameters("job", remind).schema(), ZoneInfo("Europe/London")
    [field] = fields(schema, {"at": "2026-07-01T12:30:00Z"}, None, zone)
    assert (field.kind, field.value, field.hint) == (
        "datetime-local",
        "2026-07-01T13:30:00",
        "date and time of Europe/London",
    )
    assert typed(schema, {"p.at": "2026-07-01T13:30"}, zone) == {"at": "2026-07-01T13:30:00+01:00"}
    assert typed(schema, {"p.at": "2026-07-01T13:30Z"}, zone) == {"at": "2026-07-01T13:30:00+00:00"}, (
        "it says so itself"
    )
    assert typed(schema, {"p.at": "soon"}, zone) == {"at": "soon"}, "the job's own check says what is wrong"


def test_a_time_over_which_the_clock_is_put_forward_is_none():
    given = "2026-03-29T01:30:00"  # by the declaration, which may mean a clock of its own

    def remind(at: datetime, until: datetime | None = None, note: str = "", then: datetime = given): ...

    schema, zone = Parameters("job", remind).schema(), ZoneInfo("Europe/London")

    def refused(form, zone=zone, before=None):
        return in_a_gap(schema, form, zone, typed(schema, form, zone, before=before))

    form = {"p.at": "2026-03-29T01:30", "p.until": "2026-03-29T02:00", "p.note": "2026-03-29T01:30", "p.then": given}
    assert refused(form) == {
        "at": "is a time that there is not: the clock of Europe/London is put forward over it; write 02:30, or another"
    }
    before = {"at": given, "note": form["p.note"]}
    assert refused(form, before=before) == {}, "what a form showed and was left alone"
    assert refused(form | {"p.at": "2026-03-29T01:31"}, before=before).keys() == {"at"}
    for fine in (
        "2026-03-29T00:59",
        "2026-10-25T01:30",
        "2026-03-29T01:30Z",
        "soon",
        "",
        "0001-01-01T00:00",
        "9999-12-31T23:59",
    ):
        assert refused({"p.at": fine}) == {}
    assert refused({"p.at": "2026-03-29T01:30"}, UTC) == {}


async def test_who_types_such_a_time_is_told_at_its_field_and_nothing_is_submitted(no_task_outlives_the_fixture):
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(timezone="Europe/London"))

    @scheduler.job()
    async def remind(at: datetime): ...

    async with over_asgi(scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        answer = await filled(client, "/jobs/remind/submit", **{"p.at": "2026-03-29T01:30"})
        assert answer.status == 422 and "is put forward over it; write 02:30" in text(answer)
        assert await scheduler.runs() == []


def test_of_a_run_that_is_repeated_only_what_was_changed_is_given_and_what_was_emptied_goes_back():
    schema = Parameters("job", every_kind).schema()
    before = {"number": 7, "share": 0.25, "names": ["y"], "day": "2026-03-01", "anything": {"a": [1]}}
    form = {f"p.{one.name}": one.value for one in fields(schema, before) if one.kind != "checkbox"}
    assert typed(schema, form, before=before) == {}
    changed = {**form, "p.share": "0.5", "p.day": "", "p.flag": "on", "p.names": '["z"]'}
    assert typed(schema, changed, before=before) == {"share": 0.5, "day": None, "flag": True, "names": ["z"]}


BROKEN_UP = ("a\nb", "\n\nfirst lines are empty", "a\r\nb\rc", " spaces \n", "one line")


def sent(value):
    """What a browser sends of a text that a textarea or a choice held."""
    return value.replace("\r\n", "\n").replace("\r", "\n").replace("\n", "\r\n")


def test_a_field_that_was_left_alone_means_the_very_value_that_it_showed():
    def notes(
        text: str = BROKEN_UP[2], kind: Literal["a\nb", "c"] = "a\nb", at: datetime = datetime(2026, 3, 1, 2, 30, 0, 123456, UTC),
        either: int | str = "5", empty: str = "",
    ): ...  # fmt: skip

    parameters = Parameters("job", notes)
    schema = parameters.schema()
    found = {one.name: one for one in fields(schema)}
    assert (found["text"].kind, found["text"].rows, found["empty"].kind, found["empty"].rows) == (
        "textarea", 3, "textarea", 1
    )  # fmt: skip
    form = {FIELD + one.name: sent(one.value) for one in found.values()}
    assert parameters.check(typed(schema, form)) == {
        "text": "a\r\nb\rc", "kind": "a\nb", "at": "2026-03-01T02:30:00.123456Z", "either": "5"
    }  # fmt: skip
    for text in BROKEN_UP:
        [shown] = (one for one in fields(schema, {"text": text}) if one.name == "text")
        assert typed(schema, {**form, "p.text": sent(shown.value)}, before={**typed(schema, form), "text": text}) == {}
    assert typed(schema, {**form, "p.text": "new\r\nlines"})["text"] == "new\nlines"


@pytest.mark.parametrize("at", ["2026-10-25T01:30:00Z", "2026-10-25T00:30:00Z", "2026-03-01T02:30:00"])
def test_an_instant_of_a_whole_minute_that_was_left_alone_is_the_very_same(at):
    """A browser sends no seconds where they are 0; of two instants of one clock reading the earlier would be meant."""

    def remind(at: datetime, note: str = ""): ...

    schema, zone = Parameters("job", remind).schema(), ZoneInfo("Europe/London")
    [field, _] = fields(schema, {"at": at}, None, zone)
    form = {"p.at": field.value.removesuffix(":00"), "p.note": "changed"}
    assert typed(schema, form, zone, before={"at": at}) == {"note": "changed"}


def test_where_empty_means_another_default_none_is_typed_as_a_word():
    def job(
        number: int | None = 5, on: bool | None = True, names: list[str] | None = ["x"], text: str | None = "a"
    ): ...  # noqa: B006

    parameters = Parameters("job", job)
    schema = parameters.schema()
    found = {one.name: one for one in fields(schema)}
    assert (
        found["on"].choices == ("", "true", "false", "null")
        and found["number"].hint == "integer, null for none, default 5"
    )
    assert "may be left empty" not in found["text"].hint, "that would mean its default"
    form = {f"p.{name}": "null" for name in ("number", "on", "names")}
    assert parameters.check(typed(schema, form)) == {"number": None, "on": None, "names": None}
    assert parameters.check(typed(schema, {})) == {}
    none = {"number": None, "on": None, "names": None, "text": "a"}
    shown = {f"p.{one.name}": one.value for one in fields(schema, none)}
    assert typed(schema, shown, before=none) == {}
    assert typed(schema, {**shown, "p.number": ""}, before=none) == {"number": 5}


def test_a_form_that_is_refused_shows_what_was_typed_and_says_what_it_does_not_keep():
    def job(
        number: int = 5,
        names: list[str] = ["x"],
        flag: bool = True,
        pin: SecretStr = SecretStr(""),
        pen: SecretStr = SecretStr(""),
    ): ...  # noqa: B006

    schema = Parameters("job", job).schema()
    form = {"p.number": "5,5", "p.names": "", "p.pin": "hunter2"}
    for before in (None, {"number": 7, "names": ["y"], "pin": MASK}):
        found = {one.name: one for one in fields(schema, before, {"number": "no"}, form=form)}
        assert (found["number"].value, found["names"].value, found["flag"].checked) == ("5,5", "", False)
        assert (found["pin"].value, found["pen"].value) == ("", "")
        assert "type it anew" in found["pin"].hint and "type it anew" not in found["pen"].hint


def test_a_parameter_that_may_be_null_can_be_given_so_and_an_empty_default_is_told_from_none():
    def job(
        must: bool | None, number: int | None, flag: bool | None = None, on: bool | None = True, text: str = "", word: str = "none"
    ): ...  # fmt: skip

    parameters = Parameters("job", job)
    schema = parameters.schema()
    found = {one.name: one for one in fields(schema)}
    assert (found["flag"].kind, found["flag"].choices, found["flag"].value) == ("select", ("", "true", "false"), "")
    assert (found["must"].choices, found["must"].required, found["on"].value) == (("", "true", "false"), False, "true")
    form = {FIELD + one.name: one.value for one in found.values()}
    assert parameters.check(typed(schema, form)) == {"must": None, "number": None, "on": True, "word": "none"}
    chosen = {**form, "p.flag": "false", "p.must": "true"}
    assert (typed(schema, chosen)["flag"], typed(schema, chosen)["must"]) == (False, True)
    assert typed(schema, {**chosen, "p.flag": ""}, before={**typed(schema, chosen)}) == {"flag": None}
    hints = {name: one.hint.partition("default ")[2] for name, one in found.items()}
    assert (hints["flag"], hints["on"], hints["text"], hints["word"]) == ("none", "true", '""', '"none"')


def test_where_nobody_chose_none_of_the_choices_is_sent():
    def deploy(target: Literal["production", "staging"], way: Literal["", "slow"] = ""): ...

    parameters = Parameters("deploy", deploy)
    schema = parameters.schema()
    target, way = fields(schema)
    assert (target.choices, target.value, target.required) == (("", "production", "staging"), "", True)
    with pytest.raises(BadParameters, match="'target' is missing"):
        parameters.check(typed(schema, {FIELD + "target": ""}))
    assert way.choices == ("", "slow"), "no choice stands there twice"
    chosen = {"target": "staging"}
    assert fields(schema, chosen)[0].choices == ("production", "staging"), "a run that is repeated has one"
    assert fields(schema, form={FIELD + "target": "staging"})[0].value == "staging"


async def test_a_job_of_many_parameters_is_submitted_by_its_form(no_task_outlives_the_fixture):
    scheduler, names = TaskScheduler("sqlite:///:memory:"), [f"p{number}" for number in range(100)]
    defined: dict[str, object] = {}
    exec(f"async def wide({', '.join(f'{name}: int' for name in names)}): ...", defined)  # noqa: S102
    scheduler.job()(defined["wide"])
    async with over_asgi(scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        done = await filled(client, "/jobs/wide/submit", **{f"p.{name}": "1" for name in names})
        assert done.status == 303, text(done)
        many = await filled(client, "/jobs/wide/submit", **{f"x{number}": "" for number in range(1_001)})
        assert many.status == 400 and "more than 1000 fields" in text(many)


async def test_a_list_that_is_no_json_is_said_to_be_none(no_task_outlives_the_fixture):
    scheduler = TaskScheduler("sqlite:///:memory:")

    @scheduler.job()
    async def many(names: list[str] = [], sizes: dict[str, int] = {}, count: list[int] = []): ...  # noqa: B006

    async with over_asgi(scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        form = {"p.names": "[", "p.sizes": "a=1", "p.count": '["x"]'}
        said = text(await filled(client, "/jobs/many/submit", **form))
    assert 'is no JSON list, such as ["a", "b"]: Expecting value: line 1 column 2' in said
    assert 'is no JSON object, such as {"a": 1}: Expecting value: line 1 column 1' in said
    assert said.count("no JSON") == 2 and "valid integer" in said


def test_what_a_repeat_changed_is_told_by_name_and_of_a_secret_only_that():
    old = {"a": 1, "b": [1], "pin": Secret("old"), "gone": None}
    new = {"a": 1, "b": [1, 2], "pin": Secret("new"), "more": "x" * 500}
    assert [(one.name, one.before, one.after) for one in changes(old, new)] == [
        ("b", "[1]", "[1, 2]"), ("gone", "null", ""), ("more", "", '"' + "x" * 199 + "…"),
        ("pin", f'"{MASK}"', f'"{MASK}"'),
    ]  # fmt: skip


def test_a_run_that_a_sentence_names_is_led_to_and_nothing_of_it_becomes_html():
    assert linked("run 7 is in the way of <b>run 12</b>", "/x") == (
        '<a href="/x/runs/7">run 7</a> is in the way of &lt;b&gt;<a href="/x/runs/12">run 12</a>&lt;/b&gt;'
    )
    assert linked("overrun 7, run x", "") == "overrun 7, run x"


def test_a_strip_is_as_high_as_runs_took_and_what_failed_stands_out_without_colour():
    began = datetime(2026, 3, 1, tzinfo=UTC)

    def ran(seconds, state):
        ended = None if seconds is None else began + timedelta(seconds=seconds)
        return brief(Run(job="a", due_at=began, ready_at=began, created_at=began, started_at=began,
                         ended_at=ended, state=state))  # fmt: skip

    drawn = strip([ran(None, State.RUNNING), ran(40, State.FAILED), ran(20, State.SUCCEEDED), ran(0, State.SUCCEEDED)])
    assert drawn.words == "The last 4 runs: 1 running, 2 succeeded, 1 failed"
    assert drawn.shapes == {
        "running": "M18 16h5v4h-5z", "failed": "M12 0h5v24h-5z", "succeeded": "M6 10h5v10h-5zM0 16h5v4h-5z"
    }  # fmt: skip


def test_what_a_run_took_is_all_of_it_not_the_last_attempt_alone():
    began = datetime(2026, 3, 1, tzinfo=UTC)
    later = began + timedelta(seconds=3)
    run = Run(job="a", due_at=began, ready_at=began, created_at=began, started_at=began, attempt_started_at=later,
              ended_at=began + timedelta(seconds=4), state=State.SUCCEEDED)  # fmt: skip
    assert took(run) == brief(run).took_seconds == 4.0
    assert took(run.changed(ended_at=None)) is None


async def test_a_decimal_goes_through_a_form_digit_by_digit():
    """It was read as JSON, a float, and rounded."""

    async def money(
        amount: Decimal = Decimal("1.10"), rate: float = 0.5, fee: Annotated[Decimal, Field(title="T")] | None = None,
        each: list[Decimal] = [],  # noqa: B006
    ) -> None: ...  # fmt: skip

    parameters = Parameters("job", money)
    amount, rate, fee, each = fields(parameters.schema())
    assert (amount.kind, amount.value, rate.kind, fee.kind, each.kind) == ("text", "1.10", "number", "text", "textarea")
    digits = "12345678901234567.89"
    form = {"p.amount": digits, "p.rate": "0.1", "p.fee": digits, "p.each": f"[{digits}, 1]"}
    assert parameters.check(typed(parameters.schema(), form)) == {
        "amount": digits, "rate": 0.1, "fee": digits, "each": [digits, "1"]
    }  # fmt: skip


# -- what a switch will do


# -- schedules, failures, workers


async def test_schedules_are_listed_tried_added_and_removed(pair):
    scheduler, client = pair
    assert "hourly hourly every hour" in text(await client.get("/schedules"))
    tried = text(await client.get("/schedules?when=0+2+*+*+*&timezone=Europe%2FLondon"))
    assert (
        re.search("At 02:00.{0,20}, Europe/London", tried)
        and tried.count("02:00:00 UTC") + tried.count("01:00:00 UTC") >= 8
    )
    done = await filled(
        client, "/schedules", job="add", when="0 2 * * *", timezone="", id="nightly/1", params='{"a": 1}'
    )
    assert done.status == 303 and "Stored" in text(await client.get(done.headers["location"].removeprefix("/taskloop")))
    [stored] = await scheduler.schedules("add")
    assert (stored.id, str(stored.trigger), dict(stored.params)) == (
        "nightly/1",
        "cron 0 2 * * * timezone=UTC",
        {"a": 1},
    )
    assert (
        'href="/taskloop/schedules?change=nightly/1#add" aria-label="Change… nightly/1">'
        in (await client.get("/schedules")).body.decode()
    )
    await filled(client, "/schedules", job="add", when="15 3 * * *", timezone="UTC", id="nightly/1", params='{"a": 2}')
    [stored] = await scheduler.schedules("add")
    assert (str(stored.trigger), dict(stored.params)) == ("cron 15 3 * * * timezone=UTC", {"a": 2})
    assert (await filled(client, "/schedules/nightly%2F1/remove")).status == 303
    assert await scheduler.schedules("add") == []
    assert (await filled(client, "/schedules/hourly/remove")).status == 409, "it is declared, and would be back"

    sign = re.search(r'name="once" value="(\w+)"', (await client.get("/schedules")).body.decode())[1]
    later = {"job": "add", "when": "+2h", "params": '{"a": 1}', "once": sign}
    for form in (later, later, later | {"when": "+3h"}):
        await filled(client, "/schedules", **form)
    assert len(await scheduler.schedules("add")) == 2, "two hours from now is another instant each time it is sent"


def change_form(page):
    """What a browser would send of the form that changes a schedule."""
    names = ("job", "when", "timezone", "change", "was")
    given = {name: html.unescape(re.findall(rf'name="{name}" value="([^"]*)"', page)[-1]) for name in names}
    return given | {"params": html.unescape(re.search(r'<textarea id="params"[^>]*>\s*([^<]*)<', page)[1])}


async def test_of_two_who_change_a_schedule_neither_undoes_what_the_other_changed(pair):
    scheduler, client = pair
    await scheduler.schedule("add", Every("1h"), id="x", params={"a": 1})
    one = other = change_form((await client.get("/schedules?change=x")).body.decode())
    assert (await filled(client, "/schedules", **one | {"when": "2h"})).status == 303
    assert (await filled(client, "/schedules", **other | {"params": '{"a": 2}'})).status == 303
    [stored] = await scheduler.schedules("add")
    assert (stored.trigger, dict(stored.params)) == (Every("2h"), {"a": 2})

    refused = await filled(client, "/schedules", **one | {"when": "61 * * * *", "reason": "nights"})
    body = refused.body.decode()
    assert refused.status == 422 and "Change x" in body and "minute is 61" in text(refused)
    assert change_form(body) == one | {"when": "61 * * * *"} and 'value="nights"' in body, (
        "it goes on as the same change"
    )

    await scheduler.unschedule("x")
    gone = await filled(client, "/schedules", **one | {"when": "3h"})
    assert (
        gone.status == 409 and "'x' was removed meanwhile" in text(gone) and 'name="change"' not in gone.body.decode()
    )
    assert 'value="3h"' in gone.body.decode() and await scheduler.schedules("add") == []


async def test_the_form_that_changes_a_schedule_makes_no_second_one_of_another_name_or_job(pair):
    scheduler, client = pair
    await scheduler.schedule("add", Every("1h"), id="x", params={"a": 1})
    page = (await client.get("/schedules?change=x")).body.decode()
    assert 'id="job"' not in page and 'id="id"' not in page
    await filled(client, "/schedules", **change_form(page) | {"when": "2h", "id": "y", "job": "waits"})
    [stored] = await scheduler.schedules("add")
    assert (stored.id, stored.trigger, await scheduler.schedules("waits")) == ("x", Every("2h"), [])


async def test_a_schedule_of_long_parameters_is_changed_by_its_form(pair):
    """What the form showed was sent along with what was typed, and the whole was too long."""
    scheduler, client = pair

    async def texts(words: list[str]) -> None: ...

    scheduler.add_job(texts)
    await scheduler.schedule("texts", Every("1h"), id="x", params={"words": ["Слово и дело"] * 600})
    form = change_form((await client.get("/schedules?change=x")).body.decode())
    assert (await filled(client, "/schedules", **form | {"when": "2h"})).status == 303
    [stored] = await scheduler.schedules("texts")
    assert stored.trigger == Every("2h") and len(stored.params["words"]) == 600


@pytest.mark.parametrize(
    "trigger",
    [
        Every("90m", anchor="2031-01-01T00:00Z"),
        Cron("0 2 * * *", timezone="Europe/London", gap="skip"),
        At("2031-01-01T02:00:00.5Z"),
    ],
)
async def test_a_stored_schedule_is_changed_by_the_form_that_shows_it_and_keeps_what_was_not_typed(pair, trigger):
    scheduler, client = pair
    before = await scheduler.schedule("secretive", trigger, id="x", params={"key": "hunter2-and-more"})
    page = (await client.get("/schedules?change=x")).body.decode()
    assert "Change x" in page and "hunter2" not in page
    form = change_form(page)
    for given in (form, {**form, "was": ""}, {**form, "change": "", "id": "x"}):  # as a browser, and as programs may
        answer = await filled(client, "/schedules", **given)
        assert answer.status == 303, text(answer)
        [after] = await scheduler.schedules("secretive")
        assert (after.trigger, after.next_due, dict(after.params)) == (
            before.trigger, before.next_due, dict(before.params)
        )  # fmt: skip
    assert (await client.get("/schedules?change=nothing")).status == 404
    assert (await client.get("/schedules?change=hourly")).status == 409


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"job": "add", "when": "never", "params": '{"a": 1}'}, "'never' is no trigger; allowed are"),
        ({"job": "add", "when": "5m", "params": "{"}, "Nothing was stored"),
        ({"job": "add", "when": "5m", "params": "[]"}, "no JSON object"),
        ({"job": "add", "when": "5m", "params": ""}, "'a'"),
        ({"job": "nobody", "when": "5m"}, "nobody"),
        ({"job": "add", "when": "61 2 * * *"}, "minute"),
        ({"job": "add", "when": "2020-01-01T00:00:00Z", "params": '{"a": 1}'}, "it has passed"),
    ],
)
async def test_a_schedule_that_cannot_be_is_refused_and_what_was_typed_is_kept(pair, form, told):
    scheduler, client = pair
    answer = await filled(client, "/schedules", **form)
    assert answer.status == 422 and told in text(answer)
    assert html.escape(form["when"], quote=True) in answer.body.decode().replace("&#39;", "'")
    assert [one.id for one in await scheduler.schedules()] == ["hourly"]


async def test_all_that_is_wrong_with_a_schedule_stands_beside_its_fields_and_the_reason_is_kept(pair):
    _, client = pair
    wrong = {"job": "add", "when": "61 2 * * *", "params": '{"b": 1}', "reason": "the night shift", "id": "x"}
    body = (await filled(client, "/schedules", **wrong)).body.decode()
    beside = {
        name: html.unescape(one)
        for name, one in re.findall(r'id="(\w+)-hint">.*?<b class="state failed">(.*?)</b>', body)
    }
    assert (
        list(beside) == ["when", "params"] and "minute is 61" in beside["when"] and "'a' is missing" in beside["params"]
    )
    assert len(re.findall('aria-invalid="true"', body)) == 2 and 'value="the night shift"' in body
    assert re.search(
        r'<input id="when" name="when" value="61 2 \* \* \*" aria-describedby="when-hint" aria-invalid="true" autofocus',
        body,
    )
    for name, typed_ in (("timezone", "Europe/Berln"), ("params", "["), ("id", "hourly"), ("job", "nobody")):
        form = {"job": "add", "when": "0 2 * * *", "params": '{"a": 1}', name: typed_}
        body = (await filled(client, "/schedules", **form)).body.decode()
        assert re.findall(r'id="(\w+)-hint">[^\n]*?<b class="state failed">', body) == [name], name


@pytest.mark.parametrize(
    ("typed_", "trigger"),
    [
        ("5m", "every 5m"),
        (" 1h30m ", "every 1h30m"),
        ("@daily", "cron 0 0 * * *"),
        ("2030-01-01T00:00Z", "at 2030-01-01"),
    ],
)
def test_a_trigger_is_typed_as_people_say_it(typed_, trigger):
    assert str(meant(typed_, None, datetime.now(UTC))).startswith(trigger)


async def test_a_zone_beside_what_has_no_use_for_it_is_refused_at_its_field(pair):
    scheduler, client = pair
    for when in ("5m", "+2h"):
        page = await filled(client, "/schedules", job="hourly", when=when, timezone="Europe/London")
        wrong = re.findall(r'<input id="(\w+)"[^>]*aria-invalid', page.body.decode())
        assert page.status == 422 and wrong == ["timezone"] and f"'{when}' has no use for it" in text(page)
        tried = text(await client.get(f"/schedules?{urlencode({'when': when, 'timezone': 'Europe/London'})}"))
        assert "it belongs to the fields of cron" in tried
    assert [one.id for one in await scheduler.schedules()] == ["hourly"]


async def test_a_schedule_of_a_job_that_is_off_is_said_to_be_skipped(pair):
    scheduler, client = pair
    on = text(await client.get("/schedules"))
    await scheduler.disable("hourly", until="+30m")
    awake_by_then = text(await client.get("/schedules"))
    await scheduler.disable("hourly")
    assert "the job is off" not in on + awake_by_then
    assert ": skipped, the job is off" in text(await client.get("/schedules"))


async def test_failures_are_shown_by_their_cause(pair):
    scheduler, client = pair
    assert "No run failed in the last 7d." in text(await client.get("/failures"))
    assert "No run failed since 2026-03-01T00:00Z." in text(await client.get("/failures?since=2026-03-01T00:00Z"))
    for _ in range(3):
        await (await scheduler.submit("evil")).wait()
    shown = text(await client.get("/failures?since=1h"))
    assert "3 failed runs" in shown and f"3 ValueError {EVIL} evil" in shown
    assert (await client.get("/failures?since=nonsense")).status == 422


async def test_workers_are_shown_with_what_disturbed_them(pair):
    scheduler, client = pair
    shown = text(await client.get("/workers"))
    assert "shop" in shown and "fires and runs" in shown and "Nothing: no loop stood still" in shown
    now = datetime.now(UTC)
    assert "did not stand still in ten minutes" in shown
    for worker, data in (
        ("w-1", {"where": EVIL, "job": "evil"}),
        (scheduler.worker.id, {"where": EVIL, "task": EVIL}),
        ("w-2", {"where": "a"}),
    ):
        await scheduler._open_store.note([Incident(worker, "loop_blocked", now - timedelta(seconds=3), now, data)])
    shown = await client.get("/workers")
    assert f"where {EVIL}" in text(shown) and "3.0 s" in text(shown) and "<script>" not in shown.body.decode()
    assert f"stood still once in ten minutes, at most for 3.0 s: not a job: {EVIL}, at {EVIL}" in text(shown)
    assert f"not a job where {EVIL} task {EVIL}" in text(shown) and "not a job, a callback where a" in text(shown)


def test_the_strip_of_a_loop_has_a_bar_where_it_stood_still_and_names_who_held_it():
    now = datetime(2026, 3, 1, 12, 0, 5, tzinfo=UTC)
    worker = Worker("w", "shop", "h", 7, "p", now - timedelta(minutes=5), now)

    def stood(ago, seconds, kind="loop_blocked", worker="w", **data):
        since = now - timedelta(seconds=ago)
        return Incident(worker, kind, since, since + timedelta(seconds=seconds), data)

    held = stood(101, 2, job="sync", run=7, where="a.py:3 f")
    drawn = loop_strip(
        worker,
        [held, stood(100, 1, task="Task-1 (handle)"), stood(21, 12, "frozen"), stood(50, 9, "store"),
         stood(50, 9, worker="other"), stood(700, 5)],
        now,
    )  # fmt: skip
    assert (
        drawn.words == "stood still 3 times in ten minutes, at most for 12 s: the whole process did, stopped or asleep"
    )
    assert drawn.base == "M174 20H360"  # a half of the strip: the worker has been there for five minutes
    assert [(bar.kind, bar.run, bar.path) for bar in drawn.bars] == [
        ("loop_blocked", 7, "M294 16h5v4h-5z"), ("frozen", None, "M342 0h5v20h-5z"), ("frozen", None, "M348 0h5v20h-5z")
    ]  # fmt: skip
    assert drawn.bars[0].words == (
        "2.0 s: sync, run 7, at a.py:3 f; 1.0 s: not a job: Task-1 (handle), at a place that was not seen"
    )
    assert loop_strip(worker, [held], now).words.endswith(
        "once in ten minutes, at most for 2.0 s: sync, run 7, at a.py:3 f"
    )
    assert (culprit({"job": "sync"}), culprit({})) == ("sync", "not a job: a callback")


# -- signing in


async def test_a_browser_signs_in_with_a_token_and_out_again(host, no_task_outlives_the_fixture):
    scheduler = shop()
    async with host(scheduler) as client:
        token = (await scheduler.keyring.create("ann", "operate"))[1]
        client.headers = dict(BROWSER)
        closed = await client.get("/runs?job=add&state=failed")
        assert closed.status == 401
        led = html.unescape(re.search(r'href="/taskloop(/login[^"]*)"', closed.body.decode())[1])
        asked = await client.get(led)
        assert 'type="password"' in asked.body.decode()
        wanted = html.unescape(re.search(r'name="wanted" value="([^"]*)"', asked.body.decode())[1])
        wrong = await filled(client, "/login", token="tl_wrong_1", wanted=wanted)
        assert wrong.status == 401 and "no token of this server" in text(wrong) and "set-cookie" not in wrong.headers
        assert html.escape(wanted) in wrong.body.decode(), "a mistake does not lose the way"
        right = await filled(client, "/login", token=token, wanted=wanted)
        assert (right.status, right.headers["location"]) == (303, "/taskloop/runs?job=add&state=failed")
        for away in (
            "",
            "//evil.example/",
            "/\\evil.example",
            "https://evil.example",
            "/../x",
            "/%2e%2e/x",
            "/a\r\nb",
            "/ü",
        ):
            answer = await filled(client, "/login", token=token, wanted=away)
            assert answer.headers["location"] == "/taskloop/", away
        client.headers["cookie"] = right.headers["set-cookie"].partition(";")[0]
        page = await client.get("/")
        assert page.status == 200 and "ann (operate)" in text(page) and "Sign out" in text(page)
        for way, to in ((led, "/taskloop/runs?job=add&state=failed"), ("/login?wanted=//evil.example", "/taskloop/")):
            on = await client.get(way)  # by a link of another site the session comes only with the second request
            assert (on.status, on.headers["location"]) == (303, to)
        assert (await filled(client, "/jobs/add/submit", **{"p.a": "1"})).status == 303
        assert (await filled(client, "/jobs/add/disable", reason="")).status == 403
        out = await filled(client, "/logout")
        assert out.status == 303 and "Max-Age=0" in out.headers["set-cookie"]


async def test_a_form_of_a_session_that_is_over_leads_by_the_sign_in_back_to_its_page(
    host, no_task_outlives_the_fixture
):
    scheduler = shop()
    async with host(scheduler) as client:
        await scheduler.keyring.create("ann", "read")
        client.headers = dict(BROWSER)
        for path, page in (
            ("/jobs/add/submit", "/jobs/add"), ("/jobs/no%2Fbody/pause", "/jobs/no%2Fbody"), ("/runs/1/cancel", "/runs/1"),
            ("/schedules/a%2Fb/remove", "/schedules"), ("/schedules", "/schedules"), ("/pause", "/"), ("/failures/retry", "/failures"),
        ):  # fmt: skip
            refused = await filled(client, path)
            led = re.search(r'/login\?wanted=([^"]*)"', refused.body.decode())[1]
            assert unquote(led) == page
            assert "Nothing was done of what the form asks for" in text(refused)
            assert 'target="_blank"' in refused.body.decode(), "the form is one step back here"
        page = await client.get("/runs")
        assert "Nothing was done" not in text(page) and "_blank" not in page.body.decode()
        assert "wanted" not in (await filled(client, "/api/v1/pause")).body.decode()
        assert "wanted" not in (await filled(client, "/nothing/here")).body.decode()


async def test_the_address_of_a_form_that_was_refused_leads_to_its_page_where_it_is_opened_anew(pair):
    """As by a browser that opens its last tabs again, or from a link in a chat."""
    _, client = pair
    for path, page in (("/jobs/add/submit", "/jobs/add"), ("/schedules/x/remove", "/schedules"), ("/pause", "/")):
        answer = await client.get(path)
        assert (answer.status, answer.headers["location"]) == (303, f"/taskloop{page}")
    assert (await client.get("//jobs/add/submit")).headers["location"] == "/taskloop/jobs/add", "no host is named so"
    assert (await client.get("/jobs/add/submit", headers={"accept": "*/*"})).status == 405
    assert (await client.get("/tasks/add")).status == 405, "no form is sent there"


async def test_whoever_sends_a_form_that_is_refused_whole_is_told_that_nothing_was_done_and_where_it_stands(pair):
    _, client = pair
    for path, form, status in (
        ("/schedules/gone/remove", {"reason": "off"}, 404), ("/runs/77/cancel", {}, 404),
        ("/jobs/evil/submit", {"p.text": "x" * 70_000}, 413), ("/pause", {"until": "+2h"}, 422),
    ):  # fmt: skip
        answer = await filled(client, path, **form)
        assert answer.status == status, path
        assert "Nothing was done of what the form asks for. One step back it stands as you typed it." in text(answer)
    assert "as you typed it" not in text(await client.get("/runs/77")), "which is no form"


async def test_the_names_of_all_jobs_are_sent_once_and_not_with_what_keeps_a_page_up_to_date(
    host, no_task_outlives_the_fixture
):
    """With two thousand jobs it was a hundred kilobytes a second, for each page of runs that somebody had open."""
    scheduler = TaskScheduler("sqlite:///:memory:")
    scheduler.add_job(asyncio.sleep, name="far-behind")
    async with host(scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        for path in ("/runs", "/audit", "/schedules"):
            whole, live = await client.get(path), await client.get(f"{path}?live=true")
            assert "far-behind</option>" in whole.body.decode() or '"far-behind"' in whole.body.decode(), path
            assert live.status == 200 and "far-behind" not in live.body.decode(), path


async def test_nobody_signs_in_from_another_site_or_under_a_foreign_name(host, no_task_outlives_the_fixture):
    scheduler = shop()
    async with host(scheduler) as client:
        token = (await scheduler.keyring.create("ann", "read"))[1]
        for headers in ({**BROWSER, "sec-fetch-site": "cross-site"}, {**BROWSER, "host": "evil.example"}):
            client.headers = headers
            answer = await filled(client, "/login", token=token)
            assert answer.status == 403 and "set-cookie" not in answer.headers
