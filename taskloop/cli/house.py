"""The commands that keep the store in order: `db upgrade`, `db prune`, `db check`, `db backup`."""

from __future__ import annotations

import asyncio
import os
import time
from argparse import Namespace
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from taskloop import durations
from taskloop.address import without_password
from taskloop.audit import entry
from taskloop.cli import reach
from taskloop.cli.failures import Failed, Usage
from taskloop.cli.output import Output, clean
from taskloop.errors import BadStore
from taskloop.parameters import check_words

if TYPE_CHECKING:
    from taskloop.store import Schema

__all__ = ["backup", "check", "prune", "upgrade"]

LEAST, MOST = 25, 1_000
"""Runs that one step of a pruning deletes: a run costs a third of the time where they are many."""
STEP_SECONDS: Final = 0.02
"""A step that took longer is followed by a smaller one: the writing of a scheduler waits as long, on SQLite."""


def upgrade(args: Namespace) -> int:
    """Bring the schema up to date."""

    async def work(store: Any, out: Output) -> int:
        older = store.upgraded_from
        text = "was up to date" if older is None else f"had schema {older}, and is up to date now"
        return _said(out, store, text, {"upgraded": older is not None})

    return reach.drive(_with_store(args, work, "upgrade"))


def check(args: Namespace) -> int:
    """Look for damage."""

    async def work(store: Any, out: Output) -> int:
        problems = list(await store.check())
        for problem in problems if out.format == "table" else ():
            out.line(clean(problem))
        count = f"{len(problems)} problem{'' if len(problems) == 1 else 's'}"
        _said(out, store, f"has {count}" if problems else "is sound", {"problems": problems})
        return 1 if problems else 0

    try:
        return reach.drive(_with_store(args, work, "any"))
    except BadStore as error:
        if "malformed" not in str(error.__cause__):
            raise
        problem = str(error)  # so damaged that it cannot be looked through
        facts = {"store": without_password(reach.address_of(reach.place(args))), "problems": [problem]}
        out = Output(args)
        out.record(facts, lambda: out.line(clean(problem)))
        return 1


def backup(args: Namespace) -> int:
    """Copy the store to a new file while it is in use."""
    if not args.target:
        raise Usage("FILE is ''", "name a new file, such as backup.db")
    if os.path.lexists(args.target):
        raise Failed(4, f"file {args.target} exists; it was left as it is", "name a new file")
    folder = Path(args.target).absolute().parent
    if not folder.is_dir():
        raise Usage(f"folder {folder} does not exist", "name a file in a folder that exists")

    async def work(store: Any, out: Output) -> int:
        await store.backup(args.target)
        return _said(out, store, f"is copied to {args.target}", {"backup": args.target})

    return reach.drive(_with_store(args, work, "any"))


def prune(args: Namespace) -> int:
    """Delete runs that ended long ago; those of a job that says itself how long they are kept, as it says."""
    if args.keep is not None:
        keep: timedelta | None = None if args.keep == "off" else durations.parse(args.keep)
    else:
        from taskloop.cli import program

        keep = program.configured(args).store.keep

    async def work(store: Any, out: Output) -> int:
        check_words(reason=args.reason, actor=args.actor)
        total, after, number = 0, None, LEAST
        now = min(out.now, await store.clock() or out.now)  # by a clock that is ahead of the server's nothing goes
        known = entry("prune", out.now, reach.actor(args), args.reason)
        with reach.heeding() as asked:  # what is deleted by then is deleted: it is said, and on record
            try:
                while True:
                    began = time.monotonic()
                    step = await store.prune(keep, now=now, after=after, limit=number)
                    total, after = total + step.deleted, step.after
                    if after is None or asked:
                        break
                    took = time.monotonic() - began
                    number = max(LEAST, number // 2) if took > STEP_SECONDS else min(MOST, number * 2)
                    await asyncio.sleep(took)  # a scheduler may wait for its turn to write
            finally:
                if known is not None:
                    facts = {"deleted": total, "keep": None if keep is None else durations.format(keep)}
                    await store.record([known._replace(after=facts)])
        span = "as each job says" if keep is None else f"for {durations.format(keep)}, or as a job says"
        runs = "1 run more than is kept" if total == 1 else f"{total} runs more than are kept"
        if after is not None:
            _said(
                out,
                store,
                f"had {runs} ({span}), and maybe others: stopped; these are deleted",
                {"deleted": total, "stopped": True},
            )
            return 128 + asked[0]
        return _said(out, store, f"had {runs} ({span}); now deleted", {"deleted": total})

    return reach.drive(_with_store(args, work, "newest"))


async def _with_store(args: Namespace, work: Callable[[Any, Output], Awaitable[int]], schema: Schema) -> int:
    async with reach.bare(args, schema) as store:
        if store is None:
            raise Failed(8, *reach.none_yet(args))
        return await work(store, Output(args))


def _said(out: Output, store: Any, text: str, facts: dict[str, Any]) -> int:
    address = without_password(store.url)
    out.record({"store": address, **facts}, lambda: out.line(clean(f"store {address} {text}")))
    return 0
