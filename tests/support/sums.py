"""Sums over ranks, whatever the pattern: what each rank contributes, and what must come of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from smlt.core.sync.choice import collective_for
from smlt.core.sync.collectives import Seat
from smlt.core.sync.header import Header
from smlt.core.task import Array, Region
from tests.support.channels import MemoryChannel, Patient

STEPS = 5
REGIONS = st.lists(
    st.builds(Region, st.sampled_from(["float32", "float64", "int64"]), st.integers(0, 70), st.booleans()),
    min_size=1,
    max_size=4,
).map(tuple)


def contribution_of(regions: tuple[Region, ...], rank: int, step: int) -> list[Array]:
    """Numbers whose sum depends on the order in which they are added."""
    rng = np.random.default_rng([rank, step])
    return [
        rng.integers(-(2**62), 2**62, region.elements)
        if region.dtype == "int64"
        else (rng.standard_normal(region.elements) * 10.0 ** rng.integers(-8, 8, region.elements)).astype(region.dtype)
        for region in regions
    ]


def added(terms: Sequence[list[Array]]) -> list[Array]:
    """The sum of lists of arrays, from the first to the last."""
    total = terms[0]
    for term in terms[1:]:
        total = [before + more for before, more in zip(total, term, strict=True)]
    return total


def in_rank_order(regions: tuple[Region, ...], world_size: int, step: int) -> list[Array]:
    """((x0 + x1) + x2) + …."""
    return added([contribution_of(regions, rank, step) for rank in range(world_size)])


def train(
    channel: MemoryChannel | None, regions: tuple[Region, ...], rank: int, world_size: int, pattern=collective_for
) -> list[tuple[Header, list[bytes]]]:
    """Some steps of one rank: merged headers and the bytes of the sums."""
    seat = None if channel is None else Seat(channel, (1, 0), rank, world_size, Patient())
    sums = pattern(seat, regions)
    found = []
    for step in range(STEPS):
        memory = sums.contribution(step)
        assert all(not array.any() for array in memory)
        for array, values in zip(memory, contribution_of(regions, rank, step), strict=True):
            array[:] = values
        merged, totals = sums.reduce(Header(step, end=rank, digest=7, loss_sum=float(rank), weight=1.0))
        sums.commit()
        found.append((merged, [total.tobytes() for total in totals]))
    sums.close()
    return found


def check(
    outcomes: list[Any],
    regions: tuple[Region, ...],
    world_size: int,
    sum_of: Callable[[tuple[Region, ...], int, int], list[Array]] = in_rank_order,
) -> None:
    """See that every rank has the one right sum of every step, bit for bit."""
    loss = float(sum(range(world_size)))
    expected = [
        (
            Header(step, world_size - 1, 0, 7, loss, float(world_size)),
            [array.tobytes() for array in sum_of(regions, world_size, step)],
        )
        for step in range(STEPS)
    ]
    for outcome in outcomes:
        assert outcome == expected
