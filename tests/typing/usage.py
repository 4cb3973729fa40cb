"""How jobs are used, as type checkers see it; read by mypy and pyright, never run. Lines marked WRONG must be refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import assert_type

from taskloop import At, Call, Every, Inject, Jobs, Run, RunContext, RunHandle, State, TaskScheduler
from taskloop.errors import RunFailed

scheduler = TaskScheduler("sqlite:///app.db")
jobs = Jobs()


class Session:
    """Something that a job is given."""


def session() -> Iterator[Session]:
    yield Session()


@asynccontextmanager
async def client() -> AsyncIterator[str]:
    yield "client"


async def make() -> int:
    return 1


@scheduler.every("5m", timeout="1m")
async def send(batch: int = 100) -> str:
    return "sent"


@scheduler.every("2w", anchor="2026-01-05T08:00Z", first="after", aliases=["two_weeks"])
def fortnightly() -> None:
    scheduler.add_job(make, Every("2w", anchor="2026-01-05T08:00Z"), name="other")


@scheduler.cron("0 2 * * *")
def count(run: RunContext, first: int, last: int = 9) -> dict[str, int]:
    run.log("counting", "debug")
    run.progress(1, 2)
    return {"lines": last - first}


@jobs.job()
async def sync(run: RunContext, name: str, db: Session = Inject(session), days: int = 1) -> bool:
    assert_type(db, Session)
    value = await run.step("load", load, name)
    assert_type(value, bytes)
    plain = await run.step("measure", measure, 3)
    assert_type(plain, float)
    return bool(days)


async def load(name: str) -> bytes:
    return name.encode()


def measure(number: int) -> float:
    return float(number)


assert_type(Inject(session), Session)
assert_type(Inject(client), str)
assert_type(Inject(make), int)
assert_type(Inject(Session, scope="worker"), Session)


async def use() -> None:
    sent = await send.submit(batch=3)
    assert_type(sent, RunHandle[str])
    assert_type(await sent.value(), str)
    counted = await count.submit(1, last=2)
    assert_type(await counted.value(), dict[str, int])
    synced = await sync.submit("ann", days=3)
    assert_type(await synced.value(), bool)
    call = send.bind(5)
    assert_type(call, Call[str])
    assert_type(await (await call.submit(at="+2h", key="k", actor="ann")).value(), str)
    await call.schedule(Every("1h"), id="hourly")
    assert_type(await send(3), str)
    assert_type(await scheduler.submit_many([send.bind(), send.bind(2)]), list[RunHandle[str]])
    await scheduler.schedule(send, At("2030-01-01T00:00:00Z"), id="once")
    await send.submit("three")  # type: ignore[call-overload] # WRONG
    await count.submit()  # type: ignore[call-arg] # WRONG
    send.bind(bath=3)  # type: ignore[call-overload] # WRONG


async def use_a_handle() -> None:
    handle = await send.submit()
    assert_type(handle.state, State)
    assert_type(handle.created_at, datetime)
    assert_type(handle.existed, bool)
    print(handle.sate)  # type: ignore[attr-defined] # WRONG
    try:
        await handle.value()
    except RunFailed as error:
        assert_type(error.run, Run)
