"""The admin surface over HTTP, for the host that is there: no framework in it but in the two translators.

    core problems routes     a request and its answer; what went wrong; the table of routes and what each takes
    security                 who asks and what that one may do; floods
    tokens sessions          tokens of the store, at hand; the cookie of a session, signed
    site                     one mount of the surface: from a request to the answer, past every guard
    live                     events to many listeners, each with a bounded queue
    foresight                what would happen, reckoned once for all who ask
    api                      the handlers, by subject; `api.ROUTES` is the one table
    pages                    the dashboard, by subject; `pages.ROUTES`
    openapi                  the description made of that table
    aiohttp asgi             translators: the host's request into ours, our answer into the host's

Start reading at `site`. A host needs `taskloop.web.aiohttp.setup` or `taskloop.web.asgi.app`, and `Principal`.
"""

from taskloop.web.core import Request, Response
from taskloop.web.security import Principal, Scope

__all__ = ["Principal", "Request", "Response", "Scope"]
