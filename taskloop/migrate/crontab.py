"""The lines of a crontab as jobs: each runs its command by `taskloop.shell:command`.

Pure but for the zone of this machine, which is passed in. Start at `read`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Final, NamedTuple

from taskloop.errors import BadTrigger
from taskloop.migrate.tables import Moved, job_name, named_apart
from taskloop.triggers import Cron

__all__ = ["HEAD", "read", "users"]

HEAD: Final = (
    "What is different for all these jobs:",
    '- a fire is skipped while the run before it goes on; cron starts both (overlap = "allow")',
    '- what falls into down time is run once, late; cron forgets it (missed = "skip")',
    "- what a command writes is the log of its run (`taskloop logs RUN`); there is no mail",
    "- an exit code other than 0 is a failed run, and a run may have timeout = and retry = too",
    "- a command has the environment of the scheduler, and what stands here; cron's is nearly empty, but for PATH",
    "- all run as the user of the scheduler",
    "- `taskloop once NAME` runs a line now; who asks for a run gets the line that stands here, and can give no other",
    'For cron\'s own ways: [defaults], overlap = "allow", missed = "skip".',
)  # fmt: skip
_SETTING: Final = re.compile(r"""\s*(?P<name>[A-Za-z_][A-Za-z0-9_]*|"[^"]*"|'[^']*')\s*=\s*(?P<value>.*?)\s*$""")
_ALIASES: Final = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@yearly", "@annually")
_WRAPPERS: Final = frozenset(
    [
        "env",
        "nice",
        "ionice",
        "nohup",
        "sudo",
        "time",
        "timeout",
        "flock",
        "chronic",
        "exec",
        "sh",
        "bash",
        "dash",
        "zsh",
    ]
)
_LANGUAGES: Final = re.compile(r"(python|perl|ruby|php|node)[0-9.]*")


class _Setting(NamedTuple):
    """What the lines above say: the environment, and the zone."""

    environment: Mapping[str, str]
    zone: str | None
    zone_text: str | None
    """Where the zone is from, if that is worth a note."""


def read(text: str, *, system: bool, zone: str | None) -> list[Moved]:
    """Every job of a crontab, in its order. `system`: with a user before each command. `zone`: this machine's."""
    found: list[Moved] = []
    now = _Setting(
        {}, zone, None if zone else "the zone of this machine is not known: say scheduler.timezone, else it is UTC"
    )
    for number, line, setting in _lines(text):
        if setting is not None:
            now = _set(now, setting["name"].strip("\"'"), _unquoted(setting["value"]))
        else:
            found.append(_job(number, line, now, system=system))
    names = named_apart([one.name for one in found])
    return [_renamed(one, name) for one, name in zip(found, names, strict=True)]


def users(text: str) -> set[str]:
    """Who stands before the commands, if it is a crontab of the system; none where a line has a single word there."""
    rests = [_split(line)[-1].split(None, 1) for _, line, setting in _lines(text) if setting is None]
    return {rest[0] for rest in rests} if all(len(rest) == 2 for rest in rests) else set()


def _lines(text: str) -> Iterator[tuple[int, str, re.Match[str] | None]]:
    """The lines that say something, by their numbers, and what those set that set something."""
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        if bare and not bare.startswith("#"):
            yield number, bare, _SETTING.fullmatch(line)


def _split(line: str) -> list[str]:
    """The fields that say when, and the rest."""
    return line.split(None, 1 if line.startswith("@") else 5)


def _set(now: _Setting, name: str, value: str) -> _Setting:
    if name == "CRON_TZ":
        return now._replace(zone=value, zone_text=None)
    return now._replace(environment={**now.environment, name: value})


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _renamed(one: Moved, name: str) -> Moved:
    from dataclasses import replace

    return replace(one, name=name)


def _job(number: int, line: str, now: _Setting, *, system: bool) -> Moved:
    origin = f"line {number}:\n  {line}"
    words = _split(line)
    when, rest = " ".join(words[:-1]), words[-1]
    user, command = "", rest
    if system:
        user, _, command = rest.partition(" ") if " " in rest else rest.partition("\t")
    if len(words) != (2 if line.startswith("@") else 6) or not command.strip():
        return Moved(
            name=f"line_{number}", origin=origin, refused="it is no line of a crontab: five fields, and a command"
        )
    line_of_shell, stdin = _split_percent(command.strip())
    name = job_name(_called(line_of_shell) or f"line_{number}")
    trigger, notes, refused = _trigger(when, now)
    if refused is not None:
        return Moved(name=name, origin=origin, refused=refused)
    params, more = _params(line_of_shell, stdin, now.environment, user=user)
    keys: dict[str, Any] = {"call": "taskloop.shell:command", **trigger, "params": params}
    return Moved(name=name, origin=origin, keys=keys, notes=[*notes, *more])


def _trigger(when: str, now: _Setting) -> tuple[dict[str, Any], list[str], str | None]:
    """The keys that say when, what is different about them, and why they cannot be."""
    zone = {} if now.zone in (None, "UTC") else {"timezone": now.zone}
    notes = [] if now.zone_text is None else [now.zone_text]
    if when.lower() == "@reboot":
        text = "runs when the scheduler starts and no other worker has the job, not when the machine does"
        return {"on_start": True}, [text], None
    if "~" in when:
        text = "'~' takes a random value: write one of your choice; spread = moves each job by a fixed share of a span"
        return {}, [], text
    if when.startswith("@") and when.lower() not in _ALIASES:
        return {}, [], f"'{when}' is none of {', '.join(_ALIASES)}, @reboot"
    try:
        Cron(when, timezone=now.zone)
    except BadTrigger as error:
        return {}, [], str(error)
    return {"cron": when, **zone}, notes, None


def _params(line: str, stdin: str, environment: Mapping[str, str], *, user: str) -> tuple[dict[str, Any], list[str]]:
    """The parameters of `taskloop.shell:command`, and what is different about them."""
    notes = []
    rest = {name: value for name, value in environment.items() if name not in ("MAILTO", "MAILFROM")}
    rest = {name: value for name, value in rest.items() if not name.startswith("CONTENT_")}
    params: dict[str, Any] = {"line": line, "folder": environment.get("HOME", "~")}
    if environment.get("SHELL") not in (None, "", "/bin/sh"):
        params["shell"] = environment["SHELL"]
    if rest:
        params["environment"] = rest
    if stdin:
        params["stdin"] = stdin
    if environment.get("MAILTO"):
        notes.append(f"its output went to {environment['MAILTO']} by mail; `ping =` tells a service of a failed run")
    if user:
        notes.append(f"it ran as {user}; run the scheduler as that user, or have another one for it")
    return params, notes


def _split_percent(command: str) -> tuple[str, str]:
    """The command and its stdin: the first % that no backslash covers begins it, the others are its ends of lines."""
    parts = [part.replace("\\%", "%") for part in re.split(r"(?<!\\)%", command)]
    return parts[0].rstrip(), "".join(f"{part}\n" for part in parts[1:])


def _called(line: str) -> str:
    """What a command would be called: its program, or the script that it gives to one."""
    text = re.sub(r"^\s*(cd\s+\S+\s*(&&|;)\s*)+", "", line)
    try:
        words = shlex.split(re.split(r"[|;&<>]", text, maxsplit=1)[0])
    except ValueError:  # a quote that is not closed within the first command
        words = text.split()
    for word in words:
        stem = PurePosixPath(word).name
        wraps = stem in _WRAPPERS or _LANGUAGES.fullmatch(stem) is not None
        if not wraps and not re.match(r"\w+=|-", word) and not word.isdecimal():
            return PurePosixPath(word).stem or stem
    return PurePosixPath(words[0]).name if words else ""
