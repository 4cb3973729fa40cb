"""Who this process is, and whether another one on this machine is still alive.

Level 4. A pid alone is not enough: it is given out again.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

    from taskloop.store_data import Worker

__all__ = [
    "birth",
    "boot",
    "current_folder",
    "is_dead",
    "lease_seconds",
    "place",
    "silent_seconds",
    "this_process",
    "unheard_seconds",
]

FIRST_PIDS: Final = "4026531836"
"""The namespace of pids that a kernel begins with: who is in it is in no container."""
NAMES_TOLD: Final = 1000
"""Jobs up to which a worker says which ones it knows."""


def this_process(
    name: str | None,
    now: datetime,
    tick: float,
    *,
    fires: bool = True,
    jobs: Collection[str] = (),
    lease: timedelta = timedelta(0),
) -> Worker:
    """A worker row for this process, with an id that no other life of it shares.

    Raises `NotRunning` where a process for jobs is loading the main file of its program, which starts it once more.
    """
    import secrets  # here, not above: the quickest commands ask only who is alive
    import sys

    if "__main__" not in sys.modules:  # so anyio has it, for as long as it loads the file under another name
        from taskloop.errors import NotRunning

        raise NotRunning(
            "the main file of the program is loaded in a process for jobs, and starts the scheduler there once more; "
            'put what starts it below `if __name__ == "__main__":`'
        )
    from taskloop import __version__
    from taskloop.store_data import Worker

    return Worker(
        secrets.token_hex(6),
        name,
        os.uname().nodename,
        os.getpid(),
        place(),
        now,
        now,
        beat_tick=tick,
        fires=fires,
        jobs=frozenset(jobs) if len(jobs) <= NAMES_TOLD else None,
        version=__version__,
        health={"lease_seconds": lease.total_seconds()},
    )


def current_folder() -> str | None:
    """Where relative paths begin now; None: the folder is gone."""
    try:
        return os.getcwd()
    except OSError:
        return None


def is_dead(worker: Worker) -> bool:
    """Whether the worker's process is known to be gone: only ever true for one of this machine.

    A host's name alone is not enough: containers, and machines made from one image, may share it. Nor is the id of the machine
    with it, of which a container has none, or that of its image: of another boot it may be on another machine, and live.
    """
    if worker.host != os.uname().nodename:
        return False
    theirs, ours = _Place.read(worker.process), _Place.read(place())
    if theirs.machine != ours.machine:
        return False
    if theirs.boot != ours.boot:  # a process that sees no /proc, as in a root of its own, does not know it
        return bool(theirs.boot and ours.boot and ours.machine) and theirs.pids == ours.pids == FIRST_PIDS
    if theirs.pids != ours.pids:
        return False
    try:
        os.kill(worker.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    now = birth(worker.pid)  # empty where nothing tells, as without a descriptor left: then it is not known to be dead
    return bool(theirs.birth) and bool(now) and theirs.birth != now


def silent_seconds(worker: Worker, tick: float) -> float | None:
    """How long a worker of this machine has not beaten, by the steady clock that all its processes share; None: of
    another machine, or of another time, whose clock says nothing to ours.
    """
    if worker.beat_tick is None or worker.host != os.uname().nodename:
        return None
    theirs, ours = _Place.read(worker.process), _surroundings()
    if not ours[1] or theirs[:2] != ours[:2]:
        return None
    return tick - worker.beat_tick if tick >= worker.beat_tick else None


def lease_seconds(worker: Worker, ours: timedelta = timedelta(0)) -> float:
    """How long a worker may be silent before it is dead: its own lease, by which it ends its runs itself, or ours where that is
    longer. Programs that share a store, and the hosts of a deploy, need not have the same.
    """
    return max(float(worker.health.get("lease_seconds", 0.0)), ours.total_seconds())


def unheard_seconds(worker: Worker, tick: float, now: datetime, ahead: timedelta) -> float:
    """How long a worker of any machine has not beaten: by the clock that a machine's processes share, else by that of the
    store's server, which is `ahead` of ours; only where the worker does not say how far it is from it by the wall clocks of both.
    """
    silent = silent_seconds(worker, tick)
    if silent is not None:
        return silent
    skew = worker.health.get("skew_ms")
    beat_at = worker.beat_at if skew is None else worker.beat_at + timedelta(milliseconds=skew) - ahead
    return (now - beat_at).total_seconds()


class _Place(NamedTuple):
    """What tells one process from every other: machine, its boot, the namespace of pids, and when it was born there."""

    machine: str
    boot: str
    pids: str
    birth: str

    @classmethod
    def read(cls, text: str) -> _Place:
        parts = text.split(":")
        return cls(*parts) if len(parts) == 4 else cls("?", "", "", "")


def place() -> str:
    """Where this process lives, as it stands in a worker's row; parts are empty where nothing tells them."""
    return ":".join([*_surroundings(), birth(os.getpid())])


def boot() -> str:
    """What tells this life of the machine from another one; empty where nothing tells."""
    return _surroundings()[1]


@cache
def _surroundings() -> tuple[str, str, str]:
    try:
        pids = str(os.stat("/proc/self/ns/pid").st_ino)
    except OSError:
        pids = ""
    return _first_line("/etc/machine-id")[:8], _first_line("/proc/sys/kernel/random/boot_id")[:8], pids


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.readline().strip().replace(":", "")
    except OSError:
        return ""


def birth(pid: int) -> str:
    """What tells this holder of a pid from an earlier one: the tick at which it was started; empty where nothing tells."""
    if not _proc_is_of_our_pids():
        return ""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            stat = file.read()
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]


@cache
def _proc_is_of_our_pids() -> bool:
    """Whether /proc means by a pid whom we mean: not where a sandbox has pids of its own, and the /proc of its host."""
    return _first_line("/proc/self/stat").partition(" ")[0] == str(os.getpid())
