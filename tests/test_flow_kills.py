"""A flow that is killed again and again, by a real SIGKILL: what is done is done once, and the result is the same."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from stores import database

import taskloop

STEPS = 20 if os.environ.get("FULL") == "1" else 10
PROGRAM = f"""
import asyncio, os, signal, sys
from taskloop import RunContext, TaskScheduler

where, step = sys.argv[1:3]
scheduler = TaskScheduler("flow.db")
flow = scheduler.flow("chain", retry=100)

def note(text):
    with open("witness", "a") as file:
        file.write(text + "\\n")

async def worked(number, before):
    note(f"begin {{number}}")
    if (where, step) == ("inside", str(number)):
        os.kill(os.getpid(), signal.SIGKILL)
    note(f"end {{number}}")
    return before + number

for number in range({STEPS}):
    source = f"async def s{{number}}(" + (f"s{{number - 1}}: int" if number else "") + ") -> int:\\n"
    source += f"    return await worked({{number}}, " + (f"s{{number - 1}}" if number else "0") + ")\\n"
    exec(source)
    flow.step()(globals()[f"s{{number}}"])

def recorded(event):  # heard at once, before anything that follows begins
    note(f"recorded {{event.data['step'][1:]}}")
    if (where, "s" + step) == ("after", event.data["step"]):
        os.kill(os.getpid(), signal.SIGKILL)

scheduler.feed.subscribe(recorded, "step_done")

async def main():
    async with scheduler:
        if not await scheduler.runs("chain"):
            await flow.submit()
        [run] = await scheduler.runs("chain")
        print((await scheduler.wait(run.id, "20s")).state)

asyncio.run(main())
"""


# Forty programs that are killed measure nothing of themselves.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")} | {
    "PYTHONPATH": os.path.dirname(os.path.dirname(taskloop.__file__))
}


def run(folder: Path, where: str, step: int) -> int:
    done = subprocess.run(
        [sys.executable, "program.py", where, str(step)], cwd=folder, capture_output=True, text=True, timeout=60,
        env=ENVIRONMENT
    )  # fmt: skip
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


@pytest.fixture(autouse=True)
def no_test_takes_longer_than_this():
    """In the place of the limit of other tests: forty processes take their time."""

    def ring(*_):
        raise TimeoutError("the test takes longer than 240 s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(240)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.timeout(300)
def test_killed_inside_and_after_every_step_a_flow_calls_no_step_again_that_is_recorded(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    for step in range(STEPS):
        assert run(tmp_path, "inside", step) == -signal.SIGKILL
        assert run(tmp_path, "after", step) == -signal.SIGKILL
    assert run(tmp_path, "nowhere", 0) == 0
    recorded: set[str] = set()
    begun: Counter[str] = Counter()
    for line in (tmp_path / "witness").read_text().splitlines():
        word, number = line.split()
        if word == "begin":
            assert number not in recorded, f"step {number} was called again after it was recorded"
            begun[number] += 1
        if word == "recorded":
            recorded.add(number)
    assert recorded == {str(number) for number in range(STEPS)}
    assert all(1 <= times <= 3 for times in begun.values())
    with database(tmp_path / "flow.db") as db:
        state, attempt = db.execute("SELECT state, attempt FROM taskloop_runs").fetchone()
        assert (state, attempt) == ("succeeded", 2 * STEPS + 1)
        [(result,)] = db.execute("SELECT result FROM taskloop_steps WHERE name = ?", (f"s{STEPS - 1}",)).fetchall()
        assert int(result) == sum(range(STEPS))
