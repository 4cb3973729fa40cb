"""Whether a git repository is as it was when its figures were made last, seen without asking git.

To ask git that nothing is new takes four processes, each of them dearer to the host's requests than what it answers. What
the figures come from leaves its mark on few files and folders: where HEAD, the branches and tags stand, the mail map, the
boundary of a shallow clone, grafts, and the folders that objects are put into. A stamp is what the file system says of
these. Where it cannot be sure there is none, and git is asked. Blocking, for a worker thread. Start at `Unchanged`.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

__all__ = ["Places", "Unchanged"]


SETTLED_SECONDS: Final = 10.0
"""How old the last change must be for a stamp to count: a second one within the same tick of a file system (FAT's takes two
seconds) would leave the same mark, and what a new file takes on the disk is known later still (ZFS: after five)."""
MOST_REFS: Final = 5_000
"""Loose refs, with more of them it is quicker to ask git."""
MOST_KEPT: Final = 1_000
"""Repositories; of a folder that moves at each deploy there would be more and more."""
_CHECK_SECONDS: Final = 0.05
"""Between two looks whether to go on: a file system may be slow."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a repository has what its figures come from: absolute paths, as git goes them, for a link on the way may turn."""

    git: str
    """Its own folder, of a linked work tree that below `worktrees`."""
    common: str
    """The folder it shares with linked work trees; mostly the same."""
    top: str | None
    """The work tree's, without links; None: it has none."""

    @classmethod
    def found(cls, folder: str, common: str, top: str | None) -> Places | None:
        """Those of the repository that `folder` belongs to; None: it is laid out in a way that is not known here."""
        if top is None:
            return cls(folder, folder, None) if os.path.realpath(common) == folder else None
        try:
            git = os.path.join(top, ".git")
            if not os.path.isdir(git):
                git = os.path.join(top, _line(git).removeprefix("gitdir: "))
            shared = os.path.join(git, "commondir")
            shared = os.path.join(git, _line(shared)) if os.path.exists(shared) else git
            is_known = os.path.samefile(shared, common)
        except OSError:
            return None
        return cls(git, shared, os.path.realpath(top)) if is_known else None


def _line(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read().removesuffix("\n")


@dataclass(frozen=True, slots=True)
class Stamp:
    """How a repository looked, and where it was looked at."""

    places: Places
    marks: bytes


@dataclass(frozen=True, slots=True)
class _Kept:
    places: Places
    stamp: Stamp | None
    day: int
    figures: str


class Unchanged:
    """The figures of repositories for as long as these do not change, in this process; any thread may use it.

    `beside` names a further file of each repository's folder whose change counts, None: there is none.
    """

    def __init__(
        self, beside: Callable[[str], os.PathLike[str]] | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._beside = beside
        self._clock = clock
        self._kept: dict[str, _Kept] = {}

    def stamp(self, folder: str, check_cancelled: Callable[[], object] = lambda: None) -> Stamp | None:
        """How the repository at this absolute path looks now; None: unknown. Take it before git is asked for the figures.

        `check_cancelled` is called between the looks of one that takes long; what it raises reaches the caller.
        """
        kept = self._kept.get(folder)
        if kept is None:
            return None
        marks = _Marks(check_cancelled)
        try:
            marks.take(folder, kept.places)
            settled = marks.newest <= (self._clock() - SETTLED_SECONDS) * 1e9
            if self._beside is not None:
                marks.file(os.fspath(self._beside(folder)))
        except (OSError, _TooMany):
            return None
        return Stamp(kept.places, marks.digest()) if settled else None

    def recall(self, folder: str, stamp: Stamp | None, day: int) -> dict[str, Any] | None:
        """The figures that were kept with that stamp on that day."""
        kept = self._kept.get(folder)
        if kept is None or stamp is None or kept.stamp != stamp or kept.day != day:
            return None
        figures: dict[str, Any] = json.loads(kept.figures)
        return figures

    def keep(self, folder: str, places: Places | None, stamp: Stamp | None, day: int, figures: dict[str, Any]) -> None:
        """Keep what git was asked for after the stamp was taken."""
        self._kept.pop(folder, None)
        if places is not None:
            self._kept[folder] = _Kept(places, stamp, day, json.dumps(figures))
            for oldest in [*self._kept][:-MOST_KEPT]:
                self._kept.pop(oldest, None)  # of two threads the other may have done it


class _TooMany(Exception):
    """It would take longer than to ask git."""


class _Marks:
    """What the file system says of files and folders, and when the last of them changed."""

    def __init__(self, check_cancelled: Callable[[], object]) -> None:
        self.newest = 0
        self._seen = hashlib.blake2b(digest_size=16)
        self._check_cancelled = check_cancelled
        self._check_at = time.monotonic() + _CHECK_SECONDS

    def digest(self) -> bytes:
        """Stands for all that was taken: of thousands of refs it would be megabytes."""
        return self._seen.digest()

    def take(self, folder: str, places: Places) -> None:
        for step in _steps(folder, places):  # how git finds the repository from there
            self._folder(step)
            self._way(os.path.join(step, ".git"))
            self.file(os.path.join(step, ".git", "HEAD"))  # an empty `.git` is none yet
            self.file(os.path.join(step, "HEAD"))
        self._folder(places.git)
        for name in ("HEAD", "commondir", "config.worktree", "reftable/tables.list"):
            self.file(os.path.join(places.git, name))
        for name in ("config", "packed-refs", "shallow", "info/grafts", "reftable/tables.list"):
            self.file(os.path.join(places.common, name))
        if places.top is not None:
            self.file(os.path.join(places.top, ".mailmap"))
        for refs in {os.path.join(places.git, "refs"), os.path.join(places.common, "refs")}:
            self._refs(refs)
        self._objects(os.path.join(places.common, "objects"))

    def file(self, path: str) -> None:
        """A file, of a link both what it is and where it leads; that there is none is a mark, too."""
        try:
            self._add(path, found := os.lstat(path))
            if stat.S_ISLNK(found.st_mode):
                self._add(path, os.stat(path))
        except (FileNotFoundError, NotADirectoryError):
            self._mark(path)

    def _way(self, path: str) -> None:
        """`.git`, where it is a folder: what git locks within is nothing."""
        try:
            found = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            self._mark(path)
            return
        if stat.S_ISDIR(found.st_mode):
            self._folder(path)
        else:
            self._add(path, found)

    def _folder(self, path: str) -> None:
        """A folder whatever lies in it."""
        found = os.stat(path)
        self._mark(path, found.st_dev, found.st_ino, found.st_mode, found.st_uid)

    def _refs(self, folder: str) -> None:
        if not os.path.isdir(folder):
            self._mark(folder)
            return
        left, room = [folder], MOST_REFS
        while left:
            with os.scandir(left.pop()) as found:
                entries = list(islice(found, room + 1))
            room -= len(entries)
            if room < 0:
                raise _TooMany
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir():
                    left.append(entry.path)
                else:
                    self._add(entry.path, entry.stat())

    def _objects(self, folder: str) -> None:
        """The folders that objects and packs are put into: each that comes or goes changes its folder's time."""
        self._add(folder, os.stat(folder))
        with os.scandir(folder) as entries:
            for name, path in sorted((entry.name, entry.path) for entry in entries):
                if len(name) == 2 or name == "pack":
                    self._add(path, os.stat(path))

    def _add(self, path: str, found: os.stat_result) -> None:
        self.newest = max(self.newest, found.st_mtime_ns, found.st_ctime_ns)
        self._mark(
            path, found.st_dev, found.st_ino, found.st_mode, found.st_uid, found.st_size, found.st_mtime_ns, found.st_ctime_ns
        )  # fmt: skip

    def _mark(self, *seen: object) -> None:
        self._seen.update(repr(seen).encode())
        if time.monotonic() >= self._check_at:
            self._check_cancelled()
            self._check_at = time.monotonic() + _CHECK_SECONDS


def _steps(folder: str, places: Places) -> Iterator[str]:
    """The folders from `folder` up to the one where git finds the repository."""
    last = places.top or places.git
    yield folder
    while folder != last and folder != os.path.dirname(folder):
        folder = os.path.dirname(folder)
        yield folder
