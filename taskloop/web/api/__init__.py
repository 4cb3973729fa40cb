"""The handlers, by subject, and the one table of all routes."""

from taskloop.web.api import (
    audit,
    bulk,
    events,
    failures,
    health,
    jobs,
    overlaps,
    runs,
    schedules,
    seeds,
    session,
    whole,
)

__all__ = ["ROUTES"]

ROUTES = (
    *health.ROUTES,
    *jobs.ROUTES,
    *schedules.ROUTES,
    *runs.ROUTES,
    *bulk.ROUTES,
    *failures.ROUTES,
    *events.ROUTES,
    *whole.ROUTES,
    *audit.ROUTES,
    *overlaps.ROUTES,
    *session.ROUTES,
    *seeds.ROUTES,
)
