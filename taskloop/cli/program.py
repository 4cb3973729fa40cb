"""The program that the configuration describes: its jobs gathered in one `TaskScheduler`, ready to start.

Jobs come from the app (`--app`, `scheduler.app`), from the tables `[jobs.NAME]` that have a `call`, and are built in.
Start at `compose`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from taskloop import durations
from taskloop.built_in import declare
from taskloop.cli import http
from taskloop.cli.reach import opened
from taskloop.errors import BadParameters, BadSettings, Conflict
from taskloop.scheduler import TaskScheduler
from taskloop.store import Store

if TYPE_CHECKING:
    from argparse import Namespace

    from taskloop.cli.lines import Narrator
    from taskloop.jobs import Jobs
    from taskloop.settings import Settings

__all__ = ["compose", "configured", "origin", "place", "to_run", "warn"]


def configured(args: Namespace) -> Settings:
    """The configuration as this command line has it. Raises `BadSettings`."""
    from taskloop import settings

    if grace := getattr(args, "grace", None):
        durations.parse(grace)  # a wrong word of the command line is no fault of the configuration
    asked = {
        "scheduler.app": args.app,
        "scheduler.grace": getattr(args, "grace", None),
        "log.format": getattr(args, "log_format", None),
        "dev": getattr(args, "dev", None),
        **http.asked(args),
    }
    return settings.load(args.config, arguments=asked)


def compose(settings: Settings, *, store: Any = None, wrap: Callable[[Store], Store] | None = None) -> TaskScheduler:
    """The scheduler with every job there is, not started; nothing is opened. Raises `BadSettings`, `BadJob`.

    `store`: instead of the one that is configured. `wrap`: what the engine sees of the store.
    """
    if str(settings.directory) not in sys.path:
        sys.path.insert(0, str(settings.directory))  # for as long as it runs: jobs import too
    scheduler = _scheduler(settings)
    declare(scheduler, settings, unasked=True)
    _configure_jobs(scheduler, settings)
    chosen = place(scheduler, settings) if store is None else store
    made = opened(
        chosen, synchronous=settings.store.synchronous, statement_cache_size=settings.store.statement_cache_size
    )
    scheduler.furnish(store=made if wrap is None else wrap(made))
    return scheduler


def place(scheduler: TaskScheduler, settings: Settings) -> Any:
    """The store: in dev mode that of dev mode, else the one the app's scheduler was made with, else the configured."""
    return settings.store.url if settings.dev is not None or scheduler.address is None else scheduler.address


def warn(settings: Settings, narrator: Narrator) -> None:
    """Say what looks like a mistake in the configuration, and in dev mode that it is dev mode."""
    for warning in settings.warnings:
        narrator.say("WARNING", "config.warning", text=warning)
    if settings.banner:
        narrator.say("WARNING", "dev.mode", text=settings.banner)


def origin(settings: Settings) -> str:
    """Where the jobs come from, in a few words."""
    return settings.app or ("the configuration" if any(job.call for job in settings.file_jobs()) else "built in")


def _scheduler(settings: Settings) -> TaskScheduler:
    """The app's own scheduler, else a new one that has the app's jobs."""
    from taskloop.targets import load_app

    app: Jobs | None = None if settings.app is None else load_app(settings.app, settings.directory)
    if isinstance(app, TaskScheduler):
        app.configure(settings.options())
        return app
    return TaskScheduler(jobs=[app] if app is not None else [], options=settings.options())


def to_run(settings: Settings, wrap: Callable[[Store], Store]) -> TaskScheduler:
    """As `compose`, for a command that waits for runs of its own. Raises `Conflict` where this program runs none."""
    scheduler = compose(settings, wrap=wrap)
    if not scheduler.options.enabled:
        raise Conflict(
            "scheduler.enabled is false: this program runs nothing, and the command is there to run something; "
            "`taskloop submit` leaves the run to another one, or set TASKLOOP_SCHEDULER__ENABLED=true"
        )
    return scheduler


def _configure_jobs(scheduler: TaskScheduler, settings: Settings) -> None:
    """Lay the file's word around what the code says, as a start will: for commands that never start."""
    options, where = settings.options(), {said.name: said.where for said in settings.file_jobs()}
    for job in scheduler:
        laid = (options._laid_over(job.name), options.triggers.get(job.name), options.params.get(job.name))
        try:
            job.configure(options.defaults, *laid)
        except BadParameters as error:
            if job.name not in where:
                raise
            what = str(error).rpartition("; ")[0]  # what it says to do next needs a configuration that is right
            takes = ", ".join(job.parameters.names) or "none"
            text = f"{what}; correct its params there, the parameters of '{job.name}' are: {takes}"
            raise BadSettings([f"{where[job.name]}: {line}" for line in text.splitlines()]) from None
