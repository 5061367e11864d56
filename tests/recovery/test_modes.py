"""Modes in which ranks have PRIVATE state: all go back to a checkpoint and lose no bit, or who is lost begins anew."""

from __future__ import annotations

import pytest

from tests.recovery.courses import Courses, Job

MODES = {
    "int8": {"sync.codec": "int8"},
    "topk": {"sync.codec": "topk"},
    "local_sgd": {"sync.mode": "local_sgd", "sync.period": 4},
    "local_sgd int8": {"sync.mode": "local_sgd", "sync.period": 4, "sync.fragments": 2, "sync.codec": "int8"},
}


PERIODS = {"local_sgd": 4, "local_sgd int8": 2}
"""Steps from one exchange to the next, where that is not each."""


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


@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize("mode", MODES)
def test_who_is_lost_begins_anew_and_nobody_goes_back_to_a_checkpoint(
    courses: Courses, mode: str, workers: int
) -> None:
    """Ranks compare their SHARED state at the first exchange of each round."""
    fast = {"job.checkpoint_every": "8steps", "sync.recovery": "fast", **MODES[mode]}
    job = Job(workers=workers, steps=24).but(fast)
    every = PERIODS.get(mode, 1)
    lost = [(0, 11), (workers - 1, 18)]
    kills = [f"kill:rank={rank},step={step}" for rank, step in lost]
    summary = courses.run(job, {"backend.chaos": kills})
    assert (summary.replacements, summary.recovered_fast) == (2, True)
    log = courses.events(summary.run)
    begun = [(event["rank"], event["step"]) for event in log if event["kind"] == "rejoined"]
    assert begun == [(rank, step // every * every) for rank, step in lost]
    back = {event["step"] for event in log if event["kind"] == "rolled_back"}
    assert back <= (set(dict(begun).values()) if every > 1 else set())
    undisturbed = courses.undisturbed(job)
    assert not undisturbed.recovered_fast
    assert abs(summary.metrics["loss"] - undisturbed.metrics["loss"]) < 0.15  # which holds for no NaN


def test_a_donor_is_killed_too_as_it_serves_one_that_begins_anew(courses: Courses) -> None:
    job = Job(workers=4, steps=12).but({"sync.recovery": "fast", **MODES["local_sgd int8"]})
    summary = courses.run(job, {"backend.chaos": ["kill:rank=3,step=7", "kill:rank=0,at=serving"]})
    assert summary.replacements == 2
    rejoined = [event for event in courses.events(summary.run) if event["kind"] == "rejoined"]
    assert {(event["rank"], event["donor"], event["step"]) for event in rejoined} == {(0, 1, 6), (3, 1, 6)}


def test_a_hand_over_gives_private_state_back_where_a_loss_would_not(courses: Courses) -> None:
    settings = {"sync.recovery": "fast", "job.params.pause_s": 0.05, **MODES["local_sgd int8"]}
    summary = courses.disturbed(Job(steps=120).but(settings), backend__function_time_limit="5s")
    assert summary.generations >= 2
    assert not summary.recovered_fast
