"""The pages say what the code does: tests they name exist, the picture of a run is its moves, codes and options are all there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from taskloop import chain, why
from taskloop.policy import OPTIONS
from taskloop.runs import MOVES, State

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def test_every_test_that_a_page_names_exists() -> None:
    named = re.findall(r"`(test_\w+)::(test_\w+)`", "".join(one.read_text("utf-8") for one in DOCS.glob("*.md")))
    assert len(named) > 20
    files = {one.stem: one.read_text("utf-8") for one in (ROOT / "tests").rglob("test_*.py")}
    assert [(file, test) for file, test in named if f"def {test}(" not in files.get(file, "")] == []


def snippets() -> list[tuple[str, str]]:
    """The programs on pages: a snippet that ends by saying what it prints."""
    found = [
        (one.name, text)
        for one in sorted(DOCS.glob("*.md"))
        for text in re.findall(r"```python\n(.*?)```", one.read_text("utf-8"), re.S)
    ]
    return [(name, text) for name, text in found if "asyncio.run(main())  # " in text]


@pytest.mark.parametrize(("name", "text"), snippets(), ids=lambda one: one if one.endswith(".md") else "")
def test_each_program_on_a_page_prints_what_it_says(name: str, text: str, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(text, "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.strip(), done.stderr) == (text.rpartition("asyncio.run(main())  # ")[2].strip(), "")


def test_the_pages_on_executors_and_injection_have_programs() -> None:
    assert {name for name, _ in snippets()} >= {"injection.md", "policies.md"}


def word_at(line: str, column: int) -> str:
    return next((one.group() for one in re.finditer(r"\w+", line) if one.start() <= column < one.end()), "")


def test_the_picture_of_a_run_shows_its_moves_and_no_others() -> None:
    lines = page("lifecycle.md").partition("```\n")[2].partition("```")[0].splitlines()
    [start] = [number for number, line in enumerate(lines) if "▶ waiting" in line]
    down = [(one.start(), line + 1) for line in range(start, len(lines)) for one in re.finditer("▼", lines[line])]
    ends = re.findall(r"▶ (\w+)$", "\n".join(lines[start + 1 :]), re.M)
    corner = lines[start].index("┌")
    back = {"waiting"} if all(line[corner] in "┌│└" for line in lines[start:] if line.strip()) else set()
    shown = {
        "waiting": {word_at(lines[line], column) for column, line in down}
        | set(re.findall(r"waiting ─+▶ (\w+)", lines[start])),
        "running": set(ends) | back,
    }
    assert shown == {state.value: {one.value for one in moves} for state, moves in MOVES.items() if moves}


def test_the_table_of_states_has_each_once_in_order() -> None:
    assert re.findall(r"^\| `(\w+)` \|", page("lifecycle.md"), re.M) == [state.value for state in State]


def test_every_code_of_why_has_its_line() -> None:
    told = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`\w+`.*?) \|", page("guarantees.md"), re.M))))
    source = "".join(Path(str(one.__file__)).read_text("utf-8") for one in (chain, why))
    given = set(re.findall(r'code="(\w+)"|code = "(\w+)"|_did_not\(\s*"(\w+)"|return "(\w+)", (?:f?"|held)', source))
    codes = {one for each in given for one in each if one} | set(why._REMEDIES)
    assert {"ran", "disabled", "unknown_pruned", "slots"} <= codes
    assert codes - told == set()


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_every_option_of_a_job_is_in_the_table(option: str) -> None:
    assert re.search(rf"^\| [^|]*`{option}`", page("policies.md"), re.M)
