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
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
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
"""What a measurement may take, if nothing else is said."""
_LEAVE_SECONDS: Final = 20.0
"""It has so long to stop what it started, such as a server, before it is killed."""
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

    def but(self, **size: Any) -> Setting:
        """The same with other sizes."""
        return replace(self, size={**self.size, **size})


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
class Interpreter:
    """Another Python, for a peer that cannot be installed beside the others."""

    variable: str
    """The environment variable that holds its path."""
    needs: tuple[str, ...]
    """What is installed there, as pip is told."""

    @property
    def path(self) -> str | None:
        """None: there is none, or it lacks what is needed."""
        return _able(os.environ.get(self.variable, ""), self.needs)


@dataclass(frozen=True)
class Peer:
    """How somebody else's library does the same; left out, with its name, where `module` is not installed."""

    module: str
    measure: Measure
    """In another interpreter: a function of a module that imports nothing of taskloop."""
    interpreter: Interpreter | None = None

    @property
    def is_there(self) -> bool:
        if self.interpreter is not None:
            return self.interpreter.path is not None
        return importlib.util.find_spec(self.module) is not None

    @property
    def mend(self) -> str:
        """How to have it."""
        if self.interpreter is None:
            return 'pip install -e ".[benchmarks]"'
        needs = " ".join(self.interpreter.needs)
        return f"{self.interpreter.variable}=/path/to/python of a virtual environment with `pip install {needs}`"

    def command(self, workload: str, contestant: str) -> list[str]:
        """The interpreter, and where in it the function is found."""
        if self.interpreter is None or self.interpreter.path is None:
            return [sys.executable, "-m", "benchmarks", "--measure", workload, contestant]
        function: Any = self.measure
        return [self.interpreter.path, "-m", "benchmarks", "--measure", function.__module__, function.__name__]


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
    times: int = 1
    """How many times as many rounds it has as others: a hundredth of the requests of ten seconds are few."""
    lasting: bool = False
    """What `prepare` made may be kept from one run to the next: it finds what is there, by its size."""
    growth: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What grows, and the contestants from the smallest to the largest: drawn as lines."""
    details: Callable[[Mapping[str, Any]], list[str]] | None = None
    """Lines that tell more than the figures do."""

    def contestants(self, *, peers: bool) -> dict[str, Measure]:
        found = dict(self.own)
        if self.limit is not None:
            found["limit"] = self.limit
        found |= self.also
        if peers:
            found |= {name: one.measure for name, one in self.peers.items() if one.is_there}
        return found

    def absent(self) -> list[str]:
        """The peers that are not installed."""
        return [name for name, one in self.peers.items() if not one.is_there]


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
    longest_seconds: float = LONGEST_SECONDS,
) -> dict[str, Any]:
    """Measure each contestant so many times and give every number, plain JSON.

    `keep`: the folder for what lasts. `sizes`: other ones than the workload's own, as far as it has such.
    What takes longer than `longest_seconds` is given up, and not tried in the next round.
    """
    changed = {name: value for name, value in (sizes or {}).items() if name in workload.size}
    size = {**workload.size, **(workload.quick if quick else {}), **changed}
    measurements = []
    with _shared(keep if workload.lasting else None) as shared:
        if workload.prepare is not None:
            workload.prepare(Path(shared), size)
        rounds *= 1 if quick else workload.times
        names = list(workload.contestants(peers=peers))
        given_up: set[str] = set()
        for number in range(rounds):
            # Each round starts with another one: what the machine does meanwhile should not always hit the same.
            turn = number % len(names)
            for contestant in (*names[turn:], *names[:turn]):
                if contestant in given_up:
                    continue
                tell(f"{workload.name} {contestant}, round {number + 1} of {rounds}")
                began = time.monotonic()
                numbers = _measured(workload, contestant, size, shared, longest_seconds)
                if "error" in numbers and time.monotonic() - began >= longest_seconds:
                    given_up.add(contestant)
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


def _measured(
    workload: Workload, contestant: str, size: Mapping[str, Any], shared: str, longest_seconds: float
) -> dict[str, Any]:
    """The numbers of one measurement in a process of its own, or why there are none."""
    who = workload.peers.get(contestant, Peer("", lambda _: {}))
    command = [*who.command(workload.name, contestant), json.dumps(size), shared]
    ours = ("TASKLOOP_", "TASK_SCHEDULER_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    pipe = subprocess.PIPE
    with (
        # Ours, so that it goes also where the child is killed.
        tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True) as folder,
        subprocess.Popen(
            command, cwd=ROOT, env=environment | {"TMPDIR": folder}, stdout=pipe, stderr=pipe, text=True
        ) as child,
    ):
        try:
            out, err = child.communicate(timeout=longest_seconds)
        except subprocess.TimeoutExpired:
            _end(child)
            return {"error": f"not done within {longest_seconds:g} s"}
        except BaseException:
            _end(child)
            raise
    for line in out.splitlines():
        if line.startswith(_RESULT):
            return {"numbers": json.loads(line.removeprefix(_RESULT))}
    last = err.strip().splitlines()[-1:] or [f"exit code {child.returncode}"]
    return {"error": last[0][:300]}


def _end(child: subprocess.Popen[str]) -> None:
    """As Ctrl-C does, so that a server it started is stopped too; else by force."""
    child.send_signal(signal.SIGINT)
    try:
        child.communicate(timeout=_LEAVE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()


# -- the child: one measurement


def measure(workload: str, contestant: str, size: str, shared: str) -> None:
    """Take one measurement in this process and print its numbers.

    In an interpreter for one peer, which cannot import a workload: a function by its module and name.
    """
    if workload in WORKLOADS:
        function = load(workload).contestants(peers=True)[contestant]
    else:
        function = getattr(importlib.import_module(workload), contestant)
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
    try:
        return await numbers
    except BaseExceptionGroup as group:  # of a peer's task group: its last line would tell nothing
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if isinstance(error, RuntimeError):
            raise error from group
        raise RuntimeError(f"{type(error).__name__}: {error}".splitlines()[0]) from group


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


@cache
def _able(python: str, needs: tuple[str, ...]) -> str | None:
    """This interpreter, if it has what is needed, in the version that is named."""
    ask = (
        "import sys; from importlib.metadata import version\n"
        "for need in sys.argv[1:]:\n"
        "    name, _, wanted = need.partition('==')\n"
        "    assert version(name) == (wanted or version(name))"
    )
    try:
        done = subprocess.run([python, "-c", ask, *needs], capture_output=True, timeout=30, check=False)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return python if done.returncode == 0 else None
