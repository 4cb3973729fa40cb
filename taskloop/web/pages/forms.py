"""Forms from a job's parameters: a field for each, and from what was typed the values again. Pure.

A form sends texts; what a text stands for says the parameter's JSON Schema. What cannot be read is handed on as it is, so
that the job's own check refuses it in the same words as anywhere else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from taskloop.masking import MASK

__all__ = ["PREFIX", "Field", "fields", "typed"]

PREFIX: Final = "p."
"""Stands before the name of a parameter in a form, so that none is taken for another field."""


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
    step: str = ""
    error: str = ""

    @property
    def id(self) -> str:
        return f"field-{self.name}"


def fields(
    schema: Mapping[str, Any], given: Mapping[str, Any] | None = None, problems: Mapping[str, str] | None = None
) -> list[Field]:
    """The fields of a job's parameters. `given`: values to begin with, plain or as they were typed; None: the defaults."""
    required = schema.get("required", ())
    return [
        _field(name, one, name in required, given, (problems or {}).get(name, ""))
        for name, one in schema.get("properties", {}).items()
    ]


def _field(name: str, schema: Mapping[str, Any], required: bool, given: Mapping[str, Any] | None, error: str) -> Field:
    one, optional = _plain(schema)
    value = given[name] if given is not None and name in given else schema.get("default")
    shown = _shown(value, one)
    hint = _hint(one, schema, optional)
    kind, step = _kind(one), ""
    choices: tuple[str, ...] = ()
    if one.get("writeOnly") or schema.get("writeOnly"):
        kind, shown = "password", ""
    elif kind == "number":
        step = "1" if one["type"] == "integer" else "any"
    elif kind == "select":
        choices = (*([""] if optional or not required else []), *(_shown(choice, {}) for choice in one["enum"]))
    return Field(
        name=name, kind=kind, hint=hint, value=shown, checked=value in (True, "on", "true"), choices=choices,
        required=required and kind != "checkbox", step=step, error=error,
    )  # fmt: skip


def _plain(schema: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """The schema without null, and whether null is allowed; what it refers to in its own definitions in its place."""
    kinds = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    optional = len(kinds) < len(schema.get("anyOf", [schema]))
    if len(kinds) != 1:
        return {}, optional
    one = kinds[0]
    reference = one.get("$ref", "")
    found = schema.get("$defs", {}).get(reference.rpartition("/")[2]) if reference.startswith("#/$defs/") else None
    return found if found is not None else one, optional


def _kind(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return "select"
    match schema.get("type"):
        case "boolean":
            return "checkbox"
        case "integer" | "number":
            return "number"
        case "string":
            return {"date": "date"}.get(str(schema.get("format")), "text")
        case _:
            return "textarea"


def _hint(one: Mapping[str, Any], schema: Mapping[str, Any], optional: bool) -> str:
    words = str(one.get("format") or one.get("type") or "JSON")
    if _kind(one) == "textarea":
        words = {"array": "JSON list", "object": "JSON object"}.get(words, "JSON")
    bounds = {"minimum": "≥", "maximum": "≤", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}
    parts = [words, *(f"{sign} {one[name]}" for name, sign in bounds.items() if name in one)]
    if optional:
        parts.append("may be left empty")
    if "default" in schema:
        parts.append(f"default {_shown(schema['default'], {}) or 'none'}")
    return ", ".join(parts)


def _shown(value: Any, schema: Mapping[str, Any]) -> str:
    if value is None or value == MASK:
        return ""
    if isinstance(value, str) and _kind(schema) != "textarea":
        return value
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def typed(schema: Mapping[str, Any], form: Mapping[str, str]) -> dict[str, Any]:
    """The parameters that were typed into a form. An empty field is left out, so that its default counts."""
    params: dict[str, Any] = {}
    for name, whole in schema.get("properties", {}).items():
        one, _ = _plain(whole)
        text = form.get(PREFIX + name, "")
        kind = _kind(one)
        if kind == "checkbox":
            params[name] = text != ""
        elif text != "":
            params[name] = _value(text, kind, one)
    return params


def _value(text: str, kind: str, schema: Mapping[str, Any]) -> Any:
    if kind == "select":
        return next((choice for choice in schema["enum"] if _shown(choice, {}) == text), text)
    if kind in ("number", "textarea"):
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            return text
    return text
