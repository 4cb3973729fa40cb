"""What the dashboard shows to whoever opens it."""

from __future__ import annotations

import asyncio
import gzip
import re
from datetime import UTC, datetime, timedelta

import pytest

from browser.dashboards import bare, shop
from browser.pages import all_paths, follow
from taskloop import RunContext
from taskloop.testing import MemoryStore, virtual_time

pytestmark = pytest.mark.anyio

HTML_BYTES, SCRIPT_BYTES, STYLE_BYTES = 60_000, 45_000, 15_000
"""The most that a page, its scripts and its styles may weigh; the last two compressed."""


async def test_every_page_is_light_and_quiet_and_asks_nobody_else(lively_dashboard, window):
    scheduler, address = lively_dashboard  # what a window complains about fails the test: see conftest.py
    page = await window()
    weights = {"script": {}, "stylesheet": {}}

    async def weigh(response):
        if response.request.resource_type in weights:
            weights[response.request.resource_type][response.url] = len(gzip.compress(await response.body()))

    page.on("response", weigh)
    for path in await all_paths(scheduler):
        answer = await page.goto(address + path)
        assert answer.status == 200, path
        assert len(await answer.body()) <= HTML_BYTES, path
        assert await page.locator("h1").inner_text() and await page.locator("main").inner_text(), path
    assert sum(weights["script"].values()) <= SCRIPT_BYTES and 0 < sum(weights["stylesheet"].values()) <= STYLE_BYTES


async def test_fifty_rows_of_jobs_with_their_strips_and_of_runs_are_light_too(open_dashboard, window, tmp_path):
    scheduler = bare(f"sqlite:///{tmp_path / 'many.db'}")

    async def job(): ...

    for number in range(50):
        scheduler.add_job(job, name=f"nightly_import_of_shop_{number:02}", title="Imports what was sold")
    address = await open_dashboard(scheduler)
    handles = await scheduler.submit_many([one.bind() for one in scheduler for _ in range(20)])
    await handles[-1].wait(10)
    page = await window()
    for path in ("/jobs", "/runs"):
        answer = await page.goto(address + path)
        assert await page.locator("tbody tr").count() == 50
        assert len(await answer.body()) <= HTML_BYTES, path


async def test_the_first_page_lists_what_needs_a_person_and_leads_to_each(lively_dashboard, window):
    _, address = lively_dashboard
    page = await window()
    await page.goto(f"{address}/")
    items = page.locator(".attention li")
    for item, job, words in zip(
        await items.all(),
        ("resize_images", "invoices", "archive"),
        ("loop blocked", "failing", "overdue"),
        strict=True,
    ):
        assert words in await item.inner_text()
        assert await item.get_by_role("link", name=job, exact=True).get_attribute("href") == f"/taskloop/jobs/{job}"
    how_often = r"failing 5× invoices ConnectionRefusedError: connection \d+ to .* was refused · first 1d 0h ago why\?"
    assert re.search(how_often, await items.nth(1).inner_text())
    assert re.search(r" · .+ ago details$", await items.nth(0).inner_text()), "and when the loop stood still"


@pytest.mark.parametrize("width", [1024, 1120, 1200, 1280, 1600])
async def test_on_a_desk_nothing_of_a_table_of_the_first_page_lies_beyond_its_frame(lively_dashboard, window, width):
    _, address = lively_dashboard
    page = await window(viewport={"width": width, "height": 900})
    await page.goto(f"{address}/")
    frames = await page.locator(".wide").evaluate_all("all => all.map(one => [one.scrollWidth, one.clientWidth])")
    assert frames and all(wide <= frame for wide, frame in frames), frames


async def test_without_jobs_the_first_page_says_how_to_add_one(open_dashboard, window):
    address = await open_dashboard(bare())
    page = await window()
    await page.goto(f"{address}/")
    said = await page.locator("main").inner_text()
    assert "Nothing needs you." in said and '@scheduler.every("5m")' in said and "taskloop doctor" in said
    assert await page.locator("main svg, main canvas").count() == 0


async def test_why_leads_to_the_run_that_was_in_the_way_and_names_the_field_that_did_not_fit(
    open_dashboard, window, tmp_path
):
    path = tmp_path / "shop.db"
    begin = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(hours=5)
    asked = begin + timedelta(hours=2)

    def declared():
        scheduler = bare(f"sqlite:///{path}")

        @scheduler.every("1h", first="after")
        async def sync():
            await asyncio.sleep(5400)

        @scheduler.cron(f"{asked.minute} {asked.hour} * * {(asked.weekday() + 2) % 7}")  # of the day after
        async def report(): ...

        return scheduler

    async def past():
        scheduler, memory = declared(), MemoryStore()
        async with virtual_time(scheduler, begin, store=memory) as time:
            await time.advance("5h")
            await time.until(memory.backup(path))

    await asyncio.to_thread(asyncio.run, past())
    address = await open_dashboard(declared())
    page = await window()

    async def why(job):
        await page.goto(f"{address}/jobs/{job}")
        await page.get_by_label("Why did it").fill(asked.isoformat())
        await follow(page, page.get_by_role("button", name="Explain"))
        return page.locator("#why")

    assert re.search("day.of.week .*does not match", await (await why("report")).inner_text())
    answer = await why("sync")
    assert "skipped" in await answer.locator("p b").inner_text()
    await follow(page, answer.get_by_role("link", name="run 1").first)
    assert page.url.endswith("/runs/1")


async def test_the_timeline_has_runs_before_its_line_and_fires_behind_it_in_the_lane_of_their_job(
    lively_dashboard, window
):
    _, address = lively_dashboard
    page = await window()
    await page.goto(f"{address}/timeline?from=12h&to=12h")
    line = await page.locator("line.now").bounding_box()
    lane = await page.locator("text.lane", has_text="sync_orders").bounding_box()
    marks = []
    for kind in ("succeeded", "coming"):
        found = await page.locator(f"svg.timeline rect.{kind}").evaluate_all(
            "all => all.map(one => one.getBoundingClientRect()).map(({x, y, width, height}) => ({x, y, width, height}))"
        )
        marks.append([one for one in found if one["y"] <= lane["y"] + lane["height"] / 2 <= one["y"] + one["height"]])
    before, after = marks
    assert len(before) == len(after) == 12
    assert all(one["x"] + one["width"] <= line["x"] + 1 for one in before) and all(
        one["x"] >= line["x"] for one in after
    )
    await page.get_by_text("As a table").click()
    rows = await page.locator("details tbody tr").all_inner_texts()
    lanes = await page.locator("text.lane").all_text_contents()
    assert [row.split("\t")[0] for row in rows] == lanes
    told = next(row for row in rows if row.startswith("sync_orders"))
    assert told.count("succeeded") == 12 and told.count("to come") == 12


async def test_filters_are_in_the_address_so_a_reload_a_step_back_and_a_copied_link_show_the_same(
    lively_dashboard, window
):
    _, address = lively_dashboard
    page = await window()
    await page.goto(f"{address}/runs")
    form = page.locator("form.filter")
    await form.get_by_label("Job").fill("invoices")
    await form.get_by_label("State").select_option("failed")
    await form.get_by_label("Since").fill("24h")
    await follow(page, form.get_by_role("button"))
    ids = page.locator("tbody a.run")
    filtered, link = await ids.all_inner_texts(), page.url
    assert 3 <= len(filtered) <= 5 and "job=invoices" in link and "state=failed" in link and "since=24h" in link
    await page.reload()
    assert await ids.all_inner_texts() == filtered
    await follow(page, ids.first)
    await page.go_back()
    assert await ids.all_inner_texts() == filtered
    assert await form.get_by_label("Job").input_value() == "invoices"
    other = await window()
    await other.goto(link)
    assert await other.locator("tbody a.run").all_inner_texts() == filtered


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)> \"' & \u202eתודה\u200f " + "w" * 10_000


@pytest.mark.parametrize("width", [1280, 320])
async def test_whatever_a_job_says_is_shown_as_text_and_leaves_the_page_in_shape(open_dashboard, window, width):
    scheduler, name = bare(), f"hostile_{'w' * 120}"

    @scheduler.job(name=name, title=HOSTILE[:200], description=HOSTILE)
    async def hostile(run: RunContext, text: str = HOSTILE[:300]):
        run.log(HOSTILE)
        run.progress(1, 2, HOSTILE)
        raise ValueError(HOSTILE)

    address = await open_dashboard(scheduler)
    run = await (await scheduler.submit(name, {"text": HOSTILE}, actor=HOSTILE[:100], reason=HOSTILE[:100])).wait(5)
    await scheduler.pause(name, reason=HOSTILE[:200], actor=HOSTILE[:100])
    await scheduler.pause(reason=HOSTILE[:200], actor=HOSTILE[:100])
    page = await window(viewport={"width": width, "height": 800})
    page.on("dialog", lambda dialog: pytest.fail(f"a script spoke: {dialog.message}"))
    for path in (
        "/",
        "/jobs",
        f"/jobs/{name}",
        "/runs",
        f"/runs/{run.id}",
        "/failures",
        f"/jobs/{name}?from_run={run.id}",
    ):
        await page.goto(address + path)
        assert "<script>alert(1)</script>" in await page.locator("main").inner_text(), path
        assert await page.locator("main script, main img").count() == 0
        assert await page.evaluate("document.documentElement.scrollWidth") <= width, path
    await page.goto(f"{address}/")
    # What stands behind a text that turns the direction around is not turned with it.
    bar = page.locator(".bar p")
    turned = await bar.evaluate(
        "(p) => { const range = document.createRange(); const last = p.lastChild; const at = last.data.indexOf('Nothing');"
        " const x = (from) => { range.setStart(last, from); range.setEnd(last, from + 1); return range.getBoundingClientRect().x; };"
        " return x(at) > x(at + 1); }"
    )
    assert turned is False


async def test_runs_of_one_instant_are_each_on_exactly_one_page(open_dashboard, window):
    scheduler = shop()
    await scheduler.pause()
    await scheduler.submit_many([scheduler["remind"].bind(user=number) for number in range(230)])
    address = await open_dashboard(scheduler)
    page = await window()
    await page.goto(f"{address}/runs")
    seen = []
    while True:
        seen += await page.locator("tbody a.run").all_inner_texts()
        older = page.get_by_role("link", name="older runs")
        if not await older.count():
            break
        await follow(page, older)
    assert [int(one) for one in seen] == list(range(230, 0, -1))
    assert len({one.due_at for one in await scheduler.runs(limit=1000)}) == 1


async def test_on_paper_nothing_is_cut_off_nor_dark(lively_dashboard, window):
    scheduler, address = lively_dashboard
    page = await window(viewport={"width": 718, "height": 1000}, color_scheme="dark")  # the width of A4
    await page.emulate_media(media="print")
    for path in await all_paths(scheduler):
        await page.goto(address + path)
        assert await page.evaluate("document.documentElement.scrollWidth") == 718, path
        boxes = "all => all.every(one => one.scrollHeight <= one.clientHeight && one.scrollWidth <= one.clientWidth)"
        assert await page.locator(".wide, .log-box").evaluate_all(boxes), path
        assert await page.locator("form").filter(visible=True).count() == 0, path
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


async def test_on_paper_a_long_name_breaks_no_instant_beside_it(open_dashboard, window):
    scheduler = bare()

    @scheduler.job(name="m" * 128)
    async def fails():
        raise ValueError("x" * 500)

    address = await open_dashboard(scheduler)
    await (await scheduler.submit("m" * 128, actor="anna")).wait()
    page = await window(viewport={"width": 718, "height": 1000})
    await page.emulate_media(media="print")
    await page.goto(f"{address}/runs")
    lines = "all => all.map(one => one.getClientRects().length)"
    assert await page.locator("td time").evaluate_all(lines) == [2], "the clock, and its zone"
    assert await page.evaluate("document.documentElement.scrollWidth") == 718
