"""Pages that stay up to date by themselves, in a real browser: what is new comes without reload, what is stale says so."""

from __future__ import annotations

import asyncio

import pytest
from browser.dashboards import bare, dashboard

from taskloop import RunContext

pytestmark = pytest.mark.anyio
SOON_MS = 2_000


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

    return scheduler


async def test_what_is_submitted_elsewhere_shows_and_moves_and_ends_without_reload(open_dashboard, window):
    from playwright.async_api import expect

    scheduler = shop()
    address, page = await open_dashboard(scheduler), await window()
    await page.goto(address + "/")
    await page.evaluate("window.same = true")
    await expect(page.locator("#signal")).to_have_text("live")
    run = await scheduler.submit("load")
    await expect(page.locator("ul.running")).to_contain_text("load run 1", timeout=SOON_MS)
    await expect(page.locator("ul.running")).to_contain_text("1 of 4")
    scheduler.gate.set()
    await run.wait()
    await expect(page.locator("main")).to_contain_text("Nothing runs right now.", timeout=SOON_MS)
    assert await page.evaluate("window.same")
