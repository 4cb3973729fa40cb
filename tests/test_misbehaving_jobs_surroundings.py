"""Jobs that change what all share (J19), and jobs that do not let their process end (J4, J5, J7, J9 at a SIGTERM)."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import time
from contextlib import closing

import pytest
from command_line import SECONDS, Running, until
from misbehaviour import program as program

GRACE, KILL_GRACE = 0.2, 0.3

# -- J19: what all share

BESIDE = """
import asyncio, atexit, builtins, gc, locale, os, random, signal, socket, sys, threading, time, warnings
from taskloop import Options, TaskScheduler
from taskloop.testing import virtual_time

scheduler = TaskScheduler("sqlite:///:memory:", options=Options())

def fails(*_, **__):
    raise RuntimeError("in the way")

def fail_to_log():
    from loguru import logger
    logger.remove()
    logger.add(fails, catch=False)

@scheduler.every("1m")
async def healthy():
    pass

@scheduler.every("1m")
def healthy_too():
    pass

async def main():
    for number, act in enumerate(ACTS):
        scheduler.add_job(calling(act), name=f"act-{number}")
    async with virtual_time(scheduler) as clock:
        for number in range(len(ACTS)):
            await scheduler.submit(f"act-{number}")
            await clock.advance("1m")
        await clock.suspend("5m")  # of which a warning is said
        await clock.advance("3m")
        acts = [run.state.value for number in range(len(ACTS)) for run in await clock.runs(f"act-{number}")]
        runs = [await clock.runs(name) for name in ("healthy", "healthy_too")]
        ends = {run.state.value for each in runs for run in each}
        told = acts, [len(each) for each in runs], ends, scheduler.is_running
    with open(RESULT, "w") as result:
        result.write(repr(told))
    threading.settrace(None), threading.setprofile(None)  # asyncio itself ends by a new thread

def calling(act):
    async def on_loop():
        act()
    return on_loop

RESULT = os.path.abspath("result")
ACTS = [%s]
asyncio.run(main())
"""
HARMLESS = [
    "lambda: os.environ.clear()", "lambda: gc.disable()", "lambda: locale.setlocale(locale.LC_ALL, 'C')",
    "lambda: (os.environ.__setitem__('TZ', 'Asia/Tokyo'), time.tzset())", "lambda: warnings.simplefilter('error')",
    "lambda: asyncio.get_running_loop().set_exception_handler(fails)", "lambda: asyncio.get_running_loop().set_debug(True)",
    "lambda: [setattr(sys, hook, fails) for hook in ('excepthook', 'unraisablehook')]",
    "lambda: setattr(threading, 'excepthook', fails)", "lambda: asyncio.set_event_loop(None)",
    "lambda: sys.setswitchinterval(1e-5)", "lambda: os.umask(0o777)", "lambda: os.chdir('/')",
    "lambda: setattr(builtins, 'print', None)", "lambda: threading.settrace(fails)", "lambda: threading.setprofile(fails)",
    "lambda: socket.setdefaulttimeout(0.001)", "lambda: random.seed(0)", "lambda: sys.setrecursionlimit(10_000)",
    "lambda: [sys.modules.pop(name) for name in list(sys.modules) if name.startswith('taskloop')]",
    "lambda: setattr(sys, 'stdout', None)", "lambda: setattr(sys, 'stderr', None)", "lambda: (os.close(1), os.close(2))",
    "lambda: signal.signal(signal.SIGTERM, fails)", "lambda: atexit.register(fails)",
]  # fmt: skip


def test_what_jobs_do_to_what_all_share_stops_nobody(program):
    program.write("host.py", BESIDE % ",\n".join(HARMLESS))
    program.run()
    acts, fires, ends, is_running = eval((program.folder / "result").read_text())
    assert acts == ["succeeded"] * len(HARMLESS)
    assert fires == [len(HARMLESS) + 5] * 2  # one of them for all the minutes asleep
    assert (ends, is_running) == ({"succeeded"}, True)


HARMFUL = {
    "stderr closed": "lambda: sys.stderr.close()",
    "a sink that fails": "fail_to_log",
    "no imports": "lambda: (sys.path.clear(), sys.meta_path.clear())",
    "a tracer that fails": "lambda: sys.settrace(fails)",
}


@pytest.mark.parametrize("name", HARMFUL)
def test_a_job_that_breaks_the_log_breaks_nothing_else(program, name):
    program.write("host.py", BESIDE % HARMFUL[name])
    program.run()
    acts, fires, ends, is_running = eval((program.folder / "result").read_text())
    assert acts in (["succeeded"], ["failed"])
    assert (fires, ends, is_running) == ([6, 6], {"succeeded"}, True)


ELSEWHERE = """
import asyncio, os
from taskloop import Options, TaskScheduler

scheduler = TaskScheduler("app.db", options=Options())

@scheduler.job()
async def bad():
    os.chdir("other")

async def main():
    async with scheduler:
        await (await scheduler.submit("bad")).wait()
    print(len(await scheduler.runs()))
    await scheduler.close()

asyncio.run(main())
"""


def test_a_job_that_changes_the_folder_moves_no_store(program):
    (program.folder / "other").mkdir()
    program.write("host.py", ELSEWHERE)
    assert program.run().stdout == "1\n"
    assert list((program.folder / "other").iterdir()) == []


# -- at a SIGTERM

APP = """
import asyncio, atexit, concurrent.futures, os, signal, subprocess, sys, threading, time
from taskloop import Jobs

jobs = Jobs()
kept = []


async def swallowing():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


@jobs.every("1h")
async def never():
    await asyncio.sleep(3600)

@jobs.every("1h")
async def swallows():
    await swallowing()

@jobs.every("1h")
async def cleans_up():
    try:
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(3600)

@jobs.every("1h")
def thread():
    time.sleep(3600)

@jobs.every("1h")
async def thread_of_the_loop():
    await asyncio.to_thread(time.sleep, 3600)

@jobs.every("1h")
async def orphan_thread():
    threading.Thread(target=time.sleep, args=(3600,)).start()

@jobs.every("1h")
def orphan_pool():
    kept.append(concurrent.futures.ThreadPoolExecutor(1))
    kept[0].submit(time.sleep, 3600)

@jobs.every("1h")
async def orphan_task():
    kept.append(asyncio.create_task(swallowing()))

@jobs.every("1h")
def orphan_process():
    kept.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(5)"]))

@jobs.every("1h")
def exits_at_exit():
    atexit.register(lambda: sys.exit(5))

@jobs.every("1h")
async def handles_signals():
    signal.signal(signal.SIGTERM, lambda *_: None)

@jobs.every("1h")
def closes_streams():
    sys.stdout.close(), sys.stderr.close(), os.close(1), os.close(2)

@jobs.every("1h")
async def child_exits():
    async def child():
        sys.exit(3)
    await asyncio.create_task(child())
"""
CONFIG = f"""
[scheduler]
app = "app:jobs"
grace = "{int(GRACE * 1000)}ms"
kill_grace = "{int(KILL_GRACE * 1000)}ms"
[jobs.git_metrics]
at = 2099-01-01T00:00:00Z
"""
ENDS = {
    "never": ("interrupted", "shutting_down"),
    "swallows": ("interrupted", "abandoned"),
    "cleans_up": ("interrupted", "abandoned"),
    "thread": ("interrupted", "abandoned"),
    "thread_of_the_loop": ("interrupted", "shutting_down"),
    "orphan_thread": ("succeeded", None),
    "orphan_pool": ("succeeded", None),
    "orphan_task": ("succeeded", None),
    "orphan_process": ("succeeded", None),
    "exits_at_exit": ("succeeded", None),
    "handles_signals": ("succeeded", None),
    "closes_streams": ("succeeded", None),
}


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """What became of a process for each of these jobs: its exit code, None if it had to be killed, and its records."""
    folder = tmp_path_factory.mktemp("ended")
    (folder / "app.py").write_text(APP)
    (folder / "config.toml").write_text(CONFIG)
    running, codes = {}, {}
    try:
        for name in ENDS:
            store = f"sqlite:///{name}.db"
            running[name] = Running(folder, ("run", "--jobs", name), {"TASKLOOP_STORE__URL": store})
            time.sleep(0.05)  # stderr of each is a file named by the clock
        for name in ENDS:
            until(lambda one=name: began(folder / f"{one}.db"), explain=lambda one=name: running[one].said)
        time.sleep(0.3)  # until the functions themselves have begun
        for one in running.values():
            one.process.send_signal(signal.SIGTERM)
        crowd = min(3.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))  # others may want the machine too
        deadline = time.monotonic() + (GRACE + KILL_GRACE + 2) * crowd
        for name, one in running.items():
            try:
                codes[name] = one.process.wait(max(0.01, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                codes[name] = None
    finally:
        for one in running.values():
            one.process.kill()
            one.process.wait(SECONDS)
    return {name: (codes[name], records(folder / f"{name}.db"), running[name].said) for name in ENDS}


def records(database):
    with closing(sqlite3.connect(database)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return db.execute("SELECT state, reason FROM taskloop_runs").fetchall()


def began(database):
    try:
        return database.exists() and records(database)
    except sqlite3.OperationalError:
        return False


@pytest.mark.parametrize("name", ENDS)
def test_whatever_a_job_does_its_record_is_true_when_the_process_was_told_to_end(ended, name):
    _, runs, said = ended[name]
    assert runs == [ENDS[name]]
    assert "Traceback" not in said or "Exception ignored in atexit callback" in said


@pytest.mark.parametrize("name", ENDS)
def test_whatever_a_job_does_its_process_ends_in_time_when_told_to(ended, name):
    code, _, _ = ended[name]
    assert code is not None, "it had to be killed"
    assert code == 143


def test_a_child_task_that_exits_ends_the_program_as_in_any_loop_and_hangs_nothing(program):
    """asyncio lets SystemExit of any task out of the loop; docs/guarantees.md says so."""
    program.write("app.py", APP)
    program.write("config.toml", CONFIG)
    with Running(program.folder, ("run", "--jobs", "child_exits"), {}) as running:
        running.hear("run.started job=child_exits")
        assert running.process.wait(5) == 3
    assert program.rows("state, reason", "taskloop.db") == [("interrupted", "shutting_down")]
    assert "Traceback" not in running.said
