"""Who this process is, and whether another one on this machine is still alive.

Level 4. A pid alone is not enough: it is given out again.
"""

from __future__ import annotations

import os
import secrets
import socket
from datetime import datetime
from pathlib import Path

from taskloop.store import Worker

__all__ = ["is_dead", "this_process"]


def this_process(name: str | None, now: datetime) -> Worker:
    """A worker row for this process, with an id that no other life of it shares."""
    return Worker(secrets.token_hex(6), name, socket.gethostname(), os.getpid(), _birth(os.getpid()), now, now)


def is_dead(worker: Worker) -> bool:
    """Whether the worker's process is known to be gone: only ever true for one of this machine."""
    if worker.host != socket.gethostname():
        return False
    try:
        os.kill(worker.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return bool(worker.process) and worker.process != _birth(worker.pid)


def _birth(pid: int) -> str:
    """What tells this holder of the pid from an earlier one: boot and start tick; empty where nothing tells."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""
    return f"{boot[:8]}:{stat.rpartition(')')[2].split()[19]}"
