"""`db copy` to a PostgreSQL server and back."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from command_line import call, nothing_blocks_the_loop, shop
from servers import emptied, server
from stores import database, know, submitted
from test_copying import filled, made, rows, transferred

from taskloop import State
from taskloop.copying import TABLES
from taskloop.errors import Conflict, StoreUnavailable
from taskloop.keyring import Keyring
from taskloop.store import open_store

__all__ = ["call", "nothing_blocks_the_loop", "shop"]

pytestmark = pytest.mark.anyio


async def test_a_copy_knows_every_column_of_every_table_of_a_server():
    store = open_store(emptied().store)
    await store.open()
    await store.close()
    found = server().query(
        "SELECT table_name::text, column_name::text FROM information_schema.columns WHERE table_schema = 'taskloop'",
        "taskloop_tests",
    )
    kept = {table: {column for name, column in found if name == table} for table, _ in found}
    # `daily` is what all shards of the counters add up to; who has written how often is of the server itself.
    assert {name for name in kept if name not in ("counters", "writers")} == set(TABLES)
    assert all(kept[table] == set(columns) for table, (_, columns) in TABLES.items())


def test_the_command_copies_to_a_server_and_back_without_a_word_of_the_password(shop, call):
    assert call("submit", "add", "a=1").code == call("disable", "add", "--reason", "moving").code == 0
    done = call("db", "copy", "taskloop.db", emptied().store, "--format", "json")
    assert done.code == 0, done.err
    assert done.data["tables"]["audit"]["rows"] == 2
    back = call("db", "copy", server().store, "back.db", "--format", "json")
    assert back.data["tables"] == done.data["tables"] and rows("back.db") == rows("taskloop.db")
    again = call("db", "copy", "taskloop.db", server().store)
    assert again.code == 4 and "is not empty (" in again.err
    away = call("db", "copy", "taskloop.db", "postgresql://u:hunter2@/d?host=/nonexistent")
    assert away.code == 8 and "see whether the server runs" in away.err and "hunter2" not in away.err
    empty = call("db", "copy", server().database("nothing"), "new.db")
    assert empty.code == 8 and "without the tables of a store" in empty.err and "new.db" not in shop.files


async def test_a_store_goes_to_a_server_and_back_and_a_scheduler_goes_on_there(virtual_time, tmp_path):
    first, back = tmp_path / "a.db", tmp_path / "b.db"
    server = emptied()
    scheduler = made()
    async with virtual_time(scheduler, store=f"sqlite:///{first}") as time:
        await filled(time, scheduler, first)
        with database(first) as db:  # what no text of PostgreSQL can hold
            db.execute("UPDATE taskloop_runs SET summary = 'a' || char(0) || 'b' || char(26) || '0' WHERE id = 2")
        await time.crash()
        sums = await transferred(first, server.store)
        assert await transferred(server.store, back) == sums
        assert rows(first) == rows(back)
        with pytest.raises(Conflict, match=r"is not empty \(4 in jobs, .*a copy keeps ids"):
            await transferred(first, server.store)
        now = time.now

    again = made()
    async with virtual_time(again, store=server.store, at=now) as time:
        newest = max(run.id for run in await again.runs())
        kept = await again.submit("steps", {"word": "hunter2"}, key="k")
        assert kept.existed and (await again.run(kept.id)).result == [{"a": 1}]
        assert (await again.log(kept.id)).lines[0].text == "begins" and len(await again.steps(kept.id)) == 1
        assert [one.name for one in await Keyring(again._opened, time.clock).live()] == ["ci"]
        await again.disable("steps")  # ids that the server gives go on after those that it was given
        await again.enable("steps")
        await again.submit("steps", {"word": "hunter3"})
        await time.advance("15m")
        assert [run.state for run in await again.runs("long")] == [State.RUNNING, State.INTERRUPTED]
        fired = [run for run in await again.runs("often") if run.id > newest]
        assert {run.schedule for run in fired} == {"often", "added"}


async def while_it_is_idle(seconds):
    """Until the transaction of a copy has been idle for so long; or is gone."""
    idle = "SELECT clock_timestamp() - state_change > interval '{} s' FROM pg_stat_activity WHERE state = 'idle in transaction'"
    while await asyncio.to_thread(server().query, idle.format(seconds)) == [(False,)]:
        pass


async def paused(batches, pause):
    """The same, with a pause after the first."""
    first = True
    async with aclosing(batches):
        async for batch in batches:
            yield batch
            if first:
                await pause()
            first = False


@pytest.fixture
async def there(tmp_path):
    """A store on a server, with a run, and an empty one in a file."""
    place = emptied()
    stores = open_store(place.store), open_store(f"sqlite:///{tmp_path / 'a.db'}")
    for store in stores:
        await store.open()
    await know(stores[0], "a")
    await submitted(stores[0])
    yield stores
    for store in stores:
        await store.close()
    place.execute("ALTER DATABASE taskloop_tests RESET ALL")


async def test_a_copy_lasts_as_long_as_it_takes_whatever_time_the_administrator_gives_transactions(there):
    on_server, in_file = there
    limits = ["idle_in_transaction_session_timeout"]
    limits += (
        ["transaction_timeout"]
        if server().query("SELECT 1 FROM pg_settings WHERE name = 'transaction_timeout'")
        else []
    )
    for limit in limits:
        server().execute(f"ALTER DATABASE taskloop_tests SET {limit} = '300ms'")
    await in_file.take_in(paused(on_server.export(), lambda: while_it_is_idle(0.6)))
    server().execute("TRUNCATE taskloop.runs, taskloop.jobs", "taskloop_tests")
    await on_server.take_in(paused(in_file.export(), lambda: while_it_is_idle(0.6)))
    assert server().query("SELECT job FROM taskloop.runs", "taskloop_tests") == [("a",)]


async def test_a_copy_whose_connection_is_ended_says_so_and_leaves_nothing(there):
    on_server, in_file = there
    ended = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE state = 'idle in transaction'"

    async def end():
        await asyncio.to_thread(server().query, ended)

    with pytest.raises(StoreUnavailable, match=": connection is closed; see whether the server runs"):
        await in_file.take_in(paused(on_server.export(), end))
    await in_file.take_in(on_server.export())
    server().execute("TRUNCATE taskloop.runs, taskloop.jobs", "taskloop_tests")
    with pytest.raises(StoreUnavailable, match=": connection is closed; see whether the server runs"):
        await on_server.take_in(paused(in_file.export(), end))
    assert server().query("SELECT job FROM taskloop.runs", "taskloop_tests") == []
