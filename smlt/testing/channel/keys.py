"""A key is the address of one value, which is written once."""

# ruff: noqa: D102  a test's name says what it shows

from __future__ import annotations

from contextlib import suppress

import pytest

from smlt.core.errors import ChannelError, PeerLost
from smlt.testing.channel.suite import PATIENCE_S, ChannelSuite, Connect, OpenChannel, key_of, pattern


class KeyContract(ChannelSuite):
    """What holds of keys."""

    def test_keys_differ_in_each_part(self, connect: Connect) -> None:
        first, other, later = connect(0), connect(1), connect(0, generation=1)
        keys = {
            key_of(0): first,
            key_of(0, 1): first,
            key_of(0, 0, "sum"): first,
            key_of(0, 0, "sum/0"): first,
            key_of(0, 0, "sum/0/0 é"): first,
            key_of(1): other,
            key_of(0, generation=1): later,
        }
        for key, writer in keys.items():
            writer.put(key, [repr(key).encode()])
        reader = connect(2)
        assert all(reader.get(key, timeout_s=PATIENCE_S) == repr(key).encode() for key in keys)

    def test_rounds_do_not_mix(self, connect: Connect) -> None:
        old, reader = connect(0), connect(1)
        old.put(key_of(0), [b"old"])
        assert reader.get(key_of(0), timeout_s=PATIENCE_S) == b"old"
        new, new_reader = connect(0, 1), connect(1, 1)
        with pytest.raises(PeerLost):
            new_reader.get(key_of(0, round_number=1), timeout_s=0)
        new.put(key_of(0, round_number=1), [b"new"])
        old.put(key_of(0, 1), [b"of a frozen process that woke up"])
        assert new_reader.get(key_of(0, round_number=1), timeout_s=PATIENCE_S) == b"new"
        with pytest.raises(PeerLost):
            new_reader.get(key_of(0, 1, round_number=1), timeout_s=0)

    def test_a_key_is_written_once(self, connect: Connect) -> None:
        writer = connect(0)
        writer.put(key_of(0), [b"first"])
        with pytest.raises(ChannelError):
            writer.put(key_of(0), [b"second"])
        with pytest.raises(ChannelError):
            writer.put(key_of(0), [writer.allocate(5)])
        assert connect(1).get(key_of(0), timeout_s=PATIENCE_S) == b"first"

    @pytest.mark.parametrize("sizes", [(0, 1), (1, 0), (100_000, 100_001)])
    def test_a_refused_put_changes_nothing(self, connect: Connect, sizes: tuple[int, int]) -> None:
        writer, reader = connect(0), connect(1)
        written, refused = pattern(sizes[0]), pattern(sizes[1])
        writer.put(key_of(0), [written])
        for _ in range(2):
            with pytest.raises(ChannelError):
                writer.put(key_of(0), [refused])
            assert reader.get(key_of(0), timeout_s=PATIENCE_S) == written
        writer.put(key_of(0, 1), [refused])
        assert reader.get(key_of(0, 1), timeout_s=PATIENCE_S) == refused
        assert (writer.stats().requests, writer.stats().bytes_up) == ({"put": 2}, sum(sizes))

    def test_two_clients_of_one_rank_are_never_mixed_up(self, connect: Connect) -> None:
        first, second, reader = connect(0), connect(0), connect(1)
        values = (b"1" * 1_000_000, b"2" * 2_000_000)
        first.put(key_of(0), [values[0]])
        assert reader.get(key_of(0), timeout_s=PATIENCE_S) == values[0]
        with suppress(ChannelError):  # which may come late
            second.put(key_of(0), [values[1]])
            second.get(key_of(0, 1), timeout_s=0.05)
        for client in (reader, connect(2)):
            with suppress(ChannelError):
                assert client.get(key_of(0), timeout_s=PATIENCE_S) in values

    def test_runs_do_not_mix(self, connect: Connect, open_elsewhere: OpenChannel) -> None:
        ours, reader = connect(0), connect(1)
        with open_elsewhere(0, 0, 0) as stranger:
            stranger.put(key_of(0), [b"theirs"])
            assert stranger.get(key_of(0), timeout_s=PATIENCE_S) == b"theirs"
            for timeout_s in (0, 0.05):
                with pytest.raises(PeerLost):
                    reader.get(key_of(0), timeout_s=timeout_s)
            ours.put(key_of(0), [b"ours"])
            stranger.discard(key_of(0))
            stranger.put(key_of(0, 1), [b"theirs again"])
        assert reader.get(key_of(0), timeout_s=PATIENCE_S) == b"ours"
        with pytest.raises(PeerLost):
            reader.get(key_of(0, 1), timeout_s=0)
