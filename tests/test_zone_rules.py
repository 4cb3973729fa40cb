"""The rules of a time zone change beneath a stored schedule: its next time moves, what was recorded stays."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys

import pytest

import taskloop

PROGRAM = """
import asyncio, json
from taskloop import Cron, TaskScheduler
scheduler = TaskScheduler("app.db")

@scheduler.cron("0 12 * * *", timezone="Test/Town")
async def noon() -> None: ...

async def main():
    async with scheduler:
        await scheduler.schedule("noon", Cron("30 12 * * *", timezone="Test/Town"), id="stored") if {new} else None
        print(json.dumps({one.id: one.next_due.strftime("%H:%M") for one in await scheduler.schedules()}))

asyncio.run(main())
"""


def zone_file(hours):
    """A compiled zone that is always so many hours ahead of UTC."""
    body = struct.pack(">lbb", hours * 3600, 0, 0) + b"TST\0"
    header = b"TZif2" + bytes(15) + struct.pack(">6l", 0, 0, 0, 0, 1, 4)
    return header + body + header + body + f"\n<TST>-{hours}\n".encode()


@pytest.fixture
def town(tmp_path):
    """Runs the program where the clocks of Test/Town are so many hours ahead."""

    def run(hours, *, new=False):
        zones = tmp_path / f"zones{hours}"
        (zones / "Test").mkdir(parents=True, exist_ok=True)
        (zones / "Test" / "Town").write_bytes(zone_file(hours))
        (zones / "tzdata.zi").write_text(f"# version {hours}\n")
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM.replace("{new}", str(new))], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "PYTHONTZPATH": str(zones), "PYTHONPATH": os.path.dirname(os.path.dirname(taskloop.__file__))},
            timeout=30, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)

    return run


def test_a_schedule_follows_new_rules_of_its_zone_from_the_next_start_on(town):
    assert town(2, new=True) == {"noon": "10:00", "stored": "10:30"}
    assert town(2) == {"noon": "10:00", "stored": "10:30"}
    assert town(5) == {"noon": "07:00", "stored": "07:30"}
