"""The commands that touch no store: `cron`, `check`, `init`."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from taskloop import durations
from taskloop.address import without_password
from taskloop.cli.failures import Failed, Unwritable, Usage
from taskloop.cli.look import number, shown_there
from taskloop.cli.output import Cell, Output, span_text
from taskloop.cron import zone_of
from taskloop.errors import BadCron, BadInstant
from taskloop.triggers import Cron, Trigger

if TYPE_CHECKING:
    from taskloop.scheduler import TaskScheduler

__all__ = ["check", "cron", "init", "unfit"]


def cron(args: Namespace) -> int:
    """Explain an expression and list its next fires."""
    out, count = Output(args), number(args.count, "--count", most=1000)
    trigger = _trigger(args.expression, args.timezone or "UTC")
    at: datetime | None = _from(args.start, out.now, zone_of(args.timezone) if args.timezone else None)
    fires: list[datetime] = []
    while at is not None and len(fires) < count:
        at = trigger.after(at)
        fires += [at] if at is not None else []
    records = [{"at": durations.rfc3339(one)} for one in fires]
    record = {
        "expression": trigger.expression,
        "timezone": trigger.timezone,
        "text": trigger.describe(),
        "items": records,
        "next": None,
    }
    if out.format in ("jsonl", "csv"):
        out.items(records, lambda: None, columns=("at",))
    else:
        out.record(record, lambda: _show_fires(out, trigger, fires))
    return 0


def _from(text: str | None, now: datetime, zone: tzinfo | None) -> datetime:
    """The instant from which on; one without an offset is of the zone that `--timezone` names. None: now."""
    try:
        return durations.ahead(text, now) if text else now
    except BadInstant:
        if text is None or (at := shown_there(text, zone)) is None:
            raise
        return at


def _trigger(words: Sequence[str], timezone: str) -> Cron:
    try:
        return Cron(" ".join(words), timezone=timezone)
    except BadCron as error:
        if not any(os.path.lexists(one) and not one.isdecimal() for one in words):
            raise
        raise Usage(
            str(error),
            "in the place of a bare * the shell puts the names of files here; quote the expression: "
            "taskloop cron '0 2 * * *'",
        ) from None


def _show_fires(out: Output, trigger: Cron, fires: list[datetime]) -> None:
    from zoneinfo import ZoneInfo

    zone = ZoneInfo(trigger.timezone or "UTC")
    out.line(f"{trigger.expression}  {trigger.describe()}")
    rows: list[list[Cell]] = []
    for one in fires:
        local = one.astimezone(zone)
        left = (one - out.now).total_seconds()
        rows.append([f"{local:%a %d %b %Y %H:%M:%S %Z}", f"in {span_text(left)}" if left >= 0 else ""])
    out.table(("NEXT", ""), rows)


# -- check


def check(args: Namespace) -> int:
    """Validate the configuration and the jobs, offline. All that is wrong in the configuration is told at once."""
    from taskloop.cli import program

    out = Output(args)
    settings = program.configured(args)
    for warning in settings.warnings:
        out.note(f"warning: {warning}")
    scheduler = program.compose(settings)
    place = program.place(scheduler, settings)
    address = without_password(place if isinstance(place, str) else getattr(place, "url", repr(place)))
    found = [
        _found("config", ok=True, text=args.config or ("config.toml" if Path("config.toml").is_file() else "no file")),
        _found("jobs", ok=True, text=f"{len(scheduler)}, {program.origin(settings)}"),
        _found("store", ok=True, text=f"{address} (not opened)"),
        *(_found(f"job {name}", ok=False, text=text) for name, text in unfit(scheduler, out.now)),
    ]
    out.items(found, lambda: out.table(("", "CHECK", "FOUND"), [_check_row(out, one) for one in found]))
    return 0 if all(one["ok"] for one in found) else 1


def _found(name: str, *, ok: bool, text: str) -> dict[str, Any]:
    return {"name": name, "ok": ok, "text": text}


def _check_row(out: Output, one: dict[str, Any]) -> list[Cell]:
    return [out.state("ok" if one["ok"] else "failed", ""), one["name"], one["text"]]


def unfit(scheduler: TaskScheduler, now: datetime) -> list[tuple[str, str]]:
    """What is wrong with single jobs, by name: triggers that never come, parameters whose types make no form."""
    return [
        (job.name, text)
        for job in scheduler
        for text in (_never(scheduler, job.trigger, now), _said(job.parameters.schema))
        if text
    ]


def _never(scheduler: TaskScheduler, trigger: Trigger | None, now: datetime) -> str:
    if trigger is None or scheduler.resolved(trigger).after(now) is not None:
        return ""
    return f"'{trigger}' will not fire any more: {trigger.describe()}"


def _said(work: Callable[[], object]) -> str:
    try:
        work()
    except Exception as error:  # annotations are foreign code
        return f"its parameters have no JSON Schema: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return ""


# -- init

CONFIG: Final = """\
# The configuration of taskloop. docs/configuration.md has every key; `taskloop check` finds mistakes.

[scheduler]
app = "tasks:jobs"              # the Jobs in tasks.py
# timezone = "Europe/London"    # of every cron that names none; UTC

[store]
url = "sqlite:///taskloop.db"

[git_metrics]                   # the built-in job: what happened in these repositories
repositories = ["."]

# [jobs.hello]                  # the operator's word on a job; it wins over the code
# every = "10m"
# enabled = false
"""
NO_GIT: Final = """
[jobs.git_metrics]
enabled = false                 # here is no git repository; name some above and take this away
"""

TASKS: Final = '''\
"""The jobs of this program. Try: taskloop list; taskloop once hello name=you; taskloop run."""

from __future__ import annotations

import asyncio

from taskloop import Jobs, RunContext

jobs = Jobs()


@jobs.every("1m", timeout="30s")
async def hello(run: RunContext, name: str = "world") -> str:
    """Say hello, slowly."""
    for done in range(3):
        run.progress(done, 3, "thinking")
        await asyncio.sleep(0.2)
    return f"hello {name}"


@jobs.cron("0 2 * * *", retry=3)
def tidy() -> None:
    """Runs every night; a plain function has a thread of its own."""
'''


def init(args: Namespace) -> int:
    """Write a configuration and a file with two jobs; what is there already is left alone."""
    out, written = Output(args), []
    here = Path.cwd()
    has_git = any((folder / ".git").exists() for folder in (here, *here.parents))
    for name, text in (("config.toml", CONFIG if has_git else CONFIG + NO_GIT), ("tasks.py", TASKS)):
        made = False
        try:
            with Path(name).open("x", encoding="utf-8") as file:
                made = True
                file.write(text)
            written.append(name)
        except FileExistsError:
            out.note(f"{name} exists; it was left as it is")
        except OSError as error:
            if made:  # half of it would be taken for the user's own next time
                with suppress(OSError):
                    Path(name).unlink()
            raise Unwritable(name, error, f"check the folder {Path.cwd()}") from None
    out.items([{"file": name} for name in written], lambda: out.lines(f"{name} written" for name in written))
    if not written:
        raise Failed(4, "both files exist already", "nothing was changed")
    out.note(f"next: {_next_steps(written)}")
    return 0


def _next_steps(written: Sequence[str]) -> str:
    """What works with what was written beside what was there: that may have another app, or other jobs."""
    if "tasks.py" not in written:
        return "taskloop check; taskloop run"
    if "config.toml" not in written:
        return (
            "taskloop once hello name=you --app tasks:jobs; "
            'for good these jobs come by app = "tasks:jobs" under [scheduler] of config.toml'
        )
    return "taskloop check; taskloop once hello name=you; taskloop run"
