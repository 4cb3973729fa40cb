"""A value of the configuration as somebody wrote it, and the readers of such values: what is allowed, and how it is refused.

Level 3. A reader takes a `Given` and gives the value, or raises `Wrong` with texts that can be shown as they are. What is
asked for beside a value stands in `sections` and `file_jobs`. Start at `Given`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import PlainValidator

from taskloop import durations
from taskloop.address import bad_url, kind, without_password
from taskloop.errors import BadDuration, BadRate, BadSettings, BadTrigger, nearest
from taskloop.options import HOSTS_ALLOWED, is_host
from taskloop.triggers import Cron

__all__ = [
    "MOST", "PREFIX", "Given", "Wrong", "cut", "key_text", "literal", "meant", "noting", "read_address", "read_by", "read_flag", "read_host", "read_hosts",
    "read_level", "read_names", "read_prefix", "read_rate", "read_size", "read_store_url", "read_table", "read_target", "read_text",
    "read_timezone", "read_token", "refused", "saying", "span", "together", "whole", "word",
]  # fmt: skip


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
            return cut(repr(without_password(self.value)))
        if isinstance(self.value, bool):
            return str(self.value).lower()
        try:
            return cut(repr(self.value))
        except ValueError:  # TOML may hold an int of more digits than Python prints
            return "a number of many digits"


class Wrong(ValueError):
    """What is wrong with a value or a table, one text a mistake, ready to be shown."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__(*problems)


_DURATION = "seconds as a number, or text such as '90s', '5m', '1h30m', '2w', up to 100 years"
_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")
_LEVELS = ("TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "ERROR", "CRITICAL")
_BYTES = {"b": 1, "kb": 1_000, "mb": 1_000_000, "gb": 1_000_000_000, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_MOST_CAPTURED = 1_000_000_000
PREFIX = r"((/[A-Za-z0-9._~-]+)+)?"
"""Below what path pages may lie; empty: at the root."""
MOST = 1_000_000


def refused(given: Given, allowed: str, why: str = "") -> Wrong:
    return Wrong(f"{given.where} is {given.shown}{f': {why}' if why else ''}; allowed is {allowed}")


def read_by(read: Callable[[Given], Any]) -> PlainValidator:
    """`read` as the validator of a field; a default or an argument of a constructor was given by the program."""
    return PlainValidator(lambda value: read(value if isinstance(value, Given) else Given(value, "the value")))


def read_flag(given: Given) -> bool:
    text = given.value.strip().lower() if given.text else ""
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if not isinstance(given.value, bool):
        raise refused(given, "true or false")
    return given.value


def whole(lowest: int, highest: int) -> Callable[[Given], int]:
    def read(given: Given) -> int:
        value = given.value
        if given.text and re.fullmatch(r"\s*[+-]?[0-9]{1,15}\s*", value):
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise refused(given, f"a whole number from {lowest} to {highest}{'' if given.text else ', without quotes'}")
        return value

    return read


def span(least: str = "", *, zero: bool = False, off: bool = False) -> Callable[[Given], timedelta | None]:
    """A reader of durations above zero; `zero` takes zero too, `off` the word "off" as None."""
    allowed = f"a duration of {least} or more" if least else f"a duration{'' if zero else ' above zero'}"
    allowed += f": {_DURATION}" + (', or "off"' if off else "")

    def read(given: Given) -> timedelta | None:
        if off and given.value == "off":
            return None
        try:
            found = durations.parse(given.value)
        except BadDuration as error:
            raise refused(given, allowed, error.why) from None
        if found < (durations.parse(least) if least else timedelta(0)) or not (found or zero):
            raise refused(given, allowed)
        return found

    return read


def read_text(given: Given) -> str:
    if not isinstance(given.value, str):
        raise refused(given, "a text, in quotes")
    return given.value


def word(*words: str) -> Callable[[Given], str]:
    def read(given: Given) -> str:
        value = given.value
        if value not in words:
            near = nearest(value, words) if isinstance(value, str) else None
            raise refused(given, " or ".join(f"'{word}'" for word in words) + meant(near))
        return str(value)

    return read


def read_names(given: Given) -> tuple[str, ...]:
    value = given.value
    if given.text:
        value = literal(value) if value.lstrip().startswith("[") else [part.strip() for part in value.split(",")]
    allowed = 'a, b or ["a", "b"]' if given.text else 'a list of texts such as ["a", "b"]'
    if not isinstance(value, (list, tuple)):
        raise refused(given, allowed)
    for number, one in enumerate(value, 1):
        if not isinstance(one, str) or not one.strip():  # a long list is cut where it is shown
            raise refused(given, allowed, f"value {number} of {len(value)} is {Given(one, given.where).shown}")
    return tuple(value)


def read_hosts(given: Given) -> tuple[str, ...]:
    names = read_names(given)
    if not all(map(is_host, names)):
        raise refused(given, f"a list, each of it {HOSTS_ALLOWED}")
    return names


def read_timezone(given: Given) -> str:
    # The trigger knows how to find a zone and its nearest; the expression plays no part.
    try:
        Cron("@daily", timezone=read_text(given))
    except BadTrigger as error:
        raise Wrong(f"{given.where} is {given.shown}: {error.why}") from None
    return read_text(given)


def read_target(given: Given) -> str | None:
    """The text `module:name`, or None for an empty one."""
    if given.value == "":
        return None
    module, _, name = read_text(given).partition(":")
    if not all(part.isidentifier() for part in f"{module}.{name}".split(".")):
        raise refused(given, "'module:name', such as 'shop.jobs:sync'")
    return read_text(given)


def read_store_url(given: Given) -> str:
    wrong = bad_url(given.value)
    if wrong:
        raise Wrong(f"{given.where} is {wrong}")
    return str(given.value)


def read_host(given: Given) -> str:
    if not re.fullmatch(r"[^\s/@]{1,255}", read_text(given)):
        raise refused(given, "a name or address to listen on, such as '127.0.0.1', '::1' or '0.0.0.0'")
    return read_text(given)


def read_prefix(given: Given) -> str:
    """A path that everything lies below; empty: at the root."""
    if not re.fullmatch(PREFIX, read_text(given).rstrip("/")):
        raise refused(given, "a path such as '/taskloop', of letters, digits and -._~, or '' for the root")
    return read_text(given).rstrip("/")


def read_token(given: Given) -> str:
    """A secret: no message shows it."""
    if not isinstance(given.value, str) or not re.fullmatch(r"[!-~]{0,512}", given.value):
        allowed = "a text of at most 512 letters, digits and punctuation without blanks, as a header can carry"
        raise Wrong(f"{given.where} is *** ({kind(given.value)}); allowed is {allowed}")
    return given.value


def read_rate(given: Given) -> tuple[int, timedelta] | None:
    """How many in how long; None: no limit."""
    if given.value == "off":
        return None
    try:
        return durations.parse_rate(given.value)
    except BadRate as error:
        raise refused(given, f'{error.allowed}, or "off"') from None


def read_level(given: Given) -> str:
    level = given.value.strip().upper() if isinstance(given.value, str) else None
    if level not in _LEVELS:
        near = nearest(level or "", _LEVELS)
        raise refused(given, ", ".join(_LEVELS) + meant(near))
    return level


def read_size(given: Given) -> int | None:
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
        raise refused(given, 'a size from 1 B to 1 GB, such as "200kB", "1MB" or a number of bytes, or "off"')
    return value


def read_address(given: Given) -> str:
    if given.value and not re.match(r"[a-z]+://[^\s/]", read_text(given)):
        raise refused(given, 'an address such as "tcp://scheduler:8786", or "" for none')
    return read_text(given)


def read_table(given: Given) -> dict[str, Any]:
    if not isinstance(given.value, Mapping):
        raise refused(given, "a table such as { batch_size = 500 }")
    return dict(given.value)


@contextmanager
def together() -> Iterator[list[str]]:
    """A list of problems that is raised as one error at the end, if it has any."""
    problems: list[str] = []
    yield problems
    if problems:
        raise Wrong(*problems)


@contextmanager
def noting(problems: list[str]) -> Iterator[None]:
    try:
        yield
    except Wrong as error:
        problems.extend(error.problems)


@contextmanager
def saying() -> Iterator[None]:
    try:
        yield
    except Wrong as error:
        raise BadSettings(error.problems) from None


def meant(near: str | None) -> str:
    return f"; did you mean '{near}'?" if near else ""


def literal(text: str) -> Any:
    """The value that a text has in TOML: `3`, `true`, `["a", "b"]`; a text that is none of that stays a text."""
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    return table["value"] if len(table) == 1 else text


def key_text(name: str) -> str:
    """A name from outside as it may stand in a message."""
    return name if re.fullmatch(r"[\w.:-]{1,128}", name) else cut(repr(name))


def cut(text: str) -> str:
    return text if len(text) <= 80 else text[:79] + "…"
