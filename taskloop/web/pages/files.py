"""The files that pages are made with: their style, their script, and the libraries that script uses.

Each is put together once, squeezed once, and named by what is in it, so a browser that has it never asks for it again.
What lies in `static/vendor` was written by others; its licences lie beside it.
"""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from taskloop.web.core import Response
from taskloop.web.problems import Problem
from taskloop.web.routes import TEXT, Parameter, Route

if TYPE_CHECKING:
    from taskloop.web.site import Asked

__all__ = ["FILES", "ROUTES", "address"]

STATIC: Final = Path(__file__).parent / "static"
FILES: Final[Mapping[str, Sequence[str]]] = {
    "taskloop.css": ("taskloop.css",),
    "live.js": ("vendor/htmx.min.js", "vendor/htmx-ext-sse.min.js", "live.js"),
    "charts.css": ("vendor/uplot.min.css",),
    "charts.js": ("vendor/uplot.min.js", "charts.js"),
}
"""Of what each is made: together they are smaller than apart, and one request."""
_KINDS: Final = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
_FOR_READERS: Final = re.compile(rb"^ *// [^\n]*\n|^\n|^ +|^/\* .*?\*/\n| // [^\n]*", re.MULTILINE | re.DOTALL)
"""Indents, empty lines and comments of what we wrote: a browser does without."""
_GZIP: Final = re.compile(r"(?:^|,)\s*gzip\s*(?:;\s*q=(?!0(?:\.0*)?\s*(?:,|$))[\d.]+\s*)?(?:,|$)", re.IGNORECASE)


class _File(NamedTuple):
    kind: str
    plain: bytes
    squeezed: bytes
    version: str


@cache
def _file(name: str) -> _File:
    plain = b"\n".join(_part(part) for part in FILES[name])
    return _File(
        _KINDS[Path(name).suffix], plain, gzip.compress(plain, 9, mtime=0), blake2b(plain, digest_size=6).hexdigest()
    )


def _part(name: str) -> bytes:
    text = (STATIC / name).read_bytes()
    return text if name.startswith("vendor/") else _FOR_READERS.sub(b"", text)


def address(name: str) -> str:
    """Where a file is, below the mount: an address that changes when the file does."""
    return f"/static/{name}?v={_file(name).version}"


async def static(asked: Asked) -> Response:
    """A file that pages need; open to all, for it says nothing."""
    name = asked.path["name"]
    if name not in FILES:
        raise Problem(404, "not-found", f"nothing is at /static/{name[:80]}")
    found = await asyncio.to_thread(_file, name)
    lasts = "max-age=31536000, immutable" if asked.query["v"] == found.version else "max-age=60"
    headers = {"content-type": found.kind, "cache-control": f"public, {lasts}", "vary": "accept-encoding"}
    if _GZIP.search(asked.request.headers.get("accept-encoding", "")):
        return Response(200, found.squeezed, {**headers, "content-encoding": "gzip"})
    return Response(200, found.plain, headers)


ROUTES = (
    Route(
        method="GET", path="/static/{name}", name="static", scope=None, handler=static, summary="A file of the pages",
        page=True, query=(Parameter("v", TEXT, "which version of it"),),
    ),
)  # fmt: skip
