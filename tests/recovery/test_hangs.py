"""Workers that hang, are frozen for a while, or are slow; and those that come back after they were replaced."""

from __future__ import annotations

import pytest

from tests.recovery.courses import Courses, Job

DIGITS = Job(settings=(("job.checkpoint_every", "6steps"),))


@pytest.mark.parametrize("point", ["computing", "sending", "committed", "ready"])
def test_a_rank_that_hangs_is_replaced(courses: Courses, point: str) -> None:
    summary = courses.disturbed(DIGITS, f"hang:rank=1,step={0 if point == 'ready' else 7},at={point}")
    assert summary.replacements == 1


@pytest.mark.parametrize("step", [7, 20], ids=["beside training", "last"])
def test_a_rank_whose_save_hangs_is_replaced(courses: Courses, step: int) -> None:
    """Its thread does; training comes upon it at the next save. The last checkpoint, all others wait for."""
    job = DIGITS.but({"job.checkpoint_every": "4steps"})
    assert courses.disturbed(job, f"hang:rank=1,step={step},at=saving").replacements == 1


@pytest.mark.parametrize("point", ["computing", "reducing", "saving", "ready"])
def test_a_rank_that_is_frozen_for_a_moment_goes_on(courses: Courses, point: str) -> None:
    step = 0 if point == "ready" else 6
    summary = courses.disturbed(DIGITS, f"freeze:rank=0,step={step},at={point},seconds=1")
    assert summary.replacements == 0


def test_a_rank_that_is_frozen_for_long_is_replaced(courses: Courses) -> None:
    summary = courses.disturbed(DIGITS, "freeze:rank=1,step=7,at=consumed,seconds=60")
    assert summary.replacements == 1


def test_a_rank_that_nobody_can_stop_comes_back_in_vain(zombies: Courses) -> None:
    """It was replaced when it is revived, in the middle of a step of a dead round; it leaves by itself."""
    summary = zombies.disturbed(DIGITS.but({"job.params.pause_s": 0.2}), "freeze:rank=1,step=7,at=sending,seconds=6.5")
    assert summary.replacements == 1


def test_a_slow_rank_changes_no_bit(courses: Courses) -> None:
    summary = courses.disturbed(DIGITS, "slow:rank=1,step=5,seconds=0.05", "slow:rank=0,step=3,factor=5")
    assert summary.replacements == 0
