"""`taskloop systemd`: the unit files that keep this program running, or run what is due once a day.

`service` and `timer_pair` are texts from values; `systemd` fills in the directory, the Python and the configuration at
hand, and prints or writes what they give.
"""

from __future__ import annotations

import os
import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import ceil
from pathlib import Path
from typing import Any, Final

from taskloop.cli.failures import Failed, Unwritable, Usage
from taskloop.cli.output import Output, put

__all__ = ["Program", "folder_of_units", "service", "systemd", "timer_pair"]

SPARE_SECONDS: Final = 15
"""What a stop may take beyond the grace of its jobs, before systemd kills."""
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9:_.\\@-]{0,200}")
_CALENDAR: Final = re.compile(
    r"(?: (?:minute|hour|dai|week|month|quarter|semi-?annual|annual|year)ly"
    r"  | @\d+"
    r"  | (?=\S) (?:(?:(?:mon|tues?|wed(?:nes)?|thu(?:rs)?|fri|sat(?:ur)?|sun)(?:day)? (?:\.\.|[,-])?)+ (?:[ ]+|$))?"
    r"    (?:[\d*][\d*,/.]*[-~][\d*,/.~-]+ (?:[ ]+|$))? (?:[\d*][\d*,/.]*(?::[\d*,/.]+){1,2})?"
    r")(?:[ ]+[A-Za-z][\w+/-]*)?",
    re.IGNORECASE | re.VERBOSE | re.ASCII,
)
"""The forms of OnCalendar=, the last word a time zone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What a unit starts, and how long that may take to stop."""

    name: str
    """Of the unit, without its ending."""
    folder: str
    python: str
    options: Sequence[str] = ()
    """Of the command line: `--config` and `--app`, as they were given."""
    grace: timedelta = timedelta(seconds=30)
    kill_grace: timedelta = timedelta(seconds=5)
    restarts_always: bool = False
    """Whether it leaves by itself, with exit code 0, and is to be started again."""
    user: str | None = None
    """Under whom a unit of the system runs; None: a unit of the user's own manager."""

    @property
    def stop_seconds(self) -> int:
        """How long systemd waits for a stop: the grace, and then enough for the cancelled jobs and the store."""
        return ceil(self.grace.total_seconds()) + max(SPARE_SECONDS, ceil(self.kill_grace.total_seconds()) + 10)


def service(program: Program) -> str:
    """A unit that runs the scheduler: systemd hears when it is ready, that its loop lives, and that it stops."""
    return f"""\
# Made by `taskloop systemd`; see systemd.service(5).

[Unit]
Description=taskloop jobs of {_plain(Path(program.folder).name)}
After=network-online.target
Wants=network-online.target

[Service]
Type=notify
NotifyAccess=main
{_common(program, "run")}
# A store of an older version is brought up to date before it says that it is ready.
TimeoutStartSec=10min
Restart={"always" if program.restarts_always else "on-failure"}
RestartSec=2
# Wrong use and a wrong configuration do not mend themselves.
RestartPreventExitStatus=2 7
# A loop that stands still for this long is ended and started again.
WatchdogSec=30
TimeoutStopSec={program.stop_seconds}

[Install]
WantedBy={_target(program)}
"""


def timer_pair(program: Program, calendar: str) -> tuple[str, str]:
    """A unit that runs what is due and ends, and the timer that starts it, also for a time that passed meanwhile."""
    unit = f"""\
# Made by `taskloop systemd --timer`; {program.name}.timer starts it.

[Unit]
Description=taskloop jobs of {_plain(Path(program.folder).name)} that are due
After=network-online.target
Wants=network-online.target

[Service]
Type=oneshot
{_common(program, "once --due")}
# 10: nothing was run, for a reason that is on record.
SuccessExitStatus=10
TimeoutStopSec={program.stop_seconds}
"""
    timer = f"""\
# Made by `taskloop systemd --timer`; see systemd.timer(5).
#
# No OnCalendar= line can say "every two weeks", and OnUnitActiveSec= forgets over a reboot. So this only says when to look:
# `once --due` runs what is due by the store's record, a job of every two weeks each 14 days, wherever reboots fell. A job
# that is due more often than this comes runs once each time it comes; `taskloop systemd --timer hourly` comes more often.

[Unit]
Description=Starts {program.name}.service

[Timer]
OnCalendar={calendar}
Persistent=true

[Install]
WantedBy=timers.target
"""
    return unit, timer


def _common(program: Program, command: str) -> str:
    folder = _unspecified(program.folder)
    words = " ".join(_quoted(one) for one in (program.python, "-m", "taskloop", *command.split(), *program.options))
    user = "" if program.user is None else f"User={program.user}\n"
    return f"""\
{user}WorkingDirectory={folder}
ExecStart={words}
# `.env` of the directory is read anyway; this file may hold what the jobs themselves want of the environment.
EnvironmentFile=-{folder}/taskloop.env
Environment=PYTHONUNBUFFERED=1
# Stopped by a signal after a clean end; only the scheduler hears it, so that what its jobs have started ends with them.
SuccessExitStatus=130 143
KillMode=mixed
NoNewPrivileges=yes"""


def _target(program: Program) -> str:
    return "default.target" if program.user is None else "multi-user.target"


def _plain(text: str) -> str:
    return _unspecified(re.sub(r"[\x00-\x1f\x7f]", " ", text)) or "/"


def _unspecified(text: str) -> str:
    """A text without specifiers: systemd replaces %h and the like."""
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    """A word of a command as systemd.service(5) reads it."""
    text = _unspecified(word).replace("\\", "\\\\").replace("$", "$$")
    return text if re.fullmatch(r"[\w@%+=:,./$-]+", text) else '"' + text.replace('"', '\\"') + '"'


# -- the command


def systemd(args: Namespace) -> int:
    """Print the unit files, or write them where systemd looks."""
    out, program = Output(args), _program(args)
    if args.timer:
        unit, timer = timer_pair(program, _calendar(args.timer))
        files = [(f"{program.name}.service", unit), (f"{program.name}.timer", timer)]
    else:
        files = [(f"{program.name}.service", service(program))]
    if not args.write:
        texts = [{"file": name, "text": text} for name, text in files]
        out.items(texts, lambda: put("\n".join(f"# {name}\n{text}" for name, text in files)))
        return 0
    folder = folder_of_units(user=args.user)
    written = [(str(folder / name), _written(folder / name, text, args.force)) for name, text in files]
    records: list[dict[str, Any]] = [{"file": file, "written": new} for file, new in written]
    out.items(records, lambda: out.lines(f"{file} {'written' if new else 'is up to date'}" for file, new in written))
    manager = "systemctl --user" if args.user else "systemctl"
    out.note(f"next: {manager} daemon-reload && {manager} enable --now {files[-1][0]}")
    if program.user == "root":
        out.note("it will run as root; User= in the unit names another")
    if args.user:
        out.note("without a login it runs only after: loginctl enable-linger")
    return 0


def folder_of_units(*, user: bool) -> Path:
    """Where systemd looks for units that a person has put there. Raises `Failed` for a user without a home."""
    if not user:
        return Path("/etc/systemd/system")
    try:
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "systemd" / "user"
    except RuntimeError:  # as in a container: HOME is not set, and no entry of /etc/passwd has one
        text = "this user has no home, where systemd looks for the units of a user"
        raise Failed(7, text, "set HOME, or leave --user out") from None


def _program(args: Namespace) -> Program:
    from taskloop.cli import program, reach

    settings = program.configured(args)
    one = settings.scheduler
    name = args.name or f"taskloop-{re.sub(r'[^A-Za-z0-9_.-]', '-', settings.directory.name) or 'jobs'}"
    name = name.removesuffix(".service").removesuffix(".timer")
    if not _NAME.fullmatch(name):
        raise Usage(f"--name is '{args.name}'; allowed are letters, digits and :_.\\@-", "--name shop-jobs")
    config = [] if args.config is None else ["--config", str(Path(args.config).absolute())]
    return Program(
        name=name,
        folder=str(settings.directory),
        python=sys.executable,
        options=[*config, *(["--app", args.app] if args.app else [])],
        grace=one.grace,
        kill_grace=one.kill_grace,
        restarts_always=one.max_runtime is not None,
        user=None if args.user else os.environ.get("SUDO_USER") or reach.actor(Namespace(actor=None)),
    )


def _calendar(text: str) -> str:
    """A calendar expression as it may stand in a unit, by its form, and by what systemd says where it is."""
    if len(text) > 200 or not _CALENDAR.fullmatch(text) or not _known_to_systemd(text):
        raise Usage(
            f"--timer is '{text}'; allowed is an OnCalendar= expression of systemd.time(7), such as daily, hourly, *:0/15 "
            "or Mon..Fri 09:00 Europe/London",
            "--timer daily; `systemd-analyze calendar` says what an expression means",
        )
    return text


def _known_to_systemd(text: str) -> bool:
    """Whether systemd can read it; where it is not, or does not answer, who writes the unit for another machine may."""
    import subprocess

    try:
        asked = subprocess.run(
            ["systemd-analyze", "calendar", "--", text], stdin=subprocess.DEVNULL, capture_output=True, timeout=10, check=False
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return True
    return asked.returncode != 1


def _written(path: Path, text: str, force: bool) -> bool:
    """Write a file; False: it stands there already, the same. Raises `Failed` where another one does."""
    try:
        if path.exists() and path.read_text("utf-8", "replace") == text:
            return False
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise Failed(4, f"{path} exists and is another; it was left as it is", "--force writes over it") from None
    except OSError as error:
        mend = "--user writes a unit of your own" if isinstance(error, PermissionError) else f"see {path.parent}"
        raise Unwritable(path, error, mend) from None
    return True
