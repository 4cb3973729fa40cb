"""What a scheduler is told beside its jobs: limits and spans as plain values, from code, environment or file.

Level 3, pure. `taskloop.settings` makes one from configuration; embedding code may make one itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal, cast

from taskloop.errors import BadSettings, BadTrigger
from taskloop.triggers import Trigger, checked

__all__ = ["HOSTS_ALLOWED", "Http", "Options", "check_hosts", "is_host"]

_SPANS: Final = ("interval", "heartbeat", "lease")
_SPANS_OR_NONE: Final = ("loop_limit", "max_runtime", "dev", "keep")
_SPANS_OR_NOTHING: Final = ("grace", "kill_grace")
_NUMBERS: Final = {"max_running": 1, "threads": 1, "capture": 0, "statement_cache_size": 0}
"""Each with the least that it may be."""
_TEXTS: Final = ("timezone", "store_url", "dask")
_MAPPINGS: Final = ("groups", "defaults", "jobs", "triggers", "params")
_SYNCHRONOUS: Final = ("full", "normal")
_HOST: Final = re.compile(
    r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?(:[0-9]{1,5})?|\[[0-9a-f:.]+\](:[0-9]{1,5})?|[0-9a-f.]*:[0-9a-f:.]+", re.IGNORECASE
)
HOSTS_ALLOWED: Final = (
    "a name or an address as it stands in Host, such as 'shop.example', without a scheme, a path or a *"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Http:
    """What the admin surface goes by, wherever it is mounted."""

    token: str = field(default="", repr=False)
    """Whoever sends it is admin; empty: there is none."""
    hosts: tuple[str, ...] = ()
    """Names accepted in Host, beside those of this machine."""
    submit_limit: tuple[int, timedelta] | None = (30, timedelta(minutes=1))
    """How many submits in how long, of each caller and job; None: no limit."""
    request_limit: tuple[int, timedelta] | None = (1200, timedelta(minutes=1))
    """How many requests of any kind in how long, of each caller; None: no limit."""

    def __post_init__(self) -> None:
        check_hosts(self.hosts)


def check_hosts(hosts: Iterable[str]) -> tuple[str, ...]:
    """The names, if each is one that a browser may send as Host. Raises `BadSettings`."""
    if isinstance(hosts, str):  # it would be taken letter by letter
        raise BadSettings([f'hosts is {hosts!r}; a list of names is allowed, such as ["{hosts}"]'])
    found = tuple(hosts)
    if wrong := [one for one in found if not is_host(one)]:
        raise BadSettings([f"hosts has {one!r}; allowed is {HOSTS_ALLOWED}" for one in wrong])
    return found


def is_host(name: object) -> bool:
    """Whether a browser may send that as Host."""
    return isinstance(name, str) and _HOST.fullmatch(name) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a scheduler behaves. Spans are above zero, `grace` and `kill_grace` zero or more; None: off.

    Raises `BadSettings` with everything that is wrong; what `defaults`, `jobs` and `params` say of a job is checked with it.
    """

    enabled: bool = True
    """False: the store opens, nothing fires, what is submitted here is left to other workers."""
    interval: timedelta = timedelta(weeks=2)
    """Of every `every()` that names none."""
    timezone: str | None = None
    """Of every `cron()` that names none; None: UTC, and nobody said so."""
    max_running: int = 64
    """Runs at once in this process."""
    threads: int = 16
    """Threads for plain functions."""
    grace: timedelta = timedelta(seconds=30)
    """Given to running jobs at stop; then they are cancelled."""
    kill_grace: timedelta = timedelta(seconds=5)
    """Given to cancelled jobs to end; then they are abandoned."""
    heartbeat: timedelta = timedelta(seconds=5)
    lease: timedelta = timedelta(seconds=15)
    """A worker silent for this long is dead, and its runs are settled by others."""
    loop_limit: timedelta | None = timedelta(milliseconds=100)
    """How long the loop may stand still before that is recorded, with the line that held it; None: not watched."""
    max_runtime: timedelta | None = None
    """Leave cleanly after this long."""
    dev: timedelta | None = None
    """Dev mode: every recurring trigger becomes `Every(dev)`, and none is spread."""
    store_url: str = "sqlite:///taskloop.db"
    synchronous: Literal["full", "normal"] = "full"
    statement_cache_size: int = 100
    """Statements that a connection to PostgreSQL keeps prepared; 0 behind a transaction pooler."""
    keep: timedelta | None = timedelta(days=90)
    """How long final runs are kept."""
    capture: int = 200_000
    """Characters that the log of one attempt may have; 0: no log is kept."""
    groups: Mapping[str, int] = field(default_factory=dict)
    """Places of each group; one not named here has one."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Policy options of every job that says nothing of them itself."""
    jobs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Policy options by job name, laid over what the code says."""
    triggers: Mapping[str, Trigger] = field(default_factory=dict)
    """Triggers by job name, in the place of what the code says."""
    params: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Parameters of a job's own schedule, by job name, laid over what the code says."""
    http: Http = Http()
    dask: str = ""
    """The address of a Dask cluster's scheduler, for `executor="dask"`; empty: there is none."""

    def __post_init__(self) -> None:
        problems = [*self._spans_that_are_none(), *self._numbers_that_are_none(), *self._others_that_are_none()]
        if not problems and self.lease <= self.heartbeat:
            problems.append(f"lease is {self.lease}; longer than heartbeat, {self.heartbeat}, is allowed")
        if problems:
            raise BadSettings(problems)

    def _spans_that_are_none(self) -> Iterator[str]:
        for name in (*_SPANS, *_SPANS_OR_NONE, *_SPANS_OR_NOTHING):
            span, or_none, or_nothing = getattr(self, name), name in _SPANS_OR_NONE, name in _SPANS_OR_NOTHING
            if not (span is None and or_none) and not _is_span(span, or_nothing):
                least, more = "of zero or more" if or_nothing else "above zero", ", or None" if or_none else ""
                yield f"{name} is {span!r}; a timedelta {least} is allowed{more}"

    def _numbers_that_are_none(self) -> Iterator[str]:
        for name, least in _NUMBERS.items():
            if not _is_number(number := getattr(self, name), least):
                yield f"{name} is {number!r}; a whole number from {least} is allowed"
        for name, places in self.groups.items() if isinstance(self.groups, Mapping) else ():
            if not _is_number(places, 1):
                yield f"groups[{name!r}] is {places!r}; a whole number from 1 is allowed"

    def _others_that_are_none(self) -> Iterator[str]:
        enabled, synchronous, http = cast("tuple[Any, Any, Any]", (self.enabled, self.synchronous, self.http))
        if not isinstance(enabled, bool):
            yield f"enabled is {enabled!r}; True or False is allowed"
        if synchronous not in _SYNCHRONOUS:  # any other word would cost what a power cut takes
            yield f"synchronous is {synchronous!r}; {' or '.join(map(repr, _SYNCHRONOUS))} is allowed"
        if not isinstance(http, Http):
            yield f"http is a {type(http).__name__}; Http(...) of taskloop.options is allowed"
        for name in _TEXTS:
            if not isinstance(text := getattr(self, name), str) and not (text is None and name == "timezone"):
                yield f"{name} is {text!r:.200}; a text is allowed"
        for name in _MAPPINGS:
            if not isinstance(given := getattr(self, name), Mapping):
                yield f"{name} is {given!r:.200}; a mapping is allowed"
        for job, trigger in self.triggers.items() if isinstance(self.triggers, Mapping) else ():
            try:
                checked(trigger)
            except BadTrigger as error:
                yield f"triggers[{job!r}]: {error}"

    def _laid_over(self, job: str) -> Mapping[str, Any]:
        """The policy options that stand over what the code says of this job."""
        said = self.jobs.get(job, {})
        # A spread of an hour would hold back for an hour what dev mode lets fire each ten seconds.
        return said if self.dev is None else {**said, "spread": None}


def _is_number(number: object, least: int) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= least


def _is_span(span: object, or_nothing: bool) -> bool:
    return isinstance(span, timedelta) and (span > timedelta(0) or (or_nothing and not span))
