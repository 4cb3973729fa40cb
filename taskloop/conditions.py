"""What needs a person: items of `Status.attention`, from how jobs stand, what workers say of themselves and what disturbed them.

Level 4, pure. Each `of_` gives the items of one kind of facts, the worst first; `looking` gathers the facts, `attention`
tells of what is new. Of a job decides `needs`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from taskloop import durations
from taskloop.durations import rfc3339
from taskloop.records import Standing
from taskloop.runs import State
from taskloop.store_data import Incident, Worker
from taskloop.switches import Switch

__all__ = [
    "needs",
    "of_breakers",
    "of_incidents",
    "of_jobs",
    "of_store",
    "of_this_clock",
    "of_this_worker",
    "of_workers",
]

BLOCKED_MS: Final = 1000
"""A loop that stood still for less is on record, but needs nobody's attention."""
SKEWED_SECONDS: Final = 2.0
"""Clocks of two machines that are further apart need somebody: each fires by its own."""
STEPPED_SECONDS: Final = 30
"""A clock that was set by less is on record, but needs nobody's attention."""


def of_this_worker(own: Worker, health: Mapping[str, Any], workers: Iterable[Worker]) -> list[dict[str, Any]]:
    """What is wrong with this worker where the store has it among the dead: others write there, and it cannot, as after a
    newer program has brought the schema up to date. `health`: its own, of now; `workers`: those on record as living.
    """
    if any(one.id == own.id for one in workers):
        return []
    return [item | {"worker": own.id} for item in _unwell(health, f"{own.host} pid {own.pid}")]


def of_workers(workers: Sequence[Worker], live: Sequence[Worker]) -> list[dict[str, Any]]:
    """A store that is away, an engine that stands still, a loop that is held: of these first. Then who is silent."""
    items = [item | {"worker": one.id} for one in live for item in _unwell(one.health, f"{one.host} pid {one.pid}")]
    order = ("store", "stalled", "loop_blocked", "clock")
    items.sort(key=lambda item: order.index(item["condition"]))
    silent = [one for one in workers if one not in live]
    return items + [
        _item(
            "silent",
            f"{one.host} pid {one.pid} has not beaten since {rfc3339(one.beat_at)}",
            since=one.beat_at,
            worker=one.id,
        )
        for one in silent[:5]
    ]


def of_this_clock(host: str, live: Sequence[Worker], ahead: timedelta) -> list[dict[str, Any]]:
    """That the clock of this machine is off, by which all of this is read; unless a worker of it has said so.

    `ahead`: how far that of the store's server is ahead of it.
    """
    if abs(ahead.total_seconds()) <= SKEWED_SECONDS or any(one.host == host and _is_off(one) for one in live):
        return []
    return [_item("clock", f"{host}, where this is asked: its clock is {_apart(ahead.total_seconds())}")]


def of_incidents(recent: Sequence[Incident]) -> list[dict[str, Any]]:
    """What disturbed a worker in the last minutes, the worst of each kind."""
    blocks = [one for one in recent if one.kind == "loop_blocked" and one.data.get("ms", 0) >= BLOCKED_MS]
    worst = max(blocks, key=lambda one: one.data["ms"], default=None)
    items = [] if worst is None else [_block(worst.data, "the loop stood still", worst.since)]
    steps = [one for one in recent if one.kind == "clock" and abs(one.data.get("step_seconds", 0)) > STEPPED_SECONDS]
    if steps:
        seconds = steps[0].data["step_seconds"]
        items.append(_item("clock", f"the clock went {'back' if seconds < 0 else 'forward'} by {abs(seconds):g} s",
                           since=steps[0].since))  # fmt: skip
    return items


def of_jobs(standings: Sequence[Standing], running: bool, now: datetime) -> list[dict[str, Any]]:
    """The jobs that fail, then those that are stuck, then overdue, then without a program."""
    found: dict[str, list[dict[str, Any]]] = {word: [] for word in ("failing", "stuck", "overdue", "orphan")}
    for one in standings:
        if (word := needs(one)) is not None:
            text = _text(word, one, running, now)
            item = _item(word, text, job=one.name, since=_since(word, one, now), failures=one.failures)
            found[word].append(item)
    return [item for items in found.values() for item in items]


def of_breakers(switches: Iterable[Switch], now: datetime) -> list[dict[str, Any]]:
    """The jobs that failed so often that they were switched off for a while."""
    tripped = [one for one in switches if one.kind == "tripped" and one.holds(now)]
    return [_item("tripped", one.reason, job=one.job, since=one.since) for one in tripped]


def of_store(error: Exception, health: Mapping[str, Any], since: datetime | None) -> list[dict[str, Any]]:
    """What is wrong with a worker whose store is away, and that first."""
    return [_item("store", str(error), since=since), *_unwell({**health, "store": None}, "this worker")]


def needs(one: Standing) -> str | None:
    """As what a job needs a person; None: it needs nobody.

    A pause holds back what is to come: it mends nothing that has failed, and what hangs still hangs.
    """
    if one.condition == "orphan":
        return "orphan" if _is_missed(one) else None
    if one.condition == "paused" and one.troubled is not None:
        return "stuck"
    # A job has not succeeded since it failed: that it is at it again makes it no better.
    if one.condition in ("failing", "running", "paused") and one.failures > 0 and _is_failing(one):
        return "failing"
    return one.condition if one.condition in ("failing", "stuck", "overdue") else None


def _is_failing(one: Standing) -> bool:
    """Whether nothing came after its failures that makes them good: no success, and nobody who called a run off."""
    return one.newest is not None and one.newest.state not in (State.SUCCEEDED, State.CANCELLED, State.SKIPPED)


def _is_missed(one: Standing) -> bool:
    """Whether it matters that no program has a job any more: it is on, and it was at work or will come due."""
    return one.enabled and (one.next_due is not None or one.newest is not None)


def _since(word: str, one: Standing, now: datetime) -> datetime | None:
    """Since when a job needs a person so; None: it is not known."""
    if word == "stuck":
        return None if one.troubled is None else one.troubled.attempt_started_at
    if word == "overdue" and one.troubled is not None:
        return one.troubled.ready_at
    if word == "overdue":
        return one.next_due if one.next_due is not None and one.next_due < now else None
    return one.newest.failing_since if word == "failing" and one.newest is not None else None


def _text(word: str, one: Standing, running: bool, now: datetime) -> str | None:
    """What is wrong with a job, in a sentence."""
    run, nobody = one.troubled, "" if running else "; no worker runs"
    if word == "failing":
        return None if one.newest is None else one.newest.failure
    if word == "orphan":
        gone = "no live worker has this job any more; if it was renamed, give the new one aliases=(...)"
        return f"{gone}; if it is gone for good, `taskloop disable {one.name}`"
    if word == "stuck" and run is not None and run.attempt_started_at is not None:
        since = (now - run.attempt_started_at).total_seconds()
        took = timedelta(seconds=int(since) or round(since, 3))  # `expect` may be shorter than a second
        return f"run {run.id} has been running for {durations.words(took)}"
    if run is not None:
        return f"run {run.id} waits since {rfc3339(run.ready_at)}{nobody}"
    return None if one.next_due is None else f"due since {rfc3339(one.next_due)}{nobody}"


def _unwell(health: Mapping[str, Any], who: str) -> list[dict[str, Any]]:
    items = []
    if health.get("store"):
        items.append(_item("store", f"{who}: {health['store']}"))
    if health.get("stalled"):
        items.append(_item("stalled", f"{who}: {health['stalled']}"))
    if health.get("blocked"):
        items.append(_block(health["blocked"], f"{who}: its loop stands still"))
    skew = health.get("skew_ms", 0.0) / 1000
    if abs(skew) > SKEWED_SECONDS:
        items.append(_item("clock", f"{who}: its clock is {_apart(skew)}"))
    return items


def _apart(ahead_seconds: float) -> str:
    """How a clock is that of the store's server is so far ahead of."""
    return f"{abs(ahead_seconds):.1f} s {'behind' if ahead_seconds > 0 else 'ahead of'} that of the store's server"


def _is_off(worker: Worker) -> bool:
    return abs(float(worker.health.get("skew_ms", 0.0))) > 1000 * SKEWED_SECONDS


def _block(data: Mapping[str, Any], text: str, since: datetime | None = None) -> dict[str, Any]:
    who = f"job '{data['job']}', run {data['run']}" if "job" in data else data.get("task", "a callback")
    return _item(
        "loop_blocked", f"{text} for {data['ms']} ms, by {who}, at {data['where']}", job=data.get("job"), since=since
    )


def _item(
    condition: str,
    text: str | None,
    *,
    job: str | None = None,
    since: datetime | None = None,
    failures: int = 0,
    **more: Any,
) -> dict[str, Any]:
    return {
        "condition": condition,
        "job": job,
        "text": text,
        "since": None if since is None else rfc3339(since),
        "failures": failures,
        **more,
    }
