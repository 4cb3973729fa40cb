"""What a page says to those who hear it: whose button it is, what was wrong with which field, where they are."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from test_web_pages import BROWSER, filled
from web_clients import over_asgi

from taskloop import Every, Options, RunContext, TaskScheduler

pytestmark = pytest.mark.anyio


@pytest.fixture
async def pair(no_task_outlives_the_fixture):
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(grace=timedelta(0)))

    @scheduler.every("1h", first="after")
    async def sync(days: int = 1): ...

    @scheduler.job()
    async def refused():
        raise ConnectionRefusedError("port 443")

    @scheduler.job()
    async def tells(run: RunContext):
        run.log("a line")

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


async def test_a_switch_is_told_with_what_it_does(pair):
    _, client = pair
    shown = await page_of(client, "/jobs/sync")
    for verb in ("Disable", "Pause"):
        assert f'aria-label="{verb}"' in shown
        [effect] = re.findall(rf'<button aria-describedby="([\w-]+)">{verb}<', shown)
        assert f'<p id="{effect}">' in shown


async def test_what_was_wrong_with_a_field_is_told_with_the_field(pair):
    _, client = pair
    body = (await filled(client, "/jobs/sync/disable", until="soonish")).body.decode()
    assert re.search(r'name="until" [^>]*value="soonish" aria-invalid="true" aria-describedby="switch-refused"', body)
    assert re.search(r'<p [^>]*id="switch-refused" role="alert">Nothing was done: [^<]*soonish', body)
    for path, name, message in (
        ("/jobs/sync?at=nonsense", "at", "why-problem"),
        ("/schedules?when=nonsense", "when", "try-problem"),
        ("/runs?since=nonsense", "since", "detail"),
    ):
        body = await page_of(client, path)
        assert re.search(rf'name="{name}" [^>]*aria-invalid="true" aria-describedby="{message}"', body), path
        assert re.search(rf'<p [^>]*id="{message}"[^>]*>[^<]*nonsense', body), path


async def test_a_refusal_of_a_whole_form_is_where_the_page_begins(pair):
    scheduler, client = pair
    await scheduler.disable("sync")
    body = (await filled(client, "/jobs/sync/submit", **{"p.days": "1"})).body.decode()
    assert (
        re.search(r'role="alert" tabindex="-1" autofocus>Nothing was submitted', body) and body.count("autofocus") == 1
    )
    body = (await filled(client, "/jobs/sync/submit", **{"p.days": "many"})).body.decode()
    assert body.count("autofocus") == 1 and re.search('name="p.days"[^>]* autofocus', body), "else at the first field"


async def test_pages_that_are_open_beside_each_other_have_titles_of_their_own(pair):
    scheduler, client = pair
    await scheduler.schedule("sync", Every("1d"), id="nightly")
    await (await scheduler.submit("refused")).wait()
    cause = re.search(r"cause=(\w+)", await page_of(client, "/failures?since=1h"))[1]
    paths = (
        "/", "/jobs", "/jobs/sync", "/jobs/refused?from_run=1", "/runs", "/runs?job=sync", "/runs/1", "/timeline",
        "/timeline?job=sync", "/schedules", "/schedules?change=nightly", "/failures", f"/failures?since=1h&cause={cause}",
        "/workers", "/audit", "/audit?job=sync", "/login", "/nowhere",
    )  # fmt: skip
    titles = [re.search("<title>(.*?)</title>", await page_of(client, path))[1] for path in paths]
    assert len({*titles}) == len(paths), titles


async def test_the_lines_of_a_log_have_heads(pair):
    scheduler, client = pair
    await (await scheduler.submit("tells")).wait()
    shown = await page_of(client, "/runs/1")
    assert re.findall('scope="col">(at|level|line)<', shown) == ["at", "level", "line"]
