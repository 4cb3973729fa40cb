"""Lengths of time and points in time, read from what people write.

Pure: asks no clock, so what is meant from now on takes `now` as an argument. Knows only the error classes.
Start at `parse` and `instant`. Every instant that leaves this file is aware UTC.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from taskloop.errors import BadDuration, BadInstant, BadRate

__all__ = [
    "LONGEST",
    "Duration",
    "Instant",
    "absolute",
    "ahead",
    "format",
    "instant",
    "parse",
    "parse_interval",
    "parse_rate",
    "rfc3339",
    "since",
    "words",
]

Duration: TypeAlias = timedelta | int | float | str
Instant: TypeAlias = datetime | timedelta | str

LONGEST = timedelta(days=36_525)  # a hundred years

_LONGEST_TEXT = 100
_ZERO = timedelta(0)
_ONE = timedelta(microseconds=1)

MOST_IN_A_RATE = 1_000_000

# One table for both ways, largest first: unit, its word, its length in microseconds, other spellings.
_UNITS: tuple[tuple[str, str, int, tuple[str, ...]], ...] = (
    ("w", "week", 604_800_000_000, ()),
    ("d", "day", 86_400_000_000, ()),
    ("h", "hour", 3_600_000_000, ("hr", "hrs")),
    ("m", "minute", 60_000_000, ("min", "mins")),
    ("s", "second", 1_000_000, ("sec", "secs")),
    ("ms", "millisecond", 1_000, ("msec", "msecs")),
    ("us", "microsecond", 1, ("µs", "μs")),
)
_LENGTHS = {name: length for unit, word, length, also in _UNITS for name in (unit, word, f"{word}s", *also)}
_CALENDAR = re.compile(r"mos?|months?|y|yrs?|years?")

_NUMBER = r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)"
_PLAIN = re.compile(_NUMBER)
_PART = re.compile(rf"({_NUMBER})\s*([a-zµμ]+)\s*")
_ISO = re.compile(
    r"P(?=.)(?:(N)W)?(?:(N)D)?(?:T(?=.)(?:(N)H)?(?:(N)M)?(?:(N)S)?)?".replace("N", r"[0-9]+(?:[.,][0-9]+)?")
)
_ISO_CALENDAR = re.compile(r"P[^T]*[YM]")

# fromisoformat takes any character between date and time: only what the standard has is let through to it.
_DATED = re.compile(r"(?:[0-9]{4}-|[0-9]{8}(?:T|$))[0-9TWZ:.,+ -]*", re.IGNORECASE)


def parse(value: Duration) -> timedelta:
    """The length of time that `value` says, exact to the microsecond.

    A number, or a text that is one, is seconds. Other texts: units from weeks to microseconds, each once and the
    largest first (`2w`, `1h30m`, `1h 30min`, `5 minutes`, `1.5h`, `250ms`), or ISO 8601 (`PT1H30M`, `P2W`).
    From zero to 36,525 days; anything else, and months and years, which have no fixed length: `BadDuration`.
    """
    if type(value) is timedelta:
        length = value
    elif isinstance(value, timedelta):  # pandas has one of its own
        length = timedelta(value.days, value.seconds, value.microseconds)
    elif isinstance(value, str):
        length = _from_text(value)
    elif isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BadDuration(value, f"a {type(value).__name__} is not a length of time")
    else:
        length = _from_number(value)
    if length < _ZERO:
        raise BadDuration(value, "it is negative")
    if length > LONGEST:
        raise BadDuration(value, "it is longer than 100 years (36525 days)")
    return length


def parse_interval(value: Duration) -> timedelta:
    """Like `parse`, for what is repeated: zero is refused too."""
    length = parse(value)
    if not length:
        raise BadDuration(value, "an interval of zero would never let go")
    return length


def parse_rate(value: str) -> tuple[int, timedelta]:
    """How many in how long: `30/1m`, `5/1h`. A count from 1 to a million, and what `parse_interval` reads; else `BadRate`."""
    count, _, span = value.partition("/") if isinstance(value, str) else ("", "", "")
    try:
        length = parse_interval(span)
    except BadDuration:
        length = _ZERO
    if not length or not re.fullmatch(r"\s*[0-9]{1,7}\s*", count) or not 1 <= int(count) <= MOST_IN_A_RATE:
        raise BadRate(value, MOST_IN_A_RATE)
    return int(count), length


def format(value: timedelta) -> str:
    """The text of a length of time in the largest units that fit: `2w`, `1h30m`, `250ms`, `0s`.

    Weeks are used only for whole weeks. `parse` reads it back to the very microsecond.
    """
    return "".join(f"{count}{unit}" for count, unit, _ in _parts(value)) or "0s"


def words(value: timedelta) -> str:
    """The length of time in English: `5 minutes`, `1 hour 30 minutes`, `0 seconds`."""
    return " ".join(f"{count} {word}{'' if count == 1 else 's'}" for count, _, word in _parts(value)) or "0 seconds"


def instant(value: Instant, now: datetime) -> datetime:
    """The point in time that `value` says, in UTC.

    An aware datetime; ISO 8601 with an offset or `Z`; or from `now` (aware): a timedelta, a text such as `+2h`.
    A naive one, and one outside the years 1 to 9999: `BadInstant`.
    """
    return _read(value, now, bare=0)


def since(value: Instant | float, now: datetime) -> datetime:
    """Like `instant`, but a timedelta or a bare duration such as `24h` or 3600 means that long before `now`."""
    try:
        return _read(value, now, bare=-1)
    except BadInstant as error:
        raise BadInstant(error.got, error.why, back=True) from None


def ahead(value: Instant | float, now: datetime) -> datetime:
    """Like `instant`, but a bare duration such as `24h` or 3600 means from `now` on, as `+24h` does."""
    return _read(value, now, bare=1)


def absolute(value: datetime | str, *, fixed: bool = True) -> datetime:
    """The point in time that `value` says by itself, in UTC: an aware datetime, or ISO 8601 with an offset or `Z`.

    Anything else, a naive one and a time from now too: `BadInstant`. `fixed` False: for one who takes times from now and
    has looked for them; the error names them then.
    """
    moment = _iso_instant(value, fixed) if isinstance(value, str) else value
    if not isinstance(moment, datetime):
        raise BadInstant(value, f"a {type(value).__name__} is not a point in time", fixed=fixed)
    if moment.utcoffset() is None:
        why = "it names no zone; for UTC append 'Z', or use datetime(..., tzinfo=UTC)"
        raise BadInstant(value, why, fixed=fixed)
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise BadInstant(value, "in UTC it lies outside the years 1 to 9999", fixed=fixed) from None


def rfc3339(moment: datetime) -> str:
    """The text of an aware instant in UTC, as `2026-03-01T02:00:00Z`; a fraction only where there is one."""
    return absolute(moment).isoformat().replace("+00:00", "Z")


def _from_number(value: float) -> timedelta:
    if isinstance(value, float) and not math.isfinite(value):
        raise BadDuration(value, "it is not a finite number")
    # Compared before it is converted: timedelta overflows, and 10**400 is no float.
    if value > LONGEST.total_seconds():
        return timedelta.max
    return timedelta(seconds=value) if value >= 0 else timedelta.min


def _from_text(text: str) -> timedelta:
    if len(text) > _LONGEST_TEXT:
        raise BadDuration(text, f"it has more than {_LONGEST_TEXT} characters")
    stripped = text.strip()
    if not stripped:
        raise BadDuration(text, "it is empty")
    if stripped.startswith("-"):
        raise BadDuration(text, "it is negative")
    if _PLAIN.fullmatch(stripped):
        return _total([(stripped, 1_000_000)])
    if stripped.startswith("P"):
        return _from_iso(stripped)
    return _from_units(stripped)


def _from_iso(text: str) -> timedelta:
    if match := _ISO.fullmatch(text):
        counts = zip(match.groups(), _UNITS, strict=False)
        return _total([(count.replace(",", "."), length) for count, (_, _, length, _) in counts if count])
    if _ISO_CALENDAR.match(text):
        raise BadDuration(text, "months and years have no fixed length")
    raise BadDuration(text, "it cannot be read as ISO 8601")


def _from_units(text: str) -> timedelta:
    parts: list[tuple[str, int]] = []
    position = 0
    while position < len(text):
        # Only the unit may be in capitals, and not a lone M: half of the world reads it as months.
        match = _PART.match(text.lower(), position)
        if not match:
            cron = len(text.split()) in (5, 6)
            raise BadDuration(text, "it cannot be read" + (", and a cron expression is given to cron" if cron else ""))
        number, unit = match.groups()
        parts.append((number, _unit_length(text, unit, written=text[match.start(2) : match.end(2)])))
        position = match.end()
    lengths = [length for _, length in parts]
    if sorted(set(lengths), reverse=True) != lengths:
        raise BadDuration(text, "each unit may stand once, the largest first")
    return _total(parts)


def _unit_length(text: str, unit: str, *, written: str) -> int:
    if _CALENDAR.fullmatch(unit):
        raise BadDuration(text, "months and years have no fixed length")
    if written == "M":
        raise BadDuration(text, "'M' could be minutes or months, for minutes write 'm'")
    if unit not in _LENGTHS:
        raise BadDuration(text, f"there is no unit '{unit}'")
    return _LENGTHS[unit]


def _total(parts: list[tuple[str, int]]) -> timedelta:
    if all(count.isdecimal() for count, _ in parts):
        microseconds = sum(int(count) * length for count, length in parts)
    else:  # 0.1 + 0.2 of anything must come out to the microsecond
        from decimal import Decimal

        microseconds = round(sum(Decimal(count) * length for count, length in parts))
    return timedelta.max if microseconds > LONGEST // _ONE else timedelta(microseconds=microseconds)


def _parts(value: timedelta) -> list[tuple[int, str, str]]:
    rest = parse(value) // _ONE
    parts = []
    for unit, word, length, _ in _UNITS:
        if unit == "w" and rest % length:
            continue
        count, rest = divmod(rest, length)
        if count:
            parts.append((count, unit, word))
    return parts


def _read(value: Instant | float, now: datetime, *, bare: int) -> datetime:
    if isinstance(value, timedelta):
        return _shifted(value, value, now, sign=bare or 1)
    if isinstance(value, (int, float)):
        if not bare:
            raise BadInstant(value, "a number is no point in time")
        return _shifted(value, value, now, sign=bare)
    if isinstance(value, str):
        text = value.strip()
        if text.startswith("+"):
            return _shifted(value, text[1:], now, sign=1)
        if bare and not _DATED.match(text):
            return _shifted(value, text, now, sign=bare)
    return absolute(value, fixed=False)


def _shifted(value: Instant | float, length: Duration, now: datetime, *, sign: int) -> datetime:
    try:
        return absolute(now) + sign * parse(length)
    except BadDuration as error:
        raise BadInstant(value, error.why) from None
    except OverflowError:
        raise BadInstant(value, "it lies outside the years 1 to 9999") from None


def _iso_instant(text: str, fixed: bool) -> datetime:
    stripped = text.strip()
    if len(stripped) <= _LONGEST_TEXT and _DATED.fullmatch(stripped):
        try:
            return datetime.fromisoformat(stripped.upper())
        except ValueError as error:
            raise BadInstant(text, f"it cannot be read ({error})", fixed=fixed) from None
    try:
        parse(stripped.removeprefix("+"))
    except BadDuration:
        raise BadInstant(text, "it cannot be read", fixed=fixed) from None
    if fixed:
        raise BadInstant(text, "it is a length of time, and no time from now can be taken here", fixed=True)
    raise BadInstant(text, f"it is a length of time; for that long from now write '+{stripped}'")
