"""Several processes on one store: how they are started, asked, healed, stopped, and what is then checked.

What befalls them meanwhile is a function given to `play`: a nemesis with a seed, or a scene by a script. Each process
has a place; 0 is the survivor, which is never killed nor replaced. What is checked stands in `side_by_side`.
"""

from __future__ import annotations

import heapq
import json
import shutil
import signal
import struct
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import invariants
import rules
import side_by_side
import tracing
import witness
from adapter import Scheduler
from facts import (
    SECOND,
    SLACK,
    SPAN,
    Apart,
    Books,
    Broken,
    Freeze,
    Life,
    Outage,
    Said,
    Step,
    Story,
    Switched,
    Use,
    now_us,
)
from lives import Process, TooLong, command
from side_by_side import Excuses

LEASE, HEARTBEAT, GRACE = 3.0 * SPAN, 0.5 * SPAN, 7.0
STOP_SECONDS = GRACE + 1.0 + 2.0 * SLACK
SHIM = Path(__file__).with_name("clock_shift.c")
WORDS = {rules.TOGGLED: ("disabled", "enabled"), rules.PAUSED: ("paused", "resumed")}


@dataclass(frozen=True)
class Plot:
    """What makes a story, and makes it again: the number of processes, its length, the seed, what may befall them.

    `lag` befalls nobody: with it a process of the earlier version that is killed comes back as such, though others of
    the next version are there already.
    """

    processes: int = 5
    seconds: float = 30.0
    seed: int = 1
    faults: tuple[str, ...] = ("kill", "freeze", "deploy", "lag", "switch", "volley", "clock", "clocks")
    synchronous: str = "full"
    peace: float = 7.0
    """Seconds beyond the lease, from the end of the last fault to the stop of all."""

    @property
    def name(self) -> str:
        return f"company-{self.processes}-seed-{self.seed}"


@dataclass
class Ending:
    """What a story came to."""

    name: str
    folder: Path
    broken: list[Broken] = field(default_factory=list)
    excuses: Excuses = field(default_factory=Excuses)
    done: dict[str, int] = field(default_factory=dict)
    """How often each fault befell a process."""
    kills: int = 0
    fires: int = 0
    calls: int = 0
    restarts: list[float] = field(default_factory=list)
    stops: list[float] = field(default_factory=list)
    latest: float = 0.0
    """The latest call, seconds after it was due."""
    takeovers: list[float] = field(default_factory=list)
    """Seconds from each kill until the last run of the dead was settled by another."""


class Company:
    """The processes, what befell them, and what was said and done meanwhile."""

    def __init__(self, scheduler: Scheduler, plot: Plot, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.scheduler, self.plot, self.folder = scheduler, plot, folder
        self.ending = Ending(plot.name, folder)
        self.processes: list[Process] = []
        self.posts: list[Process] = []
        """The process that holds each place now."""
        self.versions = ["company"] * plot.processes
        self.freezes: list[Freeze] = []
        self.frozen: dict[int, int] = {}
        self.aparts: list[Apart] = []
        self.parted: dict[int, tuple[int, int]] = {}
        """By pid, its place, and since when nothing or no answer comes through to it."""
        self.outages: list[Outage] = []
        self.steps: list[Step] = []
        self.clocks: dict[int, float] = {}
        """By place, how many seconds its clock is wrong."""
        self.stopped: int | None = None
        self.clock = tracing.compiled(SHIM, folder) if {"clock", "clocks"} & {*plot.faults} else None
        self.uses: list[Use] = []
        self.said: list[Said] = []
        self.switched: list[Switched] = []
        self.later: list[tuple[float, int, Callable[[], None]]] = []
        self.looks = Books()
        self.lock = threading.Lock()
        self.commands = ThreadPoolExecutor(max_workers=plot.processes + 1, thread_name_prefix="command")
        self.switches = ThreadPoolExecutor(max_workers=1, thread_name_prefix="switch")
        """Switches are thrown one after the other: the last word must be known."""
        self.thrown: Counter[str] = Counter()
        self.asked: list[Future[Any]] = []
        scheduler.prepare(
            folder, "company", lease=LEASE, heartbeat=HEARTBEAT, grace=GRACE, places=rules.PLACES,
            synchronous=plot.synchronous
        )  # fmt: skip
        self.network = scheduler.network(folder, plot.processes)
        about = {"harness": "nemesis", "scheduler": scheduler.name, "plot": asdict(plot)}
        (folder / "round.json").write_text(json.dumps(about, indent=1))

    # -- processes

    def start(self, place: int) -> Process:
        environ = {} if self.network is None else self.network.environment(place)
        if self.clock is not None:
            self.set_clock(place, 0)
            shims = ":".join(one for one in (environ.get("LD_PRELOAD"), str(self.clock)) if one)
            environ |= {"LD_PRELOAD": shims, "CLOCK_SHIFT": str(self.folder / f"clock-{place}")}
        name = f"place-{place}-life-{len(self.processes)}"
        process = Process(self.scheduler, self.folder, name, version=self.versions[place], **environ)
        process.place = place
        self.processes.append(process)
        if place in {one for one, _ in self.parted.values()}:
            self.parted[process.pid] = (place, now_us())
        if place < len(self.posts):
            self.posts[place] = process
        else:
            self.posts.append(process)
        return process

    def set_clock(self, place: int, seconds: float) -> None:
        """Make the clock of the process in this place wrong by so much, at once, or right again."""
        file = self.folder / f"clock-{place}"
        with file.open("r+b" if file.exists() else "wb") as shift:
            shift.write(struct.pack("<q", round(seconds * SECOND)))
        step = seconds - self.clocks.get(place, 0.0)
        self.clocks[place] = seconds
        if step and place < len(self.posts):
            self.steps.append(Step(self.posts[place].pid, now_us(), step))

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self.later, (time.monotonic() + seconds, len(self.later), do))

    def count(self, fault: str) -> None:
        self.ending.done[fault] = self.ending.done.get(fault, 0) + 1

    def thaw(self, process: Process) -> None:
        since = self.frozen.pop(process.pid, None)
        if since is not None:
            process.send(signal.SIGCONT)
            self.freezes.append(Freeze(process.pid, since, now_us()))

    def set_apart(self, place: int, *, answers_only: bool) -> None:
        """Nothing comes through between this place and the server any more, or no answer."""
        assert self.network is not None
        since = now_us()
        self.network.set_apart(place, answers_only=answers_only)
        for process in self.processes:  # one that stops since a deployment too
            if process.lives and process.place == place:
                self.parted[process.pid] = (place, since)

    def join(self, place: int, how: str = "late") -> None:
        if self.network is None:
            return
        self.network.join(place, how)
        for pid, (where, since) in [*self.parted.items()]:
            if where == place:
                del self.parted[pid]
                self.aparts.append(Apart(pid, since, now_us()))

    def outage(self, happens: Callable[[], object]) -> None:
        since = now_us()
        happens()
        self.outages.append(Outage(since, now_us()))

    def was_refused(self, process: Process) -> bool:
        """Whether it has ended just now because the server was not to be reached as it started; told once."""
        if self.network is None or process.code not in self.scheduler.refused or process.how != "ended":
            return False
        process.how = "refused"
        self.count("starts refused")
        return True

    def replace(self, place: int, process: Process) -> None:
        """A new process in the place of one that has ended; unless that was done already."""
        if self.posts[place] is process:
            self.start(place)

    # -- what is said and done

    def switch(self, word: str, job: str) -> None:
        done = command(self.scheduler, self.folder, self.scheduler.switch(word, job))
        with self.lock:
            self.switched.append(Switched(job, word, done.asked, done.done, done.code == 0))

    def submit(self, key: str | None) -> None:
        """Ask for a run, and remember it if that was acknowledged."""
        done = command(self.scheduler, self.folder, self.scheduler.submit(rules.ASKED, key))
        if not done.code:
            with self.lock:
                self.said.append(self.scheduler.submitted(done.out))

    def volley(self, number: int) -> None:
        """Ask for the same run by several commands at one moment, and for one more; does not wait for them."""
        key = uuid.uuid4().hex[:8]
        self.asked += [self.commands.submit(self.submit, key) for _ in range(number)]
        self.asked.append(self.commands.submit(self.submit, None))

    def throw(self, job: str) -> None:
        """Switch a job to what it is not; does not wait for it."""
        word = WORDS[job][self.thrown[job] % 2]
        self.thrown[job] += 1
        self.asked.append(self.switches.submit(self.switch, word, job))

    def hear(self) -> None:
        """Wait for all that was asked. The same key must have given the same run, whoever asked."""
        for one in self.asked:
            one.result()
        by_key: dict[str, set[str]] = {}
        for said in self.said:
            by_key.setdefault(said.key or f"none {said.run}", set()).add(said.run)
        self.ending.broken += [
            Broken("unique", f"key {key} gave runs {', '.join(sorted(runs))}")
            for key, runs in by_key.items() if len(runs) > 1
        ]  # fmt: skip

    def look(self) -> None:
        """What a survivor holds, and whether anything that was final changed since the last look."""
        use = self.posts[0].use()
        if use is not None and self.posts[0].pid not in self.frozen:
            self.uses.append(use)
        books = self.scheduler.books(self.scheduler.store(self.folder), live=True)
        found = [Broken("fencing", one.text) for one in invariants.never_undone(self.looks, books)]
        self.ending.broken += found
        self.looks = books


def play(one: Company, happens: Callable[[Company], None], *, keep: bool = False) -> Ending:
    """A company gathers, something happens, all is healed, checked and taken away."""
    try:
        gather(one)
        happens(one)
        healed = heal(one)
        one.hear()
        stop_all(one)
        check(one, healed)
    except TooLong as error:
        one.ending.broken.append(Broken("liveness", str(error)))
    finally:
        for process in one.processes:
            process.send(signal.SIGCONT)
            process.kill()
        for pool in (one.commands, one.switches):
            pool.shutdown(cancel_futures=True)
        if one.network is not None:
            one.network.close()
    if not keep and not one.ending.broken:
        shutil.rmtree(one.folder)
    return one.ending


def gather(one: Company) -> None:
    """The first process makes the store and says when the grids of all intervals begin; then the others."""
    for place in range(one.plot.processes):
        process = one.start(place)
        if not place:
            process.get_ready()
    for process in one.posts:
        process.get_ready()


def heal(one: Company) -> int:
    """Everybody thawed, alive and right about the time; then a lease and some seconds of peace."""
    for process in one.processes:
        one.thaw(process)
    if one.network is not None:
        one.network.heal()
    for place, process in enumerate(one.posts):
        one.join(place)
        if one.clock is not None:
            one.set_clock(place, 0)
        if not process.lives:
            one.start(place)
    for place in range(one.plot.processes):
        if one.posts[place].ready is None:
            _get_ready(one, place)
    healed = now_us()
    while now_us() < healed + round((LEASE + one.plot.peace * SLACK) * SECOND):
        one.look()
        time.sleep(1.0)
    return healed


def _get_ready(one: Company, place: int) -> None:
    """Wait until the process of a place is ready; one that gave up as the last fault ended is started once more."""
    try:
        one.posts[place].get_ready()
    except TooLong:
        if not one.was_refused(one.posts[place]):
            raise
        one.start(place).get_ready()


def stop_all(one: Company) -> None:
    """SIGTERM to all at once; those that still stop since a deployment are waited for too."""
    one.stopped = now_us()
    for process in one.posts:
        process.how = "stopped"
        process.send(signal.SIGTERM)
    began = time.monotonic()
    for process in one.processes:
        try:
            code = process.end(STOP_SECONDS)
        except TooLong as error:
            one.ending.broken.append(Broken("stop", str(error)))
            continue
        if process in one.posts:
            one.ending.stops.append(time.monotonic() - began)
        # A signal before the program runs its first line, or after it was refused its store, has the kernel's effect.
        early = process.ready is None and code in (-signal.SIGTERM, *one.scheduler.refused)
        if process.how == "stopped" and code not in one.scheduler.stopped and not early:
            one.ending.broken.append(Broken("stop", f"pid {process.pid} ended with {code}:\n{process.log[-600:]}"))
        if process.how == "ended":
            one.ending.broken.append(
                Broken("stop", f"pid {process.pid} ended by itself, {code}:\n{process.log[-600:]}")
            )


def check(one: Company, healed: int) -> None:
    """Leave in the folder what befell whom and what was said, and check all of it from there."""
    copy = one.scheduler.copied(one.scheduler.store(one.folder), one.folder / "copy")
    facts = {name: [asdict(fact) for fact in getattr(one, name)] for name in REMEMBERED if name != "lives"}
    facts["lives"] = [asdict(process.life) for process in one.processes]
    (one.folder / "befell.json").write_text(json.dumps({"healed": healed, "stopped": one.stopped, **facts}, indent=1))
    story = reread(one.scheduler, one.folder)
    one.ending.broken += [Broken("fencing", text) for text in one.scheduler.flaws(copy)]
    one.ending.broken += [Broken("witness", text) for text in witness.read(one.folder).damaged]
    one.ending.broken += side_by_side.broken(story, one.ending.excuses)
    one.ending.calls = len(story.calls)
    one.ending.fires = sum(run.count for run in story.books.runs if run.schedule is not None)
    one.ending.restarts = [(life.ready - life.began) / SECOND for life in story.lives if life.ready is not None]
    firsts: dict[str, float] = {}
    for call in story.calls:
        if call.due is not None and call.schedule is not None:
            firsts.setdefault(call.run, (call.began - call.due) / SECOND)
    one.ending.latest = max(firsts.values(), default=0.0)
    one.ending.takeovers = [taken.seconds for taken in side_by_side.takeovers(story)]


REMEMBERED: dict[str, type] = {
    "freezes": Freeze, "aparts": Apart, "outages": Outage, "steps": Step, "switched": Switched, "uses": Use, "said": Said, "lives": Life
}  # fmt: skip


def reread(scheduler: Scheduler, folder: Path) -> Story:
    """The story of a folder, whoever let it happen: from the witness, a copy of the tables, the logs and `befell.json`."""
    befell = json.loads((folder / "befell.json").read_text())
    facts = {name: [kind(**one) for one in befell[name]] for name, kind in REMEMBERED.items()}
    logs = [file.read_text(errors="replace") for file in sorted(folder.glob("place-*.log"))]
    facts["said"] += [told for log in logs for told in scheduler.said(log)]
    seen = witness.read(folder)
    return Story(
        rules.COMPANY, calls=seen.calls, books=scheduler.books(folder / "copy" / scheduler.store(folder).name),
        fenced=frozenset().union(*(scheduler.fenced(log) for log in logs)),
        holding=frozenset().union(*(scheduler.holding(log) for log in logs)), lease=LEASE, heartbeat=HEARTBEAT,
        places=rules.PLACES, healed=befell["healed"], stopped=befell["stopped"], torn=seen.torn, **facts
    )  # fmt: skip
