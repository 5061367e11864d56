"""What was moved is counted; and who leaves does so in peace."""

# ruff: noqa: D102  a test's name says what it shows

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from smlt.core.errors import ChannelError, PeerLost
from smlt.testing.channel.suite import PATIENCE_S, ChannelSuite, Connect, get_or_lost, key_of, pattern


class LeavingContract(ChannelSuite):
    """What holds of counting, and of the end."""

    def test_stats_are_what_was_moved(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        writer.put(key_of(0), [b"0123", b"456"])
        memory = writer.allocate(100)
        writer.put(key_of(0, 1), [memory[:50]])
        assert (writer.stats().requests, writer.stats().bytes_up, writer.stats().bytes_down) == ({"put": 2}, 57, 0)
        reader.get(key_of(0), timeout_s=PATIENCE_S)
        reader.get_into(key_of(0, 1), memoryview(bytearray(20)), timeout_s=PATIENCE_S, offset=40)
        with pytest.raises(PeerLost):
            reader.get(key_of(0, 2), timeout_s=0)
        assert (reader.stats().requests, reader.stats().bytes_up, reader.stats().bytes_down) == ({"get": 2}, 0, 17)

    # The end

    def test_after_close_everything_is_refused(self, connect: Connect) -> None:
        channel = connect(0)
        channel.put(key_of(0), [b"1"])
        channel.close()
        channel.close()
        calls: list[Callable[[], object]] = [
            lambda: channel.reserve(1),
            lambda: channel.allocate(1),
            lambda: channel.put(key_of(0, 1), [b""]),
            lambda: channel.get_into(key_of(0), memoryview(bytearray(1)), timeout_s=0),
            lambda: channel.get(key_of(0), timeout_s=0),
            lambda: channel.view(key_of(0), timeout_s=0),
            lambda: channel.discard(key_of(0)),
        ]
        for call in calls:
            with pytest.raises(ChannelError, match="closed"):
                call()

    def test_a_client_that_did_nothing_can_be_closed(self, connect: Connect) -> None:
        with connect(0) as channel:
            assert channel.stats().requests == {}
        with pytest.raises(ChannelError, match="closed"):
            channel.get(key_of(0), timeout_s=0)

    def test_a_closed_writer_hurts_no_reader(self, connect: Connect) -> None:
        writer, reader, late = connect(0), connect(1), connect(2)
        writer.put(key_of(0), [b"1"])
        assert reader.get(key_of(0), timeout_s=PATIENCE_S) == b"1"
        writer.close()
        for client in (reader, late):
            assert get_or_lost(client, key_of(0)) in (b"1", None)
            with pytest.raises(PeerLost):
                client.get(key_of(0, 1), timeout_s=0.05)

    def test_last_words_are_heard(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        writer.put(key_of(0), [b"hello"])
        assert reader.get(key_of(0), timeout_s=PATIENCE_S) == b"hello"
        writer.put(key_of(0, 1), [b"bye"])
        writer.close()
        assert reader.get(key_of(0, 1), timeout_s=PATIENCE_S) == b"bye"

    def test_memory_outlives_its_channel(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        memory = writer.allocate(1000)
        memory[:] = pattern(1000)
        writer.put(key_of(0), [memory])
        seen = reader.view(key_of(0), timeout_s=PATIENCE_S)
        array = np.frombuffer(memory, np.uint8)
        reader.close()
        writer.close()
        assert seen is None or seen.tobytes() == pattern(1000)
        assert array.tobytes() == pattern(1000)
        memory[:] = bytes(1000)
        assert not array.any()
