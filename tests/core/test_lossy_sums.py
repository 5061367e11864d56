"""Sums by lossy codecs: equal on all ranks, and what was lost comes later."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smlt.core.storage import Buffer, ChannelKey
from smlt.core.sync.codecs import CODECS
from smlt.core.sync.collectives import Seat
from smlt.core.sync.header import Header
from smlt.core.sync.packed import PackedScatterReduce
from smlt.core.sync.pieces import PiecewiseScatterReduce
from smlt.core.task import Array, Region
from tests.support.channels import MemoryChannel, Patient, Room, in_threads

REGIONS = (Region("float32", 700, tolerant=True), Region("float32", 40), Region("int64", 9))


def numbers(rank: int, step: int) -> Array:
    return np.random.default_rng([rank, step]).standard_normal(700).astype(np.float32)


PATTERNS = {"pieces": partial(PiecewiseScatterReduce, piece_bytes=512), "packed": PackedScatterReduce}


def sums_of(
    codec: str, world_size: int, steps: int, numbers=numbers, pattern: str = "pieces"
) -> list[list[list[Array]]]:
    """By rank and step, the sums of all regions."""
    room = Room()

    def train(rank: int) -> list[list[Array]]:
        channel = MemoryChannel(room, rank, shows=False)
        seat = Seat(channel, (1, 0), rank, world_size, Patient())
        sums, found = PATTERNS[pattern](seat, REGIONS, CODECS[codec]), []
        for step in range(steps):
            own = sums.contribution(step)
            own[0][:], own[1][:], own[2][:] = numbers(rank, step), rank + 0.1, rank
            found.append([each.copy() for each in sums.reduce(Header(step))[1]])
            sums.commit()
        lost = sums.private()["residual/0"]
        return [*found, [lost]]

    return in_threads(train, world_size)


@settings(max_examples=30)
@given(st.sampled_from(sorted(CODECS)), st.integers(2, 5), st.sampled_from(sorted(PATTERNS)))
def test_all_ranks_have_the_same_sums_and_what_must_be_exact_is(codec: str, world_size: int, pattern: str) -> None:
    first, *others = sums_of(codec, world_size, 3, pattern=pattern)
    for other in others:
        for mine, theirs in zip(first[:-1], other[:-1], strict=True):
            assert [each.tobytes() for each in mine] == [each.tobytes() for each in theirs]
    exact = np.float32(0.1)
    for rank in range(1, world_size):
        exact = exact + np.float32(rank + 0.1)
    for _, floats, counts in first[:-1]:
        assert (floats == exact).all()
        assert (counts == sum(range(world_size))).all()


@pytest.mark.parametrize("codec", sorted(CODECS))
@pytest.mark.parametrize("world_size", [2, 3])
@pytest.mark.parametrize("pattern", sorted(PATTERNS))
def test_nothing_is_lost_for_ever(codec: str, world_size: int, pattern: str) -> None:
    """What all sums lack of the true ones is what the ranks still hold."""
    steps = 6
    outcomes = sums_of(codec, world_size, steps, pattern=pattern)
    got = np.sum([step[0] for step in outcomes[0][:-1]], axis=0, dtype=np.float64)
    held = np.sum([outcome[-1][0] for outcome in outcomes], axis=0, dtype=np.float64)
    wanted = np.sum(
        [numbers(rank, step) for rank in range(world_size) for step in range(steps)], axis=0, dtype=np.float64
    )
    np.testing.assert_allclose(got + held, wanted, atol=1e-4)
    assert np.abs(held).max() > 0


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_a_constant_gradient_comes_through_on_average(codec: str) -> None:
    steps, constant = 300, numbers(0, 0)
    outcomes = sums_of(codec, 2, steps, lambda rank, step: constant)
    mean = np.mean([step[0] for step in outcomes[0][:-1]], axis=0)
    error = np.linalg.norm(mean - 2 * constant) / np.linalg.norm(2 * constant)
    assert error < (0.5 if codec == "topk" else 1e-3)


@pytest.mark.parametrize("codec", sorted(CODECS))
@pytest.mark.parametrize("pattern", sorted(PATTERNS))
def test_what_is_not_finite_passes_with_its_step(codec: str, pattern: str) -> None:
    def mostly_finite(rank: int, step: int) -> Array:
        found = numbers(rank, step)
        if step == 0:
            found[[3 * rank, 300, 699]] = np.nan, np.inf, -np.inf
        return found

    for first, *others, lost in sums_of(codec, 3, 4, mostly_finite, pattern):
        seen = np.isfinite(first[0][[0, 3, 6, 300, 699]])
        assert not seen.all() if codec == "topk" else not seen.any()
        assert all(np.isfinite(sums[0]).all() for sums in others)
        assert np.isfinite(lost[0]).all()


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_a_step_given_up_leaves_what_was_lost_before_as_it_was(codec: str) -> None:
    """A contribution that is made again, instead of a commit, starts from the same residual."""
    room = Room()

    def train(rank: int) -> tuple[bytes, bytes]:
        channel = MemoryChannel(room, rank, shows=False)
        sums = PiecewiseScatterReduce(Seat(channel, (1, 0), rank, 2, Patient()), REGIONS, CODECS[codec])
        for step in range(2):
            sums.contribution(step)[0][:] = numbers(rank, step)
            sums.reduce(Header(step))
            sums.commit()
        before = sums.private()["residual/0"].tobytes()
        sums.contribution(2)[0][:] = numbers(rank, 2)
        sums.reduce(Header(2))
        return before, sums.private()["residual/0"].tobytes()

    for before, after in in_threads(train, 2):
        assert before == after


class KeepingChannel(MemoryChannel):
    """Values stay until they are discarded, as in shared memory and in objects: that they may go earlier is all."""

    def _do_put(self, key: ChannelKey, parts: Sequence[Buffer], readers: int | None) -> None:
        super()._do_put(key, parts, None)


@pytest.mark.parametrize("pattern", sorted(PATTERNS))
def test_where_readers_remove_nothing_values_are_forgotten_two_steps_later(pattern: str) -> None:
    room, steps = Room(), 6

    def train(rank: int) -> None:
        seat = Seat(KeepingChannel(room, rank, shows=False), (1, 0), rank, 3, Patient())
        sums = PATTERNS[pattern](seat, REGIONS, CODECS["int8"])
        for step in range(steps):
            sums.contribution(step)
            sums.reduce(Header(step))
            sums.commit()

    assert in_threads(train, 3) == [None] * 3
    assert {key.step for key in room.published()} == {steps - 2, steps - 1}
