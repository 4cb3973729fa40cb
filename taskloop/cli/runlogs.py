"""The command that shows what a run said: `logs`."""

from __future__ import annotations

import asyncio
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from taskloop.cli import columns, reach
from taskloop.cli.look import number
from taskloop.cli.output import Output, clean, json_text, when
from taskloop.errors import NoSuchRun
from taskloop.records import line_record

if TYPE_CHECKING:
    from taskloop.ledger import Ledger

__all__ = ["logs"]

LOOK_SECONDS: Final = 0.3
"""How often `-f` looks for what is new."""
LINES: Final = 5_000
"""Lines of a log that are read at once."""
_COLOURS: Final = {"warning": "yellow", "error": "red", "critical": "red", "debug": "dim"}


def logs(args: Namespace) -> int:
    """Show the log of a run; 3 when there is no such run."""
    return reach.drive(_logs(args))


async def _logs(args: Namespace) -> int:
    out, run_id = Output(args), number(args.id, "RUN")
    async with reach.reading(args) as ledger:
        if ledger is None:
            raise NoSuchRun(run_id)
        if args.follow:
            await _follow(ledger, run_id, out)
            return 0
        found, _ = await _rest(ledger, run_id, 0)
        out.items(found, lambda: _show(out, found), columns=columns.LINE)
        if not found and out.format == "table":
            run = await ledger.run(run_id)
            out.note(f"run {run_id} of {run.job} has said nothing" + ("" if run.final else " so far"))
    return 0


async def _follow(ledger: Ledger, run_id: int, out: Output) -> None:
    """Show what is there and what comes, until the run has ended."""
    part = 0
    while True:
        run = await ledger.run(run_id)  # before its lines: the last of them are written with its end
        found, part = await _rest(ledger, run_id, part)
        if out.format == "table":
            _show(out, found)
        else:
            for one in found:
                out.line(json_text(one))
        sys.stdout.flush()
        if run.final:
            return
        await asyncio.sleep(LOOK_SECONDS)


async def _rest(ledger: Ledger, run_id: int, part: int) -> tuple[list[dict[str, Any]], int]:
    lines: list[dict[str, Any]] = []
    while True:
        found = await ledger.log(run_id, after=part, limit=LINES)
        lines += [line_record(one) for one in found.lines]
        if found.part == part:
            return lines, part
        part = found.part


def _show(out: Output, lines: Sequence[Mapping[str, Any]]) -> None:
    for one in lines:
        time = when(one["at"], out.now)
        level = f"{one['level']:<8}"
        painted = out.paint(level, _COLOURS[one["level"]]) if one["level"] in _COLOURS else level
        step = f"[{one['step']}] " if one["step"] else ""
        first, *more = clean(f"{step}{one['text']}", keep="\n").split("\n")
        out.line(f"{time} {painted} {first}".rstrip())
        out.lines(f"{'':<{len(time) + 10}}{text}" for text in more)
