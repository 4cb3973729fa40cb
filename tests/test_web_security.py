"""Who is let in: every route, every guard, the same in both hosts."""

from __future__ import annotations

import asyncio
import gzip
import html
import json
import random
import re
from datetime import timedelta
from types import SimpleNamespace

import pytest
from loguru import logger
from web_clients import HOSTS, V1

from taskloop import Options, TaskScheduler
from taskloop.errors import BadSettings
from taskloop.options import Http
from taskloop.web import Principal, Request, Scope, security
from taskloop.web.api import ROUTES
from taskloop.web.core import BODY_BYTES, Headers
from taskloop.web.problems import Problem
from taskloop.web.security import Access, Limits, is_loopback
from taskloop.web.site import Site

pytestmark = pytest.mark.anyio
TOKEN = "tl-4f1c9d0a7be24c55a1d3"


@pytest.fixture(params=sorted(HOSTS))
def host(request):
    return HOSTS[request.param]


def shop(**http):
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(grace=timedelta(0), http=Http(**http)))

    @scheduler.job()
    async def add(a: int = 1) -> int:
        return a

    return scheduler


def named(name="ann", scope="admin"):
    return lambda request: Principal(name, scope)


async def tried(client, route, **more):
    path = re.sub(r"{(\w+)}", "1", route.path)
    return await client.request(route.method, path, {} if route.writes else None, **more)


GUARDED = [route for route in ROUTES if route.scope is not None]


# -- every route


def test_only_two_routes_are_open_to_all_and_one_is_how_to_sign_in():
    assert [route.path for route in ROUTES if route.scope is None and not route.signs_in] == ["/healthz", "/readyz"]
    assert [(route.method, route.path) for route in ROUTES if route.signs_in] == [("POST", f"{V1}/session")]


def test_what_writes_needs_more_than_reading():
    reading = {route.name for route in ROUTES if route.writes and route.scope is Scope.read}
    assert reading == {"validate", "preview", "sign_out"}  # these write nothing


def test_names_of_routes_are_all_different():
    names = [route.name for route in ROUTES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("lower", [Scope.read, Scope.operate])
async def test_every_route_refuses_who_may_less(host, lower):
    async with host(shop(), auth=named(scope=lower)) as client:
        for route in GUARDED:
            answer = await tried(client, route) if route.name != "events" else None
            if route.scope > lower:
                assert (answer.status, answer.code, answer.data["scope"]) == (403, "forbidden", route.scope.name), route
            elif answer is not None:
                assert answer.status not in (401, 403), route


async def test_every_route_refuses_who_did_not_sign_in(host):
    async with host(shop(token=TOKEN)) as client:
        for route in GUARDED:
            answer = await tried(client, route)
            assert (answer.status, answer.code) == (401, "unauthenticated"), route
            assert answer.headers["www-authenticate"].startswith("Bearer")
        for path in ("/nothing", "/", "/api/v1/nothing"):
            assert (await client.get(path)).status == 401


async def test_a_surface_that_is_mounted_without_a_sign_in_lets_nobody_in(host):
    async with host(shop()) as client:
        for route in ROUTES:
            answer = await tried(client, route) if not route.signs_in else await client.post(route.path, {"token": "x"})
            closed = route.scope or route.signs_in
            assert (answer.status == 403 and answer.code == "closed") if closed else answer.status == 200, route


# -- who it is


async def test_the_token_of_the_configuration_is_that_of_the_admin(host):
    async with host(shop(token=TOKEN)) as client:
        right = await client.get(f"{V1}/whoami", headers={"authorization": f"Bearer {TOKEN}"})
        small = await client.get(f"{V1}/whoami", headers={"authorization": f"bearer {TOKEN}"})
        wrong = [
            (await client.get(f"{V1}/whoami", headers={"authorization": one})).status
            for one in ("Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN, "Bearer é")
        ]
        query = await client.get(f"{V1}/jobs?token={TOKEN}")
    assert (right.data["name"], right.data["scope"], small.status) == ("token", "admin", 200)
    assert (wrong, query.status) == ([401] * 5, 401)


async def test_who_guesses_tokens_is_made_to_wait_and_who_has_one_comes_in_beside_them(host):
    async with host(shop(token=TOKEN)) as client:
        statuses = [
            (await client.get(f"{V1}/jobs", headers={"authorization": f"Bearer {n}"})).status for n in range(12)
        ]
        blocked = await client.get(f"{V1}/jobs", headers={"authorization": "Bearer 13"})
        right = await client.get(f"{V1}/jobs", headers={"authorization": f"Bearer {TOKEN}"})
        assert (await client.get("/healthz")).status == 200
    assert statuses == [401] * 10 + [429] * 2
    assert (blocked.status, blocked.code) == (429, "rate-limited")
    assert int(blocked.headers["retry-after"]) > 0
    assert right.status == 200, "behind a proxy all have one address"


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_the_host_says_who_asks_and_that_name_stands_in_the_records(host, kind):
    def plain(request):
        return Principal(request.headers["X-User"], "operate") if "x-user" in request.headers else None

    async def later(request):
        await asyncio.sleep(0)
        return plain(request)

    async with host(shop(), auth=plain if kind == "plain" else later) as client:
        run = (await client.post(f"{V1}/jobs/add/submit", {}, headers={"x-user": "bob"})).data
        other = await client.post(f"{V1}/jobs/add/submit", {"actor": "eve"}, headers={"x-user": "bob"})
        assert (run["actor"], other.code) == ("bob", "forbidden")
        assert (await client.get(f"{V1}/jobs")).code == "unauthenticated"


async def test_an_admin_may_speak_for_somebody(host):
    async with host(shop(), auth=named()) as client:
        assert (await client.post(f"{V1}/jobs/add/submit", {"actor": "bob"})).data["actor"] == "bob"


async def test_the_host_may_look_at_cookies_and_at_its_own_request(host):
    seen = []

    def auth(request):
        seen.append((request.cookies, request.native is not None, request.peer, request.prefix))
        return Principal("ann", Scope.read)

    async with host(shop(), auth=auth) as client:
        await client.get(f"{V1}/whoami", headers={"cookie": "session=abc; theme=dark"})
    assert seen == [({"session": "abc", "theme": "dark"}, True, "127.0.0.1", "/taskloop")]


def wrong_scope(request):
    return Principal("ann", "root")


def no_principal(request):
    return True


def broken(request):
    raise RuntimeError("password=hunter2")


def a_name(request):
    return "anna"


def no_scope(request):
    return SimpleNamespace(name="anna", scope="adm")


async def hangs(request):
    await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("auth", "told"),
    [
        (broken, "RuntimeError: password=hunter2"),
        (wrong_scope, "the scope of a principal is 'root'; allowed are 'read', 'operate' and 'admin'"),
        (no_principal, "auth= (no_principal) gave a value of type bool: allowed are None and a Principal"),
        (a_name, "auth= (a_name) gave a value of type str: allowed are None and a Principal"),
        (no_scope, "auth= (no_scope) gave a value of type SimpleNamespace: the scope of a principal is 'adm'"),
        (hangs, "auth= (hangs) gave no answer within 0.05 s"),
    ],
)
async def test_a_sign_in_that_breaks_lets_nobody_in_and_the_log_says_what_is_wrong_with_it(
    host, auth, told, lines, monkeypatch
):
    monkeypatch.setattr(security, "AUTH_SECONDS", 0.05)
    said = []
    number = logger.add(lambda message: said.append(str(message)), level="ERROR")
    async with host(shop(), auth=auth) as client:
        answer = await client.get(f"{V1}/jobs")
    assert (answer.status, answer.code) == (503, "sign-in-broken")
    assert "the log of the server says" in answer.data["hint"]
    assert b"hunter2" not in answer.body and b"anna" not in answer.body
    logger.remove(number)
    assert "http.failed" in lines and told in said[-1]


@pytest.mark.parametrize("made", [("anna", "adm"), ("anna", 3), (7, "read"), (None, Scope.read)])
def test_a_principal_that_cannot_be_is_refused_when_it_is_made(made):
    with pytest.raises(ValueError, match="of a principal is"):
        Principal(*made)


async def test_a_token_counts_beside_the_sign_in_of_the_host(host):
    async with host(shop(token=TOKEN), auth=lambda request: None) as client:
        assert (await client.get(f"{V1}/whoami", headers={"authorization": f"Bearer {TOKEN}"})).data["via"] == "token"
        assert (await client.get(f"{V1}/whoami")).status == 401


@pytest.mark.parametrize(
    ("login_url", "leads_to"),
    [
        (None, "/taskloop/login?wanted=%2Fjobs%3Fq%3Da%2526b"),
        ("/signin", "/signin?next=%2Ftaskloop%2Fjobs%3Fq%3Da%2526b"),
        ("https://id.example/?of=shop#/in", "https://id.example/?of=shop&next=%2Ftaskloop%2Fjobs%3Fq%3Da%2526b#/in"),
    ],
)
async def test_whom_the_host_does_not_know_is_led_to_its_page_to_sign_in_and_back(host, login_url, leads_to):
    """There was only the field for a token, which nobody has whose sign-in is the host's."""
    async with host(shop(), auth=lambda request: None, login_url=login_url) as client:
        answer = await client.get("/jobs?q=a%26b", headers={"accept": "text/html"})
        told = await client.get(f"{V1}/jobs", headers={"accept": "application/json"})
    [found] = re.findall(r'class="button" href="([^"]*)">Sign in', answer.body.decode())
    assert (answer.status, told.status, html.unescape(found)) == (401, 401, leads_to)


@pytest.mark.parametrize("path", ["//evil.example/", "///evil.example/", "/\\evil.example/"])
async def test_at_the_root_of_a_site_a_sign_in_leads_back_to_no_other_host(path):
    """`next=//evil.example/` begins with a slash: to a host that looks no closer it is a path of its own."""
    site = Site(shop(), auth=lambda request: None, login_url="/signin")
    answer = await site.answer(request(path=path, headers={"accept": "text/html"}))
    [found] = re.findall(r'href="/signin\?next=([^"]*)"', answer.body.decode())
    assert found == "%2Fevil.example%2F"


@pytest.mark.parametrize(
    "login_url", ["javascript:alert(1)", "//evil.example", "signin", "/\\evil", "/a b", "https://", 5]
)
def test_what_is_no_page_to_sign_in_at_is_refused_when_it_is_mounted(login_url):
    with pytest.raises(BadSettings, match="login_url is .*allowed is a path of this site"):
        Site(shop(), auth=named(), login_url=login_url)


def test_a_page_to_sign_in_at_is_of_no_use_where_the_host_is_not_asked():
    with pytest.raises(BadSettings, match="without a function as auth="):
        Site(shop(), login_url="/signin")


@pytest.mark.parametrize("auth", ["closed", True, 5])
def test_what_is_no_sign_in_is_refused_when_it_is_mounted(auth):
    with pytest.raises(BadSettings, match='"open"'):
        Site(shop(), auth=auth)


def test_a_single_name_for_hosts_is_refused():
    with pytest.raises(BadSettings, match="list of names"):
        Site(shop(), auth="open", hosts="jobs.example.org")


@pytest.mark.parametrize("name", ["*", "*.example", "https://shop.example", "", 5, "shop.example/taskloop", "a b"])
def test_a_host_that_nobody_could_send_is_refused_when_it_is_mounted_and_in_the_configuration(name):
    for made in (lambda: Site(shop(), auth="open", hosts=["fine.example", name]), lambda: Http(hosts=(name,))):
        with pytest.raises(BadSettings, match="as it stands in Host, such as 'shop.example'") as caught:
            made()
        assert len(caught.value.problems) == 1 and repr(name) in str(caught.value)
    Site(
        shop(),
        auth="open",
        hosts=["shop.example", "Shop_1.example.:8000", "10.0.0.7:80", "::1", "[fe80::1]:80", "xn--a"],
    )


# -- where it comes from


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("evil.example", 403),
        ("evil.example:8000", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("evil.example, localhost", 403),
        ("", 403),
        ("localhost", 200),
        ("LOCALHOST:99", 200),
        ("127.8.8.8", 200),
        ("[::1]:8700", 200),
        ("jobs.example.org", 200),
        ("Jobs.Example.org.:443", 200),
        ("config.example.org", 200),
    ],
)
async def test_only_names_of_this_server_are_accepted_as_host(host, name, status):
    async with host(shop(hosts=("config.example.org",)), auth="open", hosts=["jobs.example.org"]) as client:
        answer = await client.get(f"{V1}/jobs", headers={"Host": name})
        assert answer.status == status
        assert status == 200 or answer.code == "host-not-allowed"
        assert (await client.get("/healthz", headers={"Host": name})).status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 202),
        ({"sec-fetch-site": "same-origin"}, 202),
        ({"sec-fetch-site": "same-origin", "origin": "http://localhost:8000"}, 202),
        ({"origin": "http://localhost:8000"}, 202),
        ({"origin": "https://LOCALHOST:8000"}, 202),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "none"}, 403),
        ({"sec-fetch-site": "cross-site", "origin": "http://localhost:8000"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost:9000"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://localhost:8000@evil.example"}, 403),
        ({"origin": "http://[::"}, 403),
    ],
)
async def test_a_write_that_another_site_asks_for_is_refused(host, headers, status):
    async with host(shop(), auth=named()) as client:
        answer = await client.post(f"{V1}/jobs/add/submit", {}, headers={"host": "localhost:8000", **headers})
        assert answer.status == status
        assert (await client.get(f"{V1}/jobs", headers={"host": "localhost:8000", **headers})).status == 200


def test_a_usual_port_may_be_left_out_of_host():
    asked = request(method="POST", headers={"host": "jobs.example.org", "origin": "https://jobs.example.org:443"})
    Access.check_site(asked)
    with pytest.raises(Problem):
        Access.check_site(request(headers={"host": "jobs.example.org", "origin": "https://jobs.example.org:444"}))


def test_of_a_proxy_that_puts_its_own_name_into_host_it_is_said_how_to_mend_it():
    with pytest.raises(Problem) as refused:
        Access.check_site(request(headers={"host": "127.0.0.1:8700", "origin": "https://shop.example"}))
    assert "Host '127.0.0.1:8700'" in refused.value.detail and "proxy_set_header Host" in refused.value.hint


# -- a server of our own


def request(method="GET", path="/api/v1/whoami", headers=(), peer="127.0.0.1", chunks=()):
    async def read():
        for chunk in chunks:
            yield chunk

    given = {"host": "127.0.0.1", **dict(headers)}
    return Request(method=method, path=path, headers=Headers(given.items()), chunks=read, peer=peer)


@pytest.mark.parametrize("bind", ["0.0.0.0", "::", "192.168.1.5", "jobs.example.org"])
async def test_a_server_that_others_reach_does_not_start_without_a_sign_in(bind):
    with pytest.raises(BadSettings, match=f"{re.escape(bind)}.*taskloop token create"):
        await Site(shop(), bind=bind).check_bind()
    await Site(shop(token=TOKEN), bind=bind).check_bind()
    await Site(shop(), bind=bind, auth=named()).check_bind()


@pytest.mark.parametrize("bind", ["0.0.0.0", "jobs.example.org"])
async def test_who_does_not_ask_whether_somebody_may_come_in_lets_nobody_in(bind):
    scheduler = shop()
    async with scheduler:
        answer = await Site(scheduler, bind=bind).answer(request(headers={"host": "127.0.0.1"}))
    assert (answer.status, b'"closed"' in answer.body) == (403, True)


@pytest.mark.parametrize("bind", ["127.0.0.1", "localhost", "::1", "127.1.2.3"])
async def test_on_loopback_everybody_of_this_machine_may_do_all(bind):
    scheduler = shop()
    async with scheduler:
        answer = await Site(scheduler, bind=bind).answer(request())
    assert answer.status == 200
    assert b'"name":"local","scope":"admin"' in answer.body


@pytest.mark.parametrize(
    "name", ["X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "Via", "X-Real-IP", "CF-Connecting-IP"]
)
async def test_what_came_through_a_proxy_is_not_of_this_machine(name):
    scheduler = shop()
    async with scheduler:
        answer = await Site(scheduler, bind="127.0.0.1").answer(request(headers={name: "1.2.3.4"}))
    assert answer.status == 403
    assert b"proxied" in answer.body


async def test_a_server_on_every_address_is_reached_by_numbers_but_by_no_foreign_name():
    site = Site(shop(token=TOKEN), bind="0.0.0.0")
    sign_in = {"authorization": f"Bearer {TOKEN}"}
    assert (await site.answer(request(headers={**sign_in, "host": "192.168.7.7:8700"}))).status == 200
    assert (await site.answer(request(headers={**sign_in, "host": "evil.example"}))).status == 403


def test_names_of_this_machine():
    assert all(map(is_loopback, ["localhost", "127.0.0.1:80", "[::1]", "::1", "LocalHost."]))
    assert not any(map(is_loopback, ["0.0.0.0", "localhost.example", "10.0.0.1", "", "::", "localhost@evil"]))


# -- how much and how often


async def test_a_long_body_is_refused_whether_it_says_so_or_not(host):
    async with host(shop(), auth="open") as client:
        answer = await client.request("POST", f"{V1}/jobs/add/submit", raw=b" " * (BODY_BYTES + 1))
        fits = await client.request("POST", f"{V1}/jobs/add/submit", raw=b" " * BODY_BYTES)
    assert (answer.status, answer.code, fits.status) == (413, "payload-too-large", 202)
    with pytest.raises(Problem, match="longer than"):
        await request(chunks=[b" " * 1000] * 100).body()


async def test_a_body_that_is_packed_is_refused_unread(host):
    async with host(shop(), auth="open") as client:
        packed = gzip.compress(b" " * 1_000_000 + b"{}")
        headers = {"content-encoding": "gzip"}
        answer = await client.post(f"{V1}/jobs/add/submit", raw=packed, headers=headers)
        plain = await client.post(f"{V1}/jobs/add/submit", raw=b"{}", headers={"content-encoding": "identity"})
    assert (answer.status, answer.code, plain.status) == (415, "unsupported-media-type", 202)


async def test_headers_and_addresses_beyond_measure_are_refused():
    site = Site(shop(), auth="open")
    many = {f"x-{number}": "1" for number in range(101)}
    assert (await site.answer(request(headers=many))).status == 431
    assert (await site.answer(request(headers={"x": "1" * 40_000}))).status == 431
    assert (await site.answer(request(path="/api/v1/" + "x" * 5000))).status == 414


async def test_a_flood_of_submits_of_a_job_is_stemmed_for_that_caller_and_job_alone(host):
    scheduler = shop(submit_limit=(3, timedelta(minutes=1)))
    scheduler.add_job(nothing, name="other")
    async with host(scheduler, auth=lambda one: Principal(one.headers.get("x-user", "ann"), "operate")) as client:
        answers = [await client.post(f"{V1}/jobs/add/submit") for _ in range(4)]
        old = await client.post("/tasks/add")
        other = await client.post(f"{V1}/jobs/other/submit")
        bob = await client.post(f"{V1}/jobs/add/submit", headers={"x-user": "bob"})
        runs = (await client.get(f"{V1}/runs")).items
    assert [one.status for one in answers] == [202, 202, 202, 429]
    assert 1 <= int(answers[3].headers["retry-after"]) <= 20
    assert (old.status, other.status, bob.status) == (429, 202, 202)
    assert len(runs) == 5


async def test_a_flood_of_requests_of_any_kind_is_stemmed_for_that_caller_alone(host):
    async with host(
        shop(request_limit=(5, timedelta(minutes=1))),
        auth=lambda one: Principal(one.headers.get("x-user", "ann"), "read"),
    ) as client:
        paths = [f"{V1}/jobs", "/nothing", f"{V1}/runs/1", "/", f"{V1}/jobs/add/submit", f"{V1}/jobs"]
        answers = [await (client.post if "submit" in path else client.get)(path) for path in paths]
        bob = await client.get(f"{V1}/jobs", headers={"x-user": "bob"})
        probe = await client.get("/healthz")
    assert [one.status for one in answers] == [200, 404, 404, 200, 403, 429]
    assert answers[5].code == "rate-limited" and 1 <= int(answers[5].headers["retry-after"]) <= 12
    assert (bob.status, probe.status) == (200, 200)


async def nothing(): ...


def test_a_bucket_fills_up_again_evenly():
    now = [0.0]
    limits = Limits(lambda: now[0])
    assert [limits.take("a", 2, 10) for _ in range(3)] == [None, None, 5.0]
    now[0] = 5.0
    assert [limits.take("a", 2, 10) for _ in range(2)] == [None, 5.0]
    now[0] = 1000.0
    assert [limits.take("a", 2, 10) is None for _ in range(3)] == [True, True, False]


# -- what is told


class Broken(TaskScheduler):
    async def status(self):
        raise RuntimeError("no file /srv/secret/app.db")


async def test_an_error_that_nobody_foresaw_is_told_to_admins_and_to_the_log_alone(host, lines):
    told = {}
    for scope in ("read", "admin"):
        scheduler = Broken("sqlite:///:memory:", options=Options())
        async with host(scheduler, auth=named(scope=scope)) as client:
            told[scope] = await client.get(f"{V1}/status")
    assert [(one.status, one.code) for one in told.values()] == [(500, "internal")] * 2
    assert b"secret" not in told["read"].body
    assert "/srv/secret/app.db" in told["admin"].data["detail"]
    assert b"Traceback" not in told["admin"].body
    assert lines.count("http.failed") == 2


async def test_where_the_store_lies_is_told_to_admins_alone(host):
    told = {}
    for scope in ("operate", "admin"):
        async with host(shop(), auth=named(scope=scope)) as client:
            told[scope] = (await client.get(f"{V1}/status")).data["store"]
    assert told == {"operate": "sqlite", "admin": "sqlite:///:memory:"}


async def test_the_token_is_in_nothing_that_is_shown():
    http = Http(token=TOKEN)
    assert TOKEN not in repr(http) + repr(Options(http=http)) + repr(Principal("token"))


# -- whatever is sent


async def test_whatever_is_sent_the_server_does_not_fail(lines):
    """A thousand requests made of what a hostile client would try, with the same seed each time."""
    dice = random.Random(8700)
    strange = [
        "",
        "1",
        "-1",
        "add",
        "%00",
        "%ff",
        "%2e%2e",
        "a%2Fb",
        "9" * 25,
        "x" * 300,
        "%F0%9F%92%A3",
        "null",
        "{}",
        "'--",
    ]
    values = [
        None,
        "",
        "add",
        0,
        -1,
        2**70,
        1.5,
        True,
        [],
        {},
        {"a": 1},
        {"every": "1s"},
        {"cron": "* * * * *"},
        "\ud800",
        "+2h",
        "x" * 999,
    ]
    scheduler = shop(submit_limit=None)
    site = Site(scheduler, auth="open")
    async with scheduler:
        for _ in range(1000):
            route = dice.choice([one for one in ROUTES if one.name not in ("events", "run_tasks")])
            path = re.sub(r"{(\w+)}", lambda _: dice.choice(strange), route.path)
            names = [one.name for one in (*route.query, *route.body)] + ["strange"]
            query = "&".join(f"{dice.choice(names)}={dice.choice(strange)}" for _ in range(dice.randrange(3)))
            body = json.dumps({dice.choice(names): dice.choice(values) for _ in range(dice.randrange(4))}).encode()
            asked = request(route.method, path, {"content-type": "application/json"}, chunks=[body])
            asked.query = query
            answer = await site.answer(asked)
            assert answer.status < 500, (route.method, path, query, body, answer.body)
            if not isinstance(answer.body, bytes):
                assert b"".join([chunk async for chunk in answer.body]) is not None
        assert (await site.answer(request())).status == 200
    assert "http.failed" not in lines
