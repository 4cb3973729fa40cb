"""The dashboard's session: signed in by a token, over after twelve hours or with its token. These routes may change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taskloop.web.api.asking import V1
from taskloop.web.core import Response
from taskloop.web.routes import TEXT, Parameter, Route
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.web.site import Asked


async def sign_in(asked: Asked) -> Response:
    cookie = await asked.site.access.sign_in(asked.request, asked.body["token"])
    return Response(204, b"", {"set-cookie": cookie})


async def sign_out(asked: Asked) -> Response:
    return Response(204, b"", {"set-cookie": await asked.site.access.sign_out(asked.request)})


ROUTES = (
    Route(
        method="POST", path=f"{V1}/session", name="sign_in", scope=None, signs_in=True, handler=sign_in,
        body=(Parameter("token", TEXT, "as `taskloop token create` told it", required=True),), gives={204: "nothing"},
        summary="Begin a session: sets a cookie that stands for the token for twelve hours",
        example="""-d '{"token": "tl_…"}'""",
    ),
    Route(
        method="DELETE", path=f"{V1}/session", name="sign_out", scope=Scope.read, handler=sign_out, gives={204: "nothing"},
        summary="End the session: takes the cookie out of the browser",
    ),
)  # fmt: skip
