"""The commands on tokens of the admin API: `token create`, `token list`, `token revoke`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from taskloop.cli import columns, reach
from taskloop.cli.look import number
from taskloop.cli.output import Cell, Output, clean, when
from taskloop.errors import NoSuchToken
from taskloop.records import token_record

if TYPE_CHECKING:
    from taskloop.tokens import Token

__all__ = ["create", "revoke", "show"]


def create(args: Namespace) -> int:
    """Make a token."""
    return reach.drive(_create(args))


async def _create(args: Namespace) -> int:
    out = Output(args)
    async with reach.desk(args) as ledger:
        token, text = await ledger.keyring.create(
            args.name, args.scope, expires=args.expires, actor=reach.actor(args), reason=args.reason
        )
    record = token_record(token, out.now)
    until = "for good" if token.expires_at is None else f"until {when(record['expires_at'], out.now)}"
    out.record({**record, "token": text}, lambda: out.line(text))
    out.note(f"token {token.id} of {token.name}, scope {token.scope}, {until}: it is shown this once, keep it safe")
    return 0


def show(args: Namespace) -> int:
    """Show the tokens."""
    return reach.drive(_show(args))


async def _show(args: Namespace) -> int:
    out, limit = Output(args), number(args.limit, "--limit", most=1000)
    async with reach.reading(args) as ledger:
        found: list[Token] = []
        if ledger is None:
            out.note("; ".join(reach.none_yet(args)))
        else:
            found = await ledger.keyring.tokens(before=args.before, limit=limit + 1)
    page, next_id = [token_record(one, out.now) for one in found[:limit]], None
    if len(found) > limit:
        next_id = found[limit - 1].id
    out.items(page, lambda: _table(out, page), columns=columns.TOKEN, next_id=next_id)
    if next_id is not None and out.format == "table":
        out.note(f"more: --before {next_id}")
    return 0


def _table(out: Output, page: Sequence[Mapping[str, Any]]) -> None:
    heads = ("NAME", "ID", "SCOPE", "STATE", "CREATED", "EXPIRES", "LAST USED")
    out.table(heads, [_row(out, one) for one in page], spare=("CREATED", "ID"))


def _row(out: Output, one: Mapping[str, Any]) -> list[Cell]:
    state: Cell = one["state"]
    if one["revoked_at"]:
        by = f" by {one['revoked_by']}" if one["revoked_by"] else ""
        why = f': "{one["revoked_because"]}"' if one["revoked_because"] else ""
        state = f"revoked{by}{why}"
    made = when(one["created_at"], out.now) + (f" by {one['by']}" if one["by"] else "")
    expires = "never" if one["expires_at"] is None else when(one["expires_at"], out.now)
    used = "never" if one["last_used_at"] is None else when(one["last_used_at"], out.now)
    return [one["name"], one["id"], one["scope"], state, made, expires, used]


def revoke(args: Namespace) -> int:
    """Take tokens back."""
    return reach.drive(_revoke(args))


async def _revoke(args: Namespace) -> int:
    out = Output(args)
    revoked: list[Token] = []
    async with reach.reading(args, "upgrade") as ledger:
        if ledger is None:
            raise NoSuchToken(args.names[0])
        for name in args.names:
            revoked += await ledger.keyring.revoke(name, actor=reach.actor(args), reason=args.reason)
    page = [token_record(one, out.now) for one in revoked]
    told = (f"token {one.id} of {one.name} is revoked: servers refuse it within seconds" for one in revoked)
    out.items(page, lambda: out.lines(clean(text) for text in told), columns=columns.TOKEN)
    return 0
