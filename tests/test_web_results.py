"""What a job gave, drawn: repositories as people want to see them, whatever their names and whatever the result is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from git_repositories import Repository
from hypothesis import given, settings
from hypothesis import strategies as st
from test_web_pages import BROWSER, EVIL, text
from web_clients import HOSTS

from taskloop import Options, TaskScheduler
from taskloop.git_metrics import FileMemory, make_job
from taskloop.runs import Run, State
from taskloop.web.pages.rendering import _templates
from taskloop.web.pages.repositories import drawn, fits
from taskloop.web.pages.results import picture_of

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = 86_400


def run(result, number=1, at=NOW):
    return Run(
        job="a", id=number, state=State.SUCCEEDED, due_at=at, ready_at=at, created_at=at, ended_at=at, result=result
    )


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
async def test_repositories_are_drawn_on_their_own_page_on_the_jobs_and_on_the_runs(
    host, tmp_path, no_task_outlives_the_fixture
):
    recent = int(datetime.now(UTC).timestamp()) - 3 * DAY
    shop = Repository(tmp_path / "<b>shop")
    shop.commit(recent - 400 * DAY, **{"a.py": "one\n"})
    shop.commit(recent, "Anna &amp; Co <anna@example.org>", **{"<i>hot.py": "one\ntwo\n"})
    shop.commit(recent, "Bob <bob@example.org>", **{"<i>hot.py": "one\n"})
    gone = tmp_path / "gone"
    scheduler = TaskScheduler("sqlite:///:memory:", options=Options(grace=timedelta(0)))
    scheduler.add_job(make_job([shop.folder, gone], FileMemory(tmp_path / "memory")), name="git_metrics")
    scheduler.add_job(lists, name="lists")
    async with host(scheduler, auth="open") as client:
        client.headers = dict(BROWSER)
        before = await client.get("/jobs/git_metrics/result")
        assert "No run of it on record has succeeded" in text(before)
        for _ in range(2):
            one = await (await scheduler.submit("git_metrics")).wait()
        page = await client.get("/jobs/git_metrics/result")
        body, seen = page.body.decode(), text(page)
        assert page.status == 200 and "<script>" not in body and "<i>" not in body and "style=" not in body
        assert str(shop.folder) in seen and "Anna &amp; Co 1 33.3 %" in seen and "<i>hot.py 2" in seen
        assert "2 authors made half of all commits" in seen and "403 days old" in seen and "on main at" in seen
        assert f"Not read: 1 {gone}: does not exist" in seen
        assert '<svg class="chart"' in body and "From run to run" in seen
        weeks = one.result["repositories"][str(shop.folder)]["commits_per_week"]
        assert body.count("<tr><td>20") == len(weeks) > 50, "the table behind the chart has every week"
        assert "the whole, drawn" in text(await client.get("/jobs/git_metrics"))
        assert "made half of all commits. author commits share" in text(await client.get(f"/runs/{one.id}"))
        assert "No repository of that name" in text(await client.get("/jobs/git_metrics/result?only=other"))
        await (await scheduler.submit("lists")).wait()
        assert '"neither": [ 1 ]' in text(await client.get("/jobs/lists/result"))
        assert (await client.get("/jobs/nothing/result")).status == 404


async def lists():
    return {"neither": [1]}


def test_a_result_that_failed_whole_or_names_nothing_says_so_in_words():
    def words(result):
        return _drawn(picture_of([run(result)]))

    assert "was given no repository" in words({"repositories": {}, "failed": {}})
    assert "Not read: 1" in words({"repositories": {}, "failed": {"x": "no git"}})
    empty = words({"repositories": {"x": {}}, "failed": {}})
    assert "The result says nothing of it." in empty and "The result names nobody." in empty and "detached" in empty


def _drawn(picture):
    macros = _templates().get_template(picture.template).module
    return macros.whole(picture.value, "", None, UTC, NOW)


def test_the_newest_result_is_shown_and_the_older_ones_are_its_past():
    runs = [
        run({"repositories": {"x": {"churn_30d": churn, "commits": 9}}, "failed": {}}, number, NOW - timedelta(days=9 - number))
        for number, churn in ((3, 40), (2, "?"), (1, 10))
    ]  # fmt: skip
    [one] = drawn([*runs, run("something else", 0)]).items
    assert [then.churn for then in one.past] == [40, None, 10]
    assert one.trend == "0.0,59.0 624.0,2.0"
    assert picture_of([]) is None and picture_of([run(None)]) is None and picture_of([run({"repositories": 3})]) is None


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just(EVIL),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = (
    "head", "branch", "commits", "authors", "bus_factor", "top_authors", "hot_files", "commits_per_week", "size_bytes",
    "first_commit_at", "last_commit_at", "shallow",
)  # fmt: skip
RECORDS = st.lists(
    st.dictionaries(st.sampled_from(["name", "path", "commits", "changes", "week", "added"]), ANY), max_size=3
)


@given(
    st.dictionaries(st.text(max_size=5), st.dictionaries(st.sampled_from(NAMES), ANY | RECORDS), max_size=2),
    st.dictionaries(st.text(max_size=5), ANY, max_size=2),
)
@settings(max_examples=100, deadline=None)
def test_whatever_a_result_holds_it_can_be_drawn(found, failed):
    result = {"repositories": found, "failed": failed}
    assert fits(result)
    picture = picture_of([run(result, 2), run(result)])
    assert "<script>" not in _drawn(picture)
