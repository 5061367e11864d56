"""A worker is killed at a named place of the protocol, and the run ends with the very bits of the run without."""

from __future__ import annotations

import pytest

from tests.recovery.courses import Courses, Job


@pytest.mark.parametrize("chaos", ["kill:rank=1,step=7"])
def test_a_killed_worker_changes_no_bit(courses: Courses, chaos: str) -> None:
    job = Job()
    result = courses.run(job, chaos)
    assert result.weights_sha256 == courses.undisturbed(job).weights_sha256
    assert result.summary.state_sha256 == courses.undisturbed(job).summary.state_sha256
    assert result.summary.replacements == 1
