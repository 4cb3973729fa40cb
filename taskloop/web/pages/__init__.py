"""The dashboard: pages that are whole as they come, each action a plain form; nothing needs a script.

A page asks the same verbs as the API and shows the same words as the command line. Start at `now`; `rendering` makes HTML
of what a page found, `forms` a form of a job's parameters.
"""

from taskloop.web.pages import audit, jobs, now, results, runs, schedules, signing, timeline, trouble

__all__ = ["ROUTES"]

ROUTES = (
    *now.ROUTES,
    *jobs.ROUTES,
    *results.ROUTES,
    *runs.ROUTES,
    *timeline.ROUTES,
    *schedules.ROUTES,
    *trouble.ROUTES,
    *audit.ROUTES,
    *signing.ROUTES,
)
