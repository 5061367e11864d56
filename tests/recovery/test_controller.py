"""The process that drives a run is killed, and another one goes on."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from smlt.core.engine import RunRequest
from smlt.core.summary import Summary
from tests.recovery.courses import Courses, Job
from tests.support.engines import exit_code_of


def disturbed(courses: Courses, job: Job, name: str, *chaos: str, **settings: str) -> Summary:
    """What a job comes to whose controller is killed by a rule, and whose run the next one goes on with."""
    dotted = {key.replace("__", "."): value for key, value in settings.items()}
    spec = job.spec(name, {"backend.chaos": list(chaos), **dotted})
    assert exit_code_of(RunRequest(spec, courses.folder, Path(__file__).parent)) == -signal.SIGKILL
    return courses.disturbed(job, *chaos, name=name, **settings)


@pytest.mark.parametrize("workers", [1, 2])
def test_the_controller_is_killed_and_another_one_goes_on(courses: Courses, workers: int) -> None:
    """Beside it, a worker dies in each session."""
    job = Job(workers=workers, steps=40).but({"job.checkpoint_every": "10steps", "job.params.pause_s": 0.05})
    chaos = ("controller_exit:step=17", "kill:rank=0,step=5", "kill:step=25,at=computed,incarnation=any")
    assert disturbed(courses, job, f"orphan{workers}", *chaos).generations == 2


@pytest.mark.parametrize(("task", "workers"), [("Digits", 4), ("Gpt", 2)])
def test_everything_in_one_run(courses: Courses, task: str, workers: int) -> None:
    summary = disturbed(
        courses,
        Job(task, workers, steps=240).but({"job.checkpoint_every": "40steps", "job.params.pause_s": 0.05}),
        f"everything{task}{workers}",
        "kill:rank=1,step=9,at=reducing",
        "freeze:rank=0,step=15,seconds=1",
        "kill:rank=0,step=20,at=sending",
        "kill:step=31,at=consumed,incarnation=any",
        "kill:rank=0,at=announcing,incarnation=any",
        "kill:rank=1,at=ready,incarnation=any,step=1",
        "controller_exit:step=60",
        "hang:rank=0,step=80,incarnation=any",
        "slow:rank=1,step=100,seconds=0.05,incarnation=any",
        backend__function_time_limit="4s",
    )
    assert summary.handovers >= 5
    assert summary.replacements >= 4
