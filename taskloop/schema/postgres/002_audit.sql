-- Who changed what: one row for each change that a person made, written in the transaction of the change.
CREATE TABLE taskloop.audit (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         bigint NOT NULL,
    actor      text COLLATE "C" NOT NULL,
    channel    text NOT NULL,          -- api, web, cli, code
    action     text NOT NULL,
    object     text,                   -- the run, job, schedule or token that was changed; null: the whole
    job        text COLLATE "C",       -- whose it is
    before     text,                   -- JSON, secrets masked; null: nothing, or nothing that matters
    after      text,                   -- JSON, secrets masked
    reason     text,
    request_id text
);
CREATE INDEX audit_at ON taskloop.audit (at);
CREATE INDEX audit_actor ON taskloop.audit (actor, id);
CREATE INDEX audit_job ON taskloop.audit (job, id) WHERE job IS NOT NULL;

-- How a job was switched before, and which pauses are over: both are asked often, and a breaker leaves many rows.
CREATE INDEX switches_job ON taskloop.switches (job, kind, ended_at);
CREATE INDEX switches_paused ON taskloop.switches (job, id) WHERE kind = 'paused' AND ended_at IS NOT NULL;

-- The runs that came about otherwise than by their schedule: what is fired on time pays nothing for it.
CREATE INDEX runs_asked ON taskloop.runs (cause, id) WHERE cause <> 'schedule';
