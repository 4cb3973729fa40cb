"""Jobs that have a store: where it is, how it is opened on the loop that asks, and how all of that ends with a fork.

Level 5. Making one opens nothing. `Ledger` puts the verbs on records on top of it; each begins with `_opened`.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from taskloop.clock import Clock, SystemClock
from taskloop.errors import BadSettings, Conflict, NotRunning
from taskloop.jobs import Job, Jobs
from taskloop.logs import QUIET, Speaker
from taskloop.options import Options
from taskloop.processes import current_folder
from taskloop.runs import RunId
from taskloop.store import Store, open_store
from taskloop.tasks import this_loop

if TYPE_CHECKING:
    from taskloop.settings import Settings

__all__ = ["Housed"]


def _mistakes(config: Any, options: Any, name: Any, clock: Any) -> Iterator[str]:
    """What is no such thing at all of what a scheduler is made with: told here, not where it is used first."""
    if not isinstance(config, str | os.PathLike | None):
        yield f"config is a {type(config).__name__}; the path of a file is allowed, such as 'config.toml'"
    if not isinstance(options, Options | None):
        yield f"options is a {type(options).__name__}; Options(...) is allowed, such as Options(threads=8)"
    if not isinstance(name, str | None):
        yield f"name is a {type(name).__name__}; a text is allowed, such as 'web-1'"
    if clock is not None and (
        isinstance(clock, type) or not all(callable(getattr(clock, one, None)) for one in _CLOCK)
    ):
        yield f"clock is {clock!r:.200}; an object with now() and monotonic() is allowed, such as SystemClock()"


_CLOCK: Final = ("now", "monotonic")


class Housed(Jobs):
    """Jobs, and the store that remembers them: configured, opened at first use, closed."""

    def __init__(
        self,
        store: Any = None,
        *,
        config: str | Path | None = None,
        options: Options | None = None,
        name: str | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__()
        if mistakes := list(_mistakes(config, options, name, clock)):
            raise BadSettings(mistakes)
        self.name = name
        self.options: Options = options or Options()
        self.speaker: Speaker = Speaker()
        """Writes the log lines; inside another program warnings only, unless somebody asks for more."""
        self._own_options = options
        """Those given when made; None: the configuration's."""
        self._set_aside: Options | None = None
        """Those given when made, for which others were taken."""
        self._config = config
        self._is_configured = options is not None
        self._was_read = False
        """Whether the configuration was read here, and is laid around the jobs as soon as that is so."""
        self._reading = threading.Lock()
        self._given = self._address = store
        self._store: Store | None = open_store(store) if store is not None else None
        self._store_is_open = False
        self._folder: str | None = None
        """Where relative addresses begin: the current folder when the store was first opened."""
        self._openers = 0
        """Verbs that wait for one opening of the store: none of them opens another."""
        self._clock: Clock = clock or SystemClock()
        self._home: asyncio.AbstractEventLoop | None = None
        """The loop on which the store was opened."""
        self._forked_from: int | None = None
        """The process in which the store was opened, if this one is its child."""

    def configure(self, options: Options, *, store: Any = None) -> None:
        """Take these options instead of what the environment says, and `store` unless one was given when made."""
        self._set_aside = self._own_options
        self.options, self._is_configured = options, True
        if self._store is None and store is not None:
            self._address = store

    def _say(self, level: str, name: str, **fields: Any) -> None:
        """Write a log line, by whoever is the speaker by then: a command line takes its own."""
        self.speaker.say(level, name, **fields)

    @property
    def address(self) -> Any:
        """The store's address, or the Store, given when made; None: the configuration's."""
        return self._given

    async def _configure(self) -> None:
        """Read the configuration once: the environment, and the file if one was named. Raises `BadSettings`."""
        if self._is_configured:
            return
        named = any(name.startswith(("TASKLOOP_", "TASK_SCHEDULER_")) for name in os.environ)
        if self._config is not None or named:
            # In a thread: the settings library takes longer to import than a host's loop may stand still.
            settings = await asyncio.to_thread(self._read_configuration)
            if settings is not None:
                self._heed(settings)
            self._configure_jobs(self)  # what it raises each verb raises, until it is mended
        self._is_configured = True

    def _configure_jobs(self, jobs: Iterable[Job[..., Any]]) -> None:
        """Lay what the configuration says around what each job says of itself."""
        for job in jobs:
            options, name = self.options, job.name
            job.configure(
                options.defaults, options._laid_over(name), options.triggers.get(name), options.params.get(name)
            )

    def _heed(self, settings: Settings) -> None:
        """Say what looks like a mistake in the configuration, and that it is dev mode, as loud as it wants us to be."""
        if settings.is_given("log", "level") and self.speaker.level == QUIET:
            self.speaker.level = settings.log.level
        for text in settings.warnings:
            self._say("WARNING", "config.warning", text=text)
        if settings.banner:
            self._say("WARNING", "dev.mode", text=settings.banner)

    def _read_configuration(self) -> Settings | None:
        """Read it, unless another verb has just done so: None."""
        from taskloop.built_in import declare
        from taskloop.settings import load

        with self._reading:
            if self._was_read:
                return None
            settings = load(self._config, files=self._config is not None)
            self.options = settings.options()
            if self._config is not None:
                declare(self, settings, unasked=False)
            if self.options.dev is not None and isinstance(self._address, str | Path):
                self._store = self._address = None  # dev mode never touches the real store
            self._was_read = True
        return settings

    async def _opened(self) -> Store:
        """The store, opened at first use. Raises `NotRunning` in another process or on another loop than then."""
        if self._home is not this_loop():
            await self._come_home()
        if self._store_is_open and self._store is not None:
            return self._store
        await self._configure()
        if (
            not self._store_is_open
            and not self._openers
            and (self._store is None or isinstance(self._address, str | Path))
        ):
            if self._folder is None:  # a job may go to another one
                self._folder = current_folder()
            self._store = open_store(
                self._address or self.options.store_url,
                synchronous=self.options.synchronous,
                folder=self._folder,
                statement_cache_size=self.options.statement_cache_size,
            )
        store = self._store
        assert store is not None
        if not self._store_is_open:
            self._openers += 1
            try:
                await store.open()
            finally:
                self._openers -= 1
            self._store_is_open = True
            store.on_ended(self._ended_elsewhere)
            _OPEN.add(self)
        return store

    def _ended_elsewhere(self, runs: Sequence[RunId]) -> None:
        """Other processes have told that runs have ended."""

    def _refuse_a_fork(self) -> None:
        if self._forked_from is not None:
            raise NotRunning(
                f"the scheduler was open in process {self._forked_from} when that forked, and this is its child "
                f"{os.getpid()}: nothing of it runs here, and its store cannot be opened here; start it after the fork, "
                "in the process that is to use it"
            )

    async def _come_home(self) -> None:
        """Make this loop the one that the store is opened on, unless another one has it."""
        self._refuse_a_fork()
        if self._store_is_open and self._home is not None:
            if not self._home.is_closed():
                raise NotRunning(
                    "the scheduler belongs to another event loop; use it there, or from another thread by "
                    "scheduler.call(function, ...)"
                )
            await self.close()  # the loop that had it is gone, and with it whoever wrote there
        self._home = asyncio.get_running_loop()

    def _is_forked(self, parent: int) -> None:
        """This process is a fork of the one that uses the store: forget all that belongs to that one."""
        self._forked_from = parent
        self._home, self._store_is_open = None, False

    def furnish(self, *, store: Any = None, clock: Clock | None = None) -> None:
        """Give a ledger whose store is closed another store or clock: what a test does to a program's scheduler."""
        if self._store_is_open:
            raise Conflict("the store is open; stop the scheduler, or close the ledger, first")
        if store is not None:
            self._store = self._address = open_store(store)
        self._clock = clock or self._clock

    async def close(self, within: float = 10.0) -> None:
        """Let go of the store, in about `within` seconds; the next verb opens it again."""
        _OPEN.discard(self)
        if self._store is not None and self._store_is_open:
            self._store_is_open = False
            await self._store.close(within)


_OPEN: Final[weakref.WeakSet[Housed]] = weakref.WeakSet()
"""Those whose store is open in this process."""


def _forked() -> None:
    parent, housed = os.getppid(), list(_OPEN)
    _OPEN.clear()
    for one in housed:
        one._is_forked(parent)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
