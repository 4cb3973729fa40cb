"""A store in trouble under a running engine, each fault made for real: the host lives, nothing is lost, all is told."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import subprocess
import threading
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from stores import database
from web_clients import HOSTS

from taskloop import Options, TaskScheduler
from taskloop.errors import BadStore, StoreUnavailable
from taskloop.store_sqlite import SqliteStore

pytestmark = pytest.mark.anyio

QUICK = Options(heartbeat=timedelta(milliseconds=100), lease=timedelta(seconds=30), kill_grace=timedelta(seconds=0.2))


class Host:
    """A server with a scheduler in it, which goes on living whatever the store does."""

    def __init__(self, scheduler: TaskScheduler) -> None:
        self.scheduler = scheduler
        self.told: list[str] = []
        self.called: list[int] = []
        self.may_end = asyncio.Event()
        scheduler.feed.subscribe(lambda event: self.told.append(event.name), "store_lost", "store_back")

        @scheduler.job()
        async def held() -> str:
            await self.may_end.wait()
            return "kept in memory until the store took it"

        @scheduler.every("300ms", max_late=None)
        async def tick() -> None:
            self.called.append(1)

    async def holds_a_run(self):
        run = await self.scheduler.submit("held")
        while (await self.scheduler.run(run.id)).state != "running":
            await asyncio.sleep(0.01)
        return run

    async def hears(self, name: str, seconds: float = 15) -> None:
        async with asyncio.timeout(seconds):
            while name not in self.told:
                await asyncio.sleep(0.02)

    async def calls_again(self) -> bool:
        before = len(self.called)
        async with asyncio.timeout(10):
            while len(self.called) < before + 2:
                await asyncio.sleep(0.02)
        return True


@asynccontextmanager
async def hosting(path, options=QUICK):
    scheduler = TaskScheduler(path, options=options)
    host = Host(scheduler)
    async with scheduler:
        try:
            yield host
        finally:
            await scheduler.stop(grace=0)


async def survives(host: Host, heal) -> None:
    """What every trouble must come to: told once, nothing begun, what ended is written, told when it is over."""
    scheduler = host.scheduler
    await host.hears("store_lost")
    await asyncio.sleep(0)
    before = len(host.called)
    status = await scheduler.status()
    assert status.attention[0]["condition"] == "store", status.attention
    host.may_end.set()
    await asyncio.sleep(1)
    assert len(host.called) <= before + 1, "what was on record by then may begin a moment later, and nothing else"
    await heal()
    await host.hears("store_back")
    assert await host.calls_again()
    [run] = await scheduler.runs("held")
    async with asyncio.timeout(10):
        while (run := await scheduler.run(run.id)).state == "running":
            await asyncio.sleep(0.02)
    assert (run.state, run.result) == ("succeeded", "kept in memory until the store took it")
    async with asyncio.timeout(10):
        while not (noted := await scheduler._store.incidents(run.created_at, scheduler._clock.now())):
            await asyncio.sleep(0.02)
    assert [one.kind for one in noted].count("store") == 1
    assert host.told == ["store_lost", "store_back"]
    assert not [one for one in (await scheduler.status()).attention if one["condition"] == "store"]
    async with asyncio.timeout(10):  # ticks go on: what was called last is on record a moment later
        while len(await scheduler.runs("tick", state="succeeded", limit=1000)) != len(host.called):
            await asyncio.sleep(0.02)


@contextmanager
def small_disk(folder):
    """A disk of eight megabytes."""
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder]).returncode:
        if os.environ.get("CI"):
            pytest.fail("a small disk cannot be mounted here")
        pytest.skip("only the superuser may mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


async def test_a_full_disk_stops_nothing_but_new_runs(tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        async with hosting(disk / "app.db") as host:
            await host.holds_a_run()
            ballast = disk / "ballast"
            with pytest.raises(OSError, match="No space"), ballast.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x" * 4096)

            async def heal():
                ballast.unlink()

            await survives(host, heal)


async def test_a_file_that_another_program_holds_for_long_is_waited_for(tmp_path):
    async with hosting(tmp_path / "app.db") as host:
        await host.holds_a_run()
        other = sqlite3.connect(tmp_path / "app.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")

        async def heal():
            other.execute("ROLLBACK")
            other.close()

        await survives(host, heal)


async def test_probes_and_figures_say_no_while_the_store_takes_nothing_though_it_can_be_read(tmp_path):
    async with hosting(tmp_path / "app.db") as host, HOSTS["asgi"](host.scheduler, auth="open", start=False) as client:
        await host.calls_again()
        ready = await client.get("/readyz")
        with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            await host.hears("store_lost")
            assert len(await host.scheduler.runs(limit=1)) == 1, "it can be read"
            lost = await client.get("/readyz")
            assert b"taskloop_store_up 0" in (await client.get("/metrics")).body
        await host.hears("store_back")
        again = await client.get("/readyz")
        assert b"taskloop_store_up 1" in (await client.get("/metrics")).body
    assert [one.status for one in (ready, lost, again)] == [200, 503, 200]
    assert lost.data == {"status": "not ready", "checks": {"scheduler": "ok", "store": "lost"}}


async def test_a_file_that_is_moved_away_is_missed_at_once_and_no_new_one_appears(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    async with hosting(folder / "app.db") as host:
        await host.holds_a_run()
        elsewhere = tmp_path / "elsewhere"
        folder.rename(elsewhere)
        await host.hears("store_lost")
        with pytest.raises(StoreUnavailable, match="put the file back"):
            await host.scheduler.submit("held")

        async def heal():
            assert not folder.exists()
            elsewhere.rename(folder)

        await survives(host, heal)


async def test_a_file_that_was_replaced_is_not_written_to(tmp_path):
    async with hosting(tmp_path / "app.db") as host:
        await host.holds_a_run()
        (tmp_path / "app.db").rename(tmp_path / "old.db")
        (tmp_path / "app.db").write_bytes(b"")

        async def heal():
            assert (tmp_path / "app.db").read_bytes() == b""
            (tmp_path / "old.db").rename(tmp_path / "app.db")

        await survives(host, heal)
        assert "replaced by another file" in (await refused_while_gone(tmp_path, host))


async def refused_while_gone(folder, host) -> str:
    (folder / "app.db").rename(folder / "old.db")
    shutil.copy(folder / "old.db", folder / "app.db")
    with pytest.raises(StoreUnavailable) as caught:
        await host.scheduler.submit("held")
    (folder / "old.db").rename(folder / "app.db")
    return str(caught.value)


@pytest.mark.parametrize("part", ["app.db-wal", "app.db-shm"])
async def test_a_part_of_the_store_that_is_moved_away_is_missed_at_once(tmp_path, part):
    async with hosting(tmp_path / "app.db") as host:
        await host.holds_a_run()
        (tmp_path / part).rename(tmp_path / "elsewhere")
        await host.hears("store_lost")
        with pytest.raises(StoreUnavailable, match=f"{part} was deleted or replaced while in use; put it back"):
            await host.scheduler.submit("held")

        async def heal():
            assert not (tmp_path / part).exists()
            (tmp_path / "elsewhere").rename(tmp_path / part)

        await survives(host, heal)


@pytest.mark.parametrize("part", ["app.db-wal", "app.db-shm"])
async def test_a_part_of_the_store_that_is_deleted_loses_nothing_that_was_committed(tmp_path, part):
    async with hosting(tmp_path / "app.db") as host:
        runs = [await host.scheduler.submit("held", key=f"k{number}") for number in range(20)]
        (tmp_path / part).unlink()
        await host.hears("store_lost")
        before = len(host.called)
        await asyncio.sleep(0.7)
        assert len(host.called) <= before + 1, "what was on record by then may begin a moment later, and nothing else"
        assert not (tmp_path / part).exists()
        await host.scheduler.stop(grace="100ms")
    with database(tmp_path / "app.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        there = {row[0]: row[1] for row in db.execute("SELECT id, job FROM taskloop_runs WHERE state <> 'skipped'")}
    assert {run.id for run in runs} <= {*there}
    assert len(host.called) <= [*there.values()].count("tick"), "a run was called that has no record"


async def test_a_file_that_is_deleted_ends_nothing_and_is_not_made_anew(tmp_path):
    async with hosting(tmp_path / "app.db") as host:
        run = await host.holds_a_run()
        for name in os.listdir(tmp_path):
            (tmp_path / name).unlink()
        await host.hears("store_lost")
        before = len(host.called)
        host.may_end.set()
        await asyncio.sleep(0.7)
        assert len(host.called) <= before + 1
        status = await host.scheduler.status()
        assert (
            status.running and status.attention[0]["condition"] == "store" and "deleted" in status.attention[0]["text"]
        )
        assert [one.id for one in status.active] == [run.id]
        assert os.listdir(tmp_path) == []
        began = asyncio.get_running_loop().time()
        await host.scheduler.stop(grace="200ms")
        assert asyncio.get_running_loop().time() - began < 0.2 + 0.2 + 2
    assert os.listdir(tmp_path) == []


async def test_a_store_brought_to_a_newer_schema_is_told_and_left_alone(tmp_path):
    async with hosting(tmp_path / "app.db") as host:
        with database(tmp_path / "app.db") as db:
            db.execute("UPDATE taskloop_meta SET value = '999' WHERE key = 'schema'")
        await host.hears("store_lost")
        status = await host.scheduler.status()
        assert "newer taskloop" in status.attention[0]["text"] and "restart" in status.attention[0]["text"]
        with database(tmp_path / "app.db") as db:
            db.execute("UPDATE taskloop_meta SET value = '2' WHERE key = 'schema'")
        await host.hears("store_back")
        assert await host.calls_again()


async def test_a_stop_waits_for_no_store_that_a_newer_program_has_taken_over(tmp_path, lines):
    async with hosting(tmp_path / "app.db") as host:
        await host.holds_a_run()
        with database(tmp_path / "app.db") as db:
            db.execute("UPDATE taskloop_meta SET value = '999' WHERE key = 'schema'")
        await host.hears("store_lost")
        stopping = asyncio.create_task(host.scheduler.stop(grace="30s"))
        await asyncio.sleep(0.1)
        assert not stopping.done(), "a run that goes on has its grace"
        host.may_end.set()
        async with asyncio.timeout(5):
            await stopping
        assert "run.unrecorded" in lines


async def test_a_file_that_is_damaged_while_in_use_is_told_and_the_host_lives(tmp_path):
    async with hosting(tmp_path / "app.db") as host:
        await host.holds_a_run()
        with database(tmp_path / "app.db") as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = (tmp_path / "app.db").stat().st_size
        with (tmp_path / "app.db").open("r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * (size - 4096))
        await host.hears("store_lost")
        status = await host.scheduler.status()
        assert status.attention[0]["condition"] == "store"
        await asyncio.sleep(0.1)
        began = asyncio.get_running_loop().time()
        await host.scheduler.stop(grace="100ms")
        assert asyncio.get_running_loop().time() - began < 3


async def test_a_stop_while_the_file_is_locked_is_bounded_and_the_next_start_says_what_was_left(tmp_path):
    async with hosting(tmp_path / "app.db") as host:
        run = await host.holds_a_run()
        other = sqlite3.connect(tmp_path / "app.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        began = asyncio.get_running_loop().time()
        await host.scheduler.stop(grace="300ms")
        assert asyncio.get_running_loop().time() - began < 0.3 + 0.2 + 2
        other.execute("ROLLBACK")
        other.close()
    # What the stop wanted to write may still come, now that it can; if it was given up, the lease tells.
    async with hosting(tmp_path / "app.db", replace(QUICK, lease=timedelta(seconds=2))) as host:
        async with asyncio.timeout(20):
            while (found := await host.scheduler.run(run.id)).state == "running":
                await asyncio.sleep(0.05)
        assert found.state == "interrupted"


async def test_a_process_that_only_submits_is_ready_again_as_soon_as_the_store_takes_its_beats(tmp_path):
    """Others wait for what else failed to be tried again; here it was six seconds and a beat for nothing."""
    async with hosting(tmp_path / "app.db", replace(QUICK, enabled=False)) as host:
        with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            await host.hears("store_lost")
        await host.hears("store_back", 3)


async def test_a_process_that_only_submits_and_beats_seldom_is_ready_again_before_its_next_beat(tmp_path):
    """The first that the store took came before the housekeeping had looked again, and the next one a minute later."""
    seldom = replace(QUICK, enabled=False, heartbeat=timedelta(minutes=1), lease=timedelta(minutes=3))
    async with hosting(tmp_path / "app.db", seldom) as host:
        with closing(sqlite3.connect(tmp_path / "app.db", isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            await host.hears("store_lost")
        await host.hears("store_back", 3)


async def test_a_run_that_ends_while_the_store_is_away_until_the_stop_is_told_in_the_log(tmp_path, lines):
    folder, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    folder.mkdir()
    async with hosting(folder / "app.db") as host:
        await host.holds_a_run()
        folder.rename(elsewhere)
        await host.hears("store_lost")
        host.may_end.set()
        await host.scheduler.stop(grace="300ms")
    assert lines.count("run.unrecorded") == 1


async def test_a_disk_that_hangs_lets_its_callers_go_and_is_used_again_when_it_answers(tmp_path):
    store = SqliteStore(tmp_path / "app.db", call_seconds=0.6)
    scheduler = TaskScheduler(store, options=QUICK)
    answers = threading.Event()

    @scheduler.job()
    async def job() -> None: ...

    await scheduler.runs()  # it is open now
    stuck = asyncio.create_task(store._do(lambda db: answers.wait(20)))
    await asyncio.sleep(0)
    for call in (stuck, scheduler.submit("job")):
        with pytest.raises(StoreUnavailable, match="has not answered"):
            await call
    began = asyncio.get_running_loop().time()
    with pytest.raises(StoreUnavailable, match="has not answered"):
        await scheduler.submit("job")
    assert asyncio.get_running_loop().time() - began < 0.5, "nobody queues up behind a disk that hangs"
    answers.set()
    async with asyncio.timeout(10):
        while not (run := await submitted(scheduler)):
            await asyncio.sleep(0.02)
    assert run.state == "waiting"
    await scheduler.close()


async def submitted(scheduler):
    """A run, or None while the store refuses it."""
    try:
        return await scheduler.submit("job")
    except StoreUnavailable:
        return None


@pytest.mark.parametrize("where", ["header", "schema"])
async def test_a_damaged_file_is_refused_at_a_start_and_left_as_it_is(tmp_path, where):
    async with hosting(tmp_path / "app.db"):
        pass
    with (tmp_path / "app.db").open("r+b") as file:
        file.seek(0 if where == "header" else 100)
        file.write(b"\xa5" * 90)
    before = (tmp_path / "app.db").read_bytes()
    with pytest.raises(BadStore, match=r"app\.db"):
        await TaskScheduler(tmp_path / "app.db", options=QUICK).start()
    assert (tmp_path / "app.db").read_bytes() == before
