"""Jobs on an emulated AWS come to the bits of the local backend, whatever happens to their functions."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

import smlt
from smlt.backends.aws.s3 import spec_of
from smlt.core.plugins import load_registry
from tests.clouds.runs import ROOT, Accident, Runs, kill_sandbox
from tests.clouds.settings import BUCKET, options
from tests.emulators.aws import REGION, Aws
from tests.support.valkey import Valkey, valkey

pytestmark = [pytest.mark.clouds, pytest.mark.timeout(600)]

REDIS = {"sync": {"channel": "redis"}, "planner": {"name": "fixed"}}


@pytest.fixture(scope="module")
def runs(aws: Aws, tmp_path_factory) -> Iterator[Runs]:
    with pytest.MonkeyPatch.context() as patched:
        for name, value in aws.environment.items():
            patched.setenv(name, value)
        backend = {"name": "aws", **options(aws)}
        yield Runs(tmp_path_factory.mktemp("runs"), load_registry(), backend, spec_of(BUCKET, "smlt", REGION, aws.url))


@pytest.fixture(scope="module")
def redis(tmp_path_factory) -> Iterator[Valkey]:
    with valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


def test_digits_with_s3_alone(runs: Runs):
    summary, home = runs.train("plain", {}), runs.at_home({})
    assert (summary.weights_sha256, summary.state_sha256) == (home.weights_sha256, home.state_sha256)
    assert summary.metrics == home.metrics
    assert summary.cost_usd["total"] > 0
    assert (summary.replacements, summary.handovers) == (0, 0)


def test_digits_with_redis_between_ranks(runs: Runs, redis: Valkey):
    summary, home = runs.train("redis", {**REDIS, "backend": {"redis_url": redis.url}}), runs.at_home({})
    assert summary.allocation["sync"]["channel"] == "redis"
    assert summary.state_sha256 == home.state_sha256


@pytest.mark.parametrize("what", ["rank", "sandbox"])
def test_a_killed_worker(runs: Runs, what: str):
    name = f"killed-{what}"

    def kill() -> None:
        rank = runs.rank(name, "1.1.0")
        rank.kill() if what == "rank" else kill_sandbox(rank)

    accident = Accident(8, kill)
    summary = runs.train(name, {}, accident)
    assert accident.has_happened
    assert summary.replacements == 1
    assert summary.state_sha256 == runs.at_home({}).state_sha256


def test_functions_that_may_live_thirty_seconds(runs: Runs):
    """Over S3 so many steps take longer than that on any machine."""
    longer = {"job": {"epochs": 60}, "planner": {"name": "fixed"}, "sync": {"channel": "object"}}
    summary = runs.train("thirty", {**longer, "backend": {"function_time_limit": "30s"}})
    assert summary.handovers >= 1
    assert summary.replacements == 0
    assert summary.state_sha256 == runs.at_home(longer).state_sha256


def test_diloco_with_s3_alone(runs: Runs):
    sync = {"sync": {"mode": "local_sgd", "period": 10, "channel": "object"}}
    home = runs.at_home(sync)
    summary = runs.train("diloco", sync)
    assert summary.allocation["sync"]["mode"] == "local_sgd"
    assert (summary.weights_sha256, summary.state_sha256) == (home.weights_sha256, home.state_sha256)
    assert summary.metrics == home.metrics


def test_a_killed_controller_and_resume(runs: Runs):
    """Its functions are out of its successor's reach, end by themselves, and others go on."""
    command = [sys.executable, "-m", "tests.clouds.dying", str(runs.folder), json.dumps(runs.backend), "orphaned", "8"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    result = smlt.resume("orphaned", runs_dir=runs.folder, budget="5usd")
    assert result.status == "succeeded"
    assert result.summary.state_sha256 == runs.at_home({}).state_sha256
