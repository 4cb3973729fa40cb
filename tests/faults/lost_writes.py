"""Lost writes: the files of a store as a power failure could leave them, and what must then still be there.

`lost_writes.c`, compiled here and preloaded into every process of a round, writes down each write with what stood there
before, and each flush. After the kill `fail_power` undoes every write that no later flush of its file covers, does a
random part of them again, some by halves, and drops the shared memory, which no reboot keeps. With `synchronous = full`
everything that anybody was told must still be there; with `normal` the last of it may be gone, but the file must be
sound, the next start quick, and everything that is left true.

Not modelled: a directory that forgets a file made or removed shortly before. SQLite flushes the folder for that, and
the harness lets those changes stand.
"""

from __future__ import annotations

import random
import shutil
import signal
import struct
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torture
from adapter import Scheduler
from torture import Blow, Outcome, Round

SHIM = Path(__file__).with_name("lost_writes.c")
HEAD = struct.Struct("<6I3Q")
MAGIC, WRITTEN, CUT, DURABLE, DEATH = 0x4C4F5345, 1, 2, 3, 4
SECTOR = 512
LOST_WITH_NORMAL = "acehg"
"""Promises that speak of what was told or done, and that a loss of the last commits may break."""


class Record(NamedTuple):
    """A call that changed a file, or flushed it; `at` in nanoseconds of the monotonic clock."""

    kind: int
    path: str
    at: int
    offset: int
    size: int
    """Of the file before the call."""
    before: bytes
    after: bytes


@dataclass(frozen=True)
class Loss:
    """A power failure: after how many changes of the store's files the process dies."""

    number: int
    synchronous: str = "full"

    @property
    def name(self) -> str:
        return f"power-{self.synchronous}-{self.number}"


def records(folder: Path) -> list[Record]:
    """What all processes of a round did to the files, in order."""
    found = [one for file in folder.glob("journal-*") for one in _parsed(file.read_bytes())]
    return sorted(found, key=lambda one: one.at)


def _parsed(data: bytes) -> Iterator[Record]:
    place = 0
    while place + HEAD.size <= len(data):
        magic, kind, path, before, after, _, at, offset, size = HEAD.unpack_from(data, place)
        place += HEAD.size
        if magic != MAGIC or place + path + before + after > len(data):
            return  # the writer was killed within it, before the call it announces
        texts = []
        for length in (path, before, after):
            texts.append(data[place : place + length])
            place += length
        yield Record(kind, texts[0].decode(), at, offset, size, texts[1], texts[2])


def fail_power(done: Sequence[Record], chance: random.Random) -> int:
    """Make the files what a power failure now could leave; gives how many writes were at stake."""
    at_stake = 0
    for path in sorted({one.path for one in done}):
        file = Path(path)
        if not file.exists():
            continue
        flushed = max((one.at for one in done if one.path == path and one.kind == DURABLE), default=-1)
        unsafe = [one for one in done if one.path == path and one.kind in (WRITTEN, CUT) and one.at >= flushed]
        content = bytearray(file.read_bytes())
        for one in reversed(unsafe):
            _undo(content, one)
        for one in unsafe:
            if chance.random() < 0.5:
                _redo(content, one, chance)
        file.write_bytes(content)
        at_stake += len(unsafe)
    for memory in {Path(f"{one.path.removesuffix('-wal')}-shm") for one in done}:
        memory.unlink(missing_ok=True)
    return at_stake


def outlived(done: Sequence[Record]) -> bool:
    """Whether a command went on after the death of the others: no power failure does that, the round does not count."""
    death = min((one.at for one in done if one.kind == DEATH), default=None)
    return death is not None and done[-1].at > death


def _undo(content: bytearray, one: Record) -> None:
    end = one.offset + len(one.before)
    content[one.offset : end] = one.before
    del content[one.size :]


def _redo(content: bytearray, one: Record, chance: random.Random) -> None:
    """The write comes through: whole, or, as disks write sectors, in part."""
    if one.kind == CUT:
        content[:] = content[: one.offset].ljust(one.offset, b"\0")
        return
    torn = chance.random() < 0.2
    for start in range(0, len(one.after), SECTOR):
        if torn and chance.random() < 0.5:
            continue
        place, part = one.offset + start, one.after[start : start + SECTOR]
        if len(content) < place + len(part):
            content.extend(bytes(place + len(part) - len(content)))
        content[place : place + len(part)] = part


def carry_out(
    scheduler: Scheduler, loss: Loss, folder: Path, *, library: Path, seed: int = 0, keep: bool = False
) -> Outcome:
    """Do a round; `outcome.notes` says what was lost, where that is allowed."""
    one = Round(scheduler, Blow(synchronous=loss.synchronous), folder, seed)
    one.tell("lost writes", loss.name, loss=asdict(loss))
    store = scheduler.store(folder)
    preload = {"LD_PRELOAD": str(library), "LOSE_PREFIX": str(store), "LOSE_JOURNAL": str(folder / "journal")}
    one.environ, one.together = preload, True
    try:
        process = one.start(LOSE_DIE_AT=str(loss.number), **preload)
        torture.serve(one, process, torture.NEVER_SECONDS)
        one.outcome.struck = process.code == -signal.SIGKILL
        process.kill()
        shutil.copytree(store.parent, folder / "store-before")
        done = records(folder)
        if outlived(done):
            one.outcome.struck = False
            return one.outcome
        at_stake = fail_power(done, random.Random(seed * 1_000_003 + loss.number))
        one.outcome.notes.append(f"{at_stake} writes at stake")
        one.environ, one.together = {}, False
        _look(one, loss)
    finally:
        one.close()
        if one.errands is not None:
            one.outcome.broken += one.errands.broken
    if not keep and not one.outcome.broken:
        shutil.rmtree(folder)
    return one.outcome


def _look(one: Round, loss: Loss) -> None:
    """After the power is back: as after a kill, but where `normal` may have lost the end of what was told."""
    one.outcome.kills += one.outcome.struck
    one.forgiven = LOST_WITH_NORMAL if loss.synchronous == "normal" else ""
    one.look("after the power failure", settled=False)
    one.recover()
    if one.processes[-1].lives:
        one.look("after the restart", settled=True)
        one.finish()
