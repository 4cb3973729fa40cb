"""Real processes: exit codes, signals at any moment, and commands that act on a running scheduler."""

from __future__ import annotations

import asyncio
import io
import json
import os
import pty
import re
import signal
import sqlite3
import subprocess
import sys
import time
from argparse import Namespace
from contextlib import closing, suppress
from datetime import datetime

import pytest
from command_line import SECONDS, on_a_terminal, surroundings, until
from command_line import call as call
from command_line import nothing_blocks_the_loop as nothing_blocks_the_loop
from command_line import shop as shop
from rich.console import Console
from rich.text import Text
from test_cli_words import taken_apart

from taskloop import Options, TaskScheduler
from taskloop.cli.lines import Log, Narrator
from taskloop.cli.screen import Screen, _Above, _Terminal
from taskloop.cli.session import Session
from taskloop.testing import run_context

READY = r"INFO scheduler\.ready"
TERM, INT = signal.SIGTERM, signal.SIGINT


def test_run_ends_by_itself_with_code_0_and_says_one_event_a_line(shop):
    done = shop.process("run", "--for", "300ms")
    assert done.code == 0 and done.out == ""
    events = [taken_apart(line)["event"] for line in done.err.splitlines()]
    assert events[:2] == ["scheduler.configured", "scheduler.starting"]
    assert {"scheduler.started", "scheduler.ready", "run.started", "run.succeeded", "scheduler.stopped"} <= set(events)
    [ran] = [taken_apart(line) for line in done.err.splitlines() if "run.succeeded" in line]
    assert (ran["job"], ran["summary"]) == ("hourly", "ticked")


def test_what_is_next_when_it_is_ready_is_yet_to_come(shop):
    shop.process("run", "--for", "300ms", "--jobs", "hourly")
    with closing(sqlite3.connect(shop.folder / "taskloop.db")) as db, db:  # as after a day on which nobody was there
        db.execute("UPDATE taskloop_schedules SET next_due = next_due - 86400000000")
    db.close()
    done = shop.process("run", "--for", "300ms")
    [ready] = [taken_apart(line) for line in done.err.splitlines() if "scheduler.ready" in line]
    assert datetime.fromisoformat(ready["at"]) > datetime.fromisoformat(ready["time"])


def test_what_fires_nothing_says_so_and_names_nothing_that_would_be_next_or_due(shop):
    done = shop.process("run", "--for", "300ms", TASKLOOP_SCHEDULER__ENABLED="false")
    said = {one["event"]: one for one in map(taken_apart, done.err.splitlines())}
    assert said["scheduler.ready"]["enabled"] == "false" and "next" not in said["scheduler.ready"]
    assert "due_now" not in said["scheduler.plan"] and "run.started" not in said


def test_run_speaks_json_when_asked(shop):
    done = shop.process("run", "--for", "300ms", "--log-format", "json", "--no-fire")
    events = [json.loads(line)["event"] for line in done.err.splitlines()]
    assert "scheduler.ready" in events and "run.started" not in events


def test_under_the_journal_a_line_has_a_priority_and_no_time(shop):
    code = (
        "import os, runpy; found = os.fstat(2)\n"
        "os.environ['JOURNAL_STREAM'] = f'{found.st_dev}:{found.st_ino}'\n"
        "runpy.run_module('taskloop', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", "--for", "200ms", "--jobs", "nightly"], cwd=shop.folder,
        env=surroundings({}), capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "scheduler.started" in done.stderr and "hourly" not in done.stderr
    assert all(re.match(r"<\d>[a-z_]+\.[a-z_]+( |$)", line) for line in done.stderr.splitlines())


def test_a_job_that_calls_logging_wrongly_runs_on_as_without_taskloop(shop):
    shop.write(
        "loud.py",
        "import logging\nfrom taskloop import Jobs\njobs = Jobs()\n@jobs.job()\ndef loud():\n"
        "    logging.getLogger('mine').warning('took %d seconds', 'three')\n    return 5\n",
    )
    done = shop.process("--app", "loud:jobs", "once", "loud")
    assert done.code == 0 and "run.succeeded" in done.err
    assert "--- Logging error ---" in done.err and "took %d seconds" in done.err and "loud.py" in done.err


def test_jobs_that_log_and_print_keep_the_streams_apart(shop):
    shop.write(
        "loud.py",
        "import logging, sys\nfrom loguru import logger\nfrom taskloop import Jobs\njobs = Jobs()\n"
        "@jobs.every('1h')\ndef loud():\n    print('to stdout')\n    logger.bind(n=3).info('hi \\x1b[2J {} there')\n"
        "    logging.getLogger('mine').warning('old %s', 'way')\n",
    )
    done = shop.process("--app", "loud:jobs", "run", "--for", "300ms")
    assert done.out == "to stdout\n" and "\x1b" not in done.err
    said = [taken_apart(line) for line in done.err.splitlines()]
    assert [one["message"] for one in said if one["event"] == "log"] == ["hi \x1b[2J {} there", "old way"]


def test_dev_mode_says_so_and_fires_everything_often(shop):
    done = shop.process("run", "--dev", "100ms", "--for", "500ms", "--jobs", "nightly")
    assert "DEV MODE" in done.err and done.err.count("run.succeeded job=nightly") >= 3
    assert "taskloop.dev.db" in shop.files


def test_git_metrics_shows_what_it_found(shop):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main"]
    shop.write("one.txt", "1\n")
    for words in (["init", "-q"], ["add", "one.txt"], ["commit", "-q", "-m", "x"]):
        subprocess.run([*git, *words], cwd=shop.folder, check=True, timeout=SECONDS)
    done = shop.process("once", "git_metrics", "--format", "json", HOME=str(shop.folder))
    assert done.code == 0 and done.data["result"]["repositories"]["."]["commits"] == 1
    assert 'git_metrics.repository path=. commits=1 commits_30d=1 authors=1 churn_30d=1 hot="one.txt (1)"' in done.err


# -- signals


@pytest.mark.parametrize(
    ("number", "delay"), [(TERM, 0.1), (TERM, 0.2), (INT, 0.25), (TERM, 0.35), (INT, 0.4), (TERM, 0.5), (INT, 0.7)]
)
def test_a_signal_during_the_start_ends_it_with_its_code_and_no_traceback(shop, number, delay):
    with shop.start("run") as running:
        time.sleep(delay)  # the moment itself is what is tested
        code = running.end(number)
        # Before our first line a signal ends it by the kernel's default, the same to a shell; or Python, which is only
        # beginning, tells where a Ctrl-C found it.
        if number is INT and "KeyboardInterrupt" in running.said and "__main__.py" not in running.said:
            assert code in (1, -INT)
        else:
            assert code in (128 + number, -number)
            assert "Traceback" not in running.said and "Error" not in running.said


@pytest.mark.parametrize("number", [TERM, INT], ids=["term", "int"])
def test_a_signal_lets_runs_end_and_gives_128_and_its_number(shop, call, number):
    with shop.start("run", "--no-fire") as running:
        running.hear(READY)
        call("submit", "slow", "seconds=1")
        running.hear("run.started job=slow")
        assert running.end(number) == 128 + number
        assert "run.succeeded job=slow" in running.said and "scheduler.stopped" in running.said


def test_a_second_signal_ends_the_grace_and_the_code_stays(shop, call):
    with shop.start("run", "--no-fire") as running:
        running.hear(READY)
        call("submit", "slow", "seconds=60")
        running.hear("run.started job=slow")
        running.process.send_signal(TERM)
        running.hear("scheduler.stopping")
        began = time.monotonic()
        assert running.end(TERM) == 143
        assert time.monotonic() - began < 10 and "Traceback" not in running.said
        assert "run.interrupted job=slow" in running.said


def test_the_grace_can_be_short(shop, call):
    with shop.start("run", "--no-fire", "--grace", "100ms") as running:
        running.hear(READY)
        call("submit", "slow")
        running.hear("run.started job=slow")
        began = time.monotonic()
        assert running.end(INT) == 130 and time.monotonic() - began < 5


def test_once_is_stopped_by_a_signal_too(shop, call):
    with shop.start("once", "slow", "seconds=60", "--grace", "100ms") as running:
        running.hear("run.started job=slow")
        assert running.end(TERM) == 143
        assert "Traceback" not in running.said
    assert call("runs", "--format", "json").items[0]["state"] == "interrupted"
    for command in ("status", "list"):
        said = call(command).out
        assert "failing" in said and "0x" not in said, "it has not failed, and is not well either"


def test_once_ends_though_a_run_of_its_own_was_taken_over_and_says_what_became_of_it(shop, call):
    """As one that stood still for longer than a lease beside another worker: it waited for an end that nobody tells."""
    call("submit", "slow", "seconds=2")
    with shop.start("once") as running:
        running.hear("run.started job=slow")
        with closing(sqlite3.connect(shop.folder / "taskloop.db")) as db:  # what that other one does
            db.execute("UPDATE taskloop_runs SET state = 'interrupted', ended_at = due_at, token = token + 1")
            db.commit()
        running.hear("run.fenced job=slow")
        assert running.process.wait(SECONDS) == 1
    assert "1 failed" in running.said


# -- beside a running process


def test_waiting_for_a_run_that_no_worker_takes_is_code_5_and_says_what_there_is(shop, call):
    with shop.start("run", "--jobs", "hourly") as running:
        running.hear("scheduler.started jobs=1 ")
        running.hear("run.succeeded job=hourly")
        said = call("submit", "add", "a=1", "--wait")
        assert said.code == 5 and f"pid {running.process.pid}, which takes hourly, so nothing was submitted" in said.err
        assert call("rerun", "1", "--wait", "--timeout", "5s").code == 0
        said = call("submit", "add", "a=1")
        assert said.code == 0 and "warning: no worker takes it: there is" in said.err
        with shop.start("run", "--no-fire") as other:
            other.hear("run.succeeded job=add")
            assert call("submit", "add", "a=1", "--wait").code == 0


def test_a_process_may_fire_alone_and_leave_the_running_to_others(shop, call):
    def states(job):
        return [run["state"] for run in call("runs", "--job", job, "--format", "json").data["items"]]

    assert call("run", "--fire-only", "--no-fire").code == 2
    with shop.start("run", "--fire-only") as firing:
        firing.hear(READY)
        until(lambda: states("hourly") == ["waiting"])
        said = call("submit", "add", "a=1")
        assert (
            said.code == 0 and "warning: no worker takes it: there is" in said.err and "which takes nothing" in said.err
        )
        assert states("add") == ["waiting"]
        # A start that held the loop for a moment is named for as long as that was a quarter of the wait.
        until(lambda: "the workers that have the job only fire" in call("why", "1").out)
        with shop.start("run", "--no-fire") as running:
            running.hear("run.succeeded job=hourly")
            running.hear("run.succeeded job=add")
            assert call("submit", "add", "a=1", "--wait").code == 0
        assert "run.started" not in firing.said


def test_who_waits_is_told_what_for(shop, call):
    with shop.start("run", "--no-fire") as running:
        running.hear(READY)
        assert call("schedule", "remove", "hourly").code == 4
        call("pause", "add")
        with shop.start("submit", "add", "a=1", "--wait") as waiting:
            waiting.hear("run 1 of add: waiting; its job is paused; taskloop resume add")
            call("resume", "add")
            assert waiting.process.wait(SECONDS) == 0
        with shop.start("submit", "slow", "--wait") as waiting:
            running.hear("run.started job=slow")
            waiting.hear("run 2 of slow: running")
            running.process.kill()
            running.process.wait(SECONDS)
            waiting.hear("run 2 of slow: running; its worker is gone; the next one ends it: taskloop run")
            assert "\nlost:        worker " in call("show", "2").out
            call("submit", "add", "a=1")
        with shop.start("rerun", "1", "--wait") as waiting:
            waiting.hear("no worker is running, so nothing was submitted")


def test_commands_act_on_a_running_scheduler_within_a_second(shop, call):
    with shop.start("run", "--no-fire") as running:
        running.hear(READY)
        assert call("status", "--format", "json").data["running"] is True

        waited = call("submit", "add", "a=2", "--wait", "--format", "json")
        assert waited.code == 0 and waited.data["result"] == 4 and not waited.err
        assert call("submit", "fails", "--wait").code == 1
        late = call("submit", "slow", "--wait", "--timeout", "300ms", "--format", "json")
        assert late.code == 9 and late.data["job"] == "slow" and late.data["state"] in ("waiting", "running")
        late = call("submit", "add", "a=1", "--at", "+1h", "--wait", "--timeout", "0.1")
        assert late.code == 9 and "has not ended after 100ms; it goes on" in late.err
        assert call("cancel", "4").code == 0

        running.hear("run.started job=slow", 5)
        run = call("runs", "--state", "running", "--format", "json").items[0]["id"]
        assert call("cancel", str(run)).code == 0
        assert running.hear(f"run.cancelled job=slow run={run}", 5) < 1.5

        call("pause")
        call("submit", "add", "a=5")
        call("resume")
        assert running.hear("run.succeeded job=add .*summary=7|run.succeeded job=add run=5", 5) < 1.5

        call("disable", "add")
        assert call("submit", "add", "a=1").code == 4
        call("enable", "add")
        assert call("rerun", "1", "b=9", "--wait", "--format", "json").data["result"] == 11


def test_a_pause_holds_what_a_running_scheduler_would_start(shop, call):
    with shop.start("run", "--no-fire") as running:
        running.hear(READY)
        call("pause", "add")
        time.sleep(1)  # what is promised is that a second is enough
        run = call("submit", "add", "a=1", "--format", "json").data["id"]
        call("submit", "order", "day=2026-03-01", "--wait")
        assert call("show", str(run), "--format", "json").data["state"] == "waiting"
        call("resume", "add")
        running.hear(f"run.succeeded job=add run={run}", 5)


# -- process


def test_process_runs_one_job_continually_until_its_time_is_over(shop, call):
    done = shop.process("process", "add", "--every", "0")
    assert done.code == 2 and "'a' is missing" in done.err
    timing = ("--every", "0", "--sleep", "100ms", "--max-runtime", "1500ms")
    done = shop.process("process", "hourly", *timing, TASKLOOP_GRACE="1s")
    assert "WARNING config.warning" in done.err and "TASKLOOP_GRACE is no setting" in done.err
    assert done.code == 0 and 3 <= done.err.count("run.succeeded job=hourly") <= 16
    assert "nightly" not in done.err
    assert shop.process("process", "nobody", "--every", "1s").code == 3


def test_process_remembers_no_run_that_is_over():
    scheduler = TaskScheduler(options=Options())
    session = Session(scheduler, Narrator("CRITICAL"), None, remembers=False)
    run = run_context(id=7)._run
    scheduler.feed.send("started", run.created_at, run)
    assert session.active == {7}
    scheduler.feed.send("succeeded", run.created_at, run)
    assert not session.active and not session.seen


def test_process_says_once_that_its_job_is_off_and_ends_after_the_run_in_hand(shop, call):
    call("disable", "stubborn", "--actor", "tom", "--reason", "later")
    with shop.start("process", "stubborn", "--every", "0", "--sleep", "10ms") as running:
        running.hear('job.off job=stubborn text="job is off')
        call("enable", "stubborn")
        running.hear("run.started job=stubborn")
        assert running.said.count("job is off") == 1 and "by=tom" in running.said
        call("pause", "stubborn", "--actor", "ann")
        running.hear("job.paused job=stubborn .* by=ann")
        assert running.end(TERM) == 143
        assert "run.succeeded job=stubborn" in running.said


def test_process_goes_on_when_its_store_is_back(shop):
    path, away = shop.folder / "taskloop.db", shop.folder / "away.db"
    with shop.start("process", "hourly", "--every", "0", "--sleep", "50ms") as running:
        running.hear("run.succeeded job=hourly")
        path.rename(away)
        running.hear("store.lost .*moved away while in use")
        away.rename(path)
        running.hear("store.back")
        ended = running.said.count("run.succeeded")
        until(lambda: running.said.count("run.succeeded") > ended + 1)
        assert running.end(TERM) == 143


# -- streams and terminals


def test_a_reader_that_leaves_early_causes_no_traceback(shop, call):
    call("once", "add", "a=1")
    for words in (["--help"], ["runs", "--format", "json"], ["run", "--for", "400ms"]):
        process = subprocess.Popen(
            [sys.executable, "-m", "taskloop", *words], cwd=shop.folder, env=surroundings({}),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        (process.stderr if words[0] == "run" else process.stdout).close()
        rest = process.stdout if words[0] == "run" else process.stderr
        assert rest.read() == "" and process.wait(SECONDS) == 0
        rest.close()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such device here")
@pytest.mark.parametrize(
    "words", [["runs"], ["list", "--format", "csv"], ["systemd"], ["completion", "bash"], ["--help"]]
)
@pytest.mark.parametrize("at_once", ["", "1"], ids=["at the end", "at once"])
def test_data_that_could_not_be_written_is_an_error(shop, call, words, at_once):
    call("once", "add", "a=1")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "taskloop", *words], cwd=shop.folder, env=surroundings({"PYTHONUNBUFFERED": at_once}),
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "error: the output cannot be written: No space left on device\n")


CRAWL = """
import asyncio
from taskloop import Jobs, RunContext
jobs = Jobs()
@jobs.every("1h")
async def crawl(run: RunContext) -> str:
    for page in range(60):
        run.progress(page, 60, "page \\x1b[5m" + str(page))
        await asyncio.sleep(0.05)
    return "all read"
"""


def test_a_terminal_is_told_the_day_of_what_is_next_where_that_is_not_today(shop):
    shop.write(
        "rarely.py", "from taskloop import Jobs\njobs = Jobs()\n@jobs.every('2w', first='after')\ndef job(): ...\n"
    )
    code, said = on_a_terminal(shop, "--app", "rarely:jobs", "run", "--for", "1s")
    assert code == 0 and re.search(r'scheduler\.ready.*next=job  at="\w{3} \d\d \w{3} \d\d:\d\d:\d\d UTC"', said), said


def test_a_terminal_shows_bars_below_the_lines_and_gets_its_cursor_back(shop):
    shop.write("crawling.py", CRAWL)
    code, said = on_a_terminal(shop, "--app", "crawling:jobs", "run", "--grace", "0", end=INT)
    assert code == 130
    assert "▶ crawl" in said and re.search(r"\d+%  \d+/60", said) and "scheduler.ready" in said
    assert "\x1b[5m" not in said and "page \\x1b[5m" in said
    assert said.rindex("\x1b[?25h") > said.rindex("\x1b[?25l")
    hidden = re.findall(r"\x1b\[\?25l.*?\x1b\[\?25h", said, re.S)  # while it is drawn, so that no end leaves it so
    assert len(hidden) > 3 and all("\x1b[J" in one and "\x1b8" in one for one in hidden)
    assert "starting  ·  ok 0" in said and "stopping  ·  ok" in said
    assert "Traceback" not in said


def test_ctrl_z_gives_the_terminal_back_with_its_cursor_and_fg_takes_it_again(shop):
    shop.write("crawling.py", CRAWL)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "taskloop", "--app", "crawling:jobs", "run", "--grace", "0"], cwd=shop.folder,
        stdin=theirs, stdout=theirs, stderr=theirs, env=surroundings({"TERM": "xterm", "COLUMNS": "100"}), process_group=0,
    )  # fmt: skip
    os.close(theirs)
    said = b""

    def hear(what: str) -> None:
        nonlocal said
        said = b""
        while what.encode() not in said:
            said += os.read(ours, 65536)

    try:
        hear("▓▓▓")
        process.send_signal(signal.SIGTSTP)
        assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
        os.set_blocking(ours, False)
        with suppress(BlockingIOError):
            said += os.read(ours, 65536)
        os.set_blocking(ours, True)
        assert said.endswith(b"\x1b[J\r\x1b[K\x1b[?25h")  # what is below the cursor goes, and the cursor is there
        process.send_signal(signal.SIGCONT)
        hear("\x1b[?25l")
        hear("▓▓▓")
        process.send_signal(INT)
        hear("\x1b[?25h")
        assert process.wait(SECONDS) == 130
    finally:
        process.kill()
        process.wait(SECONDS)
        os.close(ours)


class Glass(io.StringIO):
    """What a terminal of eight rows shows, which breaks its lines anew when it is made narrower, as most do."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.columns, self.rows, self.row, self.column, self.kept = columns, [""], 0, 0, (0, 0)

    def write(self, text: str) -> int:
        for sign in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|\x1b.|[^\x1b]", text):
            self._obey(sign)
        return len(text)

    def _obey(self, sign: str) -> None:
        top = max(0, len(self.rows) - 8)
        if sign in ("\n", "\x1bD"):
            self.row += 1
            self.column = 0 if sign == "\n" else self.column
            self.rows += [""] if self.row == len(self.rows) else []
        elif sign == "\r":
            self.column = 0
        elif sign in ("\x1b[J", "\x1b[K"):
            self.rows[self.row] = self.rows[self.row][: self.column]
            self.rows[self.row + 1 :] = (
                [""] * len(self.rows[self.row + 1 :]) if sign == "\x1b[J" else self.rows[self.row + 1 :]
            )
        elif sign == "\x1b7":
            self.kept = self.row - top, self.column
        elif sign == "\x1b8":
            self.row, self.column = self.kept[0] + top, self.kept[1]
        elif sign[0] == "\x1b" and sign[-1] in "AB":
            by = int(sign[2:-1] or 1)
            self.row = max(top, self.row - by) if sign[-1] == "A" else min(len(self.rows) - 1, self.row + by)
        elif sign[0] != "\x1b":
            old = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = old[: self.column] + sign + old[self.column + 1 :]
            self.column += 1

    def narrowed(self, columns: int) -> None:
        broken = [[row[at : at + columns] for at in range(0, max(1, len(row)), columns)] for row in self.rows]
        self.row = sum(map(len, broken[: self.row]))
        self.columns, self.rows = columns, [part for parts in broken for part in parts]

    @property
    def shown(self) -> list[str]:
        return [row for row in self.rows if row]


def test_bars_take_no_line_of_others_away_and_leave_nothing_behind_in_a_terminal_that_was_made_narrower():
    glass = Glass(100)
    console = Console(file=glass, force_terminal=True, width=100, height=8, legacy_windows=False)
    terminal, frame = _Terminal(glass, console), [Text("x" * 79), Text("─" * 60), Text("y")]
    terminal.show(frame)
    terminal.lines(["ours"])
    for number in range(9):  # it scrolls by now
        glass.write(f"a command's {number}\n")
        terminal.show(frame)
    assert glass.shown == ["ours", *(f"a command's {number}" for number in range(9)), "x" * 79, "─" * 60, "y"]
    glass.narrowed(50)
    console.width = 50
    terminal.show(frame)
    assert glass.shown[10:] == ["x" * 49 + "…", "─" * 49 + "…", "y"]
    for text in ("a dot", " another"):
        terminal.text(text)
        terminal.show(frame)
    glass.write(" and a command's")
    terminal.show([])
    terminal.lines(["ours"])
    assert glass.shown[9:] == ["a command's 8", "a dot another and a command's", "ours"]
    terminal.show(frame)
    terminal.give_back()
    terminal.text("who holds the stream still\n")
    assert glass.shown[11:] == ["ours", "who holds the stream still"]


def test_the_lines_for_a_terminal_that_is_gone_are_not_kept(monkeypatch):
    ours, theirs = pty.openpty()
    terminal = os.fdopen(theirs, "w")
    monkeypatch.setattr("sys.stderr", terminal)
    log = Log(Namespace(ascii=False, color="never"), "auto")
    screen = Screen(log, TaskScheduler(":memory:"), ())

    async def work() -> int:
        keeping = asyncio.create_task(screen.keep())
        os.close(ours)
        for number in range(10):
            log.write(f"line {number}")
            await asyncio.sleep(0.1)
        keeping.cancel()
        return len(screen._lines)

    screen.start()
    try:
        assert asyncio.run(work()) < 8
    finally:
        screen.stop()
        with suppress(OSError):
            terminal.close()


def test_what_jobs_print_on_a_terminal_moves_nothing_there(monkeypatch):
    printed: list[str] = []
    terminal = _Terminal(io.StringIO(), Console(width=80, height=8))
    monkeypatch.setattr(terminal, "text", printed.append)
    out = _Above(terminal, io.StringIO())
    print("\x1b[31mred\x1b[0m \x1b[2J\x1b[5A\x1b]0;title\x07\x1bc\x1b[Kend", file=out)
    print("kept until it is", end="", file=out)
    assert printed == ["\x1b[31mred\x1b[0m \x1b[Kend\n"]
    out.flush()
    assert printed[1:] == ["kept until it is"] and out.write("12345") == 5


def test_a_narrow_terminal_shows_the_bar_of_a_job_with_a_long_name(shop):
    shop.write("crawling.py", CRAWL.replace("def crawl", f"def {'crawls_all_there_is_' * 3}"))
    _, said = on_a_terminal(shop, "--app", "crawling:jobs", "run", "--grace", "0", end=INT, COLUMNS="40")
    assert re.search(r"▶ crawls_al… ▓{3,}░+  +\d+%", said) and re.search(r"next crawls_al… (now|in )", said)


def test_a_dumb_terminal_gets_plain_lines(shop):
    code, said = on_a_terminal(shop, "run", "--for", "300ms", TERM="dumb")
    assert code == 0 and "\x1b" not in said and "✓ hourly" in said
    code, said = on_a_terminal(shop, "--ascii", "run", "--for", "300ms", NO_COLOR="1", TERM="dumb")
    assert said.isascii()


def test_a_terminal_that_says_no_colour_gets_none(shop):
    _, said = on_a_terminal(shop, "list", NO_COLOR="1")
    assert "\x1b" not in said and "11 jobs" in said


def test_a_table_is_cut_to_the_terminal_at_its_last_column(shop, call):
    call("once", "add", "a=1", "note=" + "x" * 100)
    call("once", "fails")
    _, said = on_a_terminal(shop, "list", NO_COLOR="1", COLUMNS="110")
    lines = said.splitlines()
    assert max(map(len, lines)) <= 110 and any(line.endswith("…") for line in lines)


def test_in_a_narrow_terminal_no_row_of_any_table_breaks(shop, call):
    call("once", "add", "a=1", "note=" + "x" * 100)
    call("once", "fails")
    for words in (("list",), ("runs",), ("next",), ("schedule", "list")):
        for columns in (40, 60, 64):
            _, said = on_a_terminal(shop, *words, NO_COLOR="1", COLUMNS=str(columns))
            table = said.splitlines()[: -1 if words == ("list",) else None]  # the last line of 'list' is a sentence
            assert len(table) > 1 and max(map(len, table)) <= columns, said


def test_a_pipe_is_coloured_only_when_forced(shop, call):
    call("once", "add", "a=1")
    assert "\x1b" not in shop.process("runs").out
    assert "\x1b[32m✓ succeeded" in shop.process("runs", FORCE_COLOR="1").out
    assert shop.process("runs", LANG="C").out.isascii()
    assert shop.process("runs", PYTHONIOENCODING="latin-1").out.isascii()


def test_a_wait_whose_store_goes_away_names_the_run_that_is_on_record(shop, call):
    with shop.start("run", "--no-fire") as running:
        running.hear(READY)
        with shop.start("submit", "slow", "--wait") as waiting:
            until(lambda: call("runs", "--state", "running", "--format", "json").items)
            path = shop.folder / "taskloop.db"
            path.rename(shop.folder / "away.db")
            assert waiting.process.wait(SECONDS) == 8
            assert re.search("error: run 1 of slow is on record, but .*moved away while in use", waiting.said)
            assert "help: taskloop show 1, once the store is back" in waiting.said
            (shop.folder / "away.db").rename(path)
        assert call("cancel", "1").code == 0


def test_ctrl_c_leaves_a_wait_and_says_that_the_run_goes_on(shop, call):
    with shop.start("run", "--no-fire") as running:
        running.hear(READY)
        with shop.start("submit", "slow", "--wait") as waiting:
            until(lambda: call("runs", "--state", "running", "--format", "json").items)
            assert waiting.end(INT) == 130
            assert "run 1 goes on" in waiting.said and "Traceback" not in waiting.said
        assert call("cancel", "1").code == 0
