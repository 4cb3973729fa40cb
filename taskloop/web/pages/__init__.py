"""The dashboard: pages that are whole as they come, each action a plain form; a script adds that they stay up to date.

A page asks the same verbs as the API and shows the same words as the command line. Start at `now`; `rendering` makes HTML
of what a page found, `forms` a form of a job's parameters, `graph` a picture of a flow; `refreshing` is what the script
asks for, `files` where it comes from.
"""

from taskloop.web.pages import audit, files, jobs, now, refreshing, results, runs, schedules, signing, timeline, trouble

__all__ = ["ROUTES"]

ROUTES = (
    *map(
        refreshing.shared,
        (
            *now.ROUTES,
            *jobs.ROUTES,
            *results.ROUTES,
            *runs.ROUTES,
            *timeline.ROUTES,
            *schedules.ROUTES,
            *trouble.ROUTES,
            *audit.ROUTES,
        ),
    ),
    *signing.ROUTES,
    *refreshing.ROUTES,
    *files.ROUTES,
)
