"""Triggers: frozen values that answer "when next, strictly after this instant?", and the texts they are written as.

Pure: no clock, no state, no I/O but the zone files. `Every` and `At` are arithmetic in UTC; how `Cron` finds its way
through zones and clock changes is in `cron`. Start at `Trigger`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Literal, Protocol, cast, runtime_checkable

from taskloop import cron, durations
from taskloop.errors import BadInstant, BadTrigger, nearest

__all__ = ["At", "Cron", "Every", "Trigger", "Unreadable", "as_mapping", "checked", "from_mapping", "parse"]


@runtime_checkable
class Trigger(Protocol):
    """When something is due. Every instant taken is aware, every instant given is in UTC.

    `Every`, `Cron` and `At` raise `BadInstant` for what is no instant, or names no zone.
    """

    @property
    def recurring(self) -> bool:
        """Whether it can be due more than once."""

    def after(self, instant: datetime) -> datetime | None:
        """The first due instant strictly later than `instant`; None: never again."""

    def latest(self, instant: datetime) -> datetime | None:
        """The last due instant at or before `instant`; None: there is none."""

    def count(self, after: datetime, until: datetime) -> int:
        """How many instants are due later than `after` and not later than `until`. Exact, and quick for any span."""

    def describe(self) -> str:
        """What it means, in English."""

    def __str__(self) -> str:
        """The text that `parse` reads back to an equal trigger."""

    def __hash__(self) -> int:
        """Equal for equal triggers: they are values."""


@dataclass(frozen=True, slots=True, init=False)
class Every:
    """Due again and again after `interval` of elapsed time, whatever wall clocks do.

    With an `anchor` (an aware datetime or ISO 8601 with offset) it is due on the grid of anchor plus or minus whole
    intervals; without one each instant is counted from the one asked about. `interval` None stands for the interval
    given to `start()`. Raises `BadDuration` (zero too), `BadInstant`.
    """

    interval: timedelta | None
    anchor: datetime | None

    def __init__(self, interval: durations.Duration | None = None, *, anchor: datetime | str | None = None) -> None:
        object.__setattr__(self, "interval", None if interval is None else durations.parse_interval(interval))
        object.__setattr__(self, "anchor", None if anchor is None else durations.absolute(anchor))

    @property
    def recurring(self) -> bool:
        return True

    def after(self, instant: datetime) -> datetime | None:
        interval, now = self._known_interval(), _utc(instant)
        try:
            if self.anchor is None:
                return now + interval
            return self.anchor + ((now - self.anchor) // interval + 1) * interval
        except OverflowError:
            return None

    def latest(self, instant: datetime) -> datetime | None:
        interval, anchor, now = self._known_interval(), self._known_anchor(), _utc(instant)
        try:
            return anchor + (now - anchor) // interval * interval
        except OverflowError:
            return None

    def count(self, after: datetime, until: datetime) -> int:
        interval, anchor = self._known_interval(), self._known_anchor()
        return max(0, (_utc(until) - anchor) // interval - (_utc(after) - anchor) // interval)

    def describe(self) -> str:
        if self.interval is None:
            text = "at the interval given to start()"
        else:
            text = re.sub(r"^1 (?=\w+$)", "", durations.words(self.interval))
            text = f"every {text}"
        return text + (f", counted from {_readable(self.anchor)}" if self.anchor else "")

    def __str__(self) -> str:
        interval = f" {durations.format(self.interval)}" if self.interval else ""
        return f"every{interval}" + (f" anchor {durations.rfc3339(self.anchor)}" if self.anchor else "")

    def _known_interval(self) -> timedelta:
        if self.interval is None:
            raise BadTrigger("every", "the interval comes from start(); until then ask Every('2w') or the like")
        return self.interval

    def _known_anchor(self) -> datetime:
        if self.anchor is None:
            raise BadTrigger(str(self), "without an anchor it has no past; bind an anchor first: Every(…, anchor=…)")
        return self.anchor


@dataclass(frozen=True, slots=True, init=False)
class At:
    """Due once, at `instant`: an aware datetime, or ISO 8601 with an offset. Raises `BadInstant`."""

    instant: datetime

    def __init__(self, instant: datetime | str) -> None:
        object.__setattr__(self, "instant", durations.absolute(instant))

    @property
    def recurring(self) -> bool:
        return False

    def after(self, instant: datetime) -> datetime | None:
        return self.instant if self.instant > _utc(instant) else None

    def latest(self, instant: datetime) -> datetime | None:
        return self.instant if self.instant <= _utc(instant) else None

    def count(self, after: datetime, until: datetime) -> int:
        since, end = _utc(after), _utc(until)
        return int(since < self.instant <= end)

    def describe(self) -> str:
        return f"once at {_readable(self.instant)}"

    def __str__(self) -> str:
        return f"at {durations.rfc3339(self.instant)}"


@dataclass(frozen=True, slots=True, init=False)
class Cron:
    """Due when a wall clock shows what `expression` says: five fields by Debian's rules, or six with leading seconds.

    `timezone` is the name of the wall clock's zone; None: the scheduler's, UTC for a bare value. When the clocks
    change, an expression of five fields whose minute and hour do not begin with `*` runs what was skipped once right
    after the gap (`gap="skip"`: not at all) and what is repeated in the first pass only (`fold="both"`: twice). All
    others follow the clock. A local day that never was (Apia, 30 December 2011) is skipped. Kept in capitals with
    single blanks, an alias such as `@daily` as its five fields. Raises `BadCron`, and `BadTrigger` for the options.
    """

    expression: str
    timezone: str | None
    gap: Literal["after", "skip"]
    fold: Literal["once", "both"]

    def __init__(
        self,
        expression: str,
        *,
        timezone: str | None = None,
        gap: Literal["after", "skip"] = "after",
        fold: Literal["once", "both"] = "once",
    ) -> None:
        object.__setattr__(self, "expression", cron.normal(expression))
        object.__setattr__(self, "timezone", timezone)
        object.__setattr__(self, "gap", _word(expression, "gap", gap, ("after", "skip")))
        object.__setattr__(self, "fold", _word(expression, "fold", fold, ("once", "both")))
        cron.fields_of(self.expression)
        if timezone is not None:
            if not isinstance(timezone, str):
                raise BadTrigger(timezone, "timezone is no text; write its name, such as 'Europe/London'")
            cron.zone_of(timezone)

    @property
    def recurring(self) -> bool:
        return True

    def bound(self, timezone: str) -> Cron:
        """The same in `timezone`, unless it has a zone of its own."""
        if self.timezone is not None:
            return self
        return Cron(self.expression, timezone=timezone, gap=self.gap, fold=self.fold)

    def after(self, instant: datetime) -> datetime | None:
        # Fires lie on whole seconds, so whatever the fraction, the next one is at the next whole second or later.
        return cron.instant_of(self._clock().first(cron.second_of(_utc(instant)) + 1))

    def latest(self, instant: datetime) -> datetime | None:
        return cron.instant_of(self._clock().last(cron.second_of(_utc(instant))))

    def count(self, after: datetime, until: datetime) -> int:
        return self._clock().count(cron.second_of(_utc(after)) + 1, cron.second_of(_utc(until)) + 1)

    def misfits(self, instant: datetime) -> list[tuple[str, str]]:
        """Why it is not due at `instant`: the fields that do not match, each with what the clock shows there."""
        found = cron.fields_of(self.expression).misfits(cron.shown_at(self.timezone, cron.second_of(_utc(instant))))
        parts = self.expression.split()
        days = [name for name, text in (("day-of-month", parts[-3]), ("day-of-week", parts[-1])) if text != "*"]
        return [(" and ".join(days) if name == "day" else name, shown) for name, shown in found]

    def describe(self) -> str:
        text = _in_words(self.expression) + (f", {self.timezone}" if self.timezone else "")
        text += "; what a clock change skips is left out" if self.gap == "skip" else ""
        return text + ("; what a clock change repeats runs twice" if self.fold == "both" else "")

    def __str__(self) -> str:
        options = f" timezone={self.timezone}" if self.timezone else ""
        options += f" gap={self.gap}" if self.gap != "after" else ""
        return f"cron {self.expression}{options}" + (f" fold={self.fold}" if self.fold != "once" else "")

    def _clock(self) -> cron.WallClock:
        return cron.clock_of(self.expression, self.timezone, self.gap, self.fold)


_ORDINALS = {"1th": "1st", "2th": "2nd", "3th": "3rd"}


@lru_cache(1024)
def _in_words(expression: str) -> str:
    """Once for each: it takes 16 µs, of each job at a start."""
    from cronsim.explain import explain

    *times, day, month, weekday = expression.split()
    # Of two such fields the one that names all days adds them to the other's; cronsim leaves it out.
    if "*" not in (day[0], weekday[0]) and cron.fields_of(f"0 0 {day} * {weekday}").is_every_day:
        day = weekday = "*"
    # cronsim calls */90 every 90th minute; it is minute 0 alone, as 5/60 is minute 5. A day that is none beside a weekday would add to that.
    *first, hour = times
    times = [*(_unstepped(one, 60, "0") for one in first), _unstepped(hour, 24, "0")]
    day, month = _unstepped(day, 31, "1") if weekday == "*" else day, _unstepped(month, 12, "1")
    text = explain(" ".join((*times, day, month, weekday)))
    # cronsim writes 21th.
    text = re.sub(r"(?<=\b[23])[123]th\b", lambda match: _ORDINALS[match[0]], text)
    return text[0].lower() + text[1:]


def _unstepped(field: str, values: int, first: str) -> str:
    """A field of so many values whose step leaves its first one alone, as that one."""
    start, _, step = field.partition("/")
    if not step.isdigit() or not (start == "*" or start.isdigit()):
        return field
    begin = int(first) if start == "*" else int(start)
    return str(begin) if begin + int(step) >= values + int(first) else field


_LONGEST_TEXT = 400
_KINDS = ("every", "cron", "at")
_SHAPES = "'every 5m', 'cron 0 2 * * * timezone=Europe/London' or 'at 2026-03-01T02:00:00Z'"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A stored trigger that cannot be read here, as one of a zone that this system does not know: never due."""

    text: str
    problem: str

    recurring = True

    def after(self, instant: datetime) -> datetime | None:
        return None

    def latest(self, instant: datetime) -> datetime | None:
        return None

    def count(self, after: datetime, until: datetime) -> int:
        return 0

    def describe(self) -> str:
        return f"not readable here: {self.problem}"

    def __str__(self) -> str:
        return self.text


def checked(trigger: object) -> Trigger:
    """What was given as a trigger, if it is one. Raises `BadTrigger`."""
    if type(trigger) in (Every, Cron, At) or (isinstance(trigger, Trigger) and not isinstance(trigger, type)):
        return cast("Trigger", trigger)  # the first test is there because it is quick
    given = f"the class {trigger.__name__}" if isinstance(trigger, type) else f"a {type(trigger).__name__}"
    raise BadTrigger(trigger, f"{given} is no trigger; write Every('5m'), Cron('0 2 * * *') or At('2026-03-31T09:00Z')")


def parse(text: str) -> Every | Cron | At:
    """The trigger of a canonical text: `parse(str(trigger)) == trigger`. Raises `BadTrigger` and its like."""
    if not isinstance(text, str):
        raise BadTrigger(text, f"a {type(text).__name__} is not a text; write {_SHAPES}")
    if len(text) > _LONGEST_TEXT:
        raise BadTrigger(text, f"it has more than {_LONGEST_TEXT} characters")
    return _parsed(text)


def from_mapping(mapping: Mapping[str, object]) -> Every | Cron | At:
    """The trigger of a table in config.toml or of a JSON object.

    `{"every": "5m", "anchor"?}`, `{"cron": "0 2 * * *", "timezone"?, "gap"?, "fold"?}` or `{"at": "…"}`;
    every = "start" is the interval given to `start()`. Raises `BadTrigger` and its like, `BadDuration`, `BadInstant`.
    """
    if not isinstance(mapping, Mapping):
        raise BadTrigger(mapping, f"a {type(mapping).__name__} is no mapping; write {{'every': '5m'}} or the like")
    given = [kind for kind in _KINDS if kind in mapping]
    if len(given) != 1:
        has = " and ".join(given) or "none of them"
        raise BadTrigger(dict(mapping), f"it has {has}, allowed exactly one of every, cron, at")
    kind, options = given[0], dict(mapping)
    value = options.pop(kind)
    allowed = {"every": ("anchor",), "cron": ("timezone", "gap", "fold"), "at": ()}[kind]
    for key in options:
        if key not in allowed:
            near = nearest(str(key), allowed)
            mend = f"; did you mean '{near}'?" if near else ""
            raise BadTrigger(dict(mapping), f"beside '{kind}' there is no '{key}', allowed {_listed(allowed)}{mend}")
    if kind == "every" and value == "start":
        value = None
    kinds = {"every": Every, "cron": Cron, "at": At}
    return kinds[kind](value, **options)  # type: ignore[no-any-return]  # the classes check what they are given


def as_mapping(trigger: Trigger) -> dict[str, str]:
    """The table that `from_mapping` reads back to an equal trigger; for others than the three: `BadTrigger`."""
    if isinstance(trigger, At):
        return {"at": durations.rfc3339(trigger.instant)}
    if isinstance(trigger, Every):
        every = {"every": durations.format(trigger.interval) if trigger.interval else "start"}
        return every | ({"anchor": durations.rfc3339(trigger.anchor)} if trigger.anchor else {})
    if isinstance(trigger, Cron):
        options = {"timezone": trigger.timezone, "gap": trigger.gap, "fold": trigger.fold}
        usual = {"timezone": None, "gap": "after", "fold": "once"}
        return {"cron": trigger.expression} | {
            key: text for key, text in options.items() if text and text != usual[key]
        }
    raise BadTrigger(trigger, "only Every, Cron and At can be written as a mapping")


@lru_cache(maxsize=8192)
def _parsed(text: str) -> Every | Cron | At:
    kind, _, rest = text.strip().partition(" ")
    if kind == "every":
        interval, _, anchor = f" {rest}".partition(" anchor ")
        return Every(interval.strip() or None, anchor=anchor.strip() or None)
    if kind == "at":
        return At(rest)
    if kind != "cron":
        near = nearest(kind, _KINDS)
        raise BadTrigger(
            text, f"it begins with {kind!r}" + (f"; did you mean '{near}'?" if near else f"; write {_SHAPES}")
        )
    options = [word.split("=", 1) for word in rest.split() if "=" in word]
    names = {"cron", *(name for name, _ in options)}
    if len(names) <= len(options):
        raise BadTrigger(text, "an option stands there twice")
    expression = " ".join(word for word in rest.split() if "=" not in word)
    return from_mapping({"cron": expression} | dict(options))


def _word(expression: str, name: str, got: str, allowed: tuple[str, str]) -> str:
    if got not in allowed:
        raise BadTrigger(expression, f"{name} is {got!r}, allowed {_listed(allowed)}")
    return got


def _listed(allowed: tuple[str, ...]) -> str:
    return " or ".join(repr(word) for word in allowed) or "nothing"


def _readable(instant: datetime) -> str:
    whole = not (instant.second or instant.microsecond)
    return f"{instant.replace(tzinfo=None).isoformat(' ', 'minutes' if whole else 'auto')} UTC"


def _utc(instant: datetime) -> datetime:
    """The instant in UTC; one that lies outside the years 1 to 9999 there becomes their first or last."""
    try:
        if instant.tzinfo is UTC:
            return instant
        return durations.absolute(instant)
    except AttributeError:  # no datetime: not asked for above, where it would cost each fire
        return durations.absolute(instant)
    except BadInstant:
        if instant.utcoffset() is None:
            raise
        return (datetime.min if instant.year == 1 else datetime.max).replace(tzinfo=UTC)
