"""No secret of the user leaves this machine by a run, but for the signatures of requests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from smlt.backends.aws.s3 import spec_of
from smlt.core.plugins import load_registry
from tests.clouds.runs import Runs
from tests.clouds.settings import BUCKET, options
from tests.emulators.aws import REGION, Aws

pytestmark = [pytest.mark.clouds, pytest.mark.timeout(600)]

CANARIES = {
    "AWS_SECRET_ACCESS_KEY": "canary-of-the-secret-key",
    "AWS_SESSION_TOKEN": "canary-of-the-session",
    "REDIS_PASSWORD": "canary-of-redis",
    "HF_TOKEN": "canary-of-a-task",
    "LITHOPS_CONFIG": '{"aws": {"secret_access_key": "canary-of-lithops"}}',
}


@pytest.fixture
def told(aws: Aws, monkeypatch, tmp_path) -> Runs:
    """Runs of somebody with many secrets, and a Lithops configuration with keys."""
    for name, value in {**aws.environment, **CANARIES}.items():
        monkeypatch.setenv(name, value)
    home = tmp_path / "home"
    (home / ".lithops").mkdir(parents=True)
    (home / ".lithops" / "config").write_text("aws:\n  secret_access_key: canary-of-a-file\n  region: x\n")
    monkeypatch.setenv("HOME", str(home))
    backend = {"name": "aws", **options(aws)}
    return Runs(tmp_path / "runs", load_registry(), backend, spec_of(BUCKET, "smlt", REGION, aws.url))


def everything_in_s3(aws: Aws) -> Iterator[tuple[str, bytes]]:
    s3 = aws.client("s3")
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for item in page.get("Contents", []):
            yield item["Key"], s3.get_object(Bucket=BUCKET, Key=item["Key"])["Body"].read()


def everything_below(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes()


def test_canaries_are_nowhere(told: Runs, aws: Aws, tmp_path):
    seen: list[tuple[str, bytes]] = []
    told.train("canaries", {"job": {"epochs": 1}}, lambda _: seen.extend(everything_in_s3(aws)) if not seen else None)
    found = [*seen, *everything_in_s3(aws), *everything_below(told.folder), ("server", aws.log.read_bytes())]
    functions = aws.client("lambda")
    for function in functions.list_functions()["Functions"]:
        found.append(
            (function["FunctionName"], repr(functions.get_function(FunctionName=function["FunctionName"])).encode())
        )
    for layer in functions.list_layers()["Layers"]:
        found.append((layer["LayerName"], repr(layer).encode()))
    assert any("/log/" in name for name, _ in found)
    assert [name for name, content in found if b"canary" in content] == []


def test_the_payload_of_a_call_has_no_key(told: Runs, aws: Aws, tmp_path):
    """What Lithops sends with each call is its whole configuration."""
    recorded = tmp_path / "payloads"
    spy = tmp_path / "spy"
    spy.mkdir()
    (spy / "sitecustomize.py").write_text(SPY.format(path=str(recorded)))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PYTHONPATH", str(spy), prepend=":")
        told.train("payloads", {"job": {"epochs": 1}})
    payloads = recorded.read_bytes()
    assert b"call_ids" in payloads
    assert b"canary" not in payloads


SPY = """
import smlt.backends.aws.functions as functions
invoke = functions.LambdaFunctions._invoke

def spying(self, runtime, memory, payload):
    with open({path!r}, "a") as file:
        file.write(repr(payload))
    return invoke(self, runtime, memory, payload)

functions.LambdaFunctions._invoke = spying
"""
