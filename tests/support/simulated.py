"""Whole runs on the simulated backend: a job of 11 million parameters that nobody trains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from smlt.core.engine import RunRequest, run
from smlt.core.job import JobSpec
from smlt.core.planning import plan_job
from smlt.core.plugins import load_registry
from smlt.core.profile import Profile, settings_of
from smlt.core.runlog import RunEvent
from smlt.core.summary import Summary
from smlt.core.task import Region
from tests.support.scenes import PROFILED

TASK = "task.py:Net"


class SimulatedRuns:
    """A folder with a task that nobody imports, and the runs made from it.

    Attributes:
        events: what the listener of the last run was told.
        parameters: of the task.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.events, self.parameters = folder, list[RunEvent](), PROFILED.parameters
        (folder / "task.py").write_text("raise RuntimeError('nobody imports this')\n\n\nclass Net:\n    pass\n")
        self.registry = load_registry()

    def spec(self, **sections: dict[str, Any]) -> JobSpec:
        """A job of 60 steps on 8 workers of AWS; sections add to or change what it says."""
        plain: dict[str, dict[str, Any]] = {
            "job": {"task": TASK, "steps": 60, "global_batch": 512, "include": ["task.py"]},
            "workers": {"count": 8, "memory": "2048MiB"},
            "planner": {"name": "fixed"},
            "backend": {"name": "simulated"},
        }
        for name, values in sections.items():
            plain[name] = {**plain.get(name, {}), **values}
        return JobSpec.model_validate(plain)

    def profile(self, spec: JobSpec) -> Profile:
        """Of the task, as if it had been measured."""
        regions = (Region("float32", self.parameters, True),)
        return replace(PROFILED, settings=settings_of(spec), parameters=self.parameters, regions=regions)

    def train(self, **sections: dict[str, Any]) -> Summary:
        """Train to whatever end."""
        self.events = []
        spec = self.spec(**sections)
        runs_dir, plan = self.folder / "runs", None
        if spec.planner.name == "fixed":  # without a forecast, which refuses what tests want to see stopped
            backend = self.registry.backend(spec.backend.name, spec.backend.options)
            plan = plan_job(spec, backend, runs_dir, self.registry)
        request = RunRequest(spec, runs_dir, self.folder, profile=self.profile(spec), plan=plan)
        return run(request, self.registry, listener=self.events.append)

    def told(self, kind: str) -> list[dict[str, Any]]:
        """What the last run's log says of a kind."""
        return [event.data for event in self.events if event.kind == kind]

    def steps(self) -> Iterator[dict[str, Any]]:
        """The steps of the last run, in the order in which they were committed."""
        return (item for data in self.told("steps") for item in data["items"])
