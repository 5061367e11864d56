"""Every step and local SGD: ranks stay one computation, and what each has of its own can be saved and taken up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smlt.core.errors import ConfigError, NonFiniteLoss
from smlt.core.planner import Sync
from smlt.core.stepping import STEPPINGS, EveryStep, LocalSgd, Stepping
from smlt.core.sync.collectives import Seat
from smlt.core.sync.header import Header
from smlt.core.task import Array, Region, State, StepLoss, StepWork, TaskShape, TrainingTask
from tests.support.channels import MemoryChannel, Patient, Room, in_threads

SIZE, BATCH = 130, 12
SHAPE = TaskShape(
    100,
    0,
    SIZE,
    (Region("float32", SIZE, tolerant=True), Region("int64", 2)),
    weights=(Region("float32", SIZE, tolerant=True), Region("float32", 3)),
)
Saved = tuple[State, State | None]


class Walk(TrainingTask):
    """Weights drawn to a point that differs from example to example, by momentum SGD; and a mean of what was seen."""

    def __init__(self) -> None:
        self.weights, self.momentum = np.zeros(SIZE, np.float32), np.zeros(SIZE, np.float32)
        self.seen = np.zeros(3, np.float32)

    def compute(self, work: StepWork, contribution: Sequence[Array], reached: Any = None) -> StepLoss:
        points = [np.random.default_rng(int(index)).standard_normal(SIZE).astype(np.float32) for index in work.indices]
        for point in points:
            contribution[0][:] += (self.weights - point) / np.float32(work.global_batch)
        contribution[1][:] = work.step
        return StepLoss(float(sum(np.square(self.weights - point).sum() for point in points)), len(points))

    def commit(self, sums: Sequence[Array], loss: StepLoss) -> None:
        self.momentum[:] = np.float32(0.5) * self.momentum + sums[0]
        self.weights -= np.float32(0.1) * self.momentum
        self.seen += np.float32(loss.mean)

    def shared_state(self) -> State:
        return State({"weights": self.weights, "momentum": self.momentum, "seen": self.seen}, {"kind": "walk"})

    def load_shared_state(self, state: State) -> None:
        for name, mine in self.shared_state().arrays.items():
            np.copyto(mine, state.arrays[name])

    def read_weights(self, out: Sequence[Array]) -> None:
        out[0][:], out[1][:] = self.weights, self.seen

    def write_weights(self, values: Sequence[Array]) -> None:
        self.weights[:], self.seen[:] = values

    def prepare(self) -> None: ...
    def build(self, prepared: Any, total_steps: Any) -> TaskShape: ...
    def order(self, epoch: int) -> Any: ...
    def forget(self) -> None: ...
    def evaluate(self, indices: Any) -> Any: ...
    def finish_evaluation(self, parts: Any) -> Any: ...
    def parameters(self) -> Any: ...
    def model_arrays(self) -> Any: ...


def copied(state: State | None) -> Any:
    return state and State({name: array.copy() for name, array in state.arrays.items()}, state.extra)


def train(
    sync: Sync, world_size: int, steps: range, total: int, before: list[Saved] | None = None
) -> list[tuple[Saved, Walk, Stepping]]:
    """Some steps by all ranks of one round, from what ranks saved before; by rank, what it has at the end."""
    room = Room()

    def work(rank: int) -> tuple[Saved, Walk, Stepping]:
        task = Walk()
        stepping = STEPPINGS[sync.mode](task, SHAPE, sync)
        if before:
            private = [each for _, each in before if each is not None]
            own = private[rank : rank + 1] if len(private) == world_size else private
            stepping.load(before[rank % len(before)][0], own, world_size)
        channel = MemoryChannel(room, rank, shows=False) if world_size > 1 else None
        stepping.join(channel and Seat(channel, (1, 0), rank, world_size, Patient()))
        for step in steps:
            indices = np.arange(BATCH)[rank::world_size] + step
            loss = stepping.compute(StepWork(step, 0, indices, BATCH))
            if step + 1 == total or (step + 1) % sync.exchange_every == 0:
                merged = stepping.exchange(Header(step, loss_sum=loss.sum, weight=loss.weight), last=step + 1 == total)
                assert merged.step == step
                loss = StepLoss(merged.loss_sum, merged.weight)
            stepping.commit(step, loss)
        stepping.close()
        return (copied(stepping.shared_state()), copied(stepping.private_state())), task, stepping

    outcomes = in_threads(work, world_size)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes


def bits(state: State | None) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in state.arrays.items()} if state else {}


SYNCS = st.one_of(
    st.builds(Sync, codec=st.sampled_from(["fp32", "bf16", "fp16", "int8", "topk"])),
    st.builds(
        lambda codec, fragments, each: Sync("local_sgd", codec, period=fragments * each, fragments=fragments),
        st.sampled_from(["fp32", "bf16", "int8"]),
        st.integers(1, 3),
        st.integers(1, 4),
    ),
)


@settings(max_examples=60)
@given(SYNCS, st.integers(1, 4), st.integers(1, 13))
def test_what_is_shared_is_equal_on_all_ranks(sync: Sync, world_size: int, steps: int) -> None:
    outcomes = train(sync, world_size, range(steps), steps)
    assert len({tuple(bits(shared).items()) for (shared, _), _, _ in outcomes}) == 1
    assert len({task.weights.tobytes() for _, task, _ in outcomes}) == 1  # the last step joins all


@settings(max_examples=60)
@given(SYNCS, st.integers(1, 4), st.integers(1, 4), st.integers(1, 9))
def test_saved_at_an_exchange_and_taken_up_it_is_bit_for_bit_the_same(
    sync: Sync, world_size: int, exchanges: int, more: int
) -> None:
    at = exchanges * sync.exchange_every
    total = at + more
    whole = train(sync, world_size, range(total), total)
    first = train(sync, world_size, range(at), total)
    second = train(sync, world_size, range(at, total), total, [saved for saved, _, _ in first])
    for (one, _, _), (other, _, _) in zip(whole, second, strict=True):
        assert [bits(state) for state in one] == [bits(state) for state in other]


@pytest.mark.parametrize("sync", [Sync(codec="int8"), Sync("local_sgd", "int8", period=4, fragments=2)])
@pytest.mark.parametrize(("before", "after"), [(3, 2), (2, 3), (2, 1)])
def test_another_number_of_ranks_goes_on_from_what_all_had(sync: Sync, before: int, after: int) -> None:
    first = train(sync, before, range(8), 20)
    runs = [train(sync, after, range(8, 20), 20, [saved for saved, _, _ in first]) for _ in range(2)]
    assert bits(runs[0][0][0][0]) == bits(runs[1][0][0][0])
    undisturbed = train(sync, before, range(20), 20)
    np.testing.assert_allclose(runs[0][0][1].weights, undisturbed[0][1].weights, atol=0.15)


def test_residuals_of_other_ranks_are_shared_out_evenly() -> None:
    saved = [saved for saved, _, _ in train(Sync(codec="int8"), 4, range(3), 9)]
    (_, private), _, _ = train(Sync(codec="int8"), 2, range(3, 3), 9, saved)[0]
    total = sum(each.arrays["residual/0"].astype(np.float64) for _, each in saved if each)
    assert private is not None
    np.testing.assert_allclose(private.arrays["residual/0"], total / 2, rtol=1e-6)


def test_plain_averages_of_every_step_are_every_step() -> None:
    """Where the optimizer is linear in the gradient, the mean of the ranks' steps is the step of the mean gradient."""
    exact = train(Sync(), 3, range(6), 6)
    averaged = train(Sync("local_sgd", period=1, outer_learning_rate=1.0, outer_momentum=0.0), 3, range(6), 6)
    np.testing.assert_allclose(averaged[0][1].weights, exact[0][1].weights, atol=1e-5)


def test_between_outer_steps_the_shown_model_is_the_one_agreed_on() -> None:
    for (shared, _), task, stepping in train(Sync("local_sgd", period=4), 2, range(6), 20):
        own, agreed = task.weights.copy(), shared.arrays["anchor/0"]
        assert (own != agreed).any()
        with stepping.shown():
            assert (task.weights == agreed).all()
        assert (task.weights == own).all()


def test_fragments_are_joined_in_turn() -> None:
    def anchors(steps: int) -> Array:
        sync = Sync("local_sgd", period=4, fragments=2)
        return train(sync, 2, range(steps), 20)[0][0][0].arrays["anchor/0"]

    moved = [
        np.flatnonzero(after != before)
        for before, after in zip(map(anchors, (0, 2)), map(anchors, (2, 4)), strict=True)
    ]
    assert moved[0].max() < moved[1].min()
    assert (anchors(1) == anchors(0)).all()


def test_a_checkpoint_of_another_mode_is_refused() -> None:
    local, exact = Sync("local_sgd", period=2), Sync()
    for made, taken, match in ((local, exact, "made by local SGD"), (exact, local, "not made by local SGD")):
        saved = [saved for saved, _, _ in train(made, 2, range(2), 9)]
        with pytest.raises(ConfigError, match=match):
            train(taken, 2, range(2, 4), 9, saved)


@pytest.mark.parametrize("mode", [EveryStep, LocalSgd])
def test_a_loss_that_is_no_number_applies_nothing(mode: type[Stepping]) -> None:
    task = Walk()
    stepping = mode(task, SHAPE, Sync(period=2))
    stepping.join(None)
    task.weights[0] = np.nan
    loss = stepping.compute(StepWork(0, 0, np.arange(4), 4))
    with pytest.raises(NonFiniteLoss, match="step 0"):
        stepping.commit(0, loss)
    assert not task.momentum.any()


def test_a_rank_without_examples_takes_no_step_of_its_own() -> None:
    task = Walk()
    stepping = LocalSgd(task, SHAPE, Sync("local_sgd", period=2))
    stepping.join(None)
    assert stepping.compute(StepWork(0, 0, np.arange(0), 4)) == StepLoss(0.0, 0.0)
    stepping.commit(0, StepLoss(0.0, 0.0))
    assert not task.weights.any()


def test_a_task_that_offers_no_weights_is_told_so() -> None:
    with pytest.raises(ConfigError, match="does not support local SGD"):
        LocalSgd(Walk(), TaskShape(1, 0, 1, ()), Sync("local_sgd"))
