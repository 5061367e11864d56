"""Functions that live for a few seconds only, and are hit while they hand over."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.recovery.courses import Courses, Job

SETTINGS = {"job.checkpoint_every": "40steps", "job.params.pause_s": 0.05}
LONG = Job(steps=120).but(SETTINGS)
LONG_ALONE = Job(steps=120, workers=1).but(SETTINGS)


@pytest.mark.parametrize("job", [LONG_ALONE, LONG], ids=["one worker", "two workers"])
def test_hand_overs_change_no_bit(courses: Courses, job: Job) -> None:
    summary = courses.disturbed(replace(job, steps=200), backend__function_time_limit="4s")
    assert summary.handovers >= 5


def test_ranks_hand_over_one_after_another_where_there_is_room_for_one_more(courses: Courses) -> None:
    job = replace(LONG, steps=200)
    summary = courses.disturbed(job, backend__function_time_limit="6s", backend__max_workers=3)
    assert summary.rank_handovers >= 2
    assert len(summary.rank_handover_stall_seconds) == summary.rank_handovers
    assert summary.replacements == 0


@pytest.mark.parametrize(
    "chaos",
    [
        "kill:rank=0,at=ready,incarnation=1",
        "kill:rank=0,at=building,incarnation=1",
        "kill:rank=0,at=meeting,incarnation=1",
        "kill:rank=0,at=loading,incarnation=1",
        "kill:rank=1,at=serving",
        "freeze:rank=0,at=ready,incarnation=1,seconds=1",
    ],
)
def test_hit_while_a_rank_hands_over(courses: Courses, chaos: str) -> None:
    summary = courses.disturbed(LONG, chaos, backend__function_time_limit="6s", backend__max_workers=3)
    assert summary.steps == LONG.steps


@pytest.mark.parametrize(
    "chaos",
    [
        "kill:rank=0,at=announcing",
        "kill:rank=1,at=ready,generation=2",
        "kill:at=ready,generation=2",
        "kill:rank=0,at=loading,generation=2",
        "kill:rank=1,at=saving",
        "kill:rank=0,at=manifest",
        "kill:at=manifest",
        "kill:rank=0,at=saved",
        "kill:rank=0,at=leaving",
        "kill:at=leaving",
        "kill:rank=1,at=computing,generation=2",
        "freeze:rank=1,at=ready,generation=2,seconds=1",
    ],
)
def test_hit_while_handing_over(courses: Courses, chaos: str) -> None:
    job = LONG.but({"job.checkpoint_every": "1000steps"})
    assert courses.disturbed(job, chaos, backend__function_time_limit="4s").generations >= 2
