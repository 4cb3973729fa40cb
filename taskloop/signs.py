"""States and conditions as people see them, on a terminal and on a page: a sign, a colour; and spans in short.

Level 3, pure. The word always stands beside the sign: neither colour nor shape alone says anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, tzinfo
from typing import Any, Final

__all__ = ["SIGNS", "TINTS", "clock_text", "item_text", "readable", "span_text"]

_INSTANT: Final = re.compile(r"(?<![\w:.'-])\d{4}-\d\d-\d\dT\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?Z(?!\w)")
"""As a word of its own: one within the name of a schedule is part of that name."""
_SAID_BY_OTHERS: Final = ("failing", "tripped", "store")
"""What needs a person in the words of an error."""

SIGNS: Final = {
    "succeeded": ("✓", "ok"),
    "ok": ("✓", "ok"),
    "failed": ("✗", "x"),
    "failing": ("✗", "x"),
    "running": ("▶", ">"),
    "waiting": ("◌", "."),
    "cancelled": ("■", "#"),
    "interrupted": ("⚡", "!"),
    "skipped": ("◯", "-"),
    "disabled": ("◯", "-"),
    "paused": ("‖", "="),
    "overdue": ("⚠", "!"),
    "stuck": ("⚠", "!"),
    "never_ran": ("·", "."),
    "orphan": ("?", "?"),
    "warning": ("⚠", "!"),
    "retrying": ("↻", "~"),
    "store": ("✗", "x"),
    "stalled": ("✗", "x"),
    "loop_blocked": ("⚠", "!"),
    "silent": ("⚠", "!"),
    "clock": ("⚠", "!"),
    "tripped": ("‖", "="),
}
TINTS: Final = {
    "succeeded": "green",
    "ok": "green",
    "failed": "red",
    "failing": "red",
    "interrupted": "red",
    "running": "blue",
    "skipped": "dim",
    "disabled": "dim",
    "never_ran": "dim",
    "waiting": "dim",
    "paused": "yellow",
    "overdue": "yellow",
    "stuck": "yellow",
    "cancelled": "yellow",
    "warning": "yellow",
    "retrying": "yellow",
    "store": "red",
    "stalled": "red",
    "loop_blocked": "yellow",
    "silent": "yellow",
    "clock": "yellow",
    "tripped": "yellow",
}


def span_text(seconds: float) -> str:
    """A span in two units at most: `250 ms`, `4.2 s`, `3m 40s`, `2d 4h`."""
    if seconds < 1:
        return f"{round(seconds * 1000)} ms"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{round(seconds)} s"
    rest = round(seconds)
    names = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    place = next(place for place, (_, length) in enumerate(names) if rest >= length)
    (name, length), (lesser, step) = names[place : place + 2]
    return f"{rest // length}{name} {rest % length // step}{lesser}"


def clock_text(at: datetime, now: datetime, zone: tzinfo | None = None) -> str:
    """An instant on the clock of a zone, which it names, as short as the day allows. None: the zone of this machine."""
    try:
        here = at.astimezone(zone)
    except OverflowError:  # there it is no year from 1 to 9999
        here = at
    today = now.astimezone(zone)
    name = here.strftime("%Z")
    if here.date() == today.date():
        return f"{here:%H:%M:%S} {name}"
    if abs((at - now).days) < 300:
        return f"{here:%a %d %b %H:%M:%S} {name}"
    return f"{here:%Y-%m-%d %H:%M} {name}"


def readable(text: str, now: datetime, zone: tzinfo | None = None, said: Iterable[str] = ()) -> str:
    """A sentence with its instants on the clock of a zone. `said`: what stands in it as others said it, and so stays."""

    def there(match: re.Match[str]) -> str:
        if match[0] in kept:
            return match[0]
        try:
            return clock_text(datetime.fromisoformat(match[0]), now, zone)
        except ValueError:  # it only looks like one
            return match[0]

    kept = {one for one in said if _INSTANT.search(one)}
    words = [re.escape(one) for one in sorted(kept, key=len, reverse=True)]
    return re.sub("|".join([*words, _INSTANT.pattern]), there, text)


def item_text(item: Mapping[str, Any], now: datetime, zone: tzinfo | None = None) -> str:
    """The sentence of what needs a person, its instants on the clock of a zone; what an error said stays as it is."""
    text = str(item["text"] or "")
    return text if item["condition"] in _SAID_BY_OTHERS else readable(text, now, zone)
