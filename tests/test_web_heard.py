"""What a page says to those who hear it: whose button it is, what was wrong with which field, where they are."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from test_web_pages import BROWSER
from web_clients import over_asgi

from taskloop import Every, Options, TaskScheduler

pytestmark = pytest.mark.anyio


@pytest.fixture
async def pair(no_task_outlives_the_fixture):
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(grace=timedelta(0)))

    @scheduler.every("1h", first="after")
    async def sync(days: int = 1): ...

    @scheduler.job()
    async def refused():
        raise ConnectionRefusedError("port 443")

    async with over_asgi(scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        yield scheduler, client


async def page_of(client, path):
    return (await client.get(path)).body.decode()


async def test_a_button_in_a_row_names_its_row(pair):
    scheduler, client = pair
    await scheduler.schedule("sync", Every("1d"), id="nightly & more")
    for _ in range(3):
        await (await scheduler.submit("refused")).wait()
    shown = await page_of(client, "/schedules")
    for name in ("Change… nightly", "Reason to remove nightly", "Remove nightly"):
        assert f'aria-label="{name} &amp; more"' in shown
    shown = await page_of(client, "/failures?since=1h")
    assert 'aria-label="3 times: ConnectionRefusedError"' in shown
    assert 'aria-label="Retry all 3… ConnectionRefusedError"' in shown
    assert 'aria-label="why? refused"' in await page_of(client, "/")
    assert 'aria-label="failed, run 3"' in await page_of(client, "/jobs")


async def test_a_switch_is_told_with_what_it_does(pair):
    _, client = pair
    shown = await page_of(client, "/jobs/sync")
    for verb in ("Disable", "Pause"):
        assert f'aria-label="{verb}"' in shown
        [effect] = re.findall(rf'<button aria-describedby="([\w-]+)">{verb}<', shown)
        assert f'<p id="{effect}">' in shown
