"""The configuration: arguments, environment, `.env` and config.toml, laid over each other and checked as one.

Level 6. `taskloop.address` reads the sources; here every value becomes a `Given`, which remembers where it was written,
pydantic-settings lays the layers over each other, and the fields below say what is allowed. All mistakes are collected
and raised together as `BadSettings`. Loading creates nothing and imports no job; `load_job` and `load_app` do that.

Start at `load`. docs/configuration.md is the same for people who run it.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import tomllib
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, PrivateAttr, ValidationError, field_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from taskloop import durations, policy
from taskloop.address import DEFAULT_STORE, POSTGRES, Sources, bad_url, gather, kind, without_password
from taskloop.errors import BadDuration, BadInstant, BadRate, BadSettings, BadTrigger, TaskloopError, nearest
from taskloop.jobs import NAME, Job, Jobs
from taskloop.options import Http, Options
from taskloop.triggers import At, Cron, Every, Trigger, from_mapping

__all__ = ["FileJob", "Settings", "load", "load_app", "load_job"]


@dataclass(frozen=True, slots=True)
class Given:
    """A value as somebody wrote it."""

    value: Any
    where: str
    """As it stands in messages: `config.toml: scheduler.grace`, `.env: TASKLOOP_HTTP__PORT`, a variable's name."""
    text: bool = False
    """From the environment, where all values are texts."""

    @property
    def shown(self) -> str:
        if isinstance(self.value, str):
            return _cut(repr(without_password(self.value)))
        if isinstance(self.value, bool):
            return str(self.value).lower()
        try:
            return _cut(repr(self.value))
        except ValueError:  # TOML may hold an int of more digits than Python prints
            return "a number of many digits"


class _Wrong(ValueError):
    """What is wrong with a value or a table, one text a mistake, ready to be shown."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__(*problems)


_DURATION = "seconds as a number, or text such as '90s', '5m', '1h30m', '2w', up to 100 years"
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
_LEVELS = ("TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL")
_BYTES = {"b": 1, "kb": 1_000, "mb": 1_000_000, "gb": 1_000_000_000, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_MOST_CAPTURED = 1_000_000_000
_MOST = 1_000_000


def _refused(given: Given, allowed: str, why: str = "") -> _Wrong:
    return _Wrong(f"{given.where} is {given.shown}{f': {why}' if why else ''}; allowed is {allowed}")


def _field(read: Callable[[Given], Any]) -> PlainValidator:
    """`read` as the validator of a field; a default or an argument of a constructor was given by the program."""
    return PlainValidator(lambda value: read(value if isinstance(value, Given) else Given(value, "the value")))


def _flag(given: Given) -> bool:
    text = given.value.strip().lower() if given.text else ""
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if not isinstance(given.value, bool):
        raise _refused(given, "true or false")
    return given.value


def _whole(lowest: int, highest: int) -> Callable[[Given], int]:
    def read(given: Given) -> int:
        value = given.value
        if given.text and re.fullmatch(r"\s*[+-]?[0-9]{1,15}\s*", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise _refused(
                given, f"a whole number from {lowest} to {highest}{'' if given.text else ', without quotes'}"
            )
        return value

    return read


def _span(least: str = "", *, zero: bool = False, off: bool = False) -> Callable[[Given], timedelta | None]:
    """A reader of durations above zero; `zero` takes zero too, `off` the word "off" as None."""
    allowed = f"a duration of {least} or more" if least else f"a duration{'' if zero else ' above zero'}"
    allowed += f": {_DURATION}" + (', or "off"' if off else "")

    def read(given: Given) -> timedelta | None:
        if off and given.value == "off":
            return None
        try:
            span = durations.parse(given.value)
        except BadDuration as error:
            raise _refused(given, allowed, error.why) from None
        if span < (durations.parse(least) if least else timedelta(0)) or not (span or zero):
            raise _refused(given, allowed)
        return span

    return read


def _text(given: Given) -> str:
    if not isinstance(given.value, str):
        raise _refused(given, "a text, in quotes")
    return given.value


def _word(*words: str) -> Callable[[Given], str]:
    def read(given: Given) -> str:
        value = given.value
        if value not in words:
            near = nearest(value, words) if isinstance(value, str) else None
            raise _refused(given, " or ".join(f"'{word}'" for word in words) + _meant(near))
        return str(value)

    return read


def _names(given: Given) -> tuple[str, ...]:
    value = given.value
    if given.text:
        value = _literal(value) if value.lstrip().startswith("[") else [part.strip() for part in value.split(",")]
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) and one.strip() for one in value):
        raise _refused(given, 'a, b or ["a", "b"]' if given.text else 'a list of texts such as ["a", "b"]')
    return tuple(value)


def _timezone(given: Given) -> str:
    # The trigger knows how to find a zone and its nearest; the expression plays no part.
    try:
        Cron("@daily", timezone=_text(given))
    except BadTrigger as error:
        raise _Wrong(f"{given.where} is {given.shown}: {error.why}") from None
    return _text(given)


def _target(given: Given) -> str | None:
    """The text `module:name`, or None for an empty one."""
    if given.value == "":
        return None
    module, _, name = _text(given).partition(":")
    if not all(part.isidentifier() for part in f"{module}.{name}".split(".")):
        raise _refused(given, "'module:name', such as 'shop.jobs:sync'")
    return _text(given)


def _store_url(given: Given) -> str:
    wrong = bad_url(given.value)
    if wrong:
        raise _Wrong(f"{given.where} is {wrong}")
    return str(given.value)


def _host(given: Given) -> str:
    if not re.fullmatch(r"[^\s/@]{1,255}", _text(given)):
        raise _refused(given, "a name or address to listen on, such as '127.0.0.1', '::1' or '0.0.0.0'")
    return _text(given)


def _token(given: Given) -> str:
    """A secret: no message shows it."""
    if not isinstance(given.value, str) or not re.fullmatch(r"[!-~]{0,512}", given.value):
        allowed = "a text of at most 512 letters, digits and punctuation without blanks, as a header can carry"
        raise _Wrong(f"{given.where} is *** ({kind(given.value)}); allowed is {allowed}")
    return given.value


def _limit(given: Given) -> tuple[int, timedelta] | None:
    """How many in how long; None: no limit."""
    if given.value == "off":
        return None
    try:
        return durations.parse_rate(given.value)
    except BadRate as error:
        raise _refused(given, f'{error.allowed}, or "off"') from None


def _level(given: Given) -> str:
    level = given.value.strip().upper() if isinstance(given.value, str) else None
    if level not in _LEVELS:
        near = nearest(level or "", _LEVELS)
        raise _refused(given, ", ".join(_LEVELS) + _meant(near))
    return level


def _capture(given: Given) -> int | None:
    """Bytes; None: nothing is kept."""
    value = given.value
    if value == "off":
        return None
    match = (
        re.fullmatch(r"\s*([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*([A-Za-z]*)\s*", value) if isinstance(value, str) else None
    )
    if match and (match[2] or given.text) and (match[2].lower() or "b") in _BYTES:
        value = round(float(match[1]) * _BYTES[match[2].lower() or "b"])
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST_CAPTURED:
        raise _refused(given, 'a size from 1 B to 1 GB, such as "200kB", "1MB" or a number of bytes, or "off"')
    return value


def _address(given: Given) -> str:
    if given.value and not re.match(r"[a-z]+://[^\s/]", _text(given)):
        raise _refused(given, 'an address such as "tcp://scheduler:8786", or "" for none')
    return _text(given)


def _table(given: Given) -> dict[str, Any]:
    if not isinstance(given.value, Mapping):
        raise _refused(given, "a table such as { batch_size = 500 }")
    return dict(given.value)


def _groups(tables: Mapping[str, Given]) -> dict[str, int]:
    read, groups = _whole(1, _MOST), {}
    with _together() as problems:
        for name, given in tables.items():
            if not 0 < len(name) <= 128:
                problems.append(f"{given.where}: a group's name has 1 to 128 characters")
            with _noting(problems):
                groups[name] = read(given)
    return groups


def _defaults(table: Mapping[str, Given]) -> dict[str, Any]:
    options = {}
    with _together() as problems:
        for key, given in table.items():
            with _noting(problems):
                options[key] = _option(key, given, policy.OPTIONS)
    return options


# What [jobs.NAME] has beside the options of a policy.
_JOB_KEYS: Final[dict[str, Callable[[Given], Any]]] = {
    "every": lambda given: _asked(given, lambda value: value if value == "start" else Every(value)),
    "cron": lambda given: _asked(given, Cron),
    "at": lambda given: _asked(given, At),
    "anchor": lambda given: _asked(given, durations.absolute),
    "timezone": _timezone,
    "gap": _word("after", "skip"),
    "fold": _word("once", "both"),
    "call": _target,
    "params": _table,
}
_KINDS = {"every": ("anchor",), "cron": ("timezone", "gap", "fold"), "at": ()}


@dataclass(frozen=True, slots=True, kw_only=True)
class FileJob:
    """What a table `[jobs.NAME]` says; what it does not say is None or empty."""

    name: str
    call: str | None = None
    """`module:function` of a job that only the file declares; None: the code declares it, or it is built in."""
    trigger: Trigger | None = None
    """Takes the place of the trigger in the code."""
    params: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    """Of its policy, as `Policy` keeps them."""
    defaults: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """The options of `[defaults]`, which lie beneath."""
    where: str = field(default="", repr=False, compare=False)
    """The file and table, for messages."""
    directory: Path = field(default=Path(), repr=False, compare=False)
    """From where `call` is imported."""


def _jobs(tables: Mapping[str, Mapping[str, Given]]) -> dict[str, FileJob]:
    jobs = {}
    with _together() as problems:
        for name, table in tables.items():
            with _noting(problems):
                jobs[name] = _file_job(name, table)
    return jobs


def _file_job(name: str, table: Mapping[str, Given]) -> FileJob:
    read: dict[str, Any] = {}
    trigger = None
    with _together() as problems:
        for key, given in table.items():
            with _noting(problems):
                known = _JOB_KEYS.get(key)
                read[key] = known(given) if known else _option(key, given, (*policy.OPTIONS, *_JOB_KEYS))
        with _noting(problems):
            trigger = _trigger(table)
    where = next((given.where.rpartition(".")[0] for given in table.values()), "")
    options = {key: value for key, value in read.items() if key not in _JOB_KEYS}
    return FileJob(
        name=name, call=read.get("call"), trigger=trigger, params=read.get("params", {}), options=options, where=where
    )


def _trigger(table: Mapping[str, Given]) -> Trigger | None:
    """The trigger of a job's table, None where it names none. Its values are checked singly before."""
    kinds = [key for key in _KINDS if key in table]
    if len(kinds) > 1:
        place = table[kinds[0]].where.rpartition(".")[0]
        raise _Wrong(f"{place} has {' and '.join(kinds)}; allowed is one of every, cron, at")
    alone = [
        f"{table[key].where} is {table[key].shown}, but the job has no {main}; write {main} = ... beside it"
        for main, keys in _KINDS.items()
        for key in keys
        if key in table and main not in kinds
    ]
    if alone:
        raise _Wrong(*alone)
    try:
        return from_mapping({key: table[key].value for main in kinds for key in (main, *_KINDS[main]) if key in table})
    except (BadDuration, BadInstant, BadTrigger):
        return None  # no trigger, or one of its values was refused already


def _option(key: str, given: Given, known: Iterable[str]) -> Any:
    if key not in policy.OPTIONS:
        raise _Wrong(_unknown(given.where, key, known))
    value = _literal(given.value) if given.text else given.value
    if value == "off" and key in ("group", "max_running"):
        return None
    if key == "tags" and not isinstance(value, (list, tuple)):
        raise _refused(given, 'a list of texts such as ["nightly"]')
    try:
        return policy.read_option(key, value)
    except (ValueError, TypeError) as error:
        # Written for Python; a file has other words for the same.
        text = str(error).replace("or None for no limit", 'or "off"').replace("True or False", "true or false")
        if text.startswith((f"{key} is ", f"{key}: ")):
            raise _Wrong(given.where + text.removeprefix(key)) from None
        raise _Wrong(f"{given.where} is {given.shown}: {text}") from None


def _asked(given: Given, make: Callable[[Any], Any]) -> Any:
    try:
        return make(given.value)
    except (BadDuration, BadInstant, BadTrigger) as error:
        raise _Wrong(f"{given.where}: {error}") from None


@contextmanager
def _together() -> Iterator[list[str]]:
    """A list of problems that is raised as one error at the end, if it has any."""
    problems: list[str] = []
    yield problems
    if problems:
        raise _Wrong(*problems)


@contextmanager
def _noting(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except _Wrong as error:
        problems.extend(error.problems)


Flag = Annotated[bool, _field(_flag)]
Span = Annotated[timedelta, _field(_span())]
SpanOrZero = Annotated[timedelta, _field(_span(zero=True))]
SpanOrOff = Annotated[timedelta | None, _field(_span(off=True))]
Names = Annotated[tuple[str, ...], _field(_names)]


class _Section(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True)


class SchedulerSettings(_Section):
    """`[scheduler]`; what each means stands at `taskloop.options.Options`."""

    enabled: Flag = True
    interval: Span = timedelta(weeks=2)
    timezone: Annotated[str, _field(_timezone)] = "UTC"
    max_running: Annotated[int, _field(_whole(1, _MOST))] = 64
    threads: Annotated[int, _field(_whole(1, 10_000))] = 16
    grace: SpanOrZero = timedelta(seconds=30)
    kill_grace: SpanOrZero = timedelta(seconds=5)
    # Every beat is a write; a thousand a second would be all that the store does.
    heartbeat: Annotated[timedelta, _field(_span("10ms"))] = timedelta(seconds=5)
    lease: Span = Field(default=timedelta(seconds=15), validate_default=True)
    loop_limit: Annotated[timedelta | None, _field(_span("20ms", off=True))] = timedelta(milliseconds=100)
    max_runtime: SpanOrOff = None
    app: Annotated[str | None, _field(_target)] = None

    @field_validator("lease", mode="plain")
    @classmethod
    def _outlasts_a_missed_beat(cls, value: Any, info: Any) -> timedelta:
        given = value if isinstance(value, Given) else Given(durations.format(value), "scheduler.lease, by default,")
        lease = _span()(given)
        beat = info.data.get("heartbeat", timedelta(0))
        if lease is None or lease < 2 * beat:
            least = f"{durations.format(2 * beat)} or more, twice scheduler.heartbeat ({durations.format(beat)})"
            raise _refused(given, least, "one late beat would pass for a death")
        return lease


class StoreSettings(_Section):
    """`[store]`."""

    url: Annotated[str, _field(_store_url)] = Field(default=DEFAULT_STORE, repr=False)
    synchronous: Annotated[Literal["full", "normal"], _field(_word("full", "normal"))] = "full"
    keep: SpanOrOff = timedelta(days=90)
    statement_cache_size: Annotated[int, _field(_whole(0, 100_000))] = 100


class HttpSettings(_Section):
    """`[http]`."""

    enabled: Flag = False
    host: Annotated[str, _field(_host)] = "127.0.0.1"
    port: Annotated[int, _field(_whole(0, 65_535))] = 8700
    token: Annotated[str, _field(_token)] = Field(default="", repr=False)
    hosts: Names = ()
    submit_limit: Annotated[tuple[int, timedelta] | None, _field(_limit)] = (30, timedelta(minutes=1))
    request_limit: Annotated[tuple[int, timedelta] | None, _field(_limit)] = (1200, timedelta(minutes=1))


class LogSettings(_Section):
    """`[log]`."""

    level: Annotated[str, _field(_level)] = "INFO"
    format: Annotated[Literal["auto", "text", "json"], _field(_word("auto", "text", "json"))] = "auto"
    capture: Annotated[int | None, _field(_capture)] = 200_000


class DaskSettings(_Section):
    """`[dask]`."""

    address: Annotated[str, _field(_address)] = ""


class GitMetricsSettings(_Section):
    """`[git_metrics]`."""

    repositories: Names = (".",)


class _Layer(PydanticBaseSettingsSource):
    """One source, already read into sections."""

    def __init__(self, settings: type[BaseSettings], sections: dict[str, Any]) -> None:
        super().__init__(settings)
        self._sections = sections

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._sections.get(field_name), field_name, True

    def __call__(self) -> dict[str, Any]:
        return self._sections


class Settings(BaseSettings):
    """The configuration, checked; made by `load`. A section is an attribute, a key an attribute of it."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        extra="forbid", frozen=True, case_sensitive=True, validate_default=False
    )

    scheduler: SchedulerSettings = SchedulerSettings()
    store: StoreSettings = StoreSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()
    dask: DaskSettings = DaskSettings()
    defaults: Annotated[dict[str, Any], PlainValidator(_defaults)] = {}
    groups: Annotated[dict[str, int], PlainValidator(_groups)] = {"worker": 1}
    git_metrics: GitMetricsSettings = GitMetricsSettings()
    jobs: Annotated[dict[str, FileJob], PlainValidator(_jobs)] = {}

    _dev: tuple[str, timedelta] | None = PrivateAttr(default=None)
    _warnings: list[str] = PrivateAttr(default_factory=list)
    _directory: Path = PrivateAttr(default=Path())

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The layers that `load` found, in place of pydantic's own sources, which forget where a value was written."""
        return tuple(_Layer(settings_cls, sections) for sections in init_settings().get("layers", ()))

    @property
    def app(self) -> str | None:
        """`module:name` of the TaskScheduler or Jobs to load."""
        return self.scheduler.app

    @property
    def dev(self) -> timedelta | None:
        """The interval of every recurring trigger in dev mode; None: not in dev mode."""
        return self._dev[1] if self._dev else None

    @property
    def banner(self) -> str | None:
        """The line to show in dev mode; None: not in dev mode."""
        if self._dev is None:
            return None
        where, interval = self._dev
        store = without_password(self.store.url)
        every = f"every recurring job fires each {durations.format(interval)}"
        return f"DEV MODE by {where}: {every}, store {store}, log level {self.log.level}"

    @property
    def warnings(self) -> list[str]:
        """What looks like a mistake and does no harm."""
        return list(self._warnings)

    @property
    def directory(self) -> Path:
        """From where `app` and the `call` of jobs are imported."""
        return self._directory

    def is_given(self, section: str, key: str) -> bool:
        """Whether somebody said it, be it the same as the default."""
        return key in getattr(self, section).model_fields_set

    def options(self) -> Options:
        """What a scheduler is told of all this."""
        one = self.scheduler
        return Options(
            enabled=one.enabled,
            interval=one.interval,
            timezone=one.timezone if self.is_given("scheduler", "timezone") else None,
            max_running=one.max_running,
            threads=one.threads,
            grace=one.grace,
            kill_grace=one.kill_grace,
            heartbeat=one.heartbeat,
            lease=one.lease,
            loop_limit=one.loop_limit,
            max_runtime=one.max_runtime,
            dev=self.dev,
            store_url=self.store.url,
            synchronous=self.store.synchronous,
            statement_cache_size=self.store.statement_cache_size,
            capture=self.log.capture or 0,
            keep=self.store.keep,
            groups=dict(self.groups),
            defaults=dict(self.defaults),
            jobs={name: dict(job.options) for name, job in self.jobs.items() if job.options},
            triggers={name: job.trigger for name, job in self.jobs.items() if job.trigger is not None},
            params={name: dict(job.params) for name, job in self.jobs.items() if job.params},
            http=Http(**self.http.model_dump(include={"token", "hosts", "submit_limit", "request_limit"})),
            dask=self.dask.address,
        )

    def file_jobs(self) -> list[FileJob]:
        """What the tables `[jobs.NAME]` say, in the order of the file."""
        return [replace(job, defaults=self.defaults, directory=self._directory) for job in self.jobs.values()]


def load(
    config: str | os.PathLike[str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
    arguments: Mapping[str, Any] | None = None,
    files: bool = True,
) -> Settings:
    """The configuration: `arguments` over `environ` (None: the process's) over `.env` over config.toml over defaults.

    `directory` (None: the current one) holds the two files; `config` names another than config.toml, which must
    exist. With `files=False` neither is read: for a scheduler inside another program. `arguments` are tables as in the
    file, a key may also be written `"scheduler.grace"`; None counts as not given; `dev` asks for dev mode. Raises
    `BadSettings` with every mistake at once; creates nothing.
    """
    sources = gather(config, environ=environ, directory=directory, files=files)
    asked = dict(arguments or {})
    dev = sources.dev(asked.pop("dev", None))
    layers = [_dev_layer(sources)] if dev else []
    layers.append(_sections(_unfolded(asked), "argument ", sources.problems))
    for before, texts in sources.texts():
        layers += [_named_sections(texts, before), _plain_sections(texts, before)]
        sources.warnings += _strangers(texts, before)
    layers.append(_sections(sources.table, sources.prefix, sources.problems))
    folder = Path() if directory is None else Path(directory)
    try:
        settings = Settings(layers=layers)  # type: ignore[call-arg]  # taken by settings_customise_sources
    except ValidationError as error:
        found = [text for one in error.errors(include_url=False) for text in _told(one)]
        raise BadSettings([*sources.problems, *found]) from None
    if sources.problems:
        raise BadSettings(sources.problems)
    sources.warnings += _idle(settings, layers)
    settings._dev, settings._warnings, settings._directory = dev, sources.warnings, folder.absolute()
    return settings


def load_job(file_job: FileJob) -> Job[..., Any]:
    """The job that `call` names, with the trigger, parameters and policy of its table. Imports its module.

    A function that is a `Job` already keeps what its decorator said beneath the file's word. Raises `BadSettings`.
    """
    where = file_job.where or f"jobs.{file_job.name}"
    if file_job.call is None:
        raise BadSettings([f'{where}: no code declares a job of this name; add call = "module:function"'])
    found = _imported(file_job.call, file_job.directory, f"{where}.call")
    declared = found if isinstance(found, Job) else None
    try:
        job: Job[..., Any] = Job(
            declared.function if declared else found,
            file_job.trigger,
            name=file_job.name,
            params={**(declared.params if declared else {}), **file_job.params},
            options=declared.options if declared else {},
            origin="file",
        )
        job.configure(file_job.defaults, file_job.options)
    except TaskloopError as error:
        raise BadSettings([f"{where}: {line}" for line in str(error).splitlines()]) from None
    return job


def load_app(app: str, directory: Path | None = None) -> Jobs:
    """The TaskScheduler or Jobs at `module:name`, imported from `directory` (None: the current one).

    Raises `BadSettings`; what a module itself raises as `BadSettings` passes as it is.
    """
    with _saying():
        if _target(Given(app, "app")) is None:
            raise _Wrong("app is ''; allowed is 'module:name', such as 'shop.jobs:scheduler'")
    found = _imported(app, Path() if directory is None else directory, "app")
    if not isinstance(found, Jobs):
        what = f"the {found.__name__} class" if isinstance(found, type) else f"a {type(found).__name__}"
        raise BadSettings([f"app is '{app}', {what}; allowed is a TaskScheduler or Jobs{_candidates(app)}"])
    return found


def _dev_layer(sources: Sources) -> dict[str, Any]:
    where, store = sources.dev_store()
    return {"store": {"url": Given(store, where, text=True)}, "log": {"level": Given("DEBUG", "dev mode")}}


def _unfolded(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of `arguments`, `"scheduler.grace"` written out, without what is None."""
    tables: dict[str, Any] = {}
    for name, value in arguments.items():
        section, dot, key = name.partition(".")
        if isinstance(value, Mapping) and not dot:
            kept = {key: one for key, one in value.items() if one is not None}
            tables[section] = {**tables.get(section, {}), **kept}
        elif value is not None:
            tables[section] = {**tables.get(section, {}), key: value} if dot else value
    return tables


def _sections(table: Mapping[str, Any], before: str, problems: list[str]) -> dict[str, Any]:
    """A layer of tables, as in the file: each value with its place. What should be a table and is none is a problem."""
    layer: dict[str, Any] = {}
    for section, value in table.items():
        where = before + _key(section)
        if section not in Settings.model_fields:
            layer[section] = Given(value, where)
        elif not isinstance(value, Mapping):
            problems.append(f"{where} is {kind(value)}; allowed is a table: write [{section}] on a line of its own")
        elif section == "jobs":
            layer[section] = _job_sections(value, where, problems)
        else:
            layer[section] = {key: Given(one, f"{where}.{_key(key)}") for key, one in value.items()}
    return layer


def _job_sections(tables: Mapping[str, Any], before: str, problems: list[str]) -> dict[str, dict[str, Given]]:
    layer = {}
    for name, table in tables.items():
        where = f"{before}.{_key(name)}"
        if not NAME.fullmatch(name):
            allowed = "1 to 128 letters, digits and '._:-', the first a letter or digit"
            problems.append(f"{where}: no job can have this name; allowed are {allowed}")
        elif not isinstance(table, Mapping):
            problems.append(f"{where} is {kind(table)}; allowed is a table [jobs.{name}]")
        else:
            layer[name] = {key: Given(one, f"{where}.{_key(key)}") for key, one in table.items()}
    return layer


_VARIABLES: Final[dict[str, tuple[str, str]]] = {
    f"TASKLOOP_{section}__{key}".upper(): (section, key)
    for section, one in Settings.model_fields.items()
    for key in (policy.OPTIONS if section == "defaults" else getattr(one.annotation, "model_fields", ()))
}
_PLAIN_VARIABLES = {
    "TASK_SCHEDULER_INTERVAL": ("scheduler", "interval"),
    "TASK_SCHEDULER_ENABLED": ("scheduler", "enabled"),
}
_GROUP_VARIABLE = "TASKLOOP_GROUPS__"
_NO_SETTINGS = ("TASKLOOP_DEV", "TASKLOOP_URL")


def _named_sections(texts: Mapping[str, str], before: str) -> dict[str, Any]:
    """The layer of the variables `TASKLOOP_<SECTION>__<KEY>`; an empty one counts as not given."""
    layer: dict[str, Any] = _taken(texts, before, _VARIABLES)
    groups = [name for name in texts if name.startswith(_GROUP_VARIABLE) and texts[name]]
    if groups:
        layer["groups"] = {
            name.removeprefix(_GROUP_VARIABLE).lower(): Given(texts[name], before + name, text=True) for name in groups
        }
    return layer


def _plain_sections(texts: Mapping[str, str], before: str) -> dict[str, Any]:
    """The layer of the older names `TASK_SCHEDULER_…`."""
    return _taken(texts, before, _PLAIN_VARIABLES)


def _taken(texts: Mapping[str, str], before: str, known: Mapping[str, tuple[str, str]]) -> dict[str, Any]:
    layer: dict[str, Any] = {}
    for name, (section, key) in known.items():
        if texts.get(name):
            layer.setdefault(section, {})[key] = Given(texts[name], before + name, text=True)
    return layer


def _strangers(texts: Mapping[str, str], before: str) -> list[str]:
    """A warning for each variable that looks like a setting and is none. Values are not shown: one may be a token."""
    warnings = []
    for name in texts:
        known = name in _VARIABLES or name in _NO_SETTINGS or name.startswith(_GROUP_VARIABLE)
        if known or not name.upper().startswith("TASKLOOP_"):
            continue
        # Without what all names share, which would make any two of them near.
        near = nearest(name[9:].upper(), [one[9:] for one in (*_VARIABLES, *_NO_SETTINGS)])
        mend = f"did you mean TASKLOOP_{near}?" if near else "docs/configuration.md lists all names"
        if name.upper().startswith("TASKLOOP_JOBS__"):
            mend = "a job is set in config.toml, below [jobs.NAME]"
        warnings.append(f"{before}{_key(name)} is no setting and changes nothing; {mend}")
    return warnings


_OF_ONE_KIND: Final = {
    ("store", "synchronous"): ("PostgreSQL", "its server says that itself"),
    ("store", "statement_cache_size"): ("SQLite", "it has no such cache"),
}
"""Settings that a kind of store does not go by, and why."""


def _idle(settings: Settings, layers: Iterable[Mapping[str, Any]]) -> list[str]:
    """A warning for each setting that somebody gave, as other than it is anyway, and the store that was named does not go by.

    Where none was, the program may have one of its own.
    """
    if not settings.is_given("store", "url"):
        return []
    named = "PostgreSQL" if settings.store.url.startswith(POSTGRES) else "SQLite"
    return [
        f"{given.where} changes nothing with a store in {named}: {why}; take it out"
        for layer in layers
        for (section, key), (other, why) in _OF_ONE_KIND.items()
        if other == named and not _is_default(settings, section, key)
        if isinstance(tables := layer.get(section), Mapping) and isinstance(given := tables.get(key), Given)
    ]


def _is_default(settings: Settings, section: str, key: str) -> bool:
    one = getattr(settings, section)
    return bool(getattr(one, key) == type(one).model_fields[key].default)


def _told(error: ErrorDetails) -> list[str]:
    """The problems in one error of pydantic: ours as they are, and the one it finds itself, an unknown key."""
    wrong = error.get("ctx", {}).get("error")
    if isinstance(wrong, _Wrong):
        return list(wrong.problems)
    *sections, key = (str(part) for part in error["loc"])
    fields = Settings.model_fields
    known = getattr(fields[sections[0]].annotation, "model_fields", ()) if sections else fields
    return [_unknown(error["input"].where, key, known)]


def _unknown(where: str, key: str, known: Iterable[str]) -> str:
    near = nearest(key, known)
    elsewhere = [section for section, _key in _VARIABLES.values() if _key == key and section != "defaults"]
    if near is None and elsewhere:
        return f"{where} is unknown here; it belongs below [{elsewhere[0]}]"
    return f"{where} is unknown{_meant(near)}{'' if near else ';'} known here are {', '.join(sorted(known))}"


def _meant(near: str | None) -> str:
    return f"; did you mean '{near}'?" if near else ""


def _literal(text: str) -> Any:
    """The value that a text has in TOML: `3`, `true`, `["a", "b"]`; a text that is none of that stays a text."""
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return table["value"] if len(table) == 1 else text


def _key(name: str) -> str:
    """A name from outside as it may stand in a message."""
    return name if re.fullmatch(r"[\w.:-]{1,128}", name) else _cut(repr(name))


def _cut(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"


@contextmanager
def _saying() -> Iterator[None]:
    try:
        yield
    except _Wrong as error:
        raise BadSettings(error.problems) from None


def _imported(target: str, directory: Path, where: str) -> Any:
    """The object at `module:name`. Raises `BadSettings` with what stands in the way."""
    module_name, _, path = target.partition(":")
    said = f"{where} is '{target}'"
    with _searching(directory):
        try:
            module = importlib.import_module(module_name)
        except BadSettings:
            raise
        except (Exception, SystemExit) as error:  # a module may fail in any way
            raise BadSettings([f"{said}: {_why_no_module(error, module_name, directory)}"]) from error
    found: Any = module
    for name in path.split("."):
        if not hasattr(found, name):
            public = [one for one in vars(found) if not one.startswith("_")] if hasattr(found, "__dict__") else []
            holder = f"module '{module_name}'" if found is module else f"'{module_name}:{path.rpartition('.')[0]}'"
            raise BadSettings([f"{said}: {holder} has no '{name}'{_meant(nearest(name, public))}"])
        found = getattr(found, name)
    return found


@contextmanager
def _searching(directory: Path) -> Iterator[None]:
    """Let modules of `directory` be found, first of all, unless it is searched already."""
    folder = str(directory.resolve())
    added = all(Path(one).resolve() != directory.resolve() for one in sys.path)
    importlib.invalidate_caches()
    if added:
        sys.path.insert(0, folder)
    try:
        yield
    finally:
        if added and folder in sys.path:
            sys.path.remove(folder)


def _why_no_module(error: BaseException, module: str, directory: Path) -> str:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and (module == missing or module.startswith(f"{missing}.")):
        near = nearest(missing.rpartition(".")[2], _modules(directory.joinpath(*missing.split(".")[:-1])))
        place = f"neither in {directory.resolve()} nor among the installed packages"
        return f"no module '{missing}', {place}{_meant(near)}; run where it lies, or install it"
    if isinstance(error, SyntaxError):
        return f"module '{module}' cannot be read: {error.msg} ({error.filename}:{error.lineno}); mend that line"
    ours = ("<frozen", str(Path(__file__).parent))  # the place is where it was written, not where it was refused
    frames = [one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith(ours)]
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    return f"module '{module}' is there, but importing it failed{place}: {type(error).__name__}: {error}".rstrip(": ")


def _modules(folder: Path) -> list[str]:
    try:
        return [one.stem for one in folder.iterdir() if one.suffix == ".py" or (one / "__init__.py").exists()]
    except OSError:
        return []


def _candidates(app: str) -> str:
    module = app.partition(":")[0]
    names = [name for name, one in vars(sys.modules[module]).items() if isinstance(one, Jobs)]
    return f"; '{module}' has {', '.join(names)}" if names else f"; '{module}' has none"
