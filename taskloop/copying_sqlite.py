"""A copy of an SQLite store in use, which is there whole or not at all.

Level 5. Start at `backup`; it runs on a connection of its own, for as long as it takes.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
from contextlib import suppress
from pathlib import Path

from taskloop.errors import BadStore, StoreUnavailable

__all__ = ["backup", "begun", "published"]


def backup(db: sqlite3.Connection, target: str) -> None:
    """Copy the store to the new file `target`, as it stands now; other connections go on writing meanwhile.

    Until the copy is whole, read again and on the disk it has another name beside it, which ends in `.part`. Raises
    `BadStore` where the file exists, `StoreUnavailable` where the copy cannot be made, or would be one of a damaged store.
    """
    path = Path(target).absolute()
    if os.path.lexists(path):
        raise _exists(target)
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        begun(part, db.execute("SELECT file FROM pragma_database_list WHERE name = 'main'").fetchone()[0])
        copy = sqlite3.connect(f"{part.as_uri()}?mode=rw", uri=True)
        try:
            copy.execute(
                "PRAGMA locking_mode = EXCLUSIVE"
            )  # a log beside it needs no index then, which not every disk can have
            db.backup(copy)
            if problems := [row[0] for row in copy.execute("PRAGMA quick_check(1)") if row[0] != "ok"]:
                raise sqlite3.DatabaseError(f"the store is damaged ({problems[0]})")
        finally:
            copy.close()
        published(part, path)
    except FileExistsError:
        raise _exists(target) from None
    except (OSError, sqlite3.Error) as error:
        raise StoreUnavailable(
            f"backup to {target} failed, and nothing is kept of it: {_cause(error, path)}"
        ) from error
    finally:
        for name in (part, *(part.with_name(part.name + end) for end in ("-journal", "-wal", "-shm"))):
            with suppress(OSError):
                name.unlink()


def begun(part: Path, source: str | None) -> None:
    """Make the empty file of a copy, for nobody who may not read or change the file `source`: it holds the same secrets."""
    of = Path(source).stat() if source else None
    part.touch(mode=of.st_mode & 0o666 if of else 0o666, exist_ok=False)
    made = part.stat()
    if of is not None and made.st_gid != of.st_gid:  # the rights of a group are those of its people
        try:
            os.chown(part, -1, of.st_gid)
        except OSError:  # we are not of that group
            part.chmod(made.st_mode & 0o606)


def published(part: Path, path: Path) -> None:
    """Give the copy its name, and see that the disk knows. Raises `FileExistsError` where another file has it meanwhile."""
    try:
        path.hardlink_to(part)  # a rename would replace what is there
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise FileExistsError(path) from None
        part.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # not every file system can
            os.fsync(folder)
    finally:
        os.close(folder)


def _exists(target: str) -> BadStore:
    return BadStore(f"backup to {target}: the file exists; name a new one")


def _cause(error: OSError | sqlite3.Error, path: Path) -> str:
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    if not path.parent.is_dir():
        return f"folder {path.parent} does not exist; make it, or name another one"
    if "full" in text or "space" in text:
        return f"{text}; free some space there, or name a file on another disk"
    if "unable to open" in text or "ermission" in text or "ead-only" in text:
        return f"{text}; give this user the right to write {path.parent}, or name a file elsewhere"
    return f"{text}; see `taskloop db check`"
