"""What the tests of a channel share: clients, processes that use it, keys and contents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from smlt.core.errors import PeerLost
from smlt.core.storage import Channel, ChannelKey
from smlt.testing.team import Team

OpenChannel = Callable[[int, int, int], Channel]
"""Called with generation, round and rank."""

Connect = Callable[..., Channel]
"""Called with a rank, and perhaps round_number and generation; the client is closed after the test."""

MEMBERS = 4
PATIENCE_S = 60.0
"""For values that will come: long, so that a busy machine fails no test."""


def key_of(rank: int, step: int = 0, piece: str = "grad", *, round_number: int = 0, generation: int = 0) -> ChannelKey:
    """A key, of the first round unless stated otherwise."""
    return ChannelKey(generation, round_number, step, piece, rank)


class ChannelSuite:
    """What its tests are given."""

    @pytest.fixture
    def open_channel(self, request: pytest.FixtureRequest) -> OpenChannel:
        """Give this: opens a client of one channel, empty at the start of each test. Must be picklable."""
        pytest.fail(f"{request.cls.__name__} lacks the fixture open_channel")

    @pytest.fixture
    def open_elsewhere(self, request: pytest.FixtureRequest) -> OpenChannel:
        """Give this: opens a client of another run's channel, in the same medium, server or folder."""
        pytest.fail(f"{request.cls.__name__} lacks the fixture open_elsewhere")

    @pytest.fixture
    def connect(self, open_channel: OpenChannel) -> Iterator[Connect]:
        """Opens clients and closes them in the end."""
        with ExitStack() as stack:

            def connect(rank: int, round_number: int = 0, generation: int = 0) -> Channel:
                return stack.enter_context(open_channel(generation, round_number, rank))

            yield connect

    @pytest.fixture(scope="class")
    @classmethod
    def team(cls) -> Iterator[Team]:
        """Processes that share the channel."""
        with Team(MEMBERS) as team:
            yield team


def pattern(size: int) -> bytes:
    """So many bytes, of which neighbours differ."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def get_or_lost(channel: Channel, key: ChannelKey) -> bytes | None:
    """A value that may be there, or None."""
    try:
        return channel.get(key, timeout_s=0.05)
    except PeerLost:
        return None
