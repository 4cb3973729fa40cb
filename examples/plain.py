"""Jobs in a program of twenty lines, without a server: run it, watch it, press Ctrl-C."""

import asyncio

from taskloop import Event, RunContext, TaskScheduler

scheduler = TaskScheduler("sqlite:///plain.db")


@scheduler.every("2s", timeout="10s")
def count_to_ten(run: RunContext) -> str:
    """A plain def runs in a thread, so that it may block."""
    for number in range(10):
        run.progress(number + 1, 10, f"at {number + 1}")
    return "counted to ten"


@scheduler.on("succeeded", "failed", "skipped")
def tell(event: Event) -> None:
    if event.run is not None:
        print(f"run {event.run.id} of {event.job} {event.name}: {event.run.summary}", flush=True)


if __name__ == "__main__":
    asyncio.run(scheduler.serve())
