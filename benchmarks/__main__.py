"""`python -m benchmarks`: measure workloads, print the table, keep the numbers, draw the pictures."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import harness, machine, table


def main() -> int:
    if sys.argv[1:2] == ["--measure"]:
        harness.measure(*sys.argv[2:])
        return 0
    if sys.argv[1:2] == ["costs"]:
        from benchmarks import costs

        return costs.main(sys.argv[2:])
    given = _parser().parse_args()
    report = json.loads(given.table.read_text("utf-8")) if given.table else _measured(given)
    text = [*machine.lines(report["machine"]), "", *table.lines(report["workloads"])]
    for line in text:
        print(line)
    if given.into:
        machine.put(given.into, "figures", text)
    for line in (*table.details(report["workloads"]), *table.notes(report["workloads"])):
        print(line)
    if given.plot:
        from benchmarks import plots

        drawn = plots.draw(report["workloads"], given.plot)
        for file in drawn:
            print(f"drawn: {file}")
        if given.into:
            machine.put(given.into, "pictures", plots.captions(drawn, given.into))
    failed = any("error" in one for measured in report["workloads"].values() for one in measured["measurements"])
    return 1 if failed else 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m benchmarks", description=__doc__, allow_abbrev=False)
    parser.add_argument("workload", nargs="*", choices=[*harness.WORKLOADS, []], help="none: all of them")
    parser.add_argument("--peers", action="store_true", help="measure the peers too, where they are installed")
    parser.add_argument("--rounds", type=int, default=None, metavar="N", help="the median is taken of so many (3)")
    parser.add_argument(
        "--longest",
        type=float,
        default=harness.LONGEST_SECONDS,
        metavar="SECONDS",
        help="a measurement that takes longer is given up, and not tried in the next round (%(default)g)",
    )
    parser.add_argument("--quick", action="store_true", help="a tiny size, once: whether it works, no figures to keep")
    parser.add_argument(
        "--keep", type=Path, metavar="DIR", help="the large stores of p9 and p13 stay here for the next time"
    )
    parser.add_argument(
        "--size", action="append", default=[], type=_size, metavar="NAME=N", help="another size, such as runs=1000000"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep every number here")
    parser.add_argument("--plot", type=Path, metavar="DIR", help="draw a picture of each figure here")
    parser.add_argument("--table", type=Path, metavar="FILE", help="measure nothing, show the numbers kept in FILE")
    parser.add_argument(
        "--into",
        type=Path,
        metavar="PAGE",
        help="put the table, and the pictures if drawn, between the marks of this page",
    )
    return parser


def _size(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    return name, int(number)


def _measured(given: Namespace) -> dict[str, Any]:
    rounds = given.rounds or (1 if given.quick else 3)
    report: dict[str, Any] = {
        "machine": machine.facts(),
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "rounds": rounds,
        "quick": given.quick,
    }
    report["workloads"] = {}
    for name in given.workload or harness.WORKLOADS:
        measured = harness.run(
            harness.load(name),
            rounds=rounds,
            quick=given.quick,
            peers=given.peers,
            tell=_tell,
            keep=given.keep,
            sizes=dict(given.size),
            longest_seconds=given.longest,
        )
        report["workloads"][name] = measured
        if given.json:  # after each: a long run that is stopped keeps what it has
            given.json.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return report


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
