"""The addresses of the lively shop: a page of each look."""

from __future__ import annotations

PATHS = (
    "/", "/jobs", "/jobs/sync_orders", "/jobs/refund", "/jobs/legacy_export", "/jobs/invoices?at=2h", "/runs",
    "/runs?state=failed", "/timeline?from=24h&to=24h", "/schedules?when=5m", "/failures", "/workers", "/login",
)  # fmt: skip


async def all_paths(scheduler):
    """Those, and the runs that it happens to have."""
    kept = [(await scheduler.runs(job, limit=1))[0].id for job in ("video", "invoices", "vacuum", "archive", "refund")]
    return [*PATHS, *(f"/runs/{one}" for one in kept), f"/jobs/refund?from_run={kept[-1]}"]
