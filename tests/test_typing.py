"""What two type checkers say of typed use: jobs are typed by the functions they are made of, and nothing is left open."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import taskloop
from taskloop import Run, RunHandle

ROOT = Path(taskloop.__file__).parent.parent
USAGE = Path(__file__).parent / "typing" / "usage.py"


def run(*command: str, seconds: int = 100) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=seconds,
        env={**{name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
             "PYTHONPATH": str(ROOT), "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def need(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        missing = f"{module} is not installed; the test extra has it"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)


@pytest.fixture(autouse=True)
def no_test_takes_longer_than_this():
    """In the place of the limit of other tests: a type checker reads a whole package."""


@pytest.mark.timeout(120)
def test_mypy_takes_typed_use_for_what_it_is_and_refuses_what_is_wrong():
    need("mypy")
    code, said = run("mypy", "--strict", str(USAGE))
    assert code == 0, said


@pytest.fixture(scope="module")
def told_by_pyright(tmp_path_factory) -> dict[str, set[int]]:
    """The lines with an error, by file: typed use, the same without marks, and the page about testing, in one process."""
    need("pyright")
    unmarked = re.sub(r"  # type: ignore\[[\w-]+\] # WRONG", "  # WRONG", USAGE.read_text("utf-8"))
    page = (ROOT / "docs" / "testing.md").read_text("utf-8")
    folder = tmp_path_factory.mktemp("typed")
    (folder / "unmarked.py").write_text(unmarked, "utf-8")
    (folder / "page.py").write_text("\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL)), "utf-8")
    files = [USAGE, folder / "unmarked.py", folder / "page.py"]
    code, said = run("pyright", *map(str, files))
    assert code == 1, said  # there are the errors of what is not marked; 2 and more is a failure of pyright itself
    return {file.name: {int(line) for line in re.findall(rf"{file.name}:(\d+):\d+ - error", said)} for file in files}


@pytest.mark.timeout(120)
def test_pyright_takes_typed_use_for_what_it_is(told_by_pyright):
    assert told_by_pyright["usage.py"] == set()


@pytest.mark.timeout(120)
def test_pyright_takes_the_tests_on_the_page_about_testing_for_what_they_are(told_by_pyright):
    assert told_by_pyright["page.py"] == set()


@pytest.mark.timeout(120)
def test_what_is_wrong_is_wrong_only_because_it_is_marked(told_by_pyright):
    """Else the marks could stand at lines that nobody refuses."""
    lines = USAGE.read_text("utf-8").splitlines()
    assert told_by_pyright["unmarked.py"] == {number for number, line in enumerate(lines, 1) if "] # WRONG" in line}


@pytest.mark.timeout(120)
def test_every_public_type_is_known():
    need("pyright")
    code, said = run("pyright", "--verifytypes", "taskloop", "--ignoreexternal")
    assert code == 0 and "Type completeness score: 100%" in said, said[-3000:]


def test_a_handle_tells_type_checkers_every_field_of_its_record_and_no_other():
    typed = {
        one.target.id: ast.unparse(one.annotation)
        for one in ast.walk(ast.parse(inspect.getsource(RunHandle)))
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
    }
    assert typed == {**Run.__annotations__, "status": "str", "final": "bool"}
