"""Kills and errors at the k-th call of a kind, by strace's fault injection.

strace counts each kind of call in each thread apart: `when=k` strikes in the first thread that makes its k-th. A filter
by seccomp would be quicker, but at its stops the kernel ignores the signal: the kill would not happen. So the driver
looks at the exit code of every round, and `detached=True` makes the tracer a process of its own, so that the code it
looks at is the product's.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

_NAMES = {"rename": "rename,renameat,renameat2", "unlink": "unlink,unlinkat"}


class Missing(Exception):
    """A tool that a round needs is not installed, or does not work."""


@cache
def need(tool: str) -> str:
    """The path of a tool that works here. Raises `Missing`."""
    path = shutil.which(tool)
    if path is None:
        raise Missing(f"{tool} is not installed here")
    if tool == "strace":  # a container may have it and not allow it
        tried = subprocess.run([path, "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
        if tried.returncode:
            raise Missing(f"strace may not trace here: {tried.stderr.strip()}")
    return path


def compiled(source: Path, folder: Path) -> Path:
    """A library to preload, compiled from a file beside this one. Raises `Missing`."""
    library = folder / f"{source.stem}.so"
    if not library.exists():
        words = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(source), "-ldl"]
        subprocess.run([need("gcc"), *words], check=True, capture_output=True, timeout=60)
    return library


def counting(calls: Sequence[str], to: Path) -> list[str]:
    """The words before a command whose calls of these kinds are to be counted."""
    names = ",".join(_NAMES.get(call, call) for call in calls)
    return [need("strace"), "-D", "-f", "-q", "-o", str(to), "-e", f"trace={names}"]


def killing(call: str, number: int, to: Path) -> list[str]:
    """The words before a command that is to be killed at its k-th call of a kind."""
    names = _NAMES.get(call, call)
    inject = f"inject={names}:signal=KILL:when={number}"
    return [need("strace"), "-D", "-f", "-q", "-o", str(to), "-e", f"trace={names}", "-e", inject]


def failing(call: str, error: str, when: str, to: Path, files: Sequence[Path] = ()) -> list[str]:
    """The words before a command some of whose calls are to fail; `files`: only calls that touch these.

    `-I 2`: the tracer heeds SIGTERM, lets go of the process and ends, which is the end of the fault.
    """
    names = _NAMES.get(call, call)
    paths = [word for file in files for word in ("-P", str(file))]
    inject = f"inject={names}:error={error}:when={when}"
    return [need("strace"), "-I", "2", "-f", "-q", "-o", str(to), *paths, "-e", f"trace={names}", "-e", inject]


def slow(call: str, seconds: float, to: Path) -> list[str]:
    """The words before a command each of whose calls of a kind is to take so much longer."""
    inject = f"inject={call}:delay_exit={round(seconds * 1_000_000)}"
    return [need("strace"), "-D", "-f", "-q", "-o", str(to), "-e", f"trace={call}", "-e", inject]


def counted(calls: Sequence[str], trace: Path, *, part: str = "running") -> dict[str, int]:
    """How often the busiest thread made each call, before the process was asked to stop (`running`) or from then on."""
    threads: dict[str, Counter[str]] = {}
    before, _, after = trace.read_text(errors="replace").partition("--- SIGTERM")
    for line in (before if part == "running" else after).splitlines():
        found = re.match(r"(\d+) +(\w+)\(", line)
        if found:
            name = next((one for one in calls if found[2].startswith(one)), found[2])
            threads.setdefault(name, Counter())[found[1]] += 1
    return {call: max(threads[call].values()) for call in calls if call in threads}


def injected(trace: Path) -> int:
    """How many calls were made to fail."""
    return trace.read_text(errors="replace").count("(INJECTED)") if trace.exists() else 0
