"""Pages that stay up to date by themselves, in a real browser: what is new comes without reload, what is stale says so."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web
from browser.dashboards import PREFIX, bare

from taskloop import Every, RunContext
from taskloop.testing import MemoryStore, virtual_time
from taskloop.web.aiohttp import setup

pytestmark = pytest.mark.anyio
SOON_MS = 5_000
"""A second, but for machines that are busy."""


def hold(seconds):
    """Keep the interpreter busy, as a computation does that nobody thought would take so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def shop(store="sqlite:///:memory:"):
    scheduler = bare(store)
    scheduler.gate = asyncio.Event()

    @scheduler.job()
    async def load(run: RunContext):
        run.log("the first line")
        run.progress(1, 4, "1 of 4")
        await scheduler.gate.wait()
        run.log("the last line")

    @scheduler.job()
    async def quick(): ...

    @scheduler.job()
    async def holds_the_loop():
        hold(1.1)

    flow = scheduler.flow("video")

    @flow.step()
    async def fetch() -> int:
        return 1

    @flow.step()
    async def cut(fetch: int) -> int:
        await scheduler.gate.wait()
        return fetch

    return scheduler


class Server:
    """A dashboard that can be killed and started again at the same address."""

    def __init__(self, make, **handlers):
        self._make = make
        self._handlers = handlers  # the program's own, by the word of their address
        self._port = 0

    async def start(self):
        self.scheduler = self._make()
        app = web.Application()
        setup(app, self.scheduler, PREFIX, auth="open")
        for word, handler in self._handlers.items():
            app.router.add_get(f"/{word}", handler)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]
        return f"http://127.0.0.1:{self._port}{PREFIX}"

    async def kill(self):
        await self._runner.cleanup()


@pytest.fixture
async def expect(chromium):
    from playwright.async_api import expect

    return expect


async def told(window):
    """A window that asks for nothing but what it was told of."""
    page = await window()
    await page.add_init_script("addEventListener('DOMContentLoaded', () => { document.body.dataset.poll = 1000; })")
    return page


async def test_a_run_asked_for_elsewhere_shows_moves_and_ends_without_reload(open_dashboard, window, expect):
    scheduler = shop()
    address, page = await open_dashboard(scheduler), await told(window)
    await page.goto(address + "/")
    await page.evaluate("window.same = true")
    await expect(page.locator("#signal")).to_have_text("live")
    run = await scheduler.submit("load")
    await expect(page.locator("ul.running")).to_contain_text("load run 1", timeout=SOON_MS)
    await expect(page.locator("ul.running progress")).to_have_attribute("value", "0.25", timeout=SOON_MS)
    lasted = await page.locator("ul.running [data-since]").inner_text()
    await expect(page.locator("ul.running [data-since]")).not_to_have_text(lasted, timeout=SOON_MS)
    scheduler.gate.set()
    await run.wait()
    await expect(page.locator("main")).to_contain_text("Nothing runs right now.", timeout=SOON_MS)
    await scheduler.submit("holds_the_loop")
    await expect(page.locator("ul.attention")).to_contain_text("by job 'holds_the_loop', run 2, at", timeout=SOON_MS)
    assert await page.evaluate("window.same && !document.querySelector('#live > title')")


async def test_who_held_a_loop_stands_in_its_strip_with_run_and_line_and_a_handler_as_no_job(window, expect):
    async def blocks(request):
        hold(1.1)
        return web.Response(text="done")

    server, page = Server(shop, blocks=blocks), await window()
    address = await server.start()
    try:
        await page.goto(address + "/workers")
        strip = page.get_by_role("group", name="ten seconds a bar")
        await expect(strip).to_have_accessible_name(
            "The loop of shop, ten seconds a bar: it did not stand still in ten minutes"
        )
        await (await server.scheduler.submit("holds_the_loop")).wait()
        told = re.compile(r"(9\d\d ms|1\.\d s): holds_the_loop, run 1, at \S+test_live\.py:\d+ hold")
        await expect(page.locator(".loop figcaption")).to_have_text(told, timeout=SOON_MS)
        await expect(strip.locator("a[href$='/runs/1'] title").first).to_have_text(told)
        answer = await page.context.request.get(address.removesuffix(PREFIX) + "/blocks")
        assert answer.ok
        told = re.compile(r"\d m?s: not a job: \S+ \(.*\), at \S+test_live\.py:\d+ hold")
        await expect(strip.locator("path.loop_blocked > title").filter(has_text=told).first).to_be_attached(
            timeout=SOON_MS
        )
        await expect(page.locator("td[data-label='where']").first).to_contain_text(re.compile("not a job.* task "))
    finally:
        await page.close()  # else it asks for what is not there any more
        await server.kill()


async def test_the_page_of_a_run_follows_its_steps_and_its_log(open_dashboard, window, expect):
    scheduler = shop()
    address, page = await open_dashboard(scheduler), await window()
    flow, run = await scheduler.submit("video"), await scheduler.submit("load")
    await page.goto(f"{address}/runs/{flow.id}")
    picture = page.locator("svg.graph")
    await expect(picture.locator("g.succeeded")).to_contain_text("fetch", timeout=SOON_MS)
    await expect(picture.locator("g.running")).to_contain_text("cut")
    other = await page.context.new_page()
    await other.goto(f"{address}/runs/{run.id}")
    await expect(other.locator("#log-box")).to_contain_text("the first line", timeout=SOON_MS)
    scheduler.gate.set()
    await expect(other.locator("#log-box")).to_contain_text("the last line", timeout=SOON_MS)
    await expect(other.locator(".lead")).to_contain_text("succeeded")
    await page.bring_to_front()
    await expect(picture.locator("g.succeeded")).to_have_count(2, timeout=SOON_MS)


async def test_a_switch_shows_in_another_browser_and_nothing_that_is_typed_or_open_is_lost(
    open_dashboard, window, expect
):
    scheduler = shop()
    address = await open_dashboard(scheduler)
    jobs, job = await told(window), await told(window)
    await jobs.goto(address + "/jobs")
    await job.goto(address + "/jobs/load")
    await job.locator("form[action$='/pause'] [name=reason]").fill("being typed")
    await job.get_by_text("More", exact=True).click()
    await scheduler.disable("load", reason="moving house", actor="anna")
    await expect(jobs.locator("#job-load")).to_contain_text("by anna: moving house", timeout=SOON_MS)
    await scheduler.submit("quick")
    await expect(jobs.locator("#job-quick svg.strip path")).to_have_count(1, timeout=SOON_MS)
    await expect(job.locator("main")).to_contain_text("by anna: moving house", timeout=SOON_MS)
    await expect(job.get_by_role("button", name="Enable")).to_be_visible()
    typed = job.locator("form[action$='/pause'] [name=reason]")
    await expect(typed).to_have_value("being typed")
    assert await typed.evaluate("field => field === document.activeElement") is False
    await expect(job.get_by_role("textbox", name="Key")).to_be_visible()
    await typed.focus()
    await scheduler.enable("load", actor="tom")
    await expect(job.get_by_role("button", name="Disable")).to_be_visible(timeout=SOON_MS)
    assert await typed.evaluate("field => field === document.activeElement"), "the focus stays where it was"


async def refreshed(page, scheduler, times=1):
    """Let something happen and the page take it up, so often."""
    for _ in range(times):
        shown = await page.locator("#as-of").get_attribute("datetime")
        await (await scheduler.submit("quick")).wait()
        await page.wait_for_function("at => document.getElementById('as-of').dateTime !== at", arg=shown)


async def test_what_is_typed_into_a_form_with_a_field_named_id_is_there_after_every_refresh(
    open_dashboard, window, expect
):
    scheduler = shop()
    address, page = await open_dashboard(scheduler), await window()
    await page.goto(f"{address}/schedules")
    form = page.locator("form", has=page.get_by_role("button", name="Add", exact=True))
    typed = {"When": "5m", "Name": "mine", "Parameters": '{"a": 1}', "Reason": "nights"}
    for label, value in typed.items():
        await form.get_by_label(label).fill(value)
    await form.get_by_label("Job").select_option("load")
    await refreshed(page, scheduler)
    await scheduler.schedule("quick", Every("1h"), id="another")
    await expect(page.locator("[id='schedule-another']")).to_be_visible()
    await refreshed(page, scheduler, 2)
    assert {label: await form.get_by_label(label).input_value() for label in typed} == typed
    assert await form.get_by_label("Job").input_value() == "load"
    assert await form.get_by_label("Reason").evaluate("one => one === document.activeElement")


async def test_what_was_done_is_said_where_it_was_said_first_and_nothing_below_it_is_made_anew(
    open_dashboard, window, expect
):
    scheduler = shop()
    address, page = await open_dashboard(scheduler), await window()
    await (await scheduler.submit("quick")).wait()
    await page.goto(f"{address}/jobs/quick?said=enabled")
    said, why = page.get_by_role("status").filter(has_text="The job is on."), page.get_by_label("Why did it")
    place = await said.evaluate("one => one.offsetTop")
    await why.fill("2h")
    await page.get_by_text("link by link").click()
    await page.evaluate("window.kept = [...document.querySelectorAll('main > :not(#said), #why details')]")
    await refreshed(page, scheduler, 3)
    assert await said.evaluate("one => one.offsetTop") == place
    assert await page.evaluate("document.querySelector('main').firstElementChild.id") == "said"
    assert await page.evaluate("window.kept.every(one => one.isConnected)")
    assert await why.input_value() == "2h"
    assert await page.locator("#why details").get_attribute("open") is not None


async def test_who_has_the_focus_in_a_list_keeps_it_when_a_row_above_goes(open_dashboard, window, expect):
    scheduler = shop()
    address, page = await open_dashboard(scheduler), await told(window)
    for _ in range(4):
        await scheduler.submit("load")
    await page.goto(address + "/")
    first = await page.locator(".running li a.run").first.inner_text()
    link = page.locator(".running li").nth(2).locator("a.run")
    name = await link.inner_text()
    await link.focus()
    await scheduler.cancel(int(first))
    await expect(page.locator(".running li")).to_have_count(3, timeout=SOON_MS)
    assert await page.evaluate("document.activeElement.textContent") == name
    scheduler.gate.set()


async def test_new_runs_are_announced_and_come_when_they_are_wanted(open_dashboard, window, expect):
    scheduler = shop()
    address, page = await open_dashboard(scheduler), await told(window)
    first = await scheduler.submit("load")
    await page.goto(address + "/runs")
    for _ in range(3):
        await (await scheduler.submit("quick")).wait()
    await expect(page.locator("#news button")).to_have_text("3 new – show", timeout=SOON_MS)
    assert await page.locator("tbody tr").count() == 1
    scheduler.gate.set()
    await first.wait()
    await expect(page.locator("#run-1")).to_contain_text("succeeded", timeout=SOON_MS)
    assert await page.locator("tbody tr").count() == 1, "what is shown changes, but nothing comes between"
    await expect(page.get_by_role("status")).to_have_text("There are new rows.")  # said once: the number counts on
    await page.locator("#news button").press("Enter")
    await expect(page.locator("tbody tr")).to_have_count(4, timeout=SOON_MS)
    await expect(page.locator("#run-4 a").first).to_be_focused()
    await expect(page.locator("#news")).to_be_hidden()
    assert [await one.get_attribute("id") for one in await page.locator("tbody tr").all()] == [
        f"run-{number}" for number in (4, 3, 2, 1)
    ]


async def test_what_is_done_meanwhile_is_announced_on_the_audit_and_a_filter_goes_on_offering_all_jobs(
    open_dashboard, window, expect
):
    scheduler = shop()
    address, page = await open_dashboard(scheduler), await told(window)
    await scheduler.disable("quick", actor="tom")
    await page.goto(address + "/audit")
    await page.get_by_label("By").fill("to")
    for _ in range(2):
        await scheduler.enable("quick", actor="ann")
        await scheduler.disable("quick", actor="ann")
    await expect(page.locator("#news button")).to_have_text("4 new – show", timeout=SOON_MS)
    assert await page.locator("tbody tr").count() == 1, "nothing comes under the pointer"
    assert await page.get_by_label("By").input_value() == "to"
    assert await page.locator("#names option").count() == len([*scheduler])
    await page.locator("#news button").click()
    await expect(page.locator("tbody tr")).to_have_count(5, timeout=SOON_MS)
    assert await page.locator("#names option").count() == len([*scheduler])
    await page.goto(address + "/schedules")
    await page.select_option("#job", "quick")
    await scheduler.schedule("quick", Every("1d"), id="b")
    await expect(page.locator("#schedule-b")).to_be_visible(timeout=SOON_MS)
    assert await page.locator("#job").input_value() == "quick"
    assert await page.locator("#job option").count() == len([*scheduler])


async def test_no_button_comes_under_the_hand_that_means_another(open_dashboard, window, expect):
    scheduler = shop()
    address, page = await open_dashboard(scheduler), await window()
    await scheduler.schedule("quick", Every("1d"), id="b")
    await page.goto(address + "/schedules")
    await page.evaluate("Object.assign(document.body.dataset, {poll: 0.3, rarely: 0.2})")
    button = page.locator("#schedule-b button")
    before = await button.bounding_box()
    await scheduler.schedule("quick", Every("1d"), id="a")
    await expect(page.locator("#news button")).to_have_text("1 new – show", timeout=SOON_MS)
    assert (await button.bounding_box())["y"] == before["y"] and await page.locator("#schedule-a").count() == 0
    await scheduler.unschedule("b")
    await expect(page.locator("#schedule-b")).to_have_class("left", timeout=SOON_MS)
    await page.locator("#news button").click()
    await expect(page.locator("#schedule-b")).to_have_count(0, timeout=SOON_MS)
    await expect(page.locator("#schedule-a form")).to_have_attribute("action", f"{PREFIX}/schedules/a/remove")


async def test_without_a_signal_the_page_says_so_and_goes_on_after_a_restart(tmp_path, window, complaints, expect):
    server, page = Server(lambda: shop(f"sqlite:///{tmp_path / 'shop.db'}")), await window()
    address = await server.start()
    await (await server.scheduler.submit("quick")).wait()
    await page.goto(address + "/jobs/quick")
    await page.evaluate(
        "Object.assign(document.body.dataset, {poll: 0.3, rarely: 0.2, quiet: 1, stale: 2}); window.same = true"
    )  # instead of 10, 15 and 60 seconds
    await expect(page.locator("#lost")).to_be_hidden()
    await server.kill()
    await expect(page.locator("#lost")).to_contain_text("No signal: what is shown is from", timeout=15_000)
    await expect(page.locator("body")).to_have_class("stale", timeout=15_000)
    await expect(page.get_by_role("button", name="Disable")).to_be_disabled()
    assert await server.start() == address
    try:
        await expect(page.locator("#lost")).to_be_hidden(timeout=15_000)
        await page.evaluate("document.body.dataset.quiet = 600")  # it is answered, so this is not what tells of it
        await page.route("**/*live=true", lambda route: route.fulfill(status=503, body="the store is away"))
        await expect(page.locator("#lost")).to_contain_text("The server cannot say how things stand (503)")
        await expect(page.locator("#signal")).to_have_text("no signal", timeout=SOON_MS)
        await page.unroute("**/*live=true")
        await page.route("**/*live=true", lambda route: route.fulfill(status=404, body="pruned"))
        await expect(page.locator("#lost")).to_contain_text("It is gone (404): what is shown is from")
        await page.unroute("**/*live=true")
        await expect(page.locator("#lost")).to_be_hidden()
        await expect(page.get_by_role("button", name="Disable")).to_be_enabled()
        await (await server.scheduler.submit("quick")).wait()
        await expect(page.locator("#runs tbody tr")).to_have_count(2, timeout=SOON_MS)
        assert await page.evaluate("window.same")
    finally:
        await page.goto("about:blank")  # the console tells of requests that nobody answers
        complaints.clear()
        await server.kill()


async def test_a_deploy_that_adds_and_drops_parameters_takes_nothing_of_what_is_typed_for_the_others(
    tmp_path, window, complaints, expect
):
    def make():
        scheduler = bare(f"sqlite:///{tmp_path / 'shop.db'}")
        if not versions:

            @scheduler.job(name="load")
            async def older(region: str = "north", day: int = 1, note: str = ""): ...
        else:

            @scheduler.job(name="load")
            async def newer(shop: int = 1, day: int = 1, limit: int = 5, note: str = ""): ...

        versions.append(scheduler)
        return scheduler

    versions = []
    server, page = Server(make), await window()
    address = await server.start()
    await page.goto(address + "/jobs/load")
    await page.evaluate("Object.assign(document.body.dataset, {poll: 0.3, rarely: 0.2})")
    await page.get_by_label("day").fill("17")
    await page.get_by_label("note").fill("half a sent")
    await server.kill()
    await server.start()
    try:
        await expect(page.get_by_label("limit")).to_have_value("5", timeout=15_000)
        await expect(page.get_by_label("region")).to_have_count(0)
        assert await page.get_by_label("day").input_value() == "17"
        assert await page.get_by_label("note").input_value() == "half a sent"
        assert await page.evaluate("document.activeElement.id") == "field-note"
    finally:
        await page.goto("about:blank")  # the console tells of requests that nobody answers
        complaints.clear()
        await server.kill()


async def test_where_no_stream_can_be_had_nor_shared_the_page_asks_by_itself(
    open_dashboard, window, complaints, expect
):
    scheduler = shop()
    address, page = await open_dashboard(scheduler), await window()
    await page.add_init_script(
        "Object.defineProperty(navigator, 'locks', { value: undefined }); delete window.BroadcastChannel"
    )
    await page.route("**/changes", lambda route: route.fulfill(status=429, body="too many"))
    await page.goto(address + "/")
    await page.evaluate("document.body.dataset.poll = 0.5")
    await scheduler.submit("load")
    await expect(page.locator("ul.running")).to_contain_text("load", timeout=SOON_MS)
    async with page.expect_response(lambda one: one.url.endswith("/changes") and one.status == 200):
        await page.unroute("**/changes")
    await page.evaluate("document.body.dataset.poll = 100")
    await expect(page.locator("#signal")).to_have_text("live")
    scheduler.gate.set()
    await expect(page.locator("main")).to_contain_text("Nothing runs right now.", timeout=SOON_MS)
    complaints.clear()


async def test_eight_tabs_have_one_stream_and_hidden_ones_ask_for_nothing(open_dashboard, window, expect):
    scheduler = shop()
    address, first = await open_dashboard(scheduler), await window()
    asked = []
    pages = [first] + [await first.context.new_page() for _ in range(7)]
    for page in pages:
        page.on("request", lambda request: asked.append(request.url.removeprefix(address)))
    await asyncio.gather(*(page.goto(address + "/") for page in pages))
    await asyncio.gather(*(expect(page.locator("#signal")).to_have_text("live") for page in pages))
    await scheduler.submit("load")
    await expect(pages[7].locator("ul.running")).to_contain_text("load", timeout=SOON_MS)
    await expect(pages[3].locator("ul.running")).to_contain_text("load", timeout=SOON_MS)
    assert asked.count("/changes") == 1
    began = time.monotonic()
    await pages[7].get_by_role("link", name="Jobs").click()
    await expect(pages[7].locator("h1")).to_have_text("Jobs")
    assert time.monotonic() - began < 3, "as many streams would have taken all connections"
    hide = """() => { document.body.dataset.hidden = 0.1;
        Object.defineProperty(document, "hidden", { configurable: true, get: () => true });
        document.dispatchEvent(new Event("visibilitychange")); }"""
    await asyncio.gather(*(page.evaluate(hide) for page in pages))  # no window of this browser is ever hidden
    for _ in range(10):  # what was asked for is answered first
        asked.clear()
        await asyncio.sleep(0.7)
        if not asked:
            break
    await scheduler.submit("quick")
    await asyncio.sleep(1.5)
    assert asked == [], "the stream is let go, and nothing is asked for"
    async with pages[2].expect_request("**/changes"), pages[2].expect_response("**/*live=true"):
        await pages[2].evaluate(
            """() => { Object.defineProperty(document, "hidden", { configurable: true, get: () => false });
            document.dispatchEvent(new Event("visibilitychange")); }"""
        )


async def test_where_tabs_cannot_share_a_stream_only_the_one_that_is_seen_has_one(open_dashboard, window, expect):
    """As under a name that is not localhost, without TLS: a browser opens six connections to it, and no more."""
    scheduler = shop()
    address, first = await open_dashboard(scheduler), await window()
    await first.context.add_init_script("Object.defineProperty(navigator, 'locks', { value: undefined })")
    hide = """hidden => { Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
        document.dispatchEvent(new Event("visibilitychange")); }"""
    pages = [first] + [await first.context.new_page() for _ in range(7)]
    for page in pages:
        async with page.expect_response("**/changes"):
            await page.goto(address + "/")
        await expect(page.locator("#signal")).to_have_text("live")
        await page.evaluate(hide, True)
    await first.evaluate(hide, False)
    await scheduler.submit("load")
    await expect(first.locator("ul.running")).to_contain_text("load", timeout=SOON_MS)


async def test_keys_go_to_pages_and_hold_them_but_not_while_one_types(open_dashboard, window, expect):
    scheduler = shop()
    address, page = await open_dashboard(scheduler), await window()
    await (await scheduler.submit("quick")).wait()
    await page.goto(address + "/")
    await page.keyboard.press("g")
    await page.keyboard.press("r")
    await expect(page.locator("h1")).to_have_text("Runs")
    await page.keyboard.press("/")
    await page.keyboard.type("g?.")
    await expect(page.get_by_label("Job")).to_have_value("g?.")
    await page.evaluate("document.activeElement.blur()")
    await page.keyboard.press(".")
    await scheduler.submit("quick")
    await expect(page.locator("#signal")).to_contain_text("changes wait", timeout=SOON_MS)
    await page.keyboard.press(".")
    await expect(page.locator("#news button")).to_have_text("1 new – show", timeout=SOON_MS)
    await page.keyboard.press("?")
    await expect(page.get_by_role("heading", name="Keys")).to_be_visible()
    await page.get_by_label("Single keys do this").uncheck()
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")
    await expect(page.get_by_role("heading", name="Keys")).to_be_hidden()


async def test_a_page_that_is_held_is_not_changed_by_what_was_asked_for_before(open_dashboard, window, expect):
    scheduler = shop()
    address, page = await open_dashboard(scheduler), await window()
    asked, held = asyncio.Event(), asyncio.Event()

    async def on_a_slow_line(route):
        asked.set()
        await held.wait()
        await route.continue_()

    await page.route("**/*live=true*", on_a_slow_line)
    await page.goto(f"{address}/jobs/quick")
    await asked.wait()
    await (await scheduler.submit("quick")).wait()
    await page.keyboard.press(".")
    async with page.expect_response("**/*live=true*"):
        held.set()
    await expect(page.locator("#signal")).to_contain_text("held")
    assert "It never ran" in await page.locator("main").inner_text()
    await page.keyboard.press(".")
    await expect(page.locator("main")).not_to_contain_text("It never ran", timeout=SOON_MS)
    await page.unroute_all(behavior="wait")


async def test_charts_are_drawn_within_the_policy_and_the_table_says_the_same(lively_dashboard, window, expect):
    _, address = lively_dashboard
    page = await window()
    await page.goto(address + "/jobs/sync_orders")
    await expect(page.locator("figure canvas")).to_have_count(2)
    await page.get_by_text("The days as a table").click()
    await expect(page.locator("#charts ~ details tbody tr").first).to_contain_text("100.0 %")
    await page.goto(address + "/jobs/video")
    await expect(page.locator("svg.graph g")).to_have_count(4)


WRITTEN = """
window.written = new Map();
const { fillText, clearRect } = CanvasRenderingContext2D.prototype;
CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
  written.set(this, [...(written.get(this) ?? []), text]);
  fillText.call(this, text, ...rest);
};
CanvasRenderingContext2D.prototype.clearRect = function (...rest) {
  written.delete(this);
  clearRect.call(this, ...rest);
};
"""
"""A script that keeps what is written into each canvas."""


async def test_how_long_runs_took_is_drawn_from_the_second_on(open_dashboard, window, expect):
    scheduler = shop()
    address, page = await open_dashboard(scheduler), await told(window)
    await (await scheduler.submit("quick")).wait()
    await page.goto(address + "/jobs/quick")
    await expect(page.locator("figure canvas")).to_have_count(1)
    assert "Runs a day" in await page.locator("figcaption").inner_text()
    await (await scheduler.submit("quick")).wait()
    await expect(page.locator("figure canvas")).to_have_count(2, timeout=SOON_MS)
    assert [(await one.inner_text())[:10] for one in await page.locator("figcaption").all()] == [
        "How long t",
        "Runs a day",
    ]
    assert [(await one.inner_text()).split("-")[0] for one in await page.locator(".u-legend").all()] == ["ended", "day"]


@pytest.mark.parametrize(
    ("apart", "took", "on_x", "on_y"),
    [
        (0.05, 0.001, "12:00:20.200", "0.2 ms"),
        (6.0, 0.002, "12:00:30", "0.5 ms"),
        (60.0, 2.0, "12:05", "1.5 s"),
        (3600.0, 90.0, "15:00", "1m 20s"),
    ],
)
async def test_no_label_stands_twice_beside_a_chart_however_short_the_span_and_the_runs(
    open_dashboard, window, expect, tmp_path, apart, took, on_x, on_y
):
    memory, day = MemoryStore(), datetime.now(UTC).replace(hour=12, minute=0, second=20, microsecond=0)

    def jobs(store):
        scheduler = bare(store)

        @scheduler.job()
        async def brief():
            await asyncio.sleep(took)

        return scheduler

    async def long_ago():
        past = jobs(memory)
        async with virtual_time(past, day - timedelta(days=1), store=memory) as clock:
            for _ in range(9):
                await past.submit("brief")
                await clock.advance(timedelta(seconds=apart))
            await clock.until(memory.backup(tmp_path / "shop.db"))

    await asyncio.to_thread(asyncio.run, long_ago())
    address, page = await open_dashboard(jobs(f"sqlite:///{tmp_path / 'shop.db'}")), await window()
    await page.add_init_script(WRITTEN)
    await page.goto(address + "/jobs/brief")
    await expect(page.locator("figure canvas")).to_have_count(2)
    for labels in await page.evaluate("[...written.values()]"):
        assert len(labels) == len({*labels}), labels
    [labels, _] = await page.evaluate("[...written.values()]")
    assert {on_x, on_y} <= {*labels}, labels


async def test_without_a_script_everything_is_there_and_nothing_that_needs_one(open_dashboard, window, expect):
    scheduler = shop()
    address, page = await open_dashboard(scheduler), await window(java_script_enabled=False)
    await (await scheduler.submit("quick")).wait()
    await page.goto(address + "/jobs/quick")
    await expect(page.locator("#content")).to_contain_text("succeeded")
    for hidden in ("#keys-button", "#signal", "#lost", "#keys"):
        await expect(page.locator(hidden)).to_be_hidden()
    for caption in await page.locator("figure[data-chart]").all():
        await expect(caption).to_be_hidden()
    await page.locator("form[action$='/submit'] button").click()
    await expect(page.locator("h1")).to_contain_text("Run 2")
