"""Dataclasses made in one go take and refuse what others do."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, field

import pytest

from taskloop.frozen import Frozen, in_one_go


@in_one_go
@dataclass(frozen=True, kw_only=True)
class Point(Frozen):
    x: int
    y: int = 0
    names: list[str] = field(default_factory=list)


def test_it_is_made_by_names_with_defaults_of_its_own():
    one, other = Point(x=1), Point(x=1)
    assert (one.x, one.y, one.names) == (1, 0, []) and one == other and one.names is not other.names
    assert Point(x=1, y=2, names=["a"]).changed(y=3) == Point(x=1, y=3, names=["a"])
    with pytest.raises(FrozenInstanceError):
        one.x = 2


@pytest.mark.parametrize(
    ("given", "told"),
    [({}, r"Point\(\) needs x"), ({"x": 1, "z": 2, "a": 3}, r"Point\(\) has no field z, a; it has x, y, names")],
)
def test_what_does_not_fit_is_refused_by_name(given, told):
    with pytest.raises(TypeError, match=told):
        Point(**given)


def test_a_change_of_what_is_no_field_is_refused():
    with pytest.raises(TypeError, match="has no field z"):
        Point(x=1).changed(z=2)
