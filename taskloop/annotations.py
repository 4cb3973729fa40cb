"""The annotations of a function as types, each found by itself.

Level 0, pure. `typing.get_type_hints` gives all or nothing: one name that exists for a type checker alone, and every other
annotation of the function would be a text too, which nobody checks a value by.
"""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Annotated, Any, ForwardRef, Literal, get_args, get_origin, get_type_hints

__all__ = ["annotations_of", "unfound"]


def annotations_of(function: Any) -> dict[str, Any]:
    """By parameter, and `return`, the type; the text where it names what cannot be found."""
    try:
        return get_type_hints(function, include_extras=True)
    except Exception:
        plain = inspect.unwrap(function)
        own = {one.__name__: one for one in getattr(plain, "__type_params__", ())}  # def f[T](…), since 3.12
        known = {**getattr(plain, "__globals__", {}), **own}
        return {name: _found(name, hint, known) for name, hint in getattr(function, "__annotations__", {}).items()}


def _found(name: str, hint: Any, known: dict[str, Any]) -> Any:
    alone: Any = SimpleNamespace(__annotations__={name: hint})
    try:
        return get_type_hints(alone, globalns=known, include_extras=True)[name]
    except Exception:  # whatever the text of an annotation comes to
        return hint


def unfound(hint: Any) -> str | None:
    """What an annotation names, itself or within, that could not be found; None: it is all there."""
    if isinstance(hint, ForwardRef):
        return hint.__forward_arg__
    if isinstance(hint, str):
        return hint.strip("'\"")
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return None
    return next(filter(None, map(unfound, inner[:1] if origin is Annotated else inner)), None)
