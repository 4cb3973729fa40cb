"""The program that the configuration describes: its jobs gathered in one `TaskScheduler`, ready to start.

Jobs come from the app (`--app`, `scheduler.app`), from the tables `[jobs.NAME]` that have a `call`, and from here: the
built-in `git_metrics`, and for trying out `heartbeat` and `current_date`, which are off unless the file says otherwise.
Start at `compose`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from taskloop.errors import BadParameters, BadSettings, BadStore, TaskloopError
from taskloop.scheduler import TaskScheduler
from taskloop.store import Store, open_store
from taskloop.triggers import Every, Trigger

if TYPE_CHECKING:
    from argparse import Namespace

    from taskloop.jobs import Jobs
    from taskloop.settings import FileJob, Settings

__all__ = ["compose", "configured", "opened", "origin", "place"]


def configured(args: Namespace) -> Settings:
    """The configuration as this command line has it. Raises `BadSettings`."""
    from taskloop import settings

    asked = {
        "scheduler.app": args.app,
        "scheduler.grace": getattr(args, "grace", None),
        "log.format": getattr(args, "log_format", None),
        "dev": getattr(args, "dev", None),
    }
    return settings.load(args.config, arguments=asked)


def compose(settings: Settings, *, store: Any = None, wrap: Callable[[Store], Store] | None = None) -> TaskScheduler:
    """The scheduler with every job there is, not started; nothing is opened. Raises `BadSettings`, `BadJob`.

    `store`: instead of the one that is configured. `wrap`: what the engine sees of the store.
    """
    if str(settings.directory) not in sys.path:
        sys.path.insert(0, str(settings.directory))  # for as long as it runs: jobs import too
    scheduler = _scheduler(_app(settings), settings, store, wrap)
    _add_built_in(scheduler, settings)
    for job in settings.file_jobs():
        _lay_over(scheduler, job)
    options = settings.options()
    for one in scheduler:
        one.configure(options.defaults, options.jobs.get(one.name, {}))
    return scheduler


def place(scheduler: TaskScheduler) -> Any:
    """The address of a composed scheduler's store, or the store itself."""
    return scheduler._address


def opened(place: Any) -> Store:
    """The store at an address, not open yet. Raises `BadSettings` for a scheme that nobody knows."""
    try:
        return open_store(place)
    except BadStore as error:
        raise BadSettings([str(error)]) from None


def origin(settings: Settings) -> str:
    """Where the jobs come from, in a few words."""
    return settings.app or ("config.toml" if any(job.call for job in settings.file_jobs()) else "built in")


def _app(settings: Settings) -> Jobs | None:
    from taskloop import settings as loading

    return None if settings.app is None else loading.load_app(settings.app, settings.directory)


def _scheduler(
    app: Jobs | None, settings: Settings, store: Any, wrap: Callable[[Store], Store] | None
) -> TaskScheduler:
    """The app's own scheduler, else a new one that has the app's jobs.

    Its store: the one asked for, in dev mode that of dev mode, else the one the app's scheduler was made with.
    """
    own = app._address if isinstance(app, TaskScheduler) and settings.dev is None else None
    address = store if store is not None else own if own is not None else settings.store.url
    place = opened(address) if wrap is None else wrap(opened(address))
    if not isinstance(app, TaskScheduler):
        scheduler = TaskScheduler(place, jobs=[app] if app is not None else [], options=settings.options())
        scheduler._address = address
        return scheduler
    app.options = settings.options()
    app._is_configured = True
    app._store, app._address = place, address
    return app


def _add_built_in(scheduler: TaskScheduler, settings: Settings) -> None:
    if "git_metrics" not in scheduler:
        from taskloop.git_metrics import make_job

        scheduler.add_job(make_job(settings.git_metrics.repositories), Every(), name="git_metrics")
    for function, interval in ((heartbeat, "30s"), (current_date, "1m")):
        if function.__name__ not in scheduler:
            scheduler.add_job(function, Every(interval), enabled=False)


def heartbeat() -> str:
    """Says that the scheduler is alive; for trying out."""
    return "alive"


def current_date() -> str:
    """Says what day and time it is; for trying out."""
    return f"it is {datetime.now().astimezone():%A, %d %B %Y, %H:%M:%S %Z}"


def _lay_over(scheduler: TaskScheduler, said: FileJob) -> None:
    """Take a job from its table, or lay the table's trigger and parameters over what the code says."""
    from taskloop import settings as loading

    if said.call is not None:
        job = loading.load_job(said)
        if job.name in scheduler and scheduler[job.name].origin == "file":
            scheduler.remove_job(job.name)  # the same program, composed again
        added = scheduler.add_job(job.function, job.trigger, name=job.name, params=job.params, **_options(job.options))
        added.origin = "file"
        return
    if said.name not in scheduler:
        loading.load_job(said)  # says what is missing
    declared = scheduler[said.name]
    trigger: Trigger | None = said.trigger
    if trigger is not None:
        declared.trigger = trigger
    try:
        declared.params = declared.parameters.check({**declared.params, **said.params})
    except BadParameters as error:
        if said.params or declared.trigger is not None:
            raise _wrong(said, error) from None


def _options(options: Mapping[str, Any]) -> Any:
    return dict(options)


def _wrong(said: FileJob, error: TaskloopError) -> BadSettings:
    return BadSettings([f"{said.where or 'jobs.' + said.name}: {line}" for line in str(error).splitlines()])
