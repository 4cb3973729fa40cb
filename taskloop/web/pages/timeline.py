"""The page of what was and what comes: a lane a job, drawn here, so that it needs no script.

Pure but for its handler: `lanes` lays out, the template draws. Marks that would lie on each other become one with a
count; none crosses the line of now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from itertools import count
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from taskloop.runs import Run, State
from taskloop.signs import span_text
from taskloop.simulation import worst
from taskloop.store_data import Span
from taskloop.web.api.asking import NARROWED
from taskloop.web.api.between import NONE_OFF, Seen, is_off, seen
from taskloop.web.core import Response
from taskloop.web.pages.now import PAGE, whole_page
from taskloop.web.pages.rendering import zone_of
from taskloop.web.routes import TEXT, Parameter, Route
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.web.site import Asked

__all__ = ["ROUTES", "Lane", "Mark", "lanes", "ticks"]

WIDTH: Final = 1000.0
NEAR: Final = 4.0
"""Marks closer than this are one: twice as far as fires are apart where `between` leaves some out."""
LEAST: Final = 2.0
"""A mark is as wide as this, however short the run was."""
MOST_LANES, MOST_OVERLAPS = 40, 20
LISTED: Final = 100
"""Marks of a lane that the table names."""
_WORST: Final = (
    State.FAILED, State.INTERRUPTED, State.RUNNING, State.CANCELLED, State.SKIPPED, State.WAITING, State.SUCCEEDED
)  # fmt: skip


@dataclass(slots=True)
class Mark:
    """Runs, or coming fires, at one place of a lane."""

    x: float
    width: float
    kind: str
    """The worst state of its runs, or `coming`, or `trouble`: an overlap is foretold, or `off`: it will be skipped."""
    words: str
    run: int | None
    """The newest of its runs; None: they are to come."""
    count: int = 1

    @property
    def end(self) -> float:
        return self.x + self.width


@dataclass(slots=True)
class Lane:
    """One job."""

    job: str
    marks: list[Mark] = field(default_factory=list)


def lanes(
    runs: Iterable[Run | Span],
    fires: Iterable[tuple[datetime, str]],
    start: datetime,
    end: datetime,
    now: datetime,
    troubles: Collection[tuple[str, datetime]] = (),
    *,
    off: Mapping[str, datetime | None] = NONE_OFF,
    outlined: bool = False,
) -> list[Lane]:
    """A lane for each job that does something between two instants, by name. `fires`: instants with their job;
    `troubles`: those of them, job first, that will be skipped, wait, or end the run before. `off`: jobs that are
    switched off, and until when; `outlined`: of fires that lie on each other not all are given.
    """
    found: dict[str, list[Mark]] = {}
    scale = WIDTH / max(1e-6, (end - start).total_seconds())

    def place(at: datetime) -> float:
        return min(WIDTH, max(0.0, (at - start).total_seconds() * scale))

    for one in runs:
        began = one.started_at or one.due_at
        ended = one.ended_at or (now if one.state is State.RUNNING else began)
        x = place(began)
        took = f" after {span_text((ended - began).total_seconds())}" if ended > began else ""
        words = f"run {one.id}: {one.state}{took}{f' × {one.count}' if one.count > 1 else ''}"
        found.setdefault(one.job, []).append(
            Mark(x, max(LEAST, place(ended) - x), one.state.value, words, one.id, one.count)
        )
    for at, job in fires:
        kind = "off" if is_off(off, job, at) else "trouble" if (job, at) in troubles else "coming"
        found.setdefault(job, []).append(Mark(place(at), LEAST, kind, "", None))
    return [Lane(job, _merged(sorted(marks, key=lambda one: one.x), outlined)) for job, marks in sorted(found.items())]


def _merged(marks: Sequence[Mark], outlined: bool) -> list[Mark]:
    kept: list[Mark] = []
    for one in marks:
        last = kept[-1] if kept else None
        if last is None or one.x - last.end >= NEAR or (one.run is None) != (last.run is None):
            kept.append(one)
            continue
        last.width = max(last.end, one.end) - last.x
        last.count += one.count
        last.kind = min(last.kind, one.kind, key=_BADNESS.__getitem__)
        last.run = one.run if last.run is None or (one.run or 0) > last.run else last.run
        last.words = f"{last.count} × {last.kind}"
    for one in kept:
        if one.run is None:
            often = f"at least {one.count}" if outlined else str(one.count)
            one.words = "is to come" if one.count == 1 else f"{often} × to come"
            one.words += {"trouble": ", with an overlap", "off": ", but the job is off"}.get(one.kind, "")
        elif one.count > 1 and one.words.startswith(str(one.count)):
            one.words = f"{one.count} runs, the worst of them {one.kind}"
    return kept


_BADNESS: Final = {kind: place for place, kind in enumerate([*map(str, _WORST), "trouble", "coming", "off"])}


_STEPS: Final = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 86400, 7 * 86400, 30 * 86400)
_DAY: Final = 86400


def ticks(start: datetime, end: datetime, zone: tzinfo) -> list[tuple[float, datetime]]:
    """Places of instants that are round on the clock of a zone, a dozen at most: what bears a day is its midnight."""
    length = (end - start).total_seconds()
    step = next((one for one in _STEPS if length / one <= 10), _STEPS[-1])
    at = round_after(start, step, zone)
    found = []
    while at <= end:
        found.append(((at - start).total_seconds() / length * WIDTH, at))
        at = round_after(at.astimezone(UTC) + timedelta(microseconds=1), step, zone)
    return found


def round_after(instant: datetime, step: int, zone: tzinfo) -> datetime:
    """The first instant from this one on at which the clock of a zone shows a whole multiple of so many seconds."""
    here = instant.astimezone(zone)
    if step >= _DAY:
        days, day = step // _DAY, here.date().toordinal()
        midnights = (
            datetime.combine(date.fromordinal(number), time(), zone) for number in count(-(-day // days) * days, days)
        )
        return next(one for one in midnights if one.astimezone(UTC) >= instant)
    ahead = (here.utcoffset() or timedelta()).total_seconds()
    return datetime.fromtimestamp(-(-(instant.timestamp() + ahead) // step) * step - ahead, zone)


async def timeline(asked: Asked) -> Response:
    one = await seen(asked)
    found, hidden = await asyncio.to_thread(_shown, one)
    marked = ticks(one.start, one.end, zone_of(asked))
    asks = {"from": asked.query["from"] or "6h", "to": asked.query["to"] or "6h"}
    narrowed = {one.name: value for one in NARROWED if (value := asked.query[one.name])}
    return await whole_page(
        asked, "timeline.html", rarely=5, lanes=found, hidden=hidden, start=one.start,
        end=one.end, ticks=marked, ticks_apart=(marked[1][1] - marked[0][1]).total_seconds() if len(marked) > 1 else 0,
        listed=LISTED, now_at=(one.now - one.start) / (one.end - one.start) * WIDTH,
        wanted={"text": "", "tag": "", "job": "", **asks, **narrowed}, narrowed=urlencode(narrowed),
        kept=urlencode({**asks, **narrowed}), full=one.full,
        overlaps=worst(one.overlaps, MOST_OVERLAPS), more_overlaps=max(0, len(one.overlaps) - MOST_OVERLAPS),
    )  # fmt: skip


def _shown(one: Seen) -> tuple[list[Lane], int]:
    """The lanes of the first jobs, and how many further jobs there are."""
    names = sorted({*(run.job for run in one.runs), *(job for _, job in one.fires)})
    here = set(names[:MOST_LANES])
    runs, fires = [run for run in one.runs if run.job in here], [fire for fire in one.fires if fire[1] in here]
    drawn = lanes(runs, fires, one.start, one.end, one.now, one.troubles, off=one.off, outlined=one.outlined)
    return drawn, len(names) - len(here)


ROUTES = (
    Route(
        method="GET", path="/timeline", name="page_timeline", scope=Scope.read, handler=timeline, summary="Timeline",
        page=True,
        query=(*PAGE, Parameter("from", TEXT, "how far back"), Parameter("to", TEXT, "how far ahead"), *NARROWED),
    ),
)  # fmt: skip
