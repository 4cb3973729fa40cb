"""From values to HTML: the templates, what they may call, and the policy that a page is sent with.

Everything is escaped by the template engine, and the policy forbids any script that is not a file of ours: none stands in
a page. Templates are read and filled in a thread.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode
from zoneinfo import ZoneInfo

from taskloop import durations, looking
from taskloop.errors import MissingExtra
from taskloop.runs import Run, State
from taskloop.signs import SIGNS, clock_text, item_text, readable, span_text
from taskloop.web.core import Request, Response, breathing
from taskloop.web.pages.files import address
from taskloop.web.pages.strips import strip, took
from taskloop.web.security import Principal, Scope

if TYPE_CHECKING:
    from taskloop.scheduler import TaskScheduler
    from taskloop.web.site import Asked

__all__ = ["bare_page", "page", "problem_page", "see_other", "zone_of"]

HERE: Final = Path(__file__).parent
POLICY: Final = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
LEAST_SILENCE: Final = 1.0
"""Seconds after which it is said when progress was reported last."""
_RUN: Final = re.compile(r"\brun (\d{1,18})\b")
_TURNING: Final = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Characters that turn the direction in which is written."""
_HTML: Final = {"content-type": "text/html; charset=utf-8", "content-security-policy": POLICY}


async def page(asked: Asked, template: str, code: int = 200, **values: Any) -> Response:
    """A page for who asks."""
    refresh = asked.query.get("refresh")
    whole = {
        **_frame(asked.scheduler, asked.request, asked.principal), "said": SAID.get(asked.query.get("said") or "", ""),
        "refresh": refresh, "live": asked.query.get("live") or False,
        "is_live": code == 200 and any(one.name == "live" for one in asked.route.query),
    }  # fmt: skip
    text = await asyncio.to_thread(_filled, template, {**whole, **values})
    # Also of a form that was refused: one may step back to it.
    headers = {**_HTML, "cache-control": "private, no-cache"}
    if refresh:
        headers["refresh"] = str(refresh)
    return Response(code, text, headers)


def _frame(scheduler: TaskScheduler, request: Request, who: Principal) -> dict[str, Any]:
    """What the frame of every page asks for."""
    return {
        "base": request.prefix, "who": who, "may_operate": who.may(Scope.operate), "may_admin": who.may(Scope.admin),
        "here": request.path, "query": request.query, "again": _again(request.query), "now": looking.now(scheduler),
        "zone": _zone(scheduler), "name": scheduler.name or "", "said": "", "refresh": None, "live": False,
        "is_live": False, "paused": None, "about_job": None, "about_run": None, "charts": False, "rarely": 1,
    }  # fmt: skip


def _again(query: str) -> str:
    """The query of a page, of what it shows: without what was said once, and how often it is asked for."""
    kept = [pair for pair in parse_qsl(query, keep_blank_values=True) if pair[0] not in ("said", "refresh", "live")]
    return urlencode(kept)


def zone_of(asked: Asked) -> ZoneInfo:
    """The zone on whose clock the pages tell their times."""
    return _zone(asked.scheduler)


def _zone(scheduler: TaskScheduler) -> ZoneInfo:
    return ZoneInfo(scheduler.options.timezone or "UTC")


async def problem_page(
    scheduler: TaskScheduler,
    request: Request,
    record: Mapping[str, Any],
    headers: Mapping[str, str],
    *,
    who: Principal | None,
    takes: Iterable[str] = (),
    form: str | None = None,
    login_url: str | None = None,
) -> Response:
    """A refusal, for people. `who`: None: nobody knows yet, and there is no way about. `takes`: the fields by which the
    page can be narrowed, shown again with what stood in them. `form`: the page of the form that was sent.

    A sign-in, at `login_url` of the host where it has said that, leads to the page that was asked for, or to that of the
    form, and what is only away for a while is asked for again by itself.
    """
    wanted = f"{request.path}{request.query and '?'}{request.query}" if request.method == "GET" else ""
    again = headers.get("retry-after") if wanted and record["status"] == 503 else None
    headers = {**headers, "refresh": again} if again else headers
    given = dict(parse_qsl(request.query, keep_blank_values=True)) if record["status"] == 422 else {}
    wrong = {one["parameter"] for one in record.get("errors", ())}
    fields = [  # what cannot be read as an instant or a span is only quoted
        (name, given[name], name in wrong or f"'{given[name]}'" in record["detail"])
        for name in takes
        if given.get(name)
    ]
    frame = {"base": request.prefix} if who is None else _frame(scheduler, request, who)
    return await bare_page(
        "problem.html", record["status"], headers, **frame, framed=who is not None, problem=record, wanted=wanted,
        sign_in=_sign_in(request.prefix, wanted or form or "", login_url), at_host=login_url is not None, waits=again,
        fields=fields, undone=not wanted and form is not None,
    )  # fmt: skip


def _sign_in(base: str, then: str, login_url: str | None) -> str:
    """The address of the page to sign in, which is told where to go then."""
    # At the root of a site `//name` would be another host, to whoever leads there without a look.
    back = f"{base}/" + then.lstrip("/\\")
    address, field, then = (f"{base}/login", "wanted", then) if login_url is None else (login_url, "next", back)
    address, mark, place = address.partition("#")
    asked = f"{'&' if '?' in address else '?'}{urlencode({field: then})}" if then else ""
    return f"{address}{asked}{mark}{place}"


async def bare_page(template: str, code: int, headers: Mapping[str, str] | None = None, **values: Any) -> Response:
    """A page for whom nobody knows yet."""
    text = await asyncio.to_thread(_filled, template, values)
    return Response(code, text, {**(headers or {}), **_HTML})


def see_other(asked: Asked, path: str, said: str = "") -> Response:
    """Lead to a page after something was done, which says there what that was: a word of `SAID`."""
    mark = "&" if "?" in path else "?"
    where = f"{asked.request.prefix}{path}" + (f"{mark}{urlencode({'said': said})}" if said else "")
    return Response(303, b"", {"location": where})


SAID: Final = {
    "submitted": "On record: the run waits for its turn, or has begun.",
    "existed": "That was asked for already: this is its run. To have another one, run it again.",
    "cancelled": "Its end is asked for.",
    "ended": "It had ended before.",
    "enabled": "The job is on.",
    "disabled": "The job is off: what comes due is skipped, with this as the reason.",
    "paused": "Held: nothing new starts, what is submitted waits.",
    "resumed": "Goes on.",
    "still_held": "The pause of the job is over; it goes on when that of everything is.",
    "not_paused": "Nothing was done: the pause was over already, and what it had held is settled.",
    "scheduled": "Stored: it survives restarts.",
    "retried": "They are run again; the page of each failure names the run that repeats it.",
    "again": "That was asked for already; the page of each failure names the run that repeats it.",
    "none_left": "Nothing was left to run again.",
    "unscheduled": "Removed; its runs stay.",
}


@cache
def _templates() -> Any:
    try:
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtra("jinja2", "web") from error
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, auto_reload=False, finalize=unturned,
    )  # fmt: skip
    made.filters.update(
        span=span_text,
        sign=sign,
        took=took,
        remaining=remaining,
        lasts=lasts,
        local=local,
        iso=iso,
        ago=ago,
        strip=strip,
        told=told,
        needs=needs,
        at=durations.absolute,
        linked=linked,
        coded=coded,
        json=partial(json.dumps, ensure_ascii=False, default=str),
    )
    made.globals["file"] = address
    return made


def _filled(template: str, values: Mapping[str, Any]) -> bytes:
    pieces: Iterator[str] = _templates().get_template(template).generate(values)
    return "".join(breathing(pieces)).encode("utf-8", "replace")


# -- what templates call


def unturned(value: Any) -> Any:
    """A text with what would turn the words of the page around shown instead of obeyed, as on a terminal.

    Everything that a template says passes here, but what it has escaped itself: the value of a field goes back as it is.
    """
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value
    return _TURNING.sub(lambda found: f"\\u{ord(found[0]):04x}", value)


def sign(word: str) -> str:
    """The sign of a state or a condition."""
    return SIGNS.get(word, ("·", "-"))[0]


def local(instant: datetime, zone: tzinfo, now: datetime) -> str:
    """An instant on the clock of a zone."""
    return clock_text(instant, now, zone)


def told(text: str, zone: tzinfo, now: datetime, said: Iterable[str] = ()) -> str:
    """A sentence with its instants on the clock of a zone; `said`: what stands in it as others said it."""
    return readable(text, now, zone, said)


def needs(item: Mapping[str, Any], zone: tzinfo, now: datetime) -> str:
    """What is wrong where a person is needed, likewise."""
    return item_text(item, now, zone)


def linked(text: str, base: str) -> Any:
    """A sentence in which each run that it names leads there."""
    from markupsafe import Markup, escape

    link = Markup('<a href="{base}/runs/{id}">run {id}</a>')
    parts = _RUN.split(unturned(text))  # every second is an id
    return Markup("").join(link.format(base=base, id=one) if at % 2 else escape(one) for at, one in enumerate(parts))


def coded(text: str) -> Any:
    """A sentence in which what stands between backticks is to be typed as it is."""
    from markupsafe import Markup, escape

    parts = text.split("`")
    if len(parts) % 2 == 0:
        return unturned(text)
    code = Markup("<code>{}</code>")
    return Markup("").join(
        code.format(unturned(one)) if at % 2 else escape(unturned(one)) for at, one in enumerate(parts)
    )


def iso(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def ago(instant: datetime, now: datetime) -> str:
    """How far an instant is from now: `3m 2s ago`, `in 48 s`."""
    seconds = (instant - now).total_seconds()
    if seconds >= 0.5:
        return f"in {span_text(seconds)}"
    return "now" if seconds > -0.5 else f"{span_text(-seconds)} ago"


def lasts(run: Run, now: datetime) -> float | None:
    """Seconds since the attempt in hand began; None: none is."""
    if run.state is not State.RUNNING or run.attempt_started_at is None:
        return None
    return max(0.0, (now - run.attempt_started_at).total_seconds())


def remaining(run: Run, now: datetime) -> tuple[float | None, datetime | None]:
    """Seconds that are left of a run in hand, by what it reported; or, where that has not come true, when it did."""
    elapsed = lasts(run, now)
    if elapsed is None or run.progress is None or (after := run.progress.told_after) is None:
        return None, None
    assert run.attempt_started_at is not None
    left = run.progress.left(elapsed)
    is_late = left is None and elapsed - after >= LEAST_SILENCE
    return left, run.attempt_started_at + timedelta(seconds=after) if is_late else None
