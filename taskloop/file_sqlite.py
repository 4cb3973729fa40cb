"""The file of an SQLite store: opened, refused, brought to the newest schema, and watched for being taken away.

Level 5. Whatever is refused is left untouched, byte for byte. Start at `connect` and `prepare`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sqlite3
import time
import weakref
from contextlib import suppress
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final, NamedTuple

from taskloop.errors import BadStore, StoreUnavailable, TaskloopError
from taskloop.store import Schema

__all__ = [
    "BUSY_SECONDS",
    "FilePlace",
    "connect",
    "explained",
    "is_older",
    "migrations",
    "newest",
    "prepare",
    "unwritable",
    "version",
]

BUSY_SECONDS: Final = 5.0
"""How long a statement waits for another process's transaction."""
CACHE_KIB: Final = 16_000
"""Memory for pages of the file on the writing connection, at most. Each job has a place of its own in the indexes of runs:
with a thousand jobs and ten million runs SQLite's own 2 MB are full before one round of fires is over, which doubled its cost.
"""
LEAST_ROOM: Final = 65_536
"""Bytes that a disk must have free for any work: the index beside the log has half as many."""
_BESIDE: Final = ("-wal", "-shm")
"""The ends of the names of the files that SQLite keeps beside a store in use: the log, and its index."""


class FilePlace(NamedTuple):
    """Where the files of an open connection lie, and which files they are: a path can be given to another one."""

    path: str
    device: int
    inode: int
    beside: tuple[tuple[str, int], ...] = ()
    """The log and its index, each with its inode. SQLite keeps both as long as a connection is open."""

    @classmethod
    def of(cls, path: str) -> FilePlace:
        """The file that stands at `path` now, of which a connection is open. Raises `StoreUnavailable`."""
        try:
            found = os.stat(path)
        except OSError as error:
            raise StoreUnavailable(f"store {path}: {error.strerror}; put the file back") from None
        real, beside = os.path.realpath(path), []  # beside the file itself, not beside a link to it
        for ending in _BESIDE:
            with suppress(OSError):  # another journal mode has none
                beside.append((real + ending, os.stat(real + ending).st_ino))
        return cls(path, found.st_dev, found.st_ino, tuple(beside))

    def check(self) -> None:
        """Raise `StoreUnavailable` unless the files still stand there: what is written into others goes nowhere.

        Asked before each transaction, at two microseconds a file.
        """
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            raise StoreUnavailable(
                f"store {self.path} was deleted or moved away while in use; put the file back, or stop the program "
                "and restore a backup"
            ) from None
        except OSError as error:
            raise StoreUnavailable(f"store {self.path}: {error.strerror}; put the file back") from None
        if (found.st_dev, found.st_ino) != (self.device, self.inode):
            raise StoreUnavailable(
                f"store {self.path} was replaced by another file while in use; put the first one back, or restart the "
                "program to use the new one"
            )
        for path, inode in self.beside:
            try:
                stays = os.stat(path).st_ino == inode
            except OSError:
                stays = False
            if not stays:
                # SQLite would go on writing into the one that has no name any more, and other processes into another.
                raise StoreUnavailable(
                    f"store {self.path}: its part {path} was deleted or replaced while in use; put it back, or stop "
                    "every program that uses the store and start them again"
                )


def explained(error: BaseException, path: str) -> BaseException:
    """An error of SQLite or of the file system in the words of a user, with the mend; any other as it is."""
    url = f"sqlite:///{path}"
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(
        error, sqlite3.OperationalError | sqlite3.IntegrityError | sqlite3.ProgrammingError
    ):
        return BadStore(
            f"store {url} cannot be read: {error}; it was left as it is, restore a backup or name another file"
        )
    if isinstance(error, FileNotFoundError) and len(error.args) == 1:
        return StoreUnavailable(f"store {url} does not exist; `taskloop run` or start() makes one")
    if isinstance(error, OSError) and not isinstance(error, TaskloopError):
        return StoreUnavailable(f"store {url}: {error.strerror or error}; {_mend_of_the_system(error)}")
    if isinstance(error, MemoryError):  # what Python makes of SQLite's "out of memory"
        return StoreUnavailable(f"store {url}: there was no memory for it; give the process more, or less to do")
    if isinstance(error, sqlite3.Error):
        text = str(error)
        if "disk I/O" in text and _has_no_room(path):  # SQLite says so where it makes the index beside the file
            text = "the disk is full"
        return StoreUnavailable(f"store {url}: {text}{_cause(text, path)}; {_mend(text, path)}")
    return error


def _has_no_room(path: str) -> bool:
    try:
        disk = os.statvfs(Path(path).absolute().parent)
    except (OSError, AttributeError):  # of Windows nothing is known
        return False
    return disk.f_bavail * disk.f_frsize < LEAST_ROOM


def _cause(text: str, path: str) -> str:
    """What stands in the way, where SQLite says only that something does."""
    if "locked" in text:
        return _held_by(path)
    folder = Path(path).absolute().parent
    if "unable to open" not in text and "readonly" not in text:
        return ""
    if not folder.is_dir():
        return f": folder {folder} does not exist"
    there = [one for one in (str(folder), path, *(path + ending for ending in _BESIDE)) if os.access(one, os.F_OK)]
    if path not in there and Path(path).is_symlink():
        return f": {path} is a link that leads nowhere"
    barred = "".join(f": {unwritable(one)}" for one in there if not os.access(one, os.W_OK))
    return barred or ("" if path in there else f": {path} is not there any more")


def unwritable(path: str | Path) -> str:
    """Who may not write there, and whose it is: one command of the superuser makes a file that nobody else may write."""
    if not hasattr(os, "geteuid"):  # of Windows no more is known
        return f"this user may not write {path}"
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"the file system of {path} {_ONLY_READ}"
    found = os.stat(path)
    whose = f"{_name(found.st_uid)}'s, mode {found.st_mode & 0o777:03o}"
    return f"this user ({_name(os.geteuid())}) may not write {path} ({whose})"


def _name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:  # as in a container
        return str(uid)


def _held_by(path: str) -> str:
    """Which process writes into the file just now, as far as the system tells; the lock may be one of the index beside it."""
    holders: list[str] = []
    with suppress(OSError, ValueError, IndexError):
        inodes = {os.stat(path).st_ino, *(os.stat(path + one).st_ino for one in _BESIDE if Path(path + one).exists())}
        for line in Path("/proc/locks").read_text("ascii").splitlines():
            words = line.split()
            if words[1:2] == ["POSIX"] and words[3] == "WRITE" and int(words[5].rpartition(":")[2]) in inodes:
                pid = int(words[4])
                holders.append(f"pid {pid} ({_command(pid)}){_standing_still(pid)}")
    return f": held by {' and '.join(dict.fromkeys(holders))}" if holders else ""


def _command(pid: int) -> str:
    """The beginning of its command line, on one line."""
    text = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    return " ".join("".join(one if one.isprintable() else " " for one in text).replace(";", ",").split())[:60]


def _standing_still(pid: int) -> str:
    """That a process was stopped, as by a debugger or Ctrl-Z: it ends its transaction when somebody lets it go on."""
    state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    return f", which is stopped and goes on after `kill -CONT {pid}`" if state in (b"T", b"t") else ""


def _mend(text: str, path: str) -> str:
    if "full" in text:
        return "free some space; a scheduler that runs keeps in memory what has ended meanwhile, and writes it then"
    if "locked" in text:
        return "let the program that holds it end its transaction, or stop it, and see `taskloop db check`"
    if not Path(path).absolute().parent.is_dir():
        return _MAKE_FOLDER
    if "unable to open" in text or "readonly" in text:
        cause = _cause(text, path)
        return "put it back, or name another file" if "not there" in cause else _mend_of_a_bar(cause)
    return "see `taskloop db check`, and the disk"


def _mend_of_the_system(error: OSError) -> str:
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return _MOUNT if error.errno == errno.EROFS else _mend_of_a_bar(str(error))
    return _MAKE_FOLDER if isinstance(error, FileNotFoundError) else "see the disk, and `taskloop db check`"


def _mend_of_a_bar(text: str) -> str:
    return _MOUNT if _ONLY_READ in text else _GIVE_RIGHT


_ONLY_READ: Final = "is mounted for reading only"
_MOUNT: Final = "mount it for writing (the system's log tells whether its disk has errors), or name a file elsewhere"
_MAKE_FOLDER: Final = "make the folder, or name a file in one that exists"
_GIVE_RIGHT: Final = "give this user the right to write the file and its folder, or name another file"


def connect(path: str, create: bool) -> sqlite3.Connection:
    """A connection of this thread to a file that may be touched."""
    address = "file::memory:"
    if path != ":memory:":
        inspect(path, create)
        address = f"{Path(path).absolute().as_uri()}?mode={'rwc' if create else 'rw'}"
    return sqlite3.connect(
        address, uri=True, isolation_level=None, timeout=BUSY_SECONDS, cached_statements=512, factory=Connection
    )


class Connection(sqlite3.Connection):
    """A connection that a fork leaves alone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _ALIVE.add(self)


_ALIVE: Final[weakref.WeakSet[Connection]] = weakref.WeakSet()


def _keep_for_ever() -> None:
    """In a forked child: never close the parent's connections, not even at exit; that would break the parent's locks.

    SQLite tracks locks per process, so the child must not open the same file anew either: `Housed` refuses.
    """
    for one in list(_ALIVE):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(one))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_for_ever)


def inspect(path: str, create: bool) -> None:
    """Refuse what SQLite would not, or not at once: a folder, no file where one must be, a file that cannot be written.

    By looking at it only. To open and close the file would take away every lock this process has on it, and another
    process that comes and goes would then delete the log beneath our connections.
    """
    file = Path(path)
    if file.is_dir():
        raise BadStore(f"store {path} is a folder; name a file in it, such as {path.rstrip('/')}/taskloop.db")
    folder = file.absolute().parent
    if file.exists():
        found = file.stat()
        if 0 < found.st_size < 100:  # shorter than a header: SQLite would take it for an empty database
            raise BadStore(f"store {path} is not an SQLite database; it was left as it is, name another file")
        if found.st_nlink > 1:  # SQLite names the log by the path: two logs of one file destroy it
            raise BadStore(
                f"store {path} has {found.st_nlink} names (hard links), and programs that open it by different ones "
                "would destroy it; remove the others, or make them symbolic links"
            )
        if not os.access(file, os.W_OK):
            raise PermissionError(13, f"permission denied: {unwritable(path)}")
    elif not create:
        raise FileNotFoundError(path)
    elif not folder.is_dir():
        raise FileNotFoundError(2, f"folder {folder} does not exist")
    if not os.access(folder, os.W_OK):
        raise PermissionError(13, f"permission denied: {unwritable(folder)}, where SQLite keeps the store's log")


def migrations() -> list[tuple[int, str]]:
    """Every schema change there is, by number: the files of `schema/sqlite`."""
    folder = resources.files("taskloop") / "schema" / "sqlite"
    files = sorted((one for one in folder.iterdir() if one.name.endswith(".sql")), key=lambda one: one.name)
    return [(int(one.name[:3]), one.read_text("utf-8")) for one in files]


@cache
def newest() -> int:
    """The newest schema that this version knows."""
    return migrations()[-1][0]


def version(db: sqlite3.Connection, path: str = "") -> int:
    """The number of the last schema change in the file; 0: none of ours. Raises `BadStore` for a foreign schema."""
    ours = {
        row[0]
        for row in db.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'taskloop\\_%' ESCAPE '\\'"
        )
    }
    if not ours:
        return 0
    if "taskloop_meta" not in ours:
        raise BadStore(
            f"store {path} holds tables named taskloop_ that are not ours; it was left as it is, name another file"
        )
    row = db.execute("SELECT value FROM taskloop_meta WHERE key = 'schema'").fetchone()
    if row is None or not str(row[0]).isdecimal():
        raise BadStore(
            f"store {path} names no schema version; it was left as it is, restore a backup or name another file"
        )
    return int(row[0])


def is_older(db: sqlite3.Connection, path: str) -> bool:
    """Whether the file has a schema of before this version's. Raises `BadStore` for a foreign one."""
    return 0 < version(db, path) < newest()


def prepare(
    db: sqlite3.Connection,
    synchronous: str,
    memory: bool,
    path: str = "",
    *,
    create: bool = True,
    schema: Schema = "upgrade",
) -> int | None:
    """Bring a fresh connection, and as far as it is asked to the file, into order; touches nothing it refuses.

    Gives the older schema that it brought up to date, if there was one. `create` false: a database without tables of ours is refused. Only with `schema` "upgrade" is the file changed.
    """
    found = version(db, path)
    if found > newest():
        raise BadStore(
            f"store {path} has schema {found}, this taskloop knows up to {newest()}; it was left as it is, "
            "install the newer taskloop that wrote it"
        )
    if not found and not create:
        raise BadStore(
            f"store {path} is a database without the tables of a store; it was left as it is, name another file, or "
            "let `taskloop run` make them there"
        )
    if 0 < found < newest() and schema == "newest":
        raise BadStore(
            f"store {path} has schema {found}, this taskloop needs {newest()}; it was left as it is, "
            "run `taskloop db upgrade` (and before it, for a copy, `taskloop db backup FILE`)"
        )
    if not memory and schema == "upgrade":
        _write_ahead(db)
    db.execute(f"PRAGMA synchronous = {'FULL' if synchronous == 'full' else 'NORMAL'}")
    db.execute("PRAGMA temp_store = MEMORY")
    db.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    if found < newest() and schema == "upgrade":
        return _migrate(db)
    return None


def _write_ahead(db: sqlite3.Connection) -> None:
    """Switch to a write-ahead log. SQLite does not wait for the lock this needs: processes that start at once do."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL").fetchall()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _migrate(db: sqlite3.Connection) -> int | None:
    db.execute("BEGIN IMMEDIATE")
    try:
        found = version(db)  # asked again: another process may have migrated while this one waited for the lock
        for number, script in migrations():
            if number > found:
                for statement in _split(script):
                    db.execute(statement)
        if found < newest():
            db.execute("INSERT OR REPLACE INTO taskloop_meta (key, value) VALUES ('schema', ?)", (str(newest()),))
        db.execute("COMMIT")
        return found if 0 < found < newest() else None
    except BaseException:
        with suppress(sqlite3.Error):  # SQLite has rolled back already where the disk is full; the cause is to be heard
            db.execute("ROLLBACK")
        raise


def _split(script: str) -> list[str]:
    """The statements of a script, one by one: executescript() would commit before the first."""
    statements_found, text = [], ""
    for line in script.splitlines():
        text += line.partition("--")[0] + "\n"
        if sqlite3.complete_statement(text):
            statements_found.append(text)
            text = ""
    return statements_found
