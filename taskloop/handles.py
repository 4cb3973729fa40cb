"""What a submit makes, and what it gives: a run, with ways to wait for what it comes to.

Level 3. A handle wraps the pure record, so that values of the lower rooms never reach upwards.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, cast

from taskloop import durations
from taskloop.errors import RunFailed
from taskloop.jobs import Call, Duration, Job
from taskloop.parameters import check_words
from taskloop.runs import Cause, Failure, Progress, Run, RunId, State

__all__ = ["RunHandle", "asked"]

_NOTHING: Final[Mapping[str, Any]] = {}

T_co = TypeVar("T_co", covariant=True)


class _Waits(Protocol):
    async def wait(self, run_id: int, timeout: Duration | None = None) -> Run: ...


class RunHandle(Generic[T_co]):
    """A run that was asked for: its record as it was when asked, and ways to wait for what it comes to.

    Every field of `Run` can be read here too.
    """

    __slots__ = ("_job", "_ledger", "run")

    if TYPE_CHECKING:  # what `__getattr__` gives, by name: else any name would pass, and be anything
        id: RunId
        job: str
        schedule: str | None
        state: State
        status: str
        final: bool
        reason: str | None
        cause: Cause
        actor: str | None
        key: str | None
        params: Mapping[str, Any]
        attempt: int
        attempts: int
        due_at: datetime
        until_at: datetime | None
        ready_at: datetime
        expires_at: datetime | None
        created_at: datetime
        started_at: datetime | None
        attempt_started_at: datetime | None
        ended_at: datetime | None
        worker: str | None
        token: int
        priority: int
        group: str | None
        progress: Progress | None
        summary: str | None
        result: Any
        error: Failure | None
        rerun_of: RunId | None
        count: int
        data: Mapping[str, Any]
        existed: bool
    else:

        def __getattr__(self, name: str) -> Any:
            return getattr(self.run, name)

    def __init__(self, run: Run, ledger: _Waits, job: Job[..., Any]) -> None:
        self.run: Run = run
        self._ledger = ledger
        self._job = job

    async def wait(self, timeout: Duration | None = None) -> Run:
        """Wait until the run is final and give its record, whatever it came to.

        Raises `TimeoutError` after `timeout` (None: waits as long as it takes); the run goes on.
        """
        return await self._ledger.wait(self.run.id, timeout)

    async def value(self, timeout: Duration | None = None) -> T_co:
        """Wait for the result, rebuilt by the job's return annotation.

        Raises `RunFailed` unless it succeeded, and where what is kept of its result does not fit that annotation.
        """
        run = await self.wait(timeout)
        if run.state is not State.SUCCEEDED:
            why = f": {run.error.told()}" if run.error else f" ({run.reason})" if run.reason else ""
            failed = RunFailed(
                run, f"run {run.id} of '{run.job}' {run.state}{why}; `taskloop show {run.id}` has the rest"
            )
            if run.error and run.error.traceback:
                failed.add_note(run.error.traceback.rstrip())
            raise failed
        try:
            return cast("T_co", self._job.parameters.value(run.result))
        except Exception as error:  # of the annotation's own code
            kept = run.result if isinstance(run.result, dict) else {}
            note = f", of which only a note is kept: {kept['note']}" if set(kept) == {"type", "note"} else ""
            raise RunFailed(
                run,
                f"run {run.id} of '{run.job}' succeeded, but its result{note or ', as it is kept,'} does not fit its "
                "annotation; `.result` of its record has what is kept",
            ) from error

    def __repr__(self) -> str:
        return f"<run {self.run.id} of {self.run.job} {self.run.state}>"


def asked(
    call: Call[Any],
    now: datetime,
    at: datetime | timedelta | str | None = None,
    *,
    cause: Cause = Cause.MANUAL,
    key: str | None = None,
    actor: str | None = None,
    reason: str | None = None,
) -> Run:
    """A run of `call` as somebody asks for it at `now`, not yet in any store."""
    check_words(key=key, actor=actor, reason=reason)
    policy = call.job.policy
    ready_at = durations.instant(at, now) if at is not None else now
    return Run(
        job=call.job.name,
        cause=cause,
        actor=actor,
        key=key,
        params=call.params,
        attempts=policy.retry.attempts,
        due_at=ready_at,
        ready_at=ready_at,
        created_at=now,
        priority=policy.priority,
        group=policy.group,
        data={"asked_because": reason} if reason else _NOTHING,
    )
