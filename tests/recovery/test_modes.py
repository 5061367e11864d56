"""Modes in which ranks have PRIVATE state go back to a checkpoint, all of them, and lose no bit either."""

from __future__ import annotations

import pytest

from tests.recovery.courses import Courses, Job

MODES = {
    "int8": {"sync.codec": "int8"},
    "topk": {"sync.codec": "topk"},
    "local_sgd": {"sync.mode": "local_sgd", "sync.period": 4},
    "local_sgd int8": {"sync.mode": "local_sgd", "sync.period": 4, "sync.fragments": 2, "sync.codec": "int8"},
}


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("mode", MODES)
def test_all_go_back_to_the_checkpoint(courses: Courses, mode: str, workers: int) -> None:
    job = Job(workers=workers, steps=24).but({"job.checkpoint_every": "8steps", **MODES[mode]})
    summary = courses.disturbed(job, "kill:rank=0,step=11,at=computed", f"kill:rank={workers - 1},step=13,at=consumed")
    assert summary.replacements == 2


@pytest.mark.parametrize("mode", ["int8", "local_sgd"])
def test_hand_overs_and_kills(courses: Courses, mode: str) -> None:
    job = Job(steps=120).but({"job.checkpoint_every": "20steps", "job.params.pause_s": 0.05, **MODES[mode]})
    summary = courses.disturbed(
        job, "kill:rank=1,step=30", "kill:rank=0,at=ready,generation=2", backend__function_time_limit="5s"
    )
    assert summary.generations >= 2
