"""`db copy`: a store into an empty one, with all that it knows, or not at all."""

from __future__ import annotations

from collections import Counter

import pytest
from command_line import call as call
from command_line import nothing_blocks_the_loop as nothing_blocks_the_loop
from command_line import shop as shop
from stores import database
from stories import failing, lasting

from taskloop import Every, Options, RunContext, State, TaskScheduler
from taskloop.copying import TABLES, Batch, copied
from taskloop.errors import BadStore, Conflict
from taskloop.keyring import Keyring
from taskloop.store import open_store

pytestmark = pytest.mark.anyio


@pytest.fixture
def nothing_blocks_this_loop(guard):
    guard.activate()
    yield
    guard.deactivate()


def made():
    """A scheduler whose store gets a row in every table."""
    scheduler = TaskScheduler(options=Options())

    async def first():
        return {"a": 1}

    async def steps(run: RunContext, word: str):
        run.log("begins")
        return [await run.step("one", first)]

    scheduler.add_job(steps, name="steps", secret=("word",))
    scheduler.add_job(failing(1), name="twice", retry=2)
    scheduler.add_job(lasting(7200), name="long", max_running=1)
    scheduler.add_job(lasting(1), Every("10m"), name="often")
    return scheduler


async def filled(time, scheduler, path):
    """Give the store some of everything; a run is left running, and one waiting. Gives a token."""
    await scheduler.submit("steps", {"word": "hunter2"}, key="k")
    await scheduler.submit("twice")
    await scheduler.schedule("often", Every("7m"), id="added")
    await time.advance("15m")
    await scheduler.schedule("often", Every("11m"), id="added")
    await scheduler.disable("twice", reason="enough", actor="me")
    keyring = Keyring(scheduler._opened, time.clock)
    await keyring.session_secret()
    _, token = await keyring.create("ci", "operate")
    for _ in range(2):
        await scheduler.submit("long")
    await time.advance("1s")
    with database(path) as db:
        db.execute("INSERT INTO taskloop_wishes VALUES (7, 1, 'cancel', 'me', NULL, 5)")
        db.execute("INSERT INTO taskloop_incidents VALUES (9, 'w', 'frozen', 1, 2, '{\"ü\": 1}')")
    return token


def rows(path):
    """All rows of all tables."""
    with database(path) as db:
        names = db.execute("SELECT name FROM sqlite_master WHERE name LIKE 'taskloop_%' AND type = 'table'").fetchall()
        return {name: Counter(db.execute(f"SELECT * FROM {name}").fetchall()) for (name,) in names}


async def transferred(source, target):
    stores = [open_store(str(path)) for path in (source, target)]
    try:
        for store in stores:
            await store.open()
        return await copied(*stores)
    finally:
        for store in stores:
            await store.close()


def test_a_copy_knows_every_column_of_every_table(tmp_path, call, shop):
    assert call("db", "upgrade").code == 8 and call("submit", "add", "a=1").code == 0
    with database(shop.folder / "taskloop.db") as db:
        for table, (keys, columns) in TABLES.items():
            found = db.execute(f"SELECT name, pk FROM pragma_table_info('taskloop_{table}')").fetchall()
            assert {name for name, _ in found} == set(columns), table
            assert {name for name, key in found if key} == set(columns[:keys]), table
        names = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {name.removeprefix("taskloop_") for name in names if name.startswith("taskloop_")} == set(TABLES)


async def test_a_copy_holds_every_row_and_a_scheduler_goes_on_with_it_where_the_other_ended(
    virtual_time, tmp_path, nothing_blocks_this_loop
):
    first, second, third = (tmp_path / name for name in ("a.db", "b.db", "c.db"))
    scheduler = made()
    async with virtual_time(scheduler, store=f"sqlite:///{first}") as time:
        token = await filled(time, scheduler, first)
        await time.crash()
        assert [name for name, found in rows(first).items() if not found] == [], "the story leaves no table out"
        sums = await transferred(first, second)
        assert [one.rows for one in sums.values()] == [sum(rows(first)[f"taskloop_{table}"].values()) - (table == "meta")
                for table in TABLES]  # fmt: skip
        assert await transferred(second, third) == sums and rows(first) == rows(second) == rows(third)
        before, now = rows(first), time.now

        with pytest.raises(
            Conflict, match=r"is not empty \(4 in jobs, 2 in schedules, .*; a copy keeps ids, so name a new"
        ):
            await transferred(second, first)
        assert rows(first) == before

    again = made()
    async with virtual_time(again, store=f"sqlite:///{third}", at=now) as time:
        newest = max(run.id for run in await again.runs())
        kept = await again.submit("steps", {"word": "hunter2"}, key="k")
        assert kept.existed and (await again.run(kept.id)).result == [{"a": 1}]
        assert (await again.log(kept.id)).lines[0].text == "begins" and len(await again.steps(kept.id)) == 1
        assert [one.name for one in await Keyring(again._opened, time.clock).live()] == ["ci"] and token
        await time.advance("15m")
        assert [run.state for run in await again.runs("long")] == [State.RUNNING, State.INTERRUPTED]
        assert not (await again.jobs("twice"))[0].enabled
        fired = [run for run in await again.runs("often") if run.id > newest]
        assert {run.schedule for run in fired} == {"often", "added"} and len({run.due_at for run in fired}) == len(
            fired
        )


async def test_what_breaks_in_the_middle_leaves_nothing_behind_and_what_is_not_the_same_is_told(virtual_time, tmp_path):
    first, second = tmp_path / "a.db", tmp_path / "b.db"
    scheduler = made()
    async with virtual_time(scheduler, store=f"sqlite:///{first}") as time:
        await filled(time, scheduler, first)
    source, target = open_store(str(first)), open_store(str(second))
    await source.open()
    await target.open()
    empty = rows(second)

    async def broken():
        async for batch in source.export():
            if batch.table == "steps":
                raise OSError("the network is gone")
            yield batch

    with pytest.raises(OSError, match="the network is gone"):
        await target.take_in(broken())
    assert rows(second) == empty

    class Forgetful:
        url = "sqlite:///forgetful.db"

        def export(self):
            return source.export()

        async def take_in(self, batches):
            async for _ in batches:
                pass
            with database(first) as db:
                db.execute("DELETE FROM taskloop_steps")

    with pytest.raises(BadStore, match="holds other rows than were copied, in steps; somebody else wrote there"):
        await copied(source, Forgetful())
    await source.close()
    await target.close()
    memory = open_store("sqlite:///:memory:")
    await memory.open()
    with pytest.raises(BadStore, match="is in memory, where nobody else can copy it"):
        await memory.take_in(broken())
    await memory.close()


def test_the_command_copies_tells_what_and_refuses_what_would_lose_something(shop, call):
    assert call("submit", "add", "a=1").code == 0
    (shop.folder / "taskloop.db").chmod(0o600)
    done = call("db", "copy", "taskloop.db", "sqlite:///copy.db", "--format", "json")
    assert (shop.folder / "copy.db").stat().st_mode & 0o777 == 0o600  # it has the same secrets
    assert done.code == 0, done.err
    assert (done.data["from"], done.data["to"]) == ("sqlite:///taskloop.db", "sqlite:///copy.db")
    tables = done.data["tables"]
    assert list(tables) == list(TABLES) and tables["runs"]["rows"] == 1 and len(tables["runs"]["checksum"]) == 32
    back = call("db", "copy", "copy.db", "back.db", "--format", "json")
    assert back.data["tables"] == tables and rows("back.db") == rows("taskloop.db")
    told = call("db", "copy", "copy.db", "third.db")
    assert f"runs 1 {tables['runs']['checksum']}" in " ".join(told.out.split())
    assert "is copied to sqlite:///third.db: " in told.out and "read again and found the same" in told.out

    again = call("db", "copy", "taskloop.db", "copy.db")
    assert (
        again.code == 4 and "store sqlite:///copy.db is not empty (" in again.err and rows("copy.db") == rows("back.db")
    )
    assert call("db", "copy", "nowhere.db", "new.db").code == 8
    assert call("db", "copy", "taskloop.db", "nonsense://x").code == 7 and call("db", "copy", "taskloop.db").code == 2
    assert not {"nowhere.db", "new.db"} & shop.files
    with shop.start("run", "--no-fire") as running:
        running.hear(r"INFO scheduler\.ready")
        for way in (("taskloop.db", "new.db"), ("copy.db", "taskloop.db")):
            refused = call("db", "copy", *way)
            assert (
                refused.code == 4
                and "a worker is running on it now" in refused.err
                and f"pid {running.process.pid}" in refused.err
            )
    assert "new.db" not in shop.files
