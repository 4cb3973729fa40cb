"""A result of `git_metrics` as people want to see a repository: its pace, its people, what changes most, its age.

Pure, and for any value: a job of the host may give what only looks like such a result, and a repository has names that
somebody else chose. What is missing, or no number, is None, and the template says so. Start at `drawn`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

from taskloop.runs import Run

__all__ = ["Repositories", "Repository", "drawn", "fits"]

MOST: Final = 200
"""Repositories that are listed."""
PEOPLE, FILES, WEEKS = 10, 20, 104
CHARACTERS: Final = 200
WIDTH, HEIGHT = 624.0, 80.0
_LARGEST: Final = 10**15


class Person(NamedTuple):
    """Somebody who made commits. `share`: of all commits of the repository, 0 to 1."""

    name: str
    commits: int
    share: float
    added: int | None
    deleted: int | None


class File(NamedTuple):
    """A file that changed lately. `share`: of the changes of the one that changed most, 0 to 1."""

    path: str
    changes: int
    share: float
    added: int | None
    deleted: int | None


class Week(NamedTuple):
    """What was committed in a week."""

    monday: str
    commits: int


class Past(NamedTuple):
    """What an earlier run found."""

    run: int
    at: datetime
    commits: int | None
    authors: int | None
    churn: int | None
    files: int | None


@dataclass(frozen=True, slots=True)
class Repository:
    """One repository. `counts`: its plain figures by name; None: not known."""

    path: str
    branch: str
    head: str
    counts: Mapping[str, int | None]
    people: Sequence[Person]
    hot: Sequence[File]
    weeks: Sequence[Week]
    first_at: datetime | None
    last_at: datetime | None
    shallow: bool
    past: Sequence[Past]

    @property
    def bars(self) -> str:
        """The weeks as the outline of an SVG path, a bar a week."""
        most = max((one.commits for one in self.weeks), default=0)
        if not most:
            return ""
        step = WIDTH / len(self.weeks)
        width = min(step - 1, 24.0)
        return "".join(
            f"M{step * place:.1f} {HEIGHT:g}v-{max(1.0, HEIGHT * one.commits / most):.1f}h{width:.1f}V{HEIGHT:g}z"
            for place, one in enumerate(self.weeks)
            if one.commits
        )

    @property
    def trend(self) -> str:
        """The lines changed in thirty days, run by run, as the points of an SVG line; empty: too few runs."""
        known = [(one.at.timestamp(), one.churn) for one in reversed(self.past) if one.churn is not None]
        if len(known) < 2 or known[0][0] == known[-1][0]:
            return ""
        (start, _), (end, _) = known[0], known[-1]
        most = max(churn for _, churn in known) or 1
        return " ".join(
            f"{(at - start) / (end - start) * WIDTH:.1f},{HEIGHT - churn / most * (HEIGHT - 4) - 2:.1f}"
            for at, churn in known
        )


@dataclass(frozen=True, slots=True)
class Repositories:
    """All repositories of a result, those that could not be read with the reason, and how many are not listed."""

    items: Sequence[Repository]
    failed: Sequence[tuple[str, str]]
    hidden: int


_COUNTS: Final = (
    "commits", "commits_7d", "commits_30d", "commits_90d", "authors", "bus_factor", "added", "deleted", "churn_30d",
    "branches", "tags", "files", "size_bytes",
)  # fmt: skip


def fits(value: Any) -> bool:
    """Whether a result looks like one of `git_metrics`."""
    return (
        isinstance(value, Mapping)
        and isinstance(found := value.get("repositories"), Mapping)
        and isinstance(value.get("failed"), Mapping)
        and all(isinstance(one, Mapping) for one in found.values())
    )


def drawn(runs: Sequence[Run]) -> Repositories:
    """What the first of the runs found; the others, each older than the one before it, are its past."""
    found, failed = runs[0].result["repositories"], runs[0].result["failed"]
    items = [
        _repository(path, one, [_past(run, path) for run in runs if fits(run.result)])
        for path, one in list(found.items())[:MOST]
    ]
    reasons = [(_text(path), _text(reason, 1_000)) for path, reason in list(failed.items())[:MOST]]
    return Repositories(items, reasons, max(0, len(found) - MOST) + max(0, len(failed) - MOST))


def _repository(path: str, one: Mapping[str, Any], past: Sequence[Past | None]) -> Repository:
    counts = {name: _count(one.get(name)) for name in _COUNTS}
    return Repository(
        _text(path),
        _text(one.get("branch")),
        _text(one.get("head"))[:12],
        counts,
        _people(one.get("top_authors"), counts["commits"]),
        _hot(one.get("hot_files")),
        [Week(_text(week.get("week"))[:10], _count(week.get("commits")) or 0)
         for week in _records(one.get("commits_per_week"))[-WEEKS:]],
        _instant(one.get("first_commit_at")),
        _instant(one.get("last_commit_at")),
        one.get("shallow") is True,
        [then for then in past if then is not None],
    )  # fmt: skip


def _people(value: Any, commits: int | None) -> list[Person]:
    found = []
    for one in _records(value)[:PEOPLE]:
        own = _count(one.get("commits")) or 0
        share = min(1.0, own / commits) if commits else 0.0
        found.append(Person(_text(one.get("name")), own, share, _count(one.get("added")), _count(one.get("deleted"))))
    return found


def _hot(value: Any) -> list[File]:
    records = _records(value)[:FILES]
    most = max((_count(one.get("changes")) or 0 for one in records), default=0) or 1
    found = []
    for one in records:
        changes = _count(one.get("changes")) or 0
        share = changes / most
        found.append(File(_text(one.get("path")), changes, share, _count(one.get("added")), _count(one.get("deleted"))))
    return found


def _past(run: Run, path: str) -> Past | None:
    one = run.result["repositories"].get(path)
    if one is None or run.id is None:
        return None
    counts = (_count(one.get(name)) for name in ("commits", "authors", "churn_30d", "files"))
    return Past(run.id, run.ended_at or run.due_at, *counts)


# -- reading what may be anything


def _records(value: Any) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []


def _count(value: Any) -> int | None:
    """A whole number from zero up to what can be shown."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LARGEST:
        return None
    return int(value)


def _text(value: object, most: int = CHARACTERS) -> str:
    if not isinstance(value, str):
        return ""
    value = value if len(value) <= most else f"{value[: most - 1]}…"
    return value.encode("utf-8", "replace").decode()  # a lone surrogate can stand in no address


def _instant(value: Any) -> datetime | None:
    try:
        at = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return None if at is None or at.tzinfo is None or not 1000 < at.year < 9999 else at
