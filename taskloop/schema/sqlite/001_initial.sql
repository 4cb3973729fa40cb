-- Instants are whole microseconds since 1970 UTC. Texts of JSON are named so in the comments.
-- Every partial index repeats its WHERE in the statement that needs it, or SQLite does not see that it fits.

CREATE TABLE taskloop_meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) WITHOUT ROWID;

-- The definition of each job as some worker last declared it: what a command line sees without the program.
CREATE TABLE taskloop_jobs (
    name       TEXT PRIMARY KEY,
    definition TEXT NOT NULL,          -- JSON
    origin     TEXT NOT NULL,
    seen_at    INTEGER NOT NULL
) WITHOUT ROWID;

CREATE TABLE taskloop_schedules (
    id        TEXT PRIMARY KEY,
    job       TEXT NOT NULL,
    trigger   TEXT NOT NULL,           -- as declared
    params    TEXT,                    -- JSON; null: none
    next_due  INTEGER,                 -- the cursor; null: never again
    last_due  INTEGER,
    anchor    INTEGER,
    seen_at   INTEGER NOT NULL,
    enabled   INTEGER NOT NULL DEFAULT 1,
    origin    TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX taskloop_schedules_due ON taskloop_schedules (next_due) WHERE next_due IS NOT NULL;
CREATE INDEX taskloop_schedules_job ON taskloop_schedules (job, id);

CREATE TABLE taskloop_runs (
    id         INTEGER PRIMARY KEY,
    job        TEXT NOT NULL,
    schedule   TEXT,                   -- null: asked for
    state      TEXT NOT NULL,
    reason     TEXT,
    cause      TEXT NOT NULL,
    actor      TEXT,
    key        TEXT,
    params     TEXT,                   -- JSON; null: none
    attempt    INTEGER NOT NULL,
    attempts   INTEGER NOT NULL,
    due_at     INTEGER NOT NULL,
    until_at   INTEGER,
    ready_at   INTEGER NOT NULL,
    expires_at INTEGER,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    attempt_started_at INTEGER,
    ended_at   INTEGER,
    worker     TEXT,
    token      INTEGER NOT NULL,
    priority   INTEGER NOT NULL,
    progress   TEXT,                   -- JSON
    summary    TEXT,
    result     TEXT,                   -- JSON
    error      TEXT,                   -- JSON
    rerun_of   INTEGER,
    count      INTEGER NOT NULL,
    data       TEXT,                   -- JSON: the numbers behind the reason
    "group"    TEXT                    -- whose places it takes while it runs
);
-- The promise "one record a due instant", kept by the file itself whatever the processes believe.
CREATE UNIQUE INDEX taskloop_runs_fire ON taskloop_runs (schedule, due_at) WHERE schedule IS NOT NULL;
CREATE UNIQUE INDEX taskloop_runs_key ON taskloop_runs (job, key)
    WHERE key IS NOT NULL AND state NOT IN ('failed', 'cancelled', 'interrupted', 'skipped');
-- Small indexes over the few runs that are not final, and a large one for the history of a job.
CREATE INDEX taskloop_runs_active ON taskloop_runs (schedule, state)
    WHERE schedule IS NOT NULL AND state IN ('waiting', 'running');
CREATE INDEX taskloop_runs_waiting ON taskloop_runs (priority, ready_at, id) WHERE state = 'waiting';
CREATE INDEX taskloop_runs_expiring ON taskloop_runs (expires_at) WHERE state = 'waiting' AND expires_at IS NOT NULL;
CREATE INDEX taskloop_runs_running ON taskloop_runs (job, "group", worker) WHERE state = 'running';
CREATE INDEX taskloop_runs_job ON taskloop_runs (job, id);
CREATE INDEX taskloop_runs_troubled ON taskloop_runs (state, id)
    WHERE state IN ('failed', 'interrupted', 'cancelled', 'skipped');

-- Attempts that ended before the run did; the first or last attempt stands in the run itself.
CREATE TABLE taskloop_attempts (
    run        INTEGER NOT NULL,
    attempt    INTEGER NOT NULL,
    token      INTEGER NOT NULL,
    worker     TEXT,
    started_at INTEGER,
    ended_at   INTEGER NOT NULL,
    outcome    TEXT NOT NULL,
    error      TEXT,                   -- JSON
    PRIMARY KEY (run, token)
) WITHOUT ROWID;

CREATE TABLE taskloop_workers (
    id         TEXT PRIMARY KEY,
    name       TEXT,
    host       TEXT NOT NULL,
    pid        INTEGER NOT NULL,
    process    TEXT NOT NULL,          -- tells a process from a later one of the same pid
    started_at INTEGER NOT NULL,
    beat_at    INTEGER NOT NULL,
    stopped_at INTEGER
) WITHOUT ROWID;
CREATE INDEX taskloop_workers_live ON taskloop_workers (beat_at) WHERE stopped_at IS NULL;

-- Intervals in which a job was switched off or on by hand, or held: the present state and its history at once.
CREATE TABLE taskloop_switches (
    id       INTEGER PRIMARY KEY,
    job      TEXT,                     -- null: all jobs (a pause)
    kind     TEXT NOT NULL,            -- enabled, disabled, paused
    actor    TEXT,
    reason   TEXT,
    since    INTEGER NOT NULL,
    until    INTEGER,                  -- ends by itself then
    ended_at INTEGER,
    ended_by TEXT,
    missed   TEXT                      -- how a resume settles the held fires; null: each job's own policy
);
CREATE INDEX taskloop_switches_open ON taskloop_switches (job) WHERE ended_at IS NULL;

-- What one process asks of the worker that has a run.
CREATE TABLE taskloop_wishes (
    id     INTEGER PRIMARY KEY,
    run    INTEGER NOT NULL,
    kind   TEXT NOT NULL,
    actor  TEXT,
    reason TEXT,
    at     INTEGER NOT NULL
);
CREATE INDEX taskloop_wishes_run ON taskloop_wishes (run);

-- Counted in the transaction that ends a run, so that no page ever counts rows.
CREATE TABLE taskloop_daily (
    day             INTEGER NOT NULL,  -- days since 1970 UTC, by the end of the run
    job             TEXT NOT NULL,
    state           TEXT NOT NULL,
    runs            INTEGER NOT NULL,
    took            INTEGER NOT NULL,  -- microseconds in all
    PRIMARY KEY (day, job, state)
) WITHOUT ROWID;
