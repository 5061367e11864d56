"""Whole runs of the numpy task on the local backend, and what they may not leave behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil

from smlt.backends.channels.shared_memory import spec_for
from smlt.core.backend import RunPlace
from smlt.core.engine import Interrupts, RunRequest, run
from smlt.core.job import JobSpec
from smlt.core.plugins import load_registry
from smlt.core.runlog import RunEvent, RunView, view_of
from smlt.core.storage import ObjectStore
from smlt.core.summary import Summary
from tests.support import linear

EPOCHS, GLOBAL_BATCH = 5, 16
STEPS = EPOCHS * linear.EXAMPLES // GLOBAL_BATCH

_ENGINE = """
import sys
from pathlib import Path
from smlt.core.engine import RunRequest, run
from smlt.core.job import JobSpec
from smlt.core.plugins import load_registry

spec = JobSpec.model_validate_json(sys.argv[1])
run(RunRequest(spec, Path(sys.argv[2]), Path(sys.argv[3])), load_registry())
"""


def exit_code_of(request: RunRequest) -> int:
    """Of a process of its own that trains, and may be killed as it does."""
    arguments = [request.spec.model_dump_json(), str(request.runs_dir), str(request.folder)]
    return subprocess.run([sys.executable, "-c", _ENGINE, *arguments], timeout=120).returncode


class Runs:
    """A user's folder with the task in it, and the runs made from it.

    Attributes:
        folder: where `task.py` is; `hold_at` looks for its files here.
        events: what the listener of the last run was told.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs_dir = folder, folder / ".smlt" / "runs"
        self.events: list[RunEvent] = []
        self.registry = load_registry()
        shutil.copy(linear.__file__, folder / "task.py")

    def request(self, **sections: dict[str, Any]) -> RunRequest:
        """A job of 30 steps; `job`, `workers`, `limits`, `backend` add to or change what it says."""
        job = {"task": "task.py:Linear", "epochs": EPOCHS, "global_batch": GLOBAL_BATCH, "include": ["task.py"]}
        job |= sections.pop("job", {})
        job["params"] = {"folder": str(self.folder), **job.get("params", {})}
        plain = {"job": job, "workers": {"count": 2}, **sections}
        return RunRequest(JobSpec.model_validate(plain), self.runs_dir, self.folder)

    def train(
        self,
        *,
        on: Callable[[RunEvent], None] | None = None,
        interrupts: Interrupts | None = None,
        **sections: dict[str, Any],
    ) -> Summary:
        """Train to whatever end."""
        self.events = []

        def listen(event: RunEvent) -> None:
            self.events.append(event)
            if on:
                on(event)

        return run(self.request(**sections), self.registry, listener=listen, interrupts=interrupts)

    def steps(self) -> list[int]:
        """The steps of the last run, in the order in which they were committed."""
        return [item["step"] for event in self.events if event.kind == "steps" for item in event.data["items"]]

    def store(self, name: str) -> ObjectStore:
        backend = self.registry.backend("local", {})
        return self.registry.open_store(backend.object_store(RunPlace(name, self.runs_dir)))

    def view(self, name: str) -> RunView:
        return view_of(self.store(name))

    def shared_memory(self) -> list[Path]:
        """Files that any of the runs has in shared memory."""
        names = [path.name for path in self.runs_dir.iterdir()] if self.runs_dir.is_dir() else []
        specs = [spec_for(RunPlace(name, self.runs_dir)) for name in names]
        urls = [url for spec in specs for url in (spec.url, *spec.options.values())]
        folders = [Path(urlsplit(url).path) for url in urls]
        return [file for folder in folders if folder.is_dir() for file in folder.iterdir()]


@contextmanager
def nothing_left(runs: Runs) -> Iterator[None]:
    """Afterwards there are no more child processes than before, and nothing in shared memory."""
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    yield
    last = time.monotonic() + 10.0
    while left := [process for process in psutil.Process().children(recursive=True) if process.pid not in before]:
        assert time.monotonic() < last, f"processes were left: {left}"
        time.sleep(0.01)
    assert runs.shared_memory() == []
