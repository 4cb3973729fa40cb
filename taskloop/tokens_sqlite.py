"""Tokens, and the secret of sessions, in SQLite.

Level 5. Plain functions of a connection, called on its thread, like those of `statements_sqlite`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from taskloop.clock import from_microseconds, microseconds
from taskloop.errors import Conflict
from taskloop.rows import Row, instant, moment
from taskloop.tokens import MOST_LIVE, USED_EVERY, Token

__all__ = ["add", "revoke", "session_secret", "tokens", "use"]

_COLUMNS: Final = (
    "id, name, scope, digest, created_at, actor, reason, expires_at, last_used_at, revoked_at, revoked_by, "
    "revoked_because"
)
_LIVE: Final = "revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?)"
_NAMED: Final = "(id = ? OR (name = ? AND NOT EXISTS (SELECT 1 FROM taskloop_tokens WHERE id = ?)))"
"""An id goes before a name: nobody takes back another one by a name that looks like an id.

Takes the id or name three times: some Pythons warn of numbered placeholders.
"""
_SECRET: Final = "session_secret"  # noqa: S105 - the key it is kept under


def add(db: sqlite3.Connection, token: Token) -> None:
    """Keep a new token. Raises `Conflict` where one of its name is valid, or as many as may be are."""
    now = microseconds(token.created_at)
    (taken, live) = db.execute(
        f"SELECT coalesce(sum(name = ?), 0), count(*) FROM taskloop_tokens WHERE {_LIVE}", (token.name, now)
    ).fetchone()
    if taken:
        raise Conflict(f"a token '{token.name}' is valid already; choose another name, or revoke that one first")
    if live >= MOST_LIVE:
        raise Conflict(f"{live} tokens are valid, and that is the most; revoke what is not needed any more")
    db.execute(f"INSERT INTO taskloop_tokens ({_COLUMNS}) VALUES ({','.join('?' * 12)})", _row(token))


def tokens(
    db: sqlite3.Connection, live_at: int | None, named: str | None, before: str | None, limit: int
) -> list[Token]:
    """Tokens, newest first. None: no such condition."""
    conditions: list[tuple[str, Sequence[Any]]] = []
    if named is not None:
        conditions.append((_NAMED, (named,) * 3))
    if live_at is not None:
        conditions.append((_LIVE, (live_at,)))
    if before is not None:
        older = "(created_at, id) < (SELECT created_at, id FROM taskloop_tokens WHERE id = ?)"
        conditions.append((older, (before,)))
    where = " AND ".join(text for text, _ in conditions) or "1"
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM taskloop_tokens WHERE {where} ORDER BY created_at DESC, id DESC LIMIT ?",
        (*(value for _, values in conditions for value in values), limit),
    )
    return [_token(row) for row in rows.fetchall()]


def revoke(db: sqlite3.Connection, which: str, now: int, actor: str | None, reason: str | None) -> list[Token]:
    """Take back what is not taken back yet of this id or name; gives it as it stands now."""
    found = db.execute(
        f"SELECT id FROM taskloop_tokens WHERE revoked_at IS NULL AND {_NAMED} ORDER BY created_at DESC, id DESC",
        (which,) * 3,
    ).fetchall()
    db.executemany(
        "UPDATE taskloop_tokens SET revoked_at = ?, revoked_by = ?, revoked_because = ? WHERE id = ?",
        [(now, actor, reason, one) for (one,) in found],
    )
    return [_token(db.execute(f"SELECT {_COLUMNS} FROM taskloop_tokens WHERE id = ?", one).fetchone()) for one in found]


def use(db: sqlite3.Connection, token: str, now: int) -> None:
    """Note that a token was used, unless a use within the minute before is noted. A later one is of a clock set back."""
    since = now - USED_EVERY // timedelta(microseconds=1)
    db.execute(
        "UPDATE taskloop_tokens SET last_used_at = :now WHERE id = :token "
        "AND (last_used_at IS NULL OR last_used_at <= :since OR last_used_at > :now)",
        {"now": now, "token": token, "since": since},
    )


def session_secret(db: sqlite3.Connection, new: bytes | None) -> bytes | None:
    """The secret of sessions; where there is none `new` becomes it."""
    if new is not None:
        db.execute("INSERT OR IGNORE INTO taskloop_meta VALUES (?, ?)", (_SECRET, new.hex()))
    row = db.execute("SELECT value FROM taskloop_meta WHERE key = ?", (_SECRET,)).fetchone()
    return None if row is None else bytes.fromhex(row[0])


def _row(token: Token) -> Row:
    return (
        token.id,
        token.name,
        token.scope,
        token.digest,
        microseconds(token.created_at),
        token.actor,
        token.reason,
        moment(token.expires_at),
        moment(token.last_used_at),
        moment(token.revoked_at),
        token.revoked_by,
        token.revoked_because,
    )


def _token(row: Sequence[Any]) -> Token:
    return Token(
        id=row[0], name=row[1], scope=row[2], digest=bytes(row[3]), created_at=from_microseconds(row[4]), actor=row[5],
        reason=row[6], expires_at=instant(row[7]), last_used_at=instant(row[8]), revoked_at=instant(row[9]),
        revoked_by=row[10], revoked_because=row[11],
    )  # fmt: skip
