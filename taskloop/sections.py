"""The sections of the configuration: which keys there are, what each may be, and what it is where nobody says it.

Level 3. What the keys mean stands at `taskloop.options.Options` and in docs/configuration.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from taskloop import durations, policy
from taskloop.address import DEFAULT_STORE
from taskloop.errors import nearest
from taskloop.given import (
    MOST,
    Given,
    meant,
    read_address,
    read_by,
    read_flag,
    read_host,
    read_hosts,
    read_level,
    read_names,
    read_prefix,
    read_rate,
    read_size,
    read_store_url,
    read_target,
    read_timezone,
    read_token,
    refused,
    span,
    whole,
    word,
)

__all__ = [
    "VARIABLES", "DaskSettings", "GitMetricsSettings", "HttpSettings", "LogSettings", "SchedulerSettings", "StoreSettings", "unknown"
]  # fmt: skip

Flag = Annotated[bool, read_by(read_flag)]
Span = Annotated[timedelta, read_by(span())]
SpanOrZero = Annotated[timedelta, read_by(span(zero=True))]
SpanOrOff = Annotated[timedelta | None, read_by(span(off=True))]
Names = Annotated[tuple[str, ...], read_by(read_names)]


class _Section(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)


class SchedulerSettings(_Section):
    """`[scheduler]`; what each means stands at `taskloop.options.Options`."""

    enabled: Flag = True
    interval: Span = timedelta(weeks=2)
    timezone: Annotated[str, read_by(read_timezone)] = "UTC"
    max_running: Annotated[int, read_by(whole(1, MOST))] = 64
    threads: Annotated[int, read_by(whole(1, 10_000))] = 16
    grace: SpanOrZero = timedelta(seconds=30)
    kill_grace: SpanOrZero = timedelta(seconds=5)
    # Every beat is a write; a thousand a second would be all that the store does.
    heartbeat: Annotated[timedelta, read_by(span("10ms"))] = timedelta(seconds=5)
    lease: Span = Field(default=timedelta(seconds=15), validate_default=True)
    loop_limit: Annotated[timedelta | None, read_by(span("20ms", off=True))] = timedelta(milliseconds=100)
    max_runtime: SpanOrOff = None
    app: Annotated[str | None, read_by(read_target)] = None

    @field_validator("lease", mode="plain")
    @classmethod
    def _outlasts_a_missed_beat(cls, value: Any, info: Any) -> timedelta:
        given = value if isinstance(value, Given) else Given(durations.format(value), "scheduler.lease, by default,")
        lease = span()(given)
        beat = info.data.get("heartbeat", timedelta(0))
        if lease is None or lease < 2 * beat:
            least = f"{durations.format(2 * beat)} or more, twice scheduler.heartbeat ({durations.format(beat)})"
            raise refused(given, least, "one late beat would pass for a death")
        return lease


class StoreSettings(_Section):
    """`[store]`."""

    url: Annotated[str, read_by(read_store_url)] = Field(default=DEFAULT_STORE, repr=False)
    synchronous: Annotated[Literal["full", "normal"], read_by(word("full", "normal"))] = "full"
    keep: SpanOrOff = timedelta(days=90)
    statement_cache_size: Annotated[int, read_by(whole(0, 100_000))] = 100


class HttpSettings(_Section):
    """`[http]`."""

    enabled: Flag = False
    host: Annotated[str, read_by(read_host)] = "127.0.0.1"
    port: Annotated[int, read_by(whole(0, 65_535))] = 8700
    prefix: Annotated[str, read_by(read_prefix)] = ""
    token: Annotated[str, read_by(read_token)] = Field(default="", repr=False)
    hosts: Annotated[tuple[str, ...], read_by(read_hosts)] = ()
    submit_limit: Annotated[tuple[int, timedelta] | None, read_by(read_rate)] = (30, timedelta(minutes=1))
    request_limit: Annotated[tuple[int, timedelta] | None, read_by(read_rate)] = (1200, timedelta(minutes=1))


class LogSettings(_Section):
    """`[log]`."""

    level: Annotated[str, read_by(read_level)] = "INFO"
    format: Annotated[Literal["auto", "text", "json"], read_by(word("auto", "text", "json"))] = "auto"
    capture: Annotated[int | None, read_by(read_size)] = 200_000


class DaskSettings(_Section):
    """`[dask]`."""

    address: Annotated[str, read_by(read_address)] = ""


class GitMetricsSettings(_Section):
    """`[git_metrics]`."""

    repositories: Names = (".",)


SECTIONS: Final[dict[str, type[_Section] | None]] = {
    "scheduler": SchedulerSettings,
    "store": StoreSettings,
    "http": HttpSettings,
    "log": LogSettings,
    "dask": DaskSettings,
    "defaults": None,
    "git_metrics": GitMetricsSettings,
}
"""Those whose keys are known; None: the options of a policy."""
VARIABLES: Final[dict[str, tuple[str, str]]] = {
    f"TASKLOOP_{section}__{key}".upper(): (section, key)
    for section, one in SECTIONS.items()
    for key in (policy.OPTIONS if one is None else one.model_fields)
}
"""The variables of the environment, with section and key of each."""


def unknown(where: str, key: str, known: Iterable[str]) -> str:
    """What is said of a key that is none of those that are known in its place."""
    near = nearest(key, known)
    elsewhere = [section for section, one in SECTIONS.items() if one is not None and key in one.model_fields]
    if near is None and elsewhere:
        return f"{where} is unknown here; it belongs below [{elsewhere[0]}]"
    return f"{where} is unknown{meant(near)}{'' if near else ';'} known here are {', '.join(sorted(known))}"
