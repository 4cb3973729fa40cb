"""Who asks, what that one may do, and how often: closed unless somebody opened it.

An `Access` answers for one mount of the surface. Nothing here knows a route; `site` asks in this order: is the Host a
name of ours, does another site ask, who is it, may that one do this. Fails closed: a sign-in that breaks lets nobody in.
Who it is, by what comes first: the host's own sign-in, a bearer token, a session that a token opened, this machine.
"""

from __future__ import annotations

import asyncio
import hmac
import inspect
import ipaddress
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple
from urllib.parse import urlsplit

from taskloop.errors import BadSettings, TaskloopError, nearest
from taskloop.options import Http, check_hosts
from taskloop.tokens import Token, split
from taskloop.web.problems import Problem
from taskloop.web.sessions import PREFIXES, Cookie, configured
from taskloop.web.tokens import Tokens

if TYPE_CHECKING:
    from taskloop.keyring import Keyring
    from taskloop.web.core import Request

__all__ = ["GUESSED_MEND", "Access", "Auth", "Limits", "Principal", "Scope", "is_loopback", "weakness"]

LEAST_TOKEN: Final = 16
"""Characters of a token that keeps strangers out; one that `taskloop token create` makes has more."""
GUESSED_MEND: Final = "`taskloop token create NAME --scope admin` makes a good one"
AUTH_SECONDS: Final = 10.0
FAILED_SIGN_INS: Final = (10, 60.0)
"""Wrong tokens of one address, and in how many seconds."""
MOST_KEYS: Final = 10_000
"""Callers whose count is remembered; beyond, the one that was seen longest ago is forgotten."""
HEADERS: Final = (100, 32 * 1024)
"""Headers of a request, and their characters."""
_PROXY: Final = ("forwarded", "x-forwarded", "x-real-ip", "x-client-ip", "cf-connecting-ip", "via")
"""How the names of the headers begin that a proxy adds: one that only tells the scheme is none of this machine either."""


class Scope(IntEnum):
    """What a caller may do; each holds those before it."""

    read = 1
    operate = 2
    """Submit, cancel, run again."""
    admin = 3
    """Switches, pauses, schedules."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks: the name that stands as `actor` in the records, and what that one may do.

    `scope`: a `Scope` or its name: "read", "operate", "admin".
    """

    name: str
    scope: Scope | Literal["read", "operate", "admin"] = Scope.read
    via: str = "auth"
    """How it came in: `auth`, `token`, `session`, `local`, `open`."""

    def __post_init__(self) -> None:
        """Raises `ValueError` for a name that is no text, and a scope that is none."""
        if not isinstance(self.name, str):
            raise ValueError(f"the name of a principal is {type(self.name).__name__}; a text is allowed")  # noqa: TRY004
        if not isinstance(self.scope, Scope) and self.scope not in Scope.__members__:
            near = nearest(self.scope, Scope.__members__) if isinstance(self.scope, str) else None
            raise ValueError(
                f"the scope of a principal is {self.scope!r}{f': did you mean {near!r}?' if near else ''}; "
                "allowed are 'read', 'operate' and 'admin'"
            )

    def may(self, scope: Scope) -> bool:
        """Whether `scope` is within its own."""
        return self.level >= scope

    @property
    def level(self) -> Scope:
        return self.scope if isinstance(self.scope, Scope) else Scope[self.scope]


Auth = Callable[["Request"], Any] | Literal["open"] | None
"""A function, plain or async, that gives a `Principal` or None; "open": no guard; None: nobody said."""


class Bearer(NamedTuple):
    """Whom a token names. `token` None: it is that of the configuration."""

    principal: Principal
    token: Token | None


def _check_login_url(url: object, auth: Auth) -> None:
    if not isinstance(url, str) or not re.fullmatch(r"(https?://[^/\s\\]|/(?![/\\]))[^\s\\]*", url):
        raise BadSettings(
            [f"login_url is {url!r}; allowed is a path of this site as '/login', or an address https://…"]
        )
    if not callable(auth):
        raise BadSettings(
            [f"login_url is {url!r} without a function as auth=, which would know who has signed in there"]
        )


class Access:
    """Who may come in, for one mount.

    `keyring`: the verbs on the tokens of the store. `auth`: see `Auth`. `hosts`: names accepted in Host beside those of
    this machine. `bind`: the address on which a server of our own listens, which then asks `check_bind`; None: mounted
    in a host. `options`: what the configuration says, asked at each request. `login_url`: the page of the host to sign in
    at, for whom `auth` does not know. Raises `BadSettings`.
    """

    def __init__(
        self,
        *,
        keyring: Callable[[], Keyring],
        auth: Auth = None,
        hosts: Iterable[str] = (),
        bind: str | None = None,
        options: Callable[[], Http] = Http,
        login_url: str | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        if auth is not None and auth != "open" and not callable(auth):
            raise BadSettings([f'auth is {auth!r}; allowed are a function of the request, "open" or None'])
        if login_url is not None:
            _check_login_url(login_url, auth)
        hosts = check_hosts(hosts)
        self.login_url: str | None = login_url
        self._auth, self._hosts, self._bind, self._options = auth, frozenset(map(_bare, hosts)), bind, options
        self._failed = Limits(monotonic)
        self._tokens = Tokens(keyring, monotonic)
        self._keyring = keyring

    async def check_bind(self) -> None:
        """See that somebody may come in to a server that others can reach; looks into the store only if it must.

        Asked before it listens. Raises `BadSettings`, and what the store raises.
        """
        if self._bind is None or is_loopback(self._bind) or self._auth is not None or self._options().token:
            return
        if not await self._keyring().live():
            mend = (
                f"give a token (`taskloop token create NAME --scope admin`, or TASKLOOP_HTTP__TOKEN of {LEAST_TOKEN} characters or "
                "more), or listen on 127.0.0.1"
            )
            raise BadSettings(
                [f"http.host is '{self._bind}', which others can reach, and nobody may come in yet; {mend}"]
            )

    @property
    def weakness(self) -> str | None:
        """What is wrong with the token of the configuration on a server that others can reach; None: nothing."""
        return None if self._bind is None or is_loopback(self._bind) else weakness(self._options().token)

    async def close(self) -> None:
        """Wait a moment for what is being written down of tokens."""
        await self._tokens.close()

    async def marks(self) -> Callable[[str], str]:
        """A function that gives what stands for a text, the same in every process on the store; who has not the store
        cannot find the text by trying.
        """
        secret = await self._tokens.secret()
        return lambda text: hmac.new(secret, text.encode("utf-8", "surrogatepass"), sha256).hexdigest()

    # -- the request itself

    def check_host(self, request: Request) -> None:
        """Refuse a Host that is no name of ours: a foreign page may have had its name point here. Raises `Problem`."""
        given = request.headers.get("host", "")
        name = _bare(given)
        own = {one for one in (self._bind, request.server) if one}
        if name and (
            is_loopback(name)
            or name in {_bare(one) for one in own}
            or name in self._hosts
            or name in {_bare(one) for one in self._options().hosts}
            or (self._bind is not None and _is_wildcard(self._bind) and _address(name) is not None)
        ):
            return
        raise Problem(
            403,
            "host-not-allowed",
            f"Host is '{given[:100]}', which is no name of this server",
            "add it to hosts=, or below [http] to hosts",
        )

    @staticmethod
    def check_size(request: Request) -> None:
        """Refuse headers beyond all measure. Raises `Problem`."""
        most, size = HEADERS
        if request.headers.count > most or request.headers.size > size:
            raise Problem(431, "headers-too-large", f"more than {most} headers, or {size} characters of them")

    @staticmethod
    def check_site(request: Request) -> None:
        """Refuse a write that a page of another site asks for. Raises `Problem`.

        A browser says where it comes from, by Fetch Metadata or by Origin; what says neither is no browser.
        """
        site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
        own = request.headers.get("host", "").lower()
        if site is not None:
            mine = site == "same-origin"
        elif origin is not None:
            mine = own in _authorities(origin)
        else:
            mine = True
        if not mine:
            said, mend = f"Sec-Fetch-Site is '{str(site)[:40]}'", None
            if site is None:  # then it is held against Host, which a proxy may have replaced by a name of its own
                said = f"Origin is '{str(origin)[:100]}' and Host '{own[:100]}'"
                mend = "if a proxy stands between, have it hand on Host (nginx: proxy_set_header Host $http_host)"
                mend += ", and add that name to hosts=, or below [http] to hosts"
            raise Problem(403, "cross-site", f"{said}; only pages of this server may change something", mend)

    # -- who it is

    async def principal(self, request: Request) -> Principal:
        """Who asks. Raises `Problem`: 401 where a sign-in would help, 403 where nobody may come in, 429, 503."""
        if self._auth == "open":
            return Principal("anyone", Scope.admin, "open")
        if callable(self._auth) and (found := await self._asked(self._auth, request)) is not None:
            return found
        given = _bearer(request)
        known = await (self._by_session(request) if given is None else self._by_token(request, given))
        if known is not None:
            if known.token is not None:
                self._tokens.use(known.token)
            return known.principal
        return await self._stranger(request)

    async def _stranger(self, request: Request) -> Principal:
        """Who brings nothing that is known: on loopback, where there never was a token, whoever is on this machine."""
        if await self._is_guarded():
            raise Problem(
                401,
                "unauthenticated",
                "no sign-in came with the request, or not the right one",
                "sign in at the site this belongs to, or send the header 'Authorization: Bearer TOKEN'"
                if self._auth is not None
                else "send the header 'Authorization: Bearer TOKEN'; `taskloop token create` makes one",
                headers={"www-authenticate": 'Bearer realm="taskloop"'},
            )
        if self._is_this_machines:
            return self._local(request)
        raise _closed()

    @property
    def _is_this_machines(self) -> bool:
        """Whether nobody but who is on this machine can reach it."""
        return self._bind is not None and is_loopback(self._bind)

    async def _is_guarded(self) -> bool:
        return self._auth is not None or bool(self._options().token) or await self._tokens.issued()

    # -- by a token

    async def _by_token(self, request: Request, given: str) -> Bearer | None:
        """Whom a token names, None: nobody. Raises `Problem` where too many wrong ones came from that address."""
        token = self._options().token
        # Of equal length, so that comparing them tells nothing. The right one comes in however many wrong ones came
        # from there: behind a proxy all have one address, and nobody guesses twenty characters.
        if token and hmac.compare_digest(_digest(given), _digest(token)):
            return _admin("token")
        if (parts := split(given)) is not None:
            found = await self._tokens.find(parts[0])
            if found is not None and found.fits(parts[1]):
                return _named(found, "token")
        if not token and not await self._tokens.issued():
            return None  # there is nothing to guess, and what was sent may be meant for somebody else
        caller, (count, seconds) = request.peer or "", FAILED_SIGN_INS
        if (wait := self._failed.take(caller, count, seconds)) is not None:
            raise _too_often(wait, f"more than {count} wrong tokens in {seconds:g} s came from {caller or 'there'}")
        return None

    # -- by a session

    async def sign_in(self, request: Request, token: str) -> str:
        """Begin a session with a token, sent in the body of a request: gives the `Set-Cookie` for the answer.

        Raises `Problem`: 401 for a token that is none or is over, 403 where nobody may come in, 429, 503.
        """
        if (known := await self._by_token(request, token.strip())) is None:
            if not await self._is_guarded() and not self._is_this_machines:
                raise _closed()
            raise Problem(
                401,
                "unauthenticated",
                "that is no token of this server, or it is over",
                "`taskloop token create` makes one",
                headers={"www-authenticate": 'Bearer realm="taskloop"'},
            )
        if known.token is not None:
            self._tokens.use(known.token)
        with suppress(TaskloopError):  # a store that cannot write keeps nobody out
            await self._keyring().signed_in(known.principal.name)
        cookie = await self._cookie(request)
        identity = known.token.id if known.token else configured(cookie.secret, self._options().token)
        return cookie.header(identity, self._keyring().now().timestamp(), secure=_is_secure(request))

    async def sign_out(self, request: Request) -> str:
        """The `Set-Cookie` that ends a session in the browser that asks."""
        return (await self._cookie(request)).cleared(secure=_is_secure(request))

    async def _by_session(self, request: Request) -> Bearer | None:
        """Whom the token names that a session was opened with, while it is valid. Raises `Problem` for a write that
        does not say where it comes from: a cookie is sent by a browser, whoever wrote the page.
        """
        sent = request.headers.get("cookie", "")
        if not any(one in sent for one in PREFIXES):
            return None
        cookie, now = await self._cookie(request), self._keyring().now().timestamp()
        values = cookie.values(sent, secure=request.scheme == "https")
        identity = next((found for one in values if (found := cookie.token(one, now)) is not None), None)
        if identity is None or (known := await self._opener(cookie, identity)) is None:
            return None
        if request.method not in ("GET", "HEAD") and not {"sec-fetch-site", "origin"} & set(request.headers):
            raise Problem(
                403,
                "cross-site",
                "a session may write only from pages of this server, and the request says not where it comes from",
                "programs send the token itself: 'Authorization: Bearer TOKEN'",
            )
        return known

    async def _opener(self, cookie: Cookie, identity: str) -> Bearer | None:
        token = self._options().token
        if token and hmac.compare_digest(identity, configured(cookie.secret, token)):
            return _admin("session")
        found = await self._tokens.find(identity)
        return None if found is None else _named(found, "session")

    async def _cookie(self, request: Request) -> Cookie:
        return Cookie(await self._tokens.secret(), request.prefix)

    # -- by the host, and by this machine

    @staticmethod
    async def _asked(auth: Callable[[Request], Any], request: Request) -> Principal | None:
        of = f"auth= ({getattr(auth, '__qualname__', type(auth).__qualname__)})"
        try:
            async with asyncio.timeout(AUTH_SECONDS) as limit:
                found = auth(request)
                if inspect.isawaitable(found):
                    found = await found
        except Exception as error:  # foreign code: whatever it raises, nobody is let in
            late = TimeoutError(f"{of} gave no answer within {AUTH_SECONDS:g} s")
            raise _broken() from (late if limit.expired() else error)
        if found is None:
            return None
        try:
            name = found.name
            return Principal(name[:200] if isinstance(name, str) else name, found.scope)
        except Exception as error:
            why = error if isinstance(error, ValueError) else "allowed are None and a Principal of a name and a scope"
            raise _broken() from TypeError(f"{of} gave a value of type {type(found).__name__}: {why}")

    @staticmethod
    def _local(request: Request) -> Principal:
        if any(name.startswith(_PROXY) for name in request.headers):
            raise Problem(
                403,
                "proxied",
                "it came through a proxy, so it may come from anywhere, and no token is set",
                "make one by `taskloop token create`, or give one below [http] or in TASKLOOP_HTTP__TOKEN",
            )
        return Principal("local", Scope.admin, "local")


class Limits:
    """How often each caller may do something: a bucket a key, that fills up again evenly."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._levels: OrderedDict[Any, tuple[float, float]] = OrderedDict()

    def take(self, key: Any, count: int, seconds: float) -> float | None:
        """Count one, at most `count` in `seconds`; gives None, or how many seconds too early it is, uncounted."""
        level = self._level(key, count, seconds)
        if level < 1:
            return (1 - level) * seconds / count
        self._levels[key] = (level - 1, self._monotonic())
        self._levels.move_to_end(key)
        if len(self._levels) > MOST_KEYS:
            self._levels.popitem(last=False)
        return None

    def check(self, key: Any, count: int, seconds: float, what: str) -> None:
        """As `take`, but raises `Problem` when it is too early."""
        if (wait := self.take(key, count, seconds)) is not None:
            raise _too_often(wait, what)

    def _level(self, key: Any, count: int, seconds: float) -> float:
        level, since = self._levels.get(key, (float(count), 0.0))
        return min(float(count), level + (self._monotonic() - since) * count / seconds)


def _admin(via: str) -> Bearer:
    return Bearer(Principal("token", Scope.admin, via), None)


def _named(token: Token, via: str) -> Bearer:
    return Bearer(Principal(token.name, Scope[token.scope], via), token)


def _bearer(request: Request) -> str | None:
    kind, _, given = request.headers.get("authorization", "").partition(" ")
    return (given.strip() or None) if kind.lower() == "bearer" else None


def _is_secure(request: Request) -> bool:
    """Whether the browser is on TLS: what ends it in front of us may not say so, but the browser's Origin does."""
    return request.scheme == "https" or request.headers.get("origin", "").lower().startswith("https:")


def _broken() -> Problem:
    return Problem(
        503,
        "sign-in-broken",
        "who asks could not be found out",
        "the log of the server says what auth= raised, or gave, as http.failed",
        headers={"retry-after": "5"},
    )


def _closed() -> Problem:
    return Problem(
        403,
        "closed",
        "it is mounted without a sign-in, so nobody may come in",
        'give auth= a function of the request, or make a token by `taskloop token create`; auth="open" lets everybody in',
    )


def _too_often(wait: float, what: str) -> Problem:
    seconds = max(1, -int(-wait // 1))
    return Problem(
        429, "rate-limited", what, f"come again in {seconds} s", headers={"retry-after": str(seconds)}
    )  # fmt: skip


def _digest(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogatepass")).digest()


# -- names of hosts


def weakness(token: str) -> str | None:
    """Why a token of the configuration is none that keeps strangers out; None: there is none, or it is long enough."""
    return f"http.token has {len(token)} characters, which can be guessed" if 0 < len(token) < LEAST_TOKEN else None


def is_loopback(name: str) -> bool:
    """Whether only this machine is reached by that name."""
    bare = _bare(name)
    address = _address(bare)
    return bare == "localhost" if address is None else address.is_loopback


def _bare(host: str) -> str:
    """A host without its port, brackets and capitals."""
    name = host.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    head, _, port = name.rpartition(":")
    bare = head if head and ":" not in head and (port.isdecimal() or not port) else name
    return bare.removesuffix(".")


def _address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _is_wildcard(bind: str) -> bool:
    address = _address(_bare(bind))
    return address is not None and address.is_unspecified


def _authorities(origin: str) -> tuple[str, ...]:
    """What Host may say for a page of this origin: with its port, and without where the port is the usual one."""
    try:
        parts = urlsplit(origin.lower())
        name, port = parts.netloc.rpartition("@")[2], parts.port
    except ValueError:
        return ()
    if not name:
        return ()
    usual = {"http": 80, "https": 443}.get(parts.scheme)
    if port is None:
        return (name, f"{name}:{usual}")
    return (name, name.rpartition(":")[0]) if port == usual else (name,)
