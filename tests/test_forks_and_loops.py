"""A scheduler in a fork of its process, on another loop, and in several workers of one server."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import closing, suppress

import pytest
from stores import database
from stories import nothing

import taskloop
from taskloop import Options, TaskScheduler
from taskloop.store_sqlite import SqliteStore
from taskloop.errors import NotRunning

pytestmark = pytest.mark.anyio


def in_a_fork(check):
    """What `check` gives as text, called in a fork of this process, which then vanishes without any clean-up."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = check()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, str(said).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("verb", ["submit", "start", "runs", "status"])
async def test_in_a_fork_of_its_process_a_scheduler_refuses_clearly(tmp_path, verb):
    scheduler = TaskScheduler(tmp_path / "app.db", options=Options())

    @scheduler.job()
    async def job() -> None: ...

    calls = {
        "submit": lambda: job.submit(),
        "start": scheduler.start,
        "runs": scheduler.runs,
        "status": scheduler.status,
    }
    async with scheduler:
        said = in_a_fork(lambda: asyncio.run(calls[verb]()))
        assert said.startswith("NotRunning: the scheduler was open in process") and "after the fork" in said
        assert in_a_fork(lambda: scheduler.is_running) == "False"
        assert in_a_fork(lambda: asyncio.run(scheduler.stop())) == "None"
        assert (await (await job.submit()).wait()).state == "succeeded"
    with database(tmp_path / "app.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("SELECT count(*) FROM taskloop_runs").fetchone() == (1,)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("fails", [False, True])
async def test_a_fork_of_a_job_in_a_thread_that_goes_on_where_the_job_does_ends_there(tmp_path, fails):
    """It stayed for ever, with the files and ports of its parent."""
    scheduler = TaskScheduler(tmp_path / "app.db", options=Options())

    @scheduler.job()
    def forking() -> int | None:
        child = os.fork()
        if child == 0:
            return 1 // (not fails)
        deadline = time.monotonic() + 20
        while (ended := os.waitpid(child, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.01)
        if ended == (0, 0):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        return os.waitstatus_to_exitcode(ended[1])

    async with scheduler:
        assert await (await forking.submit()).value() == int(fails)


def test_a_signal_to_what_a_job_has_forked_ends_that_and_not_the_scheduler(tmp_path):
    """As `multiprocessing` sends it, by `terminate()`: on Python 3.11 the scheduler took it for its own."""
    program = tmp_path / "program.py"
    program.write_text(TERMINATING)
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("[-15, -1]\nserves\n", 0), done.stderr


TERMINATING = """
import asyncio, os, signal, warnings
from taskloop import Options, TaskScheduler

warnings.simplefilter("ignore")
scheduler = TaskScheduler("sqlite:///:memory:", options=Options())

@scheduler.job()
def forking() -> list[int]:
    ends = []
    for number in (signal.SIGTERM, signal.SIGHUP):
        child = os.fork()
        if child == 0:
            signal.alarm(10)  # ends it with another code
            signal.pause()
        os.kill(child, number)
        ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return ends

async def main():
    serving = asyncio.ensure_future(scheduler.serve())
    while not scheduler.is_running:
        await asyncio.sleep(0.01)
    print(await (await forking.submit()).value())
    print("ended" if serving.done() else "serves", flush=True)
    os._exit(0)

asyncio.run(main())
"""


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
async def test_a_start_in_a_fork_waits_for_no_lock_that_a_thread_of_the_parent_held(tmp_path):
    """It hung for ever where a thread just took a call."""
    scheduler = TaskScheduler(tmp_path / "app.db", options=Options())
    async with scheduler:
        with scheduler._executors["thread"]._lock:
            assert in_a_fork(lambda: asyncio.run(scheduler.start())).startswith("NotRunning: the scheduler was open in")


async def test_a_scheduler_that_was_made_but_not_opened_may_be_started_in_a_fork(tmp_path):
    scheduler = TaskScheduler(tmp_path / "app.db", options=Options())

    @scheduler.job()
    async def job() -> int:
        return 7

    async def child():
        async with scheduler:
            return await (await job.submit()).value()

    assert in_a_fork(lambda: asyncio.run(child())) == "7"


def test_a_fork_that_ends_takes_no_lock_of_its_parent_away(tmp_path):
    """What nobody holds any more in the fork is taken apart there; the connections of the parent must not be."""
    program = (
        "import asyncio, os, sys\n"
        "from taskloop import TaskScheduler\n"
        "scheduler = TaskScheduler('app.db')\n"
        "@scheduler.job()\n"
        "async def job() -> None: ...\n"
        "async def main():\n"
        "    async with scheduler:\n"
        "        for _ in range(20):\n"
        "            child = os.fork()\n"
        "            if child == 0:\n"
        "                import atexit, gc; globals().pop('scheduler'); gc.collect(); atexit._run_exitfuncs()\n"
        "                os._exit(0)\n"  # not through the loop: its epoll is the parent's too
        "            os.waitpid(child, 0)\n"
        "            await (await job.submit()).wait()\n"
        "            assert os.path.exists('app.db-wal')\n"
        "asyncio.run(main())\n"
    )
    # not measured: coverage writes its data with SQLite at exit, and a fork that uses SQLite itself may wait for ever
    # for a lock that a thread of its parent held inside SQLite at the moment of the fork
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={**environment, "PYTHONPATH": os.path.dirname(os.path.dirname(taskloop.__file__))}
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    with database(tmp_path / "app.db") as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("SELECT state, count(*) FROM taskloop_runs GROUP BY state").fetchall() == [("succeeded", 20)]


# -- loops


@pytest.mark.parametrize("verb", ["submit", "start", "stop", "runs"])
async def test_on_another_loop_a_scheduler_refuses_clearly_while_its_own_lives(tmp_path, verb):
    scheduler = TaskScheduler(tmp_path / "app.db", options=Options())

    @scheduler.job()
    async def job() -> None: ...

    calls = {"submit": lambda: job.submit(), "start": scheduler.start, "stop": scheduler.stop, "runs": scheduler.runs}

    def elsewhere():
        with pytest.raises(NotRunning, match="another event loop"):
            asyncio.run(calls[verb]())
        return True

    async with scheduler:
        assert await asyncio.to_thread(elsewhere)
        assert (await (await job.submit()).wait()).state == "succeeded"


@pytest.mark.parametrize("verb", ["start", "runs", "status"])
def test_where_no_loop_of_asyncio_runs_a_verb_says_what_has_one(tmp_path, verb):
    """As under trio, which steps a coroutine by itself too."""
    asked = getattr(TaskScheduler(tmp_path / "a.db", options=Options()), verb)()
    with pytest.raises(NotRunning, match="no event loop of asyncio runs here.*BackgroundTasks has it on a thread"):
        asked.send(None)


def test_a_scheduler_whose_loop_has_ended_can_be_stopped_and_started_on_another(tmp_path):
    scheduler = TaskScheduler(tmp_path / "app.db", options=Options())

    @scheduler.job()
    async def job() -> int:
        return 7

    async def again():
        async with scheduler:
            return await (await job.submit()).value()

    asyncio.run(scheduler.start())
    asyncio.run(scheduler.stop())
    asyncio.run(scheduler.start())
    assert asyncio.run(again()) == 7


@pytest.mark.filterwarnings("ignore")  # Python tells of all that a loop has left behind
@pytest.mark.parametrize("turns", [0, 3, 10, 20])
def test_a_loop_that_is_closed_in_the_middle_of_a_start_is_in_the_way_of_no_later_one(tmp_path, turns):
    """The next start waited for the opening that the loop had begun, for ever; and the life after it was ended by what was
    left of the one before, when Python took that apart."""

    async def begun(scheduler):
        starting = asyncio.create_task(scheduler.start())
        while not scheduler._store_is_open and turns:
            await asyncio.sleep(0)
        for _ in range(3 + turns):
            await asyncio.sleep(0)
        return starting

    async def works(scheduler):
        async with asyncio.timeout(10):
            await scheduler.start()
            gc.collect()
            await asyncio.sleep(0.01)
            run = await (await scheduler.submit("job")).wait()
            await scheduler.stop()
            return run.state

    for _ in range(3):
        scheduler = TaskScheduler(tmp_path / "app.db", options=Options())
        scheduler.add_job(nothing, name="job")
        loop = asyncio.new_event_loop()
        left = loop.run_until_complete(begun(scheduler))
        loop.close()
        del left
        assert asyncio.run(works(scheduler)) == "succeeded"


@pytest.mark.filterwarnings(
    "ignore"
)  # the thread of a connection that was just being made tells that its loop is closed
def test_an_opening_that_a_closed_loop_has_left_leaves_no_thread_once_another_has_opened_the_store(tmp_path):
    async def opened_and_closed(store):
        await store.open()
        await store.close()

    for turns in range(1, 40):
        store = SqliteStore(tmp_path / f"{turns}.db")
        loop = asyncio.new_event_loop()
        opening = loop.create_task(store.open())
        for _ in range(turns):
            loop.call_later(0.0005, loop.stop)
            loop.run_forever()
        loop.close()
        if opening.done():
            break
        asyncio.run(opened_and_closed(store))
        opening._log_destroy_pending = False
    asyncio.run(store.close())


def test_records_may_be_read_and_written_on_one_loop_after_the_other(tmp_path):
    scheduler = TaskScheduler(tmp_path / "app.db", options=Options())

    @scheduler.job()
    async def job() -> None: ...

    for number in range(1, 4):
        assert asyncio.run(job.submit()).id == number
    assert len(asyncio.run(scheduler.runs())) == 3
    asyncio.run(scheduler.close())


async def test_another_thread_reaches_the_scheduler_by_call(tmp_path):
    scheduler = TaskScheduler(tmp_path / "app.db", options=Options())

    @scheduler.job()
    async def job() -> int:
        return 7

    async with scheduler:
        run = await asyncio.to_thread(scheduler.call, job.submit)
        assert await run.value() == 7


# -- several workers of one server

APP = """
import os
from aiohttp import web
from taskloop import TaskScheduler

scheduler = TaskScheduler({store!r})

@scheduler.every("200ms")
async def tick() -> int:
    return os.getpid()

async def scheduling(app):
    await scheduler.start()
    yield
    await scheduler.stop(grace="1s")

async def hello(request):
    return web.Response(text=str(os.getpid()))

def make():
    app = web.Application()
    app.router.add_get("/", hello)
    app.cleanup_ctx.append(scheduling)
    return app

app = make()
"""


def served(folder, store, *options, enough):
    """Serve the app by gunicorn with three workers until `enough` holds of what it said; gives that."""
    if shutil.which("gunicorn", path=os.path.dirname(sys.executable)) is None:
        if os.environ.get("CI"):
            pytest.fail("gunicorn is not installed")
        pytest.skip("gunicorn is not installed")
    (folder / "shop.py").write_text(APP.replace("{store!r}", repr(store)))
    with (folder / "said").open("w") as said:
        server = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", "-w", "3", "-k", "aiohttp.GunicornWebWorker", "-b", "127.0.0.1:0",
             "--graceful-timeout", "3", *options, "shop:app"],
            cwd=folder, stdout=said, stderr=said,
            env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(taskloop.__file__))},
        )  # fmt: skip
        try:
            deadline = time.monotonic() + 40
            while not enough((folder / "said").read_text()) and time.monotonic() < deadline:
                time.sleep(0.05)
        finally:
            server.terminate()
            server.wait(20)
    return (folder / "said").read_text()


@pytest.mark.parametrize("options", [[], ["--preload"]], ids=["each imports", "preloaded"])
def test_of_several_workers_of_a_server_one_has_each_fire(tmp_path, options):
    def enough(_):
        with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{tmp_path}/app.db?mode=ro", uri=True)) as db:
            [runs] = db.execute("SELECT count(*) FROM taskloop_runs WHERE state = 'succeeded'").fetchone()
            [workers] = db.execute("SELECT count(*) FROM taskloop_workers").fetchone()
            return runs >= 15 and workers == 3

    said = served(tmp_path, "sqlite:///app.db", *options, enough=enough)
    with database(tmp_path / "app.db") as db:
        rows = db.execute("SELECT due_at, state, result, worker FROM taskloop_runs WHERE state <> 'skipped'").fetchall()
        workers = db.execute("SELECT count(*), count(stopped_at) FROM taskloop_workers").fetchone()
    assert len(rows) >= 12, said
    assert len({row[0] for row in rows}) == len(rows)
    assert workers == (3, 3), said
    assert {row[1] for row in rows} == {"succeeded"}, said


def test_several_workers_with_a_store_in_memory_are_warned(tmp_path):
    said = served(tmp_path, "sqlite:///:memory:", enough=lambda said: "advice.memory_store" in said)
    assert said.count("advice.memory_store") >= 1, said


SPAWNING = """
import multiprocessing, os, sys
from taskloop.advice import _siblings

def work(together):
    together.wait(30)
    os.write(1, b"%d\\n" % _siblings())  # at once: of two the lines may not run into each other
    together.wait(30)

if __name__ == "__main__":
    spawn, number = multiprocessing.get_context("spawn"), int(sys.argv[1])
    together = spawn.Barrier(number)
    workers = [spawn.Process(target=work, args=(together,)) for _ in range(number)]
    for one in workers:
        one.start()
    for one in workers:
        one.join()
"""


@pytest.mark.parametrize("number", [1, 2])
def test_what_a_server_starts_beside_its_workers_is_not_taken_for_one(tmp_path, number):
    (tmp_path / "uvicorn").write_text(SPAWNING)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "uvicorn"), str(number)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == [str(number)] * number, done.stderr
