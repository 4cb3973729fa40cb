"""What would happen, for pages: reckoned once for all who ask within a few seconds, one at a time, and not for too long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from taskloop.scheduler import TaskScheduler
    from taskloop.simulation import JobForecast, Simulation

__all__ = ["LONGEST", "Foresight"]

LONGEST: Final = timedelta(days=31)
"""Pages look no further ahead."""
MOST: Final = 20_000
"""Fires that are looked at one by one: about a tenth of a second of one core."""
KEPT_SECONDS: Final = 10.0
HELD_SECONDS: Final = 2.0
MOST_KEPT: Final = 8
DAY: Final = timedelta(days=1)


class Foresight:
    """Simulations of one scheduler, each kept for some seconds."""

    def __init__(self, scheduler: TaskScheduler) -> None:
        self._scheduler = scheduler
        self._kept: dict[Any, tuple[float, Any]] = {}
        self._locks = (asyncio.Lock(), asyncio.Lock())
        """One is held by who looks ahead, the other by who counts what is held: that is quick, and stands on every page."""

    async def ahead(self, span: timedelta) -> Simulation:
        """What would happen from now on."""
        span = min(span, LONGEST)
        found: Simulation = await self._asked(span, KEPT_SECONDS, lambda: self._scheduler.simulate(span, most=MOST))
        return found

    async def day_of(self, job: str) -> JobForecast | None:
        """What the next 24 hours bring to a job by its schedules alone; None: it has none."""
        found: Simulation = await self._scheduler.simulate(DAY, job=job, most=MOST)
        return next((one for one in found.jobs if one.job == job), None)

    async def held(self) -> int:
        """How many fires are held by pauses."""
        found: int = await self._asked("held", HELD_SECONDS, self._scheduler.held)
        return found

    async def _asked(self, key: Any, seconds: float, ask: Callable[[], Awaitable[Any]]) -> Any:
        async with self._locks[key == "held"]:
            at, found = self._kept.get(key, (-seconds, None))
            if time.monotonic() - at < seconds:
                return found
            found = await ask()
            self._kept.pop(key, None)
            while len(self._kept) >= MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = (time.monotonic(), found)
            return found
