"""A scheduler lives as long as the hosts that serve its surface: the first starts it, and the last that goes stops it.

One that was started by somebody else is left to them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from taskloop.tasks import shielded, this_loop

if TYPE_CHECKING:
    from taskloop.scheduler import TaskScheduler

__all__ = ["living"]


@dataclass(slots=True)
class _Life:
    """What hosts share of one scheduler."""

    hosts: int = 0
    """Those that it lives for; none: somebody else started it, or nobody."""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held while it is started and stopped: who comes meanwhile waits for that."""


_LIVES: WeakKeyDictionary[TaskScheduler, WeakKeyDictionary[asyncio.AbstractEventLoop, _Life]] = WeakKeyDictionary()
"""By loop: hosts of one that was closed are gone with it."""


@asynccontextmanager
async def living(scheduler: TaskScheduler) -> AsyncIterator[None]:
    """The scheduler runs while the context is open. Raises what `start` raises."""
    life = _LIVES.setdefault(scheduler, WeakKeyDictionary()).setdefault(this_loop(), _Life())
    async with life.lock:
        mine = life.hosts > 0 or not scheduler.is_running
        if not scheduler.is_running:
            await scheduler.start()
        life.hosts += mine
    try:
        yield
    finally:
        if mine:
            with shielded():
                async with life.lock:
                    life.hosts -= 1
                    if not life.hosts:
                        await scheduler.stop()
