"""What a request asks of the loop at a stretch, where there are many jobs: counted in calls, which no busy machine changes."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta

import pytest
from web_clients import over_asgi

from taskloop import Every, Options, TaskScheduler
from taskloop.jobs import Call
from taskloop.web.api import ROUTES
from taskloop.web.pages import ROUTES as PAGES

pytestmark = pytest.mark.anyio
JOBS = 200
MOST_CALLS = 2_000
"""Of functions of Python, in one turn of the loop: a fraction of a millisecond."""
STREAMS = {"events", "page_changes", "export"}


class Turns:
    """The most calls of functions that one callback of the loop makes."""

    def __init__(self):
        self.most = 0
        self._loop = asyncio.get_running_loop()

    def _called(self, callback, *args):
        calls = 0

        def counted(frame, event, arg):
            nonlocal calls
            calls += event == "call"

        sys.setprofile(counted)
        try:
            callback(*args)
        finally:
            sys.setprofile(None)
            self.most = max(self.most, calls)

    def __enter__(self):
        call_soon = self._loop.call_soon
        self._loop.call_soon = lambda callback, *args, context=None: call_soon(
            self._called, callback, *args, context=context
        )
        return self

    def __exit__(self, *_):
        del self._loop.call_soon


async def nothing(count: int = 0, name: str = "none") -> str:
    return name * count


async def test_no_address_keeps_the_loop_for_long_where_there_are_many_jobs():
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(grace=timedelta(0)))
    trigger = Every("1h", anchor=datetime.now(UTC) + timedelta(minutes=30))  # none fires while we count
    jobs = [scheduler.add_job(nothing, trigger, name=f"job-{number:03}") for number in range(JOBS)]
    addresses = [
        one.path
        for one in (*PAGES, *ROUTES)
        if one.method == "GET" and "{" not in one.path and one.scope is not None and one.name not in STREAMS
    ]
    assert {"/", "/jobs", "/timeline", "/metrics", "/openapi.json", "/tasks/scheduler/status", "/api/v1/summary"} < {
        *addresses
    }
    found = {}
    async with over_asgi(scheduler, auth="open") as client:
        handles = await scheduler.submit_many([Call(job, {}) for job in jobs])
        await asyncio.gather(*(one.wait() for one in handles))
        for address in (*addresses, "/api/v1/jobs?limit=200", "/timeline?from=1h&to=24h", "/jobs/job-007"):
            answer = await client.get(address)  # imports what it needs
            assert answer.status in (200, 422), address  # some need a question
            with Turns() as turns:
                await client.get(address)
            found[address] = turns.most
    assert {address: calls for address, calls in found.items() if calls > MOST_CALLS} == {}
