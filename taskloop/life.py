"""What the parts of a started scheduler have in common, from its start to its stop.

Level 5. `scheduler._begin` makes one `Life`; the slots, the fire loop, the guard and the housekeeping take from it what
they need, beside what only one of them is given.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

from taskloop.audience import Listeners
from taskloop.clock import Clock
from taskloop.events import Feed
from taskloop.jobs import Jobs
from taskloop.journal import Journal, StoreWatch
from taskloop.options import Options
from taskloop.runs import Run
from taskloop.store import Store
from taskloop.store_data import Worker

__all__ = ["Life"]


class Life(NamedTuple):
    """One start of a scheduler: who it is to others, what it works with, and whom it tells."""

    worker: Worker
    store: Store
    jobs: Jobs
    options: Options
    clock: Clock
    journal: Journal
    store_watch: StoreWatch
    feed: Feed
    listeners: Listeners
    say: Callable[..., None]
    """A line of the log: its level, its name, its fields."""
    tell: Callable[..., None]
    """An event of a run, where somebody listens."""
    ended: Callable[[Run], None]
    """Told of a run whose end is on record."""
    breaker: Callable[[str], Callable[[Run], Coroutine[Any, Any, None]]]
    """Given a job before an end of its is written: gives what to call with the run once it is, as the breaker may have moved."""
