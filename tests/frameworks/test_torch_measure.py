"""Looking at a task without training it: the sizes of a built one, no optimizer, and what failed is what is said."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from torch_models import Classifier

from smlt.core.errors import TaskError
from smlt.core.task import TaskContext, TrainingTask


def adapted(kind: type[Classifier], folder: Path) -> TrainingTask:
    task = kind()
    task.context = TaskContext(
        params={}, seed=0, rank=0, world_size=1, folder=folder, micro_batch=None, clip_norm=None, precision="fp32",
        threads=1, secrets=(),
    )  # fmt: skip
    return task.adapt()


class Broken(Classifier):
    def build_model(self) -> Any:
        raise ValueError("too hot")


def test_a_measured_task_is_as_large_as_a_built_one(tmp_path) -> None:
    measured, built = adapted(Classifier, tmp_path), adapted(Classifier, tmp_path)
    shape = measured.measure({}, lambda examples: 10)
    assert shape == built.build({}, lambda examples: 10)
    assert list(measured.order(0)) == list(built.order(0))
    measured.close()
    built.close()


def test_a_task_that_could_not_be_built_says_why_and_can_be_closed(tmp_path) -> None:
    task = adapted(Broken, tmp_path)
    with pytest.raises(TaskError, match="build_model raised ValueError: too hot"):
        task.measure({}, lambda examples: 10)
    task.close()


MEASURE = """
import sys
from pathlib import Path
from test_torch_measure import Classifier, adapted

adapted(Classifier, Path()).measure({}, lambda examples: 10)
print("torch._dynamo" in sys.modules)
"""


def test_measuring_does_not_import_what_takes_as_long_as_torch() -> None:
    here = Path(__file__).parent
    code = f"import sys; sys.path.insert(0, {str(here)!r})\n{MEASURE}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
