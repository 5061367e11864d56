"""benchmarks/validate_model.py: how near the model comes to what was published, and the JSON that says so."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.validate_model import SERIES, fitted, smlt_redis, validate

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/validate_model.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("name", ["siren.resnet18", "siren.resnet50"])
def test_siren_from_10_and_50_workers_is_within_6_percent(name: str, alone: bool) -> None:
    document = validate(name, alone=alone)
    assert document["calibrated_on"] == [10, 50]
    assert document["worst_error"] <= 0.06


def test_smlts_redis_steps_from_three_points() -> None:
    document = validate("smlt.bert_medium")
    assert document["calibrated_on"] == [10, 40, 60]
    assert [row["workers"] for row in document["predictions"] if not row["calibrated"]] == [20, 50, 80, 100]
    assert document["median_error"] <= 0.10
    assert document["worst_error"] <= 0.20


@pytest.mark.parametrize("size_mb", [40, 440])
def test_an_unsound_size_of_the_model_changes_little(size_mb: float) -> None:
    series = SERIES["smlt.bert_medium"]
    other = replace(series, pattern=partial(smlt_redis, size_mb))
    for workers, published in series.published().items():
        predicted = fitted(other, (10, 40, 60)).predict(other.model(workers, "total"))
        assert predicted.likely == pytest.approx(sum(published.values()), rel=0.10)


@pytest.mark.parametrize("name", list(SERIES))
def test_every_series_has_a_prediction_for_every_count(name: str) -> None:
    document = validate(name, (10, 100, 150))
    assert [row["workers"] for row in document["predictions"]] == [10, 100, 150]
    for row in document["predictions"]:
        assert 0 < row["low_s"] <= row["predicted_s"] <= row["high_s"]
        assert row["predicted_s"] == pytest.approx(sum(part["predicted_s"] for part in row["parts"].values()))
    assert all(constant["source"] for constant in document["constants"])


def test_as_json_with_counts_that_nobody_published() -> None:
    done = run("--series", "siren.resnet18", "--workers", "10,50,100,150,200", "-o", "json")
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    published = {row["workers"]: row["published_s"] for row in document["predictions"]}
    assert published == {10: 4.67, 50: 29.36, 100: 60.26, 150: None, 200: None}
    assert document["fitted_with"] == {"siren.resnet50": [10, 50]}


def test_as_a_table() -> None:
    done = run("--series", "startup")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("startup.from_vm, fitted on 10, 40 workers\n")
    assert "not fitted: median " in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--series", "siren.resnet19"], "did you mean 'siren.resnet18'?"),
        (["--series", "startup", "--workers", "0"], "not numbers of workers: '0'"),
        (["--series", "startup", "--calibrate", "11"], "startup.from_vm has nothing at 11 workers"),
    ],
)
def test_what_cannot_be_asked(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
