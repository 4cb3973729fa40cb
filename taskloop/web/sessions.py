"""The cookie of a dashboard's session: which token opened it and until when, signed.

Pure. Nothing is kept of a session: it is over when its time is, or its token. Each mount has a name of its own for it, as
browsers tell neither ports nor stores apart.
"""

from __future__ import annotations

import hmac
import re
from hashlib import sha256
from typing import Final, NamedTuple
from urllib.parse import quote

__all__ = ["LASTS_SECONDS", "PREFIXES", "Cookie", "configured"]

LASTS_SECONDS: Final = 12 * 3600
_PLAIN, _HOST = "taskloop", "__Host-taskloop"
PREFIXES: Final = (f"{_HOST}-", f"{_PLAIN}-")
"""How the names of these cookies begin."""
_VALUE: Final = re.compile(r"([0-9a-z]{1,40})\.([0-9]{1,12})\.([0-9a-f]{64})")


class Cookie(NamedTuple):
    """The cookie of one mount. `secret`: what the store signs with; `prefix`: where it is mounted."""

    secret: bytes
    prefix: str

    def values(self, sent: str, *, secure: bool) -> list[str]:
        """What a header `Cookie` has of ours, over TLS only what no other host can have set.

        Read by itself: a cookie of somebody else that the library cannot read must not end a session.
        """
        # That of the whole host first: the other one a host beside this one can have put before it, with its own session.
        names = (self._name(_HOST),) if secure else (self._name(_HOST), self._name(_PLAIN))
        pairs = [one.strip().partition("=") for one in re.split("[;,]", sent)]
        return [value for wanted in names for name, _, value in pairs if name == wanted]

    def header(self, token: str, now: float, *, secure: bool) -> str:
        """`Set-Cookie` that begins a session of the token of this id. `now`: seconds since 1970."""
        until = int(now) + LASTS_SECONDS
        return self._header(f"{token}.{until}.{self._mark(token, until)}", LASTS_SECONDS, secure=secure)

    def cleared(self, *, secure: bool) -> str:
        """`Set-Cookie` that ends one."""
        return self._header("", 0, secure=secure)

    def token(self, value: str, now: float) -> str | None:
        """The id of the token that a cookie's value is of; None: it is not ours, or over."""
        if not (found := _VALUE.fullmatch(value)):
            return None
        token, until, mark = found[1], int(found[2]), found[3]
        fits = hmac.compare_digest(mark, self._mark(token, until))
        return token if fits and now < until <= now + LASTS_SECONDS + 60 else None

    def _header(self, value: str, seconds: int, *, secure: bool) -> str:
        # A browser takes a name with __Host- only for the whole host; the name itself tells the mounts apart.
        if secure:
            name, where = self._name(_HOST), "Path=/; Secure"
        else:
            name, where = self._name(_PLAIN), f"Path={quote(self.prefix, safe='/%') or '/'}"
        return f"{name}={value}; Max-Age={seconds}; {where}; HttpOnly; SameSite=Strict"

    def _name(self, kind: str) -> str:
        return f"{kind}-{self._sign(f'mount {self.prefix}')[:8]}"

    def _mark(self, token: str, until: int) -> str:
        return self._sign(f"session {self.prefix} {token} {until}")

    def _sign(self, text: str) -> str:
        return hmac.new(self.secret, text.encode("utf-8", "surrogatepass"), sha256).hexdigest()


def configured(secret: bytes, token: str) -> str:
    """What stands for the id of the configuration's token: another token, another id, and nothing to be guessed by."""
    mark = hmac.new(secret, b"configured " + token.encode("utf-8", "surrogatepass"), sha256).hexdigest()
    return f"c{mark[:31]}"
