"""`taskloop once`: run what is due, one job or all jobs, then end."""

from __future__ import annotations

import asyncio
import time
from argparse import Namespace
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from taskloop import durations, looking
from taskloop.audit import through
from taskloop.cli import columns, lines, program, reach
from taskloop.cli.ask import ENDINGS, values
from taskloop.cli.failures import Failed, Usage
from taskloop.cli.look import run_lines, show_runs
from taskloop.cli.narrow import Narrow
from taskloop.cli.output import Output, span_text
from taskloop.cli.session import Session
from taskloop.errors import Conflict
from taskloop.records import run_record
from taskloop.runs import Cause, Run, State
from taskloop.store import Store

if TYPE_CHECKING:
    from taskloop.scheduler import TaskScheduler
    from taskloop.settings import Settings

__all__ = ["once"]

LOOK_SECONDS = 0.2


def once(args: Namespace) -> int:
    """Run what is due, one job or all jobs, then end."""
    if args.job and (args.due or args.all):
        raise Usage(f"'{args.job}' and {'--due' if args.due else '--all'} cannot be together; give one of them")
    settings = program.configured(args)
    with lines.opened(args, settings.log.format, "DEBUG" if args.verbose else settings.log.level) as log:
        narrator = lines.Narrator("DEBUG" if args.verbose else settings.log.level)
        program.warn(settings, narrator)
        way = _one if args.job else _all if args.all else _due
        return reach.drive(way(args, settings, narrator, log), channel="code")


def _seconds(args: Namespace) -> float | None:
    return durations.parse_interval(args.timeout).total_seconds() if args.timeout else None


async def _one(args: Namespace, settings: Settings, narrator: lines.Narrator, log: lines.Log) -> int:
    """One run of one job."""
    out, seconds = Output(args), _seconds(args)
    scheduler = program.to_run(settings, lambda store: Narrow(store, only=[args.job], fires=False).as_store())
    job = scheduler[args.job]
    given = job.parameters.check(values(args.values, job.parameters.schema()))
    session: Session[Run] = Session(scheduler, narrator, log)
    asked: list[Run] = []

    async def work() -> Run:
        await _refuse_paused(scheduler, [job.name])
        with through("cli"):
            handle = await scheduler.submit(job, given, actor=reach.actor(args), reason=args.reason, cause=Cause.CLI)
        asked.append(handle.run)
        return await handle.wait()

    def show(run: Run) -> None:
        out.record(run_record(run), lambda: run_lines(out, run_record(run)))

    def show_asked() -> None:
        for one in asked:
            show(session.seen.get(one.id, one))

    run = await _driven(session, work, seconds, args, show_asked)
    if run is None:
        return 128 + (session.signal or 0)
    show(run)
    return ENDINGS.get(run.state, 1)


async def _all(args: Namespace, settings: Settings, narrator: lines.Narrator, log: lines.Log) -> int:
    """A run of every enabled job that needs no parameters."""
    scheduler = program.to_run(settings, lambda store: Narrow(store, fires=False).as_store())
    session: Session[list[Run]] = Session(scheduler, narrator, log)
    began = time.monotonic()

    async def work() -> list[Run]:
        await _refuse_paused(scheduler, [job.name for job in scheduler])
        with through("cli"):
            found = await scheduler.run_all(actor=reach.actor(args), reason=args.reason, cause=Cause.CLI)
        await session.look_again()
        return found

    found = await _driven(session, work, _seconds(args), args, lambda: _show(args, session.seen.values()))
    if found is None:
        return 128 + (session.signal or 0)
    return _told(args, session, found, f"{len(found)} jobs", began)


async def _due(args: Namespace, settings: Settings, narrator: lines.Narrator, log: lines.Log) -> int:
    """Everything that is due by now, and what was submitted meanwhile."""
    narrow: list[Narrow] = []

    def wrap(store: Store) -> Store:
        narrow.append(Narrow(store, one_round=True))
        return narrow[0].as_store()

    scheduler = program.to_run(settings, wrap)
    session: Session[list[Run]] = Session(scheduler, narrator, log)
    began, holding = time.monotonic(), [""]

    async def work() -> list[Run]:
        await narrow[0].nothing_due.wait()
        while session.active or await _ready(scheduler):
            session.stirred.clear()
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await session.stirred.wait()
            except TimeoutError:
                continue
        await session.look_again()
        holding.append(await _holding(scheduler))
        return list(session.seen.values())

    found = await _driven(session, work, _seconds(args), args, lambda: _show(args, session.seen.values()))
    if found is None:
        return 128 + (session.signal or 0)
    return _told(args, session, found, f"{len(found)} due", began, holding[-1])


async def _driven(
    session: Session[Any], work: Any, seconds: float | None, args: Namespace, show: Callable[[], object]
) -> Any:
    """What the work gave, None after a signal; where the time is up before, `show` shows what there is by then."""
    try:
        return await session.drive(work, seconds)
    except TimeoutError:
        show()
        cut = _named(session, State.CANCELLED, State.INTERRUPTED, State.RUNNING) or "nothing"
        waits = f"; still waiting: {left}" if (left := _named(session, State.WAITING)) else ""
        raise Failed(
            9,
            f"not done after {args.timeout}; cancelled: {cut}{waits}",
            "give it longer with --timeout, or look: taskloop runs",
        ) from None


def _named(session: Session[Any], *states: State) -> str:
    return ", ".join(f"{run.id} of {run.job}" for run in session.seen.values() if run.state in states)


async def _refuse_paused(scheduler: TaskScheduler, names: Sequence[str]) -> None:
    """A submitted run would wait for the end of a pause, and so would the command."""
    for one in await scheduler.jobs():
        if one.condition == "paused" and one.name in names:
            whose = f" {one.name}" if one.switch is not None and one.switch.job is not None else ""
            raise Conflict(
                f"job '{one.name}' is paused; `taskloop resume{whose}`, or `taskloop submit` to have it run then"
            )


async def _ready(scheduler: TaskScheduler) -> bool:
    """Whether a run waits that could start here now."""
    now, before = datetime.now(UTC), None
    ready: set[str] = set()
    while waiting := await scheduler.runs(state="waiting", before=before, limit=1000):
        ready |= {run.job for run in waiting if run.job in scheduler and run.ready_at <= now}
        before = waiting[-1].id
    return bool(ready) and ready != await looking.held(scheduler, ready)


async def _holding(scheduler: TaskScheduler) -> str:
    """What a pause keeps from being due, in words; empty: nothing."""
    paused = [one.name for one in await looking.stands(scheduler) if one.condition == "paused"]
    everything, fires = await scheduler.paused() is not None, await scheduler.held() if paused else 0
    if not everything and not fires:
        return ""
    who, whom = ("all jobs are", "") if everything else (f"{len(paused)} jobs are", " JOB")
    if not everything and len(paused) == 1:
        who, whom = f"'{paused[0]}' is", f" {paused[0]}"
    return f"; {who} paused, which holds {fires} fire{'' if fires == 1 else 's'}; `taskloop resume{whom}` ends that"


def _show(args: Namespace, found: Iterable[Run]) -> Output:
    out, records = Output(args), [run_record(run) for run in sorted(found, key=lambda run: -run.id)]
    out.items(records, lambda: show_runs(out, records), columns=columns.RUN)
    return out


def _told(
    args: Namespace, session: Session[Any], found: Sequence[Run], what: str, began: float, holding: str = ""
) -> int:
    """Show the runs, say how many came to what, and give the exit code."""
    out = _show(args, found)
    ok, skipped = session.counted(State.SUCCEEDED), session.counted(State.SKIPPED)
    failed, cancelled = session.counted(State.FAILED, State.INTERRUPTED), session.counted(State.CANCELLED)
    later = session.counted(State.WAITING, State.RUNNING)
    more = (f", {cancelled} cancelled" if cancelled else "") + (f", {later} to be tried again" if later else "")
    took = span_text(time.monotonic() - began)
    out.note(f"once: {what}, {ok} ok, {failed} failed, {skipped} skipped{more} in {took}{holding}")
    if failed or cancelled:
        return 1
    return 10 if skipped and skipped == len(found) else 0
