"""A worker is killed at a named place of the protocol, and the run ends with the very bits of the run without."""

from __future__ import annotations

import pytest

from tests.recovery.courses import Courses, Job

DIGITS = Job(settings=(("job.checkpoint_every", "6steps"), ("job.eval_every", "5steps")))

IN_A_STEP = ["computing", "computed", "sending", "reducing", "consumed", "committed"]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("point", IN_A_STEP)
def test_killed_within_a_step(courses: Courses, point: str, rank: int) -> None:
    summary = courses.disturbed(DIGITS, f"kill:rank={rank},step=7,at={point}")
    assert (summary.replacements, summary.generations) == (1, 1)
