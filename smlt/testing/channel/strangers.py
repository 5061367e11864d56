"""What a stranger writes where a rank's value belongs is never taken for it."""

# ruff: noqa: D102  a test's name says what it shows

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from smlt.core.errors import ChannelError
from smlt.core.storage import Channel, ChannelKey
from smlt.testing.channel.suite import PATIENCE_S, ChannelSuite, Connect, key_of, pattern

Scribble = Callable[[ChannelKey, bytes], None]
"""Called with the key of a value, and the bytes to leave in its place."""


def _announced(channel: Channel, key: ChannelKey, timeout_s: float) -> object:
    channel.expect([key])
    return channel.get(key, timeout_s=timeout_s)


READS: dict[str, Callable[[Channel, ChannelKey, float], object]] = {
    "get": lambda channel, key, timeout_s: channel.get(key, timeout_s=timeout_s),
    "get_into": lambda channel, key, timeout_s: channel.get_into(
        key, memoryview(bytearray(10)), timeout_s=timeout_s, offset=1
    ),
    "view": lambda channel, key, timeout_s: channel.view(key, timeout_s=timeout_s),
    "get, announced": _announced,
}


class StrangerContract(ChannelSuite):
    """What holds, beside `ChannelContract`, of a channel that can tell its own values from what others wrote."""

    @pytest.fixture
    def scribble(self, request: pytest.FixtureRequest) -> Scribble:
        """Give this: writes where the value of a key is kept, as one can who gets there and is no client."""
        pytest.fail(f"{request.cls.__name__} lacks the fixture scribble")

    @pytest.mark.parametrize("size", [0, 1, 16, 100_000])
    @pytest.mark.parametrize("timeout_s", [0, 0.05])
    def test_what_a_stranger_wrote_is_no_value(
        self, connect: Connect, scribble: Scribble, timeout_s: float, size: int
    ) -> None:
        scribble(key_of(0), pattern(size))
        for read in READS.values():
            reader = connect(1)
            with suppress(ChannelError):
                assert read(reader, key_of(0), timeout_s) is None  # as `view` may say that it cannot
        connect(2).put(key_of(2), [b"of a peer"])
        assert connect(3).get(key_of(2), timeout_s=PATIENCE_S) == b"of a peer"

    @pytest.mark.parametrize("size", [0, 5, 100_000])
    def test_what_a_stranger_wrote_before(self, connect: Connect, scribble: Scribble, size: int) -> None:
        writer = connect(0)
        scribble(key_of(0), pattern(size))
        with suppress(ChannelError):  # perhaps only by the next call
            writer.put(key_of(0), [b"ours"])
        for timeout_s in (0, 0.05):
            assert _value_or_error(connect(1), key_of(0), timeout_s) in (b"ours", None)

    @pytest.mark.parametrize("size", [0, 5, 100_000])
    def test_what_a_stranger_wrote_over_a_value(self, connect: Connect, scribble: Scribble, size: int) -> None:
        writer, reader = connect(0), connect(1)
        writer.put(key_of(0), [b"ours"])
        assert reader.get(key_of(0), timeout_s=PATIENCE_S) == b"ours"
        scribble(key_of(0), pattern(size))
        for client in (connect(2), reader):
            for timeout_s in (0, 0.05):
                assert _value_or_error(client, key_of(0), timeout_s) in (b"ours", None)


def _value_or_error(channel: Channel, key: ChannelKey, timeout_s: float) -> bytes | None:
    try:
        return channel.get(key, timeout_s=timeout_s)
    except ChannelError:
        return None
