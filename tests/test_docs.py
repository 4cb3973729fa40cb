"""The pages say what the code does: tests they name exist, the picture of a run is its moves, codes and options are all there."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest

import taskloop
from taskloop import chain, errors, why
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


def test_what_pages_tell_to_import_is_there_and_promised() -> None:
    """A page told to build on modules that another page said may go in any release."""
    told = "".join(one.read_text("utf-8") for one in [*DOCS.glob("*.md"), ROOT / "README.md"])
    imported = re.findall(r"from (taskloop[.\w]*) import ([\w, ]+)", told)
    assert len(imported) > 20
    for module, names in imported:
        exec(f"from {module} import {names}", {})
    whole = ("taskloop", "taskloop.errors", "taskloop.testing")
    promised = page("compatibility.md").partition("**Not promised**")[0]
    single = {name for module, names in imported if module not in whole for name in names.replace(" ", "").split(",")}
    assert [one for one in single if not hasattr(taskloop, one) and not re.search(rf"\b{one}\b", promised)] == []


def snippets() -> list[tuple[str, str]]:
    """The programs on pages: a snippet that ends by saying what it prints."""
    found = [
        (one.name, text)
        for one in sorted(DOCS.glob("*.md"))
        for text in re.findall(r"```python\n(.*?)```", one.read_text("utf-8"), re.S)
    ]
    return [(name, text) for name, text in found if "asyncio.run(main())  # " in text and name != "tour.md"]


def tour() -> list[str]:
    return re.findall(r"```python\n(.*?)```", page("tour.md"), re.S)


@pytest.mark.parametrize(("name", "text"), snippets(), ids=lambda one: one if one.endswith(".md") else "")
def test_each_program_on_a_page_prints_what_it_says(name: str, text: str, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(text, "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout.strip(), done.stderr) == (text.rpartition("asyncio.run(main())  # ")[2].strip(), "")


def others() -> list[tuple[str, str]]:
    """The snippets that print nothing: an app, a declaration."""
    told = {text for _, text in snippets()}
    return [
        (one.name, text)
        for one in sorted(DOCS.glob("*.md"))
        for text in re.findall(r"```python\n(.*?)```", one.read_text("utf-8"), re.S)
        if text not in told
        and ">>>" not in text
        and one.stem not in {"flows", "parameters", "runs", "synchronous", "tour"}
    ]


def test_every_other_snippet_of_a_page_runs_too(tmp_path: Path) -> None:
    """In one process, those of a page in one namespace, as they are read."""
    assert {name for name, _ in others()} >= {"embedding.md", "http.md", "testing.md", "git-metrics.md"}
    (tmp_path / "snippets.json").write_text(json.dumps(others()), "utf-8")
    (tmp_path / "config.toml").write_text("[scheduler]\n", "utf-8")
    program = """if 1:
        import ast, inspect, json
        from taskloop import TaskScheduler
        pages = {}
        for name, text in json.load(open("snippets.json")):
            print(name, text)
            code = compile(text, name, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            if code.co_flags & inspect.CO_COROUTINE:
                continue  # a part of a coroutine, with names of the reader's
            exec(code, pages.setdefault(name, {"__name__": "page", "scheduler": TaskScheduler("sqlite:///:memory:")}))
    """
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env={**os.environ, "ALERT_SECRET": "a secret for this test"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_the_tour_can_be_followed(tmp_path: Path) -> None:
    first, app, tested = tour()

    def run(*words: str, codes: Collection[int] = (0,)) -> str:
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode in codes, (words, done.stderr)
        return done.stdout

    for name, text in (("shop.py", first), ("app.py", app), ("tested.py", tested)):
        (tmp_path / name).write_text(text, "utf-8")
    for name, text in (("shop.py", first), ("tested.py", tested)):
        assert run(name).strip() == text.rpartition("asyncio.run(main())  # ")[2].strip()
    run("-c", "import app")
    lines = re.findall(r"^\$ taskloop (.*)$", page("tour.md"), re.M)
    lines = [line for line in lines if not line.startswith("run ") and "--wait" not in line]
    assert len(lines) >= 6
    for line in lines:
        run("-m", "taskloop", *shlex.split(line), codes={0, 10})  # 10: why it did not run


@pytest.mark.parametrize("name", ["api", "commands"])
def test_a_reference_is_what_its_table_says(name: str) -> None:
    spec = importlib.util.spec_from_file_location(f"make_{name}", DOCS / f"make_{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert page(f"{name}.md") == module.page(), f"run: python docs/make_{name}.py"


def test_the_usage_of_a_command_tells_what_must_be_given_from_what_may_be() -> None:
    told = page("commands.md")
    for line in (
        "taskloop process JOB --every D [--sleep D]",
        "taskloop token create NAME --scope read|operate|admin [--expires D]",
        "taskloop schedule add JOB [k=v] (--every D | --cron EXPR | --at T) [--timezone ZONE]",
    ):
        assert line in told


def test_every_page_stands_in_the_site_once_and_no_link_leads_nowhere() -> None:
    navigation = re.findall(r": ([a-z0-9-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M)
    assert sorted(navigation) == sorted(one.name for one in DOCS.glob("*.md"))
    for one in [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", one.read_text("utf-8")):
            assert (one.parent / target).exists(), (one.name, target)


def test_the_site_is_built_without_a_complaint(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed; the test extra has it")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "tour" / "index.html").is_file()


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


def test_the_errors_that_a_page_names_are_where_it_says() -> None:
    for name, begin in (("parameters.md", "- **Errors.**"), ("embedding.md", "The errors that calls raise")):
        told = page(name).partition(begin)[2].partition("`TaskloopError`")[0]
        named = re.findall(r"`([A-Z]\w+)`", told)
        assert "`taskloop.errors`" in told and {"RunFailed", "KeyConflict", "NoSuchRun"} <= {*named}
        assert all(issubclass(getattr(errors, one), errors.TaskloopError) for one in named)


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
