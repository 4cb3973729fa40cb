"""Where configuration comes from: the environment, `.env` and config.toml as plain texts; and the store's address.

Level 0, and light: no pydantic, so that a command that only reads finds the store it needs within milliseconds.
`taskloop.settings` reads the same three sources by this file, so both see the same store. Start at `gather` and
`store_address`. The rules of `.env` are those of python-dotenv; a test compares the two.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from taskloop.errors import BadDuration, BadSettings, nearest

if TYPE_CHECKING:
    from os import PathLike

__all__ = [
    "DEFAULT_STORE",
    "DEV_STORE",
    "ENV_FILE",
    "Sources",
    "bad_url",
    "dev_interval",
    "gather",
    "kind",
    "parse_env",
    "store_address",
    "without_password",
]

DEFAULT_STORE: Final = "sqlite:///taskloop.db"
DEV_STORE: Final = "sqlite:///taskloop.dev.db"
ENV_FILE: Final = ".env"

_CONFIG_FILE = "config.toml"
_STORE_VARIABLE = "TASKLOOP_STORE__URL"
_DEV_VARIABLE = "TASKLOOP_DEV"
_DEV_OFF = ("", "0", "off", "false", "no")
_DEV_ON = ("1", "on", "true", "yes")
_DEV_INTERVAL = timedelta(seconds=10)
_MOST_BYTES = 1_000_000


class Sources:
    """What was found, not yet judged: every value as it was written."""

    # No dataclass: the module that makes one costs more to import than all that is done here.
    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.dotenv: dict[str, str] = {}
        self.table: dict[str, Any] = {}
        """Of config.toml: the whole, or its table `[taskloop]`."""
        self.prefix = f"{_CONFIG_FILE}: "
        """Before a key of `table` in messages: the file's name, and `taskloop.` where that table was taken."""
        self.problems: list[str] = []
        self.warnings: list[str] = []

    def texts(self) -> list[tuple[str, Mapping[str, str]]]:
        """The two sources of named texts, the stronger first, each with what stands before a name in messages."""
        return [("", self.environ), (f"{ENV_FILE}: ", self.dotenv)]

    def dev(self, argument: Any = None) -> tuple[str, timedelta] | None:
        """Who asks for dev mode, and its interval; None: it is off. A mistake is added to `.problems`.

        The strongest that speaks decides: `argument` unless None, the environment, `.env`. A variable that is set but
        empty speaks too: it says no.
        """
        said = [(before + _DEV_VARIABLE, texts.get(_DEV_VARIABLE)) for before, texts in self.texts()]
        for where, value in [("argument dev", argument), *said]:
            if value is None:
                continue
            try:
                interval = dev_interval(value)
            except ValueError as error:
                self.problems.append(f"{where} is {error}")
                return None
            return None if interval is None else (where, interval)
        return None

    def dev_store(self) -> tuple[str, str]:
        """Who names the store of dev mode, and its address: only the real environment can name another one."""
        named = self.environ.get(_STORE_VARIABLE, "")
        return (_STORE_VARIABLE, named) if named else ("dev mode", DEV_STORE)


def store_address(
    *,
    config: str | PathLike[str] | None = None,
    environ: Mapping[str, str] | None = None,
    directory: str | PathLike[str] | None = None,
    files: bool = True,
) -> str:
    """The address of the store that `settings.load` with the same arguments would give; opens nothing.

    Raises `BadSettings` for what stands in its way: a file that cannot be read, an address or TASKLOOP_DEV that makes
    no sense. Mistakes elsewhere in the configuration are not looked for.
    """
    sources = gather(config, environ=environ, directory=directory, files=files)
    where, address = _named_store(sources)
    if sources.dev() is not None:
        where, address = sources.dev_store()
    wrong = bad_url(address)
    if wrong:
        sources.problems.append(f"{where} is {wrong}")
    if sources.problems:
        raise BadSettings(sources.problems)
    return str(address)


def gather(
    config: str | PathLike[str] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    directory: str | PathLike[str] | None = None,
    files: bool = True,
) -> Sources:
    """The environment, and with `files` also `.env` and config.toml of `directory` (None: the current one).

    `config` names another file than config.toml, from `directory` on; it must exist. What cannot be read is told in
    `.problems`; nothing is raised.
    """
    if config is not None and not files:
        raise ValueError("config= names a file to read, files=False forbids to read any; give one of them")
    sources = Sources(os.environ if environ is None else environ)
    if files:
        folder = "" if directory is None else os.fspath(directory)
        _take_env_file(sources, os.path.join(folder, ENV_FILE))
        name = _CONFIG_FILE if config is None else os.fspath(config)
        _take_config(sources, name, os.path.join(folder, name), needed=config is not None)
    return sources


def dev_interval(value: Any) -> timedelta | None:
    """The interval that a value of TASKLOOP_DEV asks for; None: dev mode is off. Raises `ValueError`."""
    text = str(value).strip().lower() if isinstance(value, (str, int)) else None
    if text in _DEV_OFF:
        return None
    if text in _DEV_ON:
        return _DEV_INTERVAL
    # Here, not above: only dev mode needs it.
    from taskloop import durations

    try:
        return durations.parse_interval(value)
    except BadDuration as error:
        allowed = "allowed is 1 (every 10 seconds), a duration such as '30s', or 0, off, false, no"
        raise ValueError(f"{_shown(value)}: {error.why}; {allowed}") from None


POSTGRES: Final = ("postgresql", "postgres")
ALLOWED: Final = (
    "allowed is sqlite:///file.db, sqlite:////absolute/file.db, sqlite:///:memory:, or postgresql://user@host/database"
)


def bad_url(address: Any) -> str | None:
    """What is wrong with a store's address: the address (a password in it masked) and what is allowed; None: nothing.

    Only its form is looked at: `sqlite:///…`, `postgresql://…`, or the path of an SQLite file.
    """
    if not isinstance(address, str):
        return f"{_shown(address)}, no text; {ALLOWED}"
    shown = _shown(without_password(address))
    if not address.strip() or "\0" in address:
        return f"{shown}, which names nothing; {ALLOWED}"
    match = re.match(r"\s*([A-Za-z][A-Za-z0-9+.-]+):", address)
    if match is None:
        return None
    scheme, rest = match[1], address[match.end() :]
    if address[0].isspace():
        return f"{shown}, which begins with a blank; {ALLOWED}"
    if scheme in POSTGRES:
        if not _SERVER.match(rest):
            return (
                f"{shown}, which cannot be read: write characters such as @ : / ? # of a user or a password as %40 %3A %2F %3F %23; "
                + ALLOWED
            )
        if (port := _bad_port(rest)) is not None:
            return f"{shown}, whose port is '{port}'; allowed is a number from 1 to 65535, or none, which is 5432"
        if (twice := _TWICE.match(rest)) and twice[1] != twice[2]:
            return f"{shown}, which names two databases, '{twice[1]}' and '{twice[2]}'; leave one out"
        return None if _DATABASE.match(rest) else f"{shown}, which names no database; {ALLOWED}"
    if scheme != "sqlite":
        near = nearest(scheme.lower().partition("+")[0], ("sqlite", "postgresql"))
        return f"{shown}: scheme '{scheme}' is unknown; " + (f"did you mean '{near}'? " if near else "") + ALLOWED
    if not re.match(r"///.", rest):
        return f"{shown}, which names no file; {ALLOWED}"
    if found := _OPTIONS.search(rest):
        name = found[0][1:].partition("=")[0]
        return f"{shown}: an address takes no options such as '{name}'; leave out all from the '?' on"
    return None


def _bad_port(rest: str) -> str | None:
    """What stands where a server's address, or one of several, has its port, and is none."""
    server, _, options = rest.removeprefix("//").partition("?")
    hosts = server.partition("/")[0].rpartition("@")[2].split(",")
    ports = [one.rpartition("]")[2].partition(":")[2] for one in hosts]  # an IPv6 address stands in brackets
    ports += [port for given in _PORTS.findall(options) for port in given.split(",")]
    return next((one for one in ports if one and not (one.isdecimal() and 0 < int(one) < 65536)), None)


_PORTS = re.compile(r"(?:^|&)port=([^&]*)")
_SERVER = re.compile(r"//(?:[^@/?#]*@)?[^@/?#]*(?:/[^/?#@]*)?(?:\?[^#@]*)?$")
_DATABASE = re.compile(r"//[^/]*/[^/?]|//.*\?(?:.*&)?(?:dbname|database|service)=")
_TWICE = re.compile(r"//[^/?]*/([^/?]+)\?(?:.*&)?(?:dbname|database)=([^&]*)")
_OPTIONS = re.compile(r"\?\w+=[\w%-]*(&\w+=[\w%-]*)*$")
"""Options at the end of an address; a file may well have a question mark in its name, and then an ending."""


def kind(value: object) -> str:
    """What a value is, in the words of people who write TOML."""
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "a text", list: "a list", dict: "a table"}
    return kinds.get(type(value), f"a {type(value).__name__}")


def without_password(address: str) -> str:
    """The address as it may be shown."""
    # Up to the last @, for a password may hold any sign; and also where a slash, or the scheme, was forgotten.
    masked = address if _FILE.match(address) else _USER.sub(r"\1***@", address)
    return _SECRET.sub(r"\1***", masked)


_FILE = re.compile(r"sqlite:///", re.IGNORECASE)
_USER = re.compile(r"^(\s*(?:[A-Za-z][A-Za-z0-9+.-]+:/*|//)[^:@]*:).*@", re.DOTALL)
_SECRET = re.compile(r"((?:password|passwd|pwd|passfile|secret|token|key)=)[^&\s]*", re.IGNORECASE)


def _named_store(sources: Sources) -> tuple[str, Any]:
    for before, texts in sources.texts():
        if texts.get(_STORE_VARIABLE):
            return before + _STORE_VARIABLE, texts[_STORE_VARIABLE]
    section = sources.table.get("store", {})
    if not isinstance(section, dict):
        sources.problems.append(
            f"{sources.prefix}store is {kind(section)}; allowed is a table: write [store] on a line of its own"
        )
        section = {}
    return f"{sources.prefix}store.url", section.get("url", DEFAULT_STORE)


class _Unreadable(Exception):
    """Why a file cannot be used."""


def _take_env_file(sources: Sources, path: str) -> None:
    # A folder of this name is a virtual environment, which is none of our business.
    if os.path.isdir(path):
        return
    try:
        text = _read(path)
    except _Unreadable as error:
        sources.problems.append(f"{ENV_FILE}: {error}")
        return
    sources.dotenv, unread = parse_env(text, sources.environ) if text else ({}, [])
    for line, content in unread:
        # Others keep their secrets in this file too, so no line of theirs is ever shown or fatal.
        said = f'{ENV_FILE}: line {line} cannot be read; write NAME=value, or NAME="value" with the quotes closed'
        (sources.problems if "TASKLOOP_" in content or "TASK_SCHEDULER_" in content else sources.warnings).append(said)


def _take_config(sources: Sources, name: str, path: str, *, needed: bool) -> None:
    sources.prefix = f"{name}: "
    try:
        text = _read(path)
        if text is None and needed:
            raise _Unreadable(f"there is no such file; looked for {os.path.abspath(path)}")
        table = _parse_toml(text or "")
    except _Unreadable as error:
        sources.problems.append(f"{name}: {error}")
        return
    if "taskloop" not in table:
        sources.table = table
        return
    sources.prefix = f"{name}: taskloop."
    if isinstance(table["taskloop"], dict):
        sources.table = table["taskloop"]
    else:
        sources.problems.append(f"{name}: taskloop is {_shown(table['taskloop'])}; allowed is a table [taskloop]")


def _read(path: str) -> str | None:
    """The text of a file, None where there is none. Raises `_Unreadable`."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        mend = "; give this user the right to read it" if isinstance(error, PermissionError) else ""
        raise _Unreadable(f"it cannot be read: {reason[0].lower() + reason[1:]}{mend}") from None
    if len(data) > _MOST_BYTES:
        raise _Unreadable(f"it has more than {_MOST_BYTES // 1000} kB, which no configuration needs")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _Unreadable(f"line {line}: byte 0x{data[error.start]:02x} is no UTF-8; save it as UTF-8") from None


def _parse_toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise _Unreadable("its tables or lists lie too deep in each other") from None
    except ValueError as error:
        # TOMLDecodeError has its place only in the text before 3.14; int() of too many digits has none at all.
        match = re.fullmatch(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", str(error), re.DOTALL)
        if match is None:
            raise _Unreadable(f"it is no TOML: {error}") from None
        line, column = match[2] or text.count("\n") + 1, match[3] or len(text) - text.rfind("\n")
        raise _Unreadable(f"line {line}, column {column}: {match[1][0].lower() + match[1][1:]}") from None


# The grammar of python-dotenv: a line up to where it can be read, and what must follow then. Possessive, because that
# never takes back what it has read.
_BINDING = r"""
    (?:export[^\S\r\n]+)?+
    (?: '(?P<quoted>[^']+)' | (?P<bare>(?!['\#])[^=\#\s]++) )?+ [^\S\r\n]*+
    (?P<equals> (?(quoted)|(?(bare)|(?!))) =
        (?: [^\S\r\n]++(?=\#)
          | [^\S\r\n]*+
            (?: '(?P<single>(?:\\.|[^'\\])*+)' | "(?P<double>(?:\\.|[^"\\])*+)" | (?!['"])(?P<plain>[^\r\n]*+) )
        )
    )?+
    (?:[^\S\r\n]*+\#[^\r\n]*+)?+ [^\S\r\n]*+
"""
_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def parse_env(text: str, environ: Mapping[str, str]) -> tuple[dict[str, str], list[tuple[int, str]]]:
    """The variables of a `.env` file, and the lines that cannot be read with their numbers.

    `export`, comments, single and double quotes (over several lines too), `${NAME}` and `${NAME:-else}` from the
    lines above or `environ`. Of two of a name the later counts; one without `=` has no
    value.
    """
    values: dict[str, str] = {}
    unread: list[tuple[int, str]] = []
    binding, newline, sign = _binding(), re.compile(r"\r\n|\n|\r"), re.compile(r"\S")
    position, line = 0, 1
    while first := sign.search(text, position):
        start = first.start()
        line += len(newline.findall(text, position, start))
        match = binding.match(text, start)
        read = match.end() if match else start
        ending = newline.search(text, read)
        position = ending.start() if ending else len(text)
        if match is None or position > read:
            unread.append((line, text[start:position]))
        else:
            name = match["quoted"] or match["bare"]
            values.pop(name, None)
            if match["equals"] is not None:
                values[name] = _expanded(_unescaped(match), values, environ)
        line += len(newline.findall(text, start, position))
    return values, unread


@cache
def _binding() -> re.Pattern[str]:
    # At the first `.env` only: it takes as long to compile as the rest of this file to load.
    return re.compile(_BINDING, re.VERBOSE | re.DOTALL)


def _unescaped(match: re.Match[str]) -> str:
    if match["double"] is not None:
        return re.sub(r"\\([\\'\"abfnrtv])", lambda found: _ESCAPES.get(found[1], found[1]), match["double"])
    if match["single"] is not None:
        return re.sub(r"\\([\\'])", r"\1", match["single"])
    return re.sub(r"\s+#.*", "", match["plain"] or "").rstrip()


def _expanded(text: str, values: Mapping[str, str], environ: Mapping[str, str]) -> str:
    def resolved(found: re.Match[str]) -> str:
        return values.get(found[1], environ.get(found[1], found[2] or ""))

    return re.sub(r"\$\{([^}:]*)(?::-([^}]*))?\}", resolved, text)


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # TOML may hold an int of more digits than Python prints
        return f"an {type(value).__name__} of many digits"
    return text if len(text) <= 80 else text[:79] + "…"
