"""What went wrong, as RFC 9457 has it: a status, a code for programs, what happened, and the mend.

A `Problem` is raised by whoever sees it; `of` makes one of the package's own errors. No problem shows a traceback, a
secret, or what the store says of its file, but to a caller who is admin: an address with its path is no reader's business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from taskloop import errors

__all__ = ["TITLES", "Problem", "of"]

TITLES: Final = {
    "bad-request": "The request cannot be read",
    "unauthenticated": "Sign in first",
    "forbidden": "Not allowed with this scope",
    "closed": "Nobody said who may come in",
    "cross-site": "Another site asked for this",
    "host-not-allowed": "Not a name of this server",
    "proxied": "It came through a proxy",
    "not-found": "Nothing is at this address",
    "job-not-found": "No such job",
    "run-not-found": "No such run",
    "schedule-not-found": "No such schedule",
    "step-not-found": "No such step",
    "method-not-allowed": "Not with this method",
    "body-timeout": "The body did not come",
    "conflict": "The present state forbids it",
    "key-conflict": "The key belongs to another request",
    "payload-too-large": "The body is too long",
    "unsupported-media-type": "The body must be plain JSON",
    "headers-too-large": "The headers are too long",
    "invalid-params": "Parameters do not fit the job",
    "invalid-schedule": "A trigger that cannot be",
    "invalid-value": "A value that cannot be",
    "rate-limited": "Too often",
    "failed": "A run failed",
    "internal": "The server failed",
    "not-installed": "A package is missing",
    "sign-in-broken": "The sign-in does not work",
    "store-unavailable": "The store does not answer",
    "not-running": "The scheduler does not run",
}
"""Every code there is, and its title."""


class Problem(Exception):
    """An answer that is an error. `errors`: one a parameter, each with `parameter` and `detail`; `more`: further members."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        hint: str | None = None,
        *,
        errors: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        self.hint = hint
        self.errors: list[Mapping[str, Any]] = list(errors)
        self.headers: dict[str, str] = dict(headers or {})
        self.more: dict[str, Any] = dict(more or {})
        super().__init__(detail)

    def record(self) -> dict[str, Any]:
        """Its JSON."""
        return {
            "type": f"urn:taskloop:problem:{self.code}",
            "title": TITLES[self.code],
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "hint": self.hint,
            **({"errors": self.errors} if self.errors else {}),
            **self.more,
        }


# The first that fits counts.
_KNOWN: Final[tuple[tuple[type[BaseException], int, str], ...]] = (
    (errors.NoSuchJob, 404, "job-not-found"),
    (errors.NoSuchRun, 404, "run-not-found"),
    (errors.NoSuchSchedule, 404, "schedule-not-found"),
    (errors.NoSuchStep, 404, "step-not-found"),
    (errors.KeyConflict, 409, "key-conflict"),
    (errors.Conflict, 409, "conflict"),
    (errors.BadParameters, 422, "invalid-params"),
    (errors.BadTrigger, 422, "invalid-schedule"),
    (errors.BadDuration, 422, "invalid-value"),
    (errors.BadRate, 422, "invalid-value"),
    (errors.BadInstant, 422, "invalid-value"),
    (errors.BadJob, 422, "invalid-value"),
    (errors.BadValue, 422, "invalid-value"),
    (errors.Unstorable, 422, "invalid-value"),
    (errors.StoreUnavailable, 503, "store-unavailable"),
    (errors.BadStore, 503, "store-unavailable"),
    (errors.NotRunning, 503, "not-running"),
    (errors.MissingExtra, 501, "not-installed"),
)
_TOLD_TO_ADMINS: Final = ("store-unavailable", "internal")
RETRY_SECONDS: Final = 5
"""When to come again, after a store did not answer."""


def of(error: Exception, *, admin: bool = False) -> Problem:
    """The problem that an error is; of one that nobody foresaw only an admin is told more than that it happened."""
    if isinstance(error, Problem):
        return error
    status, code = next(((status, code) for kind, status, code in _KNOWN if isinstance(error, kind)), (500, "internal"))
    headers = {"retry-after": str(RETRY_SECONDS)} if status == 503 else {}
    if code in _TOLD_TO_ADMINS and not admin:
        return Problem(status, code, f"{TITLES[code].lower()}; its own log says why", headers=headers)
    if code == "internal":
        return Problem(status, code, f"{type(error).__name__}: {error}", "the log of the server has the traceback")
    what, _, mend = str(error).rpartition("; ")
    listed = [
        {"parameter": name, "pointer": f"/params/{name}", "detail": text}
        for name, text in (error.problems.items() if isinstance(error, errors.BadParameters) else ())
    ]
    return Problem(status, code, what or mend, mend if what else None, errors=listed, headers=headers)
