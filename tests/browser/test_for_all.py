"""The dashboard for those who do not see it well, have no pointer, or hold a phone."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from browser.dashboards import bare, shop
from browser.pages import AUDIT, all_paths

from taskloop import Every, RunContext
from taskloop.store_data import Incident

pytestmark = pytest.mark.anyio

FOCUS = """() => {
  const one = document.activeElement, style = getComputedStyle(one), box = one.getBoundingClientRect();
  if (one === document.body) return null;
  const again = one.reached === true;  // a field for dates has parts that are stepped through one by one
  one.reached = true;  // no attribute: what the server does not say is taken away when the page is brought up to date
  const ringed = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2;
  const there = box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
  return {again, ringed, there, told: one.outerHTML.slice(0, 120)};
}"""
MISSED = """() => [...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, summary")]
  .filter(one => one.checkVisibility() && one.tabIndex >= 0 && !one.disabled && !one.reached)
  .map(one => one.outerHTML.slice(0, 120))"""


FAULTY = """<!doctype html><html><title> </title><style>
  .pale { color: #999 } input { border: 1px solid #eee } a.small { display: block; width: 9px; height: 9px; overflow: hidden }
</style><body><h1>One</h1><h3>Three</h3><p class="pale" id="a">pale</p><p id="a"><input placeholder="name"></p>
<label for="nobody">x</label><main><button></button><a class="small" href="#1">1</a><a class="small" href="#2">2</a>
<svg role="img" aria-label="x"><a href="#3"><title>x</title></a></svg><table><tr><th>x</th></tr></table><progress></progress></main>"""


async def test_the_audit_finds_what_was_done_wrong(window):
    page = await window()
    await page.set_content(FAULTY)
    found = "\n".join(await page.evaluate(AUDIT))
    for rule in (
        "no language", "no title", "a heading that skips a level", "id a is there twice", "for leads nowhere",
        "text outside of every landmark", "a control without a name: <button>", "a control without a name: <input",
        "a picture that hides controls", "a head of a table that heads nothing", "a bar without a name",
        "too little contrast", "a control whose edge is not seen", "too small a target",
    ):  # fmt: skip
        assert rule in found, rule


@pytest.mark.parametrize(("scheme", "width"), [("light", 320), ("dark", 1280)])  # 320: a phone, or 1280 at 400 %
async def test_no_page_has_a_fault_that_a_program_can_find_nor_scrolls_sideways(
    lively_dashboard, window, scheme, width
):
    scheduler, address = lively_dashboard
    page = await window(color_scheme=scheme, viewport={"width": width, "height": 800})
    faults = []
    for path in await all_paths(scheduler):
        await page.goto(address + path)
        await page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        faults += [f"{path}: {fault}" for fault in await page.evaluate(AUDIT)]
        if (wide := await page.evaluate("document.documentElement.scrollWidth")) > width:
            faults.append(f"{path} is {wide} wide")
    assert faults == []


async def test_every_control_is_reached_by_the_keyboard_and_seen_to_be(lively_dashboard, window):
    _, address = lively_dashboard
    page = await window()
    for path in ("/", "/jobs", "/jobs/refund", "/runs?job=invoices", "/timeline", "/schedules", "/failures"):
        await page.goto(address + path)
        await page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        steps = ends = 0
        while ends < 3:
            await page.keyboard.press("Tab")
            if (
                focus := await page.evaluate(FOCUS)
            ) is None:  # the end, or a row with the focus is gone, as a fire is over
                ends = 3 if await page.evaluate(MISSED) == [] else ends + 1
                continue
            steps += not focus["again"]
            assert focus["again"] or (focus["ringed"] and focus["there"]), (path, focus["told"])
        assert steps > 8 and await page.evaluate(MISSED) == [], path


async def test_a_job_is_submitted_and_everything_is_paused_with_no_pointer(open_dashboard, window):
    scheduler = shop()
    address = await open_dashboard(scheduler)
    page = await window()
    await page.goto(f"{address}/jobs/remind")

    async def tab_to(locator):
        for _ in range(60):
            await page.keyboard.press("Tab")
            if await locator.evaluate("one => one === document.activeElement"):
                return
        pytest.fail(f"{locator} is never reached")

    await tab_to(page.get_by_label("user"))
    await page.keyboard.press("ControlOrMeta+a")
    await page.keyboard.type("7")
    await page.keyboard.press("Enter")
    await page.wait_for_url("**/runs/1?*")
    assert (await scheduler.wait(1, timeout=20)).params == {"user": 7}
    await page.goto(f"{address}/")
    await tab_to(page.locator("summary", has_text="Pause everything"))
    await page.keyboard.press("Enter")
    await tab_to(page.get_by_label("Reason"))
    await page.keyboard.type("moving house")
    await page.keyboard.press("Enter")
    await page.get_by_text("Everything is paused").wait_for()
    assert (await scheduler.paused()).reason == "moving house"


async def test_on_a_phone_a_job_is_submitted_and_switched(open_dashboard, window):
    scheduler = shop()
    address = await open_dashboard(scheduler)
    page = await window(viewport={"width": 360, "height": 640}, has_touch=True, is_mobile=True)
    await page.goto(f"{address}/jobs/remind")
    await page.get_by_role("button", name="Submit").tap()
    await page.wait_for_url("**/runs/1?*")
    await page.goto(f"{address}/jobs/remind")
    await page.get_by_role("button", name="Disable").tap()
    await page.get_by_text("The job is off").first.wait_for()
    assert not (await scheduler.jobs("remind"))[0].enabled

    for handle in await scheduler.submit_many([scheduler["invoices"].bind()] * 70):
        await handle.wait()
    for path in ("/jobs/invoices", "/runs", "/"):
        await page.goto(address + path)
        assert await page.evaluate("document.documentElement.scrollWidth") == 360, path
    # What is to be done with a job stands far below its runs, and is one tap away.
    await page.goto(f"{address}/jobs/invoices")
    for link, button in (("Submit", "Submit"), ("Disable or pause", "Disable")):
        await page.get_by_role("link", name=link, exact=True).tap()
        box = await page.get_by_role("button", name=button, exact=True).bounding_box()
        assert box and 0 <= box["y"] <= 640, (link, box)
        await page.evaluate("scrollTo(0, 0)")
    await page.goto(f"{address}/")
    # An error and what it says are one text, not two columns beside each other.
    lefts = await page.evaluate(
        """() => [...document.querySelectorAll("td[data-label=outcome]")].map(one => {
          const text = document.createRange(); text.selectNodeContents(one.querySelector("b").nextSibling);
          return [one.querySelector("b").getBoundingClientRect().left, [...text.getClientRects()].at(-1).left];
        })"""
    )
    assert lefts and all(bold == last for bold, last in lefts)


LONG = "a_job_of_sixty_four_characters_whose_name_is_rather_long_in_deed"


async def test_long_names_and_narrow_windows_hide_no_column_and_break_no_word(open_dashboard, window):
    scheduler = shop()
    for name in (LONG, "m" * 128):

        @scheduler.every("1h", first="after", name=name)
        async def long(run: RunContext):
            run.log("a line")

    address = await open_dashboard(scheduler)
    await (await scheduler.submit(LONG)).wait()
    await (await scheduler.submit("video")).wait()
    wide, narrow = await window(), await window(viewport={"width": 375, "height": 800})
    narrowest = await window(viewport={"width": 320, "height": 800})
    for path in ("/", "/jobs", "/schedules"):
        await wide.goto(address + path)
        boxes = "all => all.every(one => one.scrollWidth <= one.clientWidth)"
        assert await wide.locator(".wide:has(table)").evaluate_all(boxes), path
        await narrow.goto(address + path)
        assert await narrow.evaluate("document.documentElement.scrollWidth") == 375, path
        await narrowest.goto(address + path)  # where an instant of another day is longer than its line
        assert await narrowest.locator(".wide:has(table)").evaluate_all(boxes), path
    now = datetime.now(UTC)
    held = {"ms": 1000, "job": "m" * 128, "run": 1, "where": "app/images.py:88 resize"}
    await scheduler._open_store.note([Incident(scheduler.worker.id, "loop_blocked", now, now, held)])
    await scheduler.schedule(LONG, Every("1d"), id="s" * 100)
    for path in ("/workers", f"/schedules?change={'s' * 100}"):
        await narrow.goto(address + path)
        assert await narrow.evaluate("document.documentElement.scrollWidth") == 375, path
    await narrow.goto(f"{address}/runs/1")
    time = narrow.locator(".log td").first
    assert (await time.bounding_box())["height"] < 30 and len(await time.inner_text()) == 12
    assert (await narrow.locator(".log tr").first.bounding_box())["height"] < 60
    await narrow.goto(f"{address}/runs/2")
    step = narrow.get_by_role("cell", name="fetch", exact=True)
    assert (await step.bounding_box())["height"] < 30
    await narrow.goto(f"{address}/timeline")
    line = await narrow.locator("line.now").bounding_box()
    name = narrow.locator(".names li", has_text="sync_orders")
    beside, mark = await name.bounding_box(), await narrow.locator("a[href*=sync_orders] text.lane").bounding_box()
    assert beside["x"] + beside["width"] < line["x"] < 375, "it opens on now, and says whose lane is whose"
    assert abs(beside["y"] + beside["height"] / 2 - mark["y"] - mark["height"] / 2) < 3
    await wide.goto(f"{address}/timeline")
    assert not await wide.locator(".names").is_visible()


async def test_the_word_of_a_state_stays_whole_beside_a_long_name(open_dashboard, window, tmp_path):
    scheduler, begun = bare(tmp_path / "shop.db"), asyncio.Event()

    @scheduler.job(name="m" * 128)
    async def long():
        begun.set()
        await asyncio.sleep(10**6)

    await scheduler.start()
    await scheduler.submit("m" * 128)
    await begun.wait()
    await scheduler.stop()
    page = await window()
    await page.goto(await open_dashboard(scheduler) + "/runs")
    word = page.locator("td .state.interrupted")
    # Without its sign, which may stand on a line of its own; at once, for the live page puts it back.
    assert await word.evaluate("one => { one.firstChild.remove(); return one.getBoundingClientRect().height }") < 30


async def test_in_forced_colours_the_page_one_is_on_and_what_failed_are_still_told_apart(lively_dashboard, window):
    _, address = lively_dashboard
    page = await window(forced_colors="active")
    await page.goto(f"{address}/jobs/invoices")
    lines = await page.locator("nav a").evaluate_all("all => all.map(one => getComputedStyle(one).borderBottomColor)")
    await page.goto(f"{address}/jobs")
    here = await page.locator("nav a[aria-current]").evaluate("one => getComputedStyle(one).borderBottomColor")
    ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert {*lines} == {ground} and here != ground
    await page.goto(f"{address}/jobs/invoices")
    marks = page.locator("figure[data-chart=success] .u-marker")
    drawn = await marks.evaluate_all("all => all.map(one => getComputedStyle(one).backgroundColor)")
    assert len({*drawn[-2:]}) == 2, "failed and succeeded"
