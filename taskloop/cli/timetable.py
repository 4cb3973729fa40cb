"""The commands on stored schedules: `schedule add`, `schedule list`, `schedule remove`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from taskloop import durations
from taskloop.cli import columns, reach
from taskloop.cli.ask import declared, values
from taskloop.cli.failures import Usage
from taskloop.cli.look import given_text, number
from taskloop.cli.output import Output, clean, when
from taskloop.errors import Conflict, NoSuchSchedule
from taskloop.records import schedule_record
from taskloop.schedules import Schedule, usual_id
from taskloop.triggers import At, Cron, Every, Trigger

if TYPE_CHECKING:
    from taskloop.ledger import Ledger

__all__ = ["add", "remove", "show", "take_out"]


def add(args: Namespace) -> int:
    """Store a schedule."""
    return reach.drive(_add(args))


async def _add(args: Namespace) -> int:
    out = Output(args)
    trigger = _trigger(args, out.now)
    async with reach.desk(args) as ledger:
        name = usual_id(args.job, trigger) if args.id is None else args.id
        # Before the job is made known here without its trigger.
        if name in {one.name for one in await ledger.jobs() if one.trigger is not None}:
            raise Conflict(f"schedule '{name}' is that of the job of this name; choose another --id")
        given = values(args.values, await declared(ledger, args, args.job))
        told = {"actor": reach.actor(args), "reason": args.reason}
        stored = await ledger.schedule(args.job, trigger, id=name, params=given, **told)
    record = schedule_record(stored)
    text = f"schedule {stored.id}: {stored.job} {stored.trigger.describe()}, next {when(record['next_due'], out.now)}"
    out.record(record, lambda: out.line(clean(text)))
    return 0


def _trigger(args: Namespace, now: datetime) -> Trigger:
    if args.timezone and not args.cron:
        raise Usage("--timezone belongs to --cron; leave it out")
    if args.cron:
        return Cron(args.cron, timezone=args.timezone)
    if args.every:
        return Every(args.every)
    at = At(durations.instant(args.at, now))
    if at.after(now) is None:
        raise Usage(
            f"--at is {clean(args.at)}, which has passed: it would only be skipped, as missed",
            f"give an instant to come, or run it now: taskloop submit {clean(args.job)}",
        )
    return at


def show(args: Namespace) -> int:
    """Show the schedules."""
    return reach.drive(_show(args))


async def _show(args: Namespace) -> int:
    out, limit = Output(args), number(args.limit, "--limit", most=1000)
    async with reach.reading(args) as ledger:
        if ledger is None:
            out.note("; ".join(reach.none_yet(args)))
            found = []
        else:
            if args.job:
                await reach.known(ledger, args, [args.job])
            found = await ledger.schedules(args.job, before=args.before, limit=limit + 1)
    page, next_id = [schedule_record(one) for one in found[:limit]], found[limit - 1].id if len(found) > limit else None
    out.items(page, lambda: _table(out, page), columns=columns.SCHEDULE, next_id=next_id)
    return 0


def _table(out: Output, page: Sequence[Mapping[str, Any]]) -> None:
    heads = ("ID", "JOB", "TRIGGER", "NEXT", "ORIGIN", "PARAMETERS")
    rows = [
        [
            one["id"],
            one["job"],
            one["trigger_text"],
            when(one["next_due"], out.now),
            one["origin"],
            given_text(one["params"]),
        ]
        for one in page
    ]
    out.table(heads, rows, spare=("ORIGIN",), whole=("ID", "NEXT"))


def remove(args: Namespace) -> int:
    """Remove stored schedules, and declared ones of jobs that are gone."""
    return reach.drive(_remove(args))


async def _remove(args: Namespace) -> int:
    out, gone = Output(args), list[Schedule]()
    try:
        async with reach.reading(args) as ledger:
            if ledger is None:
                raise NoSuchSchedule(args.ids[0])
            found = [await _removable(ledger, args, name) for name in args.ids]
            async for one in take_out(ledger, found, actor=reach.actor(args), reason=args.reason):
                gone.append(one)
    finally:  # what was removed is told, whatever came after it
        if gone:
            page = [schedule_record(one) for one in gone]
            out.items(page, lambda: out.lines(clean(f"schedule {one.id} removed") for one in gone))
    return 0


async def _removable(ledger: Ledger, args: Namespace, name: str) -> Schedule:
    """The schedule of that id. Raises `NoSuchSchedule`, and `Conflict` for one that would be back."""
    from taskloop import looking

    one = await looking.schedule(ledger, name)
    if one is None:
        raise NoSuchSchedule(name)
    if one.origin != "stored" and await reach.has_code(ledger, args, one.job):
        raise Conflict(
            f"schedule '{name}' is declared by {one.origin}, it would be back at the next start; "
            f"take it out there, or `taskloop disable {one.job}`"
        )
    return one


async def take_out(
    ledger: Ledger, schedules: Sequence[Schedule], *, actor: str | None, reason: str | None
) -> AsyncIterator[Schedule]:
    """Remove schedules, yielding each one removed. Raises `NoSuchSchedule` at the end, for the first that was gone."""
    missing: NoSuchSchedule | None = None
    for one in schedules:
        try:
            await ledger.unschedule(one.id, actor=actor, reason=reason)
        except NoSuchSchedule as error:
            missing = missing or error
        else:
            yield one
    if missing is not None:
        raise missing
