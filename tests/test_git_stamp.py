"""A repository in which nothing has moved is not asked again, and whatever moves is seen: real repositories, real git."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from git_repositories import Repository
from test_git_metrics import NOW, Kept, ago, instead_of_git, varied

from taskloop import git_stamp
from taskloop.git_metrics import FileMemory, collect, make_job
from taskloop.git_stamp import Unchanged


@pytest.fixture(autouse=True)
def nobodys_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return varied(Repository(tmp_path / "repository"))


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often git was called since it was last asked."""
    noted = tmp_path / "calls"
    instead_of_git(tmp_path, monkeypatch, f"echo >> '{noted}'")

    def taken() -> int:
        number = len(noted.read_text()) if noted.exists() else 0
        noted.unlink(missing_ok=True)
        return number

    return taken


def later() -> float:
    """A clock for which all that happened here has happened long ago."""
    return time.time() + 60


class Watch:
    """Reads a folder again and again, as the job does."""

    def __init__(self, folder: Path, memory: Any = None, **options: Any) -> None:
        self.folder, self.memory = folder, Kept() if memory is None else memory
        self.unchanged = Unchanged(clock=later, **options)

    def read(self, now: datetime = NOW) -> dict[str, Any]:
        result = collect([self.folder], now=now, memory=self.memory, unchanged=self.unchanged)
        return result["failed"] or result["repositories"][str(self.folder)]

    def settled(self) -> dict[str, Any]:
        """After the first pass it is known where to look, after the second what was there."""
        self.read()
        return self.read()


def fresh(folder: Path, now: datetime = NOW) -> dict[str, Any]:
    result = collect([folder], now=now)
    return result["failed"] or result["repositories"][str(folder)]


def test_where_nothing_has_moved_git_is_not_asked(repository: Repository, calls: Callable[[], int]) -> None:
    watch = Watch(repository.folder)
    known = watch.settled()
    calls()
    assert watch.read() == known == fresh(repository.folder)
    calls()
    assert watch.read() == known and calls() == 0
    known["top_authors"].clear()
    assert watch.read() != known and calls() == 0, "who got it last changed it for all"


def plain(repository: Repository, _: Path) -> Path:
    return repository.folder


def subfolder(repository: Repository, _: Path) -> Path:
    folder = repository.folder / "deep" / "er"
    folder.mkdir(parents=True)
    return folder


def inner(repository: Repository, _: Path) -> Path:
    return repository.folder / ".git"


def worktree(repository: Repository, elsewhere: Path) -> Path:
    repository.git("worktree", "add", "-q", "-b", "besides", str(elsewhere / "tree"))
    return elsewhere / "tree"


def behind_a_link(repository: Repository, elsewhere: Path) -> Path:
    (elsewhere / "link").symlink_to(repository.folder)
    return elsewhere / "link"


def submodule(repository: Repository, elsewhere: Path) -> Path:
    outer = Repository(elsewhere / "outer")
    outer.commit(ago(9), a="a\n")
    outer.git("submodule", "--quiet", "add", f"file://{repository.folder}", "part")
    return outer.folder / "part"


def with_its_git_apart(_: Repository, elsewhere: Path) -> Path:
    apart = Repository(elsewhere / "apart", f"--separate-git-dir={elsewhere / 'kept'}")
    varied(apart)
    return apart.folder


def bare(repository: Repository, elsewhere: Path) -> Path:
    repository.git("clone", "-q", "--bare", ".", str(elsewhere / "bare.git"))
    return elsewhere / "bare.git"


def made_of_links(repository: Repository, elsewhere: Path) -> Path:
    """As `git-new-workdir` makes them: all but HEAD is another repository's."""
    inside = elsewhere / "linked" / ".git"
    inside.mkdir(parents=True)
    repository.git("pack-refs", "--all")
    for name in ("config", "info", "objects", "packed-refs", "refs"):
        (inside / name).symlink_to(repository.folder / ".git" / name)
    shutil.copy(repository.folder / ".git" / "HEAD", inside / "HEAD")
    return inside.parent


LAYOUTS = [plain, subfolder, inner, worktree, behind_a_link, submodule, with_its_git_apart, bare, made_of_links]


def at(folder: Path) -> Repository:
    """What works on the repository that a folder belongs to."""
    found: Repository = Repository.__new__(Repository)
    found.folder = folder
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_however_a_repository_lies_it_is_known_again_and_a_commit_seen(
    repository: Repository, tmp_path: Path, layout: Callable[..., Path], calls: Callable[[], int]
) -> None:
    folder = layout(repository, tmp_path)
    watch = Watch(folder)
    known = watch.settled()
    calls()
    assert watch.read() == known and calls() == 0
    ours = at(folder)
    tree = ours.git("rev-parse", "HEAD^{tree}")
    ours.git(
        "-c", "user.name=a", "-c", "user.email=a@b.c", "update-ref", "HEAD",
        ours.git("-c", "user.name=a", "-c", "user.email=a@b.c", "commit-tree", tree, "-p", "HEAD", "-m", "new"),
    )  # fmt: skip
    assert watch.read()["commits"] == known["commits"] + 1
    assert watch.read() == fresh(folder)


def committed(repository: Repository) -> None:
    repository.commit(ago(0.1), fresh="file\n")


def amended(repository: Repository) -> None:
    repository.git("-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "-q", "--amend", "--allow-empty", "-m", "b")


def branched(repository: Repository) -> None:
    repository.git("branch", "another/one")


def branch_removed(repository: Repository) -> None:
    repository.git("branch", "-q", "-D", "side")


def tagged(repository: Repository) -> None:
    repository.git("tag", "v9")


def packed(repository: Repository) -> None:
    repository.git("pack-refs", "--all")
    repository.git("branch", "-q", "-D", "side")


def switched(repository: Repository) -> None:
    repository.git("checkout", "-q", "side")


def detached(repository: Repository) -> None:
    repository.git("checkout", "-q", "--detach")


def written_by_hand(repository: Repository) -> None:
    (repository.folder / ".git" / "refs" / "heads" / "main").write_text(repository.git("rev-parse", "HEAD~2") + "\n")


def mapped(repository: Repository) -> None:
    (repository.folder / ".mailmap").write_text("Ann <ann@example.org> <bob@example.org>\n")


def replaced(repository: Repository) -> None:
    repository.git("replace", "--graft", "HEAD~1", "HEAD~4")


def grafted(repository: Repository) -> None:
    graft = repository.folder / ".git" / "info" / "grafts"
    graft.write_text(repository.git("rev-parse", "HEAD~1") + "\n")


def object_added(repository: Repository) -> None:
    content = random.Random(1).randbytes(50_000)
    repository.git("hash-object", "-w", "--stdin", given=content)


def collected(repository: Repository) -> None:
    repository.git("gc", "-q", "--prune=now")


def made_anew(repository: Repository) -> None:
    shutil.rmtree(repository.folder)
    Repository(repository.folder).commit(ago(1), new="one\n")


def removed(repository: Repository) -> None:
    shutil.rmtree(repository.folder)


def emptied(repository: Repository) -> None:
    shutil.rmtree(repository.folder / ".git")


def pointed_to_nothing(repository: Repository) -> None:
    (repository.folder / ".git" / "HEAD").write_text("ref: refs/heads/nowhere\n")


CHANGES = [
    committed, amended, branched, branch_removed, tagged, packed, switched, detached, written_by_hand, mapped, replaced,
    grafted, object_added, collected, made_anew, removed, emptied, pointed_to_nothing,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_changes_the_figures_is_seen_at_the_next_look(
    repository: Repository, change: Callable[[Repository], None]
) -> None:
    watch = Watch(repository.folder)
    known = watch.settled()
    change(repository)
    assert watch.read() == fresh(repository.folder) != known


@pytest.mark.parametrize("change", CHANGES[:14])
def test_whatever_changes_the_figures_is_seen_from_a_linked_work_tree(
    repository: Repository, tmp_path: Path, change: Callable[[Repository], None]
) -> None:
    folder = worktree(repository, tmp_path)
    watch = Watch(folder)
    watch.settled()
    change(repository)
    assert watch.read() == fresh(folder)


def test_refs_that_are_packed_behind_a_link_are_seen(repository: Repository, tmp_path: Path) -> None:
    watch = Watch(made_of_links(repository, tmp_path))
    watch.settled()
    repository.git("tag", "new")
    repository.git("pack-refs", "--all")
    assert watch.read() == fresh(watch.folder)


def test_a_repository_made_between_a_folder_and_its_own_is_seen(repository: Repository) -> None:
    folder = subfolder(repository, repository.folder)
    watch = Watch(folder)
    watch.settled()
    Repository(folder.parent).commit(ago(1), one="1\n")
    assert watch.read() == fresh(folder)
    assert watch.read()["commits"] == 1
    shutil.rmtree(folder.parent / ".git")
    watch.settled()
    made = folder.parent
    subprocess.run(["git", "clone", "-q", "--bare", repository.folder, made / "new"], check=True)
    at(made / "new").git("tag", "here-alone")
    for one in (made / "new").iterdir():
        one.rename(made / one.name)  # the folder between has become a bare repository
    assert watch.read() == fresh(folder)


def test_an_empty_git_folder_on_the_way_is_seen_to_become_a_repository(repository: Repository) -> None:
    folder = subfolder(repository, repository.folder)
    (folder.parent / ".git").mkdir()
    watch = Watch(folder)
    watch.settled()
    Repository(folder.parent).commit(ago(1), one="1\n")
    assert watch.read() == fresh(folder)
    assert watch.read()["commits"] == 1


def grafts_elsewhere(repository: Repository, elsewhere: Path) -> Path:
    (elsewhere / "grafts").touch()
    (repository.folder / ".git" / "info" / "grafts").symlink_to(elsewhere / "grafts")
    return repository.folder


def by_two_links(repository: Repository, elsewhere: Path) -> Path:
    (elsewhere / "current").symlink_to(repository.folder)
    (elsewhere / "linked").mkdir()
    (elsewhere / "linked" / ".git").symlink_to(elsewhere / "current" / ".git")
    return elsewhere / "linked"


def named_by_a_link(repository: Repository, elsewhere: Path) -> Path:
    folder = by_two_links(repository, elsewhere)
    (folder / ".git").unlink()
    (folder / ".git").write_text(f"gitdir: {elsewhere / 'current' / '.git'}\n")
    return folder


def current_turned(repository: Repository, elsewhere: Path) -> None:
    other = Repository(elsewhere / "other")
    other.commit(ago(1), other="1\n")
    (elsewhere / "current").unlink()
    (elsewhere / "current").symlink_to(other.folder)


def names_another(repository: Repository, elsewhere: Path) -> None:
    other = Repository(elsewhere / "other")
    other.commit(ago(1), other="1\n")
    (elsewhere / "apart" / ".git").write_text(f"gitdir: {other.folder / '.git'}\n")


def with_a_map_of_its_own(repository: Repository, _: Path) -> Path:
    mapped(repository)
    return repository.folder


def said_to_be_bare(repository: Repository, _: Path) -> None:
    repository.git("config", "core.bare", "true")


def common_turned(repository: Repository, elsewhere: Path) -> None:
    shutil.copytree(repository.folder, elsewhere / "copy")
    at(elsewhere / "copy").git("branch", "-q", "-D", "side")
    (repository.folder / ".git" / "worktrees" / "tree" / "commondir").write_text(f"{elsewhere / 'copy' / '.git'}\n")


@pytest.mark.parametrize(
    ("layout", "change"),
    [
        (grafts_elsewhere, lambda repository, _: (repository.folder / ".git/info/grafts").write_text(
            repository.git("rev-parse", "HEAD~1") + "\n")),
        (by_two_links, current_turned),
        (named_by_a_link, current_turned),
        (worktree, common_turned),
        (with_its_git_apart, names_another),
        (with_a_map_of_its_own, said_to_be_bare),
    ],
)  # fmt: skip
def test_what_is_reached_by_a_link_or_by_a_file_that_names_it_is_seen_to_change(
    repository: Repository, tmp_path: Path, layout: Callable[..., Path], change: Callable[..., object]
) -> None:
    folder = layout(repository, tmp_path)
    watch = Watch(folder)
    known = watch.settled()
    change(repository, tmp_path)
    assert watch.read() == fresh(folder) != known


def test_a_look_that_takes_long_can_be_cancelled(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cancelled(BaseException): ...

    def cancelled() -> None:
        raise Cancelled

    watch = Watch(repository.folder)
    watch.settled()
    folder = os.fspath(repository.folder)
    monkeypatch.setattr(git_stamp, "_CHECK_SECONDS", 60.0)
    assert watch.unchanged.stamp(folder, cancelled), "a quick one asks nobody"
    monkeypatch.setattr(git_stamp, "_CHECK_SECONDS", 0.0)
    with pytest.raises(Cancelled):
        watch.unchanged.stamp(folder, cancelled)


def test_a_shallow_clone_is_seen_to_be_deepened(repository: Repository, tmp_path: Path) -> None:
    repository.git("clone", "-q", "--depth=2", f"file://{repository.folder}", str(tmp_path / "shallow"))
    watch = Watch(tmp_path / "shallow")
    assert watch.settled()["shallow"]
    at(watch.folder).git("fetch", "-q", "--unshallow")
    assert "shallow" not in watch.read()


def test_a_new_day_moves_the_windows_and_the_day_before_is_not_given_again(
    repository: Repository, calls: Callable[[], int]
) -> None:
    watch = Watch(repository.folder)
    watch.settled()
    for days in (1, 30, 0):
        now = NOW + timedelta(days=days)
        assert watch.read(now) == fresh(repository.folder, now)
        calls()
        watch.read(now)
        assert calls() == 0


@pytest.mark.parametrize("seed", range(3))
def test_of_any_changes_in_any_order_none_is_missed(repository: Repository, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    watches = [Watch(repository.folder), Watch(worktree(repository, tmp_path))]
    changes = [
        committed, amended, tagged, switched, detached, mapped, object_added, collected, packed, branched, replaced
    ]  # fmt: skip
    for _ in range(12):
        try:
            chance.choice(changes)(repository)
        except subprocess.CalledProcessError:  # there is such a branch, or none, already
            continue
        for watch in watches:
            for _ in range(chance.randint(1, 3)):
                assert watch.read() == fresh(watch.folder)


def test_what_moved_a_moment_ago_may_move_again_unseen_so_git_is_asked(
    repository: Repository, calls: Callable[[], int]
) -> None:
    watch = Watch(repository.folder)
    watch.unchanged = Unchanged(clock=time.time)
    for _ in range(4):
        watch.read()
        assert calls() > 0


def test_what_moves_while_git_is_asked_is_seen_the_next_time(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(repository.folder)
    watch.read()
    once = tmp_path / "once"
    moving = f"test -e '{once}' || case \"$*\" in *count-objects*) touch '{once}'; (cd '{repository.folder}' && "
    instead_of_git(tmp_path, monkeypatch, moving + f"'{shutil.which('git')}' tag meanwhile);; esac")
    stale = watch.read()
    assert once.exists() and stale["tags"] + 1 == fresh(repository.folder)["tags"]
    assert watch.read() == fresh(repository.folder)


def test_loose_refs_beyond_measure_are_left_to_git(
    repository: Repository, calls: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_stamp, "MOST_REFS", 40)
    watch = Watch(repository.folder)
    for number in range(60):
        repository.git("tag", f"t{number}")
    watch.settled()
    calls()
    assert watch.read()["tags"] == fresh(repository.folder)["tags"] and calls() > 4


def test_a_work_tree_that_lies_elsewhere_is_left_to_git(
    repository: Repository, tmp_path: Path, calls: Callable[[], int]
) -> None:
    """`core.worktree`: from within another repository's folder git finds this one."""
    outer = Repository(tmp_path / "outer")
    outer.commit(ago(1), a="a\n")
    inner = Repository(tmp_path / "outer" / "inner")
    inner.commit(ago(1), b="b\n")
    inner.commit(ago(1), b="c\n")
    inner.git("config", "core.worktree", str(outer.folder))
    watch = Watch(inner.folder)
    watch.settled()
    inner.git("tag", "new")
    assert watch.read() == fresh(inner.folder)


def test_who_deletes_the_file_of_the_memory_gets_all_counted_anew(repository: Repository, tmp_path: Path) -> None:
    memory = FileMemory(tmp_path / "memory")
    watch = Watch(repository.folder, memory, beside=memory.file)
    watch.settled()
    (repository.folder / ".gitattributes").write_text("*.txt binary\n")  # which alone changes nothing that is counted
    counted_before = watch.settled()["added"]
    shutil.rmtree(tmp_path / "memory")
    assert watch.read()["added"] < counted_before


def test_what_may_not_be_looked_at_any_more_is_told_as_by_git(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(repository.folder)
    watch.settled()
    (repository.folder / ".git").rename(repository.folder / "away")
    (repository.folder / ".git").symlink_to(repository.folder / ".git")  # a loop
    assert watch.read() == fresh(repository.folder)


def test_the_job_asks_git_only_where_something_moved(
    repository: Repository, calls: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_stamp, "SETTLED_SECONDS", -60.0)
    job = make_job([repository.folder])
    run: Any = SimpleNamespace(progress=lambda *_: None, check_cancelled=lambda: None)
    job(run), job(run), job(run)
    calls()
    known = job(run)
    assert calls() == 0
    repository.git("tag", "new")
    [before], [after] = known["repositories"].values(), job(run)["repositories"].values()
    assert after["tags"] == before["tags"] + 1


def test_of_folders_that_come_and_go_only_the_last_are_kept(
    repository: Repository, tmp_path: Path, calls: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(git_stamp, "MOST_KEPT", 2)
    watch = Watch(repository.folder)
    folders = [repository.folder, bare(repository, tmp_path), worktree(repository, tmp_path)]
    for watch.folder in folders:
        watch.settled()
    asked = []
    for watch.folder in reversed(folders):
        calls()
        watch.read()
        asked.append(calls() > 0)
    assert asked == [False, False, True]
