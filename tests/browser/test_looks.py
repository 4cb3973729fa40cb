"""What the dashboard shows to whoever opens it."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.anyio


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
        assert await item.get_by_role("link", name=job).get_attribute("href") == f"/taskloop/jobs/{job}"
