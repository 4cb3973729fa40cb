"""The commands that switch and hold jobs: `enable`, `disable`, `pause`, `resume`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from taskloop import durations
from taskloop.cli import columns, reach
from taskloop.cli.output import Output, clean
from taskloop.records import JobRecord, job_record
from taskloop.signs import clock_text

if TYPE_CHECKING:
    from taskloop.ledger import Ledger

__all__ = ["disable", "enable", "pause", "resume"]

Verb = Callable[["Ledger", str | None, dict[str, Any]], Awaitable[None]]


def enable(args: Namespace) -> int:
    """Switch jobs on."""

    async def verb(ledger: Ledger, job: str | None, told: dict[str, Any]) -> None:
        await ledger.enable(str(job), **told)

    return reach.drive(_change(args, verb, "on"))


def disable(args: Namespace) -> int:
    """Switch jobs off."""

    async def verb(ledger: Ledger, job: str | None, told: dict[str, Any]) -> None:
        await ledger.disable(str(job), until=args.until, **told)

    return reach.drive(_change(args, verb, "off", "due fires are skipped, a submit is refused"))


def pause(args: Namespace) -> int:
    """Hold jobs, none named: all of them."""

    async def verb(ledger: Ledger, job: str | None, told: dict[str, Any]) -> None:
        await ledger.pause(job, until=args.until, **told)

    return reach.drive(_change(args, verb, "paused", "nothing new starts, due fires are kept"))


def resume(args: Namespace) -> int:
    """End a pause."""

    async def verb(ledger: Ledger, job: str | None, told: dict[str, Any]) -> None:
        await ledger.resume(job, missed=args.missed, **told)

    return reach.drive(_change(args, verb, "resumed"))


async def _change(args: Namespace, verb: Verb, said: str, effect: str = "") -> int:
    """Do `verb` to every job named, or to all at once, and say how they stand now. All names are checked first."""
    out, told = Output(args), {"actor": reach.actor(args), "reason": args.reason}
    async with reach.desk(args) as ledger:
        await reach.known(ledger, args, args.jobs)
        for number, job in enumerate(args.jobs or [None]):
            try:
                await verb(ledger, job, told)
            except BaseException:  # Ctrl-C too
                if number:
                    out.note(f"done before this failed: {', '.join(args.jobs[:number])} {said}")
                raise
        found = [one for one in await ledger.jobs() if not args.jobs or one.name in args.jobs]
        everything = await ledger.paused()

    def show() -> None:
        until = (
            f" until {clock_text(durations.instant(args.until, out.now), out.now)}"
            if getattr(args, "until", None)
            else ""
        )
        means = f": {effect}" if effect else ""
        for job in args.jobs:
            out.line(clean(f"{job} is {said}{until}{means}"))
        if not args.jobs:
            out.line(f"all jobs are {said}{until}{means}")

    out.items([job_record(one) for one in found], show, columns=columns.JOB)
    if said in ("on", "resumed") and everything is not None:
        out.note("all jobs are paused, so it does not start yet; `taskloop resume` ends that")
    for one in found if args.jobs else ():
        if note := _beside(one, said, ends=bool(getattr(args, "until", None))):
            out.note(clean(note))
    return 0


def _beside(job: JobRecord, said: str, *, ends: bool) -> str | None:
    """What else stands in a job's way beside what was done to it now; None: nothing."""
    if said == "on" and job.switch is not None and job.switch.kind == "paused" and job.switch.job is not None:
        return f"{job.name} is paused, so it does not start yet; `taskloop resume {job.name}` ends that"
    if said in ("paused", "resumed") and not job.enabled:
        until = " when the pause ends" if said == "paused" else ""
        return f"{job.name} is off, so its fires are skipped{until}; `taskloop enable {job.name}` ends that"
    if said == "off" and ends and not job.policy["enabled"]:
        return f"{job.name} is off by its declaration too, so it stays off then; `taskloop enable {job.name}` ends that"
    return None
