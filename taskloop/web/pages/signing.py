"""The page to sign in with a token, for browsers, and the button to sign out."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from taskloop.errors import TaskloopError
from taskloop.web.core import Response
from taskloop.web.pages.now import PAGE
from taskloop.web.pages.rendering import bare_page, see_other
from taskloop.web.problems import Problem
from taskloop.web.routes import TEXT, Parameter, Route
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.web.site import Asked

__all__ = ["ROUTES"]

WANTED: Final = Parameter("wanted", TEXT, "the page to go to then")
_PAGE: Final = re.compile(r"/(?![/\\])[\x21-\x5b\x5d-\x7e]{0,2000}")


async def ask(asked: Asked) -> Response:
    """The form; but whoever is signed in goes on at once: a browser that comes by a link of another site, from a chat
    say, does not send its session with that first request, and so was led here.
    """
    if asked.query["wanted"] and await _has_session(asked):
        return see_other(asked, _below(asked.query["wanted"]))
    return await bare_page("login.html", 200, base=asked.request.prefix, refused="", wanted=asked.query["wanted"] or "")


async def sign_in(asked: Asked) -> Response:
    """Begin a session; what is wrong with the token is said above its field."""
    try:
        cookie = await asked.site.access.sign_in(asked.request, asked.body["token"] or "")
    except Problem as problem:
        refused = f"{problem.detail}; {problem.hint}"
        return await bare_page(
            "login.html", problem.status, problem.headers, base=asked.request.prefix, refused=refused,
            wanted=asked.body["wanted"] or "",
        )  # fmt: skip
    response = see_other(asked, _below(asked.body["wanted"] or ""))
    response.headers["set-cookie"] = cookie
    return response


async def _has_session(asked: Asked) -> bool:
    try:
        return (await asked.site.access.principal(asked.request)).via == "session"
    except (Problem, TaskloopError):
        return False


def _below(wanted: str) -> str:
    """The page that was asked for before the sign-in, but nothing that could lead out of the mount."""
    return wanted if _PAGE.fullmatch(wanted) and ".." not in unquote(wanted) else "/"


async def sign_out(asked: Asked) -> Response:
    response = see_other(asked, "/login")
    response.headers["set-cookie"] = await asked.site.access.sign_out(asked.request)
    return response


ROUTES = (
    Route(
        method="GET", path="/login", name="page_login", scope=None, signs_in=True, handler=ask, summary="Sign in", page=True,
        query=(*PAGE, WANTED),
    ),
    Route(
        method="POST", path="/login", name="page_sign_in", scope=None, signs_in=True, handler=sign_in, summary="Sign in",
        page=True, body=(Parameter("token", TEXT, "as `taskloop token create` told it", required=True), WANTED),
    ),
    Route(
        method="POST", path="/logout", name="page_sign_out", scope=Scope.read, handler=sign_out, summary="Sign out", page=True
    ),
)  # fmt: skip
