"""Log lines: a constant event name, data in bound fields, one line a change of state.

Level 4, the only file that knows loguru, which is imported when the first line is written. Embedded, the library says
warnings and worse; the command line asks for more and alone adds a sink.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from taskloop.clock import microseconds
from taskloop.events import Event
from taskloop.runs import Reason

__all__ = ["LEVELS", "QUIET", "Speaker"]

LEVELS: Final = {"TRACE": 5, "DEBUG": 10, "INFO": 20, "SUCCESS": 25, "WARNING": 30, "ERROR": 40, "CRITICAL": 50}
QUIET: Final = "WARNING"
"""The level inside another program, unless somebody asks for another."""

_RUN_EVENTS: Final = {
    "started": ("INFO", "run.started"),
    "succeeded": ("INFO", "run.succeeded"),
    "retrying": ("WARNING", "run.retrying"),
    "failed": ("ERROR", "run.failed"),
    "skipped": ("WARNING", "run.skipped"),
    "cancelled": ("WARNING", "run.cancelled"),
    "interrupted": ("WARNING", "run.interrupted"),
    "recovered": ("WARNING", "run.recovered"),
    "loop_blocked": ("WARNING", "loop.blocked"),
    "overdue": ("WARNING", "job.overdue"),
    "store_lost": ("ERROR", "store.lost"),
    "store_back": ("WARNING", "store.back"),
    "paused": ("INFO", "job.paused"),
    "resumed": ("INFO", "job.resumed"),
    "disabled": ("WARNING", "job.disabled"),
    "enabled": ("INFO", "job.enabled"),
}
"""The line of each event, at the highest level that it can have."""
_BARE: Final = re.compile(r"[!#-<>-~]+")
"""What needs no quotes in a line."""


def _is_calm(event: Event) -> bool:
    """What is news, no warning: a short block, a job that somebody switched off, or that is declared so, and that it fires
    no more, a run that a stop has given back.
    """
    if event.name == "disabled":
        return event.data.get("actor") != "taskloop"  # that is the circuit breaker
    if event.name == "skipped":
        return event.run is not None and event.run.reason == Reason.DISABLED
    if event.name == "retrying":
        return event.data.get("reason") == Reason.SHUTTING_DOWN
    return event.name == "loop_blocked" and event.data.get("ms", 0) < 1000


def _line(name: str, fields: dict[str, Any]) -> str:
    """The message, for sinks that show nothing else, as loguru's own does: the name, and the fields as `key=value`."""
    texts = {key: str(value) for key, value in fields.items()}
    return " ".join(
        [name, *(f"{key}={text if _BARE.fullmatch(text) else json.dumps(text)}" for key, text in texts.items())]
    )


class Speaker:
    """Writes log lines at or above a level."""

    def __init__(self, level: str = QUIET) -> None:
        self.level = level

    def events(self) -> list[str]:
        """The names of the events that would make a line: what to subscribe to."""
        return [name for name, (level, _) in _RUN_EVENTS.items() if LEVELS[level] >= LEVELS[self.level]]

    def __call__(self, event: Event) -> None:
        """Write the line of an event."""
        level, name = _RUN_EVENTS[event.name]
        level = "INFO" if _is_calm(event) else level
        fields: dict[str, Any] = {"job": event.job} if event.job else {}
        run = event.run
        if run is not None:
            fields |= {"run": run.id, **({"attempt": run.attempt} if run.attempt else {}), "cause": run.cause.value}
            lost = run.data.get("lost") if event.name == "retrying" and run.error is None else None
            fields |= {"reason": run.reason or lost} if run.reason or lost else {}
            fields |= {"by": run.data["cancelled_by"]} if "cancelled_by" in run.data else {}
            if run.started_at is not None and run.ended_at is not None:
                fields["took_ms"] = (microseconds(run.ended_at) - microseconds(run.started_at)) // 1000
            if run.error is not None and event.name in ("failed", "retrying"):
                fields["error"] = run.error.told(run.summary)[:300]
        fields |= event.data  # both may have a reason: the event's is of this attempt
        self.say(level, name, **fields)

    def say(self, level: str, name: str, **fields: Any) -> None:
        """Write a line `name` with these fields, unless it lies below the level."""
        if LEVELS[level] < LEVELS[self.level]:
            return
        try:
            from loguru import logger

            logger.bind(**{**fields, "event": name}).opt(depth=1).log(level, _line(name, fields))
        except Exception:  # noqa: S110 - a closed stream or a foreign sink must end no loop of ours
            pass
