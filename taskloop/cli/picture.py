"""A simulation as a picture: a lane for each job and the load below, as text and as SVG. Equal simulations, equal pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from html import escape
from math import ceil
from typing import Final

from taskloop.signs import clock_text
from taskloop.simulation import Setting, Simulation, strip

__all__ = ["drawing", "lines"]

LANES: Final = 40
COLUMNS: Final = 60
"""Parts that a lane has, where there is room for them."""
LABEL: Final = 20
_BARS: Final = "▁▂▃▄▅▆▇█"
_ASCII_BARS: Final = ".:-=+*%#"


def lines(
    setting: Setting, found: Simulation, zone: tzinfo | None, *, glyphs: bool, room: int | None = None
) -> Iterator[str]:
    """The picture as text: how dense the fires of each job are, where it is in trouble, and the load.

    `room`: how wide the terminal is; None: it is none.
    """
    columns = COLUMNS if room is None else max(1, min(COLUMNS, room - LABEL))
    bars, cross = (_BARS, "✗") if glyphs else (_ASCII_BARS, "x")
    lanes = _lanes(found)
    strips = strip(setting, lanes, columns)
    troubled = _troubled(found, strips)
    yield " " * LABEL + _axis(found, zone, columns)
    for job in lanes:
        row = _bars(strips[job], bars)
        marked = "".join(cross if place in troubled[job] else sign for place, sign in enumerate(row))
        yield f"{_short(job, glyphs):<{LABEL}}{marked}".rstrip()
    if len(found.jobs) > len(lanes):
        yield f"{len(found.jobs) - len(lanes)} more"
    load = f"{'load':<{LABEL}}{_bars(_load(found, strips, columns), bars)}"
    most = "" if found.most_at is None else f"at most {found.most}, {clock_text(found.most_at, found.start, zone)}"
    if most and room is not None and len(load) + 2 + len(most) > room:  # it has a line of its own, below the bars
        yield load.rstrip()
        yield " " * max(0, min(LABEL, room - len(most))) + most
    else:
        yield f"{load}  {most}" if most else load.rstrip()


def _lanes(found: Simulation) -> list[str]:
    """The jobs that have a lane, by name: those in trouble before others, and those that fire before those that do not."""
    worst = sorted(found.jobs, key=lambda one: (not one.troubled, not one.fires, one.job))
    return sorted(one.job for one in worst[:LANES])


def _troubled(found: Simulation, strips: Mapping[str, Sequence[int]]) -> dict[str, set[int]]:
    """The parts of each strip with fires of an hour in which one of them was in trouble."""
    span, places = found.end - found.start, {}
    for one in found.jobs:
        if one.job not in strips:
            continue
        row = strips[one.job]
        hours = [
            ((at - found.start) / span * len(row), (at - found.start + _HOUR) / span * len(row)) for at in one.troubled
        ]
        places[one.job] = {
            place for first, last in hours for place in range(int(first), min(len(row), ceil(last))) if row[place]
        }
    return places


_HOUR: Final = timedelta(hours=1)
_NOTHING: Final = timedelta(0)


def _load(found: Simulation, strips: Mapping[str, Sequence[int]], columns: int) -> list[float]:
    """The work that begins in each part of the span; where no duration is known, the fires."""
    if len(strips) == len(found.jobs):  # else by the hour: it costs too much to count all jobs in each part
        weights = {one.job: (one.takes or _NOTHING).total_seconds() if found.busy else 1.0 for one in found.jobs}
        return [sum(strips[job][place] * weights[job] for job in strips) for place in range(columns)]
    span, load = found.end - found.start, [0.0] * columns
    for at, until in zip(found.load, [*(one.at for one in found.load[1:]), found.end], strict=True):
        weight = at.busy.total_seconds() if found.busy else float(at.fires)
        first, last = (at.at - found.start) / span * columns, (until - found.start) / span * columns
        place = int(first)
        while place < min(last, columns):  # an hour may lie in several parts, and a part hold several hours
            load[place] += weight * (min(last, place + 1) - max(first, place)) / (last - first)
            place += 1
    return load


def _bars(row: Sequence[float], bars: str) -> str:
    most = max(row, default=0)
    return "".join(" " if one < 1e-9 else bars[min(7, int(one / most * 8 - 1e-9))] for one in row)


def _short(job: str, glyphs: bool) -> str:
    room = LABEL - 2
    return job if len(job) <= room else job[: room - 1] + ("…" if glyphs else "~")


def _axis(found: Simulation, zone: tzinfo | None, columns: int) -> str:
    text = ""
    for place, words in _ticks(found, zone):
        at = int(place * columns)
        if (at > len(text) or not text) and at + len(words) <= columns:
            text = f"{text:<{at}}{words}"
    return text


def _ticks(found: Simulation, zone: tzinfo | None) -> Iterator[tuple[float, str]]:
    """Places, as parts of the whole, of round times on the clock of a zone, and how they are written."""
    span = found.end - found.start
    step = next((one for one in _STEPS if span / one <= 6), _STEPS[-1])
    form = "%H:%M" if span <= timedelta(days=1) else "%a %H:%M" if step < timedelta(days=1) else "%d %b"
    if step < timedelta(minutes=1):
        form = "%H:%M:%S"
    at = _local(found.start, zone).replace(minute=0, second=0, microsecond=0)
    if step >= _HOUR:
        at = at.replace(hour=0)
    while (instant := at.astimezone(UTC)) < found.end:
        if instant >= found.start:
            yield (instant - found.start) / span, at.strftime(form)
        at += step  # on the wall clock, so that a midnight stays one


_STEPS: Final = (
    *(timedelta(seconds=one) for one in (1, 5, 10, 30, 60, 120, 300, 600, 1800)),
    *(timedelta(hours=one) for one in (1, 2, 3, 6, 12, 24, 48, 7 * 24, 14 * 24, 30 * 24, 61 * 24)),
)


def _local(at: datetime, zone: tzinfo | None) -> datetime:
    return at.astimezone(zone)


# -- SVG

WIDTH, LEFT, ROW, LOAD, TOP = 720, 170, 20, 60, 46
PARTS: Final = 120
_STYLE: Final = (
    "text{font:12px sans-serif;fill:#333}.quiet{fill:#777}.fires{fill:#2b6cb0}.trouble{fill:#d32f2f}.load{fill:#718096}"
    "line{stroke:#ddd}rect.ground{fill:#fff}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.quiet{fill:#999}.fires{fill:#8ab4f8}.trouble{fill:#ff8a80}"
    "line{stroke:#333}rect.ground{fill:#14181f}}"
)


def drawing(setting: Setting, found: Simulation, zone: tzinfo | None) -> str:
    """The picture as SVG, whole in itself."""
    lanes = _lanes(found)
    strips = strip(setting, lanes, PARTS)
    troubled = _troubled(found, strips)
    height, step = TOP + ROW * len(lanes) + LOAD + 20, WIDTH / PARTS
    head = (
        f"{len(found.jobs)} jobs, {found.fires} fires from {_local(found.start, zone):%Y-%m-%d %H:%M %Z} "
        f"to {_local(found.end, zone):%Y-%m-%d %H:%M %Z}, {found.warnings} warnings"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 20} {height}" role="img">',
        f"<title>{escape(head)}</title><style>{_STYLE}</style>",
        f'<rect class="ground" width="{LEFT + WIDTH + 20}" height="{height}"/><text x="10" y="18">{escape(head)}</text>',
    ]
    for place, words in _ticks(found, zone):
        x = f"{LEFT + place * WIDTH:.1f}"
        parts.append(f'<line x1="{x}" y1="{TOP - 8}" x2="{x}" y2="{height - 14}"/>')
        parts.append(f'<text class="quiet" x="{x}" y="{TOP - 12}">{escape(words)}</text>')
    for number, job in enumerate(lanes):
        y = TOP + ROW * number
        parts.append(f'<text x="{LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(_short(job, True))}</text>')
        most = max(strips[job], default=0)
        for place, count in enumerate(strips[job]):
            if count:
                kind = "trouble" if place in troubled[job] else "fires"
                tall = 4 + 10 * count / most
                parts.append(
                    f'<rect class="{kind}" x="{LEFT + place * step:.1f}" y="{y + 16 - tall:.1f}" width="{step - 1:.1f}" '
                    f'height="{tall:.1f}"><title>{escape(job)}: {count}</title></rect>'
                )
    parts += _drawn_load(_load(found, strips, PARTS), height, step)
    return "\n".join([*parts, "</svg>", ""])


def _drawn_load(load: Sequence[float], height: int, step: float) -> Iterator[str]:
    most = max(load, default=0.0) or 1.0
    yield f'<text x="{LEFT - 8}" y="{height - 20}" text-anchor="end">load</text>'
    for place, one in enumerate(load):
        tall = LOAD * one / most
        if tall >= 0.05:
            x = LEFT + place * step
            yield (
                f'<rect class="load" x="{x:.1f}" y="{height - 16 - tall:.1f}" width="{step - 1:.1f}" height="{tall:.1f}"/>'
            )
