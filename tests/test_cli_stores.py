"""Which store a command means, and what is left where one fails or is stopped."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import closing

import pytest
from command_line import SECONDS, surroundings, until
from command_line import call as call
from command_line import nothing_blocks_the_loop as nothing_blocks_the_loop
from command_line import shop as shop
from stores import database

OWN = """
from taskloop import TaskScheduler

scheduler = TaskScheduler("sqlite:///own.db")


@scheduler.every("1h")
async def tick() -> None: ...
"""
MANY = 40_000


@pytest.fixture
def many(shop, call):
    """A store with many runs that ended in 1970."""
    assert call("once", "add", "a=1").code == 0
    with database(shop.folder / "taskloop.db") as db:
        names = [row[1] for row in db.execute("PRAGMA table_info(taskloop_runs)")]
        kept = ",".join(f'"{name}"' for name in names if name != "id")
        old = ",".join(
            f"'{'x' * 500}'" if name == "summary" else "7" if name.endswith("_at") else f'"{name}"'
            for name in names[1:]
        )
        db.execute(
            f"INSERT INTO taskloop_runs (id, {kept}) WITH RECURSIVE n(n) AS (SELECT 10 UNION ALL SELECT n + 1 FROM n LIMIT {MANY}) "
            f"SELECT n, {old} FROM n, taskloop_runs WHERE id = 1"
        )
        db.execute(
            "UPDATE taskloop_runs SET created_at = 7, ended_at = 7"
        )  # else all behind the first would be younger
    return shop


def count(path, table="runs"):
    with database(path) as db:
        return db.execute(f"SELECT count(*) FROM taskloop_{table}").fetchone()[0]


# -- which store


def test_where_one_of_several_jobs_cannot_be_switched_it_is_told_which_were_before(shop, call):
    assert call("disable", "add").code == call("enable", "add").code == 0
    with database(shop.folder / "taskloop.db") as db:
        db.execute(
            "CREATE TRIGGER full BEFORE INSERT ON taskloop_switches WHEN new.job = 'hourly' "
            "BEGIN SELECT raise(ABORT, 'no room'); END"
        )
    done = call("disable", "add", "hourly", "heartbeat")
    assert done.code == 8 and "no room" in done.err and "done before this failed: add off" in done.err
    standing = {one["name"]: one["enabled"] for one in call("list", "--format", "json").items}
    assert [standing[name] for name in ("add", "hourly")] == [False, True]
    assert "done before" not in call("disable", "hourly", "add").err


def test_a_command_that_is_given_the_app_uses_the_store_that_it_would_run_on(shop, call):
    """A backup of the wrong store was made, with code 0, where another one stood at the configured address."""
    shop.write("own.py", OWN)
    own = ("--app", "own:scheduler")
    assert call("once", "add", "a=1").code == call("once", "tick", *own).code == 0
    assert [run["job"] for run in call("runs", "--format", "json").items] == ["add"]
    assert [run["job"] for run in call("runs", "--format", "json", *own).items] == ["tick"]
    assert call("status", "--format", "json", *own).data["store"].endswith("own.db")
    assert call("pause", "tick", *own).code == 0 and count("own.db", "switches") == 1
    assert call("db", "backup", "copy.db", *own).code == 0
    with database(shop.folder / "copy.db") as db:
        assert db.execute("SELECT job FROM taskloop_runs").fetchall() == [("tick",)]


def test_two_stores_are_told_of_by_run_and_doctor(shop, call):
    shop.write("own.py", OWN)
    shop.write("config.toml", '[scheduler]\napp = "own:scheduler"\n')
    assert call("once", "tick").code == 0 and shop.files & {"own.db", "taskloop.db"} == {"own.db"}
    assert "own store" not in call("doctor").out
    (shop.folder / "own.db").rename(shop.folder / "taskloop.db")
    assert "the program has its own store, sqlite:///own.db, and another one is" in " ".join(call("doctor").out.split())
    with shop.start("run") as running:
        running.hear(
            r"WARNING config\.warning .*own\.db, goes before sqlite:///taskloop\.db; commands without --app look there"
        )
    shop.write("config.toml", f'[scheduler]\napp = "own:scheduler"\n[store]\nurl = "sqlite:///{shop.folder}/own.db"\n')
    assert "own store" not in call("doctor").out


def test_options_that_the_program_gives_and_the_command_does_not_go_by_are_told_at_its_start(shop, call):
    """`Options(dask=...)` was passed over in silence, and each attempt failed for want of a cluster."""
    asked = "from taskloop import Options\n" + OWN.replace(
        '"sqlite:///own.db"', '"sqlite:///own.db", options=Options(dask="tcp://there:8786", threads=3)'
    )
    shop.write("own.py", asked)
    shop.write("config.toml", '[scheduler]\napp = "own:scheduler"\n')
    assert 'WARNING advice.other_options options="threads, dask" text="Options(...)' in call("once", "tick").err
    shop.write("config.toml", '[scheduler]\napp = "own:scheduler"\nthreads = 3\n[dask]\naddress = "tcp://there:8786"\n')
    assert "other_options" not in call("once", "tick").err


def test_where_no_store_is_it_is_said_where_one_would_be(shop, call):
    assert "there is no store yet at sqlite:///taskloop.db; `taskloop run`" in call("runs").err
    assert "there is no store yet at sqlite:///taskloop.db" in call("db", "check").err
    shop.write("own.py", OWN)
    assert "at sqlite:///own.db" in call("status", "--app", "own:scheduler").err
    assert "--app" not in call("runs").err  # the file names one
    shop.write("config.toml", "")
    assert "--app MODULE:NAME, or app below" in call("runs").err
    assert "--app MODULE" not in call("runs", "--app", "own:scheduler").err


@pytest.mark.parametrize("what", ["folder", "link", "pipe"])
def test_doctor_says_what_stands_where_the_store_should(shop, call, monkeypatch, what):
    place = shop.folder / "place.db"
    if what == "folder":
        place.mkdir()
    elif what == "link":
        place.symlink_to(shop.folder / "nowhere" / "place.db")
    else:
        subprocess.run(["mkfifo", place], check=True)
    monkeypatch.setenv("TASKLOOP_STORE__URL", f"sqlite:///{place}")
    told = " ".join(call("doctor").out.split())
    expected = {"folder": f"{place} is a folder", "link": "nowhere does not exist", "pipe": f"{place} is no file"}
    assert expected[what] in told and "is not there yet" not in told
    if what == "link":
        assert f"{place} is a link that leads nowhere" in call("submit", "add", "a=1").err


# -- stopped half-way


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_prune_that_is_stopped_says_and_records_what_it_has_deleted(many, number):
    store = many.folder / "taskloop.db"
    before = count(store)
    command = [sys.executable, "-m", "taskloop", "db", "prune", "--keep", "1d", "--reason", "room", "--actor", "anna"]
    with subprocess.Popen(command, cwd=many.folder, env=surroundings({}), stdout=subprocess.PIPE, text=True) as pruning:
        until(lambda: count(store) < before)
        pruning.send_signal(number)
        said = pruning.communicate(timeout=SECONDS)[0]
    deleted = before - count(store)
    assert pruning.returncode == 128 + number and 0 < deleted < MANY
    assert f"had {deleted} runs more than are kept (for 1d, or as a job says), and maybe others: stopped" in said
    with database(store) as db:
        assert db.execute(
            "SELECT actor, reason, json_extract(after, '$.deleted') FROM taskloop_audit WHERE action = 'prune'"
        ).fetchall() == [("anna", "room", deleted)]


@pytest.fixture
def copying(many):
    """A copy of it under way."""
    command = [sys.executable, "-m", "taskloop", "db", "copy", "taskloop.db", "copy.db"]
    with subprocess.Popen(command, cwd=many.folder, env=surroundings({}), stderr=subprocess.PIPE, text=True) as found:
        until(lambda: any(name.startswith("copy.db.") for name in many.files))
        yield found
        found.kill()


def test_a_copy_that_is_stopped_leaves_nothing(many, copying):
    copying.send_signal(signal.SIGINT)
    assert copying.wait(SECONDS) == 130
    assert not [name for name in many.files if name.startswith("copy.db")]


def test_what_changes_while_it_is_copied_is_not_called_a_copy(many, copying):
    with closing(many_writes(many.folder / "taskloop.db")) as writes:
        while copying.poll() is None:
            next(writes)
    assert copying.returncode == 4
    assert (
        "store sqlite:///taskloop.db, to copy from: it was changed while it was copied, in incidents"
        in copying.stderr.read()
    )
    assert not [name for name in many.files if name.startswith("copy.db")]


def test_a_copy_leaves_what_somebody_else_has_put_in_its_place_meanwhile(many, copying):
    """Of two copies to one place the one that came late took the other's away."""
    (many.folder / "copy.db").write_bytes(b"not ours")
    assert copying.wait(SECONDS) == 4
    assert "copy.db was made by somebody else meanwhile" in copying.stderr.read()
    assert {name for name in many.files if name.startswith("copy.db")} == {"copy.db"}
    assert (many.folder / "copy.db").read_bytes() == b"not ours"


def test_a_copy_goes_where_a_link_leads_and_by_any_name(shop, call):
    assert call("once", "add", "a=1").code == 0
    (shop.folder / "link.db").symlink_to(shop.folder / "a b?#%:ü.db")
    told = call("db", "copy", "taskloop.db", "link.db", "--format", "json")
    assert told.code == 0 and told.data["to"] == "sqlite:///link.db"
    assert count(shop.folder / "a b?#%:ü.db") == 1 and (shop.folder / "link.db").is_symlink()
    assert not [name for name in shop.files if "part" in name or "-wal" in name]


def many_writes(path):
    number = 100
    while True:
        number += 1
        with database(path) as db:
            db.execute("INSERT INTO taskloop_incidents VALUES (?, 'w', 'frozen', 1, 2, '{}')", (number,))
        yield


def test_a_copy_makes_no_tables_among_those_of_another_program(shop, call):
    assert call("once", "add", "a=1").code == 0
    with database(shop.folder / "shop.db") as db:
        db.execute("CREATE TABLE orders (id INTEGER)")
    before = (shop.folder / "shop.db").read_bytes()
    refused = call("db", "copy", "taskloop.db", "shop.db")
    assert refused.code == 8 and "shop.db is a database without the tables of a store" in refused.err
    assert (shop.folder / "shop.db").read_bytes() == before


# -- disks and files that fail


def test_a_backup_of_a_damaged_store_is_refused(many, call):
    """Rotated backups kept it, and threw the last good one away."""
    store = many.folder / "taskloop.db"
    with database(store) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with store.open("r+b") as file:
        for page in range(3_000, 3_020):
            file.seek(page * 4096)
            file.write(b"\xff" * 4096)
    assert call("db", "check").code == 1 and call("db", "check", "--format", "json").data["problems"]
    refused = call("db", "backup", "copy.db")
    assert refused.code == 8 and re.search(r"nothing is kept of it: .*damaged|malformed", refused.err)
    assert not [name for name in many.files if name.startswith("copy.db")]


def test_the_check_of_a_store_of_which_half_is_gone_finds_it_damaged(many, call):
    store = many.folder / "taskloop.db"
    with database(store) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    os.truncate(store, store.stat().st_size // 2)
    found = call("db", "check", "--format", "json")
    assert found.code == 1 and "malformed" in found.data["problems"][0]


def test_a_configuration_that_could_not_be_written_is_taken_away_again(tmp_path):
    """Half of one was taken for the user's own: it named no app, so the jobs beside it were not found."""
    command = ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", sys.executable, "-B", "-m", "taskloop", "init"]
    done = subprocess.run(command, cwd=tmp_path, env=surroundings({}), capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "config.toml cannot be written: File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words", [("list",), ("status",), ("submit", "add", "a=1"), ("pause",), ("list", "--format", "json")]
)
def test_a_variable_that_was_to_name_the_store_and_is_none_is_told(shop, call, monkeypatch, words):
    assert "warning" not in call(*words).err.replace("warning: no worker", "")
    monkeypatch.setenv("TASKLOOP_STORE__KEEP", "30d")
    monkeypatch.setenv("TASKLOOP_STORE_URL", "sqlite:///elsewhere.db")
    told = call(*words)
    text = "warning: TASKLOOP_STORE_URL is no setting and changes nothing; did you mean TASKLOOP_STORE__URL?"
    assert told.err.count(text) == 1 and text not in told.out
    monkeypatch.delenv("TASKLOOP_STORE_URL")
    shop.write(".env", "TASKLOOP_DATABASE_URL=postgresql://shop@db/shop\n")
    assert call(*words).err.count(".env: TASKLOOP_DATABASE_URL is no setting") == 1
