"""Jobs that return what is no JSON, what never ends, or what nobody could read again (J11)."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import sys
import threading
from typing import Any
from unittest.mock import MagicMock

import pytest
from misbehaviour import crowded as crowded
from misbehaviour import hosted, readable, settle_in, three_runs, told, unharmed
from pydantic import BaseModel, model_serializer
from stories import nothing

from taskloop import Options, RunContext, State, TaskScheduler
from taskloop.outcomes import RESULT_BYTES

pytestmark = pytest.mark.anyio

MILLION = 1_000_000


@dataclasses.dataclass
class Node:
    other: Any = None


def linked():
    node = Node()
    node.other = Node(node)
    return node


def ring():
    value = {}
    value["self"] = [value]
    return value


def deep(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


class Exits:
    def __iter__(self):
        raise SystemExit(3)

    keys = items = model_dump = __len__ = __bool__ = __str__ = __repr__ = __iter__


class ExitsWhenAsked:
    def __getattr__(self, name):
        raise SystemExit(3)


class Everything:
    """Has every attribute there is, and each is itself."""

    def __getattr__(self, name):
        return self


class NoClass:
    @property
    def __class__(self):
        raise SystemExit(3)


class Model(BaseModel):
    @model_serializer
    def dump(self):
        raise SystemExit(3)


class Fails(BaseModel):
    @model_serializer
    def dump(self):
        raise RuntimeError("not today")


class OddItems(dict):
    def items(self):
        raise SystemExit(3)

    keys = values = __iter__ = __len__ = items


class OddList(list):
    def __iter__(self):
        raise SystemExit(3)

    __len__ = __iter__


class OddText(str):
    def strip(self, *_):
        raise RuntimeError

    __len__ = __str__ = __repr__ = __getitem__ = encode = partition = strip


class OddNumber(int):
    def __repr__(self):
        raise SystemExit(3)

    __str__ = __int__ = __index__ = __repr__


class Growing:
    """Things that would go on for ever, and count how often they were asked for more."""

    def __init__(self):
        self.asked = 0

    def more(self, of=lambda number: number):
        while self.asked < MILLION:  # for a test, an end must be made
            self.asked += 1
            yield of(self.asked)

    def dictionary(self):
        growing = self

        class Endless(dict):
            def items(self):
                return growing.more(lambda number: (str(number), number))

        return Endless(a=1)

    def list(self):
        growing = self

        class Endless(list):
            def __iter__(self):
                return growing.more()

        return Endless([1])

    def laughs(self):
        growing = self

        class Ten(list):
            def __iter__(self):
                growing.asked += 1
                return iter(()) if growing.asked > MILLION else super().__iter__()

        value = Ten(["ha"])
        for _ in range(30):
            value = Ten([value] * 10)
        return value


def named(name):
    kind = type("Odd", (), {})
    kind.__qualname__ = name
    return kind()


KEPT = {
    "2**63": (lambda: 2**63, 2**63),
    "10**400": (lambda: 10**400, 10**400),
    "-0.0": (lambda: -0.0, 0.0),
    "nan": (lambda: math.nan, None),
    "inf inside": (lambda: {"a": [math.inf, -math.inf]}, {"a": [None, None]}),
    "odd keys": (lambda: {1: "a", None: "b", False: "c", 2.5: "d"}, {"1": "a", "null": "b", "false": "c", "2.5": "d"}),
    "keys of several parts": (lambda: {(1, "a"): 2}, {"1,a": 2}),
    "nul": (lambda: {"a\0": "\0b"}, {"a\0": "\0b"}),
    "markup": (lambda: "<script>alert(1)</script>", "<script>alert(1)</script>"),
    "terminal": (lambda: "\x1b[2J\x1b]0;owned\x07", "\x1b[2J\x1b]0;owned\x07"),
    "text with methods": (lambda: OddText("odd"), "odd"),
    "number with methods": (lambda: OddNumber(7), 7),
    "dictionary with methods": (lambda: OddItems(a=1), {"a": 1}),
    "list with methods": (lambda: OddList([1]), [1]),
    "nothing at all": (lambda: None, None),
}


@pytest.mark.parametrize("name", KEPT)
@hosted
async def test_an_odd_result_that_json_has_a_word_for_is_kept(crowded, virtual_time, name):
    make, kept = KEPT[name]

    async def job():
        return make()

    for run in await three_runs(crowded, virtual_time, job):
        assert (run.state, run.result, run.error) == (State.SUCCEEDED, kept, None)
        assert type(run.result) is type(kept)
        assert run.summary == (kept if isinstance(kept, str) else None)


NOTED = {
    "bytes": (lambda: b"\xff\x00", "bytes"),
    "surrogate": (lambda: {"a": "\ud800"}, "dict"),
    "surrogate as key": (lambda: {"\udfff": 1}, "dict"),
    "ring": (ring, "dict"),
    "linked dataclass": (linked, "Node"),
    "deep": (lambda: deep(100_000), "list"),
    "50 MB": (lambda: "x" * 50_000_000, "str"),
    "many": (lambda: list(range(500_000)), "list"),
    "too many digits": (lambda: 10**5000, "int"),
    "a million from five lists": (lambda: functools.reduce(lambda one, _: [one] * 10, range(6), "ha"), "list"),
    "exits": (Exits, "Exits"),
    "exits when asked": (ExitsWhenAsked, "ExitsWhenAsked"),
    "everything": (Everything, "Everything"),
    "mock": (MagicMock, "MagicMock"),
    "no class": (NoClass, "NoClass"),
    "model that exits": (Model, "Model"),
    "model that fails": (Fails, "Fails"),
    "class": (lambda: dict, "type"),
    "module": (lambda: sys, "module"),
    "lock": (threading.Lock, "lock"),
    "function": (lambda: nothing, "function"),
    "context": (lambda: contextless, "RunContext"),
    "scheduler": (TaskScheduler, "TaskScheduler"),
    "name with surrogate": (lambda: named("\ud800"), "?"),
    "name with nul": (lambda: named("a\0b"), "a�b"),
    "name of 10 MB": (lambda: named("x" * 10_000_000), None),
}
contextless = object.__new__(RunContext)


@pytest.mark.parametrize("name", NOTED)
@hosted
async def test_a_result_that_is_no_json_is_a_short_note_with_its_type(crowded, virtual_time, name):
    make, kind = NOTED[name]

    async def job():
        return make()

    for run in await three_runs(crowded, virtual_time, job):
        assert (run.state, run.error, run.summary) == (State.SUCCEEDED, None, None)
        assert isinstance(run.result, dict) and set(run.result) == {"type", "note"}
        assert run.result["type"].rpartition(".")[2] == kind or kind is None
        assert re.search(r"no JSON: |more than the \d+", run.result["note"])
        assert len(told(run.result)) < 1000


@hosted
async def test_odd_results_one_after_the_other_are_all_in_a_file_that_others_can_read(
    scheduler, virtual_time, tmp_path
):
    results = {**KEPT, **NOTED}
    names = list(results)
    settle_in(scheduler)

    @scheduler.job()
    async def job(name: str):
        return results[name][0]()

    async with virtual_time(scheduler, store=f"sqlite:///{tmp_path}/runs.db") as time:
        for name in names:
            await job.submit(name)
            await time.advance("1s")
        await unharmed(time)
    reader = TaskScheduler(tmp_path / "runs.db", options=Options())
    runs = {run.params["name"]: run for run in await reader.runs("job", limit=1000)}
    await readable(reader)
    await reader.close()
    assert set(runs) == set(names) and {run.state for run in runs.values()} == {State.SUCCEEDED}
    assert {name: runs[name].result for name in names if name in KEPT} == {
        name: KEPT[name][1] for name in names if name in KEPT
    }
    assert all(set(runs[name].result) == {"type", "note"} for name in names if name in NOTED)


@pytest.mark.parametrize("name", ["generator", "iterator", "dictionary", "list", "laughs", "inside"])
@hosted
async def test_a_result_that_never_ends_is_asked_for_no_more_than_is_kept(crowded, virtual_time, name):
    growing = Growing()
    make = {
        "generator": growing.more,
        "iterator": lambda: map(str, growing.more()),
        "dictionary": growing.dictionary,
        "list": growing.list,
        "laughs": growing.laughs,
        "inside": lambda: {"rows": [growing.more()]},
    }[name]

    async def job():
        growing.asked = 0
        return make()

    for run in await three_runs(crowded, virtual_time, job):
        assert run.state is State.SUCCEEDED
        assert len(told(run.result)) <= RESULT_BYTES
    assert growing.asked < RESULT_BYTES / 2


@hosted
async def test_an_open_file_is_noted_and_not_read(crowded, virtual_time, tmp_path):
    (tmp_path / "lines.txt").write_text("secret\n" * 3)
    with (tmp_path / "lines.txt").open() as file:

        async def job():
            return file

        for run in await three_runs(crowded, virtual_time, job):
            assert run.state is State.SUCCEEDED
            assert isinstance(run.result, dict) and run.result["type"] == "TextIOWrapper"
        assert file.read() == "secret\n" * 3


@pytest.mark.parametrize("where", ["thread", "loop"])
@hosted
async def test_a_coroutine_that_a_job_gives_back_was_never_called_and_its_run_has_failed(crowded, virtual_time, where):
    async def inner():
        raise AssertionError("called")

    def in_thread():
        return inner()

    async def on_loop():
        return inner()

    for run in await three_runs(crowded, virtual_time, in_thread if where == "thread" else on_loop):
        assert (run.state, run.error.type) == (State.FAILED, "TypeError")
        assert "return await" in run.error.message


@hosted
async def test_what_a_thread_returns_is_made_json_in_the_thread(crowded, virtual_time):
    where = set()

    class Slow(BaseModel):
        @model_serializer
        def dump(self):
            where.add(threading.current_thread())
            return {"a": 1}

    def job():
        return Slow()

    assert {run.result["a"] for run in await three_runs(crowded, virtual_time, job)} == {1}
    assert threading.current_thread() not in where


@pytest.mark.parametrize("name", ["deep", "long"])
@hosted
async def test_limits_that_a_job_lifted_let_in_nothing_that_others_cannot_read(scheduler, virtual_time, name):
    settle_in(scheduler)
    depth, digits = sys.getrecursionlimit(), sys.get_int_max_str_digits()

    async def job():
        sys.setrecursionlimit(20_000)
        sys.set_int_max_str_digits(0)
        return deep(3000) if name == "deep" else 10**5000

    scheduler.add_job(job, name="bad")
    async with virtual_time(scheduler) as time:
        handle = await scheduler.submit("bad")
        await time.advance("1s")
        sys.setrecursionlimit(depth)
        sys.set_int_max_str_digits(digits)
        seen = []
        for look in (lambda: scheduler.run(handle.id), lambda: readable(scheduler)):
            try:
                seen.append(await look())
            except (ValueError, RecursionError) as error:
                seen.append(error)
        assert not [one for one in seen if isinstance(one, Exception)]
        assert (seen[0].state, set(seen[0].result)) == (State.SUCCEEDED, {"type", "note"})
        await unharmed(time)
