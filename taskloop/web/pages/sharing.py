"""What a page shows now, for all who look at it: found out at most once a second, however many tabs ask.

Whoever asks is given what was begun after it asked, so what it has just heard of is in it; who asks too soon waits for the
rest of the second, together with all others. They are answered a little apart, for the host's own requests come between:
twenty at once cost its 99th of a hundred a quarter to a third (P7, seven interleaved rounds).
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Final

from taskloop.tasks import Turns
from taskloop.web.core import Response

__all__ = ["Shared"]

SECONDS: Final = 1.0
"""Between two looks at the same, or longer: a look may not take more than a tenth of the time."""
LONGEST: Final = 3.0
APART_SECONDS: Final = 0.005
"""Between two who are given the same."""
ALL_SECONDS: Final = 0.25
"""Until all have it; who is left then, for a timer may come late, has it in the turns of the loop that follow."""
MOST: Final = 64
"""Pages of which it is remembered when they were looked at last."""


class _Look:
    __slots__ = ("apart", "began_at", "found", "pause", "told_at", "turns", "waiting")

    def __init__(self) -> None:
        self.turns = Turns()
        self.began_at = float("-inf")
        self.pause = 0.0
        self.apart = 0.0
        """Between two who are given what it came to."""
        self.told_at = float("-inf")
        """When the first was given it."""
        self.found: Response | Exception | None = None
        """What it came to, while somebody waits for it: a page may be large, and nobody else is given it."""
        self.waiting = 0


class Shared:
    """Answers by what they are for."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._looks: OrderedDict[Hashable, _Look] = OrderedDict()

    async def answer(self, key: Hashable, make: Callable[[], Awaitable[Response]]) -> Response:
        """What `make` gives, of a look that began after this was asked. Waits at most `LONGEST` more than it takes,
        and, where others are given the same before it, `ALL_SECONDS`.

        Raises what that look raised: else all who wait would each try in turn what takes long to fail.
        """
        asked_at = self._monotonic()
        look = self._looks.setdefault(key, _Look())
        self._looks.move_to_end(key)
        if len(self._looks) > MOST:
            self._looks.popitem(last=False)
        look.waiting += 1
        try:
            async with look.turns:
                if look.found is None or look.began_at < asked_at:
                    await asyncio.sleep(look.began_at + look.pause - self._monotonic())
                    look.began_at, look.pause, look.found = self._monotonic(), SECONDS, None
                    try:
                        look.found = await make()
                    except Exception as error:
                        look.found = error
                    look.told_at = self._monotonic()
                    look.apart = min(APART_SECONDS, ALL_SECONDS / look.waiting)
                    look.pause = min(LONGEST, max(SECONDS, 10 * (look.told_at - look.began_at)))
                else:
                    await asyncio.sleep(look.apart if self._monotonic() < look.told_at + ALL_SECONDS else 0)
                found = look.found
        finally:
            look.waiting -= 1
            if not look.waiting:
                look.found = None
        if isinstance(found, Exception):
            raise found
        return Response(found.status, found.body, {**found.headers, "cache-control": "no-store"})
