"""How a command shows its data: tables for people, JSON, JSON lines and CSV for programs; and text made harmless.

Everything here works on the records of `taskloop.records`, so a table shows what the JSON says. Light: the commands
that must be quick import it.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

from taskloop import signs
from taskloop.signs import SIGNS, TINTS, clock_text, span_text

__all__ = [
    "COLORS",
    "TINTS",
    "Cell",
    "Output",
    "clean",
    "has_color",
    "has_glyphs",
    "json_text",
    "moment",
    "plain",
    "put",
    "sign",
    "since_text",
    "span_text",
    "when",
    "width",
]

Cell = str | tuple[str, str]
"""A text, or a text and its colour."""
Record = Mapping[str, Any]

COLORS: Final = {"red": "31", "green": "32", "yellow": "33", "blue": "34", "dim": "2", "bold": "1"}
LEAST: Final = 8
"""Columns of text that a terminal shows of each column of a table, however narrow it is."""
MOST: Final = 32
"""And of a column that is not to be cut, unless the others have not even LEAST then."""
_PLAIN: Final = str.maketrans({"…": "...", "·": "-", "–": "-", "→": "->", "×": "x", "─": "-", "▓": "#", "░": "."})
# C0 and C1 controls, line and paragraph separators, marks that turn the writing direction, lone surrogates.
_UNSAFE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_UNSAFE_IN_JSON: Final = re.compile(
    "[\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def clean(text: object, *, keep: str = "") -> str:
    """A text from outside, with its control and escape characters shown instead of obeyed; `keep`: but these."""
    return _UNSAFE.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), str(text))


def _escaped(character: str) -> str:
    short = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
    code = ord(character)
    return short.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def json_text(value: Any, *, indent: int | None = None) -> str:
    """JSON that no terminal obeys."""
    text = json.dumps(value, ensure_ascii=False, indent=indent, default=str)
    return _UNSAFE_IN_JSON.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def plain(text: str) -> str:
    """A text in ASCII."""
    return text.translate(_PLAIN).encode("ascii", "backslashreplace").decode()


# -- what a stream can show


def has_color(stream: Any, wish: str = "auto") -> bool:
    """Whether to colour: the option, NO_COLOR, FORCE_COLOR, TERM=dumb, a terminal; the first that speaks decides."""
    if wish != "auto":
        return wish == "always"
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return os.environ.get("TERM") != "dumb" and _is_terminal(stream)


def has_glyphs(stream: Any, *, ascii_only: bool = False) -> bool:
    """Whether signs beyond ASCII may be written to `stream`."""
    names = (os.environ.get("LC_ALL"), os.environ.get("LC_CTYPE"), os.environ.get("LANG"))
    # Python turns a C locale into UTF-8 and says so in LC_CTYPE; what the user said is C.
    if ascii_only or names[0] in ("C", "POSIX") or (not names[0] and names[1] == "C.UTF-8" and names[2] == "C"):
        return False
    encoding = (getattr(stream, "encoding", None) or "utf-8").lower().replace("-", "").replace("_", "")
    return encoding in ("utf8", "utf16", "utf32")


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def width(text: str) -> int:
    """How many columns a text takes on a terminal."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(0 if combining(one) else 2 if east_asian_width(one) in "WF" else 1 for one in text)


def sign(word: str, *, glyphs: bool) -> str:
    """The sign of a state or condition; the word always stands beside it."""
    return SIGNS.get(word, ("·", "-"))[0 if glyphs else 1]


# -- times and spans


def moment(text: str | None) -> datetime | None:
    """The instant of an RFC 3339 text."""
    return None if text is None else datetime.fromisoformat(text)


def when(text: str | None, now: datetime) -> str:
    """An instant on the local clock with its zone, as short as the day allows."""
    at = moment(text)
    if at is None:
        return "–"
    return clock_text(at, now)


def readable(out: Output, text: str, said: Iterable[str] = ()) -> str:
    """A sentence with its instants as people here read them; `said`: what stands in it as others said it."""
    return clean(signs.readable(text, out.now, said=said))


def since_text(start: str | None, end: str | None) -> str:
    """How long it took from one instant to the other."""
    first, last = moment(start), moment(end)
    return "" if first is None or last is None else span_text(max(0.0, (last - first).total_seconds()))


# -- output


def put(text: str) -> None:
    """Write to stdout. Raises `Unwritable`; `BrokenPipeError` as it is, for whoever reads a pipe may have read enough."""
    try:
        sys.stdout.write(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        from taskloop.cli.entrance import to_nowhere
        from taskloop.cli.failures import Unwritable

        to_nowhere(sys.stdout)
        raise Unwritable("the output", error) from error


class Output:
    """stdout, in the form that was asked for."""

    def __init__(self, args: Any) -> None:
        self.format: str = args.format
        self.is_terminal: bool = _is_terminal(sys.stdout)
        self.color: bool = has_color(sys.stdout, args.color)
        self.glyphs: bool = has_glyphs(sys.stdout, ascii_only=args.ascii)
        self.now: datetime = datetime.now(UTC)

    def line(self, text: str) -> None:
        """One line for people; a text from outside must be `clean`."""
        put((text if self.glyphs else plain(text)) + "\n")

    def lines(self, texts: Iterable[str]) -> None:
        """Some lines."""
        for text in texts:
            self.line(text)

    def note(self, text: str) -> None:
        """A line on stderr."""
        sys.stderr.write((clean(text) if has_glyphs(sys.stderr) else plain(clean(text))) + "\n")

    def record(self, record: Record, show: Callable[[], None]) -> None:
        """One record; `show` writes the form for people."""
        if self.format == "table":
            show()
        elif self.format == "json":
            self._write(json_text(record, indent=2))
        elif self.format == "jsonl":
            self._write(json_text(record))
        else:
            self._csv([record])

    def items(
        self,
        records: Sequence[Record],
        show: Callable[[], None],
        *,
        columns: Sequence[str] = (),
        next_id: int | str | None = None,
    ) -> None:
        """A list of records; `columns`: those of a list that may be empty, which CSV has all the same.

        `next_id`: where the next page begins, None: there is none.
        """
        if self.format == "table":
            show()
        elif self.format == "json":
            self._write(json_text({"items": records, "next": next_id}, indent=2))
        elif self.format == "jsonl":
            for one in records:
                self._write(json_text(one))
        else:
            self._csv(records, columns)

    def table(
        self,
        heads: Sequence[str],
        rows: Sequence[Sequence[Cell]],
        *,
        spare: Sequence[str] = (),
        whole: Sequence[str] = (),
    ) -> None:
        """Columns, padded; on a terminal cut to its width, the last one first.

        One that is too narrow for all does without some: those of `spare`, the first of them first, then the last ones.
        `whole`: names and instants, of which a part says nothing: rather than cut these it does without those of `spare`.
        """
        if not rows:
            return
        cells = [[self._cell(cell) for cell in row] for row in rows]
        words = [[text for text, _ in row] for row in cells]
        wanted = [max(width(one) for one in column) for column in zip(heads, *words, strict=True)]
        needed = [min(MOST if head in whole else LEAST, one) for head, one in zip(heads, wanted, strict=True)]
        places = self._places(needed, [*map(heads.index, spare)])
        widths = self._fitted([wanted[place] for place in places], [needed[place] for place in places])
        self._row([(heads[place], "bold") for place in places], widths)
        for row in cells:
            self._row([row[place] for place in places], widths)

    def state(self, word: str, text: str | None = None) -> tuple[str, str]:
        """A state with its sign, and its colour: a cell of a table. `text`: in the place of the word; empty: the sign alone."""
        return (
            f"{sign(word, glyphs=self.glyphs)} {word.replace('_', ' ') if text is None else text}".rstrip(),
            TINTS.get(word, ""),
        )

    def painted(self, word: str, text: str | None = None) -> str:
        """The same for a line."""
        return self.paint(*self.state(word, text))

    def paint(self, text: str, color: str) -> str:
        """A text in a colour, where there are colours."""
        return f"\x1b[{COLORS[color]}m{text}\x1b[0m" if self.color and color and text else text

    def _cell(self, cell: Cell) -> tuple[str, str]:
        text, color = (cell, "") if isinstance(cell, str) else cell
        return clean(text) if self.glyphs else plain(clean(text)), color

    @cached_property
    def columns(self) -> int | None:
        """How wide the terminal is; None: it is none."""
        if not self.is_terminal:
            return None
        from shutil import get_terminal_size

        return get_terminal_size().columns

    def _places(self, needed: Sequence[int], spare: Sequence[int]) -> list[int]:
        """Which columns are shown: of `spare` as far as the others have what they need, and of those as many as have LEAST
        on the terminal, the first in any case.
        """
        places = list(range(len(needed)))
        last = [place for place in reversed(places[1:]) if place not in spare]
        for going, least in ((spare, needed), (last, [min(LEAST, one) for one in needed])):
            for place in going:
                if self.columns is None or sum(least[one] + 2 for one in places) - 2 <= self.columns:
                    break
                places.remove(place)
        return places

    def _fitted(self, widths: list[int], needed: Sequence[int]) -> list[int]:
        """The widths of columns that together fit the terminal; in a pipe as they are."""
        if self.columns is None:
            return widths
        over = sum(widths) + 2 * (len(widths) - 1) - self.columns
        if over > 0:
            kept = max(LEAST, widths[-1] - over)
            over -= max(0, widths[-1] - kept)
            widths[-1] = min(widths[-1], kept)
        for least in (needed, [LEAST] * len(widths)):
            while over > 0 and (wide := [place for place, one in enumerate(widths) if one > least[place]]):
                widths[max(wide, key=widths.__getitem__)] -= 1
                over -= 1
        return widths

    def _row(self, row: Sequence[tuple[str, str]], widths: Sequence[int]) -> None:
        parts = []
        for (text, color), room in zip(row, widths, strict=True):
            shown = text if width(text) <= room else self._cut(text, room)
            parts.append(self.paint(shown, color) + " " * (room - width(shown)))
        self._write("  ".join(parts).rstrip())

    def _cut(self, text: str, room: int) -> str:
        end = "…" if self.glyphs else "..."
        while text and width(text) > room - len(end):
            text = text[:-1]
        return text + end

    def _write(self, text: str) -> None:
        put(text + "\n")

    def _csv(self, records: Sequence[Record], columns: Sequence[str] = ()) -> None:
        import csv

        heads = list(dict.fromkeys([*columns, *(name for record in records for name in record)]))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(heads)
        for record in records:
            writer.writerow([_csv_cell(record.get(name)) for name in heads])
        put(text.getvalue())


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return json_text(value)
    text = clean(value, keep="\n\t")
    # A spreadsheet would take it for a formula, and carry it out.
    return f"'{text}" if value.lstrip(" ").startswith(_FORMULA) and not _NUMBER.fullmatch(value) else text
