"""What would happen, for pages: reckoned once for all who ask within a few seconds, one at a time, and not for too long.

What took long is kept for long: looking ahead takes a fiftieth of one core at most, however many pages ask.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from taskloop import looking
from taskloop.tasks import Turns

if TYPE_CHECKING:
    from taskloop.punctuality import Usual
    from taskloop.scheduler import TaskScheduler
    from taskloop.simulation import JobForecast, Simulation

__all__ = ["LONGEST", "Foresight"]

LONGEST: Final = timedelta(days=31)
"""Pages look no further ahead."""
MOST: Final = 20_000
"""Fires that are looked at one by one: about a tenth of a second of one core."""
KEPT_SECONDS: Final = 10.0
"""At least."""
HELD_SECONDS: Final = 2.0
USUAL_SECONDS: Final = 60.0
TIMES: Final = 50
"""As many times longer than it took something is kept."""
MOST_KEPT: Final = 8
DAY: Final = timedelta(days=1)


class Foresight:
    """Simulations of one scheduler, each kept for some seconds."""

    def __init__(self, scheduler: TaskScheduler) -> None:
        self._scheduler = scheduler
        self._kept: dict[Any, tuple[float, Any]] = {}
        """Until when, and what."""
        self._usual: dict[str, tuple[float, Usual | None]] = {}
        self._turns = (Turns(), Turns())
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

    async def usual(self, jobs: Collection[str]) -> Mapping[str, Usual]:
        """How long jobs usually take, of those that have succeeded before; as it was within the last minute."""
        now = time.monotonic()
        unknown = [name for name in jobs if self._usual.get(name, (0.0, None))[0] <= now]
        found = await looking.usual(self._scheduler, unknown)
        self._usual |= {name: (now + USUAL_SECONDS, found.get(name)) for name in unknown}
        return {name: one for name in jobs if (one := self._usual[name][1]) is not None}

    async def held(self) -> int:
        """How many fires are held by pauses."""
        found: int = await self._asked("held", HELD_SECONDS, self._scheduler.held)
        return found

    async def _asked(self, key: Any, seconds: float, ask: Callable[[], Awaitable[Any]]) -> Any:
        async with self._turns[key == "held"]:
            until, found = self._kept.pop(key, (0.0, None))
            began = time.monotonic()
            if began < until:
                self._kept[key] = (until, found)
                return found
            found = await ask()
            while len(self._kept) >= MOST_KEPT:
                del self._kept[next(iter(self._kept))]
            now = time.monotonic()
            self._kept[key] = (now + max(seconds, TIMES * (now - began)), found)
            return found
