"""The tables of jobs in config.toml: `[jobs.NAME]`, and `[defaults]` and `[groups]` beneath them.

Level 3. Start at `FileJob`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from taskloop import durations, policy
from taskloop.errors import BadDuration, BadInstant, BadTrigger
from taskloop.given import (
    MOST,
    Given,
    Wrong,
    literal,
    noting,
    read_table,
    read_target,
    read_timezone,
    refused,
    together,
    whole,
    word,
)
from taskloop.sections import unknown
from taskloop.triggers import At, Cron, Every, Trigger, from_mapping

__all__ = ["FileJob", "read_defaults", "read_groups", "read_jobs"]


def read_groups(tables: Mapping[str, Given]) -> dict[str, int]:
    read, groups = whole(1, MOST), {}
    with together() as problems:
        for name, given in tables.items():
            if not 0 < len(name) <= 128:
                problems.append(f"{given.where}: a group's name has 1 to 128 characters")
            with noting(problems):
                groups[name] = read(given)
    return groups


def read_defaults(table: Mapping[str, Given]) -> dict[str, Any]:
    options = {}
    with together() as problems:
        for key, given in table.items():
            with noting(problems):
                options[key] = _option(key, given, policy.OPTIONS)
    return options


# What [jobs.NAME] has beside the options of a policy.
_JOB_KEYS: Final[dict[str, Callable[[Given], Any]]] = {
    "every": lambda given: _asked(given, lambda value: value if value == "start" else Every(value)),
    "cron": lambda given: _asked(given, Cron),
    "at": lambda given: _asked(given, At),
    "anchor": lambda given: _asked(given, durations.absolute),
    "timezone": read_timezone,
    "gap": word("after", "skip"),
    "fold": word("once", "both"),
    "call": read_target,
    "params": read_table,
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


def read_jobs(tables: Mapping[str, Mapping[str, Given]]) -> dict[str, FileJob]:
    jobs = {}
    with together() as problems:
        for name, table in tables.items():
            with noting(problems):
                jobs[name] = _file_job(name, table)
    return jobs


def _file_job(name: str, table: Mapping[str, Given]) -> FileJob:
    read: dict[str, Any] = {}
    trigger = None
    with together() as problems:
        for key, given in table.items():
            with noting(problems):
                known = _JOB_KEYS.get(key)
                read[key] = known(given) if known else _option(key, given, (*policy.OPTIONS, *_JOB_KEYS))
        with noting(problems):
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
        raise Wrong(f"{place} has {' and '.join(kinds)}; allowed is one of every, cron, at")
    alone = [
        f"{table[key].where} is {table[key].shown}, but the job has no {main}; write {main} = ... beside it"
        for main, keys in _KINDS.items()
        for key in keys
        if key in table and main not in kinds
    ]
    if alone:
        raise Wrong(*alone)
    try:
        return from_mapping({key: table[key].value for main in kinds for key in (main, *_KINDS[main]) if key in table})
    except (BadDuration, BadInstant, BadTrigger):
        return None  # no trigger, or one of its values was refused already


def _option(key: str, given: Given, known: Iterable[str]) -> Any:
    if key not in policy.OPTIONS:
        here = policy.called_elsewhere(key)
        raise Wrong(f"{given.where} is unknown here; {here}" if here else unknown(given.where, key, known))
    value = literal(given.value) if given.text else given.value
    if value == "off" and key in ("group", "max_running"):
        return None
    if key == "tags" and not isinstance(value, (list, tuple)):
        raise refused(given, 'a list of texts such as ["nightly"]')
    try:
        return policy.read_option(key, value)
    except (ValueError, TypeError) as error:
        # Written for Python; a file has other words for the same.
        text = str(error).replace("or None for no limit", 'or "off"').replace("True or False", "true or false")
        if text.startswith((f"{key} is ", f"{key}: ")):
            raise Wrong(given.where + text.removeprefix(key)) from None
        raise Wrong(f"{given.where} is {given.shown}: {text}") from None


def _asked(given: Given, make: Callable[[Any], Any]) -> Any:
    try:
        return make(given.value)
    except (BadDuration, BadInstant, BadTrigger) as error:
        raise Wrong(f"{given.where}: {error}") from None
