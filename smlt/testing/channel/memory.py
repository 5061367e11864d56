"""Values are built in memory of the channel, which is used again once they are discarded."""

# ruff: noqa: D102  a test's name says what it shows

from __future__ import annotations

import numpy as np
import pytest

from smlt.core.errors import PeerLost
from smlt.core.storage import ALLOCATION_ALIGNMENT
from smlt.testing.channel.suite import PATIENCE_S, ChannelSuite, Connect, key_of, pattern


class MemoryContract(ChannelSuite):
    """What holds of memory."""

    @pytest.mark.parametrize("size", [0, 1, 64, 1000, 2_000_003])
    def test_allocated_memory(self, connect: Connect, size: int) -> None:
        writer, reader = connect(0), connect(1)
        writer.put(key_of(0, 99), [b"x" * size])
        writer.discard(key_of(0, 99))  # whatever memory that was, it is not given out as it is
        for step in range(3):
            memory = writer.allocate(size)
            assert memory.nbytes == size
            assert not memory.readonly
            assert memory.tobytes() == bytes(size)
            assert size == 0 or _address(memory) % ALLOCATION_ALIGNMENT == 0
            memory[:] = pattern(size)
            writer.put(key_of(0, step), [memory])
        for step in range(3):
            assert reader.get(key_of(0, step), timeout_s=PATIENCE_S) == pattern(size)

    def test_allocated_memory_does_not_overlap(self, connect: Connect) -> None:
        writer = connect(0)
        memories = [writer.allocate(size) for size in (100, 1, 64, 65, 3000, 7, 500_000)]
        for number, memory in enumerate(memories):
            memory[:] = bytes([number]) * memory.nbytes
        writer.put(key_of(0), [b"x" * 1000])
        assert all(set(memory) == {number} for number, memory in enumerate(memories))

    def test_a_part_of_allocated_memory_is_a_value(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        memory = writer.allocate(1000)
        memory[:] = pattern(1000)
        writer.put(key_of(0), [memory[13:600]])
        writer.put(key_of(0, 1), [memory[600:], memory[:13]])
        writer.put(key_of(0, 2), [np.frombuffer(memory, np.float32).data])
        assert reader.get(key_of(0), timeout_s=PATIENCE_S) == pattern(1000)[13:600]
        assert reader.get(key_of(0, 1), timeout_s=PATIENCE_S) == pattern(1000)[600:] + pattern(13)
        assert reader.get(key_of(0, 2), timeout_s=PATIENCE_S) == pattern(1000)

    def test_a_discarded_value_is_gone_and_its_memory_builds_the_next(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        memories = [writer.allocate(1000) for _ in range(2)]
        for step in range(10):
            writer.discard(key_of(0, step - 2))
            memories[step % 2][:] = bytes([step]) * 1000
            writer.put(key_of(0, step), [memories[step % 2]])
            assert reader.get(key_of(0, step), timeout_s=PATIENCE_S) == bytes([step]) * 1000
            with pytest.raises(PeerLost):
                reader.get(key_of(0, step - 2), timeout_s=0)
        assert reader.get(key_of(0, 8), timeout_s=PATIENCE_S) == bytes([8]) * 1000
        writer.discard(key_of(0, 9))
        with pytest.raises(PeerLost):
            reader.get(key_of(0, 9), timeout_s=0)

    def test_discarding_copied_values(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        for step in range(50):
            writer.put(key_of(0, step), [pattern(10_000 + step)])
            writer.discard(key_of(0, step - 1))
        assert reader.get(key_of(0, 49), timeout_s=PATIENCE_S) == pattern(10_049)

    def test_discarding_an_unknown_key_is_no_error(self, connect: Connect) -> None:
        writer = connect(0)
        writer.discard(key_of(0))
        writer.put(key_of(0, 1), [b"1"])
        writer.discard(key_of(0))
        assert writer.get(key_of(0, 1), timeout_s=PATIENCE_S) == b"1"

    def test_what_was_reserved_can_be_had(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        writer.reserve(2_000_000)
        memory = writer.allocate(1_000_000)
        writer.put(key_of(0), [pattern(999_999)])
        writer.put(key_of(0, 1), [memory])
        assert reader.get(key_of(0), timeout_s=PATIENCE_S) == pattern(999_999)
        assert reader.get(key_of(0, 1), timeout_s=PATIENCE_S) == bytes(1_000_000)


def _address(memory: memoryview) -> int:
    return int(np.frombuffer(memory, np.uint8).ctypes.data)
