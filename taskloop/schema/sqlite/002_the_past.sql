-- What tells a worker's silence from its death, what disturbed it, and what schedules were before they were changed.

ALTER TABLE taskloop_workers ADD COLUMN beat_tick REAL;                      -- seconds of its machine's steady clock
ALTER TABLE taskloop_workers ADD COLUMN ended TEXT;                          -- stopped, died; null: lives, or unknown
ALTER TABLE taskloop_workers ADD COLUMN fires INTEGER NOT NULL DEFAULT 1;
ALTER TABLE taskloop_workers ADD COLUMN jobs TEXT;                           -- JSON list of names; null: not told
ALTER TABLE taskloop_workers ADD COLUMN version TEXT;
ALTER TABLE taskloop_workers ADD COLUMN health TEXT;                         -- JSON of its last beat
CREATE INDEX taskloop_workers_ended ON taskloop_workers (stopped_at) WHERE stopped_at IS NOT NULL;

-- A switch of kind `tripped` is the circuit breaker's: off until `until`, then on trial until a run succeeds.
ALTER TABLE taskloop_switches ADD COLUMN ended_because TEXT;

-- What disturbed a worker: a blocked loop, a step of the clock, a store that was away, runs it lost to others.
CREATE TABLE taskloop_incidents (
    id     INTEGER PRIMARY KEY,
    worker TEXT NOT NULL,
    kind   TEXT NOT NULL,
    since  INTEGER NOT NULL,
    until  INTEGER NOT NULL,
    data   TEXT                        -- JSON: who and where, how much
);
CREATE INDEX taskloop_incidents_until ON taskloop_incidents (until);

-- Schedules as they were until they were changed or removed: what was due in the past is asked of these.
CREATE TABLE taskloop_former (
    id        TEXT NOT NULL,
    until     INTEGER NOT NULL,
    job       TEXT NOT NULL,
    trigger   TEXT NOT NULL,
    anchor    INTEGER,
    seen_at   INTEGER NOT NULL,
    origin    TEXT NOT NULL,
    PRIMARY KEY (id, until)
) WITHOUT ROWID;
CREATE INDEX taskloop_former_job ON taskloop_former (job, until);

-- The history of a job, each run written to it once, when it ends; by state, so that a million skips are passed by.
-- (Every index ends with the id of the row.)
DROP INDEX taskloop_runs_job;
CREATE INDEX taskloop_runs_final ON taskloop_runs (job, state) WHERE state NOT IN ('waiting', 'running');
CREATE INDEX taskloop_runs_queued ON taskloop_runs (job) WHERE state = 'waiting';
