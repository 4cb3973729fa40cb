"""Schedules that are stored: the verbs that put them down, change, remove and list them.

Level 5. Between `Switching` and `Ledger`: which job is meant, what its trigger leaves to the scheduler, and what is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final, TypeVar

from taskloop import audit, inquiry
from taskloop.errors import BadTrigger, Conflict, NoSuchJob, NoSuchSchedule, TaskloopError, nearest
from taskloop.jobs import Call, Job, by_name, name_of
from taskloop.parameters import check_words
from taskloop.policy import Policy
from taskloop.schedules import Schedule, bind, rebind
from taskloop.switching import Switching
from taskloop.triggers import At, Cron, Every, Trigger, checked

__all__ = ["Scheduling"]

T = TypeVar("T")
TOGETHER: Final = 1000
"""Schedules of one transaction."""
TURN: Final = 20
"""Schedules bound in one turn of the loop, each to a trigger of its own: a millisecond, of rare times some more."""


class Scheduling(Switching):
    """Jobs with a store and switches, and the schedules stored beside those that jobs declare."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._interval: timedelta | None = None
        """The interval given to `start()`; None: the options'."""

    def _job(self, job: str | Job[..., Any]) -> Job[..., Any]:
        if isinstance(job, str):
            return self._renamed(job) or self[job]
        if self._jobs.get(name_of(job)) is not job:
            raise NoSuchJob(job.name, nearest(job.name, self._jobs))
        return job

    async def _own(self, which: str | Job[..., Any]) -> Job[..., Any]:
        """The job as this program has it. Raises `NoSuchJob`, which says so of one that another program has."""
        try:
            return self._job(which)
        except NoSuchJob as error:
            elsewhere = False
            with suppress(TaskloopError):  # one that is away, or not opened yet, tells nothing
                if self._store_is_open:
                    elsewhere = any(one.name == error.name for one in await (await self._opened()).definitions())
            raise NoSuchJob(error.name, error.near, elsewhere=elsewhere) from None

    def resolved(self, trigger: Trigger) -> Trigger:
        """The trigger with what it left to the scheduler: its interval, its zone, or the pace of dev mode."""
        if self.options.dev is not None and trigger.recurring:
            return Every(self.options.dev)
        if isinstance(trigger, Every) and trigger.interval is None:
            return Every(self._interval or self.options.interval, anchor=trigger.anchor)
        if isinstance(trigger, Cron) and trigger.timezone is None:
            return trigger.bound(self.options.timezone or "UTC")
        return trigger

    async def schedule(
        self,
        job: str | Job[..., Any],
        trigger: Trigger,
        *,
        id: str,
        params: Mapping[str, Any] | None = None,
        actor: str | None = None,
        reason: str | None = None,
    ) -> Schedule:
        """Store a schedule that survives restarts; a known `id` is replaced, keeping the cursor if the trigger is equal.

        Raises `NoSuchJob`, `BadParameters`, `BadTrigger`, `Conflict` (the id is that of a declared job's schedule).
        """
        if not self._is_configured:
            await self._configure()
        one = await self._own(job)
        call: Call[Any] = Call(one, one.parameters.check(by_name(one.name, params)))
        return (await self.schedule_many([(call, trigger, id)], actor=actor, reason=reason))[0]

    async def schedule_many(
        self,
        wanted: Iterable[tuple[Call[Any], Trigger, str]],
        *,
        actor: str | None = None,
        reason: str | None = None,
    ) -> list[Schedule]:
        """Store many, a thousand a transaction, and stop where one is refused.

        Raises what `schedule` does, `BadJob` for what is no call, and `Conflict` for an id given twice.
        """
        check_words(reason=reason, actor=actor)
        store, now = await self._opened(), self._clock.now()
        policies: dict[str, Policy] = {}  # by the id of each

        def merge(old: Schedule | None, new: Schedule) -> Schedule:
            if old is not None and old.origin != "stored" and old.job != new.job:  # of another program, or gone
                raise Conflict(
                    f"schedule '{new.id}' is that of the job of this name, which {old.origin} declares; choose another id, or "
                    f"`taskloop schedule remove {new.id}` where that job is gone"
                )
            return new if old is None else rebind(old, new, policies[new.id], now)

        stored: list[Schedule] = []
        left = inquiry.each(wanted, "(call, trigger, id)")
        try:
            while schedules := await self._bound(islice(left, TOGETHER), policies, now):
                entry = audit.entry("schedule", now, actor, reason)
                stored += await self._stirring(store.put(schedules, merge, now, entry))
        finally:  # those that are stored fire, also where the rest was refused
            self._stirred()
        return stored

    async def reschedule(
        self,
        id: str,
        *,
        trigger: Trigger | None = None,
        params: Mapping[str, Any] | None = None,
        actor: str | None = None,
        reason: str | None = None,
    ) -> Schedule:
        """Change the trigger or the parameters of a stored schedule, or both; None: left as others may have changed it.

        Raises `NoSuchSchedule`, `NoSuchJob`, `BadParameters`, `BadTrigger`, `Conflict` (a job here declares it, or it was
        given to another job meanwhile).
        """
        check_words(reason=reason, actor=actor)
        found = [one for one in await self.schedules(prefix=inquiry.schedule_id(id), limit=1) if one.id == id]
        if not found:
            raise NoSuchSchedule(id)
        self.refuse_declared(id)
        job, now = await self._own(found[0].job), self._clock.now()
        wanted: dict[str, Any] = {"seen_at": now, "origin": "stored"}
        if trigger is not None:
            wanted["trigger"] = self.resolved(checked(trigger))
        if params is not None:
            wanted["params"] = job.parameters.check(by_name(job.name, params))

        def merge(old: Schedule | None, new: Schedule) -> Schedule:
            """Over what stands there as it is written: what others changed since it was read stays changed."""
            if old is None:
                raise NoSuchSchedule(id)
            if old.job != new.job:
                raise Conflict(f"schedule '{id}' was given to job '{old.job}' meanwhile; look at it, then change it")
            return rebind(old, old.changed(**wanted), job.policy, now)

        writing = (await self._opened()).put(found, merge, now, audit.entry("schedule", now, actor, reason))
        (stored,) = await self._stirring(writing)
        self._stirred()
        return stored

    async def _stirring(self, writing: Awaitable[T]) -> T:
        """What is written; an engine hears of it also where who asked is cancelled before that."""
        doing = asyncio.ensure_future(writing)
        try:
            return await asyncio.shield(doing)
        except asyncio.CancelledError:
            doing.add_done_callback(lambda _: self._stirred())
            raise

    async def _bound(
        self, wanted: Iterable[tuple[Call[Any], Trigger, str]], policies: dict[str, Policy], now: datetime
    ) -> list[Schedule]:
        """What is wanted as it is to stand where there is none of its id yet; `policies` has those of all before, by id."""
        found: list[Schedule] = []
        made = 0
        given: tuple[Job[..., Any], Trigger] | None = None
        for one in wanted:
            call, trigger, name = inquiry.schedule(one)
            if name in self._jobs and self._jobs[name].trigger is not None:
                raise Conflict(f"schedule '{name}' is that of the job of this name; choose another id")
            if not 0 < len(name) <= 200 or not name.isprintable():
                raise BadTrigger(name, "allowed is a text of 1 to 200 printable characters", what="schedule id")
            if name in policies:
                raise Conflict(f"schedule '{name}' comes twice in what is to be stored; give each its own id")
            policies[name] = policy = call.job.policy
            if given is not None and given[0] is call.job and _is_same(given[1], trigger) and not policy.spread:
                # Made in a quarter of the time; and they share their trigger for as long as they are kept, which spares
                # Python's collector of garbage a third of what it has to look at.
                found.append(found[-1].changed(id=name, params=call.params))
                continue
            given = call.job, trigger
            job, kept = self._job(call.job).name, self.resolved(checked(trigger))
            found.append(bind(Schedule(id=name, job=job, trigger=kept, params=call.params), policy, now))
            made += 1
            if made % TURN == 0:
                await asyncio.sleep(0)
        return found

    def refuse_declared(self, id: str) -> None:
        """Raises `Conflict` for the schedule of a job that is declared here."""
        declared = self._jobs.get(id)
        if declared is not None and declared.trigger is not None:
            raise Conflict(
                f"schedule '{id}' is declared by {declared.origin}, and would be as before at the next start; "
                "change it there, or disable the job"
            )

    async def unschedule(self, id: str, *, actor: str | None = None, reason: str | None = None) -> None:
        """Remove a stored schedule; its runs stay. Raises `NoSuchSchedule`, `Conflict` (a job here declares it)."""
        check_words(reason=reason, actor=actor)
        self.refuse_declared(inquiry.schedule_id(id))
        now = self._clock.now()
        if not await (await self._opened()).drop([id], now, audit.entry("unschedule", now, actor, reason)):
            raise NoSuchSchedule(id)
        self._stirred()

    async def schedules(
        self,
        job: str | Job[..., Any] | None = None,
        *,
        prefix: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[Schedule]:
        """Schedules by id, at most `limit`, from the first one on; `before`: the last id of the page before this one."""
        inquiry.texts(prefix=prefix, before=before)
        name = None if job is None else self._names(job)[0]
        found = await (await self._opened()).schedules(
            job=name, prefix=prefix, after=before, limit=inquiry.limit(limit)
        )
        return list(found)


def _is_same(one: Trigger, other: Trigger) -> bool:
    return type(one) in (Every, Cron, At) and one == other
