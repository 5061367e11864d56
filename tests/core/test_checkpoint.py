"""State in the object store: whole or not at all, whoever writes it, whatever happens to it there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open

from smlt.core import checkpoint, layout, wire
from smlt.core.checkpoint import Attempt, Manifest
from smlt.core.errors import CorruptObject, NotFound
from smlt.core.sampler import Cursor
from smlt.core.task import Array
from smlt.core.tensor_file import Snapshot
from tests.support.states import ARRAYS, EXTRA, save
from tests.support.stores import DictStore


def part_of(step: int, rank: int, by: tuple[int, int] = (1, 0)) -> str:
    return layout.part(layout.attempt(step, *by), rank)


def assert_equal(found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize("world_size", [1, 2, 3, 20])
def test_a_state_is_read_back_by_whoever_goes_on(world_size: int) -> None:
    store = DictStore()
    written = save(store, 7, world_size, best=0.25)
    key = checkpoint.latest_manifest(store)
    assert key == layout.manifest(7)
    manifest = checkpoint.read_manifest(store, key)
    assert manifest == written
    assert (manifest.cursor, manifest.best, len(manifest.parts)) == (Cursor(0, 1, 16, 7), 0.25, world_size)
    assert manifest.size_bytes == sum(len(store.get(part.key)) for part in manifest.parts)
    state = checkpoint.read_state(store, manifest)
    assert_equal(state.arrays, ARRAYS)
    assert state.extra == EXTRA


@given(st.dictionaries(st.text("abc", min_size=1), st.integers(0, 1000), max_size=20), st.integers(1, 12))
def test_parts_hold_every_array_once_and_are_even(sizes: dict[str, int], world_size: int) -> None:
    arrays = {name: np.zeros(size, np.uint8) for name, size in sizes.items()}
    parts = [checkpoint.names_of_part(arrays, rank, world_size) for rank in range(world_size)]
    assert sorted(name for part in parts for name in part) == sorted(arrays)
    loads = [sum(sizes[name] for name in part) for part in parts]
    assert max(loads) - min(loads) <= max(sizes.values(), default=0)
    turned = dict(reversed(arrays.items()))
    assert parts == [checkpoint.names_of_part(turned, rank, world_size) for rank in range(world_size)]


def damage_nothing(store: DictStore, part: str) -> None:
    del store, part


def tear(store: DictStore, part: str) -> None:
    store.put(part, store.get(part)[:-3])


def flip(store: DictStore, part: str) -> None:
    data = bytearray(store.get(part))
    data[-1] ^= 1
    store.put(part, data)


def lose(store: DictStore, part: str) -> None:
    store.delete(part)


def tear_manifest(store: DictStore, part: str) -> None:
    tear(store, layout.manifest(layout.step_of(part)))


def empty_manifest(store: DictStore, part: str) -> None:
    store.put(layout.manifest(layout.step_of(part)), b"")


@pytest.mark.parametrize("damage", [tear, lose, tear_manifest, empty_manifest])
@pytest.mark.parametrize("rank", [0, 1])
def test_a_checkpoint_that_looks_damaged_is_passed_over_for_the_one_before(damage: Any, rank: int) -> None:
    store = DictStore()
    save(store, 5)
    save(store, 9)
    damage(store, part_of(9, rank))
    assert checkpoint.latest_manifest(store) == layout.manifest(5)
    damage(store, part_of(5, rank))
    assert checkpoint.latest_manifest(store) == ""


def test_the_checkpoint_before_another_is_found() -> None:
    store = DictStore()
    for step in (5, 9, 20):
        save(store, step)
    assert checkpoint.latest_manifest(store, 20) == layout.manifest(9)
    assert checkpoint.latest_manifest(store, 9) == layout.manifest(5)
    assert checkpoint.latest_manifest(store, 5) == ""


def test_looking_for_the_newest_reads_no_part() -> None:
    store = DictStore()
    save(store, 5)
    save(store, 9)
    read: list[str] = []
    store.before = lambda operation, key: read.append(key) if operation == "get" else None
    assert checkpoint.latest_manifest(store) == layout.manifest(9)
    assert read == [layout.manifest(9)]


@pytest.mark.parametrize(("damage", "error"), [(tear, CorruptObject), (flip, CorruptObject), (lose, NotFound)])
def test_a_damaged_part_is_never_loaded(damage: Any, error: type[Exception]) -> None:
    store = DictStore()
    manifest = save(store)
    damage(store, part_of(7, 1))
    with pytest.raises(error):
        checkpoint.read_state(store, manifest)


def test_a_part_that_is_no_safetensors_file_is_corrupt() -> None:
    store = DictStore()
    store.put("part", b"nonsense")
    part = checkpoint.Part("part", 8, xxhash.xxh3_128_hexdigest(b"nonsense"))
    with pytest.raises(CorruptObject, match="no safetensors"):
        checkpoint.read_state(store, Manifest(Cursor(), 1, (part,)))


def test_parts_without_a_manifest_are_no_checkpoint() -> None:
    store = DictStore()
    checkpoint.write_part(store, part_of(7, 0), Snapshot().take(ARRAYS))
    assert checkpoint.latest_manifest(store) == ""
    assert checkpoint.valid_steps(store) == []


def test_a_manifest_is_written_by_whichever_rank_comes_first() -> None:
    store = DictStore()
    manifest = save(store)
    checkpoint.write_manifest(store, manifest)
    assert checkpoint.read_manifest(store, layout.manifest(7)) == manifest


def test_a_checkpoint_that_is_written_again_by_another_number_of_ranks_is_the_new_one() -> None:
    """A damaged one was passed over, and the run has come to its step again."""
    store = DictStore()
    save(store, 5)
    save(store, 9, world_size=2)
    flip(store, part_of(9, 1))
    rewritten = save(store, 9, world_size=3, by=(2, 0))
    assert checkpoint.latest_manifest(store) == layout.manifest(9)
    assert_equal(checkpoint.read_state(store, rewritten).arrays, ARRAYS)


@pytest.mark.parametrize("zombie", [(1, 0), (2, 0)])
def test_who_wakes_up_in_a_dead_round_changes_no_checkpoint_of_a_later_one(zombie: tuple[int, int]) -> None:
    store = DictStore()
    save(store, 3)
    newest = [save(store, step, by=(2, 1)) for step in (9, 12)]
    before = dict(store.objects)
    late = save(store, 9, world_size=3, by=zombie)
    checkpoint.prune(store, Attempt(*zombie, 9), keep=1)
    assert {key: data for key, data in store.objects.items() if key in before} == {
        key: data for key, data in before.items() if not key.startswith(layout.checkpoint(3))
    }
    for manifest in newest:
        assert checkpoint.read_manifest(store, layout.manifest(manifest.cursor.step)) == manifest
        assert_equal(checkpoint.read_state(store, manifest).arrays, ARRAYS)
    assert late not in newest


def test_of_two_that_write_a_manifest_at_once_the_later_round_s_stays() -> None:
    store = DictStore()
    rival = Manifest(Cursor(0, 1, 16, 7), 1, (), generation=3)

    def race(operation: str, key: str) -> None:
        if operation == "put_if_absent" and key == layout.manifest(7):
            store.before = lambda operation, key: None
            checkpoint.write_manifest(store, rival)

    store.before = race
    save(store, 7)
    assert checkpoint.read_manifest(store, layout.manifest(7)) == rival


def test_a_run_that_has_reached_its_goal_can_go_on_from_there() -> None:
    store = DictStore()
    checkpoint.reopen(store)
    save(store, 5)
    ended = replace(save(store, 9), goal="target")
    store.put(layout.manifest(9), wire.pack(ended))
    for _ in range(2):
        checkpoint.reopen(store)
        assert checkpoint.read_manifest(store, layout.manifest(9)) == replace(ended, goal="")
    assert store.keys(layout.CHECKPOINTS).count(layout.manifest(5)) == 1


def test_pruning_keeps_the_newest() -> None:
    store = DictStore()
    for step in (5, 9, 20, 100):
        save(store, step)
    for _ in range(2):
        checkpoint.prune(store, Attempt(1, 0, 100), keep=2)
        assert checkpoint.valid_steps(store) == [20, 100]
        assert {key.split("/")[1] for key in store.keys(layout.CHECKPOINTS)} == {"000000020", "000000100"}


def test_pruning_keeps_what_a_run_wrote_that_had_to_go_back() -> None:
    store = DictStore()
    for step in (90, 100):
        save(store, step)
        tear(store, part_of(step, 0))
    save(store, 30, by=(1, 1))
    checkpoint.prune(store, Attempt(1, 1, 30), keep=2)
    assert checkpoint.latest_manifest(store) == layout.manifest(30)
    assert checkpoint.valid_steps(store) == [30]


def test_pruning_does_not_count_what_was_passed_over() -> None:
    store = DictStore()
    save(store, 5)
    save(store, 9)
    flip(store, part_of(9, 0))
    save(store, 12, by=(2, 0))
    checkpoint.prune(store, Attempt(2, 0, 12), keep=2, passed_over=[9])
    assert checkpoint.valid_steps(store) == [5, 12]


def test_pruning_removes_what_dead_rounds_left_unfinished_and_nothing_of_living_ones() -> None:
    store = DictStore()
    save(store, 5, by=(1, 1))
    save(store, 9, by=(1, 2))
    left = [part_of(3, 0), part_of(8, 1, (1, 1)), part_of(9, 0, (1, 1)), part_of(12, 0, (1, 1))]
    living = [part_of(9, 0, (1, 3)), part_of(11, 0, (1, 2)), part_of(13, 1, (1, 3))]
    for key in left + living:
        store.put(key, b"")
    before = set(store.objects)
    checkpoint.prune(store, Attempt(1, 2, 9), keep=2)
    assert before - set(store.objects) == set(left)


def test_pruning_keeps_what_the_same_round_has_saved_since() -> None:
    store = DictStore()
    for step in (3, 5, 9):
        save(store, step)
    checkpoint.prune(store, Attempt(1, 0, 5), keep=1)
    assert checkpoint.valid_steps(store) == [5, 9]


def test_pruning_never_leaves_half_a_checkpoint_valid() -> None:
    store = DictStore()
    for step in (5, 9):
        save(store, step, world_size=3)
    seen: list[list[int]] = []

    def look(operation: str, key: str) -> None:
        if operation == "delete":
            parts = len(store.keys(layout.checkpoint(5))) - store.exists(layout.manifest(5))
            seen.append([parts, store.exists(layout.manifest(5))])

    store.after = look
    checkpoint.prune(store, Attempt(1, 0, 9), keep=1)
    assert seen == [[3, False], [2, False], [1, False], [0, False]]


# Arrays and models


def test_arrays_are_read_back() -> None:
    store = DictStore()
    checkpoint.write_arrays(store, layout.PREPARED, ARRAYS)
    assert_equal(checkpoint.read_arrays(store, layout.PREPARED), ARRAYS)
    checkpoint.write_arrays(store, layout.PREPARED, {})
    assert checkpoint.read_arrays(store, layout.PREPARED) == {}


def test_a_model_is_a_safetensors_file_whose_metadata_hold_the_tied_names(tmp_path: Path) -> None:
    store, file = DictStore(), tmp_path / "model.safetensors"
    checkpoint.write_model(store, layout.MODEL, ARRAYS, {"tied": "model.weight", "head": "model.weight"})
    file.write_bytes(store.get(layout.MODEL))
    with safe_open(file, "numpy") as model:
        assert json.loads(model.metadata()["smlt.aliases"]) == {"head": "model.weight", "tied": "model.weight"}
        assert_equal({name: model.get_tensor(name) for name in model.keys()}, ARRAYS)  # noqa: SIM118
