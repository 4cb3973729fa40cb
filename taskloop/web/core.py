"""A request and its answer, as the admin surface knows them: no framework, no scheduler.

A translator makes a `Request` of what its host has, and sends the `Response`. Start at the two classes; the rest writes
JSON without holding the loop: what is large is made in a thread, piece by piece, for one call of the encoder would hold
the interpreter however long it takes.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from math import inf
from typing import Any, Final, TypeVar

from taskloop.web.problems import Problem

__all__ = [
    "BODY_BYTES",
    "BrokenOff",
    "Headers",
    "Request",
    "Response",
    "answer",
    "breathing",
    "least",
    "listed",
    "taken",
    "written",
]

BODY_BYTES: Final = 64 * 1024
"""The longest body that is read."""
BODY_SECONDS: Final = 20.0
TAKE_SECONDS: Final = 30.0
"""For so long a client may take nothing of a stream, as one that sleeps; then it is let go."""
FEW: Final = 50
"""Records that are made and written on the loop; more go to a thread."""
_SMALL_NODES, _SMALL_TEXT = 2_000, 50_000
_DEEP: Final = 20
"""Levels that are gone into one by one; what is heavy below is left to the encoder in Python, which goes deeper."""
TURN_SECONDS: Final = 0.002
"""For so long a thread may compute before it gives way."""
PAUSE_SECONDS: Final = 0.00005
"""And that long it does, for without a sleep it would be the next again."""
_ESCAPED: Final = re.compile(r"\\(?:([0-3][0-7][0-7])|(.))")
T = TypeVar("T")
_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, separators=(",", ":"), default=lambda one: dict(one) if isinstance(one, Mapping) else str(one)
)


class Headers(Mapping[str, str]):
    """Headers by name, in any case; one that was given twice has both values, with a comma between; cookies, which HTTP/2
    may send one by one, with a semicolon.
    """

    __slots__ = ("_values", "count", "size")

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, str] = {}
        self.count: int = 0
        self.size: int = 0
        for name, value in pairs:
            self.count += 1
            self.size += len(name) + len(value)
            key = name.lower()
            mark = "; " if key == "cookie" else ", "
            self._values[key] = f"{self._values[key]}{mark}{value}" if key in self._values else value

    @classmethod
    def of_bytes(cls, pairs: Iterable[tuple[bytes, bytes]]) -> Headers:
        """The headers as they came in."""
        return cls((name.decode("latin-1"), _header_text(value)) for name, value in pairs)

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


@dataclass(slots=True, kw_only=True)
class Request:
    """What came in. An `auth=` of the host is given this; `native` is what the host's own framework has of it."""

    method: str
    path: str
    """Below the mount, as it was sent: percent-encoded."""
    query: str = ""
    headers: Headers
    chunks: Callable[[], AsyncIterator[bytes]]
    """The body, piece by piece; can be read once, `body` keeps it. Raises `ConnectionError` where it breaks off."""
    peer: str | None = None
    """The address it came from; None: unknown, as behind a socket file."""
    server: str | None = None
    """The address at which it was received; None: unknown."""
    scheme: str = "http"
    prefix: str = ""
    """Where the surface is mounted."""
    native: Any = None
    _body: bytes | None = None

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies by name, of two of a name the last; what is none is left out."""
        # Not by http.cookies: it gives up at the first that is not to its taste, and before Python 3.11.10 and 3.12.6
        # it takes a second for one of many backslashes.
        pairs = [one.partition("=") for one in self.headers.get("cookie", "").split(";")]
        return {name.strip(): _unquoted(value.strip()) for name, mark, value in pairs if mark and name.strip()}

    async def body(self, most: int = BODY_BYTES) -> bytes:
        """The body, of at most `most` bytes. Raises `Problem` for a longer one, one that is packed or does not come whole."""
        if self._body is not None:
            return self._body
        if (packed := self.headers.get("content-encoding", "identity").lower()) != "identity":
            # What is unpacked is a thousand times longer: too long to tell so in time.
            raise Problem(415, "unsupported-media-type", f"the body is packed by '{packed[:40]}'", "send it as it is")
        too_long = Problem(413, "payload-too-large", f"the body is longer than {most} bytes", "send less")
        announced = self.headers.get("content-length", "0")
        if announced.isdecimal() and (len(announced) > 15 or int(announced) > most):
            raise too_long
        read = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for chunk in self.chunks():
                    read += chunk
                    if len(read) > most:
                        raise too_long
        except TimeoutError:
            raise Problem(408, "body-timeout", f"the body did not come within {BODY_SECONDS:g} s") from None
        except ConnectionError:  # nobody is there to be told, and what is known of the body is not what was asked for
            raise Problem(400, "bad-request", "the body breaks off", "send it again") from None
        self._body = bytes(read)
        return self._body


class BrokenOff(Exception):
    """Of a stream nothing more can be said: its client must see that it is not whole, and whoever looks after it was told why."""


@dataclass(slots=True)
class Response:
    """What goes out. An iterator is a stream: a chunk of no bytes in it only asks whether the client is still there. It may
    raise `BrokenOff`.
    """

    status: int = 200
    body: bytes | AsyncIterator[bytes] = b""
    headers: dict[str, str] = field(default_factory=dict)


async def answer(
    value: Any, status: int = 200, *, headers: Mapping[str, str] | None = None, kind: str = "application/json"
) -> Response:
    """A response of JSON."""
    return Response(status, await written(value), {"content-type": kind, **(headers or {})})


async def listed(items: Sequence[Any], record: Callable[[Any], Any], next_id: int | str | None = None) -> Response:
    """A page of records: `{"items": […], "next": id|null}`; `next` is what to give as `before`, null: it was the last."""

    def made() -> bytes:
        pieces = ",".join(breathing(_in_pieces(record(one)) for one in items))
        return _bytes(f'{{"items":[{pieces}],"next":{json.dumps(next_id)}}}')

    if len(items) > FEW:
        return Response(200, await asyncio.to_thread(made), {"content-type": "application/json"})
    return await answer({"items": [record(one) for one in items], "next": next_id})


async def taken(sending: Awaitable[None]) -> bool:
    """Whether the client has taken a piece of a stream in time."""
    try:
        async with asyncio.timeout(TAKE_SECONDS):
            await sending
    except TimeoutError:
        return False
    return True


def breathing(pieces: Iterable[T]) -> Iterator[T]:
    """The same, for a thread that makes much of them: the loop has its turn every two milliseconds.

    A thread that only computes is asked for the interpreter after five, and again each time the loop wants it.
    """
    since = time.perf_counter()
    for one in pieces:
        yield one
        if time.perf_counter() - since > TURN_SECONDS:
            time.sleep(PAUSE_SECONDS)
            since = time.perf_counter()


async def written(value: Any) -> bytes:
    """A value as JSON in UTF-8; NaN and infinity, which JSON has not, as null."""
    if _weight(value) <= 1:
        return _bytes(_text(value))
    return _bytes(await asyncio.to_thread(_in_pieces, value))


def _header_text(value: bytes) -> str:
    """UTF-8, else Latin-1, as which a browser's fetch and requests send a text. Nothing of it is replaced: keys that differ
    would be one.
    """
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _unquoted(value: str) -> str:
    """The value of a cookie without the quotes that Python's own writer puts around some, and its escapes."""
    if len(value) < 2 or not value[0] == value[-1] == '"':
        return value
    return _ESCAPED.sub(lambda found: chr(int(found[1], 8)) if found[1] else found[2], value[1:-1])


def tag(body: bytes) -> str:
    """An `ETag` that differs for bodies that differ."""
    return f'"{blake2b(body, digest_size=12).hexdigest()}"'


def _text(value: Any) -> str:
    text = _ENCODER.encode(value)
    if "NaN" in text or "Infinity" in text:  # perhaps only as a word of some text
        text = _ENCODER.encode(_finite(value))
    return text


def _in_pieces(value: Any) -> str:
    """The JSON of a value that may be large: the encoder is left often enough for other threads to have their turn."""
    return _text(value) if _weight(value) <= 1 else "".join(breathing(_pieces(value)))


def _pieces(value: Any, depth: int = 0) -> Iterator[str]:
    """The JSON of a value, no piece of it longer in the making than a millisecond.

    The encoder in C is several times as fast as the one in Python, and lets nobody else have a turn until it is done.
    """
    if _weight(value) <= 1:
        yield _text(value)
    elif depth < _DEEP and (
        isinstance(value, list | tuple) or (isinstance(value, dict) and {*map(type, value)} == {str})
    ):
        first, last = "{}" if isinstance(value, dict) else "[]"
        yield first
        yield from _members(value, depth)
        yield last
    else:
        text = "".join(_ENCODER.iterencode(value))
        yield "".join(_ENCODER.iterencode(_finite(value))) if "NaN" in text or "Infinity" in text else text


def _members(value: Any, depth: int) -> Iterator[str]:
    """The members of a list, or of a mapping with texts as keys: with commas between them, as many in a piece as are light
    together.
    """
    named = isinstance(value, dict)
    members = list(value.items()) if named else value
    at, number, mark = 0, 64, ""
    while at < len(members):
        some = members[at : at + number]
        taken = dict(some) if named else some
        weight = _weight(taken)
        if weight <= 1:
            yield mark + _text(taken)[1:-1]
            number *= 2 if weight < 0.5 else 1
        elif len(some) > 1:
            number = max(1, len(some) // 4)
            continue
        else:
            yield mark + (f"{_ENCODER.encode(some[0][0])}:" if named else "")
            yield from _pieces(some[0][1] if named else some[0], depth + 1)
        at, mark = at + len(some), ","


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")  # a lone surrogate becomes its escape, which is JSON too


def least(*values: Any, most: int) -> int:
    """Characters that the JSON of these has at least; of what has more than `most` no more is looked at than tells it."""
    count, ahead = 0, [*values]
    while ahead and count <= most:
        one = ahead.pop()
        if isinstance(one, str):
            count += len(one)
        elif isinstance(one, dict):
            count += sum(map(len, one)) + 5 * len(one)
            ahead += one.values()
        elif isinstance(one, list | tuple):
            count += 2 * len(one)
            ahead += one
    return count


def _weight(value: Any) -> float:
    """How heavy a value is, 1: it is written in a millisecond; of what is heavier no more is looked at than that takes."""
    nodes, text, ahead = 0, 0, [value]
    while ahead:
        one = ahead.pop()
        nodes += 1
        if isinstance(one, str):
            text += len(one)
        elif one is None or isinstance(one, int | float):
            pass  # most are: whether it is a mapping is dear to ask
        elif isinstance(one, dict | Mapping):
            nodes += len(one)
            if nodes <= _SMALL_NODES:
                text += sum(map(len, map(str, one)))
                ahead.extend(one.values())
        elif isinstance(one, list | tuple):
            if len(one) > _SMALL_NODES:
                return inf
            ahead.extend(one)
        if nodes > _SMALL_NODES or text > _SMALL_TEXT:
            return inf
    return max(nodes / _SMALL_NODES, text / _SMALL_TEXT)
