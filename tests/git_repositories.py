"""Git repositories for tests and benchmarks: small ones commit by commit, a large one through `git fast-import`."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

_QUIET = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}


class Repository:
    """A repository of its own, untouched by the settings and the environment of whoever runs this."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.git("init", "-q", "-b", "main", *options)

    def git(self, *arguments: str, given: bytes = b"", environment: Mapping[str, str] | None = None) -> str:
        """What git prints, without the last newline; raises CalledProcessError when it fails."""
        command = ["git", "-c", "core.quotePath=false", "-c", "protocol.file.allow=always", *arguments]
        outer = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=outer | _QUIET | dict(environment or {}),
            input=given,
            capture_output=True,
            check=True,
        )
        return done.stdout.decode("utf-8", "replace").removesuffix("\n")

    def commit(self, at: int, author: str = "Ann <ann@example.org>", **files: Any) -> str:
        """Commit those files (the rest stays) at that Unix second and return the hash; none: an empty commit.

        The contents are text or bytes.
        """
        for name, content in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        self.git("add", "-A")
        name, _, email = author.removesuffix(">").partition(" <")
        self.git("commit", "-q", "--allow-empty", "-m", "work", environment=people(at, name, email))
        return self.git("rev-parse", "HEAD")


def people(at: int, name: str = "Ann", email: str = "ann@example.org") -> dict[str, str]:
    """The variables that fix who commits and when."""
    return {
        f"GIT_{role}_{fact}": value
        for role in ("AUTHOR", "COMMITTER")
        for fact, value in (("NAME", name), ("EMAIL", email), ("DATE", f"{at} +0000"))
    }


def large(folder: Path, *, until: int, commits: int = 5500, seed: int = 1) -> Repository:
    """A bare repository with a straight history of that many commits, the last at `until` (Unix seconds).

    Each commit changes one to nine of 600 files of 120 lines and more, the early files more often, as in life; about
    800 authors, 2,000 days. Equal arguments give equal hashes.
    """
    repository = Repository(folder, "--bare")
    repository.git("fast-import", "--quiet", given=b"".join(_stream(until, commits, seed)))
    repository.git("repack", "-adq")
    return repository


def _stream(until: int, commits: int, seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    contents: dict[int, list[bytes]] = {}
    for number in range(commits):
        at = until - (commits - 1 - number) * 2000 * 86_400 // commits
        who = int(800 * chance.random() ** 3)
        yield b"commit refs/heads/main\ncommitter Author %d <a%d@example.org> %d +0000\ndata 1\nx\n" % (who, who, at)
        for file in {int(600 * chance.random() ** 2) for _ in range(chance.randint(1, 9))}:
            lines = contents.setdefault(file, [b"line %d of %d" % (line, file) for line in range(120)])
            for _ in range(chance.randint(1, 6)):
                lines[chance.randrange(len(lines))] = b"%08x" % chance.getrandbits(32)
            lines.insert(chance.randrange(len(lines)), b"added by commit %d" % number)
            yield _file(b"src/part%d/file%d.py" % (file % 23, file), lines)


def _file(path: bytes, lines: Iterable[bytes]) -> bytes:
    content = b"\n".join(lines) + b"\n"
    return b"M 100644 inline %s\ndata %d\n%s\n" % (path, len(content), content)
