"""What every contestant of a workload is measured by, ours and others'.

Nothing of taskloop: an interpreter that has only a peer imports this too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from benchmarks.harness import Heartbeat, Numbers, Setting, percentile, shares

REST_SECONDS = 0.005


class Lateness:
    """P1: milliseconds between due and started, of what is due after the first second."""

    def __init__(self, setting: Setting) -> None:
        self.begin = datetime.now(UTC) + timedelta(seconds=setting.ahead)
        self.counted_from = self.begin + timedelta(seconds=setting.warm)
        self.end = self.counted_from + timedelta(seconds=setting.seconds)
        self.dues = [self.begin + timedelta(seconds=one / setting.rate) for one in range(setting.rate)]
        self._late: list[float] = []
        self._cpu_seconds = 0.0

    def started(self, due: datetime) -> None:
        if self.counted_from <= due < self.end:
            self._late.append((datetime.now(UTC) - due) / timedelta(milliseconds=1))

    async def over(self) -> None:
        await asyncio.sleep(_before(self.counted_from))
        cpu = time.process_time()
        await asyncio.sleep((self.end - datetime.now(UTC)).total_seconds() + 0.3)
        self._cpu_seconds = time.process_time() - cpu

    def numbers(self, setting: Setting) -> Numbers:
        expected = setting.rate * setting.seconds
        if not self._late:
            raise RuntimeError(f"none of {expected} started in time")
        return {
            "p50_ms": percentile(self._late, 0.5),
            "p99_ms": percentile(self._late, 0.99),
            "max_ms": max(self._late),
            "started": len(self._late),
            "expected": expected,
            "cpu_percent": 100 * self._cpu_seconds / (setting.seconds + 0.3),
        }


async def throughput(setting: Setting, one: Callable[[], Any], over: Callable[[], Any] | None = None) -> Numbers:
    """P2: runs a second of callers who each ask for one run after the other; `one` returns when it is recorded.

    With `over` it may return before, when the function has ended: `over` returns when all that was asked for is recorded.
    """

    async def caller(number: int) -> None:
        for _ in range(number):
            await one()

    await asyncio.gather(*(caller(number) for number in shares(setting.warm, setting.callers)))
    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(caller(number) for number in shares(setting.runs, setting.callers)))
    if over is not None:
        await over()
    took, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"per_second": setting.runs / took, "cpu_us": 1e6 * cpu / setting.runs}


class Rush:
    """P3: counts ends; knows when the last came, and how the loop and the processor fared from the instant on."""

    def __init__(self, number: int) -> None:
        self._left = number
        self._done = asyncio.Event()
        self._ended_at = datetime.min.replace(tzinfo=UTC)

    def ended(self, *_: Any) -> None:
        self._left -= 1
        if self._left == 0:
            self._ended_at = datetime.now(UTC)
            self._done.set()

    async def watch(self, due: datetime) -> Numbers:
        await asyncio.sleep(_before(due - timedelta(seconds=0.05)))
        cpu = time.process_time()
        with Heartbeat() as heartbeat:
            await self._done.wait()
        return {
            "last_ms": (self._ended_at - due) / timedelta(milliseconds=1),
            "stall_ms": heartbeat.longest * 1000,
            "cpu_ms": (time.process_time() - cpu) * 1000,
        }


def _before(instant: datetime) -> float:
    """Seconds until then."""
    seconds = (instant - datetime.now(UTC)).total_seconds()
    if seconds < 0:
        raise RuntimeError("the instant came before everything was ready for it; give it more seconds")
    return seconds


async def waits(setting: Setting, one: Callable[[], Any], entered: list[float]) -> Numbers:
    """P6: `one` asks and waits for the end; `entered` is appended to when the function begins."""
    found = []
    for _ in range(setting.number):
        asked = time.perf_counter()
        await one()
        found.append((entered.pop() - asked) * 1000)
        await asyncio.sleep(REST_SECONDS)
    found = found[len(found) // 10 :]
    return {"p50_ms": percentile(found, 0.5), "p99_ms": percentile(found, 0.99)}


def each(count: int, took: float) -> Numbers:
    """P5: what adding one of them took."""
    return {"each_us": 1e6 * took / count, "count": count}
