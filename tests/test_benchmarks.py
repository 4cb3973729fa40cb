"""The benchmarks run: each workload, at a tiny size, gives its figures. What they are is no test's business."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FIGURES = {
    "p1": {"p99_ms"},
    "p2": {"per_second"},
    "p3": {"last_ms", "stall_ms"},
    "p4": {"start_ms", "memory_mb", "idle_percent"},
    "p5": {"each_us"},
    "p6": {"p50_ms"},
    "p7": {"p99_ms"},
    "p8": {"per_second"},
    "p9": {"worst_ms", "held_ms", "p95_ms /runs", "p50_ms /api/v1/audit"},
    "p10": {"full_ms", "second_ms"},
    "p11": {"import_ms", "help_ms"},
    "p12": {"steps_per_second"},
    "p13": {"per_second", "p50_ms", "last_ms"},
}


def benchmarks(*arguments: object, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | (environment or {}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("name", FIGURES)
def test_a_workload_gives_its_figures_and_those_of_its_limit(name, tmp_path):
    file = tmp_path / "numbers.json"

    done = benchmarks(name, "--quick", "--json", file)

    assert done.returncode == 0, done.stdout + done.stderr
    text = file.read_text("utf-8")
    (measured,) = json.loads(text)["workloads"].values()
    for one in measured["measurements"]:
        wanted = FIGURES[name] - ({"second_ms"} if one["contestant"] == "limit" else set())
        assert wanted <= set(one["numbers"]), one["contestant"]
    assert str(ROOT) not in text
    assert f'"{platform.node()}"' not in text


@pytest.fixture
def kept(tmp_path):
    """A file of numbers made by hand: a median of three, a failure and a peer that is absent."""
    taskloop = [{"contestant": "taskloop", "round": n, "numbers": {"p99_ms": ms}} for n, ms in enumerate((3, 9, 4))]
    limit = [{"contestant": "limit", "round": n, "numbers": {"p99_ms": 2}} for n in range(3)]
    failed = [{"contestant": "APScheduler 3, memory", "round": 1, "error": "not done within 300 s"}]
    machine = {
        "taskloop": "0",
        "python": "CPython 3",
        "sqlite": "3",
        "kernel": "Linux",
        "architecture": "x",
        "cpus": 2,
        "load_before": 0,
        "fsync_ms": 1,
        "packages": {},
    }
    slow = [{"contestant": "huey, SQLite", "round": 1, "numbers": {"p99_ms": 900, "started": 3, "expected": 1000}}]
    measured = {
        "title": "",
        "size": {},
        "measurements": taskloop + limit + failed + slow,
        "absent": ["pgqueuer, PostgreSQL", "APScheduler 4, memory"],
    }
    workloads = {"p1": measured}
    file = tmp_path / "kept.json"
    file.write_text(json.dumps({"machine": machine, "workloads": workloads}), "utf-8")
    return file


def test_the_table_of_kept_numbers_sets_medians_against_limit_and_goal(kept):
    done = benchmarks("--table", kept)

    row = next(line for line in done.stdout.splitlines() if "| taskloop" in line)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells == ["P1 p99 of start after due", "taskloop", "4 ms", "3–9", "2 ×", "", "2 / 1.2 ×", "must"]


def test_the_table_says_who_was_left_out_and_how_to_have_them_and_what_failed(kept):
    done = benchmarks("--table", kept)

    assert 'P1: pgqueuer, PostgreSQL left out, it is not installed (pip install -e ".[benchmarks]")' in done.stdout
    assert "P1: APScheduler 4, memory left out, it is not installed (TASKLOOP_BENCHMARK_APSCHEDULER4=" in done.stdout
    assert "P1: huey, SQLite started only 3 of 1000 in time" in done.stdout
    assert "P1: APScheduler 3, memory gave no figure: not done within 300 s" in done.stdout
    assert done.returncode == 1


def test_a_measurement_that_takes_too_long_is_given_up_and_not_tried_again(tmp_path):
    file = tmp_path / "numbers.json"

    done = benchmarks("p6", "--quick", "--rounds", 2, "--longest", 0.1, "--json", file)

    (measured,) = json.loads(file.read_text("utf-8"))["workloads"].values()
    assert [one["contestant"] for one in measured["measurements"]] == ["taskloop", "limit"]
    assert "P6: taskloop gave no figure: not done within 0.1 s" in done.stdout


def test_a_peer_is_left_out_where_the_python_that_is_named_for_it_lacks_it():
    ask = "from benchmarks.apscheduler4 import INTERPRETER; print(INTERPRETER.path)"
    environment = os.environ | {"TASKLOOP_BENCHMARK_APSCHEDULER4": sys.executable}

    done = subprocess.run(
        [sys.executable, "-c", ask], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout == "None\n"


def test_the_costs_of_a_run_are_told_by_room_and_put_into_a_page(tmp_path):
    file, page = tmp_path / "costs.json", tmp_path / "page.md"
    page.write_text("before\n<!-- costs -->\nold\n<!-- /costs -->\nafter\n", "utf-8")

    done = benchmarks("costs", "submitted", "--quick", "--json", file, "--into", page, environment={"PATH": ""})

    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(file.read_text("utf-8"))["costs"]["loads"]["submitted"]
    assert 0 < found["plain"]["loop_us"] <= found["plain"]["cpu_us"]
    assert sum(share for name, share in found["sampled"].items() if name.startswith("share ")) == pytest.approx(
        1, abs=0.001
    )
    assert 0 < found["sampled"]["transactions"] < found["sampled"]["statements"]
    text = page.read_text("utf-8")
    assert text.startswith("before\n<!-- costs -->\n")
    assert text.endswith("<!-- /costs -->\nafter\n")
    assert "| **processor time**" in text
    assert "old" not in text
    assert "there is no strace" in done.stdout


SAMPLED = """
import json, sqlite3, threading, time
from benchmarks import sampling
from taskloop import file_sqlite

sampling.seen()
db = sqlite3.connect(":memory:", factory=file_sqlite.Connection)
count = "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 3000) SELECT sum(x) FROM c"
over = threading.Event()
threading.Thread(target=over.wait, daemon=True).start()
sampler = sampling.Sampler()
sampler.start()
while time.thread_time() < 0.5:
    db.execute(count).fetchall()
    json.dumps([1] * 2000, indent=1)
sampler.over()
print(json.dumps(sampler.seconds()))
"""


def test_the_sampler_gives_processor_time_to_the_rooms_of_those_who_are_busy_and_none_to_who_waits():
    done = subprocess.run([sys.executable, "-c", SAMPLED], cwd=ROOT, capture_output=True, text=True, check=True)

    seconds = json.loads(done.stdout)
    whole = sum(seconds.values())
    assert 0 < whole < 1
    assert seconds["SQL, in sqlite3"] > 0.1 * whole
    assert seconds["record values"] > 0.1 * whole
    assert seconds.get("event loop, tasks, hops of threads", 0) < 0.1 * whole


ROOMS = {
    "/srv/taskloop/taskloop/cron.py": "trigger maths",
    "/srv/taskloop/taskloop/pruning_sqlite.py": "the store's own Python",
    "/srv/taskloop/taskloop/web/site.py": "engine and ledger",
    "/srv/taskloop/benchmarks/costs.py": "the measured program itself",
    "/srv/taskloop/.venv/lib/python3.11/site-packages/aiosqlite/core.py": "event loop, tasks, hops of threads",
    "/srv/taskloop/.venv/lib/python3.11/site-packages/yarl/_url.py": None,
    "/usr/lib/python3.11/selectors.py": "event loop, tasks, hops of threads",
    "<string>": "record values",
}


def test_every_room_that_the_costs_name_is_a_module_of_the_package_and_a_checkout_may_lie_anywhere():
    ask = "import json, sys; from benchmarks import sampling as s; print(json.dumps([[*s._ROOM_OF], [s.room(one) for one in sys.argv[1:]]]))"

    done = subprocess.run([sys.executable, "-c", ask, *ROOMS], cwd=ROOT, capture_output=True, text=True, check=True)

    modules, rooms = json.loads(done.stdout)
    assert [name for name in modules if not (ROOT / "taskloop" / f"{name}.py").exists()] == []
    assert dict(zip(ROOMS, rooms, strict=True)) == ROOMS


def test_the_plots_are_drawn_from_kept_numbers_and_put_into_a_page(kept, tmp_path):
    pytest.importorskip("matplotlib")

    page = tmp_path / "page.md"
    page.write_text("<!-- figures -->\n<!-- /figures -->\n<!-- pictures -->\n<!-- /pictures -->\n", "utf-8")
    found = json.loads(kept.read_text("utf-8"))
    grown = [
        {"contestant": who, "round": 1, "numbers": {"p50_ms": 1}} for who in ("limit", "1,000 jobs", "100,000 jobs")
    ]
    found["workloads"]["p13"] = {"title": "", "size": {}, "measurements": grown, "absent": []}
    kept.write_text(json.dumps(found), "utf-8")

    benchmarks(
        "--table", kept, "--plot", tmp_path / "plots", "--into", page, environment={"MPLCONFIGDIR": str(tmp_path)}
    )

    assert sorted(file.name for file in (tmp_path / "plots").iterdir()) == ["p13_growth.svg", "p1_p99_ms.svg"]
    text = page.read_text("utf-8")
    assert "| P1 p99 of start after due" in text
    assert "![P1 p99 of start after due](plots/p1_p99_ms.svg)" in text
