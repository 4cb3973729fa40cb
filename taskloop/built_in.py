"""The jobs that come with taskloop, and those that stand in a configuration file alone.

Level 6. `git_metrics` is the main one; `prune_history` does when it is asked what the engine does bit by bit anyway;
`heartbeat` and `current_date` are for trying out, and off unless the file says otherwise. Start at `declare`.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskloop.context import RunContext
from taskloop.jobs import Jobs
from taskloop.triggers import Every

if TYPE_CHECKING:
    from taskloop.file_jobs import FileJob
    from taskloop.settings import Settings

__all__ = ["current_date", "declare", "heartbeat", "prune_history"]


def declare(jobs: Jobs, settings: Settings, *, unasked: bool) -> None:
    """Add what a configuration declares to `jobs`: the built-in jobs, and each table that has a `call`.

    `unasked`: add a built-in job without a table too, as a command line does, `git_metrics` where it has something to
    read, `prune_history` where there is no app; else only one that the file names, as for a scheduler inside another
    program. Raises `BadSettings`, `BadJob`.
    """
    if "git_metrics" not in jobs and ("git_metrics" in settings.jobs or (unasked and _has_repository(settings))):
        from taskloop.git_metrics import make_job

        jobs.add_job(make_job(settings.git_metrics.repositories), Every(), name="git_metrics")
    # Not beside somebody's app: `once --all` would run it too, and nobody has named it.
    if "prune_history" not in jobs and ("prune_history" in settings.jobs or (unasked and settings.app is None)):
        jobs.add_job(prune_history)
    for function, interval in ((heartbeat, "30s"), (current_date, "1m")):
        name = function.__name__
        wanted = name in settings.jobs and settings.jobs[name].options.get("enabled") is True
        if name not in jobs and (unasked or name in settings.jobs):
            # Without a trigger while it is off: else each of its fires would be a row that says so.
            jobs.add_job(function, Every(interval) if wanted else None, enabled=False)
    for said in settings.file_jobs():
        _add_from_file(jobs, said)


def _has_repository(settings: Settings) -> bool:
    """Whether `git_metrics` has something to read, or was asked for.

    Beside somebody's app, in a folder that is no clone, it would only fail, again and again, though nobody asked for it.
    """
    if settings.app is None or settings.is_given("git_metrics", "repositories"):
        return True
    here = Path.cwd()
    return (here / "HEAD").is_file() or any((folder / ".git").exists() for folder in (here, *here.parents))


async def prune_history(run: RunContext) -> str:
    """Deletes the runs that are kept no longer, as `[store] keep` and each job's own word say."""
    deleted = 0

    def tell(runs: int) -> None:
        nonlocal deleted
        deleted = runs
        run.progress(message=f"{deleted:,} deleted")

    await run.scheduler._tending.prune_history(tell)
    return f"{deleted:,} run{'' if deleted == 1 else 's'} deleted"


def heartbeat() -> str:
    """Says that the scheduler is alive; for trying out."""
    return "alive"


def current_date() -> str:
    """Says what day and time it is; for trying out."""
    return f"it is {datetime.now().astimezone():%A, %d %B %Y, %H:%M:%S %Z}"


def _add_from_file(jobs: Jobs, said: FileJob) -> None:
    """Add the job that a table declares, or see that the code declares the job that a table speaks of."""
    from taskloop.targets import load_job

    if said.call is None and said.name in jobs:
        return
    job = load_job(said, jobs)  # without `call` it says what is missing
    if said.name in jobs and jobs[said.name].origin == "file":
        jobs.remove_job(said.name)  # the app's scheduler, composed before in this process
    jobs.add_job(job.function, job.trigger, name=job.name, params=job.params, **_any(job.options)).origin = "file"


def _any(options: dict[str, Any]) -> Any:
    return options
