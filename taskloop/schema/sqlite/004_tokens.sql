-- Who may come in over HTTP. A token is kept for good, also when it is over: the records name it.
-- The secret that sessions are signed with stands in taskloop_meta, under `session_secret`, once one was needed.
CREATE TABLE taskloop_tokens (
    id              TEXT PRIMARY KEY,
    name            TEXT NOT NULL,
    scope           TEXT NOT NULL,     -- read, operate, admin
    digest          BLOB NOT NULL,     -- SHA-256 of its secret, which is kept nowhere
    created_at      INTEGER NOT NULL,
    actor           TEXT,
    reason          TEXT,
    expires_at      INTEGER,           -- null: never
    last_used_at    INTEGER,
    revoked_at      INTEGER,
    revoked_by      TEXT,
    revoked_because TEXT
) WITHOUT ROWID;
CREATE INDEX taskloop_tokens_open ON taskloop_tokens (name) WHERE revoked_at IS NULL;
