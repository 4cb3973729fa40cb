-- What of a job starts next: asked where those before it are of jobs that may start no more, however many they are.
CREATE INDEX runs_next ON taskloop.runs (job, priority, ready_at, id) WHERE state = 'waiting';
