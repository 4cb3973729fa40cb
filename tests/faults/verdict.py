"""What is said of rounds in which something broke: in a test a failure, in the whole a few lines."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pytest
import torture
from company import Ending
from facts import Broken
from torture import Outcome

SEED = int(os.environ.get("FAULTS_SEED", "1"))
"""The sample of a run of the tests; another number gives another one."""
THOROUGH = os.environ.get("FULL") == "1"
"""Whether more of all that can go wrong is tried than a run of fifteen minutes has room for; `whole.py` tries all."""
SHOWN = 3
"""Of one promise of one round, so many things broken are printed."""


def told(name: str, folder: Path, broken: Iterable[Broken]) -> str:
    """What a round broke, with the command that repeats it."""
    lines, shown = [f"BROKEN in {name}: {torture.repeat_command(folder)}"], Counter[str]()
    for one in broken:
        shown[one.promise] += 1
        if shown[one.promise] <= SHOWN:
            lines.append(f"  {one.promise:9} {one.text}")
    lines += [f"  {promise:9} … {number} in all" for promise, number in shown.items() if number > SHOWN]
    return "\n".join(lines)


def kept(outcomes: Iterable[Outcome | Ending]) -> list:
    """What rounds came to, if every promise was kept; else a failure that tells each broken one and how to repeat it."""
    found = list(outcomes)
    texts = [told(one.name, one.folder, one.broken) for one in found if one.broken]
    if texts:
        pytest.fail("\n".join(texts), pytrace=False)
    return found
