"""Who this process is, and which others of this machine are gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from taskloop.processes import is_dead, this_process

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_a_worker_row_is_of_this_process_and_of_no_other_life_of_it():
    one, two = this_process("shop", NOW), this_process(None, NOW)
    assert (one.name, one.pid, one.started_at, one.beat_at, one.stopped_at) == ("shop", os.getpid(), NOW, NOW, None)
    assert one.id != two.id
    assert one.process == two.process


def test_this_process_is_alive():
    assert not is_dead(this_process(None, NOW))


def test_a_process_that_ended_is_dead():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert is_dead(replace(this_process(None, NOW), pid=child.pid))


def test_another_process_that_has_the_pid_now_does_not_make_the_old_one_alive():
    mine = this_process(None, NOW)
    assert is_dead(replace(mine, process="another boot:1"))
    assert not is_dead(replace(mine, process=""))


def test_nothing_is_known_of_another_machine():
    assert not is_dead(replace(this_process(None, NOW), host="elsewhere", pid=2**22 + 1, process="x"))


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
        assert not is_dead(replace(this_process(None, NOW), pid=1, process="another boot:1"))


def test_a_process_that_tells_nothing_of_its_birth_has_none():
    from taskloop.processes import _birth

    assert _birth(2**22 + 1) == ""
    assert _birth(os.getpid()).count(":") == 1
