"""The pulse of a worker: a thread that beats for it, so that a loop that is blocked costs no lease.

Level 5. What a beat says of the worker is asked of `health` in the thread; what it learns is told on the loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final

from taskloop.clock import Clock
from taskloop.errors import StoreUnavailable, TaskloopError
from taskloop.store import Beater

__all__ = ["Pulse"]

LEAST_SECONDS: Final = 0.5
"""A beat that failed is tried again after this, or at its next turn if that comes sooner."""
_MEND: Final = "a beat could not be written; see the memory and the disk of this machine"


class Pulse:
    """Beats every so many seconds until it is stopped, or its loop is closed.

    `gap_seconds`: where two that were written lie further apart, somebody held the store between them. `heard` is told on
    the loop what each came to: True; False, the worker was taken for dead meanwhile; an error, it could not be written.
    """

    def __init__(
        self,
        beater: Beater,
        seconds: float,
        *,
        gap_seconds: float,
        clock: Clock,
        health: Callable[[], Mapping[str, Any]],
        heard: Callable[[bool | TaskloopError], None],
    ) -> None:
        self._beater = beater
        self._seconds = seconds
        self._gap_seconds = gap_seconds
        self._clock = clock
        self._health = health
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._ended = threading.Event()
        self._gone = asyncio.Event()
        self.lapses: int = 0
        """How often a beat has found that its worker was taken for dead; counted before that beat is good."""
        self.good_at: float = clock.monotonic()
        """When the last beat that was written began, by the steady clock."""
        self._through_since = self.good_at
        """When the first beat was written after the last gap; before any, when they began."""

    def start(self) -> None:
        threading.Thread(target=self._beat, name="taskloop pulse", daemon=True).start()

    def through_since(self) -> float:
        """Since when the beats have been written without a gap, by the steady clock; now, while there is one."""
        now = self._clock.monotonic()
        return self._through_since if now - self.good_at <= self._gap_seconds else now

    def stop(self) -> None:
        """Beat no more; does not wait for a beat in hand."""
        self._ended.set()

    async def gone(self, seconds: float) -> None:
        """Wait until the thread has ended and its connection is closed, at most `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._gone.wait()

    # -- in the thread

    def _beat(self) -> None:
        try:
            while not self._ended.is_set() and not self._loop.is_closed():
                began = self._clock.monotonic()
                wait = self._seconds
                try:
                    lives = self._beater.beat(self._clock.now(), began, self._health())
                    self.lapses += not lives
                    self._tell(lives)
                    if (ended := self._clock.monotonic()) - self.good_at > self._gap_seconds:
                        self._through_since = ended
                    self.good_at = began
                except Exception as error:  # the next beat does not depend on it
                    known = error if isinstance(error, TaskloopError) else StoreUnavailable(f"{_MEND} ({error!r})")
                    self._tell(known)
                    wait = min(wait, LEAST_SECONDS)
                self._ended.wait(max(0.001, began + wait - self._clock.monotonic()))
        finally:
            self._beater.close()
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._gone.set)

    def _tell(self, news: bool | TaskloopError) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is there to hear
            self._loop.call_soon_threadsafe(self._heard, news)
