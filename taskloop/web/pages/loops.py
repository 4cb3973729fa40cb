"""The strip of a worker's loop: the last ten minutes in parts of ten seconds, and who held it. Pure.

A part in which the loop stood still is a bar, as high as the longest stand took on the strip's own scale; the others are a
line, as long as the worker has been there. The words say the same, and the list of what disturbed the workers too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from taskloop.signs import span_text
from taskloop.store_data import Incident, Worker
from taskloop.web.pages.strips import FOOT, LEAST, LINE, STEP, WIDTH

__all__ = ["SPAN", "Held", "LoopStrip", "culprit", "loop_strip"]

PART: Final = timedelta(seconds=10)
PARTS: Final = 60
SPAN: Final = PART * PARTS
LEAST_TOP: Final = 1.0
"""Seconds: the height of the strip, where nothing stood still for longer."""
NAMED: Final = 3
"""Stands that the words of one bar name."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Held:
    """A part in which the loop stood still."""

    path: str
    kind: str
    """`loop_blocked`; or `frozen`: its whole process did, and nobody in it is to blame."""
    at: datetime
    words: str
    run: int | None
    """The run that held it; None: none did."""


@dataclass(frozen=True, slots=True)
class LoopStrip:
    """Ten minutes of one worker's loop, and in words what they say."""

    worker: Worker
    words: str
    base: str
    """The path of the line below the bars."""
    bars: Sequence[Held]

    width: int = STEP * PARTS
    height: int = LINE + FOOT


def loop_strip(worker: Worker, incidents: Sequence[Incident], now: datetime) -> LoopStrip:
    """Of what disturbed any worker what held the loop of this one."""
    start = (
        _EPOCH + ((now - _EPOCH) // PART + 1 - PARTS) * PART
    )  # parts of the clock: a bar keeps its place in its part
    stood = [
        one
        for one in incidents
        if one.worker == worker.id and one.kind in ("loop_blocked", "frozen") and one.until > start
    ]
    parts: dict[int, list[Incident]] = {}
    for one in sorted(stood, key=_seconds, reverse=True):
        first = max(0, (one.since - start) // PART)
        for part in range(first, min(PARTS - 1, (one.until - start) // PART) + 1):
            parts.setdefault(part, []).append(one)
    top = max([LEAST_TOP, *map(_seconds, stood)])
    bars = [_held(part, found, top) for part, found in sorted(parts.items())]
    since = max(0, min(PARTS - 1, (worker.started_at - start) // PART))
    base = f"M{since * STEP} {LINE}H{PARTS * STEP}"
    return LoopStrip(worker, _words(stood), base, bars)


def culprit(data: Mapping[str, Any]) -> str:
    """Who held a loop, from the data of the incident."""
    if "job" in data:
        return f"{data['job']}, run {data['run']}" if "run" in data else str(data["job"])
    return f"not a job: {data.get('task') or 'a callback'}"


def _words(stood: Sequence[Incident]) -> str:
    if not stood:
        return "did not stand still in ten minutes"
    longest = max(stood, key=_seconds)
    times = "once" if len(stood) == 1 else f"{len(stood)} times"
    return f"stood still {times} in ten minutes, at most for {_said(longest)}"


def _said(one: Incident) -> str:
    took = span_text(_seconds(one))
    if one.kind == "frozen":
        return f"{took}: the whole process did, stopped or asleep"
    return f"{took}: {culprit(one.data)}, at {one.data.get('where') or 'a place that was not seen'}"


def _held(part: int, found: Sequence[Incident], top: float) -> Held:
    """The bar of a part, by the longest stand in it."""
    worst = found[0]
    words = "; ".join(map(_said, found[:NAMED])) + (f"; and {len(found) - NAMED} more" if len(found) > NAMED else "")
    return Held(_bar(part, _seconds(worst) / top), worst.kind, worst.since, words, worst.data.get("run"))


def _bar(part: int, share: float) -> str:
    height = max(LEAST, round(LINE * share))
    return f"M{part * STEP} {LINE - height}h{WIDTH}v{height}h-{WIDTH}z"


def _seconds(one: Incident) -> float:
    return max(0.0, (one.until - one.since).total_seconds())
