"""The built-in job `git_metrics`: what happened in a few git repositories, read from git itself.

Blocking, for a worker thread; knows nothing of the loop, the engine or the log. Here git is called and what was
counted is kept in files; what git's output means is read in `git_history`. Start at `collect`, then `_read`. What
each figure means exactly is in docs/git-metrics.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from taskloop.context import RunContext
from taskloop.errors import BadInstant, TaskloopError
from taskloop.git_history import (
    DAY_SECONDS,
    LOG,
    History,
    LogReader,
    explain,
    figures,
    fitting,
    gently,
    known,
    state_lines,
)  # fmt: skip
from taskloop.git_stamp import Places, Unchanged
from taskloop.outcomes import RESULT_BYTES

__all__ = ["FileMemory", "Memory", "NothingRead", "collect", "make_job"]

Progress = Callable[[float, float, str], None]

_READ_BYTES: Final = 1 << 16  # small pieces: between them the other threads get their turn
_POLL_SECONDS: Final = 0.1
_GOING_SECONDS: Final = 1.0  # how long a folder may still stand of which git misses something
# Git gives way to the host: else on a small machine requests wait for a processor. What is long gives way wholly (P7, both
# loads: 1.2 times the limit, with 10 it was 1.4); short questions are to be answered where all processors are busy, too.
_NICE: Final = 10
_NICEST: Final = 19
_ERROR_BYTES: Final = 4096

# What the configuration of a user or repository must not change. `log.showRoot` off would hide the first commit's
# lines; the mail map is the repository's own `.mailmap` and nothing else.
_SETTINGS: Final = (
    ("log.showRoot", "true"),
    ("log.showSignature", "false"),
    ("i18n.logOutputEncoding", "UTF-8"),
    ("core.attributesFile", os.devnull),
    ("core.bigFileThreshold", "512m"),  # what is larger counts as binary
    ("diff.default.binary", "auto"),
    ("safe.bareRepository", "all"),  # a user's "explicit" means those that somebody walks into; these are named
    ("mailmap.file", ""),
)
# All other GIT_ variables are dropped: inside a hook GIT_DIR and its kin name another repository than the one asked.
_KEPT_VARIABLES: Final = frozenset(
    {"GIT_CEILING_DIRECTORIES", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM", "GIT_CONFIG_SYSTEM", "GIT_EXEC_PATH"}
)


class Memory(Protocol):
    """Keeps what was counted of a repository, so that the next pass reads new commits only."""

    def load(self, repository: str) -> dict[str, Any] | None:
        """What was saved last for the repository at this absolute path; None: nothing usable, all is read anew."""

    def save(self, repository: str, state: dict[str, Any]) -> None:
        """Keep `state`, plain JSON, in place of what was kept before."""


class NothingRead(TaskloopError, RuntimeError):
    """Not one of the configured repositories could be read; `.failed` maps each path to its reason."""

    def __init__(self, failed: Mapping[str, str]) -> None:
        self.failed: dict[str, str] = dict(failed)
        listed = "\n".join(f"{path}: {reason}" for path, reason in failed.items())
        super().__init__(f"no repository could be read; mend the table [git_metrics]\n{listed}")


def make_job(
    repositories: Sequence[str | Path], memory: Memory | None = None
) -> Callable[[RunContext], dict[str, Any]]:
    """The function of the job `git_metrics`, for a thread; `memory` None: `FileMemory()`.

    It gives the result of `collect`, of many repositories with fewer rows in each list, so that the record of a run
    can hold it, and raises `NothingRead` when every repository failed. A cancelled run leaves
    within about a tenth of a second and its git process is killed.
    """
    _refuse_one(repositories)
    kept = FileMemory() if memory is None else memory
    # who deletes the file wants all counted anew
    unchanged = Unchanged(beside=kept.file if isinstance(kept, FileMemory) else None)

    def git_metrics(run: RunContext) -> dict[str, Any]:
        """Commits, authors, churn and hot files of the configured git repositories."""
        result = collect(
            repositories,
            memory=kept,
            unchanged=unchanged,
            now=datetime.now(UTC),
            progress=run.progress,
            check_cancelled=run.check_cancelled,
        )
        if result["failed"] and not result["repositories"]:
            raise NothingRead(result["failed"])
        return fitting(result, RESULT_BYTES)

    return git_metrics


def collect(
    repositories: Sequence[str | Path],
    *,
    now: datetime,
    memory: Memory | None = None,
    unchanged: Unchanged | None = None,
    progress: Progress | None = None,
    check_cancelled: Callable[[], object] | None = None,
) -> dict[str, Any]:
    """`{"repositories": {path: figures}, "failed": {path: reason}}`, plain JSON, the paths as they were given.

    Blocks until all are read, one after the other; it sets no time limit. `now` is aware; all windows end there.
    `memory` None: every pass reads the whole history. `unchanged` gives what it gave last where nothing has moved since,
    without asking git; None: git is always asked. `progress` is told (repositories done, repositories, text) at
    most ten times a second and once at the end. `check_cancelled` is called at least ten times a second; what it
    raises stops the pass, kills git and reaches the caller. A repository that cannot be read is named in `failed`.
    """
    if now.tzinfo is None:
        raise BadInstant(now, "it names no zone")
    _refuse_one(repositories)
    wanted = {os.fspath(path).encode("utf-8", "replace").decode(): os.fspath(path) for path in repositories}
    result: dict[str, dict[str, Any]] = {"repositories": {}, "failed": {}}
    report = _Report(progress, len(wanted))
    for name, path in wanted.items():
        report.name = name
        report.tell(0.0, "reading")
        try:
            git = _Git(path, check_cancelled or _never)
            result["repositories"][name] = _read(git, now=now, memory=memory, unchanged=unchanged, report=report)
        except _Unreadable as failure:
            result["failed"][name] = str(failure)
        report.done += 1
    report.finish(len(result["failed"]))
    return result


def _refuse_one(repositories: object) -> None:
    """Refuse one path where several are taken: it would be read letter by letter."""
    if isinstance(repositories, str):
        raise TypeError(f"repositories is {repositories!r}; a list of paths is allowed, such as [{repositories!r}]")


class FileMemory:
    """One file a repository in a cache folder; losing it costs a full read, nothing else.

    `folder` None: `taskloop/git-metrics` in `$XDG_CACHE_HOME`, else in `~/.cache`. Never raises for the file system:
    a folder that cannot be written, or no home, only makes every pass a full read. A file that is torn, corrupt, foreign or of
    another version counts as none.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._folder = _cache_folder() if folder is None else Path(folder)

    def load(self, repository: str) -> dict[str, Any] | None:
        """The kept state, or None."""
        try:
            body, _, seal = self.file(repository).read_bytes().rpartition(b"\n")
        except OSError:
            return None
        if seal != _seal(body):
            return None
        state: dict[str, Any] = {}
        for line in gently(body.split(b"\n"), every=2):
            key, value = json.loads(line)
            if isinstance(value, list):
                state.setdefault(key, []).extend(value)
            else:
                state[key] = value
        return state

    def save(self, repository: str, state: dict[str, Any]) -> None:
        """Write the state beside its place and move it there, so that no reader ever sees half of it."""
        body = "\n".join(gently(state_lines(state), every=2)).encode()
        target = self.file(repository)
        with suppress(OSError):
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _replace(target, body + b"\n" + _seal(body))

    def file(self, repository: str) -> Path:
        """Where the state of the repository at this absolute path is kept."""
        return self._folder / f"{hashlib.sha256(os.fsencode(repository)).hexdigest()[:32]}.json"


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):  # the XDG text: a relative path is to be ignored
        base = os.path.expanduser("~/.cache")
        if base.startswith("~"):  # a user without a home, as in a container: no folder named ~ beside the program
            base = os.devnull
    return Path(base, "taskloop", "git-metrics")


def _seal(body: bytes) -> bytes:
    """The last line of a file: proof that it is whole and of this layout."""
    return hashlib.blake2b(body, digest_size=16, person=b"git-metrics 1").hexdigest().encode()


def _replace(target: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=target.name, dir=target.parent)
    try:
        with open(handle, "wb") as file:
            file.write(data)
        os.replace(name, target)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


class _Unreadable(Exception):
    """This repository cannot be read; the text is the reason and the mend."""


@dataclass(frozen=True, slots=True)
class _Facts:
    """What is asked anew in every pass.

    `mail_map` names the blob that git log is to read beside the work tree's `.mailmap`, "" for none; `fingerprint`
    stands for all that changes the figures of old commits.
    """

    head: str
    branch: str | None
    shallow: bool
    mail_map: str
    fingerprint: str
    branches: int
    tags: int
    places: Places | None


def _read(
    git: _Git, *, now: datetime, memory: Memory | None, unchanged: Unchanged | None, report: _Report
) -> dict[str, Any]:
    """The figures of one repository: those of the last pass, if nothing has moved since."""
    today = int(now.timestamp()) // DAY_SECONDS
    if unchanged is None:
        return _asked(git, _facts(git), today, memory, report)
    # before git is asked: what moves meanwhile is seen the next time
    stamp = unchanged.stamp(git.folder, git.check_cancelled)
    if (last := unchanged.recall(git.folder, stamp, today)) is not None:
        return last
    result = _asked(git, facts := _facts(git), today, memory, report)
    unchanged.keep(git.folder, facts.places, stamp, today, result)
    return result


def _asked(git: _Git, facts: _Facts, today: int, memory: Memory | None, report: _Report) -> dict[str, Any]:
    """What git says; new commits are walked, the old ones remembered where they can be."""
    kept = None if memory is None else memory.load(git.folder)
    history = History.restored(kept, facts.fingerprint, today)
    if history is None or not _descends(git, history.head, facts.head):
        history = History(facts.fingerprint, today)
    if history.head != facts.head:
        _walk(git, history, facts, report)
        if memory is not None:
            memory.save(git.folder, history.state())
    result = {"head": facts.head, "branch": facts.branch, **figures(history)}
    result |= {"branches": facts.branches, "tags": facts.tags, "size_bytes": _size_bytes(git)}
    return result | {"shallow": True} if facts.shallow else result


def _facts(git: _Git) -> _Facts:
    answer = git.ask(
        "rev-parse", "--is-inside-work-tree", "--is-shallow-repository", "HEAD", "--git-common-dir", "--show-cdup",
        check=False,
    )  # fmt: skip
    if answer.code:
        # rev-parse only says that HEAD is ambiguous; log says what is wrong with it
        raise git.unreadable(git.ask("log", "-1", "--format=", check=False) if b"'HEAD'" in answer.error else answer)
    inside, shallow, head, *places = answer.text.split("\n")[:-1]
    top = os.path.join(git.folder, places.pop()) if inside == "true" else None
    common = os.path.join(git.folder, "\n".join(places))
    mail_map = "" if inside == "true" else f"{head}:.mailmap"
    branch = git.ask("symbolic-ref", "--quiet", "HEAD", check=False).text.removesuffix("\n")
    refs = git.ask("for-each-ref", "--format=%(refname) %(objectname)", "refs/heads", "refs/tags", "refs/replace")
    names = refs.text.split("\n")  # not splitlines: a name may hold what Unicode calls a line end
    return _Facts(
        head=head,
        branch=branch.encode("utf-8", "replace").decode().removeprefix("refs/heads/") or None,
        shallow=shallow == "true",
        mail_map=mail_map,
        fingerprint=_fingerprint(
            _mail_map(git, top, mail_map),
            _digest(os.path.join(common, "shallow")),
            _digest(os.path.join(common, "info", "grafts")),
            *(name for name in names if name.startswith("refs/replace/")),
        ),
        branches=sum(name.startswith("refs/heads/") for name in names),
        tags=sum(name.startswith("refs/tags/") for name in names),
        places=Places.found(git.folder, common, top),
    )


def _mail_map(git: _Git, top: str | None, blob: str) -> str:
    """What stands for the `.mailmap` that git log uses: the work tree's file, without a work tree the head's."""
    if top is None:
        return git.ask("rev-parse", "--quiet", "--verify", blob, check=False).text
    return _digest(os.path.join(top, ".mailmap"), os.O_NOFOLLOW)  # as git does not follow it


def _digest(path: str, also: int = 0) -> str:
    """A hash of a plain file's content; "" when there is none. `also`: further flags for opening it."""
    try:
        with open(path, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK | also)) as file:
            plain = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
            return hashlib.file_digest(file, "sha256").hexdigest() if plain else ""
    except OSError:
        return ""


def _fingerprint(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _descends(git: _Git, old: str, new: str) -> bool:
    """Whether `new` is `old` or comes after it; no, when `old` is no longer there."""
    return old == new or git.ask("merge-base", "--is-ancestor", old, new, check=False).code == 0


def _walk(git: _Git, history: History, facts: _Facts, report: _Report) -> None:
    """Add the commits that the head has beyond the history's own."""
    span = f"{history.head}..{facts.head}" if history.head else facts.head
    log = ("-c", f"mailmap.blob={facts.mail_map}", *LOG, span, "--")
    reader = LogReader(history)
    if report.wanted:
        # beside the walk, not before it: counting takes a good part of the walk's own time
        with git.started("rev-list", "--count", span, "--") as counter:
            git.run(*log, feed=partial(_step, reader, _Expected(counter), report))
    else:
        git.run(*log, feed=partial(_step, reader, None, report))
    history.files = _count_files(git, facts.head)
    history.head = facts.head


def _step(reader: LogReader, expected: _Expected | None, report: _Report, data: bytes) -> None:
    try:
        reader.feed(data)
    except ValueError:
        raise _Unreadable("git's log could not be understood; install git 2.31 or newer") from None
    total = expected.commits() if expected else None
    if total:
        report.tell(min(1.0, reader.commits / total), f"{reader.commits} of {total} commits")
    else:
        report.tell(0.0, f"{reader.commits} commits")


class _Expected:
    """The number that a running `git rev-list --count` will have said; None until then, or when it failed."""

    def __init__(self, counter: subprocess.Popen[bytes]) -> None:
        self._counter = counter
        self._commits: int | None = None

    def commits(self) -> int | None:
        if self._commits is None and self._counter.poll() == 0 and self._counter.stdout:
            self._commits = int(self._counter.stdout.read() or b"0")
        return self._commits


def _count_files(git: _Git, head: str) -> int:
    counts: list[int] = []
    git.run("ls-tree", "-r", "-z", "--full-tree", "--name-only", head, feed=lambda data: counts.append(data.count(0)))
    return sum(counts)


def _size_bytes(git: _Git) -> int:
    """What the objects take on disk, loose and packed; git tells it in KiB."""
    told = dict(line.split(": ", 1) for line in git.ask("count-objects", "-v").text.split("\n") if ": " in line)
    return 1024 * (int(told["size"]) + int(told["size-pack"]))


class _Report:
    """Tells how far the pass is, in repositories; at most ten times a second."""

    def __init__(self, progress: Progress | None, repositories: int) -> None:
        self.name = ""
        self.done = 0
        self.wanted = progress is not None
        self._progress = progress
        self._repositories = repositories
        self._next = 0.0

    def tell(self, fraction: float, text: str) -> None:
        """`fraction` (0 to 1) of the present repository is read."""
        if self._progress and (moment := time.monotonic()) >= self._next:
            self._next = moment + 0.1
            self._progress(self.done + fraction, self._repositories, f"{self.name}: {text}")

    def finish(self, failed: int) -> None:
        if self._progress:
            read = f"{self.done - failed} of {self._repositories} repositories read"
            self._progress(self.done, self._repositories, read)


@dataclass(frozen=True, slots=True)
class _Answer:
    code: int
    text: str
    error: bytes


class _Git:
    """Calls git in one repository: no pager, no prompt, no network, no lock, no inherited repository."""

    def __init__(self, path: str, check_cancelled: Callable[[], object]) -> None:
        check_cancelled()
        self.folder = _folder(path)
        self.check_cancelled = check_cancelled
        self._command = ("git", "--no-pager", "--no-optional-locks", "-C", self.folder)
        self._environment = _environment(os.environ, os.path.abspath(os.path.expanduser(path)), self.folder)

    def ask(self, *arguments: str, check: bool = True) -> _Answer:
        """A short answer as a whole; `check` False: a failure is an answer too, else it raises `_Unreadable`."""
        pieces: list[bytes] = []
        code, error = self._call(arguments, pieces.append)
        answer = _Answer(code, b"".join(pieces).decode("utf-8", "surrogateescape"), error)
        if check and code:
            raise self.unreadable(answer)
        return answer

    def run(self, *arguments: str, feed: Callable[[bytes], object]) -> None:
        """Give a long answer to `feed` piece by piece, as it comes; raises `_Unreadable` when git fails."""
        code, error = self._call(arguments, feed, _NICEST)
        if code:
            raise self.unreadable(_Answer(code, "", error))

    def unreadable(self, answer: _Answer) -> _Unreadable:
        """What a failed call means for the user."""
        error = answer.error.decode("utf-8", "replace")
        is_clear = answer.code < 0 or known(error) is not None
        if self._is_gone(0.0 if is_clear else _GOING_SECONDS):
            return _Unreadable("was moved or deleted while it was read; see that nothing removes it, then run again")
        if answer.code < 0:
            return _Unreadable(f"git was ended by signal {-answer.code}; run again")
        return _Unreadable(explain(error))

    def _is_gone(self, within: float) -> bool:
        """Whether the folder is away, or goes so many seconds from now: who removes one takes what lies in it first."""
        deadline = time.monotonic() + within
        while os.path.isdir(self.folder):
            if time.monotonic() >= deadline:
                return False
            self.check_cancelled()
            time.sleep(_POLL_SECONDS / 2)
        return True

    @contextmanager
    def started(self, *arguments: str, nice: int = _NICE) -> Iterator[subprocess.Popen[bytes]]:
        """A running git, its output and errors in pipes; killed if it still runs at the end, and reaped."""
        try:
            child = subprocess.Popen(
                (*self._command, *arguments),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=self._environment,
                process_group=0,  # Ctrl-C at a terminal is the scheduler's to answer: it may give us time to end
            )
        except FileNotFoundError:
            raise _Unreadable("no git on this machine's PATH; install git 2.31 or newer") from None
        except OSError as error:
            raise _Unreadable(f"git could not be started ({error.strerror}); mend that and run again") from None
        with suppress(OSError):  # it ended already
            os.setpriority(os.PRIO_PROCESS, child.pid, nice)
        with child:
            try:
                yield child
            finally:
                if child.poll() is None:
                    with suppress(OSError):  # the `git` on the PATH may be a script: what it started goes with it
                        os.killpg(child.pid, signal.SIGKILL)
                    child.kill()

    def _call(self, arguments: Sequence[str], feed: Callable[[bytes], object], nice: int = _NICE) -> tuple[int, bytes]:
        """Exit code and the beginning of the errors. Both pipes are read as they fill, so neither can stop git."""
        errors = bytearray()
        with self.started(*arguments, nice=nice) as child:
            ends = [pipe.fileno() for pipe in (child.stdout, child.stderr) if pipe]
            output = ends[0]
            waiter = select.poll()
            for end in ends:
                waiter.register(end, select.POLLIN)
            while ends:
                self.check_cancelled()
                for end, _ in waiter.poll(_POLL_SECONDS * 1000):
                    data = os.read(end, _READ_BYTES)
                    if end == output:
                        feed(data)
                    elif len(errors) < _ERROR_BYTES:
                        errors += data
                    if not data:
                        waiter.unregister(end)
                        ends.remove(end)
            return child.wait(), bytes(errors)


def _folder(path: str) -> str:
    """The real, absolute path of that folder; raises `_Unreadable` when there is none."""
    expanded = os.path.expanduser(path)
    try:
        mode = os.stat(expanded).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise _Unreadable("does not exist; clone it there, or take it out of [git_metrics]") from None
    except PermissionError:
        raise _Unreadable(explain("Permission denied")) from None
    except (OSError, ValueError) as error:
        raise _Unreadable(f"cannot be a path ({error}); write another in [git_metrics]") from None
    if not stat.S_ISDIR(mode):
        raise _Unreadable("is not a directory; name the folder that holds .git, or a bare repository")
    return os.path.realpath(expanded)


def _environment(inherited: Mapping[str, str], *trusted: str) -> dict[str, str]:
    """The environment of git: nothing of the caller's repository, English, and `trusted` folders of any owner."""
    kept = {name: value for name, value in inherited.items() if name in _KEPT_VARIABLES or not name.startswith("GIT_")}
    # the safe.directory of the command scope: these folders and no other
    settings = (*_SETTINGS, *(("safe.directory", folder) for folder in dict.fromkeys(trusted)))
    for number, (key, value) in enumerate(settings):
        kept |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return kept | {
        "GIT_CONFIG_COUNT": str(len(settings)),
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_FLUSH": "0",  # whole buffers: by itself git wakes us for each commit
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": "none",  # a partial clone would fetch, file by file, what it lacks
        "GIT_NO_LAZY_FETCH": "1",
        "LC_ALL": "C",
    }


def _never() -> None:
    """Stands where nobody may cancel."""
