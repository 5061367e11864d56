"""Optimizers, schedulers, batch norm, dropout, accumulated gradients: whatever a state can have comes back."""

from __future__ import annotations

import pytest

from tests.recovery.courses import Courses, Job

JOBS = {
    "adam": Job(),
    "momentum": Job().but({"job.params.optimizer": "momentum"}),
    "accumulated": Job().but({"train.micro_batch": 3}),
    "clipped": Job().but({"train.clip_norm": 0.5, "job.params.optimizer": "momentum"}),
    "gpt": Job("Gpt"),
    "gpt accumulated": Job("Gpt").but({"train.micro_batch": 2}),
}
STORM = (
    "kill:rank=0,step=3,at=reducing",
    "kill:step=8,at=computed",
    "kill:rank=0,step=13,at=consumed,incarnation=1",
)


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("kind", JOBS)
def test_a_storm_changes_no_bit(courses: Courses, kind: str, workers: int) -> None:
    job = Job(JOBS[kind].task, workers, settings=JOBS[kind].settings).but({"job.checkpoint_every": "5steps"})
    assert courses.disturbed(job, *STORM[workers == 1 :]).replacements >= workers
