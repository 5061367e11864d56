"""Workers are killed at named places of the protocol, and the run ends with the very bits of the run without."""

from __future__ import annotations

import pytest

from tests.recovery.courses import Courses, Job

DIGITS = Job(settings=(("job.checkpoint_every", "6steps"), ("job.eval_every", "5steps")))
ALONE = Job(workers=1, settings=DIGITS.settings)
FOUR = Job(workers=4, settings=DIGITS.settings)

IN_A_STEP = ["computing", "computed", "sending", "reducing", "consumed", "committed"]
OFF_THE_STEPS = ["building", "ready", "meeting", "loading", "evaluating", "saving", "manifest", "saved", "leaving"]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("point", IN_A_STEP)
def test_killed_within_a_step(courses: Courses, point: str, rank: int) -> None:
    summary = courses.disturbed(DIGITS, f"kill:rank={rank},step=7,at={point}")
    assert (summary.replacements, summary.generations, summary.recovered_fast) == (1, 1, False)
    assert courses.made_again(summary.run) <= 1


OF_TWO = [(point, rank) for point in OFF_THE_STEPS for rank in (0, 1) if (point, rank) != ("saved", 1)]


@pytest.mark.parametrize(("point", "rank"), OF_TWO)
def test_killed_off_the_steps(courses: Courses, point: str, rank: int) -> None:
    assert courses.disturbed(DIGITS, f"kill:rank={rank},at={point}").steps == DIGITS.steps


@pytest.mark.parametrize("point", ["computing", "committed", *OFF_THE_STEPS, "exporting"])
def test_the_only_worker_is_killed(courses: Courses, point: str) -> None:
    step = 7 if point in IN_A_STEP else 0
    assert courses.disturbed(ALONE, f"kill:step={step},at={point}").steps == ALONE.steps


def test_killed_as_it_writes_the_model(courses: Courses) -> None:
    assert courses.disturbed(DIGITS, "kill:rank=0,at=exporting").steps == DIGITS.steps


@pytest.mark.parametrize("rank", [0, 1])
def test_the_donor_is_killed_as_it_serves(courses: Courses, rank: int) -> None:
    """Nobody has a state then: all go back to the checkpoint."""
    summary = courses.disturbed(DIGITS, f"kill:rank={rank},step=8", f"kill:rank={1 - rank},at=serving")
    assert summary.replacements == 2


def test_the_replacement_is_killed_too(courses: Courses) -> None:
    """As it starts, as it loads, as it computes."""
    summary = courses.disturbed(
        DIGITS,
        "kill:rank=1,step=8,at=consumed",
        "kill:rank=1,at=ready,incarnation=1",
        "kill:rank=1,at=loading,incarnation=2",
        "kill:rank=1,step=12,incarnation=3",
    )
    assert summary.replacements == 4


@pytest.mark.parametrize("point", ["computing", "reducing", "saving", "manifest", "leaving"])
def test_all_are_killed_at_once(courses: Courses, point: str) -> None:
    assert courses.disturbed(DIGITS, f"kill:step=8,at={point}").steps == DIGITS.steps


@pytest.mark.parametrize(
    "chaos",
    [
        ("kill:rank=2,step=7,at=reducing", "kill:rank=1,step=7,at=sending"),
        ("kill:rank=0,step=7,at=consumed", "kill:rank=1,at=serving", "kill:rank=3,step=9,at=computed"),
        ("kill:step=9,at=sending",),
    ],
    ids=["two", "one after another", "all"],
)
def test_several_of_four_are_killed(courses: Courses, chaos: tuple[str, ...]) -> None:
    assert courses.disturbed(FOUR, *chaos).replacements >= 2
