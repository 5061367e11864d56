"""300 MB through a store that has room for them once: sums, and ranks that are killed in the middle."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smlt.backends.channels import reducing_link
from smlt.backends.channels.reducing import ReducingChannel, probe
from smlt.core.errors import PeerLost
from smlt.core.storage import ChannelSpec
from smlt.testing.channel import PATIENCE_S, key_of
from smlt.testing.channel.large import blocks, differences
from smlt.testing.team import Team
from tests.support.reducing import ServedStore, served_store

Array = np.ndarray[Any, Any]

LARGE_BYTES = 300 * 2**20
MEMORY_BYTES = 320 * 2**20
THREADS_BYTES = 16 * 2**20
ROWS, COLUMNS = 300, 2**18
"""Of LARGE_BYTES of float32."""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ServedStore]:
    with served_store(tmp_path, memory_bytes=MEMORY_BYTES) as store:
        yield store


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    with Team(1) as team:
        yield team


def contribution(rank: int) -> Array:
    """No two rows are equal, and all numbers are small and whole."""
    return (
        np.arange(COLUMNS, dtype=np.float32) % 1000 + (1 + rank) * np.arange(ROWS, dtype=np.float32)[:, None]
    ).ravel()


def wrong_rows(found: Array, ranks: int) -> list[int]:
    columns = np.arange(COLUMNS, dtype=np.float32) % 1000 * ranks
    weight = sum(range(1, 1 + ranks))
    return [row for row in range(ROWS) if not (found[row * COLUMNS :][:COLUMNS] == columns + weight * row).all()]


def peak_bytes(store: ServedStore) -> int:
    """Most memory that the store's process ever had."""
    lines = Path(f"/proc/{store.process.pid}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def reduce(spec: ChannelSpec, rank: int) -> Array:
    own = contribution(rank)
    with ReducingChannel(spec, 0, 0, rank) as channel:
        channel.reduce_into(key_of(rank), b"", own, ranks=2, patience=lambda: None)
    return own


def test_a_large_sum_needs_no_more_memory_than_the_store_has(store: ServedStore) -> None:
    before = peak_bytes(store)
    with ThreadPoolExecutor(2) as pool:
        sums = [pool.submit(reduce, store.spec(), rank) for rank in range(2)]
        assert [wrong_rows(found.result(PATIENCE_S), 2) for found in sums] == [[], []]
    assert peak_bytes(store) <= before + MEMORY_BYTES + THREADS_BYTES


def test_a_rank_that_is_killed_in_the_middle_of_a_large_sum(store: ServedStore, team: Team) -> None:
    dead = threading.Event()

    def patience() -> None:
        if dead.is_set():
            raise PeerLost("rank 1 was killed")

    with ThreadPoolExecutor(1) as pool, ReducingChannel(store.spec(), 0, 0, 0) as survivor:
        waiting = pool.submit(survivor.reduce_into, key_of(0), b"", contribution(0), ranks=2, patience=patience)
        kill(team, _reduce_half, store.spec())
        dead.set()
        with pytest.raises(PeerLost):
            waiting.result(PATIENCE_S)
        assert survivor.stats().requests == {}
        survivor.put(key_of(0), [b"it goes on"])


def test_a_rank_that_is_killed_in_the_middle_of_a_large_value(store: ServedStore, team: Team) -> None:
    with ReducingChannel(store.spec(), 0, 0, 1) as reader, ReducingChannel(store.spec(), 0, 1, 0) as successor:
        kill(team, _put_half, store.spec())
        for timeout_s in (0, 0.05):
            with pytest.raises(PeerLost):
                reader.get_into(key_of(0), memoryview(bytearray(1000)), timeout_s=timeout_s)
        while probe(store.spec()).used_bytes:
            pass  # until the store has seen that the writer is gone
        key, parts = key_of(0, round_number=1), blocks(LARGE_BYTES)
        successor.put(key, parts)
        assert differences(memoryview(reader.get(key, timeout_s=0)), parts) == []


def kill(team: Team, task: Any, spec: ChannelSpec) -> None:
    team.start(task, spec, member=0)
    with pytest.raises(EOFError):
        team.result(0)


def _die_after_half() -> None:
    """Of so many bytes this process sends half, and is killed."""
    push, pushes = reducing_link.Link._push, itertools.count()

    def push_or_die(link: reducing_link.Link) -> None:
        if next(pushes) * reducing_link.WINDOW_BYTES > LARGE_BYTES // 2:
            os.kill(os.getpid(), signal.SIGKILL)
        push(link)

    reducing_link.Link._push = push_or_die  # type: ignore[method-assign]


def _reduce_half(spec: ChannelSpec) -> None:
    _die_after_half()
    reduce(spec, 1)


def _put_half(spec: ChannelSpec) -> None:
    _die_after_half()
    with ReducingChannel(spec, 0, 0, 0) as channel:
        channel.put(key_of(0), blocks(LARGE_BYTES))
