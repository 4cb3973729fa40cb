"""The commands that read through the ledger: `status`, `show`, `runs`, `next`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from typing import TYPE_CHECKING, Any, Final

from taskloop import durations
from taskloop.address import without_password
from taskloop.cli import columns, reach
from taskloop.cli.failures import Usage
from taskloop.cli.listing import failing, result_cell
from taskloop.cli.output import Cell, Output, clean, json_text, moment, readable, since_text, span_text, when
from taskloop.errors import NoSuchJob, NoSuchRun, nearest
from taskloop.masking import shown
from taskloop.records import Status, attempt_record, instant_text, job_record, run_record, status_record
from taskloop.runs import Run, State, error_told
from taskloop.signs import item_text
from taskloop.steps import FROM_STEP

if TYPE_CHECKING:
    from taskloop.ledger import Ledger

__all__ = ["given_text", "number", "run_lines", "runs", "show", "show_runs", "shown_there", "status", "upcoming"]

Record = Mapping[str, Any]


def number(text: str, option: str, *, most: int | None = None) -> int:
    """A whole number of a command line, from 1. Raises `Usage`."""
    if not text.isdecimal() or not text.isascii() or len(text) > 18 or not 1 <= int(text) <= (most or 10**18):
        raise Usage(f"{option} is '{clean(text)}'; allowed is a whole number from 1{f' to {most}' if most else ''}")
    return int(text)


def shown_there(text: str, zone: tzinfo | None) -> datetime | None:
    """The instant at which the clock of a zone shows a date or time that names no offset; None: the text is none, or no zone."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if zone is None or at.tzinfo is not None else durations.absolute(at.replace(tzinfo=zone))


# -- runs


def runs(args: Namespace) -> int:
    """Show the history."""
    return reach.drive(_runs(args))


async def _runs(args: Namespace) -> int:
    out, limit = Output(args), number(args.limit, "--limit", most=1000)
    before = number(args.before, "--before") if args.before else None
    since = durations.since(args.since, out.now) if args.since else None
    states = [_state(one.strip()) for one in args.state.split(",")] if args.state else None
    found: list[Run] = []
    async with reach.reading(args) as ledger:
        if ledger is None:
            out.note("; ".join(reach.none_yet(args)))
        else:
            found = await ledger.runs(args.job, state=states, since=since, before=before, limit=limit + 1)
        if args.job and not found:
            await reach.known(ledger, args, [args.job])
    more, page = len(found) > limit, [run_record(one) for one in found[:limit]]
    next_id = page[-1]["id"] if more else None
    out.items(page, lambda: show_runs(out, page), columns=columns.RUN, next_id=next_id)
    if next_id is not None and out.format == "table":
        out.note(f"more: --before {next_id}")
    if ledger is not None and not page and out.format == "table":
        out.note("no such run is on record")
    return 0


def _state(word: str) -> State:
    try:
        return State(word)
    except ValueError:
        near = nearest(word, list(State))
        meant = f"did you mean '{near}'? " if near else ""
        raise Usage(f"--state: no state '{clean(word)}'", f"{meant}states are: {', '.join(State)}") from None


def show_runs(out: Output, page: Sequence[Record]) -> None:
    heads = ("RUN", "JOB", "STATE", "DUE", "TOOK", "TRY", "CAUSE", "RESULT")
    out.table(
        heads,
        [_run_row(out, one) for one in page],
        spare=("CAUSE", "TRY", "TOOK", "DUE"),
        whole=("JOB", "STATE", "DUE"),
    )


def _run_row(out: Output, run: Record) -> list[Cell]:
    took = since_text(run["started_at"], run["ended_at"])
    tries = f"{run['attempt']}/{run['attempts']}" if run["attempts"] > 1 and run["attempt"] else ""
    cause = run["cause"] + (f" by {run['actor']}" if run["actor"] else "")
    told = result_cell({**run, "started_at": None})
    return [str(run["id"]), run["job"], out.state(run["state"]), when(run["due_at"], out.now), took, tries, cause, told]


# -- next

_HELD: Final = ("disabled", "paused", "orphan")
"""The conditions of a job in which its fires do not start it: switched off, paused, or there is no worker that has it."""


def upcoming(args: Namespace) -> int:
    """Show the coming fires."""
    return reach.drive(_upcoming(args))


async def _upcoming(args: Namespace) -> int:
    out, limit = Output(args), number(args.limit, "--limit", most=1000)
    until = out.now + durations.parse_interval(args.span) if args.span else None
    async with reach.reading(args) as ledger:
        if ledger is None:
            out.note("; ".join(reach.none_yet(args)))
            fires = []
        else:
            if args.job:
                await reach.known(ledger, args, [args.job])
            fires = await ledger.upcoming(until, limit + 1, job=args.job)
            kept = {one.name: one.condition for one in await ledger.jobs() if one.condition in _HELD}
            is_told = bool(fires or await ledger.schedules(limit=1))
    records = [
        {
            "at": instant_text(at),
            "job": one.job,
            "schedule": one.id,
            "trigger": str(one.trigger),
            "trigger_text": one.trigger.describe(),
            "params": shown(one.params),
            "held": kept.get(one.job),
        }
        for at, one in fires[:limit]
    ]
    out.items(records, lambda: _show_fires(out, records), columns=columns.FIRE)
    if len(fires) > limit and out.format == "table" and (args.span or args.job):
        out.note(f"and more: --limit {min(1000, 5 * limit)}" if limit < 1000 else "and more")
    if ledger is not None and not records and out.format == "table":
        whose, within = f" of '{args.job}'" if args.job else "", f" within {args.span}" if args.span else ""
        if is_told:
            out.note(f"no fire{whose} is to come{within}")
        else:
            out.note("no schedule is in the store; those of a program come there when it starts: `taskloop run`")
    return 0


def _show_fires(out: Output, records: Sequence[Record]) -> None:
    rows: list[list[Cell]] = []
    for one in records:
        at = moment(one["at"])
        left = max(0.0, (at - out.now).total_seconds()) if at else 0.0
        held: Cell = out.state(one["held"], "off" if one["held"] == "disabled" else None) if one["held"] else ""
        rows.append(
            [
                when(one["at"], out.now),
                span_text(left) if left else "now",
                one["job"],
                one["schedule"],
                one["trigger_text"],
                held,
            ]
        )
    out.table(
        ("AT", "IN", "JOB", "SCHEDULE", "TRIGGER", "NOTE"), rows, spare=("SCHEDULE", "TRIGGER"), whole=("AT", "JOB")
    )


# -- status


def status(args: Namespace) -> int:
    """Show how the whole stands; 1 when something needs attention."""
    return reach.drive(_status(args))


async def _status(args: Namespace) -> int:
    out = Output(args)
    async with reach.reading(args) as ledger:
        found = _nothing_yet(args) if ledger is None else await ledger.status()
        record = status_record(found)
        record["store"] = without_password(record["store"])
    if ledger is None:
        out.note("; ".join(reach.none_yet(args)))
    out.record(record, lambda: None if ledger is None else _show_status(out, record, found))
    return 1 if record["attention"] else 0


def _nothing_yet(args: Namespace) -> Status:
    """How a program stands that has no store: as it does before its first start."""
    store = reach.address_of(reach.place(args))
    return Status(
        running=False, enabled=True, workers=(), paused=None, jobs=0, waiting=0, in_hand=0, active=(), store=store
    )


def _show_status(out: Output, record: Record, found: Status) -> None:
    workers, attention = found.at_work, record["attention"]
    people = ", ".join(f"{one.host} pid {one.pid}" for one in workers[:5])
    running = f"{len(workers)} worker{'' if len(workers) == 1 else 's'} ({people})" if workers else "no worker runs"
    if others := len(found.workers) - len(workers):
        running += f", {others} only submit{'s' if others == 1 else ''}"
    out.line(
        out.painted("failing" if attention else "ok" if workers else "waiting", "")
        + clean(
            f" {running} · {record['jobs']} jobs · {found.in_hand} running, {record['waiting']} waiting · {record['store']}"
        )
    )
    if not workers:  # a server that takes no writes, a right that is missing, a full disk: to look is no cause to write
        out.line("  `taskloop run` starts one; `taskloop doctor` tells what would keep it from its work")
    if record["paused"]:
        pause = record["paused"]
        out.line(
            "  "
            + clean(
                f"all jobs are paused since {when(pause['at'], out.now)}"
                + (f" by {pause['by']}" if pause["by"] else "")
                + (f", until {when(pause['until'], out.now)}" if pause["until"] else "")
                + (f': "{pause["reason"]}"' if pause["reason"] else "")
            )
        )
    for one in attention:
        word = failing(one["failures"]) if one["condition"] == "failing" else one["condition"]
        painted = out.painted(one["condition"], word)
        name = f"{clean(one['job'])}  " if one["job"] else ""
        out.line(f"  {name}{painted}  {clean(item_text(one, out.now))}".rstrip())
    show_runs(out, record["active"])


# -- show


def show(args: Namespace) -> int:
    """Show a job or a run."""
    return reach.drive(_show(args))


async def _show(args: Namespace) -> int:
    out = Output(args)
    is_run = args.subject.isdecimal()
    async with reach.reading(args) as ledger:
        if ledger is None and is_run:
            raise NoSuchRun(number(args.subject, "RUN"))
        if ledger is None:
            return await _show_declared(args, out)
        if is_run:
            return await _show_run(ledger, number(args.subject, "RUN"), out)
        records = {one.name: one for one in await ledger.jobs()}
        if args.subject not in records:
            await reach.known(ledger, args, [args.subject])
            return await _show_declared(args, out)
        job = job_record(records[args.subject])
        last = [run_record(one) for one in await ledger.runs(args.subject, limit=5)]
        schedules = await ledger.schedules(args.subject, limit=20)
        fires = await ledger.upcoming(limit=3, job=args.subject)
    out.record(job, lambda: _show_job(out, job))
    if out.format == "table":
        if fires:
            out.line("next:        " + ", ".join(when(instant_text(at), out.now) for at, _ in fires))
        for one in schedules:
            given = f" with {given_text(shown(one.params))}" if one.params else ""
            out.line(clean(f"schedule:    {one.id}  {one.trigger.describe()}{given}  ({one.origin})"))
        if last:
            out.line("")
        show_runs(out, last)
    return 0


async def _show_declared(args: Namespace, out: Output) -> int:
    """A job that no worker has told the store of yet."""
    from taskloop.cli import program

    declared = program.compose(program.configured(args), store="sqlite:///:memory:")
    try:
        records = {one.name: one for one in await declared.jobs()}
    finally:
        await declared.close()
    if args.subject not in records:
        raise NoSuchJob(args.subject, nearest(args.subject, records))
    job = job_record(records[args.subject])
    out.record(job, lambda: _show_job(out, job))
    return 0


def _show_job(out: Output, job: Record) -> None:
    out.line(f"{out.paint(clean(job['name']), 'bold')}  {out.painted(job['condition'])}")
    facts = [("", job["description"]), ("runs", job["trigger_text"])]
    if job["switch"]:
        switch = job["switch"]
        facts.append(
            (
                "switched",
                f"{switch['kind']} by {switch['by'] or 'somebody'} at {when(switch['at'], out.now)}"
                + (f': "{switch["reason"]}"' if switch["reason"] else "")
                + (f", until {when(switch['until'], out.now)}" if switch["until"] else ""),
            )
        )
    facts.append(
        (
            "policy",
            ", ".join(
                f"{name} {_policy_text(value)}"
                for name, value in job["policy"].items()
                if value not in (None, [], "") and name not in ("title", "description")
            ),
        )
    )
    for name, schema in job["params_schema"].get("properties", {}).items():
        needed = name in job["params_schema"].get("required", ())
        facts.append(("parameter", f"{name}: {_type_text(schema)}" + (" (needed)" if needed else "")))
    for label, text in facts:
        if text:
            out.line(
                clean(f"{label + ':':<13}{text.partition(chr(10))[0]}" if label else f"  {text.partition(chr(10))[0]}")
            )
    if job.get("steps"):
        from taskloop.cli.graph import picture

        out.line("steps:")
        for line in picture(job["steps"]):
            out.line(clean(f"  {line}"))


def _policy_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{value.get('attempts')}x"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _type_text(schema: Record) -> str:
    default = schema.get("default")
    said = default if isinstance(default, str) else json_text(default)
    return _kind_text(schema, schema.get("$defs", {})) + (f" = {said}" if "default" in schema else "")


def _kind_text(schema: Record, known: Mapping[str, Record]) -> str:
    """What a value is, with what an array holds and the members of an object; `known`: what a `$ref` may name."""
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    if name in known:  # one that holds others like itself is told once
        return _kind_text(known[name], {other: one for other, one in known.items() if other != name})
    if "anyOf" in schema:
        return " or ".join(_kind_text(one, known) for one in schema["anyOf"])
    text = name or str(schema.get("format") or schema.get("type") or "any")
    if "enum" in schema:
        text += " one of " + ", ".join(map(str, schema["enum"]))
    if {"minimum", "maximum"} <= schema.keys():
        text += f" from {schema['minimum']} to {schema['maximum']}"
    if isinstance(schema.get("items"), Mapping) and schema["items"]:
        text += f" of {_kind_text(schema['items'], known)}"
    if members := schema.get("properties"):
        needed = schema.get("required", ())
        told = (f"{one}{'' if one in needed else '?'}: {_kind_text(kind, known)}" for one, kind in members.items())
        text += f" {{{', '.join(told)}}}"
    return text


def given_text(params: Mapping[str, Any]) -> str:
    """Parameters as they are written behind a command: `user=7 period:={"first": "2026-03-01"}`."""
    return " ".join(
        f"{name}={value}" if isinstance(value, str) else f"{name}{'' if _is_plain(value) else ':'}={json_text(value)}"
        for name, value in params.items()
    )


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float)


async def _show_run(ledger: Ledger, run_id: int, out: Output) -> int:
    from taskloop.explaining import lost_by, plan, waits_for
    from taskloop.looking import identities, run_in_full

    run, made, steps = await run_in_full(ledger, run_id)
    attempts, again, waits = [*map(attempt_record, made)], await ledger.reruns(run_id), await waits_for(ledger, run)
    lost, record = await lost_by(ledger, run), run_record(run)
    workers = await identities(ledger, {run.worker, *(one.worker for one in made)})
    out.record(record, lambda: run_lines(out, record, attempts, workers))
    if lost and out.format == "table":
        out.line(f"{'lost:':<13}{readable(out, lost)}")
    if waits and out.format == "table":
        out.line(f"{'waits:':<13}{readable(out, waits, [run.error.message] if run.error else ())}")
    if again and out.format == "table":
        out.line(clean(f"{'run again:':<13}{', '.join(f'run {one.id} ({one.state})' for one in again)}"))
    if steps and out.format == "table":
        from taskloop.cli.graph import step_rows, step_to_go_on_at

        if run.final and run.state is not State.SUCCEEDED and not again:
            step = step_to_go_on_at(await plan(ledger, run.job), steps)
            if step is not None:
                out.line(clean(f"{'go on:':<13}taskloop rerun {run.id} --from-step {step}"))
        out.line("")
        out.table(("STEP", "STATE", "TOOK", "TRY", "RESULT"), step_rows(out, steps, run.state))
    return 0


def run_lines(
    out: Output, run: Record, attempts: Sequence[Record] = (), workers: Mapping[str, str] | None = None
) -> None:
    """A run in full. `workers`: who they are, by their ids."""
    workers = workers or {}
    head = out.paint(clean(f"run {run['id']} of {run['job']}"), "bold")
    out.line(f"{head}  {out.painted(run['state'])}")
    facts = [
        (
            "cause",
            run["cause"]
            + (f" by {run['actor']}" if run["actor"] else "")
            + (f", again for run {run['rerun_of']}" if run["rerun_of"] else "")
            + (f" from step {run['data'][FROM_STEP]}" if FROM_STEP in run["data"] else ""),
        ),
        ("cancelled", f"by {run['data']['cancelled_by']}" if "cancelled_by" in run["data"] else None),
        ("reason", run["reason"]),
        ("worker", workers.get(run["worker"], run["worker"])),
        ("asked", run["data"].get("asked_because")),
        ("key", run["key"]),
        ("params", given_text(run["params"])),
        ("due", when(run["due_at"], out.now)),
        ("started", when(run["started_at"], out.now) if run["started_at"] else None),
        ("ended", when(run["ended_at"], out.now) if run["ended_at"] else None),
        ("took", since_text(run["started_at"], run["ended_at"])),
        ("summary", run["summary"]),
    ]
    if run["progress"] and run["ended_at"] is None:
        facts.append(("progress", f"{run['progress']['fraction']:.0%} {run['progress']['message']}"))
    for label, text in facts:
        if text:
            out.line(f"{label + ':':<13}{clean(text)}")
    _show_outcome(out, run, attempts, workers)


def _show_outcome(out: Output, run: Record, attempts: Sequence[Record], workers: Mapping[str, str]) -> None:
    result = run["result"]
    if isinstance(result, Mapping) and {"steps", "total_steps", "completed_count"} <= set(result):
        failed = f", failed: {', '.join(map(str, result['failed_steps']))}" if result.get("failed_steps") else ""
        told = f"{result['completed_count']} of {result['total_steps']} steps succeeded{failed}"
        out.line(clean(f"{'steps:':<13}{told}"))
    elif result is not None and result != run["summary"]:
        out.line(f"{'result:':<13}{_cut(json_text(result))}")
    if len(attempts) > 1:
        for one in attempts:
            error = error_told(one["error"]["type"], one["error"].get("message")) if one["error"] else ""
            if one["outcome"] == "lost":
                error = workers.get(one["worker"], "")
            took = since_text(one["started_at"], one["ended_at"])
            out.line(
                clean(f"attempt {one['attempt']}:   {one['outcome']} {took}  {error.partition(chr(10))[0]}").rstrip()
            )
    error = run["error"]
    if error:
        out.line(f"{'error:':<13}{error_told(clean(error['type']), clean(error['message'], keep=chr(10)))}")
        for line in (error["traceback"] or "").rstrip().splitlines():
            out.line(clean(f"  {line}"))


def _cut(text: str, limit: int = 2000) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}… (the rest with --format json)"
