"""Forms from a job's parameters: a field for each, and from what was typed the values again. Pure.

A form sends texts; what a text stands for says the parameter's JSON Schema. What cannot be read is handed on as it is, so
that the job's own check refuses it in the same words as anywhere else. A date with a time is typed on the clock of a zone,
for that is what the browser's own control knows. A field that was left alone means the very value that it showed: a browser
has but one kind of line break, and a control for dates no microseconds, nor seconds where they are none.

A number is typed as a text: of what it cannot read, a browser's own control for numbers sends nothing, or `55` for `5,5`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final

from taskloop.masking import MASK
from taskloop.parameters import FIXED

__all__ = ["PREFIX", "Field", "fields", "in_a_gap", "no_json", "strays", "typed"]

PREFIX: Final = "p."
"""Stands before the name of a parameter in a form, so that none is taken for another field."""
NONE: Final = "null"
_MOST_ROWS: Final = 10
_JSON_ROWS: Final = 3
_HINTED: Final = 60
"""Characters of a default that a hint names, or of keys."""
_NAMED: Final = {
    "string": " of texts",
    "integer": " of whole numbers",
    "number": " of numbers",
    "boolean": " of true and false",
    "array": " of lists",
    "object": " of objects",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One control of a form."""

    name: str
    kind: str
    """`checkbox`, `select`, `number`, `text`, `textarea`, `password`, `date` or `datetime-local`."""
    hint: str
    """What it takes, in words."""
    value: str = ""
    checked: bool = False
    choices: Sequence[str] = ()
    required: bool = False
    keys: str = ""
    """Which keys a phone shows for it; empty: all of them."""
    rows: int = 1
    """Of a textarea, which grows with what is typed."""
    error: str = ""
    first_error: bool = False
    """It is the first that is wrong: there whoever typed goes on."""

    @property
    def id(self) -> str:
        return f"field-{self.name}"


def fields(
    schema: Mapping[str, Any],
    given: Mapping[str, Any] | None = None,
    problems: Mapping[str, str] | None = None,
    zone: tzinfo = UTC,
    form: Mapping[str, str] | None = None,
) -> list[Field]:
    """The fields of a job's parameters. `given`: values to begin with; None: the defaults. `form`: what was typed into
    them and refused, which stands there again as it was typed.
    """
    required = schema.get("required", ())
    made = [
        _field(name, one, name in required, given, (problems or {}).get(name, ""), zone, form)
        for name, one in _open(schema)
    ]
    first = next((one for one in made if one.error), None)
    return [replace(one, first_error=True) if one is first else one for one in made]


def _open(schema: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """The parameters that a call may give, each with its schema: not those that are for the declaration alone to say."""
    return [(name, one) for name, one in schema.get("properties", {}).items() if FIXED not in one]


def _field(
    name: str, schema: Mapping[str, Any], required: bool, given: Mapping[str, Any] | None, error: str, zone: tzinfo,
    form: Mapping[str, str] | None,
) -> Field:  # fmt: skip
    one, optional = _plain(schema)
    value = given[name] if given is not None and name in given else schema.get("default")
    shown, kind, rows, hint = _begins(value, schema, zone), _kind(one), 1, _hint(one, schema, optional, zone)
    choices: tuple[str, ...] = ()
    if form is not None:
        shown = value = _lines(form.get(PREFIX + name, ""))
    if one.get("writeOnly") or schema.get("writeOnly"):
        control = "password"
        hint += "; what was typed is not shown again: type it anew" if form is not None and shown else ""
        shown = ""
    elif kind == "json":
        control, rows = "textarea", max(_JSON_ROWS, _rows(shown))
    elif kind == "text" and ("format" not in one or _rows(shown) > 1):  # any other control deletes line breaks
        control, rows = "textarea", _rows(shown)
    else:
        control = kind
    if kind == "select":
        choices = tuple(map(_choice, one["enum"]))
        if "" not in choices and (optional or not required or value in (None, "")):
            choices = ("", *choices)  # else a browser would send the first of them, which nobody chose
        choices += (NONE,) if _takes_none(one, schema, optional) else ()
    return Field(
        name=name, kind=control, hint=hint, value=shown, checked=value in (True, "on", "true"),
        choices=choices, required=required and not optional and control != "checkbox", keys=_keys(one), rows=rows, error=error,
    )  # fmt: skip


def _keys(schema: Mapping[str, Any]) -> str:
    """Those of digits alone have no minus on many a phone."""
    least = min(schema.get("minimum", math.inf), schema.get("exclusiveMinimum", math.inf))
    if _kind(schema) != "number" or not 0 <= least < math.inf:
        return ""
    return "numeric" if schema["type"] == "integer" else "decimal"


def _rows(text: str) -> int:
    return min(_MOST_ROWS, 1 + _lines(text).count("\n"))


def _lines(text: str) -> str:
    """A text with the one line break that a page knows."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _plain(schema: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """The schema without null, and whether null is allowed; what it refers to in its own definitions in its place."""
    kinds = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    optional = len(kinds) < len(schema.get("anyOf", [schema]))
    if len(kinds) == 2 and kinds[1].get("format") == "decimal":  # as a text: a number would be rounded
        return {**kinds[0], **kinds[1]}, optional
    if len(kinds) != 1:
        return {}, optional
    one = kinds[0]
    if "anyOf" in one:
        return _plain({**one, "$defs": schema.get("$defs", {})})[0], optional
    reference = one.get("$ref", "")
    found = schema.get("$defs", {}).get(reference.rpartition("/")[2]) if reference.startswith("#/$defs/") else None
    if optional and one.get("type") == "boolean":  # a box that is ticked or not has no third state
        return {"enum": [True, False], **one}, optional
    return found if found is not None else one, optional


def _kind(schema: Mapping[str, Any]) -> str:
    """How what is typed is read: as `json`, a `text`, or by the control of that name."""
    if "enum" in schema:
        return "select"
    match schema.get("type"):
        case "boolean":
            return "checkbox"
        case "integer" | "number":
            return "number"
        case "string":
            return {"date": "date", "date-time": "datetime-local"}.get(str(schema.get("format")), "text")
        case _:
            return "json"


def _hint(one: Mapping[str, Any], schema: Mapping[str, Any], optional: bool, zone: tzinfo) -> str:
    words = str(one.get("format") or one.get("type") or "JSON")
    if _kind(one) == "datetime-local":
        words = f"date and time of {zone}"
    if _kind(one) == "json":
        words = _json_words(one, schema.get("$defs", {}))
    bounds = {"minimum": "≥", "maximum": "≤", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}
    parts = [words, *(f"{sign} {one[name]}" for name, sign in bounds.items() if name in one)]
    if _takes_none(one, schema, optional):
        parts.append(f"{NONE} for none")
    elif optional and schema.get("default") is None:
        parts.append("may be left empty")
    if "default" in schema:
        parts.append(f"default {_default(schema['default'])}")
    return ", ".join(parts)


def _json_words(one: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """What is typed as JSON, and what is to be in it: the keys of a model, which nobody knows by heart."""
    match one.get("type"):
        case "array":
            inner = _plain({**one.get("items", {}), "$defs": definitions})[0]
            of = _NAMED.get(str(inner.get("type")), "")
            return f"JSON list{of}{_keys_of(inner)}"
        case "object":
            return f"JSON object{_keys_of(one)}"
        case _:
            return "JSON"


def _keys_of(schema: Mapping[str, Any]) -> str:
    names, required = list(schema.get("properties", {})), schema.get("required", ())
    must, may = ([name for name in names if (name in required) is is_must] for is_must in (True, False))
    parts = [f" with {_listed(must)}" if must else "", f"if wanted, {_listed(may)}" if may else ""]
    return (" and, " if must else " with, ").join(parts) if may else parts[0]


def _listed(names: Sequence[str]) -> str:
    text = ", ".join(map(json.dumps, names))
    return text if len(text) <= _HINTED else f"{text[: _HINTED - 1]}…"


def _takes_none(one: Mapping[str, Any], schema: Mapping[str, Any], optional: bool) -> bool:
    """Whether none is typed as a word: an empty field means the default, and that is another."""
    if not optional or schema.get("default") is None:
        return False
    return _kind(one) in ("number", "json") or (_kind(one) == "select" and NONE not in map(_choice, one["enum"]))


def _default(value: Any) -> str:
    """A default in a hint: as JSON where it would not be seen as what it is."""
    if value is None:
        return "none"
    plain = isinstance(value, str) and value.strip() == value and value.isprintable() and value not in ("", "none")
    text = value if plain else json.dumps(value, ensure_ascii=isinstance(value, str))
    return text if len(text) <= _HINTED else f"{text[: _HINTED - 1]}…"


def _begins(value: Any, schema: Mapping[str, Any], zone: tzinfo) -> str:
    """What stands in the field of a parameter of this value."""
    one, optional = _plain(schema)
    return NONE if value is None and _takes_none(one, schema, optional) else _lines(_shown(value, one, zone))


def _shown(value: Any, schema: Mapping[str, Any], zone: tzinfo = UTC) -> str:
    if value is None or value == MASK:
        return ""
    if _kind(schema) == "datetime-local" and isinstance(value, str):
        return _on_the_clock(value, zone)
    if isinstance(value, str) and not (_kind(schema) == "json" and _is_json(value)):
        return value
    return json.dumps(value, ensure_ascii=False)


def _choice(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _on_the_clock(text: str, zone: tzinfo) -> str:
    """An instant as a field for dates shows it: without its offset, to the millisecond."""
    try:
        at = datetime.fromisoformat(text)
        local = at if at.tzinfo is None else at.astimezone(zone).replace(tzinfo=None)
    except (ValueError, OverflowError):  # no instant, or on that clock none of the years 1 to 9999
        return text
    return local.isoformat(timespec="milliseconds" if local.microsecond else "seconds")


def typed(
    schema: Mapping[str, Any], form: Mapping[str, str], zone: tzinfo = UTC, *, before: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The parameters that were typed into a form. An empty field is left out, so that its default counts; where there is
    none and null is allowed, it means null.

    `before`: those of a run that is repeated, as the form showed them. Then only what was changed is given, and a field
    that was emptied goes back to its default.
    """
    params: dict[str, Any] = {}
    for name, whole in _open(schema):
        one, optional = _plain(whole)
        text = _lines(form.get(PREFIX + name, ""))
        kind = _kind(one)
        if before is not None and _is_as_it_was(text, whole, before.get(name, whole.get("default")), zone):
            continue
        if kind == "checkbox":
            params[name] = text != ""
        elif text != "" and "default" in whole and _is_as_it_was(text, whole, whole["default"], zone):
            params[name] = whole["default"]
        elif text == NONE and _takes_none(one, whole, optional):
            params[name] = None
        elif text != "":
            params[name] = _value(text, kind, one, zone, exact='"decimal"' in json.dumps(whole))
        elif before is not None:
            params[name] = whole.get("default")
        elif optional and name in schema.get("required", ()):
            params[name] = None
    return params


def strays(schema: Mapping[str, Any], form: Mapping[str, str]) -> list[str]:
    """Parameters for which something was typed that the form has no field for: an older page had one."""
    here = {f"{PREFIX}{name}" for name, _ in _open(schema)}
    return sorted(
        name.removeprefix(PREFIX) for name in form if name.startswith(PREFIX) and name not in here and form[name]
    )


def no_json(schema: Mapping[str, Any], form: Mapping[str, str]) -> dict[str, str]:
    """By parameter why what was typed as a JSON list or object is none."""
    problems = {}
    for name, whole in _open(schema):
        kind = _plain(whole)[0].get("type")
        if kind in ("array", "object") and (text := form.get(PREFIX + name, "")):
            try:
                json.loads(text)
            except (ValueError, RecursionError) as error:
                such = 'list, such as ["a", "b"]' if kind == "array" else 'object, such as {"a": 1}'
                problems[name] = f"is no JSON {such}: {error}"
    return problems


def in_a_gap(
    schema: Mapping[str, Any], form: Mapping[str, str], zone: tzinfo, params: Mapping[str, Any]
) -> dict[str, str]:
    """By parameter why a date and time that was typed is none: the clock of the zone is put forward over it.

    `params`: what `typed` made of the form. What was left alone there is a value that somebody else has given.
    """
    problems = {}
    for name, whole in _open(schema):
        if name not in params or params[name] == whole.get("default") or _kind(_plain(whole)[0]) != "datetime-local":
            continue
        try:
            at = datetime.fromisoformat(form.get(PREFIX + name, ""))
            shown = at.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None)
        except (ValueError, OverflowError):  # no instant, or beyond the years 1 to 9999
            continue
        if at.tzinfo is None and shown - at >= timedelta(seconds=1):
            problems[name] = (
                f"is a time that there is not: the clock of {zone} is put forward over it; write {shown:%H:%M}, or another"
            )
    return problems


def _is_as_it_was(text: str, schema: Mapping[str, Any], value: Any, zone: tzinfo) -> bool:
    kind = _kind(_plain(schema)[0])
    if kind == "checkbox":
        return (text != "") is bool(value)
    shown = _begins(value, schema, zone)
    return text == shown or (kind == "datetime-local" and _is_same_clock(text, shown))


def _is_same_clock(text: str, shown: str) -> bool:
    """A browser sends no seconds where they are 0."""
    try:
        return datetime.fromisoformat(text) == datetime.fromisoformat(shown)
    except ValueError:
        return False


def _value(text: str, kind: str, schema: Mapping[str, Any], zone: tzinfo, *, exact: bool = False) -> Any:
    """`exact`: there are decimals within, which a float would round."""
    if kind == "datetime-local":
        try:
            at = datetime.fromisoformat(text)
        except ValueError:
            return text
        return (at if at.tzinfo is not None else at.replace(tzinfo=zone)).isoformat()
    if kind == "select":
        return next((choice for choice in schema["enum"] if _lines(_choice(choice)) == text), text)
    if kind in ("number", "json"):
        try:
            found = json.loads(text, parse_float=str if exact else None)
        except (ValueError, RecursionError):
            return text
        return found if kind == "json" or (isinstance(found, int | float) and not isinstance(found, bool)) else text
    return text
