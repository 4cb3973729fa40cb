"""The engine on PostgreSQL: several schedulers on one database share what is to be done, and survive each other."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import SimpleNamespace

import aiosqlite
import asyncpg
import pytest
from proxies import Line
from servers import emptied, server
from stories import nothing

from taskloop import Every, Options, State, TaskScheduler, server_postgres, tending
from taskloop.audit import through
from taskloop.built_in import prune_history
from taskloop.clock import SystemClock
from taskloop.errors import BadStore, KeyConflict, NoSuchJob, StoreUnavailable, Unstorable
from taskloop.ledger import Ledger
from taskloop.runs import Run
from taskloop.store import open_store
from taskloop.store_data import Worker
from taskloop.store_postgres import PostgresStore

pytestmark = pytest.mark.anyio

QUICK = Options(heartbeat=timedelta(seconds=0.3), lease=timedelta(seconds=1.5), max_running=8)


async def until(condition, seconds=10):
    async with asyncio.timeout(seconds):
        while not (found := await condition()):
            await asyncio.sleep(0.02)
    return found


async def test_two_schedulers_on_one_database_share_the_load_and_call_nothing_twice():
    url, called = emptied().store, []

    def member(name):
        scheduler = TaskScheduler(url, options=QUICK, name=name)

        @scheduler.job()
        async def work(number: int) -> None:
            called.append((name, number))
            await asyncio.sleep(0.01)

        @scheduler.job(group="one", name="alone")
        async def alone() -> None:
            running.append(1)
            assert len(running) == 1, "two of a group run at once"
            await asyncio.sleep(0.02)
            running.pop()

        @scheduler.every("200ms", name="tick", overlap="allow")
        async def tick() -> None:
            ticked.append(name)

        return scheduler

    ticked, running = [], []
    first, second = member("first"), member("second")
    async with first, second:
        one, two = first["work"], second["alone"]
        await first.submit_many([one.bind(number) for number in range(200)])
        await second.submit_many([two.bind() for _ in range(6)])
        await until(lambda: _none_left(first))
        await asyncio.sleep(0.5)
    ticks = await first.runs("tick", limit=1000)  # verbs that read need no start
    await first.close()
    assert sorted(number for _, number in called) == list(range(200))
    assert min(Counter(name for name, _ in called).values()) > 20, Counter(name for name, _ in called)
    assert len({run.due_at for run in ticks}) == len(ticks) == len(ticked)


async def _none_left(scheduler) -> bool:
    status = await scheduler.status()
    return not status.waiting and not [run for run in status.active if run.job != "tick"]


PROGRAM = """
import asyncio, sys
from datetime import timedelta
from taskloop import Options, TaskScheduler

quick = Options(heartbeat=timedelta(seconds=0.3), lease=timedelta(seconds=1.5))
scheduler = TaskScheduler(sys.argv[1], options=quick)

@scheduler.job(retry=2)
async def held():
    print("begun", flush=True)
    await asyncio.sleep(600)

async def main():
    async with scheduler:
        await scheduler.submit("held")
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_the_runs_of_a_process_that_was_killed_are_taken_over_within_its_lease(tmp_path):
    url, begun = emptied().store, asyncio.Event()
    (tmp_path / "program.py").write_text(PROGRAM)
    scheduler = TaskScheduler(url, options=QUICK)

    @scheduler.job(retry=2)
    async def held() -> str:
        begun.set()
        return "taken over"

    process = await asyncio.to_thread(
        subprocess.Popen, [sys.executable, str(tmp_path / "program.py"), url], stdout=subprocess.PIPE, text=True
    )
    try:
        assert await asyncio.to_thread(process.stdout.readline) == "begun\n"
        async with scheduler:
            await asyncio.sleep(0.5)
            assert not begun.is_set()
            process.send_signal(signal.SIGKILL)
            await asyncio.wait_for(begun.wait(), 1.5 + 2 + 1)  # the first wait for another attempt is a second
            run = await until(lambda: _succeeded(scheduler))
            assert [(one.attempt, one.outcome) for one in await scheduler.attempts(run.id)] == [
                (1, "lost"),
                (2, "succeeded"),
            ]
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)
        process.stdout.close()


async def _succeeded(scheduler) -> Run | None:
    found = await scheduler.runs("held", state="succeeded")
    return found[0] if found else None


async def test_a_server_that_restarts_under_a_running_scheduler_is_told_and_nothing_is_lost():
    found, told = emptied(), []
    if found.own is None:
        pytest.skip("the server is not ours to restart")
    scheduler, may_end, called = TaskScheduler(found.store, options=QUICK), asyncio.Event(), []
    scheduler.feed.subscribe(lambda event: told.append(event.name), "store_lost", "store_back")

    @scheduler.job()
    async def held() -> str:
        called.append("held")
        await may_end.wait()
        return "kept in memory until the store took it"

    @scheduler.every("200ms")
    async def tick() -> None:
        called.append("tick")

    async with scheduler:
        run = await scheduler.submit("held")
        while "held" not in called:
            await asyncio.sleep(0.01)
        restarting = asyncio.create_task(asyncio.to_thread(found.restart))
        may_end.set()
        await restarting
        done = await until(lambda: _ended(scheduler, run.id))
        assert (done.state, done.result) == (State.SUCCEEDED, "kept in memory until the store took it")
        before = len(called)
        async with asyncio.timeout(10):
            while len(called) < before + 3:
                await asyncio.sleep(0.02)
    assert told == ["store_lost", "store_back"] * (len(told) // 2)  # none, where it falls between two calls
    assert called.count("held") == 1


async def test_a_run_whose_end_a_server_that_lagged_does_not_know_holds_up_its_schedule_no_longer(monkeypatch):
    """Its records are those of a moment before: what was lost with the other server is not known to it."""
    monkeypatch.setattr(tending, "FLAG_SECONDS", 0.1)
    monkeypatch.setattr(tending, "UNKNOWN_SECONDS", 0.5)
    found, called, told, may_end = emptied(), [], [], asyncio.Event()
    scheduler = TaskScheduler(found.store, options=QUICK)
    scheduler.feed.subscribe(lambda event: told.append(event.run.job), "recovered")

    @scheduler.every("300ms")
    async def tick() -> None:
        called.append(1)

    @scheduler.job()
    async def held() -> str:
        await may_end.wait()
        return "was in hand all the time"

    async with scheduler:
        kept = await scheduler.submit("held")
        [done, *_] = await until(lambda: scheduler.runs("tick", state="succeeded"))
        back = f"UPDATE taskloop.runs SET state = 'running', ended_at = NULL WHERE id = {done.id}"
        await asyncio.to_thread(found.execute, back, "taskloop_tests")
        before = len(called)
        async with asyncio.timeout(10):
            while len(called) < before + 3:
                await asyncio.sleep(0.02)
        assert told == ["tick"]
        may_end.set()
        assert await kept.value() == "was in hand all the time"


def ticking(url, ticks, told, **options):
    scheduler = TaskScheduler(url, options=replace(QUICK, **options))
    scheduler.feed.subscribe(lambda event: told.append(event.name), "store_lost", "store_back")

    @scheduler.every("200ms")
    async def tick() -> None:
        ticks.append(1)

    return scheduler


END = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'taskloop'"


async def test_a_server_that_took_no_writes_for_a_while_is_written_to_again_by_connections_made_anew():
    found, told, ticks = emptied(), [], []
    say = partial(asyncio.to_thread, found.execute)
    async with ticking(found.store, ticks, told) as scheduler:
        try:
            await say(f"ALTER DATABASE taskloop_tests SET default_transaction_read_only = on;\n{END}")
            await until(lambda: _attention(scheduler, "the server takes no writes"))
            await asyncio.sleep(1)
            assert told == ["store_lost"], "what can be read is not back"
        finally:
            await say("ALTER DATABASE taskloop_tests RESET default_transaction_read_only")
        before = len(ticks)
        async with asyncio.timeout(10):
            while len(ticks) < before + 3:
                await asyncio.sleep(0.05)
        assert told == ["store_lost", "store_back"]


async def _attention(scheduler, words) -> bool:
    return any(words in str(one["text"]) for one in (await scheduler.status()).attention)


async def test_an_outage_is_told_once_however_many_connections_it_cut():
    told, ticks = [], []
    async with Line(emptied().store) as line, ticking(line.url, ticks, told):
        for number in range(1, 4):
            await line.hang_up()
            await asyncio.sleep(1.5)
            await line.__aenter__()
            before = len(ticks)
            async with asyncio.timeout(10):
                while len(ticks) < before + 8 or len(told) < 2 * number:  # on a busy machine the last gets through late
                    await asyncio.sleep(0.05)
            assert told == ["store_lost", "store_back"] * number


@pytest.fixture
def few_rights():
    """A user with the rights that docs/postgresql.md asks for, and no others."""
    found = emptied()
    user, url = f"few_{secrets.token_hex(3)}", found.address("taskloop_tests")
    rights = (
        "USAGE ON SCHEMA",
        "SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA",
        "USAGE ON ALL SEQUENCES IN SCHEMA",
    )
    grants = ";\n".join(f"GRANT {one} taskloop TO {user}" for one in rights)
    found.execute(f"CREATE ROLE {user} LOGIN;\n{grants}", "taskloop_tests")
    try:
        yield SimpleNamespace(server=found, user=user, url=url.replace("postgres:@", f"{user}:@"))
    finally:
        found.execute(f"DROP OWNED BY {user};\nDROP ROLE {user}", "taskloop_tests")


async def test_a_store_to_which_only_the_beats_get_through_is_not_back(few_rights):
    told, ticks = [], []
    say = partial(asyncio.to_thread, few_rights.server.execute)
    async with ticking(few_rights.url, ticks, told):
        await say(f"ALTER ROLE {few_rights.user} CONNECTION LIMIT 1;\n{END}")
        await asyncio.sleep(4)
        assert told == ["store_lost"]
        await say(f"ALTER ROLE {few_rights.user} CONNECTION LIMIT -1")
        before = len(ticks)
        async with asyncio.timeout(10):
            while len(ticks) < before + 3:
                await asyncio.sleep(0.05)
        assert told == ["store_lost", "store_back"]


async def test_a_store_of_which_one_table_takes_nothing_is_lost_once_and_back_when_it_does(few_rights):
    told, ticks = [], []
    say = partial(asyncio.to_thread, few_rights.server.execute)
    async with ticking(few_rights.url, ticks, told):
        await say(f"REVOKE DELETE ON taskloop.wishes FROM {few_rights.user}", "taskloop_tests")
        await asyncio.sleep(4)  # while what is due is skipped, on record, for the run before cannot end
        assert told == ["store_lost"]
        await say(f"GRANT DELETE ON taskloop.wishes TO {few_rights.user}", "taskloop_tests")
        before = len(ticks)
        async with asyncio.timeout(10):
            while len(ticks) < before + 3:
                await asyncio.sleep(0.05)
        assert told == ["store_lost", "store_back"]


async def test_a_worker_that_can_only_read_says_so_still_when_the_others_have_taken_it_for_dead(few_rights):
    told = []
    say = partial(asyncio.to_thread, few_rights.server.execute)
    async with ticking(few_rights.url, [], told) as cut_off, ticking(few_rights.server.store, [], []) as other:
        await say(f"REVOKE UPDATE ON taskloop.writers FROM {few_rights.user}", "taskloop_tests")
        await until(lambda: _attention(cut_off, "permission denied for table writers"))

        buried = f"SELECT 1 FROM taskloop.workers WHERE id = '{cut_off.worker.id}' AND ended = 'died'"
        await until(lambda: asyncio.to_thread(few_rights.server.query, buried, "taskloop_tests"))
        status = await cut_off.status()
        assert [one.id for one in status.workers] == [other.worker.id]
        [item] = [one for one in status.attention if one["condition"] == "store"]
        assert "permission denied for table writers" in item["text"] and item["worker"] == cut_off.worker.id
        await say(f"GRANT UPDATE ON taskloop.writers TO {few_rights.user}", "taskloop_tests")
        await until(lambda: asyncio.sleep(0, told[-1] == "store_back"))


async def _ended(scheduler, run_id) -> Run | None:
    try:
        run = await scheduler.run(run_id)
    except StoreUnavailable:
        return None
    return run if run.final else None


class Off(SystemClock):
    """A wall clock that is so many seconds ahead."""

    def __init__(self, seconds: float) -> None:
        self._ahead = timedelta(seconds=seconds)

    def now(self):
        return super().now() + self._ahead


@pytest.mark.parametrize(("theirs", "ours"), [(-40.5, 0), (0, 30.5), (-40.5, 30.5), (25.5, -25.5)])
async def test_wall_clocks_that_are_off_decide_nothing_about_who_lives_and_are_told(theirs, ours):
    url = emptied().store
    store, clock = open_store(url), Off(theirs)
    await store.open()
    one = Worker("w1", None, "elsewhere", 7, "p", clock.now(), clock.now(), jobs=frozenset({"a"}))
    await store.enlist(one)
    beater, ledger = store.beater(one), Ledger(url, clock=Off(ours), options=Options())
    try:
        assert await asyncio.to_thread(beater.beat, clock.now(), 1.0, {})
        status = await ledger.status()
        assert [worker.id for worker in status.workers] == ["w1"] and status.running
        said = [item["text"] for item in status.attention if item["condition"] == "clock"]
        for who, seconds in (("elsewhere pid 7", theirs), (f"{os.uname().nodename}, where this is asked", ours)):
            words = rf"{int(abs(seconds))}\.\d s {'behind' if seconds < 0 else 'ahead of'} that of the store's server"
            assert sum(bool(re.fullmatch(f"{who}: its clock is {words}", text)) for text in said) == bool(seconds)
        assert len(said) == bool(theirs) + bool(ours)
        found = server()
        found.execute("UPDATE taskloop.workers SET beat_at = beat_at - 20 * 1000000", "taskloop_tests")
        assert not (await ledger.status()).running, "its last beat is longer ago than a lease"
    finally:
        await asyncio.to_thread(beater.close)
        await ledger.close()
        await store.close()


async def test_a_host_whose_clock_is_far_ahead_deletes_nothing_that_is_young_by_that_of_the_server():
    """Also where it has been wrong since its start, and others that live say that it is the one."""
    url = emptied().store
    async with TaskScheduler(url, options=QUICK) as right:
        job = right.add_job(nothing)
        for _ in range(3):
            await (await job.submit()).value()
        ahead = TaskScheduler(url, options=QUICK, clock=Off(timedelta(days=200).total_seconds()))
        ahead.add_job(prune_history)
        async with ahead:
            assert await (await ahead.submit("prune_history")).value() == "0 runs deleted"
        assert len(await right.runs("nothing")) == 3


# -- within the application's own transaction


@pytest.fixture(params=["postgres", "file"])
def url(request, tmp_path):
    return emptied().store if request.param == "postgres" else f"sqlite:///{tmp_path}/app.db"


class Application:
    """An application with a connection of its own, and the words of its driver."""

    def __init__(self, url: str) -> None:
        self.url = url

    async def __aenter__(self):
        if self.url.startswith("sqlite"):
            self.connection = await aiosqlite.connect(self.url.removeprefix("sqlite:///"))
            await self.connection.execute("CREATE TABLE orders (id INTEGER)")
            await self.connection.commit()
            return self
        self.connection = await asyncpg.connect(self.url)
        await self.connection.execute("DROP TABLE IF EXISTS orders; CREATE TABLE orders (id INTEGER)")
        return self

    async def __aexit__(self, *_) -> None:
        await self.connection.close()

    async def begin(self) -> None:
        if isinstance(self.connection, asyncpg.Connection):
            await self.connection.execute("BEGIN")
        await self.connection.execute("INSERT INTO orders VALUES (1)")

    async def end(self, word: str) -> None:
        await self.connection.execute(word)


async def test_what_is_asked_for_within_a_transaction_is_there_when_that_is_committed_and_not_before(url):
    scheduler, sent = TaskScheduler(url, options=QUICK), []

    @scheduler.job()
    async def mail(order: int) -> str:
        sent.append(order)
        return f"mail of {order}"

    async with scheduler, Application(url) as app:
        await app.begin()
        gone = await scheduler.submit("mail", {"order": 1}, actor="ann", connection=app.connection)
        await app.end("ROLLBACK")
        await app.begin()
        run = await scheduler.submit("mail", {"order": 2}, key="k", actor="ann", connection=app.connection)
        await asyncio.sleep(0.7)  # a worker looks for what waits twice a second
        assert sent == [] == await scheduler.audit()
        assert [one.id for one in await scheduler.runs()] == []
        await app.end("COMMIT")
        assert await run.value() == "mail of 2"
        assert sent == [2]
        assert gone.run.state is State.WAITING
        await app.begin()
        again = await scheduler.submit("mail", {"order": 2}, key="k", connection=app.connection)
        assert (again.run.id, again.run.existed) == (run.run.id, True)
        with pytest.raises(KeyConflict):
            await scheduler.submit("mail", {"order": 3}, key="k", actor="ann", connection=app.connection)
        await app.end("COMMIT")
        [entry] = await scheduler.audit()
        assert (entry.actor, entry.object, entry.after) == (
            "ann",
            str(run.run.id),
            {"params": {"order": 2}, "key": "k"},
        )


async def test_what_is_asked_for_first_of_all_within_a_transaction_of_sqlalchemy_is_a_part_of_it(url):
    engines = pytest.importorskip("sqlalchemy.ext.asyncio", exc_type=ImportError)
    pytest.importorskip("greenlet")
    scheduler, sent = TaskScheduler(url, options=QUICK), []

    @scheduler.job()
    async def mail(order: int) -> None:
        sent.append(order)

    driver = "aiosqlite" if url.startswith("sqlite") else "asyncpg"
    engine = engines.create_async_engine(url.replace("://", f"+{driver}://", 1))
    async with scheduler:
        async with engine.connect() as connection:
            await scheduler.submit("mail", {"order": 1}, connection=connection)
            await connection.rollback()
        async with engines.AsyncSession(engine) as session, session.begin():
            async with session.begin_nested() as point:
                await scheduler.submit("mail", {"order": 2}, connection=await session.connection())
                await point.rollback()
            run = await scheduler.submit("mail", {"order": 3}, connection=await session.connection())
            await asyncio.sleep(0.7)  # a worker looks for what waits twice a second
            assert sent == []
        await run.wait()
        assert sent == [3] == [one.params["order"] for one in await scheduler.runs()]
    await engine.dispose()


async def test_a_submit_first_of_all_within_a_transaction_waits_for_who_writes_to_the_file_just_then(tmp_path):
    url = f"sqlite:///{tmp_path}/app.db"
    scheduler = TaskScheduler(url, options=QUICK)
    scheduler.add_job(lambda_free, name="mail")
    async with scheduler, Application(url) as app, aiosqlite.connect(f"{tmp_path}/app.db") as other:
        await app.connection.execute("BEGIN")
        await other.execute("BEGIN IMMEDIATE")
        await other.execute("INSERT INTO orders VALUES (7)")
        loop, has_begun = asyncio.get_running_loop(), asyncio.Event()

        def notice(statement: str) -> None:
            if "taskloop_runs" in statement:
                loop.call_soon_threadsafe(has_begun.set)

        await app.connection.set_trace_callback(notice)
        submitting = asyncio.create_task(scheduler.submit("mail", connection=app.connection))
        await has_begun.wait()
        await other.commit()
        run = await submitting
        await app.end("COMMIT")
        assert (await run.wait()).state is State.SUCCEEDED


async def test_an_application_may_read_types_of_the_database_in_ways_of_its_own(url):
    scheduler = TaskScheduler(url, options=QUICK)
    scheduler.add_job(lambda_free, name="mail")
    async with scheduler, Application(url) as app:
        if url.startswith("sqlite"):
            app.connection.row_factory = aiosqlite.Row
        for kind in () if url.startswith("sqlite") else ("timestamptz", "text", "float8", "numeric", "oid"):
            await app.connection.set_type_codec(
                kind, schema="pg_catalog", encoder=str, decoder=lambda text: text, format="text"
            )
        await app.begin()
        run = await scheduler.submit("mail", connection=app.connection)
        await app.end("COMMIT")
        assert (await run.wait()).state is State.SUCCEEDED


async def test_a_submit_that_is_refused_within_a_transaction_leaves_the_rest_of_it_as_it_was(url):
    scheduler = TaskScheduler(url, options=QUICK)
    scheduler.add_job(lambda_free, name="mail")
    async with scheduler, Application(url) as app:
        await app.begin()
        with pytest.raises(Unstorable), through("api", request_id="\ud800"):  # the run is written, its entry cannot be
            await scheduler.submit("mail", actor="ann", connection=app.connection)
        await scheduler.submit("mail", actor="ann", connection=app.connection)
        await app.end("COMMIT")
        assert [one.object for one in await scheduler.audit()] == [str(one.id) for one in await scheduler.runs()]
        assert len(await scheduler.runs()) == 1


async def test_a_connection_of_another_kind_or_to_another_place_is_refused_with_what_is_allowed(url, tmp_path):
    scheduler = TaskScheduler(url, options=QUICK)
    scheduler.add_job(lambda_free, name="mail")
    elsewhere = f"sqlite:///{tmp_path}/other.db" if url.startswith("sqlite") else server().database("elsewhere")
    try:
        with pytest.raises(BadStore, match=r"connection= is a str; allowed is"):
            await scheduler.submit("mail", connection="connection")
        async with Application(url) as app:
            pass
        if url.startswith("postgresql"):
            with pytest.raises(BadStore, match=r"connection= is closed; allowed is one that is open"):
                await scheduler.submit("mail", connection=app.connection)
        async with Application(elsewhere) as app:
            with pytest.raises(BadStore, match=r"connection= is one to .*; allowed is one to"):
                await scheduler.submit("mail", connection=app.connection)
        if url.startswith("postgresql"):  # a copy has the name of the store that it is of
            [[name]] = server().query("SELECT value FROM taskloop.meta WHERE key = 'store'", "taskloop_tests")
            store = open_store(elsewhere)
            await store.open()
            await store.close()
            server().execute(f"UPDATE taskloop.meta SET value = '{name}' WHERE key = 'store'", "elsewhere")
            async with Application(elsewhere) as app:
                with pytest.raises(BadStore, match=r"connection= is one to another database; allowed is one to"):
                    await scheduler.submit("mail", connection=app.connection)
            assert server().query("SELECT count(*) FROM taskloop.runs", "elsewhere") == [(0,)]
    finally:
        await scheduler.close()


async def test_after_a_restart_of_the_server_a_connection_to_it_is_one_to_the_same_database_still():
    found = emptied()
    if found.own is None:
        pytest.skip("the server is not ours to restart")
    scheduler = TaskScheduler(found.store, options=QUICK)
    scheduler.add_job(lambda_free, name="mail")
    try:
        for number in (1, 2):
            async with Application(found.store) as app:
                await scheduler.submit("mail", connection=app.connection)
            async with asyncio.timeout(10):
                while len(await scheduler.runs("mail")) != number:
                    await asyncio.sleep(0.05)
            await asyncio.to_thread(found.restart)
    finally:
        await scheduler.close()


async def lambda_free() -> None: ...


@pytest.mark.parametrize("name", ["a\0b", "\ud800"])
async def test_a_name_that_no_server_takes_is_that_of_no_job(name):
    scheduler = TaskScheduler(emptied().store, options=QUICK)
    try:
        with pytest.raises(NoSuchJob):
            await scheduler.pause(name)
    finally:
        await scheduler.close()


class Starting(Line):
    """A line to a server that says a few times that it is starting, before it is up."""

    SAID = b"SFATAL\0C57P03\0Mthe database system is starting up\0\0"
    left = 3

    async def carry(self, client) -> None:
        if not self.left:
            return await super().carry(client)
        self.left -= 1
        await client[0].read(65536)
        client[1].write(b"E" + (len(self.SAID) + 4).to_bytes(4, "big") + self.SAID)
        await client[1].drain()


async def test_a_start_waits_for_a_server_that_is_starting_too(lines):
    async with Starting(emptied().store) as line:
        async with TaskScheduler(line.url, options=QUICK) as scheduler:
            assert scheduler.is_running
        assert (line.left, lines.count("store.lost"), lines.count("store.back")) == (0, 1, 1)


@pytest.mark.parametrize("table", ["meta", "workers", "switches"])
async def test_a_start_waits_for_a_table_that_another_transaction_holds(table, monkeypatch):
    monkeypatch.setattr(server_postgres, "CONNECT_SECONDS", 0.5)
    found = emptied()
    locker, looker = await asyncpg.connect(found.store), await asyncpg.connect(found.store)

    async def is_waiting():
        return await looker.fetchval("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'")

    async def is_given_up():
        return starting.done() or not await is_waiting()

    scheduler = TaskScheduler(PostgresStore(found.store, call_seconds=0.5), options=QUICK)
    try:
        async with locker.transaction():
            await locker.execute(f"LOCK TABLE taskloop.{table} IN ACCESS EXCLUSIVE MODE")
            starting = asyncio.create_task(scheduler.start())
            await until(is_waiting)
            await until(is_given_up)
        await starting
        assert scheduler.is_running
    finally:
        await scheduler.stop()
        await locker.close()
        await looker.close()


async def test_a_job_that_was_switched_off_is_off_here_too_though_the_switches_could_not_be_read_then():
    """It fired on as long as this worker lived, off by its record: only what others write had the switches read again."""
    found = emptied()
    holder, locker, looker = [await asyncpg.connect(found.store) for _ in range(3)]

    async def is_waited_for(mode):
        query = "SELECT 1 FROM pg_locks WHERE NOT granted AND mode = $1 AND relation = 'taskloop.switches'::regclass"
        return await looker.fetchval(query, mode)

    async def has_fired():
        return await scheduler.runs("job", state=[*State])

    scheduler = TaskScheduler(PostgresStore(found.store, call_seconds=0.7), options=QUICK)
    scheduler.add_job(nothing, Every("4s"), name="job")  # while nothing is due nobody else meets with the trouble
    try:
        async with locker.transaction():
            async with holder.transaction():
                await holder.execute(
                    "LOCK TABLE taskloop.switches IN SHARE MODE"
                )  # which may be read, and not be written
                await scheduler.start()
                await until(has_fired)
                switching = asyncio.create_task(scheduler.disable("job"))
                await until(partial(is_waited_for, "RowExclusiveLock"))
                lock = locker.execute("LOCK TABLE taskloop.switches IN ACCESS EXCLUSIVE MODE")
                locking = asyncio.create_task(lock)
                await until(partial(is_waited_for, "AccessExclusiveLock"))
            await locking  # between the two, as whatever else may come there
            with pytest.raises(StoreUnavailable):
                await switching
        assert await looker.fetchval("SELECT count(*) FROM taskloop.switches") == 1

        async def is_off_here():
            return any(run.reason == "disabled" for run in await has_fired())

        await until(is_off_here, 30)  # at the next fire, or on a crowded machine at that after it
    finally:
        await scheduler.stop()
        for one in (holder, locker, looker):
            await one.close()


async def test_a_stop_while_a_table_is_locked_leaves_nothing_that_waits_for_it_at_the_server():
    """What was in hand stayed there as long as the lock was held, and what had gathered behind it came to it."""
    found = emptied()
    locker, looker = await asyncpg.connect(found.store), await asyncpg.connect(found.store)

    async def waiting():
        return await looker.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")

    try:
        scheduler = ticking(found.store, [], [])
        await scheduler.start()
        async with locker.transaction():
            await locker.execute("LOCK TABLE taskloop.runs IN ACCESS EXCLUSIVE MODE")
            async with asyncio.timeout(10):
                while not await waiting():
                    await asyncio.sleep(0.05)
            await scheduler.stop(grace=0)
            assert await waiting() == 0
            await asyncio.sleep(0.5)
            assert await waiting() == 0
    finally:
        await locker.close()
        await looker.close()
