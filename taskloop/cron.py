"""Cron: what an expression may say, and when the clocks of a zone show what it says.

Pure: no state, no I/O but the zone files. Level 2; `triggers.Cron` is its face. All counting is in whole seconds since
1970 (`second_of`, `instant_of`).

cronsim reads the expression and says which days match; the days of a year depend only on its first weekday and on the
leap day, so fourteen tables serve all years. On those tables `Fields` counts and finds matches on a clock that is
never changed. `WallClock` cuts the time line of a zone into stretches of one UTC offset, within each of which the wall
clock is such a clock, and applies the rules for what a change of the clock skipped or repeated. cronsim 2.8's own
iteration is not used: it loses the first half hour of `* 2 * * *` at Lord Howe's autumn change, and asked in the
second pass of a repeated hour it answers with an instant of the first.

Start at `normal`, `Fields.first` and `WallClock.first`.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from taskloop.clock import EPOCH
from taskloop.errors import BadCron, BadTrigger, nearest

if TYPE_CHECKING:
    from cronsim import CronSim

__all__ = [
    "Disturbed",
    "Fields",
    "WallClock",
    "clock_of",
    "fields_of",
    "instant_of",
    "normal",
    "second_of",
    "shown_at",
    "zone_of",
]

_DAY: Final = 86_400
_WEEK: Final = 7 * _DAY
LONGEST_ZONE: Final = 100
"""Characters of a zone's name: the longest there is has 32."""


def second_of(instant: datetime) -> int:
    """The whole seconds that have passed at an aware instant; a fraction is cut off."""
    passed = instant - EPOCH
    return passed.days * _DAY + passed.seconds


def instant_of(second: int | None) -> datetime | None:
    """The aware UTC instant of that second; None where there is none, or a datetime cannot say it."""
    return None if second is None or not _LOWEST <= second <= _HIGHEST else EPOCH + timedelta(seconds=second)


_LOWEST: Final = second_of(datetime(1, 1, 1, tzinfo=UTC))
_HIGHEST: Final = second_of(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))

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


def normal(expression: str) -> str:
    """The expression in capitals and single blanks, checked field by field before anything is expanded."""
    if not isinstance(expression, str):
        raise BadTrigger(expression, f"a {type(expression).__name__} is not a text; write Cron('0 2 * * *')")
    return _normal(expression)


@lru_cache(1024)
def _normal(expression: str) -> str:
    """Once for each text: a job's is read as it is declared and as it is bound to a zone, and many jobs have the same."""
    if len(expression) > _LONGEST_EXPRESSION:
        raise BadCron(expression, field=None, got=expression, allowed=f"at most {_LONGEST_EXPRESSION} characters")
    # Tabs pass: crontabs are full of them.
    if not all(" " <= sign <= "~" or sign == "\t" for sign in expression):
        raise BadCron(expression, field=None, got=ascii(expression), allowed="plain ASCII on one line")
    fields = _aliased(expression, expression.upper().split())
    if len(fields) not in (5, 6):
        count = len(fields)
        mend = "there is no field for the year" if count == 7 else ""
        if count == 1 and fields[0][0].isdecimal():  # 5m
            mend = "a length of time is given to every, not to cron"
        raise BadCron(
            expression, field=None, got=f"{count} field{'' if count == 1 else 's'}", allowed=_LAYOUT, mend=mend
        )
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
    if "TZ=" in piece or re.match(r"[A-Z]{4,}/[A-Z]", piece):
        return "the zone is an option of its own, timezone = 'Europe/London'"
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
    match = re.fullmatch(r"([0-9A-Z]+)-([0-9A-Z]+)(?:/([0-9]{1,4}))?", piece)
    first, last = (field.value(match[1]), field.value(match[2])) if match else (None, None)
    if match is None or first is None or last is None or first <= last:
        return ""
    if match[3]:
        return "a range does not wrap, write each of its values"
    if field.name == "day-of-week" and first == 7:
        return f"where a range begins Sunday is 0, write {f'0-{last}' if last else '0'}"
    ends = ((first, 6 if field.name == "day-of-week" else field.high), (field.low, last))
    return "a range does not wrap, write " + ",".join(f"{a}-{b}" if a != b else f"{a}" for a, b in ends)


@lru_cache(maxsize=1024)
def fields_of(expression: str) -> Fields:
    """The tables of an expression that `normal` gave. Raises `BadCron` for one that can never fire."""
    # Here, not above: cronsim costs as much to import as the rest of this file.
    from cronsim import CronSim, CronSimError

    parts = expression.split()
    follows = len(parts) == 6 or "*" in (parts[0][0], parts[1][0])
    try:
        fields = Fields(CronSim(expression, EPOCH), follows_clock=follows, days=" ".join(parts[-3:]))
    except CronSimError:
        allowed = f"days that month {parts[-2]} has"
        raise BadCron(
            expression,
            field="day-of-month",
            got=parts[-3],
            allowed=allowed,
            mend=f"{_NEVER}; for the last day of a month write L",
        ) from None
    if not any(fields.days_of(year) for year in _ALL_CALENDARS):
        allowed = f"weekdays that meet day-of-month {parts[-3]}"
        raise BadCron(
            expression, field="day-of-week", got=parts[-1], allowed=allowed, mend=f"{_NEVER}; choose days that can meet"
        )
    return fields


_NEVER = "as it is it can never fire"
_ALL_CALENDARS: Final = range(2000, 2028)
"""These 28 years have all fourteen calendars there are."""
_NONE = timedelta(0)
_EPOCH_DAY = EPOCH.toordinal()
_LAST_DAY = date.max.toordinal()


@lru_cache(maxsize=1024)
def _calendars_of(_: str) -> dict[tuple[int, bool], list[int]]:
    """The days that were found for these three fields, by the calendar of a year: the same at all times of day, and to find
    them takes several times as long as all else of an expression.
    """
    return {}


class Fields:
    """Which seconds match an expression on a clock that is never changed: first, last, how many between."""

    __slots__ = ("_calendars", "_every_day", "_hours", "_minutes", "_seconds", "_sim", "follows_clock")

    def __init__(self, sim: CronSim, *, follows_clock: bool, days: str) -> None:
        """`days`: the last three fields of the expression, which alone say on which days it matches."""
        self._sim, self._every_day = sim, days == "* * *"
        self._hours, self._minutes, self._seconds = sorted(sim.hours), sorted(sim.minutes), sorted(sim.seconds)
        self._calendars = _calendars_of(days)
        self.follows_clock: bool = follows_clock

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

    def spans(self, low: int, high: int) -> Iterator[Sequence[int]]:
        """Every match from `low` up to, not including, `high`, in order, a day or a whole even grid at a time."""
        step = self._even_step(low, high)
        if step:
            first = self.first(low)
            if first is not None and first < high:
                yield range(first, high, step)
            return
        times = [self._time(rank) for rank in range(self._per_day)]
        day = self._first_day(low // _DAY)
        while day is not None and (start := day * _DAY) < high:
            inside = times
            if start < low or start + _DAY > high:
                inside = times[bisect_left(times, low - start) : bisect_left(times, high - start)]
            if inside:
                yield [start + time for time in inside]
            day = self._first_day(day + 1)

    def _even_step(self, low: int, high: int) -> int:
        """The seconds between any match and the next from `low` to `high`, where these are always the same; else 0."""
        first, end = low // _DAY, high // _DAY + 1
        if _DAY % self._per_day or self._days_between(first, end) < end - first:
            return 0
        step, time = _DAY // self._per_day, self._time(0)
        even = all(self._time(rank) == time + rank * step for rank in range(self._per_day))
        return step if even else 0

    def days_of(self, year: int) -> list[int]:
        """The days of `year` that match, counted from 0."""
        new_year = date(year, 1, 1)
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        calendar = (new_year.weekday(), leap)
        days = self._calendars.get(calendar)
        if days is None:
            all_days = [new_year + timedelta(n) for n in range(365 + leap)]
            sim = self._sim
            days = [
                n
                for n, day in enumerate(all_days)
                if self._every_day or (day.month in sim.months and sim.match_day(day))
            ]
            self._calendars[calendar] = days
        return days

    @property
    def is_every_day(self) -> bool:
        """Whether no day is left out, as where the days of the month are 1-31, beside which weekdays only add to them."""
        return all(len(self.days_of(year)) == (date(year + 1, 1, 1) - date(year, 1, 1)).days for year in _ALL_CALENDARS)

    def misfits(self, shown: int) -> list[tuple[str, str]]:
        """Which fields do not match a time that a clock shows, each with what it shows there; a day counts as one."""
        day, time = divmod(shown, _DAY)
        at = date.fromordinal(day + _EPOCH_DAY)
        parts = (("second", time % 60, self._seconds), ("minute", time // 60 % 60, self._minutes))
        found = [
            (name, str(value))
            for name, value, wanted in (*parts, ("hour", time // 3600, self._hours))
            if value not in wanted
        ]
        if at.month not in self._sim.months:
            found.append(("month", f"{at:%B}"))
        elif not self._sim.match_day(at):
            found.append(("day", f"{at:%A} {at.day}"))
        return found

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
_SETTLED = second_of(datetime(2100, 1, 1, tzinfo=UTC))
# Before this no zone had any rule, so there is nothing to look for.
_UNRULED = second_of(datetime(1800, 1, 1, tzinfo=UTC))
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


Fate = Literal["after", "left out", "once", "twice", "fewer", "more"]


class Disturbed(NamedTuple):
    """A change of a zone's clock that touches an expression."""

    at: int
    """The second of the change."""
    gap: bool
    """The clock skipped something; False: it repeats something."""
    shown: int
    """The first match that it skips or repeats, as the clock would show it."""
    number: int
    """How many matches there are."""
    fate: Fate
    """They run after the gap, or not; once or twice; or the clock is followed and there are so many fewer or more."""


class WallClock:
    """When a zone's wall clock shows a match, by the rules for what a change of the clock skips or repeats."""

    __slots__ = ("_fields", "_once", "_runs_skipped", "_zone")

    def __init__(self, fields: Fields, zone: str | None, *, runs_skipped: bool, once: bool) -> None:
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

    def spans(self, low: int, high: int) -> Iterator[Sequence[int]]:
        """Every fire from `low` up to, not including, `high`, in order, many at a time."""
        if self._zone is None:
            yield from self._fields.spans(low, high)
            return
        for stretch in _stretches(zone_of(self._zone), low, high):
            opening, offset = self._opening(stretch), stretch.offset
            if self._made_up_for(stretch, opening, low, high):
                yield [stretch.start]
            for shown in self._fields.spans(max(low + offset, opening), min(high, stretch.end) + offset):
                if isinstance(shown, range):
                    yield range(shown.start - offset, shown.stop - offset, shown.step)
                else:
                    yield [second - offset for second in shown]

    def disturbed(self, low: int, high: int) -> Iterator[Disturbed]:
        """The changes of the clock from `low` to `high` that skip or repeat a match, and what becomes of it."""
        if self._zone is None or high <= low:
            return
        offset = None
        for stretch in _stretches(zone_of(self._zone), low, high):
            before, offset = offset, stretch.offset
            if before is None or before == offset or not low <= stretch.start < high:
                continue
            opening, past = stretch.start + offset, stretch.start + before
            gap = past < opening
            first, last = (past, opening) if gap else (opening, past)
            number = self._fields.between(first, last)
            if not number:
                continue
            shown = self._fields.first(first)
            assert shown is not None
            if self._fields.follows_clock:
                fate: Fate = "fewer" if gap else "more"
            elif gap:
                fate = "after" if self._runs_skipped and stretch.skipped < opening else "left out"
            else:
                fate = "once" if self._once else "twice"
            yield Disturbed(stretch.start, gap, shown, number, fate)

    def _walked(self, low: int, high: int) -> int:
        if high <= low or self._zone is None:
            return 0
        return sum(self._count_in(stretch, low, high) for stretch in _stretches(zone_of(self._zone), low, high))

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
        return count + self._made_up_for(stretch, opening, low, high)

    def _made_up_for(self, stretch: _Stretch, opening: int, low: int, high: int) -> bool:
        """Whether the start of `stretch` is a fire of its own, for what the gap before it skipped."""
        # A match right at the end of the gap and what the gap skipped are one fire.
        return low <= stretch.start < high and self._skipped_at(stretch) and self._fields.first(opening) != opening

    def _opening(self, stretch: _Stretch) -> int:
        """The shown time from which on matches in `stretch` count."""
        return stretch.shown if self._once else stretch.start + stretch.offset

    def _skipped_at(self, stretch: _Stretch) -> bool:
        """Whether the start of `stretch` is due for what the gap before it skipped."""
        opening = stretch.start + stretch.offset
        return self._runs_skipped and self._fields.between(stretch.skipped, opening) > 0


@lru_cache(maxsize=4096)
def clock_of(expression: str, timezone: str | None, gap: str, fold: str) -> WallClock:
    """The clock of a `Cron` of these four; `timezone` None: UTC."""
    fields = fields_of(expression)
    zone = None if timezone in (None, "UTC") else timezone
    fixed = not fields.follows_clock
    return WallClock(fields, zone, runs_skipped=fixed and gap == "after", once=fixed and fold == "once")


@lru_cache(maxsize=4096)
def _week(zone: str, week: int) -> tuple[_Stretch, ...]:
    return tuple(_stretches(zone_of(zone), week * _WEEK, (week + 1) * _WEEK))


def shown_at(timezone: str | None, second: int) -> int:
    """The time that a zone's clock shows at a second of UTC, as seconds since its 1970; within the years 1 to 9999."""
    return min(max(second + _offset(zone_of(timezone or "UTC"), second), _LOWEST), _HIGHEST)


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
    offset = (EPOCH + timedelta(seconds=inside)).astimezone(zone).utcoffset() or _NONE
    return offset.days * _DAY + offset.seconds


def zone_of(name: str) -> tzinfo:
    """The zone of that name. Raises `BadTrigger` with the name most like it."""
    if name == "UTC":  # known even where no zone files are installed
        return UTC
    from zoneinfo import TZPATH, ZoneInfo

    if len(name) <= LONGEST_ZONE:  # one of many parts is looked for part by part, deeper than calls may go
        with suppress(KeyError, ValueError, OSError):  # unknown; not a file name; a folder
            return ZoneInfo(name)
    known = _zones(TZPATH)
    if not known:
        raise BadTrigger(name, "no zone is known, this system has no zone files; run: pip install tzdata")
    near = {zone.casefold(): zone for zone in known}.get(name.casefold()) or nearest(name[:100], known)
    mend = f"did you mean '{near}'?" if near else "names are like 'Europe/London'; if it is new: pip install tzdata"
    raise BadTrigger(name, f"timezone {name[:80]!r} is not known; {mend}")


@cache
def _zones(_: tuple[str, ...]) -> frozenset[str]:
    """All zones: to look for them takes too long to do it for each wrong name that is sent.

    Its argument is where they are: other folders, other zones.
    """
    from zoneinfo import available_timezones

    return frozenset(available_timezones())
