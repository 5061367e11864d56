"""In-store reduction over a real store: whole or in buckets, the same bits, and the requests and bytes it says."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from smlt.backends.channels.reducing import ReducingChannel
from smlt.core.storage import ChannelSpec
from smlt.core.sync.collectives import Seat
from smlt.core.sync.header import Header
from smlt.core.sync.in_store import InStoreReduction
from smlt.core.sync.overlap import Overlapped
from smlt.core.task import Region
from tests.support.channels import Patient, in_threads
from tests.support.reducing import served_store

REGIONS = (Region("float32", 3_000_000), Region("float64", 50), Region("int64", 7))
STEPS, WORLD_SIZE = 2, 3


@pytest.fixture
def spec(tmp_path: Any) -> Iterator[ChannelSpec]:
    with served_store(tmp_path, memory_bytes=64 << 20) as store:
        yield store.spec("run")


def summed(spec: ChannelSpec, round_number: int, in_buckets: bool) -> list[tuple[list[bytes], dict[str, Any]]]:
    """By rank: the sums of the last step, and what the channel counted."""

    def train(rank: int) -> tuple[list[bytes], dict[str, Any]]:
        with ReducingChannel(spec, 1, round_number, rank) as channel:
            seat = Seat(channel, (1, round_number), rank, WORLD_SIZE, Patient())
            if in_buckets:
                sums = Overlapped(seat, lambda seat: InStoreReduction(seat, REGIONS, in_buckets=True))
            else:
                sums = InStoreReduction(seat, REGIONS)
            for step in range(STEPS):
                contribution = sums.contribution(step)
                rng = np.random.default_rng([rank, step])
                for array in contribution:
                    array[:] = rng.standard_normal(array.size) * 100
                sums.reached(2_000_000)
                merged, totals = sums.reduce(Header(step, end=rank, weight=1.0))
                assert merged == Header(step, end=WORLD_SIZE - 1, weight=float(WORLD_SIZE))
            found = [total.tobytes() for total in totals]
            sums.close()
            return found, asdict(channel.stats())

    return in_threads(train, WORLD_SIZE)


@pytest.mark.parametrize("in_buckets", [False, True])
def test_requests_and_bytes_are_what_the_pattern_says(spec: ChannelSpec, in_buckets: bool) -> None:
    for rank, (_, stats) in enumerate(summed(spec, 0, in_buckets)):
        cost = InStoreReduction.cost(REGIONS, rank, WORLD_SIZE, in_buckets)
        assert stats["requests"] == {"reduce": STEPS * cost.requests["reduce"]}
        assert (stats["bytes_up"], stats["bytes_down"]) == (STEPS * cost.bytes_up, STEPS * cost.bytes_down)
    assert InStoreReduction.cost(REGIONS, 0, WORLD_SIZE, in_buckets).requests == {"reduce": 5 if in_buckets else 3}


def test_in_buckets_the_bits_are_the_same(spec: ChannelSpec) -> None:
    whole, in_buckets = summed(spec, 0, False), summed(spec, 1, True)
    assert len({tuple(bits) for bits, _ in whole + in_buckets}) == 1
