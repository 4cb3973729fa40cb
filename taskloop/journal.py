"""What disturbed this worker, kept until the store takes it; and whether the store answers at all.

Level 5. Neither may fail: both are what is left to tell when everything else does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from itertools import chain
from typing import Any, Final, Literal

from taskloop.clock import Clock
from taskloop.store import Store
from taskloop.store_data import Incident

__all__ = ["Journal", "StoreWatch"]

MOST_A_DAY: Final = 1000
"""Incidents of one kind that a worker records in a day; what there is beyond them is not kept."""
DAY: Final = timedelta(days=1)


class Journal:
    """Incidents of one worker, in memory until they are written."""

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self.stir: Callable[[], None] | None = None
        """Called when there is something to write."""
        self._unwritten: deque[Incident] = deque(maxlen=MOST_A_DAY)
        """What the store has not been given; of more than these the oldest are let go."""
        self._in_hand: list[Sequence[Incident]] = []
        """What it has been given and has not answered about."""
        self._noted: dict[str, tuple[datetime, int]] = {}

    def add(self, kind: Any, since: datetime, until: datetime, **data: Any) -> None:
        """Keep what happened; beyond MOST_A_DAY of a kind it is not kept."""
        begun, count = self._noted.get(kind, (since, 0))
        if not begun <= since < begun + DAY:
            begun, count = since, 0
        self._noted[kind] = (begun, count + 1)
        if count < MOST_A_DAY:
            self._unwritten.append(Incident(self._worker, kind, since, max(since, until), data))
            if self.stir is not None:
                self.stir()

    def unwritten(self) -> list[Incident]:
        """What the store has not got yet, or has not answered about, the oldest first."""
        return [*chain(*self._in_hand), *self._unwritten]

    async def write(self, store: Store) -> None:
        """Give the store what it has not got yet; what it cannot take now is kept."""
        batch = tuple(self._unwritten)
        if not batch:
            return
        self._unwritten.clear()
        self._in_hand.append(batch)
        await store.note(batch, partial(self._heard, batch))

    def _heard(self, batch: Sequence[Incident], answer: object) -> None:
        """The store has answered about these; whoever gave them to it may have been cancelled meanwhile."""
        self._in_hand = [one for one in self._in_hand if one is not batch]
        if isinstance(answer, Exception):
            room = MOST_A_DAY - len(self._unwritten)
            self._unwritten.extendleft(reversed(batch[max(0, len(batch) - room) :] if room else ()))


class StoreWatch:
    """Whether the store can be written: tells once when it cannot, and once when it can again."""

    FIRST_WAIT: Final = 0.25
    LONGEST_WAIT: Final = 5.0
    """Seconds between two tries while it is away; each try waits for a lock itself."""
    ECHO_SECONDS: Final = 0.1
    """What goes well so soon after a failure had begun before it, and tells nothing."""
    BEATS_ALONE_SECONDS: Final = 6.0
    """The same for a beat, which has a connection of its own: what else failed would have been tried again by then."""
    URGE_SECONDS: Final = 1.0
    """How often those that failed are told at most that something else got through."""
    RELAPSE_SECONDS: Final = 20.0
    """What fails so soon after the store was back is what failed before: by then a beat is tried again, and what waits for
    a lock is told that it does not get it.
    """

    def __init__(
        self, clock: Clock, tell: Callable[[Literal["store_lost", "store_back"], Mapping[str, Any]], None]
    ) -> None:
        self._clock = clock
        self._tell = tell
        self._failures = 0
        self._failed_tick = self._urged_tick = 0.0
        self._failing: set[object] = set()
        """Who has failed, tries again, and has not got through yet."""
        self.urge: Callable[[Collection[object]], None] | None = None
        """Called with those when something else got through: they may try at once."""
        self._back_tick: float | None = None
        self._relapsed = False
        self.lost_at: datetime | None = None
        """Since when it cannot be written; None: it can."""
        self.error: str = ""
        self.takes_beats: bool = True
        """Whether the last beat could be written: while ours cannot, the silence of others says nothing of them."""

    def lost(self, error: Exception, who: object = None, *, in_its_time: bool = False) -> None:
        """A call of the store failed. `who`: one that tries again, until it is `answered`; the store is not back before that,
        whatever else it takes: one table may be locked, or lack a right.

        `in_its_time`: it cannot be urged, and is waited for only where the store was lost again as soon as it was back.
        """
        now = self._clock.monotonic()
        if self.lost_at is None:
            self._relapsed = self._back_tick is not None and now - self._back_tick < self.RELAPSE_SECONDS
        if who is not None and (self._relapsed or not in_its_time):
            self._failing.add(who)
        self.error = str(error)
        self._failed_tick = now
        if self.lost_at is None:
            self.lost_at = self._clock.now()
            self._tell("store_lost", {"error": self.error})

    def doubted(self, who: object) -> None:
        """A call failed and is made again at once: that is no loss yet, but until it is `answered` the store is not back."""
        self._failing.add(who)

    def answered(self, who: object) -> None:
        """Whoever tried again got through, or has given up: the store is no longer away because of it."""
        self._failing.discard(who)

    def well(self) -> None:
        """Something was written."""
        self._heard(self.ECHO_SECONDS)

    def beaten(self) -> None:
        """A beat was written."""
        self._heard(self.BEATS_ALONE_SECONDS)

    def _heard(self, quiet_seconds: float) -> None:
        """The store is back, unless something failed within the last `quiet_seconds`, or has still to be tried again."""
        if self.lost_at is None:
            return
        now = self._clock.monotonic()
        if now - self._failed_tick < quiet_seconds:
            return
        if self._failing:
            if self.urge is not None and now - self._urged_tick >= self.URGE_SECONDS:
                self._urged_tick = now
                self.urge(self._failing)
            return
        self._failures, self._back_tick = 0, now
        since, self.lost_at = self.lost_at, None
        self._tell("store_back", {"since": since, "error": self.error})

    def patience(self) -> float:
        """Seconds to wait before the next try: longer each time, and never the same for two who wait."""
        import random

        self._failures += 1
        wait = min(self.LONGEST_WAIT, self.FIRST_WAIT * 2.0 ** min(self._failures, 10))
        return wait * (0.5 + random.random() / 2)  # noqa: S311 - to spread those who wait, not to hide anything
