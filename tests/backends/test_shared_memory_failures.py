"""What can go wrong in shared memory: damaged files, no room, and writers that are killed at every point of a put."""

from __future__ import annotations

import functools
import os
import re
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from smlt.backends.channels import segment
from smlt.backends.channels.segment import OwnSegment
from smlt.backends.channels.segment_files import new_stem
from smlt.backends.channels.shared_memory import SharedMemoryChannel, spec_for, sweep
from smlt.core.backend import RunPlace
from smlt.core.errors import ChannelError, PeerLost
from smlt.core.storage import Channel, ChannelSpec
from smlt.testing.channel import PATIENCE_S, OpenChannel, key_of
from smlt.testing.channel.large import blocks, differences
from smlt.testing.team import Team

LARGE_BYTES = 300 * 2**20


@pytest.fixture
def spec(tmp_path: Path) -> Iterator[ChannelSpec]:
    place = RunPlace("test", tmp_path / "runs")
    yield spec_for(place)
    sweep(place)


@pytest.fixture
def open_channel(spec: ChannelSpec) -> OpenChannel:
    return functools.partial(SharedMemoryChannel, spec)


@pytest.fixture
def reader(open_channel: OpenChannel) -> Iterator[Channel]:
    with open_channel(0, 0, 1) as reader:
        yield reader


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    with Team(1) as team:
        yield team


# Files


@pytest.fixture
def left(spec: ChannelSpec, open_channel: OpenChannel) -> Path:
    """A segment with one value in it, whose writer is gone."""
    folder = Path(spec.url.removeprefix("file://"))
    with open_channel(0, 0, 0) as writer:
        writer.put(key_of(0), [b"0123456789"])
        content = next(folder.iterdir()).read_bytes()
    folder.mkdir()
    left = folder / f"{new_stem((0, 0, 0))}.0"
    left.write_bytes(content)
    return left


def test_a_segment_outlives_its_writer(left: Path, reader: Channel) -> None:
    assert left.exists()
    assert reader.get(key_of(0), timeout_s=0) == b"0123456789"


@pytest.mark.parametrize(
    "size", [0, 1, 7, 8, segment.HEADER_BYTES, segment.DATA_START - 1, segment.DATA_START, segment.DATA_START + 9]
)
def test_a_segment_that_was_cut_off_is_none(left: Path, reader: Channel, size: int) -> None:
    os.truncate(left, size)
    for _ in range(2):
        with pytest.raises(ChannelError, match="not written by this version") as caught:
            reader.get(key_of(0), timeout_s=PATIENCE_S)
        assert not isinstance(caught.value, PeerLost)
        assert str(left) in caught.value.message


def test_a_folder_in_the_place_of_a_segment(left: Path, reader: Channel) -> None:
    left.unlink()
    left.mkdir()
    with pytest.raises(ChannelError, match=str(left.parent)):
        reader.get(key_of(0), timeout_s=PATIENCE_S)
    left.rmdir()


def _denied(*_: object) -> None:
    raise PermissionError(13, "Permission denied")


@pytest.mark.parametrize(("where", "what"), [(os, "open"), (Path, "iterdir")])
def test_what_may_not_be_read_is_said(
    left: Path, reader: Channel, monkeypatch: pytest.MonkeyPatch, where: object, what: str
) -> None:
    monkeypatch.setattr(where, what, _denied)
    with pytest.raises(ChannelError, match=f"{left.parent}: Permission denied"):
        reader.get(key_of(0), timeout_s=PATIENCE_S)


# Room


@pytest.mark.parametrize("what", ["put", "allocate", "reserve"])
def test_no_room_for_a_large_value_is_said(open_channel: OpenChannel, reader: Channel, team: Team, what: str) -> None:
    (told,) = team.run(_ask_for_too_much, [(open_channel, what)])
    assert re.search(r"31\d MB of shared memory are not to be had", told)
    assert "shm-size" in told
    assert reader.get(key_of(0, 1), timeout_s=0) == b"small"


_kept: list[Channel] = []


def _ask_for_too_much(open_channel: OpenChannel, what: str) -> str:
    """What is said where a file may have 100 MB; smaller values go on."""
    writer = open_channel(0, 0, 0)
    _kept.append(writer)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000_000, before[1]))
    try:
        calls: dict[str, Callable[[], object]] = {
            "put": lambda: writer.put(key_of(0), blocks(LARGE_BYTES)),
            "allocate": lambda: writer.allocate(LARGE_BYTES),
            "reserve": lambda: writer.reserve(LARGE_BYTES),
        }
        with pytest.raises(ChannelError) as caught:
            calls[what]()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    writer.put(key_of(0, 1), [b"small"])
    return str(caught.value)


# Deaths


@pytest.mark.parametrize("where", ["halfway", "copied", "entered"])
def test_a_writer_that_is_killed_before_a_value_is_published_leaves_none(
    open_channel: OpenChannel, reader: Channel, team: Team, where: str
) -> None:
    _put_and_die(team, open_channel, where)
    assert reader.get(key_of(0), timeout_s=0) == b"first"
    with pytest.raises(PeerLost):
        reader.get_into(key_of(0, 1), memoryview(bytearray(1000)), timeout_s=0.05)
    with pytest.raises(PeerLost):
        reader.view(key_of(0, 1), timeout_s=0)


def test_a_writer_that_is_killed_once_a_value_is_published_leaves_it_whole(
    open_channel: OpenChannel, reader: Channel, team: Team
) -> None:
    _put_and_die(team, open_channel, "published")
    found = reader.view(key_of(0, 1), timeout_s=PATIENCE_S)
    assert found is not None
    assert differences(found, blocks(LARGE_BYTES)) == []


def _put_and_die(team: Team, open_channel: OpenChannel, where: str) -> None:
    team.start(_put_until, open_channel, where, member=0)
    with pytest.raises(EOFError):
        team.result(0)


def _put_until(open_channel: OpenChannel, where: str) -> None:
    writer = open_channel(0, 0, 0)
    writer.put(key_of(0), [b"first"])
    name, calls, owner = {
        "halfway": ("memory", LARGE_BYTES // 2**20 // 2, OwnSegment),
        "copied": ("publish", 0, OwnSegment),
        "entered": ("_fence", 0, segment),
        "published": ("_fence", 1, segment),
    }[where]
    original, count = getattr(owner, name), iter(range(calls))

    def die_in_the_end(*arguments: object) -> object:
        if next(count, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*arguments)

    setattr(owner, name, die_in_the_end)
    writer.put(key_of(0, 1), blocks(LARGE_BYTES))
