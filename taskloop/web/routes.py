"""The table of routes: what each takes, and which one a request is for.

Pure. A `Route` says everything about itself, so dispatch can check the caller's scope and every parameter before a
handler is called, and the description of the API is made of the same table. Start at `Route`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote

from taskloop.errors import nearest
from taskloop.parameters import MISTAKES
from taskloop.web.core import Response
from taskloop.web.problems import Problem
from taskloop.web.security import Scope

__all__ = [
    "ANY",
    "FLAG",
    "INSTANT",
    "OBJECT",
    "TEXT",
    "TRIGGER",
    "Kind",
    "Parameter",
    "Route",
    "Router",
    "query_values",
    "read_body",
    "read_form",
    "whole",
    "word",
    "words",
]

Handler = Callable[[Any], Awaitable[Response]]
MOST_FIELDS, MOST_OF_A_JOB = 60, 1_000
"""Of a query or a form; of the form of a job, that has a field for each of its parameters."""
SHOWN: Final = 60
_LOST_PLUS: Final = re.compile(r"^ (?=\S)|(?<=\d) (?=\d\d(:?\d\d)?$)", re.ASCII)
"""A space in an instant where it can only have been a plus."""


class Kind(NamedTuple):
    """What a parameter may be: its JSON Schema, in words, and how it is read. `read` raises `ValueError`."""

    schema: Mapping[str, Any]
    allowed: str
    read: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One thing a route takes, in its query or its body. Left out, or null, it is None."""

    name: str
    kind: Kind
    summary: str
    required: bool = False
    many: bool = False
    """In a query: may be given several times."""
    own: bool = False
    """Of the page's own links, and nothing that people type: it is named to nobody who gives an unknown one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method of one address."""

    method: str
    path: str
    """From the mount on; a part in braces is a value."""
    name: str
    summary: str
    scope: Scope | None
    """What the caller must be allowed; None: nothing, it is open to all."""
    signs_in: bool = False
    """It is how one signs in: open to all, but guarded against other sites and foreign hosts as any other route."""
    handler: Handler
    query: tuple[Parameter, ...] = ()
    body: tuple[Parameter, ...] = ()
    free_body: str | None = None
    """The body is an object of any members, and this is what they are; None: of `body` alone."""
    page: bool = False
    """For people: it answers HTML, its body is a form, and so are the words with which it refuses."""
    headers: tuple[Parameter, ...] = ()
    gives: Mapping[int, str] = field(default_factory=lambda: {200: "object"})
    """The status of success, and the name of what comes with it."""
    example: str = ""
    """What follows the address in a command line of curl."""

    @property
    def narrowed_by(self) -> list[str]:
        """What a page that is looked at can be narrowed by."""
        return [] if self.writes or not self.page else [one.name for one in self.query if not one.own]

    @property
    def writes(self) -> bool:
        return self.method not in ("GET", "HEAD")


class Found(NamedTuple):
    """The route of a request, and the values in its path."""

    route: Route
    path: Mapping[str, str]


class Router:
    """Finds routes. Of two that fit, the one with more fixed parts is meant."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes: tuple[Route, ...] = tuple(routes)
        self._by_length: dict[int, list[tuple[tuple[str, ...], Route]]] = {}
        for route in self.routes:
            parts = tuple(route.path.strip("/").split("/"))
            self._by_length.setdefault(len(parts), []).append((parts, route))
        for same in self._by_length.values():
            same.sort(key=lambda one: sum(part.startswith("{") for part in one[0]))

    def find(self, method: str, path: str) -> Found:
        """The route, for HEAD that of GET. Raises `Problem`: 404, and 405 with what is allowed."""
        parts = path.strip("/").split("/")
        allowed: dict[str, None] = {}
        for pattern, route in self._by_length.get(len(parts), ()):
            if (values := _values(pattern, parts)) is None:
                continue
            if route.method == ("GET" if method == "HEAD" else method):
                return Found(route, values)
            allowed[route.method] = None
        if not allowed:
            raise Problem(
                404, "not-found", f"nothing is at {_cut(unquote(path))}", "GET /openapi.json lists all there is"
            )
        methods = ", ".join([*allowed, *(["HEAD"] if "GET" in allowed else [])])
        raise Problem(
            405,
            "method-not-allowed",
            f"{_cut(method)} is not for {_cut(unquote(path))}",
            f"allowed are {methods}",
            headers={"allow": methods},
        )

    def form_of(self, path: str) -> str | None:
        """The page on which the form stands that is sent to this address; None: none is."""
        path = f"/{path.strip('/')}"  # with two at its front it would lead to another host
        try:
            if not self.find("POST", path).route.page:
                return None
            while not _is_page(self, path):
                path = path.rpartition("/")[0]
        except Problem:
            return None
        return path or "/"


def _is_page(router: Router, path: str) -> bool:
    try:
        return router.find("GET", path).route.page
    except Problem:
        return path == ""


def _values(pattern: Sequence[str], parts: Sequence[str]) -> dict[str, str] | None:
    values = {}
    for wanted, given in zip(pattern, parts, strict=True):
        if wanted.startswith("{"):
            values[wanted[1:-1]] = unquote(given)
            if "\0" in values[wanted[1:-1]]:
                return None  # nothing that is kept has it in its name
        elif wanted != given:
            return None
    return values


# -- reading what was given


def query_values(query: str, route: Route) -> dict[str, Any]:
    """The values of a query string, all of the route's parameters in it. Raises `Problem` with the mistakes."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:
        raise Problem(400, "bad-request", f"the query has more than {MOST_FIELDS} fields") from None
    given: dict[str, Any] = {}
    known = {one.name: one for one in route.query}
    problems: dict[str, str] = {}
    for name, value in pairs:
        if name in given and name in known and known[name].many:
            given[name] = f"{given[name]},{value}"
        elif name in given:
            problems[name] = "is given twice"
        elif "\0" in value:
            problems[name] = "holds a NUL, and nothing that is kept does"
        elif value or name not in known or known[name].kind is TEXT:
            is_instant = name in known and known[name].kind is INSTANT
            given[name] = _with_plus(value) if is_instant and not route.page else value
    return _read(given, known, problems, where="query")


def _with_plus(instant: str) -> str:
    """An instant of a query with the plus that was written into it: one that is not percent-encoded comes as a space, so
    `+2h` would be two hours ago, and the offset `+01:00` none. Not for pages: a form encodes it, and people type spaces.
    """
    whole_day = ":" not in instant.rpartition(" ")[0] and "T" not in instant  # then what follows the space is its time
    return instant if whole_day and not instant.startswith(" ") else _LOST_PLUS.sub("+", instant)


def read_body(body: bytes, kind: str, route: Route) -> dict[str, Any]:
    """The values of a JSON body. Raises `Problem`: 400 for what is no JSON, 415, 422 with the mistakes."""
    if not body.strip():
        given: Any = {}
    else:
        if kind.partition(";")[0].strip().lower() != "application/json":
            raise Problem(
                415,
                "unsupported-media-type",
                f"the body is '{_cut(kind)}'" if kind else "the body says not what it is",
                "send JSON, with the header 'Content-Type: application/json'",
            )
        try:
            given = json.loads(body, parse_constant=_no_constant, object_pairs_hook=_once_each)
        except (ValueError, RecursionError) as error:
            raise Problem(400, "bad-request", f"the body is no JSON: {_cut(str(error))}") from None
    if not isinstance(given, dict):
        raise Problem(422, "invalid-value", f"the body is {_shown(given)}; an object is allowed, such as {{}}")
    if route.free_body is not None:
        return given
    return _read(given, {one.name: one for one in route.body}, {}, where="body")


def read_form(body: bytes, kind: str, route: Route) -> dict[str, Any]:
    """The fields of a form of a page. Raises `Problem`: 400, 415, 422 with the mistakes."""
    if body and kind.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise Problem(
            415, "unsupported-media-type", f"the body is '{_cut(kind)}', no form", "send the form of the page"
        )
    most = MOST_FIELDS if route.free_body is None else MOST_OF_A_JOB
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=most)
    except ValueError:
        raise Problem(400, "bad-request", f"the form cannot be read, or has more than {most} fields") from None
    given: dict[str, Any] = dict(pairs)
    if route.free_body is not None:
        return given
    return _read(given, {one.name: one for one in route.body}, {}, where="form")


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these members. RFC 8259, 4: readers differ about a name that is there twice, so it is refused."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"'{name}' is there twice")
        found[name] = value
    return found


def _read(
    given: Mapping[str, Any], known: Mapping[str, Parameter], problems: dict[str, str], *, where: str
) -> dict[str, Any]:
    values: dict[str, Any] = dict.fromkeys(known)
    for name, value in given.items():
        if len(problems) >= MISTAKES:
            break
        if name not in known:
            named = [one for one in known if not known[one].own]
            near = nearest(name, named)
            meant = f"; did you mean '{near}'?" if near else f"; known here: {', '.join(named) or 'none'}"
            problems.setdefault(name, f"is unknown{meant}")
        elif value is not None:
            try:
                values[name] = known[name].kind.read(value)
            except ValueError as error:
                said = f": {error}" if str(error) else ""
                problems[name] = f"is {_shown(value)}{said}; allowed is {known[name].kind.allowed}"
    for name, one in known.items():
        if one.required and values[name] is None:
            problems.setdefault(name, f"is missing; allowed is {one.kind.allowed}")
    if problems:
        listed = [{"parameter": _cut(name), "in": where, "detail": text} for name, text in problems.items()]
        told = "; ".join(f"'{_cut(name)}' {text}" for name, text in list(problems.items())[:5])
        raise Problem(422, "invalid-value", told, errors=listed)
    return values


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _shown(value: object) -> str:
    try:
        return _cut(repr(value))
    except ValueError:  # an int of more digits than Python prints
        return "a number of many digits"


# -- kinds


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004 - whoever catches it says what is allowed
    return value


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "1", "yes"):
        return True
    if value in ("false", "0", "no"):
        return False
    raise ValueError


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError  # noqa: TRY004 - as above
    return value


def _trigger(value: Any) -> Any:
    if not isinstance(value, dict | str):
        raise ValueError  # noqa: TRY004 - as above
    return value


def whole(least: int, most: int) -> Kind:
    """A whole number within bounds, both allowed."""

    def read(value: Any) -> int:
        if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 19:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError
        return value

    return Kind({"type": "integer", "minimum": least, "maximum": most}, f"a whole number from {least} to {most}", read)


def word(*allowed: str) -> Kind:
    """One of these words."""

    def read(value: Any) -> str:
        if value not in allowed:
            near = nearest(value, allowed) if isinstance(value, str) else None
            raise ValueError(f"did you mean '{near}'?" if near else "")
        return str(value)

    return Kind({"type": "string", "enum": list(allowed)}, ", ".join(allowed), read)


def words(*allowed: str) -> Kind:
    """Several of these words, with commas between."""
    one = word(*allowed)

    def read(value: Any) -> list[str] | None:
        # Of commas alone it is as if it were left out: none of the words was chosen, and not that none may be.
        return [one.read(part.strip()) for part in _text(value).split(",") if part.strip()] or None

    return Kind({"type": "string", "examples": [",".join(allowed[:2])]}, f"some of {', '.join(allowed)}", read)


TEXT: Final = Kind({"type": "string"}, "a text", _text)
FLAG: Final = Kind({"type": "boolean"}, "true or false", _flag)
OBJECT: Final = Kind({"type": "object"}, "an object, such as {}", _object)
ANY: Final = Kind({}, "any JSON", lambda value: value)
INSTANT: Final = Kind(
    {"type": "string", "examples": ["2026-03-01T02:00:00Z", "+2h"]},
    "an instant with its offset such as '2026-03-01T02:00:00Z', or a time from now such as '+2h'",
    _text,
)
TRIGGER: Final = Kind(
    {
        "oneOf": [
            {
                "type": "object",
                "properties": {"every": {"type": "string"}, "anchor": {"type": "string"}},
                "required": ["every"],
            },
            {
                "type": "object",
                "properties": {
                    "cron": {"type": "string"},
                    "timezone": {"type": "string"},
                    "gap": {"enum": ["after", "skip"]},
                    "fold": {"enum": ["once", "both"]},
                },
                "required": ["cron"],
            },
            {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
            {"type": "string"},
        ]
    },
    """{"every": "5m"}, {"cron": "0 2 * * *", "timezone": "Europe/London"} or {"at": "2030-01-01T00:00:00Z"}""",
    _trigger,
)
