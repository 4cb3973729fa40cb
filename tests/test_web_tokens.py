"""Tokens of the store and sessions of browsers: who comes in by them, for how long, and what they are refused."""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest
from test_web_security import GUARDED, TOKEN, named, request, shop, tried
from web_clients import HOSTS, PREFIX, V1

from taskloop.clock import SystemClock
from taskloop.errors import BadSettings, StoreUnavailable
from taskloop.ledger import Ledger
from taskloop.options import Http
from taskloop.store_sqlite import SqliteStore
from taskloop.web.api import ROUTES
from taskloop.web.api.events import ASK_SECONDS, while_allowed
from taskloop.web.problems import Problem
from taskloop.web.security import Access, Scope
from taskloop.web.sessions import LASTS_SECONDS, Cookie
from taskloop.web.site import Asked, Site
from taskloop.web.tokens import APART_SECONDS, FRESH_SECONDS

pytestmark = pytest.mark.anyio

HERE = {"sec-fetch-site": "same-origin"}
WRITING = [route for route in ROUTES if route.writes and not route.signs_in]


@pytest.fixture(params=sorted(HOSTS))
def host(request):
    return HOSTS[request.param]


def bearer(text):
    return {"authorization": f"Bearer {text}"}


async def token(scheduler, name="ann", scope="admin", **more):
    return (await scheduler.keyring.create(name, scope, **more))[1]


async def signed_in(client, text, **headers):
    """The cookie of a new session, as a browser sends it."""
    answer = await client.post(f"{V1}/session", {"token": text}, headers={**HERE, **headers})
    assert (answer.status, answer.body) == (204, b""), answer.body
    return {"cookie": answer.headers["set-cookie"].partition(";")[0]}


# -- tokens


@pytest.mark.parametrize("scope", ["read", "operate", "admin"])
async def test_a_token_of_the_store_names_who_asks_and_what_that_one_may(host, scope):
    scheduler = shop()
    async with host(scheduler) as client:
        text = await token(scheduler, "ann", scope)
        who = (await client.get(f"{V1}/whoami", headers=bearer(text))).data
        answers = [
            await client.post(path, {}, headers=bearer(text)) for path in (f"{V1}/jobs/add/submit", f"{V1}/pause")
        ]
    assert (who["name"], who["scope"], who["via"]) == ("ann", scope, "token")
    allowed = {"read": [403, 403], "operate": [202, 403], "admin": [202, 200]}[scope]
    assert [one.status for one in answers] == allowed
    assert scope == "read" or answers[0].data["actor"] == "ann"


async def test_what_is_like_a_token_but_is_none_is_refused(host):
    scheduler = shop()
    async with host(scheduler) as client:
        text = await token(scheduler)
        identity, secret = text[3:15], text[16:]
        wrong = [
            f"tl_{identity}_{secret[:-1]}{'0' if secret[-1] != '0' else '1'}", f"tl_{'0' * 12}_{secret}", text.upper(),
            f"tl_{identity}", secret, f"{text} x",
        ]  # fmt: skip
        answers = [await client.get(f"{V1}/whoami", headers=bearer(one)) for one in wrong]
        elsewhere = [
            await client.get(f"{V1}/whoami?token={text}"), await client.get(f"{V1}/whoami?access_token={text}"),
            await client.get(f"{V1}/whoami", headers={"cookie": f"taskloop={text}"}),
            await client.get(f"{V1}/whoami", headers={"authorization": f"Basic {text}"}),
        ]  # fmt: skip
    assert [one.status for one in (*answers, *elsewhere)] == [401] * 10


async def test_a_revoked_and_an_expired_token_are_refused_and_the_rest_of_the_world_too(host):
    """Once there was a token, nobody comes in without one: what was closed does not open by itself."""
    scheduler = shop()
    async with host(scheduler) as client:
        assert (await client.get(f"{V1}/whoami")).code == "closed"
        text = await token(scheduler)
        await scheduler.keyring.revoke("ann")
        assert (await client.get(f"{V1}/whoami", headers=bearer(text))).status == 401
        assert (await client.get(f"{V1}/whoami")).status in (401, 403)


async def test_a_use_is_written_down_beside_the_request(host):
    scheduler = shop()
    async with host(scheduler) as client:
        text = await token(scheduler)
        assert (await scheduler.keyring.tokens())[0].last_used_at is None
        before = datetime.now(UTC)
        await client.get(f"{V1}/whoami", headers=bearer(text))
        await client.get(f"{V1}/whoami", headers=bearer(text))
        async with asyncio.timeout(5):
            while (used := (await scheduler.keyring.tokens())[0].last_used_at) is None:
                await asyncio.sleep(0)
        assert before <= used <= datetime.now(UTC)


async def test_who_guesses_tokens_is_made_to_wait_at_the_sign_in_too(host):
    scheduler = shop()
    async with host(scheduler) as client:
        text = await token(scheduler)
        wrong = [await client.post(f"{V1}/session", {"token": f"guess {n}"}) for n in range(12)]
        assert [one.status for one in wrong] == [401] * 10 + [429] * 2
        assert (await client.get(f"{V1}/whoami", headers=bearer("guess"))).status == 429
        assert (await client.get(f"{V1}/whoami", headers=bearer(text))).status == 200
        assert await signed_in(client, text)


# -- as an Access sees it, on a clock of its own


class Clock(SystemClock):
    """A wall clock that stands until it is set."""

    def __init__(self):
        self.at = datetime(2026, 3, 1, tzinfo=UTC)

    def now(self):
        return self.at


class Counting(SqliteStore):
    """A store that counts who asks it for tokens and tells it of their use, and may be away."""

    looks = uses = 0
    away = False
    answers = None
    """An event: nothing is answered until it is set."""

    async def tokens(self, **asked):
        if self.away:
            raise StoreUnavailable("store is away; wait")
        if self.answers is not None:
            await self.answers.wait()
        self.looks += "live_at" in asked
        return await super().tokens(**asked)

    async def use_token(self, token, now):
        self.uses += 1
        await super().use_token(token, now)


class Door:
    """An Access, its store, and its two clocks."""

    def __init__(self, **options):
        self.store, self.clock, self.monotonic = Counting(":memory:"), Clock(), [1000.0]
        self.ledger = Ledger(self.store, clock=self.clock)
        bind = options.pop("bind", None)
        http = Http(**options)
        self.access = Access(
            keyring=lambda: self.ledger.keyring, bind=bind, options=lambda: http, monotonic=lambda: self.monotonic[0]
        )

    async def asks(self, text=None, **more):
        headers = {**(bearer(text) if text else {}), **more.pop("headers", {})}
        try:
            return (await self.access.principal(request(headers=headers, **more))).name
        except Problem as problem:
            return problem.status


@asynccontextmanager
async def door(**options):
    made = Door(**options)
    try:
        yield made
    finally:
        await made.access.close()
        await made.ledger.close()


async def test_a_flood_of_requests_is_no_flood_of_statements():
    async with door() as one:
        text = await token(one.ledger)
        assert await one.asks(text) == "ann"
        seen = one.store.looks
        assert {await one.asks(text) for _ in range(200)} == {"ann"}
        assert one.store.looks == seen
        invented = [f"tl_{number:012x}_{'0' * 64}" for number in range(200)]
        assert set(await asyncio.gather(*map(one.asks, invented))) == {401, 429}
        assert one.store.looks <= seen + 2


async def test_a_revoked_token_is_refused_within_seconds_and_a_new_one_known_at_once():
    async with door() as one:
        text = await token(one.ledger)
        assert await one.asks(text) == "ann"
        await one.ledger.keyring.revoke("ann")
        one.monotonic[0] += FRESH_SECONDS + 0.1
        assert await one.asks(text) == 401
        assert await one.asks(await token(one.ledger, "bob")) == "bob"


async def test_a_token_is_over_at_the_instant_it_expires():
    async with door() as one:
        text = await token(one.ledger, expires="1h")
        one.clock.at += timedelta(minutes=59)
        assert await one.asks(text) == "ann"
        one.clock.at += timedelta(minutes=1)
        assert await one.asks(text) == 401


async def test_while_the_store_is_away_its_tokens_open_nothing_and_that_of_the_configuration_all():
    async with door(token=TOKEN) as one:
        text = await token(one.ledger)
        assert await one.asks(text) == "ann"
        one.store.away = True
        assert await one.asks(TOKEN) == "token"
        one.monotonic[0] += FRESH_SECONDS + 0.1
        with pytest.raises(StoreUnavailable):
            await one.asks(text)
        one.store.away = False
        one.monotonic[0] += 1
        assert await one.asks(text) == "ann"


async def test_this_machine_is_let_in_until_there_was_a_token():
    async with door(bind="127.0.0.1") as one:
        assert await one.asks() == "local"
        one.store.away = True
        one.monotonic[0] += FRESH_SECONDS + 0.1
        assert await one.asks() == "local"  # there was none when the store last answered
        one.store.away = False
        assert await one.asks() == "local"
        text = await token(one.ledger)
        one.monotonic[0] += APART_SECONDS + 0.01
        assert (await one.asks(), await one.asks(text)) == (401, "ann")
        await one.ledger.keyring.revoke("ann")
        one.monotonic[0] += FRESH_SECONDS + 0.1
        assert (await one.asks(), await one.asks(text)) == (401, 401)


async def test_who_signs_in_where_this_machine_is_let_in_without_is_told_that_it_is_no_token():
    async with door(bind="127.0.0.1") as one:
        with pytest.raises(Problem) as caught:
            await one.access.sign_in(request(), "tl_of_somewhere_else")
        assert (caught.value.status, caught.value.detail) == (401, "that is no token of this server, or it is over")


async def test_this_machine_does_not_wait_for_a_store_that_hangs():
    async with door(bind="127.0.0.1") as one:
        assert await one.asks() == "local"
        one.store.answers = asyncio.Event()
        one.monotonic[0] += FRESH_SECONDS + 0.1
        async with asyncio.timeout(10):
            assert await one.asks() == "local"
        one.store.answers.set()
        await token(one.ledger)
        assert await one.asks() == 401


async def test_a_bearer_that_is_meant_for_nobody_here_keeps_this_machine_not_out():
    async with door(bind="127.0.0.1") as one:
        assert {await one.asks("left over from elsewhere") for _ in range(30)} == {"local"}
        assert await one.asks(headers={"authorization": "Bearer "}) == "local"


async def test_this_machine_is_not_let_in_while_nobody_knows_whether_there_was_a_token():
    async with door(bind="127.0.0.1") as one:
        one.store.away = True
        with pytest.raises(StoreUnavailable):
            await one.asks()


async def test_a_server_that_others_reach_starts_with_a_token_that_is_valid():
    async with door(bind="0.0.0.0") as one:
        with pytest.raises(BadSettings, match="taskloop token create"):
            await one.access.check_bind()
        await token(one.ledger, expires="1h")
        await one.access.check_bind()
        one.clock.at += timedelta(hours=1)
        with pytest.raises(BadSettings, match="nobody may come in yet"):
            await one.access.check_bind()


async def test_only_one_use_a_minute_goes_to_the_store():
    async with door() as one:
        text, other = await token(one.ledger), await token(one.ledger, "other")
        noted = []
        for seconds in (0, 30, 31):
            one.clock.at += timedelta(seconds=seconds)
            one.monotonic[0] += seconds
            for each in (other, text, other):
                await one.asks(each)
            await one.access.close()
            noted.append((await one.ledger.keyring.tokens())[0].last_used_at)
        assert noted[0] == noted[1] < noted[2] == one.clock.at
        assert one.store.uses == 4


# -- sessions


async def test_a_session_stands_for_its_token(host):
    scheduler = shop()
    async with host(scheduler) as client:
        session = await signed_in(client, await token(scheduler, "ann", "operate"))
        who = (await client.get(f"{V1}/whoami", headers=session)).data
        assert (who["name"], who["scope"], who["via"]) == ("ann", "operate", "session")
        run = await client.post(f"{V1}/jobs/add/submit", {}, headers={**session, **HERE})
        assert (run.status, run.data["actor"]) == (202, "ann")
        assert (await client.post(f"{V1}/pause", {}, headers={**session, **HERE})).code == "forbidden"
        assert (await scheduler.keyring.tokens())[0].last_used_at is not None


async def test_the_cookie_is_closed_to_scripts_and_other_sites_and_kept_below_the_mount(host):
    scheduler = shop()
    async with host(scheduler) as client:
        text = await token(scheduler)
        answer = await client.post(f"{V1}/session", {"token": text}, headers=HERE)
        name, value = answer.headers["set-cookie"].partition(";")[0].split("=")
        assert re.fullmatch(r"taskloop-[0-9a-f]{8}", name)
        assert answer.headers["set-cookie"].partition("; ")[2] == (
            f"Max-Age={LASTS_SECONDS}; Path={PREFIX}; HttpOnly; SameSite=Strict"
        )
        assert text not in value and text[16:] not in value
        assert answer.headers["cache-control"] == "no-store"


async def test_where_the_browser_is_on_tls_the_cookie_is_the_hosts_alone(host):
    scheduler = shop()
    async with host(scheduler, hosts=["jobs.example"]) as client:
        text = await token(scheduler)
        there = {"host": "jobs.example", "origin": "https://jobs.example"}
        answer = await client.post(f"{V1}/session", {"token": text}, headers=there)
        cookie = answer.headers["set-cookie"]
        assert re.match(
            r"__Host-taskloop-[0-9a-f]{8}=\S+; Max-Age=43200; Path=/; Secure; HttpOnly; SameSite=Strict$", cookie
        )
        who = await client.get(f"{V1}/whoami", headers={"cookie": cookie.partition(";")[0]})
        assert who.data["via"] == "session"


async def test_signing_out_takes_the_cookie_away(host):
    scheduler = shop()
    async with host(scheduler) as client:
        session = await signed_in(client, await token(scheduler))
        answer = await client.request("DELETE", f"{V1}/session", headers={**session, **HERE})
        assert answer.status == 204
        name = session["cookie"].partition("=")[0]
        assert answer.headers["set-cookie"].startswith(f"{name}=; Max-Age=0; Path={PREFIX};")


async def test_a_session_of_the_configurations_token_is_over_when_that_is_another(host):
    scheduler = shop(token=TOKEN)
    async with host(scheduler) as client:
        session = await signed_in(client, TOKEN)
        who = (await client.get(f"{V1}/whoami", headers=session)).data
        assert (who["name"], who["scope"], who["via"]) == ("token", "admin", "session")
        for other in (f"{TOKEN}x", ""):
            scheduler.options = type(scheduler.options)(http=Http(token=other))
            assert (await client.get(f"{V1}/whoami", headers=session)).status in (401, 403)


async def test_a_write_by_a_session_says_where_it_comes_from(host):
    scheduler = shop()
    async with host(scheduler) as client:
        session = await signed_in(client, await token(scheduler))
        here = {"host": "localhost:8000"}
        for headers, status in (
            ({}, 403), ({"sec-fetch-site": "same-origin"}, 202), ({"origin": "http://localhost:8000"}, 202),
            ({"sec-fetch-site": "same-site"}, 403), ({"sec-fetch-site": "none"}, 403), ({"origin": "null"}, 403),
            ({"origin": "http://localhost:9000"}, 403), ({"origin": ""}, 403),
        ):  # fmt: skip
            answer = await client.post(f"{V1}/jobs/add/submit", {}, headers={**session, **here, **headers})
            assert answer.status == status, headers
            assert status == 202 or answer.code == "cross-site"
        assert (await client.get(f"{V1}/jobs", headers=session)).status == 200


async def test_a_cookie_is_no_bearer_and_a_wrong_bearer_is_not_helped_by_a_cookie(host):
    scheduler = shop()
    async with host(scheduler) as client:
        text = await token(scheduler)
        session = await signed_in(client, text)
        value = session["cookie"].partition("=")[2]
        for headers in (bearer(value), bearer(session["cookie"]), {**session, **bearer("wrong")}):
            assert (await client.get(f"{V1}/whoami", headers=headers)).status == 401
        assert (await client.get(f"{V1}/whoami?{session['cookie']}")).status == 401
        assert (await client.get(f"{V1}/whoami", headers={**session, **bearer(text)})).data["via"] == "token"


async def test_what_is_no_token_begins_no_session(host):
    scheduler = shop()
    async with host(scheduler) as client:
        text = await token(scheduler)
        value = (await signed_in(client, text))["cookie"].partition("=")[2]
        await scheduler.keyring.create("bob", "read")
        for body, status in (
            ({"token": "x"}, 401), ({"token": ""}, 401), ({"token": value}, 401), ({}, 422), ({"token": 5}, 422),
            ({"token": text, "scope": "admin"}, 422), ({"token": f"{text}\ud800"}, 401),
        ):  # fmt: skip
            answer = await client.post(f"{V1}/session", body, headers=HERE)
            assert (answer.status, "set-cookie" in answer.headers) == (status, False), body
            assert text.encode() not in answer.body
        form = await client.request(
            "POST", f"{V1}/session", raw=f"token={text}".encode(), headers={"content-type": "text/plain"}
        )
        assert form.status == 415


async def test_whatever_is_sent_to_the_sign_in_it_does_not_fail(host):
    async with host(shop(token=TOKEN)) as client:
        for text in ("\ud800", "\x00", "é" * 5_000, " ", "tl_é_é"):
            assert (await client.post(f"{V1}/session", {"token": text}, headers=HERE)).code == "unauthenticated"


async def test_a_cookie_that_was_changed_or_is_of_another_store_opens_nothing(host):
    scheduler, other = shop(), shop()
    async with host(other) as client:
        foreign = await signed_in(client, await token(other))
    async with host(scheduler) as client:
        name, _, value = (await signed_in(client, await token(scheduler)))["cookie"].partition("=")
        identity, until, mark = value.split(".")
        admin = (await scheduler.keyring.create("root", "admin"))[0].id
        for cookie in (
            f"{name}={admin}.{until}.{mark}", f"{name}={identity}.{int(until) + 1}.{mark}", f"{name}={identity}.{until}.{'0' * 64}",
            f"{name}=", f"{name}", f"{name}={value}.x", f"taskloop-00000000={value}", foreign["cookie"],
            f"{name}={foreign['cookie'].partition('=')[2]}", f"{name}={identity}.{'9' * 13}.{mark}", f"{name}=é.{until}.{mark}",
        ):  # fmt: skip
            answer = await client.get(f"{V1}/whoami", headers={"cookie": cookie})
            assert answer.status == 401, cookie
        beside = f'strange={{"a":1}}; {name}=; {name}={value}; x'
        assert (await client.get(f"{V1}/whoami", headers={"cookie": beside})).status == 200


async def test_a_session_is_over_with_its_token():
    async with door() as one:
        text = await token(one.ledger)
        cookie = (await one.access.sign_in(request("POST"), text)).partition(";")[0]
        assert await one.asks(headers={"cookie": cookie}) == "ann"
        await one.ledger.keyring.revoke("ann")
        one.monotonic[0] += FRESH_SECONDS + 0.1
        assert await one.asks(headers={"cookie": cookie}) == 401


async def test_a_session_is_over_after_twelve_hours_and_with_its_token_before():
    async with door() as one:
        long = (await one.access.sign_in(request("POST"), await token(one.ledger))).partition(";")[0]
        short = (await one.access.sign_in(request("POST"), await token(one.ledger, "bob", expires="1h"))).partition(
            ";"
        )[0]
        seen = []
        for hours in (0, 1, 10.99, 0.01):
            one.clock.at += timedelta(hours=hours)
            seen.append([await one.asks(headers={"cookie": cookie}) for cookie in (long, short)])
    assert seen == [["ann", "bob"], ["ann", 401], ["ann", 401], [401, 401]]


async def test_two_mounts_of_a_store_and_two_stores_of_a_host_have_cookies_of_their_own():
    names = {
        (secret, prefix, secure): Cookie(secret, prefix).header("a", 0.0, secure=secure).partition("=")[0]
        for secret in (b"1", b"2") for prefix in ("", "/a", "/b") for secure in (False, True)
    }  # fmt: skip
    assert len(set(names.values())) == len(names)
    value = Cookie(b"1", "/a").header("a", 0.0, secure=True).partition("=")[2].partition(";")[0]
    assert [Cookie(b"1", prefix).token(value, 0.0) for prefix in ("/a", "/b")] == ["a", None]


def test_over_tls_only_the_cookie_that_no_other_host_can_set_counts():
    cookie = Cookie(b"secret", "/taskloop")
    plain, host_only = (cookie.header("a", 0.0, secure=secure).partition(";")[0] for secure in (False, True))
    assert len(cookie.values(plain, secure=True)) == 0
    assert len(cookie.values(plain, secure=False)) == len(cookie.values(host_only, secure=True)) == 1
    assert len(cookie.values(f"{plain}, {host_only}", secure=False)) == 2


def test_of_two_sessions_the_one_that_no_other_host_can_have_set_comes_first():
    """Behind what ends TLS both are read: a host beside this one could have its own session put in front."""
    cookie = Cookie(b"secret", "/taskloop")
    theirs, ours = (cookie.header(one, 0, secure=one == "ours").partition(";")[0] for one in ("theirs", "ours"))
    values = cookie.values(f"{theirs}; {ours}", secure=False)
    assert [cookie.token(one, 1) for one in values] == ["ours", "theirs"]


def test_a_mount_of_any_name_stays_within_its_attribute():
    header = Cookie(b"secret", "/a b;Domain=evil\r\nX: é").header("a", 0.0, secure=False)
    assert "Path=/a%20b%3BDomain%3Devil%0D%0AX%3A%20%C3%A9; HttpOnly" in header
    assert "Path=/; " in Cookie(b"secret", "").header("a", 0.0, secure=False)


async def test_processes_on_one_store_know_each_others_sessions(tmp_path):
    """Behind a balancer the next request may come to another process."""
    ledgers = [Ledger(str(tmp_path / "shop.db")) for _ in range(2)]
    try:
        first, second = (Access(keyring=lambda one=one: one.keyring) for one in ledgers)
        text = await token(ledgers[0])
        cookie = (await first.sign_in(request("POST"), text)).partition(";")[0]
        assert (await second.principal(request(headers={"cookie": cookie}))).name == "ann"
        await first.close()
        await second.close()
    finally:
        for one in ledgers:
            await one.close()


# -- every route


async def test_every_mutating_route_is_refused_to_who_has_no_right_to_it(host):
    scheduler = shop(submit_limit=None)
    async with host(scheduler) as client:
        admin, read = await token(scheduler), await token(scheduler, "bob", "read")
        mine, reading = await signed_in(client, admin), await signed_in(client, read)
        await client.get(f"{V1}/whoami", headers=bearer(read))  # the new one is at hand
        strangers = {
            "nobody": ({}, 401, "unauthenticated"),
            "a wrong token": (bearer("x"), (401, 429), None),
            "a foreign host": ({**bearer(admin), "host": "evil.example"}, 403, "host-not-allowed"),
            "a foreign host by a session": ({**mine, **HERE, "host": "evil.example"}, 403, "host-not-allowed"),
            "another site by a token": ({**bearer(admin), "sec-fetch-site": "cross-site"}, 403, "cross-site"),
            "another site by a session": ({**mine, "sec-fetch-site": "cross-site"}, 403, "cross-site"),
            "another origin by a session": ({**mine, "origin": "https://evil.example"}, 403, "cross-site"),
            "a session that says not from where": (mine, 403, "cross-site"),
        }
        for route in WRITING:
            for who, (headers, status, code) in strangers.items():
                answer = await tried(client, route, headers=headers)
                assert answer.status in (status if isinstance(status, tuple) else (status,)), (route.name, who)
                assert code in (None, answer.code), (route.name, who)
            for headers in (bearer(read), {**reading, **HERE}):
                if route.scope > Scope.read:
                    assert (await tried(client, route, headers=headers)).code == "forbidden", route.name
        assert (await client.get(f"{V1}/runs", headers=bearer(admin))).items == []
        assert (await client.get(f"{V1}/schedules", headers=bearer(admin))).items == []
        assert not (await scheduler.status()).paused


async def test_a_sign_in_is_refused_to_other_sites_and_foreign_hosts(host):
    scheduler = shop()
    async with host(scheduler) as client:
        text = await token(scheduler)
        for headers, code in (
            ({"sec-fetch-site": "cross-site"}, "cross-site"), ({"origin": "http://evil.example"}, "cross-site"),
            ({"host": "evil.example"}, "host-not-allowed"),
        ):  # fmt: skip
            answer = await client.post(f"{V1}/session", {"token": text}, headers=headers)
            assert (answer.status, answer.code, "set-cookie" in answer.headers) == (403, code, False)


async def test_every_route_that_reads_is_closed_to_who_brings_nothing_that_is_valid(host):
    scheduler = shop()
    async with host(scheduler) as client:
        await token(scheduler)
        await client.get(f"{V1}/whoami", headers=bearer(f"tl_{'0' * 12}_{'0' * 64}"))  # that there is one is known
        for route in GUARDED:
            assert (await tried(client, route, headers={"cookie": "taskloop-0=1"})).status == 401, route


async def test_the_sign_in_of_the_host_goes_before_a_session(host):
    scheduler = shop()
    async with host(scheduler, auth=named("host", "read")) as client:
        session = await signed_in(client, await token(scheduler))
        assert (await client.get(f"{V1}/whoami", headers=session)).data["name"] == "host"


async def listening(one, text):
    """What the handler of a stream is given, for a listener with this token."""
    site = Site(shop(), auth="open")
    site.access = one.access
    asked, route = request(headers=bearer(text)), next(route for route in ROUTES if route.name == "events")
    who = await one.access.principal(asked)
    return Asked(site=site, request=asked, route=route, principal=who, path={}, query={}, body={})


async def test_who_listens_may_go_on_while_the_token_is_valid_and_no_longer():
    async with door() as one:
        asked = await listening(one, await token(one.ledger))
        assert await asked.may_still()
        one.store.away = True
        one.monotonic[0] += FRESH_SECONDS + 0.1
        assert await asked.may_still(), "a store that is away for a moment ends no stream"
        one.store.away = False
        one.monotonic[0] += 1
        await one.ledger.keyring.revoke("ann")
        one.monotonic[0] += FRESH_SECONDS + 0.1
        assert not await asked.may_still()


async def test_a_stream_ends_some_seconds_after_its_token():
    closed = []

    async def endless():
        try:
            while True:
                yield b"x"
        finally:
            closed.append(True)

    async with door() as one:
        asked = await listening(one, await token(one.ledger))
        sent = 0
        async for chunk in while_allowed(asked, endless(), lambda: one.monotonic[0]):
            sent += len(chunk)
            one.monotonic[0] += 1
            if sent == 15:
                await one.ledger.keyring.revoke("ann")
    assert 15 < sent <= 15 + ASK_SECONDS + FRESH_SECONDS
    assert closed == [True]
