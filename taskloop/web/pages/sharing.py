"""What a page shows now, for all who look at it: found out at most once a second, however many tabs ask.

Whoever asks is given what was begun after it asked, so what it has just heard of is in it; who asks too soon waits for the
rest of the second, together with all others.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Final

from taskloop.web.core import Response

__all__ = ["Shared"]

SECONDS: Final = 1.0
"""Between two looks at the same, or longer: a look may not take more than a tenth of the time."""
LONGEST: Final = 3.0
MOST: Final = 64
"""Pages whose last look is remembered."""


class _Look:
    __slots__ = ("began_at", "failed", "lock", "pause", "response")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.began_at = float("-inf")
        self.pause = 0.0
        self.response: Response | None = None
        self.failed: Exception | None = None
        """What it came to, if it came to no response."""


class Shared:
    """Answers by what they are for."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._looks: OrderedDict[Hashable, _Look] = OrderedDict()

    async def answer(self, key: Hashable, make: Callable[[], Awaitable[Response]]) -> Response:
        """What `make` gives, of a look that began after this was asked. Waits at most `LONGEST` more than it takes.

        Raises what that look raised: else all who wait would each try in turn what takes long to fail.
        """
        asked_at = self._monotonic()
        look = self._looks.setdefault(key, _Look())
        self._looks.move_to_end(key)
        if len(self._looks) > MOST:
            self._looks.popitem(last=False)
        async with look.lock:
            if look.began_at < asked_at or (look.response is None and look.failed is None):
                await asyncio.sleep(look.began_at + look.pause - self._monotonic())
                look.began_at, look.pause, look.response, look.failed = self._monotonic(), SECONDS, None, None
                try:
                    look.response = await make()
                except Exception as error:
                    look.failed = error
                look.pause = min(LONGEST, max(SECONDS, 10 * (self._monotonic() - look.began_at)))
            found, failed = look.response, look.failed
        if found is None:
            assert failed is not None
            raise failed.with_traceback(None)
        return Response(found.status, found.body, {**found.headers, "cache-control": "no-store"})
