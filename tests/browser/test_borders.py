"""What a real browser does at the borders: other sites, frames, and the session of who signed in."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from browser.dashboards import shop
from browser.pages import follow

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def another_site(html):
    """The address of a page of somebody else: another name of this machine is another site to a browser."""

    async def answer(_):
        return web.Response(text=html, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://localhost:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


async def test_who_signed_in_is_not_led_by_another_site_to_do_something_nor_shown_in_its_frame(
    open_dashboard, window, complaints
):
    scheduler = shop()
    address = await open_dashboard(scheduler, auth=None)
    token = (await scheduler.keyring.create("ann", "admin"))[1]
    page = await window()
    assert (await page.goto(f"{address}/jobs")).status == 401
    await follow(page, page.get_by_role("link", name="Sign in with a token"))
    assert await page.evaluate("document.activeElement.id") == "token"
    await page.get_by_label("Token").fill("tl_wrong_one")
    await follow(page, page.get_by_role("button", name="Sign in"))
    assert "no token of this server" in await page.get_by_role("alert").inner_text()
    await page.get_by_label("Token").fill(token)
    await follow(page, page.get_by_role("button", name="Sign in"))
    await page.get_by_text("ann (admin)").wait_for()
    [cookie] = await page.context.cookies()
    assert cookie["httpOnly"] and cookie["sameSite"] in ("Lax", "Strict") and cookie["path"] == "/taskloop"

    html = f"""<title>trap</title><form method="post" action="{address}/jobs/sync_orders/disable"><button>Win</button></form>
        <iframe src="{address}/"></iframe>"""
    async with another_site(html) as site:
        await page.goto(site)
        assert page.frames[1].url.startswith("chrome-error:") or "Now" not in await page.frames[1].content()
        await follow(page, page.get_by_role("button", name="Win"))
        await page.get_by_text("Another site asked for this").wait_for()
    assert (await scheduler.jobs("sync_orders"))[0].enabled
    assert any("frame" in one for one in complaints), "the browser says that it refused"
    complaints.clear()

    await page.goto(f"{address}/")
    await follow(page, page.get_by_role("button", name="Sign out"))
    assert (await page.goto(f"{address}/jobs")).status == 401


async def test_what_was_typed_as_a_session_ended_is_sent_after_another_sign_in(open_dashboard, window):
    scheduler = shop()
    address = await open_dashboard(scheduler, auth=None)
    token = (await scheduler.keyring.create("ann", "operate"))[1]

    async def sign_in(where):
        await where.get_by_label("Token").fill(token)
        await follow(where, where.get_by_role("button", name="Sign in"))

    page = await window(java_script_enabled=False)
    await page.goto(f"{address}/login?wanted=/jobs/refund")
    await sign_in(page)
    await page.get_by_label("order").fill("4711")
    await page.get_by_label("amount").fill("12.5")
    await page.context.clear_cookies()
    await follow(page, page.get_by_role("button", name="Submit"))
    async with page.expect_popup() as opened:
        await page.get_by_role("link", name="Sign in").click()
    await sign_in(await opened.value)
    await page.go_back()
    assert await page.get_by_label("order").input_value() == "4711"
    await follow(page, page.get_by_role("button", name="Submit"))
    assert "/runs/" in page.url
    [run] = await scheduler.runs("refund")
    assert dict(run.params)["amount"] == 12.5


async def test_who_may_only_read_sees_no_button_and_a_form_of_an_older_page_does_nothing(open_dashboard, window):
    from taskloop.web.security import Principal, Scope

    scope, scheduler = [Scope.admin], shop()
    address = await open_dashboard(scheduler, auth=lambda _: Principal("ann", scope[0]))
    page = await window(java_script_enabled=False)  # else it may be up to date before the button is pressed
    await page.goto(f"{address}/jobs/sync_orders")
    scope[0] = Scope.read
    await follow(page, page.get_by_role("button", name="Disable"))
    await page.get_by_text("needs the scope admin").wait_for()
    assert (await scheduler.jobs("sync_orders"))[0].enabled
    for path in ("/", "/jobs/sync_orders", "/jobs/refund", "/schedules", "/failures"):
        await page.goto(address + path)
        assert await page.locator("form[method=post] button").count() == 0, path
