"""The built-in job `git_metrics`, against real repositories and what git itself counts in them."""

from __future__ import annotations

import json
import os
import random
import re
import select
import shutil
import typing
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest
from git_repositories import Repository, large, people

from taskloop.context import RunContext
from taskloop.errors import BadInstant, TaskloopError
from taskloop.git_history import Author, History, LogReader, _bus_factor, explain, figures, fitting
from taskloop.git_metrics import FileMemory, NothingRead, collect, make_job
from taskloop.outcomes import RESULT_BYTES

DAY = 86_400
NOW = datetime(2026, 6, 3, 12, tzinfo=UTC)  # a Wednesday
TODAY = int(NOW.timestamp()) // DAY
GIT = shutil.which("git") or "git"
FIELDS = (
    "head branch commits commits_7d commits_30d commits_90d authors top_authors bus_factor added deleted churn_30d "
    "hot_files branches tags files size_bytes first_commit_at last_commit_at commits_per_week"
)


@pytest.fixture(autouse=True)
def nobodys_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("GIT_", "XDG_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


class Kept(dict[str, dict[str, Any]]):
    """A memory that goes through JSON, as every real one does."""

    def load(self, repository: str) -> dict[str, Any] | None:
        return cast("dict[str, Any] | None", json.loads(json.dumps(self.get(repository))))

    def save(self, repository: str, state: dict[str, Any]) -> None:
        self[repository] = json.loads(json.dumps(state))


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Notes each call of git; gives the calls since it was last asked, without the options before the command."""
    noted = tmp_path / "calls"
    instead_of_git(tmp_path, monkeypatch, f"echo \"$@\" | sed 's/.* -C [^ ]* //' >> '{noted}'")

    def taken() -> list[str]:
        lines = noted.read_text().splitlines()
        noted.unlink()
        return lines

    return taken


def instead_of_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Puts a `git` on the PATH that runs those lines of shell before it becomes the real one."""
    folder = tmp_path / "bin"
    folder.mkdir(exist_ok=True)
    (folder / "git").write_text(f'#!/bin/sh\n{script}\nexec {GIT} "$@"\n')
    (folder / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def ago(days: float) -> int:
    return int((NOW - timedelta(days=days)).timestamp())


def read(repository: Repository | Path, memory: Kept | FileMemory | None = None, now: datetime = NOW) -> dict[str, Any]:
    path = repository.folder if isinstance(repository, Repository) else repository
    result = collect([path], now=now, memory=memory)
    assert result["failed"] == {}
    return cast("dict[str, Any]", result["repositories"][str(path)])


def reason(path: Path | str) -> str:
    result = collect([path], now=NOW)
    assert result["repositories"] == {}
    return cast("str", result["failed"][str(path)])


def varied(repository: Repository) -> Repository:
    """All that makes counting hard: merges, renames, binaries, hostile names, a mail map, a deletion."""
    repository.commit(ago(400), **{"a.txt": "one\ntwo\nthree\n", "b/c.txt": "x\n" * 50})
    repository.commit(ago(95), "Bob <bob@example.org>", **{"-n": "dash\n", 'tab\t"quote"\nnewline': "1\n2\n"})
    repository.commit(ago(45), "Robert <BOB@Example.org>", **{"picture": bytes(range(256)), "a.txt": "one\n2\nthree\n"})
    repository.git("checkout", "-q", "-b", "side", "HEAD~1")
    repository.commit(ago(20), "Eve <eve@home.example>", **{"b/c.txt": "x\n" * 40, "12\t3\tfile": "numbers\n"})
    repository.git("checkout", "-q", "main")
    repository.git("merge", "-q", "--no-ff", "-m", "join", "side", environment=people(ago(10)))
    repository.git("mv", "b/c.txt", "moved.txt")
    repository.commit(ago(5), "Eve <eve@work.example>", **{"@1\nx\ny": "like a commit\n"})
    repository.git("rm", "-q", "--", "-n")
    repository.commit(ago(3), "\xc9va \N{SNOWMAN} <eve@work.example>", picture=bytes(range(255)))
    (repository.folder / ".mailmap").write_text("Eve Example <eve@home.example> <eve@work.example>\n")
    repository.commit(ago(2))
    repository.git("tag", "v1")
    repository.git("tag", "-a", "-m", "two", "v2", environment=people(ago(1)))
    return repository


def numstat(repository: Repository, *options: str) -> Counter[str]:
    """Lines added and deleted as the plain log shows them, summed without any of our code."""
    told = repository.git("log", "--no-merges", "--no-renames", "--numstat", "--format=", *options)
    counts: Counter[str] = Counter()
    for added, deleted in re.findall(r"^(\d+)\t(\d+)\t", told, re.MULTILINE):
        counts["added"] += int(added)
        counts["deleted"] += int(deleted)
    return counts


def test_one_path_in_the_place_of_a_list_is_refused_as_it_would_be_read_letter_by_letter() -> None:
    with pytest.raises(TypeError, match=r"repositories is '~/src'; a list of paths is allowed, such as \['~/src'\]"):
        make_job("~/src")
    with pytest.raises(TypeError, match="a list of paths is allowed"):
        collect("~/src", now=NOW)


def test_the_figures_are_those_that_git_itself_counts(repository: Repository) -> None:
    varied(repository)
    found = read(repository)
    assert found["head"] == repository.git("rev-parse", "HEAD")
    assert found["branch"] == "main"
    assert found["commits"] == int(repository.git("rev-list", "--count", "HEAD"))
    for days in (7, 30, 90):
        since = f"--since={NOW.date() - timedelta(days=days - 1)}T00:00:00Z"
        assert found[f"commits_{days}d"] == int(repository.git("rev-list", "--count", since, "HEAD"))
    people_told = repository.git("shortlog", "-sne", "HEAD").splitlines()
    assert found["authors"] == len({line.split("<")[1].lower() for line in people_told}) == 3
    lines = numstat(repository)
    assert (found["added"], found["deleted"]) == (lines["added"], lines["deleted"])
    recent = numstat(repository, f"--since={NOW.date() - timedelta(days=29)}T00:00:00Z")
    assert found["churn_30d"] == recent["added"] + recent["deleted"]
    assert found["files"] == len(repository.git("ls-files", "-z").rstrip("\0").split("\0"))
    assert (found["branches"], found["tags"]) == (2, 2)
    told = dict(line.split(": ") for line in repository.git("count-objects", "-v").splitlines())
    assert found["size_bytes"] == 1024 * (int(told["size"]) + int(told["size-pack"])) > 0
    assert found["first_commit_at"] == "2025-04-29T12:00:00Z"
    assert found["last_commit_at"] == "2026-06-01T12:00:00Z"
    assert sum(week["commits"] for week in found["commits_per_week"]) == found["commits"]


def test_a_large_history_is_counted_like_git_does(tmp_path: Path) -> None:
    repository = large(tmp_path / "large", until=ago(0.1), commits=500)
    found = read(repository)
    lines = numstat(repository)
    told = [line.split("\t") for line in repository.git("shortlog", "-sne", "HEAD").splitlines()]
    assert (found["commits"], found["added"], found["deleted"]) == (500, lines["added"], lines["deleted"])
    assert found["authors"] == len(told)
    assert [author["commits"] for author in found["top_authors"]] == [int(count) for count, _ in told[:10]]
    assert len(json.dumps(found)) < 50_000


def test_the_result_has_exactly_the_promised_fields_in_plain_json(repository: Repository) -> None:
    found = read(varied(repository))
    assert set(found) == set(FIELDS.split())
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert {*found["top_authors"][0]} == {"name", "commits", "added", "deleted"}
    assert {*found["hot_files"][0]} == {"path", "changes", "added", "deleted"}
    assert {*found["commits_per_week"][0]} == {"week", "commits"}


def test_the_order_of_the_lists_is_settled(repository: Repository) -> None:
    found = read(varied(repository))
    ranks = [(-who["commits"], -who["added"] - who["deleted"]) for who in found["top_authors"]]
    assert ranks == sorted(ranks)
    ranks = [(-file["changes"], -file["added"] - file["deleted"]) for file in found["hot_files"]]
    assert ranks == sorted(ranks)


def test_hot_files_are_those_of_ninety_days_with_binaries_counted_as_changes(repository: Repository) -> None:
    hot = {file["path"]: file for file in read(varied(repository))["hot_files"]}
    assert hot["picture"] == {"path": "picture", "changes": 2, "added": 0, "deleted": 0}
    assert hot["12\t3\tfile"]["added"] == 1
    assert hot["@1\nx\ny"]["changes"] == 1
    assert hot["moved.txt"]["added"] == hot["b/c.txt"]["deleted"] - 10 == 40
    assert 'tab\t"quote"\nnewline' not in hot


def test_lists_are_cut_to_ten_authors_and_twenty_files(repository: Repository) -> None:
    for number in range(12):
        repository.commit(
            ago(1), f"P{number} <p{number}@x.org>", **{f"{number}-{file}": "x\n" * number for file in range(2)}
        )
    found = read(repository)
    assert (found["authors"], len(found["top_authors"]), len(found["hot_files"])) == (12, 10, 20)
    assert found["top_authors"][0] == {"name": "P11", "commits": 1, "added": 22, "deleted": 0}


def test_people_are_told_apart_by_address_in_any_case_and_through_the_mail_map(repository: Repository) -> None:
    found = {who["name"]: who["commits"] for who in read(varied(repository))["top_authors"]}
    assert found == {"Ann": 3, "Eve Example": 3, "Robert": 2}


def test_bytes_that_are_no_utf_8_are_replaced(repository: Repository) -> None:
    stream = (
        b"commit refs/heads/main\nauthor Caf\xe9 <c\xe9@x.org> %d +0000\ncommitter C <c@x.org> %d +0000\ndata 1\nx\n"
        b'M 100644 inline "caf\\351"\ndata 2\nx\n\n'
    )
    repository.git("fast-import", "--quiet", given=stream % (ago(1), ago(1)))
    found = read(repository)
    assert found["top_authors"][0]["name"] == "Caf\N{REPLACEMENT CHARACTER}"
    assert found["hot_files"][0]["path"] == "caf\N{REPLACEMENT CHARACTER}"


def test_commits_without_address_or_with_an_absurd_date_are_counted(repository: Repository) -> None:
    head = repository.commit(ago(1))
    raw = repository.git("cat-file", "commit", head)
    absurd = re.sub(r"<.*> \d+", "<> 99999999999999", raw) + "\n"
    undated = re.sub(r"> \d+ \+0000", "> never", raw) + "\n"
    for text in (absurd, undated):
        made = repository.git("hash-object", "-t", "commit", "-w", "--literally", "--stdin", given=text.encode())
        repository.git("update-ref", "refs/heads/main", made)
        assert read(repository)["commits"] == 1
    assert read(repository)["first_commit_at"] == "1970-01-01T00:00:00Z"


def history_of(commits: dict[int, int], *, now: datetime = NOW) -> History:
    """A history with so many commits so many days before `now`, one line added in each."""
    history = History("", int(now.timestamp()) // DAY)
    history.days = {history.day - days: [count, count, 0] for days, count in commits.items()}
    history.first_at = min(history.days) * DAY
    return history


@pytest.mark.parametrize(
    ("days", "week", "month", "quarter"),
    [
        (-2, 1, 1, 1),
        (0, 1, 1, 1),
        (6, 1, 1, 1),
        (7, 0, 1, 1),
        (29, 0, 1, 1),
        (30, 0, 0, 1),
        (89, 0, 0, 1),
        (90, 0, 0, 0),
    ],
)
def test_a_window_of_n_days_is_today_and_the_days_before(days: int, week: int, month: int, quarter: int) -> None:
    found = figures(history_of({days: 1, 500: 1}))
    assert (found["commits_7d"], found["commits_30d"], found["commits_90d"]) == (week, month, quarter)
    assert (found["commits"], found["churn_30d"]) == (2, month)


def test_weeks_begin_on_monday_and_empty_ones_are_listed() -> None:
    weeks = figures(history_of({2: 1, 3: 1, 20: 5, -1: 1, -5: 9}))["commits_per_week"]
    assert weeks == [
        {"week": "2026-05-11", "commits": 5},
        {"week": "2026-05-18", "commits": 0},
        {"week": "2026-05-25", "commits": 1},
        {"week": "2026-06-01", "commits": 2},
    ]


def test_at_most_the_last_104_weeks_are_listed() -> None:
    weeks = figures(history_of({0: 1, 10_000: 1}))["commits_per_week"]
    assert (len(weeks), weeks[0]["week"], weeks[-1]["week"]) == (104, "2024-06-10", "2026-06-01")
    assert sum(week["commits"] for week in weeks) == 1


@pytest.mark.parametrize(
    ("commits", "factor"),
    [([], 0), ([1], 1), ([1, 1], 1), ([1, 1, 1], 2), ([5, 3, 2], 1), ([4, 4, 4, 4], 2), ([2, 9], 1)],
)
def test_the_bus_factor_is_the_least_number_of_authors_with_half_of_the_commits(
    commits: list[int], factor: int
) -> None:
    assert _bus_factor([Author("", 0, count) for count in commits], sum(commits)) == factor


def test_a_log_cut_anywhere_gives_the_same_history() -> None:
    log = b"@%d\na@x\nAnn\0\n3\t1\tpath\0-\t-\tb\xffn\0@5\nB@x\nBob\0@4\nb@x\nOld\0\n1\t0\tpath\0" % (TODAY * DAY)
    whole = History("", TODAY)
    LogReader(whole).feed(log)
    assert whole.recent == {("path", TODAY): [1, 3, 1], ("b\N{REPLACEMENT CHARACTER}n", TODAY): [1, 0, 0]}
    assert whole.authors["b@x"] == Author("Bob", 5, 2, 1, 0)
    for size in range(1, 20):
        pieces = History("", TODAY)
        reader = LogReader(pieces)
        for start in range(0, len(log), size):
            reader.feed(log[start : start + size])
        assert pieces == whole
        assert reader.commits == 3


@pytest.mark.parametrize("log", [b"x\0", b"@soon\na\nb\0", b"\n1\t2\0", b"one\ttwo\tpath\0"])
def test_what_is_no_log_is_refused(log: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        LogReader(History("", TODAY)).feed(log)


def test_the_second_pass_reads_no_history(repository: Repository, calls: Callable[[], list[str]]) -> None:
    varied(repository)
    memory = Kept()
    first = read(repository, memory)
    assert any(call.startswith("-c mailmap.blob= log") for call in calls())
    assert read(repository, memory) == first
    assert [call.split()[0] for call in calls()] == ["rev-parse", "symbolic-ref", "for-each-ref", "count-objects"]


def test_a_later_pass_reads_the_new_commits_only(repository: Repository, calls: Callable[[], list[str]]) -> None:
    varied(repository)
    memory = Kept()
    old = read(repository, memory)["head"]
    new = repository.commit(ago(0.5), "Zoe <z@x.org>", new="file\n")
    calls()
    found = read(repository, memory)
    assert [call for call in calls() if f"{old}..{new}" in call]
    assert found == read(repository)
    assert {"path": "new", "changes": 1, "added": 1, "deleted": 0} in found["hot_files"]


def test_windows_move_without_a_read(repository: Repository, calls: Callable[[], list[str]]) -> None:
    varied(repository)
    memory = Kept()
    read(repository, memory)
    calls()
    for days in (1, 4, 25, 60, 86, 91, 1000):
        later = NOW + timedelta(days=days)
        kept = read(repository, memory, later)
        assert not any(" log " in call for call in calls())
        assert kept == read(repository, now=later)
        calls()


@pytest.mark.parametrize("seed", range(5))
def test_increments_give_what_a_full_read_gives(repository: Repository, seed: int) -> None:
    chance = random.Random(seed)
    memory = Kept()
    now = NOW - timedelta(days=200)
    for step in range(12):
        now += timedelta(days=chance.choice([0, 0.3, 5, 40]))
        for _ in range(chance.randint(0, 2)):
            who = f"N{chance.randint(0, 3)} <{chance.choice('abAB')}@x.org>"
            content = "".join(f"{chance.randint(0, 5)}\n" for _ in range(chance.randint(0, 9)))
            at = int(now.timestamp()) - chance.randint(-2, 120) * DAY
            repository.commit(at, who, **{chance.choice(["a", "b/c", "d e"]): chance.choice([content, b"\0" * 9])})
        if step == 0:
            repository.commit(int(now.timestamp()))
        if chance.random() < 0.3:
            merge_a_side_branch(repository, int(now.timestamp()), step)
        assert read(repository, memory, now) == read(repository, now=now)


def merge_a_side_branch(repository: Repository, at: int, step: int) -> None:
    repository.git("checkout", "-q", "-b", f"side{step}")
    repository.commit(at - 3 * DAY, "Side <side@x.org>", **{f"side{step}": "s\n" * step})
    repository.git("checkout", "-q", "main")
    repository.commit(at - DAY)
    repository.git("merge", "-q", "--no-ff", "-m", "join", f"side{step}", environment=people(at))


def rewritten(repository: Repository) -> None:
    repository.git("reset", "-q", "--hard", "HEAD~2")
    repository.commit(ago(1), other="way\n")


def mapped(repository: Repository) -> None:
    (repository.folder / ".mailmap").write_text("Ann <ann@example.org> <bob@example.org>\n")


def replaced(repository: Repository) -> None:
    repository.git("replace", "--graft", "HEAD~1", "HEAD~4")


def made_anew(repository: Repository) -> None:
    shutil.rmtree(repository.folder)
    Repository(repository.folder).commit(ago(1), new="one\n")


@pytest.mark.parametrize("change", [rewritten, mapped, replaced, made_anew])
def test_a_change_of_the_past_means_a_full_read(
    repository: Repository, change: Callable[[Repository], None], calls: Callable[[], list[str]]
) -> None:
    memory = Kept()
    before = read(varied(repository), memory)
    change(repository)
    calls()
    after = read(repository, memory)
    assert any(after["head"] in call and ".." not in call for call in calls() if " log " in call)
    assert after == read(repository)
    assert after != before


def test_a_day_before_the_last_pass_means_a_full_read(repository: Repository) -> None:
    varied(repository)
    memory = Kept()
    read(repository, memory, NOW + timedelta(days=60))
    assert read(repository, memory) == read(repository)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"version": 0},
        {"days": None},
        {"days": [[1]]},
        {"authors": [["a"]]},
        {"head": "--all"},
        {"head": 7},
        {"recent": 1},
    ],
)
def test_a_state_that_makes_no_sense_means_a_full_read(repository: Repository, spoilt: dict[str, Any]) -> None:
    memory = Kept()
    first = read(varied(repository), memory)
    path = str(repository.folder)
    memory[path] |= spoilt
    assert read(repository, memory) == first
    del memory[path]["recent"]
    assert read(repository, memory) == first


def test_the_file_memory_gives_back_what_it_took(tmp_path: Path) -> None:
    state = {"version": 1, "head": "abc", "days": [[day, 1, 2, 3] for day in range(3001)], "authors": [], "none": None}
    FileMemory(tmp_path / "cache").save("/some/where", state)
    assert FileMemory(tmp_path / "cache").load("/some/where") == state
    assert FileMemory(tmp_path / "cache").load("/else/where") is None
    assert len(list((tmp_path / "cache").iterdir())) == 1


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-40], lambda data: data.replace(b"7", b"8"), lambda _: b"", lambda _: b"\xff"]
)
def test_a_torn_or_foreign_file_counts_as_none(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    memory = FileMemory(str(tmp_path))
    memory.save("x", {"days": [[7, 7, 7, 7]]})
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    assert memory.load("x") is None


def test_a_memory_in_files_serves_the_next_process(repository: Repository, calls: Callable[[], list[str]]) -> None:
    first = read(varied(repository), FileMemory())
    calls()
    assert read(repository, FileMemory()) == first
    assert not any(" log " in call for call in calls())


@pytest.mark.parametrize(("variable", "folder"), [("cache", "cache"), ("", "home/.cache"), (None, "home/.cache")])
def test_the_memory_is_in_the_cache_folder_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str | None, folder: str
) -> None:
    if variable is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / variable) if variable else "relative")
    FileMemory().save("x", {})
    assert [file.suffix for file in (tmp_path / folder / "taskloop" / "git-metrics").iterdir()] == [".json"]


def test_a_user_without_a_home_has_no_memory_and_no_folder_of_that_sign(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 2**31 - 7)  # as in a container that names a number
    monkeypatch.chdir(tmp_path)
    memory = FileMemory()
    assert read(varied(repository), memory) == read(repository, memory)
    assert not (tmp_path / "~").exists()


def test_a_cache_that_cannot_be_written_only_costs_time(repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    memory = FileMemory(tmp_path / "file" / "cache")
    assert read(varied(repository), memory) == read(repository, memory) == read(repository)


def test_a_state_that_cannot_take_its_place_leaves_nothing_behind(tmp_path: Path) -> None:
    memory = FileMemory(tmp_path)
    memory.save("x", {})
    (file,) = tmp_path.iterdir()
    file.unlink()
    file.mkdir()
    memory.save("x", {"a": 1})
    assert memory.load("x") is None
    assert list(tmp_path.iterdir()) == [file]


def test_bare_repositories_worktrees_and_subfolders_are_the_same_repository(
    repository: Repository, tmp_path: Path
) -> None:
    varied(repository)
    repository.git("worktree", "add", "-q", str(tmp_path / "tree"), "main", "--force")
    repository.git("clone", "-q", "--bare", ".", str(tmp_path / "bare"))
    (repository.folder / "sub").mkdir()
    expected = read(repository)
    assert read(repository.folder / "sub") == read(tmp_path / "tree") == read(repository.folder / ".git") == expected
    memory = Kept()
    bare = read(tmp_path / "bare", memory)
    assert bare | {"size_bytes": 0} == expected | {"size_bytes": 0}
    assert read(tmp_path / "bare", memory) == bare


def test_a_detached_head_has_no_branch(repository: Repository) -> None:
    varied(repository)
    repository.git("checkout", "-q", "--detach", "HEAD~1")
    assert read(repository)["branch"] is None


def test_a_branch_called_head_confuses_nobody(repository: Repository) -> None:
    varied(repository)
    repository.git("update-ref", "refs/heads/HEAD", "HEAD~3")
    found = read(repository)
    assert (found["branch"], found["head"]) == ("main", repository.git("rev-parse", "main"))


def test_a_shallow_clone_is_read_and_marked_until_it_is_deepened(repository: Repository, tmp_path: Path) -> None:
    varied(repository)
    repository.git("clone", "-q", "--depth=2", f"file://{repository.folder}", str(tmp_path / "shallow"))
    clone = Repository(tmp_path / "shallow")
    memory = Kept()
    found = read(clone, memory)
    assert (found["shallow"], found["commits"]) == (True, 2)
    clone.git("fetch", "-q", "--unshallow")
    found = read(clone, memory)
    assert ("shallow" in found, found["commits"]) == (False, read(repository)["commits"])


def test_a_mail_map_that_is_no_plain_file_is_left_alone(repository: Repository) -> None:
    repository.commit(ago(1))
    (repository.folder / ".mailmap").symlink_to("/dev/zero")
    assert read(repository)["authors"] == 1
    (repository.folder / ".mailmap").unlink()
    (repository.folder / ".mailmap").mkdir()
    assert read(repository)["authors"] == 1


def test_neither_settings_nor_environment_change_the_figures(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = read(varied(repository))
    (tmp_path / "map").write_text("Nobody <n@n> <ann@example.org>\n")
    (tmp_path / "attributes").write_text("* -diff\n")
    settings = {
        "log.showRoot": "false", "log.showSignature": "true", "log.mailmap": "false", "log.diffMerges": "m",
        "diff.relative": "true", "diff.renames": "copies", "diff.external": "/bin/false", "diff.algorithm": "patience",
        "core.attributesFile": str(tmp_path / "attributes"), "mailmap.file": str(tmp_path / "map"),
        "color.ui": "always", "mailmap.blob": "HEAD:a.txt", "format.pretty": "fuller",
        "i18n.logOutputEncoding": "latin1", "diff.orderFile": "/no/such/file", "core.bigFileThreshold": "1",
        "diff.default.binary": "true",
    }  # fmt: skip
    for key, value in settings.items():
        repository.git("config", key, value)
    other = Repository(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other.folder / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other.folder))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "map"))
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", "'bad")
    monkeypatch.setenv("GIT_TRACE", "2")
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert read(repository) == expected


def test_a_submodule_that_is_not_to_be_shown_as_changed_is_counted_all_the_same(
    repository: Repository, tmp_path: Path
) -> None:
    part = Repository(tmp_path / "part")
    part.commit(ago(4), a="1\n")
    repository.git("submodule", "add", "-q", str(part.folder), "part")
    repository.commit(ago(3))
    part.commit(ago(2), a="2\n")
    repository.git("-C", "part", "pull", "-q")
    repository.commit(ago(1))
    expected = read(repository)
    assert (expected["added"], expected["deleted"]) == (5, 1)  # three of .gitmodules, and the submodule's hash twice
    repository.git("config", "submodule.part.ignore", "all")
    assert read(repository) == expected
    repository.git("config", "--unset", "submodule.part.ignore")
    with (repository.folder / ".gitmodules").open("a") as file:
        file.write("\tignore = all\n")
    assert read(repository) == expected


def test_a_bare_repository_is_read_for_a_user_who_wants_such_to_be_named(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit(ago(1))
    repository.git("clone", "-q", "--bare", str(repository.folder), str(tmp_path / "bare"))
    (tmp_path / "settings").write_text("[safe]\n\tbareRepository = explicit\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "settings"))
    assert read(tmp_path / "bare")["commits"] == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
def test_a_configured_repository_of_another_owner_is_read_and_its_subfolder_is_not(repository: Repository) -> None:
    varied(repository)
    (repository.folder / "sub").mkdir()
    for path in (repository.folder, *repository.folder.rglob("*")):
        os.chown(path, 12_345, 12_345, follow_symlinks=False)
    assert read(repository)["branch"] == "main"
    assert "belongs to another user" in reason(repository.folder / "sub")


def no_path(folder: Path) -> Path:
    return folder / "nothing"


def no_folder(folder: Path) -> Path:
    (folder / "file").touch()
    return folder / "file"


def below_a_file(folder: Path) -> Path:
    return no_folder(folder) / "deeper"


def no_repository(folder: Path) -> Path:
    (folder / "plain").mkdir()
    return folder / "plain"


def without_its_main(folder: Path) -> Path:
    main = Repository(folder / "main")
    main.commit(ago(1))
    main.git("worktree", "add", "-q", str(folder / "tree"))
    shutil.rmtree(main.folder)
    return folder / "tree"


def no_commits(folder: Path) -> Path:
    return Repository(folder / "empty").folder


def no_possible_path(folder: Path) -> Path:
    return folder / "a\0b"


def lacking_an_object(folder: Path) -> Path:
    repository = Repository(folder / "broken")
    repository.commit(ago(2), a="1\n")
    blob = repository.git("rev-parse", "HEAD:a")
    repository.commit(ago(1), a="2\n")
    (repository.folder / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    return repository.folder


def lacking_its_head(folder: Path) -> Path:
    repository = Repository(folder / "headless")
    repository.commit(ago(2), a="1\n")
    (repository.folder / ".git" / "refs" / "heads" / "main").write_text("0" * 39 + "1\n")
    return repository.folder


def partly_cloned(folder: Path) -> Path:
    repository = varied(Repository(folder / "origin"))
    repository.git("config", "uploadpack.allowFilter", "true")
    repository.git("clone", "-q", "--bare", "--filter=blob:none", f"file://{repository.folder}", str(folder / "part"))
    return folder / "part"


def of_a_newer_git(folder: Path) -> Path:
    repository = Repository(folder / "newer")
    repository.commit(ago(1))
    repository.git("config", "extensions.somethingNew", "true")
    repository.git("config", "core.repositoryFormatVersion", "1")
    return repository.folder


def with_a_bad_setting(folder: Path) -> Path:
    repository = Repository(folder / "set")
    repository.commit(ago(1))
    repository.git("config", "diff.algorithm", "quickest")
    return repository.folder


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (no_path, "does not exist; clone it there"),
        (no_folder, "is not a directory; name the folder"),
        (below_a_file, "does not exist;"),
        (no_repository, "not a git repository; name a clone"),
        (without_its_main, "a worktree or submodule whose repository is gone; put back"),
        (no_commits, "no commits yet; commit something"),
        (no_possible_path, r"cannot be a path \(.*embedded null .*\); write another"),
        (lacking_an_object, "git says 'fatal: unable to read [0-9a-f]+'; look at it with `git fsck`"),
        (lacking_its_head, "git says '.*bad (object|revision).*'; look at it"),
        (partly_cloned, "a partial clone: it lacks objects"),
        (of_a_newer_git, "made by a newer git than the one on this machine's PATH; install that one here"),
        (with_a_bad_setting, "git says 'fatal: bad config .*diff.algorithm.*'; mend that setting; `git config --list"),
    ],
)
def test_a_failure_is_named_with_its_mend_while_the_others_succeed(
    repository: Repository, tmp_path: Path, made: Callable[[Path], Path], text: str
) -> None:
    repository.commit(ago(1))
    path = made(tmp_path)
    result = collect([path, repository.folder, str(repository.folder)], now=NOW, memory=Kept())
    assert list(result["failed"]) == [str(path)]
    assert re.match(text, result["failed"][str(path)])
    assert list(result["repositories"]) == [str(repository.folder)]


def test_what_may_not_be_read_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "locked" / "in").mkdir(parents=True)
    (tmp_path / "locked").chmod(0)
    user = os.geteuid()
    os.seteuid(user or 12_345)  # nothing is locked for root
    try:
        told = reason(tmp_path / "locked" / "in")
    finally:
        os.seteuid(user)
    assert told == explain("fatal: cannot change to 'in': Permission denied\n")
    assert told == "permission denied; let the user that runs taskloop read the folder and all below it"


def test_a_machine_without_git_is_told_as_such(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert reason(repository.folder) == "no git on this machine's PATH; install git 2.31 or newer"
    (tmp_path / "bin" / "git").touch(0o644)
    assert reason(repository.folder) == "git could not be started (Permission denied); mend that and run again"


@pytest.mark.parametrize(
    "said", ["fatal: unrecognized argument: --no-diff-merges", "Unknown option: --no-optional-locks\\nusage: git"]
)
def test_a_git_that_is_too_old_is_told_as_such(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    repository.commit(ago(1))
    instead_of_git(tmp_path, monkeypatch, f"printf '{said}' >&2; exit 129")
    assert reason(repository.folder) == "the git on this machine's PATH is too old; install git 2.31 or newer"


@pytest.mark.parametrize("slowly", [False, True])
def test_a_repository_deleted_while_it_is_read_is_told_as_such(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slowly: bool
) -> None:
    repository.commit(ago(1), a="1\n")
    folder = repository.folder
    delete = f"rm -r '{folder}'"
    if slowly:
        delete = f"rm -r '{folder}/.git/objects'/??; (sleep 0.2; {delete}) >/dev/null 2>&1 &"
    instead_of_git(tmp_path, monkeypatch, f'case "$*" in *symbolic-ref*) {delete} ;; esac')
    assert reason(repository.folder).startswith("was moved or deleted while it was read")


def test_a_git_that_was_killed_is_told_as_such(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit(ago(1))
    instead_of_git(tmp_path, monkeypatch, 'case "$*" in *" log "*) kill -9 $$;; esac')
    assert reason(repository.folder) == "git was ended by signal 9; run again"


def test_a_log_that_cannot_be_understood_is_told_as_such(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit(ago(1))
    instead_of_git(tmp_path, monkeypatch, "case \"$*\" in *' log '*) printf 'nonsense\\0'; exit;; esac")
    assert reason(repository.folder) == "git's log could not be understood; install git 2.31 or newer"


def test_a_flood_of_errors_stops_nobody_and_is_cut(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flood = "echo \"fatal: $(head -c 500 /dev/zero | tr '\\0' x)\" >&2; head -c 3000000 /dev/zero >&2; exit 1"
    instead_of_git(tmp_path, monkeypatch, flood)
    assert len(reason(repository.folder)) < 400


class Cancelled(BaseException):
    pass


def test_a_cancelled_pass_leaves_at_once_and_kills_git(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit(ago(1))
    note = tmp_path / "pid"
    instead_of_git(tmp_path, monkeypatch, f"case \"$*\" in *' log '*) echo $$ > '{note}'; exec sleep 60;; esac")
    memory = Kept()

    def check() -> None:
        if note.exists() and note.read_text().endswith("\n"):
            raise Cancelled

    with pytest.raises(Cancelled):
        collect([repository.folder], now=NOW, memory=memory, check_cancelled=check, progress=lambda *_: None)
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)
    assert memory == {}


def test_what_a_script_in_the_place_of_git_started_is_killed_with_it(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit(ago(1))
    note, alive = tmp_path / "started", tmp_path / "alive"
    os.mkfifo(alive)
    instead_of_git(tmp_path, monkeypatch, f"exec 3<>'{alive}'; sleep 60 & echo > '{note}'; wait")
    reader = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)

    def check() -> None:
        if note.exists():
            raise Cancelled

    try:
        with pytest.raises(Cancelled):
            collect([repository.folder], now=NOW, check_cancelled=check)
        waiter = select.poll()
        waiter.register(reader, 0)
        assert [what for _, what in waiter.poll(10_000)] == [select.POLLHUP]  # nobody has it open any more
    finally:
        os.close(reader)


def test_progress_grows_to_the_end_and_is_told_at_most_ten_times_a_second(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    varied(repository)
    instead_of_git(tmp_path, monkeypatch, "case \"$*\" in *' log '*) sleep 0.4;; esac")
    told: list[tuple[float, float, str]] = []
    started = datetime.now(UTC)
    collect([repository.folder, tmp_path / "no"], now=NOW, progress=lambda *news: told.append(news))
    assert told[0] == (0.0, 2, f"{repository.folder}: reading")
    assert (1.0, 2, f"{repository.folder}: 8 of 8 commits") in told
    assert told[-1] == (2, 2, "1 of 2 repositories read")
    assert all(one[0] <= other[0] for one, other in pairwise(told))
    assert len(told) <= 2 + 10 * (datetime.now(UTC) - started).total_seconds()


def test_progress_without_a_total_still_says_what_was_read(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.commit(ago(1))
    instead_of_git(tmp_path, monkeypatch, "case \"$*\" in *rev-list*) exit 1;; *' log '*) sleep 0.2;; esac")
    told: list[str] = []
    collect([repository.folder], now=NOW, progress=lambda _, __, text: told.append(text))
    assert f"{repository.folder}: 1 commits" in told


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(BadInstant, match="names no zone"):
        collect([], now=datetime(2026, 1, 1))  # noqa: DTZ001 - the naive one is the point


class Run:
    """All of a RunContext that the job may use."""

    def __init__(self) -> None:
        self.told: list[tuple[float | None, float, str]] = []
        self.checked = 0

    def progress(self, done: float | None = None, total: float = 100, message: str = "") -> None:
        self.told.append((done, total, message))

    def check_cancelled(self) -> None:
        self.checked += 1


def test_the_job_gives_the_result_and_reports_through_its_run(repository: Repository, tmp_path: Path) -> None:
    varied(repository)
    job = make_job([str(repository.folder), str(tmp_path / "no")])
    run = Run()
    result = job(cast("RunContext", run))
    assert list(result["repositories"]) == [str(repository.folder)]
    assert list(result["failed"]) == [str(tmp_path / "no")]
    assert run.told[-1] == (2, 2, "1 of 2 repositories read")
    assert run.checked > 5
    assert job.__name__ == "git_metrics"
    assert typing.get_type_hints(job)["run"] is RunContext


def test_the_job_gives_fewer_rows_where_all_of_them_are_more_than_a_record_holds(
    repository: Repository, tmp_path: Path
) -> None:
    for number in range(10):
        repository.commit(ago(number), f"{chr(ord('a') + number) * 10_000} <{number}@example.org>", file=f"{number}\n")
    paths = [tmp_path / f"link{number}" for number in range(12)]
    for path in paths:
        path.symlink_to(repository.folder)
    whole = collect(paths, now=datetime.now(UTC), memory=Kept())["repositories"]
    result = make_job([*paths, tmp_path / "no"], Kept())(cast("RunContext", Run()))
    assert len(json.dumps(whole, ensure_ascii=False)) > RESULT_BYTES
    assert len(json.dumps(result, ensure_ascii=False)) <= RESULT_BYTES
    assert list(result["failed"]) == [str(tmp_path / "no")]
    for path, one in result["repositories"].items():
        assert one == whole[path] | {
            "top_authors": whole[path]["top_authors"][:5],
            "commits_per_week": whole[path]["commits_per_week"][-52:],
        }


def test_of_commits_that_are_all_in_the_future_there_is_this_week_without_one(repository: Repository) -> None:
    repository.commit(ago(-30))
    assert read(repository)["commits_per_week"] == [{"week": "2026-06-01", "commits": 0}]


def test_of_repositories_that_no_record_can_hold_one_row_of_each_list_is_left() -> None:
    history = History("", TODAY, first_at=ago(900), last_at=ago(0), days={TODAY - 800: [40, 0, 0]})
    history.authors = {str(number): Author(str(number), 0, 2) for number in range(20)}
    history.recent = {(str(number), TODAY): [1, 1, 1] for number in range(40)}
    whole = figures(history)
    assert [len(whole[rows]) for rows in ("top_authors", "hot_files", "commits_per_week")] == [10, 20, 104]
    one = fitting({"repositories": {"a": whole}, "failed": {}}, 0)["repositories"]["a"]
    assert one == whole | {rows: whole[rows][:1] for rows in ("top_authors", "hot_files")} | {
        "commits_per_week": whole["commits_per_week"][-1:]
    }


def test_the_job_fails_only_when_every_repository_did(tmp_path: Path) -> None:
    run = cast("RunContext", Run())
    with pytest.raises(NothingRead, match=r"(?s)\[git_metrics\].*a: does not exist.*b: does not exist") as caught:
        make_job([tmp_path / "a", tmp_path / "b"], Kept())(run)
    assert isinstance(caught.value, (TaskloopError, RuntimeError))
    assert list(caught.value.failed) == [str(tmp_path / "a"), str(tmp_path / "b")]
    assert make_job([], Kept())(run) == {"repositories": {}, "failed": {}}
