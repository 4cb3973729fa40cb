"""The columns of each list, for a CSV without a row in it: whoever reads it by name finds the names.

The keys of the records of `taskloop.records`, told without making one; a test holds the two against each other.
"""

from __future__ import annotations

from typing import Final

__all__ = ["FIRE", "FORECAST", "JOB", "LINE", "RUN", "SCHEDULE", "TOKEN"]

RUN: Final = (
    "id", "job", "schedule", "state", "status", "reason", "cause", "actor", "key", "params", "attempt", "attempts",
    "due_at", "until_at", "ready_at", "created_at", "started_at", "ended_at", "worker", "priority", "progress", "summary",
    "result", "error", "rerun_of", "count", "data", "existed",
)  # fmt: skip
JOB: Final = (
    "name", "title", "description", "kind", "trigger", "trigger_text", "policy", "enabled", "switch", "condition",
    "next_due", "last_run", "last_success", "consecutive_failures", "params_schema",
)  # fmt: skip
SCHEDULE: Final = (
    "id", "job", "trigger", "trigger_text", "params", "next_due", "last_due", "enabled", "origin",
)  # fmt: skip
FIRE: Final = ("at", "job", "schedule", "trigger", "trigger_text", "params", "held")
LINE: Final = ("at", "level", "text", "step")
TOKEN: Final = (
    "id", "name", "scope", "state", "created_at", "by", "reason", "expires_at", "last_used_at", "revoked_at",
    "revoked_by", "revoked_because",
)  # fmt: skip
FORECAST: Final = (
    "job", "fires", "first", "last", "skipped", "waits", "waited_seconds", "longest_wait_seconds", "cancelled", "held",
    "takes_seconds", "busy_seconds",
)  # fmt: skip
