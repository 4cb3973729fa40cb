"""The SQLite store alone: what it makes of files that are not as it left them, of full disks, locks, kills and exits."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO

import pytest
from anyio import CancelScope
from stores import NOW, Stores, asked, at, claimed, database, finished, firing, hourly, ids, know, pair, put, submitted

import taskloop
from taskloop import statements_sqlite
from taskloop.errors import BadStore, StoreUnavailable, TaskloopError
from taskloop.runs import RunId, State
from taskloop.rows import RUN_COLUMNS, SCHEDULE_COLUMNS
from taskloop.store import Store, open_store
from taskloop.store_data import Query
from taskloop.copying_sqlite import backup
from taskloop.file_sqlite import explained, migrations, prepare
from taskloop.store_sqlite import SqliteStore

__all__ = ["pair"]

pytestmark = pytest.mark.anyio


@pytest.fixture
async def shared(tmp_path: Path) -> AsyncIterator[Stores]:
    """Of the kinds that several processes can have open this one."""
    async with Stores("file", tmp_path) as made:
        yield made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@asynccontextmanager
async def opened(path: Path | str) -> AsyncIterator[SqliteStore]:
    store = open_store(path)
    assert isinstance(store, SqliteStore)
    try:
        await store.open()
        yield store
    finally:
        await store.close()


async def used(path: Path, runs: int = 1) -> None:
    """A store with some runs, closed again."""
    async with opened(path) as store:
        await know(store, "a")
        for _ in range(runs):
            await finished(store)


async def refusal(path: Path | str, *, create: bool = True) -> TaskloopError:
    """The error with which a store refuses to open; after it nothing of it is open."""
    store = open_store(path)
    with pytest.raises(TaskloopError) as caught:
        await store.open(create=create)
    await store.close()
    return caught.value


async def works(path: Path | str) -> bool:
    """Whether a store there opens, writes, and reads what it wrote."""
    async with opened(path) as store:
        [run] = await submitted(store)
        return await store.run(run.id) == run


def contents(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir()}


def sound(path: Path) -> bool:
    with database(path) as db:
        return [row[0] for row in db.execute("PRAGMA integrity_check")] == ["ok"]


# -- in other processes

ENVIRONMENT = os.environ | {
    "PYTHONPATH": os.pathsep.join([str(Path(taskloop.__file__).parents[1]), str(Path(__file__).parent)])
}
BEGIN = """
import asyncio, json, os, sys
from stores import *
from taskloop.errors import TaskloopError
path = sys.argv[1]
"""


def script(body: str) -> list[str]:
    """The command of a program that has the words of `stores` and a `path`; its `main()` is run."""
    return [sys.executable, "-c", BEGIN + textwrap.dedent(body) + "\nasyncio.run(main())"]


def ran(command: list[str], *arguments: object, before: tuple[str, ...] = ()) -> str:
    """What a program says; it must end by itself, in time and without an error."""
    done = subprocess.run(
        [*before, *command, *map(str, arguments)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def programs() -> Iterator[list[subprocess.Popen[str]]]:
    """Programs that a test has started; killed at its end."""
    running: list[subprocess.Popen[str]] = []
    yield running
    for one in running:
        one.kill()
        one.communicate()


def start(programs: list[subprocess.Popen[str]], command: list[str], *arguments: object) -> subprocess.Popen[str]:
    program = subprocess.Popen(
        [*command, *map(str, arguments)], env=ENVIRONMENT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    programs.append(program)
    return program


def told(pipe: IO[str] | None) -> str:
    assert pipe is not None
    return pipe.readline().strip()


# -- the file


async def test_the_file_is_in_wal_mode(path):
    await used(path)
    with database(path) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


@pytest.mark.parametrize(("word", "level"), [("full", 2), ("normal", 1)])
def test_a_commit_reaches_the_disk_before_it_is_answered_unless_asked_otherwise(path, word, level):
    assert (SqliteStore(path).synchronous, open_store(path, synchronous=word).synchronous) == ("full", word)
    with database(path) as db:
        db.isolation_level = None
        prepare(db, word, False, str(path))
        assert db.execute("PRAGMA synchronous").fetchone() == (level,)


async def test_a_scope_that_is_given_up_while_a_store_opens_or_closes_leaves_no_thread_behind(path):
    """It cancels each await, also of what was to take them back: a connection and its thread were left for each."""
    before = threading.active_count()
    for _ in range(3):
        store = SqliteStore(path)
        with CancelScope() as scope:
            asyncio.get_running_loop().call_soon(scope.cancel)
            await store.open()
        await store.open()
        with CancelScope() as scope:
            scope.cancel()
            await store.close()
    async with asyncio.timeout(5):
        while threading.active_count() > before:
            await asyncio.sleep(0.01)


async def test_a_closed_store_is_one_file(path):
    await used(path)
    assert [one.name for one in path.parent.iterdir()] == ["runs.db"]


@pytest.mark.parametrize("name", ["a b.db", "50%20.db", "what?mode=ro.db", "#1.db", "é🙂.db", "-x.db", "'\";.db"])
async def test_a_file_may_have_any_name(tmp_path, name):
    assert await works(tmp_path / name)
    assert await works(f"sqlite:///{tmp_path / name}")
    assert [one.name for one in tmp_path.iterdir()] == [name]


async def test_a_relative_path_is_of_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert await works("sqlite:///runs.db")
    assert await works("runs.db")
    assert (tmp_path / "runs.db").exists()


async def test_a_missing_file_is_made_only_when_asked_to(path):
    error = await refusal(path, create=False)
    assert isinstance(error, StoreUnavailable)
    assert "does not exist" in str(error)
    assert not path.exists()
    assert await works(path)


async def test_a_folder_is_refused_with_the_name_of_a_file_to_write(tmp_path):
    error = await refusal(tmp_path)
    assert isinstance(error, BadStore)
    assert f"name a file in it, such as {tmp_path}/taskloop.db" in str(error)


async def test_a_missing_folder_is_refused_and_named(tmp_path):
    error = await refusal(tmp_path / "nowhere" / "runs.db")
    assert isinstance(error, StoreUnavailable)
    assert "folder" in str(error)
    assert "nowhere" in str(error)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "content",
    [b"x", b"SQLite format 3", b"name,count\na,1\n" * 1000, b"\x89PNG\r\n\x1a\n" + bytes(5000), bytes(4096)],
    ids=["one byte", "half a header", "text", "picture", "zeros"],
)
async def test_a_foreign_file_is_refused_and_left_as_it_is(path, content):
    path.write_bytes(content)
    error = await refusal(path)
    assert isinstance(error, BadStore)
    assert str(path) in str(error)
    assert contents(path.parent) == {"runs.db": content}


async def test_an_empty_file_becomes_a_store(path):
    path.touch()
    assert await works(path)


async def test_another_applications_database_keeps_its_tables_and_works_beside_ours(path):
    with database(path) as db:
        db.execute("CREATE TABLE runs (id INTEGER PRIMARY KEY, text)")
        db.execute("INSERT INTO runs (text) VALUES ('theirs')")
        db.execute("PRAGMA user_version = 77")
    assert await works(path)
    with database(path) as db:
        db.execute("INSERT INTO runs (text) VALUES ('later')")
        db.commit()
        assert db.execute("SELECT text FROM runs").fetchall() == [("theirs",), ("later",)]
        assert db.execute("PRAGMA user_version").fetchone() == (77,)
        tables = {row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {name for name in tables if not name.startswith("taskloop_")} == {"runs"}
    assert await works(path)


async def test_a_schema_that_cannot_be_made_whole_is_not_made_at_all(path):
    with database(path) as db:
        db.execute("CREATE TABLE theirs (id)")
        db.execute("CREATE INDEX taskloop_runs_fire ON theirs (id)")
    error = await refusal(path)
    assert "taskloop_runs_fire already exists" in str(error)
    with database(path) as db:
        assert db.execute("SELECT name FROM sqlite_master ORDER BY 1").fetchall() == [
            ("taskloop_runs_fire",),
            ("theirs",),
        ]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE taskloop_meta SET value = '999' WHERE key = 'schema'",
        "UPDATE taskloop_meta SET value = 'x' WHERE key = 'schema'",
        "DELETE FROM taskloop_meta",
        "DROP TABLE taskloop_meta",
    ],
)
async def test_a_schema_that_is_newer_or_not_ours_is_refused_and_no_byte_is_changed(path, statement):
    await used(path)
    with database(path) as db:
        db.execute(statement)
    before = contents(path.parent)
    error = await refusal(path)
    assert isinstance(error, BadStore)
    assert "it was left as it is" in str(error)
    assert contents(path.parent) == before


@pytest.mark.parametrize("schema", ["upgrade", "newest", "any"])
async def test_tables_are_made_in_a_database_of_others_only_when_asked_to(path, schema):
    with database(path) as db:
        db.execute("CREATE TABLE theirs (id)")
    before = contents(path.parent)
    store = open_store(path)
    with pytest.raises(BadStore, match="without the tables of a store; it was left as it is"):
        await store.open(create=False, schema=schema)
    assert contents(path.parent) == before


async def test_an_older_schema_is_brought_up_to_date_refused_or_left_as_it_is(path):
    write_the_first_schema(path)
    before = contents(path.parent)
    store = open_store(path)
    with pytest.raises(BadStore, match=r"schema 1, this taskloop needs \d+; .*`taskloop db upgrade`"):
        await store.open(create=False, schema="newest")
    await store.open(create=False, schema="any")
    assert await store.check() == []
    await store.close()
    assert contents(path.parent) == before
    await store.open(create=False)
    assert await store.counts()
    await store.close()
    assert contents(path.parent) != before


FIRST_SCHEMA = migrations()[0][1]


def write_the_first_schema(path: Path) -> None:
    """A store as the first version made it; not in WAL mode, as a copy may be."""
    with database(path) as db:
        db.executescript(FIRST_SCHEMA)
        db.execute("INSERT OR REPLACE INTO taskloop_meta (key, value) VALUES ('schema', '1')")
        db.commit()


async def test_a_file_of_two_names_is_refused_for_each_name_would_have_a_log_of_its_own(path):
    await used(path)
    path.with_name("other.db").hardlink_to(path)
    error = await refusal(path)
    assert isinstance(error, BadStore) and "has 2 names (hard links)" in str(error)
    path.with_name("other.db").unlink()
    path.with_name("other.db").symlink_to(path)
    assert await works(path.with_name("other.db"))


async def test_what_a_newer_schema_needs_is_told(path):
    await used(path)
    with database(path) as db:
        db.execute("UPDATE taskloop_meta SET value = '999' WHERE key = 'schema'")
    assert "schema 999" in str(await refusal(path))
    assert "install the newer taskloop" in str(await refusal(path))


def test_the_schema_is_the_numbers_of_its_files_and_has_the_columns_that_are_read(path):
    assert [number for number, _ in migrations()] == list(range(1, len(migrations()) + 1))
    with database(path) as db:
        db.isolation_level = None
        prepare(db, "full", False, str(path))
        columns = {
            table: [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
            for table in ("taskloop_runs", "taskloop_schedules")
        }
        assert db.execute("SELECT value FROM taskloop_meta WHERE key = 'schema'").fetchone() == (
            str(len(migrations())),
        )
    assert set(columns["taskloop_runs"]) == {name.strip('"') for name in RUN_COLUMNS}
    assert set(columns["taskloop_schedules"]) == set(SCHEDULE_COLUMNS)


async def test_a_write_ahead_log_left_by_a_killed_process_is_read_and_no_lone_part_of_it_is_in_the_way(pair, shared):
    store, _ = pair
    runs = await submitted(store, *(asked() for _ in range(50)))
    copy = shared.path.parent / "copy"
    copy.mkdir()
    # Reading the file ourselves drops this process's locks on it; nobody else has it open here.
    shutil.copy(shared.path, copy)
    shutil.copy(f"{shared.path}-wal", copy)
    async with opened(copy / "runs.db") as found:
        assert ids(await found.find(Query())) == ids(runs)[::-1]
    assert await works(copy / "runs.db")


# -- corrupt files


async def test_a_damaged_header_is_refused_and_left_as_it_is(path):
    await used(path, 5)
    whole = path.read_bytes()
    for damaged in (whole[:50], whole[:16] + bytes(84) + whole[100:], whole[:16] + b"\xff" * 84 + whole[100:]):
        path.write_bytes(damaged)
        error = await refusal(path)
        assert isinstance(error, BadStore), repr(error)
        assert str(path) in str(error)
        assert path.read_bytes() == damaged


async def test_a_file_that_lost_its_end_is_refused_and_left_as_it_is(path):
    await used(path, 50)
    damaged = path.read_bytes()[: 4096 * 2]
    path.write_bytes(damaged)
    error = await refusal(path)
    assert isinstance(error, BadStore), repr(error)
    assert path.read_bytes() == damaged


async def test_damaged_pages_are_told_by_reads_writes_and_the_check_and_nothing_is_made_anew(path):
    await used(path, 50)
    whole = path.read_bytes()
    damaged = whole[: 4096 * 3] + b"\xa5" * (len(whole) - 4096 * 3)
    path.write_bytes(damaged)
    with pytest.raises(BadStore, match=r"runs\.db"):  # from the opening or later: some pages are read when it opens
        async with opened(path) as store:
            assert await store.check()
            with pytest.raises((BadStore, StoreUnavailable), match=r"runs\.db"):
                await store.submit([asked()])
            await store.find(Query(limit=1000))
    assert path.read_bytes()[: 4096 * 3] == whole[: 4096 * 3]


async def test_the_check_finds_nothing_wrong_with_a_sound_file(path):
    async with opened(path) as store:
        assert list(await store.check()) == []


async def test_a_backup_of_a_store_in_use_is_a_store(path, tmp_path):
    async with opened(path) as store:
        [run] = await submitted(store)
        await store.backup(tmp_path / "copy.db")
        with pytest.raises(BadStore, match="the file exists; name a new one"):
            await store.backup(tmp_path / "copy.db")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["copy.db", "runs.db"]
    async with opened(tmp_path / "copy.db") as copy:
        assert await copy.run(run.id) == run


@pytest.mark.parametrize("said", ["attempt to write a readonly database", "unable to open database file"])
def test_of_a_file_that_was_taken_away_as_it_was_used_it_is_told_that_it_is_not_there(path, said):
    """To tell whose it is raised FileNotFoundError instead."""
    told = explained(sqlite3.OperationalError(said), str(path))
    assert isinstance(told, StoreUnavailable)
    assert f"{said}: {path} is not there any more; put it back" in str(told)


async def test_a_backup_is_for_nobody_who_may_not_read_the_store(path, tmp_path):
    await used(path)
    path.chmod(0o640)
    async with opened(path) as store:
        await store.backup(tmp_path / "copy.db")
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o640


def refused(*_):
    raise PermissionError(1, "Operation not permitted")


@pytest.mark.parametrize("member", [True, False])
async def test_the_group_of_a_backup_is_the_group_of_the_store_or_has_no_rights(path, tmp_path, monkeypatch, member):
    """Else whoever is of the group of the user that made it could read it."""
    theirs = next((one for one in (*os.getgroups(), 12345) if one != os.getgid()))
    try:
        await used(path)
        os.chown(path, -1, theirs)
    except PermissionError:
        pytest.skip("this user is of one group only")
    path.chmod(0o640)
    if not member:
        monkeypatch.setattr(os, "chown", refused)
    async with opened(path) as store:
        await store.backup(tmp_path / "copy.db")
    made = (tmp_path / "copy.db").stat()
    assert (made.st_gid, made.st_mode & 0o777) == ((theirs, 0o640) if member else (os.getgid(), 0o600))


async def test_a_backup_has_no_name_until_it_is_whole_and_one_that_fails_leaves_nothing(path, tmp_path):
    seen = []

    class Watched(sqlite3.Connection):
        def backup(self, copy, **_):
            seen.append(sorted(one.name for one in (tmp_path / "backups").iterdir()))
            raise sqlite3.OperationalError("database or disk is full")

    (tmp_path / "backups").mkdir()
    await used(path)
    watched = sqlite3.connect(path, factory=Watched, check_same_thread=False)
    with pytest.raises(StoreUnavailable, match="nothing is kept of it: database or disk is full; free some space"):
        await asyncio.to_thread(backup, watched, str(tmp_path / "backups" / "copy.db"))
    watched.close()
    assert [name[:8] + name[-5:] for name in seen[0]] == ["copy.db..part"]
    assert list((tmp_path / "backups").iterdir()) == []
    with pytest.raises(StoreUnavailable, match=r"folder .*nowhere does not exist; make it"):
        async with opened(path) as store:
            await store.backup(tmp_path / "nowhere" / "copy.db")


async def test_a_backup_takes_a_name_that_was_free_at_first_from_nobody(path, tmp_path):
    class Slow(sqlite3.Connection):
        def backup(self, copy, **_):
            (tmp_path / "copy.db").write_text("somebody else's")

    await used(path)
    slow = sqlite3.connect(path, factory=Slow, check_same_thread=False)
    with pytest.raises(BadStore, match="the file exists; name a new one"):
        await asyncio.to_thread(backup, slow, str(tmp_path / "copy.db"))
    slow.close()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["copy.db", "runs.db"]
    assert (tmp_path / "copy.db").read_text() == "somebody else's"


async def test_a_check_and_a_backup_take_longer_than_a_caller_of_other_verbs_would_wait(path):
    async with opened(path) as store:
        await submitted(store)
        store._call_seconds = 0.001  # from here on only: a busy machine may open it slowly
        held = threading.Event()
        asyncio.get_running_loop().call_later(0.3, held.set)
        assert await store._apart(lambda db: held.wait(5)) is True
        assert await store.check() == []
        await store.backup(path.with_name("copy.db"))


# -- what may not be written

UNPRIVILEGED = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-dac_override,-dac_read_search")
OPENING = script(
    """
    async def main():
        store = open_store(path)
        try:
            await store.open()
            await store.submit([asked()])
        except TaskloopError as error:
            print("opened" if store._writer else "refused", type(error).__name__, error)
        await store.close()
    """
)


def as_anybody() -> tuple[str, ...]:
    """What to write before a command so that file permissions hold for it, for root too."""
    if os.geteuid() != 0:
        return ()
    if shutil.which(UNPRIVILEGED[0]) is None:
        pytest.skip("root may write everything, and there is no setpriv to leave that right behind")
    return UNPRIVILEGED


@pytest.mark.parametrize(
    ("file", "folder", "reason"),
    [
        (None, 0o555, "ermission"),
        (None, 0o555, "mode 555), where SQLite keeps the store's log; give this user the right to write"),
        (0o600, 0o555, "mode 555), where SQLite keeps the store's log"),
        (0o444, 0o755, "; give this user the right to write the file"),
        (0o444, 0o755, "ermission"),
        (0o444, 0o555, "ermission"),
        (0o000, 0o755, "ermission"),
    ],
    ids=[
        "a new file in a read-only folder",
        "and how to mend it",
        "a file in a read-only folder",
        "a read-only file, and how to mend it",
        "a read-only file",
        "both",
        "an unreadable file",
    ],
)
async def test_what_may_not_be_written_is_refused_at_the_start_with_the_reason(tmp_path, file, folder, reason):
    place = tmp_path / "locked" / "full" / "place"  # names that are in messages of SQLite too
    place.mkdir(parents=True)
    path = place / "runs.db"
    if file is not None:
        await used(path)
        path.chmod(file)
    place.chmod(folder)
    try:
        said = ran(OPENING, path, before=as_anybody())
    finally:
        place.chmod(0o755)
    assert said.startswith("refused StoreUnavailable"), said
    assert str(path) in said
    assert reason in said


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EROFS, "Read-only file system"),
        PermissionError(13, "permission denied: the file system of runs.db is mounted for reading only"),
    ],
)
def test_of_a_file_system_that_is_mounted_for_reading_only_no_right_is_asked_for(error):
    said = str(explained(error, "runs.db"))
    assert "mount it for writing" in said and "give this user" not in said


# -- locks


async def impatient(store: Store) -> None:
    """Wait for locks a moment only: the real limit is longer than a test may take."""
    assert isinstance(store, SqliteStore)
    assert store._writer is not None
    await store._run(store._writer, lambda db: db.execute("PRAGMA busy_timeout = 20").fetchall())


async def test_a_lock_that_is_held_too_long_makes_writes_fail_and_reads_go_on(pair, shared):
    store, _ = pair
    await impatient(store)
    [run] = await submitted(store)
    other = sqlite3.connect(shared.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    answers = await asyncio.gather(*(store.submit([asked()]) for _ in range(5)), return_exceptions=True)
    assert [type(one) for one in answers] == [StoreUnavailable] * 5
    assert "locked" in str(answers[0])
    assert await store.run(run.id) == run
    other.execute("COMMIT")
    other.close()
    assert ids(await submitted(store)) == [run.id + 1]


async def test_a_lock_that_is_let_go_in_time_is_waited_for(pair, shared):
    store, _ = pair
    other = sqlite3.connect(shared.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    writing = asyncio.create_task(store.submit([asked()]))
    for _ in range(100):
        await store.counts()
    assert not writing.done()
    other.execute("COMMIT")
    other.close()
    assert len(await writing) == 1


COMING_AND_GOING = script(
    """
    async def main():
        store = open_store(path)
        await store.open()
        print((await store.submit([asked()]))[0].id)
        await store.close()
    """
)


async def test_a_process_that_comes_and_goes_leaves_the_log_of_the_others_alone(pair, shared):
    mine, other = pair
    assert ids(await submitted(mine)) == [1]
    assert await asyncio.to_thread(ran, COMING_AND_GOING, shared.path) == "2\n"
    assert Path(f"{shared.path}-wal").exists()
    assert ids(await submitted(other)) == [3]
    assert await asyncio.to_thread(ran, COMING_AND_GOING, shared.path) == "4\n"
    assert ids(await mine.find(Query())) == [4, 3, 2, 1]


async def test_two_processes_that_write_without_a_pause_see_no_lock(pair, programs, shared):
    store, _ = pair
    body = """
    async def main():
        store = open_store(path)
        await store.open()
        print("open", flush=True)
        for _ in range(200):
            await store.submit([asked()])
        await store.close()
        print("done", flush=True)
    """
    others = [start(programs, script(body), shared.path) for _ in range(2)]
    assert [told(one.stdout) for one in others] == ["open", "open"]
    for _ in range(200):
        await store.submit([asked()])
    assert [told(one.stdout) for one in others] == ["done", "done"]
    assert len(await store.find(Query(limit=1000))) == 600


# -- other processes


def test_five_processes_that_open_a_fresh_file_at_once_all_get_the_store(tmp_path, programs):
    body = """
    async def main():
        for line in sys.stdin:
            store = open_store(line.strip())
            await store.open()
            [run] = await store.submit([asked()])
            await store.close()
            print(run.id, flush=True)
    """
    five = [start(programs, script(body), "") for _ in range(5)]
    for number in range(8):
        for one in five:
            assert one.stdin is not None
            one.stdin.write(f"{tmp_path}/{number}.db\n")
        for one in five:
            assert one.stdin is not None
            one.stdin.flush()
        assert sorted(told(one.stdout) for one in five) == ["1", "2", "3", "4", "5"]
        assert sound(tmp_path / f"{number}.db")


KILLED = """
async def main():
    store = open_store(path)
    await store.open()
    await know(store, "a")
    while True:
        [run] = await store.submit([asked()])
        print("waiting", run.id, flush=True)
        for one in (await store.claim(str(os.getpid()), NOW, 1)).started:
            print("running", one.id, flush=True)
            await store.settle(ended(one))
            print("succeeded", one.id, flush=True)
"""
ORDER = ("waiting", "running", "succeeded")


async def test_killing_writers_loses_nothing_that_was_reported(path, programs):
    chance = random.Random(4)
    reported: dict[int, str] = {}
    for _ in range(5):
        four = [start(programs, script(KILLED), path) for _ in range(4)]
        lines = [told(one.stdout) for one in four for _ in range(chance.randrange(1, 15))]
        for one in four:
            one.send_signal(signal.SIGKILL)
        for one in four:
            assert one.stdout is not None
            lines += one.stdout.read().split("\n")[:-1]  # the last may have been cut by the kill
        for line in lines:
            word, _, number = line.partition(" ")
            reported[int(number)] = max(reported.get(int(number), "waiting"), word, key=ORDER.index)
        assert sound(path)
    async with opened(path) as store:
        for number, word in reported.items():
            run = await store.run(RunId(number))
            assert run is not None, number
            assert ORDER.index(run.state.value) >= ORDER.index(word), number
        await know(store, "a")
        assert await finished(store) is not None
    assert len(reported) > 20


def test_a_program_that_forgets_to_close_its_store_ends_by_itself(path):
    body = """
    async def main():
        store = open_store(path)
        await store.open()
        await store.submit([asked()])
        print("end")
    """
    done = subprocess.run(
        [*script(body), str(path)], env=ENVIRONMENT, capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout) == (0, "end\n")
    assert sound(path)


def test_a_program_whose_loop_is_gone_may_close_its_store_afterwards(path):
    body = """
    store = open_store(path)

    async def begin():
        await store.open()
        await store.submit([asked()])

    asyncio.run(begin())

    async def main():
        await store.close()
        print("end")
    """
    done = subprocess.run(
        [*script(body), str(path)], env=ENVIRONMENT, capture_output=True, text=True, timeout=20, check=False
    )
    assert (done.returncode, done.stdout) == (0, "end\n")


# -- a full disk

FULL = script(
    """
    import resource
    from pathlib import Path
    from taskloop.store_data import Query

    def fill():
        if sys.argv[2] == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
            return
        with open(Path(path).parent / "filler", "wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass

    def free():
        if sys.argv[2] == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        else:
            (Path(path).parent / "filler").unlink()

    async def main():
        store = open_store(path)
        await store.open()
        await know(store, "a")
        kept = [run.id for run in await store.submit([asked() for _ in range(3)])]
        have = (await store.claim("w1", NOW, 1)).started
        fill()
        errors = []
        for _ in range(50):
            try:
                kept += [run.id for run in await store.submit([asked(params={"text": "x" * 20_000})])]
            except Exception as error:
                errors.append(f"{type(error).__name__} {error}")
        read = len(await store.find(Query(limit=1000)))
        free()
        later = await store.submit([asked()])
        settled = await store.settle(ended(have[0])) is not None
        found = sorted(run.id for run in await store.find(Query(limit=1000)))
        print(json.dumps([errors, read, found == kept + [later[0].id], settled]))
        await store.close()
    """
)


def tmpfs(folder: Path) -> tuple[str, ...]:
    """What to write before a command so that `folder` is a small disk of its own, for it alone."""
    mount = f'mount -t tmpfs -o size=512k tmpfs "{folder}" && exec "$@"'
    before = ("unshare", "--mount", "sh", "-c", mount, "sh")
    if (
        shutil.which("unshare") is None
        or subprocess.run([*before, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("a small disk can only be mounted by root")
    return before


@pytest.mark.parametrize("way", ["limit", "disk"])
def test_a_full_disk_makes_writes_fail_until_there_is_space_again_and_nothing_is_lost(tmp_path, way):
    said = ran(FULL, tmp_path / "runs.db", way, before=tmpfs(tmp_path) if way == "disk" else ())
    errors, read, whole, settled = json.loads(said)
    assert errors
    assert all(error.startswith("StoreUnavailable") for error in errors), errors[:3]
    assert read >= 3
    assert whole
    assert settled


# -- how far a batch goes


async def test_a_batch_larger_than_any_statement_is_one_commit(pair, shared):
    store, _ = pair
    before = shared.commits()
    runs = await store.submit([asked(params={"n": n}) for n in range(3000)])
    assert ids(runs) == list(range(1, 3001))
    assert shared.commits() - before == 1
    assert len((await claimed(store, slots=5000)).started) == 3000


async def test_thousands_of_schedules_are_put_and_due_at_once(tmp_path):
    async with Stores("memory", tmp_path) as made:
        store = await made.make("a")
        for first in range(0, 5000, 1000):
            await put(store, *(hourly(f"s{n:06}") for n in range(first, first + 1000)))
        due = await store.due(NOW, 10_000)
        assert len(due.schedules) == 5000
        assert (await store.counts())[State.WAITING] == 0


async def test_what_was_read_ahead_is_fired_only_as_long_as_no_other_process_has_changed_it(pair):
    mine, other = pair
    await put(mine, hourly("s", next_due=at(1)), hourly("t", next_due=at(2)), hourly("later", next_due=at(9)))
    soon = await mine.due(NOW, 10, ahead_seconds=5)
    assert ([one.id for one in soon.schedules], soon.next_at) == (["s", "t"], at(9))
    await put(other, replace(soon.schedules[0], params={"n": 2}))
    done = await mine.fire([firing(one, now=at(3)) for one in soon.schedules], "w1", at(3))
    assert (done.lost, [run.schedule for run in await mine.find(Query())]) == (1, ["t"])
    [again] = (await mine.due(at(3), 10)).schedules
    assert again.params == {"n": 2}


async def test_of_more_that_comes_soon_than_is_wanted_nothing_is_told_beyond_it(pair):
    mine, _ = pair
    await put(mine, *(hourly(f"s{n}", next_due=at(n)) for n in range(1, 5)))
    soon = await mine.due(NOW, 2, ahead_seconds=60)
    assert ([one.id for one in soon.schedules], soon.next_at) == (["s1", "s2"], None)


async def test_more_than_one_statement_reads_is_told_once_each_in_its_order(pair):
    mine, _ = pair
    dues = [at(n % 7 - 10**10) if n % 3 else at(n % 7) for n in range(1234)]  # a third of them since before 1970
    await put(mine, *(hourly(f"s{n:04}", next_due=due) for n, due in enumerate(dues)))
    all_of_them = [name for _, name in sorted((due, f"s{n:04}") for n, due in enumerate(dues))]
    for limit in (1, 499, 500, 501, 1000, 1233, 1234):
        assert [one.id for one in (await mine.due(NOW, limit, ahead_seconds=60)).schedules] == all_of_them[:limit]
    found = await mine.due(NOW, 1234, ahead_seconds=60)
    assert found.next_at is None, "there may be more"
    found = await mine.due(NOW, 5000, ahead_seconds=60)
    assert (len(found.schedules), found.next_at) == (1234, None)


async def test_of_what_is_read_in_portions_no_later_one_hides_that_a_first_one_was_changed(pair, monkeypatch):
    mine, other = pair
    await put(mine, *(hourly(f"s{n:04}", next_due=at(1)) for n in range(1200)), hourly("t", next_due=at(2)))
    portion = statements_sqlite._due

    def changed_meanwhile(db, *asked):
        found = portion(db, *asked)
        if len(found) == 200:  # the last portion
            with database(other.path) as elsewhere:
                elsewhere.execute("UPDATE taskloop_schedules SET params = '{\"n\": 2}' WHERE id = 's0000'")
                elsewhere.commit()
        return found

    monkeypatch.setattr(statements_sqlite, "_due", changed_meanwhile)
    soon = await mine.due(NOW, 1200, ahead_seconds=5)
    assert (len(soon.schedules), soon.next_at) == (1000, None)
    monkeypatch.undo()
    done = await mine.fire([firing(one, now=at(3)) for one in soon.schedules[:100]], "w1", at(3))
    assert done.lost == 1
    again = await mine.due(at(3), 5000)
    assert (len(again.schedules), again.schedules[0].params) == (1102, {"n": 2})


@pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="Linux alone lets a thread stand back")
async def test_its_threads_stand_back_for_the_loop_and_nobody_else_does(path):
    before, loops = {one.native_id for one in threading.enumerate()}, os.sched_getscheduler(0)
    async with opened(path):
        own = [one.native_id for one in threading.enumerate() if one.native_id not in before]
        assert [os.sched_getscheduler(one) for one in own if one is not None] == [os.SCHED_BATCH] * 2
        assert os.sched_getscheduler(0) == loops == os.SCHED_OTHER
