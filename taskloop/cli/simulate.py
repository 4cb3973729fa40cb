"""`taskloop simulate`: what would come due, and what would become of it, without doing any of it.

The jobs are those of the app, where one is named, as a start would lay them over the store; else those of the store. The
store is only read, so it works beside a running process. Start at `run`.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Final

from taskloop import cron, durations, outlook
from taskloop.cli import columns, picture, program, reach
from taskloop.cli.failures import Unwritable, Usage
from taskloop.cli.look import shown_there
from taskloop.cli.output import Cell, Output, clean
from taskloop.errors import BadInstant, NoSuchJob, nearest
from taskloop.signs import clock_text, readable, span_text
from taskloop.simulation import LONGEST, Setting, Simulation, simulate, simulation_record

if TYPE_CHECKING:
    from taskloop.ledger import Ledger

__all__ = ["run"]

ROWS: Final = 40
"""Jobs and overlaps that are shown to people; JSON has all."""


def run(args: Namespace) -> int:
    """Show what would happen; with `--strict` 1 where there are warnings."""
    return reach.drive(_run(args))


async def _run(args: Namespace) -> int:
    out = Output(args)
    settings = program.configured(args)
    name = args.tz or settings.options().timezone
    zone = cron.zone_of(name) if name else None
    start = _start(args.start, out.now, zone if args.tz else None)
    setting = await _setting(args, out.now, start)
    found = simulate(setting)
    if args.svg:
        _write(args.svg, picture.drawing(setting, found, zone))
        out.note(f"{args.svg} written")
    if out.format in ("jsonl", "csv"):
        out.items(simulation_record(found)["jobs"], lambda: None, columns=columns.FORECAST)
    else:
        out.record({**simulation_record(found), "timezone": name or "UTC"}, lambda: _show(out, setting, found, zone))
    return 1 if args.strict and found.warnings else 0


def _start(text: str | None, now: datetime, zone: tzinfo | None) -> datetime:
    """The instant from which on; one without an offset is of the zone that `--tz` names. None: this minute."""
    if text is None:
        return now.replace(second=0, microsecond=0)
    try:
        return durations.instant(text, now)
    except BadInstant:
        if (at := shown_there(text, zone)) is None:
            raise
        return at


async def _setting(args: Namespace, now: datetime, start: datetime) -> Setting:
    """What the simulation goes by: the program at hand, where an app is named or there is no store, over the store."""
    settings = program.configured(args)
    span = durations.parse_interval(args.span)
    if span > LONGEST:
        raise Usage(f"--for is {clean(args.span)}; allowed are {LONGEST.days}d at most")
    try:
        end = start + span
    except OverflowError:
        raise Usage(f"--from {clean(args.start)} and {durations.format(span)} more is after the year 9999") from None
    async with reach.bare(args) as store:
        ledger: Ledger
        if store is None or program.origin(settings) != "built in":
            ledger = program.compose(settings, store=store or "sqlite:///:memory:")
        else:
            from taskloop.ledger import Ledger as Desk

            ledger = Desk(store, options=settings.options())
        facts = outlook.Facts(jobs=list(ledger)) if store is None else await outlook.gather(ledger, store)
    takes = dict(_took(one) for one in args.durations or ())
    setting = outlook.setting(ledger, facts, now=now, start=start, end=end, takes=takes)
    known = {one.job for one in setting.schedules}
    for job in takes:
        if job not in known:
            raise NoSuchJob(job, nearest(job, known))
    return setting


def _took(text: str) -> tuple[str, timedelta]:
    job, equals, span = text.partition("=")
    if not equals:
        raise Usage(f"--duration is '{clean(text)}'; allowed is JOB=D, such as report=5m")
    return job, durations.parse(span)


def _write(name: str, text: str) -> None:
    try:
        Path(name).write_text(text, "utf-8")
    except OSError as error:
        raise Unwritable(clean(name), error) from None


# -- for people


def _show(out: Output, setting: Setting, found: Simulation, zone: tzinfo | None) -> None:
    length = durations.words(found.end - found.start)
    facts = [
        f"{len(found.jobs)} job{'' if len(found.jobs) == 1 else 's'}",
        f"{length} from {_when(found.start, found, zone)}",
        f"{found.fires:,} fire{'' if found.fires == 1 else 's'}",
    ]
    if found.busy:
        facts.append(f"{span_text(found.busy.total_seconds())} of work")
    if found.most:
        facts.append(f"at most {found.most} at once of {setting.max_running}")
    out.lines(_folded(facts, out.columns))
    for line in picture.lines(setting, found, zone, glyphs=out.glyphs, room=out.columns):
        out.line(clean(line))
    out.table(
        ("JOB", "FIRES", "FIRST", "LAST", "TAKES", "SKIPPED", "WAITS"),
        _rows(found, zone),
        spare=("LAST", "FIRST"),
        whole=("JOB", "FIRST", "LAST"),
    )
    if len(found.jobs) > ROWS:
        out.line(f"and {len(found.jobs) - ROWS} more jobs; --format json has all")
    for one in found.overlaps[:ROWS]:
        _told(out, "overdue", "overlap", f"{one.text}, first {_when(one.first, found, zone)}")
    if len(found.overlaps) > ROWS or found.left_out:
        out.line(f"and {len(found.overlaps) - ROWS if len(found.overlaps) > ROWS else 'some'} more overlaps")
    for note in found.notes:
        _told(
            out, "overdue" if note.level == "warning" else "waiting", note.kind, readable(note.text, found.start, zone)
        )


def _folded(facts: Sequence[str], room: int | None) -> Sequence[str]:
    """As many facts in a line as there is room for; None: all."""
    made = [facts[0]]
    for one in facts[1:]:
        longer = f"{made[-1]} · {one}"
        made[-1:] = [longer] if room is None or len(longer) <= room else [made[-1], one]
    return made


def _rows(found: Simulation, zone: tzinfo | None) -> Sequence[Sequence[Cell]]:
    # What is in trouble first: nobody reads a thousand lines for it.
    jobs = sorted(found.jobs, key=lambda one: (-(one.skipped + one.waits + one.cancelled), one.job))[:ROWS]
    return [
        [
            one.job, f"{one.fires:,}", _when(one.first, found, zone), _when(one.last, found, zone),
            "?" if one.takes is None else span_text(one.takes.total_seconds()),
            f"{one.skipped:,}" if one.skipped else "",
            f"{one.waits:,}, up to {span_text(one.longest_wait.total_seconds())}" if one.waits else "",
        ]
        for one in jobs
    ]  # fmt: skip


def _when(at: datetime | None, found: Simulation, zone: tzinfo | None) -> str:
    return "–" if at is None else clock_text(at, found.start - timedelta(days=1), zone)


def _told(out: Output, state: str, kind: str, text: str) -> None:
    out.line(f"{out.painted(state, '')} {kind:<9}{clean(text)}")
