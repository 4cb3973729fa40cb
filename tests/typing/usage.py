"""How jobs are used, as type checkers see it; read by mypy and pyright, never run. Lines marked WRONG must be refused."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, ParamSpec, TypeVar, assert_type

from taskloop import (
    At,
    BackgroundTasks,
    Call,
    Event,
    Every,
    Inject,
    Jobs,
    Run,
    RunContext,
    RunHandle,
    State,
    TaskScheduler,
)
from taskloop.errors import RunFailed
from taskloop.testing import run_context

P = ParamSpec("P")
T = TypeVar("T")

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


def timed(function: Callable[P, T]) -> Callable[P, T]:
    @functools.wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> T:
        return function(*args, **kwargs)

    return inner


@jobs.job()
@timed
async def wrapped(run: RunContext, days: int) -> list[str]:
    return [str(days)]


@jobs.job()
async def keep(payload: Any, days: int = 1) -> None:
    """Takes anything first, so a `RunContext` too, which is none for that."""


@jobs.job()
def hold(payload: object, days: int = 1) -> int:
    return days


@scheduler.on("failed")
async def complain(event: Event) -> str:
    return event.name


made = jobs.add_job(make)
counted_by_hand = scheduler.add_job(measure, Every("1d"), params={"number": 1})
with_the_run = scheduler.add_job(sync.function, name="again")
in_a_thread = BackgroundTasks().add_task(measure, (3,))

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


async def use_plainly() -> None:
    """What is decorated is still the function that it was."""
    task = asyncio.create_task(send(3))
    assert_type(await task, str)
    assert_type(await complain(Event("failed", datetime.now().astimezone())), str)
    assert_type(await wrapped(run_context(attempt=2), 3), list[str])
    assert_type(count(run_context(), 1, last=2), dict[str, int])
    assert_type(count.function(run_context(), 1, 2), dict[str, int])
    assert_type(measure(3), float)
    count(1, 2)  # type: ignore[arg-type] # WRONG
    await wrapped(days=3)  # type: ignore[call-arg] # WRONG


async def use_what_is_added() -> None:
    assert_type(await made.submit(), RunHandle[int])
    assert_type(await (await counted_by_hand.submit(3)).value(), float)
    assert_type(await (await with_the_run.submit("ann")).value(), bool)
    assert_type(await (await in_a_thread.submit(3)).value(), float)
    assert_type(await (await wrapped.submit(days=3)).value(), list[str])
    await keep.submit({"a": 1})
    await keep.submit(payload={"a": 1}, days=2)
    assert_type(await (await hold.submit(payload=1)).value(), int)
    assert_type(scheduler.call(send.submit, batch=3), RunHandle[str])
    await scheduler.submit_many([send.bind(), made.bind()])
    await made.submit(3)  # type: ignore[call-overload] # WRONG
    await counted_by_hand.submit("three")  # type: ignore[arg-type] # WRONG


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


@jobs.job()
async def remind(run: RunContext, user: int, text: str = "") -> str:
    return text


@jobs.every("5m", timeout="1m")
def clean(days: int = 3) -> dict[str, int]:
    return {}


async def use_what_takes_a_run_and_what_takes_none() -> None:
    await remind.submit(7, text="x")
    await remind.bind(user=7).submit(at="+2h", key="k")
    words: dict[str, int] = clean(3)
    print(words)
    remind.bind("seven")  # type: ignore[call-overload] # WRONG
    await remind.submit()  # type: ignore[call-overload] # WRONG
    await clean.submit(dais=3)  # type: ignore[call-arg] # WRONG
    number: int = clean()  # type: ignore[assignment] # WRONG
    print(number)
    jobs.every("5m", timout="1m")  # type: ignore[call-arg] # WRONG
    jobs.every("5m", overlap="sometimes")  # type: ignore[arg-type] # WRONG
