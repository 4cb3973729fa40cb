"""Parameters of a job, read off its signature: checked before a record exists, rebuilt for the call.

Level 2, pure. pydantic does the reading and writing by annotation; it is imported when the first value needs it, since
most jobs take none and its import costs more than the rest of the engine.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from copy import deepcopy
from datetime import timedelta
from functools import cache, cached_property
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from taskloop.annotations import annotations_of, signature_of, unfound
from taskloop.durations import parse
from taskloop.errors import BadJob, BadParameters, NotInjected, Unstorable, nearest
from taskloop.inject import Injected, InjectionPlan, is_context
from taskloop.masking import MASK, TAG, Secret, covered, uncovered
from taskloop.misfits import TOO_DEEP, cut, holds_tag, invalid, is_deep, unstorable
from taskloop.outcomes import LEVELS

__all__ = ["FIXED", "RESERVED", "Parameters", "check_words"]

WORDS: Final = 10_000
"""Characters that a reason, an actor or a key may have."""
MISTAKES: Final = 20
"""That are told at once, beside what is missing: to look for what was meant by a name is dear, and thousands may be sent."""
FIXED: Final = "x-fixed"
"""Marks in a schema what is for the declaration of the job alone to say; `readOnly` may be an annotation's own."""
RESERVED: Final = "reserved"
"""In `Annotated[...]`: where a declaration gives parameters, a call may give this one no other value than it says."""
TAKEN_ELSEWHERE: Final = (
    "another version of the program took it, this one does not; ask for a new run instead, without it"
)
"""Of runs that another version of the program was asked for: what to do where it took other parameters."""


class Parameters:
    """What a job's function takes, apart from what the engine injects."""

    def __init__(self, job: str, function: Callable[..., Any]) -> None:
        self._job = job
        self._function = function
        self._signature = signature_of(function)
        for parameter in self._signature.parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise BadJob(
                    f"job '{job}' takes '{parameter}', which cannot be stored by name; "
                    "give every parameter a name of its own, without '/', '*' or '**'"
                )
        self.injected: dict[str, Injected] = {
            name: one.default for name, one in self._signature.parameters.items() if isinstance(one.default, Injected)
        }
        """What the engine gives by the plan: no parameters of a run."""
        self.plan: InjectionPlan | None = InjectionPlan.of(job, self.injected) if self.injected else None
        self.takers: Mapping[str, str] | None = None
        """Of a flow alone: what to add where a parameter is missing, by its name: which step takes it."""
        self._declared: dict[str, Any] = {}
        self._named_secret: frozenset[str] = frozenset()
        self._adapters: dict[str, Any] = {}
        self._covered: dict[str, bool] = {}
        self._aliased: dict[str, bool] = {}

    @cached_property
    def _hints(self) -> dict[str, Any]:
        return annotations_of(self._function)

    @cached_property
    def context_name(self) -> str | None:
        """The parameter that receives the `RunContext`; None: the job does not ask for it."""
        for name in self._signature.parameters:
            if is_context(self._hints.get(name)) and name not in self.injected:
                return name
        return None

    @cached_property
    def names(self) -> dict[str, inspect.Parameter]:
        """The parameters that are stored with a run, in the order of the signature."""
        left_out = {self.context_name, *self.injected}
        return {name: one for name, one in self._signature.parameters.items() if name not in left_out}

    @cached_property
    def _unread(self) -> tuple[str, ...]:
        """Those of which the annotation names what cannot be found, or could not when it was read."""
        return tuple(name for name in self.names if unfound(self._hints.get(name)))

    @property
    def is_unread(self) -> bool:
        """Whether an annotation names what was not there yet: a class may stand below the function."""
        return bool(self._unread)

    def refuse_unread(self) -> None:
        """Raise `BadJob` for an annotation that names what cannot be found: nothing could be checked by it, or be secret."""
        if not self._unread:
            return
        for read in ("_hints", "_unread", "_reserved", "_secret_by_type", "_secret_defaults"):  # by now it may be there
            self.__dict__.pop(read, None)
        for name in self._unread:
            raise BadJob(
                f"job '{self._job}': the annotation of '{name}' names '{unfound(self._hints[name])}', which cannot be found; "
                "define it at the top of a module, or import it there, not under TYPE_CHECKING"
            )

    def keep_secret(self, names: Collection[str]) -> None:
        """Take these parameters for secret, whatever their annotations. Raises `BadJob` for a name that is none."""
        for name in names:
            if name not in self.names:
                near = nearest(name, self.names)
                meant = f"; did you mean '{near}'?" if near else ""
                raise BadJob(f"job '{self._job}': secret names '{name}', which is no parameter of it{meant}")
        self._named_secret = frozenset(names)

    def is_secret(self, name: str) -> bool:
        """Whether a parameter is never shown: it was named so, or there is a pydantic secret in its annotation."""
        return name in self._named_secret or name in self._secret_by_type

    def secrets(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What is secret of a call with these parameters, defaults of the function among it."""
        if not given and not self._secret_defaults:
            return {}
        defaults = {name: value for name, value in self._secret_defaults.items() if name not in given}
        return defaults | {name: value for name, value in given.items() if isinstance(value, Secret)}

    @cached_property
    def _secret_defaults(self) -> dict[str, Secret]:
        found = {}
        for name, one in self.names.items():
            if one.default not in (one.empty, None) and self.is_secret(name):
                with suppress(Exception):  # one that cannot be stored is no text that could be shown
                    found[name] = Secret(self._plain(name, one.default))
        return found

    @cached_property
    def _secret_by_type(self) -> frozenset[str]:
        return frozenset(name for name in self.names if self._typed(name) and self._hides(name))

    def _hides(self, name: str) -> bool:
        hint = self._hints[name]
        if any(hint is one for one in _OPEN):
            return False
        return covered(hint) or '"writeOnly": true' in json.dumps(self._described(name))

    @cached_property
    def required(self) -> tuple[str, ...]:
        """Those that a call must give: the function has no default for them, and the declaration says nothing."""
        return tuple(name for name in self._without_default if name not in self._declared)

    @cached_property
    def _without_default(self) -> tuple[str, ...]:
        return tuple(name for name, one in self.names.items() if one.default is one.empty)

    @cached_property
    def _reserved(self) -> frozenset[str]:
        return frozenset(name for name in self.names if RESERVED in getattr(self._hints.get(name), "__metadata__", ()))

    def declare(self, given: Mapping[str, Any], *, whole: bool) -> dict[str, Any]:
        """Take what the declaration of the job gives, for what a call leaves out; gives it as `check` does.

        `whole`: it is called with these alone too, so that none may be missing. Raises `BadParameters`.
        """
        self._declared = {}
        self.__dict__.pop("required", None)
        self._declared = self._checked({}, given, self.required if whole else ())
        self.__dict__.pop("required", None)
        return self._declared

    def named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments as a caller of the function writes them, by name. Raises `BadParameters`."""
        if not args:
            return dict(kwargs)
        if len(args) > len(self.names):
            surplus = f"stands for {len(args)} values without a name; at most {len(self.names)} can be taken"
            raise BadParameters(self._job, {"*": surplus})
        given = dict(zip(self.names, args, strict=False))
        twice = [name for name in kwargs if name in given]
        if twice:
            raise BadParameters(self._job, dict.fromkeys(twice, "is given twice"))
        return given | dict(kwargs)

    def check(self, given: Mapping[str, Any], *, over: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The values as plain JSON, ready to store, laid over what the declaration gives and then those of an earlier call.

        None: there is no such call. Raises `BadParameters` with every mistake at once, of very many with the first.
        """
        beneath = self._declared
        if over:
            beneath = {**beneath, **{name: value for name, value in over.items() if not self._is_fixed(name)}}
        return self._checked(beneath, given, self.required)

    def _checked(
        self, beneath: Mapping[str, Any], given: Mapping[str, Any], required: Collection[str]
    ) -> dict[str, Any]:
        self.refuse_unread()
        values = {**beneath, **given} if beneath else given
        if not values and not required:
            return {}
        takers = self.takers or {}
        problems = {name: f"is missing{takers.get(name, '')}" for name in required if name not in values}
        plain: dict[str, Any] = {}
        most = len(problems) + MISTAKES
        for name, value in values.items():
            if len(problems) >= most:
                break
            if name in self.injected:
                problems[name] = "is injected; leave it out, the engine gives it"
                continue
            if name not in self.names:
                problems[name] = self._unknown(name) if name in given else f"is unknown: {TAKEN_ELSEWHERE}"
                continue
            if isinstance(value, str) and value == MASK and self.is_secret(name):
                problems[name] = "is what stands for a secret, not the secret; give the value itself"
                continue
            try:
                kept = self._plain(name, _clear(value))
            except Exception as error:  # a validator of the job's own may raise anything
                problems[name] = self._problem(name, value, error)
                continue
            if name in given and self._is_fixed(name) and not self._is_said(name, kept, beneath):
                problems[name] = "is for the declaration of the job to say; change it there"
                continue
            # What came as a secret stays one, also where it is handed on to a parameter that is none.
            plain[name] = Secret(kept) if self.is_secret(name) or isinstance(value, Secret) else kept
        if problems:
            raise BadParameters(self._job, problems)
        return plain

    def _unknown(self, name: str) -> str:
        near = nearest(name, self.names)
        hints = [f"did you mean '{near}'?"] if near else []
        if name in _OF_THE_RUN:
            hints.append(
                "what is said of the run stands beside them: `.bind(...).submit(at='+1m', key='a')`, `--at +1m`"
            )
        return "; ".join(["is unknown", " ".join(hints)]) if hints else "is unknown"

    def _is_fixed(self, name: str) -> bool:
        """Whether a parameter is for the declaration to say, and it says something."""
        return bool(self._declared) and name in self._reserved

    def _is_said(self, name: str, value: Any, beneath: Mapping[str, Any]) -> bool:
        """Whether a value is the one that a call which leaves it out would have."""
        if name in beneath:
            return bool(_clear(beneath[name]) == value)
        default = self.names[name].default
        return default is not inspect.Parameter.empty and bool(self._plain(name, default) == value)

    def refuse_uninjected(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Refuse a plain call without what the engine would have injected. Raises `NotInjected`."""
        given = {*list(self._signature.parameters)[: len(args)], *kwargs}
        if missing := [name for name in self.injected if name not in given]:
            raise NotInjected(self._job, missing)

    def as_declared(self, plain: Mapping[str, Any]) -> Mapping[str, Any]:
        """What was stored, but what is for the declaration alone to say as it says it by now: a schedule may have been
        stored, or a run have waited, since before that, and workers of two versions may have different ones.
        """
        if not (self._declared and self._reserved):
            return plain
        own = {name: value for name, value in plain.items() if name not in self._reserved}
        return own | {name: value for name, value in self._declared.items() if name in self._reserved}

    def rebuild(self, plain: Mapping[str, Any], schedule: str | None = None) -> dict[str, Any]:
        """The values for the call, by annotation, from what was stored; the job may do with them what it likes.

        `schedule`: the one that gave them, if one did. Raises `BadParameters` where an older version of the function
        stored what does not fit any more.
        """
        if not plain:
            return {}
        own = {name: _clear(value) for name, value in plain.items()}
        own = {name: deepcopy(value) if isinstance(value, dict | list) else value for name, value in own.items()}
        problems: dict[str, str] = {}
        for name, value in own.items():
            if self._typed(name):
                try:
                    own[name] = _validated(self._adapter(name), value)
                except Exception as error:
                    problems[name] = self._problem(name, plain[name], error)
                    if self._is_stored(schedule):
                        problems[name] += f"; schedule '{schedule}' gives it: store that again with another"
        if problems:
            raise BadParameters(self._job, problems)
        return own

    def refuse_another_version(self, plain: Mapping[str, Any], schedule: str | None) -> None:
        """Refuse to call with what another version of the function was asked for, and this one cannot take.

        `schedule`: the one that gave it, if one did. Raises `BadParameters`.
        """
        missing = [name for name in self._without_default if name not in plain]
        unknown = [name for name in plain if name not in self.names]
        if missing or unknown:
            text = f"{TAKEN_ELSEWHERE}, or, where that is the newer one, run it again once every worker has it"
            if self._is_stored(schedule):
                text = f"schedule '{schedule}' gives it, stored for another version of the program; store that again without it"
            told = dict.fromkeys(missing, f"is missing: {self.ungiven(schedule)}")
            raise BadParameters(self._job, told | dict.fromkeys(unknown, f"is unknown: {text}"))

    def ungiven(self, schedule: str | None) -> str:
        """Why a run has no value for a parameter that is needed, and what to do; `schedule`: the one that fired it."""
        if self._is_stored(schedule):
            return f"schedule '{schedule}' was stored without it; store that again with a value for it, or give it a default"
        return (
            "the run was asked for by a version of the program that does not need it; run it again with a value for it, or "
            "give it a default"
        )

    def _is_stored(self, schedule: str | None) -> bool:
        """Whether it is a schedule beside the job's own, which fires with what was stored until that is changed."""
        return schedule is not None and schedule != self._job

    @property
    def returns(self) -> Any:
        """The return annotation; None: there is none."""
        return self._hints.get("return")

    def value(self, plain: Any) -> Any:
        """A stored result rebuilt by the return annotation; as it is where there is none."""
        return plain if plain is None or not self.reads_results else _validated(self._returned, plain)

    @property
    def reads_results(self) -> bool:
        """Whether what it returned is read by an annotation."""
        return not (self.returns is None or self.returns is Any or isinstance(self.returns, str))

    def expect(self) -> None:
        """Make what reads a stored result, which takes its time. Raises nothing: the reading itself will say what is wrong."""
        if self.reads_results and self.returns is not type(None):
            with suppress(Exception):
                self._returned  # noqa: B018 - made when it is first asked for, and kept

    @cached_property
    def _returned(self) -> Any:
        from pydantic import TypeAdapter

        return TypeAdapter(self.returns)

    def schema(self) -> dict[str, Any]:
        """A JSON Schema of the parameters as an object."""
        if not self.names:
            return {"type": "object", "properties": {}, "additionalProperties": False}
        properties = {name: self._property(name, one) for name, one in self.names.items()}
        return {
            "type": "object",
            "properties": properties,
            "required": list(self.required),
            "additionalProperties": False,
        }

    def _property(self, name: str, parameter: inspect.Parameter) -> dict[str, Any]:
        schema = self._described(name)
        if self._is_fixed(name):
            schema |= {"readOnly": True, FIXED: True}
        if self.is_secret(name):
            return {**schema, "writeOnly": True}
        if name in self._declared:
            schema["default"] = _clear(self._declared[name])
        elif parameter.default is not parameter.empty:
            with suppress(Exception):  # a default that is no JSON stays the function's own business
                schema["default"] = self._plain(name, parameter.default)
        return schema

    def _described(self, name: str) -> dict[str, Any]:
        """The JSON Schema of a parameter's annotation; empty where it has none."""
        if not self._typed(name):
            return {}
        try:
            schema: dict[str, Any] = self._adapter(name).json_schema(schema_generator=_generator())
        except Exception:  # a type that JSON Schema has no word for, or none of pydantic's
            return {}
        return schema

    def _typed(self, name: str) -> bool:
        hint = self._hints.get(name, Any)
        return hint is not Any and name not in self._unread

    def _adapter(self, name: str) -> Any:
        if name not in self._adapters:
            from pydantic import TypeAdapter

            self._adapters[name] = TypeAdapter(_widened(self._hints.get(name, Any)))
        return self._adapters[name]

    def _is_covered(self, name: str) -> bool:
        if name not in self._covered:
            self._covered[name] = covered(self._hints[name])
        return self._covered[name]

    def _plain(self, name: str, value: Any) -> Any:
        if self._typed(name) and not (type(value) is self._hints[name] and type(value) in _AS_THEY_ARE):
            adapter = self._adapter(name)
            value = _validated(adapter, value)
            plain = self._dumped(name, adapter, value, by_alias=False)
            if self._has_aliases(name, adapter):  # what is kept must be read by the names that the model reads
                aliased = self._dumped(name, adapter, value, by_alias=True)
                plain = aliased if _is_read_by(adapter, aliased) else plain
            value = plain
        if value is None or (type(value) in (int, bool) and -_LARGE < value < _LARGE):
            return value  # it comes back from JSON as it went in
        text = json.dumps(value, allow_nan=False, ensure_ascii=False)
        text.encode()  # a lone surrogate is no text of any store
        plain = json.loads(text)  # as it will come back: a tuple as a list, every key a text
        if TAG in text and holds_tag(plain):
            raise ValueError(f"the key '{TAG}' is kept for secrets")
        if text.count("[") + text.count("{") > LEVELS and is_deep(plain):
            raise ValueError(TOO_DEEP)
        return plain

    def _has_aliases(self, name: str, adapter: Any) -> bool:
        """Whether anything within is written under another name than its own."""
        if name not in self._aliased:
            try:
                one, other = (adapter.json_schema(by_alias=by, mode="serialization") for by in (False, True))
                self._aliased[name] = one != other
            except Exception:  # a type that JSON Schema has no word for: both ways are tried
                self._aliased[name] = True
        return self._aliased[name]

    def _dumped(self, name: str, adapter: Any, value: Any, *, by_alias: bool) -> Any:
        """What is read again, and so without what a model only reckons (`computed_field`): one that forbids more refuses it."""
        if not self._is_covered(name):
            return adapter.dump_python(value, mode="json", by_alias=by_alias, round_trip=True)
        from pydantic_core import to_jsonable_python

        return to_jsonable_python(uncovered(adapter.dump_python(value, by_alias=by_alias, round_trip=True)))

    def _problem(self, name: str, value: Any, error: Exception) -> str:
        """What is wrong with a value: where, what is allowed, what was given; nothing of a secret."""
        secret, given = self.is_secret(name) or isinstance(value, Secret), _clear(value)
        if hasattr(error, "errors") and hasattr(error, "title"):
            return invalid(name, error, given, secret=secret)
        if not self._typed(name):
            return unstorable(name, given, secret=secret)
        try:
            adapter = self._adapter(name)
        except Exception as refusal:
            kind = getattr(self._hints[name], "__name__", None) or cut(self._hints[name])
            if getattr(refusal, "code", None) == "typed-dict-version":  # pragma: no cover - on Python 3.11 alone
                return (
                    f"is annotated {kind}, but typing.TypedDict can be read from Python 3.12 on alone; "
                    "use typing_extensions.TypedDict"
                )
            return (
                f"is annotated {kind}, which is no plain configuration and cannot be stored, "
                f"got {MASK if secret else cut(given)}"
            )
        with suppress(Exception):
            given = adapter.dump_python(_validated(adapter, given))
        return unstorable(name, given, secret=secret, typed=True, why="" if secret else str(error))


@cache
def _generator() -> type[Any]:
    """Pydantic's own, but that the text of a Decimal says what it is: a form must not send it as a float."""
    from pydantic.json_schema import GenerateJsonSchema

    class Described(GenerateJsonSchema):
        def decimal_schema(self, schema: Any) -> dict[str, Any]:
            found = super().decimal_schema(schema)
            for one in found.get("anyOf", ()):
                if one.get("type") == "string":
                    one["format"] = "decimal"
            return found

    return Described


def _is_read_by(adapter: Any, plain: Any) -> bool:
    """Whether a value comes back from what is kept of it."""
    try:
        _validated(adapter, plain)
    except Exception:
        return False
    return True


def _validated(adapter: Any, plain: Any) -> Any:
    """A value by its annotation: as it is, else as JSON, of which alone what is strict takes a date, or an id, as a text.

    Raises what pydantic says of the value as it is.
    """
    try:
        return adapter.validate_python(plain)
    except Exception as error:
        try:
            return adapter.validate_json(json.dumps(plain))
        except Exception:
            raise error from None


_LARGE: Final = 2**63
_OF_THE_RUN: Final = frozenset({"at", "key", "actor", "delay", "countdown", "eta"})  # the last three of other systems
_AS_THEY_ARE: Final = frozenset((int, float, bool, str))
"""Types whose values pydantic gives back as they are, where the annotation is the type itself."""
_OPEN: Final = (*_AS_THEY_ARE, Any)
"""Annotations that hold no secret, so that no schema is made to find out."""


def _widened(hint: Any) -> Any:
    """An annotation under which a span is read as everywhere else here, "5m" too."""
    if hint is timedelta:
        from pydantic import WrapValidator

        return Annotated[timedelta, WrapValidator(_span)]
    if get_origin(hint) in (Union, UnionType) and timedelta in get_args(hint) and str not in get_args(hint):
        return Union[tuple(_widened(one) for one in get_args(hint))]  # noqa: UP007 - made at run time
    return hint


def _span(value: Any, read: Callable[[Any], Any]) -> Any:
    from pydantic_core import PydanticCustomError, ValidationError

    if isinstance(value, str):
        with suppress(ValueError):
            return parse(value)
    try:
        return read(value)
    except ValidationError:
        raise PydanticCustomError(
            "duration", "input should be seconds, or a text such as '5m', '1h30m' or 'PT1H30M'"
        ) from None


def _clear(value: Any) -> Any:
    return value.clear if isinstance(value, Secret) else value


def check_words(**words: object) -> None:
    """Refuse what is no text that a store can keep, before anything is done. Raises `Unstorable`."""
    for name, word in words.items():
        if word is None:
            continue
        if not isinstance(word, str):
            raise Unstorable(f"{name} is {type(word).__name__}, no text")
        if len(word) > WORDS:
            raise Unstorable(f"{name} has {len(word)} characters, {WORDS} are allowed")
        try:
            word.encode()
        except UnicodeEncodeError:
            raise Unstorable(f"{name} is {word[:100]!a}, which is no Unicode") from None
