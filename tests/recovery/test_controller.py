"""The process that drives a run is killed, and another one goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.recovery.courses import Courses, Job

_CONTROLLER = """
import sys
from pathlib import Path
from smlt.core.engine import RunRequest, run
from smlt.core.job import JobSpec
from smlt.core.plugins import load_registry

spec = JobSpec.model_validate_json(sys.argv[1])
run(RunRequest(spec, Path(sys.argv[2]), Path(sys.argv[3])), load_registry())
"""


@pytest.mark.parametrize("workers", [1, 2])
def test_the_controller_is_killed_and_another_one_goes_on(courses: Courses, workers: int) -> None:
    """Beside it, a worker dies in each session."""
    job = Job(workers=workers, steps=40).but({"job.checkpoint_every": "10steps", "job.params.pause_s": 0.05})
    chaos = ("controller_exit:step=17", "kill:rank=0,step=5", "kill:step=25,at=computed,incarnation=any")
    spec = job.spec("orphan" + str(workers), {"backend.chaos": list(chaos)})
    arguments = [spec.model_dump_json(), str(courses.folder), str(Path(__file__).parent)]
    first = subprocess.run([sys.executable, "-c", _CONTROLLER, *arguments], timeout=120)
    assert first.returncode == -signal.SIGKILL
    summary = courses.disturbed(job, *chaos, name=spec.job.name)
    assert summary.generations == 2
