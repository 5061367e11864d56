"""Whatever goes wrong, wherever: 30 steps come to the same bits."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, note, seed, settings
from hypothesis import strategies as st

from smlt.core.chaos import POINTS
from smlt.core.summary import Summary
from tests.recovery.courses import Courses, Job

STEPS = 30
SETTINGS = {"job.checkpoint_every": "7steps", "job.eval_every": "8steps"}
KINDS = ("kill", "kill", "kill", "freeze", "slow")


@st.composite
def jobs(draw: st.DrawFn) -> Job:
    """Jobs of `STEPS` steps, few enough that most have been trained undisturbed before."""
    kind = draw(st.sampled_from(["adam", "momentum", "gpt", "int8", "local_sgd", "hands over"]))
    workers = draw(st.sampled_from([2, 4] if kind in ("int8", "local_sgd") else [1, 2, 4]))
    job = Job("Gpt" if kind == "gpt" else "Digits", workers, STEPS).but(SETTINGS)
    more = {
        "momentum": {"job.params.optimizer": "momentum", "train.micro_batch": 3},
        "int8": {"sync.codec": "int8"},
        "local_sgd": {"sync.mode": "local_sgd", "sync.period": 5},
        "hands over": {"job.params.pause_s": 0.1},
    }
    return job.but(more.get(kind, {}))


@st.composite
def rules(draw: st.DrawFn, workers: int, kinds: tuple[str, ...] = KINDS) -> str:
    """A rule of chaos; not all of them come to take effect."""
    kind = draw(st.sampled_from(kinds))
    parts = [f"at={draw(st.sampled_from(list(POINTS)))}", f"step={draw(st.integers(0, STEPS))}"]
    rank = draw(st.integers(-1, workers - 1))
    if rank >= 0:
        parts.append(f"rank={rank}")
    if draw(st.booleans()):
        parts.append(f"incarnation={draw(st.integers(0, 2))}")
    if kind in ("freeze", "slow"):
        parts.append(f"seconds={draw(st.sampled_from([0.01, 0.1, 0.5] if kind == 'freeze' else [0.01, 0.03]))}")
    return f"{kind}:{','.join(parts)}"


@st.composite
def disturbances(draw: st.DrawFn, kinds: tuple[str, ...] = KINDS) -> tuple[Job, list[str]]:
    job = draw(jobs())
    return job, draw(st.lists(rules(job.workers, kinds), min_size=1, max_size=5))


def check(courses: Courses, examples: int, number: int, kinds: tuple[str, ...] = KINDS) -> int:
    """So many random disturbances, and how many there were; the number makes them others."""
    summaries: list[Summary] = []

    @seed(number)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],  # an example is a replay already, and shrinking it would take many runs
        suppress_health_check=list(HealthCheck),
    )
    @given(disturbances(kinds))
    def changes_no_bit(case: tuple[Job, list[str]]) -> None:
        job, chaos = case
        note(f"{job} {chaos}")
        limit = {"backend__function_time_limit": "4s"} if "job.params.pause_s" in dict(job.settings) else {}
        summaries.append(courses.disturbed(job, *chaos, all_happen=False, **limit))

    changes_no_bit()
    return len(summaries)


@pytest.mark.parametrize("number", range(5))
def test_nothing_changes_a_bit(courses: Courses, number: int) -> None:
    assert check(courses, 5, number) == 5


@pytest.mark.soak
@pytest.mark.parametrize("number", range(100, 120))
def test_nothing_ever_changes_a_bit(courses: Courses, number: int) -> None:
    assert check(courses, 25, number, (*KINDS, *KINDS, "hang")) == 25
