"""Tokens, and the secret of sessions, in PostgreSQL.

Level 5. Plain functions of a connection, each a part of a transaction, like those of `statements_postgres`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from taskloop.clock import from_microseconds, microseconds
from taskloop.errors import Conflict
from taskloop.rows import instant, moment
from taskloop.rows_postgres import Db, heard, kept
from taskloop.tokens import MOST_LIVE, USED_EVERY, Token

__all__ = ["add", "revoke", "session_secret", "tokens", "use"]

_COLUMNS: Final = (
    "id, name, scope, digest, created_at, actor, reason, expires_at, last_used_at, revoked_at, revoked_by, "
    "revoked_because"
)
_NAMED: Final = "(id = {0} OR (name = {0} AND NOT EXISTS (SELECT 1 FROM taskloop.tokens WHERE id = {0})))"
"""An id goes before a name: nobody takes back another one by a name that looks like an id."""
_LIVE: Final = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > {0})"
_SECRET: Final = "session_secret"  # noqa: S105 - the key it is kept under


async def add(db: Db, token: Token) -> None:
    """Keep a new token. Raises `Conflict` where one of its name is valid, or as many as may be are."""
    now = microseconds(token.created_at)
    taken, live = await db.fetchrow(
        f"SELECT count(*) FILTER (WHERE name = $1), count(*) FROM taskloop.tokens WHERE {_LIVE.format('$2')}",
        token.name, now,
    )  # fmt: skip
    if taken:
        raise Conflict(f"a token '{token.name}' is valid already; choose another name, or revoke that one first")
    if live >= MOST_LIVE:
        raise Conflict(f"{live} tokens are valid, and that is the most; revoke what is not needed any more")
    places = ",".join(f"${place}" for place in range(1, 13))
    await db.execute(
        f"INSERT INTO taskloop.tokens ({_COLUMNS}) VALUES ({places})",
        token.id, token.name, token.scope, token.digest, now, kept(token.actor), kept(token.reason),
        moment(token.expires_at), moment(token.last_used_at), moment(token.revoked_at), kept(token.revoked_by),
        kept(token.revoked_because),
    )  # fmt: skip


async def tokens(db: Db, live_at: int | None, named: str | None, before: str | None, limit: int) -> list[Token]:
    """Tokens, newest first. None: no such condition."""
    older = "(created_at, id) < (SELECT created_at, id FROM taskloop.tokens WHERE id = {0})"
    conditions: list[tuple[str, Any]] = [(_NAMED, named), (_LIVE, live_at), (older, before)]
    values: list[Any] = [limit]
    where = "true"
    for text, value in conditions:
        if value is not None:
            values.append(value)
            where += f" AND {text.format(f'${len(values)}')}"
    rows = await db.fetch(
        f"SELECT {_COLUMNS} FROM taskloop.tokens WHERE {where} ORDER BY created_at DESC, id DESC LIMIT $1", *values
    )
    return [_token(row) for row in rows]


async def revoke(db: Db, which: str, now: int, actor: str | None, reason: str | None) -> list[Token]:
    """Take back what is not taken back yet of this id or name; gives it as it stands now."""
    rows = await db.fetch(
        "UPDATE taskloop.tokens SET revoked_at = $2, revoked_by = $3, revoked_because = $4 "
        f"WHERE revoked_at IS NULL AND {_NAMED.format('$1')} RETURNING {_COLUMNS}",
        which, now, kept(actor), kept(reason),
    )  # fmt: skip
    return sorted(map(_token, rows), key=lambda one: (one.created_at, one.id), reverse=True)


async def use(db: Db, token: str, now: int) -> None:
    """Note that a token was used, unless a use within the minute before is noted. A later one is of a clock set back."""
    await db.execute(
        "UPDATE taskloop.tokens SET last_used_at = $1 WHERE id = $2 "
        "AND (last_used_at IS NULL OR last_used_at <= $3 OR last_used_at > $1)",
        now, token, now - USED_EVERY // timedelta(microseconds=1),
    )  # fmt: skip


async def session_secret(db: Db, new: bytes | None) -> bytes | None:
    """The secret of sessions; where there is none `new` becomes it."""
    if new is not None:
        await db.execute("INSERT INTO taskloop.meta VALUES ($1, $2) ON CONFLICT DO NOTHING", _SECRET, new.hex())
    found = await db.fetchval("SELECT value FROM taskloop.meta WHERE key = $1", _SECRET)
    return None if found is None else bytes.fromhex(found)


def _token(row: Sequence[Any]) -> Token:
    return Token(
        id=row[0], name=row[1], scope=row[2], digest=bytes(row[3]), created_at=from_microseconds(row[4]),
        actor=heard(row[5]), reason=heard(row[6]), expires_at=instant(row[7]), last_used_at=instant(row[8]),
        revoked_at=instant(row[9]), revoked_by=heard(row[10]), revoked_because=heard(row[11]),
    )  # fmt: skip
