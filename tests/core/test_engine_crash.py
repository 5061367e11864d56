"""Whole runs whose engine is killed: its workers do not stay, and the run goes on to the very same bits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from smlt.core import checkpoint
from smlt.core.runlog import read_events
from smlt.core.summary import Summary
from smlt.testing.backend import eventually
from tests.support.engines import STEPS, Runs
from tests.support.launching import is_running

_ENGINE = """
import json
import sys
from dataclasses import replace
from pathlib import Path
from smlt.backends.local.backend import LocalBackend
from smlt.core.engine import run
from tests.support.engines import Runs

limits = LocalBackend.limits.fget
LocalBackend.limits = property(lambda backend: replace(limits(backend), orphan_grace_s=float(sys.argv[3])))
runs = Runs(Path(sys.argv[1]))
run(runs.request(job=json.loads(sys.argv[2])), runs.registry)
"""

ORPHAN = {"name": "orphan", "params": {"slow_s": 0.4}, "checkpoint_every": "2steps"}


@contextmanager
def killed_engine(runs: Runs, orphan_grace_s: float = 60.0) -> Iterator[list[psutil.Process]]:
    """An engine is killed once its run has a checkpoint; gives the processes that it leaves."""
    command = [sys.executable, "-c", _ENGINE, str(runs.folder), json.dumps(ORPHAN), str(orphan_grace_s)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as engine:
        left: list[psutil.Process] = []
        try:
            eventually(lambda: checkpoint.valid_steps(runs.store("orphan")) != [], 60, "the first checkpoint")
            left = psutil.Process(engine.pid).children(recursive=True)
            engine.kill()
            engine.wait()
            yield left
        finally:
            engine.kill()
            for process in left:
                with suppress(psutil.NoSuchProcess):
                    process.kill()


def running(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if is_running(process.pid)]


def test_workers_without_a_controller_save_and_leave(undisturbed: Summary, runs: Runs) -> None:
    with killed_engine(runs, orphan_grace_s=3.0) as left:
        assert len(running(left)) >= 3  # the server of functions, and two of them
        eventually(lambda: running(left) == [], 60, "all of them have left")
        saved = checkpoint.valid_steps(runs.store("orphan"))[-1]
        assert saved > 2
    resumed = runs.train(job={"name": "orphan"})
    assert (resumed.status, resumed.steps, resumed.generations) == ("succeeded", STEPS, 2)
    told = [event.data for _, event in read_events(runs.store("orphan")) if event.kind == "steps"]
    made_by = {item["step"]: data["generation"] for data in told for item in data["items"]}
    assert [item["step"] for data in told for item in data["items"]] == list(range(STEPS))  # also those nobody heard of
    assert made_by == {step: 1 if step < saved else 2 for step in range(STEPS)}
    assert resumed.state_sha256 == undisturbed.state_sha256


def test_the_next_controller_goes_on_with_the_workers_that_are_there(undisturbed: Summary, runs: Runs) -> None:
    """No step is made again, none is missing in the log, and no function is started."""
    with killed_engine(runs) as left:
        resumed = runs.train(job=ORPHAN)
        assert (resumed.status, resumed.steps, resumed.generations) == ("succeeded", STEPS, 1)
        eventually(lambda: running(left) == [], 60, "the adopted workers and their server have left")
    logged = [event for _, event in read_events(runs.store("orphan"))]
    second = [event.kind for event in logged].index("created", 1)
    before_s = logged[second - 1].time - logged[0].time
    after_s = logged[-1].time - logged[second].time
    assert resumed.wall_seconds >= before_s + after_s
    kinds = [event.kind for event in runs.events]
    assert kinds.count("adopted") == 1
    assert "launched" not in kinds
    steps = [
        item["step"]
        for _, event in read_events(runs.store("orphan"))
        if event.kind == "steps"
        for item in event.data["items"]
    ]
    assert steps == list(range(STEPS))
    assert resumed.state_sha256 == undisturbed.state_sha256


def test_a_worker_that_dies_after_the_controller_is_replaced_by_the_next_one(undisturbed: Summary, runs: Runs) -> None:
    with killed_engine(runs) as left:
        dead = next(process for process in left if not process.children())
        dead.kill()
        resumed = runs.train(job=ORPHAN)
        assert (resumed.status, resumed.steps, resumed.generations) == ("succeeded", STEPS, 1)
        assert resumed.replacements == 1
        eventually(lambda: running(left) == [], 60, "the adopted worker and the server have left")
    assert resumed.state_sha256 == undisturbed.state_sha256


def test_a_run_that_shall_do_something_else_begins_with_other_workers(undisturbed: Summary, runs: Runs) -> None:
    """Its old ones are still there."""
    with killed_engine(runs) as left:
        resumed = runs.train(job={"name": "orphan"})
        assert (resumed.status, resumed.steps) == ("succeeded", STEPS)
        assert resumed.state_sha256 == undisturbed.state_sha256
        eventually(lambda: running(left) == [], 60, "the old workers have left")
