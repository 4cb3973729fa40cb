"""Nothing is lost, doubled or stuck: random lives of one worker and of two, held against the promises in `model`.

Each rule makes something happen in a `World` of virtual time; after each its records are looked at.
CI looks at the same lives every time. `TASKLOOP_MODEL=30 pytest tests/test_model.py` looks at thirty times as many, others
every time, and prints how to see a bad one again; it takes some ten minutes. What was found stands in test_model_finds.
"""

from __future__ import annotations

import os
import signal
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine
from model import KILL_GRACE
from model_world import Spec, World

from taskloop.errors import Conflict

TIMES = int(os.environ.get("TASKLOOP_MODEL", "1"))
"""How many times as many lives as in CI."""
SECONDS = 120 * TIMES
"""Of real time, for one test at most."""

pytestmark = pytest.mark.timeout(SECONDS)


def search(examples, steps):
    return settings(
        max_examples=examples * TIMES,
        stateful_step_count=steps,
        deadline=None,
        print_blob=True,
        database=None,
        derandomize=TIMES == 1,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(autouse=True)
def no_test_takes_longer_than_this():
    """In the place of the limit of other tests: a search takes its time."""

    def ring(*_):
        raise TimeoutError(f"the search takes longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


MOSTLY_NOT = st.sampled_from([False, False, False, True])
SPECS = st.builds(
    Spec,
    trigger=st.sampled_from(["now", "after", "aligned", "anchored"] * 2 + ["nightly", "at", "long ago", "none"]),
    every=st.sampled_from([60, 60, 420, 3600, 86400]),
    overlap=st.sampled_from(["skip", "queue", "replace", "allow"]),
    missed=st.sampled_from(["latest", "skip", "all"]),
    missed_limit=st.integers(1, 3),
    attempts=st.integers(1, 3),
    may_repeat=st.booleans(),
    group=MOSTLY_NOT,
    max_running=st.sampled_from([None, None, 1, 2]),
    max_late=st.sampled_from([None, 120, 1800]),
    timeout=st.sampled_from([None, None, 30, 300]),
    breaker=MOSTLY_NOT,
    in_thread=MOSTLY_NOT,
)
MOODS = st.tuples(
    st.sampled_from(["well", "well", "well", "badly", "stubborn", "hopeless"]), st.sampled_from([400, 45, 4, 0, 1500])
)
STARTS = st.builds(
    lambda day, minutes: datetime.fromisoformat(day).replace(tzinfo=UTC) + timedelta(minutes=minutes),
    st.sampled_from(["2026-01-01", "2026-03-28", "2026-10-24"]),
    st.integers(0, 24 * 60),
)
SPANS = st.one_of(st.integers(1, 100), st.integers(100, 7200), st.integers(7200, 3 * 86400))
LONG_SPANS = st.one_of(SPANS, st.integers(1, 400).map(lambda days: days * 86400 + 17))
THEN = st.sampled_from([0, 1, 30, 100, 400, 4000])
"""Seconds that pass after somebody has said something."""
BACK = st.one_of(LONG_SPANS, LONG_SPANS, LONG_SPANS, st.none())
"""After how long a worker that has ended comes back; None: whenever it is called."""
JOBS = st.integers(0, 3)
UNTIL = st.none() | st.sampled_from([30, 600, 4000])


class OneWorker(RuleBasedStateMachine):
    """The lives of one worker, on a store in memory."""

    world = None

    @initialize(
        fleet=st.lists(st.tuples(SPECS, MOODS), min_size=2, max_size=4), start=STARTS, slots=st.sampled_from([64, 2])
    )
    def a_fleet_is_declared_and_started(self, fleet, start, slots):
        specs = [Spec(**{**vars(spec), "name": "abcd"[place]}) for place, (spec, _) in enumerate(fleet)]
        self.world = World(specs, [mood for _, mood in fleet], start, slots=slots, file=self.file())

    def file(self):
        return None

    def teardown(self):
        if self.world is not None:
            self.world.end()

    @invariant()
    def the_promises_hold(self):
        if self.world is not None:
            self.do(self.world.look())

    def do(self, coroutine, then=0):
        try:
            return self.world.run(coroutine)
        finally:
            self.world.run(self.world.pass_time(then))

    # -- time

    @rule(seconds=SPANS)
    def time_passes(self, seconds):
        self.do(self.world.pass_time(seconds))

    @rule(seconds=LONG_SPANS, then=THEN)
    def the_clock_is_set_forward(self, seconds, then):
        self.do(self.world.clock_forward(seconds), then)

    @precondition(lambda self: self.world.up)
    @rule(seconds=LONG_SPANS, then=THEN)
    def the_clock_is_set_back(self, seconds, then):
        self.do(self.world.clock_back(seconds), then)

    @precondition(lambda self: len(self.world.up) == 1)
    @rule(seconds=LONG_SPANS, then=THEN)
    def the_machine_sleeps(self, seconds, then):
        self.do(self.world.sleep(seconds), then)

    # -- workers

    @precondition(lambda self: self.world.up)
    @rule(back=BACK, which=st.integers(0, 1), unseen=st.booleans(), then=THEN)
    def a_worker_dies(self, back, which, unseen, then):
        who = list(self.world.up)[which % len(self.world.up)]
        self.do(self.world.die(who, unseen=unseen and self.world.file is not None))
        if back is not None:
            self.do(self.world.come_up(who, back), then)

    @precondition(lambda self: self.world.up)
    @rule(back=BACK, which=st.integers(0, 1), then=THEN)
    def a_worker_is_stopped(self, back, which, then):
        who = list(self.world.up)[which % len(self.world.up)]
        self.do(self.world.go_down(who))
        if back is not None:
            self.do(self.world.come_up(who, back), then)

    @precondition(lambda self: len(self.world.up) < len(self.world.schedulers))
    @rule(after=LONG_SPANS, which=st.integers(0, 1), then=THEN)
    def a_worker_comes(self, after, which, then):
        down = [who for who in self.world.schedulers if who not in self.world.up]
        self.do(self.world.come_up(down[which % len(down)], after), then)

    # -- what people ask for

    def job(self, number):
        return self.world.fleet[number % len(self.world.fleet)].name

    @rule(job=JOBS, mood=MOODS)
    def a_job_changes_its_mood(self, job, mood):
        self.world.moods[self.job(job)] = mood

    @rule(job=JOBS, kind=st.sampled_from(["disabled", "enabled", "reset"]), seconds=UNTIL, then=THEN)
    def a_job_is_switched(self, job, kind, seconds, then):
        until = self.world.until(seconds) if kind == "disabled" else None
        self.do(self.world.switch(self.job(job), kind, until), then)

    @rule(job=st.none() | JOBS, seconds=UNTIL, then=THEN)
    def there_is_a_pause(self, job, seconds, then):
        self.do(self.world.pause(None if job is None else self.job(job), self.world.until(seconds)), then)

    @rule(job=st.none() | JOBS, missed=st.sampled_from([None, "skip", "latest", "all"]), then=THEN)
    def a_pause_ends(self, job, missed, then):
        self.do(self.world.resume(None if job is None else self.job(job), missed), then)

    @rule(
        job=JOBS,
        key=st.none() | st.sampled_from("kl"),
        seconds=st.none() | st.sampled_from([20, 1000, 90000]),
        then=THEN,
    )
    def a_run_is_asked_for(self, job, key, seconds, then):
        name, at = self.job(job), self.world.until(seconds)
        good = ("waiting", "running", "succeeded")
        rows = self.world.model.rows.values()
        taken = [row.id for row in rows if key is not None and (row.job, row.key) == (name, key) and row.state in good]
        off = self.is_off(name)
        try:
            run = self.do(self.world.say(lambda one: one.submit(name, at=at, key=key)), then)
        except Conflict:
            assert off is not False, f"{name} is on"
            return
        assert off is not True, f"{name} is off"
        assert (run.id in taken, run.existed) == (bool(taken), bool(taken)), (run, taken)

    @precondition(lambda self: self.world.model.rows)
    @rule(number=st.integers(0, 100), then=THEN)
    def a_run_is_cancelled(self, number, then):
        world, rows = self.world, list(self.world.model.rows.values())
        active = [row for row in rows if not row.final]
        chosen = (active or rows)[number % len(active or rows)].id
        self.do(world.say(lambda one: one.cancel(chosen)), KILL_GRACE + world.hears)
        if world.up:
            row = self.do(world.say(lambda one: one.run(chosen)), then)
            assert row.final or row.worker in world.dead, f"it was cancelled and goes on: {row}"

    @precondition(lambda self: self.world.model.rows)
    @rule(number=st.integers(0, 100), then=THEN)
    def a_run_is_run_again(self, number, then):
        old = list(self.world.model.rows.values())[-1 - number % len(self.world.model.rows)]
        off = self.is_off(old.job)
        try:
            run = self.do(self.world.say(lambda one: one.rerun(old.id)), then)
        except Conflict:
            assert off is not False, f"{old.job} is on"
            return
        assert off is not True, f"{old.job} is off"
        assert (run.rerun_of, run.cause, run.job) == (old.id, "rerun", old.job)

    def is_off(self, job):
        """Whether a job is off; None: nobody can say."""
        model, wall = self.world.model, self.world.wall
        word = model.words.get(job)
        if model.fleet[job].breaker or (word is not None and word.over and wall < word.until):
            return None
        return model.off(job, wall) is not None


class TwoWorkers(OneWorker):
    """The lives of two workers, on one file."""

    def file(self):
        self.folder = tempfile.TemporaryDirectory()
        return str(Path(self.folder.name) / "shared.db")

    def teardown(self):
        try:
            super().teardown()
        finally:
            if self.world is not None:
                self.folder.cleanup()


def test_a_worker_loses_doubles_and_forgets_nothing():
    run_machine(OneWorker, settings=search(examples=8, steps=25))


def test_two_workers_lose_double_and_forget_nothing():
    run_machine(TwoWorkers, settings=search(examples=4, steps=18))
