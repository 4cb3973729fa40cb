"""A flow of steps that are kept: run it, kill it in the middle, run it again, and see that nothing is done twice."""

import asyncio
import sys

from taskloop import Retry, RunContext, TaskScheduler

scheduler = TaskScheduler("sqlite:///flow.db")
album = scheduler.flow("album")


@album.step()
async def fetch(name: str) -> list[str]:
    """A parameter that names no step is one of the flow."""
    await asyncio.sleep(0.2)
    return [f"{name}-{number}.jpg" for number in range(3)]


@album.step(retry=Retry(attempts=5, first="100ms"))
def resize(fetch: list[str], run: RunContext, width: int = 640) -> list[str]:
    """`fetch` is the result of that step; a plain def runs in a thread, beside the other steps."""
    if run.attempt < 2:
        raise OSError("the disk is busy")
    return [f"{width}/{picture}" for picture in fetch]


@album.step(optional=True, retry=1)
async def captions(fetch: list[str]) -> dict[str, str]:
    """Its failure does not fail the flow; what needs it receives None."""
    raise ConnectionError(f"no captions for {len(fetch)} pictures: the service is away")


@album.step()
async def publish(resize: list[str], captions: dict[str, str] | None) -> str:
    return f"{len(resize)} pictures, {'with' if captions else 'without'} captions"


async def main() -> None:
    async with scheduler:
        left = await scheduler.runs("album", state=["waiting", "running"])
        number = left[0].id if left else (await album.submit(name=sys.argv[1] if len(sys.argv) > 1 else "rome")).id
        run = await scheduler.wait(number)
        for name, step in run.result["steps"].items():
            print(f"{name:<9} {step['state']:<9} attempt {step['attempt']}  {step['error'] or step['result']}")
        again = await scheduler.rerun(run.id, {"width": 320}, from_step="resize")  # what stands before it is kept
        print((await again.wait()).result["steps"]["resize"]["result"])


if __name__ == "__main__":
    asyncio.run(main())
