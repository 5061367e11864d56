"""From a job to a plan: what of a job's synchronisation reaches it, and what is refused before anything is launched."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from smlt.core.errors import ConfigError
from smlt.core.job import JobSpec
from smlt.core.planner import Plan, Sync
from smlt.core.planning import plan_job
from smlt.core.plugins import load_registry
from smlt.core.stepping import STEPPINGS
from smlt.core.sync.codecs import CODECS, codec_named
from smlt.core.sync.names import EXACT, FAST, CodecName, Mode, Recovery


def plan(folder: Path, sync: dict[str, Any], workers: int = 2, **job: Any) -> Plan:
    registry = load_registry()
    plain = {"job": {"task": "task.py:Digits", **job}, "workers": {"count": workers}, "sync": sync}
    spec = JobSpec.from_plain(JobSpec.model_validate(plain).to_plain())  # as it comes out of a run's record
    return plan_job(spec, registry.backend("local", {}), folder, registry)


def test_what_is_not_said_is_exact(tmp_path: Path) -> None:
    assert plan(tmp_path, {}).allocation.sync == Sync("every_step", "fp32", "shared_memory")


def test_what_is_said_is_planned(tmp_path: Path) -> None:
    sync = {"mode": "local_sgd", "codec": "bf16", "period": 50, "fragments": 2, "outer_momentum": 0.5}
    expected = Sync("local_sgd", "bf16", "shared_memory", 50, 2, 0.7, 0.5)
    assert plan(tmp_path, sync, steps=50).allocation.sync == expected


@pytest.mark.parametrize("lossy", [{"codec": "int8"}, {"mode": "local_sgd", "period": 5}])
def test_private_state_is_lost_only_where_that_was_said(tmp_path: Path, lossy: dict[str, Any]) -> None:
    for said, recovers_fast in (({}, False), ({"recovery": "exact"}, False), ({"recovery": "fast"}, True)):
        assert plan(tmp_path, {**lossy, **said}).allocation.sync.recovers_fast == recovers_fast


def test_a_fast_recovery_of_what_cannot_be_lost_is_refused(tmp_path: Path) -> None:
    assert not plan(tmp_path, {"recovery": "exact"}).allocation.sync.recovers_fast
    with pytest.raises(ValueError, match='recovery = "fast" needs mode = "local_sgd" or a lossy codec'):
        plan(tmp_path, {"recovery": "fast", "codec": "fp32"})


@pytest.mark.parametrize("mode", [{}, {"mode": "local_sgd"}])
def test_a_codec_for_one_worker_is_refused(tmp_path: Path, mode: dict[str, str]) -> None:
    plan(tmp_path, mode, workers=1)
    with pytest.raises(ConfigError, match=r"\[sync\]\.codec = 'int8' does nothing with 1 worker") as caught:
        plan(tmp_path, {**mode, "codec": "int8"}, workers=1)
    assert "[workers].count to 2" in caught.value.hint


def test_a_period_longer_than_the_job_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"period = 50, but the job ends after \[job\]\.steps = 49"):
        plan(tmp_path, {"mode": "local_sgd"}, steps=49)


@pytest.mark.parametrize(
    ("key", "value"), [("period", 50), ("fragments", 1), ("outer_learning_rate", 0.7), ("outer_momentum", 0.9)]
)
@pytest.mark.parametrize("mode", ["auto", "every_step"])
def test_keys_of_another_mode_are_refused_whatever_their_value(key: str, value: float, mode: str) -> None:
    with pytest.raises(ValueError, match=f'{key} need mode = "local_sgd"'):
        JobSpec.model_validate({"job": {"task": "task.py:Digits"}, "sync": {"mode": mode, key: value}})


def test_every_name_is_known() -> None:
    assert set(get_args(Mode)) == set(STEPPINGS)
    assert set(get_args(CodecName)) == {EXACT, *CODECS}
    assert FAST in get_args(Recovery)
    assert {name: codec.name for name, codec in CODECS.items()} == {name: name for name in CODECS}
    assert codec_named(EXACT) is None
