"""The usual mistakes, told at a start in one clear line each.

Level 5. Nothing here refuses anything: each line says what is likely to go wrong and what to write instead.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from taskloop.options import Options
from taskloop.runs import Reason, State
from taskloop.store import Store
from taskloop.store_data import Query, Worker
from taskloop.triggers import Cron

if TYPE_CHECKING:
    from taskloop.ledger import Ledger

__all__ = ["look"]

Advice = tuple[str, str, dict[str, Any]]
"""Level, name and fields of a line in the log."""
NETWORK: Final = frozenset(
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "ncpfs",
        "9p",
        "afs",
        "ceph",
        "fuse.ceph",
        "fuse.sshfs",
        "fuse.s3fs",
        "fuse.glusterfs",
        "lustre",
        "beegfs",
    ]
)
SERVERS: Final = ("gunicorn", "uvicorn", "hypercorn", "granian", "daphne", "sanic")
TRACKER: Final = b"multiprocessing.resource_tracker"
"""A child of each server that spawns its workers, and no worker."""


async def look(
    ledger: Ledger, store: Store, others: Sequence[Worker], only: Collection[str] | None = None
) -> list[Advice]:
    """What is worth telling about this start."""
    found = [
        *_parent_of_a_reloader(others),
        *_other_options(ledger),
        *_no_zone(ledger, only),
        *_no_cluster(ledger, only),
    ]
    if not ledger._clock.steps_by_hand:  # the machine is none of a test's business
        found += await asyncio.to_thread(_about_the_machine, store)
    return found + await _hung_once(ledger, store)


def _about_the_machine(store: Store) -> list[Advice]:
    if store.private:
        return _memory_beside_siblings()
    path = getattr(store, "path", None)  # of a server it is that one's affair
    return [] if path is None else network_disk(path)


def _memory_beside_siblings() -> list[Advice]:
    """A store in memory, in one of several server processes: each would fire everything, and none would know."""
    number = _siblings()
    if number < 2:
        return []
    text = (
        "the store is in memory and this is one of several worker processes: each of them fires every job, and nothing "
        "is kept; give all of them one file, sqlite:///app.db"
    )
    return [("WARNING", "memory_store", {"processes": number, "text": text})]


def _siblings() -> int:
    """How many processes like this one, itself included, a server of several processes has started; 1: none else."""
    parent = os.getppid()
    try:
        said = Path(f"/proc/{parent}/cmdline").read_bytes().split(b"\0")
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text("ascii").split()
        mine = Path("/proc/self/comm").read_bytes()
        alike = [one for one in children if _said(one, "comm") == mine and TRACKER not in _said(one, "cmdline")]
    except OSError:
        return 1
    words = {Path(one.decode(errors="replace")).name for one in said[:4]}
    return len(alike) if any(server in word for server in SERVERS for word in words) else 1


def _said(pid: str, file: str) -> bytes:
    """What the system says of a process; nothing where it is gone."""
    try:
        return Path(f"/proc/{pid}/{file}").read_bytes()
    except OSError:
        return b""


def network_disk(path: str, mounts: str | None = None) -> list[Advice]:
    """Whether the file of a store lies where SQLite's locks and shared memory may not hold."""
    kind = file_system(path, mounts)
    if kind not in NETWORK:
        return []
    text = (
        f"the store lies on a network disk ({kind}), where several machines can damage it and locks may not hold; "
        "put it on a local disk, or use PostgreSQL for several hosts"
    )
    return [("WARNING", "network_disk", {"text": text})]


def file_system(path: str, mounts: str | None = None) -> str:
    """The kind of file system that a path lies on, by the table of mounts (None: the system's); empty: unknown."""
    place, best, kind = str(Path(path).absolute()), "", ""
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text("utf-8", "replace")
        except OSError:
            return ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        mount = before.split()[4].replace("\\040", " ")
        inside = place == mount or place.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, after.split()[0]
    return kind


def _parent_of_a_reloader(others: Sequence[Worker]) -> list[Advice]:
    """A live worker in the process that started this one: the parent of a reloader, most likely."""
    parent = next((one for one in others if one.pid == os.getppid() and one.process.split(":")[:3] == _here()), None)
    if parent is None:
        return []
    text = (
        f"the process that started this one (pid {parent.pid}) runs a scheduler too, as the parent of a reloader does; "
        "each fire is still one run, but either may have it; start the scheduler only in the child"
    )
    return [("WARNING", "reloader", {"text": text})]


def _here() -> list[str]:
    from taskloop.processes import place

    return place().split(":")[:3]


def _other_options(ledger: Ledger) -> list[Advice]:
    """Options that the program gives its scheduler in code, where it was started by a command, which goes by others."""
    own, usual = ledger._set_aside, Options()
    if own is None:
        return []
    names = [one.name for one in fields(Options)]
    here = {name: (getattr(usual, name), getattr(ledger.options, name)) for name in names}
    told = [name for name in names if getattr(own, name) not in here[name]]
    if not told:
        return []
    text = (
        "Options(...) in the program gives these, for when it starts its scheduler itself; this command goes by config.toml "
        "and the environment instead: say them there"
    )
    return [("WARNING", "other_options", {"options": ", ".join(told), "text": text})]


def _no_zone(ledger: Ledger, only: Collection[str] | None) -> list[Advice]:
    """Crons whose zone nobody has said: they follow UTC, which few wall clocks show."""
    if ledger.options.timezone is not None or ledger.options.dev is not None:
        return []
    crons = [job for job in ledger if isinstance(job.trigger, Cron) and job.trigger.timezone is None]
    names = [job.name for job in crons if only is None or job.name in only]
    if not names:
        return []
    listed = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    text = 'these name no zone and follow UTC; say timezone="Europe/London", or "UTC" if that is meant'
    return [("INFO", "no_zone", {"jobs": listed, "text": text})]


def _no_cluster(ledger: Ledger, only: Collection[str] | None) -> list[Advice]:
    """Jobs, and steps of flows, for a Dask cluster that has no address here: each of their attempts will fail."""
    if ledger.options.dask:
        return []
    names = [
        job.name
        for job in ledger
        if (only is None or job.name in only)
        and "dask" in (job.policy.executor, *(step.executor for step in getattr(job, "steps", {}).values()))
    ]
    if not names:
        return []
    listed = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    text = "these run on a Dask cluster, and none is named; set [dask] address, or TASKLOOP_DASK__ADDRESS"
    return [("WARNING", "no_cluster", {"jobs": listed, "text": text})]


async def _hung_once(ledger: Ledger, store: Store) -> list[Advice]:
    """Jobs without a timeout of which a run was abandoned once: nothing would end the next one that hangs."""
    without = [job.name for job in ledger if job.policy.timeout is None]
    if not without or store.private:
        return []
    query = Query(jobs=without if len(without) < 500 else None, states=[State.INTERRUPTED], limit=200)
    hung = {run.job: run.id for run in await store.find(query) if run.reason == Reason.ABANDONED}
    return [
        (
            "WARNING",
            "no_timeout",
            {"job": job, "run": run, "text": "it hung once and was abandoned, and has no timeout; give it timeout=..."},
        )
        for job, run in sorted(hung.items())
        if job in without
    ][:10]
