"""Asking for runs by a key that another transaction has, and has not committed: nobody else waits for that one.

Level 5. An application may keep its transaction open for long after it has submitted within it. Whoever asks with the same
key then comes back a little later, instead of holding up all that this process writes. Start at `insist`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from taskloop.errors import StoreUnavailable
from taskloop.store import Heed

__all__ = ["KeyHeld", "insist"]

KEY_SECONDS: Final = 10.0
"""How long an asking waits for the other."""
AGAIN_SECONDS: Final = 0.1
"""How soon, at most, it comes back."""


class KeyHeld(StoreUnavailable):
    """Another transaction has asked with this key, and is not committed."""

    def __init__(self, job: str, key: str) -> None:
        super().__init__(
            f"key '{key}' of job '{job}': another transaction has asked with it and is not committed; ask again, and see "
            "pg_stat_activity for one that is idle"
        )


async def insist(ask: Callable[[Heed | None], Awaitable[Any]], heed: Heed | None) -> Any:
    """What `ask` gives, asked again for `KEY_SECONDS` while it raises `KeyHeld`; `heed` hears of the last answer alone."""
    until = time.monotonic() + KEY_SECONDS
    while True:
        attempt = _Attempt(heed)
        try:
            return await ask(attempt.hear)
        except KeyHeld:
            if time.monotonic() > until:
                attempt.leave()
                raise
        except asyncio.CancelledError:
            attempt.leave()
            raise
        try:
            await asyncio.sleep(random.uniform(0.2, 1) * AGAIN_SECONDS)  # noqa: S311 - so that two do not meet again
        except asyncio.CancelledError:
            attempt.leave()
            raise


class _Attempt:
    """One asking: that the key was held is told only where nobody will ask again."""

    def __init__(self, heed: Heed | None) -> None:
        self._heed = heed
        self._held: KeyHeld | None = None
        self._is_last = False

    def hear(self, answer: Any) -> None:
        if isinstance(answer, KeyHeld) and not self._is_last:
            self._held = answer
        elif self._heed is not None:
            self._heed(answer)

    def leave(self) -> None:
        """Nobody asks again."""
        self._is_last = True
        held, self._held = self._held, None
        if held is not None:
            self.hear(held)
