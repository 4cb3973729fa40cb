"""The addresses of the lively shop, a page of each look; and what none of them may have."""

from __future__ import annotations

from pathlib import Path

AUDIT = Path(__file__).with_name("audit.js").read_text()
"""A script that gives the faults of a page, each as a sentence."""

PATHS = (
    "/", "/jobs", "/jobs/sync_orders", "/jobs/refund", "/jobs/legacy_export", "/jobs/invoices?at=2h", "/runs",
    "/runs?state=failed", "/timeline?from=24h&to=24h", "/schedules?when=5m", "/failures", "/workers", "/audit",
    "/jobs/daily_report/result", "/login",
)  # fmt: skip


async def all_paths(scheduler):
    """Those, and the runs that it happens to have."""
    kept = [(await scheduler.runs(job, limit=1))[0].id for job in ("video", "invoices", "vacuum", "archive", "refund")]
    return [*PATHS, *(f"/runs/{one}" for one in kept), f"/jobs/refund?from_run={kept[-1]}"]


async def follow(page, control):
    """Press what leads to another page, and wait until that is there."""
    async with page.expect_navigation():
        await control.click()
