"""What a submit gives: a run with ways to wait for what it comes to.

Level 3. A handle wraps the pure record, so that values of the lower rooms never reach upwards.
"""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

from taskloop.errors import RunFailed
from taskloop.jobs import Duration, Job
from taskloop.runs import Run, State

__all__ = ["RunHandle"]

T = TypeVar("T")


class _Waits(Protocol):
    async def wait(self, run_id: int, timeout: Duration | None = None) -> Run: ...


class RunHandle(Generic[T]):
    """A run that was asked for: its record as it was when asked, and ways to wait for what it comes to.

    Every field of `Run` can be read here too.
    """

    __slots__ = ("_job", "_ledger", "run")

    def __init__(self, run: Run, ledger: _Waits, job: Job[..., Any] | None = None) -> None:
        self.run: Run = run
        self._ledger = ledger
        self._job = job

    async def wait(self, timeout: Duration | None = None) -> Run:
        """Wait until the run is final and give its record, whatever it came to.

        Raises `TimeoutError` after `timeout` (None: waits as long as it takes); the run goes on.
        """
        return await self._ledger.wait(self.run.id, timeout)

    async def value(self, timeout: Duration | None = None) -> T:
        """Wait for the result, rebuilt by the job's return annotation. Raises `RunFailed` unless it succeeded."""
        run = await self.wait(timeout)
        if run.state is not State.SUCCEEDED:
            why = f": {run.error.type}: {run.error.message}" if run.error else f" ({run.reason})" if run.reason else ""
            raise RunFailed(run, f"run {run.id} of '{run.job}' {run.state}{why}; `taskloop show {run.id}` has the rest")
        value: T = self._job.parameters.value(run.result) if self._job else run.result
        return value

    def __getattr__(self, name: str) -> Any:
        return getattr(self.run, name)

    def __repr__(self) -> str:
        return f"<run {self.run.id} of {self.run.job} {self.run.state}>"
