"""The processors of a small web site: mail, text in pictures, the machine's state, the moon.

    taskloop run --app processors:scheduler --http        all of them, with pages at http://127.0.0.1:8700/
    taskloop process send_mail --every 5s --sleep 1s --max-runtime 10m --app processors:scheduler
                                                           one alone, for supervisord and its like

Each run is on record with what it did; `/admin/control_processors` has a switch for each. The site's own data lies in
`site.db`. From the environment: SMTP_HOST and SMTP_PORT (localhost, 25), PICTURES (the folder with pictures).
"""

from __future__ import annotations

import math
import os
import platform
import shutil
import smtplib
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path

from taskloop import Fatal, Inject, RunContext, TaskScheduler

PICTURES = {".png", ".jpg", ".jpeg", ".tiff", ".ppm"}

scheduler = TaskScheduler("sqlite:///processors.db", name="processors")


@contextmanager
def site_database() -> Iterator[sqlite3.Connection]:
    """A connection for one attempt; what an attempt did not finish is rolled back."""
    db = sqlite3.connect("site.db")
    db.execute("CREATE TABLE IF NOT EXISTS mail (id INTEGER PRIMARY KEY, receiver, subject, body, sent_at)")
    db.execute("CREATE TABLE IF NOT EXISTS picture_text (name PRIMARY KEY, text, read_at)")
    try:
        with db:
            yield db
    finally:
        db.close()


@scheduler.job(title="Put a mail into the queue")
def queue_mail(receiver: str, subject: str, body: str = "", db: sqlite3.Connection = Inject(site_database)) -> str:
    number = db.execute(
        "INSERT INTO mail (receiver, subject, body) VALUES (?, ?, ?)", (receiver, subject, body)
    ).lastrowid
    return f"mail {number} waits"


@scheduler.every("5s", title="Send the mail that waits", timeout="2m", max_running=1)
def send_mail(run: RunContext, db: sqlite3.Connection = Inject(site_database)) -> str:
    """Each mail is marked as soon as the server has taken it, so a failure in the middle sends none twice.

    `max_running`: one that is asked for by hand waits until the one of the timetable has ended.
    """
    waiting = db.execute("SELECT id, receiver, subject, body FROM mail WHERE sent_at IS NULL ORDER BY id").fetchall()
    if not waiting:
        return "no mail waits"
    with smtplib.SMTP(
        os.environ.get("SMTP_HOST", "localhost"), int(os.environ.get("SMTP_PORT", "25")), timeout=20
    ) as smtp:
        for done, (number, receiver, subject, body) in enumerate(waiting, start=1):
            run.check_cancelled()
            message = EmailMessage()
            message["From"], message["To"], message["Subject"] = "site@example.org", receiver, subject
            message["Message-ID"] = f"<mail-{number}@example.org>"  # by this a receiver knows one that came twice
            message.set_content(body)
            smtp.send_message(message)
            db.execute("UPDATE mail SET sent_at = ? WHERE id = ?", (datetime.now(UTC).isoformat(), number))
            db.commit()
            run.progress(done, len(waiting), receiver)
    return f"{len(waiting)} sent"


@scheduler.every("10s", title="Read the text in new pictures", timeout="5m", max_running=1)
def read_pictures(run: RunContext, db: sqlite3.Connection = Inject(site_database)) -> str:
    """Text recognition by tesseract; what was read once is not read again."""
    if shutil.which("tesseract") is None:
        raise Fatal("tesseract is not installed; on Debian: apt install tesseract-ocr")
    known = {name for (name,) in db.execute("SELECT name FROM picture_text")}
    folder = Path(os.environ.get("PICTURES", "pictures"))
    new = sorted(path for path in folder.glob("*.*") if path.suffix in PICTURES and path.name not in known)
    for done, path in enumerate(new, start=1):
        run.check_cancelled()
        read = subprocess.run(["tesseract", path, "stdout"], capture_output=True, text=True, check=False, timeout=60)
        text = read.stdout.strip() if read.returncode == 0 else ""
        if not text:
            run.log(f"{path.name}: {read.stderr.strip() or 'no text found'}", "warning")
        db.execute("INSERT INTO picture_text VALUES (?, ?, ?)", (path.name, text, datetime.now(UTC).isoformat()))
        db.commit()
        run.progress(done, len(new), path.name)
    return f"{len(new)} pictures read" if new else "no new pictures"


@scheduler.cron("0 6 * * *", timezone="Europe/London", title="Note how the machine is")
def system_info() -> dict[str, object]:
    disk = shutil.disk_usage(".")
    return {
        "host": platform.node(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load": os.getloadavg(),
        "disk_free_bytes": disk.free,
        "disk_used": round(disk.used / disk.total, 3),
    }


@scheduler.cron("0 18 * * *", timezone="Europe/London", title="Tell of a full moon")
def moon_alert(
    receiver: str = "watchers@example.org",
    evening: datetime | None = None,
    db: sqlite3.Connection = Inject(site_database),
) -> str:
    """Queues a mail on the evening before a full moon; None: this evening."""
    now = evening or datetime.now(UTC)
    full = next_full_moon(now)
    if full - now > timedelta(days=1):
        return f"the next full moon is on {full:%d %B at %H:%M} UTC"
    subject = f"Full moon at {full:%H:%M} UTC"
    db.execute("INSERT INTO mail (receiver, subject, body) VALUES (?, ?, ?)", (receiver, subject, "Look up tonight."))
    return subject


def next_full_moon(after: datetime) -> datetime:
    """To a quarter of an hour: mean motion and its largest corrections (J. Meeus, Astronomical Algorithms, chapter 49)."""
    noon_2000 = datetime(2000, 1, 1, 12, tzinfo=UTC)
    month = math.floor((after - noon_2000) / timedelta(days=29.530588861)) - 0.5
    while True:
        sun, moon, node = (
            math.radians(start + rate * month)
            for start, rate in ((2.5534, 29.10535670), (201.5643, 385.81693528), (160.7108, 390.67050284))
        )
        days = 5.09766 + 29.530588861 * month - 0.40614 * math.sin(moon) + 0.17302 * math.sin(sun)
        days += 0.01614 * math.sin(2 * moon) + 0.01043 * math.sin(2 * node) + 0.00734 * math.sin(moon - sun)
        days -= 0.00515 * math.sin(moon + sun) - 0.00209 * math.sin(2 * sun) + 0.00111 * math.sin(moon - 2 * node)
        full = noon_2000 + timedelta(days=days, seconds=-69)  # the earth's turning is that much behind the even time
        if full > after:
            return full
        month += 1
