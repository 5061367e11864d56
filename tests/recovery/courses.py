"""Jobs that are disturbed, and what each comes to undisturbed; nothing of them may be left."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

import smlt
from smlt.backends.channels.shared_memory import spec_for
from smlt.backends.file_store import folder_of
from smlt.core.backend import RunPlace
from smlt.core.chaos import parse_faults

TASKS = Path(__file__).parent / "tasks.py"


@dataclass(frozen=True)
class Job:
    """A job of `steps` steps; `settings` as in `smlt.train`, `params` reach the task."""

    task: str = "Digits"
    workers: int = 2
    steps: int = 20
    settings: tuple[tuple[str, Any], ...] = ()
    params: tuple[tuple[str, Any], ...] = ()

    def but(self, **settings: Any) -> Job:
        """The same with other settings; `__` in a name stands for a dot."""
        changed = dict(self.settings) | {name.replace("__", "."): value for name, value in settings.items()}
        return Job(self.task, self.workers, self.steps, tuple(changed.items()), self.params)


@dataclass
class Courses:
    """Runs jobs in a folder.

    Args:
        folder: where runs are kept.
    """

    folder: Path
    _undisturbed: dict[Job, smlt.Result] = field(default_factory=dict)
    _runs: int = 0

    def undisturbed(self, job: Job) -> smlt.Result:
        """What the job comes to by itself."""
        if job not in self._undisturbed:
            self._undisturbed[job] = self.run(job)
        return self._undisturbed[job]

    def run(self, job: Job, *chaos: str, **settings: Any) -> smlt.Result:
        """Train to the end; whatever was to go wrong has gone wrong, and nothing is left of the functions."""
        self._runs += 1
        name = f"run{self._runs}"
        before = {process.pid for process in psutil.Process().children(recursive=True)}
        result = smlt.train(
            f"{TASKS}:{job.task}",
            workers=job.workers,
            steps=job.steps,
            global_batch=16,
            name=name,
            params=dict(job.params),
            runs_dir=self.folder,
            settings={
                "job.include": ["tasks.py"],
                "backend.worker_threads": 1,
                "backend.chaos": list(chaos),
                **dict(job.settings),
                **{key.replace("__", "."): value for key, value in settings.items()},
            },
        )
        self._check_faults(name, chaos)
        self._check_steps(name, job.steps)
        self._check_left(name, before)
        return result

    def events(self, name: str) -> list[dict[str, Any]]:
        """The run's log."""
        lines = (self.folder / name / "events.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def _check_faults(self, name: str, chaos: tuple[str, ...]) -> None:
        faults = parse_faults(chaos)
        happened = {int(path.parent.name) for path in (self.folder / name / "chaos").glob("*/*")}
        missing = [fault for number, fault in enumerate(faults) if number not in happened]
        assert not missing, f"did not happen: {missing}"

    def _check_steps(self, name: str, steps: int) -> None:
        """The log has every step, in order but for steps that were taken back."""
        committed: list[int] = []
        for event in self.events(name):
            if event["kind"] == "steps":
                for item in event["items"]:
                    while committed and committed[-1] >= item["step"]:
                        committed.pop()
                    committed.append(item["step"])
        assert committed == list(range(steps))

    def _check_left(self, name: str, before: set[int]) -> None:
        last = time.monotonic() + 10.0
        while left := [each for each in psutil.Process().children(recursive=True) if each.pid not in before]:
            assert time.monotonic() < last, f"processes were left: {left}"
            time.sleep(0.01)
        shared = folder_of(spec_for(RunPlace(name, self.folder)).url)
        assert not shared.exists() or not list(shared.iterdir())
