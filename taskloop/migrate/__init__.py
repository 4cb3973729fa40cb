"""What other schedulers have, as tables for config.toml: `python -m taskloop.migrate crontab FILE`, `… apscheduler M:S`.

Each job is a table below a comment that says where it comes from and what will be different. What cannot be said in
taskloop's words is no table but a comment with the reason. Nothing is written: it goes to stdout, to be read first.
"""

from __future__ import annotations

__all__: list[str] = []
