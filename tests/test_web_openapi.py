"""The description of the API is true: what is asked by it, and what breaks it, is answered as it says."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from datetime import date, datetime
from typing import Literal

import pytest
import requests
import schemathesis
from aiohttp import web
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from web_clients import HOSTS

from taskloop import Options, TaskScheduler
from taskloop.options import Http
from taskloop.web.aiohttp import setup

EXAMPLES = 2
"""Of each operation, of those that fit and again of those that do not."""
TOKEN = "of the admin"
LEFT_OUT = {
    "events": "a stream does not end",
    "run_all": "it waits for runs, and whether they succeed is theirs to say",
    "run_tasks": "the same",
}
PROMISED = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance", "negative_data_rejection",
)  # fmt: skip


def shop():
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(http=Http(token=TOKEN, submit_limit=None)))

    @scheduler.every("1h")
    async def hourly(): ...

    @scheduler.job(secret=("pin",))
    async def refund(
        order: int, amount: float, day: date | None = None, mode: Literal["fast", "full"] = "full",
        names: list[str] = ["ann"], limits: dict[str, int] = {}, at: datetime | None = None, pin: str = "",  # noqa: B006
    ): ...  # fmt: skip

    flow = scheduler.flow("video")

    @flow.step()
    async def fetch(title: str = "holiday"): ...

    return scheduler


@contextmanager
def served(scheduler):
    """The address of its surface, in a loop of another thread."""
    addresses, over = [], threading.Event()
    ready = threading.Event()

    async def serve():
        app = web.Application()
        setup(app, scheduler, "/taskloop")
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        addresses.append(f"http://127.0.0.1:{runner.addresses[0][1]}/taskloop")
        ready.set()
        await asyncio.to_thread(over.wait)
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(10)
        yield addresses[0]
    finally:
        over.set()
        thread.join(10)


def test_every_operation_answers_as_the_description_says():
    load_all_checks()
    with served(shop()) as address, requests.Session() as session:
        session.headers["authorization"] = f"Bearer {TOKEN}"
        description = session.get(f"{address}/openapi.json").json()
        del description["security"]  # who may come in is shown elsewhere
        schema = schemathesis.openapi.from_dict(description)
        operations = {
            one.definition.raw["operationId"]: one for one in (found.ok() for found in schema.get_all_operations())
        }
        assert set(LEFT_OUT) < set(operations)
        for name, operation in operations.items():
            for mode in GenerationMode if name not in LEFT_OUT else ():
                if mode is GenerationMode.POSITIVE or operation.body or operation.query:  # in a path every text may be
                    ask(operation.as_strategy(generation_mode=mode), address, session)


def ask(cases, address, session):
    @settings(
        max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(cases)
    def answers_as_described(case):
        if case.meta.generation.mode is GenerationMode.POSITIVE:  # then something is there
            there = {"job": "refund", "id": "hourly" if "schedules" in case.path else "1"}
            case.path_parameters = {name: there[name] for name in case.path_parameters}
        case.call_and_validate(address, session, checks=CHECKS.get_by_names(PROMISED), timeout=10)

    answers_as_described()


@pytest.mark.anyio
@pytest.mark.parametrize("host", HOSTS.values(), ids=list(HOSTS))
async def test_an_address_with_a_line_break_is_answered_here_and_not_by_the_framework(
    host, no_task_outlives_the_fixture
):
    async with host(shop()) as client:
        answer = await client.get("/api/v1/jobs/a%0Ab", headers={"authorization": f"Bearer {TOKEN}"})
    assert (answer.status, answer.code) == (404, "job-not-found")
