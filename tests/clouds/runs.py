"""Jobs that run on an emulated cloud as they would at home, and what happens to them there."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from smlt.backends.lithops.calls import CallState
from smlt.core import wire
from smlt.core.engine import RunRequest, run
from smlt.core.job import JobSpec
from smlt.core.plugins import Registry
from smlt.core.runlog import RunEvent
from smlt.core.storage import ObjectStore, StoreSpec
from smlt.core.summary import Summary

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits"


@dataclass
class Runs:
    """Runs digits, the example, unchanged.

    Args:
        folder: where runs are kept, or what is left of them here.
        registry: where they run.
        backend: `[backend]` of the cloud.
        store: of its runs, up to the name.
    """

    folder: Path
    registry: Registry
    backend: dict[str, Any]
    store: StoreSpec
    _at_home: dict[str, Summary] = field(default_factory=dict)

    def train(self, name: str, sections: dict[str, Any], listener: Callable[[RunEvent], None] | None = None) -> Summary:
        """On the cloud; fails the test unless it succeeds.

        Args:
            name: of the run.
            sections: of `smlt.toml`, beside what digits has.
            listener: is told every event.
        """
        backend = {**self.backend, **sections.get("backend", {})}
        return self._run(name, {**sections, "backend": backend}, listener)

    def at_home(self, sections: dict[str, Any]) -> Summary:
        """What the local backend makes of the same job."""
        here = {**sections, "backend": {"worker_threads": 1}}
        mark = json.dumps(here, sort_keys=True)
        if mark not in self._at_home:
            self._at_home[mark] = self._run(f"home-{len(self._at_home)}", here, None)
        return self._at_home[mark]

    def _run(self, name: str, sections: dict[str, Any], listener: Callable[[RunEvent], None] | None) -> Summary:
        job = {"task": "task.py:Digits", "name": name, "epochs": 3, "global_batch": 64, "params": {"width": 32}}
        plain = {
            **sections,
            "job": {**job, **sections.get("job", {})},
            "workers": {"count": 2, "memory": "2GiB", **sections.get("workers", {})},
        }
        request = RunRequest(JobSpec.model_validate(plain), self.folder, DIGITS)
        summary = run(request, self.registry, listener=listener)
        assert summary.status == "succeeded", summary
        return summary

    def open(self, name: str) -> ObjectStore:
        """The objects of a run on the cloud."""
        return self.registry.open_store(StoreSpec(self.store.kind, f"{self.store.url}/{name}", self.store.options))

    def rank(self, name: str, label: str) -> psutil.Process:
        """The process of a rank that runs now, by the label of its function."""
        store = self.open(name)
        key = next(info.key for info in store.list("calls/") if info.key.endswith(f"/{label}/state"))
        return psutil.Process(wire.unpack(store.get(key), CallState).pid)

    def events(self, name: str, kind: str) -> list[dict[str, Any]]:
        """Those of one kind in a run's log."""
        lines = self.open(name).get("events.jsonl").decode().splitlines()
        return [event for event in map(json.loads, lines) if event["kind"] == kind]


@dataclass
class Accident:
    """A listener that does something once a run has made so many steps.

    Attributes:
        step: that must be behind.
        happens: what.
        has_happened: whether it did.
    """

    step: int
    happens: Callable[[], None]
    has_happened: bool = False

    def __call__(self, event: RunEvent) -> None:
        if event.kind == "steps" and event.data["items"][-1]["step"] >= self.step and not self.has_happened:
            self.has_happened = True
            self.happens()


def kill_sandbox(rank: psutil.Process) -> None:
    """All of a function at once, as if its machine was taken away: the rank, Lithops' processes and Lambda's."""
    supervisor = rank.parent()
    handler = supervisor.parent() if supervisor else None
    for process in (handler, supervisor, rank):
        with suppress(psutil.NoSuchProcess):
            if process is not None:
                process.kill()
