"""What every test gets: asyncio as the loop, a guard against blocking it, and a look at what a test leaves behind."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import os
import signal
import threading
import time

import pytest
from blockbuster import BlockBuster
from hypothesis import settings
from loguru import _better_exceptions, logger
from pydantic import TypeAdapter

from taskloop import Options, TaskScheduler
from taskloop.pytest_plugin import virtual_time as virtual_time

TEST_SECONDS = 90
settings.register_profile("crowded", deadline=None)  # on a crowded machine any example may take long, once
settings.load_profile("crowded")
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it for what it starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Each sink of loguru finds the folders of Python's own library anew, which takes longer than all else of a scheduler's start.
_better_exceptions.ExceptionFormatter._get_lib_dirs = staticmethod(
    functools.cache(_better_exceptions.ExceptionFormatter._get_lib_dirs)
)
MAY_BLOCK = [
    # (function, file, names, why it may)
    ("io.TextIOWrapper.read", "taskloop/processes.py", {"birth", "_first_line"}, "/proc is memory; a small file, once"),
    (
        "io.BufferedReader.read",
        "taskloop/processes.py",
        {"birth", "_first_line"},
        "/proc is memory; a small file, once",
    ),
    ("os.stat", "taskloop/processes.py", {"_surroundings"}, "/proc is memory, once a process"),
    ("os.stat", "taskloop/file_sqlite.py", {"_mend", "_cause", "_held_by"}, "only for the text of an error"),
    ("io.TextIOWrapper.read", "taskloop/file_sqlite.py", {"_held_by", "_command"}, "the same; /proc is memory"),
    ("io.BufferedReader.read", "taskloop/file_sqlite.py", {"_held_by", "_command"}, "the same; /proc is memory"),
    (
        "os.stat",
        "taskloop/server_postgres.py",
        {"_connect"},
        "asyncpg looks for a file of passwords, once a connection",
    ),
    ("os.path.abspath", "taskloop/server_postgres.py", {"_connect"}, "the same for certificates"),
    ("os.listdir", "taskloop/server_postgres.py", {"migrations"}, "schema files, read once a process"),
    ("os.stat", "taskloop/server_postgres.py", {"migrations"}, "the same"),
    ("os.scandir", "taskloop/server_postgres.py", {"migrations"}, "the same"),
    ("os.getcwd", "taskloop/processes.py", {"current_folder"}, "once, when the store is opened first"),
    ("os.getcwd", "taskloop/file_sqlite.py", {"_mend", "_cause"}, "only for the text of an error"),
    ("os.stat", "zoneinfo/_tzpath.py", {"find_tzfile"}, "a small file, once a zone, when its first trigger is made"),
    ("io.BufferedReader.read", "zoneinfo/_common.py", {"load_data"}, "the same"),
    ("io.TextIOWrapper.read", "pathlib.py", {"read_text"}, "schema files, read once when a store is made"),
    ("io.TextIOWrapper.read", "pathlib/_local.py", {"read_text"}, "the same, where Python 3.13 has it"),
    ("io.TextIOWrapper.read", "pathlib/__init__.py", {"read_text"}, "the same, where Python 3.14 has it"),
    (
        "os.path.abspath",
        "taskloop/capture.py",
        ["look"],
        "loguru asks where a sink's function stands; it reads nothing",
    ),
]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """One more than there are processors: for two fifths of their time tests wait, for other processes, servers and timers.

    On two processors three workers take 9:15, two 11:38.
    """
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None  # who says how many has so many
    return (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1) + 1


def pytest_collection_finish():
    """Eight thousand tests and all their modules stay to the end: they need not be looked through for garbage."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture(scope="session")
def guard():
    """Knows what blocks; a call from code of taskloop, on the loop, is an error."""
    TypeAdapter(int)  # pydantic looks for its plugins once a process
    blockbuster = BlockBuster("taskloop")
    for function, file, names, _ in MAY_BLOCK:
        blockbuster.functions[function].can_block_in(file, names)
    return blockbuster


@pytest.fixture(autouse=True)
def no_test_takes_longer_than_this():
    """A test that hangs is ended by an error at the line it hangs in."""

    def ring(*_):
        raise TimeoutError(f"the test takes longer than {TEST_SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(TEST_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(autouse=True)
def nothing_blocks_the_loop(guard):
    guard.activate()
    yield
    guard.deactivate()


@pytest.fixture(autouse=True)
def no_thread_is_left():
    """After a test none of its threads lives: stores are closed (each has one), pools are empty."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 10
    while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        time.sleep(0.002)
    assert not left, f"threads left behind: {[thread.name for thread in left]}"


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    """Look at the tasks an async test leaves behind, before its loop is closed and cancels them."""
    if inspect.iscoroutinefunction(pyfuncitem.obj) and "no_task_outlives_the_fixture" not in pyfuncitem.fixturenames:
        pyfuncitem.obj = leaving_no_task(pyfuncitem.obj)


def leaving_no_task(test):
    @functools.wraps(test)
    async def wrapped(*args, **kwargs):
        before = asyncio.all_tasks()
        await test(*args, **kwargs)
        for _ in range(3):
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - before
        assert not left, f"tasks left behind: {left}"

    return wrapped


@pytest.fixture
async def no_task_outlives_the_fixture():
    """For a fixture that runs something beside the test: its end, not that of the test, leaves no task."""
    before = asyncio.all_tasks()
    yield
    for _ in range(3):
        await asyncio.sleep(0)
    # The plugin has a task of its own for each half of a fixture.
    left = {one for one in asyncio.all_tasks() - before if not one.get_coro().__qualname__.startswith("TestRunner.")}
    assert not left, f"tasks left behind: {left}"


@pytest.fixture
def scheduler():
    """A scheduler whose every option is the default, whatever the environment says."""
    return TaskScheduler("sqlite:///:memory:", options=Options())


@pytest.fixture
def lines():
    """The names of the log lines as they are written."""
    written = []
    number = logger.add(lambda message: written.append(message.record["extra"].get("event")), level="DEBUG")
    yield written
    logger.remove(number)
