"""The README is a promise: its snippets run, its commands are those that CI runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")


def fences(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def section(title: str) -> str:
    return README.partition(f"## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("number", range(len(fences("python"))))
def test_each_python_snippet_of_the_readme_runs(number: int, tmp_path: Path) -> None:
    script = tmp_path / "snippet.py"
    script.write_text(fences("python")[number], "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_the_first_snippet_prints_what_its_comment_says(tmp_path: Path) -> None:
    script = tmp_path / "snippet.py"
    script.write_text(fences("python")[0], "utf-8")
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "{'days': 7}\n"


@pytest.mark.parametrize("title", ["Quick start", "Test"])
def test_quick_start_and_test_begin_with_exactly_one_command(title: str) -> None:
    command = fences("sh", section(title))[0].strip()
    assert "\n" not in command
    assert command.startswith("python3 -m venv .venv && ")


def test_every_page_the_readme_names_exists() -> None:
    pages = re.findall(r"\]\((docs/[^)#]+)\)", README) + re.findall(r"`(examples/[\w.]+)`", README)
    assert pages
    assert [page for page in pages if not (ROOT / page).is_file()] == []


def test_ci_runs_the_test_command_of_the_readme() -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    assert "README.md" in script
    assert 'bash -c "$test_command"' in script
