"""What `module:name` in the configuration leads to: the application's jobs, and the function of a job of the file.

Level 6: imports foreign code. Start at `load_app` and `load_job`.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from taskloop.errors import BadSettings, TaskloopError, nearest
from taskloop.file_jobs import FileJob
from taskloop.given import Given, Wrong, key_text, meant, read_target, saying
from taskloop.jobs import Job, Jobs

__all__ = ["load_app", "load_job"]


def load_job(file_job: FileJob, declared_in_code: Iterable[Job[..., Any]] = ()) -> Job[..., Any]:
    """The job that `call` names, with the trigger, parameters and policy of its table. Imports its module.

    A function that is a `Job` already keeps what its decorator said beneath the file's word. Raises `BadSettings`; where
    there is no `call`, with the job in code that may be meant.
    """
    where = file_job.where or f"jobs.{file_job.name}"
    if file_job.call is None:
        mend = 'add call = "module:function"'
        if (near := _near(file_job.name, declared_in_code)) is not None:
            mend = f"did you mean [jobs.{key_text(near)}]? {mend} makes a job of this name"
        mend += "; if that job is gone, or another program's, take the table out"
        raise BadSettings([f"{where}: no code declares a job of this name; {mend}"])
    found = _imported(file_job.call, file_job.directory, f"{where}.call")
    declared = found if isinstance(found, Job) else None
    try:
        job: Job[..., Any] = Job(
            declared.function if declared else found,
            file_job.trigger,
            name=file_job.name,
            params={**(declared.params if declared else {}), **file_job.params},
            options=declared.options if declared else {},
            origin="file",
        )
        job.configure(file_job.defaults, file_job.options)
    except TaskloopError as error:
        raise BadSettings([f"{where}: {line}" for line in str(error).splitlines()]) from None
    return job


def _near(name: str, jobs: Iterable[Job[..., Any]]) -> str | None:
    """The job that had this name before, else the one whose name is nearest."""
    there = list(jobs)
    return next((job.name for job in there if name in job.aliases), None) or nearest(name, [job.name for job in there])


def load_app(app: str, directory: Path | None = None) -> Jobs:
    """The TaskScheduler or Jobs at `module:name`, imported from `directory` (None: the current one).

    Raises `BadSettings`; what a module itself raises as `BadSettings` passes as it is.
    """
    with saying():
        if read_target(Given(app, "app")) is None:
            raise Wrong("app is ''; allowed is 'module:name', such as 'shop.jobs:scheduler'")
    found = _imported(app, Path() if directory is None else directory, "app")
    if not isinstance(found, Jobs):
        what = f"the {found.__name__} class" if isinstance(found, type) else f"a {type(found).__name__}"
        raise BadSettings([f"app is '{app}', {what}; allowed is a TaskScheduler or Jobs{_candidates(app)}"])
    return found


def _imported(target: str, directory: Path, where: str) -> Any:
    """The object at `module:name`. Raises `BadSettings` with what stands in the way."""
    module_name, _, path = target.partition(":")
    said = f"{where} is '{target}'"
    with _searching(directory):
        try:
            module = importlib.import_module(module_name)
        except BadSettings:
            raise
        except (Exception, SystemExit) as error:  # a module may fail in any way
            raise BadSettings([f"{said}: {_why_no_module(error, module_name, directory)}"]) from error
    found: Any = module
    for name in path.split("."):
        if not hasattr(found, name):
            public = [one for one in vars(found) if not one.startswith("_")] if hasattr(found, "__dict__") else []
            holder = f"module '{module_name}'" if found is module else f"'{module_name}:{path.rpartition('.')[0]}'"
            apps = _apps(module_name) if where == "app" and found is module else []
            near = nearest(name, apps or public)
            there = f"; '{module_name}' has {', '.join(apps)}" if apps and near is None else meant(near)
            raise BadSettings([f"{said}: {holder} has no '{name}'{there}"])
        found = getattr(found, name)
    return found


@contextmanager
def _searching(directory: Path) -> Iterator[None]:
    """Let modules of `directory` be found, first of all, unless it is searched already."""
    folder = str(directory.resolve())
    added = all(Path(one).resolve() != directory.resolve() for one in sys.path)
    importlib.invalidate_caches()
    if added:
        sys.path.insert(0, folder)
    try:
        yield
    finally:
        if added and folder in sys.path:
            sys.path.remove(folder)


def _why_no_module(error: BaseException, module: str, directory: Path) -> str:
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if module.endswith(".py"):
        return f"no module '{module}'; the module is named, not its file: write '{module.removesuffix('.py')}'"
    if missing and (module == missing or module.startswith(f"{missing}.")):
        near = nearest(missing.rpartition(".")[2], _modules(directory.joinpath(*missing.split(".")[:-1])))
        place = f"neither in {directory.resolve()} nor among the installed packages"
        return f"no module '{missing}', {place}{meant(near)}; run where it lies, or install it"
    if isinstance(error, SyntaxError):
        return f"module '{module}' cannot be read: {error.msg} ({error.filename}:{error.lineno}); mend that line"
    ours = ("<frozen", str(Path(__file__).parent))  # the place is where it was written, not where it was refused
    frames = [one for one in traceback.extract_tb(error.__traceback__) if not one.filename.startswith(ours)]
    others = tuple(sysconfig.get_paths()[one] for one in ("stdlib", "purelib", "platlib"))
    frames = [one for one in frames if not one.filename.startswith(others)] or frames
    place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    said = f"module '{module}' is there, but importing it failed{place}: {type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, TaskloopError):  # says itself how it is mended
        return said
    return f"{said}; mend that, or install it for {sys.executable}" if missing else f"{said}; mend that"


def _modules(folder: Path) -> list[str]:
    try:
        return [one.stem for one in folder.iterdir() if one.suffix == ".py" or (one / "__init__.py").exists()]
    except OSError:
        return []


def _candidates(app: str) -> str:
    module = app.partition(":")[0]
    names = _apps(module)
    return f"; '{module}' has {', '.join(names)}" if names else f"; '{module}' has none"


def _apps(module: str) -> list[str]:
    """What an imported module has that an app may be."""
    there = vars(sys.modules[module])
    names = [name for name, one in there.items() if isinstance(one, Jobs)]
    return names + [  # looked up statically: a proxy, such as Flask's request, raises where it is asked
        f"{name}.scheduler"
        for name, one in there.items()
        if isinstance(inspect.getattr_static(one, "scheduler", None), Jobs) and not name.startswith("_")
    ]
