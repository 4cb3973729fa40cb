"""taskloop: background jobs inside an asyncio server, with a durable record of every fire.

The rooms, from the ground up; each imports only from rooms below it:

    errors frozen clock durations address         what went wrong; where time comes from; "2w"; which store, read quickly
    annotations                            the types of what a function takes
    runs steps outcomes retry punctuality  a run's states; its steps and log; what a call came to; waits; late and stuck
    masking                                parameters that are shown nowhere
    triggers cron events context           when next; what happened; what a running job sees
    parameters misfits inject policy       what a job takes; what is wrong with it; what it is given; how it is treated
    given sections file_jobs inquiry       what a configuration may say, and its jobs; what a verb is given
    jobs flows handles                     what is declared; a run that was asked for
    schedules options switches signs tokens audit     which fires are due; limits; switches; signs; who comes in, and who changed what
    simulation rehearsal                   what would happen; the runs of a span walked on paper
    store store_data records               what a memory must do; what it takes and gives; JSON of everything
    executors processing executor_dask attempts     where a function is called: a process, a cluster; one call of it
    injecting stepping audience            what is entered around it; the steps of a run; who waits and listens
    processes logs signals calls pings     who is alive; log lines; SIGTERM and its kin; the web; health-check services
    runlog capture loop_thread             the log of a run; what its job says to the host's loggers; a loop in a thread
    tasks outside                          tasks that do not end; whether one waits for a socket or a driver
    watchdog moments chain why             who holds the loop; what is asked; the links of a fire; which of them broke
    attendance conditions                  since when somebody is there to fire; what needs a person
    housing switching scheduling ledger    jobs with a store; their switches; stored schedules; runs: the verbs
    declaring advice looking               what a start changes, its usual mistakes; how all stands
    keyring explaining outlook             the verbs on tokens; why something is so; what is to come
    life slots firing tending              what these have in common; runs in hand; the fire loop; housekeeping
    journal pulse guard starting scheduler  what disturbed us; beats; what watches over all; how it begins; the engine
    rows fates retention gathering         rows of a store; what becomes of fires, claims, ends; what stays; group commit
    store_sqlite file_sqlite threads_sqlite rows_sqlite statements_sqlite claims_sqlite     the memory in one file
    history_sqlite keeping_sqlite past_sqlite pruning_sqlite     its questions; workers, switches; the past; what goes
    steps_sqlite tokens_sqlite audit_sqlite copying_sqlite batches_sqlite writing_sqlite   steps, logs; tokens; audit; backups; transactions; group commit
    copying transfer_*                     from one store into another; how each kind gives and takes its tables
    *_postgres                             the memory in PostgreSQL, room by room; server_postgres knows the driver
    settings targets                       configuration; the functions it names
    testing loop_time pytest_plugin        virtual time for tests; the time of a loop in their hands; as a fixture
    built_in git_metrics git_history git_stamp     the jobs that come along
    background metrics tracing systemd     a scheduler on a thread of its own; figures for Prometheus; spans; word to systemd
    attention                              what needs a person, told once when it comes and when it is over
    shell                                  a command line as a job
    web                                    the admin surface over HTTP
    cli migrate                            the command line; jobs of other schedulers as configuration

Start reading at `scheduler`. The names below are the public ones; each is imported when first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from taskloop.background import BackgroundTasks
    from taskloop.context import RunContext, current_run
    from taskloop.errors import TaskloopError
    from taskloop.events import Event
    from taskloop.flows import Flow
    from taskloop.handles import RunHandle
    from taskloop.inject import Inject
    from taskloop.jobs import Call, Job, Jobs
    from taskloop.options import Options
    from taskloop.retry import Fatal, Retry, RetryAt
    from taskloop.runs import Run, State
    from taskloop.scheduler import TaskScheduler
    from taskloop.schedules import Schedule
    from taskloop.triggers import At, Cron, Every, Trigger

__version__ = "0.1.0"

_HOMES = {
    "At": "triggers",
    "BackgroundTasks": "background",
    "Call": "jobs",
    "Cron": "triggers",
    "Event": "events",
    "Every": "triggers",
    "Fatal": "retry",
    "Flow": "flows",
    "Inject": "inject",
    "Job": "jobs",
    "Jobs": "jobs",
    "Options": "options",
    "Retry": "retry",
    "RetryAt": "retry",
    "Run": "runs",
    "RunContext": "context",
    "RunHandle": "handles",
    "Schedule": "schedules",
    "State": "runs",
    "TaskScheduler": "scheduler",
    "TaskloopError": "errors",
    "Trigger": "triggers",
    "current_run": "context",
}

__all__ = [
    "At",
    "BackgroundTasks",
    "Call",
    "Cron",
    "Event",
    "Every",
    "Fatal",
    "Flow",
    "Inject",
    "Job",
    "Jobs",
    "Options",
    "Retry",
    "RetryAt",
    "Run",
    "RunContext",
    "RunHandle",
    "Schedule",
    "State",
    "TaskScheduler",
    "TaskloopError",
    "Trigger",
    "current_run",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'taskloop' has no attribute '{name}'")
    from importlib import import_module

    value = getattr(import_module(f"taskloop.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
