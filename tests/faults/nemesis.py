"""Several processes on one store, and a nemesis with a seed that befalls one of them every one to three seconds.

Kill and start again, SIGSTOP for half a lease up to three, SIGTERM and a new process of the next version, switches,
volleys of requests for the same run, a clock that is two minutes wrong. After that everything is healed, given a lease
and some seconds, and stopped; then the witness and the tables are checked. A story lives in a folder; `round.json`
there says how to repeat it. The processes take turns by number: 0 is the survivor, which is frozen at worst.

Start at `carry_out`. What is checked stands in `company`.
"""

from __future__ import annotations

import heapq
import json
import random
import shutil
import signal
import struct
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import company
import invariants
import rules
import tracing
import witness
from adapter import Scheduler, copied, soundness
from company import Excuses
from facts import SECOND, Broken, Freeze, Said, Step, Story, Switched, Use, now_us
from lives import Process, TooLong, command

LEASE, HEARTBEAT, GRACE = 3.0, 0.5, 7.0
STOP_SECONDS = GRACE + 1.0 + 2.0
SHIFT = 120.0
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
        self.steps: list[Step] = []
        self.clocks: dict[int, float] = {}
        """By place, how many seconds its clock is wrong."""
        self.stopped: int | None = None
        self.clock = tracing.compiled(SHIM, folder) if {"clock", "clocks"} & {*plot.faults} else None
        self.uses: list[Use] = []
        self.said: list[Said] = []
        self.switched: list[Switched] = []
        self.later: list[tuple[float, int, Callable[[], None]]] = []
        self.looks = invariants.Books()
        self.lock = threading.Lock()
        self.commands = ThreadPoolExecutor(max_workers=plot.processes, thread_name_prefix="command")
        scheduler.prepare(
            folder, "company", lease=LEASE, heartbeat=HEARTBEAT, grace=GRACE, places=rules.PLACES,
            synchronous=plot.synchronous
        )  # fmt: skip
        about = {"harness": "nemesis", "scheduler": scheduler.name, "plot": asdict(plot)}
        (folder / "round.json").write_text(json.dumps(about, indent=1))

    # -- processes

    def start(self, place: int) -> Process:
        environ = {}
        if self.clock is not None:
            self.set_clock(place, 0)
            environ = {"LD_PRELOAD": str(self.clock), "CLOCK_SHIFT": str(self.folder / f"clock-{place}")}
        name = f"place-{place}-life-{len(self.processes)}"
        process = Process(self.scheduler, self.folder, name, version=self.versions[place], **environ)
        self.processes.append(process)
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

    def replace(self, place: int, process: Process) -> None:
        """A new process in the place of one that has ended; unless that was done already."""
        if self.posts[place] is process:
            self.start(place)

    # -- what is said and done

    def switch(self, word: str, job: str) -> None:
        done = command(self.scheduler, self.folder, self.scheduler.switch(word, job))
        with self.lock:
            self.switched.append(Switched(job, word, done.asked, done.done, done.code == 0))

    def submit(self, key: str | None) -> str | None:
        """Ask for a run; gives its id if that was acknowledged."""
        done = command(self.scheduler, self.folder, self.scheduler.submit(rules.ASKED, key))
        if done.code:
            return None
        said = self.scheduler.submitted(done.out)
        with self.lock:
            self.said.append(said)
        return said.run

    def volley(self, number: int) -> None:
        """The same run asked for by several commands at one moment, and as many runs of their own."""
        key = uuid.uuid4().hex[:8]
        asked = [self.commands.submit(self.submit, key) for _ in range(number)]
        asked += [self.commands.submit(self.submit, None)]
        ids = {one.result() for one in asked[:number]} - {None}
        if len(ids) > 1:
            self.ending.broken.append(Broken("unique", f"key {key} gave runs {', '.join(sorted(map(str, ids)))}"))

    def look(self) -> None:
        """What a survivor holds, and whether anything that was final changed since the last look."""
        use = self.posts[0].use()
        if use is not None and self.posts[0].pid not in self.frozen:
            self.uses.append(use)
        books = self.scheduler.books(self.scheduler.store(self.folder), live=True)
        found = [Broken("fencing", one.text) for one in invariants.never_undone(self.looks, books)]
        self.ending.broken += found
        self.looks = books


class Nemesis:
    """Picks what befalls whom, by a seed."""

    def __init__(self, company_: Company) -> None:
        self.company = company_
        self.chance = random.Random(company_.plot.seed)
        faults = [one for one in company_.plot.faults if one != "lag"]
        weights = {"kill": 3, "freeze": 4, "deploy": 2, "switch": 2, "volley": 3, "clock": 1, "clocks": 1}
        self.faults, self.weights = faults, [weights[one] for one in faults]

    def strike(self) -> None:
        fault = self.chance.choices(self.faults, self.weights)[0]
        place = self.chance.randrange(0 if fault in ("freeze", "clock") else 1, self.company.plot.processes)
        process = self.company.posts[place]
        if fault in ("kill", "freeze", "deploy", "clock") and (not process.lives or process.pid in self.company.frozen):
            return
        self.company.count(fault)
        getattr(self, fault)(place, process)

    def kill(self, place: int, process: Process) -> None:
        process.kill()
        self.company.ending.kills += 1
        self.company.after(self.chance.uniform(0, 1.5), lambda: self.company.replace(place, process))

    def freeze(self, place: int, process: Process) -> None:
        self.company.frozen[process.pid] = now_us()
        process.send(signal.SIGSTOP)
        self.company.after(self.chance.uniform(0.5, 3.0) * LEASE, lambda: self.company.thaw(process))

    def deploy(self, place: int, process: Process) -> None:
        """SIGTERM, and a process of the next version beside the one that is stopping."""
        process.how = "stopped"
        process.send(signal.SIGTERM)
        self.company.versions[place] = "company_next"
        if "lag" not in self.company.plot.faults:
            self.company.versions = ["company_next"] * self.company.plot.processes
        self.company.replace(place, process)

    def switch(self, place: int, process: Process) -> None:
        job = self.chance.choice(sorted(WORDS))
        given = [one for one in self.company.switched if one.job == job]
        word = WORDS[job][len(given) % 2]
        self.company.commands.submit(self.company.switch, word, job).result()

    def volley(self, place: int, process: Process) -> None:
        self.company.volley(self.company.plot.processes)

    def clock(self, place: int, process: Process) -> None:
        """The clock of one process is set wrong, and set right again a few seconds later."""
        self._set_clocks([place])

    def clocks(self, place: int, process: Process) -> None:
        """So are those of all at once: the clock of the machine."""
        self._set_clocks(list(range(self.company.plot.processes)))

    def _set_clocks(self, places: Sequence[int]) -> None:
        seconds = self.chance.choice((SHIFT, -SHIFT))

        def set_to(wrong: float) -> None:
            for place in places:
                self.company.set_clock(place, wrong)

        set_to(seconds)
        self.company.after(self.chance.uniform(3, 8), lambda: set_to(0))


def carry_out(scheduler: Scheduler, plot: Plot, folder: Path, *, keep: bool = False) -> Ending:
    """Let a story happen and check it; its folder is removed again unless something was broken."""
    return play(Company(scheduler, plot, folder), _befall, keep=keep)


def play(one: Company, happens: Callable[[Company], None], *, keep: bool = False) -> Ending:
    """A company gathers, something happens, all is healed, checked and taken away."""
    try:
        gather(one)
        happens(one)
        healed = heal(one)
        stop_all(one)
        check(one, healed)
    except TooLong as error:
        one.ending.broken.append(Broken("liveness", str(error)))
    finally:
        for process in one.processes:
            process.send(signal.SIGCONT)
            process.kill()
        one.commands.shutdown(cancel_futures=True)
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


def _befall(one: Company) -> None:
    nemesis = Nemesis(one)
    ends = time.monotonic() + one.plot.seconds
    strikes, looks = time.monotonic() + 1.0, time.monotonic()
    while time.monotonic() < ends:
        now = time.monotonic()
        while one.later and one.later[0][0] <= now:
            heapq.heappop(one.later)[2]()
        for process in one.posts:
            process.notice()
        if now >= strikes and one.plot.faults:
            nemesis.strike()
            strikes = time.monotonic() + nemesis.chance.uniform(1, 3)
        if now >= looks:
            one.look()
            looks = time.monotonic() + 1.0
        time.sleep(0.02)


def heal(one: Company) -> int:
    """Everybody thawed, alive and right about the time; then a lease and some seconds of peace."""
    for process in one.processes:
        one.thaw(process)
    for place, process in enumerate(one.posts):
        if one.clock is not None:
            one.set_clock(place, 0)
        if not process.lives:
            one.start(place)
    for process in one.posts:
        if process.ready is None:
            process.get_ready()
    healed = now_us()
    while now_us() < healed + round((LEASE + one.plot.peace) * SECOND):
        one.look()
        time.sleep(1.0)
    return healed


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
        if process.how == "stopped" and code not in one.scheduler.stopped:
            one.ending.broken.append(Broken("stop", f"pid {process.pid} ended with {code}:\n{process.log[-600:]}"))
        if process.how == "ended":
            one.ending.broken.append(
                Broken("stop", f"pid {process.pid} ended by itself, {code}:\n{process.log[-600:]}")
            )


def story_of(one: Company, healed: int | None) -> Story:
    copy = copied(one.scheduler.store(one.folder), one.folder / "copy")
    one.ending.broken += [Broken("fencing", text) for text in soundness(copy)]
    seen = witness.read(one.folder)
    one.ending.broken += [Broken("witness", text) for text in seen.damaged]
    said = [told for process in one.processes for told in one.scheduler.said(process.log)]
    return Story(
        rules.COMPANY, calls=seen.calls, books=one.scheduler.books(copy), said=[*said, *one.said],
        switched=one.switched, lives=[process.life for process in one.processes], freezes=one.freezes, uses=one.uses,
        steps=one.steps,
        stopped=one.stopped,
        lease=LEASE, heartbeat=HEARTBEAT, places=rules.PLACES, healed=healed, torn=seen.torn
    )  # fmt: skip


def check(one: Company, healed: int) -> None:
    story = story_of(one, healed)
    one.ending.broken += company.broken(story, one.ending.excuses)
    one.ending.calls = len(story.calls)
    one.ending.fires = sum(run.count for run in story.books.runs if run.schedule is not None)
    one.ending.restarts = [(life.ready - life.began) / SECOND for life in story.lives if life.ready is not None]
    firsts: dict[str, float] = {}
    for call in story.calls:
        if call.due is not None and call.schedule is not None:
            firsts.setdefault(call.run, (call.began - call.due) / SECOND)
    one.ending.latest = max(firsts.values(), default=0.0)
