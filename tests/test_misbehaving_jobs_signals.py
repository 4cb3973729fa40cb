"""Signals at any moment and in any number (S1-S3, S9), hosts with handlers of their own (S4), streams and loops that are
gone (S7, S8): the process ends as it should, and the store is whole."""

from __future__ import annotations

import asyncio
import fcntl
import importlib.util
import os
import pty
import signal
import subprocess
import sys
import termios
import time
from contextlib import suppress
from pathlib import Path

import pytest
from command_line import SECONDS, surroundings, until
from command_line import call as call
from command_line import nothing_blocks_the_loop as nothing_blocks_the_loop
from command_line import shop as shop
from misbehaviour import Program
from misbehaviour import program as program

from taskloop import Options, TaskScheduler

TERM, INT, HUP = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
READY = r"INFO scheduler\.ready"

BAD = """
import asyncio, time
from pathlib import Path
from taskloop import Jobs

jobs = Jobs()

@jobs.every("1h")
async def swallows():
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        await asyncio.sleep(2)

@jobs.every("1h")
async def never():
    await asyncio.sleep(3600)

@jobs.every("1h")
def deaf():
    time.sleep(3600)

@jobs.job()
async def holds(at_once: bool = True):
    try:
        await asyncio.sleep(0 if at_once else 3600)
    finally:
        while True:
            time.sleep(0.1)

@jobs.every("1h", executor="process")
def works():
    Path("works").touch()
    time.sleep(2)

@jobs.every("100ms", name="healthy")
async def healthy():
    print("line")
"""
CONFIG = """
[scheduler]
app = "bad:jobs"
grace = "60s"
kill_grace = "%s"
[jobs.git_metrics]
at = 2099-01-01T00:00:00Z
"""


@pytest.fixture
def bad(shop):
    """A program whose jobs do not want to end, in the current folder."""
    shop.write("bad.py", BAD)
    shop.write("config.toml", CONFIG % "500ms")
    return shop


def states(folder, database="taskloop.db"):
    return {(job, state, reason) for job, state, reason in Program(folder).rows("job, state, reason", database)}


def starts_again(path):
    """Whether a scheduler starts on what was left, and runs a job."""

    async def life():
        scheduler = TaskScheduler(path, options=Options())

        @scheduler.job()
        async def job(): ...

        async with scheduler:
            return (await (await scheduler.submit("job")).wait("10s")).state

    return asyncio.run(life()) == "succeeded"


# -- S1: at every moment of the start


@pytest.mark.parametrize("first", range(4))
def test_a_term_at_any_moment_of_the_start_leaves_a_whole_store_or_none(bad, call, monkeypatch, first):
    for delay in range(first * 20, 401, 80):
        monkeypatch.setenv("TASKLOOP_STORE__URL", f"sqlite:///{delay}.db")
        with bad.start("run", "--jobs", "healthy", TASKLOOP_STORE__URL=f"sqlite:///{delay}.db") as running:
            time.sleep(delay / 1000)  # the moment itself is what is tested
            # Before Python runs our first line, the kernel ends it: to a shell, that is 143 too.
            assert running.end(TERM) in (143, -TERM)
            assert "Traceback" not in running.said and "Error" not in running.said
        path = bad.folder / f"{delay}.db"
        if path.exists():
            assert call("db", "check").code == 0
            assert starts_again(path)


# -- S2, S3, S6, S9: how many, and which


def test_a_second_signal_ends_the_grace_and_the_kill_grace_is_still_given(bad):
    with bad.start("run", "--jobs", "swallows,never") as running:
        running.hear("run.started job=swallows")
        running.hear("run.started job=never")
        running.process.send_signal(TERM)
        running.hear("scheduler.stopping")
        began = time.monotonic()
        assert running.end(INT) == 143
        assert time.monotonic() - began < 0.5 + 2
    assert states(bad.folder) == {
        ("swallows", "interrupted", "abandoned"),
        ("never", "interrupted", "shutting_down"),
    }


def test_a_third_signal_exits_at_once(bad):
    bad.write("config.toml", CONFIG % "3s")
    with bad.start("run", "--jobs", "deaf") as running:
        running.hear("run.started job=deaf")
        running.process.send_signal(TERM)
        running.hear("scheduler.stopping")
        began = time.monotonic()
        running.process.send_signal(TERM)
        time.sleep(0.6)  # sooner it would belong to the second
        assert running.end(TERM) == 143
        assert time.monotonic() - began < 2.9, "the kill grace is not waited for"


@pytest.mark.parametrize("at_once", [True, False], ids=["before the first", "after the second"])
def test_a_third_signal_exits_though_a_job_holds_the_loop(bad, call, at_once):
    with bad.start("run", "--jobs", "holds") as running:
        running.hear(READY)
        call("submit", "holds", f"at_once={at_once}")
        running.hear("loop.blocked .*job=holds" if at_once else "run.started job=holds")
        running.process.send_signal(TERM)
        time.sleep(0.6)
        running.process.send_signal(TERM)
        time.sleep(0.6)  # sooner the third would belong to the second
        assert running.process.poll() is None
        assert running.end(TERM) == 143
        assert "Traceback" not in running.said


@pytest.mark.parametrize("mixed", [(TERM,), (TERM, INT), (INT, TERM, HUP)], ids=["term", "term int", "int term hup"])
def test_a_storm_of_a_thousand_signals_is_as_two(bad, mixed):
    with bad.start("run", "--jobs", "never,deaf,healthy") as running:
        running.hear("run.started job=deaf")
        running.hear("run.succeeded job=healthy")
        began = time.monotonic()
        for number in range(1000):
            running.process.send_signal(mixed[number % len(mixed)])
            time.sleep(0.02 if number % 200 == 0 else 0)  # what the kernel has not delivered yet, it makes one of
        lasted = time.monotonic() - began
        # Of signals that are there at once, the kernel chooses which is heard first.
        assert running.process.wait(SECONDS) - 128 in mixed
        assert time.monotonic() - began < 0.5 + 2
        assert "Traceback" not in running.said or "signal wakeup fd" in running.said  # Python's own, of too many
    left = {state for state in states(bad.folder) if state[0] != "healthy"}
    if lasted < 0.4:  # on a crowded machine its end may be half a second after its beginning: a third word
        assert left == {("never", "interrupted", "shutting_down"), ("deaf", "interrupted", "abandoned")}
    assert {state[1:] for state in states(bad.folder) if state[0] == "healthy"} <= {
        ("succeeded", None), ("interrupted", "shutting_down"), ("skipped", "overlap"), ("skipped", "missed"),
    }  # fmt: skip


def test_a_hangup_stops_as_a_term_does(bad):
    with bad.start("run", "--jobs", "never", "--grace", "0") as running:
        running.hear("run.started job=never")
        assert running.end(HUP) == 128 + HUP
    assert states(bad.folder) == {("never", "interrupted", "shutting_down")}


def on_its_terminal(bad, *words):
    """A process that leads the session of a terminal of its own, and our end of that."""
    ours, theirs = pty.openpty()

    def lead():
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [sys.executable, "-m", "taskloop", *words], cwd=bad.folder, stdin=theirs, stdout=theirs, stderr=theirs,
        env=surroundings({"TERM": "xterm"}), preexec_fn=lead,
    )  # fmt: skip
    os.close(theirs)
    return process, ours


def test_ctrl_c_on_a_terminal_stops_as_a_term_does_and_gives_130(bad):
    process, ours = on_its_terminal(bad, "run", "--jobs", "never", "--grace", "100ms")
    said, pressed = b"", False
    try:
        while True:
            try:
                said += os.read(ours, 65536)
            except OSError:  # the terminal is gone with the process
                break
            if not pressed and b"never" in said and b"scheduler.ready" in said:
                os.write(ours, b"\x03")
                pressed = True
        assert process.wait(SECONDS) == 130
    finally:
        process.kill()
        process.wait(SECONDS)
        os.close(ours)
    assert b"Traceback" not in said and b"KeyboardInterrupt" not in said
    assert states(bad.folder) == {("never", "interrupted", "shutting_down")}


def test_what_runs_in_a_process_has_its_grace_too_when_the_terminal_is_closed(bad):
    process, ours = on_its_terminal(bad, "run", "--jobs", "works")
    try:
        until((bad.folder / "works").exists)
        os.killpg(process.pid, HUP)  # as the shell does that it was started in
        assert process.wait(SECONDS) == 128 + HUP
    finally:
        process.kill()
        process.wait(SECONDS)
        os.close(ours)
    assert states(bad.folder) == {("works", "succeeded", None)}


def children(pid: int) -> set[int]:
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if stat.read_text(errors="replace").rpartition(")")[2].split()[1] == str(pid):
                found.add(int(stat.parent.name))
    return found


@pytest.mark.parametrize("number", [INT, HUP, TERM])
def test_a_process_that_only_begins_hears_none_of_the_signals_for_all(bad, number):
    """Ctrl-C, a terminal that is closed, and supervisors that end the whole group."""
    process, ours = on_its_terminal(bad, "run", "--jobs", "works")
    try:
        until(lambda: children(process.pid))
        os.killpg(process.pid, number)
        assert process.wait(SECONDS) == 128 + number
        os.set_blocking(ours, False)
        said = os.read(ours, 65536)
    finally:
        process.kill()
        process.wait(SECONDS)
        os.close(ours)
    assert states(bad.folder) == {("works", "succeeded", None)}
    assert b"Traceback" not in said


# -- S4: hosts with handlers of their own

HOSTED = """
import asyncio, signal, sys
from datetime import timedelta
from taskloop import Options, TaskScheduler

scheduler = TaskScheduler("app.db", options=Options(kill_grace=timedelta(seconds=0.5)))

@scheduler.every("1h")
async def never():
    print("begun", flush=True)
    await asyncio.sleep(3600)
"""
AIOHTTP = """
from aiohttp import web

async def scheduling(app):
    await scheduler.start()
    yield
    await scheduler.stop(grace=0.1)
    print("stopped", flush=True)

app = web.Application()
app.cleanup_ctx.append(scheduling)
web.run_app(app, host="127.0.0.1", port=0, print=None)
print("handlers", signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, flush=True)
"""
UVICORN = """
import uvicorn

async def app(scope, receive, send):
    while scope["type"] == "lifespan":
        message = await receive()
        if message["type"] == "lifespan.startup":
            await scheduler.start()
        else:
            await scheduler.stop(grace=0.1)
            print("stopped", flush=True)
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return

uvicorn.run(app, host="127.0.0.1", port=0, log_level="error")
"""
SERVED = """
heard = []

def own(*_):
    heard.append(1)
    print("heard", flush=True)

async def main():
    number = await scheduler.serve()
    print("stopped", number, flush=True)

signal.signal(signal.SIGTERM, own)
asyncio.run(main())
print("handlers", signal.getsignal(signal.SIGTERM) is own, flush=True)
"""
HOSTS = {
    "aiohttp": (AIOHTTP, 0, ["stopped", "handlers True"]),
    "uvicorn": (UVICORN, -TERM, ["stopped"]),  # it ends by the signal it was sent, with the handler that stood before
    "serve in a host with a handler": (SERVED, 0, ["heard", "stopped 15", "handlers True"]),
}


@pytest.mark.parametrize("name", HOSTS)
def test_in_a_host_with_handlers_of_its_own_both_stop_and_the_handlers_are_put_back(program, name):
    if name == "uvicorn" and importlib.util.find_spec("uvicorn") is None and "CI" not in os.environ:
        pytest.skip("uvicorn is not installed; where CI is set it must be")
    text, code, said = HOSTS[name]
    grace = "" if name != "serve in a host with a handler" else "scheduler.options = Options(grace=timedelta(0))\n"
    program.write("host.py", HOSTED + grace + text)
    process = subprocess.Popen(
        [sys.executable, "host.py"], cwd=program.folder, env=surroundings({}), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            assert process.stdout.readline() == "begun\n"
            process.send_signal(TERM)
            out, err = process.communicate(timeout=10)
        finally:
            process.kill()
    assert (process.returncode, out.splitlines()) == (code, said)
    assert [line.partition(" - ")[2].split()[0] for line in err.splitlines()] == ["run.interrupted"]
    assert program.rows("state, reason") == [("interrupted", "shutting_down")]


# -- S7: streams that are gone


@pytest.mark.parametrize(
    "streams",
    [">&-", "2>&-", ">&- 2>&-", "<&-"],
)
def test_without_streams_from_the_start_the_jobs_run(bad, streams):
    done = subprocess.run(
        ["sh", "-c", f'exec "$0" -m taskloop run --jobs healthy --for 500ms {streams}', sys.executable],
        cwd=bad.folder, env=surroundings({}), capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "Traceback" not in done.stdout + done.stderr
    assert ("healthy", "succeeded", None) in states(bad.folder)


def test_the_jobs_go_on_when_the_reader_of_both_streams_leaves(bad):
    done = subprocess.run(
        ["sh", "-c", '("$0" -m taskloop run --jobs healthy --for 700ms 2>&1; echo $? >code) | head -1', sys.executable],
        cwd=bad.folder, env=surroundings({"PYTHONUNBUFFERED": "1"}), capture_output=True, text=True, timeout=SECONDS,
        check=False,
    )  # fmt: skip
    assert len(done.stdout.splitlines()) == 1 and done.stderr == ""
    assert (bad.folder / "code").read_text() == "0\n"
    runs = Program(bad.folder).rows("state", "taskloop.db")
    assert len(runs) >= 4


# -- S8: loops that are gone

UNSTOPPED = """
import asyncio
from taskloop import Options, TaskScheduler

scheduler = TaskScheduler("app.db", options=Options(max_running=100))

def cleaning(turns):
    async def job():
        try:
            await asyncio.sleep(3600)
        finally:
            for _ in range(turns):
                await asyncio.sleep(0)
    return job

for turns in range(TURNS):
    scheduler.add_job(cleaning(turns), name=f"job-{turns}")

async def main():
    await scheduler.start()
    await scheduler.submit_many([job.bind() for job in scheduler])
    while len(await scheduler.runs(state="running")) < TURNS:
        await asyncio.sleep(0.01)
    asking = asyncio.create_task(scheduler.submit("job-0"))  # so that the store is at work when the loop ends
    for _ in range(3):
        await asyncio.sleep(0)
"""
ENDINGS = {
    "asyncio.run": "asyncio.run(main())",
    "stopped and closed": "loop = asyncio.new_event_loop(); loop.run_until_complete(main()); loop.close()",
    "left open": "loop = asyncio.new_event_loop(); loop.run_until_complete(main())",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_host_that_ends_its_loop_without_a_stop_is_mended_by_the_next_start(program, lines, ending):
    program.write("host.py", f"TURNS = 1\n{UNSTOPPED}\n{ENDINGS[ending]}\n")
    assert program.run(seconds=10).returncode == 0
    assert starts_again(program.folder / "app.db")
    assert program.rows("state")[0] == ("interrupted",)
    if ending != "asyncio.run":
        assert "run.recovered" in lines


def test_a_host_that_ends_its_loop_while_jobs_clean_up_ends(program):
    program.write("host.py", f"TURNS = 20\n{UNSTOPPED}\n{ENDINGS['asyncio.run']}\n")
    try:
        code = program.run(seconds=20).returncode
    except subprocess.TimeoutExpired:
        code = None
    assert code == 0
    assert starts_again(program.folder / "app.db")
    assert {state for (state,) in program.rows("state")[:20]} == {"interrupted"}


DEAF = """
import asyncio
from datetime import timedelta
from taskloop import Options, TaskScheduler

scheduler = TaskScheduler("app.db", options=Options(grace=timedelta(0), kill_grace=timedelta(seconds=0.1)))

@scheduler.job()
async def deaf():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass

async def main():
    async with scheduler:
        await deaf.submit()
        await asyncio.sleep(0.2)

asyncio.run(main())
"""


def test_a_host_is_not_kept_by_a_job_that_swallowed_its_cancellation(program):
    """asyncio.run waits for every task that it knows of."""
    program.write("host.py", DEAF)
    done = program.run(seconds=20)
    assert done.returncode == 0
    assert program.rows("state, reason") == [("interrupted", "abandoned")]
