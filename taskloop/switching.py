"""Jobs that can be switched off and on and paused, in the whole store, under any of their names.

Level 5. Between `Housed` and `Ledger`: the switches as last read, the verbs that throw them, and what they mean for a job.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any, Final, TypeVar

from taskloop import audit, durations
from taskloop.durations import Instant
from taskloop.errors import BadInstant, BadJob, NoSuchJob, nearest
from taskloop.events import Feed
from taskloop.housing import Housed
from taskloop.jobs import NAME, Job, name_of
from taskloop.parameters import check_words
from taskloop.runs import Run, State
from taskloop.store import Store
from taskloop.store_data import Query
from taskloop.switches import Missed, Switch, Switches, SwitchKind, Verdict, kinds_of

__all__ = ["Switching"]

T = TypeVar("T")
_ACTIONS: Final[Mapping[SwitchKind, audit.Action]] = {"enabled": "enable", "disabled": "disable", "paused": "pause"}


class Switching(Housed):
    """Jobs with a store, and their switches."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.feed: Feed = Feed()
        self._heirs: dict[str, list[Job[..., Any]]] = {}
        """By alias the jobs that are declared with it; the last one has what stands under it."""
        self._switches = Switches()
        self._is_misread = False
        """Whether they could not be read when last asked for: a job may be off that is known here as on, and nothing but a look
        would tell.
        """
        self._readings = 0
        """How many looks at them are under way: what they give may be older than what is written meanwhile."""
        self.undeclared: set[str] = set()
        """Jobs that may be switched although neither this ledger nor a worker has declared them yet."""
        self._under_way: set[asyncio.Task[Any]] = set()
        """What goes on to its end whether or not who asked for it still waits."""
        self._closed: dict[str, Switch] = {}
        """By job the trip of its breaker that was told last as over."""

    async def disable(
        self,
        job: str | Job[..., Any],
        *,
        reason: str | None = None,
        until: Instant | None = None,
        actor: str | None = None,
    ) -> None:
        """Switch a job off in the whole store: each of its fires is skipped, a submit is refused.

        A job of another program on the same store too. Raises `NoSuchJob`, as all switches do.
        """
        await self._throw("disabled", job, reason, until, actor)

    async def enable(self, job: str | Job[..., Any], *, reason: str | None = None, actor: str | None = None) -> None:
        """Switch a job on, whatever its declaration says."""
        await self._throw("enabled", job, reason, None, actor)

    async def reset(self, job: str | Job[..., Any], *, reason: str | None = None, actor: str | None = None) -> None:
        """Take back what was switched, by hand or by the job's breaker: the declaration decides again."""
        check_words(reason=reason, actor=actor)
        store, now = await self._opened(), self._clock.now()
        entry, name = audit.entry("reset", now, actor, reason), await self._switchable(job)
        declared = await self._declared_on(name)
        await self._refresh_switches(force=True)
        was_on = self._is_turned_on(name, now, declared)

        def tell() -> None:
            if (is_on := self._is_turned_on(name, now, declared)) != was_on:
                self.feed.send("enabled" if is_on else "disabled", now, job=name, reason=reason, actor=actor)

        unswitch = partial(store.unswitch, kinds=kinds_of("enabled"), now=now, actor=actor, reason=reason, entry=entry)
        # Old names first: what is thrown under one is moved meanwhile.
        await self._turn([partial(unswitch, each) for each in reversed(self._names(name))], tell)

    async def pause(
        self,
        job: str | Job[..., Any] | None = None,
        *,
        reason: str | None = None,
        until: Instant | None = None,
        actor: str | None = None,
    ) -> None:
        """Hold a job, None: all jobs, in the whole store: nothing new starts, submits wait, fires are kept."""
        await self._throw("paused", job, reason, until, actor)

    async def resume(
        self,
        job: str | Job[..., Any] | None = None,
        *,
        missed: Missed | None = None,
        reason: str | None = None,
        actor: str | None = None,
    ) -> None:
        """End a pause and settle the held fires: `missed` None by each job's own policy."""
        if missed not in (None, "skip", "latest", "all"):
            raise BadJob(f"missed is {missed!r}; allowed are 'skip', 'latest', 'all' or None for each job's own policy")
        check_words(reason=reason, actor=actor)
        name = await self._meant(job)
        store, now = await self._opened(), self._clock.now()
        told: dict[str, Any] = {"actor": actor, "reason": reason}
        entry = audit.entry("resume", now, actor, reason)
        unswitch = partial(store.unswitch, kinds=("paused",), now=now, missed=missed, entry=entry, **told)
        names = [None] if name is None else reversed(self._names(name))
        tell = partial(self.feed.send, "resumed", now, job=name, **told)
        await self._turn([partial(unswitch, each) for each in names], tell)

    async def _throw(
        self,
        kind: SwitchKind,
        which: str | Job[..., Any] | None,
        reason: str | None,
        until: Instant | None,
        actor: str | None,
    ) -> None:
        check_words(reason=reason, actor=actor)
        job = await self._meant(which)
        now = self._clock.now()
        end = durations.instant(until, now) if until is not None else None
        if end is not None and end <= now:
            raise BadInstant(until, "it is already over")
        entry = audit.entry(_ACTIONS[kind], now, actor, reason)
        switch = partial((await self._opened()).switch, Switch(kind, job, now, actor, reason, end), entry)
        await self._turn([switch], partial(self.feed.send, kind, now, job=job, reason=reason, actor=actor))

    async def _turn(self, writes: Iterable[Callable[[], Awaitable[Any]]], tell: Callable[[], None]) -> None:
        """Write switches, one after the other, go by them and tell of it."""

        async def carried_out() -> None:
            try:
                for write in writes:
                    await write()
            finally:  # of several the first may stand
                if self._store_is_open:  # else a stop was first: it would be opened again, for nobody
                    await self._switched()
            tell()

        await self._through(carried_out())

    async def _through(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` gives, which goes on to its end also if who asked for it is cancelled meanwhile: what it writes is written
        then, and whoever else is to hear of that must.
        """
        doing = asyncio.create_task(work)
        self._under_way.add(doing)
        doing.add_done_callback(self._under_way.discard)
        return await asyncio.shield(doing)

    async def paused(self) -> Switch | None:
        """The pause of everything, with who and why; None: there is none."""
        await self._refresh_switches(force=True)
        return self._switches.pause(None, self._clock.now())

    async def _refresh_switches(self, *, force: bool = False) -> None:
        """Read the switches anew; a started engine keeps them fresh itself."""
        self._readings += 1
        try:
            self._switches = await (await self._opened()).switches()
            self._is_misread = False
        except BaseException:
            self._is_misread = True
            raise
        finally:
            self._readings -= 1

    async def _switched(self) -> None:
        await self._refresh_switches(force=True)
        self._stirred()

    def _breaker(self, job: str) -> Callable[[Run], Coroutine[Any, Any, None]]:
        """What to call with a run of this job once its end is written. Ask for it before, while it is known how the
        breaker stands.
        """
        return partial(self._breaker_moved, self._switches.tripped(job))

    async def _breaker_moved(self, before: Switch | None, run: Run) -> None:
        """Go by what the end of a run has made of its job's breaker, and tell it."""
        if (
            run.state is State.SUCCEEDED
            and before is None
            and not self._readings
            and not self._switches.tripped(run.job)
        ):
            return  # there was nothing to close: to look for each such run would cost as much again as the run
        await self._switched()
        stands = self._switches.tripped(run.job)
        if stands is not None and stands.since == run.ended_at:
            self.feed.send("disabled", stands.since, job=run.job, reason=stands.reason, actor=stands.actor)
        elif stands is None and before is not None and run.state is State.SUCCEEDED:
            if self._closed.get(run.job) == before:  # of several runs in hand the first to succeed has closed it
                return
            self._closed[run.job] = before
            reason = f"run {run.id} succeeded"
            self.feed.send("enabled", self._clock.now(), job=run.job, reason=reason, actor=before.actor)

    async def _declared_on(self, job: str) -> bool:
        """Whether the declaration of a job has it on; that of another program is asked of the store."""
        if job in self._jobs:
            return self._jobs[job].policy.enabled
        definitions = await (await self._opened()).definitions()
        return all(one.facts["policy"]["enabled"] for one in definitions if one.name == job)

    def _is_turned_on(self, job: str, now: datetime, declared: bool) -> bool:
        """Whether a job is told as on: one on trial is not yet."""
        verdict = self._switches.verdict(self._names(job), now, declared=declared)
        return verdict.on and not verdict.trial

    def _verdict(self, job: str, now: datetime) -> Verdict:
        """Whether a job is on, by its switches and its declaration."""
        return self._switches.verdict(self._names(job), now, declared=self._jobs[job].policy.enabled)

    def _is_on(self, job: Job[..., Any], now: datetime) -> bool:
        return self._verdict(job.name, now).on

    def _is_held(self, job: str, now: datetime) -> bool:
        """Whether nothing of a job may fire or start here: it is paused, or left to others."""
        return self._switches.pause(job, now) is not None or self._is_left(job, now)

    def _is_left(self, job: str, now: datetime) -> bool:
        """Whether a job is left to other workers, because the time left here is too short for it."""
        return False

    def _stirred(self) -> None:
        """Schedules, switches or waiting runs changed: an engine should look at once."""

    # -- names

    def _names(self, job: str | Job[..., Any]) -> list[str]:
        """The name and the aliases under which a job's history stands; a name unknown here stands for itself."""
        name = name_of(job)
        one = self._renamed(name)
        return [name] if one is None else [one.name, *one.aliases]

    def _add(self, job: Job[..., Any]) -> None:
        super()._add(job)
        for alias in job.aliases:
            self._heirs[alias] = [*self._without(job, alias), job]

    def remove_job(self, name: str) -> None:
        job = self[name]
        super().remove_job(job.name)
        for alias in job.aliases:
            self._heirs[alias] = self._without(job, alias)
            if not self._heirs[alias]:
                del self._heirs[alias]

    def _refuse_aliases(self, jobs: Iterable[Job[..., Any]]) -> None:
        """Raise `BadJob` where the name of one is an alias of another: what that one fires would be the other's."""
        for job in jobs:
            heirs = [(heir, job.name) for heir in self._heirs.get(job.name, ())]
            for heir, taken in [*heirs, *((job, alias) for alias in job.aliases if alias in self._jobs)]:
                raise BadJob(
                    f"job '{heir.name}' has the alias '{taken}', and there is a job of that name, whose runs it would "
                    "take; take it out of aliases, or rename the other"
                )

    def _without(self, job: Job[..., Any], alias: str) -> list[Job[..., Any]]:
        return [one for one in self._heirs.get(alias, ()) if one is not job]

    def _renamed(self, name: str) -> Job[..., Any] | None:
        """The job that has this name, or had it."""
        if name in self._jobs:
            return self._jobs[name]
        heirs = self._heirs.get(name)
        return heirs[-1] if heirs else None

    async def _meant(self, job: str | Job[..., Any] | None) -> str | None:
        """As `_switchable`, and None for all jobs."""
        return None if job is None else await self._switchable(job)

    async def _switchable(self, which: str | Job[..., Any]) -> str:
        """The name under which a job is switched, given that or an alias; jobs of other programs on the store too.

        Whatever stands in the store under a name is meant by it; an alias that a definition names comes after that: the
        job that had it may have been taken back.
        """
        job = name_of(which)
        if (here := self._renamed(job)) is not None:
            return here.name
        store = await self._opened()
        if NAME.fullmatch(job) and (job in self.undeclared or await _is_there(store, job)):
            return job
        known = {one.name for one in await store.definitions()}
        heir = job if job in known else (await store.aliases()).get(job)
        if heir is None:
            stored = await store.schedules(ids=[job], limit=1) if job.isprintable() else ()  # as any id is
            near = nearest(job, known | self.undeclared | set(self._jobs))
            raise NoSuchJob(job, near, schedule_of=stored[0].job if stored else None)
        return heir


async def _is_there(store: Store, job: str) -> bool:
    """Whether a switch, a schedule or a run of a job stands in the store; of a thousand jobs this one alone is asked for."""
    return (
        any(one.job == job for one in await store.switches())
        or bool(await store.schedules(job=job, limit=1))
        or bool(await store.find(Query(jobs=[job], states=[*State], limit=1)))
    )
