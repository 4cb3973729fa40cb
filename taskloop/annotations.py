"""The annotations of a function as types, each found by itself.

Level 0, pure. `typing.get_type_hints` gives all or nothing: one name that exists for a type checker alone, and every other
annotation of the function would be a text too, which nobody checks a value by. Since Python 3.14 an annotation is evaluated
when somebody asks for it, `inspect.signature` too, which then raises `NameError` for such a name: ask here instead.
"""

from __future__ import annotations

import inspect
import sys
from types import SimpleNamespace
from typing import Annotated, Any, ForwardRef, Literal, get_args, get_origin, get_type_hints

if sys.version_info >= (3, 14):
    from annotationlib import Format, get_annotations

__all__ = ["annotations_as_they_stand", "annotations_of", "signature_of", "unfound"]


def signature_of(function: Any) -> inspect.Signature:
    """What a function takes, also where its annotations name what cannot be found. Raises what `inspect.signature` does."""
    if sys.version_info >= (3, 14):
        return inspect.signature(function, annotation_format=Format.FORWARDREF)
    return inspect.signature(function)


def annotations_as_they_stand(function: Any) -> dict[str, Any]:
    """By parameter, and `return`, what was written: a type, or the text of one; since 3.14 a `ForwardRef` where a name is missing."""
    if sys.version_info >= (3, 14):
        return get_annotations(function, format=Format.FORWARDREF) if callable(function) else {}
    return dict(getattr(function, "__annotations__", {}))


def annotations_of(function: Any) -> dict[str, Any]:
    """By parameter, and `return`, the type; the text where it names what cannot be found."""
    try:
        return get_type_hints(function, include_extras=True)
    except Exception:
        plain = inspect.unwrap(function)
        own = {one.__name__: one for one in getattr(plain, "__type_params__", ())}  # def f[T](…), since 3.12
        known = {**getattr(plain, "__globals__", {}), **own}
        return {name: _found(name, hint, known) for name, hint in annotations_as_they_stand(function).items()}


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
