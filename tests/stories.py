"""Words for the engine's stories: short jobs, and runs told as short texts."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from taskloop import State

START = datetime(2026, 1, 1, tzinfo=UTC)
"""When virtual time begins: a Thursday."""


async def nothing():
    """Do nothing, successfully."""


def lasting(seconds, tape=None):
    """A job that takes so long; it writes its begin and its end onto the tape."""

    async def job():
        if tape is not None:
            tape.append("begin")
        await asyncio.sleep(seconds)
        if tape is not None:
            tape.append("end")

    return job


def failing(times, error=OSError):
    """A job that fails so often and then succeeds."""
    left = [times]

    async def job():
        left[0] -= 1
        if left[0] >= 0:
            raise error("no luck")

    return job


def stubborn():
    """A job that does not let itself be cancelled, until its attribute `enough` is set."""

    async def job():
        while not job.enough:
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                continue

    job.enough = False
    return job


async def threads_ended(time):
    """Wait until every call in a thread has returned and was heard."""
    while time.scheduler.in_flight:
        await time.advance(0)


def stamp(instant):
    """`01:30`, `+2d 01:30`, `01:30:05`: an instant after START."""
    since = instant - START
    seconds = since.seconds + since.microseconds / 1e6
    clock = f"{int(seconds // 3600):02}:{int(seconds % 3600 // 60):02}" + (
        f":{seconds % 60:02g}" if seconds % 60 else ""
    )
    return f"{since.days:+}d {clock}" if since.days else clock


async def fates(time, job=None):
    """What became of each due instant, in their order: `01:00 skipped overlap x3`."""
    runs = await time.runs(job, state=list(State))
    return [_told(run) for run in sorted(runs, key=lambda run: (run.due_at, run.id))]


def _told(run):
    return " ".join(
        [
            stamp(run.due_at),
            run.state.value,
            *([run.reason] if run.reason else []),
            *([f"x{run.count}"] if run.count > 1 else []),
        ]
    )


async def starts(time, job=None):
    """When each run that began did so, in the order of beginning."""
    runs = [run for run in await time.runs(job) if run.started_at]
    return [stamp(run.started_at) for run in sorted(runs, key=lambda run: (run.started_at, run.id))]


def hours(number):
    return timedelta(hours=number)
