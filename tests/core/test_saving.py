"""Saves beside the training: a checkpoint is the state as it was, all ranks' or nobody's, whatever comes between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from random import Random

import numpy as np
import pytest

from smlt.core import checkpoint, layout, restoring
from smlt.core.checkpoint import Attempt
from smlt.core.errors import StorageError
from smlt.core.messages import CheckpointDone
from smlt.core.patient_store import PatientStore
from smlt.core.sampler import Cursor
from smlt.core.saving import KEEP, Order, Saver
from smlt.core.storage import ObjectStore
from smlt.core.task import State
from tests.support.faulty_store import KINDS, FaultyStore
from tests.support.stores import DictStore


class Interrupted(Exception):
    """What a training thread's patience raises."""


class Ranks:
    """The savers of all ranks over one store, and a state that changes with every step."""

    def __init__(self, world_size: int = 2, store: ObjectStore | None = None, has_private: bool = False) -> None:
        self.base = DictStore()
        self.store = store or self.base
        self.world_size, self.has_private = world_size, has_private
        self.done: list[CheckpointDone] = []
        self.places: list[tuple[int, str, int]] = []
        self.weights = np.zeros((3, 50), np.float32)
        self.extra = {"lr": [0.1]}
        self.savers = [self._saver(rank) for rank in range(world_size)]

    def _saver(self, rank: int) -> Saver:
        def reach(place: str, step: int) -> None:
            self.places.append((rank, place, step))

        return Saver(self.store, rank, self.world_size, lambda: 0.0, self.done.append, reach=reach)

    def states(self, step: int, rank: int) -> tuple[State, State | None]:
        self.weights[:] = step
        self.extra["lr"][0] = step / 10
        arrays = {f"layer{number}": row for number, row in enumerate(self.weights)}
        private = State({"residual": np.full(4, step + rank / 10)}, {"count": step}) if self.has_private else None
        return State(arrays, self.extra), private

    def begin(self, step: int, ranks: range | None = None, by: tuple[int, int] = (1, 0), goal: str = "") -> None:
        for rank in range(self.world_size) if ranks is None else ranks:
            order = Order(Attempt(*by, step), Cursor(step=step), 0.5, goal)
            self.savers[rank].begin(order, *self.states(step, rank), patience=lambda: None)

    def finish(self) -> None:
        for saver in self.savers:
            saver.finish(lambda: None)

    def check(self, step: int) -> None:
        """The newest checkpoint is the one of this step, whole, and as the state was then."""
        key = checkpoint.latest_manifest(self.base)
        assert key == layout.manifest(step)
        for rank in range(self.world_size):
            found = restoring.agreed(self.base, key, rank, self.world_size, lambda own, name: [own])
            assert found is not None
            assert found.manifest.cursor == Cursor(step=step)
            assert {name: array.tolist() for name, array in found.shared.arrays.items()} == {
                f"layer{number}": [float(step)] * 50 for number in range(3)
            }
            assert found.shared.extra == {"lr": [step / 10]}
            if self.has_private:
                assert [state.extra for state in found.private] == [{"count": step}]
                assert found.private[0].arrays["residual"].tolist() == [step + rank / 10] * 4

    def close(self) -> None:
        for saver in self.savers:
            saver.close()


@pytest.fixture
def make() -> Iterator[Callable[..., Ranks]]:
    made: list[Ranks] = []

    def make(*args: object, **fields: object) -> Ranks:
        made.append(Ranks(*args, **fields))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for ranks in made:
        ranks.base.before = lambda operation, key: None
        ranks.close()


@pytest.mark.parametrize("has_private", [False, True])
@pytest.mark.parametrize("world_size", [1, 2, 5])
def test_a_checkpoint_is_the_state_as_it_was_when_it_was_begun(
    make: Callable[..., Ranks], world_size: int, has_private: bool
) -> None:
    ranks = make(world_size, has_private=has_private)
    for step in (3, 6, 9):
        ranks.begin(step)
        ranks.states(99, 0)  # training goes on
    ranks.finish()
    ranks.check(9)
    assert [done.step for done in ranks.done] == [3, 6, 9]
    manifest = checkpoint.read_manifest(ranks.base, layout.manifest(9))
    assert (manifest.best, manifest.world_size, manifest.size_bytes) == (0.5, world_size, ranks.done[-1].size_bytes)


def test_room_is_made_beside_the_training(make: Callable[..., Ranks]) -> None:
    ranks = make(has_private=True)
    for rank, saver in enumerate(ranks.savers):
        assert not saver.has_room
        saver.make_room(*ranks.states(1, rank))
        assert saver.has_room
    ranks.begin(3)
    ranks.finish()
    ranks.check(3)


def test_only_the_last_ones_are_kept(make: Callable[..., Ranks]) -> None:
    ranks = make()
    for step in range(1, 8):
        ranks.begin(step)
    ranks.finish()
    ranks.close()
    assert checkpoint.valid_steps(ranks.base) == [7 - KEEP + 1, 7]
    assert {layout.step_of(key) for key in ranks.base.keys(layout.CHECKPOINTS)} == {6, 7}


def test_training_goes_on_while_parts_are_written(make: Callable[..., Ranks]) -> None:
    ranks, gate = make(), threading.Event()

    def slow(operation: str, key: str) -> None:
        if operation == "put":
            gate.wait()

    ranks.base.before = slow
    ranks.begin(3)
    assert all(saver.is_busy for saver in ranks.savers)
    assert checkpoint.valid_steps(ranks.base) == []
    gate.set()
    ranks.finish()
    assert not any(saver.is_busy for saver in ranks.savers)
    ranks.check(3)


def test_a_checkpoint_is_valid_only_when_the_last_rank_has_written(make: Callable[..., Ranks]) -> None:
    ranks = make(3)
    ranks.begin(3, range(2))
    ranks.savers[1].finish(lambda: None)
    waited = 0

    def patience() -> None:
        nonlocal waited
        waited += 1
        assert checkpoint.valid_steps(ranks.base) == []
        if waited == 3:
            ranks.begin(3, range(2, 3))

    ranks.savers[0].finish(patience)
    assert waited >= 3
    ranks.check(3)


def test_the_places_of_a_save_come_in_their_order(make: Callable[..., Ranks]) -> None:
    ranks = make()
    ranks.begin(3)
    ranks.finish()
    assert [place for place in ranks.places if place[0] == 0] == [(0, "saving", 3), (0, "manifest", 3), (0, "saved", 3)]
    assert [place for place in ranks.places if place[0] == 1] == [(1, "saving", 3), (1, "manifest", 3)]


def test_the_steps_before_a_checkpoint_are_told_before_it_is_valid(make: Callable[..., Ranks]) -> None:
    ranks = make(1)
    valid: list[list[int]] = []
    ranks.savers[0].tell = lambda: valid.append(checkpoint.valid_steps(ranks.base))
    ranks.begin(3)
    ranks.finish()
    assert valid == [[]]


def test_one_that_is_given_up_leaves_no_checkpoint_and_the_next_round_s_is_whole(make: Callable[..., Ranks]) -> None:
    ranks = make()
    ranks.begin(3)
    ranks.finish()
    ranks.begin(6, range(1))  # rank 1 is lost before it has saved
    ranks.savers[0].give_up()
    ranks.finish()
    assert ranks.savers[0].was_given_up
    ranks.check(3)
    ranks.begin(7, by=(1, 1))
    ranks.finish()
    assert not ranks.savers[0].was_given_up
    ranks.check(7)
    ranks.close()
    assert {layout.step_of(key) for key in ranks.base.keys(layout.CHECKPOINTS)} == {3, 7}


def test_what_a_dead_round_wrote_is_not_taken_for_a_living_one_s(make: Callable[..., Ranks]) -> None:
    ranks = make()
    ranks.begin(6, range(1, 2))  # rank 1's part of the round before
    ranks.savers[1].finish(lambda: None)
    ranks.begin(6, range(1), by=(1, 1))

    def patience() -> None:
        if "give up" in seen:
            ranks.savers[0].give_up()
        seen.append("give up")

    seen: list[str] = []
    ranks.savers[0].finish(patience)
    assert checkpoint.valid_steps(ranks.base) == []


def test_who_waits_for_a_save_obeys_orders_and_nothing_is_begun(make: Callable[..., Ranks]) -> None:
    ranks = make()
    ranks.begin(3, range(1))  # rank 1 does not

    def patience() -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        ranks.savers[0].begin(Order(Attempt(1, 0, 6), Cursor(step=6)), *ranks.states(6, 0), patience=patience)
    with pytest.raises(Interrupted):
        ranks.savers[0].finish(patience)
    ranks.begin(3, range(1, 2))
    ranks.finish()
    ranks.states(3, 0)
    ranks.check(3)


def test_a_rank_that_does_not_write_is_not_waited_for_for_ever(make: Callable[..., Ranks]) -> None:
    ranks = make()
    times = iter(range(0, 10_000, 10))
    ranks.savers[0].clock = lambda: float(next(times))
    ranks.begin(3, range(1))
    with pytest.raises(Exception, match="rank 1 did not write its part in"):
        ranks.savers[0].finish(lambda: None)
    ranks.begin(6)
    ranks.finish()
    ranks.check(6)


@pytest.mark.parametrize("error", [StorageError("the disk is full"), MemoryError("no room")])
def test_a_save_that_fails_is_told_where_it_is_waited_for(make: Callable[..., Ranks], error: Exception) -> None:
    ranks = make()

    def fail(operation: str, key: str) -> None:
        if operation == "put":
            raise error

    ranks.begin(3)
    ranks.finish()
    ranks.base.before = fail
    ranks.begin(6)
    with pytest.raises(type(error), match=str(error)):
        ranks.savers[1].finish(lambda: None)
    with pytest.raises(type(error), match=str(error)):
        ranks.savers[0].finish(lambda: None)
    ranks.base.before = lambda operation, key: None
    ranks.states(3, 0)
    ranks.check(3)
    ranks.begin(9)
    ranks.finish()
    ranks.check(9)


def test_a_checkpoint_that_cannot_be_cleared_away_harms_nothing(
    make: Callable[..., Ranks], capsys: pytest.CaptureFixture[str]
) -> None:
    ranks = make(1)

    def fail(operation: str, key: str) -> None:
        if operation == "delete":
            raise StorageError("503")

    ranks.base.before = fail
    for step in (3, 6, 9):
        ranks.begin(step)
    ranks.finish()
    ranks.close()
    ranks.check(9)
    assert "old checkpoints are left for now" in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(8))
def test_a_store_whose_requests_fail_in_ten_of_a_hundred_loses_no_checkpoint(
    make: Callable[..., Ranks], seed: int
) -> None:
    base = DictStore()
    lock, now = threading.Lock(), [0.0]

    def sleep(seconds: float) -> None:
        with lock:
            now[0] += seconds

    faulty = FaultyStore(base, Random(seed), rate=0.1, kinds=KINDS)
    store = PatientStore(faulty, clock=lambda: now[0], sleep=sleep, random=Random(seed).random)
    ranks = make(3, store, has_private=True)
    ranks.base = base
    for step in range(1, 21):
        ranks.begin(step)
        ranks.finish()
        ranks.check(step)
        for rank in range(3):
            found = restoring.agreed(store, layout.manifest(step), rank, 3, lambda own, name: [own])
            assert found is not None
            assert found.manifest.cursor.step == step
    assert sum(faulty.failures.values()) > 50
    assert [done.step for done in ranks.done] == list(range(1, 21))
