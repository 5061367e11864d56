"""Large values: whole, however they were built, and never a part of one, however their writer ends."""

# ruff: noqa: D102  a test's name says what it shows

from __future__ import annotations

import mmap
import os
import resource
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from smlt.core.errors import PeerLost
from smlt.testing.channel.suite import PATIENCE_S, ChannelSuite, Connect, OpenChannel, get_or_lost, key_of
from smlt.testing.team import Team

BLOCK_BYTES = 1 << 20


class LargeValueContract(ChannelSuite):
    """What holds of large values.

    Attributes:
        large_value_bytes: size of the largest; lower it for a slow store.
    """

    large_value_bytes: ClassVar[int] = 300 * 2**20

    def test_a_large_value(self, connect: Connect) -> None:
        writer, reader, parts = connect(0), connect(1), blocks(self.large_value_bytes)
        writer.put(key_of(0), parts)
        out = memoryview(bytearray(self.large_value_bytes))
        assert reader.get_into(key_of(0), out, timeout_s=PATIENCE_S) == self.large_value_bytes
        assert differences(out, parts) == []
        writer.discard(key_of(0))

    def test_a_large_value_in_allocated_memory(self, connect: Connect) -> None:
        writer, reader, parts = connect(0), connect(1), blocks(self.large_value_bytes)
        memory = writer.allocate(self.large_value_bytes)
        fill(memory, parts)
        writer.put(key_of(0), [memory])
        assert differences(memoryview(reader.get(key_of(0), timeout_s=PATIENCE_S)), parts) == []
        writer.discard(key_of(0))

    def test_a_writer_that_dies_in_the_middle_of_a_large_value(
        self, connect: Connect, open_channel: OpenChannel, team: Team, tmp_path: Path
    ) -> None:
        reader, third = connect(1), connect(2)
        team.start(_die_in_the_middle, open_channel, tmp_path / "memory", self.large_value_bytes, member=0)
        with ThreadPoolExecutor(1) as pool:
            dead = pool.submit(team.result, 0)
            while not dead.done():
                assert get_or_lost(reader, key_of(0)) is None
            assert isinstance(dead.exception(), EOFError)
        for client in (reader, third):
            with pytest.raises(PeerLost):
                client.get(key_of(0), timeout_s=0)
            with pytest.raises(PeerLost):
                client.get_into(key_of(0), memoryview(bytearray(BLOCK_BYTES)), timeout_s=0.05)
        third.put(key_of(2), [b"still here"])
        assert reader.get(key_of(2), timeout_s=PATIENCE_S) == b"still here"


def blocks(size_bytes: int) -> list[memoryview]:
    """Parts of a value of this size, of which no two that are as long are equal, at the cost of two blocks."""
    ground = memoryview(np.random.default_rng(0).bytes(2 * BLOCK_BYTES))
    return [
        ground[start // BLOCK_BYTES * 4093 % BLOCK_BYTES :][: min(BLOCK_BYTES, size_bytes - start)]
        for start in range(0, size_bytes, BLOCK_BYTES)
    ]


def fill(memory: memoryview, parts: Sequence[memoryview]) -> None:
    """Write the parts into memory, one behind the other."""
    at = 0
    for part in parts:
        memory[at : at + part.nbytes] = part
        at += part.nbytes


def differences(found: memoryview, parts: Sequence[memoryview]) -> list[int]:
    """The numbers of the parts that are not what stands in their place; one more of a wrong size."""
    wrong, at = [], 0
    for number, part in enumerate(parts):
        if found[at : at + part.nbytes].tobytes() != part.tobytes():
            wrong.append(number)
        at += part.nbytes
    return wrong if at == found.nbytes else [*wrong, len(parts)]


def _die_in_the_middle(open_channel: OpenChannel, path: Path, size_bytes: int) -> None:
    """Put a value whose memory ends in the middle.

    Where this process reads on, that kills it at once, as SIGKILL would; where the system does, it refuses.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    channel = open_channel(0, 0, 0)
    with path.open("w+b") as file:
        file.truncate(size_bytes)
        memory = mmap.mmap(file.fileno(), size_bytes)
        file.truncate(size_bytes // 2)
    try:
        channel.put(key_of(0), [memoryview(memory)])
    finally:
        os.kill(os.getpid(), signal.SIGKILL)
