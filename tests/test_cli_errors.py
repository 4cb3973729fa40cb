"""What people run into: one `error:` line with what was given, a `help:` line, the exit code, and no traceback."""

from __future__ import annotations

import socket
import sqlite3
import sys
from contextlib import closing

import pytest
from command_line import call as call
from command_line import nothing_blocks_the_loop as nothing_blocks_the_loop
from command_line import shop as shop

PROGRAM = "from taskloop import Jobs\n\njobs = Jobs()\n\n\n"


@pytest.fixture
def refused(call):
    """Calls a command; gives what it complains of."""

    def refused(code, *words):
        done = call(*words)
        lines = [line for line in done.err.splitlines() if not line[:4].isdecimal()]  # without what the log said before
        assert done.code == code and lines[0].startswith("error: ") and lines[-1].startswith("help: "), done.err
        assert "Traceback" not in done.err and not done.out
        return "\n".join(lines)

    return refused


@pytest.mark.parametrize(
    ("program", "what", "mend"),
    [
        ("@jobs.cron('61 * * * *')\ndef sync(): ...\n", "minute is 61, allowed 0-59", "Every('61m')"),
        ("@jobs.cron('0 0 31 2 *')\ndef sync(): ...\n", "it can never fire", "write L"),
        ("@jobs.cron('@daily', timezone='Europe/Berln')\ndef sync(): ...\n", "'Europe/Berln' is not known", "'Europe/Berlin'"),
        ("@jobs.job(name='a')\ndef b(): ...\n\n\n@jobs.job(name='a')\ndef c(): ...\n", "two jobs are named 'a'", 'name="..."'),
        ("import no_such_thing\n", "No module named 'no_such_thing'", f"install it for {sys.executable}"),
        ("raise KeyError('SHOP_DB; unset')\n", "KeyError: 'SHOP_DB; unset'", "mend that"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_program_is_told_with_the_line_that_has_it(shop, refused, program, what, mend):
    shop.write("wrong.py", PROGRAM + program)
    said = refused(7, "check", "--app", "wrong:jobs")
    error, _, helps = said.partition("\nhelp: ")
    assert what in error and "wrong.py:" in error and "taskloop/cron.py" not in said and mend in helps


def test_a_mistake_in_the_configuration_or_on_the_line_is_told_with_what_was_meant(shop, call, refused):
    assert "help: did you mean 'hourly'?" in refused(3, "submit", "hourli")
    said = refused(2, "submit", "add", "a=abc", "bb=1")
    assert "got 'abc'" in said and "parameter 'bb' is unknown" in said and "taskloop show add" in said
    assert "'x'" in refused(2, "run", "--grace", "x")
    assert "--jobs names no job" in refused(2, "run", "--jobs", "")
    refused(2, "submit", "add", "a=1", "--wait", "--timeout", "x")
    assert call("runs", "--format", "json").items == []  # what was refused was not asked for either
    assert call("disable", "add", "--reason", "replaced by plus").code == 0
    assert "replaced by plus" in refused(4, "submit", "add", "a=1")
    shop.write("config.toml", "[store]\nkeeep = '1d'\n")
    assert "store.keeep is unknown\nhelp: did you mean 'keep'?" in refused(7, "check")


def test_params_of_the_configuration_that_do_not_fit_are_told_with_those_there_are(shop, refused):
    """`taskloop show` reads the same configuration, and was refused as this is."""
    shop.write("config.toml", "[scheduler]\napp = 'shop:jobs'\n[jobs.add]\nevery = '1h'\nparams = {a = 'x', c = 1}\n")
    what, _, mend = refused(7, "check").partition("\nhelp: ")
    assert what.startswith("error: config.toml: jobs.add: job 'add': parameter 'a': input should be a valid integer")
    assert "parameter 'c' is unknown" in what
    assert mend == "correct its params there, the parameters of 'add' are: a, b, note"


def test_a_server_that_cannot_or_must_not_listen_is_told_before_anything_runs(shop, refused):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        assert "in use" in refused(7, "run", "--http", place)
    assert "taskloop token create" in refused(7, "run", "--http", "0.0.0.0:0").partition("\nhelp: ")[2]


def test_a_store_that_is_older_names_the_upgrade(shop, call, refused):
    assert call("once", "add", "a=1").code == 0
    with closing(sqlite3.connect("taskloop.db", isolation_level=None)) as db:
        db.execute("UPDATE taskloop_meta SET value = '1' WHERE key = 'schema'")
    said = refused(8, "runs")
    assert "has schema 1" in said and "taskloop db upgrade" in said.partition("\nhelp: ")[2]


@pytest.mark.parametrize("words", [("run", "--no-fire"), ("init",)])
def test_a_command_in_a_folder_that_is_gone_says_so(shop, refused, tmp_path, monkeypatch, words):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    said = refused(2, *words)
    assert "error: the current folder is gone" in said and "change to one that exists" in said
