"""The policy of a job: every rule about how its fires and runs are treated, checked when declared.

Level 2, pure. A policy is built from layers (the program's defaults, `[defaults]` of the file, the decorator,
`[jobs.NAME]` of the file), each holding only what was said there, so that "unset" never wins over "set".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import cache
from typing import Any, Final, Literal, TypedDict
from urllib.parse import urlsplit

from taskloop import durations
from taskloop.errors import BadDuration, BadJob, BadRate, nearest
from taskloop.retry import Retry

__all__ = ["OPTIONS", "Policy", "PolicyOptions", "called_elsewhere", "read_option", "read_texts"]

Overlap = Literal["skip", "queue", "replace", "allow"]
Missed = Literal["latest", "all", "skip"]
First = Literal["now", "after", "aligned"]
OnCrash = Literal["retry", "fail"]
ExecutorName = Literal["loop", "thread", "process", "dask"]
ELSEWHERE: Final = ("process", "dask")
"""The executors that call a function in another process, where it is found, or sent, and its parameters are rebuilt."""


class PolicyOptions(TypedDict, total=False):
    """The keyword arguments of a decorator that declare a policy; what each means stands at `Policy`."""

    timeout: timedelta | float | str | None
    retry: Retry | int | Mapping[str, Any]
    overlap: Overlap
    missed: Missed
    missed_limit: int
    max_late: timedelta | float | str | None
    on_crash: OnCrash
    group: str | None
    max_running: int | None
    first: First
    on_start: bool
    enabled: bool
    spread: timedelta | float | str | None
    executor: ExecutorName | None
    priority: int
    secret: tuple[str, ...] | list[str]
    tags: tuple[str, ...] | list[str]
    title: str | None
    description: str | None
    keep: timedelta | float | str | None
    keep_runs: int | None
    ping: str | Mapping[str, str] | None
    expect: timedelta | float | str | None
    pause_after: int | None
    trial_after: timedelta | float | str
    submit_limit: str | None


_ONCE: Final = Retry()


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a job's fires and runs are treated. Durations are None for "no such limit"."""

    timeout: timedelta | None = None
    """Ends the attempt after this; it has failed with error type `Timeout` and may be retried."""
    retry: Retry = _ONCE
    overlap: Overlap = "skip"
    """What a fire does while an earlier run of the same schedule is running or waiting."""
    missed: Missed = "latest"
    """What becomes of fires that fell into down time or a pause."""
    missed_limit: int = 100
    """With `missed="all"`: how many of the newest are run."""
    max_late: timedelta | None = None
    """How late a fire may still start; later it is skipped as `too_late`."""
    on_crash: OnCrash | None = None
    """None: `retry` where more than one attempt is allowed, else `fail`."""
    group: str | None = None
    """Jobs of one group share its places across all workers."""
    max_running: int | None = None
    """Runs of this job at once, across all workers."""
    first: First = "now"
    """When an `Every` seen for the first time fires: at once, after one interval, or on the grid of the epoch."""
    on_start: bool = False
    """Also fire when a scheduler starts while no other live worker has the job."""
    enabled: bool = True
    """The state of a job never switched by hand."""
    spread: timedelta | None = None
    """Each schedule is shifted by a fixed share of this, by a hash of its id."""
    executor: ExecutorName | None = None
    """Where the function is called; None: an `async def` on the loop, a `def` in a thread."""
    priority: int = 0
    """Higher starts first among the waiting."""
    secret: tuple[str, ...] = ()
    """Parameters that are shown nowhere."""
    tags: tuple[str, ...] = ()
    title: str | None = None
    description: str | None = None
    keep: timedelta | None = None
    """How long its final runs are kept; None: as long as the store keeps any."""
    keep_runs: int | None = None
    """How many of its newest final runs are kept at most, skips not counted."""
    ping: Mapping[str, str] | None = None
    """Addresses to call at the `start`, `success` and `fail` of a run, for a service that raises an alarm."""
    expect: timedelta | None = None
    """The longest that an attempt usually takes; one that takes longer is stuck. None: judged by its history."""
    pause_after: int | None = None
    """Failures in a row that switch the job off."""
    trial_after: timedelta = timedelta(hours=1)
    """How long it is off then, until one run is tried; as it ends, the job is on again or off once more."""

    submit_limit: tuple[int, timedelta] | None = None
    """How many submits in how long, of one caller over HTTP; None: as many as of any job."""

    @property
    def breaker(self) -> tuple[int, timedelta] | None:
        """Failures in a row that switch the job off, and for how long; None: none do."""
        return None if self.pause_after is None else (self.pause_after, self.trial_after)

    @property
    def repeatable(self) -> bool:
        """Whether an attempt that was cut short may be made again."""
        return self.on_crash != "fail" and self.retry.attempts > 1

    @property
    def constrained(self) -> bool:
        """Whether a run needs the store's word on how many others are running."""
        return self.group is not None or self.max_running is not None

    @classmethod
    def of(cls, job: str, *layers: Mapping[str, Any]) -> Policy:
        """The policy of `job` from layers of options, a later one over an earlier. Raises `BadJob`."""
        merged: dict[str, Any] = {}
        for layer in layers:
            merged |= layer
        problems = []
        values: dict[str, Any] = {}
        for name, value in merged.items():
            try:
                values[name] = read_option(name, value)
            except ValueError as error:
                problems.append(f"job '{job}': {error}")
        if not problems:
            problems = [f"job '{job}': {text}" for text in _contradictions(values)]
        if problems:
            raise BadJob("\n".join(problems))
        return cls(**values)


OPTIONS: Final = tuple(one.name for one in fields(Policy))
# Who moves a program over writes the old words first, and the nearest of ours by letters would lead astray.
_ELSEWHERE: Final = {
    "args kwargs": "parameters are given by name, in params=",
    "trigger schedule every cron at": "when it fires is said by the decorator every or cron, such as @scheduler.every('5m'), "
    "by the trigger that add_job takes, or by the job's own table in config.toml",
    "command cmd line shell script": 'a command of the shell is call = "taskloop.shell:command", '
    'with params = { line = "..." }',
    "id job_id": "a job is called by name=, a stored schedule by the id= of schedule()",
    "weeks days hours minutes seconds interval": "an interval is one value: '1h30m', '2w', timedelta(minutes=5)",
    "hour minute second day month day_of_week crontab": "a cron is one text: '30 2 * * mon'",
    "timezone tz": "that is timezone=, of a cron alone",
    "start_date start_time": "of an interval that is anchor=",
    "end_date end_time": "no trigger has an end; unschedule() or disable() it then",
    "next_run_time run_immediately": "for a first run at once write first='now', for one at each start on_start=True",
    "jitter splay": "an offset that stays the same is spread=",
    "misfire_grace_time expires": "how late it may start is max_late=",
    "ttl result_ttl result_expires": "how long its runs are kept is keep=",
    "coalesce": "one run for all that was missed is missed='latest', a run each missed='all'",
    "max_instances concurrency": "side by side by overlap='allow', at most so many by max_running=",
    "replace_existing jobstore persist": "leave it out: the store is always there, and keeps what is due next",
    "time_limit soft_time_limit job_timeout": "that is timeout=",
    "retries max_retries max_tries autoretry_for retry_backoff retry_backoff_max retry_jitter retry_kwargs "
    "default_retry_delay": "that is retry=3, or retry=Retry(attempts=4, first='2s', on=OSError), the first call counted",
    "rate_limit": "how many run at once is max_running= or group=, not how many a minute",
    "queue": "who takes it is said by `taskloop run --jobs`, how many run at once by group=",
    "acks_late reject_on_worker_lost": "that is on_crash=",
}


def read_option(name: str, value: Any) -> Any:
    """One option in the form `Policy` keeps it. Raises `BadJob` or `BadDuration` with option, value and range."""
    readers = _readers()
    if name not in readers:
        here, near = called_elsewhere(name), nearest(name, readers)
        meant = f"{here}; " if here else f"did you mean '{near}'? " if near else ""
        raise BadJob(f"unknown option '{name}'; {meant}options are: {', '.join(sorted(readers))}")
    return readers[name](name, value)


def called_elsewhere(name: str) -> str | None:
    """What to write for an option that only other schedulers have; None: they have none of this name either."""
    return next((here for names, here in _ELSEWHERE.items() if name in names.split()), None)


def _contradictions(values: Mapping[str, Any]) -> list[str]:
    if values.get("on_crash") == "retry" and values.get("retry", Retry()).attempts == 1:
        return ["on_crash='retry' needs an attempt to repeat with; give retry=2 or more, or on_crash='fail'"]
    return []


@cache
def _readers() -> dict[str, Callable[[str, Any], Any]]:
    return {
        "timeout": _span,
        "retry": lambda _name, value: Retry.of(value),
        "overlap": _word("skip", "queue", "replace", "allow"),
        "missed": _word("latest", "all", "skip"),
        "missed_limit": _whole(1, 100_000),
        "max_late": _span,
        "on_crash": _word("retry", "fail", None),
        "group": _name,
        "max_running": _optional(_whole(1, 1_000_000)),
        "first": _word("now", "after", "aligned"),
        "on_start": _flag,
        "enabled": _flag,
        "spread": _span,
        "executor": _word("loop", "thread", "process", "dask", None),
        "priority": _whole(-1_000_000, 1_000_000),
        "secret": read_texts,
        "tags": read_texts,
        "title": _text,
        "description": _text,
        "keep": _span,
        "keep_runs": _optional(_whole(1, 100_000)),
        "ping": _ping,
        "expect": _span,
        "pause_after": _optional(_whole(1, 1_000_000)),
        "trial_after": _needed(_span),
        "submit_limit": _rate,
    }


def _span(name: str, value: Any) -> timedelta | None:
    if value is None or value == "off":
        return None
    try:
        span = durations.parse(value)
    except BadDuration as error:
        raise BadJob(f"{name}: {error}") from None
    if not span:
        raise BadJob(f"{name} is {value!r}; a duration above zero is allowed, or None for no limit")
    return span


def _rate(name: str, value: Any) -> tuple[int, timedelta] | None:
    if value is None or value == "off":
        return None
    try:
        return durations.parse_rate(value)
    except BadRate as error:
        raise BadJob(f"{name}: {error}") from None


def _word(*allowed: str | None) -> Callable[[str, Any], Any]:
    def read(name: str, value: Any) -> Any:
        if value not in allowed:
            near = nearest(value, [word for word in allowed if word]) if isinstance(value, str) else None
            meant = f"; did you mean '{near}'?" if near else ""
            raise BadJob(f"{name} is {value!r}; allowed are {', '.join(repr(word) for word in allowed)}{meant}")
        return value

    return read


def _whole(lowest: int, highest: int) -> Callable[[str, Any], int]:
    def read(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise BadJob(f"{name} is {value!r}; a whole number from {lowest} to {highest} is allowed")
        return value

    return read


def _optional(read: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    return lambda name, value: None if value is None else read(name, value)


def _needed(read: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    def needed(name: str, value: Any) -> Any:
        found = read(name, value)
        if found is None:
            raise BadJob(f"{name} is {value!r}; a duration above zero is allowed")
        return found

    return needed


_PINGS: Final = ("start", "success", "fail")


def _ping(name: str, value: Any) -> Mapping[str, str] | None:
    """The addresses of `start`, `success` and `fail`, from one, to which `/start` and `/fail` are added, or a table."""
    if value is None or value == "off":
        return None
    if isinstance(value, str):
        path, mark, query = _address(name, value).partition("?")
        base, query = path.rstrip("/"), mark + query
        return {"start": f"{base}/start{query}", "success": f"{base}{query}", "fail": f"{base}/fail{query}"}
    if not isinstance(value, Mapping) or not value or not set(value) <= set(_PINGS):
        raise BadJob(f"{name} is {value!r}; an address is allowed, or a table with some of {', '.join(_PINGS)}")
    return {word: _address(f"{name}.{word}", value[word]) for word in _PINGS if word in value}


def _address(name: str, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"https?://[^\s/]+[!-~]{0,1000}", value) or not _has_port(value):
        raise BadJob(f"{name} is {value!r}; an address such as 'https://checks.example/ping/1234' is allowed")
    return value


def _has_port(address: str) -> bool:
    """Whether the port of an address is one, where it names any."""
    try:
        return urlsplit(address).port != 0
    except ValueError:
        return False


def _flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadJob(f"{name} is {value!r}; True or False is allowed")
    return value


def _text(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise BadJob(f"{name} is {value!r}; a text is allowed")
    return value


def _name(name: str, value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or not 0 < len(value) <= 128):
        raise BadJob(f"{name} is {value!r}; a name of 1 to 128 characters is allowed")
    return value


def read_texts(name: str, value: Any) -> tuple[str, ...]:
    """A list of texts; one text is refused, for it would be taken letter by letter. Raises `BadJob`."""
    if not isinstance(value, list | tuple) or not all(isinstance(tag, str) for tag in value):
        raise BadJob(f"{name} is {value!r}; a list of texts is allowed")
    return tuple(value)
