"""`python -m taskloop.migrate crontab FILE` and `… apscheduler MODULE:SCHEDULER`: tables for config.toml, on stdout."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from taskloop.migrate.tables import Moved, document

__all__ = ["main"]

_SYSTEM: Final = ("/etc/crontab", "/etc/cron.d/")
_EPILOG: Final = """\
examples:
  crontab -l | python -m taskloop.migrate crontab - > config.toml
  python -m taskloop.migrate crontab /etc/cron.d/shop --timezone Europe/London
  python -m taskloop.migrate apscheduler shop.jobs:scheduler

exit: 0 all is moved · 1 something could not be; it stands as a comment with the reason · 2 wrong usage · 3 no such file or
scheduler"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; gives the exit code."""
    parser = argparse.ArgumentParser(
        "python -m taskloop.migrate",
        description="Jobs of other schedulers as tables for config.toml, with what will be different.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    kinds = parser.add_subparsers(dest="kind", required=True)
    crontab = kinds.add_parser("crontab", help="the lines of a crontab, as jobs that run their commands")
    crontab.add_argument("file", metavar="FILE", help="a crontab; -: stdin")
    crontab.add_argument("--system", action="store_true", help="a user stands before each command, as in /etc/cron.d")
    crontab.add_argument("--timezone", metavar="ZONE", help="by which cron went (default: this machine's)")
    other = kinds.add_parser("apscheduler", help="the jobs of an APScheduler 3 scheduler, which is imported")
    other.add_argument("scheduler", metavar="MODULE:SCHEDULER", help="the scheduler, or a function that gives it")
    args = parser.parse_args(arguments)
    try:
        head, moved = _from_crontab(args) if args.kind == "crontab" else _from_apscheduler(args)
    except (OSError, LookupError, ValueError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
        sys.stderr.write(f"error: {text}\n")
        return 3
    refused = sum(one.refused is not None for one in moved)
    count = len(moved) - refused
    sys.stdout.write(document(head, moved))
    sys.stderr.write(f"{count} job{'' if count == 1 else 's'} moved, {refused} not; next: taskloop check\n")
    return 1 if refused else 0


def _from_crontab(args: argparse.Namespace) -> tuple[Sequence[str], list[Moved]]:
    from taskloop.migrate import crontab

    text = sys.stdin.read() if args.file == "-" else Path(args.file).read_text("utf-8", "replace")
    where = "a crontab" if args.file == "-" else f"the crontab {args.file}"
    system = args.system or str(Path(args.file).absolute()).startswith(_SYSTEM)
    named = set() if system else crontab.users(text)
    if named and all(map(_is_user, named)):
        sys.stderr.write(
            f"warning: before each command stands a user of this machine ({', '.join(sorted(named))}), as in /etc/cron.d; "
            "if that is where it is from, add --system\n"
        )
    moved = crontab.read(text, system=system, zone=args.timezone or _zone_here())
    return [f"From {where}, by `python -m taskloop.migrate`.", "", *crontab.HEAD], moved


def _from_apscheduler(args: argparse.Namespace) -> tuple[Sequence[str], list[Moved]]:
    from taskloop.migrate import apscheduler

    found = _loaded(args.scheduler)
    moved = apscheduler.read(found, datetime.now(UTC))
    head = [f"From {args.scheduler} of APScheduler, by `python -m taskloop.migrate`.", ""]
    return [*head, *apscheduler.differences(found)], moved


def _loaded(target: str) -> Any:
    """The scheduler at `module:name`, or what a function of that name gives. Raises `LookupError`."""
    from importlib import import_module

    module, _, name = target.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = import_module(module)
    except ImportError as error:
        raise LookupError(f"module '{module}' cannot be imported from {Path.cwd()}: {error}") from None
    for part in (name or "scheduler").split("."):
        if not hasattr(found, part):
            raise LookupError(f"module '{module}' has no '{name}'; write MODULE:SCHEDULER")
        found = getattr(found, part)
    if callable(found) and not hasattr(found, "get_jobs"):
        found = found()
    if not hasattr(found, "get_jobs"):
        raise LookupError(f"'{target}' is a {type(found).__name__}, and no scheduler of APScheduler 3")
    return found


def _is_user(name: str) -> bool:
    from pwd import getpwnam

    try:
        return bool(getpwnam(name))
    except KeyError:
        return name == "root"


def _zone_here() -> str | None:
    """The name of this machine's zone; None: it has none that is known."""
    named = os.environ.get("TZ", "").lstrip(":")
    if named and (Path("/usr/share/zoneinfo") / named).is_file():
        return named
    found = str(Path("/etc/localtime").resolve()).partition("zoneinfo/")[2]
    return "UTC" if found in ("Etc/UTC", "UTC", "Etc/Universal", "Zulu") else found or None


if __name__ == "__main__":
    sys.exit(main())
