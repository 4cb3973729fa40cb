"""Completion, in the shells themselves: commands, options, and the names that the store has."""

from __future__ import annotations

import os
import pty
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import call as call
from command_line import nothing_blocks_the_loop as nothing_blocks_the_loop
from command_line import shop as shop
from command_line import surroundings, until
from test_cli_speed import HEAVY

from taskloop.cli.completion import words
from taskloop.cli.parser import COMMANDS

LINES = {
    "en": {"enable"},
    "sched": {"schedule"},
    "schedule ": {"add", "list", "remove"},
    "enable ho": {"hourly"},
    "disable --reason enable shop:o": {"shop:odd"},
    "runs --stat": {"--state"},
    "runs --state fa": {"failed"},
    "--format js": {"json", "jsonl"},
    "show 1": {"1"},
    "schedule remove e": {"evenings"},
    "logs -f ": {"1"},
    "--config conf": {"config.toml"},
    "--config other.toml enable ho": {"homework"},
    "help rer": {"rerun"},
    "nonsense ho": set(),
    "submit ho": {"hourly"},
    "submit hourly ": set(),
    "submit hourly --k": {"--key"},
    "schedule add hourly ni": set(),
    "enable hourly ni": {"nightly"},
}


def shell(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        assert not os.environ.get("CI"), f"{name} is missing"
        pytest.skip(f"{name} is not here")
    return found


@pytest.fixture
def stocked(shop, call):
    """A shop whose store has jobs, one run and a schedule, beside another one that has none yet."""
    shop.write("other.toml", "[store]\nurl = 'sqlite:///other.db'\n[jobs.homework]\ncall = 'shop:hourly'\n")
    with (shop.folder / "shop.py").open("a") as file:
        file.write("\n\n@jobs.job(name='shop:odd')\ndef odd() -> None: ...\n")
    assert call("once", "hourly").code == 0
    assert call("schedule", "add", "nightly", "--cron", "0 18 * * *", "--id", "evenings").code == 0
    return shop


def environ() -> dict[str, str]:
    return surroundings({"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"})


def test_bash_completes_commands_options_jobs_and_runs(stocked, call):
    stocked.write("complete.bash", call("completion", "bash").out)
    lines = [f"taskloop {line}" for line in LINES]
    asks = """
    source complete.bash
    for COMP_LINE in "$@"; do COMP_POINT=${#COMP_LINE}; _taskloop; echo "${COMPREPLY[*]}"; done
    """
    done = subprocess.run(
        [shell("bash"), "--norc", "-c", asks, "bash", *lines],
        cwd=stocked.folder,
        env=environ(),
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    given = dict(zip(LINES, (set(one.split()) for one in done.stdout.splitlines()), strict=True))
    # What stands before a colon is a word of its own to bash, and stays as it is.
    assert given == LINES | {"disable --reason enable shop:o": {"odd"}}


def test_fish_completes_commands_options_jobs_and_runs(stocked, call):
    stocked.write("complete.fish", call("completion", "fish").out)
    asks = "source complete.fish; for line in $argv; complete -C $line; echo ===; end"
    done = subprocess.run(
        [shell("fish"), "--no-config", "-c", asks, *(f"taskloop {line}" for line in LINES)],
        cwd=stocked.folder, env=environ(), capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""
    parts = done.stdout.split("===\n")[:-1]
    assert {
        line: {one.split("\t")[0] for one in part.splitlines()} for line, part in zip(LINES, parts, strict=True)
    } == LINES
    assert "hourly\tevery hour" in done.stdout and "1\thourly succeeded" in done.stdout


def test_zsh_completes_a_job_that_is_written_with_tab(stocked, call, tmp_path):
    stocked.write("complete.zsh", call("completion", "zsh").out)
    program, said, ready = shell("zsh"), tmp_path / "said", tmp_path / "ready"
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(stocked.folder)
        os.execve(program, ["zsh", "-f", "-i"], {**environ(), "TERM": "dumb", "HOME": str(tmp_path)})
    try:
        for line in (
            f"autoload -Uz compinit; compinit -u -d {tmp_path}/dump; source complete.zsh",
            f"told() {{ print -r -- $BUFFER >> {said}; BUFFER='' }}; zle -N told; bindkey '^T' told",
            f"touch {ready}",
        ):
            os.write(terminal, line.encode() + b"\n")
        until(ready.exists)
        wanted = {
            "ena": "enable",
            "enable hou": "enable hourly",
            "enable shop:o": "enable shop:odd",
            "runs --stat": "runs --state",
            "submit hourly nigh": "submit hourly nigh",
        }
        for line in wanted:
            os.write(terminal, f"taskloop {line}\t\x14".encode())
        until(
            lambda: said.exists() and len(said.read_text().splitlines()) == len(wanted),
            explain=lambda: os.read(terminal, 9999),
        )
        assert [one.strip() for one in said.read_text().splitlines()] == [f"taskloop {one}" for one in wanted.values()]
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(terminal)


def test_a_name_with_signs_is_a_word_and_no_command(stocked, call):
    assert call("schedule", "add", "nightly", "--every", "1h", "--id", "$(touch bad) `touch bad`").code == 0
    stocked.write("complete.bash", call("completion", "bash").out)
    asks = "source complete.bash; COMP_LINE='taskloop schedule remove $'; COMP_POINT=${#COMP_LINE}; _taskloop; echo \"$COMPREPLY\""
    done = subprocess.run(
        [shell("bash"), "--norc", "-c", asks], cwd=stocked.folder, env=environ(), capture_output=True, text=True
    )
    assert done.stdout == "\\$\\(touch\\ bad\\)\\ \\`touch\\ bad\\`\n" and not (stocked.folder / "bad").exists()


def test_what_a_shell_asks_for_is_told_in_silence_and_without_large_libraries(stocked, call):
    code = "import sys; from taskloop.__main__ import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code, "completion", "jobs"],
        cwd=stocked.folder,
        env=environ(),
        capture_output=True,
        text=True,
    )
    assert "hourly\tevery hour\n" in done.stdout
    assert not HEAVY & {name.split(".")[0] for name in done.stderr.split()}
    holder = sqlite3.connect(stocked.folder / "taskloop.db")
    holder.execute("PRAGMA locking_mode = EXCLUSIVE")
    holder.execute("PRAGMA journal_mode = DELETE")
    holder.execute("BEGIN EXCLUSIVE")
    for kind in ("jobs", "runs", "schedules"):
        assert stocked.process("completion", kind).err == ""
    holder.close()
    stocked.write("config.toml", "[store]\nurl = 3")
    for kind in ("jobs", "runs", "schedules"):
        done = call("completion", kind)
        assert (done.code, done.out, done.err) == (0, "", "")


def test_of_what_scripts_ask_for_nobody_else_is_told(shop, call):
    done = call("completion", "nosuch")
    assert done.code == 2 and "fish" in done.err and "schedules" not in done.err


def test_every_command_and_option_is_known_and_an_option_takes_a_value_everywhere_or_nowhere():
    found = words()
    assert set(COMMANDS) < set(found)
    takes: dict[str, set[bool]] = {}
    for word in found.values():
        for option in word.options:
            for name in option.names:
                takes.setdefault(name, set()).add(option.valued)
    assert {name for name, ways in takes.items() if len(ways) > 1} == set()
    assert found["show"].kind == "jobs runs" and found["db backup"].kind == "files" and found["token revoke"].kind == ""
