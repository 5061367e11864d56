"""What can go wrong between an object channel and its folder: writers that die in the middle, no room, other files."""

from __future__ import annotations

import functools
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from smlt.backends.channels import object as object_channel
from smlt.backends.channels.object import ObjectChannel
from smlt.core.errors import PeerLost, SmltError, StorageError
from smlt.core.storage import Channel, StoreSpec
from smlt.testing.channel import PATIENCE_S, OpenChannel, key_of
from smlt.testing.channel.large import blocks
from smlt.testing.team import Team

LARGE_BYTES = 300 * 2**20


@pytest.fixture
def open_channel(tmp_path: Path) -> OpenChannel:
    return functools.partial(ObjectChannel, object_channel.spec_for(StoreSpec("file", tmp_path.as_uri())))


@pytest.fixture
def reader(open_channel: OpenChannel) -> Iterator[Channel]:
    with open_channel(0, 0, 1) as reader:
        yield reader


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    with Team(1) as team:
        yield team


def is_missing(reader: Channel) -> bool:
    """Whether nothing is seen of the large value, however one looks."""
    for timeout_s in (0, 0.05):
        with pytest.raises(PeerLost):
            reader.get(key_of(0, 1), timeout_s=timeout_s)
        with pytest.raises(PeerLost):
            reader.get_into(key_of(0, 1), memoryview(bytearray(100)), timeout_s=timeout_s, offset=7)
    return True


def test_a_writer_that_is_killed_in_the_middle_of_a_large_value(
    open_channel: OpenChannel, reader: Channel, team: Team
) -> None:
    team.start(_put_half, open_channel, signal.SIG_DFL, member=0)
    with pytest.raises(EOFError):
        team.result(0)
    assert reader.get(key_of(0), timeout_s=PATIENCE_S) == b"first"
    assert is_missing(reader)


def test_no_room_for_a_large_value_is_said(open_channel: OpenChannel, reader: Channel, team: Team) -> None:
    told = team.run(_put_half, [(open_channel, signal.SIG_IGN)])[0]
    assert "File too large" in told
    assert str(key_of(0, 1)).rpartition("/")[0] in told
    assert is_missing(reader)
    assert reader.get(key_of(0, 2), timeout_s=PATIENCE_S) == b"it goes on"


def _put_half(open_channel: OpenChannel, too_large: signal.Handlers) -> str:
    """Put a value where a file may have half of its size: the system kills the process, or refuses, which is told."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, too_large)
    writer = open_channel(0, 0, 0)
    writer.put(key_of(0), [b"first"])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGE_BYTES // 2, before[1]))
    try:
        with pytest.raises(StorageError) as caught:
            writer.put(key_of(0, 1), blocks(LARGE_BYTES))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    writer.put(key_of(0, 2), [b"it goes on"])
    return str(caught.value)


def test_a_folder_in_the_place_of_a_value(open_channel: OpenChannel, reader: Channel, tmp_path: Path) -> None:
    with open_channel(0, 0, 0) as writer:
        writer.put(key_of(0), [b"1"])
        (place,) = (path for path in tmp_path.rglob("*") if path.name.startswith("grad"))
        place.unlink()
        place.mkdir()
        with pytest.raises(SmltError):
            reader.get(key_of(0), timeout_s=0.05)
        writer.put(key_of(0, 1), [b"2"])
        assert reader.get(key_of(0, 1), timeout_s=PATIENCE_S) == b"2"
