"""The records as the outside sees them: plain JSON of the shapes that command line, HTTP and events share.

Level 4, pure. The names of the keys are a promise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from taskloop import durations
from taskloop.audit import ACTIONS, Entry
from taskloop.jobs import Job
from taskloop.masking import shown
from taskloop.policy import OPTIONS, Policy
from taskloop.punctuality import Condition, condition, overdue
from taskloop.retry import Retry
from taskloop.runs import Failure, Progress, Run
from taskloop.schedules import Schedule
from taskloop.steps import LogLine
from taskloop.store_data import Attempt, Definition, Newest, Worker
from taskloop.switches import InForce, Switch
from taskloop.tokens import Token
from taskloop.triggers import Trigger

__all__ = [
    "JobRecord",
    "Standing",
    "Status",
    "attempt_record",
    "definition",
    "entry_record",
    "instant_text",
    "job_record",
    "line_record",
    "policy_record",
    "run_record",
    "schedule_record",
    "status_record",
    "token_record",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRecord:
    """A job as it stands: its declaration, its switch, what it did last and does next."""

    name: str
    title: str
    description: str
    kind: str
    trigger: str | None
    trigger_text: str
    policy: Mapping[str, Any]
    enabled: bool
    switch: Switch | None
    """By which it was switched; of one that is on and held, the pause, its own or that of all jobs."""
    condition: Condition
    next_due: datetime | None
    last_run: Run | None
    last_success: datetime | None
    consecutive_failures: int
    params_schema: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    """What the declaration gives, also to a call that leaves it out, with secrets masked; in no JSON of it, where the
    schema has it as defaults."""
    steps: Sequence[Mapping[str, Any]] = ()
    """Of a flow, in their order: `name`, `needs`, `optional`, `executor`, `attempts`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How the whole stands. `attention`: what a person should look at, worst first."""

    running: bool
    enabled: bool
    workers: Sequence[Worker]
    paused: Switch | None
    jobs: int
    waiting: int
    in_hand: int
    """How many runs are being made, counted at one moment with those that are `waiting`; in no JSON of it."""
    active: Sequence[Run]
    """Those in hand, 100 at most; read after they were counted."""
    attention: Sequence[Mapping[str, Any]] = field(default=())
    loop_lag_ms: float | None = None
    store: str
    answered: bool = True
    """Whether the store did; False: this is how the worker that was asked stands by itself. In no JSON of it."""
    standings: Sequence[Standing] = ()
    """The jobs themselves, as they were looked at for this; in no JSON of it."""

    @property
    def at_work(self) -> list[Worker]:
        """The workers but those that only submit."""
        return [one for one in self.workers if not one.only_submits]


class Standing(NamedTuple):
    """How a job stands, in a look at all of them: what a list, a count or a figure needs, and no whole run."""

    name: str
    facts: Mapping[str, Any]
    """What it declares, as `Definition` has it."""
    enabled: bool
    switch: Switch | None
    condition: Condition
    next_due: datetime | None
    newest: Newest | None
    """None: it never ran."""
    troubled: Run | None = None
    """The run that is stuck, also while the job is paused, or waits though it is overdue; None: neither, or it is known to
    be overdue by its due time.
    """

    @property
    def title(self) -> str:
        return str(self.facts["title"])

    @property
    def failures(self) -> int:
        """Since its last success."""
        return 0 if self.newest is None else self.newest.failures

    @property
    def last_success(self) -> datetime | None:
        return None if self.newest is None else self.newest.last_success

    def record(self, last_run: Run | None) -> JobRecord:
        """With the newest run in full."""
        facts = self.facts
        return JobRecord(
            name=self.name,
            title=facts["title"],
            description=facts["description"],
            kind=facts["kind"],
            trigger=facts["trigger"],
            trigger_text=facts["trigger_text"],
            policy=facts["policy"],
            enabled=self.enabled,
            switch=self.switch,
            condition=self.condition,
            next_due=self.next_due,
            last_run=last_run,
            last_success=self.last_success,
            consecutive_failures=self.failures,
            params_schema=facts["params_schema"],
            params=facts.get("params", {}),
            steps=facts.get("steps", ()),
        )


def standing(
    name: str,
    facts: Mapping[str, Any],
    *,
    next_due: datetime | None,
    newest: Newest | None,
    in_force: InForce,
    orphan: bool = False,
    running: bool = False,
    stuck: Run | None = None,
    waiting: Run | None = None,
) -> Standing:
    """How a job stands, from its declaration and what the store knows. `running`: whether any of its runs is in hand;
    `waiting`: of its runs that are ready and have not begun the one that has waited longest.
    """
    switch, pause, now = in_force.thrown([name, *facts.get("aliases", ())]), in_force.pause(name), in_force.at
    enabled = bool(facts["policy"]["enabled"]) if switch is None else switch.kind == "enabled"
    word = condition(
        state=None if newest is None else newest.state.value,
        enabled=enabled,
        paused=pause is not None,
        orphan=orphan,
        stuck=stuck is not None,
        overdue=bool(overdue(next_due, now) or (waiting and overdue(waiting.ready_at, now))),
        running=running,
        begun=newest is not None and newest.begun,
        failures=0 if newest is None else newest.failures,
        succeeded=newest is not None and newest.last_success is not None,
    )
    troubled = {"stuck": stuck, "paused": stuck, "overdue": waiting}.get(word)
    stands_by = pause if enabled and pause is not None else switch
    return Standing(name, facts, enabled, stands_by, word, next_due, newest, troubled)


def definition(job: Job[..., Any], trigger: Trigger | None, now: datetime) -> Definition:
    """What a job declares, in plain JSON; `trigger` is its own with what it left to the scheduler."""
    facts: dict[str, Any] = {
        "title": job.title,
        "description": job.description,
        "kind": job.kind,
        "aliases": list(job.aliases),
        "trigger": None if trigger is None else str(trigger),
        "trigger_text": trigger_text(trigger),
        "policy": policy_record(job.policy),
        "params_schema": job.parameters.schema(),
    }
    if job.params:
        facts["params"] = shown(job.params)
    if steps := job.step_facts():
        facts["steps"] = steps
    return Definition(job.name, facts, job.origin, now)


def instant_text(instant: datetime | None) -> str | None:
    """RFC 3339 in UTC, to the microsecond where there are any."""
    return None if instant is None else instant.isoformat().replace("+00:00", "Z")


def run_record(run: Run) -> dict[str, Any]:
    """A run."""
    return {
        "id": run.id,
        "job": run.job,
        "schedule": run.schedule,
        "state": run.state.value,
        "status": run.status,
        "reason": run.reason,
        "cause": run.cause.value,
        "actor": run.actor,
        "key": run.key,
        "params": shown(run.params),
        "attempt": run.attempt,
        "attempts": run.attempts,
        "due_at": instant_text(run.due_at),
        "until_at": instant_text(run.until_at),
        "ready_at": instant_text(run.ready_at),
        "created_at": instant_text(run.created_at),
        "started_at": instant_text(run.started_at),
        "ended_at": instant_text(run.ended_at),
        "worker": run.worker,
        "priority": run.priority,
        "progress": _progress_record(run.progress),
        "summary": run.summary,
        "result": run.result,
        "error": _failure_record(run.error),
        "rerun_of": run.rerun_of,
        "count": run.count,
        "data": dict(run.data),
        "existed": run.existed,
    }


def _progress_record(progress: Progress | None) -> dict[str, Any] | None:
    if progress is None:
        return None
    return {
        "fraction": progress.fraction,
        "done": progress.done,
        "total": progress.total,
        "message": progress.message,
        "rate": progress.rate,
        "eta_seconds": progress.eta_seconds,
    }


def _failure_record(error: Failure | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {
        "type": error.type,
        "message": error.message,
        "traceback": error.traceback,
        "fingerprint": error.fingerprint,
    }


def attempt_record(attempt: Attempt) -> dict[str, Any]:
    """An attempt of a run."""
    return {
        "attempt": attempt.attempt,
        "started_at": instant_text(attempt.started_at),
        "ended_at": instant_text(attempt.ended_at),
        "outcome": attempt.outcome,
        "worker": attempt.worker,
        "error": dict(attempt.error) if attempt.error else None,
    }


def schedule_record(schedule: Schedule) -> dict[str, Any]:
    """A schedule."""
    return {
        "id": schedule.id,
        "job": schedule.job,
        "trigger": str(schedule.trigger),
        "trigger_text": schedule.trigger.describe(),
        "params": shown(schedule.params),
        "next_due": instant_text(schedule.next_due),
        "last_due": instant_text(schedule.last_due),
        "enabled": schedule.enabled,
        "origin": schedule.origin,
    }


def switch_record(switch: Switch | None) -> dict[str, Any] | None:
    if switch is None:
        return None
    return {
        "kind": switch.kind,
        "by": switch.actor,
        "at": instant_text(switch.since),
        "reason": switch.reason,
        "until": instant_text(switch.until),
    }


def job_record(job: JobRecord) -> dict[str, Any]:
    """A job."""
    return {
        "name": job.name,
        "title": job.title,
        "description": job.description,
        "kind": job.kind,
        "trigger": job.trigger,
        "trigger_text": job.trigger_text,
        "policy": dict(job.policy),
        "enabled": job.enabled,
        "switch": switch_record(job.switch),
        "condition": job.condition,
        "next_due": instant_text(job.next_due),
        "last_run": run_record(job.last_run) if job.last_run else None,
        "last_success": instant_text(job.last_success),
        "consecutive_failures": job.consecutive_failures,
        "params_schema": dict(job.params_schema),
        **({"steps": [dict(one) for one in job.steps]} if job.steps else {}),
    }


def line_record(line: LogLine) -> dict[str, Any]:
    """A line of a run's log."""
    return {"at": instant_text(line.at), "level": line.level, "text": line.text, "step": line.step}


def worker_record(worker: Worker) -> dict[str, Any]:
    return {
        "id": worker.id,
        "name": worker.name,
        "host": worker.host,
        "pid": worker.pid,
        "started_at": instant_text(worker.started_at),
        "beat_at": instant_text(worker.beat_at),
        "stopped_at": instant_text(worker.stopped_at),
    }


def status_record(status: Status) -> dict[str, Any]:
    """How the whole stands."""
    return {
        "running": status.running,
        "enabled": status.enabled,
        "workers": [worker_record(one) for one in status.workers],
        "paused": switch_record(status.paused),
        "jobs": status.jobs,
        "waiting": status.waiting,
        "active": [run_record(one) for one in status.active],
        "attention": [dict(one) for one in status.attention],
        "loop_lag_ms": status.loop_lag_ms,
        "store": status.store,
    }


def token_record(token: Token, now: datetime) -> dict[str, Any]:
    """A token, without what it is compared by."""
    return {
        "id": token.id,
        "name": token.name,
        "scope": token.scope,
        "state": token.state(now),
        "created_at": instant_text(token.created_at),
        "by": token.actor,
        "reason": token.reason,
        "expires_at": instant_text(token.expires_at),
        "last_used_at": instant_text(token.last_used_at),
        "revoked_at": instant_text(token.revoked_at),
        "revoked_by": token.revoked_by,
        "revoked_because": token.revoked_because,
    }


def entry_record(entry: Entry) -> dict[str, Any]:
    """An entry of the audit."""
    return {
        "id": entry.id,
        "at": instant_text(entry.at),
        "actor": entry.actor,
        "channel": entry.channel,
        "action": entry.action,
        "kind": ACTIONS[entry.action],
        "object": entry.object,
        "job": entry.job,
        "before": None if entry.before is None else dict(entry.before),
        "after": None if entry.after is None else dict(entry.after),
        "reason": entry.reason,
        "request_id": entry.request_id,
    }


def policy_record(policy: Policy) -> dict[str, Any]:
    """A policy, every option in the form a configuration file would have it."""
    options = {name: _option(getattr(policy, name)) for name in OPTIONS}
    if policy.submit_limit is not None:
        count, span = policy.submit_limit
        options["submit_limit"] = f"{count}/{durations.format(span)}"
    if policy.ping is not None:  # who knows such an address can silence the alarm behind it
        options["ping"] = {word: _masked(address) for word, address in policy.ping.items()}
    return options


def _masked(address: str) -> str:
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.partition('/')[0].rpartition('@')[2]}/…"


_length = lru_cache(1024)(durations.format)
"""The same few stand in the policies of all jobs."""


def _option(value: Any) -> Any:
    if isinstance(value, timedelta):
        return _length(value)
    if isinstance(value, Retry):
        return {
            "attempts": value.attempts,
            "first": durations.format(value.first),
            "factor": value.factor,
            "max": durations.format(value.max),
            "jitter": value.jitter,
        }
    return list(value) if isinstance(value, tuple) else value


def trigger_text(trigger: Trigger | None) -> str:
    """When a job runs, in words."""
    return "on demand" if trigger is None else trigger.describe()
