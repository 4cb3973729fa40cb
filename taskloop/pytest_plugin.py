"""The fixture `virtual_time` for pytest; with any plugin that runs async tests on asyncio's own loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from taskloop.testing import VirtualTime


@pytest.fixture(scope="session")
def virtual_time() -> Callable[..., VirtualTime]:
    """`taskloop.testing.virtual_time`: `async with virtual_time(scheduler) as time:`."""
    from taskloop.testing import virtual_time

    return virtual_time
