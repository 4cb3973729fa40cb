-- What a run leaves besides its end. Both go with the run they belong to.

-- Steps whose results are kept: written when one begins and when it has ended.
CREATE TABLE taskloop_steps (
    run        INTEGER NOT NULL,
    name       TEXT NOT NULL,
    place      INTEGER NOT NULL,
    state      TEXT NOT NULL,
    attempt    INTEGER NOT NULL,
    started_at INTEGER,
    ended_at   INTEGER,
    result     TEXT,                   -- JSON
    error      TEXT,                   -- JSON
    kept       INTEGER NOT NULL,       -- taken over from an earlier attempt or run
    PRIMARY KEY (run, name)
) WITHOUT ROWID;

-- The log of a run in parts, as they were written; the number of a part is where a reader goes on.
CREATE TABLE taskloop_log (
    id    INTEGER PRIMARY KEY,
    run   INTEGER NOT NULL,
    token INTEGER NOT NULL,            -- of the attempt that said it
    lines TEXT NOT NULL                -- JSON: [at, level, text, step] each
);
CREATE INDEX taskloop_log_run ON taskloop_log (run, id, token);

-- Which runs repeat one.
CREATE INDEX taskloop_runs_again ON taskloop_runs (rerun_of) WHERE rerun_of IS NOT NULL;
