"""What `taskloop doctor` asks of the store: can it be reached and written, quickly; who else uses it, and by what clock;
will there be room.

The file of an SQLite store is looked at by a connection of our own first, for an opening mends or refuses some of it.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
import stat
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from taskloop import durations
from taskloop.address import without_password
from taskloop.cli.findings import Finding, of_error, parted, problem, warning, well
from taskloop.errors import TaskloopError

if TYPE_CHECKING:
    from taskloop.store import Store
    from taskloop.store_data import Incident, Worker

__all__ = [
    "Growth",
    "Reached",
    "disk",
    "file",
    "past",
    "people",
    "permissions",
    "reached",
    "room",
    "skews",
    "workers",
    "writable",
]

SLOW_SECONDS: Final = 0.1
VERY_SLOW_SECONDS: Final = 1.0
WRITES: Final = 5
DAMAGE_SECONDS: Final = 2.0
SKEW_SECONDS: Final = 1.0
LEAST_FREE: Final = 200_000_000
RECENT: Final = timedelta(days=1)
BLOCKED_MS: Final = 1000
"""A loop that stood still for longer is a problem, not a mere warning."""
_DAY_SECONDS: Final = 86_400.0


# -- the file


def file(path: str) -> Iterator[Finding]:
    """How an SQLite file stands: on which disk, in which mode, and how long a write to it takes."""
    from taskloop import advice, file_sqlite

    for _, _, fields in advice.network_disk(path):
        yield problem("store", *parted(fields["text"], ""))
    try:
        opened = file_sqlite.connect(path, create=False)
    except OSError:
        return  # whoever reaches for the store tells why
    with closing(opened) as db:
        try:
            found = file_sqlite.version(db, path)
            [mode] = db.execute("PRAGMA journal_mode").fetchone()
            if mode != "wal":
                text = f"journal mode of {path} is '{mode}', so readers and the writer hold up each other; 'wal' is expected"
                yield problem("store", text, "`taskloop db upgrade` sets it, once no other program has the file open")
            if damage := _damage(db):
                yield problem(
                    "store",
                    f"{path} is damaged: {damage}",
                    "put a backup back, as docs/command-line.md has it; `taskloop db check` says the rest",
                )
            elif found == file_sqlite.newest():
                yield from _writes(db, path)
        except sqlite3.Error as error:
            raise file_sqlite.explained(error, path) from error


def _damage(db: sqlite3.Connection) -> str | None:
    """What is wrong first in a file, as far as it can be read in a moment: `db check` reads all of a large one."""
    enough = threading.Timer(DAMAGE_SECONDS, db.interrupt)  # while it walks the pages SQLite asks no progress handler
    enough.start()
    try:
        [text] = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return None
    finally:
        enough.cancel()
    return None if text == "ok" else " ".join(text.replace("*** in database main ***", "").split())


def _writes(db: sqlite3.Connection, path: str) -> Iterator[Finding]:
    """How long a small transaction takes until it is on the disk; it writes what is there already."""
    db.execute("PRAGMA synchronous = FULL")
    took = []
    for _ in range(WRITES):
        began = time.monotonic()
        db.execute("BEGIN IMMEDIATE")
        [version] = db.execute("PRAGMA user_version").fetchone()
        db.execute(f"PRAGMA user_version = {int(version)}")
        db.execute("COMMIT")
        took.append(time.monotonic() - began)
    usual = statistics.median(took)
    text = f"a write to {path} takes {usual * 1000:.0f} ms, at worst {max(took) * 1000:.0f} ms"
    if usual < SLOW_SECONDS:
        yield well("store", text)
        return
    kind = problem if usual > VERY_SLOW_SECONDS else warning
    yield kind("store", text, 'put it on a faster disk, or say store.synchronous = "normal" and accept what that loses')


def permissions(path: str, *, secrets: bool) -> Iterator[Finding]:
    """Who else on this machine may read or change the store. `secrets`: whether it opens an admin surface."""
    beside = [one for one in (path, f"{path}-wal", f"{path}-shm") if Path(one).exists()]
    folder = str(Path(path).absolute().parent)
    mode = Path(folder).stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        text = f"everybody on this machine may put other files in the place of those in {folder}"
        yield problem("permissions", text, f"chmod o-w {folder}")
    yield from people(beside, secrets=secrets, what="the records, and the secret that sessions are signed with")


def people(paths: Sequence[str], *, secrets: bool, what: str) -> Iterator[Finding]:
    """Whether others on this machine may change these files, or read them where they hold secrets."""
    for path in paths:
        mode = Path(path).stat().st_mode
        if mode & stat.S_IWOTH:
            yield problem("permissions", f"everybody on this machine may change {path}", f"chmod o-w {path}")
        elif secrets and mode & stat.S_IROTH and _is_reachable(path):
            yield warning("permissions", f"everybody on this machine may read {path}: {what}", f"chmod o-r {path}")


def _is_reachable(path: str) -> bool:
    """Whether others may go to where a file lies."""
    return all(one.stat().st_mode & stat.S_IXOTH for one in Path(path).absolute().parents)


# -- room for it


class Growth(NamedTuple):
    """How large a store is, and since when it has been kept."""

    size: int
    days: float


def disk(path: str, keep: timedelta | None) -> Iterator[Finding]:
    """Whether the disk has room for what the store becomes."""
    free = shutil.disk_usage(Path(path).absolute().parent).free
    yield room(free, _growth(path), keep)


def _growth(path: str) -> Growth | None:
    if not Path(path).exists():
        return None
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=rw", uri=True)) as db:
        [oldest] = db.execute("SELECT created_at FROM taskloop_runs ORDER BY id LIMIT 1").fetchone() or [None]
        [pages] = db.execute("PRAGMA page_count").fetchone()
        [unused] = db.execute("PRAGMA freelist_count").fetchone()
        [page] = db.execute("PRAGMA page_size").fetchone()
        if oldest is not None:
            return Growth((pages - unused) * page, (time.time() - oldest / 1e6) / _DAY_SECONDS)
    return None


def room(free: int, growth: Growth | None, keep: timedelta | None) -> Finding:
    """What a disk with `free` bytes makes of a store that grows; `keep` None: nothing is ever deleted."""
    kept = "kept for ever" if keep is None else f"kept {durations.format(keep)}"
    if free < LEAST_FREE:
        mend = (
            "free some space; `taskloop db prune --keep 30d` makes room for new runs in the file, which stays as large: "
            "`taskloop db copy` makes a smaller one, on another disk"
        )
        return problem("disk", f"{_bytes(free)} free, where every run is written", mend)
    if growth is None or growth.days < 1:
        size = "" if growth is None else f", the store has {_bytes(growth.size)}"
        return well("disk", f"{_bytes(free)} free{size}; runs are {kept}")
    daily = growth.size / growth.days
    text = f"{_bytes(free)} free; the store has {_bytes(growth.size)} and grew {_bytes(round(daily))} a day; runs are {kept}"
    left_days = None if keep is None else max(0.0, keep.total_seconds() / _DAY_SECONDS - growth.days)
    if left_days is None and daily * 365 > free:
        return warning("disk", f"{text}: it is full in {free / daily:.0f} days", 'say store.keep = "90d"')
    if left_days is not None and daily * left_days > free:
        return warning(
            "disk", f"{text}: that is more than there is room for", "keep less, by store.keep or a job's keep"
        )
    return well("disk", text)


def _bytes(number: int) -> str:
    for unit, size in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} B"


# -- reaching it


class Reached(NamedTuple):
    """What the open store says."""

    findings: list[Finding]
    tokens: int = 0
    """Valid ones, as far as one matters."""
    pids: tuple[int, ...] = ()
    """Of the workers that use it."""
    silent: bool = False
    """It could not be opened, so the rest is not known."""


async def reached(store: Store, now: datetime, lease: timedelta) -> Reached:
    """Whether the store opens as it is, for a command that reads; and what it says of those who use it."""
    began = time.monotonic()
    try:
        await store.open(create=False, schema="newest")
    except TaskloopError as error:
        return Reached(of_error("store", error), silent=True)
    try:
        there = await store.workers(living=True)
        took = time.monotonic() - began
        found = [opening(without_password(store.url), took, remote=store.remote)]
        found += [
            *await rights(store),
            *workers(there, lease, await store.clock()),
            *await skews(store, there),
            *past(await store.incidents(now - RECENT, now)),
        ]
        tokens = await store.tokens(live_at=now, limit=1)
        return Reached(found, len(tokens), tuple(one.pid for one in there))
    finally:
        await store.close()


def opening(shown: str, seconds: float, *, remote: bool) -> Finding:
    """How long it took until a store had answered; of a file the writes tell more."""
    text = f"{shown} opens in {seconds * 1000:.0f} ms"
    if not remote or seconds < VERY_SLOW_SECONDS:
        return well("store", text)
    mend = "see whether the server is busy or far away, and pg_stat_activity for who holds its tables"
    return warning("store", text, mend)


async def rights(store: Store) -> list[Finding]:
    """What the user of a server lacks: all that only reads would go well without it."""
    if not store.remote:
        return []
    from taskloop.store_postgres import PostgresStore

    lacking = await store.lacks() if isinstance(store, PostgresStore) else ()
    return [problem("store", *parted(one, "")) for one in lacking]


def workers(there: Sequence[Worker], lease: timedelta, theirs: datetime | None) -> Iterator[Finding]:
    """Those who use the store: versions, whether they still beat, whether their loops stand still.

    `theirs`: what the clock of the store's server shows; None: it has none.
    """
    from taskloop import __version__
    from taskloop.processes import is_dead, lease_seconds, silent_seconds, unheard_seconds

    now, tick = datetime.now(UTC), time.monotonic()
    ahead = timedelta(0) if theirs is None else theirs - now
    live = [one for one in there if not is_dead(one)]
    beating = []
    for one in live:
        who = f"worker {one.host} pid {one.pid}"
        if one.version not in (None, __version__):
            yield warning("workers", f"{who} is taskloop {one.version}, this is {__version__}", "start it again")
        unheard = unheard_seconds(one, tick, now, ahead)
        if unheard <= lease_seconds(one, lease):
            beating.append(one)
        elif silent_seconds(one, tick) is not None:
            text = f"{who} has not beaten for {unheard:.0f} s, though its process is there"
            mend = "it is stopped or frozen, or its disk hangs: end it, or let it go on"
            if theirs is None:  # a file, in whose place another one can be put
                mend += "; or it has the file open that stood here before this one: start it again"
            yield problem("workers", text, mend)
        else:
            mend = "its process or host is gone, frozen or cut off from the store: see there; the next worker settles its runs"
            yield problem("workers", f"{who} has not beaten for {unheard:.0f} s", mend)
        if one.health.get("blocked"):
            block = one.health["blocked"]
            where = block.get("where")
            yield problem("loop", f"the loop of {who} stands still, at {where}", _mend_of_a_block(where))
        for key in ("store", "stalled"):
            if one.health.get(key):
                yield problem("workers", f"{who}: {one.health[key]}", "see its log; `taskloop status` has more")
    listed = ", ".join(
        f"{one.host} pid {one.pid}{', which only submits' if one.only_submits else ''}" for one in beating[:3]
    ) + (" and more" if len(beating) > 3 else "")
    if beating or not live:
        yield well("workers", f"{len(beating)}: {listed}" if beating else "none is running")


_OFF_THE_LOOP: Final = "a plain def has a thread of its own; in an async def: await asyncio.to_thread(function, ...)"
_NONE_OF_YOURS: Final = "no function of the program was at work there: see whether the machine was busy or its disk slow, and who reads its log"


def _mend_of_a_block(where: str | None) -> str:
    from taskloop.watchdog import is_of_others

    return _NONE_OF_YOURS if where is not None and is_of_others(where) else _OFF_THE_LOOP


async def skews(store: Store, there: Sequence[Worker]) -> list[Finding]:
    """Whose clock shows another time than ours: by the steady clock on this machine, else by watching for a beat."""
    from taskloop.processes import is_dead, silent_seconds

    found: dict[str, tuple[Worker, float]] = {}
    strangers = {}
    now, tick = datetime.now(UTC), time.monotonic()  # together: how long the checks before took is no skew
    for one in there:
        silent = silent_seconds(one, tick)
        if is_dead(one):
            continue
        if silent is not None or one.beat_at > now:
            found[one.id] = (one, (one.beat_at - now).total_seconds() + (silent or 0.0))
        else:
            strangers[one.id] = one
    for one, seconds in [*found.values(), *await _watched(store, strangers, now)]:
        found[one.id] = (one, seconds)
    wrong = [(one, seconds) for one, seconds in found.values() if abs(seconds) > SKEW_SECONDS]
    if not wrong:
        return [well("clock", f"agrees with {len(found)} of the workers")] if found else []
    return [
        problem(
            "clock",
            f"the clock of worker {one.host} pid {one.pid} is {abs(seconds):.1f} s {'ahead of' if seconds > 0 else 'behind'}"
            f" this one, allowed is {SKEW_SECONDS:g} s",
            "let NTP set both (`timedatectl set-ntp true`): each worker fires by its own clock",
        )
        for one, seconds in wrong
    ]


BEAT_SECONDS: Final = 6.0
"""How long to watch for the next beat of a worker on another machine; they beat each 5 s."""


async def _watched(store: Store, strangers: dict[str, Worker], began_at: datetime) -> list[tuple[Worker, float]]:
    """By how much the beats of workers elsewhere are ahead of our clock, each seen within a tenth of a second."""
    began, waiting = time.monotonic(), dict(strangers)
    found: list[tuple[Worker, float]] = []
    while waiting and time.monotonic() < began + BEAT_SECONDS:
        await asyncio.sleep(0.1)
        now = began_at + timedelta(seconds=time.monotonic() - began)
        beaten = [one for one in await store.workers(living=True) if one.id in waiting]
        beaten = [one for one in beaten if one.beat_at != waiting[one.id].beat_at]
        found += [(waiting.pop(one.id), (one.beat_at - now).total_seconds()) for one in beaten]
    return found


def past(incidents: Sequence[Incident]) -> Iterator[Finding]:
    """What disturbed workers within the last day: the worst block of a loop, and steps of the clock."""
    blocks = [one for one in incidents if one.kind == "loop_blocked"]
    worst = max(blocks, key=lambda one: one.data.get("ms", 0), default=None)
    if worst is not None:
        who = f" by job {worst.data['job']}" if "job" in worst.data else ""
        text = (
            f"a loop stood still {_times(len(blocks))} within a day, at worst for {worst.data.get('ms', 0)} ms{who},"
            f" at {worst.data.get('where')}"
        )
        kind = problem if worst.data.get("ms", 0) >= BLOCKED_MS else warning
        yield kind("loop", text, _mend_of_a_block(worst.data.get("where")))
    steps = [one for one in incidents if one.kind == "clock"]
    if steps:
        seconds = steps[0].data.get("step_seconds", 0)
        slept = ", or it slept," if seconds > 0 else ""  # nothing tells the one from the other
        text = f"the clock of a machine was set{slept} {_times(len(steps))} within a day, last by {seconds:g} s"
        mend = "let NTP set it, slowly: `timedatectl timesync-status` tells how it does"
        yield warning("clock", text, f"{mend}; or keep the machine awake" if slept else mend)


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"


def writable(path: str) -> Iterator[Finding]:
    """Whether a store that is not there yet can be made."""
    from taskloop import file_sqlite

    folder = Path(os.path.realpath(path)).parent  # of the file itself, where a link leads to it
    if Path(path).exists() and not Path(path).is_file():
        what = "a folder" if Path(path).is_dir() else "no file"
        yield problem("store", f"{path} is {what}", "name a file by store.url")
    elif not folder.is_dir():
        yield problem("store", f"folder {folder} does not exist", f"mkdir -p {folder}, or name another by store.url")
    elif not os.access(folder, os.W_OK):
        yield problem("store", file_sqlite.unwritable(folder), "give the right, or name another by store.url")
    else:
        yield well("store", f"{path} is not there yet; `taskloop run` makes it")
