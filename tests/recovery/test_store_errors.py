"""Whole runs on an object store of which one request in ten fails: claims, mail, control, log and checkpoints."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from smlt.core import checkpoint
from smlt.core.summary import Summary
from tests.support import shaky_plugin
from tests.support.engines import STEPS, Runs, exit_code_of, nothing_left
from tests.support.faulty_store import KINDS

UNNOTICED = KINDS[-1]
SLOW_S = 0.15
"""Of a step: when the controller is killed, its successor finds the functions at work."""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    with shaky_plugin.installed(tmp_path, monkeypatch):
        runs = Runs(tmp_path)
        with nothing_left(runs):
            yield runs


def asked(name: str, backend: str = "shaky", **settings: object) -> dict[str, dict[str, object]]:
    job = {"name": name, "checkpoint_every": "3steps", "params": {"slow_s": SLOW_S}}
    return {"job": job, "backend": {"name": backend, **settings}}


def train(runs: Runs, name: str, backend: str = "shaky", **settings: object) -> Summary:
    return runs.train(**asked(name, backend, **settings))


def check(runs: Runs, summary: Summary) -> None:
    """The run is what it is on a store that never fails, and each of its checkpoints was kept until it was old."""
    assert summary.state_sha256 == train(runs, "undisturbed", backend="local").state_sha256
    assert checkpoint.valid_steps(runs.store(summary.run))[-2:] == [STEPS - 3, STEPS]
    failed = shaky_plugin.noted(runs.runs_dir)
    assert len(failed) >= 3  # the engine's requests, and those of each function
    for kind in set(KINDS) - {UNNOTICED}:
        assert sum(counted[kind] for counted in failed.values()) > 0


def test_a_run_is_not_disturbed(runs: Runs) -> None:
    summary = train(runs, "shaky")
    assert (summary.status, summary.replacements, summary.generations) == ("succeeded", 0, 1)
    assert runs.steps() == list(range(STEPS))
    check(runs, summary)


def test_a_lost_worker_and_time_limits_are_got_over(runs: Runs) -> None:
    summary = train(runs, "shaky", chaos=["kill:rank=1,step=7"], function_time_limit="5s")
    assert (summary.status, summary.replacements) == ("succeeded", 1)
    assert summary.handovers >= 1
    check(runs, summary)


def test_a_controller_that_is_killed_has_a_successor(runs: Runs) -> None:
    chaos = ["controller_exit:step=8"]
    assert exit_code_of(runs.request(**asked("shaky", chaos=chaos))) == -signal.SIGKILL
    summary = train(runs, "shaky", chaos=chaos)
    assert (summary.status, summary.replacements, summary.generations) == ("succeeded", 0, 1)
    check(runs, summary)
