"""`taskloop run --reload`: a changed file starts the program again, after a clean stop; the exit codes are those of `run`."""

from __future__ import annotations

import os
import pty
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
from command_line import SECONDS, surroundings, until
from command_line import call as call
from command_line import nothing_blocks_the_loop as nothing_blocks_the_loop
from command_line import shop as shop

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


def test_on_a_terminal_a_change_is_told_when_the_bars_of_the_child_are_gone(shop):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "taskloop", "run", "--reload", "--no-fire"], cwd=shop.folder, stdin=theirs, stdout=theirs,
        stderr=theirs, env=surroundings({"TERM": "xterm"}),
    )  # fmt: skip
    os.close(theirs)
    said = ""
    try:
        while said.count("scheduler.ready") < 2:
            said += os.read(ours, 65536).decode(errors="replace")
            if "scheduler.ready" in said and "# another" not in (shop.folder / "shop.py").read_text():
                shop.write("shop.py", (shop.folder / "shop.py").read_text() + "# another\n")
        assert said.index("reload: shop.py changed") > said.index("scheduler.stopped") > said.index("scheduler.ready")
        process.send_signal(signal.SIGINT)
        with suppress(OSError):  # the terminal is gone with the process
            while os.read(ours, 65536):
                pass
        assert process.wait(SECONDS) == 130
    finally:
        process.kill()
        process.wait(SECONDS)
        os.close(ours)


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


def test_ctrl_z_and_ctrl_backslash_reach_the_child_and_a_hangup_that_is_ignored_ends_nothing(shop):
    def alone():
        os.setpgid(0, 0)  # a group that has no parent in its session cannot be stopped
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does

    def state(pid: int) -> str:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]

    log = shop.folder / "said.txt"
    with log.open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "taskloop", "run", "--reload", "--no-fire"], cwd=shop.folder, env=surroundings({}),
            stdout=subprocess.DEVNULL, stderr=said, preexec_fn=alone,
        )  # fmt: skip
    try:
        until(lambda: "scheduler.ready" in log.read_text())
        [(child, _)] = workers(shop)
        process.send_signal(signal.SIGTSTP)
        until(lambda: state(process.pid) == "T")
        assert state(child) == "T"
        process.send_signal(signal.SIGCONT)
        until(lambda: state(child) != "T")
        process.send_signal(signal.SIGHUP)
        os.kill(child, signal.SIGHUP)
        process.send_signal(signal.SIGQUIT)
        assert process.wait(SECONDS) == -signal.SIGQUIT
        until(lambda: not Path(f"/proc/{child}").exists() or state(child) == "Z")
        assert workers(shop) == [(child, None)]  # it had no time for an end of its own
    finally:
        process.kill()
        process.wait(SECONDS)


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
