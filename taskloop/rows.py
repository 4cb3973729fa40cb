"""Rows of a store and the values they stand for: columns, texts and numbers, the same in every database.

Level 5. The order of the columns is said once here, for writing and for reading.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, fields
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from taskloop import triggers
from taskloop.clock import from_microseconds, microseconds
from taskloop.errors import TaskloopError
from taskloop.masking import read_params, tagged
from taskloop.runs import Cause, Failure, Progress, Run, RunId, State
from taskloop.schedules import Schedule
from taskloop.steps import LogLine
from taskloop.store_data import Attempt, Brief, Newest, Span, Worker

Row = tuple[Any, ...]
Column = Sequence[Any]
Writer = Callable[[Column], Column]

LINES_A_PART: Final = 2**25
"""More than a part of a log can have lines, where the log of an attempt is 1 GB at most and each line takes 40 characters."""

RUN_COLUMNS: Final = (
    "id",
    "job",
    "schedule",
    "state",
    "reason",
    "cause",
    "actor",
    "key",
    "params",
    "attempt",
    "attempts",
    "due_at",
    "until_at",
    "ready_at",
    "expires_at",
    "created_at",
    "started_at",
    "attempt_started_at",
    "ended_at",
    "worker",
    "token",
    "priority",
    "progress",
    "summary",
    "result",
    "error",
    "rerun_of",
    "count",
    "data",
    '"group"',
)
NEW_COLUMNS: Final = tuple(
    name
    for name in RUN_COLUMNS
    if name not in ("reason", "until_at", "ended_at", "progress", "summary", "result", "error")
)
"""What there is to say of a run that waits or begins: each value more costs a run of which little is to be said 0.3 µs."""
SCHEDULE_COLUMNS: Final = (
    "id",
    "job",
    "trigger",
    "params",
    "next_due",
    "last_due",
    "anchor",
    "seen_at",
    "enabled",
    "origin",
)
WORKER_COLUMNS: Final = (
    "id",
    "name",
    "host",
    "pid",
    "process",
    "started_at",
    "beat_at",
    "stopped_at",
    "beat_tick",
    "ended",
    "fires",
    "jobs",
    "version",
    "health",
)
ATTEMPT_COLUMNS: Final = ("attempt", "started_at", "ended_at", "outcome", "worker", "error", "token")
# `json.dumps` with arguments of one's own would make an encoder for each value.
_encoded: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, default=tagged).encode
_encoded_result: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_STATES: Final = {state.value: state for state in State}
_CAUSES: Final = {cause.value: cause for cause in Cause}


def encode(value: Any) -> str | None:
    """JSON for a column; None for an empty mapping, which most rows have."""
    if value in (None, {}):
        return None
    return _encoded(value)


def told(value: Any) -> str | None:
    """`encode` for what a worker says of itself, which is never refused: the name of a file may hold what is no text."""
    text = encode(value)
    return text if text is None or text.isascii() else text.encode(errors="replace").decode()


def moment(instant: datetime | None) -> int | None:
    return None if instant is None else microseconds(instant)


_OF_PROGRESS, _OF_FAILURE = len(fields(Progress)), len(fields(Failure))
"""What is read of each: more is of a later version, beside which this one may run for a while."""
_instant_of: Final = lru_cache(1024)(from_microseconds)
"""Most instants of a row are also those of another column or of the row before: a sixth of the time, and one object."""


def instant(moment: int | None) -> datetime | None:
    return None if moment is None else _instant_of(moment)


def write_run(run: Run) -> Row:
    """The values of RUN_COLUMNS."""
    return (
        run.id,
        run.job,
        run.schedule,
        run.state.value,
        run.reason,
        run.cause.value,
        run.actor,
        run.key,
        encode(run.params),
        run.attempt,
        run.attempts,
        microseconds(run.due_at),
        moment(run.until_at),
        microseconds(run.ready_at),
        moment(run.expires_at),
        microseconds(run.created_at),
        moment(run.started_at),
        moment(run.attempt_started_at),
        moment(run.ended_at),
        run.worker,
        run.token,
        run.priority,
        write_progress(run.progress),
        run.summary,
        write_result(run.result),
        write_failure(run.error),
        run.rerun_of,
        run.count,
        encode(run.data),
        run.group,
    )


def is_new(run: Run) -> bool:
    """Whether nothing has become of a run, so that NEW_COLUMNS say all of it."""
    return (
        run.ended_at is None
        and run.reason is None
        and run.until_at is None
        and run.progress is None
        and run.summary is None
        and run.result is None
        and run.error is None
    )


def new_columns(runs: Sequence[Run]) -> list[Column]:
    """The values of NEW_COLUMNS, a column each; of no runs no columns."""
    return columns_of(runs, _new_values, _NEW_WRITERS)


def columns_of(records: Sequence[Any], values: Callable[[Any], Row], writers: Sequence[Writer | None]) -> list[Column]:
    """What `values` gives of records, a column each, as its writer has it; None: as it is. Of no records no columns."""
    columns = zip(*map(values, records), strict=True)
    return [column if write is None else write(column) for column, write in zip(columns, writers, strict=bool(records))]


def _once(write: Callable[[Any], Any]) -> Writer:
    """Writes a column value by value, but one value that all have only once: most have, and it costs as much as the rest."""

    def column(values: Column) -> Column:
        first = values[0]
        return (write(first),) * len(values) if values.count(first) == len(values) else tuple(map(write, values))

    return column


def write_mappings(values: Column) -> Column:
    """Mappings as JSON, each by itself: 1 and True are equal, and not the same text."""
    return tuple(encode(one) if one else None for one in values) if any(values) else (None,) * len(values)


def write_results(values: Column) -> Column:
    """What runs returned as JSON, each by itself."""
    return tuple(map(write_result, values))


write_words: Final = _once(attrgetter("value"))
write_moments: Final = _once(moment)
_new_values: Final = attrgetter(*(name.strip('"') for name in NEW_COLUMNS))
_NEW_WRITERS: Final = tuple(
    write_moments
    if name.endswith("_at")
    else {"state": write_words, "cause": write_words, "params": write_mappings, "data": write_mappings}.get(name)
    for name in NEW_COLUMNS
)


def read_run(row: Sequence[Any]) -> Run:
    """The run of a row of RUN_COLUMNS."""
    return Run(
        id=row[0],
        job=row[1],
        schedule=row[2],
        state=_STATES[row[3]],
        reason=row[4],
        cause=_CAUSES[row[5]],
        actor=row[6],
        key=row[7],
        params=read_params(row[8]),
        attempt=row[9],
        attempts=row[10],
        due_at=_instant_of(row[11]),
        until_at=instant(row[12]),
        ready_at=_instant_of(row[13]),
        expires_at=instant(row[14]),
        created_at=_instant_of(row[15]),
        started_at=instant(row[16]),
        attempt_started_at=instant(row[17]),
        ended_at=instant(row[18]),
        worker=row[19],
        token=row[20],
        priority=row[21],
        progress=Progress(*json.loads(row[22])[:_OF_PROGRESS]) if row[22] else None,
        summary=row[23],
        result=json.loads(row[24]) if row[24] else None,
        error=read_failure(row[25]),
        rerun_of=row[26],
        count=row[27],
        data=json.loads(row[28]) if row[28] else {},
        group=row[29],
    )


def newest_of(rows: Iterable[Sequence[Any]]) -> dict[str, Newest]:
    """By job what a history's `newest` found."""
    return {
        name: Newest(
            RunId(run), _STATES[state], instant(success), failures, _told_by(*told_by), instant(since), bool(begun)
        )
        for name, run, state, success, failures, since, *told_by, begun in rows
    }


def _told_by(state: str | None, reason: str | None, summary: str | None, error: str | None) -> str | None:
    """What is wrong with a run that failed, in a line: its error, by its type and message, else how it ended.

    None: there is no such run. The error of one that was interrupted is that of an attempt before.
    """
    if state == State.FAILED and (kind := _type_within(error)):
        return f"{kind}: {summary}" if summary else f"{kind}, without a message"
    if summary or state is None:
        return summary
    return f"{state}: {reason.replace('_', ' ')}" if reason else state


def _type_within(error: str | None) -> str | None:
    """The type of an error of which the beginning is given, as `write_failure` wrote it: it stands there first."""
    try:
        return str(json.JSONDecoder().raw_decode(error, 1)[0]) if error else None
    except ValueError:  # longer than any that is written
        return None


SPAN: Final = "id, job, state, reason, due_at, started_at, ended_at, count"
"""The columns of a `Span`."""


def read_span(row: Sequence[Any]) -> Span:
    """The span of a row of `SPAN`."""
    id, job, state, reason, due_at, started_at, ended_at, count = row
    began = None if started_at is None else from_microseconds(started_at)  # all three differ from those of other rows
    ended = None if ended_at is None else from_microseconds(ended_at)
    return Span(
        id=id, job=job, state=_STATES[state], reason=reason, due_at=from_microseconds(due_at), started_at=began,
        ended_at=ended, count=count
    )  # fmt: skip


def briefs(rows: Iterable[Sequence[Any]]) -> list[Brief]:
    """What a history's `recent` found of one job."""
    return [Brief(row[0], _STATES[row[1]], None if row[2] is None else max(0.0, row[2])) for row in rows]


def attempts_of(run: Run, rows: Sequence[Sequence[Any]]) -> list[Attempt]:
    """The calls inside a run, of rows of ATTEMPT_COLUMNS, the oldest first. The last call may stand in the run alone."""
    found = [Attempt(row[0], instant(row[1]), instant(row[2]), row[3], row[4], failure_facts(row[5])) for row in rows]
    if run.attempt and run.state is not State.WAITING and run.token not in [row[6] for row in rows]:
        error = failure_facts(write_failure(run.error))
        found.append(Attempt(run.attempt, run.attempt_started_at, run.ended_at, run.state.value, run.worker, error))
    return found


def write_progress(progress: Progress | None) -> str | None:
    if progress is None:
        return None
    beyond = [progress.ahead] if progress.ahead else []
    return encode([progress.done, progress.total, progress.message, progress.rate, progress.eta_seconds, *beyond])


def write_failure(error: Failure | None) -> str | None:
    return None if error is None else encode([error.type, error.message, error.traceback, error.fingerprint])


def read_failure(text: str | None) -> Failure | None:
    """What `write_failure` wrote."""
    return Failure(*json.loads(text)[:_OF_FAILURE]) if text else None


def failure_facts(text: str | None) -> dict[str, Any] | None:
    """What `write_failure` wrote, by name."""
    return asdict(error) if (error := read_failure(text)) else None


def write_result(result: Any) -> str | None:
    return None if result is None else _encoded_result(result)


def schedule_columns(schedules: Sequence[Schedule]) -> list[Column]:
    """The values of SCHEDULE_COLUMNS, a column each; of no schedules no columns."""
    return columns_of(schedules, _schedule_values, _SCHEDULE_WRITERS)


@lru_cache(4096)
def _trigger_text(trigger: Any) -> str:
    return str(trigger)  # a million schedules share a few triggers, and their text costs as much as their row


_schedule_values: Final = attrgetter(*SCHEDULE_COLUMNS)
_SCHEDULE_WRITERS: Final[Sequence[Writer | None]] = tuple(
    write_moments
    if name in ("next_due", "last_due", "anchor", "seen_at")
    else {
        "trigger": lambda values: tuple(map(_trigger_text, values)),
        "params": write_mappings,
        "enabled": _once(int),
    }.get(name)
    for name in SCHEDULE_COLUMNS
)


@lru_cache(maxsize=8192)
def _trigger(text: str) -> triggers.Trigger:
    try:
        return triggers.parse(text)
    except TaskloopError as error:  # a zone that this system does not know, or a word of a later version
        return triggers.Unreadable(text, str(error))


def read_schedule(row: Sequence[Any]) -> Schedule:
    """The schedule of a row of SCHEDULE_COLUMNS."""
    return Schedule(
        id=row[0],
        job=row[1],
        trigger=_trigger(row[2]),
        params=read_params(row[3]),
        next_due=instant(row[4]),
        last_due=instant(row[5]),
        anchor=instant(row[6]),
        seen_at=_instant_of(row[7]),
        enabled=bool(row[8]),
        origin=row[9],
    )


def part_of(place: int) -> int:
    """The number of the first part of a log that has lines from that place on."""
    return place // LINES_A_PART


def read_lines(rows: Sequence[tuple[int, str]], place: int, limit: int) -> tuple[list[LogLine], int]:
    """Lines of the parts of a log from a place on, at most `limit`, and the place of what follows them.

    A place is the number of a part and how many of its lines were read; of one that was read to its end it is the
    beginning of the next number, so that what is written later is found from there.
    """
    found: list[LogLine] = []
    for part, text in rows:
        if len(found) >= limit:
            break
        said = json.loads(text)
        first = place % LINES_A_PART if part == part_of(place) else 0
        end = first + limit - len(found)
        found += [LogLine(from_microseconds(at), level, words, step) for at, level, words, step in said[first:end]]
        place = part * LINES_A_PART + end if end < len(said) else (part + 1) * LINES_A_PART
    return found, place


def worker_values(worker: Worker) -> Row:
    """The values of WORKER_COLUMNS."""
    return (
        worker.id,
        worker.name,
        worker.host,
        worker.pid,
        worker.process,
        microseconds(worker.started_at),
        microseconds(worker.beat_at),
        moment(worker.stopped_at),
        worker.beat_tick,
        worker.ended,
        int(worker.fires),
        None if worker.jobs is None else json.dumps(sorted(worker.jobs)),
        worker.version,
        told(dict(worker.health)),
    )


def read_worker(row: Sequence[Any]) -> Worker:
    """The worker of a row of WORKER_COLUMNS."""
    return Worker(
        id=row[0],
        name=row[1],
        host=row[2],
        pid=row[3],
        process=row[4],
        started_at=_instant_of(row[5]),
        beat_at=_instant_of(row[6]),
        stopped_at=instant(row[7]),
        beat_tick=row[8],
        ended=row[9],
        fires=bool(row[10]),
        jobs=_names(row[11]) if row[11] else None,
        version=row[12],
        health=json.loads(row[13]) if row[13] else {},
    )


@lru_cache(64)
def _names(text: str) -> frozenset[str]:
    """The jobs of a worker: of a hundred workers nearly all have the same."""
    return frozenset(json.loads(text))
