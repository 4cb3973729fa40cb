"""For the fault harnesses: rounds of real processes, with time of their own and tools that must be there."""

from __future__ import annotations

import os
import random
import signal

import pytest
import tracing
from adapter import Taskloop
from verdict import SEED


@pytest.fixture(autouse=True)
def no_test_takes_longer_than_this(request):
    """As for every test, but by the seconds of its `timeout` mark, less what the rounds in hand may still take."""
    mark = request.node.get_closest_marker("timeout")
    seconds = int(mark.args[0]) - 60 if mark else 20

    def ring(*_):
        raise TimeoutError(f"the test takes longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def nothing_blocks_the_loop():
    """There is no loop here: the schedulers are processes of their own."""


@pytest.fixture
def tool():
    """See that a tool is there. Without it a test is skipped, but failed where nothing may be left out."""

    def tool(*names):
        for name in names:
            try:
                tracing.need(name)
            except tracing.Missing as error:
                if os.environ.get("CI"):
                    pytest.fail(str(error))
                pytest.skip(str(error))

    return tool


@pytest.fixture
def chance():
    return random.Random(SEED)


@pytest.fixture
def product():
    return Taskloop()
