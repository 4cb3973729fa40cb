"""Triggers: frozen values that answer "when next, strictly after this instant?".

Pure: no clock, no state, no I/O but the zone files. `Every` and `At` are arithmetic in UTC; only `Cron` knows zones.

How `Cron` finds its way: cronsim reads the expression and says which days match; the days of a year depend only on
its first weekday and on the leap day, so fourteen tables serve all years. On those tables `_Fields` counts and finds
matches on a clock that is never changed. `_Clock` cuts the time line of a zone into stretches of one UTC offset,
within each of which the wall clock is such a clock, and applies the rules for what a change of the clock skipped or
repeated. cronsim 2.8's own iteration is not used: it loses the first half hour of `* 2 * * *` at Lord Howe's autumn
change, and asked in the second pass of a repeated hour it answers with an instant of the first.

Start at `Cron.after`, `_Fields.first` and `_Clock.first`. All counting is in whole seconds since 1970.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, runtime_checkable

from taskloop import durations
from taskloop.errors import BadCron, BadInstant, BadTrigger, nearest

if TYPE_CHECKING:
    from cronsim import CronSim

__all__ = ["At", "Cron", "Every", "Trigger", "as_mapping", "from_mapping", "parse"]


@runtime_checkable
class Trigger(Protocol):
    """When something is due. Every instant taken is aware, every instant given is in UTC."""

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


@dataclass(frozen=True, slots=True, init=False)
class Every:
    """Due again and again after `interval` of elapsed time, whatever wall clocks do.

    With an `anchor` (an aware datetime or ISO 8601 with offset) it is due on the grid of anchor plus or minus whole
    intervals; without one each instant is counted from the one asked about. `interval` None stands for the interval
    given to `start()`. Errors: `BadDuration` (zero too), `BadInstant`.
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
    """Due once, at `instant`: an aware datetime, or ISO 8601 with an offset. Errors: `BadInstant`."""

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
        return int(_utc(after) < self.instant <= _utc(until))

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
    single blanks, an alias such as `@daily` as its five fields. Errors: `BadCron`, and `BadTrigger` for the options.
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
        object.__setattr__(self, "expression", _normal(expression))
        object.__setattr__(self, "timezone", timezone)
        object.__setattr__(self, "gap", _word(expression, "gap", gap, ("after", "skip")))
        object.__setattr__(self, "fold", _word(expression, "fold", fold, ("once", "both")))
        _fields(self.expression)
        if timezone is not None:
            if not isinstance(timezone, str):
                raise BadTrigger(timezone, "timezone is no text; write its name, such as 'Europe/London'")
            _zone(timezone)

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
        return _moment(self._clock().first(_second(instant) + 1))

    def latest(self, instant: datetime) -> datetime | None:
        return _moment(self._clock().last(_second(instant)))

    def count(self, after: datetime, until: datetime) -> int:
        return self._clock().count(_second(after) + 1, _second(until) + 1)

    def describe(self) -> str:
        from cronsim.explain import explain

        text = explain(self.expression)
        # cronsim writes 21th.
        text = re.sub(r"(?<=\b[23])[123]th\b", lambda match: _ORDINALS[match[0]], text)
        text = text[0].lower() + text[1:] + (f", {self.timezone}" if self.timezone else "")
        text += "; what a clock change skips is left out" if self.gap == "skip" else ""
        return text + ("; what a clock change repeats runs twice" if self.fold == "both" else "")

    def __str__(self) -> str:
        options = f" timezone={self.timezone}" if self.timezone else ""
        options += f" gap={self.gap}" if self.gap != "after" else ""
        return f"cron {self.expression}{options}" + (f" fold={self.fold}" if self.fold != "once" else "")

    def _clock(self) -> _Clock:
        return _clock(self.expression, self.timezone, self.gap, self.fold)


_ORDINALS = {"1th": "1st", "2th": "2nd", "3th": "3rd"}
_LONGEST_TEXT = 400
_KINDS = ("every", "cron", "at")
_SHAPES = "'every 5m', 'cron 0 2 * * * timezone=Europe/London' or 'at 2026-03-01T02:00:00Z'"


def parse(text: str) -> Every | Cron | At:
    """The trigger of a canonical text: `parse(str(trigger)) == trigger`. Errors: `BadTrigger` and its like."""
    if not isinstance(text, str):
        raise BadTrigger(text, f"a {type(text).__name__} is not a text; write {_SHAPES}")
    if len(text) > _LONGEST_TEXT:
        raise BadTrigger(text, f"it has more than {_LONGEST_TEXT} characters")
    return _parsed(text)


def from_mapping(mapping: Mapping[str, object]) -> Every | Cron | At:
    """The trigger of a table in config.toml or of a JSON object.

    `{"every": "5m", "anchor"?}`, `{"cron": "0 2 * * *", "timezone"?, "gap"?, "fold"?}` or `{"at": "…"}`;
    every = "start" is the interval given to `start()`. Errors: `BadTrigger` and its like, `BadDuration`, `BadInstant`.
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


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86_400
_WEEK = 7 * _DAY


def _utc(instant: datetime) -> datetime:
    """The instant in UTC; one that lies outside the years 1 to 9999 there becomes their first or last."""
    if instant.tzinfo is UTC:
        return instant
    try:
        return durations.absolute(instant)
    except BadInstant:
        if instant.utcoffset() is None:
            raise
        return (datetime.min if instant.year == 1 else datetime.max).replace(tzinfo=UTC)


def _second(instant: datetime) -> int:
    passed = _utc(instant) - _EPOCH
    return passed.days * _DAY + passed.seconds


def _moment(second: int | None) -> datetime | None:
    return None if second is None or not _LOWEST <= second <= _HIGHEST else _EPOCH + timedelta(seconds=second)


_LOWEST = _second(datetime(1, 1, 1, tzinfo=UTC))
_HIGHEST = _second(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))

# What cron may say, and what is said to those who wrote something else.


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        return f"{self.low}-{self.high}" + (f" or {self.names[0]}-{self.names[-1]}" if self.names else "")

    def value(self, text: str) -> int | None:
        """The number of a value, None where it is none. Four digits are more than any field has."""
        if text in self.names:
            return self.names.index(text) + self.low
        number = int(text) if text.isdecimal() and len(text) <= 4 else -1
        return number if self.low <= number <= self.high else None


_FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day-of-month", 1, 31),
    _Field("month", 1, 12, ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")),
    _Field("day-of-week", 0, 7, ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")),
)
_LAYOUT = "minute hour day-of-month month day-of-week, or six fields with the second first"
_ALIASES = {
    "@HOURLY": "0 * * * *",
    "@DAILY": "0 0 * * *",
    "@MIDNIGHT": "0 0 * * *",
    "@WEEKLY": "0 0 * * 0",
    "@MONTHLY": "0 0 1 * *",
    "@YEARLY": "0 0 1 1 *",
    "@ANNUALLY": "0 0 1 1 *",
}
_LONGEST_EXPRESSION = 200
_PIECE = re.compile(r"(?:\*|(?P<first>[0-9A-Z]+)(?:-(?P<last>[0-9A-Z]+))?)(?:/(?P<step>[0-9]{1,4}))?")
_NTH = re.compile(r"(?:(?P<last>[0-9]+)L|(?P<day>[0-9A-Z]+)#[1-5])")


def _normal(expression: str) -> str:
    """The expression in capitals and single blanks, checked field by field before anything is expanded."""
    if not isinstance(expression, str):
        raise BadTrigger(expression, f"a {type(expression).__name__} is not a text; write Cron('0 2 * * *')")
    if len(expression) > _LONGEST_EXPRESSION:
        raise BadCron(expression, field=None, got=expression, allowed=f"at most {_LONGEST_EXPRESSION} characters")
    # Tabs pass: crontabs are full of them.
    if not all(" " <= sign <= "~" or sign == "\t" for sign in expression):
        raise BadCron(expression, field=None, got=ascii(expression), allowed="plain ASCII on one line")
    fields = _aliased(expression, expression.upper().split())
    if len(fields) not in (5, 6):
        mend = "there is no field for the year" if len(fields) == 7 else ""
        raise BadCron(expression, field=None, got=f"{len(fields)} fields", allowed=_LAYOUT, mend=mend)
    return " ".join(
        ",".join(_checked(expression, field, piece, text) for piece in text.split(","))
        for field, text in zip(_FIELDS[-len(fields) :], fields, strict=True)
    )


def _aliased(expression: str, fields: list[str]) -> list[str]:
    if not fields or not fields[0].startswith("@"):
        return fields
    if len(fields) == 1 and fields[0] in _ALIASES:
        return _ALIASES[fields[0]].split()
    mend = {"@REBOOT": "for a run at each start set on_start=True on the job", "@EVERY": "use Every('5m')"}
    allowed = " ".join(_ALIASES).lower()
    raise BadCron(expression, field=None, got=fields[0].lower(), allowed=allowed, mend=mend.get(fields[0], ""))


def _checked(expression: str, field: _Field, piece: str, text: str) -> str:
    if field.name == "day-of-month" and piece in ("L", "LW"):
        return piece
    allowed = field.allowed
    if field.name == "day-of-week" and (match := _NTH.fullmatch(piece)):
        if field.value(match["last"] or match["day"]) is not None:
            return piece
    elif (match := _PIECE.fullmatch(piece)) and _is_range(field, first := match["first"], last := match["last"]):
        if match["step"] is None or int(match["step"]):
            # cronsim takes 5-5/2 for 5/2, which runs on to the end of the field; crontabs mean 5.
            return first if last and field.value(first) == field.value(last) else piece
        allowed = "a step of 1 or more"
    raise BadCron(expression, field=field.name, got=piece or text, allowed=allowed, mend=_mend(field, piece))


def _is_range(field: _Field, first: str | None, last: str | None) -> bool:
    if first is None:
        return True
    low, high = field.value(first), field.value(last or first)
    return low is not None and high is not None and low <= high


def _mend(field: _Field, piece: str) -> str:
    """What to write instead, for the mistakes that people make; empty for others."""
    weekday = field.name == "day-of-week"
    if piece == "?":
        return "write *"
    if field.name == "hour" and piece == "24":
        return "for midnight write 0"
    if piece == "0":
        return f"{field.name} counts from 1"
    if piece.isdecimal() and field.high == 59 and len(piece) < 5:
        return f"for every {piece} {field.name}s use Every('{piece}{field.name[0]}')"
    if field.name == "day-of-month" and piece.endswith("W"):
        return "the nearest weekday cannot be asked for; LW is the last weekday of the month"
    if weekday and piece.endswith("L"):
        return "for the last Friday of the month write 5L"
    if piece[:3] in field.names:
        return f"write {piece[:3]}" if piece.isalpha() else _unwrapped(field, piece)
    return _unwrapped(field, piece)


def _unwrapped(field: _Field, piece: str) -> str:
    match = re.fullmatch(r"([0-9A-Z]+)-([0-9A-Z]+)", piece)
    first, last = (field.value(match[1]), field.value(match[2])) if match else (None, None)
    if first is None or last is None:
        return ""
    ends = ((first, 6 if field.name == "day-of-week" else field.high), (field.low, last))
    return "a range does not wrap, write " + ",".join(f"{a}-{b}" if a != b else f"{a}" for a, b in ends)


@lru_cache(maxsize=1024)
def _fields(expression: str) -> _Fields:
    # Here, not above: cronsim costs as much to import as the rest of this file.
    from cronsim import CronSim, CronSimError

    parts = expression.split()
    try:
        fields = _Fields(
            CronSim(expression, _EPOCH), follows_clock=len(parts) == 6 or "*" in (parts[0][0], parts[1][0])
        )
    except CronSimError:
        allowed = f"days that month {parts[-2]} has"
        raise BadCron(expression, field="day-of-month", got=parts[-3], allowed=allowed, mend=_NEVER) from None
    # These 28 years have all fourteen calendars there are.
    if not any(fields.days_of(year) for year in range(2000, 2028)):
        allowed = f"weekdays that meet day-of-month {parts[-3]}"
        raise BadCron(expression, field="day-of-week", got=parts[-1], allowed=allowed, mend=_NEVER)
    return fields


_NEVER = "as it is it can never fire"
_NONE = timedelta(0)
_EPOCH_DAY = _EPOCH.toordinal()
_LAST_DAY = date.max.toordinal()


class _Fields:
    """Which seconds match an expression on a clock that is never changed: first, last, how many between."""

    __slots__ = ("_calendars", "_hours", "_minutes", "_seconds", "_sim", "follows_clock")

    def __init__(self, sim: CronSim, *, follows_clock: bool) -> None:
        self._sim = sim
        self._hours, self._minutes, self._seconds = sorted(sim.hours), sorted(sim.minutes), sorted(sim.seconds)
        self._calendars: dict[tuple[int, bool], list[int]] = {}
        self.follows_clock = follows_clock

    def first(self, second: int) -> int | None:
        """The first match at or after `second`."""
        day, time = divmod(second, _DAY)
        found = self._first_day(day)
        if found == day:
            rank = self._rank(time)
            if rank < self._per_day:
                return day * _DAY + self._time(rank)
            found = self._first_day(day + 1)
        return None if found is None else found * _DAY + self._time(0)

    def last(self, second: int) -> int | None:
        """The last match at or before `second`."""
        day, time = divmod(second, _DAY)
        found = self._last_day(day)
        if found == day:
            rank = self._rank(time + 1)
            if rank:
                return day * _DAY + self._time(rank - 1)
            found = self._last_day(day - 1)
        return None if found is None else found * _DAY + self._time(self._per_day - 1)

    def between(self, low: int, high: int) -> int:
        """How many matches there are from `low` up to, not including, `high`."""
        if high <= low:
            return 0
        (first, head), (last, tail) = divmod(low, _DAY), divmod(high, _DAY)
        count = self._days_between(first, last) * self._per_day
        count -= self._rank(head) * self._days_between(first, first + 1)
        return count + self._rank(tail) * self._days_between(last, last + 1)

    def days_of(self, year: int) -> list[int]:
        """The days of `year` that match, counted from 0."""
        new_year = date(year, 1, 1)
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        calendar = (new_year.weekday(), leap)
        days = self._calendars.get(calendar)
        if days is None:
            all_days = [new_year + timedelta(n) for n in range(365 + leap)]
            days = [n for n, day in enumerate(all_days) if day.month in self._sim.months and self._sim.match_day(day)]
            self._calendars[calendar] = days
        return days

    @property
    def _per_day(self) -> int:
        return len(self._hours) * len(self._minutes) * len(self._seconds)

    def _rank(self, time: int) -> int:
        """How many of a day's matches come before the second `time` of it."""
        hour, rest = divmod(time, 3600)
        rank = bisect_left(self._hours, hour)
        count = rank * len(self._minutes) * len(self._seconds)
        if rank == len(self._hours) or self._hours[rank] != hour:
            return count
        minute, second = divmod(rest, 60)
        rank = bisect_left(self._minutes, minute)
        count += rank * len(self._seconds)
        if rank == len(self._minutes) or self._minutes[rank] != minute:
            return count
        return count + bisect_left(self._seconds, second)

    def _time(self, rank: int) -> int:
        """The second of the day of its match number `rank`: `_rank` turned round."""
        rest, second = divmod(rank, len(self._seconds))
        hour, minute = divmod(rest, len(self._minutes))
        return self._hours[hour] * 3600 + self._minutes[minute] * 60 + self._seconds[second]

    def _first_day(self, day: int) -> int | None:
        ordinal = max(day + _EPOCH_DAY, 1)
        if ordinal > _LAST_DAY:
            return None
        for year in range(date.fromordinal(ordinal).year, 10_000):
            new_year, days = date(year, 1, 1).toordinal(), self.days_of(year)
            at = bisect_left(days, ordinal - new_year)
            if at < len(days):
                return new_year + days[at] - _EPOCH_DAY
        return None

    def _last_day(self, day: int) -> int | None:
        ordinal = min(day + _EPOCH_DAY, _LAST_DAY)
        if ordinal < 1:
            return None
        for year in range(date.fromordinal(ordinal).year, 0, -1):
            new_year, days = date(year, 1, 1).toordinal(), self.days_of(year)
            at = bisect_left(days, ordinal - new_year + 1)
            if at:
                return new_year + days[at - 1] - _EPOCH_DAY
        return None

    def _days_between(self, first: int, end: int) -> int:
        low, high = max(first + _EPOCH_DAY, 1), min(end + _EPOCH_DAY, _LAST_DAY + 1)
        if high <= low:
            return 0
        count = 0
        for year in range(date.fromordinal(low).year, date.fromordinal(high - 1).year + 1):
            new_year, days = date(year, 1, 1).toordinal(), self.days_of(year)
            count += bisect_left(days, high - new_year) - bisect_left(days, low - new_year)
        return count


# The calendar and the last rule of each zone repeat every 400 years, and no zone has other rules after this century.
_CYCLE = 146_097 * _DAY
_SETTLED = _second(datetime(2100, 1, 1, tzinfo=UTC))
# Before this no zone had any rule, so there is nothing to look for.
_UNRULED = _second(datetime(1800, 1, 1, tzinfo=UTC))
# No zone was ever changed there and back within this; the nearest was Freetown in 1939, after 4 days less 20 minutes.
_GLANCE = 3 * _DAY
# The last rules are a summer of months.
_LATER_GLANCE = 14 * _DAY


class _Stretch(NamedTuple):
    """A span of the time line, `start` up to, not including, `end`, in which a zone's clock is not changed.

    The clock shows the second plus `offset`. What the change at its start skipped is shown times from `skipped` up to
    the time shown at the start; what it repeats are shown times from there up to `shown`.
    """

    start: int
    end: int
    offset: int
    skipped: int
    shown: int


class _Clock:
    """When a zone's wall clock shows a match, by the rules for what a change of the clock skips or repeats."""

    __slots__ = ("_fields", "_once", "_runs_skipped", "_zone")

    def __init__(self, fields: _Fields, zone: str | None, *, runs_skipped: bool, once: bool) -> None:
        self._fields = fields
        self._zone = zone
        self._runs_skipped = runs_skipped
        self._once = once

    def first(self, second: int) -> int | None:
        """The first fire at or after `second`."""
        if self._zone is None:
            return self._fields.first(second)
        # What does not happen in a whole cycle never will.
        final = (max(second, _SETTLED) + _CYCLE) // _WEEK
        week = second // _WEEK
        while week <= final:
            for stretch in _week(self._zone, week):
                if stretch.end > second and (found := self._first_in(stretch, second)) is not None:
                    return found
            # A shown time is less than a day from UTC, and so is what a gap skipped from its end.
            match = self._fields.first((week + 1) * _WEEK - 2 * _DAY)
            if match is None:
                return None
            week = max(week + 1, (match - 2 * _DAY) // _WEEK)
        return None

    def last(self, second: int) -> int | None:
        """The last fire at or before `second`."""
        if self._zone is None:
            return self._fields.last(second)
        week = second // _WEEK
        while True:
            for stretch in reversed(_week(self._zone, week)):
                if stretch.start <= second and (found := self._last_in(stretch, second)) is not None:
                    return found
            match = self._fields.last(week * _WEEK + 2 * _DAY)
            if match is None:
                return None
            week = min(week - 1, (match + 2 * _DAY) // _WEEK)
            if _SETTLED < week * _WEEK < second - _CYCLE:
                week = _SETTLED // _WEEK

    def count(self, low: int, high: int) -> int:
        """How many fires there are from `low` up to, not including, `high`."""
        if self._zone is None:
            return self._fields.between(low, high)
        start = max(low, _SETTLED)
        # The last days of year 9999 are cut short in zones ahead of UTC and belong to no cycle.
        cycles = max(0, (min(high, _HIGHEST - 2 * _DAY) - start) // _CYCLE)
        if not cycles:
            return self._walked(low, high)
        cycle = self._walked(_SETTLED, _SETTLED + _CYCLE)
        return self._walked(low, start) + cycles * cycle + self._walked(start + cycles * _CYCLE, high)

    def _walked(self, low: int, high: int) -> int:
        if high <= low or self._zone is None:
            return 0
        return sum(self._count_in(stretch, low, high) for stretch in _stretches(_zone(self._zone), low, high))

    def _first_in(self, stretch: _Stretch, second: int) -> int | None:
        if second <= stretch.start and self._skipped_at(stretch):
            return stretch.start
        match = self._fields.first(max(second + stretch.offset, self._opening(stretch)))
        return match - stretch.offset if match is not None and match < stretch.end + stretch.offset else None

    def _last_in(self, stretch: _Stretch, second: int) -> int | None:
        match = self._fields.last(min(second, stretch.end - 1) + stretch.offset)
        if match is not None and match >= self._opening(stretch):
            return match - stretch.offset
        return stretch.start if self._skipped_at(stretch) else None

    def _count_in(self, stretch: _Stretch, low: int, high: int) -> int:
        opening = self._opening(stretch)
        count = self._fields.between(max(low + stretch.offset, opening), min(high, stretch.end) + stretch.offset)
        # A match right at the end of the gap and what the gap skipped are one fire.
        extra = low <= stretch.start < high and self._skipped_at(stretch) and self._fields.first(opening) != opening
        return count + extra

    def _opening(self, stretch: _Stretch) -> int:
        """The shown time from which on matches in `stretch` count."""
        return stretch.shown if self._once else stretch.start + stretch.offset

    def _skipped_at(self, stretch: _Stretch) -> bool:
        """Whether the start of `stretch` is due for what the gap before it skipped."""
        opening = stretch.start + stretch.offset
        return self._runs_skipped and self._fields.between(stretch.skipped, opening) > 0


@lru_cache(maxsize=4096)
def _clock(expression: str, timezone: str | None, gap: str, fold: str) -> _Clock:
    fields = _fields(expression)
    zone = None if timezone in (None, "UTC") else timezone
    fixed = not fields.follows_clock
    return _Clock(fields, zone, runs_skipped=fixed and gap == "after", once=fixed and fold == "once")


@lru_cache(maxsize=4096)
def _week(zone: str, week: int) -> tuple[_Stretch, ...]:
    return tuple(_stretches(_zone(zone), week * _WEEK, (week + 1) * _WEEK))


def _stretches(zone: tzinfo, low: int, high: int) -> Iterator[_Stretch]:
    """The stretches that cover `low` to `high`; the first begins two days earlier, to know of a fold still open."""
    start = low - 2 * _DAY
    offset = _offset(zone, start)
    skipped = shown = start + offset
    at = max(start, min(_UNRULED, high))
    while at < high:
        end = min(at + (_GLANCE if at < _SETTLED else _LATER_GLANCE), high)
        for change, new in _changes(zone, at, offset, end, _offset(zone, end)):
            yield _Stretch(start, change, offset, skipped, shown)
            before, after = change + offset, change + new
            # A gap of a day or more is a day that never was, and what it had is not made up for.
            skipped = before if before < after < before + _DAY else after
            start, offset, shown = change, new, max(before, after)
        at = end
    yield _Stretch(start, high, offset, skipped, shown)


def _changes(zone: tzinfo, low: int, before: int, high: int, after: int) -> list[tuple[int, int]]:
    """Where in `low` (not included) to `high` the offset changes, and to what, by halving."""
    if before == after:
        return []
    if high - low == 1:
        return [(high, after)]
    middle = (low + high) // 2
    between = _offset(zone, middle)
    return _changes(zone, low, before, middle, between) + _changes(zone, middle, between, high, after)


def _offset(zone: tzinfo, second: int) -> int:
    # At the ends of what datetime knows a local time may not exist.
    inside = min(max(second, _LOWEST + 2 * _DAY), _HIGHEST - 2 * _DAY)
    offset = (_EPOCH + timedelta(seconds=inside)).astimezone(zone).utcoffset() or _NONE
    return offset.days * _DAY + offset.seconds


def _zone(name: str) -> tzinfo:
    if name == "UTC":  # known even where no zone files are installed
        return UTC
    from zoneinfo import ZoneInfo, available_timezones

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; not a file name; a folder, or too long for a file
        known = available_timezones()
    if not known:
        raise BadTrigger(name, "no zone is known, this system has no zone files; run: pip install tzdata")
    near = {zone.casefold(): zone for zone in known}.get(name.casefold()) or nearest(name[:100], known)
    mend = f"did you mean '{near}'?" if near else "names are like 'Europe/London'; if it is new: pip install tzdata"
    raise BadTrigger(name, f"timezone {name[:80]!r} is not known; {mend}")
