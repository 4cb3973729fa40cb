"""The tokens of the store as a server has them at hand: a few seconds old at most, however many requests come.

All that are valid are read at once, so a flood of invented ids is no flood of statements. Start at `Tokens.find`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from taskloop.errors import TaskloopError
from taskloop.keyring import Keyring
from taskloop.tokens import USED_EVERY, Token

__all__ = ["Tokens"]

FRESH_SECONDS: Final = 3.0
"""How long what was read is good for: how late a revocation may take effect."""
APART_SECONDS: Final = 0.25
"""From one look into the store to the next, when an id is asked for that is not at hand, and while there never was a token:
it may be new, and there may be one by now.
"""
PATIENCE_SECONDS: Final = 1.0
"""How long this machine waits for a store that does not answer, before it goes by what was there last."""
CLOSE_SECONDS: Final = 2.0
_NEVER: Final = float("-inf")


class Tokens:
    """Finds tokens by their ids. `keyring`: gives the verbs on them, when it is asked."""

    def __init__(self, keyring: Callable[[], Keyring], monotonic: Callable[[], float] = time.monotonic) -> None:
        self._keyring = keyring
        self._monotonic = monotonic
        self._live: Mapping[str, Token] = {}
        self._issued = False
        self._read_at = _NEVER
        """When the look began that brought what is at hand."""
        self._looked_at = _NEVER
        """When the last look began, also one that failed."""
        self._looks = self._seen = 0
        """Looks that were begun, and the number of the last one that brought something."""
        self._looking: asyncio.Future[None] | None = None
        self._secret: bytes | None = None
        self._noted: dict[str, float] = {}
        self._noting: set[asyncio.Task[None]] = set()

    async def find(self, identity: str) -> Token | None:
        """The valid token of this id. Raises what the store raises: nobody comes in by what cannot be looked up."""
        if identity not in self._live or self._is_stale():
            await self._look()
        found = self._live.get(identity)
        return found if found is not None and found.state(self._keyring().now()) == "live" else None

    async def issued(self) -> bool:
        """Whether there ever was a token: then nobody comes in without one, also when all of them are over.

        While the store does not answer, whether there was one when it last did.
        """
        if self._read_at == _NEVER:
            await self._look()
        elif self._is_stale(FRESH_SECONDS if self._issued else APART_SECONDS):  # the first shuts the door at once
            with suppress(TaskloopError, TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._look()
        return self._issued

    async def secret(self) -> bytes:
        """What sessions are signed with."""
        if self._secret is None:
            self._secret = await self._keyring().session_secret()
        return self._secret

    def use(self, token: Token) -> None:
        """Have it written down that a token was used, at most once a minute, while the request goes on."""
        now = self._monotonic()
        if now - self._noted.get(token.id, _NEVER) < USED_EVERY.total_seconds():
            return
        self._noted = {one: at for one, at in self._noted.items() if one in self._live} | {token.id: now}
        task = asyncio.create_task(self._note(token.id))
        self._noting.add(task)
        task.add_done_callback(self._noting.discard)

    async def close(self) -> None:
        """Wait a moment for what is being written down."""
        if self._noting:
            await asyncio.wait(self._noting, timeout=CLOSE_SECONDS)

    async def _note(self, identity: str) -> None:
        with suppress(TaskloopError):  # a use that is not on record is no reason to trouble anybody
            await self._keyring().used(identity)

    def _is_stale(self, seconds: float = FRESH_SECONDS) -> bool:
        return self._monotonic() - self._read_at > seconds

    async def _look(self) -> None:
        """Wait for a look that is begun from now on: one in hand may have missed what is asked for. All who wait share it."""
        before = self._looks
        while self._seen <= before:
            if self._looking is None or self._looking.done():
                self._looking = asyncio.ensure_future(self._read())
                self._looking.add_done_callback(self._looked)
            await asyncio.shield(self._looking)

    def _looked(self, looking: asyncio.Future[None]) -> None:
        if self._looking is looking:
            self._looking = None
        if not looking.cancelled():
            looking.exception()  # whoever waits hears of it, and where nobody waits any more it is no matter

    async def _read(self) -> None:
        await asyncio.sleep(max(0.0, self._looked_at + APART_SECONDS - self._monotonic()))
        self._looks += 1
        number, self._looked_at = self._looks, self._monotonic()
        keyring = self._keyring()
        live = await keyring.live()
        self._issued = bool(live) or bool(await keyring.tokens(limit=1))
        self._live, self._read_at, self._seen = {one.id: one for one in live}, self._looked_at, number
