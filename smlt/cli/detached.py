"""A run that is driven in the background: a process in a session of its own, which says when the run is under way.

`start` is the command's side, `main` that of the process. The request reaches it on its stdin; its words come back
through a pipe, until the run is under way. Once the run has a folder, what it prints goes to a file there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from smlt.cli.lines import EventLines
from smlt.cli.options import Output
from smlt.core import wire
from smlt.core.errors import SmltError
from smlt.core.parcel import TaskParcel
from smlt.core.planner import Plan
from smlt.core.profile import Profile

if TYPE_CHECKING:
    from smlt.cli.driving import Shown
    from smlt.core.engine import RunRequest
    from smlt.core.runlog import RunEvent

LOG = Path("logs") / "controller.txt"
"""In the run's folder."""


@dataclass(frozen=True)
class DetachedRun:
    """A request as it travels to the process that drives it."""

    job: dict[str, Any]
    runs_dir: str
    folder: str
    goes_on: bool
    kept: TaskParcel | None
    plan: Plan | None
    profile: Profile | None
    verbose: bool


def start(request: RunRequest, shown: Shown) -> int:
    """Have a run driven in the background; returns the exit code once it is under way, or has not come so far."""
    reading, writing = os.pipe()
    said: dict[str, Any] = {}
    with _Interrupted() as interrupted:
        process = _driving(writing)
        interrupted.stops(process)
        os.close(writing)
        _tell(process, _travelling(request, shown))
        with os.fdopen(reading, encoding="utf-8") as words:
            for line in words:
                said |= json.loads(line)
                for text in said.pop("lines", ()):
                    if not shown.quiet:
                        print(text, file=sys.stderr, flush=True)
        if said.get("under_way") and not interrupted.was:
            _tell_under_way(said["run"], process.pid, request.runs_dir / said["run"] / LOG, shown)
            return 0
        code = process.wait()
    if "error" in said:
        print(f"error: {said['error']}", file=sys.stderr)
        return int(said["code"])
    return _tell_early_end(said.get("run", ""), code, request.runs_dir, shown)


def _travelling(request: RunRequest, shown: Shown) -> DetachedRun:
    return DetachedRun(
        request.spec.to_plain(),
        str(request.runs_dir),
        str(request.folder.absolute()),
        request.goes_on,
        request.kept,
        request.plan,
        request.profile,
        shown.verbose,
    )


class _Interrupted:
    """While it is entered, Ctrl-C is passed on to the process that drives the run, which is then waited for.

    A handler, since an exception could come between any two lines here, and leave a run behind that nobody wants.

    Attributes:
        was: whether the user has interrupted.
    """

    def __init__(self) -> None:
        self.was = False
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def stops(self, process: subprocess.Popen[bytes]) -> None:
        """It is this process that an interruption stops, also one that came before."""
        self._process = process
        if self.was:
            process.terminate()

    def _interrupt(self, *_: object) -> None:
        self.was = True
        if self._process is not None:
            self._process.terminate()


def _driving(writing: int) -> subprocess.Popen[bytes]:
    """The process that drives the run."""
    return subprocess.Popen(
        [sys.executable, "-m", "smlt.cli.detached", str(writing)],
        stdin=subprocess.PIPE,
        pass_fds=[writing],
        start_new_session=True,
    )


def _tell(process: subprocess.Popen[bytes], message: DetachedRun) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin:
        process.stdin.write(wire.pack(message))


def _tell_under_way(run: str, pid: int, log: Path, shown: Shown) -> None:
    from smlt.cli.tables import print_json

    if shown.output is Output.JSON:
        print_json({"run": run, "state": "running", "pid": pid, "log": str(log)})
    elif not shown.quiet:
        print(f"{run} is under way in the background")
        print(f"  follow it: smlt attach {run}")
        print(f"  stop it:   smlt cancel {run}")


def _tell_early_end(run: str, code: int, runs_dir: Path, shown: Shown) -> int:
    """The run came to its end before it was under way, and has a summary; or its process was killed."""
    from smlt.cli.ending import tell_end
    from smlt.cli.found_runs import find_run
    from smlt.core.errors import JobFailed
    from smlt.core.plugins import load_registry

    found = find_run(load_registry(), runs_dir, run) if run else None
    if found is None or found.summary is None or code < 0:
        where = f"see {runs_dir / run / LOG}" if run else ""
        raise JobFailed(f"the controller ended with code {code} before the run was under way", where)
    return tell_end(found.summary, found.view, shown)


class Reporter:
    """The process's side of the pipe: what the run's events mean to the one who waits."""

    def __init__(self, number: int, runs_dir: Path) -> None:
        self._words = os.fdopen(number, "w", encoding="utf-8")
        self._runs_dir = runs_dir
        self._lines = EventLines(steps_every_s=0.0, detailed=False)
        self._is_in_background = False

    def __call__(self, event: RunEvent) -> None:
        """Take note of an event of the run."""
        if event.kind == "created":
            _print_into(self._runs_dir / event.data["run"] / LOG)
            self._is_in_background = True
            self.say(run=event.data["run"])
        if event.kind == "steps":  # most mistakes in a task show in its first step
            self.say(under_way=True)
            self.close()
        elif event.kind not in ("failed", "finished"):  # the command says how it ended
            self.say(lines=self._lines.of(event))

    def fail(self, error: str, code: int) -> None:
        """The run could not be begun, or not be driven to its end: say so to who waits, and in the log."""
        if self._is_in_background:
            print(f"error: {error}", file=sys.stderr)
        self.say(error=error, code=code)

    def say(self, **words: Any) -> None:
        """One line; nothing where nobody waits any more."""
        if not self._words.closed:
            with suppress(BrokenPipeError):
                print(json.dumps(words), file=self._words, flush=True)

    def close(self) -> None:
        """There is nothing more to say."""
        with suppress(BrokenPipeError):
            self._words.close()


def _print_into(path: Path) -> None:
    """From now on, what is printed goes to the end of this file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in (1, 2):
        os.dup2(log, number)
    os.close(log)


def main(number: int) -> int:
    """`python -m smlt.cli.detached FD` with the request on stdin; returns the exit code."""
    message = wire.unpack(sys.stdin.buffer.read(), DetachedRun)
    reporter = Reporter(number, Path(message.runs_dir))
    try:
        return _drive(message, reporter)
    except SmltError as error:
        reporter.fail(str(error), error.exit_code)
        return error.exit_code
    except Exception as error:
        reporter.fail(f"unexpected {type(error).__name__}: {error}", 1)
        traceback.print_exc()
        return 1


def _drive(message: DetachedRun, reporter: Reporter) -> int:
    from smlt.api import cancelling
    from smlt.cli.driving import Shown
    from smlt.cli.ending import tell_end
    from smlt.cli.progress import Plain
    from smlt.core.engine import Interrupts, RunRequest, run
    from smlt.core.job import JobSpec
    from smlt.core.plugins import load_registry

    request = RunRequest(
        JobSpec.from_plain(message.job),
        Path(message.runs_dir),
        Path(message.folder),
        goes_on=message.goes_on,
        kept=message.kept,
        plan=message.plan,
        profile=message.profile,
    )
    interrupts, progress = Interrupts(), Plain(detailed=message.verbose)

    def listen(event: RunEvent) -> None:
        reporter(event)
        progress(event)

    with progress, cancelling(interrupts, progress.say):
        summary = run(request, load_registry(), listener=listen, interrupts=interrupts)
    return tell_end(summary, progress.view, Shown(Output.TABLE, quiet=False, verbose=message.verbose, debug=False))


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
