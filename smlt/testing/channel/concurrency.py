"""Writers and readers are at work at the same time, and nobody sees the work half done."""

# ruff: noqa: D102  a test's name says what it shows

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from smlt.core.errors import PeerLost
from smlt.core.storage import Channel, ChannelKey
from smlt.testing.channel.suite import MEMBERS, PATIENCE_S, ChannelSuite, Connect, key_of, pattern
from smlt.testing.team import run_threads

STEPS = 12
SIZES = (0, 1, 300_001, 63, 5000)


class ConcurrencyContract(ChannelSuite):
    """What holds while several clients are at work."""

    def test_any_number_of_readers_any_number_of_times(self, connect: Connect) -> None:
        connect(0).put(key_of(0), [pattern(50_000)])
        readers = [connect(rank) for rank in range(1, 1 + MEMBERS)]
        assert (
            run_threads(_read_often, [(reader, key_of(0), 20) for reader in readers]) == [[pattern(50_000)]] * MEMBERS
        )

    def test_all_write_and_read_at_the_same_time(self, connect: Connect) -> None:
        work: list[tuple[Callable[[Channel, int], bool], Channel, int]] = []
        for rank in range(MEMBERS):
            work += [(_write_all, connect(rank), rank), (_read_all, connect(MEMBERS + rank), rank)]
        assert run_threads(_do, work) == [True] * 2 * MEMBERS

    def test_a_value_is_seen_whole_or_not_at_all(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        with ThreadPoolExecutor(1) as pool:
            for step in range(10):
                seen = pool.submit(_look_until_it_is_there, reader, key_of(0, step))
                writer.put(key_of(0, step), [bytes([step]) * 1_000_000] * 3)
                assert seen.result() == bytes([step]) * 3_000_000


def _read_often(channel: Channel, key: ChannelKey, times: int) -> list[bytes]:
    """The different values that were read."""
    return list({channel.get(key, timeout_s=PATIENCE_S) for _ in range(times)})


def _look_until_it_is_there(channel: Channel, key: ChannelKey) -> bytes:
    while True:
        try:
            return channel.get(key, timeout_s=0)
        except PeerLost:
            continue


def _content(rank: int, step: int) -> bytes:
    return bytes([step * MEMBERS + rank]) * SIZES[(rank + step) % len(SIZES)]


def _do(task: Callable[[Channel, int], bool], channel: Channel, number: int) -> bool:
    return task(channel, number)


def _write_all(channel: Channel, rank: int) -> bool:
    for step in range(STEPS):
        channel.put(key_of(rank, step), [_content(rank, step)])
    return True


def _read_all(channel: Channel, seed: int) -> bool:
    """Read everything in an order of one's own; whether all of it was what had been written."""
    values = [(rank, step) for rank in range(MEMBERS) for step in range(STEPS)]
    random.Random(seed).shuffle(values)
    return all(channel.get(key_of(*each), timeout_s=PATIENCE_S) == _content(*each) for each in values)
