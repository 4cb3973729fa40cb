"""The commands that ask for runs and for their end: `submit`, `rerun`, `cancel`."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Union
from uuid import UUID

from taskloop import durations
from taskloop.address import without_password
from taskloop.cli import reach
from taskloop.cli.entrance import before_exit
from taskloop.cli.failures import Failed, Usage
from taskloop.cli.look import number, run_lines
from taskloop.cli.output import Output, clean
from taskloop.errors import BadStore, Conflict, NoSuchJob, StoreUnavailable, nearest
from taskloop.masking import MASK
from taskloop.parameters import FIXED, RESERVED
from taskloop.records import run_record
from taskloop.runs import Cause, Run, State

if TYPE_CHECKING:
    from taskloop.handles import RunHandle
    from taskloop.jobs import Job
    from taskloop.ledger import Ledger
    from taskloop.records import JobRecord

__all__ = ["ENDINGS", "ask_to_end", "cancel", "declared", "rerun", "submit", "values", "waits_for"]

ENDINGS: Final = {State.SUCCEEDED: 0, State.SKIPPED: 10}
"""The exit code of a command that waited for a run, by its state; 1 for all others."""
LOOK: Final = timedelta(seconds=2)
"""How often a command that waits looks at what it waits for."""
_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "string": (str,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}
_FORMATS: Final[dict[str, type]] = {
    "date": date,
    "date-time": datetime,
    "time": time,
    "duration": timedelta,
    "uuid": UUID,
}


def submit(args: Namespace) -> int:
    """Ask for a run of a job."""
    return reach.drive(_submit(args))


async def _submit(args: Namespace) -> int:
    out = Output(args)
    async with reach.desk(args) as ledger:
        schema = await declared(ledger, args, args.job)
        given = ledger[args.job].parameters.check(values(args.values, schema))
        _check(args, args.key)
        await _refuse_to_wait_for_nobody(ledger, args, args.job, f"or run it here: taskloop once {args.job}")
        handle = await ledger.submit(
            args.job, given, at=args.at, key=args.key, actor=reach.actor(args), reason=args.reason, cause=Cause.CLI
        )
        return await _asked(ledger, handle, args, out)


def _check(args: Namespace, key: str | None) -> None:
    """Before anything is asked for: who hears that the command was wrong may send it again. Raises `BadDuration`, `Usage`."""
    if args.timeout:
        durations.parse(args.timeout)
        if not args.wait:
            raise Usage("--timeout says how long --wait waits", "give --wait too; how long a run may take its job says")
    if key is not None and not key.strip():  # a variable of the shell that is empty is no key for all
        raise Usage("--key is empty", "leave it out, or name what shall run once: --key remind-7")


def rerun(args: Namespace) -> int:
    """Ask for a run like an earlier one."""
    return reach.drive(_rerun(args))


async def _rerun(args: Namespace) -> int:
    out, run_id = Output(args), number(args.id, "RUN")
    async with reach.desk(args) as ledger:
        job = (await ledger.run(run_id)).job
        given = values(args.values, await declared(ledger, args, job))
        _check(args, None)
        await _refuse_to_wait_for_nobody(
            ledger, args, job, "or leave --wait out, and run what waits here: taskloop once"
        )
        handle = await ledger.rerun(
            run_id, given, from_step=args.from_step, actor=reach.actor(args), reason=args.reason
        )
        return await _asked(ledger, handle, args, out)


def cancel(args: Namespace) -> int:
    """Ask for the end of a run."""
    return reach.drive(_cancel(args))


async def _cancel(args: Namespace) -> int:
    out, run_id = Output(args), number(args.id, "RUN")
    async with reach.desk(args) as ledger:
        run = await ask_to_end(ledger, run_id, reason=args.reason, actor=reach.actor(args))
    said = "is cancelled" if run.final else "is asked to end"
    out.record(run_record(run), lambda: out.line(clean(f"run {run.id} of {run.job} {said}")))
    return 0


async def ask_to_end(ledger: Ledger, run_id: int, *, reason: str | None, actor: str | None) -> Run:
    """Cancel a run, and give it as it stands then. Raises `NoSuchRun`, and `Conflict` for one that had ended before."""
    run = await ledger.run(run_id)
    if not run.final:
        run = await ledger.cancel(run_id, reason=reason, actor=actor)
        if not run.final or run.state is State.CANCELLED:
            return run
    raise Conflict(f"run {run_id} {run.state} already; `taskloop rerun {run_id}` runs it again")


async def _refuse_to_wait_for_nobody(ledger: Ledger, args: Namespace, job: str, or_here: str) -> None:
    """With `--wait` somebody must be there to run it; looked at before anything is asked for."""
    missing = await reach.missing_worker(ledger, job) if args.wait else None
    if missing is not None:
        store = without_password((await ledger.status()).store)
        raise Failed(
            5,
            f"{missing}, so nothing was submitted (store {store})",
            "start one: taskloop run",
            or_here,
        )


async def _asked(ledger: Ledger, handle: RunHandle[Any], args: Namespace, out: Output) -> int:
    """Say what was asked for, and with `--wait` what it came to."""
    run = handle.run
    if not args.wait:
        state = "exists already, " if run.existed else ""
        out.record(run_record(run), lambda: out.line(clean(f"run {run.id} of {run.job}: {state}{run.state}")))
        missing = await reach.missing_worker(ledger, run.job)
        if missing is not None:
            out.note(f"warning: {missing}; the run waits until one is started: taskloop run")
        return 0
    leave = _farewell(run)
    before_exit.append(leave)
    try:
        ended = await _ended(ledger, run, durations.parse(args.timeout) if args.timeout else None, out)
    except TimeoutError:
        now = run_record(await ledger.run(run.id))
        out.record(now, lambda: run_lines(out, now))
        raise Failed(
            9,
            f"run {run.id} of {run.job} has not ended after {durations.format(durations.parse(args.timeout))}; it goes on",
            f"taskloop show {run.id}",
            f"taskloop cancel {run.id}",
        ) from None
    except (BadStore, StoreUnavailable) as error:
        what, _, mend = str(error).rpartition("; ")
        raise Failed(
            8,
            f"run {run.id} of {run.job} is on record, but {what or mend}",
            *([mend] if what else []),
            f"taskloop show {run.id}, once the store is back",
        ) from error
    finally:
        before_exit.remove(leave)
    out.record(run_record(ended), lambda: run_lines(out, run_record(ended)))
    return ENDINGS.get(ended.state, 1)


async def _ended(ledger: Ledger, run: Run, span: timedelta | None, out: Output) -> Run:
    """The final record; of one that is not there soon it is told what it waits for. Raises `TimeoutError` after `span`."""
    left, told = span, ""
    while True:
        look = LOOK if left is None else min(LOOK, left)
        try:
            return await ledger.wait(run.id, look)
        except TimeoutError:
            left = None if left is None else left - look
            if left == timedelta(0):
                raise
        now = await ledger.run(run.id)
        why = await waits_for(ledger, now)
        said = f"run {run.id} of {run.job}: {now.state}" + (f"; {why}" if why else "")
        if said != told and not now.final:
            out.note(said)
        told = said


async def waits_for(ledger: Ledger, run: Run) -> str | None:
    """What keeps a run from going on, as far as a look at the records tells; None: nothing known, or it has gone on."""
    found = await _hindrance(ledger, run)
    if found is None:
        return None
    now = await ledger.run(run.id)  # it may have begun, or ended with a worker that left in order, since it was read
    went_on = (now.state, now.attempt, now.worker) != (run.state, run.attempt, run.worker)
    return None if went_on else found


async def _hindrance(ledger: Ledger, run: Run) -> str | None:
    if run.state is State.RUNNING:
        if any(one.id == run.worker for one in await reach.living(ledger)):
            return None
        return "its worker is gone; the next one ends it: taskloop run"
    if run.ready_at > datetime.now(UTC):
        return None
    if (await ledger.status()).paused:
        return "all jobs are paused; taskloop resume"
    if any(one.name == run.job and one.condition == "paused" for one in await ledger.jobs()):
        return f"its job is paused; taskloop resume {run.job}"
    missing = await reach.missing_worker(ledger, run.job)
    return f"taskloop why {run.id} says what for" if missing is None else f"{missing}; start one: taskloop run"


def _farewell(run: Run) -> Callable[[], None]:
    def say() -> None:
        sys.stderr.write(f"run {run.id} goes on; taskloop show {run.id}, or taskloop cancel {run.id}\n")
        sys.stderr.flush()

    return say


# -- a job that may be known from the code, or only from the store


async def declared(ledger: Ledger, args: Namespace, job: str) -> Mapping[str, Any]:
    """Make the ledger able to submit a job, and give the JSON Schema of its parameters. Raises `NoSuchJob`.

    By the code where it declares the job, which knows every type; else by what a worker said of it.
    """
    if job in ledger:
        return ledger[job].parameters.schema()
    from taskloop.cli import program

    declared = program.compose(program.configured(args))
    if job in declared:
        one, laid = declared[job], declared.options
        if one.kind == "flow":  # with its steps
            ledger.adopt(one)
            return one.parameters.schema()
        options: Any = one.options
        added: Job[..., Any] = ledger.add_job(
            one.function, None, name=job, params=one.params, aliases=one.aliases, **options
        )
        added.configure(laid.defaults, laid._laid_over(job), None, laid.params.get(job))
        return added.parameters.schema()
    remembered = {one.name: one for one in await ledger.jobs()}
    if job not in remembered:
        raise NoSuchJob(job, nearest(job, {*remembered, *(one.name for one in declared)}))
    return _remember(ledger, remembered[job])


def _remember(ledger: Ledger, record: JobRecord) -> Mapping[str, Any]:
    """Declare a job by its record: the names and types of its parameters, its attempts, its group, its state."""
    schema, policy = record.params_schema, record.policy
    properties = schema.get("properties", {})
    hidden = [name for name, one in properties.items() if one.get("writeOnly")]
    needed = {*schema.get("required", ()), *(name for name in record.params if name in hidden)}  # which no record shows

    def elsewhere() -> None:
        raise NotImplementedError("this job runs where its code is")

    elsewhere.__annotations__ = {
        name: Annotated[_annotation(one, schema), RESERVED]
        if FIXED in one and name not in hidden  # of what no record shows nobody can say the same
        else _annotation(one, schema)
        for name, one in properties.items()
    }
    parameters = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=Parameter.empty if name in needed else None)
        for name in properties
    ]
    elsewhere.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    ledger.add_job(
        elsewhere,
        None,
        name=record.name,
        params={name: value for name, value in record.params.items() if name not in hidden},
        secret=hidden,
        retry=policy["retry"],
        priority=policy["priority"],
        group=policy.get("group"),
        enabled=policy["enabled"],
    )
    return schema


def _annotation(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    """The type that a JSON Schema was most likely made from."""
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    if "enum" in schema:
        return Literal[tuple(schema["enum"])]
    kinds = tuple(kinds_of(schema, root))
    return Union[kinds] if kinds else Any  # noqa: UP007 - made at run time


# -- values of a command line


def values(words: Sequence[str], schema: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters that `k=v`, `k:=json`, `@file.json` and `-` give, each by its type. Raises `Usage`."""
    given: dict[str, Any] = {}
    named: set[str] = set()  # by a word of its own: such a one may go over what a file says, but not over another
    for word in words:
        if word == "-" or word.startswith("@"):
            given |= _object(word)
            continue
        name, equals, text = word.partition("=")
        if not equals or not name.strip(":"):
            raise Usage(f"'{clean(word)}' is no parameter; write name=value, name:=json, @file.json or -")
        properties = schema.get("properties", {})
        bare = name.removesuffix(":")
        if bare in named:
            raise Usage(
                f"parameter '{clean(bare)}' is given twice; give it once, several values as a list: name:=[1, 2]"
            )
        named.add(bare)
        if name.endswith(":"):
            is_secret = properties.get(bare, {}).get("writeOnly")
            given[bare] = _json(text, f"{name}={MASK}" if is_secret else word)
        else:
            given[name] = _typed(text, properties.get(name, {}), schema)
    return given


def _object(word: str) -> dict[str, Any]:
    try:
        found = _json(sys.stdin.read() if word == "-" else Path(word[1:]).read_text("utf-8"), word)
    except (OSError, UnicodeDecodeError) as error:
        raise Usage(f"'{clean(word)}' cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise Usage(f"'{clean(word)}' holds no object of parameters; write {{\"name\": value}}")
    return found


def _json(text: str, word: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise Usage(f"'{clean(word)}' is no JSON: {error}; for a text write name=value") from None


def _typed(text: str, schema: Mapping[str, Any], root: Mapping[str, Any]) -> Any:
    """A text as the type that the parameter has; what cannot be read stays a text, for the job to refuse."""
    kinds = kinds_of(schema, root)
    try:
        read = json.loads(text)
    except ValueError:
        return text
    if isinstance(read, bool):
        return read if bool in kinds and str not in kinds else text
    return read if isinstance(read, tuple(kinds - {bool})) and str not in kinds else text


def kinds_of(schema: Mapping[str, Any], root: Mapping[str, Any]) -> set[type]:
    """The Python types that a parameter takes, as far as its JSON schema says."""
    if "$ref" in schema:
        name = str(schema["$ref"]).rpartition("/")[2]
        schema = (schema.get("$defs") or root.get("$defs") or {}).get(name, {})
    found = {kind for one in schema.get("anyOf", ()) for kind in kinds_of({**one, "$defs": schema.get("$defs")}, root)}
    found |= set(_KINDS.get(str(schema.get("type")), ()))
    found |= {type(one) for one in schema.get("enum", ())} | ({type(schema["const"])} if "const" in schema else set())
    if not found and schema.get("default") is not None:
        found = {type(schema["default"])}
    return found
