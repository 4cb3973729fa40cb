"""A command line as a job: its output is the run's log, its exit code the run's end, and nothing of it outlives a cancel."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
from command_line import call as call
from command_line import nothing_blocks_the_loop as nothing_blocks_the_loop
from command_line import shop as shop
from command_line import until

from taskloop.shell import command
from taskloop.testing import run_context


@pytest.fixture
def once(shop, call):
    """Runs one line; gives the record of its run, and what its log has."""

    def once(line, *words, **options):
        table = "".join(f"{key} = {json.dumps(value)}\n" for key, value in options.items())
        shop.write("config.toml", f'[jobs.line]\ncall = "taskloop.shell:command"\n{table}')
        run = call("once", "line", f"line:={json.dumps(line)}", *words, "--format", "json").data
        return run, call("logs", str(run["id"])).out

    return once


def test_what_it_writes_is_the_log_and_the_last_line_the_summary(once):
    run, log = once("echo first; echo ünicode >&2; echo; cat; printf last", 'stdin:="from stdin\\n"')
    assert (run["state"], run["summary"]) == ("succeeded", "last")
    assert [one in log for one in ("first", "ünicode", "from stdin", "last")] == [True] * 4
    run, _ = once("true")
    assert (run["state"], run["summary"], run["result"]) == ("succeeded", "", None) or run["summary"] is None


def test_another_exit_code_than_0_is_a_failed_run(once):
    run, _ = once("echo no disk; exit 3")
    assert run["state"] == "failed" and run["error"]["message"] == "exit code 3: no disk"
    run, _ = once("kill -9 $$")
    assert run["error"]["message"] == "ended by SIGKILL"
    run, _ = once("true", "folder=/no/such/folder")
    assert run["error"]["type"] == "FileNotFoundError"


@pytest.mark.parametrize("word", ["line=id", "stdin=x", "shell=/bin/bash", "folder=/", 'environment:={"PATH": "/"}'])
def test_what_a_declaration_runs_nobody_who_asks_for_a_run_can_change(shop, call, word):
    """Else every token that may submit could run any command."""
    shop.write(
        "config.toml",
        '[jobs.line]\ncall = "taskloop.shell:command"\nparams = {line = "echo $0 $X", environment = {X = "y"}}\n',
    )
    first = call("once", "line", "--format", "json").data
    assert (first["summary"], first["params"]["line"]) == ("/bin/sh y", "echo $0 $X")
    for words in (["once", "line", word], ["submit", "line", word], ["rerun", str(first["id"]), word]):
        refused = call(*words)
        assert (
            refused.code == 2
            and f"parameter '{word.partition('=')[0].strip(':')}' is for the declaration" in refused.err
        )
    same = call("once", "line", "line=echo $0 $X", "shell=/bin/sh", "stdin=", "--format", "json").data
    assert same["summary"] == "/bin/sh y" and len(call("runs", "--format", "json").items) == 2


def test_run_again_runs_what_the_declaration_says_by_now(shop, call):
    """A run from before ran its own line again, whatever the table had come to say."""
    job = '[jobs.line]\ncall = "taskloop.shell:command"\n'
    shop.write("config.toml", job)
    first = call("once", "line", "line=echo anything", "--format", "json").data
    shop.write("config.toml", f'{job}params = {{line = "echo mended"}}\n')
    for words in ([], ["line=echo mended"]):
        again = call("rerun", str(first["id"]), *words, "--format", "json").data
        assert again["params"] == {"line": "echo mended"}
    assert call("rerun", str(first["id"]), "line=echo anything").code == 2


def test_it_has_its_folder_environment_and_shell(once, shop):
    run, _ = once('echo "$PWD $GREETING $0"', "folder=/", 'environment:={"GREETING": "hello"}', "shell=/bin/bash")
    assert run["summary"] == "/ hello /bin/bash"
    (shop.folder / "home").mkdir()
    run, log = once("pwd", "folder=~")
    assert run["state"] == "succeeded" and "~" not in log


def test_a_line_of_any_length_and_what_stays_in_the_background_hold_nobody_up(once):
    began = time.monotonic()
    run, log = once("head -c 25000 /dev/zero | tr '\\0' x; echo; sleep 8 & echo done")
    assert run["state"] == "succeeded" and run["summary"] == "done" and log.count("x") == 25_000
    assert time.monotonic() - began < 8


@pytest.mark.anyio
async def test_a_flood_of_lines_leaves_the_loop_its_turns():
    """A pipe of `yes` has 32,000 lines, and the next as many again."""
    lines, seen = [], [0]

    class Context(type(run_context())):
        __slots__ = ()

        def log(self, text, level="info"):
            lines.append(text)

    run = asyncio.ensure_future(
        command(Context(run_context()._run, monotonic=time.monotonic), "yes | head -n 100000; echo end")
    )
    while not run.done():
        await asyncio.sleep(0)
        seen.append(len(lines))
    assert await run == "end" and len(lines) == 100_001
    assert max(after - before for before, after in pairwise(seen)) <= 1_000


def test_a_line_that_is_cut_into_several_is_cut_between_characters(once):
    run, log = once(f'echo x; {sys.executable} -X utf8 -c \'print("x" + "ü€" * 3000)\'')
    assert run["state"] == "succeeded" and log.count("€") == 3_000 and "\ufffd" not in log


def test_a_timeout_ends_all_that_it_started(once, shop):
    run, _ = once("(while :; do date +%s%N > alive; sleep 0.05; done) & wait", timeout="500ms")
    assert run["state"] == "failed" and run["error"]["type"] == "Timeout"

    def stands_still() -> bool:
        before = (shop.folder / "alive").read_text()
        time.sleep(0.2)
        return (shop.folder / "alive").read_text() == before

    until(stands_still)


def test_what_is_deaf_to_its_end_is_killed_though_the_shell_is_gone(once, shop):
    """The run had failed, its place was free, and what it had started went on."""
    deaf = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nopen('deaf', 'w').close()\ntime.sleep(60)\n"
    shop.write("deaf.py", deaf)
    line = f"{sys.executable} deaf.py & echo $! > child; wait"
    run, _ = once(line, timeout="2s")
    assert run["error"]["type"] == "Timeout" and (shop.folder / "deaf").exists()
    child = (shop.folder / "child").read_text().strip()
    until(lambda: not Path(f"/proc/{child}").exists() or "(zombie)" in Path(f"/proc/{child}/status").read_text())


def test_a_schedule_that_was_stored_before_runs_no_other_line_than_the_declaration_says(shop, call):
    job = '[jobs.line]\ncall = "taskloop.shell:command"\n'
    shop.write("config.toml", job)
    assert call("schedule", "add", "line", "line=touch old", "--every", "1h", "--id", "old").code == 0
    assert call("submit", "line", "line=touch old").code == 0
    shop.write("config.toml", f'{job}params = {{line = "echo fixed"}}\n')
    call("once", "--due", "--timeout", "20s")
    ends = call("runs", "--job", "line", "--format", "json").items
    assert [one["summary"] for one in ends] == ["fixed"] * 2 and not (shop.folder / "old").exists()
    assert "the job's declaration says others by now" in call("logs", str(ends[0]["id"])).out


def test_where_only_the_store_knows_the_job_what_its_declaration_gives_is_asked_for_too(shop, call):
    table = '[jobs.line]\ncall = "taskloop.shell:command"\nparams = {line = "echo $KEY", environment = {KEY = "k"}}\n'
    shop.write("config.toml", table)
    assert call("once", "line").code == 0
    shop.write("config.toml", "")
    run = call("submit", "line", "--format", "json").data
    assert (run["state"], run["params"]) == ("waiting", {"line": "echo $KEY", "environment": {"KEY": "k"}})
    other = call("submit", "line", "line=echo other")
    assert other.code == 2 and "parameter 'line' is for the declaration" in other.err
    shop.write("config.toml", f'{table}secret = ["environment"]\n')
    assert call("once", "line").code == 0
    shop.write("config.toml", "")
    refused = call("submit", "line")
    assert refused.code == 2 and "parameter 'environment' is missing" in refused.err
