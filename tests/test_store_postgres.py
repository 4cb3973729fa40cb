"""What only PostgreSQL can do to a store: lines that are cut, poolers, servers that restart, ten processes at once."""

from __future__ import annotations

import asyncio
import re
import sys
import textwrap
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from types import SimpleNamespace

import asyncpg
import pytest
from proxies import Line, Pooler
from servers import emptied, server
from stores import NOW, asked, at, claimed, ended, finished, fired, firing, hourly, ids, know, put, stored, submitted
from stories import lasting

from taskloop import Options, TaskScheduler, server_postgres
from taskloop.audit import Entry
from taskloop.clock import EPOCH
from taskloop.errors import BadStore, MissingExtra, StoreUnavailable
from taskloop.runs import Failure, Progress, Raised, Returned, State
from taskloop.steps import Step, StepState
from taskloop.server_postgres import explained, is_lost, migrations, prepare
from taskloop.store_postgres import PostgresStore
from taskloop.store import open_store
from taskloop.store_data import Query, Terms, Worker

pytestmark = pytest.mark.anyio
LOST = Failure("OSError", "no route", "Traceback …", "cafe")


@asynccontextmanager
async def opened(url=None, patience=None, **options):
    address = url or emptied().store
    store = open_store(address, **options) if patience is None else PostgresStore(address, call_seconds=patience)
    await store.open()
    await know(store, "a", "b")
    try:
        yield store
    finally:
        await store.close()


async def cut_all(url):
    """End every session of a database but ours."""
    connection = await asyncpg.connect(url)
    await connection.fetch(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()


# -- the schema


async def test_ten_that_open_an_empty_database_at_once_all_get_the_store():
    url = server().database("fresh")
    stores = [open_store(url) for _ in range(10)]
    await asyncio.gather(*(one.open() for one in stores))
    assert [(await submitted(one))[0].id for one in stores] == list(range(1, 11))
    for one in stores:
        await one.close()


async def test_what_is_there_is_refused_unless_it_is_ours_and_not_newer_and_left_as_it_is():
    found = server()
    url = found.database("strange")
    with pytest.raises(BadStore, match="without the tables of a store"):
        await open_store(url).open(create=False)
    found.execute("CREATE SCHEMA taskloop;\nCREATE TABLE taskloop.mine (x int)", "strange")
    with pytest.raises(BadStore, match="not ours; it was left as it is"):
        await open_store(url).open()
    assert found.query("SELECT count(*) FROM pg_class WHERE relnamespace = 'taskloop'::regnamespace", "strange") == [
        (1,)
    ]
    found.execute("DROP TABLE taskloop.mine", "strange")
    async with opened(url) as store:  # a schema that its owner has made for us
        found.execute("UPDATE taskloop.meta SET value = '999' WHERE key = 'schema'", "strange")
        with pytest.raises(BadStore, match="by a newer taskloop"):
            await store.submit([asked()])
        with pytest.raises(BadStore, match="has schema 999, this taskloop knows up to"):
            await open_store(url).open()
        assert found.query("SELECT count(*) FROM taskloop.runs", "strange") == [(0,)]


async def test_an_older_schema_is_refused_or_left_as_it_is_or_brought_up_to_date_and_loses_nothing():
    found = server()
    url = found.database("older")
    [(_, first), *_] = migrations()
    found.execute(f"CREATE SCHEMA taskloop;\n{first}INSERT INTO taskloop.meta VALUES ('schema', '1')", "older")
    found.execute("INSERT INTO taskloop.switches (job, kind, since) VALUES ('a', 'disabled', 7)", "older")
    with pytest.raises(BadStore, match=r"schema 1, this taskloop needs \d+; .*`taskloop db upgrade`"):
        await open_store(url).open(schema="newest")
    store = open_store(url)
    await store.open(schema="any")
    assert not [one for one in await store.check() if "is not there" in one], "what a later schema brings is not missed"
    await store.close()
    assert store.upgraded_from is None
    assert found.query("SELECT value FROM taskloop.meta WHERE key = 'schema'", "older") == [("1",)]
    async with opened(url) as store:
        assert store.upgraded_from == 1
        assert [one.kind for one in await store.switches()] == ["disabled"]
        await store.submit([asked()], None, Entry(NOW, "ann", "cli", "submit"))
        assert [one.object for one in await store.audit()] == ["1"]


async def test_an_upgrade_by_a_user_with_few_rights_is_referred_to_the_owner_of_the_schema():
    found = server()
    url = found.database("older")
    [(_, first), *_] = migrations()
    found.execute(f"CREATE SCHEMA taskloop;\n{first}INSERT INTO taskloop.meta VALUES ('schema', '1')", "older")
    few = "CREATE ROLE few LOGIN;\nGRANT USAGE ON SCHEMA taskloop TO few;\n"
    few += "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA taskloop TO few"
    found.execute(few, "older")
    try:
        with pytest.raises(
            BadStore, match=r"schema 1, .* let the owner of the schema run `taskloop db upgrade`, and grant"
        ):
            await open_store(re.sub("//[^@/]*@", "//few@", url)).open()
        assert found.query("SELECT value FROM taskloop.meta WHERE key = 'schema'", "older") == [("1",)]
    finally:
        found.execute("DROP OWNED BY few;\nDROP ROLE few", "older")


async def test_an_upgrade_that_others_cross_is_begun_again():
    found = server()
    url = found.database("older")
    [(_, first), *_] = migrations()
    found.execute(f"CREATE SCHEMA taskloop;\n{first}INSERT INTO taskloop.meta VALUES ('schema', '1')", "older")
    worker = await asyncpg.connect(url, server_settings={"deadlock_timeout": "1min"})  # that the upgrade is given up
    await worker.execute("BEGIN; LOCK TABLE taskloop.runs IN ROW EXCLUSIVE MODE")
    store = open_store(f"{url}&deadlock_timeout=300ms")
    opening = asyncio.create_task(store.open())
    while not await worker.fetchval("SELECT 1 FROM pg_locks WHERE NOT granted"):  # for the table of runs
        await asyncio.sleep(0.01)
    await worker.execute("LOCK TABLE taskloop.switches IN ROW EXCLUSIVE MODE; COMMIT")
    await opening
    assert store.upgraded_from == 1
    await worker.close()
    await store.close()


async def test_an_upgrade_lasts_as_long_as_it_takes_whatever_time_the_administrator_gives_statements():
    found = server()
    url = found.database("older")
    for (limit,) in found.query(
        "SELECT name FROM pg_settings WHERE name IN ('statement_timeout', 'transaction_timeout')"
    ):
        found.execute(f"ALTER DATABASE older SET {limit} = '300ms'")
    slow = [(number, f"{script};\nSELECT pg_sleep(0.4)") for number, script in migrations()]
    connection = await asyncpg.connect(url)
    try:
        await prepare(connection, "a store", create=True, schema="upgrade", read=lambda: slow)
        assert await connection.fetchval("SELECT count(*) FROM taskloop.runs") == 0
    finally:
        await connection.close()


async def test_a_database_whose_encoding_has_no_place_for_many_texts_is_refused_with_the_mend():
    found = server()
    found.execute("DROP DATABASE IF EXISTS narrow WITH (FORCE);\nDROP DATABASE IF EXISTS bytes WITH (FORCE)")
    for name, encoding in (("narrow", "LATIN1"), ("bytes", "SQL_ASCII")):
        found.execute(
            f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0", "postgres"
        )
    with pytest.raises(BadStore, match="encoding LATIN1, .*; make one with `createdb --encoding=UTF8"):
        await open_store(found.address("narrow")).open()
    assert found.query("SELECT 1 FROM pg_namespace WHERE nspname = 'taskloop'", "narrow") == []
    async with opened(found.address("bytes")) as store:
        run = await finished(store, Returned({"price": "5 €"}, summary="5 €"))
        assert ((await store.run(run.id)).result, run.summary) == ({"price": "5 €"}, "5 €")
    script = "".join(text for _, text in migrations())
    found.execute(
        f"CREATE SCHEMA taskloop;\n{script}INSERT INTO taskloop.meta VALUES ('schema', '{len(migrations())}')", "narrow"
    )
    store = open_store(found.address("narrow"))
    await store.open(schema="newest")  # of one that was made before: to be looked at, and copied to another
    assert any("encoding LATIN1" in one for one in await store.check())
    await store.close()


@pytest.mark.parametrize("before", ["/", ""])
async def test_a_database_that_an_option_names_is_the_one_that_is_used(before):
    named = re.sub(r"/taskloop_tests\?", f"{before}?dbname=taskloop_tests&", emptied().store)
    async with opened(named) as store:
        assert [tuple(one) for one in await store._fetch("SELECT current_database()")] == [("taskloop_tests",)]


async def test_a_database_a_server_or_a_user_that_is_not_there_is_said_with_the_mend():
    found = server()
    for url, mend in (
        (found.address("nowhere"), "createdb"),
        ("postgresql:///x?host=/nonexistent", "see whether the server runs"),
        (found.address("postgres").replace("postgres:@", "nobody:secret@"), "user and the password"),
    ):
        store = open_store(url)
        with pytest.raises(StoreUnavailable, match=mend) as caught:
            await store.open()
        assert "secret" not in str(caught.value) + store.url
    for wrong, mend in (
        (
            f"{found.store}&connect_timeout=9",
            "unrecognized .*; see the options in its address, and leave out .*connect_timeout",
        ),
        (f"{found.store}&sslmode=perhaps", "see the options in its address"),
    ):
        with pytest.raises(BadStore, match=mend):
            await open_store(wrong).open()
    with pytest.raises(BadStore, match="names no database"):
        open_store("postgresql://host")
    store = open_store("postgresql:///x?host=/nonexistent")
    for _ in range(3):  # within the pause nobody knocks again
        with pytest.raises(StoreUnavailable):
            await store.open()


async def test_without_its_driver_the_package_to_install_is_named(monkeypatch):
    from taskloop import server_postgres

    monkeypatch.setitem(sys.modules, "asyncpg", None)
    server_postgres._driver.cache_clear()
    with pytest.raises(MissingExtra, match=r"taskloop\[postgres\]"):
        await open_store("postgresql:///x").open()
    server_postgres._driver.cache_clear()


# -- connections that are lost


async def test_connections_that_are_cut_between_statements_lose_and_double_nothing():
    async with opened() as store:
        url = server().store
        for round_number in range(5):
            asking = [asyncio.create_task(store.submit([asked()])) for _ in range(20)]
            if round_number % 2:
                await asyncio.sleep(0.002)
            await cut_all(url)
            answers = await asyncio.gather(*asking)
            assert len(await store.find(Query(limit=1000))) == 20 * (round_number + 1)
            runs = (await claimed(store)).started
            assert sorted(ids(runs)) == sorted(run.id for answer in answers for run in answer)
            await cut_all(url)
            assert all(await asyncio.gather(*(store.settle(ended(run)) for run in runs)))
        assert dict(await store.counts()) == {State.WAITING: 0, State.RUNNING: 0}


@pytest.mark.parametrize("where", ["before", "after"])
async def test_wherever_the_line_is_cut_what_was_committed_is_read_back_and_not_repeated(where):
    async with Line(emptied().store) as line, opened(line.url) as store:

        async def cutting(ask, passes):
            """The answer to a call whose line is cut after so much has passed."""
            line.cut, line.passes = where, passes
            answer = await ask()
            cut, line.cut = line.cut is None, None
            return answer, cut

        schedule, number, cuts = hourly(), 0, 0
        for passes in range(12):
            [run], cut = await cutting(lambda: store.submit([asked()]), passes)
            number, cuts = number + 1, cuts + cut
            assert len(await store.find(Query(limit=1000))) == number
            have, cut = await cutting(lambda: store.claim("w1", NOW, 10), passes)
            assert ids(have.started) == [run.id]
            assert await store.run(run.id) == have.started[0]
            cuts += cut
            stands, cut = await cutting(lambda run=have.started[0]: store.settle(ended(run)), passes)
            assert stands.state is State.SUCCEEDED
            cuts += cut
        assert cuts >= 10
        await put(store, schedule)
        for passes in range(12):
            now = at(3600 * passes)
            firing_ = firing(await stored(store, "s"), now=now, starts=True, overlap="allow")
            done, _ = await cutting(lambda one=firing_, now=now: store.fire([one], "w1", now), passes)
            assert [(run.due_at, run.token) for run in done.started] == [(now, 1)]
        assert len(await store.find(Query(schedule="s"))) == 12
        rows = server().query("SELECT state, runs FROM taskloop.daily", "taskloop_tests")
        assert rows == [("succeeded", number)], "nothing is counted twice"


async def test_a_host_that_ends_its_loop_in_the_middle_of_a_batch_loses_and_doubles_nothing():
    """It cancels every task, also the one that writes: what is in hand is written nevertheless, and what comes after."""
    emptied()
    total = 0
    for ticks in (0, 1, 2, 3, 5, 8, 13, 21, 34):
        for bad in ({}, {"params": {"not": {1}}}):
            async with opened(server().store) as store:
                asking = [asyncio.create_task(store.submit([asked()])) for _ in range(3)]
                asking.append(asyncio.create_task(store.submit([asked(**bad)])))
                for _ in range(ticks):
                    await asyncio.sleep(0.0002)
                store._gathering._task.cancel()
                answers = await asyncio.gather(*asking, store.submit([asked()]), return_exceptions=True)
                assert [isinstance(one, Exception) for one in answers] == [False] * 3 + [bool(bad), False]
                total += 5 - bool(bad)
                there = ids(await store.find(Query(limit=1000)))
                assert len(there) == total
                assert {run.id for one in answers if not isinstance(one, Exception) for run in one} <= set(there)


async def test_a_server_that_restarts_at_once_is_used_again_when_it_is_back():
    found = emptied()
    if found.own is None:
        pytest.skip("the server is not ours to restart")
    async with opened() as store:
        answered, refused = [], 0
        restarting = asyncio.create_task(asyncio.to_thread(found.restart))
        while not restarting.done() or len(answered) < 50:
            try:
                answered += ids(await store.submit([asked()]))
            except StoreUnavailable:
                refused += 1
                await asyncio.sleep(0.02)
        await restarting
        there = None
        async with asyncio.timeout(10):
            while there is None:  # a reader is refused in the pause after a failure, as a writer is
                try:
                    there = await store.find(Query(limit=1000))
                except StoreUnavailable:
                    await asyncio.sleep(0.02)
        assert set(answered) == set(ids(there)), "what was answered is there, and nothing else is"
        assert refused < 500


@pytest.mark.parametrize(
    "outcome",
    [Returned(), Raised(LOST, None), Raised(LOST, timedelta(seconds=30))],
    ids=["well", "failed", "to be tried again"],
)
async def test_who_had_a_run_that_a_standby_never_heard_of_changes_nothing_of_the_one_that_has_its_id_now(outcome):
    """The record is as after a take-over without the last that was written: the id was given again, the token is the same."""
    async with opened() as store:
        await submitted(store, asked(attempts=2))
        [run] = (await claimed(store, "w1")).started
        server().execute(f"UPDATE taskloop.runs SET worker = 'w2' WHERE id = {run.id}", "taskloop_tests")
        assert await store.settle(ended(run, outcome)) is None
        assert not await store.step(run, [Step(name="first", state=StepState.SUCCEEDED, result=7)])
        await store.progress([(run, Progress(1, 2))])
        [there] = await store.find(Query())
        assert (there.state, there.worker, there.progress) == (State.RUNNING, "w2", None)
        assert not await store.steps(run.id)
        assert await store.settle(ended(there)) == await store.run(run.id)


async def test_a_server_that_does_not_answer_lets_its_callers_go():
    async with opened(patience=0.3) as store, opened(server().store) as other:
        connection = await asyncpg.connect(server().store)
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE taskloop.runs IN ACCESS EXCLUSIVE MODE")
                for call in (store.submit([asked()]), store.find(Query())):
                    with pytest.raises(StoreUnavailable, match="answer"):
                        await call
            assert len(await submitted(store)) == 1
            assert ids(await other.find(Query())) == ids(await store.find(Query()))
        finally:
            await connection.close()


async def test_of_a_pooler_that_has_no_session_left_it_is_told_how_many_there_must_be(monkeypatch):
    monkeypatch.setattr(server_postgres, "CONNECT_SECONDS", 0.3)
    async with Line(emptied().store) as line:
        line.parted = True
        with pytest.raises(StoreUnavailable, match="does not answer; .* a session for each connection, seven a worker"):
            await open_store(line.url).open()


async def test_of_several_servers_one_that_says_nothing_is_not_waited_for():
    found = emptied()
    async with Line(found.store) as line:
        line.parted = True
        folder = re.search(r"host=([^&]+)", line.url)[1]
        both = found.store.replace("host=", f"host={folder},")
        began = asyncio.get_running_loop().time()
        async with opened(f"{both}&target_session_attrs=read-write") as store:
            await submitted(store)
            assert asyncio.get_running_loop().time() - began < 9, "the driver would give it the ten of both"
    with pytest.raises(StoreUnavailable, match="no server of its address is such a one .* a standby is to become one"):
        await open_store(f"{found.store}&target_session_attrs=standby").open()


async def test_of_several_servers_one_that_says_nothing_is_waited_for_once_not_by_each_connection():
    """A start has four, one after the other."""
    found = emptied()
    async with Line(found.store) as line:
        line.parted = True
        folder = re.search(r"host=([^&]+)", line.url)[1]
        async with opened(found.store.replace("host=", f"host={folder},")) as store:
            began = asyncio.get_running_loop().time()
            await store.find(Query())
            await store.in_hand("one")
            await submitted(store)
            assert asyncio.get_running_loop().time() - began < 1


async def test_what_is_given_up_while_a_table_is_locked_waits_for_it_at_the_server_no_longer():
    async with opened(patience=0.3) as store, opened(patience=30) as patient:
        locker, looker = await asyncpg.connect(server().store), await asyncpg.connect(server().store)

        async def waiting():
            return await looker.fetchval("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")

        try:
            async with locker.transaction():
                await locker.execute("LOCK TABLE taskloop.runs IN ACCESS EXCLUSIVE MODE")
                for call in (
                    partial(store.find, Query()),
                    partial(store.in_hand, "one"),
                    partial(store.submit, [asked()]),
                ):
                    with pytest.raises(StoreUnavailable, match=r"its server can be reached: .* is not committed"):
                        await call()
                    assert await waiting() == 0
                reading = asyncio.create_task(patient.find(Query()))
                while not await waiting():
                    assert not reading.done()
                reading.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await reading
                assert await waiting() == 0
        finally:
            await locker.close()
            await looker.close()


async def test_reads_that_are_cancelled_leave_as_many_connections_as_there_were():
    async with opened() as store:
        for ticks in range(6):
            asking = [asyncio.create_task(store.find(Query())) for _ in range(8)]
            for _ in range(ticks):
                await asyncio.sleep(0)
            for one in asking[::2]:
                one.cancel()
            answers = await asyncio.gather(*asking, return_exceptions=True)
            assert not any(isinstance(one, BaseException) for one in answers[1::2])
            assert store._readers.qsize() == 2


def test_only_what_says_that_a_connection_is_gone_is_taken_for_that():
    lost = [
        ConnectionResetError(),
        asyncpg.ConnectionDoesNotExistError("x"),
        asyncpg.InterfaceError("connection is closed"),
    ]
    lost += [asyncpg.AdminShutdownError("x"), asyncpg.CannotConnectNowError("x"), TimeoutError()]
    lost += [asyncpg.ReadOnlySQLTransactionError("x")]
    lost += [asyncpg.InternalClientError("cannot switch to state 15; another operation (2) is in progress")]
    kept = [asyncpg.UniqueViolationError("x"), asyncpg.DataError("x"), ValueError("x"), StoreUnavailable("x")]
    kept += [asyncpg.InterfaceError("cannot perform operation: another operation is in progress")]
    assert [is_lost(one) for one in [*lost, *kept]] == [True] * len(lost) + [False] * len(kept)


def test_only_of_a_server_that_cannot_be_reached_it_is_said_to_see_whether_it_can():
    told = {
        ConnectionRefusedError("refused"): "can be reached from here",
        asyncpg.AdminShutdownError("terminated"): "can be reached from here",
        asyncpg.InternalClientError(
            "cannot switch to state 12"
        ): "store s: the connection was cut; see whether the server runs and can be reached from here",
        asyncpg.CannotConnectNowError("starting up"): "store s: starting up; it is starting or stopping: wait until it is up",
        TimeoutError(): "can be reached from here, and pg_stat_activity for who holds it",
        asyncpg.InvalidSQLStatementNameError("no such statement"): "behind a pooler that gives each transaction another session",
        asyncpg.DuplicatePreparedStatementError("is there"): "say store.statement_cache_size = 0",
        asyncpg.QueryCanceledError("statement timeout"): "see the statement_timeout of its user",
        asyncpg.ReadOnlySQLTransactionError("read-only"): "takes no writes: see whether it is a standby",
        asyncpg.InsufficientPrivilegeError("denied"): "CREATE SCHEMA taskloop AUTHORIZATION",
        asyncpg.TooManyConnectionsError("too many connections for role"): "its max_connections, or the CONNECTION LIMIT of the role",
        asyncpg.LockNotAvailableError("lock timeout"): "holds a table or row of the store and is not committed",
        asyncpg.DiskFullError("no space left"): "store s: no space left; see the server's disk",
        asyncpg.DuplicateTableError("relation exists"): "store s: relation exists; see what the server's log says of it (SQLSTATE 42P07)",
        asyncpg.InterfaceError("busy"): "store s: busy",
    }  # fmt: skip
    for error, words in told.items():
        found = str(explained(error, "s"))
        assert words in found
        assert ("can be reached" in found) == ("can be reached" in words)


async def test_readers_whose_sessions_are_ended_at_any_moment_read_on():
    async with opened() as store:
        [run] = await submitted(store)
        may_end = asyncio.Event()

        reads = [0, 0]

        async def follow(who: int) -> None:
            while not may_end.is_set():
                assert (await store.lines(run.id), (await store.run(run.id)).id) == (([], 0), run.id)
                reads[who] += 1

        followers = [asyncio.create_task(follow(who)) for who in range(2)]
        for number in range(12):
            await cut_all(server().store)
            before = [*reads]
            while min(now - then for now, then in zip(reads, before, strict=True)) < 3:
                assert not any(one.done() for one in followers)
                await asyncio.sleep(0.01)  # a look that is cut off twice is given up
            await asyncio.sleep(0.003 * number)
        may_end.set()
        await asyncio.gather(*followers)


# -- poolers


async def test_behind_a_pooler_that_gives_each_transaction_another_session_everything_works():
    async with Pooler(emptied().store) as pooler, opened(pooler.url, statement_cache_size=0) as store:
        await store.enlist(Worker("w1", None, "h", 1, "p", NOW, NOW))
        await know(store, Terms("a", group="g", places=2), Terms("b", max_running=1))
        await put(store, hourly("s"), hourly("t", "b"))
        assert len((await store.due(NOW, 10)).schedules) == 2
        await fired(store, firing(hourly("s"), group="g"), firing(hourly("t", "b"), max_running=1))
        await submitted(store, asked(key="k", group="g"), asked("b"))
        runs = (await claimed(store)).started
        assert sorted(run.job for run in runs) == ["a", "a", "b"]
        assert all(await asyncio.gather(*(store.settle(ended(run)) for run in runs)))
        beater = store.beater(Worker("w1", None, "h", 1, "p", NOW, NOW))
        assert await asyncio.to_thread(beater.beat, NOW, 1.0, {})
        await asyncio.to_thread(beater.close)
        await store.hint(0.01)
        assert pooler.sessions >= 10


# -- several processes


async def test_a_crowd_brings_ids_for_the_next_and_who_comes_alone_or_later_takes_none_of_them(monkeypatch):
    time = SimpleNamespace(monotonic=lambda: time.now, now=0.0)
    monkeypatch.setattr("taskloop.stroke_postgres.time", time)
    async with opened() as store, opened(store._server.dsn) as other:

        async def crowd():
            return [run.id for [run] in await asyncio.gather(*(store.submit([asked()]) for _ in range(10)))]

        assert [run.id for run in await submitted(store)] == [1]
        assert [run.id for run in await submitted(store)] == [2]
        assert await crowd() == list(range(3, 13))
        assert [run.id for run in await submitted(other)] == [23]
        assert await crowd() == list(range(13, 23))  # of one moment, in whatever order
        time.now += 1
        assert await crowd() == list(range(34, 44))


async def test_a_beat_never_waits_behind_other_calls_and_tells_how_far_the_clocks_are_apart():
    one = Worker("w1", None, "h", 1, "p", NOW, NOW)
    async with opened() as store:
        await store.enlist(one)
        beater = store.beater(one)
        connection = await asyncpg.connect(server().store)
        async with connection.transaction():
            await connection.execute("LOCK TABLE taskloop.runs IN ACCESS EXCLUSIVE MODE")
            stuck = asyncio.create_task(store.submit([asked()]))
            for _ in range(2):
                assert await asyncio.to_thread(beater.beat, NOW, 1.0, {"running": 3})
        await stuck
        await connection.close()
        [found] = await store.workers()
        assert found.health["running"] == 3
        assert found.health["skew_ms"] > 86_400_000  # the tests live in March
        await asyncio.to_thread(beater.close)


async def test_a_hint_of_another_process_is_heard_at_once_and_its_own_is_not():
    async with opened() as mine, opened(server().store) as other:
        loop = asyncio.get_running_loop()
        await mine.hint(0.05)
        while not mine._hints.listening:
            await asyncio.sleep(0.01)
        began = loop.time()
        waiting = asyncio.create_task(mine.hint(10))
        await submitted(other)
        await waiting
        assert loop.time() - began < 5
        await submitted(mine)
        began = loop.time()
        await mine.hint(0.3)
        assert loop.time() - began >= 0.25


async def test_where_the_server_keeps_no_more_hints_what_they_are_about_is_written_all_the_same():
    found = server()
    if found.own is None or not found.query("SELECT 1 FROM pg_settings WHERE name = 'max_notify_queue_pages'"):
        pytest.skip("a queue that is full by a few hints can only be had of a newer server, and of one that is ours")
    found.execute("ALTER SYSTEM SET max_notify_queue_pages = 64")
    await asyncio.to_thread(found.restart)
    listener, other = await asyncpg.connect(found.store), await asyncpg.connect(found.store)
    try:
        await listener.execute("LISTEN anything")
        await listener.execute("BEGIN")  # it hears nothing until this ends, so all is kept for it
        with suppress(asyncpg.ProgramLimitExceededError):
            while True:
                await other.executemany("SELECT pg_notify('anything', $1)", [(f"{n} {'x' * 7000}",) for n in range(20)])
        async with opened(emptied().store) as store:
            [run] = await submitted(store, asked(key="k"))
            async with other.transaction():
                [within] = await store.submit_within(other, [asked()])
            assert [one.id for one in (await claimed(store)).started] == [run.id, within.id]
    finally:
        await listener.close()
        await other.close()
        found.execute("ALTER SYSTEM RESET max_notify_queue_pages")
        await asyncio.to_thread(found.restart)


async def test_what_is_to_be_told_when_a_store_is_closed_is_told_before_it_goes():
    async with opened() as mine:
        await mine.hint(0.05)
        async with opened(server().store) as other:
            await other.hint(0.05)
            while not (mine._hints.listening and other._hints.listening):
                await asyncio.sleep(0.01)
            waiting = asyncio.create_task(mine.hint(10))
            await submitted(other)
        began = asyncio.get_running_loop().time()
        await waiting
        assert asyncio.get_running_loop().time() - began < 5


async def test_virtual_time_ends_beside_a_store_that_has_something_to_tell(virtual_time):
    scheduler = TaskScheduler(options=Options())
    scheduler.add_job(lasting(1), name="work")
    async with virtual_time(scheduler, store=emptied().store) as time:
        await time.advance("1s")
        while not scheduler._store._hints.listening:
            await asyncio.sleep(0)  # for the server, which takes its own time
        await scheduler.pause("work")
        await scheduler.submit("work")
        assert scheduler._store._hints._telling.is_set()


# -- what is put together


@pytest.mark.parametrize("keep", [timedelta(days=1), None], ids=["kept for a day", "kept for ever"])
async def test_what_was_apart_only_while_it_was_written_is_put_together_whatever_is_kept(keep):
    """Sixteen rows a day for each job and state stayed for ever, and with keep = "off" three for each start."""
    today = (NOW - EPOCH).days
    async with opened() as store:
        other = await asyncpg.connect(server().store)
        await other.execute(
            "INSERT INTO taskloop.writers (id, writes, at) VALUES ('left', 5, now() - interval '2 days')"
        )
        await other.executemany(
            "INSERT INTO taskloop.counters VALUES ($1, $2, 'succeeded', $3, 1, $4)",
            [(today - ago, job, shard, 10 * shard) for ago in (1, 2, 40) for job in "ab" for shard in (0, 3, 5)],
        )
        span = (NOW - timedelta(days=40)).date(), NOW.date()
        before = await store.days(["a"], *span)
        pruned = await store.prune(keep, now=NOW)
        while pruned.after is not None:
            pruned = await store.prune(keep, now=NOW, after=pruned.after)
        rows = await other.fetch("SELECT day, job, shard, runs, took FROM taskloop.counters ORDER BY 1, 2, 3")
        assert [tuple(row) for row in rows if row[0] == today - 2] == [(today - 2, job, 0, 3, 80) for job in "ab"]
        assert [today - row[0] for row in rows if row[1] == "a"] == [40] * 3 + [2] + [1] * 3
        assert await store.days(["a"], *span) == before
        assert await other.fetch("SELECT FROM taskloop.writers WHERE id = 'left'") == []
        await other.close()
