"""What several processes, or a line cut at the worst moment, may do to a store in PostgreSQL."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

import asyncpg
import pytest
from anyio import move_on_after
from proxies import Line
from servers import emptied, server
from stores import NOW, asked, at, claimed, ended, fired, firing, hourly, ids, know, put, state, stored, submitted

from taskloop import batches_postgres, hints_postgres, server_postgres
from taskloop.errors import StoreUnavailable
from taskloop.runs import Raised, RunId, State
from taskloop.statements_postgres import KEEPING
from taskloop.store import open_store
from taskloop.store_data import Definition, Query, Terms, Wish, Worker
from taskloop.store_postgres import READERS, PostgresStore

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def opened(url=None, patience=None, **options):
    store = PostgresStore(url or emptied().store, **({"call_seconds": patience} if patience else {}), **options)
    await store.open()
    await know(store, "a", "b")
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def other_session(url=None):
    connection = await asyncpg.connect(url or server().store)
    try:
        yield connection
    finally:
        await connection.close()


async def until(condition, seconds=10):
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.02)


# -- connections


async def test_those_who_give_up_waiting_for_a_connection_leave_no_further_one_behind():
    async with opened() as store, other_session() as other:
        async with other.transaction():
            await other.execute("LOCK TABLE taskloop.runs IN ACCESS EXCLUSIVE MODE")
            holding = [asyncio.create_task(store.find(Query())) for _ in range(READERS)]
            await asyncio.sleep(0.1)
            waiting = [asyncio.create_task(store.find(Query())) for _ in range(5)]
            await asyncio.sleep(0)
            for one in waiting:
                one.cancel()
            await asyncio.wait(waiting)
        await asyncio.gather(*holding)
        assert store._readers.qsize() == READERS


async def test_whoever_listens_for_hints_listens_again_after_its_connection_was_cut():
    async with opened() as mine, opened(server().store) as other, other_session() as session:
        await mine.hint(0.01)

        await until(lambda: _listens(mine))
        await session.fetch("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")

        async def deaf():
            return not mine._hints.listening

        await until(deaf)
        await until(lambda: _listens(mine))


async def test_those_who_write_after_the_writer_has_ended_take_turns():
    async with opened() as store:
        store._gathering._task.cancel()
        await asyncio.wait({store._gathering._task})
        answers = await asyncio.gather(*(store.submit([asked(key=f"{number}")]) for number in range(20)))
        assert len({one.id for [one] in answers}) == 20


class Quiet(Line):
    """A line on which nothing is heard any more of connections made before `hush`, as of a network that forgot them."""

    _made = _hushed = 0

    def hush(self):
        self._hushed = self._made

    async def carry(self, client):
        self._made += 1
        server = await self.reach()
        try:
            ways = (client[0], server[1], self._made), (server[0], client[1], self._made)
            await asyncio.gather(*(self._pass_on(*way) for way in ways))
        finally:
            server[1].close()

    async def _pass_on(self, reader, writer, number):
        while (data := await reader.read(65536)) and number > self._hushed:
            writer.write(data)
        await asyncio.Event().wait()


async def test_connections_that_were_forgotten_while_nobody_used_them_are_made_anew_before_they_are(monkeypatch):
    monkeypatch.setattr(server_postgres, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(server_postgres, "TRY_SECONDS", 0.2)
    monkeypatch.setattr(hints_postgres, "IDLE_SECONDS", 0.1)
    monkeypatch.setattr(hints_postgres, "AGAIN_SECONDS", 0.1)
    async with Quiet(emptied().store) as line, opened(line.url, patience=3) as store:
        await store.hint(0.01)
        await submitted(store)
        await asyncio.gather(*(store.find(Query()) for _ in range(READERS)))
        await until(lambda: _listens(store))
        listening = store._hints._connection
        line.hush()
        await submitted(store)
        assert [len(one) for one in await asyncio.gather(*(store.find(Query()) for _ in range(READERS)))] == [2, 2]

        async def anew():
            return store._hints.listening and store._hints._connection is not listening

        await until(anew)


async def test_a_store_whose_server_says_nothing_is_closed_in_the_time_of_one_goodbye():
    async with Quiet(emptied().store) as line, opened(line.url) as store:
        await store.hint(0.01)
        await asyncio.gather(*(store.find(Query()) for _ in range(READERS)))
        await until(lambda: _listens(store))
        line.hush()
        loop = asyncio.get_running_loop()
        began = loop.time()
        await store.close(0.2)
        assert loop.time() - began < 2.5  # one after the other they took four seconds


async def test_a_store_that_has_something_to_tell_waits_no_longer_for_a_server_that_says_nothing():
    async with Line(emptied().store) as line, opened(line.url) as store:
        await store.hint(0.01)
        await until(lambda: _listens(store))
        await submitted(store)
        assert store._hints._telling.is_set()
        line.parted = True
        loop = asyncio.get_running_loop()
        began = loop.time()
        await store.close()
        assert loop.time() - began < 1.6  # one goodbye; that it could not be told took another


async def test_hints_whose_closing_is_cancelled_leave_no_connection_behind():
    for turns in range(1, 8):
        async with opened() as store:
            await store.hint(0.01)
            await until(lambda store=store: _listens(store))
            await submitted(store)
            listening = store._hints._connection
            closing = asyncio.create_task(store._hints.close(1))
            for _ in range(turns):
                await asyncio.sleep(0)
            closing.cancel()
            await asyncio.wait({closing})
            assert listening.is_closed()


async def _listens(store):
    return store._hints.listening


# -- answers that are lost


async def test_what_is_committed_is_not_done_again_when_the_line_is_cut_before_the_rest_is_asked():
    """A batch of an end that is not ours any more and of runs asked for: how that end stands is asked after the commit."""
    for passes in range(9):
        async with Line(emptied().store) as line, opened(line.url) as store:
            await submitted(store)
            [run] = (await claimed(store)).started
            await store.settle(ended(run))
            stale = ended(run, now=at(60))
            line.cut, line.passes = "before", passes
            stands, *asking = await asyncio.gather(store.settle(stale), *(store.submit([asked("b")]) for _ in range(3)))
            line.cut = None
            assert stands is None
            assert ids(await store.find(Query(jobs=["b"]))) == sorted((run.id for [run] in asking), reverse=True), (
                passes
            )


class Twice(Line):
    """A line that is cut once more a little later: as what became of the first is known, and no more than that."""

    left = 2

    def _cuts(self):
        cut = super()._cuts()
        if cut:
            self.left -= 1
            self.cut, self.passes = ("before", 3) if self.left else (None, 0)
        return cut


async def test_what_was_found_to_be_committed_is_not_done_again_when_the_line_is_cut_once_more():
    for passes in range(5):
        async with Twice(emptied().store) as line, opened(line.url) as store:
            await submitted(store)
            [run] = (await claimed(store)).started
            line.cut, line.passes = "after", passes
            wrote, *asking = await asyncio.gather(
                store.settle(ended(run)), *(store.submit([asked("b")]) for _ in range(3))
            )
            line.cut = None
            assert wrote is not None
            assert ids(await store.find(Query(jobs=["b"]))) == sorted((run.id for [run] in asking), reverse=True), (
                passes
            )


async def test_a_store_that_is_opened_again_takes_no_write_of_before_for_one_whose_answer_was_lost():
    async with Line(emptied().store) as line, opened(line.url) as store:
        await submitted(store)
        await store.close()
        await store.open()
        for passes in range(6):
            line.cut, line.passes = "before", passes
            [run] = await store.submit([asked()])
            line.cut = None
            assert (await store.run(run.id)) is not None, passes
            await store.close()
            await store.open()


async def test_a_writer_that_is_cancelled_while_it_tells_others_does_nothing_twice():
    async with opened(statement_cache_size=0) as store:
        connection, cancelled = await store._writer.open(), []

        def heed(said):
            if said.query.startswith("WITH mine") and not cancelled:  # it is committed; others are told next
                cancelled.append(store._gathering._task.cancel())

        connection.add_query_logger(heed)
        [run] = await submitted(store)
        assert cancelled == [True]
        assert ids(await store.find(Query())) == [run.id]


async def test_the_first_that_a_store_writes_is_not_done_twice_if_its_answer_is_lost():
    async with opened() as one, opened(server().store) as other, other_session() as session:
        await submitted(one)
        [run] = (await claimed(one)).started
        async with session.transaction():  # whoever has the counters of that day has the end of the run wait
            await session.execute(
                "INSERT INTO taskloop.counters SELECT $1, 'a', 'succeeded', shard, 0, 0 FROM generate_series(0, 15) s(shard)",
                int(NOW.timestamp() // 86_400),
            )
            doing = asyncio.gather(other.settle(ended(run)), other.submit([asked("b")]))

            async def waiting(number):
                return number == await session.fetchval("SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted")

            await until(lambda: waiting(1))
            other._writer._connection.terminate()  # its session has not heard of that
            await until(lambda: waiting(2))  # the second asks what became of it
        await doing
        assert len(await one.find(Query(jobs=["b"]))) == 1


class Leading(Line):
    """A line to a server that cannot be reached while it `is_away`."""

    is_away = False

    async def reach(self):
        if self.is_away:
            raise OSError("away")
        return await super().reach()


async def test_what_a_batch_handed_out_that_was_given_up_is_handed_out_again():
    """Its COMMIT was done, its answer lost, and the server away for longer than anybody waits."""
    async with Leading(emptied().store) as line, opened(line.url, patience=0.5) as store:

        async def insisted(ask, passes):
            """The answer to a call, asked again if it was given up."""
            line.cut, line.passes, line.is_away = "after", passes, True
            answer = None
            with suppress(StoreUnavailable):
                answer = await ask()
            was_lost, line.cut, line.is_away = line.cut is None, None, False
            lost.append(was_lost)
            async with asyncio.timeout(20):
                while answer is None:  # a slow machine gives up before the line is cut, and once more, too
                    store._server._error = None  # the pause after a failure is over
                    with suppress(StoreUnavailable):
                        answer = await ask()
            return answer

        lost = []
        for passes in range(7):
            [run] = await submitted(store)
            [started] = (await insisted(lambda: claimed(store), passes)).started
            assert (started.id, started.attempt) == (run.id, 1), passes
            await store.cancel(run.id, actor="ann", reason="enough", now=NOW)
            assert await insisted(lambda: store.wishes("w1"), passes) == [Wish(run.id, "ann", "enough")], passes
            assert await store.settle(ended(started))
        assert sum(lost) > 6


# -- READ COMMITTED


async def test_a_run_that_starts_while_a_newer_one_replaces_it_is_asked_to_end_and_counted_once():
    async with opened() as one, opened(server().store) as two, other_session() as other:
        schedule = hourly()
        await put(one, schedule)
        await fired(one, firing(schedule, overlap="replace"))
        [run] = await one.find(Query(schedule="s"))
        async with other.transaction():  # as `two` claims it, and commits a moment later
            await other.execute(
                "UPDATE taskloop.runs SET state = 'running', worker = 'w2', token = token + 1, attempt = 1, "
                "started_at = ready_at, attempt_started_at = ready_at WHERE id = $1",
                run.id,
            )
            replacing = asyncio.create_task(
                fired(one, firing(await stored(one, "s"), now=at(3600), overlap="replace"), now=at(3600))
            )
            await asyncio.sleep(0.3)
        done = await replacing
        assert ids(done.gave_way) == []
        assert [wish.run for wish in await two.wishes("w2")] == [run.id]
        assert server().query("SELECT state, runs FROM taskloop.daily", "taskloop_tests") == []


async def test_a_disabled_fire_is_not_counted_into_a_row_that_is_being_pruned():
    async with opened() as store, other_session() as pruning:
        await put(store, hourly())
        await fired(store, firing(hourly(), enabled=False))
        async with pruning.transaction():
            await pruning.execute("DELETE FROM taskloop.runs")
            later = firing(await stored(store, "s"), now=at(3600), enabled=False)
            firing_it = asyncio.create_task(fired(store, later, now=at(3600)))
            await asyncio.sleep(0.2)
        await firing_it
        assert [(run.due_at, run.count) for run in await store.find(Query(skipped=True))] == [(at(3600), 1)]


async def test_two_workers_that_fire_two_schedules_of_a_job_on_trial_let_one_run_through():
    async with opened() as one, opened(server().store) as two:
        schedules = [hourly("s"), hourly("t")]
        await put(one, *schedules)
        for hour in range(5):
            now = at(3600 * hour)
            due = [firing(await stored(one, name), now=now)._replace(trial=True) for name in ("s", "t")]
            await asyncio.gather(fired(one, due[0], now=now), fired(two, due[1], worker="w2", now=now))
            [run] = (await claimed(one, now=now)).started
            await one.settle(ended(run, now=now))


async def test_a_database_whose_transactions_see_one_state_throughout_is_used_as_any_other():
    found = server()
    url = found.database("strict")
    found.execute("ALTER DATABASE strict SET default_transaction_isolation = 'serializable'")
    many = [PostgresStore(url) for _ in range(4)]
    await asyncio.gather(*(one.open() for one in many))
    for one in many:
        await know(one, Terms("a", group="g", places=1))
    await submitted(many[0], *(asked(group="g") for _ in range(10)))
    for number in range(10):
        started = await asyncio.gather(*(one.claim(f"w{at}", NOW, 5) for at, one in enumerate(many)))
        runs = [run for one in started for run in one.started]
        assert len(runs) == 1, number
        await many[0].settle(ended(runs[0]))
    for one in many:
        await one.close()


# -- within a transaction of the application's


async def test_a_key_that_an_open_transaction_has_holds_up_nobody_else():
    async with opened() as store, other_session() as other:
        async with other.transaction():
            [first] = await store.submit_within(other, [asked(key="k")])
            same = asyncio.create_task(store.submit([asked(key="k")]))
            await asyncio.sleep(0.1)
            assert not same.done()
            async with asyncio.timeout(2):
                await submitted(store)
                await submitted(store, asked(key="l"))
        [run] = await same
        assert (first.existed, run.existed, run.id) == (False, True, first.id)
        async with other.transaction():  # and whoever gives up has it told
            await store.submit_within(other, [asked(key="m")])
            told = []
            waits = asyncio.create_task(store.submit([asked(key="m")], told.append))
            await asyncio.sleep(0.3)
            assert told == []
            waits.cancel()
            await asyncio.wait({waits})
            await submitted(store)
            assert [type(one).__name__ for one in told] == ["KeyHeld"]


async def test_the_pruning_waits_for_no_open_transaction_of_an_application():
    async with opened(patience=0.5) as store, other_session() as other:
        await store.submit_within(other, [asked()])
        await other.execute("UPDATE taskloop.writers SET at = at - interval '2 days' WHERE id LIKE 'within %'")
        async with other.transaction():
            await store.submit_within(other, [asked()])
            pruned = await store.prune(timedelta(days=1), now=NOW)
            while pruned.after is not None:
                pruned = await store.prune(timedelta(days=1), now=NOW, after=pruned.after)


@pytest.mark.parametrize("isolation", ["repeatable_read", "serializable"])
async def test_an_application_whose_transaction_sees_one_state_throughout_can_submit_in_it(isolation):
    async with opened() as store, other_session() as one, other_session() as two:
        await store.submit_within(one, [asked()])
        async with one.transaction(isolation=isolation):
            await one.fetchval("SELECT count(*) FROM taskloop.jobs")
            await store.submit_within(two, [asked(key="k")])
            await store.submit_within(one, [asked()])
            with pytest.raises((asyncpg.UniqueViolationError, asyncpg.SerializationError)):
                await store.submit_within(one, [asked(key="k")])
        assert len(await store.find(Query())) == 3


@pytest.mark.parametrize("within", [False, True])
async def test_a_submit_that_a_scope_of_the_applications_gives_up_leaves_its_connection_as_it_was(within):
    """Such a scope cancels each await, that of taking back what was begun too: the connection was left in the middle of a
    transaction that nobody had begun, and what the application wrote next was never committed."""
    async with opened() as store, other_session() as holder, other_session() as one:
        begun = one.transaction()
        if within:
            await begun.start()
            await one.execute("CREATE TABLE public.of_the_application (number int)")
        async with holder.transaction():
            await holder.execute("LOCK TABLE taskloop.runs IN SHARE MODE")
            with move_on_after(0.2) as scope:
                await store.submit_within(one, [asked()])
            assert scope.cancelled_caught
        assert one.is_in_transaction() is within
        if within:  # which may go on, and be committed
            await one.execute("DROP TABLE public.of_the_application")
            await begun.commit()
        assert await store.find(Query()) == []
        await store.submit_within(one, [asked()])
        assert len(await store.find(Query())) == 1


async def test_of_two_applications_that_wait_for_each_other_one_is_told_in_the_words_of_its_driver():
    async with opened() as store, other_session() as one, other_session() as two:
        await two.execute("SET deadlock_timeout = '10ms'")
        async with one.transaction():
            await store.submit_within(one, [asked(key="k")])
            with pytest.raises(asyncpg.DeadlockDetectedError):  # by which an application knows to begin again
                async with two.transaction():
                    await store.submit_within(two, [asked(key="l")])
                    waiting = asyncio.create_task(store.submit_within(one, [asked(key="l")]))
                    await asyncio.sleep(0.1)
                    await store.submit_within(two, [asked(key="k")])
            await waiting
        assert sorted(str(run.key) for run in await store.find(Query())) == ["k", "l"]


# -- what jobs say


async def test_a_job_with_a_nul_in_its_definition_stops_neither_the_others_nor_the_pruning():
    async with opened() as store:
        facts = {"aliases": ["o"], "policy": {}, "params_schema": {"separator": "\0, or \ud800"}}
        await store.define([Definition(name, facts, "code", NOW) for name in ("c", "gone")])
        await put(store, hourly("s", "c"))
        assert await store.aliases() == {"o": "c"}
        day = timedelta(days=1)
        pruned = await store.prune(day, now=NOW + 9 * day)
        while pruned.after is not None:
            pruned = await store.prune(day, now=NOW + 9 * day, after=pruned.after)
        assert [one.name for one in await store.definitions()] == ["c"]


async def test_who_stands_still_in_the_middle_of_its_turn_loses_it_and_the_others_go_on(monkeypatch, guard):
    monkeypatch.setattr(batches_postgres, "BEGIN", batches_postgres.BEGIN.replace("3000", "200"))
    stands, went_on = threading.Event(), threading.Event()

    async def another():
        async with opened(server().store) as store:
            stands.wait(5)
            await put(store, hourly("of another"))
            went_on.set()

    def merge(old, new):
        if not stands.is_set():  # as a job does that holds the loop of this process
            stands.set()
            assert went_on.wait(5)
        return new

    async with opened() as store:
        other = threading.Thread(target=asyncio.run, args=(another(),))
        guard.deactivate()
        other.start()
        await store.put([hourly("ours")], merge, NOW)
        other.join()
        guard.activate()
        assert [one.id for one in await store.schedules()] == ["of another", "ours"]


async def test_the_engine_reads_whatever_pages_ask_and_runs_are_written_whoever_has_the_turn():
    async with opened() as store, other_session() as other, other_session() as holder:
        await put(store, hourly("s"))
        async with other.transaction(), holder.transaction():
            await other.execute("LOCK TABLE taskloop.counters IN ACCESS EXCLUSIVE MODE")
            await holder.execute("SELECT pg_advisory_xact_lock($1)", KEEPING)
            pages = [asyncio.create_task(store.days(["a"], NOW.date(), NOW.date())) for _ in range(2 * READERS)]
            turn = asyncio.create_task(put(store, hourly("t")))
            async with asyncio.timeout(5):
                await asyncio.sleep(0.1)
                assert [one.id for one in (await store.due(at(3600), 10)).schedules] == ["s"]
                assert await store.workers(living=True) == []
                await submitted(store)
                assert len((await claimed(store)).started) == 1
            assert not any(one.done() for one in (*pages, turn))
        await asyncio.gather(*pages, turn)


async def test_two_hundred_live_workers_all_know_each_other_and_beats_have_nobody_look():
    async with opened() as store, opened(server().store) as other:
        workers = [Worker(f"w{n:03}", None, "h", n, "p", NOW, NOW) for n in range(200)]
        await asyncio.gather(*(store.enlist(one) for one in workers))
        assert len(await other.workers(living=True)) == 200
        assert await other.changed()
        beater = store.beater(workers[0])
        await asyncio.to_thread(beater.beat, at(1), 1.0, {})
        assert not await other.changed()
        await asyncio.to_thread(beater.close)
        await submitted(store)
        assert await other.changed()
