"""JSON that does not hold the loop, the description of the API, and the page that lists it."""

from __future__ import annotations

import asyncio
import json
import re
import time
from datetime import date
from enum import Enum
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from pydantic import BaseModel

from taskloop import Options, TaskScheduler
from taskloop.errors import TaskloopError
from taskloop.web import core, problems
from taskloop.web.api import ROUTES
from taskloop.web.api.export import cell
from taskloop.web.asgi import _place
from taskloop.web.core import Headers, Request, listed, written
from taskloop.web.openapi import Described, describe

pytestmark = pytest.mark.anyio
PAGE = (Path(__file__).parent.parent / "docs" / "http.md").read_text("utf-8")


# -- JSON


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        {},
        {"a": [1, 2.5, "é", None, True]},
        ["x" * 100_000],
        list(range(5000)),
        {"a": {str(n): n for n in range(3000)}},
    ],
    ids=lambda value: str(value)[:20],
)
async def test_small_and_large_values_come_back_as_they_were(value):
    assert json.loads(await written(value)) == value


async def test_what_is_no_number_in_json_is_null_and_a_lone_surrogate_is_escaped():
    assert await written({"a": float("nan"), "b": [float("inf")], "c": "NaN"}) == b'{"a":null,"b":[null],"c":"NaN"}'
    assert json.loads(await written("\ud800")) == "\ud800"
    assert json.loads(await written([float("nan")] * 3000)) == [None] * 3000


async def test_the_loop_goes_on_while_something_large_is_written():
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.ensure_future(tick())
    items = [{"id": number, "text": "word " * 20} for number in range(5000)]
    await written(items)
    await listed(items, dict)
    ticking.cancel()
    await asyncio.wait({ticking})
    assert ticks > 20


def test_headers_are_found_in_any_case_and_two_of_a_name_are_both_there():
    headers = Headers([("Host", "a"), ("HOST", "b"), ("X", "1")])
    assert (headers["host"], headers.get("x"), "y" in headers, len(headers), headers.count) == (
        "a, b",
        "1",
        False,
        2,
        3,
    )


def test_of_what_stands_in_a_header_nothing_is_lost_whatever_it_is_written_in():
    sent = {"a": "Jörg €".encode(), "b": "Jörg".encode("latin-1"), "c": b"\xff\xfe"}
    headers = Headers.of_bytes((name.encode(), value) for name, value in sent.items())
    assert dict(headers) == {"a": "Jörg €", "b": "Jörg", "c": "ÿþ"}


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        (["user=anna"], {"user": "anna"}),
        (["a=1", "user=anna"], {"a": "1", "user": "anna"}),
        (['prefs={"dark": true}; user=anna'], {"prefs": '{"dark": true}', "user": "anna"}),
        (["a[b]=1; path=x; user = anna ; flag; =2; ;"], {"a[b]": "1", "path": "x", "user": "anna"}),
        (["user=anna; user=tom; token=a=b=="], {"user": "tom", "token": "a=b=="}),
        ([r'user="a\"\\n\073\303"; b="; c='], {"user": 'a"\\n;\u00c3', "b": '"', "c": ""}),
        ([], {}),
    ],
)
def test_every_cookie_is_read_whatever_others_stand_beside_it(sent, found):
    assert asked(sent).cookies == found


def test_a_cookie_of_many_backslashes_is_read_in_no_time():
    began = time.perf_counter()
    assert asked(['a="' + '\\"' * 16_000 + '"; user=anna']).cookies["user"] == "anna"
    assert time.perf_counter() - began < 0.5


def asked(cookies):
    return Request(method="GET", path="/", headers=Headers([("Cookie", one) for one in cookies]), chunks=lambda: None)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""),
        ("=1+1", "'=1+1"),
        ("  =1+1", "'  =1+1"),
        ("@cmd", "'@cmd"),
        ("-1.5", "-1.5"),
        ("+49", "+49"),
        ("-x", "'-x"),
        ("\t=1", "'\t=1"),
        (5, "5"),
        (-5, "-5"),
        ({"a": "=1"}, '{"a": "=1"}'),
        (True, "true"),
        ("plain", "plain"),
    ],
)
def test_a_cell_is_never_a_formula(value, text):
    assert cell(value) == text


@pytest.mark.parametrize(
    ("root", "path", "raw", "found"),
    [
        ("/taskloop", "/taskloop/a/b", b"/taskloop/a%2Fb", ("/taskloop", "/a%2Fb")),
        ("/taskloop", "/a/b", b"/a%2Fb", ("/taskloop", "/a%2Fb")),
        ("", "/jobs", b"/jobs", ("", "/jobs")),
        ("/taskloop", "/taskloop", b"/taskloop", ("/taskloop", "/")),
        ("/x/y/", "/x/y/z", b"/x/y/z?q=1", ("/x/y", "/z")),
        ("/taskloop", "/taskloop/a b", b"", ("/taskloop", "/a%20b")),
        ("/a", "/ab/c", b"/ab/c", ("/a", "/ab/c")),
    ],
)
def test_where_it_is_mounted_is_read_as_servers_differ_in_telling_it(root, path, raw, found):
    prefix, below = _place({"root_path": root, "path": path, "raw_path": raw})
    assert (prefix, below or "/") == found


@pytest.mark.parametrize(
    ("root", "path", "raw", "found"),
    [
        ("/shop", "/jobs/a/b", b"/shop/taskloop/jobs/a%2Fb", ("/shop/taskloop", "/jobs/a%2Fb")),  # Litestar by uvicorn
        ("/shop", "/jobs/a/b", b"/taskloop/jobs/a%2Fb", ("/shop/taskloop", "/jobs/a%2Fb")),  # Litestar by others
        ("/shop/taskloop", "/jobs", b"/taskloop/jobs", ("/shop/taskloop", "/jobs")),
        ("/taskloop", "/jobs", b"/taskloop/jobs", ("/taskloop", "/jobs")),
        ("/shop", "/jobs", b"/t%20s/jobs", ("/shop/t%20s", "/jobs")),
    ],
)
def test_below_a_path_that_a_proxy_took_off_the_mount_that_the_host_took_off_is_found(root, path, raw, found):
    assert _place({"root_path": root, "path": path, "raw_path": raw}) == found


NESTED = some.recursive(
    some.none() | some.booleans() | some.integers() | some.floats() | some.text(max_size=5),
    lambda inner: some.lists(inner, max_size=6) | some.dictionaries(some.text(max_size=3), inner, max_size=6),
    max_leaves=60,
)


@given(value=NESTED)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_in_pieces_is_what_is_written_at_once(monkeypatch, value):
    """Pieces begin and end anywhere: where a list is too heavy, at a member that is, and between many light ones."""
    whole = core._text(value)
    monkeypatch.setattr(core, "_SMALL_NODES", 4)
    monkeypatch.setattr(core, "_SMALL_TEXT", 12)
    monkeypatch.setattr(core, "PAUSE_SECONDS", 0)
    assert "".join(core._pieces(value)) == core._in_pieces(value) == whole


def test_what_is_deep_and_heavy_is_written_too():
    value = "x" * 60_000
    for _ in range(600):
        value = [value]
    assert core._in_pieces(value) == "[" * 600 + json.dumps("x" * 60_000) + "]" * 600


@pytest.mark.parametrize("beside", [[], [float("nan")], [*range(3000)]])
def test_a_mapping_is_an_object_whatever_stands_beside_it(beside):
    assert json.loads(core._in_pieces({"m": MappingProxyType({"a": 1}), "b": beside}))["m"] == {"a": 1}


def test_keys_that_are_no_texts_are_written_as_json_has_them():
    value = {1: [*range(5000)], None: "x", True: 1.5}
    assert core._in_pieces(value) == core._text(value)


# -- problems


def test_every_error_of_the_package_has_a_problem_of_its_own_or_is_none_of_a_request():
    known = {kind for kind, _, _ in problems._KNOWN}
    every = {TaskloopError}
    while (
        more := {sub for kind in every for sub in kind.__subclasses__() if sub.__module__ == "taskloop.errors"} - every
    ):
        every |= more
    left = {kind.__name__ for kind in every if not any(issubclass(kind, one) for one in known)}
    assert left == {
        "TaskloopError", "BadSettings", "RunFailed", "NotInjected", "ProcessDied", "ClusterUnavailable", "BadToken",
        "NoSuchToken", "NoCurrentRun",
    }  # fmt: skip


def test_every_code_that_is_used_has_a_title_and_a_line_in_the_page():
    source = "".join(path.read_text("utf-8") for path in (Path(problems.__file__).parent).rglob("*.py"))
    used = set(re.findall(r'Problem\(\s*\d{3},\s*"([\w-]+)"', source)) | {code for _, _, code in problems._KNOWN}
    assert used <= set(problems.TITLES)
    assert set(problems.TITLES) - used == {"internal"}
    assert [code for code in problems.TITLES if f"| `{code}` |" not in PAGE] == []


# -- the description


class Size(Enum):
    small = "s"
    large = "l"


class Box(BaseModel):
    size: Size
    day: date


def shop():
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options())

    @scheduler.job(name="pack:box")
    async def pack(box: Box, times: int = 1) -> None:
        """Packs."""

    return scheduler


def test_the_description_has_every_route_and_what_it_takes():
    made = describe(ROUTES, [], "/taskloop")
    assert {(method.upper(), path) for path, one in made["paths"].items() for method in one} == {
        (route.method, route.path) for route in ROUTES
    }
    assert made["openapi"] == "3.1.0"
    assert made["servers"] == [{"url": "/taskloop"}]
    operations = [one for each in made["paths"].values() for one in each.values()]
    assert len({one["operationId"] for one in operations}) == len(ROUTES)
    for route in ROUTES:
        operation = made["paths"][route.path][route.method.lower()]
        named = {one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"}
        assert named == set(re.findall(r"{(\w+)}", route.path))
        assert ("requestBody" in operation) == bool(route.body or route.free_body)


def test_each_job_has_an_address_with_its_own_parameters():
    made = describe(ROUTES, shop(), "")
    body = made["paths"]["/api/v1/jobs/pack:box/submit"]["post"]["requestBody"]
    reference = body["content"]["application/json"]["schema"]["properties"]["params"]["$ref"]
    schema = made["components"]["schemas"][reference.rpartition("/")[2]]
    assert set(schema["properties"]) == {"box", "times"}
    assert body["required"] is True


def test_each_list_says_of_what_it_is_without_which_makers_of_clients_leave_out_the_answer():
    def lists(value):
        if isinstance(value, dict):
            if value.get("type") == "array":
                yield value
            value = value.values()
        elif not isinstance(value, list):
            return
        for one in value:
            yield from lists(one)

    made = describe(ROUTES, shop(), "")
    assert made["components"]["schemas"]["Status"]["properties"]["active"]["items"] == {
        "$ref": "#/components/schemas/Run"
    }
    assert all(one.get("items") or "prefixItems" in one for one in lists(made))


def test_a_body_that_must_be_there_is_said_to_be():
    paths = describe(ROUTES, [], "")["paths"]
    required = {
        one["operationId"]
        for each in paths.values()
        for one in each.values()
        if one.get("requestBody", {}).get("required")
    }
    assert required == {route.name for route in ROUTES if any(one.required for one in route.body)}


def test_the_parameters_of_a_job_have_a_name_that_makers_of_clients_take():
    scheduler = shop()
    for name in ("mail.send", "mail:send", "mail_send"):
        scheduler.add_job(scheduler["pack:box"].function, name=name)
    found = [one for one in describe(ROUTES, scheduler, "")["components"]["schemas"] if one.startswith("params_mail")]
    assert found == ["params_mail_send", "params_mail_send_2", "params_mail_send_3"]


def test_two_jobs_whose_names_differ_in_a_colon_alone_have_each_its_own_parameters():
    scheduler = shop()

    @scheduler.job(name="pack_box")
    async def pack(width: int) -> None:
        """Packs otherwise."""

    made = describe(ROUTES, scheduler, "")
    named = [one["post"] for path, one in made["paths"].items() if path.endswith("box/submit")]
    assert len({json.dumps(one["requestBody"]["content"]["application/json"]["schema"]) for one in named}) == 2


async def test_the_description_is_written_once_as_long_as_the_jobs_are_the_same():
    scheduler, described = shop(), Described(ROUTES)
    first = await described.text(scheduler, "/taskloop")
    assert await described.text(scheduler, "/taskloop") is first
    elsewhere = [json.loads(await described.text(scheduler, f"/{number}")) for number in range(5)]
    assert [one["servers"][0]["url"] for one in elsewhere] == ["/0", "/1", "/2", "/3", "/4"]
    scheduler.add_job(scheduler["pack:box"].function, name="other")
    made = json.loads(await described.text(scheduler, "/taskloop"))
    assert {"/api/v1/jobs/other/submit", "/api/v1/jobs/pack:box/submit"} < made["paths"].keys()
    scheduler.remove_job("pack:box")
    assert b"pack:box" not in await described.text(scheduler, "/taskloop")


def test_every_reference_leads_somewhere():
    made = describe(ROUTES, shop(), "")

    def follow(value, root):
        if isinstance(value, dict):
            root = value if "$id" in value else root
            if (reference := value.get("$ref")) is not None:
                found = root
                for part in reference.removeprefix("#/").split("/"):
                    found = found[part]
            for one in value.values():
                follow(one, root)
        elif isinstance(value, list):
            for one in value:
                follow(one, root)

    follow(made, made)
    json.dumps(made, allow_nan=False)


# -- the page


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
def test_each_route_has_its_line_and_its_example_in_the_page(route):
    scope = route.scope.name if route.scope else "–"
    assert f"| `{route.method} {route.path}` | {scope} |" in PAGE
    example = next((line for line in PAGE.splitlines() if line.startswith("curl ") and _is_of(route, line)), None)
    assert example, f"no example of {route.method} {route.path}"


def _is_of(route, line):
    method = (re.search(r"-X (\w+)", line) or [None, "POST" if " -d " in line else "GET"])[1]
    address = re.search(r"\$AT(/[^\s'\"?]*)", line)
    if address is None or method != route.method:
        return False
    return re.fullmatch(re.sub(r"{\w+}", "[^/]+", route.path), address[1]) is not None
