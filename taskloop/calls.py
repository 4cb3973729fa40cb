"""A call of an address of the web that is over in time, whatever the other side does.

Level 4. `call` waits, so it belongs in a thread. Importing this is cheap; the first call imports what it calls with.
"""

from __future__ import annotations

import socket
import threading
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    import http.client
    import urllib.request

__all__ = ["call", "host"]


def host(address: str) -> str | None:
    """Host and port of an address, without who signs in there; None: it leads nowhere."""
    try:
        parts = urlsplit(address)
        leads = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    return parts.netloc.rpartition("@")[2] if leads else None


def call(
    address: str, body: bytes | None, headers: Mapping[str, str], *, within_seconds: float, redirects: bool
) -> None:
    """Ask with GET, or post `body`, and wait for the answer.

    `redirects`: whether to go where the answer says; a post arrives there as a GET without its body. A user in the
    address signs in (Basic). Raises `OSError` for anything but a status of 200 to 299 in that time, and what
    `http.client` raises of what is no HTTP.
    """
    import urllib.error  # here, not above: they cost 30 ms, and few programs call anybody
    import urllib.request

    parts = urlsplit(address)
    user, _, place = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=place).geturl(), data=body)  # noqa: S310 - callers see to http
    request.add_header("User-Agent", "taskloop")
    for name, value in headers.items():
        request.add_header(name, value)
    if user:
        request.add_unredirected_header("Authorization", f"Basic {b64encode(unquote(user).encode()).decode()}")
    sockets: list[socket.socket] = []
    late = threading.Event()

    def end() -> None:
        late.set()
        for one in sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    # The timeout is for each piece of an answer, and one that comes byte by byte would never be over.
    timer = threading.Timer(within_seconds, end)
    timer.daemon = True
    timer.start()
    try:
        with urllib.request.build_opener(*_handlers(sockets, late, redirects)).open(request, timeout=within_seconds):
            pass
    except Exception as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is the answer too, with its socket
        if not late.is_set():
            raise
        raise TimeoutError(f"no whole answer came within {within_seconds:g} s") from error
    finally:
        timer.cancel()
        for one in sockets:
            one.close()
    if late.is_set():
        raise TimeoutError(f"no whole answer came within {within_seconds:g} s")


def _handlers(sockets: list[socket.socket], late: threading.Event, redirects: bool) -> list[Any]:
    """What urllib calls with, so that each socket is known from its first moment: the handshake of TLS may be slow too."""
    import http.client
    import urllib.request

    def connected(*args: Any, **options: Any) -> socket.socket:
        made = socket.create_connection(*args, **options)
        sockets.append(made.dup())  # TLS takes the socket itself away, and the connection is the same
        if late.is_set():  # it was too long about a name or an answer that led here: `end` may not know of this one
            made.close()
            raise TimeoutError
        return made

    class Kept(http.client.HTTPConnection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._create_connection = connected

    class KeptOverTLS(Kept, http.client.HTTPSConnection):
        pass

    class Plain(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(Kept, request)

    class Covered(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(KeptOverTLS, request)

    class Straight(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            """Nowhere else."""

    return [Plain, Covered, *([] if redirects else [Straight])]
