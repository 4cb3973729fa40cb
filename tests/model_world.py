"""The world of the model test: virtual time, one worker or two on one store, the jobs, and those who look at it all.

What is drawn for a job stands in `Spec`. Each verb of `World` makes something happen and tells the model; `look` holds
the records against it. A world has a loop of its own, which stands still but for `World.run`.
"""

from __future__ import annotations

import asyncio
import contextvars
import sqlite3
import weakref
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from zoneinfo import ZoneInfo

from model import FAILURES, GRACE, KILL_GRACE, LEASE, NOTICED, SURE, Call, Gap, Model, Word
from model_schedules import Move, Nights, Once, Ticks, Track

from taskloop import At, Cron, Every, Fatal, Options, Retry, RunContext, State, TaskScheduler
from taskloop.clock import EPOCH
from taskloop.store_sqlite import SqliteStore
from taskloop.testing import virtual_time

WHO = contextvars.ContextVar("WHO", default="nobody")
"""Whose process a task belongs to."""


MANY = 40
"""Fires of one schedule that may be lived through in one step."""


@dataclass(frozen=True)
class Spec:
    """What is declared of a job."""

    trigger: str
    every: int
    overlap: str
    missed: str
    missed_limit: int
    attempts: int
    may_repeat: bool
    group: bool
    max_running: int | None
    max_late: int | None
    timeout: int | None
    breaker: bool
    in_thread: bool
    name: str = "?"

    @property
    def repeatable(self):
        """Whether an attempt that was cut short may be made again."""
        return self.may_repeat and self.attempts > 1

    @property
    def recurring(self):
        return self.trigger not in ("at", "long ago", "none")

    def declared(self, start):
        """The trigger, the grid of its instants and the number of the first one, if it is first seen at `start`."""
        every, ahead = timedelta(seconds=self.every), timedelta(minutes=7)
        elapsed, aligned, anchored = Ticks(start, every), Ticks(EPOCH, every), Ticks(start + ahead, every)
        night = Nights(1, 30, ZoneInfo("Europe/London"))
        return {
            "now": (Every(every), elapsed, 0),
            "after": (Every(every), elapsed, 1),
            "aligned": (Every(every), aligned, aligned.last(start) + 1),
            "anchored": (Every(every, anchor=start + ahead), anchored, anchored.last(start) + 1),
            "nightly": (Cron("30 1 * * *", timezone="Europe/London"), night, night.last(start) + 1),
            "at": (At(start + ahead), Once(start + ahead), 0),
            "long ago": (At(start - ahead), Once(start - ahead), 0),
            "none": (None, None, 0),
        }[self.trigger]

    def policy(self):
        options = {"overlap": self.overlap, "missed": self.missed, "missed_limit": self.missed_limit}
        options |= {"retry": Retry(self.attempts, first="10s"), "max_running": self.max_running}
        options |= {"max_late": self.max_late, "timeout": self.timeout, "group": "one" if self.group else None}
        options |= {"pause_after": FAILURES, "trial_after": "10m"} if self.breaker else {}
        options |= {} if self.may_repeat else {"on_crash": "fail"}
        return options | ({"first": self.trigger} if self.trigger in ("now", "after", "aligned") else {})


class World:
    """`file`: where the two workers keep their store; None: one worker, and its store is in memory."""

    def __init__(self, fleet, moods, start, *, slots, file=None):
        self.fleet = fleet
        self.moods = dict(zip([one.name for one in fleet], moods, strict=True))
        self.start, self.slots, self.file = start, slots, file
        self.model = Model(fleet)
        self.hears = 0.0 if file is None else 1.6
        """Seconds after which every worker knows what was said to another."""
        self.longest = 3 * 86400 if file is None else 200
        """Seconds that may pass in one step while somebody is there."""
        self.up, self.dead = {}, {}
        """Since when each worker is up; when the death of each dead one is known."""
        self.held = {}
        """Of each pause the time in which it holds fires."""
        self.noticed_at, self.enough = 0.0, False
        self.loop = asyncio.new_event_loop()
        self.owners = weakref.WeakKeyDictionary()
        self.loop.set_task_factory(self._make_task)
        self.schedulers = {who: self._scheduler() for who in ("first", "second")[: 1 if file is None else 2]}
        self.time = virtual_time(self.schedulers["first"], at=start, store=self._store(), start=False, patience="1m")
        self.run(self._begin())

    def _store(self):
        return None if self.file is None else SqliteStore(self.file, synchronous="normal")

    def _scheduler(self):
        scheduler = TaskScheduler("sqlite:///:memory:", options=Options(keep=None, max_running=self.slots))
        for one in self.fleet:
            scheduler.add_job(self._body(one), one.declared(self.start)[0], name=one.name, **one.policy())
        return scheduler

    async def _begin(self):
        await self.time.__aenter__()
        if self.file is not None:
            await self.time.join(self.schedulers["second"], self._store(), start=False)
        for one in self.fleet:
            trigger, grid, first = one.declared(self.start)
            if trigger is not None:
                self.model.tracks[one.name] = Track(grid, first, one.trigger in ("now", "after"), one.breaker)
        self.outage = None
        await self.come_up("first")

    def end(self):
        """Stop, look once more, and leave nothing behind."""
        try:
            self.run(self._end())
        finally:
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()

    async def _end(self):
        try:
            for who in list(self.up):
                await self.go_down(who)
            running = [row for row in await self.rows() if row.state is State.RUNNING and row.worker not in self.dead]
            assert not running, running
        finally:
            self.enough = True
            await self.time.advance("30m")
            await self.time.__aexit__(None, None, None)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"left behind: {left}"

    # -- the loop

    def run(self, coroutine):
        async def driven():
            if (loop_time := getattr(self.time, "_loop_time", None)) is not None:
                loop_time.test = asyncio.current_task()  # whom to tell if time stands still
            return await coroutine

        return self.loop.run_until_complete(driven())

    def _make_task(self, loop, coroutine, context=None, **more):  # its name too, since Python 3.13.3
        task = asyncio.Task(coroutine, loop=loop, context=context, **more)
        self.owners[task] = context[WHO] if context is not None and WHO in context else WHO.get()
        return task

    async def of(self, who, coroutine):
        """Carry out a verb as a part of a worker's process; time passes as long as it takes."""
        context = contextvars.copy_context()
        context.run(WHO.set, who)
        return await self.time.until(self.loop.create_task(coroutine, context=context))

    async def say(self, verb):
        """Let somebody say a verb to a worker, dead or alive: it reads and writes records, and needs no start."""
        try:
            return await self.of(self.someone, verb(self.schedulers[self.someone]))
        finally:
            await self.time.advance(self.hears)

    @property
    def someone(self):
        return next(iter(self.up), "first")

    @property
    def now(self):
        return self.loop.time()

    @property
    def wall(self):
        return self.time.now

    @property
    def newest(self):
        return max(self.model.rows, default=0)

    def _who(self, worker):
        return next((who for who, one in self.schedulers.items() if one.worker and one.worker.id == worker), "nobody")

    # -- the jobs

    def _body(self, spec):
        """What the jobs do: write down that they are called, and behave as their mood is."""

        def begins(run):
            call = Call(
                run.id, run.job, run.schedule, run.attempt, run.due_at, run.worker, self._who(run.worker), self.now
            )
            self.model.begins(call, self.wall)
            return call, *self.moods[spec.name]

        def ends(call, mood):
            how = {"badly": "badly", "hopeless": "hopelessly"}
            call.end, call.how = self.now, how.get(mood, "well")
            if mood in how:
                raise OSError("no luck") if mood == "badly" else Fatal("no hope")

        async def on_the_loop(run: RunContext):
            call, mood, seconds = begins(run)
            until = self.now + seconds
            while until - self.now > 1e-6 and not self.enough:  # virtual time is whole microseconds
                try:
                    await asyncio.sleep(until - self.now)
                except asyncio.CancelledError:
                    if mood != "stubborn" or self.enough:
                        late = spec.timeout is not None and self.now >= call.begin + spec.timeout
                        call.end, call.how = self.now, "timed out" if late else "asked to end"
                        raise
                    call.ignored_at = self.now if call.ignored_at is None else call.ignored_at
            ends(call, mood)

        def in_a_thread(run: RunContext):
            call, mood, _ = begins(run)
            ends(call, mood)

        return in_a_thread if spec.in_thread else on_the_loop

    # -- living and dying

    async def come_up(self, who, after=0):
        if not self.up:
            await self.time.advance(after)
            if self.outage is not None:
                self.outage.end, self.outage.sure = self.wall, not self._dead_unknown()
        await self.of(who, self.schedulers[who].start())
        self.up[who] = self.now
        await self.time.advance(self.hears)

    async def go_down(self, who):
        worker, began, wall = self.schedulers[who].worker.id, self.now, self.wall
        await self.of(who, self.schedulers[who].stop())
        took = self.now - began
        assert took <= GRACE + KILL_GRACE + 2, f"the stop took {took} s"
        going = [one for one in self.model.calls if one.worker == worker and one.end is None]
        assert all(one.abandoned(self.now) for one in going), f"it goes on after the stop: {going}"
        del self.up[who]
        await self._left(wall)

    async def die(self, who, *, unseen=False):
        """End a worker as by kill -9; `unseen`: nobody can tell but by its silence."""
        worker = self.schedulers[who].worker.id
        if self.file is None:
            await self.time.crash()
        else:
            await self._kill(who)
        if unseen:
            with closing(sqlite3.connect(self.file)) as db, db:
                where = "replace(process, ':', ':elsewhere')"
                db.execute(
                    f"UPDATE taskloop_workers SET process = {where}, beat_tick = ? WHERE id = ?", (self.now, worker)
                )
        for call in self.model.calls:
            if call.end is None and call.who == who:
                call.end, call.how = self.now, "killed"
        del self.up[who]
        self.dead[worker] = self.now + (LEASE + 2 if unseen else 2)
        await self._left(self.wall)

    async def _kill(self, who):
        """What `VirtualTime.crash` does, to one of two."""
        for task in asyncio.all_tasks():
            if self.owners.get(task) == who and hasattr(task.get_coro(), "die"):
                task.get_coro().die()
                task.cancel()
        for handle in (*self.loop._scheduled, *self.loop._ready):
            owner = type(getattr(handle._callback, "__self__", None)).__module__
            if handle._context.get(WHO) == who and owner.startswith("taskloop."):
                handle.cancel()
        await next(one for one in self.time._members if one.scheduler is self.schedulers[who]).die(self.wall)

    async def _left(self, since):
        await self.time.advance(self.hears)
        if not self.up:
            self.outage = Gap(None, since, self.wall, self.newest, sure=True)
            self.model.gaps.append(self.outage)

    def _dead_unknown(self):
        return any(self.now <= known_at for known_at in self.dead.values())

    # -- words

    def until(self, seconds):
        return None if seconds is None else self.wall + timedelta(seconds=seconds)

    async def switch(self, job, kind, until):
        if kind == "disabled":
            self.model.off_lately.add(job)
            await self.say(lambda one: one.disable(job, until=until))
        else:
            await self.say(lambda one: one.enable(job) if kind == "enabled" else one.reset(job))
        self.model.forgiven[job] |= {row.id for row in await self.rows()}
        self.model.words[job] = None if kind == "reset" else Word(kind, until, self.someone, self.now)

    async def pause(self, job, until):
        if self.model.pauses.get(job) is None or not self.model.pauses[job].holds(self.wall):
            self.held[job] = Gap(job, self.wall, self.wall, self.newest, sure=False)
            self.model.gaps.append(self.held[job])
        await self.say(lambda one: one.pause(job, until=until))
        self.model.pauses[job] = Word("paused", until, self.someone, self.now)

    async def resume(self, job, missed):
        for one in self.fleet:
            if missed is not None and job in (None, one.name):
                self.model.overrides[one.name].add(missed)
        self._see_what_is_over(self.wall)
        self.model.pauses[job] = None
        await self.say(lambda one: one.resume(job, missed=missed))

    # -- time

    async def pass_time(self, seconds):
        if self.up:
            intervals = [one.every for one in self.fleet if one.trigger in ("now", "after", "aligned", "anchored")]
            seconds = min(seconds, self.longest, MANY * min(intervals, default=self.longest))
            if any(not row.final for row in self.model.rows.values()):
                seconds = min(seconds, 3600)
        await self.time.advance(seconds)

    async def clock_forward(self, seconds):
        begin = self.wall
        self.time.step(seconds)
        self.noticed_at = self.now + NOTICED
        self._jumped(begin, seconds)

    async def sleep(self, seconds):
        begin = self.wall
        await self.time.suspend(seconds)
        self._jumped(begin, seconds)
        await self.time.advance(self.hears)

    def _jumped(self, begin, seconds):
        sure = seconds > SURE and len(self.up) == 1 and not self._dead_unknown()
        self.model.gaps.append(Gap(None, begin, self.wall, self.newest, sure))

    async def clock_back(self, seconds):
        await self.time.advance(max(0.0, self.noticed_at - self.now))
        rows, target = await self.rows(), self.wall - timedelta(seconds=seconds)
        if self._would_meet_a_known_bug(rows, target):
            return
        for word in [*self.model.words.values(), *self.model.pauses.values()]:
            if word is not None and word.until is not None and word.until <= self.wall:
                word.over = True
        move = Move(max((row.id for row in rows), default=0), timedelta(seconds=seconds), target)
        self.time.step(timedelta(seconds=-seconds))
        self.model.moved = True
        for track in self.model.tracks.values():
            track.moves.append(move)
        for gap in self.model.gaps:
            gap.sure = False  # what was missed in it may be lived through now
        await self.time.advance(NOTICED)
        move.noticed = self.wall

    def _would_meet_a_known_bug(self, rows, target):
        """KNOWN: situations that tests/test_model_finds.py tells of, and that are kept away from until they are mended."""
        return any(row.reason == "disabled" for row in rows) or any(
            word is not None for word in self.model.pauses.values()
        )

    # -- looking

    async def rows(self):
        return await self.of(self.someone, self._rows(self.schedulers[self.someone]))

    async def _rows(self, scheduler):
        found, before = [], None
        while page := await scheduler.runs(state=list(State), before=before, limit=1000):
            found, before = found + page, page[-1].id
        return found[::-1]

    async def look(self):
        """See whether the promises hold."""
        scheduler, model, wall = self.schedulers[self.someone], self.model, self.wall
        self._see_what_is_over(wall)
        rows = await self.rows()
        schedules = await self.of(self.someone, scheduler.schedules())
        given_back = [
            (run, one.attempt)
            for run in {call.run for call in model.calls if call.how == "asked to end"}
            for one in await self.of(self.someone, scheduler.attempts(run))
            if one.outcome == "shut_down"
        ]
        following = model.look(rows, schedules, given_back, wall)
        switches = await self.of(self.someone, self._switches(scheduler))
        model.switches_stand_as_last_said(switches)
        model.failures_in_a_row_switch_off({one.job for one in switches if one.kind == "tripped"})
        running = [row for row in rows if row.state is State.RUNNING]
        living = {self.schedulers[who].worker.id for who in self.up}
        model.running_means_being_called(running, self.now, living)
        if self.up:
            self._nobody_dead_has_anything(running, living)
        if self.up and self.now >= self.noticed_at:
            going = [sum(call.who == who and call.end is None for call in model.calls) for who in self.up]
            waiting = [row for row in rows if row.state is State.WAITING]
            model.nothing_waits_without_a_reason(waiting, running, wall, min(going) >= self.slots)
            for name, due in following.items():
                assert due is None or due > wall or model.paused(name, wall), f"{name} was due at {due}, it is {wall}"

    async def _switches(self, scheduler):
        return [one for one in await (await scheduler._opened()).switches() if one.ended_at is None]

    def _see_what_is_over(self, wall):
        for word in [*self.model.words.values(), *self.model.pauses.values()]:
            if word is not None and word.until is not None and wall >= word.until:
                word.over = True
        for name, word in self.model.pauses.items():
            if word is not None:
                gap = self.held[name]
                gap.end = wall if word.holds(wall) else max(gap.end, min(wall, word.until))

    def _nobody_dead_has_anything(self, running, living):
        since = min(self.up.values())
        for row in running:
            known_at = max(self.dead.get(row.worker, 0.0), since + 2)
            assert row.worker in living or self.now < known_at, f"its worker is not there: {row}"
