"""The page of schedules: those that are declared and those that are stored, what a trigger would do, adding and removing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from taskloop import durations, looking
from taskloop.errors import BadParameters, BadTrigger, Conflict, NoSuchJob, NoSuchSchedule, TaskloopError
from taskloop.masking import MASK, shown
from taskloop.schedules import Schedule, usual_id
from taskloop.simulation import Simulation, quiet_hour, worst
from taskloop.triggers import At, Cron, Every, Trigger
from taskloop.web.api.between import is_off
from taskloop.web.api.schedules import changeable, fires_of, notes_of, policy_of
from taskloop.web.core import Response
from taskloop.web.pages.now import PAGE, empty_is_none, whole_page
from taskloop.web.pages.rendering import see_other, zone_of
from taskloop.web.pages.repeating import ONCE, form_key, sign
from taskloop.web.routes import TEXT, Parameter, Route, whole
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.web.site import Asked

__all__ = ["ROUTES", "as_typed", "meant"]

SCHEDULES_A_PAGE, SHOWN_FIRES, SHOWN_OVERLAPS, USUAL_DAYS = 50, 8, 30, 7
LOAD_WIDTH, LOAD_HEIGHT, MOST_BARS = 1000.0, 60.0, 200
FIELDS: Final = ("job", "when", "timezone", "id", "params", "reason")
"""Of the form, in their order."""
CHANGEABLE: Final = ("when", "timezone", "params")
"""Of them those that are changed; another job or name is another schedule."""


def meant(text: str, timezone: str | None, now: datetime) -> Trigger:
    """The trigger that was typed: a span, the fields of cron, or an instant. Raises `ValueError` with what is allowed."""
    text = text.strip()
    if text.startswith("@") or len(text.split()) in (5, 6):
        return Cron(text, timezone=timezone)
    found = _without_zone(text, now)
    if timezone:
        raise BadTrigger(timezone, f"it belongs to the fields of cron, and '{text}' has no use for it", what="timezone")
    return found


def _without_zone(text: str, now: datetime) -> Trigger:
    try:
        return Every(durations.parse_interval(text))
    except ValueError as error:
        try:
            return At(durations.instant(text, now))
        except ValueError:
            raise ValueError(
                f"'{text[:80]}' is no trigger; allowed are a span such as 5m, the five fields of cron such as 0 2 * * *, "
                "and an instant such as +2h or 2026-03-01T02:00Z"
            ) from error


def as_typed(trigger: Trigger) -> tuple[str, str] | None:
    """A trigger and its zone as `meant` reads them; None: it has no such form."""
    match trigger:
        case Every() if trigger.interval is not None:
            return durations.format(trigger.interval), ""
        case Cron():
            return trigger.expression, trigger.timezone or ""
        case At():
            return durations.rfc3339(trigger.instant), ""
    return None


def _kept(old: Trigger, new: Trigger) -> Trigger:
    """What was typed anew, but the old trigger where that says the same and more: an anchor, what it does at a gap."""
    return old if as_typed(old) == as_typed(new) else new


async def schedules(asked: Asked) -> Response:
    wanted = dict(asked.query)
    if wanted.get("change"):
        one = await changeable(asked, wanted["change"])
        when, timezone = as_typed(one.trigger) or ("", "")
        params = json.dumps(shown(one.params), ensure_ascii=False, default=str) if one.params else ""
        wanted |= {"id": one.id, "job": one.job, "when": when, "timezone": timezone, "params": params}
        wanted["was"] = json.dumps({name: _sign_of(wanted[name]) for name in CHANGEABLE})
    return await _page(asked, wanted)


async def _page(
    asked: Asked,
    wanted: Mapping[str, Any],
    code: int = 200,
    *,
    refused: str = "",
    problems: Mapping[str, str] | None = None,
) -> Response:
    """`wanted`: what was typed, in the query or in the form that is refused; `problems`: what is wrong, by field."""
    scheduler, ill = asked.scheduler, dict.fromkeys(FIELDS, "") | dict(problems or {})
    narrowed = {name: asked.query.get(name) or None for name in ("job", "prefix")}
    change = wanted.get("change") or ""
    found = await scheduler.schedules(
        narrowed["job"], prefix=narrowed["prefix"], before=asked.query.get("before"), limit=SCHEDULES_A_PAGE + 1
    )
    here = found[:SCHEDULES_A_PAGE]
    following = None
    if len(found) > len(here):
        following = urlencode({name: one for name, one in {**narrowed, "before": here[-1].id}.items() if one})
    words, coming, problem, notes = "", [], "", []
    if wanted.get("when"):
        try:
            now = asked.now
            typed = await asyncio.to_thread(meant, wanted["when"], wanted.get("timezone") or None, now)
            trigger = scheduler.resolved(typed)
            words = trigger.describe()
            policy = policy_of(asked, wanted.get("job"))
            coming = await asyncio.to_thread(fires_of, trigger, policy, now, SHOWN_FIRES)
            notes = await asyncio.to_thread(notes_of, trigger, now)
        except ValueError as error:
            problem = str(error)
    days = wanted.get("days") or USUAL_DAYS
    ahead = await asked.site.foresight.ahead(timedelta(days=days))
    off = await looking.off(scheduler, {one.job for one in here})
    begin = {name: wanted.get(name) or "" for name in (*FIELDS, "prefix", "was")}
    load = _load(ahead)
    return await whole_page(
        asked, "schedules.html", code, schedules=here, next=following, narrowed=narrowed,
        skipped={one.id for one in here if one.next_due is not None and is_off(off, one.job, one.next_due)}, wanted=begin, words=words, coming=coming,
        problem=problem, notes=notes, ahead=ahead, days=days, bars=_bars(load), load=_load_text(*load), clock_notes=sum(one.kind == "dst" for one in ahead.notes), quiet=quiet_hour(ahead, zone_of(asked)),
        overlaps=worst(ahead.overlaps, SHOWN_OVERLAPS), refused=refused, problems=ill,
        first_problem=next((name for name in FIELDS if ill[name]), ""), names=sorted(job.name for job in scheduler),
        once=sign(asked), change=change, removable={one.id for one in here if one.origin == "stored" or one.job not in scheduler},
    )  # fmt: skip


Load = tuple[int, list[tuple[int, int]]]


def _bars(load: Load) -> list[tuple[float, float, float, str]]:
    """Place, width and height of each bar of the load, and what it says: of an hour, or of several where there are many."""
    _, found = load
    highest = max([fires for fires, _ in found], default=0) or 1
    width = LOAD_WIDTH / max(1, len(found))
    return [
        (place * width, max(0.5, width - 0.5), LOAD_HEIGHT * fires / highest, f"{fires} fires, at most {most} at once")
        for place, (fires, most) in enumerate(found)
        if fires
    ]


def _load(ahead: Simulation) -> Load:
    """How many hours a bar of the load is of, and of each bar the fires and how many of them at once at most."""
    together = -(-len(ahead.load) // MOST_BARS) or 1
    spans = [ahead.load[at : at + together] for at in range(0, len(ahead.load), together)]
    return together, [(sum([one.fires for one in span]), max([one.most for one in span])) for span in spans]


def _load_text(hours: int, found: list[tuple[int, int]]) -> str:
    """What the bars of the load say to who does not see them."""
    fires = [number for number, _ in found] or [0]
    least, most = min(fires), max(fires)
    return f"{f'{least:,} to ' if least < most else ''}{most:,} {'an hour' if hours == 1 else f'in {hours} hours'}"


async def add(asked: Asked) -> Response:
    """Store a schedule by the form; what is wrong with it stands beside its fields, all at once."""
    form = empty_is_none(asked.body)
    if form.get("change"):
        return await _change(asked, form)
    job, name = form.get("job") or "", form.get("id")
    trigger, params, problems = await asyncio.to_thread(_read, form, asked.now)  # zones are files
    try:
        name = name or (await _name(asked, trigger) if trigger is not None else "")
        if name and (old := await looking.schedule(asked.scheduler, name)) is not None:
            trigger = trigger and _kept(old.trigger, asked.scheduler.resolved(trigger))
            params = params and _uncovered(params, old)
        if trigger is not None and not problems:
            told = {"actor": asked.principal.name, "reason": form.get("reason")}
            await asked.scheduler.schedule(job, trigger, id=name, params=params, **told)
        elif params is not None:  # they may be wrong too
            asked.scheduler[job].parameters.check(params)
    except NoSuchJob as error:
        problems["job"] = str(error)
    except BadParameters as error:
        problems["params"] = str(error)
    except (BadTrigger, Conflict) as error:  # the trigger is well by then, so it is the name
        problems["id"] = str(error)
    except (TaskloopError, ValueError, RecursionError) as error:
        return await _page(asked, form, 422, refused=f"Nothing was stored: {error}", problems=problems)
    if problems:
        return await _page(asked, form, 422, refused="Nothing was stored: see the fields below.", problems=problems)
    return see_other(asked, f"/schedules?{urlencode({'prefix': name})}", "scheduled")


async def _change(asked: Asked, form: Mapping[str, Any]) -> Response:
    """Change what was typed anew in the form of a stored schedule: the rest stays as others may have changed it since."""
    before, name = _was(form), str(form["change"])
    form = {**form, "id": name}
    changed = {one for one in CHANGEABLE if _sign_of(form.get(one) or "") != before.get(one)}
    trigger, params, problems = await asyncio.to_thread(_read, form, asked.now)
    if not {"when", "timezone"} & changed:  # it may have passed since, or cannot be typed at all
        trigger, problems = None, {field: why for field, why in problems.items() if field == "params"}
    if not problems:
        try:
            old = await changeable(asked, name)
            await asked.scheduler.reschedule(
                name,
                trigger=trigger and _kept(old.trigger, asked.scheduler.resolved(trigger)),
                params=_uncovered(params or {}, old) if "params" in changed else None,
                actor=asked.principal.name,
                reason=form.get("reason"),
            )
        except BadParameters as error:
            problems["params"] = str(error)
        except NoSuchSchedule:
            told = f"Nothing was changed: '{name}' was removed meanwhile; Add stores it anew."
            return await _page(asked, {**form, "change": ""}, 409, refused=told)
        except (TaskloopError, ValueError, RecursionError) as error:
            return await _page(asked, form, 409, refused=f"Nothing was changed: {error}")
    if problems:
        return await _page(asked, form, 422, refused="Nothing was changed: see the fields below.", problems=problems)
    return see_other(asked, f"/schedules?{urlencode({'prefix': name})}", "scheduled")


def _was(form: Mapping[str, Any]) -> Mapping[str, Any]:
    """By field that can be changed the sign of what it showed; nothing where a program sends a form without them: then
    all is meant.
    """
    try:
        found = json.loads(form.get("was") or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _sign_of(text: str) -> str:
    """Tells a text from another: the text itself would be sent twice, and long parameters be too long for a form."""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _uncovered(params: Mapping[str, Any], old: Schedule) -> dict[str, Any]:
    """Parameters as they were typed, a secret that was left covered as it stands."""
    return {key: old.params.get(key, one) if one == MASK else one for key, one in params.items()}


def _read(form: Mapping[str, Any], now: datetime) -> tuple[Trigger | None, dict[str, Any] | None, dict[str, str]]:
    """The trigger and the parameters that were typed, None where they cannot be read, and by field why not."""
    trigger, params, problems = None, None, {}
    try:
        trigger = meant(form.get("when") or "", form.get("timezone"), now)
        if isinstance(trigger, At) and trigger.after(now) is None:
            problems["when"] = "it has passed: the run would only be skipped, as missed; give an instant to come"
    except ValueError as error:
        of_zone = isinstance(error, BadTrigger) and error.got == form.get("timezone")
        problems["timezone" if of_zone else "when"] = str(error)
    why = ""
    try:
        params = json.loads(form.get("params") or "{}")
    except (ValueError, RecursionError) as error:
        why = f": {error}"
    if not isinstance(params, dict):
        problems["params"] = f'the parameters are no JSON object, such as {{"days": 7}}{why}'
        params = None
    return trigger, params, problems


async def _name(asked: Asked, trigger: Trigger) -> str:
    """A name of job and trigger: sent again, the form means the same schedule, also where its instant is one from now."""
    form = empty_is_none(asked.body)
    job, when, once = str(form.get("job")), str(form.get("when")).strip(), str(form.get("once") or "")[:ONCE]
    if isinstance(trigger, At) and when.startswith("+") and once:
        return usual_id(job, f"{when}-{form_key(once, asked.body, await asked.site.access.marks())[-8:]}")
    return usual_id(job, trigger)


async def remove(asked: Asked) -> Response:
    await asked.scheduler.unschedule(
        asked.path["id"], actor=asked.principal.name, reason=empty_is_none(asked.body)["reason"]
    )
    return see_other(asked, "/schedules", "unscheduled")


_WHEN: Final = Parameter("when", TEXT, "a span, the fields of cron, or an instant")
_ZONE: Final = Parameter("timezone", TEXT, "of cron")
_REASON: Final = Parameter("reason", TEXT, "why")
_JOB: Final = Parameter("job", TEXT, "the job")

ROUTES = (
    Route(
        method="GET", path="/schedules", name="page_schedules", scope=Scope.read, handler=schedules,
        summary="Schedules", page=True,
        query=(
            *PAGE, _JOB, _WHEN, _ZONE,
            Parameter("prefix", TEXT, "only ids that begin so"),
            Parameter("change", TEXT, "the id of the schedule that the form is to change"),
            Parameter("days", whole(1, 31), f"how far to look ahead; without it {USUAL_DAYS}"),
            Parameter("before", TEXT, "the id of the last schedule of the page before"),
        ),
    ),
    Route(
        method="POST", path="/schedules", name="page_schedule", scope=Scope.admin, handler=add, summary="Add", page=True,
        body=(_JOB, _WHEN, _ZONE, Parameter("id", TEXT, "its name"), Parameter("params", TEXT, "the job's parameters"), _REASON,
            Parameter("once", TEXT, "the sign of the form"), Parameter("change", TEXT, "the id of the schedule that it changes"),
            Parameter("was", TEXT, "what it showed then")),
    ),
    Route(
        method="POST", path="/schedules/{id}/remove", name="page_unschedule", scope=Scope.admin, handler=remove,
        summary="Remove", page=True, body=(_REASON,),
    ),
)  # fmt: skip
