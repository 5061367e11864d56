"""A reader waits as long as it was told to, and a writer for nobody."""

# ruff: noqa: D102  a test's name says what it shows

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from smlt.core.errors import PeerLost
from smlt.core.storage import Channel, ChannelKey
from smlt.testing.channel.suite import PATIENCE_S, ChannelSuite, Connect, OpenChannel, key_of, pattern


class WaitingContract(ChannelSuite):
    """What holds of waiting."""

    @pytest.mark.parametrize("timeout_s", [0, 0.05])
    def test_what_does_not_come_is_a_lost_peer(self, connect: Connect, timeout_s: float) -> None:
        reader, silent = connect(0), connect(1)
        silent.put(key_of(1, 7), [b"something else"])
        for missing in (key_of(1), key_of(2)):
            with pytest.raises(PeerLost):
                reader.get(missing, timeout_s=timeout_s)
            with pytest.raises(PeerLost):
                reader.get_into(missing, memoryview(bytearray(4)), timeout_s=timeout_s)
            assert _view_or_lost(reader, missing, timeout_s) is None

    def test_a_value_that_is_there_needs_no_time(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        writer.put(key_of(0), [b"1"])
        reader.get(key_of(0), timeout_s=PATIENCE_S)
        assert reader.get(key_of(0), timeout_s=0) == b"1"

    def test_a_reader_may_be_there_before_its_writer(self, connect: Connect, open_channel: OpenChannel) -> None:
        reader = connect(1)
        with ThreadPoolExecutor(1) as pool:
            value = pool.submit(reader.get, key_of(0), timeout_s=PATIENCE_S)
            with open_channel(0, 0, 0) as writer:
                writer.put(key_of(0), [b"1"])
                assert value.result() == b"1"

    def test_what_others_write_does_not_prolong_a_wait(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        with ThreadPoolExecutor(1) as pool:
            missing = pool.submit(reader.get, key_of(0, 0, "missing"), timeout_s=0.1)
            step = 0
            while not missing.done():
                step += 1
                writer.put(key_of(0, step), [b"1"])
                writer.discard(key_of(0, step - 1))
            with pytest.raises(PeerLost):
                missing.result()

    def test_put_does_not_wait_for_a_reader(self, connect: Connect) -> None:
        writer = connect(0)
        for step in range(100):
            writer.put(key_of(0, step), [pattern(1000 + step)])
        reader = connect(1)
        assert all(
            reader.get(key_of(0, step), timeout_s=PATIENCE_S) == pattern(1000 + step) for step in reversed(range(100))
        )

    def test_many_values_at_once(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        for number in range(3000):
            writer.put(key_of(0, 0, f"piece-{number}"), [b"%d" % number])
        for number in range(0, 3000, 7):
            assert reader.get(key_of(0, 0, f"piece-{number}"), timeout_s=PATIENCE_S) == b"%d" % number


def _view_or_lost(channel: Channel, key: ChannelKey, timeout_s: float) -> memoryview | None:
    try:
        return channel.view(key, timeout_s=timeout_s)
    except PeerLost:
        return None
