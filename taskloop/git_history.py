"""The history of a git repository as numbers: reading what git writes, remembering it, and the figures that follow.

Calls nothing and keeps no file: `git_metrics` does both. Pure but for the short breaths of `gently`. Start at
`LogReader.feed`, then `figures`.
"""

from __future__ import annotations

import heapq
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final, TypeVar

__all__ = [
    "DAY_SECONDS", "LOG", "Author", "History", "LogReader", "explain", "figures", "fitting", "gently", "known",
    "state_lines",
]  # fmt: skip

_Row = TypeVar("_Row")

DAY_SECONDS: Final = 86_400
WINDOW_DAYS: Final = 90
WEEKS: Final = 104
TOP_AUTHORS: Final = 10
HOT_FILES: Final = 20
_STATE_VERSION: Final = 2
_LAST_SECOND: Final = 253_402_300_799  # 9999-12-31T23:59:59Z: a commit may claim any date, a datetime may not
_BREATH_SECONDS: Final = 0.0002
_ERROR_LETTERS: Final = 300

# One token a commit and one a file, all ended by NUL. Neither an address nor a name can hold a newline or NUL, and
# a file's token begins with a digit, "-" or a newline: so no name, however hostile, can be taken for a commit.
_FORMAT: Final = "--format=@%ct%n%aE%n%aN"
LOG: Final = (
    "log", "-z", "--numstat", "--no-renames", "--no-diff-merges", "--no-ext-diff", "--no-textconv", "--no-relative",
    "--no-show-signature", "--no-notes", "--no-decorate", "--no-color", "--diff-algorithm=default",
    "--ignore-submodules=none",  # beside the setting there is one for each submodule, in `.gitmodules` too
    "-O/dev/null",  # no order file: git ends where the one of `diff.orderFile` is missing
    _FORMAT,
)  # fmt: skip


@dataclass(slots=True)
class Author:
    """What one e-mail address did; `name` is the one of its newest commit, made at `named_at` (Unix seconds)."""

    name: str
    named_at: int
    commits: int = 0
    added: int = 0
    deleted: int = 0


@dataclass(slots=True)
class History:
    """All that is remembered of the commits up to `head`. Days are whole days since 1970-01-01, UTC.

    `day` is the day it was counted on: `recent` holds the `WINDOW_DAYS` days that end there and later ones.
    """

    fingerprint: str
    day: int
    head: str = ""
    files: int = 0
    first_at: int = _LAST_SECOND
    last_at: int = 0
    days: dict[int, list[int]] = field(default_factory=dict)  # day: commits, added, deleted
    authors: dict[str, Author] = field(default_factory=dict)  # by e-mail in lower case
    recent: dict[tuple[str, int], list[int]] = field(default_factory=dict)  # (path, day): changes, added, deleted

    def state(self) -> dict[str, Any]:
        """Plain JSON for a `Memory`."""
        return {
            "version": _STATE_VERSION,
            "fingerprint": self.fingerprint,
            "day": self.day,
            "head": self.head,
            "files": self.files,
            "first_at": self.first_at,
            "last_at": self.last_at,
            "days": [[day, *counts] for day, counts in gently(self.days.items())],
            "authors": [
                [email, who.name, who.named_at, who.commits, who.added, who.deleted]
                for email, who in gently(self.authors.items())
            ],
            "recent": [[path, day, *counts] for (path, day), counts in gently(self.recent.items())],
        }

    @classmethod
    def restored(cls, state: Mapping[str, Any] | None, fingerprint: str, day: int) -> History | None:
        """The history of that state, moved on to `day`; None when it cannot serve.

        It cannot when it is of another version or fingerprint, when it makes no sense, and when it was counted on a
        later day: then files have been forgotten that would be in the window again.
        """
        try:
            if state is None or state["version"] != _STATE_VERSION or state["fingerprint"] != fingerprint:
                return None
            if state["day"] > day or not state["head"].isalnum():
                return None
            history = cls(fingerprint, day, state["head"], *(state[key] for key in ("files", "first_at", "last_at")))
            history.days = {at: [commits, added, deleted] for at, commits, added, deleted in gently(state["days"])}
            history.authors = {email: Author(*row) for email, *row in gently(state["authors"])}
            history.recent = {
                (path, at): [changes, added, deleted]
                for path, at, changes, added, deleted in gently(state["recent"])
                if at > day - WINDOW_DAYS
            }
        except (AttributeError, KeyError, TypeError, ValueError):
            return None
        return history


class LogReader:
    """Adds git's log, as `LOG` asks for it, to a history, in pieces cut anywhere. The order of commits is nothing."""

    def __init__(self, history: History) -> None:
        self.commits: int = 0
        self._history = history
        self._since = history.day - WINDOW_DAYS
        self._rest = b""
        self._people: dict[bytes, tuple[Author, str]] = {}
        self._day = 0
        self._counts = [0, 0, 0]
        self._author = Author("", 0)

    def feed(self, data: bytes) -> None:
        """Take the next piece; raises ValueError for what is no such log."""
        tokens = (self._rest + data).split(b"\0")
        self._rest = tokens.pop()
        for token in tokens:
            if token.startswith(b"@"):
                self._commit(token)
            else:
                self._file(token)

    def _commit(self, token: bytes) -> None:
        stamp, _, who = token[1:].partition(b"\n")
        at = min(int(stamp or b"0"), _LAST_SECOND)  # a commit without a readable date has an empty one
        history = self._history
        history.first_at = min(history.first_at, at)
        history.last_at = max(history.last_at, at)
        self._day = day = at // DAY_SECONDS
        self._counts = history.days.setdefault(day, [0, 0, 0])
        self._counts[0] += 1
        author, name = self._people.get(who) or self._person(who)
        author.commits += 1
        author.named_at, author.name = max((author.named_at, author.name), (at, name))
        self._author = author
        self.commits += 1

    def _person(self, who: bytes) -> tuple[Author, str]:
        email, _, name = who.decode("utf-8", "replace").partition("\n")
        author = self._history.authors.setdefault(email.lower() or name, Author(name, 0))
        self._people[who] = author, name
        return author, name

    def _file(self, token: bytes) -> None:
        added_text, deleted_text, path = token.split(b"\t", 2)
        if deleted_text == b"-":  # binary: changed, but not by lines
            added = deleted = 0
        else:
            added, deleted = int(added_text), int(deleted_text)
        counts, author = self._counts, self._author
        counts[1] += added
        counts[2] += deleted
        author.added += added
        author.deleted += deleted
        if self._day > self._since:
            row = self._history.recent.setdefault((path.decode("utf-8", "replace"), self._day), [0, 0, 0])
            row[0] += 1
            row[1] += added
            row[2] += deleted


def figures(history: History) -> dict[str, Any]:
    """The part of the result that follows from the commits alone, windows ending at the history's own day."""
    commits, added, deleted = _sums(history.days.values())
    week, month, quarter = (
        _sums(counts for day, counts in history.days.items() if day > history.day - length)
        for length in (7, 30, WINDOW_DAYS)
    )
    return {
        "commits": commits,
        "commits_7d": week[0],
        "commits_30d": month[0],
        "commits_90d": quarter[0],
        "authors": len(history.authors),
        "top_authors": _top_authors(history.authors),
        "bus_factor": _bus_factor(history.authors.values(), commits),
        "added": added,
        "deleted": deleted,
        "churn_30d": month[1] + month[2],
        "hot_files": _hot_files(history.recent),
        "files": history.files,
        "first_commit_at": _instant(history.first_at),
        "last_commit_at": _instant(history.last_at),
        "commits_per_week": _weeks(history),
    }


def _sums(rows: Iterable[Sequence[int]]) -> tuple[int, int, int]:
    first = second = third = 0
    for one, two, three in gently(rows):
        first, second, third = first + one, second + two, third + three
    return first, second, third


def _top_authors(authors: Mapping[str, Author]) -> list[dict[str, Any]]:
    def rank(item: tuple[str, Author]) -> tuple[int, int, str]:
        email, author = item
        return -author.commits, -author.added - author.deleted, email

    return [
        {"name": author.name, "commits": author.commits, "added": author.added, "deleted": author.deleted}
        for _, author in heapq.nsmallest(TOP_AUTHORS, authors.items(), key=rank)
    ]


def _bus_factor(authors: Iterable[Author], commits: int) -> int:
    """The least number of authors who made half of the commits or more; 0 when there is none."""
    made = 0
    for number, count in enumerate(sorted((author.commits for author in authors), reverse=True), start=1):
        made += count
        if 2 * made >= commits:
            return number
    return 0


def _hot_files(recent: Mapping[tuple[str, int], Sequence[int]]) -> list[dict[str, Any]]:
    files: dict[str, list[int]] = {}
    for (path, _), (changes, added, deleted) in gently(recent.items()):
        row = files.setdefault(path, [0, 0, 0])
        row[0] += changes
        row[1] += added
        row[2] += deleted

    def rank(item: tuple[str, list[int]]) -> tuple[int, int, str]:
        path, (changes, added, deleted) = item
        return -changes, -added - deleted, path

    return [
        {"path": path, "changes": changes, "added": added, "deleted": deleted}
        for path, (changes, added, deleted) in heapq.nsmallest(HOT_FILES, files.items(), key=rank)
    ]


def _weeks(history: History) -> list[dict[str, Any]]:
    """The weeks from the first commit's to this one, the last `WEEKS` at most, empty ones too, oldest first."""
    this = _monday(history.day)
    first = min(this, max(_monday(history.first_at // DAY_SECONDS), this - 7 * (WEEKS - 1)))  # all may be in the future
    counts = dict.fromkeys(range(first, this + 1, 7), 0)
    for day, (commits, _, _) in gently(history.days.items()):
        monday = _monday(day)
        if monday in counts:
            counts[monday] += commits
    return [{"week": _instant(monday * DAY_SECONDS)[:10], "commits": commits} for monday, commits in counts.items()]


def _monday(day: int) -> int:
    return day - (day + 3) % 7  # 1970-01-01 was a Thursday


def _instant(seconds: int) -> str:
    """Unix seconds as RFC 3339 in UTC: '2026-03-01T02:00:00Z'."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def fitting(result: dict[str, dict[str, Any]], most: int) -> dict[str, dict[str, Any]]:
    """The same in so many bytes of JSON: where it is more, each repository has half of its rows, a quarter, or one a list.

    Of hundreds of repositories all rows are more than the record of a run takes, and then it would hold none of them.
    """
    parts = 1
    while parts < WEEKS and _json_bytes(result) > most:
        parts *= 2
        shorter = {path: one | _rows(one, parts) for path, one in result["repositories"].items()}
        result = result | {"repositories": shorter}
    return result


def _rows(one: Mapping[str, Any], parts: int) -> dict[str, Any]:
    return {
        "top_authors": one["top_authors"][: TOP_AUTHORS // parts or 1],
        "hot_files": one["hot_files"][: HOT_FILES // parts or 1],
        "commits_per_week": one["commits_per_week"][-(WEEKS // parts or 1) :],
    }


def _json_bytes(result: Mapping[str, Mapping[str, Any]]) -> int:
    """In pieces, for the loop's sake."""
    pieces = (item for part in result.values() for item in part.items())
    return 50 + sum(len(json.dumps(item, ensure_ascii=False).encode()) + 2 for item in gently(pieces, every=20))


def known(error: str) -> str | None:
    """The reason and the mend for what git wrote on its error output (English, as `LC_ALL=C` makes it), if that is known."""
    return next((reason for found, reason in _KNOWN if found in error), None)


def explain(error: str) -> str:
    """As `known`; else git's own words."""
    if (reason := known(error)) is not None:
        return reason
    first = next((line for line in error.splitlines() if line.startswith(("fatal:", "error:"))), error.strip())
    mend = "look at it with `git fsck`"
    if _BAD_SETTING.search(first):
        mend = "mend that setting; `git config --list --show-origin` shows where each is from"
    return f"git says '{first.strip()[:_ERROR_LETTERS]}'; {mend}"


_BAD_SETTING: Final = re.compile(r"^(fatal|error): bad (\w+ )?config ")


_KNOWN: Final = (
    (
        "not a git repository: ",
        "a worktree or submodule whose repository is gone; put back what its .git file names, or name a clone",
    ),
    ("not a git repository", "not a git repository; name a clone, or run `git init` there"),
    ("not have any commits yet", "no commits yet; commit something, or point HEAD at a branch that has commits"),
    (
        "dubious ownership",
        "belongs to another user and is not the top of its repository, so git refuses it; name its top folder",
    ),
    ("Permission denied", "permission denied; let the user that runs taskloop read the folder and all below it"),
    (
        "promisor remote",
        "a partial clone: it lacks objects, and nothing is fetched here; run `git fetch --refetch --no-filter`",
    ),
    *(
        (words, "the git on this machine's PATH is too old; install git 2.31 or newer")
        for words in ("unrecognized argument: --", "Unknown option: --", "unknown option: --")
    ),
    *(
        (words, "made by a newer git than the one on this machine's PATH; install that one here")
        for words in ("unknown repository extension", "Expected git repo version")
    ),
)


def state_lines(state: Mapping[str, Any]) -> Iterator[str]:
    """The state as lines of JSON, a long list in many of them.

    The C encoder and decoder keep the interpreter to themselves until they are done, so one document of several
    megabytes would hold up the loop; five hundred rows take well under a millisecond.
    """
    for key, value in state.items():
        rows = iter(value if isinstance(value, list) else ())
        yield json.dumps([key, list(islice(rows, 500)) if isinstance(value, list) else value])
        while block := list(islice(rows, 500)):
            yield json.dumps([key, block])


def gently(rows: Iterable[_Row], every: int = 500) -> Iterator[_Row]:
    """The same rows, with a breath now and then.

    A thread that counts without a pause makes the loop wait for the interpreter's switch interval, 5 ms, again and
    again; a pause that really sleeps hands over at once.
    """
    for number, row in enumerate(rows, start=1):
        yield row
        if number % every == 0:
            time.sleep(_BREATH_SECONDS)
