"""`taskloop run`: the scheduler in the foreground, until a signal comes or its time is over."""

from __future__ import annotations

import asyncio
import gc
import os
from argparse import Namespace
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from taskloop import __version__, durations
from taskloop.address import without_password
from taskloop.cli import http, lines, program, reach
from taskloop.cli.entrance import before_exit
from taskloop.cli.failures import Failed, Usage
from taskloop.cli.narrow import Narrow
from taskloop.cli.output import when
from taskloop.cli.repositories import summary
from taskloop.errors import TaskloopError
from taskloop.records import instant_text
from taskloop.store import Store
from taskloop.systemd import Notifier

if TYPE_CHECKING:
    from taskloop.cli.screen import Screen
    from taskloop.scheduler import TaskScheduler
    from taskloop.settings import Settings

__all__ = ["run"]

MANY = 200


def run(args: Namespace) -> int:
    """Run the scheduler; gives 0 when its time is over, else 128 and the signal's number."""
    if args.reload:
        from taskloop.cli.reload import reload

        return reload(args, [word for word in args.words if word != "--reload"])
    span = durations.parse_interval(args.span) if args.span else None
    settings = program.configured(args)
    level = "DEBUG" if args.verbose else settings.log.level
    with lines.opened(args, settings.log.format, level) as log:
        started = asyncio.Event()
        narrator = lines.Narrator(level, started.set)
        scheduler, names = _composed(args, settings)
        scheduler.speaker = narrator
        narrator.afterwards.append(summary(narrator, log))
        notifier = Notifier()
        narrator.on_stopping = lambda: notifier.tell("STOPPING=1")
        site = http.surface(scheduler, settings)
        _announce(scheduler, settings, narrator, log, count=len(names))
        firing = set() if args.no_fire or not scheduler.options.enabled else names
        screen = _screen(log, scheduler, firing)
        try:
            serving = http.serving(site, settings, narrator)
            number = reach.drive(
                _serve(
                    scheduler,
                    narrator,
                    log,
                    serving,
                    notifier,
                    started=started,
                    screen=screen,
                    span=span,
                    firing=firing,
                ),
                channel="code",
            )
        finally:
            if screen is not None:
                screen.stop()
                before_exit.remove(screen.show_cursor)
    return 128 + number if number else 0


def _composed(args: Namespace, settings: Settings) -> tuple[TaskScheduler, set[str]]:
    """The program with what `--jobs`, `--no-fire` and `--fire-only` leave of it, and the names of its jobs."""
    if args.jobs is not None and not args.jobs.strip(" ,"):  # a variable of the shell that is empty is no wish for all
        raise Usage("--jobs names no job", "leave it out for all of them, or name some: --jobs 'report,mail*'")
    scheduler = program.compose(settings)
    names = {job.name for job in scheduler}
    if not (args.jobs or args.no_fire or args.fire_only):
        return scheduler, names
    globs = [one.strip() for one in (args.jobs or "*").split(",") if one.strip()]
    only = {name for name in names if any(fnmatchcase(name, glob) for glob in globs)}
    if not only:
        raise Failed(3, f"no job is like '{args.jobs}'", f"there are: {', '.join(sorted(names))}")

    def wrap(store: Store) -> Store:
        fires, mine = not args.no_fire, only if args.jobs else None
        return Narrow(store, only=mine, fires=fires, on_start=fires, starts=not args.fire_only).as_store()

    return program.compose(settings, wrap=wrap), only


def _announce(
    scheduler: TaskScheduler, settings: Settings, narrator: lines.Narrator, log: lines.Log, *, count: int
) -> None:
    """Say what is about to run, and in dev mode that it is dev mode."""
    place = program.place(scheduler, settings)
    store = without_password(reach.address_of(place))
    where, zone = program.origin(settings), settings.scheduler.timezone
    if log.form == "people":
        log.line(f"taskloop {__version__} · {count} jobs, {where} · {store} · {zone}")
    else:
        narrator.say("INFO", "scheduler.configured", version=__version__, jobs=count, source=where, store=store)
    program.warn(settings, narrator)
    url = settings.store.url
    if not reach.is_same(place, url) and (settings.is_given("store", "url") or not reach.is_missing(url)):
        other = without_password(url)
        text = f"the app's own store, {store}, goes before {other}; commands without --app look there, and find no run of it"
        narrator.say("WARNING", "config.warning", text=text)


def _screen(log: lines.Log, scheduler: TaskScheduler, firing: set[str]) -> Screen | None:
    """The live part, where there is a terminal that can show it."""
    if log.form != "people" or os.environ.get("TERM") == "dumb":
        return None
    from taskloop.cli.screen import Screen

    screen = Screen(log, scheduler, firing)
    before_exit.append(screen.show_cursor)
    screen.start()
    return screen


async def _serve(
    scheduler: TaskScheduler,
    narrator: lines.Narrator,
    log: lines.Log,
    serving: AbstractAsyncContextManager[None],
    notifier: Notifier,
    *,
    started: asyncio.Event,
    screen: Screen | None,
    span: timedelta | None,
    firing: set[str],
) -> int | None:
    """Serve until it ends; gives the signal's number, None without one."""
    beside = [
        asyncio.create_task(_ready(scheduler, narrator, log, started=started, firing=firing)),
        asyncio.create_task(_tell_systemd(notifier, started, f"{len(scheduler)} jobs")),
    ]
    if screen is not None:
        beside.append(asyncio.create_task(screen.keep()))
    try:
        async with serving:
            return await scheduler.serve(run_for=span)
    finally:
        for task in beside:
            task.cancel()
        await asyncio.wait(beside)


async def _tell_systemd(notifier: Notifier, started: asyncio.Event, what: str) -> None:
    await started.wait()
    notifier.tell("READY=1", f"STATUS={what}")
    await notifier.beat()


async def _ready(
    scheduler: TaskScheduler, narrator: lines.Narrator, log: lines.Log, *, started: asyncio.Event, firing: set[str]
) -> None:
    """Once it has started, say so and what fires next."""
    await started.wait()
    fields: dict[str, Any] = {} if scheduler.options.enabled else {"enabled": False}
    with suppress(TaskloopError):
        due = await _next_fire(scheduler, firing)
        if due is not None:
            name, at = due
            text = instant_text(at)
            fields |= {"next": name, "at": when(text, datetime.now(UTC)) if log.form == "people" else text}
    narrator.say("INFO", "scheduler.ready", **fields)
    # What is there by now, modules above all, stays; a full collection, which holds the loop, need not go through it.
    gc.freeze()


async def _next_fire(scheduler: TaskScheduler, firing: set[str]) -> tuple[str, datetime] | None:
    """Which job fires next and when, what is due already left out; None: none does, or only after many that may not."""
    records, now = await scheduler.jobs(), datetime.now(UTC)
    may = {one.name for one in records if one.name in firing and one.enabled and one.condition != "paused"}
    fires = await scheduler.upcoming(limit=MANY)
    return next(((one.job, at) for at, one in fires if at > now and one.job in may), None)
