"""One mount of the admin surface: from a request to the answer, past every guard.

The order is the security: what all may see is answered; then the headers' size, the Host, another site's write, who
asks, whether such a route is there, whether that one may use it; then what it takes is read, and only then a handler is
called. So no handler can forget a guard, and none is asked whether it wants one. Start at `Site.answer`.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from taskloop import audit, durations, looking
from taskloop.errors import MissingExtra, TaskloopError, raised_at
from taskloop.metrics import Metrics
from taskloop.scheduler import TaskScheduler
from taskloop.tasks import Turns
from taskloop.web.core import BrokenOff, Request, Response, tag, written
from taskloop.web.foresight import Foresight
from taskloop.web.live import Live
from taskloop.web.openapi import Described
from taskloop.web.pages.rendering import problem_page
from taskloop.web.pages.repeating import Forms
from taskloop.web.pages.sharing import Shared
from taskloop.web.problems import Problem, of
from taskloop.web.routes import Found, Route, Router, query_values, read_body, read_form
from taskloop.web.security import GUESSED_MEND, Access, Auth, Limits, Principal, Scope

__all__ = ["Asked", "Site"]

_ALWAYS: Final = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
}
LONGEST_PATH: Final = 4_000


@dataclass(slots=True, kw_only=True)
class Asked:
    """What a handler is given: who asks for what, already checked."""

    site: Site
    request: Request
    route: Route
    principal: Principal
    path: Mapping[str, str]
    query: Mapping[str, Any]
    body: Mapping[str, Any]

    @property
    def scheduler(self) -> TaskScheduler:
        return self.site.scheduler

    @property
    def now(self) -> datetime:
        """By the clock of the scheduler, which may be a virtual one."""
        return looking.now(self.scheduler)

    @property
    def admin(self) -> bool:
        return self.principal.may(Scope.admin)

    def told(self) -> dict[str, Any]:
        """`actor` and `reason` for a verb. Only an admin may speak for others. Raises `Problem`."""
        actor = self.body.get("actor")
        if actor is not None and actor != self.principal.name and not self.admin:
            raise Problem(403, "forbidden", "only a caller with scope admin may name another actor", "leave actor out")
        return {"actor": actor or self.principal.name, "reason": self.body.get("reason")}

    async def may_still(self) -> bool:
        """Whether whoever asked may still as much: a token may be revoked, or a session be over, ours or the host's,
        while a stream goes on.
        """
        if self.principal.via == "open":
            return True
        try:
            return (await self.site.access.principal(self.request)).may(self.principal.level)
        except Problem as problem:
            return problem.status >= 500
        except TaskloopError:  # the store does not answer just now
            return True

    def number(self, text: str | None = None) -> int:
        """A run's id, as it was written; None: in the path. Raises `Problem`."""
        text = self.path["id"] if text is None else text
        if not (text.isascii() and text.isdecimal() and len(text) <= 18):
            raise Problem(404, "run-not-found", f"no run '{text[:80]}'; the id of a run is a whole number")
        return int(text)

    def count_submit(self, job: str) -> None:
        """Count a submit of this caller and job. Raises `Problem` when there were too many."""
        limit = self.scheduler.options.http.submit_limit
        if job in self.scheduler:
            limit = self.scheduler[job].policy.submit_limit or limit
        if limit is None:
            return
        count, span = limit
        self.site.submits.check(
            (*_caller(self.principal, self.request), job),
            count,
            span.total_seconds(),
            f"more than {count} submits of '{job[:80]}' in {durations.format(span)}",
        )


class Site:
    """The admin surface of one scheduler at one place.

    `auth`, `hosts`, `bind`, `login_url`: see `security.Access`. Raises `BadSettings`. Whoever listens at `bind` asks `check_bind` first.
    """

    def __init__(
        self,
        scheduler: TaskScheduler,
        *,
        auth: Auth = None,
        hosts: Iterable[str] = (),
        bind: str | None = None,
        login_url: str | None = None,
    ) -> None:
        from taskloop.web.api import ROUTES
        from taskloop.web.pages import ROUTES as PAGES

        self.scheduler = scheduler
        self.access: Access = Access(
            keyring=lambda: scheduler.keyring,
            auth=auth,
            hosts=hosts,
            bind=bind,
            options=lambda: scheduler.options.http,
            login_url=login_url,
        )
        self.router: Router = Router((*ROUTES, *PAGES))
        self.live: Live = Live(scheduler)
        self.shared: Shared = Shared()
        self.forms: Forms = Forms()
        self.metrics: Metrics = Metrics(scheduler)
        self.described: Described = Described(self.router.routes)
        self.foresight: Foresight = Foresight(scheduler)
        self.submits: Limits = Limits()
        self.requests: Limits = Limits()
        self.one_at_a_time: Turns = Turns()
        """Held by who looks first and submits then."""
        self.bulk: Turns = Turns()
        """Held by who does something to many runs."""

    async def check_bind(self) -> None:
        """See that somebody may come in, before others are listened to. Raises `BadSettings`, and what the store raises."""
        try:
            await self.access.check_bind()
        except BaseException:
            if not self.scheduler.is_running:  # then nothing else closes the store that was looked into
                await self.scheduler.close()
            raise
        if weakness := self.access.weakness:
            self.scheduler.speaker.say("WARNING", "http.weak_token", text=weakness, help=GUESSED_MEND)

    def open(self) -> None:
        """Stream and count again, for a program that lives once more after `close`."""
        self.live.open()
        self.metrics.open()

    async def close(self) -> None:
        """End the streams; what is asked for afterwards is answered as before."""
        self.live.close()
        self.metrics.close()
        await self.access.close()

    async def answer(self, request: Request) -> Response:
        """The answer to a request; raises nothing but what ends a task."""
        principal: Principal | None = None
        found: Found | None = None
        request_id = secrets.token_hex(6)
        try:
            found = self._open_to_all(request)
            if found is None or found.route.signs_in:
                self._check(request)
            if found is None:
                principal = await self.access.principal(request)
                self._count(request, principal)
                found = self.router.find(request.method, request.path)
                _check_scope(found.route, principal)
            asked = await self._asked(request, found, principal)
            with audit.through("web" if found.route.page else "api", request_id):
                response = await found.route.handler(asked)
            if not isinstance(response.body, bytes):
                response.body = self._watched(response.body, request, request_id)
        except Exception as error:
            response = await self._refused(error, request, request_id, principal, found)
        response.headers = {**_ALWAYS, **response.headers, "taskloop-request-id": request_id}
        return _finished(request, response)

    # -- on the way to the handler

    def _open_to_all(self, request: Request) -> Found | None:
        """The route, if everybody may use it."""
        try:
            found = self.router.find(request.method, request.path[:LONGEST_PATH])
        except Problem:
            return None  # nobody is told what there is before it is known who asks
        return found if found.route.scope is None else None

    def _check(self, request: Request) -> None:
        self.access.check_size(request)
        if len(request.path) + len(request.query) > LONGEST_PATH:
            raise Problem(414, "bad-request", f"the address has more than {LONGEST_PATH} characters")
        self.access.check_host(request)
        if request.method not in ("GET", "HEAD"):
            self.access.check_site(request)

    def _count(self, request: Request, principal: Principal) -> None:
        """Count a request of this caller, whatever it asks for. Raises `Problem` when there were too many."""
        if (limit := self.scheduler.options.http.request_limit) is not None:
            count, span = limit
            what = f"more than {count} requests in {durations.format(span)}"
            self.requests.check(_caller(principal, request), count, span.total_seconds(), what)

    async def _asked(self, request: Request, found: Found, principal: Principal | None) -> Asked:
        route = found.route
        body: dict[str, Any] = {}
        if route.writes:
            read = read_form if route.page else read_body
            body = read(await request.body(), request.headers.get("content-type", ""), route)
        return Asked(
            site=self,
            request=request,
            route=route,
            principal=principal or Principal("anyone", Scope.read, "open"),
            path=found.path,
            query=query_values(request.query, route),
            body=body,
        )

    # -- on the way back

    async def _watched(self, stream: AsyncIterator[bytes], request: Request, request_id: str) -> AsyncIterator[bytes]:
        """A stream whose failure is told in the log, for its client can be told no more than that it is not whole."""
        try:
            async for chunk in stream:
                yield chunk
        except Exception as error:
            self._say_failed(error, request, request_id)
            raise BrokenOff from error
        finally:
            if (close := getattr(stream, "aclose", None)) is not None:
                await close()

    def _say_failed(self, cause: BaseException, request: Request, request_id: str) -> None:
        self.scheduler.speaker.say(
            "ERROR",
            "http.failed",
            method=request.method[:20],
            path=request.path[:200],
            request=request_id,
            error=f"{type(cause).__name__}: {cause}"[:500],
            at=raised_at(cause),
        )

    async def _refused(
        self, error: Exception, request: Request, request_id: str, who: Principal | None, found: Found | None
    ) -> Response:
        problem = of(error, admin=who is not None and who.may(Scope.admin))
        cause = error.__cause__ if isinstance(error, Problem) else error
        if problem.status >= 500 and cause is not None and not isinstance(cause, TaskloopError):
            self._say_failed(cause, request, request_id)
        record = {**problem.record(), "request_id": request_id}
        if _is_for_people(request):
            form = self.router.form_of(request.path[:LONGEST_PATH])
            if problem.code == "method-not-allowed" and form is not None and request.method in ("GET", "HEAD"):
                return Response(303, b"", {"location": f"{request.prefix}{form}"})  # as of a refused form, opened anew
            with suppress(MissingExtra):
                takes = found.route.narrowed_by if found is not None else ()
                return await problem_page(
                    self.scheduler,
                    request,
                    record,
                    problem.headers,
                    who=who,
                    takes=takes,
                    form=form,
                    login_url=self.access.login_url,
                )
        headers = {"content-type": "application/problem+json", **problem.headers}
        return Response(problem.status, await written(record), headers)


def _is_for_people(request: Request) -> bool:
    """Whether a browser asks for a page: then a refusal is one too."""
    return not request.path.startswith("/api/") and "text/html" in request.headers.get("accept", "")


def _caller(principal: Principal, request: Request) -> tuple[bool, str | None]:
    """Whose requests are counted together: those of a name, or of an address where nobody said a name."""
    named = principal.via in ("auth", "token", "session")
    return named, principal.name if named else request.peer


def _check_scope(route: Route, principal: Principal) -> None:
    if route.scope is not None and not principal.may(route.scope):
        raise Problem(
            403,
            "forbidden",
            f"{route.method} {route.path} needs the scope {route.scope.name}; "
            f"that of '{principal.name[:80]}' is {principal.level.name}",
            f"`taskloop token create NAME --scope {route.scope.name}` makes a token that may",
            more={"scope": route.scope.name},
        )


def _finished(request: Request, response: Response) -> Response:
    """The response with what it says of itself, and nothing of it twice."""
    if isinstance(response.body, bytes):
        if request.method in ("GET", "HEAD") and response.status == 200:
            response.headers["etag"] = mark = tag(response.body)
            response.headers.setdefault("cache-control", "private, no-cache")
            if _is_known(mark, request.headers.get("if-none-match")):
                response.status, response.body = 304, b""
                response.headers.pop("content-type", None)
        if request.method == "HEAD" and response.status != 304:
            response.headers["content-length"] = str(len(response.body))
            response.body = b""
    elif request.method == "HEAD":
        response.body = b""
    response.headers.setdefault("cache-control", "no-store")
    return response


def _is_known(mark: str, given: str | None) -> bool:
    return given is not None and any(one.strip().removeprefix("W/") in (mark, "*") for one in given.split(","))
