"""Every error class of taskloop, each with the facts as attributes and the mend in its text.

Level 0: knows nothing of the other modules. One class a mend, not one a place. Each has a built-in parent beside
`TaskloopError`, so that `except ValueError` does what a stranger expects. A text says what was given, what is
allowed, and after "; " what to do about it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskloop.runs import Run

__all__ = [
    "BadCron",
    "BadDuration",
    "BadInstant",
    "BadJob",
    "BadParameters",
    "BadRate",
    "BadSettings",
    "BadStore",
    "BadToken",
    "BadTrigger",
    "BadValue",
    "ClusterUnavailable",
    "Conflict",
    "KeyConflict",
    "MissingExtra",
    "NoCurrentRun",
    "NoSuchJob",
    "NoSuchRun",
    "NoSuchSchedule",
    "NoSuchStep",
    "NoSuchToken",
    "NotInjected",
    "NotRunning",
    "ProcessDied",
    "RunFailed",
    "StoreUnavailable",
    "TakenOver",
    "TaskloopError",
    "Unstorable",
    "nearest",
    "raised_at",
]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, or None when none is near enough to be meant."""
    from difflib import get_close_matches

    matches = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


class TaskloopError(Exception):
    """The parent of all errors that taskloop raises on purpose.

    Every one can be pickled, whatever its constructor takes: an attempt in another process sends its error home. An
    attribute that cannot be pickled arrives as the text it is shown by.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        facts = {name: value if _portable(value) else _shown(value) for name, value in vars(self).items()}
        return _restored, (type(self), self.args), facts


def raised_at(error: BaseException) -> str:
    """The file and line that raised it; empty: it was not raised."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return "" if frame is None else f"{frame.tb_frame.f_code.co_filename}:{frame.tb_lineno}"


def _restored(kind: type[TaskloopError], args: tuple[Any, ...]) -> TaskloopError:
    """An error whose text was made before: its constructor is not called again."""
    error = kind.__new__(kind, *args)
    error.args = args
    return error


def _portable(value: object) -> bool:
    import pickle

    try:
        pickle.dumps(value)
    except Exception:  # any error: what was given to us is foreign code
        return False
    return True


class BadDuration(TaskloopError, ValueError):
    """A length of time that cannot be read or lies outside what is allowed."""

    def __init__(self, got: object, why: str) -> None:
        self.got = got
        self.why = why
        super().__init__(
            f"duration {_shown(got)}: {why}; write seconds as a number, or text such as '90s', '5m', '1h30m', '2w', "
            "'PT1H30M', up to 100 years"
        )


class BadRate(TaskloopError, ValueError):
    """A count in a length of time that cannot be read."""

    def __init__(self, got: object, most: int) -> None:
        self.allowed: str = f'a count from 1 to {most} and a duration, such as "30/1m" or "5/1h"'
        super().__init__(f"rate {_shown(got)}: allowed is {self.allowed}")


class BadInstant(TaskloopError, ValueError):
    """A point in time that cannot be read, or that names no zone."""

    def __init__(self, got: object, why: str, *, fixed: bool = False, back: bool = False) -> None:
        """`fixed`: a time from now is not allowed either. `back`: a length of time alone means that long ago."""
        self.got = got
        self.why = why
        iso, ahead = (
            "ISO 8601 with an offset ('2026-03-01T02:00:00+01:00')",
            "" if fixed else ", or the time back from now ('2h')" if back else ", or the time from now ('+2h')",
        )
        # Whoever gave a text, on a page or a command line, cannot give a datetime.
        aware = "" if isinstance(got, str) else f"an aware datetime{' or' if fixed else ','} "
        super().__init__(f"instant {_shown(got)}: {why}; give {aware}{iso}{ahead}")


class BadValue(TaskloopError, ValueError):
    """An argument that cannot be and has no error of its own: no event or state of that name, a limit below zero."""


class BadTrigger(TaskloopError, ValueError):
    """A trigger that cannot be read or can never fire."""

    def __init__(self, got: object, why: str, *, what: str = "trigger") -> None:
        self.got = got
        self.why = why
        super().__init__(f"{what} {_shown(got)}: {why}")


class BadCron(BadTrigger):
    """A cron expression with a field that cannot be: `.expression`, `.field`, `.got`, `.allowed`."""

    def __init__(self, expression: str, *, field: str | None, got: str, allowed: str, mend: str = "") -> None:
        self.expression = expression
        self.field = field
        self.allowed = allowed
        where = f"{field} is {_shown(got, quote=False)}" if field else _shown(got, quote=False)
        super().__init__(expression, f"{where}, allowed {allowed}" + (f"; {mend}" if mend else ""))
        self.got = got
        self.args: tuple[Any, ...] = (f"cron {_shown(expression)}: {self.why}",)


class BadJob(TaskloopError, ValueError):
    """A job, flow or policy that cannot be declared like that."""


def _joined(text: str) -> str:
    """A complaint behind the name it is about: "is missing" goes on, "input should be …" is a sentence of its own."""
    return f"{':' if text.startswith('input ') else ''} {text}"


class BadParameters(TaskloopError, ValueError):
    """Parameters that do not fit the job's signature; `.problems` maps a parameter's name to what is wrong."""

    def __init__(self, job: str, problems: dict[str, str]) -> None:
        self.job = job
        self.problems = problems
        listed = "; ".join(f"parameter '{name}'{_joined(text)}" for name, text in problems.items())
        super().__init__(f"job '{job}': {listed}; `taskloop show {job}` lists its parameters")


class BadSettings(TaskloopError, ValueError):
    """Everything that is wrong with the configuration, one text a mistake in `.problems`."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems: list[str] = list(problems)
        super().__init__("\n".join(self.problems))


class NoSuchJob(TaskloopError, LookupError):
    """No job of that name is declared or remembered."""

    def __init__(
        self, name: str, near: str | None = None, *, schedule_of: str | None = None, elsewhere: bool = False
    ) -> None:
        """`elsewhere`: another program on the store has declared it."""
        self.name = name
        self.near = near
        mend = (f"did you mean '{near}'? " if near else "") + "`taskloop list` shows all"
        if schedule_of is not None:
            mend = (
                f"it is a schedule of job '{schedule_of}', and alone can be changed by reschedule(), or removed by "
                "unschedule() or `taskloop schedule remove`"
            )
        if elsewhere:
            mend = (
                "another one on its store declares it, or did, and the command line goes by that: `taskloop submit`, `taskloop "
                "rerun`, `taskloop schedule add`; or declare it here too"
            )
        super().__init__(f"no job '{_cut(name)}'{' in this program' if elsewhere else ''}; {mend}")


class NoSuchRun(TaskloopError, LookupError):
    """No run of that id is kept."""

    def __init__(self, run: object) -> None:
        self.run = run
        text, mend = _cut(str(run)), "it may have been pruned, `taskloop runs` shows what is kept"
        if isinstance(run, str) and run.isdecimal():  # of an address, where all is text
            text, mend = f"'{text}'", "that is a text, and the id of a run is a number; give it as int(...)"
        elif not isinstance(run, int):
            mend = "a run has a number; those of a job are in `runs(job)`, and a new one is asked for by `submit`"
        super().__init__(f"no run {text}; {mend}")


class NoCurrentRun(TaskloopError, LookupError):
    """`current_run()` was asked where no run is executing."""


class NoSuchSchedule(TaskloopError, LookupError):
    """No schedule of that id is stored."""

    def __init__(self, schedule: str) -> None:
        self.schedule = schedule
        super().__init__(f"no schedule '{_cut(schedule)}'; `taskloop schedule list` shows all")


class NoSuchStep(TaskloopError, LookupError):
    """The run, or the flow it is of, has no step of that name."""

    def __init__(self, step: str, job: str, near: str | None, steps: Iterable[str]) -> None:
        self.step = step
        meant = f"did you mean '{near}'? " if near else ""
        super().__init__(f"job '{job}' has no step '{_cut(step)}'; {meant}steps are: {', '.join(steps) or 'none'}")


class NoSuchToken(TaskloopError, LookupError):
    """There never was a token of that name or id."""

    def __init__(self, token: str) -> None:
        self.token = token
        super().__init__(f"no token '{_cut(token)}'; `taskloop token list` shows all")


class BadToken(TaskloopError, ValueError):
    """A token that cannot be made like that; `.allowed` says how it can."""

    def __init__(self, got: str, allowed: str) -> None:
        self.allowed = allowed
        super().__init__(f"{got}; allowed is {allowed}")


class Conflict(TaskloopError, RuntimeError):
    """What was asked for is well formed but the present state forbids it."""


class KeyConflict(Conflict):
    """The key names an earlier run of the job with other parameters; `.run` is that run's id."""

    def __init__(self, job: str, key: str, run: int) -> None:
        self.job = job
        self.key = key
        self.run = run
        super().__init__(
            f"job '{job}': key '{_cut(key)}' belongs to run {run}, which has other parameters; "
            "use another key, or the same parameters"
        )


class RunFailed(TaskloopError, RuntimeError):
    """The run whose value was awaited did not succeed, or its result is not kept as annotated; `.run` is its record."""

    def __init__(self, run: Run, text: str) -> None:
        self.run: Run = run
        super().__init__(text)


class NotRunning(TaskloopError, RuntimeError):
    """The verb needs a started scheduler, or the one it was called on belongs to another loop or process."""


class NotInjected(TaskloopError, TypeError):
    """A job was called plainly without what the engine injects; `.names` are the parameters."""

    def __init__(self, job: str, names: Sequence[str]) -> None:
        self.job = job
        self.names: list[str] = list(names)
        one = self.names[0]
        super().__init__(
            f"job '{job}' was called plainly, and {', '.join(map(repr, self.names))} is injected only where the "
            f"scheduler runs it; give {one}=... yourself, or submit it"
        )


class ProcessDied(TaskloopError, RuntimeError):
    """The process that carried out an attempt, or was to, ended before the job did."""


class ClusterUnavailable(TaskloopError, ConnectionError):
    """The cluster that was to carry out an attempt cannot be reached, or was lost meanwhile; `.address`."""

    def __init__(self, address: str, why: str) -> None:
        self.address = address
        super().__init__(
            f"Dask cluster at {address}: {why}; see whether its scheduler runs there, and that [dask] address, or "
            "TASKLOOP_DASK__ADDRESS, names it"
        )


class BadStore(TaskloopError, ValueError):
    """A store that must not be touched: foreign, newer than this program, corrupt, or of an unknown scheme."""


class TakenOver(BadStore):
    """A newer program has brought the store to a schema that this one does not know, and it writes there no more."""

    def __init__(self, shown: str, schema: int, known: int) -> None:
        self.schema = schema
        super().__init__(
            f"store {shown} was brought to schema {schema} by a newer taskloop, this one knows up to {known}; restart this "
            "program with the newer version"
        )


class Unstorable(TaskloopError, ValueError):
    """A value that no store can keep: no JSON, a number beyond 64 bits, a text that is no Unicode."""

    def __init__(self, why: str) -> None:
        self.why = why
        super().__init__(f"a value cannot be stored: {why}; give plain JSON: texts, numbers below 2**63, lists, tables")


class StoreUnavailable(TaskloopError, OSError):
    """The store did not answer or could not write: full, locked for long, gone, unreachable."""


class MissingExtra(TaskloopError, ImportError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(f"package '{package}' is not installed; run: pip install \"taskloop[{extra}]\"")


def _cut(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _shown(value: object, *, quote: bool = True) -> str:
    """A value as it stands in a message: short, on one line, texts in quotes."""
    if isinstance(value, str):
        return repr(_cut(value)) if quote else _cut(value)
    try:
        return _cut(repr(value))
    except Exception:  # a hostile __repr__ must not hide the error we are about to raise
        return f"a {type(value).__name__}"
