"""The history as a file, page by page: CSV for spreadsheets, JSON lines for programs.

A cell of CSV that begins like a formula gets an apostrophe before it: a spreadsheet would carry it out, and what jobs
say of themselves is foreign text.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from taskloop.records import run_record
from taskloop.runs import Run
from taskloop.web.api.asking import newest, refuse_unknown
from taskloop.web.core import Response

if TYPE_CHECKING:
    from taskloop.web.site import Asked

__all__ = ["cell", "export"]

PAGE: Final = 200
MOST: Final = 1_000_000
_ANY: Final = datetime.fromtimestamp(0, UTC)
COLUMNS: Final = tuple(run_record(Run(job="", due_at=_ANY, ready_at=_ANY, created_at=_ANY)))
"""Of a sheet: the members of a run."""
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)


async def export(asked: Asked) -> Response:
    from taskloop.web.api.runs import filters

    form = asked.query["format"] or "jsonl"
    kind = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl; charset=utf-8"}[form]
    # What is wrong is told before the file begins.
    first, following = await newest(asked.scheduler, filters(asked), asked.query["before"], PAGE)
    if not first and asked.query["job"] is not None:
        await refuse_unknown(asked, asked.query["job"])
    return Response(
        200,
        _file(asked, form, filters(asked), first, following),
        {"content-type": kind, "content-disposition": f'attachment; filename="runs.{form}"'},
    )


async def _file(
    asked: Asked, form: str, narrowed: dict[str, Any], found: list[Run], following: int | None
) -> AsyncIterator[bytes]:
    written, make = 0, _csv if form == "csv" else _lines
    if form == "csv":  # also where no run fits: who reads a sheet asks for its columns first
        yield _rows([COLUMNS])
    while found and written < MOST:
        yield await asyncio.to_thread(make, found[: MOST - written])
        written += len(found)
        if following is None:
            return
        found, following = await newest(asked.scheduler, narrowed, following, PAGE)


def _lines(found: Sequence[Run]) -> bytes:
    text = "".join(json.dumps(run_record(one), ensure_ascii=False, default=str) + "\n" for one in found)
    return text.encode("utf-8", "backslashreplace")


def _csv(found: Sequence[Run]) -> bytes:
    return _rows([cell(value) for value in run_record(one).values()] for one in found)


def _rows(rows: Iterable[Sequence[str]]) -> bytes:
    sheet = io.StringIO()
    csv.writer(sheet, lineterminator="\r\n").writerows(rows)
    return sheet.getvalue().encode("utf-8", "backslashreplace")


def cell(value: Any) -> str:
    """A value as a cell that no spreadsheet obeys."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = text.replace("\0", "\\0")
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) and not _NUMBER.fullmatch(text) else text
