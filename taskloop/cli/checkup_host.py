"""What `taskloop doctor` asks of the machine: Python, zone files, clock, loop; the port, who may come in by it, and units
of systemd.
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import platform
import re
import shlex
import socket
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from taskloop import durations
from taskloop.cli.findings import Finding, problem, warning, well

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskloop.settings import Settings

__all__ = ["ZoneFiles", "access", "clock", "lag", "port", "python", "units", "zone_files"]

LOOP_SECONDS: Final = 0.2
OLD_YEARS: Final = 2
_UNSYNCHRONISED: Final = 5


# -- Python


def python() -> Iterator[Finding]:
    """Which Python, which loop, and whether it speaks UTF-8."""
    loop = asyncio.new_event_loop()
    kind = type(loop).__name__.strip("_").removesuffix("EventLoop").removeprefix("Unix") or type(loop).__module__
    loop.close()
    said = f"{platform.python_version()}, {kind.lower()} loop, SQLite {sqlite3.sqlite_version}"
    encoding = sys.getfilesystemencoding().lower()
    if encoding not in ("utf-8", "utf8"):
        yield warning("python", f"{said}; names of files are read as {encoding}", "start it with PYTHONUTF8=1")
    else:
        yield well("python", f"{said}, utf-8")


async def _lags() -> list[float]:
    loop, found = asyncio.get_running_loop(), []
    end = loop.time() + LOOP_SECONDS
    while loop.time() < end:
        began = loop.time()
        await asyncio.sleep(0.005)
        found.append(loop.time() - began - 0.005)
    return sorted(found)


async def lag(limit_seconds: float) -> list[Finding]:
    """How late an empty loop wakes on this machine: what is beyond is not the jobs' doing."""
    lags = await _lags()
    high = lags[int(len(lags) * 0.99) - 1] if lags else LOOP_SECONDS
    text = f"an empty loop wakes {max(0.0, high) * 1000:.0f} ms late (p99 of {LOOP_SECONDS:g} s)"
    if high > limit_seconds:
        return [
            warning(
                "loop", text, "the machine is busy with other things: see its load, and the CPU limit of the container"
            )
        ]
    return [well("loop", text)]


# -- clock and zones


def clock() -> Iterator[Finding]:
    """Whether somebody keeps the machine's clock right."""
    state = None
    with suppress(AttributeError, OSError):
        # A struct timex of zeros asks and changes nothing; it has 208 bytes where longs have 8.
        state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))
    if state == _UNSYNCHRONISED:
        yield warning(
            "clock", "the system does not know its clock to be right", "`timedatectl set-ntp true`, or chrony"
        )


class ZoneFiles(NamedTuple):
    """The zone files that Python finds."""

    place: str
    version: str
    """Such as `2026a`; empty: it says none."""


def zone_files() -> ZoneFiles | None:
    """What `zoneinfo` reads: the system's files, else the package tzdata; None: there are none."""
    import zoneinfo

    for folder in zoneinfo.TZPATH:
        if (Path(folder) / "Europe" / "London").exists():
            return ZoneFiles(folder, _system_version(Path(folder)))
    try:
        from importlib.resources import files

        if (files("tzdata") / "zoneinfo" / "Europe" / "London").is_file():
            return ZoneFiles("the package tzdata", str(getattr(import_module("tzdata"), "IANA_VERSION", "")))
    except (ImportError, OSError):
        pass
    return None


def _system_version(folder: Path) -> str:
    for name in ("tzdata.zi", "+VERSION"):
        with suppress(OSError), (folder / name).open(encoding="ascii", errors="replace") as file:
            found = re.search(r"\b(\d{4}[a-z]{1,2})\b", file.readline())
            if found:
                return found[1]
    return ""


def zone_rules(found: ZoneFiles | None, now: datetime, *, needed: bool) -> Finding:
    """What to think of the zone files. `needed`: whether anything goes by another zone than UTC."""
    if found is None:
        kind = problem if needed else warning
        return kind("time zone", "no zone files are installed, so no zone but UTC is known", "pip install tzdata")
    text = f"rules of {found.version or 'an unknown version'}, in {found.place}"
    if found.version and now.year - int(found.version[:4]) >= OLD_YEARS:
        mend = "update the system's package tzdata" if found.place.startswith("/") else "pip install --upgrade tzdata"
        return warning("time zone", f"{text}: governments have changed their clocks since", mend)
    return well("time zone", text)


# -- the port, and who may come in


def port(settings: Settings, ours: Sequence[int] | None) -> Iterator[Finding]:
    """Whether the admin surface can listen; `ours`: the processes of workers that live, None where the store says nothing."""
    http = settings.http
    asked = http.enabled or settings.is_given("http", "host") or settings.is_given("http", "port")
    if http.enabled and (find_spec("aiohttp") is None or find_spec("jinja2") is None):
        yield problem("port", "http.enabled is true, and aiohttp is not installed", 'pip install "taskloop[web]"')
    if not asked or http.port == 0:
        yield well("port", "any that is free" if asked else "none is asked for")
        return
    place = f"{http.host}:{http.port}"
    try:
        family, kind, number, _, address = socket.getaddrinfo(http.host, http.port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, number) as found:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            found.bind(address)
    except OSError as error:
        yield _refused(place, http.port, error, ours)
    else:
        yield well("port", f"{place} is free")


def _refused(place: str, number: int, error: OSError, ours: Sequence[int] | None) -> Finding:
    if error.errno != errno.EADDRINUSE:
        return problem(
            "port", f"nobody can listen on {place}: {error.strerror or error}", "mend http.host, or http.port"
        )
    pid = _holder(number)
    who = f" by pid {pid} ({_command(pid)})" if pid else ""
    if ours is None:
        text = f"{place} is in use{who}; whether by a worker of ours the store would know"
        return warning(
            "port", text, "mend the store first: a worker that is ended now forgets what it could not record"
        )
    if pid in ours:
        return well("port", f"{place} is served by worker pid {pid}")
    return problem(
        "port",
        f"{place} is in use{who}",
        f"`taskloop run --http :{number + 1}`, or http.port, names another; or stop that process",
    )


def _holder(number: int) -> int | None:
    """The process that listens on a port, as far as this user may see it."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with suppress(OSError):
            for line in Path(table).read_text("ascii").splitlines()[1:]:
                words = line.split()
                if words[3] == "0A" and int(words[1].rpartition(":")[2], 16) == number:
                    inodes.add(f"socket:[{words[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if any(str(one.readlink()) in inodes for one in (process / "fd").iterdir()):
                return int(process.name)
    return None


def _command(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return "?"
    return " ".join(one.decode(errors="replace") for one in words).strip()[:80]


def access(settings: Settings, *, tokens: int) -> Iterator[Finding]:
    """Whether others may reach the admin surface, and by what they get in; `tokens`: those in the store that are valid."""
    from taskloop.web.security import GUESSED_MEND, is_loopback, weakness

    http = settings.http
    if text := weakness(http.token):
        yield warning("access", text, GUESSED_MEND)
    if is_loopback(http.host):
        yield well("access", f"{http.host} is reached from this machine alone")
    elif http.token or tokens:
        yield well("access", f"{http.host} can be reached by others, with a token")
    else:
        yield problem(
            "access",
            f"http.host is '{http.host}', which others can reach, and nobody may come in yet",
            "`taskloop token create NAME --scope admin`, or TASKLOOP_HTTP__TOKEN; or listen on 127.0.0.1",
        )


# -- units of systemd


def units(settings: Settings) -> Iterator[Finding]:
    """Units that run this directory, held against what `taskloop systemd` would write now."""
    from taskloop.cli.failures import Failed
    from taskloop.cli.units import folder_of_units

    one = settings.scheduler
    for user in (True, False):
        try:
            folder = folder_of_units(user=user)
        except Failed:  # who has no home has no units there
            continue
        for path in sorted(folder.glob("*.service")) if folder.is_dir() else ():
            with suppress(OSError):
                text = path.read_text("utf-8", "replace")
                keys = _keys(text)
                runs_here = keys.get("WorkingDirectory", "").replace("%%", "%") == str(settings.directory)
                if runs_here and "taskloop" in keys.get("ExecStart", ""):
                    yield from _unit(path, text, (one.grace + one.kill_grace).total_seconds(), user=user)


def _keys(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines() if re.match(r"\w+=", line))


def _unit(path: Path, text: str, stop_seconds: float, *, user: bool) -> Iterator[Finding]:
    keys, wrong = _keys(text), []
    program = _program(keys["ExecStart"])
    if program is not None and not os.access(program, os.X_OK):
        wrong.append(f"its program {program} is not there")
    stop = _seconds(keys.get("TimeoutStopSec", ""))
    if stop is not None and stop <= stop_seconds:
        wrong.append(f"it kills {stop:g} s after a stop, and the jobs are given {stop_seconds:g} s")
    if "143" not in text.partition("SuccessExitStatus=")[2].partition("\n")[0]:
        wrong.append("it takes a clean stop for a failure, without SuccessExitStatus=130 143")
    if wrong and "Made by `taskloop" not in text:  # written by hand: not ours to replace
        yield warning("systemd", f"{path} does not fit: {'; '.join(wrong)}", "mend it; `taskloop systemd` shows how")
    elif wrong:
        timer = _timer(path) if "oneshot" in text else ""
        words = f"{'--user ' if user else ''}{timer}--name {path.stem} --write --force"
        yield warning("systemd", f"{path} is out of date: {'; '.join(wrong)}", f"taskloop systemd {words}")
    else:
        yield well("systemd", f"{path} fits")


def _timer(service: Path) -> str:
    """The words that write the timer of a service again as it is: without its calendar it would come daily."""
    calendar = ""
    with suppress(OSError):
        calendar = _keys(service.with_suffix(".timer").read_text("utf-8", "replace")).get("OnCalendar", "")
    return f"--timer {shlex.quote(calendar)} " if calendar else "--timer "


def _program(line: str) -> str | None:
    """What a unit starts; None: its line cannot be taken apart, as one that goes on in the next."""
    try:
        first, *_ = shlex.split(line.lstrip("-@:+!"))
    except ValueError:
        return None
    return first.replace("%%", "%").replace("$$", "$")


def _seconds(text: str) -> float | None:
    """A span of systemd in seconds; None: not said, or said in its own way."""
    try:
        return durations.parse(text).total_seconds()
    except ValueError:
        return None
