-- What of a job starts next: asked where those before it are of jobs that may start no more, however many they are.
CREATE INDEX taskloop_runs_next ON taskloop_runs (job, priority, ready_at) WHERE state = 'waiting';
