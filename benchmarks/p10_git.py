"""P10: git metrics of a repository of 5,500 commits, against the `git log --numstat` that any such count needs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, Figure, Numbers, Setting, Workload
from taskloop.git_metrics import FileMemory, collect

UNTIL = 1_767_225_600
"""1 January 2026: the last commit."""


def prepare(folder: Path, size: Mapping[str, Any]) -> None:
    sys.path.insert(0, str(ROOT / "tests"))
    from git_repositories import large

    large(folder / "large.git", until=UNTIL, commits=size["commits"])


def own(setting: Setting) -> Numbers:
    repository, now = setting.shared / "large.git", datetime.fromtimestamp(UNTIL, UTC)
    memory = FileMemory(setting.folder / "memory")
    began = time.perf_counter()
    first = collect([repository], now=now, memory=memory)
    middle = time.perf_counter()
    second = collect([repository], now=now, memory=memory)
    ended = time.perf_counter()
    if first["failed"] or second["failed"]:
        raise RuntimeError(f"not read: {first['failed'] or second['failed']}")
    return {"full_ms": 1000 * (middle - began), "second_ms": 1000 * (ended - middle)}


def limit(setting: Setting) -> Numbers:
    began = time.perf_counter()
    subprocess.run(
        ["git", "-C", setting.shared / "large.git", "log", "--numstat"], stdout=subprocess.DEVNULL, check=True
    )
    return {"full_ms": 1000 * (time.perf_counter() - began)}


WORKLOAD = Workload(
    name="p10",
    title="git metrics of 5,500 commits",
    figures=(
        Figure("full_ms", "git metrics, full history", "ms", must=1.3, aim=1.05),
        Figure("second_ms", "git metrics, nothing new", "ms", must=0.05, limit="full_ms"),
    ),
    own={"taskloop": own},
    limit=limit,
    size={"commits": 5500},
    quick={"commits": 50},
    prepare=prepare,
)
