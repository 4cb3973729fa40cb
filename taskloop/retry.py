"""How long to wait before which attempt, and the two words a job can say about it by raising them.

Pure: the engine passes in the time and the chance. Start at `Retry.delay`.
"""

from __future__ import annotations

import builtins
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from taskloop.durations import Duration, Instant, ahead, parse
from taskloop.errors import BadJob, BadValue, TaskloopError, nearest

__all__ = ["Errors", "Fatal", "Retry", "RetryAt"]

Errors: TypeAlias = type[Exception] | tuple[type[Exception], ...]

_MOST_ATTEMPTS = 1000
_KEYS = ("attempts", "first", "factor", "max", "jitter", "on")


@dataclass(frozen=True, slots=True, init=False)
class Retry:
    """How often a job is called before its run has failed, and how long between.

    `attempts` counts every call, the first one too: 1 to 1000. The wait after failed attempt n is
    `min(max, first * factor**(n-1))`, spread by chance within the share `jitter` (0 to 1) of itself. Only errors of
    the types `on` are tried again. Durations may be given in any form that `durations.parse` reads.
    Raises `BadJob`, `BadDuration`.
    """

    attempts: int
    first: timedelta
    factor: float
    max: timedelta
    jitter: float
    on: Errors

    def __init__(
        self,
        attempts: int = 1,
        first: Duration = "1s",
        factor: float = 2.0,
        max: Duration = "1h",
        jitter: float = 0.0,
        on: Errors = Exception,
    ) -> None:
        if isinstance(attempts, bool) or not isinstance(attempts, int) or not 1 <= attempts <= _MOST_ATTEMPTS:
            raise _bad("attempts", attempts, f"1 to {_MOST_ATTEMPTS}; the first call counts, 1 is no retry")
        object.__setattr__(self, "attempts", int(attempts))
        object.__setattr__(self, "first", parse(first))
        object.__setattr__(self, "factor", _number("factor", factor, least=1.0, most=math.inf))
        object.__setattr__(self, "max", parse(max))
        object.__setattr__(self, "jitter", _number("jitter", jitter, least=0.0, most=1.0))
        object.__setattr__(self, "on", _error_types(on))

    @classmethod
    def of(cls, value: int | Retry | Mapping[str, object] | None) -> Retry:
        """The policy that `value` is short for: `3` three attempts, None one, a mapping the table of a config file.

        In a mapping `on` may also be the name of a built-in error, or a list of them. Raises `BadJob`, `BadDuration`.
        """
        if value is None:
            return _ONCE  # made for each of thousands of steps it was a quarter of what holds the loop
        if isinstance(value, Retry):
            return value
        if isinstance(value, Mapping):
            return _from_mapping(value)
        return cls(attempts=value)

    def delay(self, n: int) -> timedelta:
        """The wait after failed attempt `n`, without jitter; any `n` from 1 on, the result is never more than `max`."""
        if n < 1:
            raise BadValue(f"attempt {n}: attempts are counted from 1")
        if not self.first:
            return self.first
        try:
            growth = self.factor ** (n - 1)
            if self.first.total_seconds() * growth >= self.max.total_seconds():
                return self.max
        except OverflowError:
            # Either the power is too large, or n itself is too large to be a float, and then 1 to that power is 1.
            return self.max if self.factor > 1 else min(self.max, self.first)
        return self.first * growth

    def jittered(self, n: int, chance: float) -> timedelta:
        """The wait after failed attempt `n`, spread evenly within ± `jitter` of itself by `chance` in [0, 1).

        Never negative; by up to `jitter` longer than `max`. A `chance` of one half changes nothing.
        """
        if not 0 <= chance < 1:
            raise ValueError(f"chance {chance}: allowed from 0 up to, not including, 1")
        return self.delay(n) * (1 + self.jitter * (2 * chance - 1))


class RetryAt(TaskloopError):
    """Raised by a job: try again at `when`, if an attempt is left.

    `when` is an aware datetime, ISO 8601 with an offset, or a duration (seconds, timedelta, text) from now on.
    Refused where it is raised if it cannot be read: `BadInstant`.
    """

    def __init__(self, when: Instant | float) -> None:
        self.when = when
        # Asked with any now at all, so that a mistake shows at the line that made it.
        ahead(when, datetime(2000, 1, 1, tzinfo=UTC))
        super().__init__(when)

    def __str__(self) -> str:
        return f"try again: {self.when}"

    def resolve(self, now: datetime) -> datetime:
        """The instant in UTC that is meant when said at `now` (aware); it may lie before `now`."""
        return ahead(self.when, now)


class Fatal(TaskloopError):
    """Raised by a job: this cannot succeed, no further attempt; `reason` becomes the error of the run."""

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason)


def _number(name: str, value: float, *, least: float, most: float) -> float:
    allowed = f"a finite number from {least:g}" + (f" to {most:g}" if most < math.inf else "")
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        raise _bad(name, value, allowed)
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if number == math.inf:
        raise _bad(name, value, allowed)
    return number


def _error_types(on: Errors) -> Errors:
    types = on if isinstance(on, tuple) else (on,)
    if not types or not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in types):
        raise _bad("on", on, "an exception class or a tuple of them; for no retry write attempts=1")
    return types[0] if len(types) == 1 else types


def _from_mapping(table: Mapping[str, object]) -> Retry:
    for key in table:
        if key not in _KEYS:
            near = nearest(str(key), _KEYS)
            raise BadJob(
                f"retry has no '{key}', allowed {', '.join(_KEYS)}" + (f"; did you mean '{near}'?" * bool(near))
            )
    named = dict(table)
    if "on" in named:
        given = named["on"]
        named["on"] = tuple(_named(one) for one in given) if isinstance(given, list) else _named(given)
    return Retry(**named)  # type: ignore[arg-type]  # what came from a file is checked by Retry itself


def _named(error: object) -> object:
    if not isinstance(error, str):
        return error
    found = getattr(builtins, error, None)
    if not (isinstance(found, type) and issubclass(found, Exception)):
        raise _bad("on", error, "the name of a built-in exception; for one of your own give the class in code")
    return found


def _bad(name: str, got: object, allowed: str) -> BadJob:
    try:
        shown = repr(got)
    except Exception:
        shown = f"a {type(got).__name__}"
    return BadJob(f"retry {name} is {shown[:80]}, allowed {allowed}")


_ONCE = Retry()
