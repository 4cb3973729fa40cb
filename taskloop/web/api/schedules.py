"""Schedules: those that are stored, and what a trigger would do."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from taskloop import durations, looking, triggers
from taskloop.clock import later
from taskloop.errors import BadTrigger, NoSuchSchedule
from taskloop.policy import Policy
from taskloop.records import instant_text, schedule_record
from taskloop.schedules import Schedule, bind, next_due, usual_id
from taskloop.simulation import LONGEST, Note, clock_notes, note_record
from taskloop.triggers import Trigger
from taskloop.web.api.asking import LIMIT, TOLD, V1, limit, page, refuse_unknown
from taskloop.web.core import Response, answer
from taskloop.web.routes import INSTANT, OBJECT, TEXT, TRIGGER, Parameter, Route, whole
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.web.site import Asked

USUAL: Final = 10
LONGEST_SECONDS: Final = 2.0
"""A trigger that is rarely due is asked for no longer; then there are fewer fires."""


def _trigger(given: Any, now: datetime) -> Trigger:
    """A trigger as it stands in config.toml, or as a schedule shows it. Raises `BadTrigger` and its like."""
    try:
        if isinstance(given, str):
            return triggers.parse(given)
        if isinstance(given.get("at"), str) and len(given) == 1:  # also a time from now
            return triggers.from_mapping({"at": durations.instant(given["at"], now)})
        return triggers.from_mapping(given)
    except (TypeError, AttributeError):
        raise BadTrigger(given, 'a member is of the wrong type; write {"every": "5m"}') from None


async def _one(asked: Asked, name: str) -> Schedule:
    found = await looking.schedule(asked.scheduler, name)
    if found is None:
        raise NoSuchSchedule(name)
    return found


async def schedules(asked: Asked) -> Response:
    query, most = asked.query, limit(asked.query)
    found = await asked.scheduler.schedules(
        query["job"], prefix=query["prefix"], before=query["before"], limit=most + 1
    )
    if not found and query["job"] is not None:
        await refuse_unknown(asked, query["job"])
    return await page(found, most, schedule_record, lambda one: one.id)


async def schedule(asked: Asked) -> Response:
    return await answer(schedule_record(await _one(asked, asked.path["id"])))


async def add(asked: Asked) -> Response:
    body, trigger = asked.body, _trigger(asked.body["trigger"], asked.now)
    name = body["id"] or usual_id(body["job"], trigger)
    known = await looking.schedule(asked.scheduler, name)
    stored = await asked.scheduler.schedule(body["job"], trigger, id=name, params=body["params"], **asked.told())
    where = f"{asked.request.prefix}{V1}/schedules/{quote(stored.id, safe='')}"
    return await answer(schedule_record(stored), 201 if known is None else 200, headers={"location": where})


async def change(asked: Asked) -> Response:
    body = asked.body
    trigger = None if body["trigger"] is None else _trigger(body["trigger"], asked.now)
    stored = await asked.scheduler.reschedule(asked.path["id"], trigger=trigger, params=body["params"], **asked.told())
    return await answer(schedule_record(stored))


async def remove(asked: Asked) -> Response:
    await asked.scheduler.unschedule(asked.path["id"], **asked.told())
    return Response(204)


async def changeable(asked: Asked, name: str) -> Schedule:
    """The schedule of that id, unless it would be back at the next start. Raises `Conflict`, `NoSuchSchedule`."""
    one = await _one(asked, name)
    asked.scheduler.refuse_declared(one.id)
    return one


async def preview(asked: Asked) -> Response:
    """A trigger in words, and its next instants; in a thread, for a rare one may be searched for long."""
    now, scheduler, body = asked.now, asked.scheduler, asked.body
    trigger = scheduler.resolved(_trigger(body["trigger"], now))
    start = durations.instant(body["start"], now) if body["start"] else now
    if body["job"] is not None:
        await refuse_unknown(asked, body["job"])
    fires = await asyncio.to_thread(fires_of, trigger, policy_of(asked, body["job"]), start, body["count"] or USUAL)
    notes = await asyncio.to_thread(notes_of, trigger, start)
    return await answer(
        {
            "trigger": str(trigger),
            "trigger_text": trigger.describe(),
            "fires": [instant_text(one) for one in fires],
            "notes": [note_record(one) for one in notes],
        }
    )


def notes_of(trigger: Trigger, start: datetime) -> list[Note]:
    """What changes of the clock do to a trigger within a year."""
    return clock_notes([(trigger, "it", start)], start, later(start, LONGEST))


def policy_of(asked: Asked, job: str | None) -> Policy:
    """That of a job of this program; the usual one, where it has none of that name."""
    return asked.scheduler[job].policy if job is not None and job in asked.scheduler else Policy()


def fires_of(trigger: Trigger, policy: Policy, start: datetime, count: int) -> list[datetime]:
    """The next fires of a schedule that is stored at `start` for a job of this policy; fewer where it is rarely due."""
    policy = replace(policy, spread=None)  # how far it shifts them depends on the id that it will have
    stored = bind(Schedule(id="", job="", trigger=trigger), policy, start)
    fires: list[datetime] = []
    at, enough = stored.next_due, time.monotonic() + LONGEST_SECONDS
    while at is not None and at >= start:  # an instant that is past is missed, not fired
        fires.append(at)
        if len(fires) == count or time.monotonic() > enough:
            break
        at = next_due(stored, policy, at)
    return fires


_PARAMS: Final = Parameter("params", OBJECT, "the job's parameters by name")

ROUTES = (
    Route(
        method="GET", path=f"{V1}/schedules", name="schedules", scope=Scope.read, handler=schedules,
        summary="All schedules by id: declared ones and stored ones", gives={200: "Schedules"},
        query=(
            Parameter("job", TEXT, "only of this job"),
            Parameter("prefix", TEXT, "only ids that begin so"),
            Parameter("before", TEXT, "the `next` of the page before: the id of its last schedule"),
            LIMIT,
        ),
        example="?job=report",
    ),
    Route(
        method="POST", path=f"{V1}/schedules", name="add_schedule", scope=Scope.admin, handler=add,
        summary="Store a schedule; one of that id is replaced", gives={201: "Schedule", 200: "Schedule"},
        body=(
            Parameter("job", TEXT, "what to run", required=True),
            Parameter("trigger", TRIGGER, "when", required=True),
            Parameter("id", TEXT, "its name; without it one is made of job and trigger"),
            _PARAMS,
            *TOLD,
        ),
        example="""-d '{"job": "report", "trigger": {"cron": "0 2 * * *"}, "id": "report-nightly"}'""",
    ),
    Route(
        method="POST", path=f"{V1}/schedules/preview", name="preview", scope=Scope.read, handler=preview,
        summary="What a trigger means, and when it would fire; stores nothing",
        body=(
            Parameter("trigger", TRIGGER, "when", required=True),
            Parameter("count", whole(1, 100), f"how many fires; without it {USUAL}"),
            Parameter("start", INSTANT, "as if it were stored at this instant; without it now"),
            Parameter("job", TEXT, "for this job: whether a span begins at once or after its first, as its `first` says"),
        ),
        example="""-d '{"trigger": {"cron": "0 2 * * *", "timezone": "Europe/London"}}'""",
    ),
    Route(
        method="GET", path=f"{V1}/schedules/{{id}}", name="schedule", scope=Scope.read, handler=schedule,
        summary="One schedule", gives={200: "Schedule"},
    ),
    Route(
        method="PATCH", path=f"{V1}/schedules/{{id}}", name="change_schedule", scope=Scope.admin, handler=change,
        summary="Give a stored schedule another trigger, or other parameters", gives={200: "Schedule"},
        body=(Parameter("trigger", TRIGGER, "when"), _PARAMS, *TOLD), example="""-d '{"trigger": {"every": "1h"}}'""",
    ),
    Route(
        method="DELETE", path=f"{V1}/schedules/{{id}}", name="remove_schedule", scope=Scope.admin, handler=remove,
        summary="Remove a stored schedule; its runs stay", body=TOLD, gives={204: "nothing"},
    ),
)  # fmt: skip
