"""Runs as OpenTelemetry spans: one for each attempt and each step, told by the scheduler's events.

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
    `run JOB`, begins a trace, begins and ends with the attempt, and has the error of one that failed. It is the current one
    in the job, on the loop and in threads, so that spans of the program lie below it; so do those of its steps, `step NAME`,
    each from its first call to its end. Raises `MissingExtra`.
    """
    try:
        from opentelemetry import context
        from opentelemetry import trace as api
    except ImportError as error:
        raise MissingExtra("opentelemetry-api", "otel") from error
    tracing = _Tracing(scheduler, api, context, api.get_tracer("taskloop") if tracer is None else tracer)
    return scheduler.feed.subscribe(tracing.hear, "started", "step_started", "step_done", *_ENDS)


class _Attempt:
    """The spans of an attempt that are open."""

    __slots__ = ("span", "steps")

    def __init__(self, span: Any) -> None:
        self.span = span
        self.steps: dict[str, tuple[Any, Any]] = {}
        """By name: that of the step, and what was current before it."""


class _Tracing:
    def __init__(self, scheduler: TaskScheduler, api: Any, context: Any, tracer: Any) -> None:
        self._scheduler = scheduler
        self._api = api
        self._context = context
        self._tracer = tracer
        self._open: dict[int, _Attempt] = {}

    def hear(self, event: Event) -> None:
        run = event.run
        if run is None:
            return
        if event.name == "started":
            if len(self._open) >= MOST:
                self._end_what_is_lost(event.at)
            if len(self._open) < MOST:
                self._begin(run, event.at)
            return
        if event.name in ("step_started", "step_done"):
            if (attempt := self._open.get(run.id)) is not None:
                self._hear_step(attempt, event)
            return
        attempt = self._open.pop(run.id, None)
        if attempt is not None:
            _end_steps(attempt, run.ended_at or event.at)
            self._end(attempt.span, run, event)

    def _end_what_is_lost(self, at: datetime) -> None:
        """Of a run that another worker has taken over no end is told here: without this there would be no room in the end."""
        slots = self._scheduler._slots
        in_hand = {} if slots is None else slots.attempts
        if len(in_hand) > len(self._open):
            return
        for lost in [one for one in self._open if one not in in_hand]:
            attempt = self._open.pop(lost)
            _end_steps(attempt, at)
            attempt.span.set_status(self._api.Status(self._api.StatusCode.ERROR, "lost"))
            attempt.span.end(end_time=_nanoseconds(at))

    def _begin(self, run: Run, at: datetime) -> None:
        span = self._begun(run, at)
        if not span.get_span_context().is_valid:  # there is no SDK
            return
        self._open[run.id] = _Attempt(span)
        live = self._scheduler._slots.attempts.get(run.id) if self._scheduler._slots is not None else None
        if live is not None:
            live.context.enter = lambda: self._context.attach(self._api.set_span_in_context(span))

    def _hear_step(self, attempt: _Attempt, event: Event) -> None:
        """Called in the task of the step, where its span is the current one until it ends."""
        name, known = event.data["step"], attempt.steps.get(event.data["step"])
        if event.name == "step_started" and known is not None:
            known[0].add_event("attempt", {"taskloop.attempt": event.data["attempt"]}, _nanoseconds(event.at))
        elif event.name == "step_started":
            before, own = self._context.get_current(), attempt.span.get_span_context().trace_id
            is_within = self._api.get_current_span().get_span_context().trace_id == own
            parent = before if is_within else self._api.set_span_in_context(attempt.span)
            attributes = {"taskloop.job": event.job, "taskloop.run": event.run and event.run.id, "taskloop.step": name}
            span = self._tracer.start_span(
                f"step {name}", context=parent, start_time=_nanoseconds(event.at), attributes=attributes
            )  # fmt: skip
            attempt.steps[name] = span, before
            self._context.attach(self._api.set_span_in_context(span, parent))
        elif known is not None:
            span, before = attempt.steps.pop(name)
            span.set_attributes({"taskloop.state": event.data["state"], "taskloop.attempt": event.data["attempt"]})
            if event.data["state"] != "succeeded":
                span.set_status(self._api.Status(self._api.StatusCode.ERROR))
            span.end(end_time=_nanoseconds(event.at))
            self._context.attach(before)

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
            f"run {run.job}", context=self._context.Context(), start_time=_nanoseconds(run.attempt_started_at or at), attributes=attributes,
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


def _end_steps(attempt: _Attempt, at: datetime) -> None:
    """End the spans of steps that were cut short."""
    for span, _ in attempt.steps.values():
        span.end(end_time=_nanoseconds(at))


def _nanoseconds(instant: datetime) -> int:
    return round(instant.timestamp() * 1_000_000) * 1_000
