"""Who may import whom: downwards only. A rule in a text is forgotten; this one fails."""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import taskloop

PACKAGE = Path(taskloop.__file__).parent
LEVELS = [
    {"errors", "frozen", "clock", "durations", "address", "annotations"},
    {"runs", "steps", "retry", "outcomes", "masking", "punctuality"},
    {"triggers", "cron", "events", "context", "parameters", "misfits", "inject", "policy"},
    {"given", "sections", "file_jobs", "jobs", "flows", "handles", "inquiry", "schedules", "options", "switches", "signs", "tokens", "audit", "rehearsal", "simulation"},
    {"store", "store_data", "records", "executors", "processing", "executor_dask", "attempts", "injecting", "stepping", "audience", "tasks", "outside", "processes",
     "logs", "signals", "watchdog", "moments", "chain", "why", "calls", "pings", "attendance", "conditions", "runlog", "capture", "loop_thread"},
    {"copying", "transfer_sqlite", "transfer_postgres", "housing", "switching", "scheduling", "ledger", "declaring", "looking", "explaining", "outlook", "advice", "journal", "life", "pulse", "slots", "keyring", "firing", "tending", "guard", "starting", "scheduler",
     "store_sqlite", "statements_sqlite", "claims_sqlite", "keeping_sqlite", "past_sqlite", "history_sqlite", "pruning_sqlite",
     "copying_sqlite", "rows", "fates", "rows_sqlite", "file_sqlite", "threads_sqlite", "writing_sqlite", "steps_sqlite", "batches_sqlite",
     "tokens_sqlite", "audit_sqlite", "retention", "gathering",
     "store_postgres", "statements_postgres", "claims_postgres", "keeping_postgres", "past_postgres", "history_postgres", "pruning_postgres",
     "rows_postgres", "stroke_postgres", "hints_postgres", "keys_postgres", "server_postgres", "steps_postgres", "batches_postgres", "tokens_postgres", "audit_postgres"},
    {"settings", "targets", "built_in", "git_metrics", "git_history", "git_stamp", "testing", "loop_time", "pytest_plugin", "background", "metrics", "tracing", "attention", "systemd", "shell"},
    {"web"},
    {"cli", "migrate", "__main__"},
]  # fmt: skip
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
PURE = {name for names in LEVELS[:4] for name in names} - {"address"}
PURE |= {"moments", "chain", "why", "attendance", "conditions"}
IMPURE_LIBRARIES = {"asyncio", "anyio", "aiosqlite", "loguru", "random", "sqlite3", "threading", "subprocess"}
FRAMEWORKS = {"aiohttp", "starlette", "fastapi", "uvicorn", "jinja2", "httpx", "flask", "django"}
ONE_HOME = {
    "aiosqlite": "threads_sqlite",
    "loguru": None,
    "pydantic_settings": "settings",
    "cronsim": "cron",
    "distributed": "executor_dask",
    "asyncpg": "server_postgres",
}
MORE_HOMES = {"cronsim": {"triggers"}}
LAZY_UPWARDS = {
    ("store", "store_sqlite"),
    ("store", "store_postgres"),
    ("housing", "settings"),
    ("housing", "built_in"),
    ("errors", "runs"),
}
"""Where a lower room composes a higher one, inside a function: stores by URL, settings by environment; or names, for type
checkers alone, the record that an error has.
"""
FORBIDDEN = {"utils", "util", "helpers", "helper", "base", "manager", "common", "types", "constants", "misc"}
CEILINGS = {"scheduler": 500}
LONGEST = 800
"""Lines of any other file; only ever to be lowered."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@functools.cache
def imports(path: Path) -> list[tuple[str, bool]]:
    """Every module a file imports, and whether it does so at its top (not in a function, not for types alone)."""
    found: list[tuple[str, bool]] = []

    def visit(node: ast.AST, top: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                found.extend((alias.name, top) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                if child.module == "taskloop":
                    found.extend((f"taskloop.{alias.name}", top) for alias in child.names)
                else:
                    found.append((child.module, top))
            inner = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.If)
            visit(child, top and not inner)

    visit(ast.parse(path.read_text("utf-8")), True)
    return found


def inside(path: Path) -> list[tuple[str, bool]]:
    """The rooms of the package that a file imports."""
    own = room(path)
    names = [(name.split(".")[1], top) for name, top in imports(path) if name.startswith("taskloop.")]
    return [(name, top) for name, top in names if name != own and name in LEVEL]


def test_every_module_has_its_level() -> None:
    rooms = {room(path) for path in modules()} - {"__init__"}
    assert rooms <= set(LEVEL), f"give these a level: {sorted(rooms - set(LEVEL))}"


def test_the_map_names_every_room() -> None:
    """Whoever reads the package goes by it. Rooms of PostgreSQL it names by their ending, those of transfers by what they begin with."""
    lines = re.findall(r"^    (\S+(?: \S+)*)  ", str(taskloop.__doc__), re.M)
    named = {name for line in lines for name in line.split()}
    rooms = {name for name in LEVEL if not name.endswith("_postgres") and not name.startswith("transfer_")}
    assert named - {"*_postgres", "transfer_*"} == rooms - {"__main__"}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_room_says_the_level_it_has(path: Path) -> None:
    said = re.search(r"Level (\d)", ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "")
    assert said is None or int(said[1]) == LEVEL[room(path)]


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_downwards_only(path: Path) -> None:
    if room(path) == "__init__":
        return
    for name, top in inside(path):
        lazily_allowed = not top and (room(path), name) in LAZY_UPWARDS
        assert LEVEL[name] <= LEVEL[room(path)] or lazily_allowed, f"{path.name} imports {name} from a higher room"


def test_no_two_rooms_import_each_other() -> None:
    graph = {room(path): {name for name, top in inside(path) if top} for path in modules()}
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize("path", [path for path in modules() if room(path) in PURE], ids=lambda path: path.name)
def test_the_lower_rooms_are_pure(path: Path) -> None:
    if room(path) == "clock":
        return
    libraries = {name.split(".")[0] for name, _ in imports(path)}
    assert not libraries & IMPURE_LIBRARIES
    text = path.read_text("utf-8")
    assert ".now(" not in text, f"{path.name} asks for the time; it should be passed in"


@pytest.mark.parametrize("library", [name for name, home in ONE_HOME.items() if home])
def test_a_library_has_one_home(library: str) -> None:
    homes = {room(path) for path in modules() for name, _ in imports(path) if name.split(".")[0] == library}
    assert homes <= {ONE_HOME[library]} | MORE_HOMES.get(library, set())


def test_a_web_framework_is_imported_by_its_translator_alone() -> None:
    found = {
        (str(path.relative_to(PACKAGE)), name.split(".")[0])
        for path in modules()
        for name, _ in imports(path)
        if name.split(".")[0] in FRAMEWORKS
    }
    assert found == {("web/aiohttp.py", "aiohttp"), ("web/pages/rendering.py", "jinja2")}


def test_no_handler_touches_what_is_private_of_the_scheduler() -> None:
    for path in (PACKAGE / "web").rglob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        private = [
            one.attr
            for one in ast.walk(tree)
            if isinstance(one, ast.Attribute)
            and one.attr.startswith("_")
            and not one.attr.startswith("__")
            and not (isinstance(one.value, ast.Name) and one.value.id in ("self", "asyncio"))
        ]
        assert not private, f"{path.name} uses {private}"


def test_no_room_without_a_noun() -> None:
    names = {path.stem for path in modules()} | {path.parent.name for path in modules()}
    assert not names & FORBIDDEN


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_absorbs_everything(path: Path) -> None:
    lines = len(path.read_text("utf-8").splitlines())
    assert lines <= CEILINGS.get(path.stem, LONGEST), f"{path.name} has {lines} lines: give a part its own room"


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(sys.modules))"
    bare = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60, env=bare
    )
    return {name.split(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize(
    "statement",
    ["import taskloop", "from taskloop import TaskScheduler, Cron, Jobs, Every, At, Retry, RunContext"],
)
def test_importing_taskloop_loads_no_library_it_does_not_need_yet(statement: str) -> None:
    heavy = {
        "pydantic",
        "pydantic_settings",
        "aiohttp",
        "asyncpg",
        "rich",
        "loguru",
        "cronsim",
        "aiosqlite",
        "jinja2",
    } | {"distributed"}
    assert not loaded_by(statement) & heavy
