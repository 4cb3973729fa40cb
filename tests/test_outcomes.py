"""What a call came to, as plain bounded data, whatever the job returned or raised."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from taskloop.masking import Secret
from taskloop.outcomes import MESSAGE_CHARACTERS, RESULT_BYTES, TRACEBACK_CHARACTERS, failure, returned
from taskloop.runs import Failure, Returned


@dataclasses.dataclass
class Point:
    x: int
    y: Any = None


class Order(BaseModel):
    id: int
    at: datetime


class Colour(Enum):
    RED = "red"


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    __str__ = __repr__


def cycle() -> list[Any]:
    ring: list[Any] = []
    ring.append(ring)
    return ring


def deep(levels: int) -> list[Any]:
    nest: list[Any] = []
    for _ in range(levels):
        nest = [nest]
    return nest


# -- results


@pytest.mark.parametrize(
    ("value", "result", "summary"),
    [
        (None, None, None),
        (0, 0, None),
        (False, False, None),
        (2**70, 2**70, None),
        ("done", "done", "done"),
        ("", "", None),
        ("two\nlines", "two\nlines", "two"),
        ("x" * 300, "x" * 300, "x" * 199 + "…"),
        ("é🙂\0", "é🙂\0", "é🙂\0"),
        ({"n": [1, None, 2.5]}, {"n": [1, None, 2.5]}, None),
        ((1, (2,)), [1, [2]], None),
        ({1: "a"}, {"1": "a"}, None),
        ({3}, [3], None),
        (b"bytes", "bytes", "bytes"),
        (float("nan"), None, None),
        ([float("inf"), 1], [None, 1], None),
        (Point(1, Point(2)), {"x": 1, "y": {"x": 2, "y": None}}, None),
        (Order(id=1, at=datetime(2026, 1, 1, tzinfo=UTC)), {"id": 1, "at": "2026-01-01T00:00:00Z"}, None),
        ([Secret("hunter2")], ["********"], None),
        ([Decimal("1.10"), Colour.RED, Path("a/b")], ["1.10", "red", "a/b"], None),
    ],
    ids=repr,
)
def test_a_returned_value_is_kept_as_json_and_a_text_is_the_summary_too(value, result, summary):
    assert returned(value) == Returned(result, summary)


@pytest.mark.parametrize(
    ("value", "kind", "why"),
    [
        (object(), "object", "no JSON"),
        (Hostile(), "Hostile", "no JSON"),
        (cycle(), "list", "no JSON"),
        (deep(100_000), "list", "no JSON"),
        (b"\xff\xfe", "bytes", "no JSON"),
        ("\ud800", "str", "no JSON"),
        (["\udfff"], "list", "no JSON"),
        ({"\udfff": 1}, "dict", "no JSON"),
        (10**5000, "int", "no JSON"),
        (lambda: None, "function", "no JSON"),
        ("x" * 10_000_000, "str", f"10000002 bytes, more than the {RESULT_BYTES} that are kept"),
        (["🙂"] * 300_000, "list", "more than"),
        (Point(1, object()), "Point", "no JSON"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_json_or_too_large_is_kept_as_a_note_of_what_it_was(value, kind, why):
    found = returned(value)
    assert found.summary is None
    assert found.result["type"] == kind
    assert why in found.result["note"]
    assert len(found.result["note"]) < 300
    json.dumps(found.result, ensure_ascii=False).encode()


def test_the_largest_result_that_is_kept_is_kept():
    assert returned("x" * (RESULT_BYTES - 2)).result == "x" * (RESULT_BYTES - 2)
    assert returned("x" * (RESULT_BYTES - 1)).result["type"] == "str"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.sets(st.integers()),
    max_leaves=20,
)


@given(JSON | st.text(st.characters(), max_size=20))
def test_every_result_is_json_that_a_store_can_hold(value):
    found = returned(value)
    text = json.dumps(found.result, allow_nan=False, ensure_ascii=False)
    text.encode()
    assert json.loads(text) == found.result
    assert found.summary is None or "\n" not in found.summary


# -- errors


def caught(error: BaseException) -> Failure:
    try:
        raise error
    except BaseException as raised:  # noqa: BLE001
        return failure(raised)


def test_an_error_is_kept_with_its_type_message_and_the_place_it_came_from():
    found = caught(ValueError("no such user"))
    assert (found.type, found.message) == ("ValueError", "no such user")
    assert "in caught" in found.traceback
    assert found.traceback.endswith("ValueError: no such user\n")
    assert len(found.fingerprint) == 16


def test_the_causes_of_an_error_are_in_its_traceback():
    def fail() -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("second") from error

    with pytest.raises(ValueError, match="second") as info:
        fail()
    assert failure(info.value).traceback.index("KeyError: 'first'") < failure(info.value).traceback.index("second")


def test_a_group_shows_every_error_it_holds():
    found = caught(ExceptionGroup("two failed", [ValueError("one"), KeyError("two")]))
    assert (found.type, found.message) == ("ExceptionGroup", "two failed (2 sub-exceptions)")
    assert "ValueError: one" in found.traceback
    assert "KeyError: 'two'" in found.traceback


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("cannot say")


class NoText(Exception):
    def __str__(self) -> str:
        return 3  # type: ignore[return-value]


class Local:
    class Inner(Exception):
        pass


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (Mute(), "Mute", "(its text could not be made: RuntimeError)"),
        (NoText(), "NoText", "(its text could not be made: TypeError)"),
        (ValueError("\ud800 and \0"), "ValueError", "? and �"),
        (ValueError(Hostile()), "ValueError", "(its text could not be made: RuntimeError)"),
        (ValueError(), "ValueError", ""),
        (SystemExit(3), "SystemExit", "3"),
        (KeyboardInterrupt(), "KeyboardInterrupt", ""),
        (Local.Inner("x"), "Local.Inner", "x"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_that_cannot_say_what_it_is_is_kept_all_the_same(error, kind, message):
    found = caught(error)
    assert (found.type, found.message) == (kind, message)
    storable(found)


def storable(found: Failure) -> None:
    """Plain bounded text, every part of it."""
    for text in dataclasses.astuple(found):
        assert len(text) <= TRACEBACK_CHARACTERS + 100
        assert "\0" not in text
        text.encode()


def test_an_error_of_ten_megabytes_keeps_its_beginning_and_its_end():
    found = caught(ValueError("begin" + "x" * 10_000_000 + "end"))
    assert found.message.startswith("begin")
    assert found.message.endswith("end")
    assert "9996008 characters left out" in found.message
    assert len(found.message) < MESSAGE_CHARACTERS + 100
    storable(found)


def test_a_cycle_of_causes_ends():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    found = caught(first)
    assert found.message == "first"
    storable(found)


def test_a_long_chain_and_a_deep_recursion_are_cut():
    def fall() -> None:
        fall()

    with pytest.raises(RecursionError) as info:
        fall()
    storable(failure(info.value))
    error = ValueError("0")
    for number in range(2000):
        error, cause = ValueError(str(number)), error
        error.__cause__ = cause
    storable(caught(error))


def test_a_hostile_error_in_the_chain_costs_no_more_than_the_traceback():
    error = ValueError("told")
    error.__cause__ = Mute()
    assert caught(error).message == "told"
    storable(caught(error))


class Worse(Exception):
    """Even looking for its notes fails."""

    @property
    def __notes__(self) -> list[str]:
        raise RuntimeError("no")

    @property
    def __suppress_context__(self) -> bool:  # type: ignore[override]
        raise RuntimeError("no")


def test_a_traceback_that_cannot_be_made_is_empty():
    found = caught(Worse("told"))
    assert (found.type, found.message) == ("Worse", "told")
    storable(found)


def test_an_error_that_was_never_raised_is_kept_too():
    assert failure(ValueError("made")).message == "made"


@pytest.mark.parametrize("name", ["\ud800", "x" * 10_000_000, "a\0b", "<script>\n"])
def test_a_hostile_type_name_is_plain_bounded_text(name):
    kind = type("Odd", (Exception,), {})
    kind.__qualname__ = name
    storable(caught(kind("text")))


def test_a_file_with_a_name_that_is_no_text_hides_no_error():
    scope: dict[str, Any] = {}
    exec(compile("def fail():\n    raise ValueError('told')", "odd\udcff.py", "exec", 0), scope)  # noqa: S102
    with pytest.raises(ValueError, match="told") as info:
        scope["fail"]()
    storable(failure(info.value))


def raising(text: str) -> Failure:
    return caught(ValueError(text))


def elsewhere(text: str) -> Failure:
    try:
        raise ValueError(text)
    except ValueError as error:
        return failure(error)


def test_errors_of_one_cause_have_one_fingerprint_whatever_their_numbers():
    one = raising("user 7 at 0xDEADbeef")
    assert one.fingerprint == raising("user 123 at 0x1\nmore").fingerprint
    others = [raising("user seven"), elsewhere("user 7 at 0xDEADbeef"), caught(KeyError("user 7 at 0xDEADbeef"))]
    assert len({one.fingerprint, *(other.fingerprint for other in others)}) == 4


@pytest.mark.parametrize(
    "value", [(n for n in range(3)), map(abs, range(3)), zip(range(3), strict=True)], ids=["generator", "map", "zip"]
)
def test_a_generator_is_kept_as_what_it_yields(value):
    assert returned(value).result in ([0, 1, 2], [[0], [1], [2]])


def test_an_iterator_over_something_open_is_noted_and_not_read():
    asked = []

    class Cursor:
        def __iter__(self):
            return self

        def __next__(self):
            asked.append(1)

    assert returned(Cursor()).result["note"] == "no JSON: an iterator, which is not read"
    assert returned({"rows": Cursor()}).result["type"] == "dict"
    assert asked == []


def test_a_result_is_made_of_built_ins_alone_by_their_own_methods():
    class Text(str):
        def __str__(self):
            raise SystemExit

    class Table(dict):
        def items(self):
            raise SystemExit

    class Row(list):
        def __iter__(self):
            raise SystemExit

    class Number(float):
        def __repr__(self):
            raise SystemExit

    found = returned(Table({Text("a"): Row([Text("b"), Number(1.5)])})).result
    assert found == {"a": ["b", 1.5]}
    assert [type(one) for one in (found, found["a"], *found["a"])] == [dict, list, str, float]


@pytest.mark.parametrize(
    ("key", "kept"), [(None, "null"), (True, "true"), (1.5, "1.5"), ((1, "a"), "1,a"), (Colour.RED, "red")]
)
def test_a_key_is_what_json_makes_of_it(key, kept):
    assert returned({key: 1}).result == {kept: 1}


def test_what_others_could_not_read_is_noted():
    assert returned(deep(199)).result == deep(199)
    assert "deeper than 200 levels" in returned(deep(201)).result["note"]
    assert returned(10**4200).result == 10**4200
    assert "a whole number of 14617 bits" in returned(10**4400).result["note"]


def test_lists_that_hold_one_another_a_million_million_times_are_soon_given_up():
    value = "ha"
    for _ in range(60):
        value = [value] * 10
    assert "more than" in returned(value).result["note"]


class Unnamed(type):
    def __getattribute__(cls, name):
        raise SystemExit


def test_a_type_that_hides_its_name_is_named_all_the_same():
    class Hidden(metaclass=Unnamed): ...

    class Fails(Exception, metaclass=Unnamed): ...

    assert returned(Hidden()).result["type"].endswith(".Hidden")
    assert failure(Fails("told")).type.endswith(".Fails")


def test_an_error_whose_chain_cannot_be_looked_at_shows_where_it_came_from():
    class Exits(Exception):
        @property
        def __notes__(self):
            raise SystemExit

    error = ValueError("told")
    error.__cause__ = Exits()
    found = caught(error)
    assert "in caught" in found.traceback
    assert found.traceback.endswith("ValueError: told\n")


def test_where_not_even_the_place_can_be_told_the_traceback_is_empty():
    class Loader:
        def get_source(self, name):
            raise SystemExit

    scope: dict[str, Any] = {"__loader__": Loader(), "__name__": "odd"}
    exec(compile("def fail():\n    raise ValueError('told')", "no such file.py", "exec"), scope)  # noqa: S102
    try:
        scope["fail"]()
    except ValueError as error:
        found = failure(error)
    assert (found.message, found.traceback) == ("told", "")
