"""The whole of the fault harnesses, or one round of them again, by one command.

    python tests/faults/whole.py                      everything: half an hour for A, ten minutes for each of four companies
    python tests/faults/whole.py --a                  the crash torture alone; --points 60 for a sample of its points
    python tests/faults/whole.py --b --minutes 2      several processes alone, for two minutes each
    python tests/faults/whole.py --store postgresql   the same on a PostgreSQL that it starts: kills, and five replicas for
                                                      ten minutes; --a, --b, --points, --minutes as above
    python tests/faults/whole.py --repeat FOLDER      the round whose folder was kept
    python tests/faults/whole.py --check FOLDER       the story of a company whose folder was kept, checked again

On a machine that is busy with other things FAULTS_SLACK=4 in the environment grants all that is promised in seconds
four times as long.

It prints the figures and ends with 0 if every promise was kept, with 1 if one was broken, with 2 if a tool is missing.
A round in which something broke keeps its folder, and the line that tells of it the command that repeats it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import company
import lost_writes
import mishaps
import nemesis
import points
import scenes
import side_by_side
import torture
import tracing
from adapter import Scheduler, Taskloop
from adapter_postgres import TaskloopOnPostgres
from company import Ending, Plot
from lost_writes import Loss
from mishaps import Mishap, SlowStop
from naive import Naive
from peer import Peer
from side_by_side import Excuses
from torture import Blow
from verdict import told

SCHEDULERS: dict[str, Callable[[], Scheduler]] = {
    "taskloop": Taskloop, "taskloop-postgres": TaskloopOnPostgres, "naive": Naive, "apscheduler": Peer
}  # fmt: skip


class Tally:
    """What all rounds came to."""

    def __init__(self) -> None:
        self.rounds: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.kills = self.fires = self.calls = self.excused = 0
        self.broken: Counter[str] = Counter()
        self.stops: list[float] = []
        self.restarts: list[float] = []
        self.catch_ups: list[float] = []
        self.takeovers: list[float] = []
        self.began = time.monotonic()

    def take(self, kind: str, one: torture.Outcome | Ending) -> None:
        """Add a round, and print what it broke."""
        self.rounds[kind] += 1
        self.kills += one.kills
        self.fires += one.fires
        self.calls += one.calls
        self.stops += one.stops
        self.restarts += one.restarts
        if isinstance(one, Ending):
            self.excused += len(one.excuses)
            self.takeovers += one.takeovers
            print(
                f"{one.name}: befell them {one.done}; {one.fires} instants, {one.calls} calls, the latest "
                f"{one.latest:.1f} s late; {one.excuses.outlived} owners outlived, {len(one.excuses)} pairs excused"
            )
        else:
            self.catch_ups += one.catch_ups
            self.missed[kind] += not one.struck
        self.broken.update(f"{kind}: {found.promise}" for found in one.broken)
        if one.broken:
            print(told(one.name, one.folder, one.broken), flush=True)

    def summary(self) -> str:
        kinds = ", ".join(f"{number} {kind}" for kind, number in self.rounds.items())
        missed = ", ".join(f"{number} of {kind}" for kind, number in self.missed.items() if number) or "none"
        broken = ", ".join(f"{name} ({number})" for name, number in self.broken.most_common()) or "none"
        return (
            f"rounds              {kinds}; the fault did not come up in: {missed}\n"
            f"kills survived      {self.kills}\n"
            f"fires checked       {self.fires} due instants, {self.calls} calls, {self.excused} pairs excused\n"
            f"promises broken     {broken}\n"
            f"longest stop        {max(self.stops, default=0):.2f} s\n"
            f"longest restart     {max(self.restarts, default=0):.2f} s\n"
            f"longest catch-up    {max(self.catch_ups, default=0):.2f} s\n"
            f"longest takeover    {max(self.takeovers, default=0):.2f} s, of {len(self.takeovers)}\n"
            f"took                {(time.monotonic() - self.began) / 60:.1f} min"
        )


def harness_a(scheduler: Scheduler, where: Path, seed: int, number: int | None, tally: Tally) -> None:
    """The crash torture: every point, or `number` of them; random kills; where the store is a file, what befalls files."""
    chance = random.Random(seed)
    kills(scheduler, where, seed, number, tally, chance)
    if "pwrite64" in scheduler.writing:
        files(scheduler, where, seed, tally, chance)


def kills(
    scheduler: Scheduler, where: Path, seed: int, number: int | None, tally: Tally, chance: random.Random
) -> None:
    found = points.kill_points(scheduler, where / "counting")
    print(f"{len(found)} kill points: {dict(Counter(f'{one.call} {one.part}' for one in found))}", flush=True)
    chosen = points.sample(found, number, chance) if number else found
    blows = points.with_second_kills(scheduler, chosen, chance)
    blows += points.with_second_kills(scheduler, points.at_random(max(20, (number or 800) // 4), chance), chance)
    rounds = [
        partial(torture.carry_out, scheduler, blow, where / f"{place}-{blow.name}", seed=seed)
        for place, blow in enumerate(blows)
    ]
    for one in torture.together(rounds):
        tally.take("kills", one)


def files(scheduler: Scheduler, where: Path, seed: int, tally: Tally, chance: random.Random) -> None:
    """Lost writes, calls that fail, stops on a slow disk."""
    shim = tracing.compiled(lost_writes.SHIM, where)
    losses = [Loss(chance.randint(5, 450), "full") for _ in range(40)] + [
        Loss(chance.randint(5, 450), "normal") for _ in range(20)
    ]
    failures = [*mishaps.spans(), *mishaps.singles((3, 12, 30, 60, 100, 150, 220, 300))]
    rounds = [
        partial(lost_writes.carry_out, scheduler, loss, where / f"{place}-{loss.name}", library=shim, seed=seed)
        for place, loss in enumerate(losses)
    ]
    for one in torture.together(rounds):
        tally.take("power failures", one)
    rounds = [
        partial(mishaps.carry_out, scheduler, mishap, where / f"{place}-{mishap.name}", seed=seed)
        for place, mishap in enumerate(failures)
    ]
    for one in torture.together(rounds):
        tally.take("errors", one)
    stops = [SlowStop(round(chance.uniform(0.1, 1.5), 3)) for _ in range(40)]
    rounds = [
        partial(mishaps.stop_slowly, scheduler, stop, where / f"{place}-{stop.name}", seed=seed)
        for place, stop in enumerate(stops)
    ]
    for one in torture.together(rounds):
        tally.take("slow stops", one)


def harness_b(scheduler: Scheduler, where: Path, seed: int, plots: Iterable[Plot], tally: Tally) -> None:
    """Scenes, stories; and, where it is installed, the peer that the same check must catch."""
    for name, scene in scenes.SCENES.items():
        tally.take("scenes", scene(scheduler, where / name))
    for plot in plots:
        tally.take("companies", nemesis.carry_out(scheduler, plot, where / plot.name))
    if not Peer.is_there():
        print("APScheduler 3 is not installed: whether the check catches it was not tried")
        return
    ending = nemesis.carry_out(Peer(), Plot(2, 6.0, seed, ()), where / "peer", keep=True)
    doubled = [one for one in ending.broken if one.promise == "unique"]
    print(f"APScheduler 3, two processes on one store: {len(doubled)} instants doubled of {ending.calls // 2}")
    if not doubled:
        tally.broken["the check is blind: two APScheduler 3 on one store passed"] += 1


def companies(given: argparse.Namespace) -> list[Plot]:
    """One company of each size with the right time, and one in which clocks are set wrong too.

    Where clocks are set the grids of intervals move, and it cannot be checked that no instant lacks its fate.
    """
    faults = tuple(one for one in given.faults.split(",") if one)
    timely = tuple(one for one in faults if not one.startswith("clock"))
    sizes = [int(one) for one in given.processes.split(",")]
    plots = [Plot(size, given.minutes * 60, given.seed + size, timely) for size in sizes]
    return plots if timely == faults else [*plots, Plot(3, given.minutes * 60, given.seed, faults)]


def repeat(folder: Path) -> int:
    """Do the round of a kept folder again, in a new one beside it."""
    about = json.loads((folder / "round.json").read_text())
    scheduler, seed = SCHEDULERS[about["scheduler"]](), about.get("seed", 0)
    again = folder.with_name(f"{folder.name}-again-{time.time_ns() // 10**9}")
    tally = Tally()
    if about["harness"] == "torture":
        given = about["blow"]
        blow = Blow(**{**given, "again": tuple(given["again"]) if given["again"] else None})
        tally.take("kills", torture.carry_out(scheduler, blow, again, seed=seed, keep=True))
    elif about["harness"] == "mishaps":
        tally.take("errors", mishaps.carry_out(scheduler, Mishap(**about["mishap"]), again, seed=seed, keep=True))
    elif about["harness"] == "slow stop":
        stop = SlowStop(**about["stop"])
        tally.take("slow stops", mishaps.stop_slowly(scheduler, stop, again, seed=seed, keep=True))
    elif about["harness"] == "scenes":
        tally.take("scenes", scenes.SCENES[about["scene"]](scheduler, again))
    elif about["harness"] == "lost writes":
        shim = tracing.compiled(lost_writes.SHIM, folder)
        loss = Loss(**about["loss"])
        tally.take("power failures", lost_writes.carry_out(scheduler, loss, again, library=shim, seed=seed, keep=True))
    else:
        plot = Plot(**{**about["plot"], "faults": tuple(about["plot"]["faults"])})
        tally.take("companies", nemesis.carry_out(scheduler, plot, again, keep=True))
    print(tally.summary())
    return 1 if tally.broken else 0


def check(folder: Path) -> int:
    """Check a story once more, from what its folder holds; tell all that was broken and all that was excused."""
    about, excuses = json.loads((folder / "round.json").read_text()), Excuses()
    found = side_by_side.broken(company.reread(SCHEDULERS[about["scheduler"]](), folder), excuses)
    for one in found:
        print(f"{one.promise:9} {one.text}")
    for text in (*excuses.overlaps, *excuses.limits):
        print(f"excused   {text}")
    return 1 if found else 0


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--a", action="store_true", help="the crash torture")
    words.add_argument("--b", action="store_true", help="several processes")
    words.add_argument("--seed", type=int, default=1)
    words.add_argument("--points", type=int, help="so many kill points instead of all")
    words.add_argument("--minutes", type=float, default=10.0, help="of each company")
    words.add_argument("--store", choices=("sqlite", "postgresql"), default="sqlite", help="of the product")
    words.add_argument("--processes", help="the sizes of the companies; 2,5,8, on PostgreSQL 5")
    words.add_argument("--faults", help="what may befall a company")
    words.add_argument("--scheduler", choices=sorted(SCHEDULERS), default="taskloop")
    words.add_argument("--folder", type=Path, help="where rounds live; a new temporary folder if not given")
    words.add_argument("--repeat", type=Path, metavar="FOLDER", help="do the round of this folder again")
    words.add_argument("--check", type=Path, metavar="FOLDER", help="check the story of this folder again")
    given = words.parse_args()
    if given.repeat:
        return repeat(given.repeat.resolve())
    if given.check:
        return check(given.check.resolve())
    on_server = given.store == "postgresql"
    given.processes = given.processes or ("5" if on_server else "2,5,8")
    given.faults = ",".join(nemesis.REPLICAS if on_server else Plot.faults) if given.faults is None else given.faults
    where = (given.folder or Path(tempfile.mkdtemp(prefix="faults-"))).resolve()
    where.mkdir(parents=True, exist_ok=True)
    scheduler = SCHEDULERS["taskloop-postgres" if on_server else given.scheduler]()
    tally, both = Tally(), not (given.a or given.b)
    if given.a or both:
        harness_a(scheduler, where, given.seed, given.points, tally)
    if given.b or both:
        harness_b(scheduler, where, given.seed, companies(given), tally)
    print(tally.summary())
    return 1 if tally.broken else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except tracing.Missing as error:
        print(f"{error}; without it this proves nothing", file=sys.stderr)
        sys.exit(2)
