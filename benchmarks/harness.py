"""What a workload is, and how it is measured: a process a measurement, contestants side by side, round by round.

A workload names functions of a `Setting`; each gives numbers by name, and one of them is the figure that counts. The
parent process starts a fresh one for each measurement, so that no contestant inherits another's memory or threads.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

WORKLOADS: Final = {
    "p1": "p1_lateness",
    "p2": "p2_throughput",
    "p3": "p3_instant",
    "p4": "p4_million",
    "p5": "p5_bulk",
    "p6": "p6_idle",
    "p7": "p7_host",
    "p8": "p8_postgres",
    "p9": "p9_history",
    "p10": "p10_git",
    "p11": "p11_imports",
    "p12": "p12_flow",
    "p13": "p13_growth",
}
ROOT: Final = Path(__file__).resolve().parents[1]
LONGEST_SECONDS: Final = 300.0
"""A measurement that takes longer is given up and says so."""
_RESULT: Final = "result "

Numbers = dict[str, float]


@dataclass(frozen=True)
class Setting:
    """What a measurement is given: sizes by name, and two folders."""

    size: Mapping[str, Any]
    folder: Path
    """Its own, empty."""
    shared: Path
    """Of the workload: what `prepare` made."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self.size[name]
        except KeyError:
            raise AttributeError(name) from None


Measure = Callable[[Setting], Numbers | Awaitable[Numbers]]


@dataclass(frozen=True)
class Figure:
    """A number that counts, and what it should be."""

    name: str
    text: str
    unit: str
    must: float | None = None
    aim: float | None = None
    absolute: bool = False
    """Whether the goals are of the figure itself; else of its ratio to the limit's."""
    more: bool = False
    """Whether more is better."""
    limit: str | None = None
    """The limit's number; None: of the same name."""


@dataclass(frozen=True)
class Peer:
    """How somebody else's library does the same; left out, with its name, where `module` is not installed."""

    module: str
    measure: Measure


@dataclass(frozen=True)
class Workload:
    name: str
    title: str
    figures: tuple[Figure, ...]
    own: Mapping[str, Measure]
    limit: Measure | None = None
    also: Mapping[str, Measure] = field(default_factory=dict)
    """Other limits worth seeing beside; no goal counts from them."""
    peers: Mapping[str, Peer] = field(default_factory=dict)
    size: Mapping[str, Any] = field(default_factory=dict)
    quick: Mapping[str, Any] = field(default_factory=dict)
    """What is smaller where only the working is tried."""
    prepare: Callable[[Path, Mapping[str, Any]], None] | None = None
    """Makes, once, what every measurement reads."""
    lasting: bool = False
    """What `prepare` made may be kept from one run to the next: it finds what is there, by its size."""
    details: Callable[[Mapping[str, Any]], list[str]] | None = None
    """Lines that tell more than the figures do."""

    def contestants(self, *, peers: bool) -> dict[str, Measure]:
        found = dict(self.own)
        if self.limit is not None:
            found["limit"] = self.limit
        found |= self.also
        if peers:
            found |= {name: one.measure for name, one in self.peers.items() if _is_there(one.module)}
        return found

    def absent(self) -> list[str]:
        """The peers that are not installed."""
        return [name for name, one in self.peers.items() if not _is_there(one.module)]


def load(name: str) -> Workload:
    found: Workload = importlib.import_module(f"benchmarks.{WORKLOADS[name]}").WORKLOAD
    return found


# -- the parent: rounds of measurements


def run(
    workload: Workload,
    *,
    rounds: int,
    quick: bool,
    peers: bool,
    tell: Callable[[str], None],
    keep: Path | None = None,
    sizes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Measure each contestant so many times and give every number, plain JSON.

    `keep`: the folder for what lasts. `sizes`: other ones than the workload's own, as far as it has such.
    """
    changed = {name: value for name, value in (sizes or {}).items() if name in workload.size}
    size = {**workload.size, **(workload.quick if quick else {}), **changed}
    measurements = []
    with _shared(keep if workload.lasting else None) as shared:
        if workload.prepare is not None:
            workload.prepare(Path(shared), size)
        names = list(workload.contestants(peers=peers))
        for number in range(rounds):
            # Each round starts with another one: what the machine does meanwhile should not always hit the same.
            turn = number % len(names)
            for contestant in (*names[turn:], *names[:turn]):
                tell(f"{workload.name} {contestant}, round {number + 1} of {rounds}")
                numbers = _measured(workload.name, contestant, size, shared)
                measurements.append({"contestant": contestant, "round": number + 1, **numbers})
    absent = workload.absent() if peers else []
    return {"title": workload.title, "size": size, "measurements": measurements, "absent": absent}


@contextmanager
def _shared(keep: Path | None) -> Iterator[str]:
    """The folder for what every measurement reads."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            yield folder
    else:
        keep.mkdir(parents=True, exist_ok=True)
        yield str(keep.resolve())


def _measured(workload: str, contestant: str, size: Mapping[str, Any], shared: str) -> dict[str, Any]:
    """The numbers of one measurement in a process of its own, or why there are none."""
    command = [sys.executable, "-m", "benchmarks", "--measure", workload, contestant, json.dumps(size), shared]
    ours = ("TASKLOOP_", "TASK_SCHEDULER_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            timeout=LONGEST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"not done within {LONGEST_SECONDS:g} s"}
    for line in done.stdout.splitlines():
        if line.startswith(_RESULT):
            return {"numbers": json.loads(line.removeprefix(_RESULT))}
    last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    return {"error": last[0][:300]}


# -- the child: one measurement


def measure(workload: str, contestant: str, size: str, shared: str) -> None:
    """Take one measurement in this process and print its numbers."""
    function = load(workload).contestants(peers=True)[contestant]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        setting = Setting(json.loads(size), Path(folder), Path(shared))
        began = time.perf_counter()
        numbers: Any = function(setting)
        if inspect.isawaitable(numbers):
            numbers = asyncio.run(_awaited(numbers))
        numbers["took_seconds"] = time.perf_counter() - began
    numbers["process_cpu_seconds"] = time.process_time()
    numbers["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(_RESULT + json.dumps({name: round(value, 6) for name, value in numbers.items()}), flush=True)
    os._exit(0)  # a peer's threads may outlive its stop


async def _awaited(numbers: Awaitable[Numbers]) -> Numbers:
    return await numbers


# -- what was measured


def median(measured: Mapping[str, Any], contestant: str, name: str) -> float | None:
    """The median of a number over the rounds; None: it was never measured."""
    found = values(measured, contestant, name)
    return statistics.median(found) if found else None


def values(measured: Mapping[str, Any], contestant: str, name: str) -> list[float]:
    return [
        one["numbers"][name]
        for one in measured["measurements"]
        if one["contestant"] == contestant and name in one.get("numbers", {})
    ]


def percentile(given: Iterable[float], share: float) -> float:
    """The smallest value that `share` of them do not exceed."""
    ordered = sorted(given)
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))]


class Heartbeat:
    """A task that wakes each millisecond and notes the longest time, in seconds, it could not."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._last = 0.0
        self._task: asyncio.Task[None] | None = None

    async def _beat(self) -> None:
        while True:
            self._note()
            await asyncio.sleep(0.001)

    def _note(self) -> None:
        now = time.perf_counter()
        self.longest = max(self.longest, now - self._last - 0.001)
        self._last = now

    def __enter__(self) -> Heartbeat:
        self._last = time.perf_counter()
        self._task = asyncio.get_running_loop().create_task(self._beat())
        return self

    def __exit__(self, *_: object) -> None:
        self._note()
        if self._task is not None:
            self._task.cancel()


def shares(count: int, parts: int) -> Iterator[int]:
    """`count` in nearly equal `parts`."""
    for part in range(parts):
        yield count // parts + (part < count % parts)


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
