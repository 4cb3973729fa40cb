"""What keeps pages up to date, without a browser: files, the content alone, one look for all, word of what changed."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from test_web_pages import BROWSER, filled, shop, text
from web_clients import HOSTS, PREFIX

from taskloop.events import Event
from taskloop.runs import Run, State
from taskloop.steps import Step, StepState
from taskloop.store_data import DayCount
from taskloop.testing import virtual_time
from taskloop.web import live
from taskloop.web.core import Response
from taskloop.web.live import MOST_NAMED, Live
from taskloop.web.pages import charts, sharing
from taskloop.web.pages.files import FILES, STATIC
from taskloop.web.pages.graph import MOST, graph
from taskloop.web.pages.sharing import Shared
from taskloop.web.security import Principal

pytestmark = pytest.mark.anyio
START = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(params=sorted(HOSTS))
def host(request):
    return HOSTS[request.param]


@pytest.fixture
async def pair(host, no_task_outlives_the_fixture):
    scheduler = shop()
    async with host(scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        yield scheduler, client


# -- files


async def test_files_are_kept_by_the_browser_while_they_are_the_same_and_come_squeezed(pair):
    _, client = pair
    page = (await client.get("/jobs/add")).body.decode()
    paths = re.findall(rf'(?:src|href)="{PREFIX}(/static/[^"]+)"', page)
    assert len(paths) == 2, "a job that never ran has no charts"
    client.headers["accept-encoding"] = "identity"
    for path in paths:
        plain = await client.get(path)
        small = await client.get(path, headers={"accept-encoding": "br, gzip;q=0.5"})
        assert gzip.decompress(small.body) == plain.body and small.headers["content-encoding"] == "gzip"
        assert plain.headers["cache-control"] == small.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert "content-encoding" not in plain.headers and small.headers["vary"] == "accept-encoding"
        assert plain.headers["etag"] != small.headers["etag"]
        assert (await client.get(path, headers={"if-none-match": plain.headers["etag"]})).status == 304
        for refused in ("gzip;q=0", "br", "gzip ; q=0.00, br", "sgzip"):
            plain_again = await client.get(path, headers={"accept-encoding": refused})
            assert plain_again.body == plain.body, refused
    assert (await client.get("/static/live.js")).headers["cache-control"] == "public, max-age=60"
    assert (await client.get("/static/live.js?v=old")).headers["cache-control"] == "public, max-age=60"
    assert (await client.get("/static/htmx.min.js")).status == 404, "it comes only as a part of what is made of it"


async def test_all_scripts_together_are_small(pair):
    _, client = pair
    sizes = {}
    for name in FILES:
        sizes[name] = len((await client.get(f"/static/{name}", headers={"accept-encoding": "gzip"})).body)
    assert sum(size for name, size in sizes.items() if name.endswith(".js")) <= 45_000
    assert sum(size for name, size in sizes.items() if name.endswith(".css")) <= 15_000


def test_each_file_that_others_wrote_has_its_licence_beside_it():
    found = [*(STATIC / "vendor").glob("*.min.*")]
    assert found
    for path in found:
        assert path.with_name(f"{path.name.partition('.')[0]}.LICENSE").read_text("utf-8"), path.name


# -- the content alone


async def test_the_content_of_a_page_comes_alone_and_is_the_same(pair):
    scheduler, client = pair
    await (await scheduler.submit("video")).wait()
    for path in ("/", "/jobs", "/jobs/video", "/runs", "/runs/1", "/timeline", "/schedules", "/failures", "/workers"):
        whole, part = await client.get(path), await client.get(f"{path}?live=true")
        assert part.status == 200 and "<html" not in part.body.decode() and "<nav" not in part.body.decode(), path
        assert f'hx-get="{PREFIX}{path}?live=true"' in whole.body.decode(), path
        assert part.headers["cache-control"] == "no-store"
        for section in re.findall(r"<h[12][^>]*>.*?</h[12]>", part.body.decode()):
            assert section in whole.body.decode(), path


async def test_what_narrows_a_page_is_asked_for_again_too_but_not_what_was_said_once(pair):
    _, client = pair
    page = (await client.get("/jobs?text=ad%26d&said=paused&refresh=10")).body.decode()
    assert f'hx-get="{PREFIX}/jobs?text=ad%26d&amp;live=true"' in page and '<a href="?text=ad%26d">stop' in page
    page = (await client.get("/jobs?text=x")).body.decode()
    assert "<noscript>" in page and 'href="?text=x&amp;refresh=10"' in page


async def test_a_page_that_says_what_was_wrong_stays_as_it_is(pair):
    _, client = pair
    answer = await filled(client, "/jobs/add/submit", **{"p.a": "three"})
    assert answer.status == 422 and b"hx-get" not in answer.body and b"sse-connect" not in answer.body


async def test_who_may_only_read_is_not_given_what_an_admin_has_just_seen(host, no_task_outlives_the_fixture):
    def who(request):
        return Principal(request.headers["x-who"], request.headers["x-who"])

    async with host(shop(), auth=who) as client:
        client.headers = dict(BROWSER)
        admin = await client.get("/jobs/hourly?live=true", headers={"x-who": "admin"})
        reader = await client.get("/jobs/hourly?live=true", headers={"x-who": "read"})
    assert b'method="post"' in admin.body and b'method="post"' not in reader.body


async def test_a_stranger_is_given_neither_the_content_nor_word_of_changes(host, no_task_outlives_the_fixture):
    async with host(shop(), auth=lambda _: None) as client:
        client.headers = dict(BROWSER)
        assert [(await client.get(path)).status for path in ("/?live=true", "/changes")] == [401, 401]


async def test_the_end_of_a_long_log_is_shown_with_the_way_to_its_beginning(pair):
    scheduler, client = pair

    async def talks(run):
        for number in range(600):
            run.log(f"line {number}.")

    from taskloop import RunContext

    talks.__annotations__ = {"run": RunContext}
    job = scheduler.add_job(talks)
    run = await (await job.submit()).wait()
    shown = text(await client.get(f"/runs/{run.id}"))
    assert "100 earlier lines" in shown and "line 599." in shown and "line 100." in shown and "line 99." not in shown
    begin = await client.get(f"/runs/{run.id}?after=0")
    assert "line 0." in text(begin) and "line 499." in text(begin) and "line 500." not in text(begin)
    further = re.search(r"\?after=(\d+)#log\">further", begin.body.decode())[1]
    rest = text(await client.get(f"/runs/{run.id}?after={further}"))
    assert "line 500." in rest and "line 599." in rest and "line 499." not in rest and "further lines" not in rest


# -- one look for all


async def test_many_who_ask_at_once_are_given_one_look_that_began_after_they_asked(monkeypatch):
    monkeypatch.setattr(sharing, "SECONDS", 0.02)
    shared, looks = Shared(), []

    async def look():
        looks.append(len(looks) + 1)
        await asyncio.sleep(0.01)
        return Response(200, str(looks[-1]).encode())

    first = await shared.answer("page", look)
    many = await asyncio.gather(*(shared.answer("page", look) for _ in range(20)))
    other = await shared.answer("another page", look)
    assert first.body == b"1" and {one.body for one in many} == {b"2"} and other.body == b"3"
    many[0].headers["x"] = "y"
    assert "x" not in many[1].headers
    assert [one.found for one in shared._looks.values()] == [None, None], "pages are kept for nobody"


async def test_who_asks_while_a_look_goes_on_is_given_the_next_one(monkeypatch):
    monkeypatch.setattr(sharing, "SECONDS", 0.0)
    shared, looks, may_end = Shared(), [], asyncio.Event()

    async def look():
        looks.append(number := len(looks) + 1)
        await may_end.wait()
        return Response(200, str(number).encode())

    early = asyncio.ensure_future(shared.answer("page", look))
    while not looks:
        await asyncio.sleep(0)
    late = asyncio.ensure_future(shared.answer("page", look))
    await asyncio.sleep(0)
    may_end.set()
    assert ((await early).body, (await late).body) == (b"1", b"2"), (
        "it may have missed what the second has just heard of"
    )


async def test_those_who_are_given_one_look_get_it_one_after_the_other_and_the_host_its_turn_between(monkeypatch):
    monkeypatch.setattr(sharing, "SECONDS", 0.01)
    shared, loop = Shared(), asyncio.get_running_loop()

    async def look():
        return Response(200)

    async def answered():
        await shared.answer("page", look)
        return loop.time()

    instants = await asyncio.gather(*(answered() for _ in range(10)))
    assert max(instants) - min(instants) > 8 * sharing.APART_SECONDS
    instants = await asyncio.gather(*(answered() for _ in range(1000)))
    assert max(instants) - min(instants) < 3 * sharing.ALL_SECONDS, "the last of many waits too long"


async def test_pages_are_told_one_after_the_other_and_however_many_before_the_next_word():
    loop = asyncio.get_running_loop()
    for number, least in ((10, 8 * live.APART_SECONDS), (live.MOST_LISTENERS, 0.0)):
        gathering = live._Gathering()
        gathering.pages = {live._Page() for _ in range(number)}

        async def heard(page):
            await page.stirred.wait()
            return loop.time()

        hearing = [asyncio.create_task(heard(page)) for page in gathering.pages]
        gathering.hear(Event("paused", START), loop)
        instants = await asyncio.gather(*hearing)
        assert least < max(instants) - min(instants) < 0.75 * live.GATHER_SECONDS
        gathering._timer.cancel()


async def test_a_look_that_fails_is_tried_again_by_the_next_who_asked(monkeypatch):
    monkeypatch.setattr(sharing, "SECONDS", 0.01)
    shared, looks = Shared(), []

    async def look():
        looks.append(1)
        if len(looks) == 1:
            raise ValueError
        return Response(200, b"well")

    with pytest.raises(ValueError):
        await shared.answer("page", look)
    found = await asyncio.gather(*(shared.answer("page", look) for _ in range(2)))
    assert [one.body for one in found] == [b"well"] * 2 and len(looks) == 2


async def test_who_waits_for_a_look_while_the_scheduler_stops_does_not_open_its_store_again(pair, monkeypatch):
    scheduler, client = pair
    monkeypatch.setattr(sharing, "SECONDS", 0.3)
    assert (await client.get("/?live=true")).status == 200
    waiting = asyncio.ensure_future(client.get("/?live=true"))
    await asyncio.sleep(0.05)
    await scheduler.stop()
    assert (await waiting).status == 503


async def test_what_takes_long_to_fail_fails_once_for_all_who_wait(monkeypatch):
    monkeypatch.setattr(sharing, "SECONDS", 0.02)
    shared, looks = Shared(), []

    async def look():
        looks.append(1)
        await asyncio.sleep(0.01)
        raise TimeoutError("the store does not answer")

    tabs = await asyncio.gather(*(shared.answer("page", look) for _ in range(20)), return_exceptions=True)
    assert {type(one) for one in tabs} == {TimeoutError} and len(looks) == 1


async def test_only_the_last_pages_are_remembered(monkeypatch):
    monkeypatch.setattr(sharing, "MOST", 2)
    shared = Shared()

    async def look():
        return Response(200)

    for name in "abc":
        await shared.answer(name, look)
    assert list(shared._looks) == ["b", "c"]


# -- word of what changed


async def test_pages_hear_of_which_jobs_and_runs_something_happened(pair):
    scheduler, client = pair
    async with client.stream("/changes") as stream:
        await (await scheduler.submit("add", {"a": 1})).wait()
        told = await stream.event()
        assert (told["event"], told["data"]) == ("changed", {"jobs": ["add"], "runs": [1]})
        while (told := await stream.event())["data"] is not None:
            await scheduler.pause(reason="no")
        await scheduler.stop()
        while await stream.event() is not None:
            pass


async def test_what_happens_in_a_quarter_of_a_second_is_one_word_and_too_much_is_all():
    async with virtual_time(shop()) as now:
        stream = Live(now.scheduler).changes()
        await anext(stream)
        said = []

        async def listen():
            async for chunk in stream:
                if b"data" in chunk:
                    said.append((now.now, json.loads(chunk.decode().partition("data: ")[2])))

        task = asyncio.ensure_future(listen())
        await now.advance("1s")
        await now.scheduler.submit_many([now.scheduler["add"].bind(a=number) for number in range(MOST_NAMED + 1)])
        await now.advance("10s")
        task.cancel()
        await asyncio.wait({task})
        await stream.aclose()
    times = [at for at, _ in said]
    assert None in [data for _, data in said]
    assert all(later - earlier >= timedelta(seconds=0.25) for earlier, later in zip(times, times[1:], strict=False))


# -- pictures


def fact(name, *needs, optional=False):
    return {"name": name, "needs": list(needs), "optional": optional}


FLOW = [
    fact("fetch"),
    fact("cut", "fetch"),
    fact("captions", "fetch", optional=True),
    fact("publish", "cut", "captions"),
]


def test_steps_stand_right_of_all_they_need_and_level_with_them():
    made = graph(FLOW)
    places = {one.name: (one.x, one.y) for one in made.nodes}
    assert places["fetch"][0] < places["cut"][0] == places["captions"][0] < places["publish"][0]
    assert places["fetch"][1] == places["publish"][1] == (places["cut"][1] + places["captions"][1]) / 2
    assert len(made.edges) == 4 and made.words.startswith("fetch: ; cut, after fetch: ")
    assert {one.name: one.kind for one in made.nodes}["captions"] == "optional"


def test_the_picture_of_a_run_says_how_each_step_stands():
    done = Step(
        name="fetch", state=StepState.SUCCEEDED, attempt=2, started_at=START, ended_at=START + timedelta(seconds=4.2)
    )
    runs = Step(name="cut", state=StepState.RUNNING, attempt=1, started_at=START)
    kept = replace(done, name="captions", kept=True, attempt=1)
    made = {one.name: one for one in graph(FLOW, [done, runs, kept]).nodes}
    assert [made[name].words for name in ("fetch", "cut", "captions", "publish")] == [
        "✓ succeeded 4.2 s, try 2", "▶ running", "✓ succeeded, kept", "◌ waiting",
    ]  # fmt: skip
    assert made["cut"].since == START and made["fetch"].since is None


@pytest.mark.parametrize(
    ("run", "words"),
    [
        ("running", ["✓ succeeded", "▶ running", "◌ waiting, try 2", "◌ waiting"]),
        ("waiting", ["✓ succeeded", "⚡ interrupted", "◌ waiting, try 2", "◌ waiting"]),
        ("cancelled", ["✓ succeeded", "⚡ interrupted", "⚡ interrupted, try 2", "◯ not begun"]),
    ],
)
def test_no_step_of_a_run_that_does_not_go_on_is_drawn_as_if_it_did(run, words):
    steps = [
        Step(name="fetch", state=StepState.SUCCEEDED, attempt=1),
        Step(name="cut", state=StepState.RUNNING, attempt=1, started_at=START),
        Step(name="captions", state=StepState.WAITING, attempt=2, started_at=START),
    ]
    made = graph(FLOW, steps, State(run)).nodes
    assert [one.words for one in made] == words
    assert [one.name for one in made if one.since is not None] == (["cut"] if run == "running" else [])


def test_what_cannot_be_drawn_is_not():
    assert graph([]) is None
    assert graph([fact("a", "b"), fact("b", "a")]) is None
    assert graph([fact(f"step-{number}") for number in range(MOST + 1)]) is None
    assert graph(FLOW, [Step(name="gone")]) is None, "the run is of another version of the flow"


def test_a_flow_is_drawn_too_where_one_of_its_steps_has_begun_steps_itself():
    inner = [Step(name=f"label {number}", place=len(FLOW) + number) for number in range(3)]
    assert [one.name for one in graph(FLOW, inner).nodes] == [one["name"] for one in FLOW]


async def test_a_flow_is_drawn_on_its_page_and_on_that_of_its_run_and_said_in_words(pair):
    scheduler, client = pair
    await (await scheduler.submit("video")).wait()
    for path, words in (("/jobs/video", "cut, after fetch"), ("/runs/1", "cut, after fetch: ✓ succeeded")):
        body = (await client.get(path)).body.decode()
        assert '<svg class="graph"' in body and words in body, path


# -- charts


def test_days_without_a_run_are_days_too_and_success_is_of_those_that_ended_well_or_ill():
    last = date(2026, 3, 3)
    counts = [
        DayCount(date(2026, 3, 1), State.SUCCEEDED, 3, 6.0),
        DayCount(date(2026, 3, 1), State.FAILED, 1, 9.0),
        DayCount(date(2026, 3, 3), State.SKIPPED, 5, 0.0),
        DayCount(date(2020, 1, 1), State.FAILED, 5, 0.0),
    ]
    found = charts.days(counts, last, 3)
    assert [one.day.day for one in found] == [1, 2, 3]
    assert [(one.success, one.mean_seconds) for one in found] == [(0.75, 2.0), (None, None), (None, None)]
    assert charts.success_data(found) == {
        "at": [20513 * 86400, 20514 * 86400, 20515 * 86400],
        "well": [3, 0, 0],
        "ill": [1, 0, 0],
    }


def test_a_run_is_a_point_where_it_ended_as_high_as_it_took():
    def run(number, began, took, state=State.SUCCEEDED):
        at = START + timedelta(seconds=began)
        return Run(job="a", id=number, state=state, due_at=at, ready_at=at, created_at=at, started_at=at,
                   attempt_started_at=at, ended_at=at + timedelta(seconds=took))  # fmt: skip

    never = replace(run(4, 0, 1, State.CANCELLED), started_at=None)
    found = charts.durations_data(
        [run(3, 1, 5, State.FAILED), run(2, 0, 100), run(1, 0, 2), never], {"p50": 2.0, "p95": 100.0}
    )
    assert (found["run"], found["well"], found["ill"]) == ([1, 3, 2], [2.0, None, 100.0], [None, 5.0, None])


async def test_a_job_that_ran_has_charts_with_their_data_and_a_table(pair):
    scheduler, client = pair
    await (await scheduler.submit("add", {"a": 1})).wait()
    await (await scheduler.submit("evil")).wait()
    well, ill = text(await client.get("/jobs/add")), text(await client.get("/jobs/evil"))
    today = datetime.now(UTC).date()
    assert f"{today} 1 0 100.0 %" in well and f"{today} 0 1 0.0 %" in ill
    assert 'data-chart="durations"' not in (await client.get("/jobs/add")).body.decode(), "one run is no chart"
    await (await scheduler.submit("add", {"a": 1})).wait()
    body = (await client.get("/jobs/add")).body.decode()
    assert "charts.js" in body and 'data-chart="durations"' in body and "&#34;well&#34;" in body
    assert "charts.js" not in (await client.get("/jobs/waits")).body.decode()
