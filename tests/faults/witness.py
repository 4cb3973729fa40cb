"""The witness: one file per process, one line per beginning and end of a call, safe on the disk before the call goes on.

The scheduler cannot touch it, so it is the truth about calls; the tables are the claim. A line is its length, its
checksum and a JSON list, written by one `write` and one `fdatasync`: the writer is killed too, and a line that was cut
must be told from one that was not.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from facts import Call

FOLDER = "WITNESS_FOLDER"
"""The variable of the environment that names the folder."""


class Witness:
    """The witness of this process; its file is opened at once, so that it is there when no other can be opened."""

    def __init__(self, folder: str | None = None) -> None:
        name = f"witness-{os.getpid()}-{time.monotonic_ns()}"
        self._file = os.open(Path(folder or os.environ[FOLDER]) / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(self, word: str, *facts: Any) -> None:
        """Write a line and wait until it is on the disk. Raises `OSError`."""
        text = json.dumps([word, time.monotonic_ns(), os.getpid(), *facts], separators=(",", ":")).encode()
        os.write(self._file, b"%d %08x %s\n" % (len(text), crc32(text), text))
        os.fdatasync(self._file)

    def begin(
        self,
        *,
        job: str,
        schedule: str | None,
        due: int | None,
        run: str,
        key: str,
        attempt: int,
        token: int | None = None,
        worker: str | None = None,
    ) -> None:
        self.say("begin", job, schedule, due, run, key, attempt, token, worker)

    def end(self, *, run: str, attempt: int, token: int | None, outcome: str) -> None:
        self.say("end", run, attempt, token, outcome)


class Testimony(NamedTuple):
    """What all witnesses of a folder say."""

    calls: list[Call]
    torn: int
    """Last lines that were cut."""
    damaged: list[str]
    """Files with a bad line that is not the last one: then the harness itself is not to be trusted."""


def read(folder: Path) -> Testimony:
    """What was witnessed, by the beginning of each call."""
    calls: dict[tuple[int, str, int, int | None], Call] = {}
    torn, damaged = 0, []
    offset = time.time_ns() - time.monotonic_ns()
    for file in sorted(folder.glob("witness-*")):
        lines = file.read_bytes().split(b"\n")
        rest = lines.pop()
        torn += bool(rest)
        for line in lines:
            facts = unpacked(line)
            if facts is None:
                damaged.append(f"{file.name}: {line[:80]!r}")
                continue
            _take(facts, calls, offset)
    return Testimony(sorted(calls.values(), key=lambda one: one.began), torn, damaged)


def unpacked(line: bytes) -> list[Any] | None:
    """The facts of a line; None: it is not whole."""
    head, _, rest = line.partition(b" ")
    checksum, _, text = rest.partition(b" ")
    if not head.isdigit() or int(head) != len(text) or checksum != b"%08x" % crc32(text):
        return None
    facts: list[Any] = json.loads(text)
    return facts


def _take(facts: list[Any], calls: dict[Any, Call], offset: int) -> None:
    word, at, pid, *rest = facts
    instant = (at + offset) // 1000
    if word == "begin":
        job, schedule, due, run, key, attempt, token, worker = rest
        place = (pid, run, attempt, token)
        while place in calls:  # the very same claim called twice: the check must see both
            place = (*place, "again")
        calls[place] = Call(job, schedule, due, run, key, attempt, token, worker, pid, instant)
    elif word == "end":
        run, attempt, token, outcome = rest
        place = (pid, run, attempt, token)
        while (*place, "again") in calls:
            place = (*place, "again")
        if place in calls:
            calls[place] = replace(calls[place], ended=instant, outcome=outcome)
