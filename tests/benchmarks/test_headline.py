"""benchmarks/headline.py: near to what was published where something was, and the same for all where it must be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.headline import BASE, SYSTEMS, compute_s, headline, of_cirrus, row

ROOT = Path(__file__).parents[2]
PUBLISHED = {
    ("resnet18", 100, "Siren-like"): 92.6,
    ("resnet18", 100, "Cirrus-like"): 46.2,
    ("resnet18", 100, "SMLT as published"): 34.2,
    ("resnet50", 100, "Siren-like"): 175.9,
    ("resnet50", 100, "SMLT as published"): 49.2,
}
"""Iterations that nothing here was fitted on, seconds."""


@pytest.mark.parametrize("case", PUBLISHED, ids=str)
def test_published_iterations_of_100_workers_are_within_6_percent(case) -> None:
    assert row(*case)["iteration_s"] == pytest.approx(PUBLISHED[case], rel=0.06)


def test_the_parameter_server_is_fitted_at_50_workers() -> None:
    assert row("resnet18", 50, "Cirrus-like")["iteration_s"] == pytest.approx(71.3, rel=0.01)
    assert 300 < of_cirrus()["store_mb_s"] < 1250


def test_all_systems_compute_alike_and_are_held_against_one() -> None:
    rows = headline(("resnet50",), (50, 200))
    assert len(rows) == 2 * len(SYSTEMS)
    for each in rows:
        assert each["compute_s"] == compute_s("resnet50", each["workers"])
        assert each["cost_usd"] == pytest.approx(each["functions_usd"] + each["requests_usd"] + each["servers_usd"])
        assert (each["system"] == BASE) <= (each["time_ratio"] == each["cost_ratio"] == 1.0)
        assert each["is_lossy"] == ("lossy" in each["system"])


def test_what_everybody_reads_of_everybody_grows_with_the_workers_and_what_is_shared_out_far_less() -> None:
    small, large = (row("resnet50", count, "Siren-like")["exchange_s"] for count in (50, 200))
    assert large > 3.5 * small
    for system in ("smlt every_step, redis", "smlt every_step, s3"):
        assert row("resnet50", 200, system)["exchange_s"] < large / 20


def test_the_command_prints_one_document() -> None:
    command = [sys.executable, "-m", "benchmarks.headline", "--models", "resnet18", "--workers", "50", "-o", "json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert {each["system"] for each in json.loads(done.stdout)["rows"]} == set(SYSTEMS)
    refused = subprocess.run([*command, "--models", "moon"], cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "moon" in refused.stderr
