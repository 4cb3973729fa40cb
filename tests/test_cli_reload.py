"""`taskloop run --reload`: a changed file starts the program again, after a clean stop; the exit codes are those of `run`."""

from __future__ import annotations

import signal
import sqlite3
from contextlib import closing

import pytest
from command_line import call as call
from command_line import nothing_blocks_the_loop as nothing_blocks_the_loop
from command_line import shop as shop
from command_line import until

from taskloop.cli.reload import _counts


def workers(shop) -> list[tuple[int, str | None]]:
    with closing(sqlite3.connect(shop.folder / "taskloop.db")) as db, db:
        found = db.execute("SELECT pid, ended FROM taskloop_workers ORDER BY started_at").fetchall()
    db.close()
    return found


def test_a_changed_file_starts_it_again_and_a_broken_one_only_when_it_is_mended(shop, call):
    with shop.start("run", "--reload", "--no-fire") as running:
        running.hear("scheduler.ready")
        program = (shop.folder / "shop.py").read_text()
        shop.write("notes.txt", "no program")
        shop.write("shop.py", program + "\n\n@jobs.job()\ndef brand_new() -> None: ...\n")
        running.hear(r"(?s)reload: shop.py changed.*scheduler.stopped.*scheduler.ready")
        assert "brand_new" in call("list").out
        shop.write("shop.py", "def broken(:\n")
        running.hear("ended with code 7; it is started again when a file changes")
        assert running.process.poll() is None
        shop.write("config.toml", (shop.folder / "config.toml").read_text() + "# another\n")
        shop.write("shop.py", program)
        until(lambda: running.said.count("scheduler.ready") == 3, explain=lambda: running.said)
        assert running.end(signal.SIGINT) == 130
    assert "notes.txt" not in running.said and "Traceback" not in running.said
    found = workers(shop)
    assert len(found) == 3 and {how for _, how in found} == {"stopped"}


def test_it_ends_as_the_command_ends(shop):
    assert shop.process("run", "--reload", "--for", "0.2s").code == 0
    assert shop.process("run", "--reload", "--for", "never").code == 2
    with shop.start("run", "--reload") as running:
        running.hear("scheduler.ready")
        assert running.end(signal.SIGTERM) == 143


def test_a_child_whose_parent_is_killed_ends_too(shop):
    with shop.start("run", "--reload") as running:
        running.hear("scheduler.ready")
        assert running.end(signal.SIGKILL) == -9
        until(lambda: workers(shop)[-1][1] == "stopped", explain=lambda: running.said)


@pytest.mark.parametrize(
    ("path", "counts"),
    [
        ("shop.py", True),
        ("sub/config.toml", True),
        (".env", True),
        ("taskloop.db-wal", False),
        (".venv/lib/a.py", False),
    ],
)
def test_what_counts_as_a_change(tmp_path, path, counts):
    assert _counts(str(tmp_path / path), tmp_path, frozenset([str(tmp_path / ".env")])) is counts
    assert not _counts("/elsewhere/shop.py", tmp_path, frozenset())
