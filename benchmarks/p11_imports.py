"""P11: what the names most programs import cost above the modules any such program imports, and what `--help` costs."""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import ROOT, Figure, Numbers, Setting, Workload

BARE = "import asyncio, sqlite3"
NAMES = "TaskScheduler, Cron, Flow"


def _milliseconds(*commands: Sequence[str], times: int, cache: Path) -> list[float]:
    """The median wall time of each command, run in turn, with compiled modules as an installed package has them."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(cache)
    took: list[list[float]] = [[] for _ in commands]
    for _ in range(times + 1):
        for place, command in enumerate(commands):
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, *command], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True
            )  # fmt: skip
            took[place].append(1000 * (time.perf_counter() - began))
    return [statistics.median(one[1:]) for one in took]  # the first has to compile


def own(setting: Setting) -> Numbers:
    bare, names = _milliseconds(
        ("-c", BARE), ("-c", f"{BARE}\nfrom taskloop import {NAMES}"), times=setting.times, cache=setting.folder
    )
    numbers = {"bare_import_ms": bare, "import_ms": names - bare}
    if importlib.util.find_spec("taskloop.__main__") is not None:
        nothing, help_page = _milliseconds(
            ("-c", "pass"), ("-m", "taskloop", "--help"), times=setting.times, cache=setting.folder
        )
        numbers |= {"bare_ms": nothing, "help_ms": help_page - nothing}
    return numbers


WORKLOAD = Workload(
    name="p11",
    title="imports",
    figures=(
        Figure("import_ms", "import above asyncio, sqlite3", "ms", must=60, aim=25, absolute=True),
        Figure("help_ms", "--help above bare Python", "ms", must=60, aim=25, absolute=True),
    ),
    own={"taskloop": own},
    size={"times": 15},
    quick={"times": 1},
)
