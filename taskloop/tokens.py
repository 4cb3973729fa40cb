"""A token that opens the admin surface: how it is written, what is kept of it, and whether it fits.

Level 3, pure: what is random is passed in. `tl_<id>_<secret>` is shown once; of the secret only a digest is kept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal

from taskloop.errors import BadToken

__all__ = ["MOST_LIVE", "SCOPES", "Token", "TokenScope", "made", "split"]

TokenScope = Literal["read", "operate", "admin"]
SCOPES: Final[tuple[TokenScope, ...]] = ("read", "operate", "admin")
"""What a token may be for; each holds those before it."""
ID_BYTES: Final = 6
SECRET_BYTES: Final = 32
MOST_LIVE: Final = 1000
"""Tokens that are valid at once: all of them are kept at hand by each server."""
USED_EVERY: Final = timedelta(minutes=1)
"""How often it is written down that a token was used, at most."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]{0,63}")
_WRITTEN: Final = re.compile(f"tl_([0-9a-f]{{{2 * ID_BYTES}}})_([0-9a-f]{{{2 * SECRET_BYTES}}})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What is kept of a token."""

    id: str
    name: str
    """Stands as `actor` in the records of what is done with it."""
    scope: TokenScope
    digest: bytes = field(repr=False)
    created_at: datetime
    actor: str | None = None
    """Who made it."""
    reason: str | None = None
    expires_at: datetime | None = None
    """None: never."""
    last_used_at: datetime | None = None
    """To the minute; None: not used yet."""
    revoked_at: datetime | None = None
    revoked_by: str | None = None
    revoked_because: str | None = None

    def state(self, now: datetime) -> Literal["live", "expired", "revoked"]:
        """Whether it opens anything now."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "live"

    def fits(self, secret: str) -> bool:
        """Whether this is its secret; takes as long for any secret of the right length."""
        from hmac import compare_digest

        return compare_digest(_digest(secret), self.digest)


def made(
    name: str,
    scope: str,
    entropy: bytes,
    *,
    now: datetime,
    expires_at: datetime | None = None,
    actor: str | None = None,
    reason: str | None = None,
) -> tuple[Token, str]:
    """A new token, and how it is written, which is told once. `entropy`: random bytes, 38 of them. Raises `BadToken`."""
    if not _NAME.fullmatch(name):
        raise BadToken(f"a token cannot be named {name[:80]!r}", "1 to 64 letters, digits and ._:@-, not first a sign")
    if scope not in SCOPES:
        raise BadToken(f"scope is {scope[:80]!r}", "read, operate or admin")
    if expires_at is not None and expires_at <= now:
        raise BadToken(
            f"token '{name}' would have expired before it is made", "an instant to come, or a length of time"
        )
    identity, secret = entropy[:ID_BYTES].hex(), entropy[ID_BYTES:].hex()
    assert len(secret) == 2 * SECRET_BYTES
    token = Token(
        id=identity,
        name=name,
        scope=next(one for one in SCOPES if one == scope),
        digest=_digest(secret),
        created_at=now,
        actor=actor,
        reason=reason,
        expires_at=expires_at,
    )
    return token, f"tl_{identity}_{secret}"


def split(text: str) -> tuple[str, str] | None:
    """Id and secret of a token as it is written; None: it is none."""
    found = _WRITTEN.fullmatch(text)
    return (found[1], found[2]) if found else None


def _digest(secret: str) -> bytes:
    from hashlib import sha256

    return sha256(secret.encode("ascii")).digest()
