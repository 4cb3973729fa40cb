"""The configuration: arguments, environment, `.env` and config.toml, laid over each other and checked as one.

Level 6. `taskloop.address` reads the sources; here every value becomes a `Given`, which remembers where it was written, and
pydantic-settings lays the layers over each other. `sections` and `file_jobs` say what is allowed. All mistakes are collected
and raised together as `BadSettings`. Loading creates nothing and imports no job; `targets` does that.

Start at `load`. docs/configuration.md is the same for people who run it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from pydantic import PlainValidator, PrivateAttr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from taskloop import durations
from taskloop.address import POSTGRES, Sources, gather, kind, without_password
from taskloop.errors import BadSettings, nearest
from taskloop.file_jobs import FileJob, read_defaults, read_groups, read_jobs
from taskloop.given import Given, Wrong, key_text
from taskloop.jobs import NAME
from taskloop.options import Http, Options
from taskloop.sections import (
    VARIABLES,
    DaskSettings,
    GitMetricsSettings,
    HttpSettings,
    LogSettings,
    SchedulerSettings,
    StoreSettings,
    unknown,
)

__all__ = ["Settings", "load", "strangers"]


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
    defaults: Annotated[dict[str, Any], PlainValidator(read_defaults)] = {}
    groups: Annotated[dict[str, int], PlainValidator(read_groups)] = {"worker": 1}
    git_metrics: GitMetricsSettings = GitMetricsSettings()
    jobs: Annotated[dict[str, FileJob], PlainValidator(read_jobs)] = {}

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
        sources.warnings += strangers(texts, before)
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
        where = before + key_text(section)
        if section not in Settings.model_fields:
            layer[section] = Given(value, where)
        elif not isinstance(value, Mapping):
            problems.append(f"{where} is {kind(value)}; allowed is a table: write [{section}] on a line of its own")
        elif section == "jobs":
            layer[section] = _job_sections(value, where, problems)
        else:
            layer[section] = {key: Given(one, f"{where}.{key_text(key)}") for key, one in value.items()}
    return layer


def _job_sections(tables: Mapping[str, Any], before: str, problems: list[str]) -> dict[str, dict[str, Given]]:
    layer = {}
    for name, table in tables.items():
        where = f"{before}.{key_text(name)}"
        if not NAME.fullmatch(name):
            allowed = "1 to 128 letters, digits and '._:-', the first a letter or digit"
            problems.append(f"{where}: no job can have this name; allowed are {allowed}")
        elif not isinstance(table, Mapping):
            problems.append(f"{where} is {kind(table)}; allowed is a table [jobs.{name}]")
        else:
            layer[name] = {key: Given(one, f"{where}.{key_text(key)}") for key, one in table.items()}
    return layer


_PLAIN_VARIABLES = {
    "TASK_SCHEDULER_INTERVAL": ("scheduler", "interval"),
    "TASK_SCHEDULER_ENABLED": ("scheduler", "enabled"),
}
_GROUP_VARIABLE = "TASKLOOP_GROUPS__"
_NO_SETTINGS = ("TASKLOOP_DEV", "TASKLOOP_URL")


def _named_sections(texts: Mapping[str, str], before: str) -> dict[str, Any]:
    """The layer of the variables `TASKLOOP_<SECTION>__<KEY>`; an empty one counts as not given."""
    layer: dict[str, Any] = _taken(texts, before, VARIABLES)
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


def strangers(texts: Mapping[str, str], before: str) -> list[str]:
    """A warning for each variable that looks like a setting and is none. Values are not shown: one may be a token."""
    warnings = []
    for name in texts:
        known = name in VARIABLES or name in _NO_SETTINGS or name.startswith(_GROUP_VARIABLE)
        if known or not name.upper().startswith("TASKLOOP_"):
            continue
        # Without what all names share, which would make any two of them near.
        near = nearest(name[9:].upper(), [one[9:] for one in (*VARIABLES, *_NO_SETTINGS)])
        mend = f"did you mean TASKLOOP_{near}?" if near else "docs/configuration.md lists all names"
        if name.upper().startswith("TASKLOOP_JOBS__"):
            mend = "a job is set in config.toml, below [jobs.NAME]"
        warnings.append(f"{before}{key_text(name)} is no setting and changes nothing; {mend}")
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
    if isinstance(wrong, Wrong):
        return list(wrong.problems)
    *sections, key = (str(part) for part in error["loc"])
    fields = Settings.model_fields
    known = getattr(fields[sections[0]].annotation, "model_fields", ()) if sections else fields
    return [unknown(error["input"].where, key, known)]
