"""The jobs of an APScheduler 3 scheduler as jobs of taskloop, with the triggers, parameters and limits that they have.

The scheduler is only read, never started; a store of its own that keeps jobs is opened as a start would. Nothing here
imports APScheduler: what a job and its trigger are is seen by their attributes and class names. Start at `read`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from math import isfinite
from typing import Any, Final

from taskloop import durations
from taskloop.annotations import signature_of
from taskloop.errors import BadJob, BadParameters, BadSettings, BadTrigger
from taskloop.file_jobs import read_jobs
from taskloop.given import Given, Wrong
from taskloop.jobs import refuse_the_uncallable
from taskloop.migrate.tables import Moved, job_name, named_apart
from taskloop.parameters import Parameters
from taskloop.targets import load_job
from taskloop.triggers import Cron

__all__ = ["HEAD", "differences", "jobs_of", "read"]

HEAD: Final = (
    "What is different for all these jobs:",
    "- every fire is on record, with its reason where it became no run: `taskloop runs`, `taskloop why JOB`",
    "- a late fire still runs, unless it has max_late =; APScheduler gave one up after misfire_grace_time, 1 s by default",
    "- a plain function runs in a thread, an async one on the loop; there are no named pools",
    "- an exception is a failed run, and with retry = it is tried again",
    "- jobs that the program added while it ran belong in the code, as decorators or schedule(); this is what there was.",
)
_DEFAULTS: Final = {"misfire_grace_time": 1, "coalesce": True, "max_instances": 1, "executor": "default"}
_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LOADED: Final = timedelta(minutes=1)
"""How long ago a scheduler may have been made that was just loaded."""


def jobs_of(scheduler: Any) -> list[Any]:
    """The jobs of a scheduler, those of its stores too, though it is not started."""
    found = list(scheduler.get_jobs())
    if getattr(scheduler, "running", False):
        return found
    for alias, store in list(getattr(scheduler, "_jobstores", {}).items()):  # what a start would read
        store.start(scheduler, alias)
        found += [one for one in store.get_all_jobs() if one.id not in {each.id for each in found}]
    return found


def read(scheduler: Any, now: datetime) -> list[Moved]:
    """Every job, in its order; `now`: what lies before it has passed."""
    defaults = {**_DEFAULTS, **getattr(scheduler, "_job_defaults", {})}
    pools = getattr(scheduler, "_executors", {})
    found = [_job(one, defaults, pools, now) for one in jobs_of(scheduler)]
    names = named_apart([one.name for one in found])
    return [replace(one, name=name) for one, name in zip(found, names, strict=True)]


def differences(scheduler: Any) -> list[str]:
    """What is different for all its jobs, a line each."""
    count = len(getattr(scheduler, "_listeners", ()))
    named = "its listener is" if count == 1 else f"its {count} listeners are"
    mend = 'write them anew, `@scheduler.on("failed", "skipped")` in the code, or have `[jobs.NAME] ping`'
    return [*HEAD, *([f"- {named} NOT MOVED: {mend}"] if count else [])]


def _job(job: Any, defaults: Mapping[str, Any], pools: Mapping[str, Any], now: datetime) -> Moved:
    # A job without an id of its own has a random one; its name is that of its function.
    name = job_name(str(job.name) if re.fullmatch(r"[0-9a-f]{32}", str(job.id)) else str(job.id))
    origin = f"job '{job.id}': {job.trigger}"
    reference = job.func_ref
    if not isinstance(reference, str) or "<" in reference:
        text = f"its function {job.name} cannot be imported by a name: put it at the top of a module"
        return Moved(name=name, origin=origin, refused=text)
    trigger, notes, refused = _trigger(job.trigger, now)
    params, wrong = _params(job)
    if wrong := refused or wrong:
        return Moved(name=name, origin=origin, refused=wrong)
    said = {key: getattr(job, key, value) for key, value in defaults.items()}  # one of a stopped scheduler lacks them
    policy, more = _policy(said, pools.get(said["executor"]))
    if getattr(job, "next_run_time", now) is None:
        policy["enabled"] = False
        more.append("it was paused, and is off here: `taskloop enable`, or take the line out")
    keys = {"call": reference, **trigger, **({"params": params} if params else {}), **policy}
    if wrong := _unfit(name, keys):
        return Moved(name=name, origin=origin, refused=wrong)
    return Moved(name=name, origin=origin, keys=keys, notes=[*notes, *more])


def _unfit(name: str, keys: Mapping[str, Any]) -> str | None:
    """Why such a table would be refused, by those who read it at a start; None: it would not."""
    where = f"jobs.{name}"
    try:
        [read] = read_jobs({name: {key: Given(value, f"{where}.{key}") for key, value in keys.items()}}).values()
        load_job(read)
    except (Wrong, BadSettings) as error:
        return "; ".join(one.removeprefix(f"{where}: ") for one in error.problems)
    return None


def _params(job: Any) -> tuple[dict[str, Any], str | None]:
    """Its arguments by name, as a table can have them; and why that cannot be."""
    try:
        refuse_the_uncallable(job.func, None)
    except BadJob as error:
        return {}, str(error)
    known = signature_of(job.func).parameters
    names = [one.name for one in known.values() if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    if len(job.args) > len(names):
        return {}, "it takes *args, which a job of taskloop cannot: give its parameters names"
    params: dict[str, Any] = {}
    given = {**dict(zip(names, job.args, strict=False)), **job.kwargs}
    written = _written(job.func, given)
    for name, value in given.items():
        if value is None and name in known and known[name].default is None:
            continue
        params[name] = value if _sayable(value) else written.get(name)
        if not _sayable(params[name]):
            what = (
                "None, which TOML cannot say"
                if value is None
                else f"a {type(value).__name__} with what is no JSON in TOML"
            )
            return {}, f"its argument '{name}' is {what}: let it take a name or an id, be annotated, or have a default"
    return params, None


def _written(function: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values as plain data, of those that come back from it as they are: a date where the annotation says date."""
    found = {}
    try:
        takes = Parameters(function.__name__, function)
    except BadJob:  # told where the job as a whole is tried
        return {}
    for name, value in given.items():
        try:
            plain = takes.declare({name: value}, whole=False)
            back = takes.rebuild(plain)[name]
        except (BadJob, BadParameters):
            continue
        if type(back) is type(value) and back == value and not takes.is_secret(name):
            found[name] = plain[name]
    return found


def _sayable(value: Any) -> bool:
    """Whether a value may stand in a table, and comes back as it is: JSON without null."""
    if isinstance(value, float):
        return isfinite(value)
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _sayable(one) for key, one in value.items())
    return all(map(_sayable, value)) if isinstance(value, (list, tuple)) else isinstance(value, (str, int))


def _policy(said: Mapping[str, Any], pool: Any) -> tuple[dict[str, Any], list[str]]:
    """What it says of late, missed and overlapping fires and of where it runs, in taskloop's words.

    `pool`: what its executor's name stands for; None: the scheduler has none of that name, and the name alone tells.
    """
    policy: dict[str, Any] = {}
    notes = []
    if said["misfire_grace_time"] not in (None, _DEFAULTS["misfire_grace_time"]):
        policy["max_late"] = durations.format(timedelta(seconds=said["misfire_grace_time"]))
    if not said["coalesce"]:
        policy["missed"] = "all"
    if said["max_instances"] > 1:
        policy |= {"overlap": "allow", "max_running": said["max_instances"]}
        notes.append(f"a run beyond {said['max_instances']} at once waits for its turn; APScheduler skipped it")
    alias = str(said["executor"])
    if "process" in (alias if pool is None else type(pool).__name__).lower():
        policy["executor"] = "process"
    places = getattr(getattr(pool, "_pool", None), "_max_workers", None)
    if places is not None and (alias != "default" or places == 1):
        text = f"its executor '{alias}' ran at most {places} of its jobs at once; for that limit write group = \"{job_name(alias)}\""
        notes.append(f"{text} here, and {job_name(alias)} = {places} below [groups]")
    return policy, notes


def _trigger(trigger: Any, now: datetime) -> tuple[dict[str, Any], list[str], str | None]:
    """The keys that say when, what is different about them, and why they cannot be."""
    kind = type(trigger).__name__
    if kind == "IntervalTrigger":
        return _interval(trigger, now)
    if kind == "DateTrigger":
        passed = f"its time has passed: {trigger.run_date.isoformat()}" if trigger.run_date <= now else None
        return {"at": trigger.run_date.isoformat()}, [], passed
    if kind == "CronTrigger":
        return _cron(trigger)
    mend = "several schedules of one job are made by `taskloop schedule add`"
    if kind == "AndTrigger":
        mend = "let it fire by one of them, and the job look at the rest"
    return {}, [], f"taskloop has no trigger like {kind}; {mend}"


def _bounds(trigger: Any) -> list[str]:
    notes = []
    if getattr(trigger, "end_date", None) is not None:
        notes.append(f"it ended at {trigger.end_date.isoformat()}; taskloop goes on, until the job is taken out")
    if getattr(trigger, "jitter", None):
        notes.append(f"its jitter of {trigger.jitter} s is left out: spread = gives each schedule a fixed offset")
    return notes


def _interval(trigger: Any, now: datetime) -> tuple[dict[str, Any], list[str], str | None]:
    keys = {"every": durations.format(trigger.interval)}
    start: datetime = trigger.start_date
    if abs(start - trigger.interval - now) > _LOADED:  # else nobody said when: it begins an interval after it was made
        keys["anchor"] = start.isoformat()
    else:
        keys["first"] = "after"
    notes = _bounds(trigger)
    if start - trigger.interval > now:
        notes.append(f"it was to begin at {start.isoformat()}; taskloop begins before, on the same grid")
    return keys, notes, None


def _cron(trigger: Any) -> tuple[dict[str, Any], list[str], str | None]:
    fields = {one.name: str(one) for one in trigger.fields}
    for name in ("year", "week"):
        if fields[name] != "*":
            return {}, [], f"its field {name} = '{fields[name]}' has no place in a cron expression"
    day, weekday, wrong = _days(fields["day"], fields["day_of_week"])
    if wrong is not None:
        return {}, [], wrong
    expression = " ".join((fields["minute"], fields["hour"], day, fields["month"], weekday))
    if fields["second"] != "0":
        expression = f"{fields['second']} {expression}"
    zone = str(trigger.timezone)
    try:
        Cron(expression, timezone=zone)
    except BadTrigger as error:
        return {}, [], str(error)
    notes = _bounds(trigger)
    if getattr(trigger, "start_date", None) is not None:
        notes.append(f"it began at {trigger.start_date.isoformat()}; taskloop begins at once")
    return {"cron": expression, "timezone": zone}, notes, None


def _days(day: str, weekday: str) -> tuple[str, str, str | None]:
    """The two fields of days as cron has them, and why they cannot be: APScheduler wants both to fit, cron either."""
    weekday = ",".join(_weekdays(piece) for piece in weekday.split(","))
    nth = re.fullmatch(r"(last|1st|2nd|3rd|4th|5th) (\w{3})", day)
    if day == "last":
        day = "L"
    elif nth is not None and weekday == "*":
        number = (_DAYS.index(nth[2]) + 1) % 7
        day, weekday = "*", f"{number}L" if nth[1] == "last" else f"{number}#{nth[1][0]}"
    if not day.startswith("*") and not weekday.startswith("*"):
        text = (
            f"its days '{day}' and weekdays '{weekday}' must both fit; cron takes either: let the job look at the day"
        )
        return "", "", text
    return day, weekday, None


def _weekdays(piece: str) -> str:
    """One piece of a field of weekdays, which APScheduler counts from Monday as 0, and cron from Monday as 1."""
    found = re.fullmatch(r"(\*|(\w+)(?:-(\w+))?)(?:/(\d+))?", piece)
    if found is None or piece == "*":
        return piece
    if found[1] == "*":
        return ",".join(str(number + 1) for number in range(0, 7, int(found[4])))
    ends = [str(_weekday(one) + 1) for one in found.groups()[1:3] if one]
    return "-".join(ends) + (f"/{found[4]}" if found[4] else "")


def _weekday(text: str) -> int:
    return int(text) if text.isdecimal() else _DAYS.index(text)
