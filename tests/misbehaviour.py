"""Words for the suite of misbehaving jobs: healthy neighbours, a loop that must outlive what is done on it, programs."""

from __future__ import annotations

import asyncio
import functools
import gc
import json
import os
import sqlite3
import subprocess
import sys
import time as real
from contextlib import closing
from datetime import timedelta

import pytest
from command_line import SECONDS, surroundings
from stories import START, nothing, stamp

from taskloop import Every, Options, State, TaskScheduler
from taskloop.records import attempt_record, job_record, run_record, status_record

MINUTE = timedelta(minutes=1)
NEIGHBOURS = ("on_loop", "in_thread")


def hosted(test):
    """Run an async test on a loop of its own, as a host's.

    What the test does may neither end the loop, nor be left on it, nor reach its last resort, the exception handler.
    """

    @functools.wraps(test)
    def run(*args, **kwargs):
        heard, ended, left = [], None, None

        async def host():
            asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context["message"]))
            await test(*args, **kwargs)
            gc.collect(1)  # an error that nobody looked at is told when its task is taken apart
            for _ in range(3):
                await asyncio.sleep(0)
            return [task.get_coro().__qualname__ for task in asyncio.all_tasks() - {asyncio.current_task()}]

        try:
            left = asyncio.run(host())
        except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
            ended = type(error).__name__
        assert ended is None, f"{ended} ended the loop of the host"
        assert left == [], "tasks are left behind"
        assert heard == [], "the loop's exception handler heard of it"

    return run


@pytest.fixture
def crowded():
    """A scheduler with one slot and one thread more than its two neighbours need: what is not given back is missed."""
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(max_running=3, threads=3))
    settle_in(scheduler)
    return scheduler


@pytest.fixture(params=["memory", "file"])
def address(request, tmp_path):
    """Where records are kept, by each kind of store in turn."""
    return None if request.param == "memory" else f"sqlite:///{tmp_path}/runs.db"


def settle_in(scheduler):
    """Add the neighbours: two healthy jobs that fire each minute, one on the loop and one in a thread."""

    def in_thread(): ...

    scheduler.add_job(nothing, Every("1m"), name="on_loop")
    scheduler.add_job(in_thread, Every("1m"), name="in_thread")


async def unharmed(time, *, minutes=2):
    """The neighbours fire on at each minute, at once, each fire is a run that succeeded, and all can be read."""
    await time.advance(minutes=minutes)
    assert time.scheduler.is_running
    passed = int((time.now - START) / MINUTE)
    for name in NEIGHBOURS:
        runs = await time.runs(name, state=list(State))
        assert [run.due_at for run in runs] == [START + MINUTE * number for number in range(passed + 1)]
        assert {(run.state, run.attempt, run.error) for run in runs} == {(State.SUCCEEDED, 1, None)}
        assert {run.started_at - run.due_at for run in runs} == {timedelta(0)}
    await readable(time.scheduler)


async def readable(scheduler):
    """Every record can be asked for and told as JSON that any reader understands."""
    for run in await scheduler.runs(limit=1000, state=list(State)):
        told(run_record(run))
        for attempt in await scheduler.attempts(run.id):
            told(attempt_record(attempt))
    for job in await scheduler.jobs():
        told(job_record(job))
    told(status_record(await scheduler.status()))


def told(record):
    """A record as bytes, well-formed and of a size that a page can bear."""
    try:
        text = json.dumps(record, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, TypeError) as error:
        raise AssertionError(f"a record is no JSON: {error}") from None
    assert len(text) < 1_500_000
    return text


async def three_runs(scheduler, virtual_time, function, *, store=None, within="30s", **policy):
    """What became of `function`, asked for three times beside its neighbours, which it must not harm.

    Three times, so that a slot or a thread that was not given back is missed.
    """
    job = scheduler.add_job(function, name="bad", **policy)
    async with virtual_time(scheduler, store=store) as time:
        handles = []
        for _ in range(3):
            handles.append(await scheduler.submit(job))
            await time.advance(within)
        runs = [await scheduler.run(handle.id) for handle in handles]
        assert all(run.final for run in runs), [stamp(run.created_at) + f" {run.state}" for run in runs]
        await unharmed(time)
        return runs


# -- programs


class Program:
    """A file of Python in a folder of its own, and what it leaves in its store."""

    def __init__(self, folder):
        self.folder = folder

    def write(self, name, text):
        (self.folder / name).write_text(text)

    def run(self, name="host.py", *, seconds=SECONDS, **more):
        """Run it to its end, with stdout and stderr as text."""
        return subprocess.run(
            [sys.executable, name], cwd=self.folder, env=surroundings({}), capture_output=True, text=True,
            timeout=seconds, check=False, **more,
        )  # fmt: skip

    def rows(self, columns, database="app.db"):
        """Columns of all runs, oldest first, read past taskloop."""
        with closing(sqlite3.connect(self.folder / database)) as db:
            assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return db.execute(f"SELECT {columns} FROM taskloop_runs ORDER BY id").fetchall()


@pytest.fixture
def program(tmp_path, monkeypatch):
    """An empty folder for a program, and no configuration from outside."""
    for name in [*os.environ]:
        if name.startswith(("TASKLOOP_", "TASK_SCHEDULER_")):
            monkeypatch.delenv(name)
    return Program(tmp_path)


def seconds_of(work):
    """How long a call took, in real seconds."""
    began = real.monotonic()
    work()
    return real.monotonic() - began
