"""`taskloop doctor`: look at everything a scheduler depends on, and say in a line each how it stands.

The checks are in `checkup_host`, `checkup_program` and `checkup_store`; none depends on another one's success, and what
fails while it looks is told as a finding. Start at `_examined`.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from taskloop import address as addresses
from taskloop.cli import checkup_host as host
from taskloop.cli import checkup_program as programs
from taskloop.cli import checkup_store as stores
from taskloop.cli import program, reach
from taskloop.cli.findings import Finding, guarded, of_error, parted, warning, well
from taskloop.cli.output import TINTS, Output, clean, sign
from taskloop.errors import BadSettings
from taskloop.options import Options

if TYPE_CHECKING:
    from taskloop.scheduler import TaskScheduler
    from taskloop.settings import Settings

__all__ = ["doctor"]


def doctor(args: Namespace) -> int:
    """Look at everything; 1 where something is wrong."""
    out = Output(args)
    found: list[Finding] = []
    for one in _examined(args, out):
        found.append(one)
        if out.format == "table":
            _show(out, one)
    out.items([one.record for one in found], lambda: None)
    problems, warnings = (sum(one.state == state for one in found) for state in ("problem", "warning"))
    if out.format == "table":
        out.line(f"{_count(problems, 'problem')}, {_count(warnings, 'warning')}")
    return 1 if problems else 0


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _show(out: Output, one: Finding) -> None:
    word = "failed" if one.state == "problem" else one.state
    out.line(f"{out.paint(sign(word, glyphs=out.glyphs), TINTS[word])} {one.name:<11}  {clean(one.text)}")
    if one.help:
        out.line(f"  {'':<11}  help: {clean(one.help)}")


def _examined(args: Namespace, out: Output) -> Iterator[Finding]:
    yield from guarded("python", host.python)
    settings = None
    try:
        settings = program.configured(args)
    except BadSettings as error:
        yield from of_error("config", error)
    else:
        yield from guarded("config", partial(_config, args, settings))
    scheduler = None
    if settings is not None:
        scheduler, found = programs.loaded(partial(program.compose, settings), settings.directory)
        yield from found
        if scheduler is not None:
            yield from guarded("jobs", partial(programs.jobs, scheduler, settings, out.now))
    yield from guarded("store", partial(_store, args, settings, scheduler, out))
    needed = scheduler is None or any(getattr(job.trigger, "timezone", None) not in (None, "UTC") for job in scheduler)
    zone = settings.scheduler.timezone if settings is not None else "?"
    yield from guarded(
        "time zone", lambda: [host.zone_rules(host.zone_files(), out.now, needed=needed or zone != "UTC")]
    )
    if scheduler is not None:
        yield from guarded("time zone", partial(programs.zones, scheduler, out.now))
    yield from guarded("clock", host.clock)
    limit = settings.scheduler.loop_limit if settings is not None else None
    yield from guarded("loop", lambda: reach.drive(host.lag(limit.total_seconds() if limit is not None else 0.1)))
    if settings is not None:
        yield from guarded("systemd", partial(host.units, settings))


def _config(args: Namespace, settings: Settings) -> Iterator[Finding]:
    """Where the configuration comes from, what in it does nothing, and who may read the secrets in it."""
    sources = addresses.gather(args.config)
    name = args.config or "config.toml"
    keys = sum(len(one) if isinstance(one, dict) else 1 for one in sources.table.values())
    file = f"{name}, {_count(keys, 'key')}" if Path(name).is_file() else "no file, all by default"
    for text in settings.warnings:
        yield warning("config", *parted(text, "docs/configuration.md lists all keys"))
    if settings.banner:
        yield warning("config", settings.banner, "unset TASKLOOP_DEV where that is not meant")
    if not settings.warnings:
        yield well("config", file)
    holding = [(name, bool(sources.table.get("http", {}).get("token"))), (".env", bool(sources.dotenv))]
    holding.append(("taskloop.env", True))  # what the unit of `taskloop systemd` reads for the jobs
    for path, secrets in holding:
        if Path(path).is_file():
            yield from stores.people([path], secrets=secrets, what="it holds secrets")


def _store(
    args: Namespace, settings: Settings | None, scheduler: TaskScheduler | None, out: Output
) -> Iterator[Finding]:
    """The store, and what only the store knows: workers, clocks, tokens; with them the port and who may come in."""
    try:
        place: Any = addresses.store_address(config=args.config)
    except BadSettings:
        return  # that the configuration is wrong was told
    if settings is not None and scheduler is not None:
        configured, place = place, program.place(scheduler, settings)
        if not reach.is_same(place, configured) and not reach.is_missing(configured):
            text = f"the program has its own store, {addresses.without_password(reach.address_of(place))}, and another one is "
            text += f"{addresses.without_password(configured)}, where commands without --app look"
            yield warning("store", text, "name the program's own by store.url, or take the other away")
    path = reach.file_of(place) if isinstance(place, str) else getattr(place, "path", None)
    seen = stores.Reached([])
    if isinstance(place, str) and place.endswith(":memory:"):
        yield warning("store", "it is in memory: nothing is kept, and no command sees it", "name a file by store.url")
    elif path is not None and not _has_file(path):
        yield from stores.writable(path)
    else:
        if path is not None:
            yield from guarded("store", partial(stores.file, path))
        lease = (scheduler.options if scheduler is not None else Options()).lease
        seen = reach.drive(stores.reached(reach.opened(place), out.now, lease))
        yield from seen.findings
        if path is not None:
            yield from guarded("permissions", partial(stores.permissions, path, secrets=bool(seen.tokens)))
    if settings is not None:
        if path is not None and path != ":memory:" and Path(path).absolute().parent.is_dir():
            yield from guarded("disk", partial(stores.disk, path, settings.store.keep))
        yield from guarded("port", partial(host.port, settings, None if seen.silent else seen.pids))
        if not seen.silent:  # else its tokens are not known
            yield from guarded("access", partial(host.access, settings, tokens=seen.tokens))


def _has_file(path: str) -> bool:
    return Path(path).is_file() and Path(path).stat().st_size > 0
