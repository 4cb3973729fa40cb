"""What a run leaves besides its end: its steps with their results, and the lines of its own log.

Level 1, pure. A step is written when it begins and when it has ended, so that a run that is taken up again calls nothing
twice that is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

from taskloop.runs import FINAL, Failure, State

__all__ = ["FROM_STEP", "KEPT_ATTEMPTS", "LEVELS", "LogLine", "RunLines", "Step", "StepState", "standing"]

LEVELS: Final = ("debug", "info", "warning", "error", "critical")
KEPT_ATTEMPTS: Final = 5
"""Of a run that was tried again and again, the newest whose lines are kept."""
FROM_STEP: Final = "from_step"
"""In the `data` of a run that takes over results: the step from which it takes none, which its worker sorts out."""


class StepState(StrEnum):
    """Where a step of a run stands. The last three are final for this run."""

    WAITING = "waiting"
    """Not begun, or between two attempts."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    """Never called: a step it needs has failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a run as it stands."""

    name: str
    place: int = 0
    """Its place among the steps of the run, from 0."""
    state: StepState = StepState.WAITING
    attempt: int = 0
    """The call in hand or the last one, from 1; 0: none has begun."""
    started_at: datetime | None = None
    """When its first call began."""
    ended_at: datetime | None = None
    result: Any = None
    error: Failure | None = None
    """Of the last call that failed."""
    kept: bool = False
    """Whether its result was taken over from an earlier attempt or run: this one did not call it."""

    @property
    def is_unbegun(self) -> bool:
        """Whether all that is on record of it is that an earlier run's result counts no more: it may never be begun."""
        return self.state is StepState.WAITING and not self.attempt


def standing(step: Step, run: State) -> str:
    """How a step stands in a run of that state, in one of the words for states: nothing of a run goes on that does not.

    On record a step that was cut short is still running, and one that was to be tried again is still waiting.
    """
    goes_on_later = step.state is StepState.WAITING and run not in FINAL
    if run is State.RUNNING or goes_on_later or step.state not in (StepState.WAITING, StepState.RUNNING):
        return step.state.value
    return State.INTERRUPTED.value


class RunLines(NamedTuple):
    """Lines of a run's log, and where to go on: what to give as `after` for those that follow."""

    lines: Sequence[LogLine]
    part: int


class LogLine(NamedTuple):
    """One line of a run's own log."""

    at: datetime
    level: str
    """One of LEVELS."""
    text: str
    step: str | None = None
