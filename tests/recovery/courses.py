"""Jobs that are disturbed, and what each comes to undisturbed; nothing of them may be left."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from smlt.backends.channels.shared_memory import spec_for
from smlt.backends.file_store import folder_of
from smlt.core.backend import RunPlace
from smlt.core.chaos import parse_faults
from smlt.core.engine import RunRequest, run
from smlt.core.job import JobSpec
from smlt.core.plugins import Registry
from smlt.core.summary import Summary

TASKS = Path(__file__).parent / "tasks.py"


@dataclass(frozen=True)
class Job:
    """A job of the tasks here.

    Attributes:
        task: class in `tasks.py`.
        settings: other keys of `smlt.toml` and their values; params that reach the task are "job.params.NAME".
    """

    task: str = "Digits"
    workers: int = 2
    steps: int = 20
    settings: tuple[tuple[str, Any], ...] = ()

    def but(self, settings: dict[str, Any]) -> Job:
        """The same with other settings."""
        return replace(self, settings=tuple((dict(self.settings) | settings).items()))

    def spec(self, name: str, settings: dict[str, Any]) -> JobSpec:
        """What the engine is asked for."""
        plain: dict[str, Any] = {}
        everything = {
            "job.task": f"{TASKS.name}:{self.task}",
            "job.name": name,
            "job.steps": self.steps,
            "job.global_batch": 16,
            "job.include": [TASKS.name],
            "workers.count": self.workers,
            "backend.worker_threads": 1,
            **dict(self.settings),
            **settings,
        }
        for key, value in everything.items():
            *path, last = key.split(".")
            here = plain
            for part in path:
                here = here.setdefault(part, {})
            here[last] = value
        return JobSpec.model_validate(plain)


@dataclass
class Courses:
    """Runs jobs, and remembers what they come to by themselves.

    Args:
        folder: where runs are kept.
        registry: where functions run.
    """

    folder: Path
    registry: Registry
    _undisturbed: dict[Job, Summary] = field(default_factory=dict)
    _runs: int = 0

    def undisturbed(self, job: Job) -> Summary:
        """What the job comes to by itself."""
        if job not in self._undisturbed:
            summary = self.run(job)
            assert summary.replacements == 0
            self._undisturbed[job] = summary
        return self._undisturbed[job]

    def disturbed(
        self, job: Job, *chaos: str, name: str | None = None, all_happen: bool = True, **settings: Any
    ) -> Summary:
        """What the job comes to with faults, and settings that change nothing; its bits are those of the undisturbed.

        Args:
            job: what to train.
            chaos: rules.
            name: of a run that was begun elsewhere.
            all_happen: whether each of the rules must have taken effect.
            settings: "__" in a name stands for a dot.
        """
        plain = {name.replace("__", "."): value for name, value in settings.items()}
        summary = self.run(job, {"backend.chaos": list(chaos), **plain}, name)
        undisturbed = self.undisturbed(job)
        assert (summary.weights_sha256, summary.state_sha256) == (
            undisturbed.weights_sha256,
            undisturbed.state_sha256,
        ), self.course(summary.run)
        assert summary.metrics == undisturbed.metrics
        if all_happen:
            self._check_faults(summary.run, chaos)
        return summary

    def run(self, job: Job, settings: dict[str, Any] | None = None, name: str | None = None) -> Summary:
        """Train to the end; every step was committed, and nothing is left of the functions."""
        self._runs += 1
        name = name or f"run{self._runs}"
        before = {process.pid for process in psutil.Process().children(recursive=True)}
        summary = run(RunRequest(job.spec(name, settings or {}), self.folder, TASKS.parent), self.registry)
        assert summary.status == "succeeded", (summary.error, self.course(name))
        self._check_steps(name, job.steps)
        self._check_left(name, before)
        return summary

    def events(self, name: str) -> list[dict[str, Any]]:
        """The run's log."""
        lines = (self.folder / name / "events.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    def course(self, name: str) -> str:
        """The run's log without steps, for people."""
        hidden = ("steps", "spent", "created", "planned")
        return "\n".join(["", *(str(event) for event in self.events(name) if event["kind"] not in hidden)])

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

    def made_again(self, name: str) -> int:
        """Steps that were committed, and lost, and made once more."""
        steps = [item["step"] for event in self.events(name) if event["kind"] == "steps" for item in event["items"]]
        return len(steps) - len(set(steps))

    def _check_left(self, name: str, before: set[int]) -> None:
        last = time.monotonic() + 10.0
        while left := [each for each in psutil.Process().children(recursive=True) if each.pid not in before]:
            assert time.monotonic() < last, f"processes were left: {left}"
            time.sleep(0.01)
        shared = folder_of(spec_for(RunPlace(name, self.folder)).url)
        assert not shared.exists() or not list(shared.iterdir())
