"""What travels with a task: a package with relative imports, a file beside it, things that no pickle takes."""

from __future__ import annotations

from pathlib import Path

import pytest

import smlt

PARCEL = Path(__file__).parent / "tasks" / "parcel" / "task.py"


@pytest.mark.parametrize("backend", ["local", "lithops"])
def test_a_package_with_data_trains(tmp_path: Path, backend: str) -> None:
    result = smlt.train(f"{PARCEL}:Parcel", backend=backend, workers=2, epochs=8, global_batch=10, runs_dir=tmp_path)
    assert result.status == "succeeded"
    assert result.metrics["loss"] < 0.2
    assert result.summary.backend == backend
