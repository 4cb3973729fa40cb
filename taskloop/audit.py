"""Who changed what: the entry that each change by a person leaves, over HTTP, the pages, the command line or code.

Level 3, pure but for the context that says through what a change comes. A verb that is told of an actor makes an entry of
what it knows: who, when, through what, why. It goes with the change to the store, which alone knows what stood there
before: that completes it, by the functions below, and writes it in the transaction of the change. What nobody is named
for, as all that an engine does by itself, leaves none. Start at `entry`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Final, Literal, NamedTuple

from taskloop.context import running
from taskloop.durations import rfc3339
from taskloop.masking import shown
from taskloop.runs import Run
from taskloop.schedules import Schedule
from taskloop.switches import Switch
from taskloop.tokens import Token

__all__ = [
    "ACTIONS", "Action", "Channel", "Entry", "asking", "cancelled", "entry", "is_changed", "read", "scheduled", "submitted",
    "switched", "through", "tokened", "written",
]  # fmt: skip

Channel = Literal["api", "web", "cli", "code"]
Action = Literal[
    "submit", "rerun", "cancel", "enable", "disable", "reset", "pause", "resume", "schedule", "unschedule",
    "create_token", "revoke_token", "sign_in", "prune",
]  # fmt: skip
ACTIONS: Final[dict[Action, str]] = {
    "submit": "run", "rerun": "run", "cancel": "run", "enable": "job", "disable": "job", "reset": "job", "pause": "job",
    "resume": "job", "schedule": "schedule", "unschedule": "schedule", "create_token": "token", "revoke_token": "token",
    "sign_in": "token", "prune": "store",
}  # fmt: skip
"""What can be done, and the kind of thing it is done to."""
MOST_PARAMETERS, MOST_CHARACTERS = 30, 200
"""Of the parameters that an entry shows, and of each."""


class Entry(NamedTuple):
    """One change by a person."""

    at: datetime
    actor: str
    channel: Channel
    action: Action
    object: str | None = None
    """What was changed: the id of a run or a schedule, the name of a job or a token; None: the whole."""
    job: str | None = None
    """Whose it is."""
    before: Mapping[str, Any] | None = None
    """What stood there, as far as it matters; plain small JSON, secrets masked. None: nothing."""
    after: Mapping[str, Any] | None = None
    """What stands there now. None: nothing."""
    reason: str | None = None
    request_id: str | None = None
    """Of the HTTP request; None: there was none."""
    id: int = 0
    """Grows with time; 0: not in any store yet."""


_Source = tuple[Channel | None, str | None]
_SOURCE: Final[ContextVar[_Source]] = ContextVar("taskloop_audit_source", default=("code", None))


@contextmanager
def through(channel: Channel | None, request_id: str | None = None) -> Iterator[None]:
    """What is changed within comes through this channel. None: it is no change by a person, and leaves no entry."""
    mark = _SOURCE.set((channel, request_id))
    try:
        yield
    finally:
        _SOURCE.reset(mark)


def entry(action: Action, at: datetime, actor: str | None, reason: str | None = None) -> Entry | None:
    """What is known of a change before it is made; None: nobody is named for it.

    What a job does is done by code, whoever asked for its run.
    """
    channel, request_id = _SOURCE.get() if running.get() is None else ("code", None)
    if actor is None or channel is None:
        return None
    return Entry(at, actor, channel, action, reason=reason, request_id=request_id)


def asking(runs: Sequence[Run], now: datetime) -> Entry | None:
    """What is known of a submit, or of a run again, before it is on record."""
    if not runs or runs[0].actor is None:
        return None
    action: Action = "submit" if runs[0].rerun_of is None else "rerun"
    return entry(action, now, runs[0].actor, runs[0].data.get("asked_because"))


# -- what only the store knows: how it stood before, and how it stands


def submitted(known: Entry, written: Sequence[Run]) -> list[Entry]:
    """One entry for each job; what was on record already was not asked for anew."""
    new: dict[str, list[Run]] = {}
    for run in written:
        if not run.existed:
            new.setdefault(run.job, []).append(run)
    return [
        known._replace(object=str(runs[0].id), job=job, after=_asked(runs[0]) if len(runs) == 1 else _asked_many(runs))
        for job, runs in new.items()
    ]


def _asked(run: Run) -> dict[str, Any] | None:
    return _facts(
        params=_params(run.params), key=run.key, rerun_of=run.rerun_of, from_step=run.data.get("from_step"),
        at=rfc3339(run.ready_at) if run.ready_at > run.created_at else None,
    )  # fmt: skip


def _asked_many(runs: Sequence[Run]) -> dict[str, Any]:
    return {"runs": len(runs), "last": runs[-1].id}


def cancelled(known: Entry, before: Run, after: Run | None = None) -> Entry:
    """`after` None: its worker was told, and it ends when that one hears of it."""
    now: dict[str, Any] = {"asked": "to end"} if after is None or not after.final else {"state": after.state.value}
    return known._replace(object=str(before.id), job=before.job, before={"state": before.state.value}, after=now)


def switched(known: Entry, job: str | None, before: Switch | None, after: Switch | None, missed: str | None) -> Entry:
    """`missed`: how the end of a pause settled the held fires."""
    return known._replace(
        object=job, job=job, before=None if before is None else _switch(before, before.actor, before.reason),
        after=_facts(missed=missed) if after is None else _switch(after),
    )  # fmt: skip


def _switch(one: Switch, actor: str | None = None, reason: str | None = None) -> dict[str, Any] | None:
    """Of the new one the entry itself says who and why."""
    until = None if one.until is None else rfc3339(one.until)
    return _facts(switch=one.kind, until=until, by=actor, reason=reason)


def scheduled(known: Entry, before: Schedule | None, after: Schedule | None) -> Entry:
    """A schedule that was stored, changed or removed; one of both is there."""
    one = after or before
    assert one is not None
    return known._replace(object=one.id, job=one.job, before=_schedule(before), after=_schedule(after))


def is_changed(old: Schedule | None, new: Schedule) -> bool:
    """Whether somebody changed a schedule: not, where it is stored once more as it was."""
    return old is None or (old.job, old.trigger, old.params) != (new.job, new.trigger, new.params)


def _schedule(one: Schedule | None) -> dict[str, Any] | None:
    return None if one is None else _facts(trigger=str(one.trigger), params=_params(one.params))


def tokened(known: Entry, token: Token) -> Entry:
    """A token that was made, or revoked."""
    until = None if token.expires_at is None else rfc3339(token.expires_at)
    facts = _facts(id=token.id, scope=token.scope, expires_at=until)
    lives = token.revoked_at is None
    return known._replace(object=token.name, before=None if lives else facts, after=facts if lives else None)


def written(facts: Mapping[str, Any] | None) -> str | None:
    """What stood or stands there, as a store keeps it."""
    return None if facts is None else json.dumps(facts, separators=(",", ":"), ensure_ascii=False, default=str)


def read(text: str | None) -> dict[str, Any] | None:
    """What `written` wrote."""
    facts: dict[str, Any] | None = None if text is None else json.loads(text)
    return facts


def _facts(**given: Any) -> dict[str, Any] | None:
    """Those that say something; None: none does."""
    return {name: value for name, value in given.items() if value is not None} or None


def _params(params: Mapping[str, Any]) -> dict[str, Any] | None:
    """Parameters as an entry shows them: masked, and what is long cut."""
    few = list(shown(params).items())[:MOST_PARAMETERS]
    found = {name: _short(value) for name, value in few}
    if len(params) > len(few):
        found["…"] = f"{len(params) - len(few)} more"
    return found or None


def _short(value: Any) -> Any:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return value if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"
