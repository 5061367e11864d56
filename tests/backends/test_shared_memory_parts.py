"""The parts of the shared-memory channel: the bell, the room in a segment, and values that stay what they are."""

import itertools
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smlt.backends.channels import doorbell
from smlt.backends.channels.arena import ALIGNMENT, Arena, aligned
from smlt.backends.channels.shared_memory import SharedMemoryChannel
from smlt.core.storage import ChannelSpec
from smlt.testing.channel import PATIENCE_S, key_of

# The doorbell


@pytest.fixture(params=["futex", "sleeping"])
def bell(request: pytest.FixtureRequest) -> doorbell.Doorbell:
    return doorbell.Doorbell(np.zeros(1, np.uint32), doorbell.futex() if request.param == "futex" else None)


def test_a_bell_counts_and_wraps(bell: doorbell.Doorbell) -> None:
    assert [bell.ring() or bell.read() for _ in range(3)] == [1, 2, 3]
    bell = doorbell.Doorbell(np.full(1, 2**32 - 1, np.uint32), None)
    bell.ring()
    assert bell.read() == 0


def test_a_bell_that_was_rung_is_not_waited_for(bell: doorbell.Doorbell) -> None:
    seen = bell.read()
    bell.ring()
    bell.wait(seen, PATIENCE_S)
    assert bell.read() == seen + 1


def test_a_ring_wakes_all_who_wait(bell: doorbell.Doorbell) -> None:
    def wait() -> int:
        while bell.read() < 3:
            bell.wait(bell.read(), PATIENCE_S)
        return bell.read()

    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(wait) for _ in range(4)]
        for _ in range(3):
            bell.ring()
        assert [future.result() for future in waiting] == [3] * 4


def test_a_bell_nobody_rings_is_given_up(bell: doorbell.Doorbell) -> None:
    bell.wait(bell.read(), 0.01)
    assert bell.read() == 0


# The allocator


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 4000), st.lists(st.tuples(st.integers(0, 700), st.integers(0, 30)), max_size=80))
def test_blocks_never_overlap_and_room_is_never_lost(size: int, requests: list[tuple[int, int]]) -> None:
    arena = Arena(size)
    taken: dict[int, int] = {}
    for wanted, freed in requests:
        offset = arena.allocate(wanted)
        if offset is None:
            assert arena.largest_bytes < aligned(wanted)
        else:
            assert offset % ALIGNMENT == 0
            assert offset not in taken
            taken[offset] = aligned(wanted)
        blocks = sorted(taken.items())
        assert all(start + length <= following for (start, length), (following, _) in itertools.pairwise(blocks))
        assert not blocks or sum(blocks[-1]) <= size
        if freed < len(blocks):
            arena.free(blocks[freed][0])
            del taken[blocks[freed][0]]
    for offset in taken:
        arena.free(offset)
    assert arena.largest_bytes == size // ALIGNMENT * ALIGNMENT


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.lists(st.integers(0, 3000), min_size=1, max_size=3)),
            st.tuples(st.just("lend"), st.integers(1, 3000)),
            st.tuples(st.just("put lent"), st.integers(0, 20)),
            st.tuples(st.just("discard"), st.integers(0, 20)),
        ),
        max_size=40,
    )
)
def test_living_values_stay_what_they_are(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int | list[int]]]
) -> None:
    spec = ChannelSpec("shared_memory", tmp_path_factory.mktemp("run").as_uri())
    steps = itertools.count()
    living: dict[int, bytes] = {}
    free: list[memoryview] = []
    busy: dict[int, memoryview] = {}
    with SharedMemoryChannel(spec, 0, 0, 0) as writer, SharedMemoryChannel(spec, 0, 0, 1) as reader:
        for action, argument in actions:
            match action, argument:
                case "put", list(sizes):
                    step = next(steps)
                    parts = [bytes([(step + size) % 251]) * size for size in sizes]
                    writer.put(key_of(0, step), parts)
                    living[step] = b"".join(parts)
                case "lend", int(size):
                    free.append(writer.allocate(size))
                    assert free[-1].tobytes() == bytes(size)
                case "put lent", int(which) if which < len(free):
                    step = next(steps)
                    memory = free.pop(which)
                    memory[:] = bytes([step % 251]) * memory.nbytes
                    writer.put(key_of(0, step), [memory])
                    living[step], busy[step] = memory.tobytes(), memory
                case "discard", int(which) if which < len(living):
                    step = sorted(living)[which]
                    writer.discard(key_of(0, step))
                    del living[step]
                    if step in busy:
                        free.append(busy.pop(step))
            found = {step: reader.get(key_of(0, step), timeout_s=0) for step in living}
            assert found == living
