-- Who changed what: one row for each change that a person made, written in the transaction of the change.
CREATE TABLE taskloop_audit (
    id         INTEGER PRIMARY KEY,
    at         INTEGER NOT NULL,
    actor      TEXT NOT NULL,
    channel    TEXT NOT NULL,          -- api, web, cli, code
    action     TEXT NOT NULL,
    object     TEXT,                   -- the run, job, schedule or token that was changed; null: the whole
    job        TEXT,                   -- whose it is
    before     TEXT,                   -- JSON, secrets masked; null: nothing, or nothing that matters
    after      TEXT,                   -- JSON, secrets masked
    reason     TEXT,
    request_id TEXT
);
CREATE INDEX taskloop_audit_at ON taskloop_audit (at);
CREATE INDEX taskloop_audit_actor ON taskloop_audit (actor);
CREATE INDEX taskloop_audit_job ON taskloop_audit (job) WHERE job IS NOT NULL;

-- How a job was switched before, and which pauses are over: both are asked often, and a breaker leaves many rows.
CREATE INDEX taskloop_switches_job ON taskloop_switches (job, kind, ended_at);
CREATE INDEX taskloop_switches_paused ON taskloop_switches (job) WHERE kind = 'paused' AND ended_at IS NOT NULL;

-- The runs that came about otherwise than by their schedule: what is fired on time pays nothing for it.
CREATE INDEX taskloop_runs_asked ON taskloop_runs (cause, id, job) WHERE cause <> 'schedule';
