"""Every step and local SGD: ranks stay one computation, and what each has of its own can be saved and taken up."""

from __future__ import annotations

import weakref
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smlt.core.errors import ConfigError, NonFiniteLoss, TaskError
from smlt.core.job import BatchPhase
from smlt.core.planner import Sync
from smlt.core.sampler import Cursor, Schedule
from smlt.core.stepping import STEPPINGS, EveryStep, LocalSgd, Stepping
from smlt.core.stepping.course import smallest_batch
from smlt.core.stepping.private import mean_of
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
        self.in_hand = False

    def compute(self, work: StepWork, contribution: Sequence[Array], reached: Any = None) -> StepLoss:
        self.in_hand = True
        points = [np.random.default_rng(int(index)).standard_normal(SIZE).astype(np.float32) for index in work.indices]
        for point in points:
            contribution[0][:] += (self.weights - point) / np.float32(work.global_batch)
        contribution[1][:] = work.step
        return StepLoss(float(sum(np.square(self.weights - point).sum() for point in points)), len(points))

    def forget(self) -> None:
        self.in_hand = False

    def commit(self, sums: Sequence[Array], loss: StepLoss) -> None:
        assert self.in_hand
        self.in_hand = False
        self.momentum[:] = np.float32(0.5) * self.momentum + sums[0]
        self.weights -= np.float32(0.1) * self.momentum
        self.seen += np.float32(loss.mean)

    def shared_state(self) -> State:
        return State({"weights": self.weights, "momentum": self.momentum, "seen": self.seen}, {"kind": "walk"})

    def load_shared_state(self, state: State) -> None:
        self.in_hand = False
        for name, mine in self.shared_state().arrays.items():
            np.copyto(mine, state.arrays[name])

    def read_weights(self, out: Sequence[Array]) -> None:
        out[0][:], out[1][:] = self.weights, self.seen

    def write_weights(self, values: Sequence[Array]) -> None:
        self.weights[:], self.seen[:] = values

    def prepare(self) -> None: ...
    def build(self, prepared: Any, total_steps: Any) -> TaskShape: ...
    def order(self, epoch: int) -> Any: ...
    def evaluate(self, indices: Any) -> Any: ...
    def finish_evaluation(self, parts: Any) -> Any: ...
    def parameters(self) -> Any: ...
    def model_arrays(self) -> Any: ...


def copied(state: State | None) -> Any:
    return state and State({name: array.copy() for name, array in state.arrays.items()}, state.extra)


def train(
    sync: Sync,
    world_size: int,
    steps: range,
    total: int,
    before: list[Saved] | None = None,
    given_up: Collection[int] = (),
    kind: type[Walk] = Walk,
) -> list[tuple[Saved, Walk, Stepping]]:
    """Some steps by all ranks, from what ranks saved before; by rank, what it has at the end.

    Those `given_up` are forgotten once, as late as can be; they are made again in a new round.
    """
    room = Room()

    def seat(rank: int, number: int) -> Seat | None:
        channel = MemoryChannel(room, rank, shows=False) if world_size > 1 else None
        return channel and Seat(channel, (1, number), rank, world_size, Patient())

    def work(rank: int) -> tuple[Saved, Walk, Stepping]:
        task = kind()
        stepping = STEPPINGS[sync.mode](task, SHAPE, sync)
        if before:
            private = [each for _, each in before if each is not None]
            own = private[rank : rank + 1] if len(private) == world_size else private
            stepping.load(before[rank % len(before)][0], own, world_size)
        stepping.join(seat(rank, 0))
        for step in steps:
            saved = bits_of(stepping)
            loss = made(stepping, rank, step)
            if step in given_up:
                assert bits_of(stepping) == saved
                stepping.forget()
                assert bits_of(stepping) == saved
                stepping.join(seat(rank, step + 1))
                assert bits_of(stepping) == saved
                loss = made(stepping, rank, step)
            stepping.commit(step, loss)
        stepping.close()
        return (copied(stepping.shared_state()), copied(stepping.private_state())), task, stepping

    def made(stepping: Stepping, rank: int, step: int) -> StepLoss:
        """A step up to its commit."""
        indices = np.arange(BATCH)[rank::world_size] + step
        loss = stepping.compute(StepWork(step, 0, indices, BATCH))
        if step + 1 < total and (step + 1) % sync.exchange_every:
            return loss
        merged = stepping.exchange(Header(step, loss_sum=loss.sum, weight=loss.weight), last=step + 1 == total)
        assert merged.step == step
        return StepLoss(merged.loss_sum, merged.weight)

    outcomes = in_threads(work, world_size)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes


def bits(state: State | None) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in state.arrays.items()} if state else {}


def bits_of(stepping: Stepping) -> tuple[dict[str, bytes], dict[str, bytes]]:
    return bits(stepping.shared_state()), bits(stepping.private_state())


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


@settings(max_examples=60)
@given(SYNCS, st.integers(1, 4), st.integers(1, 9), st.sets(st.integers(0, 8)))
def test_a_step_given_up_changes_nothing_and_is_made_again_in_another_round(
    sync: Sync, world_size: int, steps: int, given_up: set[int]
) -> None:
    undisturbed = train(sync, world_size, range(steps), steps)
    disturbed = train(sync, world_size, range(steps), steps, given_up=given_up)
    for (one, _, _), (other, _, _) in zip(undisturbed, disturbed, strict=True):
        assert [bits(state) for state in one] == [bits(state) for state in other]


@pytest.mark.parametrize("sync", [Sync(codec="int8"), Sync("local_sgd", "int8", period=4, fragments=2)])
@pytest.mark.parametrize(("before", "after"), [(3, 2), (2, 3), (2, 1)])
def test_another_number_of_ranks_goes_on_from_what_all_had(sync: Sync, before: int, after: int) -> None:
    first = train(sync, before, range(8), 20)
    runs = [train(sync, after, range(8, 20), 20, [saved for saved, _, _ in first]) for _ in range(2)]
    assert bits(runs[0][0][0][0]) == bits(runs[1][0][0][0])
    undisturbed = train(sync, before, range(20), 20)
    np.testing.assert_allclose(runs[0][0][1].weights, undisturbed[0][1].weights, atol=0.15)


@pytest.mark.parametrize(
    ("sync", "name", "parts"),
    [(Sync(codec="int8"), "residual/0", 2), (Sync("local_sgd", "int8", period=3), "0.residual/0", 4)],
)
def test_residuals_of_other_ranks_keep_the_sum_of_all_or_in_local_sgd_their_mean(
    sync: Sync, name: str, parts: int
) -> None:
    saved = [saved for saved, _, _ in train(sync, 4, range(3), 9)]
    total = sum(each.arrays[name].astype(np.float64) for _, each in saved if each)
    assert np.abs(total).max() > 0
    for (_, private), _, _ in train(sync, 2, range(3, 3), 9, saved):
        assert private is not None
        np.testing.assert_allclose(private.arrays[name], total / parts, rtol=1e-6)


def test_among_another_number_of_ranks_all_go_on_from_the_mean_of_what_was_not_joined_yet() -> None:
    sync = Sync("local_sgd", period=4, fragments=2)
    first = train(sync, 3, range(2), 20)
    mean = np.mean([task.weights for _, task, _ in first], axis=0, dtype=np.float64)
    assert (mean != first[0][0][0].arrays["anchor/0"]).any()
    for _, task, _ in train(sync, 2, range(2, 2), 20, [saved for saved, _, _ in first]):
        np.testing.assert_allclose(task.weights, mean, rtol=1e-6)


def test_what_only_some_ranks_have_is_the_mean_of_theirs() -> None:
    """As an optimizer makes the moments of a parameter when it is first trained, on some ranks later than on others."""
    entries = [{"a": {"step": "inner/a"}}, {"a": {"step": "inner/a"}, "b": {"step": "inner/b"}}, {}]
    arrays = [{"a": 1.0}, {"a": 2.0, "b": 5.0}, {}]
    states = [
        State({name: np.float32([value]) for name, value in each.items()}, {"rate": rank, "entries": entry})
        for rank, (each, entry) in enumerate(zip(arrays, entries, strict=True))
    ]
    mean = mean_of(states)
    assert {name: array.tolist() for name, array in mean.arrays.items()} == {"a": [1.5], "b": [5.0]}
    assert mean.extra == {"rate": 0, "entries": entries[1]}


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("anchor/0", np.zeros(7, np.float32), r"anchor/0 .* float32\[7\], but float32\[130\] in the task"),
        ("momentum/1", np.zeros(3, np.float64), r"momentum/1 .* float64\[3\], but float32\[3\] in the task"),
        ("anchor/2", np.zeros(3, np.float32), r"has anchor/0, anchor/1, anchor/2, .*and the task has anchor/0, anch"),
    ],
)
def test_a_state_of_another_shape_is_refused_whole(name: str, array: Array, message: str) -> None:
    sync = Sync("local_sgd", period=2)
    [((shared, private), _, _)] = train(sync, 1, range(4), 9)
    task = Walk()
    stepping = LocalSgd(task, SHAPE, sync)
    before = bits_of(stepping)
    assert private is not None
    with pytest.raises(TaskError, match=message):
        stepping.load(State(shared.arrays | {name: array}), [private], 1)
    assert bits_of(stepping) == before


def test_a_residual_of_another_shape_is_refused_and_one_without_a_place_is_dropped() -> None:
    shared, private = State(Walk().shared_state().arrays), State({"residual/0": np.ones(7, np.float32)})
    seat = Seat(MemoryChannel(Room(), 0, shows=False), (1, 0), 0, 2, Patient())
    lossy, exact = EveryStep(Walk(), SHAPE, Sync(codec="int8")), EveryStep(Walk(), SHAPE, Sync())
    for stepping in (lossy, exact):
        stepping.load(shared, [private], 2)
    with pytest.raises(TaskError, match=r"residual/0 of the saved state is float32\[7\], but float32\[130\]"):
        lossy.join(seat)
    exact.join(seat)
    assert exact.private_state() is None
    exact.close()
    lossy.close()


def test_nothing_of_a_state_that_was_loaded_stays_in_memory() -> None:
    sync = Sync("local_sgd", period=2)
    [((shared, private), _, _)] = train(sync, 1, range(4), 9)
    assert private is not None
    stepping = LocalSgd(Walk(), SHAPE, sync)
    stepping.load(shared, [private], 1)
    stepping.join(None)
    given = [weakref.ref(array) for array in (*shared.arrays.values(), *private.arrays.values())]
    del shared, private
    assert [each() for each in given] == [None] * len(given)


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


def test_a_batch_that_leaves_a_rank_without_examples_is_refused() -> None:
    stepping = LocalSgd(Walk(), SHAPE, Sync("local_sgd", period=2))
    stepping.join(Seat(MemoryChannel(Room(), 0, shows=False), (1, 0), 0, 3, Patient()))
    stepping.compute(StepWork(0, 0, np.arange(1), 3))
    stepping.forget()
    with pytest.raises(ConfigError, match="step 7 a batch has 2 examples for 3 workers") as caught:
        stepping.compute(StepWork(7, 0, np.arange(1), 2))
    assert "[job].global_batch" in caught.value.hint


SCHEDULES = st.builds(
    lambda examples, sizes, epochs, steps: Schedule(
        examples,
        tuple(BatchPhase(from_epoch=3 * place, size=min(size, examples)) for place, size in enumerate(sizes)),
        None if steps else epochs,
        steps,
    ),
    st.integers(1, 40),
    st.lists(st.integers(1, 40), min_size=1, max_size=3),
    st.integers(1, 8),
    st.one_of(st.none(), st.integers(1, 60)),
)


@given(SCHEDULES)
def test_the_smallest_batch_of_a_job_is_known_beforehand(schedule: Schedule) -> None:
    cursor, sizes = Cursor(), []
    while not schedule.is_done(cursor):
        sizes.append(schedule.size_at(cursor))
        cursor = schedule.after(cursor)
    assert smallest_batch(schedule) == min(sizes)


def test_a_job_that_local_sgd_cannot_step_through_is_refused_before_its_first_step() -> None:
    schedule = Schedule(103, (BatchPhase(from_epoch=0, size=25),), 2, None)  # 10 steps, with 3 examples in two of them
    for period, world_size, message in ((10, 3, ""), (11, 3, "after 10 steps"), (10, 4, "3 examples for 4 workers")):
        stepping = LocalSgd(Walk(), SHAPE, Sync("local_sgd", period=period))
        EveryStep(Walk(), SHAPE, Sync()).check_course(schedule, world_size)
        with pytest.raises(ConfigError, match=message) if message else nullcontext():
            stepping.check_course(schedule, world_size)


@pytest.mark.parametrize("period", [1, 9])
def test_a_share_that_nothing_weighs_is_no_step(period: int) -> None:
    class Unweighed(Walk):
        def compute(self, work: StepWork, contribution: Sequence[Array], reached: Any = None) -> StepLoss:
            super().compute(work, contribution)
            return StepLoss(0.0, 0.0)

    for _, task, _ in train(Sync("local_sgd", period=period), 2, range(1), 9, kind=Unweighed):
        assert not task.in_hand
        assert not task.weights.any()


def test_a_weight_that_is_infinite_and_stays_so_does_not_become_nan() -> None:
    """Such as a mask among the buffers."""

    class Masked(Walk):
        def __init__(self) -> None:
            super().__init__()
            self.seen[:2] = -np.inf, np.inf
            self.weights[5] = np.inf

        def compute(self, work: StepWork, contribution: Sequence[Array], reached: Any = None) -> StepLoss:
            self.weights[5] = 0
            loss = super().compute(work, contribution)
            contribution[0][5] = 0
            self.weights[5] = np.inf
            return loss

    sync = Sync("local_sgd", period=1, outer_learning_rate=1.0, outer_momentum=0.5)
    for _, task, _ in train(sync, 2, range(3), 3, kind=Masked):
        assert task.seen[:2].tolist() == [-np.inf, np.inf]
        assert task.weights[5] == np.inf
        assert np.isfinite(np.delete(task.weights, 5)).all()
        assert 0 < task.seen[2] < np.inf


def test_a_codec_that_would_carry_nothing_is_refused() -> None:
    doubles = tuple(replace(region, dtype="float64") for region in SHAPE.regions)
    shape = replace(SHAPE, regions=doubles, weights=doubles)
    for mode in STEPPINGS:
        with pytest.raises(ConfigError, match=r"\[sync\]\.codec = 'int8' would do nothing") as caught:
            STEPPINGS[mode](Walk(), shape, Sync(mode, "int8"))
        assert "leave the codec out" in caught.value.hint


def test_fragments_that_would_be_empty_are_refused() -> None:
    LocalSgd(Walk(), SHAPE, Sync("local_sgd", period=9, fragments=9))
    with pytest.raises(ConfigError, match=r"fragments = 10, but the weights can be cut into 9 parts at most"):
        LocalSgd(Walk(), SHAPE, Sync("local_sgd", period=10, fragments=10))


def test_a_task_that_offers_no_weights_is_told_so() -> None:
    with pytest.raises(ConfigError, match="does not support local SGD"):
        LocalSgd(Walk(), TaskShape(1, 0, 1, ()), Sync("local_sgd"))
