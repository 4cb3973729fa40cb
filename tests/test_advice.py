"""The usual mistakes, each told in one line at a start; made for real where that is possible."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest
from loguru import logger

import taskloop
from taskloop import Options, TaskScheduler, advice

pytestmark = pytest.mark.anyio


@pytest.fixture
def said():
    """What the log says, as name and fields."""
    written = []
    number = logger.add(lambda message: written.append(dict(message.record["extra"])), level="DEBUG")
    yield written
    logger.remove(number)


def test_the_file_system_of_a_path_is_the_innermost_that_is_mounted_there(tmp_path):
    table = (
        "21 1 254:1 / / rw - ext4 /dev/vda rw\n"
        "22 21 0:20 / /srv rw - tmpfs tmpfs rw\n"
        "23 22 0:21 / /srv/with\\040blank rw shared:3 - nfs4 server:/ rw\n"
    )
    assert advice.file_system("/srv/with blank/app.db", table) == "nfs4"
    assert advice.file_system("/srv/without/app.db", table) == "tmpfs"
    assert advice.file_system("/srvx/app.db", table) == "ext4"
    assert advice.file_system("/srv/app.db", "") == ""
    assert advice.file_system(str(tmp_path / "app.db")) != ""


def test_a_network_disk_is_told_of_and_a_local_one_is_not():
    [(level, name, fields)] = advice.network_disk("/data/app.db", "21 1 0:1 / / rw - cifs //server/data rw\n")
    assert (
        (level, name) == ("WARNING", "network_disk") and "(cifs)" in fields["text"] and "PostgreSQL" in fields["text"]
    )
    assert advice.network_disk("/data/app.db", "21 1 0:1 / / rw - ext4 /dev/vda rw\n") == []


RELOADER = """
import asyncio, subprocess, sys
from taskloop import TaskScheduler
scheduler = TaskScheduler("app.db")

async def main():
    async with scheduler:
        if len(sys.argv) == 1:
            await asyncio.to_thread(subprocess.run, [sys.executable, sys.argv[0], "child"], check=True)

asyncio.run(main())
"""


def test_the_parent_of_a_reloader_that_runs_a_scheduler_too_is_named_in_the_child(tmp_path):
    (tmp_path / "serve.py").write_text(RELOADER)
    done = subprocess.run(
        [sys.executable, "serve.py"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True,
        env={**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(taskloop.__file__))},
    )  # fmt: skip
    assert done.stderr.count("advice.reloader") == 1, done.stderr


async def test_a_lone_process_with_a_store_in_memory_is_no_mistake(said):
    async with TaskScheduler(":memory:", options=Options()):
        pass
    assert not [one for one in said if one["event"].startswith("advice")]


async def test_a_store_on_a_local_disk_in_a_lone_process_is_no_mistake(said, tmp_path):
    async with TaskScheduler(tmp_path / "app.db", options=Options()):
        await asyncio.sleep(0)
    assert not [one for one in said if one["event"].startswith("advice")]
