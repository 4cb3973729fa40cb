"""Who this process is, and which others of this machine are gone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from taskloop import processes
from taskloop.processes import FIRST_PIDS, birth, is_dead, place, silent_seconds, this_process
from taskloop.store_data import Worker

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def this(name: str | None = None) -> Worker:
    return this_process(name, NOW, 100.0, jobs=["a"])


def elsewhere(part: int, text: str = "other") -> Worker:
    """This process, but for one part of where it lives: 0 machine, 1 boot, 2 namespace of pids, 3 birth."""
    parts = place().split(":")
    parts[part] = text
    return replace(this(), process=":".join(parts))


def test_a_worker_row_is_of_this_process_and_of_no_other_life_of_it():
    one, two = this("shop"), this()
    assert (one.name, one.pid, one.started_at, one.beat_at, one.stopped_at) == ("shop", os.getpid(), NOW, NOW, None)
    assert (one.beat_tick, one.jobs, one.fires) == (100.0, {"a"}, True)
    assert one.id != two.id
    assert one.process == two.process


def test_a_worker_with_very_many_jobs_does_not_name_them():
    assert this_process(None, NOW, 0.0, jobs=[str(one) for one in range(1001)]).jobs is None


def test_this_process_is_alive():
    assert not is_dead(this())


def test_a_process_that_ended_is_dead():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert is_dead(replace(this(), pid=child.pid))


def test_another_process_that_has_the_pid_now_does_not_make_the_old_one_alive():
    assert is_dead(elsewhere(3, "1"))
    assert not is_dead(elsewhere(3, ""))


def lives_at(monkeypatch: pytest.MonkeyPatch, machine: str, boot: str, pids: str) -> Worker:
    """This process, at a place like that."""
    monkeypatch.setattr(processes, "_surroundings", lambda: (machine, boot, pids))
    return this()


def test_what_ran_before_the_machine_was_started_anew_is_dead(monkeypatch):
    before = lives_at(monkeypatch, "3d1219c7", "earlier", FIRST_PIDS)
    lives_at(monkeypatch, "3d1219c7", "now", FIRST_PIDS)
    assert is_dead(before)


@pytest.mark.parametrize(
    ("machine", "pids"),
    [("", FIRST_PIDS), ("", "4026532178"), ("3d1219c7", "4026532178")],
    ids=["no id of a machine", "containers without one", "containers with that of their image"],
)
def test_a_container_of_another_machine_that_has_the_same_name_is_not_taken_for_one_of_an_earlier_boot(
    monkeypatch, machine, pids
):
    other = lives_at(monkeypatch, machine, "there", pids)
    lives_at(monkeypatch, machine, "here", pids)
    assert not is_dead(other)


@pytest.mark.parametrize(
    "other",
    [replace(this(), host="elsewhere", pid=2**22 + 1), elsewhere(0), elsewhere(2), replace(this(), process="old:1")],
    ids=["another name", "another machine of this name", "another container", "written by an older version"],
)
def test_nothing_is_known_of_another_machine_or_container(other):
    assert not is_dead(replace(other, pid=2**22 + 1))


def test_a_process_that_does_not_know_the_boot_of_its_machine_is_not_taken_for_one_of_an_earlier_boot(monkeypatch):
    seen = this()
    assert not is_dead(elsewhere(1, "")), "it sees no /proc, and we do"
    monkeypatch.setattr(processes, "_surroundings", lambda: (seen.process.split(":")[0], "", ""))
    assert not is_dead(seen), "we see none, and it does"


@contextmanager
def nobody() -> Iterator[None]:
    """As a user without rights over others: only root has to step down for it."""
    if os.geteuid() == 0:
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        if os.getresuid()[2] == 0:
            os.setresuid(0, 0, 0)


def test_a_process_of_another_user_is_taken_to_be_alive():
    with nobody():
        assert not is_dead(replace(elsewhere(3), pid=1))


@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="needs unshare, as root")
def test_a_process_with_pids_of_its_own_and_the_proc_of_its_host_does_not_take_a_process_of_the_host_for_itself():
    tells = "from taskloop.processes import birth; import os; print(os.getpid(), repr(birth(os.getpid())))"
    told = subprocess.run(
        ["unshare", "--pid", "--fork", sys.executable, "-c", tells], capture_output=True, text=True, check=False
    )
    if told.returncode != 0 and "unshare" in told.stderr:
        pytest.skip("no namespaces are to be had here")
    assert told.stdout == "1 ''\n"


def test_a_process_that_tells_nothing_of_its_birth_has_none():
    assert birth(2**22 + 1) == ""
    assert birth(os.getpid()).isdecimal()


def test_silence_is_told_by_the_clock_that_all_processes_of_a_machine_share():
    assert silent_seconds(this(), 103.5) == 3.5
    assert silent_seconds(elsewhere(2), 103.5) == 3.5


@pytest.mark.parametrize(
    ("worker", "tick"),
    [
        (elsewhere(1), 103.5),
        (elsewhere(0), 103.5),
        (replace(this(), host="elsewhere"), 103.5),
        (replace(this(), beat_tick=None), 103.5),
        (this(), 99.0),
    ],
    ids=["another boot", "another machine", "another name", "no beat told", "a beat that is yet to come"],
)
def test_the_silence_of_another_machine_cannot_be_told(worker, tick):
    assert silent_seconds(worker, tick) is None
