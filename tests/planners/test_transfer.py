"""How long an exchange takes: each stage by what is slowest in it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smlt.core.catalog import load_catalog
from smlt.core.errors import ConfigError
from smlt.core.sync.collectives import Alone
from smlt.core.sync.cost import SyncCost
from smlt.core.sync.packed import PackedScatterReduce
from smlt.core.task import Region
from smlt.planners.constants import values_of
from smlt.planners.transfer import Stage, exchange_s, server_constants, stages_of, store_constants

VALUES = {
    "put_latency_s": 0.05,
    "get_latency_s": 0.03,
    "up_mb_s": 50.0,
    "down_mb_s": 100.0,
    "link_mb_s": 10.0,
    "burst_mb": 1000.0,
    "store_mb_s": 200.0,
    "pack_s_per_mb": 0.001,
}
MB = 1e6


@pytest.mark.parametrize(
    ("stage", "seconds"),
    [
        (Stage(2, 0, 100 * MB, 0, 1), 2 * 0.05 + 100 / 50),  # its own requests
        (Stage(0, 3, 0, 100 * MB, 1), 3 * 0.03 + 100 / 100),
        (Stage(1, 1, 100 * MB, 100 * MB, 1), 0.05 + 0.03 + 100 / 50),  # both ways at once
        (Stage(0, 1, 0, 1500 * MB, 1), (1500 - 1000) / 10),  # its link, after the burst
        (Stage(0, 1, 0, 100 * MB, 10), 10 * 100 / 200),  # the store
        (Stage(0, 1, 0, 100 * MB, 1, 1000 * MB), 1.0 + 0.03 + 1.0),  # messages are made first
    ],
)
def test_a_stage_takes_what_its_slowest_takes(stage: Stage, seconds: float) -> None:
    assert stage.seconds(VALUES) == pytest.approx(seconds)


@given(st.integers(0, 100), st.floats(0, 1e9), st.integers(1, 100), st.integers(1, 5))
def test_more_of_anything_takes_no_less(gets: int, size: float, ranks: int, more: int) -> None:
    base = Stage(0, gets, 0, size, ranks).seconds(VALUES)
    for stage in (
        Stage(0, gets + more, 0, size, ranks),
        Stage(0, gets, 0, size * (1 + more), ranks),
        Stage(0, gets, 0, size, ranks + more),
        Stage(0, gets, 0, size, ranks, 1e6 * more),
    ):
        assert stage.seconds(VALUES) >= base - 1e-12
    assert exchange_s([Stage(0, gets, 0, size, ranks)] * 3, VALUES) == pytest.approx(3 * base)


def test_a_collectives_phases_wait_and_its_requests_do_not() -> None:
    cost = PackedScatterReduce.cost((Region("float32", 1 << 20),), 0, 33)
    (stage,) = stages_of(cost, 33)
    assert (stage.puts, stage.gets, stage.ranks) == (2, 2, 33)
    assert (stage.bytes_up, stage.bytes_down) == (cost.bytes_up, cost.bytes_down)
    (limited,) = stages_of(cost, 33, concurrency=16)
    assert (limited.puts, limited.gets) == (2, 4)


def test_a_store_that_adds_up_is_waited_for_once() -> None:
    (stage,) = stages_of(SyncCost({"reduce": 5}, 100, 100, phases=1), 4)
    assert (stage.puts, stage.gets) == (0, 1)


def test_who_is_alone_waits_for_nothing() -> None:
    assert stages_of(Alone.cost((Region("float32", 10),)), 1) == []
    assert exchange_s([], VALUES) == 0


@pytest.mark.parametrize(
    ("provider", "store", "functions"),
    [("aws", "s3", "lambda_x86"), ("gcp", "gcs", "cloud_run_jobs")],
)
def test_a_catalog_knows_its_store(provider: str, store: str, functions: str) -> None:
    catalog = load_catalog(f"smlt.backends.{provider}")
    constants = store_constants(catalog, store, functions)
    assert set(constants) == {*VALUES, "store_requests_per_s"}
    assert all(constant.source for constant in constants.values())
    assert constants["get_latency_s"].value == catalog.stores[store].get_latency_s
    assert Stage(1, 1, 1e6, 1e6, 4).seconds(values_of(constants)) > 0


def test_a_catalog_knows_its_servers() -> None:
    aws = load_catalog("smlt.backends.aws")
    constants = server_constants(aws, "cache.r7g.large", "lambda_x86")
    assert set(constants) == set(VALUES)
    assert constants["store_mb_s"].value == 117.125
    assert constants["burst_mb"].value == pytest.approx(300 * 1.048576)


def test_what_a_catalog_does_not_know() -> None:
    aws = load_catalog("smlt.backends.aws")
    with pytest.raises(ConfigError, match=r"say nothing of servers\.cache\.r5\.4xlarge\.bandwidth_mb_s"):
        server_constants(aws, "cache.r5.4xlarge", "lambda_x86")
    assert math.isfinite(store_constants(aws, "s3", "lambda_x86")["store_mb_s"].value)
