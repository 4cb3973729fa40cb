"""The page to sign in with a token, for browsers, and the button to sign out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskloop.web.core import Response
from taskloop.web.pages.now import PAGE
from taskloop.web.pages.rendering import bare_page, see_other
from taskloop.web.problems import Problem
from taskloop.web.routes import TEXT, Parameter, Route
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.web.site import Asked

__all__ = ["ROUTES"]


async def ask(asked: Asked) -> Response:
    return await bare_page("login.html", 200, base=asked.request.prefix, refused="")


async def sign_in(asked: Asked) -> Response:
    """Begin a session; what is wrong with the token is said above its field."""
    try:
        cookie = await asked.site.access.sign_in(asked.request, asked.body["token"] or "")
    except Problem as problem:
        refused = f"{problem.detail}; {problem.hint}"
        return await bare_page(
            "login.html", problem.status, problem.headers, base=asked.request.prefix, refused=refused
        )
    response = see_other(asked, "/")
    response.headers["set-cookie"] = cookie
    return response


async def sign_out(asked: Asked) -> Response:
    response = see_other(asked, "/login")
    response.headers["set-cookie"] = await asked.site.access.sign_out(asked.request)
    return response


ROUTES = (
    Route(
        method="GET", path="/login", name="page_login", scope=None, signs_in=True, handler=ask, summary="Sign in", page=True,
        query=PAGE,
    ),
    Route(
        method="POST", path="/login", name="page_sign_in", scope=None, signs_in=True, handler=sign_in, summary="Sign in",
        page=True, body=(Parameter("token", TEXT, "as `taskloop token create` told it", required=True),),
    ),
    Route(
        method="POST", path="/logout", name="page_sign_out", scope=Scope.read, handler=sign_out, summary="Sign out", page=True
    ),
)  # fmt: skip
