"""What `git_metrics` found, in a few lines: for whoever ran it and does not want to read JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from shutil import get_terminal_size
from typing import Any, Final

from taskloop.cli.lines import Log, Narrator
from taskloop.cli.output import clean, width
from taskloop.events import Event

__all__ = ["summary", "table"]

HOTTEST: Final = 3
"""Of the files that were changed most, so many are named."""
LETTERS: Final = 60
"""Of a long path its end: git takes one of four thousand, which would fill a whole terminal."""


def summary(narrator: Narrator, log: Log) -> Callable[[Event], None]:
    """What tells of each repository when the job succeeded: a table on a terminal, a line each elsewhere."""

    def tell(event: Event) -> None:
        run = event.run
        if event.name != "succeeded" or run is None or run.job != "git_metrics" or not isinstance(run.result, Mapping):
            return
        found, failed = run.result.get("repositories", {}), run.result.get("failed", {})
        if log.form == "people":
            for line in table(found, get_terminal_size().columns):
                log.line(line)
        else:
            for path, one in found.items():
                narrator.say("INFO", "git_metrics.repository", path=path, **_facts(one))
        for path, reason in failed.items():
            narrator.say("WARNING", "git_metrics.unread", path=path, text=reason)

    return tell


def _facts(one: Mapping[str, Any], hottest: int = HOTTEST) -> dict[str, Any]:
    hot = ", ".join(f"{_end(file['path'])} ({file['changes']})" for file in one.get("hot_files", ())[:hottest])
    return {name: one.get(name) for name in ("commits", "commits_30d", "authors", "churn_30d")} | {"hot": hot}


def _end(path: str) -> str:
    return path if len(path) <= LETTERS else f"...{path[3 - LETTERS :]}"


def table(found: Mapping[str, Mapping[str, Any]], columns: int, hottest: int = HOTTEST) -> list[str]:
    """A row a repository, none if there is none; of the hot files as many as the terminal has `columns` for."""
    heads = ("repository", "commits", "30 d", "authors", "churn 30 d", "hot files")
    rows = [[clean(path), *(clean(value) for value in _facts(one, hottest).values())] for path, one in found.items()]
    if not rows:
        return []
    widths = [max(width(one) for one in column) for column in zip(heads, *rows, strict=True)]
    lines = [
        "  " + "  ".join(cell + " " * (room - width(cell)) for cell, room in zip(row, widths, strict=True)).rstrip()
        for row in (heads, *rows)
    ]
    is_too_wide = any(width(line) > columns for line in lines)
    return table(found, columns, hottest - 1) if is_too_wide and hottest > 1 else lines
