"""`recovery = "fast"`: all ranks go back to the last exchange, and one that has lost its state begins anew there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from smlt.core.planner import Sync
from smlt.core.stepping import STEPPINGS, Stepping
from smlt.core.sync.collectives import Seat
from smlt.core.sync.header import Header
from smlt.core.task import StepLoss, StepWork
from tests.core.test_stepping import BATCH, SHAPE, Walk, bits, bits_of
from tests.support.channels import MemoryChannel, Patient, Room, in_threads

SYNCS = st.one_of(
    st.builds(Sync, codec=st.sampled_from(["bf16", "int8", "topk"]), recovery=st.just("fast")),
    st.builds(
        lambda codec, fragments, each: Sync(
            "local_sgd", codec, period=fragments * each, fragments=fragments, recovery="fast"
        ),
        st.sampled_from(["fp32", "bf16", "int8"]),
        st.integers(1, 3),
        st.integers(1, 4),
    ),
)


class Ranks:
    """Ranks that take steps together, in one round after another.

    Attributes:
        total: steps of their job.
    """

    def __init__(self, sync: Sync, world_size: int, total: int) -> None:
        self.sync, self.total = sync, total
        self.steppings = [self.built() for _ in range(world_size)]
        self._room = Room()
        self._round = 0

    def built(self) -> Stepping:
        return STEPPINGS[self.sync.mode](Walk(), SHAPE, self.sync)

    def join(self) -> None:
        """A new round of all."""
        self._round += 1
        for rank, stepping in enumerate(self.steppings):
            channel = MemoryChannel(self._room, rank, shows=False)
            stepping.join(Seat(channel, (1, self._round), rank, len(self.steppings), Patient()))

    def go(self, steps: Sequence[int]) -> None:
        def work(rank: int) -> None:
            for step in steps:
                self.steppings[rank].commit(step, self._made(rank, step))

        assert in_threads(work, len(self.steppings)) == [None] * len(self.steppings)

    def give_up(self, step: int) -> None:
        """The step in hand, after its exchange if it has one."""
        outcomes = in_threads(lambda rank: self._made(rank, step), len(self.steppings))
        assert all(isinstance(outcome, StepLoss) for outcome in outcomes)
        for stepping in self.steppings:
            stepping.forget()

    def last_exchange(self, step: int) -> int:
        """The step after it, before this one is made."""
        return step // self.sync.exchange_every * self.sync.exchange_every

    def _made(self, rank: int, step: int) -> StepLoss:
        stepping, world_size = self.steppings[rank], len(self.steppings)
        loss = stepping.compute(StepWork(step, 0, np.arange(BATCH)[rank::world_size] + step, BATCH))
        if step + 1 < self.total and (step + 1) % self.sync.exchange_every:
            return loss
        merged = stepping.exchange(Header(step, loss_sum=loss.sum, weight=loss.weight), last=step + 1 == self.total)
        return StepLoss(merged.loss_sum, merged.weight)

    def close(self) -> None:
        for stepping in self.steppings:
            stepping.close()


@settings(max_examples=60)
@given(SYNCS, st.integers(2, 4), st.integers(0, 11))
def test_a_step_given_up_leads_back_to_the_last_exchange_and_on_bit_for_bit(
    sync: Sync, world_size: int, step: int
) -> None:
    undisturbed, disturbed = (Ranks(sync, world_size, 12) for _ in range(2))
    for ranks in (undisturbed, disturbed):
        ranks.join()
    begin = disturbed.last_exchange(step)
    undisturbed.go(range(begin))
    disturbed.go(range(step))
    disturbed.give_up(step)
    assert list(map(bits_of, disturbed.steppings)) == list(map(bits_of, undisturbed.steppings))
    disturbed.join()
    for ranks in (undisturbed, disturbed):
        ranks.go(range(begin, 12))
    assert list(map(bits_of, disturbed.steppings)) == list(map(bits_of, undisturbed.steppings))
    undisturbed.close()
    disturbed.close()


@settings(max_examples=60)
@given(SYNCS, st.integers(2, 4), st.integers(0, 11), st.integers(0, 3), st.integers(1, 3))
def test_who_begins_anew_stands_with_the_others_who_keep_what_is_theirs(
    sync: Sync, world_size: int, step: int, lost: int, donor: int
) -> None:
    ranks = Ranks(sync, world_size, 12)
    ranks.join()
    ranks.go(range(step))
    ranks.give_up(step)
    lost, donor = lost % world_size, (lost + 1 + (donor - 1) % (world_size - 1)) % world_size
    kept = [bits_of(stepping) for stepping in ranks.steppings]
    ranks.steppings[lost].close()
    ranks.steppings[lost] = ranks.built()
    ranks.steppings[lost].take(ranks.steppings[donor].offer(), world_size)
    ranks.join()
    for rank, (stepping, (shared, private)) in enumerate(zip(ranks.steppings, kept, strict=True)):
        assert bits(stepping.shared_state()) == shared
        assert rank == lost or bits(stepping.private_state()) == private
    ranks.go(range(ranks.last_exchange(step), 12))
    assert len({tuple(bits(stepping.shared_state()).items()) for stepping in ranks.steppings}) == 1
    ranks.close()


def test_in_local_sgd_that_is_at_the_weights_agreed_on_with_the_donor_s_optimizer_and_no_residual() -> None:
    """Of two fragments, joined in turn, one has moved on since it was joined, on the donor too."""
    ranks = Ranks(Sync("local_sgd", "int8", period=4, fragments=2, recovery="fast"), 2, 20)
    ranks.join()
    ranks.go(range(9))
    ranks.give_up(9)
    donor = ranks.steppings[0]
    ranks.steppings[1].close()
    new = ranks.steppings[1] = ranks.built()
    new.take(donor.offer(), 2)
    ranks.join()
    assert isinstance(donor.task, Walk)
    assert isinstance(new.task, Walk)
    anchors = new.shared_state().arrays
    assert (new.task.weights == anchors["anchor/0"]).all()
    assert (new.task.seen == anchors["anchor/1"]).all()
    assert (donor.task.weights != anchors["anchor/0"]).any()
    assert (new.task.momentum == donor.task.momentum).all()
    assert np.abs(donor.task.momentum).max() > 0
    private = [stepping.private_state() for stepping in (donor, new)]
    lost = [sum(np.abs(a).sum() for name, a in each.arrays.items() if "residual" in name) for each in private if each]
    assert lost[0] > 0
    assert lost[1] == 0
    ranks.close()


def test_without_it_a_step_given_up_leads_back_to_the_last_commit() -> None:
    ranks = Ranks(Sync("local_sgd", period=4), 2, 20)
    ranks.join()
    ranks.go(range(6))
    before = [bits_of(stepping) for stepping in ranks.steppings]
    ranks.give_up(6)
    assert [bits_of(stepping) for stepping in ranks.steppings] == before
    ranks.close()
