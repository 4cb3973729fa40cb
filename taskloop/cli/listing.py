"""`taskloop list`: every job with its next fire, its last run and its condition.

Quick where the store is a file that is there already; else the program says which jobs it would have.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from taskloop.cli import columns, glance, reach
from taskloop.cli.output import Cell, Output, clean, moment, since_text, span_text, when
from taskloop.runs import error_told

if TYPE_CHECKING:
    from taskloop.records import JobRecord

__all__ = ["failing", "jobs", "next_fire", "result_cell"]


def jobs(args: Namespace) -> int:
    """Show the jobs that the store knows; before there is a store, those that the configuration declares."""
    out = Output(args)
    reach.warn_of_strangers(args)
    path = None if args.app else reach.store_file(args)
    records = glance.jobs(path, datetime.now(UTC)) if path is not None else None
    if not records:
        records = reach.drive(_asked(args))
    out.items(records, lambda: _show(out, records), columns=columns.JOB)
    return 0


async def _asked(args: Namespace) -> list[dict[str, Any]]:
    """The jobs of the store by its verbs, or those of the program where the store knows none."""
    from taskloop.ledger import Ledger
    from taskloop.options import Options
    from taskloop.records import job_record

    async with reach.bare(args) as store:
        found = await Ledger(store, options=Options()).jobs() if store is not None and not args.app else []
    if not found:
        from taskloop.cli import program

        declared = program.compose(program.configured(args), store=store or "sqlite:///:memory:")
        try:
            found = await declared.jobs()
        finally:
            await declared.close()
    return [job_record(one) for one in found]


def _show(out: Output, records: Sequence[Mapping[str, Any]]) -> None:
    heads = ("JOB", "SCHEDULE", "NEXT", "LEFT", "LAST", "STATE", "RESULT")
    out.table(heads, [_row(out, one) for one in records], spare=("SCHEDULE", "LAST", "NEXT"), whole=("JOB", "NEXT"))
    if not out.is_terminal:
        return
    counts = [f"{len(records)} job{'' if len(records) == 1 else 's'}"]
    for condition in ("failing", "paused", "disabled", "running"):
        count = sum(one["condition"] == condition for one in records)
        counts += [f"{count} {'off' if condition == 'disabled' else condition}"] if count else []
    sys.stdout.flush()
    out.note(" · ".join(counts))


def _row(out: Output, job: Mapping[str, Any]) -> list[Cell]:
    due = moment(job["next_due"])
    left = "" if due is None else "now" if due <= out.now else span_text((due - out.now).total_seconds())
    last = job["last_run"]
    ended = moment(last["ended_at"] or last["started_at"] or last["created_at"]) if last else None
    ago = "never" if ended is None else f"{span_text(max(0.0, (out.now - ended).total_seconds()))} ago"
    is_off = job["condition"] == "disabled"
    return [
        job["name"],
        job["trigger_text"],
        "–" if is_off else when(job["next_due"], out.now),
        "" if is_off else left,
        ago,
        _state(out, job),
        result_cell(last) if last else "",
    ]


def failing(times: int) -> str:
    """That a job is not well, and how often in a row it failed; never, if its last run was only interrupted."""
    return f"failing {times}x" if times else "failing"


def _state(out: Output, job: Mapping[str, Any]) -> Cell:
    condition, switch = job["condition"], job["switch"]
    if condition == "failing":
        return out.state(condition, failing(job["consecutive_failures"]))
    if condition in ("disabled", "paused"):
        who = f" by {switch['by']}" if switch and switch["by"] else ""
        why = f': "{switch["reason"]}"' if switch and switch["reason"] else ""
        return out.state(condition, f"{'off' if condition == 'disabled' else 'paused'}{who}{why}")
    return out.state(condition)


def result_cell(run: Mapping[str, Any]) -> Cell:
    """What a run came to, in a few words."""
    error = run["error"]
    took = since_text(run["started_at"], run["ended_at"])
    if run["state"] in ("failed", "interrupted"):
        said = error_told(error["type"], run["summary"] or error["message"]) if error else run["reason"] or run["state"]
        return clean(said.partition("\n")[0]), "red"
    if run["state"] == "running" and run["progress"]:
        progress = run["progress"]
        return f"{progress['fraction']:.0%} {progress['message']}".strip(), "blue"
    if run["state"] in ("skipped", "cancelled"):
        times = f" (x{run['count']})" if run["count"] > 1 else ""
        return f"{run['reason'] or ''}{times}", ""
    return "  ".join(part for part in (took, run["summary"] or "") if part), ""


def next_fire(records: Iterable[JobRecord], names: Collection[str]) -> tuple[str, datetime] | None:
    """Which of the jobs `names` fires next and when, None: none does."""
    due = [(one.next_due, one.name) for one in records if one.enabled and one.next_due and one.name in names]
    if not due:
        return None
    at, name = min(due)
    return name, at
