"""A scheduler inside another program: what it reads of configuration, and what it never touches."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from taskloop import Every, TaskScheduler
from taskloop.errors import BadParameters, BadSettings

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    for name in list(os.environ):
        if name.startswith(("TASKLOOP_", "TASK_SCHEDULER_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def beats(scheduler):
    @scheduler.every()
    async def beat():
        return "beat"

    return scheduler


async def next_due(scheduler, job="beat"):
    return {one.id: one for one in await scheduler.schedules()}[job]


async def test_making_a_scheduler_opens_nothing(tmp_path):
    TaskScheduler("sqlite:///app.db")
    assert list(tmp_path.iterdir()) == []


async def test_without_config_no_file_is_read_even_if_one_is_there(tmp_path):
    (tmp_path / "config.toml").write_text("this is no TOML")
    async with beats(TaskScheduler("app.db")) as scheduler:
        assert str((await next_due(scheduler)).trigger) == "every 2w"


async def test_a_named_file_gives_limits_jobs_and_the_built_in_ones_it_names(tmp_path):
    (tmp_path / "bakery.py").write_text("def sync(size: int = 1) -> int:\n    return size\n")
    (tmp_path / "config.toml").write_text(
        '[scheduler]\ninterval = "3d"\nmax_running = 7\n[git_metrics]\nrepositories = ["nowhere"]\n[jobs.git_metrics]\n'
        'enabled = false\n[jobs.nightly]\ncall = "bakery:sync"\ncron = "0 2 * * *"\nparams = { size = 5 }\n'
    )
    scheduler = beats(TaskScheduler("app.db", config=tmp_path / "config.toml"))
    async with scheduler:
        assert scheduler.options.max_running == 7
        assert str((await next_due(scheduler)).trigger) == "every 3d"
        nightly = await next_due(scheduler, "nightly")
        assert (nightly.origin, nightly.params) == ("file", {"size": 5})
        assert await (await scheduler.submit("nightly", {"size": 6})).value() == 6
        assert "git_metrics" in scheduler
        assert "heartbeat" not in scheduler


@pytest.mark.parametrize("way", ["job", "scheduler", "schedule", "file"])
async def test_what_a_file_gives_a_job_holds_also_where_the_scheduler_was_not_started(tmp_path, way):
    """A command beside the server, or a web worker that only submits, was told that the parameter is missing."""
    (tmp_path / "dairy.py").write_text("def sync(day: str) -> str:\n    return day\n")
    (tmp_path / "config.toml").write_text(
        '[jobs.report]\nparams = {day = "monday"}\n[jobs.nightly]\ncall = "dairy:sync"\nparams = {day = "monday"}\n'
    )
    scheduler = TaskScheduler(tmp_path / "app.db", config=tmp_path / "config.toml")

    @scheduler.job()
    async def report(day: str): ...

    asked = {
        "job": report.submit,
        "scheduler": lambda: scheduler.submit("report"),
        "schedule": lambda: scheduler.schedule("report", Every("1h"), id="hourly"),
        "file": lambda: scheduler.submit("nightly"),
    }
    assert (await asked[way]()).params == {"day": "monday"}
    await scheduler.close()


async def test_a_wrong_table_of_a_job_is_told_by_each_verb_until_it_is_mended(tmp_path):
    """The first was refused, and those after it ran as if there were no file."""
    (tmp_path / "config.toml").write_text("[jobs.a]\nparams = {nosuch = 1}\n[jobs.b]\nparams = {size = 7}\n")
    scheduler = TaskScheduler(tmp_path / "app.db", config=tmp_path / "config.toml")
    for name in "ab":
        scheduler.add_job(sized, name=name)
    for verb in (scheduler.runs, lambda: scheduler.submit("b"), scheduler["b"].submit, scheduler.start):
        with pytest.raises(BadParameters, match="'nosuch' is unknown"):
            await verb()


async def test_a_job_that_is_added_after_the_first_verb_has_what_the_file_says_too(tmp_path):
    (tmp_path / "config.toml").write_text('[defaults]\ntimeout = "5m"\n')
    scheduler = TaskScheduler(tmp_path / "app.db", config=tmp_path / "config.toml")
    assert await scheduler.runs() == []
    assert scheduler.add_job(sized).policy.timeout == timedelta(minutes=5)
    await scheduler.close()


async def sized(size: int = 1): ...


async def test_a_bad_file_is_told_at_start_and_nothing_is_made(tmp_path):
    (tmp_path / "config.toml").write_text('[scheduler]\nintervall = "3d"\ngrace = -1\n')
    with pytest.raises(BadSettings) as told:
        await TaskScheduler("app.db", config="config.toml").start()
    assert len(told.value.problems) == 2
    assert [file.name for file in tmp_path.iterdir()] == ["config.toml"]


async def test_the_environment_names_the_store_and_the_interval(tmp_path, monkeypatch):
    monkeypatch.setenv("TASKLOOP_STORE__URL", "sqlite:///named.db")
    monkeypatch.setenv("TASK_SCHEDULER_INTERVAL", "300")
    async with beats(TaskScheduler()) as scheduler:
        assert str((await next_due(scheduler)).trigger) == "every 5m"
    assert (tmp_path / "named.db").exists()


async def test_an_interval_given_to_start_wins_over_the_environment_and_is_of_that_start_alone(monkeypatch):
    monkeypatch.setenv("TASK_SCHEDULER_INTERVAL", "300")
    scheduler = beats(TaskScheduler("app.db"))
    await scheduler.start("10s")
    assert str((await next_due(scheduler)).trigger) == "every 10s"
    await scheduler.stop()
    await scheduler.start()
    assert str((await next_due(scheduler)).trigger) == "every 5m"
    await scheduler.stop()


async def test_a_disabled_scheduler_submits_and_leaves_the_work_to_others(monkeypatch):
    monkeypatch.setenv("TASK_SCHEDULER_ENABLED", "false")
    async with beats(TaskScheduler("app.db")) as scheduler:
        run = await scheduler.submit("beat")
        with pytest.raises(TimeoutError):
            await run.wait("300ms")
    monkeypatch.setenv("TASK_SCHEDULER_ENABLED", "true")
    async with beats(TaskScheduler("app.db")) as scheduler:
        assert (await scheduler.wait(run.id, "5s")).state == "succeeded"


async def test_dev_mode_fires_every_ten_seconds_and_never_touches_the_real_store(tmp_path, monkeypatch):
    monkeypatch.setenv("TASKLOOP_DEV", "1")
    async with beats(TaskScheduler("sqlite:///app.db")) as scheduler:
        assert str((await next_due(scheduler)).trigger) == "every 10s"
    assert {file.name for file in tmp_path.iterdir()} == {"taskloop.dev.db"}


async def test_synchronous_of_the_configuration_reaches_a_store_named_in_code(monkeypatch):
    monkeypatch.setenv("TASKLOOP_STORE__SYNCHRONOUS", "normal")
    async with beats(TaskScheduler("app.db")) as scheduler:
        assert scheduler._store.synchronous == "normal"


def test_a_host_that_ends_its_loop_without_stop_leaves_a_store_that_the_next_start_mends(tmp_path):
    program = tmp_path / "host.py"
    program.write_text(
        "import asyncio\n"
        "from taskloop import TaskScheduler\n"
        "scheduler, begun = TaskScheduler('sqlite:///app.db'), asyncio.Event()\n"
        "@scheduler.job()\n"
        "async def long() -> None:\n"
        "    begun.set()\n"
        "    await asyncio.sleep(3600)\n"
        "async def main() -> None:\n"
        "    await scheduler.start()\n"
        "    await long.submit()\n"
        "    await begun.wait()\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, str(program)], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr

    async def again() -> str:
        scheduler = TaskScheduler(tmp_path / "app.db")
        async with scheduler:
            return (await scheduler.runs())[0].state

    assert asyncio.run(again()) == "interrupted"


def test_the_process_ends_although_a_job_thread_never_does(tmp_path):
    program = tmp_path / "host.py"
    program.write_text(
        "import asyncio, time\n"
        "from taskloop import Options, TaskScheduler\n"
        "from datetime import timedelta\n"
        "scheduler = TaskScheduler('sqlite:///app.db', options=Options(kill_grace=timedelta(milliseconds=200)))\n"
        "@scheduler.job()\n"
        "def stuck() -> None:\n"
        "    time.sleep(3600)\n"
        "async def main() -> None:\n"
        "    await scheduler.start()\n"
        "    run = await stuck.submit()\n"
        "    while (await scheduler.run(run.id)).state != 'running':\n"
        "        await asyncio.sleep(0)\n"
        "    await scheduler.stop(grace=0.2)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, str(program)], cwd=tmp_path, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    with closing(sqlite3.connect(tmp_path / "app.db")) as db:
        rows = db.execute("SELECT state, reason FROM taskloop_runs").fetchall()
    assert rows == [("interrupted", "abandoned")]


async def test_two_schedulers_on_one_file_give_each_fire_once(tmp_path: Path):
    first, second = TaskScheduler(tmp_path / "app.db"), TaskScheduler(tmp_path / "app.db")
    for scheduler in (first, second):

        @scheduler.every("100ms", name="tick")
        async def tick() -> None: ...

    async with first, second:
        deadline = asyncio.get_running_loop().time() + 20
        while len(runs := await first.runs("tick")) < 12 and asyncio.get_running_loop().time() < deadline:
            await (await first.submit("tick")).wait("5s")
    dues = [run.due_at for run in runs if run.cause != "manual"]
    assert len(dues) == len(set(dues))
