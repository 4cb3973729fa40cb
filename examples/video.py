"""A flow over real media: download, transcode to two sizes, take a still, upload. It needs ffmpeg (apt install ffmpeg).

    python examples/video.py               makes a clip, sends it through the flow, and shows each step
    python examples/video.py               again: the same input is the same run, nothing is done twice

Kill it in the middle and start it again: it goes on where it was. Inputs name media, versions and settings, never what was
done with them; each step looks first whether its file is there. The storage, a stand-in below, refuses every third upload.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from taskloop import Fatal, Retry, RunContext, TaskScheduler

PORT = int(os.environ.get("PORT", "8090"))
WORK, STORAGE = Path("video-work"), Path("video-storage")
BACKOFF = Retry(attempts=3, first="200ms", factor=2.0)

scheduler = TaskScheduler("sqlite:///video.db", name="video")
video = scheduler.flow("video", title="Process a video", timeout="1h")


@video.step(retry=BACKOFF)
def download(source: str, media: str, version: int) -> str:
    target = WORK / f"{media}-v{version}{Path(source).suffix}"
    if not target.exists():
        with urlopen(source, timeout=20) as answer, unfinished(target) as part:
            part.write_bytes(answer.read())
    return str(target)


@video.step(retry=BACKOFF)
def large(download: str, run: RunContext, height: int = 360) -> str:
    return transcode(run, Path(download), height)


@video.step(retry=BACKOFF)
def small(download: str, run: RunContext) -> str:
    """Beside the large one: both need the download and nothing else."""
    return transcode(run, Path(download), 120)


@video.step(optional=True, retry=1)
def still(download: str, at_seconds: float = 1.0) -> str:
    """A picture for lists; a video without one is a video still."""
    target = WORK / f"{Path(download).stem}-{at_seconds}.png"
    if not target.exists():
        with unfinished(target) as part:
            ffmpeg("-ss", str(at_seconds), "-i", download, "-frames:v", "1", "-f", "image2", str(part))
    return str(target)


@video.step(retry=BACKOFF)
def upload(storage: str, large: str, small: str, still: str | None, run: RunContext) -> list[str]:
    """What an attempt before has brought there is not sent again."""
    files = {f"{storage}/{Path(name).name}": Path(name) for name in (large, small, still) if name}
    for done, (address, file) in enumerate(files.items(), start=1):
        if not is_there(address):
            with urlopen(Request(address, data=file.read_bytes(), method="PUT"), timeout=20):
                run.log(f"{file.name} uploaded")
        run.progress(done, len(files), file.name)
    return list(files)


def is_there(address: str) -> bool:
    try:
        with urlopen(Request(address, method="HEAD"), timeout=20):
            return True
    except HTTPError as error:
        if error.code == 404:
            return False
        raise


def transcode(run: RunContext, source: Path, height: int) -> str:
    target = WORK / f"{source.stem}-{height}p.mp4"
    if target.exists():
        run.log(f"{target.name} is there already")
        return str(target)
    with unfinished(target) as part:
        ffmpeg("-i", str(source), "-vf", f"scale=-2:{height}", "-f", "mp4", str(part))
    return str(target)


def ffmpeg(*arguments: str) -> None:
    """Raises `Fatal` where trying again cannot help, else what ffmpeg said."""
    if shutil.which("ffmpeg") is None:
        raise Fatal("ffmpeg is not installed; on Debian: apt install ffmpeg")
    command = ["ffmpeg", "-nostdin", "-y", "-loglevel", "error", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise RuntimeError(done.stderr.strip() or f"ffmpeg ended with {done.returncode}")


@contextmanager
def unfinished(target: Path) -> Iterator[Path]:
    """Write elsewhere and rename at the end: a file that is there is whole."""
    target.parent.mkdir(exist_ok=True)
    part = target.with_name(f"{target.name}.{threading.get_ident()}.part")
    try:
        yield part
        part.rename(target)
    finally:
        part.unlink(missing_ok=True)


class Storage(SimpleHTTPRequestHandler):
    """Gives the files of the working directory, and takes uploads but for every third."""

    uploads = 0

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        Storage.uploads += 1
        if Storage.uploads % 3 == 0:
            self.send_error(503, "come again")
            return
        STORAGE.mkdir(exist_ok=True)
        (STORAGE / Path(self.path).name).write_bytes(body)
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def make_clip(media: str) -> Path:
    """Three seconds of a test picture, for who has no video at hand."""
    clip = Path(f"{media}.mp4")
    if not clip.exists():
        ffmpeg("-f", "lavfi", "-i", "testsrc=duration=3:size=640x480:rate=12", "-pix_fmt", "yuv420p", str(clip))
    return clip


async def main(media: str = "clip") -> int:
    clip = await asyncio.to_thread(make_clip, media)
    with ThreadingHTTPServer(("127.0.0.1", PORT), Storage) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{PORT}"
        asked = video.bind(source=f"{here}/{clip}", media=media, version=1, storage=f"{here}/{STORAGE}")
        async with scheduler:
            run = await (await asked.submit(key=f"{media}-v1")).wait()  # one run of a key, also one that was cut short
            for name, step in (run.result or {}).get("steps", {}).items():
                print(f"{name:<9} {step['state']:<9} attempt {step['attempt']}  {step['error'] or step['result']}")
            for error in (run.result or {}).get("errors", []):
                print(f"{error['step']}: {error['message']}")
            print(f"run {run.id} {run.state}")
        server.shutdown()
    return 0 if run.status == "SUCCESS" else 1


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main(*sys.argv[1:2])))
    except Fatal as missing:
        sys.exit(str(missing))
