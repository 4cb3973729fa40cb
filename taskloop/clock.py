"""Where time comes from: the wall clock for due instants, the monotonic clock for spans.

Level 0. The engine and the stores are handed a `Clock` or an instant and never ask the system themselves, so a test
can move time. A span is never the difference of two wall readings: the wall may step.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, Protocol

__all__ = ["EPOCH", "Clock", "ClockWatch", "Look", "SystemClock", "from_microseconds", "later", "microseconds"]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def microseconds(instant: datetime) -> int:
    """An aware instant as whole microseconds since 1970 UTC: how stores keep and compare instants."""
    return (instant - EPOCH) // _MICROSECOND


def from_microseconds(count: int) -> datetime:
    """The aware UTC instant that `microseconds` turned into `count`."""
    return EPOCH + timedelta(0, 0, count)  # by name it takes twice as long, and each record read asks six times


def later(instant: datetime, span: timedelta) -> datetime:
    """`instant + span`, or the last instant that can be said: a clock may be set to the year 9999."""
    try:
        return instant + span
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


class Clock(Protocol):
    """What the engine may ask about time."""

    steps_by_hand: bool
    """Whether this is the clock of a test: threads of ours know nothing of its time, so none is started."""

    def now(self) -> datetime:
        """The wall clock: aware, UTC. May jump forward or back."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary point; never goes back."""


class SystemClock:
    """The clocks of this machine."""

    steps_by_hand = False

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()


class Look(NamedTuple):
    """What became of both clocks between two looks."""

    before: datetime
    """The wall clock at the look before."""
    since: float
    """The steady clock at the look before."""
    elapsed: float
    """Seconds of the steady clock between the looks."""
    step: float
    """Seconds by which the wall clock went further (above zero) or less far than that: it was set, or the machine slept."""

    def lived_from(self, now: datetime) -> datetime:
        """What the wall clock would have said at the look before, had it been set by then; at most `now`.

        When between the looks it was set, or the machine slept, is not known: from then on, instants of the clock as
        it is now were lived.
        """
        try:
            return min(now, self.before + timedelta(seconds=self.step))
        except OverflowError:
            return now


class ClockWatch:
    """Compares the wall clock with the steady one from look to look."""

    def __init__(self, now: datetime, monotonic: float) -> None:
        self._now, self._monotonic = now, monotonic

    def look(self, now: datetime, monotonic: float) -> Look:
        elapsed = monotonic - self._monotonic
        found = Look(self._now, self._monotonic, elapsed, (now - self._now).total_seconds() - elapsed)
        self._now, self._monotonic = now, monotonic
        return found

    def is_true(self, now: datetime, monotonic: float) -> bool:
        """Whether no clock was set since the last look."""
        return abs((now - self._now).total_seconds() - (monotonic - self._monotonic)) < 1e-6

    def leave_out(self, seconds: float) -> None:
        """Take looks that would have found nothing new as done, the last of them so much after the last."""
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds
