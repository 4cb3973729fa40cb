"""`taskloop why`: the chain from a timetable to a call, link by link, for one instant or one run."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import Any, Final

from taskloop import durations
from taskloop.cli import reach
from taskloop.cli.failures import Failed
from taskloop.cli.look import number
from taskloop.cli.output import Output, clean, readable, when
from taskloop.errors import NoSuchJob
from taskloop.why import Explanation, explanation_record, said

__all__ = ["why"]

SKIPPED: Final = 10
_SIGNS: Final = {
    "ran": "ok",
    "running": "running",
    "waiting": "waiting",
    "did_not_run": "failed",
    "will_run": "waiting",
    "not_due": "skipped",
    "unknown": "warning",
}


def why(args: Namespace) -> int:
    """Explain an instant or a run; 0 when it ran, 10 when it did not."""
    return reach.drive(_why(args))


async def _why(args: Namespace) -> int:
    out = Output(args)
    if args.at:  # refused before a store is looked for
        durations.since(args.at, out.now)
    is_run = args.subject.isdecimal()
    async with reach.reading(args) as ledger:
        if ledger is None:
            if not is_run:
                await reach.known(ledger, args, [args.subject])
            raise Failed(3, *reach.none_yet(args))
        if is_run:
            found = await ledger.why(run=number(args.subject, "RUN"))
        else:
            found = await _about_job(ledger, args)
    record = explanation_record(found)
    out.record(record, lambda: _show(out, record, said(found)))
    return 0 if found.verdict in ("ran", "running") else SKIPPED


async def _about_job(ledger: Any, args: Namespace) -> Explanation:
    try:
        found: Explanation = await ledger.why(args.subject, args.at or None)
    except NoSuchJob:
        await reach.known(ledger, args, [args.subject])
        raise Failed(
            3, f"no worker has told the store of job '{clean(args.subject)}' yet", "taskloop run, or taskloop once"
        ) from None
    return found


def _show(out: Output, record: Mapping[str, Any], said: Sequence[str]) -> None:
    out.line(f"{out.painted(_SIGNS[record['verdict']], '')} {readable(out, record['text'], said)}")
    for place, check in enumerate(record["checks"], 1):
        sign = out.painted("ok" if check["ok"] else "never_ran" if check["ok"] is None else "failed", "")
        out.line(f"  {place:>2} {sign} {check['name']:<10} {readable(out, check['text'], said)}")
    if record["remedies"]:
        out.line("What can be done: " + clean(" · ".join(record["remedies"])))
    beside = [_beside(out, record[name]) for name in ("previous", "next") if record[name]]
    if beside:
        out.line("Nearest fires: " + " · ".join(beside))
    if record["evidence"] == "partial":
        out.line("Some facts of that time are not on record any more, or never were.")


def _beside(out: Output, fire: Mapping[str, Any]) -> str:
    at = when(fire["due_at"], out.now)
    if fire["run"] is None:
        return at
    why = f" ({fire['reason']})" if fire["reason"] else ""
    return clean(f"{at} {fire['state']}{why}, run {fire['run']}")
