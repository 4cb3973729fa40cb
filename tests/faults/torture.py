"""The crash torture: the script of `rules.ALONE`, killed at a chosen moment, looked at, started again, looked at again.

A round is one `Blow`: the k-th call of a kind, or a moment. It lives in a folder of its own; `round.json` there says
how to repeat it. What is done in a round, in order:

    start (traced where a call is to be counted) · errands: submits with keys, switches, each acknowledgement kept
    the blow · look at a copy of the files · start by the same command · settle · look beside it
    every tenth time: a second kill while it recovers
    stop by SIGTERM · look at a copy of the files

Start at `carry_out`; `points` says which blows there are. Errors instead of death are in `mishaps`, lost writes in `lost_writes`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import invariants
import rules
import tracing
import witness
from adapter import Scheduler
from facts import SLACK, Books, Broken, Said, Story, Switched
from lives import Done, Process, TooLong, command, wait_until

LEASE, HEARTBEAT, GRACE = 1.0, 0.2, 2.0
MARGIN = 2.0 * SLACK
"""Seconds beyond the lease within which the runs of the dead are settled."""
RESTART_SECONDS = 5.0 * SLACK
SETTLE_SECONDS = 10.0 * SLACK
STOP_SECONDS = GRACE + 1.0 + 2.0 * SLACK
SCRIPT_SECONDS = 1.3
"""How long the script goes on after it is ready, before its stop."""
TOGETHER = 2
NEVER_SECONDS = 12.0 * SLACK
"""A k-th call that has not come by then does not come."""


@dataclass(frozen=True)
class Blow:
    """When the process is killed: at its k-th `call`, or `after` seconds; in which part of its life."""

    call: str = ""
    number: int = 0
    after: float = 0.0
    part: str = "running"
    """`running`: from its birth on; `stopping`: counted from SIGTERM on."""
    again: tuple[str, int] | None = None
    """A second kill, at this call of the recovery."""
    synchronous: str = "full"

    @property
    def name(self) -> str:
        place = f"{self.call}-{self.number}" if self.call else f"after-{self.after:.3f}s"
        return f"{self.part}-{place}{'-twice' if self.again else ''}"


@dataclass
class Outcome:
    """What a round came to."""

    name: str
    folder: Path
    struck: bool = False
    """Whether the kill happened; a k-th call that never came is no kill."""
    kills: int = 0
    broken: list[Broken] = field(default_factory=list)
    restarts: list[float] = field(default_factory=list)
    catch_ups: list[float] = field(default_factory=list)
    stops: list[float] = field(default_factory=list)
    fires: int = 0
    """Due instants whose fate was checked."""
    calls: int = 0
    lost: int = 0
    """Promises broken that a lost end of the log may break."""
    notes: list[str] = field(default_factory=list)


class Errands:
    """Commands beside the scheduler, one after the other as long as it lives; keeps what was acknowledged."""

    def __init__(self, one: Round, goes_on: Callable[[], bool]) -> None:
        self.said: list[Said] = []
        self.switched: list[Switched] = []
        self.broken: list[Broken] = []
        self._one, self._goes_on = one, goes_on
        self._killed = False
        self._thread = threading.Thread(target=self._run, name="errands")

    def __enter__(self) -> Errands:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()

    def _run(self) -> None:
        steps: Sequence[tuple[Callable[[str], None], str]] = [
            (self._submit, "first"), (self._switch, "disabled"), (self._submit, "second"), (self._switch, "enabled"),
            (self._submit, "first"), (self._switch, "disabled"), (self._submit, "third"),
        ]  # fmt: skip
        for step, word in steps:
            if self._goes_on() and not self._killed:
                step(word)

    def _do(self, words: Sequence[str]) -> Done:
        done = self._one.command(words)
        self._killed |= done.code == -signal.SIGKILL
        return done

    def _submit(self, key: str) -> None:
        done = self._do(self._one.scheduler.submit(rules.ASKED, key))
        if done.code:
            return
        said = self._one.scheduler.submitted(done.out)
        earlier = [one for one in self.said if one.key == key]
        if earlier and earlier[0].run != said.run:
            self.broken.append(Broken("d", f"key {key} gave run {earlier[0].run}, then run {said.run}"))
        self.said.append(said)

    def _switch(self, word: str) -> None:
        done = self._do(self._one.scheduler.switch(word, rules.TOGGLED))
        self.switched.append(Switched(rules.TOGGLED, word, done.asked, done.done, done.code == 0))


class Round:
    """One round in its folder: the lives of the process, what was told, and what was found broken."""

    def __init__(self, scheduler: Scheduler, blow: Blow, folder: Path, seed: int = 0) -> None:
        folder.mkdir(parents=True)
        self.scheduler, self.blow, self.folder = scheduler, blow, folder
        self.outcome = Outcome(blow.name, folder)
        self.processes: list[Process] = []
        self.errands: Errands | None = None
        self.before = Books()
        self.environ: dict[str, str] = {}
        """Of the commands beside the scheduler."""
        self.together = False
        """Whether those die with it."""
        self.forgiven = ""
        """Letters of promises that this round may break."""
        scheduler.prepare(
            folder, "alone", lease=LEASE, heartbeat=HEARTBEAT, grace=GRACE, synchronous=blow.synchronous
        )  # fmt: skip
        self.seed = seed
        self.tell("torture", blow.name, blow=asdict(blow))

    def tell(self, harness: str, name: str, **facts: Any) -> None:
        """Say what this round is, for whoever repeats it."""
        self.outcome.name = name
        about = {"harness": harness, "scheduler": self.scheduler.name, "seed": self.seed, **facts}
        (self.folder / "round.json").write_text(json.dumps(about, indent=1))

    def start(self, before: Sequence[str] = (), **environ: str) -> Process:
        name = f"life-{len(self.processes) + 1}"
        self.processes.append(Process(self.scheduler, self.folder, name, before=before, **environ))
        return self.processes[-1]

    def command(self, words: Sequence[str]) -> Done:
        group = self.processes[-1].pid if self.together else None
        return command(self.scheduler, self.folder, words, group=group, **self.environ)

    def broke(self, promise: str, text: str) -> None:
        self.outcome.broken.append(Broken(promise, text))

    # -- looking

    def look(self, name: str, *, settled: bool) -> None:
        """Check a copy of the files of a dead process, or beside a live one, and against the last look."""
        # In this order: what was told by now must be on record, and what is on record must have been witnessed.
        said = [one for process in self.processes for one in self.scheduler.said(process.log)]
        if self.processes[-1].lives:
            books = self.scheduler.books(self.scheduler.store(self.folder), live=True)
        else:
            copy = self.scheduler.copied(
                self.scheduler.store(self.folder), self.folder / f"copy-{name.replace(' ', '-')}"
            )
            self.outcome.broken += [Broken("k", f"{name}: {text}") for text in self.scheduler.flaws(copy)]
            books = self.scheduler.books(copy)
        found = invariants.broken(self.story(books, said), settled=settled)
        found += invariants.never_undone(self.before, books)
        self.outcome.broken += [
            Broken(one.promise, f"{name}: {one.text}") for one in found if one.promise not in self.forgiven
        ]
        self.outcome.lost += sum(one.promise in self.forgiven for one in found)
        self.outcome.fires = sum(run.count for run in books.runs if run.schedule is not None)
        self.before = books

    def story(self, books: Books, said: list[Said]) -> Story:
        seen = witness.read(self.folder)
        self.outcome.calls = len(seen.calls)
        self.outcome.broken += [Broken("witness", text) for text in seen.damaged]
        errands = self.errands
        return Story(
            rules.ALONE, calls=seen.calls, books=books, said=[*said, *(errands.said if errands else ())],
            switched=errands.switched if errands else (), lives=[one.life for one in self.processes],
            lease=LEASE, heartbeat=HEARTBEAT, strangers=self.strangers(), torn=seen.torn
        )  # fmt: skip

    def strangers(self) -> list[str]:
        """Files that no store should leave: beside it, or in the folder it was started from."""
        allowed = self.scheduler.files | (frozenset() if self.processes[-1].lives else self.scheduler.passing)
        beside = [one.name for one in self.scheduler.store(self.folder).parent.iterdir() if one.name not in allowed]
        return beside + [one.name for one in self.folder.iterdir() if one.suffix in (".db", ".sqlite", ".tmp")]

    # -- what is done

    def recover(self) -> None:
        """Start by the same command and let it settle; the time both take is measured against the promise."""
        process = self.start()
        try:
            seconds = process.get_ready(6 * RESTART_SECONDS)
        except TooLong as error:
            self.broke("i", f"no restart: {error}")
            return
        self.outcome.restarts.append(seconds)
        crowd = min(5.0, max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)))  # others may want the machine too
        if seconds > RESTART_SECONDS * crowd:
            self.broke("i", f"the restart took {seconds:.1f} s")
        began = time.monotonic()
        self.expect("b", self.runs_of_the_dead, LEASE + MARGIN, "the runs of the dead are settled")
        self.expect("i", self.unsettled, SETTLE_SECONDS, "every job runs again, nothing is stuck")
        self.outcome.catch_ups.append(time.monotonic() - began)

    def expect(self, promise: str, owed: Callable[[], list[str]], seconds: float, what: str) -> None:
        """Wait until nothing is owed any more; if that takes too long, the promise is broken."""
        try:
            wait_until(lambda: not owed(), seconds=seconds, every=0.1, what=what)
        except TooLong as error:
            self.broke(promise, f"{error}: {'; '.join(owed())}\n{self.processes[-1].log[-1000:]}")

    def runs_of_the_dead(self) -> list[str]:
        """Runs that are running by a process that is not the present one."""
        books = self.scheduler.books(self.scheduler.store(self.folder), live=True)
        owners = {one.id: one.pid for one in books.workers}
        return [
            f"run {run.id} of {run.job} is running by {run.worker}" for run in books.runs
            if run.state == "running" and owners.get(run.worker or "") != self.processes[-1].pid
        ]  # fmt: skip

    def unsettled(self) -> list[str]:
        """What the scheduler still owes: jobs that have not run in its present life, runs of the dead, submits."""
        process = self.processes[-1]
        books = self.scheduler.books(self.scheduler.store(self.folder), live=True)
        ran = {one.job for one in witness.read(self.folder).calls if one.pid == process.pid and one.outcome}
        off = {job for (job, _), word in books.switched.items() if word == "disabled"}
        owed = [
            f"{rule.name} has not run" for rule in rules.ALONE.values() if rule.period and rule.name not in ran | off
        ]
        owed += [
            f"run {run.id} of {run.job} is {run.state}"
            for run in books.runs
            if run.key is not None and run.state in ("waiting", "running")
        ]
        owed += self.runs_of_the_dead()
        return owed if process.lives else [*owed, f"the process ended with {process.code}"]

    def finish(self) -> None:
        """An orderly stop, measured, after which nothing is running any more."""
        process = self.processes[-1]
        try:
            code, seconds = process.stop(STOP_SECONDS)
        except TooLong as error:
            self.broke("stop", str(error))
            return
        self.outcome.stops.append(seconds)
        if code not in self.scheduler.stopped:
            self.broke("stop", f"it ended with {code} after SIGTERM:\n{process.log[-800:]}")
        self.look("after the stop", settled=True)
        for run in self.before.runs:
            if run.state == "running":
                self.broke("b", f"run {run.id} of {run.job} is running after an orderly stop")

    def close(self) -> None:
        for process in self.processes:
            process.kill()


def carry_out(scheduler: Scheduler, blow: Blow, folder: Path, *, seed: int = 0, keep: bool = False) -> Outcome:
    """Do a round; its folder is removed again unless something was broken."""
    one = Round(scheduler, blow, folder, seed)
    outcome = one.outcome
    try:
        _strike(one)
        if outcome.struck:
            one.look("after the kill", settled=False)
            if blow.again is not None:
                _strike_again(one, *blow.again)
            one.recover()
            if one.processes[-1].lives:
                one.look("after the restart", settled=True)
                one.finish()
    finally:
        one.close()
    if one.errands is not None:
        outcome.broken += one.errands.broken
    if not keep and not outcome.broken:
        shutil.rmtree(folder)
    return outcome


def _strike(one: Round) -> None:
    """The first life, up to the kill; a round whose k-th call never comes has not struck."""
    blow = one.blow
    traced = blow.part == "running" and blow.call
    before = tracing.killing(blow.call, blow.number, one.folder / "trace") if traced else ()
    process = one.start(before)
    if blow.after:
        _after(one, process, blow.after)
    elif blow.part == "running":
        serve(one, process, NEVER_SECONDS)
    else:
        serve(one, process, SCRIPT_SECONDS)
        _kill_its_stop(one, process)
    struck = process.code == -signal.SIGKILL
    process.kill()
    one.outcome.struck = struck
    one.outcome.kills += one.outcome.struck
    if not struck and process.code not in (-signal.SIGKILL, *one.scheduler.stopped):
        one.broke("i", f"it ended by itself with {process.code}:\n{process.log[-1500:]}")


def serve(one: Round, process: Process, seconds: float) -> None:
    """Let it run, with the errands beside it, for `seconds` after it is ready, or until it is dead."""
    try:
        process.get_ready()
    except TooLong:
        if process.lives:
            raise
        return
    ends = time.monotonic() + seconds
    goes_on = lambda: process.lives and time.monotonic() < ends  # noqa: E731
    with Errands(one, goes_on) as one.errands:
        while process.lives and time.monotonic() < ends:
            time.sleep(0.01)


def _after(one: Round, process: Process, seconds: float) -> None:
    """Kill the whole group after `seconds`, wherever it is then."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    serve(one, process, NEVER_SECONDS)
    timer.join()


def _kill_its_stop(one: Round, process: Process) -> None:
    """SIGTERM, with the k-th call counted from here on."""
    words = tracing.killing(one.blow.call, one.blow.number, one.folder / "trace")
    tracer = attach(words, process)
    process.send(signal.SIGTERM)
    try:
        process.end(STOP_SECONDS + 2)
    except TooLong as error:
        one.broke("stop", str(error))
    tracer.wait(timeout=10)


def attach(words: Sequence[str], process: Process) -> subprocess.Popen[bytes]:
    """A tracer laid on a process that runs already, with all its threads."""
    words = [word for word in words if word != "-D"]
    tracer = subprocess.Popen(
        [*words, "-p", str(process.pid)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )  # fmt: skip
    wait_until(lambda: process.tracer() or not process.lives, seconds=10, what="the tracer is attached")
    return tracer


def _strike_again(one: Round, call: str, number: int) -> None:
    """A second kill, while it recovers; by hand where the k-th call does not come soon."""
    process = one.start(tracing.killing(call, number, one.folder / "trace-again"))
    try:
        wait_until(lambda: not process.lives, seconds=2.5, what="the second kill")
    except TooLong:
        one.outcome.notes.append(f"{call} {number} of the recovery did not come; killed by hand")
    process.kill()
    one.outcome.kills += 1
    one.look("after the second kill", settled=False)


def together(rounds: Iterable[Callable[[], Outcome]], at_once: int = TOGETHER) -> Iterator[Outcome]:
    """Do rounds, some at once since they mostly wait, and give what they came to, in order."""
    with ThreadPoolExecutor(at_once, thread_name_prefix="round") as pool:
        try:
            yield from pool.map(lambda one: one(), rounds)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def repeat_command(folder: Path) -> str:
    """The one command that does the round of this folder again."""
    return f"python tests/faults/whole.py --repeat {folder}"
