"""benchmarks/step: runs give the JSON that docs/performance.md describes, and leave nothing behind."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.step import MODELS
from benchmarks.step.models import TASKS, ResNet18, Transformer
from smlt.testing.backend import eventually

ROOT = Path(__file__).parents[2]
NAMESPACES = Path("/run/netns")
SHAPED = ["-m", "benchmarks.step.shaped_link", "--model", "perceptron", "--workers", "2"]
CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21


def namespaces_of(pid: int) -> list[str]:
    return [each.name for each in NAMESPACES.glob(f"smlt-{pid}-*")]


def may_make_namespaces() -> bool:
    name = f"smlt-test-{os.getpid()}"
    if shutil.which("ip") is None or subprocess.run(["ip", "netns", "add", name], capture_output=True).returncode:
        return False
    subprocess.run(["ip", "netns", "del", name], check=True)
    return True


def start(*arguments: str, **more: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )


def without_rights() -> None:
    """In the child: what it executes next cannot get the rights for namespaces, though it be root's."""
    pr_capbset_drop = 24
    for capability in (CAP_NET_ADMIN, CAP_SYS_ADMIN):
        ctypes.CDLL(None).prctl(pr_capbset_drop, capability, 0, 0, 0)


def lives(pid: str) -> bool:
    """A process that has ended may wait for whoever inherited it to look."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("model", "least", "most"), [(ResNet18, 11.17e6, 11.69e6), (Transformer, 12e6, 12.2e6)])
def test_the_models_are_as_large_as_they_say(model: Any, least: float, most: float) -> None:
    assert least <= sum(each.numel() for each in model().parameters()) <= most


def test_every_model_has_a_task() -> None:
    assert set(TASKS) == set(MODELS)


def test_a_step_beside_ddp() -> None:
    what = ["--models", "perceptron", "--channels", "shared_memory", "--rounds", "2"]
    process = start("-m", "benchmarks.step.ddp", *what, "-o", "json")
    out, err = process.communicate()
    assert process.returncode == 0, err
    rows = {row["variant"]: row for row in json.loads(out)["rows"]}
    assert list(rows) == ["ddp gloo", "shared_memory", "ddp, compute only", "smlt, compute only"]
    assert rows["ddp gloo"]["ratio_to_ddp"] == 1
    for row in rows.values():
        assert (row["model"], row["workers"], row["rounds"]) == ("perceptron", 2, 2)
        assert row["median_ms"] >= row["fastest_ms"] > 0
        assert 0 < row["cores_used"] < 1.5
        assert row["sync_ms"] == pytest.approx(row["median_ms"] - rows["ddp, compute only"]["median_ms"])


def refused(code: int, err: str) -> bool:
    return code == 1 and "shaped_link: " in err and "CAP_NET_ADMIN" in err and "iproute2" in err


@pytest.mark.parametrize("channel", ["redis", "reducing"])
def test_steps_behind_shaped_links(channel: str) -> None:
    may = may_make_namespaces()
    process = start(*SHAPED, "--channel", channel, "--rounds", "2", "-o", "json")
    out, err = process.communicate()
    assert not namespaces_of(process.pid)
    if not may:
        assert refused(process.returncode, err)
        return
    assert process.returncode == 0, err
    result = json.loads(out)
    rows = {row["variant"]: row for row in result["rows"]}
    assert (result["workers"], result["mbit"], result["channel"]) == (2, 600, channel)
    assert rows["compute only"]["bytes_per_rank"] == 0
    assert rows["sequential fp32"]["ratio_to_sequential"] == 1
    assert rows["overlapped bf16"]["bytes_per_rank"] < 0.6 * rows["overlapped fp32"]["bytes_per_rank"]
    for row in rows.values():
        assert row["wire_ms"] == pytest.approx(row["bytes_per_rank"] / 75e6 * 1e3)


def test_without_the_rights_it_says_what_is_needed() -> None:
    process = start(*SHAPED, preexec_fn=without_rights)
    _, err = process.communicate()
    assert refused(process.returncode, err)
    assert not namespaces_of(process.pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_after_an_interruption(number: signal.Signals) -> None:
    may = may_make_namespaces()
    process = start(*SHAPED, "--rounds", "100000")
    assert process.stderr is not None
    said = process.stderr.readline()
    if not may:
        assert refused(process.wait(), said + process.stderr.read())
        return
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert namespaces_of(process.pid)
    process.send_signal(number)
    process.communicate()
    assert process.returncode != 0
    assert not namespaces_of(process.pid)
    eventually(lambda: not any(map(lives, children)), 30, "its children have ended")
