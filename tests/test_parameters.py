"""Parameters: checked by the signature before a record exists, rebuilt for the call."""

from __future__ import annotations

import dataclasses
import json
import sys
import typing
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, StrEnum
from typing import Annotated, Any, Literal, Optional
from uuid import UUID

import pytest
import typing_extensions
from pydantic import AfterValidator, AliasChoices, BaseModel, Field, Json, SecretStr, computed_field

from taskloop.context import RunContext, StepContext
from taskloop.errors import BadJob, BadParameters, Unstorable
from taskloop.outcomes import LEVELS
from taskloop.parameters import WORDS, Parameters, check_words
from taskloop.masking import Secret


class Colour(Enum):
    RED = "red"


class Word(StrEnum):
    YES = "yes"


@dataclasses.dataclass
class Point:
    x: int
    y: float = 0.0


class Order(BaseModel):
    id: int
    lines: list[str] = []


def typed(
    number: int = 1,
    ratio: float = 0.5,
    text: str = "",
    day: date = date(2026, 1, 1),
    moment: datetime | None = None,
    span: timedelta = timedelta(0),
    uid: UUID | None = None,
    price: Decimal = Decimal(0),
    colour: Colour = Colour.RED,
    choice: Literal["a", "b"] = "a",
    point: Point | None = None,
    order: Order | None = None,
    pair: tuple[int, str] | None = None,
    names: set[str] | None = None,
    table: dict[str, list[int]] | None = None,
) -> None: ...


def untyped(value, other=None): ...


def of(function: Any) -> Parameters:
    return Parameters("job", function)


MOMENT = datetime(2026, 3, 1, 2, 30, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    ("name", "value", "plain"),
    [
        ("number", 7, 7),
        ("number", "7", 7),
        ("number", 2**70, 2**70),
        ("ratio", 1, 1.0),
        ("text", "é🙂\0", "é🙂\0"),
        ("day", date(2026, 3, 1), "2026-03-01"),
        ("day", "2026-03-01", "2026-03-01"),
        ("moment", MOMENT, "2026-03-01T02:30:00+01:00"),
        ("moment", None, None),
        ("span", timedelta(hours=1.5), "PT1H30M"),
        ("uid", UUID(int=5), str(UUID(int=5))),
        ("price", Decimal("1.10"), "1.10"),
        ("colour", Colour.RED, "red"),
        ("choice", "b", "b"),
        ("point", Point(1, 2.5), {"x": 1, "y": 2.5}),
        ("point", {"x": 1}, {"x": 1, "y": 0.0}),
        ("order", Order(id=3), {"id": 3, "lines": []}),
        ("pair", (1, "a"), [1, "a"]),
        ("names", {"a"}, ["a"]),
        ("table", {"a": [1]}, {"a": [1]}),
    ],
)
def test_a_value_is_stored_as_json_and_rebuilt_by_its_annotation(name, value, plain):
    parameters = of(typed)
    assert parameters.check({name: value}) == {name: plain}
    stored = json.loads(json.dumps(parameters.check({name: value})))
    rebuilt = parameters.rebuild(stored)[name]
    assert parameters.check({name: rebuilt}) == {name: plain}
    if type(value) is not str:
        assert type(rebuilt) in {type(value), Point, Order, float}


@pytest.mark.parametrize(
    "value",
    [
        None,
        1,
        1.5,
        "é🙂",
        True,
        [1, [2]],
        {"a": {"b": None}},
        2**70,
        Word.YES,
        (1, (2, 3)),
        {1: "a"},
        ["$secret"],
        {"a": ["********"]},
    ],
)
def test_what_has_no_annotation_is_stored_as_the_json_it_comes_back_as(value):
    checked = of(untyped).check({"value": value})
    assert checked == json.loads(json.dumps(checked))
    assert of(untyped).rebuild(checked) == checked


@pytest.mark.parametrize(
    ("given", "name", "text"),
    [
        ({"number": "seven"}, "number", "got 'seven'"),
        ({"number": 1.5}, "number", "integer"),
        ({"number": None}, "number", "got None"),
        ({"ratio": float("nan")}, "ratio", "not JSON compliant"),
        ({"text": "\ud800"}, "text", "got '\\ud800'"),
        ({"choice": "c"}, "choice", "'a' or 'b'"),
        ({"day": "soon"}, "day", "got 'soon'"),
        ({"point": {"x": "y"}}, "point", "at point.x: "),
        ({"order": {"id": 1, "lines": [1]}}, "order", "at order.lines.0: "),
        ({"numbr": 1}, "numbr", "is unknown; did you mean 'number'?"),
        ({"zzz": 1}, "zzz", "is unknown"),
        ({"at": "+1m"}, "at", "said of the run stands beside them: `.bind(...).submit(at='+1m', key='a')`"),
        ({"countdown": 60}, "countdown", "`--at +1m`"),
    ],
)
def test_what_does_not_fit_is_refused_with_where_and_what(given, name, text):
    with pytest.raises(BadParameters) as caught:
        of(typed).check(given)
    assert list(caught.value.problems) == [name]
    assert text in caught.value.problems[name]
    assert isinstance(caught.value, ValueError)


def test_a_name_that_is_nearly_that_of_a_parameter_is_told_so_also_where_a_run_has_one_of_it():
    def job(keys: int = 1) -> None: ...

    with pytest.raises(BadParameters, match=r"'key' is unknown; did you mean 'keys'\? what is said of the run stands"):
        of(job).check({"key": 3})


def cycle() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


def deep(levels: int) -> list[Any]:
    nest: list[Any] = []
    for _ in range(levels):
        nest = [nest]
    return nest


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value",
    [
        {1, 2},
        b"x",
        object(),
        float("nan"),
        float("inf"),
        "\ud800",
        {"\udfff": 1},
        cycle(),
        deep(LEVELS),
        deep(100_000),
        Hostile(),
        print,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_json_is_refused_and_named_whatever_it_is(value):
    with pytest.raises(BadParameters) as caught:
        of(untyped).check({"value": value})
    assert list(caught.value.problems) == ["value"]
    assert len(str(caught.value)) < 500


def test_a_value_as_deep_as_a_result_may_be_is_kept_and_what_is_deeper_is_told_so():
    assert of(untyped).check({"value": deep(LEVELS - 1)}) == {"value": deep(LEVELS - 1)}
    assert of(untyped).check({"value": [{"a": []}] * LEVELS}) == {"value": [{"a": []}] * LEVELS}
    for name, value in (("value", deep(LEVELS)), ("typed", [{"customer": "a", "extra": deep(LEVELS - 2)}])):
        with pytest.raises(BadParameters, match=f"is nested deeper than {LEVELS} levels"):
            of(nested if name == "typed" else untyped).check({name: value})


class Parcel(BaseModel):
    customer: str
    lines: list[int] = []
    extra: Any = None


@dataclasses.dataclass
class Load:
    orders: list[Parcel]


class Engine:
    """No plain configuration."""

    def __repr__(self) -> str:
        return "<engine>"


def nested(
    orders=None,
    typed: list[Parcel] | None = None,
    either: int | list[int] | None = 1,
    load: Load | None = None,
    engine: Engine = None,
    table: dict[str, Any] | None = None,
    days: dict[int, date] | None = None,
    members: set[Any] | None = None,
    call: Callable[[int], int] | None = None,
    closed: Closed | None = None,
    count: Annotated[int, AfterValidator(lambda value: 1 // value)] = 1,
) -> None: ...


class Closed(BaseModel, extra="forbid"):
    a: int = 1


NO_JSON = "is no JSON: texts, numbers, booleans, None, lists and tables of these can be stored"


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("orders", [1, 2, 3, {"customer": 1j}], f"at orders.3.customer: {NO_JSON}, got 1j"),
        ("orders", {"a": {1: (0, {2})}}, f"at orders.a.1.1: {NO_JSON}, got {{2}}"),
        ("orders", {None: {True: {2}}}, f"at orders.null.true: {NO_JSON}, got {{2}}"),
        ("orders", {("a",): 1}, "has a key that is no text, got ('a',)"),
        ("orders", {"a": {float("nan"): 1}}, "at orders.a: has a key that is no text, got nan"),
        ("orders", {"a": {"\ud800": {2}}}, "at orders.a: has a key that is no Unicode text, got '\\ud800'"),
        ("orders", {"a": {"$secret": 1}}, "at orders.a: the key '$secret' is kept for secrets, got '$secret'"),
        ("orders", {"b": [{"$secret": 1}]}, "at orders.b.0: the key '$secret' is kept for secrets, got '$secret'"),
        ("orders", {"b": "********", "c": {"d": Secret(1)}}, "at orders.c.d: is a secret; give it as a parameter of its own"),
        ("orders", ["a", "b\udfff"], "at orders.1: is no Unicode text, got 'b\\udfff'"),
        ("orders", {"a": 10**5000}, "at orders.a: is a number of too many digits, got a value of type int"),
        ("orders", {"a": 1.5, "b": [True, None, float("inf")]}, "at orders.b.2: is not JSON compliant: a number must be finite, got inf"),
        ("orders", {"a" * 80: {"b" * 59: {"c" * 9: {2}}}}, f"at orders.{'a' * 53}…{'b' * 49}.ccccccccc: {NO_JSON}"),
        ("typed", [{"customer": "a"}, {"customer": 5}], "at typed.1.customer: input should be a valid string, got 5"),
        ("typed", [{"customer": 1}, {"customer": "a", "lines": ["x"]}, {}, {"customer": 2}, {"lines": 1}],
         "at typed.0.customer: input should be a valid string, got 1; at typed.1.lines.0: input should be a valid integer, "
         "unable to parse string as an integer, got 'x'; at typed.2.customer: field required, got {}; and 3 more"),
        ("typed", [Parcel(customer="a", extra=[1, Engine()])], f"at typed.0.extra.1: {NO_JSON}, got <engine>"),
        ("either", "x", "input should be a valid integer, unable to parse string as an integer or input should be a "
         "valid list, got 'x'"),
        ("either", ["x"], "input should be a valid integer, got ['x']; at either.0: input should be a valid integer, "
         "unable to parse string as an integer, got 'x'"),
        ("load", {"orders": [{"customer": 1}]}, "at load.orders.0.customer: input should be a valid string, got 1"),
        ("load", Load([Parcel(customer="a", extra=Engine())]), f"at load.orders.0.extra: {NO_JSON}, got <engine>"),
        ("engine", Engine(), "is annotated Engine, which is no plain configuration and cannot be stored, got <engine>"),
        ("table", {"when": date(2026, 1, 1), "who": {"a": Engine()}}, f"at table.who.a: {NO_JSON}, got <engine>"),
        ("days", {1: "soon"}, "at days.1: input should be a valid date or datetime, input is too short, got 'soon'"),
        ("members", {Engine()}, f"{NO_JSON}, got {{<engine>}}"),
        ("call", print, f"{NO_JSON}, got <built-in function print>"),
        ("closed", {"b": 1}, "at closed.b: extra inputs are not permitted, got 1"),
        ("closed", [{1}], "input should be a valid dictionary or instance of Closed, got [{1}]"),
        ("count", 0, "integer division or modulo by zero, got 0" if sys.version_info < (3, 14) else "division by zero, got 0"),
    ],
    ids=lambda value: None,
)  # fmt: skip
def test_a_fault_inside_of_a_value_is_told_with_the_path_to_it(name, value, told):
    with pytest.raises(BadParameters) as caught:
        of(nested).check({name: value})
    assert caught.value.problems[name].startswith(told)


def test_a_type_that_no_schema_can_say_is_left_open_in_the_schema():
    assert of(nested).schema()["properties"]["engine"] == {}


def test_every_mistake_is_told_at_once():
    def job(user: int, text: str, day: date = date(2026, 1, 1)) -> None: ...

    with pytest.raises(BadParameters) as caught:
        of(job).check({"user": "x", "dya": 1, "day": "soon"})
    assert set(caught.value.problems) == {"text", "user", "dya", "day"}
    assert caught.value.problems["text"] == "is missing"
    assert caught.value.job == "job"


def test_a_secret_is_stored_as_it_is_since_the_job_needs_it():
    def login(password: SecretStr) -> None: ...

    plain = of(login).check({"password": SecretStr("hunter2")})
    assert of(login).rebuild(plain)["password"].get_secret_value() == "hunter2"


# -- the signature


@pytest.mark.parametrize(
    ("function", "shown"),
    [
        (lambda *args: None, r"\*args"),
        (lambda **options: None, r"\*\*options"),
        (lambda a, /: None, "'a'"),
    ],
)
def test_parameters_without_a_name_of_their_own_are_refused(function, shown):
    with pytest.raises(BadJob, match=f"job 'job' takes .*{shown}.*give every parameter a name of its own"):
        of(function)


def with_context(run: RunContext, user: int, *, text: str = "hi") -> None: ...


def test_the_context_is_no_parameter():
    parameters = of(with_context)
    assert parameters.context_name == "run"
    assert list(parameters.names) == ["user", "text"]
    assert parameters.required == ("user",)
    with pytest.raises(BadParameters, match="'run' is unknown"):
        parameters.check({"run": 1, "user": 1})


def test_the_context_is_found_by_its_annotation_alone():
    def later(user, ctx: RunContext): ...
    def text(run: "Unknown", ctx: "RunContext"): ...  # noqa: F821, UP037
    def none(run, user): ...

    assert of(later).context_name == "ctx"
    assert of(text).context_name == "ctx"
    assert of(none).context_name is None


@pytest.mark.parametrize(
    "hint",
    [
        RunContext,
        StepContext,
        RunContext | None,
        Optional[RunContext],  # noqa: UP045
        Annotated[RunContext, "the run"],
        Annotated[RunContext | None, "the run"],
        Annotated[RunContext, "the run"] | None,
        Optional["RunContext"],
        *(
            "RunContext", "taskloop.RunContext", "StepContext", "'RunContext'", "RunContext | None", "None|RunContext",
            "'RunContext | None'", "Optional[RunContext]", "typing.Optional[taskloop.RunContext]",
            "Union[RunContext, None]", "Annotated[RunContext, 'the run', 5]", 't.Annotated[RunContext | None, "it"]',
        ),
    ],
)  # fmt: skip
def test_the_context_may_be_optional_and_annotated_whether_its_name_can_be_found_or_not(hint):
    def job(user, run=None, other=None): ...

    job.__annotations__ = {"run": hint, "other": "OnlyForTypeChecking"}  # so that no text can be read
    assert of(job).context_name == "run" and "run" not in of(job).names
    job.__annotations__ = {"run": hint}
    assert of(job).context_name == "run"


@pytest.mark.parametrize(
    "hint",
    [
        *(None, int, RunContext | int, type[RunContext], Annotated[int, RunContext], list[RunContext], "None | None"),
        *("MyRunContext", "RunContext | int", "Annotated[int, RunContext]", "list[RunContext]", "RunContexts", "", "|"),
    ],
)
def test_what_is_not_the_context_alone_is_a_parameter(hint):
    def job(user, run=None, other=None): ...

    job.__annotations__ = {"run": hint, "other": "OnlyForTypeChecking"}
    assert of(job).context_name is None


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="pydantic reads it from Python 3.12 on")
def test_a_typed_dict_that_this_python_cannot_read_is_refused_with_the_one_that_it_can():
    class Old(typing.TypedDict):
        a: int

    class New(typing_extensions.TypedDict):
        a: int

    def job(old=None, new=None): ...

    job.__annotations__ = {"old": Old, "new": New}
    assert of(job).check({"new": {"a": "1"}}) == {"new": {"a": 1}}
    with pytest.raises(BadParameters) as caught:
        of(job).check({"old": {"a": 1}})
    assert caught.value.problems["old"] == (
        "is annotated Old, but typing.TypedDict can be read from Python 3.12 on alone; use typing_extensions.TypedDict"
    )


def test_an_annotation_that_only_a_type_checker_can_read_is_refused():
    """It took all others with it: nothing of the job was checked, nothing was secret."""

    def job(b: "int" = 1, a: "OnlyForTypeChecking" = None): ...  # noqa: F821, RUF013, UP037

    told = "annotation of 'a' names 'OnlyForTypeChecking', which cannot be found; define it at the top of a module"
    for given in ({}, {"b": 2}):
        with pytest.raises(BadJob, match=told):
            of(job).check(given)
    assert of(job).schema()["properties"]["a"] == {"default": None}, "others are looked at all the same"


_EVALUATED_LATE = """
def job(b: int = 1, a: OnlyForTypeChecking | None = None, *, run: RunContext | None = None, below: Below = None): ...
"""


@pytest.mark.skipif(sys.version_info < (3, 14), reason="before Python 3.14 such a function cannot be defined")
def test_a_job_may_name_what_only_a_type_checker_can_read_though_its_annotations_are_evaluated_when_asked_for():
    known = {"RunContext": RunContext, "__name__": __name__}
    exec(compile(_EVALUATED_LATE, "jobs.py", "exec", dont_inherit=True), known)  # noqa: S102 - without our `annotations`
    parameters = of(known["job"])
    assert parameters.context_name == "run" and list(parameters.names) == ["b", "a", "below"]
    assert parameters.schema()["properties"]["b"] == {"type": "integer", "default": 1}
    with pytest.raises(BadJob, match="annotation of 'a' names 'OnlyForTypeChecking"):
        parameters.check({"b": 2})
    known["OnlyForTypeChecking"] = known["Below"] = int
    assert of(known["job"]).check({"a": "7", "below": "8"}) == {"a": 7, "below": 8}


@pytest.mark.parametrize(
    "hint", [Optional["Nowhere"], list["Nowhere"], "dict[str, Nowhere]", Annotated["Nowhere", "why"], Literal["a"]]
)
def test_a_name_that_cannot_be_found_is_seen_within_an_annotation_too(hint):
    def job(a=None): ...

    job.__annotations__ = {"a": hint}
    if hint == Literal["a"]:
        assert of(job).check({"a": "a"}) == {"a": "a"}
    else:
        with pytest.raises(BadJob, match="annotation of 'a' names '.*Nowhere"):
            of(job).check({})


def test_an_annotation_may_name_what_is_defined_below_the_job():
    def job(secret: "Below", number: "int" = 1): ...  # noqa: F821, UP037

    parameters = of(job)
    assert list(parameters.names) == ["secret", "number"] and not parameters.is_secret("secret")
    job.__globals__["Below"] = SecretStr
    try:
        kept = parameters.check({"secret": "hidden", "number": "2"})
        assert isinstance(kept["secret"], Secret) and kept["number"] == 2 and parameters.is_secret("secret")
    finally:
        del job.__globals__["Below"]


def test_what_a_function_returns_may_be_known_to_a_type_checker_alone():
    def job(number: "int" = 1) -> "OnlyForTypeChecking": ...  # noqa: F821, UP037

    assert of(job).check({"number": "2"}) == {"number": 2} and of(job).value([1]) == [1]


@pytest.mark.parametrize(
    ("args", "kwargs", "named"),
    [
        ((), {}, {}),
        ((7,), {}, {"user": 7}),
        ((7, "x"), {}, {"user": 7, "text": "x"}),
        ((7,), {"text": "x"}, {"user": 7, "text": "x"}),
        ((), {"text": "x", "zzz": 1}, {"text": "x", "zzz": 1}),
    ],
)
def test_arguments_are_named_by_the_signature(args, kwargs, named):
    assert of(with_context).named(args, kwargs) == named


def test_too_many_arguments_and_those_given_twice_are_refused():
    with pytest.raises(BadParameters, match="stands for 3 values without a name; at most 2 can be taken"):
        of(with_context).named((1, 2, 3), {})
    with pytest.raises(BadParameters, match="parameter 'user' is given twice"):
        of(with_context).named((1,), {"user": 2})


class Renamed(BaseModel):
    user_id: int = Field(alias="userId")


class ReadOnlyByName(BaseModel):
    user_id: int = Field(serialization_alias="userId")


class ReadByAnother(BaseModel):
    secret: SecretStr = Field(validation_alias=AliasChoices("token", "secret_token"), serialization_alias="token")


@pytest.mark.parametrize(
    "given", [Renamed(userId=1), ReadOnlyByName(user_id=1), ReadByAnother(token="t"), [Renamed(userId=2)]]
)
def test_a_model_whose_fields_have_aliases_comes_back_as_it_was_given(given):
    def job(value): ...

    job.__annotations__["value"] = type(given) if not isinstance(given, list) else list[Renamed]
    parameters = Parameters("job", job)
    assert parameters.rebuild(parameters.check({"value": given})) == {"value": given}


class Bill(BaseModel, strict=True):
    uid: UUID
    day: date
    price: Decimal
    colour: Colour
    lines: tuple[str, ...]
    amount: int = 1


BILL = Bill(uid=UUID(int=7), day=date(2026, 2, 3), price=Decimal("1.50"), colour=Colour.RED, lines=("a", "b"))


def bill(bill: Bill, due: Annotated[date, Field(strict=True)]) -> Bill:
    return bill


@pytest.mark.parametrize("due", [date(2026, 3, 4), "2026-03-04"])
def test_what_is_strict_is_read_from_its_record_and_may_be_asked_for_as_json(due):
    """Each run of such a job failed, for its own parameters: by pydantic's word a date is no text, but in JSON."""
    parameters = Parameters("bill", bill)
    stored = json.loads(json.dumps(parameters.check({"bill": BILL, "due": due})))
    assert parameters.rebuild(stored) == {"bill": BILL, "due": date(2026, 3, 4)}
    assert parameters.value(stored["bill"]) == BILL
    assert parameters.check({"bill": stored["bill"], "due": due}) == stored


@pytest.mark.parametrize(
    ("given", "told"),
    [({"amount": "1"}, r"bill\.amount: .*integer, got .1"), ({"day": 5}, r"bill\.day: .*date, got 5")],
)
def test_what_is_strict_stays_so(given, told):
    with pytest.raises(BadParameters, match=told):
        Parameters("bill", bill).check({"bill": BILL.model_dump() | given, "due": date(2026, 3, 4)})


class Box(BaseModel, extra="forbid"):
    width: int
    height: int

    @computed_field
    @property
    def area(self) -> int:
        return self.width * self.height


def packed(box: Box, sizes: Json[list[int]]) -> None: ...


@pytest.mark.parametrize("given", [Box(width=2, height=3), {"width": 2, "height": 3}])
def test_what_a_model_reckons_is_not_stored_for_it_may_take_no_more_than_its_fields(given):
    """Each run of such a job failed."""

    parameters = Parameters("job", packed)
    stored = parameters.check({"box": given, "sizes": "[1, 2]"})
    assert stored["box"].keys() == {"width", "height"}
    assert parameters.rebuild(stored) == {"box": Box(width=2, height=3), "sizes": [1, 2]}


def test_a_job_that_takes_nothing_is_given_nothing():
    def job(): ...

    assert of(job).check({}) == {}
    assert of(job).rebuild({}) == {}
    assert of(job).schema() == {"type": "object", "properties": {}, "additionalProperties": False}


def test_the_schema_says_what_may_be_given():
    def job(user: int, day: date = date(2026, 1, 1), any=None, odd=object(), lost: Any = {1}) -> None: ...  # noqa: B006, B008

    schema = of(job).schema()
    assert schema["required"] == ["user"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["user"] == {"type": "integer"}
    assert schema["properties"]["day"] == {"type": "string", "format": "date", "default": "2026-01-01"}
    assert schema["properties"]["any"] == {"default": None}
    assert schema["properties"]["odd"] == {}
    assert schema["properties"]["lost"] == {}
    json.dumps(schema)


@pytest.mark.parametrize(
    ("hint", "plain", "value"),
    [
        (date, "2026-03-01", date(2026, 3, 1)),
        (Point, {"x": 1}, Point(1)),
        (list[Order], [{"id": 1}], [Order(id=1)]),
        (Any, {"x": 1}, {"x": 1}),
        (None, None, None),
        ("Unknown", [1], [1]),
        (int, None, None),
    ],
)
def test_a_result_is_rebuilt_by_the_return_annotation(hint, plain, value):
    def job(): ...

    if hint is not None:
        job.__annotations__["return"] = hint
    assert of(job).value(plain) == value


# -- words beside the parameters: keys, actors, reasons


@pytest.mark.parametrize(
    ("word", "message"),
    [(7, "key is int, no text"), ("x" * (WORDS + 1), f"{WORDS + 1} characters, {WORDS} are"), ("\ud800", "no Unicode")],
    ids=["type", "length", "surrogate"],
)
def test_a_word_that_no_store_can_keep_is_refused(word, message):
    check_words(actor=None, reason="x" * WORDS)
    with pytest.raises(Unstorable, match=message):
        check_words(actor="me", key=word)


@pytest.mark.parametrize("hint", [timedelta, timedelta | None], ids=str)
def test_a_span_is_read_as_everywhere_else_and_a_wrong_one_is_told_what_is_allowed(hint):
    def job(span) -> None: ...

    job.__annotations__ = {"span": hint}
    parameters = Parameters("job", job)
    for given, kept in (("5m", "PT5M"), ("90", "PT1M30S"), (90, "PT1M30S"), ("PT5M", "PT5M"), ("-PT5M", "-PT5M")):
        assert parameters.check({"span": given}) == {"span": kept}
    assert parameters.rebuild({"span": "PT5M"}) == {"span": timedelta(minutes=5)}
    assert "duration" in str(parameters.schema()["properties"]["span"])
    with pytest.raises(BadParameters, match="'1h30m' or 'PT1H30M', got 'soon'"):
        parameters.check({"span": "soon"})
