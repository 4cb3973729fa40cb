-- Instants are whole microseconds since 1970 UTC, as in SQLite: a clock may say what no timestamp can hold. Texts of JSON
-- are named so in the comments; they are kept as texts, because jsonb refuses what a job may well return (NUL, NaN).
-- Names are compared by their bytes, whatever the database's locale: pages go on by id.

CREATE TABLE taskloop.meta (
    key   text COLLATE "C" PRIMARY KEY,
    value text NOT NULL
);

-- How often each process has written, counted from an instant on: from the sum over the others one sees that another has,
-- and from its own number a process that was not answered sees whether it has.
CREATE TABLE taskloop.writers (
    id     text COLLATE "C" PRIMARY KEY,
    writes bigint NOT NULL,
    at     timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 50);
INSERT INTO taskloop.writers (id, writes) VALUES ('gone', 0);        -- what the others had written when they left

-- The definition of each job as some worker last declared it: what a command line sees without the program.
CREATE TABLE taskloop.jobs (
    name       text COLLATE "C" PRIMARY KEY,
    definition text NOT NULL,          -- JSON
    origin     text NOT NULL,
    seen_at    bigint NOT NULL
);

CREATE TABLE taskloop.schedules (
    id        text COLLATE "C" PRIMARY KEY,
    job       text COLLATE "C" NOT NULL,
    trigger   text NOT NULL,           -- as declared
    params    text,                    -- JSON; null: none
    next_due  bigint,                  -- the cursor; null: never again
    last_due  bigint,
    anchor    bigint,
    seen_at   bigint NOT NULL,
    enabled   smallint NOT NULL DEFAULT 1,
    origin    text NOT NULL
) WITH (fillfactor = 70);
CREATE INDEX schedules_due ON taskloop.schedules (next_due) WHERE next_due IS NOT NULL;
CREATE INDEX schedules_job ON taskloop.schedules (job, id);

CREATE SEQUENCE taskloop.run_ids;
CREATE TABLE taskloop.runs (
    id         bigint PRIMARY KEY,
    job        text COLLATE "C" NOT NULL,
    schedule   text COLLATE "C",       -- null: asked for
    state      text COLLATE "C" NOT NULL,
    reason     text,
    cause      text NOT NULL,
    actor      text,
    key        text COLLATE "C",
    params     text,                   -- JSON; null: none
    attempt    bigint NOT NULL,
    attempts   bigint NOT NULL,
    due_at     bigint NOT NULL,
    until_at   bigint,
    ready_at   bigint NOT NULL,
    expires_at bigint,
    created_at bigint NOT NULL,
    started_at bigint,
    attempt_started_at bigint,
    ended_at   bigint,
    worker     text COLLATE "C",
    token      bigint NOT NULL,
    priority   bigint NOT NULL,
    progress   text,                   -- JSON
    summary    text,
    result     text,                   -- JSON
    error      text,                   -- JSON
    rerun_of   bigint,
    count      bigint NOT NULL,
    data       text,                   -- JSON: the numbers behind the reason
    "group"    text COLLATE "C"        -- whose places it takes while it runs
) WITH (fillfactor = 80);
-- The promise "one record a due instant", kept by the database itself whatever the processes believe.
CREATE UNIQUE INDEX runs_fire ON taskloop.runs (schedule, due_at) WHERE schedule IS NOT NULL;
CREATE UNIQUE INDEX runs_key ON taskloop.runs (job, key)
    WHERE key IS NOT NULL AND state NOT IN ('failed', 'cancelled', 'interrupted', 'skipped');
-- Small indexes over the few runs that are not final, and a large one for the history of a job.
CREATE INDEX runs_active ON taskloop.runs (schedule) WHERE schedule IS NOT NULL AND state IN ('waiting', 'running');
CREATE INDEX runs_waiting ON taskloop.runs (priority DESC, ready_at, id) WHERE state = 'waiting';
CREATE INDEX runs_expiring ON taskloop.runs (expires_at) WHERE state = 'waiting' AND expires_at IS NOT NULL;
CREATE INDEX runs_queued ON taskloop.runs (job, id) WHERE state = 'waiting';
CREATE INDEX runs_running ON taskloop.runs (job, id) WHERE state = 'running';
CREATE INDEX runs_final ON taskloop.runs (job, state, id) WHERE state NOT IN ('waiting', 'running');
CREATE INDEX runs_troubled ON taskloop.runs (state, id) WHERE state IN ('failed', 'interrupted', 'cancelled', 'skipped');
CREATE INDEX runs_again ON taskloop.runs (rerun_of, id) WHERE rerun_of IS NOT NULL;

-- Attempts that ended before the run did; the first or last attempt stands in the run itself.
CREATE TABLE taskloop.attempts (
    run        bigint NOT NULL,
    attempt    bigint NOT NULL,
    token      bigint NOT NULL,
    worker     text,
    started_at bigint,
    ended_at   bigint NOT NULL,
    outcome    text NOT NULL,
    error      text,                   -- JSON
    PRIMARY KEY (run, token)
);

-- Steps whose results are kept: written when one begins and when it has ended.
CREATE TABLE taskloop.steps (
    run        bigint NOT NULL,
    name       text COLLATE "C" NOT NULL,
    place      bigint NOT NULL,
    state      text NOT NULL,
    attempt    bigint NOT NULL,
    started_at bigint,
    ended_at   bigint,
    result     text,                   -- JSON
    error      text,                   -- JSON
    kept       smallint NOT NULL,      -- taken over from an earlier attempt or run
    PRIMARY KEY (run, name)
);

-- The log of a run in parts, as they were written; the number of a part is where a reader goes on.
CREATE TABLE taskloop.log (
    id    bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run   bigint NOT NULL,
    token bigint NOT NULL,             -- of the attempt that said it
    lines text NOT NULL                -- JSON: [at, level, text, step] each
);
CREATE INDEX log_run ON taskloop.log (run, id);

CREATE TABLE taskloop.workers (
    id         text COLLATE "C" PRIMARY KEY,
    name       text,
    host       text NOT NULL,
    pid        bigint NOT NULL,
    process    text NOT NULL,          -- tells a process from a later one of the same pid
    started_at bigint NOT NULL,
    beat_at    bigint NOT NULL,
    stopped_at bigint,
    beat_tick  double precision,       -- seconds of its machine's steady clock
    ended      text,                   -- stopped, died; null: lives, or unknown
    fires      smallint NOT NULL DEFAULT 1,
    jobs       text,                   -- JSON list of names; null: not told
    version    text,
    health     text                    -- JSON of its last beat
) WITH (fillfactor = 50);
CREATE INDEX workers_live ON taskloop.workers (id) WHERE stopped_at IS NULL;
CREATE INDEX workers_ended ON taskloop.workers (stopped_at) WHERE stopped_at IS NOT NULL;

-- Intervals in which a job was switched off or on, or held: the present state and its history at once. One of kind
-- `tripped` is the circuit breaker's: off until `until`, then on trial until a run succeeds.
CREATE TABLE taskloop.switches (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job      text COLLATE "C",         -- null: all jobs (a pause)
    kind     text NOT NULL,            -- enabled, disabled, paused, tripped
    actor    text,
    reason   text,
    since    bigint NOT NULL,
    until    bigint,                   -- ends by itself then
    ended_at bigint,
    ended_by text,
    missed   text,                     -- how a resume settles the held fires; null: each job's own policy
    ended_because text
);
CREATE INDEX switches_open ON taskloop.switches (job) WHERE ended_at IS NULL;
CREATE INDEX switches_ended ON taskloop.switches (ended_at) WHERE ended_at IS NOT NULL;

-- What one process asks of the worker that has a run.
CREATE TABLE taskloop.wishes (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    run    bigint NOT NULL,
    kind   text NOT NULL,
    actor  text,
    reason text,
    at     bigint NOT NULL
);
CREATE INDEX wishes_run ON taskloop.wishes (run);

-- What disturbed a worker: a blocked loop, a step of the clock, a store that was away, runs it lost to others.
CREATE TABLE taskloop.incidents (
    id     bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    worker text NOT NULL,
    kind   text NOT NULL,
    since  bigint NOT NULL,
    until  bigint NOT NULL,
    data   text                        -- JSON: who and where, how much
);
CREATE INDEX incidents_until ON taskloop.incidents (until);

-- Schedules as they were until they were changed or removed: what was due in the past is asked of these.
CREATE TABLE taskloop.former (
    id        text COLLATE "C" NOT NULL,
    until     bigint NOT NULL,
    job       text COLLATE "C" NOT NULL,
    trigger   text NOT NULL,
    anchor    bigint,
    seen_at   bigint NOT NULL,
    origin    text NOT NULL,
    PRIMARY KEY (id, until)
);
CREATE INDEX former_job ON taskloop.former (job, until);

-- Counted in the transaction that ends a run, so that no page ever counts rows; in shards, so that no process waits for
-- the COMMIT of another that ends runs of the same job.
CREATE TABLE taskloop.counters (
    day   bigint NOT NULL,             -- days since 1970 UTC, by the end of the run
    job   text COLLATE "C" NOT NULL,
    state text COLLATE "C" NOT NULL,
    shard smallint NOT NULL,
    runs  bigint NOT NULL,
    took  bigint NOT NULL,             -- microseconds in all
    PRIMARY KEY (day, job, state, shard)
) WITH (fillfactor = 50);
CREATE VIEW taskloop.daily AS
    SELECT day, job, state, sum(runs)::bigint AS runs, sum(took)::bigint AS took
    FROM taskloop.counters GROUP BY day, job, state;

-- Who may come in over HTTP. A token is kept for good, also when it is over: the records name it.
-- The secret that sessions are signed with stands in meta, under `session_secret`, once one was needed.
CREATE TABLE taskloop.tokens (
    id              text COLLATE "C" PRIMARY KEY,
    name            text COLLATE "C" NOT NULL,
    scope           text NOT NULL,     -- read, operate, admin
    digest          bytea NOT NULL,    -- SHA-256 of its secret, which is kept nowhere
    created_at      bigint NOT NULL,
    actor           text,
    reason          text,
    expires_at      bigint,            -- null: never
    last_used_at    bigint,
    revoked_at      bigint,
    revoked_by      text,
    revoked_because text
);
CREATE INDEX tokens_open ON taskloop.tokens (name) WHERE revoked_at IS NULL;
