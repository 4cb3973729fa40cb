"""Jobs in a program without an event loop: the scheduler runs on a thread of its own while the program does its work."""

import time

from taskloop import BackgroundTasks

tasks = BackgroundTasks(store="sqlite:///program.db")


def measure(sensor: str) -> str:
    return f"{sensor}: 21.5 degrees"


job = tasks.safe_add_task(measure, ("cellar",), seconds=1)

if __name__ == "__main__":
    with tasks:
        time.sleep(2.5)  # the program's own work
        for run in tasks.call(tasks.scheduler.runs, "measure"):
            print(run.id, run.state, run.summary)
