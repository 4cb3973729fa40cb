"""What happened, as frozen data, and the feed that hands it on.

Level 2, pure: a subscriber is called where `send` is called and must return at once. Whoever wants to wait, write or
call foreign code puts the event into a queue of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from taskloop.errors import BadValue, nearest
from taskloop.runs import Run

__all__ = ["EVENTS", "Event", "Feed", "Subscriber"]

EVENTS: Final = frozenset(
    [
        "submitted",
        "started",
        "progress",
        "step_started",
        "step_done",
        "step_kept",
        "succeeded",
        "failed",
        "retrying",
        "cancelled",
        "interrupted",
        "skipped",
        "overdue",
        "recovered",
        "paused",
        "resumed",
        "disabled",
        "enabled",
        "loop_blocked",
        "store_lost",
        "store_back",
    ]
)


@dataclass(frozen=True, slots=True)
class Event:
    """One change, told in the process where it happened. `run` and `job` are None where it concerns none."""

    name: str
    at: datetime
    run: Run | None = None
    job: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)


Subscriber = Callable[[Event], None]


class Feed:
    """Hands each event to the subscribers of its name, in the order they came."""

    def __init__(self) -> None:
        self._subscribers: dict[str, tuple[Subscriber, ...]] = {}
        self._beginnings: tuple[Callable[[], object], ...] = ()

    def subscribe(self, subscriber: Subscriber, *names: str) -> Callable[[], None]:
        """Call `subscriber` at each event of these names, none given: at every event; gives what ends it."""
        for name in names:
            if not isinstance(name, str):
                raise TypeError(
                    f"an event is named by a text, got {type(name).__name__}; write on('failed', 'skipped')"
                )
            if name not in EVENTS:
                near = nearest(name, EVENTS)
                meant = f"did you mean '{near}'? " if near else ""
                raise BadValue(f"no event '{name}'; {meant}events are: {', '.join(sorted(EVENTS))}")
        for name in names or EVENTS:
            self._subscribers[name] = (*self._subscribers.get(name, ()), subscriber)

        def unsubscribe() -> None:
            for name in names or EVENTS:
                left = list(self._subscribers.get(name, ()))
                if subscriber in left:
                    left.remove(subscriber)
                self._subscribers[name] = tuple(left)

        return unsubscribe

    def at_start(self, beginning: Callable[[], object]) -> Callable[[], None]:
        """Call `beginning` whenever the scheduler has started, which is no event: it happens to no job; gives what ends it."""
        self._beginnings = (*self._beginnings, beginning)

        def forget() -> None:
            self._beginnings = tuple(one for one in self._beginnings if one != beginning)

        return forget

    def begin(self) -> None:
        """The scheduler has started: tell those who asked for that."""
        for beginning in self._beginnings:
            with suppress(Exception):
                beginning()

    def wanted(self, name: str) -> bool:
        """Whether anybody listens: lets the hot path spare the making of an event."""
        return bool(self._subscribers.get(name))

    def send(self, name: str, at: datetime, run: Run | None = None, /, job: str | None = None, **data: Any) -> None:
        """Tell the subscribers; what one of them raises is dropped, for it concerns nobody else."""
        subscribers = self._subscribers.get(name)
        if not subscribers:
            return
        event = Event(name, at, run, run.job if run else job, data)
        for subscriber in subscribers:
            try:
                subscriber(event)
            except Exception:  # noqa: S112 - a listener must never touch a run
                continue
