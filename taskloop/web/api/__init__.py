"""The handlers, by subject, and the one table of all routes."""

from taskloop.web.api import events, health, jobs, overlaps, runs, schedules, seeds, session, whole

__all__ = ["ROUTES"]

ROUTES = (
    *health.ROUTES,
    *jobs.ROUTES,
    *schedules.ROUTES,
    *runs.ROUTES,
    *events.ROUTES,
    *whole.ROUTES,
    *overlaps.ROUTES,
    *session.ROUTES,
    *seeds.ROUTES,
)
