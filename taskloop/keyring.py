"""The verbs on tokens: make one, list them, take one back; and the secret that sessions are signed with.

Level 5. Needs no started scheduler: `Ledger.keyring` is one, on the ledger's store and clock.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from datetime import datetime

from taskloop import audit, durations
from taskloop.clock import Clock
from taskloop.durations import Instant
from taskloop.errors import Conflict, NoSuchToken
from taskloop.store import Store
from taskloop.tokens import ID_BYTES, MOST_LIVE, SECRET_BYTES, Token, made, split

__all__ = ["Keyring"]


class Keyring:
    """The tokens of a store."""

    def __init__(self, opened: Callable[[], Awaitable[Store]], clock: Clock) -> None:
        self._opened = opened
        self._clock = clock

    def now(self) -> datetime:
        """The instant by which tokens and sessions expire."""
        return self._clock.now()

    async def create(
        self,
        name: str,
        scope: str,
        *,
        expires: Instant | float | None = None,
        actor: str | None = None,
        reason: str | None = None,
    ) -> tuple[Token, str]:
        """Make a token; gives its record, and the token itself, which is told this once.

        `expires`: an instant, or the time from now (`"90d"`, `"+2h"`); None: never. Raises `BadToken`, and `Conflict`
        where a token of that name is valid, or a thousand are.
        """
        now = self.now()
        until = None if expires is None else durations.ahead(expires, now)
        entropy = secrets.token_bytes(ID_BYTES + SECRET_BYTES)
        token, text = made(name, scope, entropy, now=now, expires_at=until, actor=actor, reason=reason)
        entry = audit.entry("create_token", now, actor, reason)
        await (await self._opened()).add_token(token, entry)
        return token, text

    async def tokens(self, *, before: str | None = None, limit: int = 100) -> list[Token]:
        """All there ever were, newest first; `before`: only older ones than the token of this id."""
        return list(await (await self._opened()).tokens(before=before, limit=limit))

    async def live(self) -> list[Token]:
        """Those that are valid now."""
        return list(await (await self._opened()).tokens(live_at=self.now(), limit=MOST_LIVE))

    async def revoke(self, which: str, *, actor: str | None = None, reason: str | None = None) -> list[Token]:
        """Take tokens back: the one of this id, or what there is of this name; the token itself will do too.

        Gives them as they stand now. Raises `NoSuchToken`, and `Conflict` where that is done already.
        """
        parts = split(which)
        which = parts[0] if parts else which
        store = await self._opened()
        now = self.now()
        entry = audit.entry("revoke_token", now, actor, reason)
        if revoked := await store.revoke_tokens(which, now, actor=actor, reason=reason, entry=entry):
            return list(revoked)
        known = await store.tokens(named=which, limit=1)
        if not known:
            raise NoSuchToken(which)
        revoked_at = known[0].revoked_at
        if revoked_at is None:  # made since the first look
            return await self.revoke(which, actor=actor, reason=reason)
        who = f" by {known[0].revoked_by}" if known[0].revoked_by else ""
        raise Conflict(f"token '{which}' is revoked already, since {revoked_at:%d %b %Y}{who}; nothing was done")

    async def used(self, token: str) -> None:
        """Write down that the token of this id was used just now, unless that is on record within the minute."""
        await (await self._opened()).use_token(token, self.now())

    async def signed_in(self, name: str) -> None:
        """Write down that somebody began a session with the token of this name."""
        entry = audit.entry("sign_in", self.now(), name)
        if entry is not None:
            await (await self._opened()).record([entry._replace(object=name)])

    async def session_secret(self) -> bytes:
        """What sessions are signed with, the same in every process on the store; made when first asked for."""
        return await (await self._opened()).session_secret(secrets.token_bytes(SECRET_BYTES))
