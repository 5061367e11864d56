"""All ranks go on from the same checkpoint, the newest that each of them can read whole."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from smlt.core import checkpoint, layout, restoring
from smlt.core.storage import ObjectStore
from tests.core.test_saving import Ranks
from tests.support.stores import DictStore


class Gathering:
    """What ranks in threads gather; the barrier breaks where they do not gather the same."""

    def __init__(self, ranks: int) -> None:
        self.barrier = threading.Barrier(ranks, timeout=30)
        self.values: dict[str, dict[int, bytes]] = {}

    def of(self, rank: int) -> Callable[[bytes, str], Sequence[bytes]]:
        def gather(own: bytes, name: str) -> list[bytes]:
            self.values.setdefault(name, {})[rank] = own
            self.barrier.wait()
            return [value for _, value in sorted(self.values[name].items())]

        return gather


def agreed(stores: Sequence[ObjectStore], key: str) -> list[int | None]:
    """The step from which each rank goes on; each has its own view of the store."""
    gathering = Gathering(len(stores))

    def restore(rank: int) -> int | None:
        found = restoring.agreed(stores[rank], key, rank, len(stores), gathering.of(rank))
        return found.manifest.cursor.step if found else None

    with ThreadPoolExecutor(len(stores)) as pool:
        return list(pool.map(restore, range(len(stores))))


@pytest.fixture
def store() -> DictStore:
    ranks = Ranks(2, has_private=True)
    for step in (3, 6):
        ranks.begin(step)
    ranks.finish()
    ranks.close()
    return ranks.base


def flip(store: DictStore, key: str) -> None:
    data = bytearray(store.objects[key])
    data[-1] ^= 1
    store.objects[key] = bytes(data)


PARTS = {
    "shared": lambda step: layout.part(layout.attempt(step, 1, 0), 1),
    "private": lambda step: layout.private_part(layout.attempt(step, 1, 0), 1),  # which rank 0 does not read
    "manifest": layout.manifest,
}
DAMAGES: dict[str, Callable[[DictStore, str], None]] = {
    "flipped": flip,
    "torn": lambda store, key: store.objects.__setitem__(key, store.objects[key][:-3]),
    "lost": lambda store, key: store.delete(key),
}


def test_the_one_that_is_named_is_taken(store: DictStore) -> None:
    assert agreed([store, store], layout.manifest(6)) == [6, 6]
    assert agreed([store, store], layout.manifest(3)) == [3, 3]
    assert agreed([store, store], "") == [None, None]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
@pytest.mark.parametrize("part", [part for part in PARTS if part != "manifest"])
def test_a_damaged_part_makes_all_go_back_to_the_one_before(
    store: DictStore, part: str, damage: Callable[[DictStore, str], None]
) -> None:
    damage(store, PARTS[part](6))
    assert agreed([store, store], layout.manifest(6)) == [3, 3]
    damage(store, PARTS[part](3))
    assert agreed([store, store], layout.manifest(6)) == [None, None]


@pytest.mark.parametrize("damage", ["torn", "lost"])
def test_a_damaged_manifest_makes_all_go_back(store: DictStore, damage: str) -> None:
    DAMAGES[damage](store, layout.manifest(6))
    assert agreed([store, store], layout.manifest(6)) == [3, 3]


def test_ranks_of_another_number_read_what_all_have_saved_of_their_own(store: DictStore) -> None:
    assert agreed([store] * 3, layout.manifest(6)) == [6] * 3
    flip(store, PARTS["private"](6))
    assert agreed([store] * 3, layout.manifest(6)) == [3] * 3


def test_what_one_rank_alone_cannot_read_counts_for_all(store: DictStore) -> None:
    other = DictStore()
    other.objects = dict(store.objects)
    flip(other, PARTS["shared"](6))
    assert agreed([store, other], layout.manifest(6)) == [3, 3]
    assert agreed([other, store], layout.manifest(6)) == [3, 3]


def test_an_answer_that_breaks_off_now_and_then_is_no_damage(store: DictStore) -> None:
    whole, times = store._do_get, iter(range(1000))

    def get(key: str, start: int, length: int | None) -> bytes:
        data = whole(key, start, length)
        return data[:-1] if next(times) % 5 == 0 else data

    store._do_get = get  # type: ignore[method-assign]
    assert checkpoint.valid_steps(store) == [3, 6]
    assert agreed([store], layout.manifest(6)) == [6]
