"""A store copied into an empty one, of whatever kind: every table as batches of rows, all of it or nothing.

Level 5, knows no kind of store. Start at `copied`. A store that can be copied gives its tables by `export` and takes those
of another by `take_in`; both speak of the columns in `TABLES`, in plain values: whole numbers, texts, bytes, None, and
JSON as the text it is. What was read, and what is there afterwards, is told by the number of rows and a checksum for
each table, which do not depend on the order of the rows.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, NamedTuple, Protocol

from taskloop.errors import BadStore, Conflict

__all__ = [
    "BATCH_CHARACTERS",
    "BATCH_ROWS",
    "OWN",
    "TABLES",
    "Batch",
    "Copyable",
    "Sum",
    "changed",
    "copied",
    "not_empty",
]

BATCH_ROWS: Final = 1_000
"""Rows of a batch, at most."""
BATCH_CHARACTERS: Final = 4_000_000
"""Characters after which a batch is full: a single row may hold megabytes."""
TABLES: Final[Mapping[str, tuple[int, tuple[str, ...]]]] = {
    "meta": (1, ("key", "value")),
    "jobs": (1, ("name", "definition", "origin", "seen_at")),
    "schedules": (
        1,
        ("id", "job", "trigger", "params", "next_due", "last_due", "anchor", "seen_at", "enabled", "origin"),
    ),
    "former": (2, ("id", "until", "job", "trigger", "anchor", "seen_at", "origin")),
    "switches": (
        1,
        ("id", "job", "kind", "actor", "reason", "since", "until", "ended_at", "ended_by", "missed", "ended_because"),
    ),
    "tokens": (
        1,
        ("id", "name", "scope", "digest", "created_at", "actor", "reason", "expires_at", "last_used_at", "revoked_at",
         "revoked_by", "revoked_because"),
    ),
    "workers": (
        1,
        ("id", "name", "host", "pid", "process", "started_at", "beat_at", "stopped_at", "beat_tick", "ended", "fires",
         "jobs", "version", "health"),
    ),
    "incidents": (1, ("id", "worker", "kind", "since", "until", "data")),
    "runs": (
        1,
        ("id", "job", "schedule", "state", "reason", "cause", "actor", "key", "params", "attempt", "attempts", "due_at",
         "until_at", "ready_at", "expires_at", "created_at", "started_at", "attempt_started_at", "ended_at", "worker",
         "token", "priority", "progress", "summary", "result", "error", "rerun_of", "count", "data", "group"),
    ),
    "attempts": (2, ("run", "token", "attempt", "worker", "started_at", "ended_at", "outcome", "error")),
    "steps": (
        2,
        ("run", "name", "place", "state", "attempt", "started_at", "ended_at", "result", "error", "kept"),
    ),
    "log": (1, ("id", "run", "token", "lines")),
    "wishes": (1, ("id", "run", "kind", "actor", "reason", "at")),
    "daily": (3, ("day", "job", "state", "runs", "took")),
    "audit": (
        1,
        ("id", "at", "actor", "channel", "action", "object", "job", "before", "after", "reason", "request_id"),
    ),
}  # fmt: skip
"""Of each table how many columns are its key, and the columns, the key first."""
OWN: Final = ("schema", "store", "clock_step")
"""Keys of `meta` that are of the store itself, or of the life of its machine: they are not copied."""

Row = Sequence[Any]


_json: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=bytes.hex).encode


class Batch(NamedTuple):
    """Rows of one table, with the columns of `TABLES`."""

    table: str
    rows: Sequence[Row]


class Copyable(Protocol):
    """What a kind of store gives so that it can be copied to and from; it is open."""

    url: str

    def export(self) -> AsyncGenerator[Batch, None]:
        """Every table, in the order of `TABLES`, by key; one consistent look, whatever is written meanwhile."""

    async def take_in(self, batches: AsyncIterator[Batch]) -> None:
        """Write all rows in one transaction, with their ids, so that the next ids are higher.

        Raises `Conflict` (see `not_empty`) where a table but `meta` has rows. Whatever is raised, nothing is written.
        """


@dataclass(slots=True)
class Sum:
    """What a table holds: its rows, and a checksum of them all."""

    rows: int = 0
    total: int = 0

    def add(self, rows: Sequence[Row]) -> None:
        for row in rows:
            digest = blake2b(_json(list(row)).encode(errors="surrogatepass"), digest_size=16).digest()
            self.total = (self.total + int.from_bytes(digest)) % (1 << 128)
        self.rows += len(rows)

    @property
    def checksum(self) -> str:
        return f"{self.total:032x}"


async def copied(source: Copyable, target: Copyable) -> Mapping[str, Sum]:
    """Copy every table, and give what was copied; read again from the target, it is the same.

    Raises `Conflict` where the target is not empty, `BadStore` where it holds something else afterwards. What is written
    to the source meanwhile is not in the copy: see `changed`.
    """
    read = {table: Sum() for table in TABLES}
    async with aclosing(_batches(source, read)) as given:
        await target.take_in(given)
    if wrong := await changed(target, read):
        raise BadStore(
            f"store {target.url} holds other rows than were copied, in {', '.join(wrong)}; somebody else wrote there "
            "meanwhile, or its disk is broken: remove it and copy again"
        )
    return read


async def changed(store: Copyable, since: Mapping[str, Sum]) -> list[str]:
    """The tables of a store that hold something else than they did."""
    now = {table: Sum() for table in TABLES}
    async with aclosing(_batches(store, now)) as read:
        async for _ in read:
            pass
    return [table for table in TABLES if now[table] != since[table]]


async def _batches(store: Copyable, sums: Mapping[str, Sum]) -> AsyncGenerator[Batch, None]:
    async with aclosing(store.export()) as tables:
        async for batch in tables:
            sums[batch.table].add(batch.rows)
            yield batch


def not_empty(url: str, rows: Mapping[str, int]) -> Conflict:
    """Why a store takes in no copy; `rows`: how many there are, by table."""
    told = ", ".join(f"{count} in {table}" for table, count in rows.items() if count)
    return Conflict(f"store {url} is not empty ({told}); a copy keeps ids, so name a new store")
