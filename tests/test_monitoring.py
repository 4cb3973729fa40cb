"""The dashboard for Grafana and the rules for Prometheus name only what /metrics gives."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from taskloop import Options, Retry, TaskScheduler
from taskloop.metrics import Metrics

pytestmark = pytest.mark.anyio
MONITORING = Path(__file__).parent.parent / "docs" / "monitoring"
BOARD = json.loads((MONITORING / "grafana.json").read_text("utf-8"))
RULES = (MONITORING / "alerts.yml").read_text("utf-8")
OF_PROMETHEUS = {"up"}
WORDS = {
    "absent", "and", "by", "histogram_quantile", "increase", "max", "min", "min_over_time", "on", "or", "rate", "sort",
    "sort_desc", "sum", "time", "topk",
}  # fmt: skip


def expressions():
    """Every query, by where it stands."""
    rules = re.findall(r"- alert: (\w+)\n\s+expr: (.+)", RULES)
    panels = [(one["title"], target["expr"]) for one in BOARD["panels"] for target in one.get("targets", ())]
    [job] = [one["query"] for one in BOARD["templating"]["list"] if one["type"] == "query"]
    listed = re.fullmatch(r"label_values\((\w+), (\w+)\)", job)
    return [*rules, *panels, ("the variable job", f"sum by ({listed[2]}) ({listed[1]})")]


def read(expression):
    """The figures of a query with the labels that it asks of them, and the words that are neither."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    bare = re.sub(r"\[[^\]]*\]", "", bare)
    labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", bare))
    for listed in re.findall(r"by \(([^)]*)\)", bare):
        labels |= {one.strip() for one in listed.split(",")}
    rest = re.sub(r"by \([^)]*\)|{[^}]*}", " ", bare)
    names = set(re.findall(r"[a-zA-Z_]\w*", rest))
    figures = {one for one in names if one.startswith("taskloop_")}
    return figures, labels, names - figures - WORDS - OF_PROMETHEUS


@pytest.fixture
async def given(no_task_outlives_the_fixture):
    """The labels of each figure that /metrics gives of a scheduler to which everything happened."""
    scheduler, skipped = TaskScheduler("sqlite:///:memory:", options=Options(grace=timedelta(0))), asyncio.Event()

    @scheduler.every("1h", first="after")
    async def works(): ...

    @scheduler.every("1h", enabled=False)
    async def off(): ...

    @scheduler.job(retry=Retry(2, first="1ms"))
    async def fails():
        raise ValueError

    @scheduler.on("skipped")
    async def heard(_):
        skipped.set()

    metrics = Metrics(scheduler)
    async with scheduler:
        for name in ("works", "fails"):
            await (await scheduler.submit(name)).wait()
        await skipped.wait()
        while "taskloop_loop_lag_seconds" not in (text := (await metrics.text()).decode()):
            await asyncio.sleep(0.02)  # the watchdog has not looked yet
    found = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            found.setdefault(one.name, set()).update(one.labels)
    return found


async def test_every_query_names_figures_and_labels_that_there_are(given):
    assert len(expressions()) > 30
    for where, expression in expressions():
        figures, labels, unknown = read(expression)
        assert (figures or where == "TaskloopIsNotScraped") and not unknown, (where, unknown)
        assert figures <= set(given), (where, figures - set(given))
        for one in figures:
            assert labels <= given[one] | {"le"}, (where, one, labels)
            assert "le" not in labels or "le" in given[one], (where, one)


async def test_every_figure_is_asked_for_somewhere(given):
    asked = {re.sub(r"_(bucket|sum|count)$", "", one) for _, text in expressions() for one in read(text)[0]}
    there = {re.sub(r"_(bucket|sum|count)$", "", one) for one in given if not one.endswith("_created")}
    assert there - asked == {"taskloop_job_disabled"}, "somebody switched it off and knows"


def test_panels_have_words_and_lie_beside_each_other():
    panels = [one for one in BOARD["panels"] if one["type"] != "row"]
    assert all(one["title"] and one["description"] and one["targets"] for one in panels)
    assert len({one["id"] for one in BOARD["panels"]}) == len(BOARD["panels"])
    taken = [
        (x, y)
        for place in (one["gridPos"] for one in BOARD["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(taken)) == len(taken) and all(x < 24 for x, _ in taken)
    for one in panels:  # what stands in a legend must be left by the query
        for target in one["targets"]:
            for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
                assert re.search(rf"by \([^)]*\b{label}\b", target["expr"]), one["title"]


def test_rules_say_what_is_wrong_and_how_bad_it_is():
    rules = re.split(r"\n\s+- alert: ", RULES)[1:]
    assert len(rules) > 8
    for one in rules:
        assert re.search(r"labels: {severity: (critical|warning|info)}", one) and "summary: " in one
