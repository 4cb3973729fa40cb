"""Runs as OpenTelemetry spans: one for each attempt, from its start to its end, told by the scheduler's events.

Level 6. Needs the extra `otel`, which is the API alone; without an SDK that the program configures nothing is recorded,
and a span costs some microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from taskloop.errors import MissingExtra
from taskloop.events import Event
from taskloop.runs import Run, State

if TYPE_CHECKING:
    from taskloop.scheduler import TaskScheduler

__all__ = ["trace"]

_ENDS: Final = (
    "retrying",
    *(state.value for state in (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.INTERRUPTED)),
)
MOST: Final = 10_000
"""Spans that may be open at once; of what lies beyond none is made."""


def trace(scheduler: TaskScheduler, tracer: Any = None) -> Callable[[], None]:
    """Make a span of each attempt that this process executes from now on; gives what ends it.

    `tracer`: an OpenTelemetry tracer; None: that of the global provider, under the name taskloop. A span is called
    `run JOB`, begins and ends with the attempt, and has the error of one that failed. Raises `MissingExtra`.
    """
    try:
        from opentelemetry import trace as api
    except ImportError as error:
        raise MissingExtra("opentelemetry-api", "otel") from error
    tracing = _Tracing(api, api.get_tracer("taskloop") if tracer is None else tracer)
    return scheduler.feed.subscribe(tracing.hear, "started", *_ENDS)


class _Tracing:
    def __init__(self, api: Any, tracer: Any) -> None:
        self._api = api
        self._tracer = tracer
        self._open: dict[int, Any] = {}

    def hear(self, event: Event) -> None:
        run = event.run
        if run is None:
            return
        if event.name == "started":
            if len(self._open) < MOST:
                self._open[run.id] = self._begun(run, event.at)
            return
        span = self._open.pop(run.id, None)
        if span is not None:
            self._end(span, run, event)

    def _begun(self, run: Run, at: datetime) -> Any:
        attributes = {
            "taskloop.job": run.job,
            "taskloop.run": run.id,
            "taskloop.attempt": run.attempt,
            "taskloop.cause": run.cause.value,
            "taskloop.late_seconds": max(0.0, ((run.attempt_started_at or at) - run.due_at).total_seconds()),
            **({"taskloop.schedule": run.schedule} if run.schedule is not None else {}),
            **({"taskloop.worker": run.worker} if run.worker is not None else {}),
        }
        return self._tracer.start_span(
            f"run {run.job}", start_time=_nanoseconds(run.attempt_started_at or at), attributes=attributes,
            kind=self._api.SpanKind.INTERNAL,
        )  # fmt: skip

    def _end(self, span: Any, run: Run, event: Event) -> None:
        span.set_attribute("taskloop.state", event.name)
        if run.error is not None and event.name != "succeeded":
            error = run.error
            span.set_status(self._api.Status(self._api.StatusCode.ERROR, error.told()[:500]))
            span.add_event(
                "exception",
                {
                    "exception.type": error.type,
                    "exception.message": error.message,
                    "exception.stacktrace": error.traceback,
                },
                timestamp=_nanoseconds(event.at),
            )
        elif event.name != "succeeded":
            span.set_status(self._api.Status(self._api.StatusCode.ERROR, str(run.reason or event.name)))
        span.end(end_time=_nanoseconds(run.ended_at or event.at))


def _nanoseconds(instant: datetime) -> int:
    return round(instant.timestamp() * 1_000_000) * 1_000
