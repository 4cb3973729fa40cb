"""What a job, a caller or a receiver may say without bringing a page down: each found by who tried to."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from test_web_pages import BROWSER, filled, text
from web_clients import HOSTS, V1

from taskloop import Options, TaskScheduler
from taskloop.options import Http
from taskloop.runs import State
from taskloop.web import Principal

pytestmark = pytest.mark.anyio
FIRST, LAST = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"


def shop(**options):
    scheduler = TaskScheduler(
        "sqlite:///:memory:", options=Options(grace=timedelta(0), http=Http(submit_limit=None), **options)
    )

    @scheduler.job()
    async def fails():
        raise ValueError(f"neither {FIRST} nor {LAST}")

    @scheduler.job()
    async def adds(at: datetime | None = None) -> int:
        return 1

    return scheduler


@pytest.fixture
def principal():
    return Principal("ann", "admin")


@pytest.fixture(params=sorted(HOSTS))
def host(request):
    return HOSTS[request.param]


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
async def test_no_instant_is_too_far_away_for_a_page_on_any_clock(zone, host, no_task_outlives_the_fixture):
    scheduler = shop(timezone=zone)
    async with host(scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        await (await scheduler.submit("fails")).wait(10)
        await (await scheduler.submit("adds", at=FIRST)).wait(10)
        await scheduler.submit("adds", at=LAST)
        runs = [await (await scheduler.submit("adds", {"at": one})).wait(10) for one in (FIRST, LAST)]
        assert {one.state for one in runs} == {State.SUCCEEDED}
        again = [f"/jobs/adds?from_run={one.id}" for one in runs]
        why = [f"{path}?at={at}" for path in ("/jobs/adds", f"{V1}/jobs/adds/why") for at in (FIRST, LAST)]
        for path in ("/", "/runs", "/jobs/fails", "/jobs/adds", "/timeline", "/schedules", *again, *why):
            answer = await client.get(path)
            assert answer.status < 500, f"{path}: {text(answer)}"


@pytest.fixture
async def pair(host, principal, no_task_outlives_the_fixture):
    scheduler = shop()
    async with host(scheduler, auth=lambda _: principal) as client:
        client.headers = dict(BROWSER)
        yield scheduler, client


async def test_a_form_that_repeats_what_is_no_run_is_refused_and_submits_nothing(pair):
    scheduler, client = pair
    for written in ("9" * 30, "9" * 6_000, "²", "-1", "one"):
        answer = await filled(client, "/jobs/adds/submit", from_run=written)
        assert answer.status == 404 and "No such run" in text(answer), written
    assert not await scheduler.runs()
