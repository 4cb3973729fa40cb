"""What a scheduler is told beside its jobs: limits and spans as plain values, from code, environment or file.

Level 3, pure. `taskloop.settings` makes one from configuration; embedding code may make one itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from taskloop.triggers import Trigger

__all__ = ["Options"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a scheduler behaves. Spans are above zero; None: off."""

    enabled: bool = True
    """False: the store opens, nothing fires, what is submitted here is left to other workers."""
    interval: timedelta = timedelta(weeks=2)
    """Of every `every()` that names none."""
    timezone: str | None = None
    """Of every `cron()` that names none; None: UTC, and nobody said so."""
    max_running: int = 64
    """Runs at once in this process."""
    threads: int = 16
    """Threads for plain functions."""
    grace: timedelta = timedelta(seconds=30)
    """Given to running jobs at stop; then they are cancelled."""
    kill_grace: timedelta = timedelta(seconds=5)
    """Given to cancelled jobs to end; then they are abandoned."""
    heartbeat: timedelta = timedelta(seconds=5)
    lease: timedelta = timedelta(seconds=15)
    """A worker silent for this long is dead, and its runs are settled by others."""
    loop_limit: timedelta | None = timedelta(milliseconds=100)
    """How long the loop may stand still before that is recorded, with the line that held it; None: not watched."""
    max_runtime: timedelta | None = None
    """Leave cleanly after this long."""
    dev: timedelta | None = None
    """Dev mode: every recurring trigger becomes `Every(dev)`."""
    store_url: str = "sqlite:///taskloop.db"
    synchronous: Literal["full", "normal"] = "full"
    keep: timedelta | None = timedelta(days=90)
    """How long final runs are kept."""
    groups: Mapping[str, int] = field(default_factory=dict)
    """Places of each group; one not named here has one."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Policy options of every job that says nothing of them itself."""
    jobs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Policy options by job name, laid over what the code says."""
    triggers: Mapping[str, Trigger] = field(default_factory=dict)
    """Triggers by job name, in the place of what the code says."""
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Parameters of a job's own schedule, by job name, laid over what the code says."""
