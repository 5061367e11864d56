"""A key is the address of one value, which is written once."""

# ruff: noqa: D102  a test's name says what it shows

from __future__ import annotations

import pytest

from smlt.core.errors import ChannelError, PeerLost
from smlt.testing.channel.suite import PATIENCE_S, ChannelSuite, Connect, key_of


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
