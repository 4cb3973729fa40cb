"""A server that falls silent under a store, or a process under its server: nobody waits for ever, nor for another."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from dataclasses import replace
from functools import partial
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from proxies import Line
from servers import emptied
from stores import NOW, Stores, hourly

from taskloop import Options, State, TaskScheduler, store_postgres
from taskloop.errors import StoreUnavailable
from taskloop.ledger import Ledger
from taskloop.processes import this_process
from taskloop.store_data import Subject
from taskloop.store_postgres import PostgresStore
from taskloop.switches import Switch

pytestmark = pytest.mark.anyio

QUICK = Options(heartbeat=timedelta(seconds=0.3), lease=timedelta(seconds=1.5), grace=timedelta(0))


@pytest.fixture(scope="module")
def url():
    return emptied().store


class Member:
    """A store behind a line of its own, and the worker that it beats for."""

    def __init__(self, line: Line, *, statement_cache_size: int = 100) -> None:
        self.line = line
        self.store = PostgresStore(line.url, statement_cache_size=statement_cache_size, call_seconds=1.0)
        self.worker = this_process(None, NOW, time.monotonic())
        self.beater = self.store.beater(self.worker)

    async def __aenter__(self) -> Member:
        await self.line.__aenter__()
        await self.store.open()
        await self.store.changed()
        await self.store.enlist(self.worker)
        await self.beat()
        return self

    async def __aexit__(self, *facts) -> None:
        await self.store.close(0.1)
        await asyncio.to_thread(self.beater.close)
        await self.line.__aexit__(*facts)

    async def beat(self) -> bool:
        return await asyncio.to_thread(self.beater.beat, datetime.now(UTC), time.monotonic(), {})

    def fall_silent(self, passes: int) -> None:
        """After so many messages more."""
        self.line.cut, self.line.passes = "silent", passes


async def answers(work) -> bool:
    try:
        await work()
    except StoreUnavailable as error:
        assert "does not answer" in str(error) or "can be reached" in str(error)
        return False
    return True


async def test_a_line_that_falls_silent_is_given_up_whatever_was_under_way(url):
    async def after(passes: int, cache: int) -> None:
        async with Member(Line(url), statement_cache_size=cache) as one:
            for work in (
                one.beat,
                lambda: one.store.evidence(["a"], NOW, lambda facts: Subject(None, NOW, NOW, None)),
                one.store.workers,
            ):
                one.fall_silent(passes)
                async with asyncio.timeout(10):
                    while not await answers(work):  # by another connection; its own row may be locked for three seconds
                        one.line.cut = None
                one.line.cut = None

    await asyncio.gather(*(after(passes, cache) for passes in range(4) for cache in (100, 0)))


@pytest.mark.parametrize("begin", ["SELECT 1", "BEGIN"])
async def test_a_submit_by_a_connection_of_the_application_lets_go_whoever_gives_it_up_on_a_silent_line(url, begin):
    jobs = Ledger(url)

    @jobs.job()
    async def mail() -> None: ...

    async def after(passes: int) -> None:
        async with Line(url) as line:
            connection = await asyncpg.connect(line.url)
            await connection.execute(begin)
            line.cut, line.passes = "silent", passes
            submit = asyncio.create_task(asyncio.wait_for(jobs.submit("mail", connection=connection), 0.5))
            await asyncio.wait({submit}, timeout=5)
            assert submit.done(), f"it waits for ever after {passes} messages"
            assert isinstance(submit.exception(), TimeoutError)
            connection.terminate()

    await jobs.submit("mail")  # so that the store is open
    await asyncio.gather(*map(after, range(5)))
    await jobs.close()


async def test_a_worker_waits_for_no_answer_longer_than_its_lease_nor_a_beat_longer_than_a_third_of_it(
    url, monkeypatch
):
    monkeypatch.setattr(store_postgres, "LEAST_SECONDS", 0.1)
    monkeypatch.setattr(store_postgres, "LEAST_BEAT_SECONDS", 0.1)
    worker = this_process(None, NOW, time.monotonic(), lease=timedelta(seconds=0.9))
    async with Line(url) as line:
        store = PostgresStore(line.url)
        await store.open()
        await store.enlist(worker)
        beater = store.beater(worker)
        beat = partial(asyncio.to_thread, beater.beat, NOW, time.monotonic(), {})
        assert await beat()
        for work, seconds in (
            (lambda: store.switch(Switch("disabled", "a", NOW)), 0.9),
            (partial(store.note, []), 0.9),
            (store.workers, 0.9),
            (beat, 0.3),
        ):
            line.cut, line.passes = "silent", 0
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                await work()
            assert seconds - 0.05 < time.monotonic() - began < seconds + 3
            line.cut = None
            assert await answers(work)  # by another line
        await asyncio.to_thread(beater.close)
        await store.close(0.1)


async def test_the_system_ends_a_line_to_a_machine_that_has_failed_within_seconds(url):
    async with Line(url) as line:
        listener = await asyncio.start_server(line._take, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        store = PostgresStore(re.sub(r"host=[^&]+", f"host=127.0.0.1&port={port}", url))
        await store.open()
        ours = (await store._writer.open())._transport.get_extra_info("socket")
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 5000
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
        await store.close(0.1)
        listener.close()


async def test_who_falls_silent_within_a_transaction_holds_nobody_up_for_long(url, tmp_path):
    async with Stores("postgres", tmp_path) as others, Member(Line(url)) as one, Member(Line(url)) as two:
        other = await others.make("a")
        one.fall_silent(2)  # with the lock of all that takes turns
        switching = asyncio.create_task(one.store.switch(Switch("disabled", "a", NOW)))
        two.fall_silent(2)  # with its own row, which whoever buries it must have
        beating = asyncio.create_task(two.beat())
        await asyncio.sleep(0.1)
        seen = {worker.id: worker for worker in await other.workers()}
        began = time.monotonic()
        await other.switch(Switch("disabled", "b", NOW))
        assert await other.bury(seen[two.worker.id])
        assert time.monotonic() - began < 5
        for task in (switching, beating):
            with pytest.raises(StoreUnavailable):
                await task


async def until(condition, seconds=10):
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.02)


def replica(url, name, calls, *, may_end=None, options=QUICK):
    """A scheduler whose jobs say when they begin and end."""
    scheduler = TaskScheduler(url, options=options, name=name)

    @scheduler.job(retry=3)
    async def held() -> None:
        calls.append((name, "begins"))
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            calls.append((name, "ends"))
            raise

    @scheduler.job(retry=3)
    def thread() -> str:
        calls.append((name, "thread"))
        may_end.wait(30)
        return "through it all"

    return scheduler


async def test_a_worker_that_cannot_reach_its_server_ends_its_runs_before_another_begins_them(url):
    emptied()
    calls = []
    async with Line(url) as line, replica(line.url, "cut off", calls) as first:
        run = await first.submit("held")
        await until(lambda: calls)
        second = replica(url, "other", calls)
        async with second:
            await asyncio.sleep(0.6)  # until the first has seen that it is there
            line.parted = True
            await until(lambda: ("other", "begins") in calls)
            assert calls == [("cut off", "begins"), ("cut off", "ends"), ("other", "begins")]
            assert [one.outcome for one in await second.attempts(run.id)][0] == "lost"
            line.parted = False
            await line.hang_up()  # else it waits for answers for as long as a call may take
            await line.__aenter__()
    assert ("cut off", "begins") not in calls[1:]


async def test_a_worker_that_is_alone_goes_on_while_its_server_is_away(url):
    emptied()
    calls = []
    async with Line(url) as line, replica(line.url, "alone", calls) as alone:
        run = await alone.submit("held")
        await until(lambda: calls)
        await line.hang_up()
        await asyncio.sleep(1.8)  # longer than its lease
        await line.__aenter__()
        assert calls == [("alone", "begins")]
        while not await answers(lambda: alone.run(run.id)):
            await asyncio.sleep(0.05)
        assert (await alone.run(run.id)).state is State.RUNNING


async def test_what_was_paused_while_a_worker_was_cut_off_is_not_fired_when_it_is_back(url):
    emptied()
    calls = []
    async with Line(url) as line, replica(line.url, "cut off", calls) as one, replica(url, "other", []) as other:

        @one.every("100ms")
        async def tick() -> None:
            calls.append("tick")

        await until(lambda: len(calls) > 3)
        await line.hang_up()
        await asyncio.sleep(0.3)
        await other.pause()
        called = len(calls)
        await line.__aenter__()
        while not await answers(lambda: one.runs("tick")):
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        assert len(calls) == called
        await other.resume()
        await until(lambda: len(calls) > called)


async def went_through(line, run, may_end):
    """The server is back for the other worker, and then on the line of the one that has a run in hand, which ends well."""
    await asyncio.sleep(0.6)  # two looks of the other at who lives, and it cannot be told
    await line.__aenter__()
    await asyncio.sleep(1.5)  # what was taken for a dead worker's would have begun by now
    may_end.set()
    assert await run.value() == "through it all"


async def test_after_an_outage_longer_than_the_lease_nobody_is_taken_for_dead_and_what_is_alone_goes_on(url):
    emptied()
    calls, told, may_end = [], [], threading.Event()
    facts = {"may_end": may_end, "options": replace(QUICK, lease=timedelta(seconds=2))}
    async with Line(url) as line, Line(url) as other, replica(line.url, "one", calls, **facts) as one:
        one.feed.subscribe(told.append, "recovered")
        run = await one.submit("thread")
        await until(lambda: calls)
        async with replica(other.url, "two", calls, **facts) as two:
            two.feed.subscribe(told.append, "recovered")
            await asyncio.sleep(0.6)
            await asyncio.gather(line.hang_up(), other.hang_up())
            await asyncio.sleep(2.4)
            await other.__aenter__()  # it is there before the other had the time to say that it lives
            await went_through(line, run, may_end)
            assert (calls, told) == ([("one", "thread")], [])


async def test_after_a_server_took_no_writes_for_longer_than_the_lease_nobody_is_taken_for_dead(url):
    found, calls, told, may_end = emptied(), [], [], threading.Event()
    say = partial(asyncio.to_thread, found.execute)
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'taskloop'"
    facts = {"may_end": may_end, "options": replace(QUICK, lease=timedelta(seconds=2))}
    async with Line(url) as line, replica(line.url, "one", calls, **facts) as one:
        run = await one.submit("thread")
        await until(lambda: calls)
        async with replica(url, "two", calls, **facts) as two:
            for scheduler in (one, two):
                scheduler.feed.subscribe(told.append, "recovered")
            try:
                await asyncio.sleep(0.6)
                await say(f"ALTER DATABASE taskloop_tests SET default_transaction_read_only = on;\n{end}")
                await asyncio.sleep(3)  # it can be read meanwhile, as a standby can
                await line.hang_up()
            finally:
                await say("ALTER DATABASE taskloop_tests RESET default_transaction_read_only")
            await until(lambda: two._store_watch.lost_at is None)  # before the other had the time to say that it lives
            await went_through(line, run, may_end)
            assert (calls, told) == ([("one", "thread")], [])


async def test_a_loop_that_is_held_within_a_transaction_has_it_done_again(url, tmp_path, guard):
    guard.deactivate()
    held = []

    def merge(_old, new):
        held.append(new.id)
        time.sleep(3.3 if len(held) == 1 else 0)  # longer than the server waits for the next statement
        return new

    async with Stores("postgres", tmp_path) as stores:
        store = await stores.make("a")
        await store.put([hourly()], merge, NOW)
        assert held == ["s", "s"] and [one.id for one in await store.schedules()] == ["s"]
