"""`python -m benchmarks costs`: where the time and the bytes of a run go, in one table.

Three loads: runs submitted by a hundred callers (as P2), schedules due at one instant (as P3), and fires that come alone, a
hundred a second (as P1). Each is done twice, in a process each: once with nothing in the way, which gives the processor
time, and once sampled, which says where it goes; a third time under strace, where there is one.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import machine, sampling
from benchmarks.harness import LONGEST_SECONDS, ROOT, Numbers, shares
from benchmarks.table import aligned, number
from taskloop import Every, TaskScheduler
from taskloop.options import Options

SIZE = {"submitted": 20_000, "due": 10_000, "alone": 1000, "stored": 10_000, "held": 5000}
QUICK = {"submitted": 300, "due": 300, "alone": 20, "stored": 300, "held": 300}
TRACED = 4
"""Under strace, which makes each call of the system slow: so many times fewer."""
RATE = 100
CALLERS = 100
WARM = 500
LOADS = {"submitted": "submitted, 100 in flight", "due": "due at one instant", "alone": "alone, 100 a second"}
_RESULT = "costs "

Span = Callable[[], Any]


async def nothing() -> None: ...


# -- what is done; `span` surrounds what counts


async def submitted(store: Path, runs: int, span: Span) -> None:
    scheduler = TaskScheduler(store, options=Options(max_running=128))
    job = scheduler.add_job(nothing)

    async def caller(count: int) -> None:
        for _ in range(count):
            await (await job.submit()).wait()

    async with scheduler:
        await asyncio.gather(*(caller(count) for count in shares(WARM, CALLERS)))
        with span():
            await asyncio.gather(*(caller(count) for count in shares(runs, CALLERS)))


async def due(store: Path, runs: int, span: Span) -> None:
    await _fires(store, runs, span, ahead=_ahead(runs), apart=0)


async def alone(store: Path, runs: int, span: Span) -> None:
    await _fires(store, runs, span, ahead=_ahead(runs), apart=1 / RATE)


def _ahead(runs: int) -> float:
    """Seconds to put so many schedules down in; the same for many and few under strace, where both are compared."""
    return 2 + max(runs, SIZE["due"] // TRACED) / 1000


async def _fires(store: Path, runs: int, span: Span, *, ahead: float, apart: float) -> None:
    scheduler = TaskScheduler(store, options=Options())
    job = scheduler.add_job(nothing)
    left, done = iter(range(runs - 1)), asyncio.Event()
    scheduler.feed.subscribe(lambda _: next(left, None) is None and done.set(), "succeeded")
    async with scheduler:
        first = datetime.now(UTC) + timedelta(seconds=ahead)
        await scheduler.schedule_many(
            (job.bind(), Every("1d", anchor=first + timedelta(seconds=one * apart)), f"nothing-{one}")
            for one in range(runs)
        )
        before = (first - datetime.now(UTC)).total_seconds() - 0.05
        if before < 0:
            raise RuntimeError("the instant came before everything was ready for it")
        await asyncio.sleep(before)
        with span():
            await done.wait()


# -- measured in a process of its own


def plain(load: str, runs: int) -> Numbers:
    """Processor time, by thread; turns of the loop; collections; reads and writes."""
    numbers: Numbers = {}

    @contextmanager
    def span() -> Iterator[None]:
        before = _standing()
        collections.clear()
        began = time.perf_counter()
        yield
        numbers["wall_us"] = 1e6 * (time.perf_counter() - began) / runs
        after = _standing()
        for name, value in after.items():
            numbers[name] = (value - before.get(name, 0)) / runs
        numbers["collections"] = len(collections) / runs
        numbers["collected_us"] = sum(collections) / 1000 / runs

    collections: list[int] = []
    since = 0

    def collecting(phase: str, _: dict[str, int]) -> None:
        nonlocal since
        if phase == "start":
            since = time.thread_time_ns()
        else:
            collections.append(time.thread_time_ns() - since)

    gc.callbacks.append(collecting)
    _run(load, runs, span)
    return numbers


def sampled(load: str, runs: int) -> Numbers:
    """The share of each room, and what went through sqlite3."""
    sampling.seen()
    sampler = sampling.Sampler()
    numbers: Numbers = {}

    @contextmanager
    def span() -> Iterator[None]:
        counted = sampling.COUNTED
        statements, transactions, seconds = counted.statements, counted.transactions, counted.seconds
        sampler.start()
        yield
        sampler.over()
        numbers["statements"] = (counted.statements - statements) / runs
        numbers["transactions"] = (counted.transactions - transactions) / runs
        numbers["in_sqlite_us"] = 1e6 * (counted.seconds - seconds) / runs

    _run(load, runs, span)
    seconds = sampler.seconds()
    whole = sum(seconds.values()) or 1
    numbers |= {f"share {name}": seconds[name] / whole for name in sampling.ROOMS}
    return numbers | {"looks": sampler.looks}


def stored(_: str, number: int) -> Numbers:
    """Bytes in the file, of a schedule and of a run with its end."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        store = Path(folder) / "store.db"
        sizes = asyncio.run(_filled(store, number))
    return {"schedule_bytes": (sizes[1] - sizes[0]) / number, "run_bytes": (sizes[2] - sizes[1]) / number}


async def _filled(store: Path, number: int) -> list[int]:
    scheduler = TaskScheduler(store, options=Options(max_running=128))
    job = scheduler.add_job(nothing)
    later = datetime.now(UTC) + timedelta(days=1)
    async with scheduler:
        await _each(job, 1)
        sizes = [_pages(store)]
        await scheduler.schedule_many(
            (job.bind(), Every("1d", anchor=later), f"nothing-{one}") for one in range(number)
        )
        sizes.append(_pages(store))
        await _each(job, number)
        return [*sizes, _pages(store)]


async def _each(job: Any, number: int) -> None:
    async def caller(count: int) -> None:
        for _ in range(count):
            await (await job.submit()).wait()

    await asyncio.gather(*(caller(count) for count in shares(number, CALLERS)))


def _pages(store: Path) -> int:
    db = sqlite3.connect(store)
    try:
        pages, free, size = (
            db.execute(f"PRAGMA {one}").fetchone()[0] for one in ("page_count", "freelist_count", "page_size")
        )
    finally:
        db.close()
    return int((pages - free) * size)


def held(kind: str, number: int) -> Numbers:
    """Bytes of memory, resident, that one more run takes while it runs, or while it waits for a place; of a bare task."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        if kind == "bare":
            grown = asyncio.run(_bare(number))
        else:
            grown = asyncio.run(_kept(Path(folder) / "store.db", number, running=kind == "running"))
    return {f"{kind}_bytes": grown / number}


async def _bare(number: int) -> int:
    over = asyncio.Event()
    before = _resident_bytes()
    tasks = [asyncio.create_task(_until(over)) for _ in range(number)]
    await asyncio.sleep(0)
    grown = _resident_bytes() - before
    over.set()
    await asyncio.gather(*tasks)
    return grown


async def _until(over: asyncio.Event) -> None:
    await over.wait()


async def _kept(store: Path, number: int, *, running: bool) -> int:
    scheduler = TaskScheduler(store, options=Options(max_running=number + 1 if running else 1))
    over, begun, all_begun = asyncio.Event(), iter(range(number - 1)), asyncio.Event()

    async def stays() -> None:
        if next(begun, None) is None:
            all_begun.set()
        await over.wait()

    warm, job = scheduler.add_job(nothing), scheduler.add_job(stays)
    async with scheduler:
        await _each(warm, 300)
        if not running:
            await job.submit()
        before = _resident_bytes()
        for _ in range(number):
            await job.submit()
        if running:
            await all_begun.wait()
        grown = _resident_bytes() - before
        for one in await scheduler.runs(state="waiting", limit=10**6):
            await scheduler.cancel(one.id)
        over.set()
    return grown


def _resident_bytes() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _run(load: str, runs: int, span: Span) -> None:
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder, asyncio.Runner(loop_factory=_Loop) as runner:
        runner.run(_LOADS[load](Path(folder) / "store.db", runs, span))


_LOADS = {"submitted": submitted, "due": due, "alone": alone}


class _Loop(asyncio.SelectorEventLoop):
    """Counts its turns."""

    turns = 0

    def _run_once(self) -> None:
        self.turns += 1
        super()._run_once()


def _standing() -> Numbers:
    """What was used up to now, in microseconds and numbers."""
    found: Numbers = {"cpu_us": time.process_time() * 1e6, "turns": asyncio.get_running_loop().turns}
    for thread in sampling.threads():
        kind = _kind(thread)
        found[kind] = found.get(kind, 0) + 1e6 * (sampling.processor_seconds(thread) or 0)
    with suppress(OSError):
        lines = dict(line.split(": ") for line in Path("/proc/self/io").read_text("ascii").splitlines())
        found |= {"reads": int(lines["syscr"]), "writes": int(lines["syscw"]), "written_bytes": int(lines["wchar"])}
    return found


def _kind(thread: threading.Thread) -> str:
    if thread is threading.main_thread():
        return "loop_us"
    return "sqlite_us" if "connection_worker" in thread.name else "others_us"


def _child(kind: str, what: str, count: str) -> None:
    measures = {"plain": plain, "sampled": sampled, "stored": stored, "held": held}
    print(_RESULT + json.dumps({name: round(value, 6) for name, value in measures[kind](what, int(count)).items()}))


# -- the parent


def measured(loads: Sequence[str], size: Mapping[str, int], rounds: int, tell: Callable[[str], None]) -> dict[str, Any]:
    """Every number, plain JSON. No loads: all, and the bytes."""
    costs: dict[str, Any] = {"loads": {}, "bytes": {}, "errors": []}
    for load in loads or LOADS:
        costs["loads"][load] = found = {}
        for kind in ("plain", "sampled"):
            tell(f"{load}, {kind}")
            found[kind] = _medians([_apart(costs, kind, load, size[load]) for _ in range(rounds)])
        if shutil.which("strace"):
            tell(f"{load}, under strace")
            found["calls"] = _calls(costs, load, max(20, size[load] // TRACED))
    if loads:
        return costs
    for kind, what, count in (
        ("stored", "", size["stored"]),
        *(("held", one, size["held"]) for one in ("running", "waiting", "bare")),
    ):
        tell(f"{kind} {what}")
        costs["bytes"] |= _medians([_apart(costs, kind, what, count) for _ in range(rounds)])
    return costs


def _medians(rounds: list[Numbers]) -> Numbers:
    names = {name for one in rounds for name in one}
    return {name: statistics.median(one[name] for one in rounds if name in one) for name in sorted(names)}


def _apart(costs: dict[str, Any], *given: Any, before: tuple[str, ...] = ()) -> Numbers:
    """A measurement in a process of its own; nothing, and a word among the errors, where it fails."""
    command = [*before, sys.executable, "-m", "benchmarks.costs", "--child", *map(str, given)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        costs["errors"].append(f"{' '.join(map(str, given))}: not done within {LONGEST_SECONDS:g} s")
        return {}
    for line in done.stdout.splitlines():
        if line.startswith(_RESULT):
            found: Numbers = json.loads(line.removeprefix(_RESULT))
            return found
    last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
    costs["errors"].append(f"{' '.join(map(str, given))}: {last[0][:300]}")
    return {}


def _calls(costs: dict[str, Any], load: str, runs: int) -> Numbers:
    """Calls of the system a run: those of many runs less those of few, so that neither start nor end counts."""
    few = max(2, runs // 10)
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        file = Path(folder) / "calls"
        trace = ("strace", "-f", "-c", "-o", str(file))
        counts = []
        for number in (few, runs):
            if not _apart(costs, "plain", load, number, before=trace):
                return {}
            counts.append(_strace(file.read_text("utf-8")))
    names = set(counts[0]) | set(counts[1])
    return {name: (counts[1].get(name, 0) - counts[0].get(name, 0)) / (runs - few) for name in sorted(names)}


def _strace(table: str) -> Numbers:
    """Calls by name, of what `strace -c` writes: share, seconds, microseconds a call, calls, errors or nothing, name."""
    found = {}
    for line in table.splitlines():
        cells = line.split()
        if len(cells) in (5, 6) and cells[3].isdigit():
            found[cells[-1]] = float(cells[3])
    return found


# -- the table


def lines(costs: Mapping[str, Any]) -> list[str]:
    """In Markdown, columns aligned."""
    loads = [load for load in LOADS if load in costs["loads"]]
    head = ("a run", *(LOADS[load] for load in loads))
    rows = [(text, *(_shown(read(costs["loads"][load]), unit) for load in loads)) for text, unit, read in _ROWS]
    kept = [(text, _shown(costs["bytes"].get(name), "B")) for text, name in _BYTES]
    table = [*aligned(head, rows, set(head[1:])), *_frequent(costs["loads"])]
    return table if not costs["bytes"] else [*table, "", *aligned(("what", "bytes"), kept, {"bytes"})]


def _frequent(loads: Mapping[str, Any]) -> list[str]:
    """The calls of the system that are made most."""
    found = []
    for load, measured in loads.items():
        calls = {name: count for name, count in measured.get("calls", {}).items() if name != "total" and count >= 0.05}
        most = sorted(calls, key=lambda name: -calls[name])[:8]
        if most:
            found += [
                "",
                f"Calls of the system, {LOADS[load]}: {', '.join(f'{one} {number(calls[one])}' for one in most)}.",
            ]
    return found


def _of(kind: str, name: str) -> Callable[[Mapping[str, Any]], float | None]:
    return lambda found: found.get(kind, {}).get(name)


def _room(name: str, found: Mapping[str, Any]) -> float | None:
    whole, share = found.get("plain", {}).get("cpu_us"), found.get("sampled", {}).get(f"share {name}")
    return None if whole is None or share is None else whole * share


def _called(names: tuple[str, ...], found: Mapping[str, Any]) -> float | None:
    calls = found.get("calls")
    return max(0.0, sum(calls.get(name, 0) for name in names)) if calls else None


def _shown(value: float | None, unit: str) -> str:
    return "" if value is None else f"{number(value)} {unit}".strip()


_ROWS: tuple[tuple[str, str, Callable[[Mapping[str, Any]], float | None]], ...] = (
    ("by the clock", "µs", _of("plain", "wall_us")),
    ("**processor time**", "µs", _of("plain", "cpu_us")),
    ("of it the loop's thread", "µs", _of("plain", "loop_us")),
    ("of it the store's threads", "µs", _of("plain", "sqlite_us")),
    ("of it other threads", "µs", _of("plain", "others_us")),
    *((f"in: {name}", "µs", partial(_room, name)) for name in sampling.ROOMS),
    ("in sqlite3 by the clock, with the disk", "µs", _of("sampled", "in_sqlite_us")),
    ("SQL statements", "", _of("sampled", "statements")),
    ("transactions", "", _of("sampled", "transactions")),
    ("turns of the loop", "", _of("plain", "turns")),
    ("collections of garbage", "", _of("plain", "collections")),
    ("bytes written", "B", _of("plain", "written_bytes")),
    ("flushes to the disk, under strace", "", partial(_called, ("fsync", "fdatasync"))),
    ("waits and wakes of threads (futex), under strace", "", partial(_called, ("futex",))),
    ("waits of the loop (epoll), under strace", "", partial(_called, ("epoll_wait", "epoll_pwait"))),
    ("all calls of the system, under strace", "", partial(_called, ("total",))),
)
_BYTES = (
    ("a schedule, in the store", "schedule_bytes"),
    ("a run and its end, in the store", "run_bytes"),
    ("a run that runs, in memory", "running_bytes"),
    ("a bare asyncio task that waits as long, in memory", "bare_bytes"),
    ("a run that waits for a place, in memory", "waiting_bytes"),
)


def _notes(report: Mapping[str, Any]) -> list[str]:
    found = [f"gave no figure: {error}" for error in report["costs"]["errors"]]
    if not any("calls" in load for load in report["costs"]["loads"].values()):
        found.append("calls of the system are not counted: there is no strace")
    return found


def main(given: list[str]) -> int:
    if given[:1] == ["--child"]:
        _child(*given[1:])
        return 0
    parser = ArgumentParser(prog="python -m benchmarks costs", description=__doc__, allow_abbrev=False)
    parser.add_argument("load", nargs="*", choices=[*LOADS, []], help="none: all of them, and the bytes")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="the median is taken of so many (3)")
    parser.add_argument("--quick", action="store_true", help="a tiny size, once: whether it works, no figures to keep")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every number here")
    parser.add_argument("--table", type=Path, metavar="FILE", help="measure nothing, show the numbers kept in FILE")
    parser.add_argument("--into", type=Path, metavar="PAGE", help="put the table between the marks of this page")
    options = parser.parse_args(given)
    if options.table:
        report = json.loads(options.table.read_text("utf-8"))
    else:
        rounds = 1 if options.quick else options.rounds
        report = {
            "machine": machine.facts(),
            "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "rounds": rounds,
        }
        report["costs"] = measured(
            options.load, QUICK if options.quick else SIZE, rounds, lambda text: print(text, file=sys.stderr)
        )
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    text = [*machine.lines(report["machine"]), "", *lines(report["costs"])]
    print("\n".join([*text, *_notes(report)]))
    if options.into:
        machine.put(options.into, "costs", text)
    return 1 if report["costs"]["errors"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
