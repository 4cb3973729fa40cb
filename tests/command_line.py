"""A small program for the tests of the command line, and ways to call it: in this process and as one of its own."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

import taskloop
from taskloop.__main__ import main

ROOT = Path(taskloop.__file__).parent.parent
SECONDS = 30
"""How long anything may take before a test gives up on it."""

SHOP = '''
import asyncio, time
from datetime import date
from typing import Literal, Optional

from taskloop import Jobs, RunContext

jobs = Jobs()


@jobs.job()
async def add(a: int, b: int = 2, note: str = "") -> int:
    """Adds."""
    return a + b


@jobs.job()
async def order(day: date, size: Literal["small", "large"] = "small", tags: Optional[list[str]] = None) -> dict:
    return {"day": day.isoformat(), "size": size, "tags": tags}


@jobs.job()
def fails() -> None:
    raise ValueError("bad \\x1b[31m luck\\nsecond line")


@jobs.job()
async def slow(seconds: float = 60.0) -> str:
    await asyncio.sleep(seconds)
    return "slept"


@jobs.job()
def stubborn() -> None:
    time.sleep(1.5)


@jobs.job()
def talks(run: RunContext, seconds: float = 0.0) -> None:
    run.log("begun")
    time.sleep(seconds)
    run.log("bad \\x1b[31m luck\\nsecond line", "error")


@jobs.every("1h")
def hourly() -> str:
    """Ticks."""
    return "ticked"


@jobs.cron("0 2 * * *")
def nightly() -> None: ...
'''
CONFIG = """
[scheduler]
app = "shop:jobs"
[jobs.git_metrics]
at = 2099-01-01T00:00:00Z
"""


@dataclass
class Done:
    """What a command gave."""

    code: int
    out: str
    err: str

    @property
    def data(self):
        return json.loads(self.out)

    @property
    def items(self):
        return self.data["items"]


class Shop:
    """A directory with a program in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, text: str) -> Path:
        (self.folder / name).write_text(text)
        return self.folder / name

    @property
    def files(self) -> set[str]:
        return {one.name for one in self.folder.iterdir()} - {"__pycache__"}

    def process(self, *words: str, **environ: str) -> Done:
        """A command as a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "taskloop", *words], cwd=self.folder, env=surroundings(environ),
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str, **environ: str) -> Running:
        """A command that goes on."""
        return Running(self.folder, words, environ)


class Running:
    """A process that goes on; its stderr is a file, so that it never blocks."""

    def __init__(self, folder: Path, words: tuple[str, ...], environ: dict[str, str]) -> None:
        self._said = folder.parent / f"{folder.name}-{time.monotonic_ns()}.err"
        with self._said.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "taskloop", *words], cwd=folder, env=surroundings(environ),
                stdout=subprocess.DEVNULL, stderr=said,
            )  # fmt: skip

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(SECONDS)

    @property
    def said(self) -> str:
        return self._said.read_text()

    def hear(self, pattern: str, seconds: float = SECONDS) -> float:
        """Wait until it says this; gives the seconds it took."""
        began = time.monotonic()
        until(lambda: re.search(pattern, self.said), seconds, lambda: f"{pattern!r} not in:\n{self.said}")
        return time.monotonic() - began

    def end(self, *signals: int) -> int:
        for one in signals:
            self.process.send_signal(one)
        return self.process.wait(SECONDS)


def until(holds, seconds: float = SECONDS, explain=lambda: "it never came") -> None:
    """Poll until a condition holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, explain()
        time.sleep(0.02)


def on_a_terminal(shop, *words: str, end: int | None = None, **environ: str) -> tuple[int, str]:
    """A command whose stdout and stderr are a terminal: its code and what the terminal got."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "taskloop", *words], cwd=shop.folder, stdin=theirs, stdout=theirs, stderr=theirs,
        env=surroundings({"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "24", **environ}),
    )  # fmt: skip
    os.close(theirs)
    said = b""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            said += os.read(ours, 65536)
        except OSError:
            break
        if end is not None and "▓▓▓".encode() in said:
            process.send_signal(end)
            end = None
    os.close(ours)
    return process.wait(SECONDS), said.decode()


def surroundings(more: dict[str, str]) -> dict[str, str]:
    """The environment of a process: ours without what would configure it."""
    plain = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TASKLOOP_", "TASK_SCHEDULER_", "LC_"))
        and name not in ("NO_COLOR", "FORCE_COLOR", "JOURNAL_STREAM", "LANG", "TZ")
    }
    return {**plain, "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8", "TZ": "UTC", **more}


@pytest.fixture
def nothing_blocks_the_loop():
    """A command has its loop to itself: reading a file on it holds up nobody."""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A directory with the program, which is the current one, and nothing of it in this process afterwards."""
    for name in [*os.environ]:
        if name.startswith(("TASKLOOP_", "TASK_SCHEDULER_")):
            monkeypatch.delenv(name)
    folder = tmp_path / "shop"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    found = Shop(folder)
    found.write("shop.py", SHOP)
    found.write("config.toml", CONFIG)
    before = set(sys.modules)
    yield found
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def call(capfd):
    """Call a command in this process."""

    def call(*words: str) -> Done:
        capfd.readouterr()
        code = main(words)
        said = capfd.readouterr()
        return Done(code, said.out, said.err)

    return call
