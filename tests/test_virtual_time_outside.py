"""Virtual time and the world outside of its loop: it waits for answers, and not for what only time brings."""

from __future__ import annotations

import asyncio
import time as real_time
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import aiosqlite
import anyio
import pytest

from taskloop import Every, Inject, Options, State, TaskScheduler
from taskloop.errors import BadStore

pytestmark = pytest.mark.anyio

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def scheduler():
    return TaskScheduler("sqlite:///never-made.db", options=Options())


async def nothing():
    """A job that does nothing."""


async def test_time_waits_for_the_driver_of_a_database_that_a_job_asks(scheduler, virtual_time, tmp_path):
    async def count(db):
        async with db.execute(
            "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 50000) SELECT count(*) FROM n"
        ) as rows:
            return (await rows.fetchone())[0]

    @asynccontextmanager
    async def database():
        async with aiosqlite.connect(tmp_path / "shop.db") as db:
            yield db

    @scheduler.job(timeout="1s")
    async def counted(db: aiosqlite.Connection = Inject(database)) -> int:
        return await count(db) + sum(await asyncio.gather(count(db), count(db)))

    scheduler.add_job(nothing, Every("1h"), name="tick")
    async with virtual_time(scheduler) as time:
        run = await counted.submit()
        await time.advance("1d")
        run = await scheduler.run(run.id)
        assert (run.state, run.result, run.ended_at) == (State.SUCCEEDED, 150_000, START)


async def test_time_waits_for_an_answer_over_a_socket_and_for_a_program(scheduler, virtual_time):
    async def answer(reader, writer):
        writer.write(await asyncio.to_thread(lambda: real_time.sleep(0.05) or b"pong\n"))
        await writer.drain()
        writer.close()

    @scheduler.job(timeout="1s")
    async def ask(port: int) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            said = (await reader.readline() + await stream.receive()).decode()
        writer.close()
        program = await asyncio.create_subprocess_exec("sleep", "0.05")
        return said + str(await program.wait())

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, virtual_time(scheduler) as time:
        run = await ask.submit(port=server.sockets[0].getsockname()[1])
        await time.run_until_idle()
        run = await scheduler.run(run.id)
        assert (run.state, run.result, run.ended_at) == (State.SUCCEEDED, "pong\npong\n0", START)


async def test_time_waits_for_what_a_job_asks_between_two_sleeps_and_not_for_these(scheduler, virtual_time, tmp_path):
    @scheduler.job(timeout="1h")
    async def patient() -> int:
        await asyncio.sleep(60)
        async with aiosqlite.connect(tmp_path / "shop.db") as db, db.execute("SELECT 7") as rows:
            (found,) = await rows.fetchone()
            await asyncio.sleep(60)
        return found

    async with virtual_time(scheduler, patience="20s") as time:
        run = await patient.submit()
        began = real_time.monotonic()
        await time.advance("1d")
        assert real_time.monotonic() - began < 15  # no sleep was taken for a question
        run = await scheduler.run(run.id)
        assert (run.state, run.result, run.ended_at) == (State.SUCCEEDED, 7, START + timedelta(minutes=2))


async def test_time_waits_for_what_a_listener_asks_of_a_database(scheduler, virtual_time, tmp_path):
    scheduler.add_job(nothing)
    scheduler.add_job(nothing, Every("1h"), name="tick")
    told = []

    @scheduler.on("succeeded")
    async def tell(event):
        async with aiosqlite.connect(tmp_path / "told.db") as db:
            for _ in range(100):
                await db.execute("SELECT 1")
        told.append(event.job)

    async with virtual_time(scheduler) as time:
        await time.until((await scheduler.submit("nothing")).wait())
        await time.advance("1d")
    assert sorted(told) == ["nothing", *["tick"] * 25]


async def test_time_does_not_wait_for_jobs_that_wait_for_timers_and_for_each_other(scheduler, virtual_time):
    gate, parcels = asyncio.Event(), asyncio.Queue()

    @scheduler.job()
    async def wait() -> float:
        await gate.wait()
        return await parcels.get()

    @scheduler.job()
    async def work() -> None:
        async with asyncio.TaskGroup() as group, anyio.create_task_group() as other:
            group.create_task(asyncio.sleep(60))
            other.start_soon(anyio.sleep, 60)
        await asyncio.gather(asyncio.sleep(60), asyncio.sleep(60))
        await asyncio.wait([asyncio.create_task(asyncio.sleep(60))])
        await asyncio.wait_for(asyncio.shield(asyncio.create_task(asyncio.sleep(60))), 90)
        await asyncio.shield(asyncio.create_task(asyncio.sleep(60)))
        gate.set()
        await asyncio.sleep(60)
        parcels.put_nowait(7)

    async with virtual_time(scheduler, patience="1h") as time:
        runs = [await wait.submit(), await work.submit()]
        await time.run_until_idle()
        assert [(await scheduler.run(run.id)).ended_at for run in runs] == [START + timedelta(minutes=6)] * 2


async def test_time_goes_on_without_an_answer_that_does_not_come(scheduler, virtual_time):
    @scheduler.job(timeout="5s")
    async def ask() -> None:
        await asyncio.get_running_loop().create_future()

    async with virtual_time(scheduler, patience="20ms") as time:
        run = await ask.submit()
        await time.advance("1h")
        assert (await scheduler.run(run.id)).error.type == "Timeout"


async def test_a_submit_within_a_transaction_is_tested_on_the_file_that_the_application_has(
    scheduler, virtual_time, tmp_path
):
    scheduler.add_job(nothing)
    async with aiosqlite.connect(tmp_path / "shop.db") as db:
        async with virtual_time(scheduler):
            with pytest.raises(BadStore, match=r"in a test by virtual_time\(scheduler, store=\"sqlite:///FILE\"\)"):
                await scheduler.submit("nothing", connection=db)
        async with virtual_time(scheduler, store=f"sqlite:///{tmp_path}/shop.db") as time:
            for ends in (db.rollback, db.commit):
                await db.execute("BEGIN")
                await scheduler.submit("nothing", connection=db)
                await ends()
            await time.run_until_idle()
            assert [run.state for run in await time.runs()] == [State.SUCCEEDED]
