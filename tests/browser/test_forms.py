"""What is done by the forms of the pages: by a click, by the keyboard, and with scripts off."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest

from browser.dashboards import bare, shop
from browser.pages import AUDIT, follow
from taskloop.testing import MemoryStore, virtual_time

pytestmark = pytest.mark.anyio


async def lead(page, address, path, *, button, **typed):
    """Fill in the labelled fields of the form of a button on a page, and press it."""
    await page.goto(address + path)
    form = page.locator("form", has=page.get_by_role("button", name=button, exact=True))
    for label, value in typed.items():
        await form.get_by_label(label).fill(value)
    await follow(page, form.get_by_role("button", name=button, exact=True))


async def test_with_scripts_off_everything_is_done_by_plain_forms(open_dashboard, window):
    scheduler = shop()
    address = await open_dashboard(scheduler)
    page = await window(java_script_enabled=False)
    await lead(page, address, "/jobs/sync_orders", button="Disable", Reason="moving house")
    await page.goto(f"{address}/jobs")
    row = page.get_by_role("row", name="sync_orders")
    assert "disabled" in await row.inner_text() and "by anyone: moving house" in await row.inner_text()
    await lead(page, address, "/jobs/sync_orders", button="Enable")
    assert (await scheduler.jobs("sync_orders"))[0].enabled

    await lead(page, address, "/jobs/refund", button="Submit", order="4711", amount="12.5")
    assert await page.get_by_role("heading", level=1).inner_text() == "Run 1 · refund"
    assert (await scheduler.wait(1, timeout=20)).summary == "refunded 12.50 for order 4711"

    await scheduler.submit("vacuum")
    await lead(page, address, "/runs/2", button="Cancel this run", Reason="no need")
    assert (await scheduler.wait(2, timeout=20)).state == "cancelled"

    await scheduler.submit_many([scheduler["remind"].bind(user=number) for number in range(60)])
    await page.goto(f"{address}/runs")
    form = page.locator("form.filter")
    await form.get_by_label("Job").fill("remind")
    await follow(page, form.get_by_role("button"))
    assert "job=remind" in page.url
    links = page.locator("tbody a.run")
    first = await links.all_inner_texts()
    await follow(page, page.get_by_role("link", name="older runs"))
    assert (len(first), await links.count()) == (50, 10) and not {*first} & {*await links.all_inner_texts()}


async def test_a_form_that_is_wrong_twice_says_so_at_both_fields_and_goes_on_at_the_first(open_dashboard, window):
    scheduler = shop()
    address = await open_dashboard(scheduler)
    page = await window()
    await lead(page, address, "/jobs/refund", button="Submit", order="1.5", options="[1]", pin="1234")
    assert "Nothing was submitted" in await page.get_by_role("alert").inner_text()
    for name, wrong in (("order", True), ("amount", True), ("options", True), ("pin", False), ("notify", False)):
        field = page.locator(f"[name='p.{name}']")
        assert (await field.get_attribute("aria-invalid") == "true") is wrong, name
        hint = page.locator(f"[id='{await field.get_attribute('aria-describedby')}']")
        assert bool(await hint.locator(".failed").count()) is wrong, name
    assert await page.locator("[name='p.order']").input_value() == "1.5"
    assert await page.locator("[name='p.options']").input_value() == "[1]"
    assert await page.evaluate("document.activeElement.name") == "p.order"
    assert await page.evaluate(AUDIT) == []
    assert await scheduler.runs() == []
    for name, right in (("order", "1"), ("amount", "2.5"), ("options", "{}")):
        await page.locator(f"[name='p.{name}']").fill(right)
    await follow(page, page.get_by_role("button", name="Submit"))
    assert [one.params["order"] for one in await scheduler.runs()] == [1]
    await page.go_back()
    assert await page.locator("[name='p.options']").input_value() == "{}", "a step back is to what was typed"


async def test_half_a_date_and_what_is_no_number_are_no_empty_fields(open_dashboard, window):
    """Of what it cannot read, a browser's own control sends nothing: that would have meant the default."""
    scheduler = shop()
    address = await open_dashboard(scheduler)
    page = await window()
    await page.goto(f"{address}/jobs/refund")
    await page.get_by_label("order").fill("7")
    await page.get_by_label("amount").press_sequentially("5,5")
    when = page.get_by_label("when")
    await when.press_sequentially("0301")
    await page.get_by_role("button", name="Submit").click()
    assert await page.evaluate("document.activeElement.name") == "p.when", "the browser stays there, and says why"
    assert page.url == f"{address}/jobs/refund"
    await when.fill("2026-03-01T02:30:15")
    await follow(page, page.get_by_role("button", name="Submit"))
    assert await page.get_by_label("amount").input_value() == "5,5"
    assert "number" in await page.locator("[id='field-amount-hint'] .failed").inner_text()
    assert await scheduler.runs() == []
    await page.get_by_label("amount").fill("5.5")
    await follow(page, page.get_by_role("button", name="Submit"))
    run = await scheduler.wait(1, timeout=20)
    assert (run.params["amount"], run.params["when"]) == (5.5, "2026-03-01T02:30:15Z")


async def test_each_parameter_has_its_control_and_a_secret_is_in_no_later_page(open_dashboard, window):
    scheduler = shop()
    address = await open_dashboard(scheduler)
    page = await window(timezone_id="Asia/Tokyo")  # where the browser is, is nothing to the clock of the pages
    await page.goto(f"{address}/jobs/refund")
    controls = await page.locator("#submit [name^='p.']").evaluate_all(
        "all => Object.fromEntries(all.map(one => [one.name.slice(2), [one.type, one.value, one.checked ?? null]]))"
    )
    assert controls == {
        "order": ["text", "", False], "amount": ["text", "", False], "when": ["datetime-local", "", False],
        "notify": ["checkbox", "on", True], "mode": ["select-one", "full", None], "options": ["textarea", "{}", None],
        "pin": ["password", "", False],
    }  # fmt: skip
    await page.get_by_label("order").fill("7")
    await page.get_by_label("amount").fill("0.25")
    await page.get_by_label("when").fill("2026-03-01T02:30")
    await page.get_by_label("notify").uncheck()
    await page.get_by_label("mode").select_option("fast")
    await page.get_by_label("options").fill('{"mail": 1}')
    await page.get_by_label("pin").fill("hunter2-and-more")
    await follow(page, page.get_by_role("button", name="Submit"))
    run = await scheduler.wait(1, timeout=20)
    assert {name: one for name, one in run.params.items() if name != "pin"} == {
        "order": 7, "amount": 0.25, "when": "2026-03-01T02:30:00Z", "notify": False, "mode": "fast",
        "options": {"mail": 1},
    }  # fmt: skip
    for path in ("/runs/1", "/jobs/refund?from_run=1", "/runs", "/"):
        await page.goto(address + path)
        assert "hunter2" not in await page.content()


async def test_a_double_click_asks_for_one_run_and_a_form_that_was_changed_for_another(open_dashboard, window):
    scheduler = shop()
    address = await open_dashboard(scheduler)
    page = await window()
    asked, over = asyncio.Event(), asyncio.Event()

    async def on_a_slow_line(route):
        """The first click arrives, and its answer is not there yet when the second comes."""
        if asked.is_set():
            await route.continue_()
        else:
            await route.fetch(max_redirects=0)
            asked.set()
            await over.wait()
            await route.abort()

    await page.route("**/submit", on_a_slow_line)
    await page.goto(f"{address}/jobs/vacuum")
    box = await page.get_by_role("button", name="Submit").bounding_box()
    for _ in range(2):
        await page.mouse.click(box["x"] + 9, box["y"] + 9)
        await asked.wait()
    await page.get_by_role("heading", name="Run 1 · vacuum").wait_for()
    over.set()
    await page.unroute_all(behavior="wait")
    assert len(await scheduler.runs("vacuum")) == 1

    await (await scheduler.submit("invoices")).wait()
    await page.goto(f"{address}/runs/2")
    await page.get_by_role("link", name="Run again…").click()
    await page.get_by_role("button", name="Run again").dblclick()  # the first may have failed when the second arrives
    await page.get_by_role("heading", name="Run 3 · invoices").wait_for()
    assert [one.rerun_of for one in await scheduler.runs("invoices")] == [2, None]

    await page.goto(f"{address}/jobs/remind")
    for user in ("1", "2"):
        await page.get_by_label("user").fill(user)
        await follow(page, page.get_by_role("button", name="Submit"))
        assert "/runs/" in page.url
        await page.go_back()
    assert len(await scheduler.runs("remind")) == 2


async def test_what_is_submitted_while_one_runs_waits_and_names_it_and_what_is_off_is_refused(open_dashboard, window):
    scheduler = bare()

    @scheduler.job(max_running=1)
    async def settle():
        await asyncio.sleep(10**6)

    address = await open_dashboard(scheduler)
    page = await window()
    await lead(page, address, "/jobs/settle", button="Submit")
    await lead(page, address, "/jobs/settle", button="Submit")
    waits = page.get_by_text("It waits:")
    assert "running" in await waits.inner_text()
    assert "2 runs in hand go on" in await (await page.goto(f"{address}/jobs/settle")).text()
    await lead(page, address, "/jobs/settle", button="Disable", Reason="enough")
    await lead(page, address, "/jobs/settle", button="Submit")
    assert "Nothing was submitted: job 'settle' is off" in await page.get_by_role("alert").inner_text()
    assert len(await scheduler.runs("settle")) == 2


async def test_before_a_job_is_switched_off_the_page_says_what_that_skips(open_dashboard, window):
    scheduler = bare()

    @scheduler.every("30m", first="after")
    async def often(): ...

    @scheduler.every("1s", first="after")
    async def incessant(): ...

    @scheduler.cron("0 0 1 1 *")
    async def yearly(): ...

    address = await open_dashboard(scheduler)
    page = await window()
    for job, count in (
        ("often", "Disabling skips 48 fires a day, next"),
        ("incessant", "Disabling skips 86"),
        ("yearly", "what comes due is skipped, first"),
    ):
        due = (await scheduler.jobs(job))[0].next_due
        await page.goto(f"{address}/jobs/{job}")
        told = page.locator("form", has=page.get_by_role("button", name="Disable"))
        assert count in await told.inner_text()
        if job != "incessant":
            first = await told.locator("time").get_attribute("datetime")
            assert first == due.isoformat().replace("+00:00", "Z")


def two_hourly_jobs(store):
    scheduler = bare(store)
    for name in ("bell", "clock"):

        @scheduler.every("1h", first="after", name=name)
        async def hourly(): ...

    return scheduler


async def test_a_pause_is_told_on_every_page_with_what_it_holds_and_its_end_settles_that(
    open_dashboard, window, tmp_path
):
    store, begin = f"sqlite:///{tmp_path / 'shop.db'}", datetime.now(UTC) - timedelta(hours=4, minutes=30)

    async def held_since_then():
        past, memory = two_hourly_jobs(store), MemoryStore()
        async with virtual_time(past, begin, store=memory) as time:
            await past.pause(reason="moving house", actor="tom")
            await time.advance("4h")
            await time.until(memory.backup(tmp_path / "shop.db"))

    await asyncio.to_thread(asyncio.run, held_since_then())
    scheduler = two_hourly_jobs(store)
    address = await open_dashboard(scheduler)
    page = await window()
    for path in ("/", "/jobs", "/jobs/bell", "/runs", "/timeline", "/schedules", "/failures", "/workers"):
        await page.goto(address + path)
        bar = await page.locator(".bar", has_text="Everything is paused").inner_text()
        assert "by tom: moving house" in bar and "8 fires by now" in bar, path
        heard = await page.get_by_role("status").inner_text()
        assert "by tom: moving house" in heard and "fires" not in heard, (
            "what counts on is not read aloud again and again"
        )
        assert await page.evaluate(AUDIT) == [], path
    await page.locator(".bar").get_by_label("What was held").select_option("latest")
    await follow(page, page.locator(".bar").get_by_role("button", name="Resume"))
    assert await page.locator(".said").inner_text() == "Goes on."
    async with asyncio.timeout(5):
        while len(runs := await scheduler.runs(state="succeeded")) < 2:
            await asyncio.sleep(0.02)
    assert sorted(one.job for one in runs) == ["bell", "clock"], "each once, late"
    assert {one.due_at for one in runs} == {begin + timedelta(hours=4)}


async def test_a_run_is_repeated_with_one_change_and_tells_which(open_dashboard, window):
    scheduler = shop()
    address = await open_dashboard(scheduler)
    params = {
        "order": 7,
        "amount": 1.5,
        "when": "2026-03-01T02:30:00.123456+05:00",
        "options": {"mail": 1},
        "pin": "secret-4711",
    }
    await (await scheduler.submit("refund", params)).wait()
    page = await window()
    await page.goto(f"{address}/runs/1")
    await follow(page, page.get_by_role("link", name="Run again…"))
    assert await page.get_by_label("order").input_value() == "7"
    assert await page.get_by_label("when").input_value() == "2026-02-28T21:30:00.123"
    await page.get_by_label("amount").fill("2.5")
    await follow(page, page.get_by_role("button", name="Run again"))
    assert "/runs/2?" in page.url
    row = page.locator("dt", has_text="Repeats").locator("+ dd")
    assert await row.inner_text() == "run 1, with amount 2.5 instead of 1.5"
    again = await scheduler.wait(2, timeout=20)
    assert again.params == {**(await scheduler.run(1)).params, "amount": 2.5}
    await follow(page, row.get_by_role("link"))
    assert "/runs/1" in page.url


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts on", "scripts off"])
async def test_line_breaks_go_through_a_form_that_is_left_alone_and_through_one_that_is_changed(
    open_dashboard, window, scripts
):
    scheduler = bare()
    default = "\n\nSELECT 1;\nSELECT 2;\n"

    @scheduler.job()
    async def query(text: str = default, kind: Literal["a\nb", "a b"] = "a\nb", more: str = ""): ...

    address = await open_dashboard(scheduler)
    page = await window(java_script_enabled=scripts)
    await lead(page, address, "/jobs/query", button="Submit", more="first\nsecond")
    first = {"text": default, "kind": "a\nb", "more": "first\nsecond"}
    assert (await scheduler.run(1)).params == first
    await (await scheduler.submit("query", {**first, "text": "a\r\nb\rc"})).wait()
    await lead(page, address, "/jobs/query?from_run=2", button="Run again", more="third")
    assert (await scheduler.run(3)).params == {"text": "a\r\nb\rc", "kind": "a\nb", "more": "third"}


async def test_failures_of_one_cause_are_one_row_and_are_all_asked_for_again_once(open_dashboard, window):
    scheduler = shop()
    for _ in range(4):
        await scheduler.submit("invoices")
    address = await open_dashboard(scheduler)
    for number in range(1, 5):
        await scheduler.wait(number, timeout=20)
    page = await window()
    await page.goto(f"{address}/failures?since=2h")
    await follow(page, page.get_by_role("link", name="Retry all 4…"))
    await follow(page, page.get_by_role("button", name="Retry all 4"))
    assert "since=2h" in page.url and "They are run again" in await page.get_by_role("status").inner_text()
    for number in range(5, 9):
        await scheduler.wait(number, timeout=20)
    again = await scheduler.runs(cause="rerun")
    assert sorted(one.rerun_of for one in again) == [1, 2, 3, 4] and {one.actor for one in again} == {"anyone"}


async def test_a_schedule_that_is_wrong_twice_says_so_at_both_fields_and_goes_on_at_the_first(open_dashboard, window):
    scheduler = shop()
    address = await open_dashboard(scheduler)
    page = await window()
    await lead(page, address, "/schedules", button="Add", When="61 2 * * *", Parameters='{"ordre": 1}', Reason="nights")
    assert "see the fields below" in await page.get_by_role("alert").inner_text()
    form = page.locator("form", has=page.get_by_role("button", name="Add", exact=True))
    for name, wrong in (("job", False), ("when", True), ("timezone", False), ("id", False), ("params", True)):
        field = form.locator(f"[name='{name}']")
        assert (await field.get_attribute("aria-invalid") == "true") is wrong, name
        hint = page.locator(f"[id='{await field.get_attribute('aria-describedby')}']")
        assert bool(await hint.locator(".failed").count()) is wrong, name
    assert await form.get_by_label("Reason").input_value() == "nights"
    assert await page.evaluate("document.activeElement.id") == "when"
    assert await page.evaluate(AUDIT) == []
    assert await scheduler.schedules(prefix="61") == []
