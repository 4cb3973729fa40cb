"""One action on many runs: those that fit a filter are cancelled, or run again. This route may change.

Bounded, and safe to repeat: a run that was run again already is left alone, so a second click does what the first one could
not, and no more. Start at `choose`, then `carry_out`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from taskloop.errors import BadParameters, Conflict, NoSuchJob, NoSuchRun
from taskloop.runs import ACTIVE, Cause, Run, RunId, State
from taskloop.web.api.asking import BEFORE, TOLD, V1, newest, refuse_unknown
from taskloop.web.api.failures import FAILED, fingerprint
from taskloop.web.core import Response, answer
from taskloop.web.problems import Problem
from taskloop.web.routes import FLAG, INSTANT, TEXT, Parameter, Route, whole, word, words
from taskloop.web.security import Scope

if TYPE_CHECKING:
    from taskloop.scheduler import TaskScheduler
    from taskloop.web.site import Asked

__all__ = ["MOST", "ROUTES", "Chosen", "Done", "Selection", "carry_out", "choose", "left_of"]

MOST: Final = 1000
"""Runs of one call."""
LOOKED: Final = 20_000
"""Runs that are looked at to find those which fit."""
PAGE: Final = 200
TOGETHER: Final = 20
REFUSALS: Final = 20
"""Refusals that are told word by word."""

Action = Literal["rerun", "cancel"]
_STATES: Final[dict[Action, Sequence[State]]] = {
    "rerun": [state for state in State if state not in ACTIVE and state is not State.SKIPPED],
    "cancel": list(ACTIVE),
}


class Selection(NamedTuple):
    """Which runs are meant. None: whichever."""

    action: Action
    job: str | None = None
    state: Sequence[str] | None = None
    """None: those that failed, for `rerun`; those that have not ended, for `cancel`."""
    fingerprint: str | None = None
    since: str | None = None
    until: str | None = None
    before: int | None = None
    """Only ids below."""
    limit: int = MOST


class Chosen(NamedTuple):
    """What fits, by its ids: what runs came to may be large. `again`: how many more would, but were run again already; `complete`: there are no others."""

    runs: list[RunId]
    again: int
    complete: bool


@dataclass(slots=True)
class Done:
    """What came of it: the new runs, or those that were told to end; and what was refused, with why.

    `again`: how many somebody else ran again since they were chosen, in another process.
    """

    runs: list[int] = field(default_factory=list)
    again: int = 0
    refused: list[tuple[int, str]] = field(default_factory=list)


async def choose(scheduler: TaskScheduler, wanted: Selection, most: int | None = None) -> Chosen:
    """The runs that fit, the newest first, among so many of the newest; None: among LOOKED.

    Raises `Problem` for a state in which a run cannot be meant, `BadInstant`.
    """
    allowed = _STATES[wanted.action]
    states = [State(one) for one in wanted.state or (FAILED if wanted.action == "rerun" else ACTIVE)]
    if wrong := [one for one in states if one not in allowed]:
        raise Problem(422, "invalid-value", f"a run that is {wrong[0]} cannot be meant by {wanted.action}",
                      f"allowed are {', '.join(allowed)}")  # fmt: skip
    runs: list[RunId] = []
    narrowed = {"job": wanted.job, "state": states, "since": wanted.since, "until": wanted.until}
    again, before, left = 0, wanted.before, LOOKED if most is None else most
    while left > 0:
        page, before = await newest(scheduler, narrowed, before, min(PAGE, left))
        left -= len(page)
        fit = [one.id for one in page if wanted.fingerprint in (None, fingerprint(one))]
        fresh = await _not_again(scheduler, fit) if wanted.action == "rerun" else fit
        again += len(fit) - len(fresh)
        runs += fresh
        if len(runs) > wanted.limit:
            return Chosen(runs[: wanted.limit], again, complete=False)
        if before is None:
            return Chosen(runs, again, complete=True)
    return Chosen(runs, again, complete=False)


async def _not_again(scheduler: TaskScheduler, runs: Sequence[RunId]) -> list[RunId]:
    found: list[RunId] = []
    for start in range(0, len(runs), TOGETHER):
        some = runs[start : start + TOGETHER]
        repeated = await asyncio.gather(*(scheduler.reruns(one) for one in some), return_exceptions=True)
        for one, reruns in zip(some, repeated, strict=True):
            if isinstance(reruns, BaseException) and not isinstance(reruns, NoSuchRun):  # pruned meanwhile
                raise reruns
            if reruns == []:
                found.append(one)
    return found


async def left_of(scheduler: TaskScheduler, runs: Sequence[Run], since: str) -> list[Run]:
    """Those of these runs that nobody has run again yet; `since`: from when on all of them are on record.

    What repeats them came after them, so it is found in one look, where it is not too much.
    """
    repeats = await scheduler.runs(cause=Cause.RERUN, state=list(State), since=since, limit=MOST)
    repeated = {one.rerun_of for one in repeats}
    fresh = [one for one in runs if one.id not in repeated]
    if len(repeats) < MOST:
        return fresh
    left = {*await _not_again(scheduler, [one.id for one in fresh])}
    return [one for one in fresh if one.id in left]


async def carry_out(
    scheduler: TaskScheduler, action: Action, runs: Sequence[RunId], *, actor: str, reason: str | None
) -> Done:
    """Do it to each, the oldest first; what one of them refuses stops no other. Raises what the store raises."""
    done = Done()

    async def act(one: RunId) -> Run:
        if action == "cancel":
            run = await scheduler.cancel(one, actor=actor, reason=reason)
            if run.final and run.state is not State.CANCELLED:  # since it was chosen
                raise Conflict(f"run {run.id} {run.state} already")
            return run
        # Our lock is of this process; what another one has run again since we looked says the store.
        return (await scheduler.rerun(one, once=True, actor=actor, reason=reason)).run

    ordered = list(reversed(runs))
    for start in range(0, len(ordered), TOGETHER):  # those of one turn share a transaction
        some = ordered[start : start + TOGETHER]
        if action == "rerun":
            fresh = await _not_again(scheduler, some)
            done.again += len(some) - len(fresh)
            some = fresh
        for one, came in zip(some, await asyncio.gather(*map(act, some), return_exceptions=True), strict=True):
            if isinstance(came, Run) and came.existed:
                done.again += 1
            elif isinstance(came, Run):
                done.runs.append(came.id)
            elif isinstance(came, BadParameters | Conflict | NoSuchJob | NoSuchRun):
                done.refused.append((one, str(came)))
            else:
                raise came
    return done


async def bulk(asked: Asked) -> Response:
    body = asked.body
    names = ("job", "state", "fingerprint", "since", "until", "before")
    wanted = Selection(body["action"], limit=body["limit"] or MOST, **{name: body[name] for name in names})
    if not any((wanted.job, wanted.fingerprint, wanted.since, wanted.until)):
        raise Problem(422, "invalid-value", "it names no job, fingerprint, since or until",
                      'say which runs are meant; {"since": "24h"} are all of a day')  # fmt: skip
    told = asked.told()
    async with asked.site.bulk:  # a second one finds what the first has done
        chosen, done = await choose(asked.scheduler, wanted), Done()
        if not chosen.runs and wanted.job is not None:  # a misspelt name would look like success
            await refuse_unknown(asked, wanted.job)
        if not body["dry_run"] and chosen.runs:
            asked.count_submit("*")
            done = await carry_out(asked.scheduler, wanted.action, chosen.runs, **told)
    return await answer(_record(wanted, chosen, done, dry_run=bool(body["dry_run"])))


def _record(wanted: Selection, chosen: Chosen, done: Done, *, dry_run: bool) -> dict[str, Any]:
    return {
        "action": wanted.action,
        "dry_run": dry_run,
        "matched": len(chosen.runs),
        "again": chosen.again + done.again,
        "complete": chosen.complete,
        "done": len(done.runs),
        "runs": done.runs,
        "refused": len(done.refused),
        "refusals": [{"run": number, "detail": text} for number, text in done.refused[:REFUSALS]],
    }


ROUTES = (
    Route(
        method="POST", path=f"{V1}/runs/bulk", name="bulk", scope=Scope.operate, handler=bulk,
        summary=f"Run again, or cancel, up to {MOST} runs that fit; `dry_run` only counts them",
        body=(
            Parameter("action", word("rerun", "cancel"), "what becomes of them", required=True),
            Parameter("dry_run", FLAG, "only say how many are meant"),
            Parameter("job", TEXT, "only of this job"),
            Parameter("state", words(*(state for state in State if state is not State.SKIPPED)),
                      "in one of these, with commas between; without it those that failed, or that have not ended"),
            Parameter("fingerprint", TEXT, "only those that failed of this, as `failures` has it"),
            Parameter("since", INSTANT, "on record from then on, or the time back from now such as 24h"),
            Parameter("until", INSTANT, "on record before then, or the time back from now"),
            BEFORE,
            Parameter("limit", whole(1, MOST), f"how many at most; without it {MOST}"),
            *TOLD,
        ),
        example="""-d '{"action": "rerun", "job": "report", "since": "24h", "dry_run": true}'""",
    ),
)  # fmt: skip
