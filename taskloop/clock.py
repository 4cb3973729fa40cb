"""Where time comes from: the wall clock for due instants, the monotonic clock for spans.

Level 0. The engine and the stores are handed a `Clock` or an instant and never ask the system themselves, so a test
can move time. A span is never the difference of two wall readings: the wall may step.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

__all__ = ["EPOCH", "Clock", "SystemClock", "from_microseconds", "microseconds"]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def microseconds(instant: datetime) -> int:
    """An aware instant as whole microseconds since 1970 UTC: how stores keep and compare instants."""
    return (instant - EPOCH) // _MICROSECOND


def from_microseconds(count: int) -> datetime:
    """The aware UTC instant that `microseconds` turned into `count`."""
    return EPOCH + timedelta(microseconds=count)


class Clock(Protocol):
    """What the engine may ask about time."""

    def now(self) -> datetime:
        """The wall clock: aware, UTC. May jump forward or back."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary point; never goes back."""


class SystemClock:
    """The clocks of this machine."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()
