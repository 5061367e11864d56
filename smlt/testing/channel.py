"""The contract of `smlt.core.storage.Channel` as tests: subclass, give the fixture `open_channel`, inherit.

class TestMyChannel(ChannelContract):
    @pytest.fixture
    def open_channel(self, tmp_path):
        return functools.partial(MyChannel, ChannelSpec("mine", f"mine://localhost/{tmp_path.name}"))
"""

# ruff: noqa: D102  a test's name says what it shows

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from smlt.core.errors import ChannelError, PeerLost
from smlt.core.storage import ALLOCATION_ALIGNMENT, Channel, ChannelKey
from smlt.testing.team import Team, run_threads

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


class ChannelContract:
    """What holds of every channel.

    Attributes:
        large_value_bytes: size of the value of the largest test; lower it for a slow store.
        steps: of the tests in which processes exchange values.
    """

    large_value_bytes: ClassVar[int] = 300 * 2**20
    steps: ClassVar[int] = 40

    @pytest.fixture
    def open_channel(self, request: pytest.FixtureRequest) -> OpenChannel:
        """Give this: opens a client of one channel, empty at the start of each test. Must be picklable."""
        pytest.fail(f"{request.cls.__name__} lacks the fixture open_channel")

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

    # Values

    @pytest.mark.parametrize("size", [0, 1, 63, 64, 4097, 3_000_001])
    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_a_value_is_read_back(self, connect: Connect, size: int, kind: Callable[[bytes], bytes]) -> None:
        writer, reader, data = connect(0), connect(1), _pattern(size)
        writer.put(key_of(0), [kind(data)])
        found = reader.get(key_of(0), timeout_s=PATIENCE_S)
        assert isinstance(found, bytes)
        assert found == data
        assert writer.get(key_of(0), timeout_s=PATIENCE_S) == data

    @pytest.mark.parametrize("parts", [[], [b""], [b"a"], [b"a", b"", b"bc"], [bytes(70), b"b" * 1000, b"c"]])
    def test_parts_are_joined(self, connect: Connect, parts: list[bytes]) -> None:
        connect(0).put(key_of(0), parts)
        assert connect(1).get(key_of(0), timeout_s=PATIENCE_S) == b"".join(parts)

    def test_parts_of_any_format_are_their_bytes(self, connect: Connect) -> None:
        connect(0).put(key_of(0), [memoryview(bytes(range(64))).cast("I"), memoryview(bytes(64)).cast("I", (4, 4))])
        assert connect(1).get(key_of(0), timeout_s=PATIENCE_S) == bytes(range(64)) + bytes(64)

    def test_a_buffer_may_change_once_it_is_put(self, connect: Connect) -> None:
        data = bytearray(b"before")
        connect(0).put(key_of(0), [data])
        data[:] = b"behind"
        assert connect(1).get(key_of(0), timeout_s=PATIENCE_S) == b"before"

    @pytest.mark.parametrize(
        ("offset", "room", "expected"),
        [
            (0, 10, b"0123456789"),
            (0, 4, b"0123"),
            (3, 4, b"3456"),
            (8, 4, b"89"),
            (0, 99, b"0123456789"),
            (10, 4, b""),
            (77, 4, b""),
        ],
    )
    def test_get_into_copies_what_there_is(self, connect: Connect, offset: int, room: int, expected: bytes) -> None:
        connect(0).put(key_of(0), [b"0123456789"])
        out = bytearray(b"." * room)
        copied = connect(1).get_into(key_of(0), memoryview(out), timeout_s=PATIENCE_S, offset=offset)
        assert copied == len(expected)
        assert out == expected + b"." * (room - len(expected))

    def test_get_into_memory_of_any_format(self, connect: Connect) -> None:
        connect(0).put(key_of(0), [np.arange(10, dtype=np.float32).data])
        out = np.zeros(10, np.float32)
        assert connect(1).get_into(key_of(0), out.data, timeout_s=PATIENCE_S) == 40
        assert out.tolist() == list(range(10))

    def test_get_into_nothing(self, connect: Connect) -> None:
        connect(0).put(key_of(0), [b"0123"])
        assert connect(1).get_into(key_of(0), memoryview(bytearray()), timeout_s=PATIENCE_S) == 0

    def test_a_view_is_the_value_and_cannot_be_written(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        for step, data in enumerate((b"0123", b"", _pattern(100_000))):
            writer.put(key_of(0, step), [data])
            seen = reader.view(key_of(0, step), timeout_s=PATIENCE_S)
            assert seen is None or (seen.readonly and seen.tobytes() == data)

    def test_a_large_value(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        data, out = bytearray(self.large_value_bytes), bytearray(self.large_value_bytes)
        data[0], data[len(data) // 2], data[-1] = 1, 2, 3
        writer.put(key_of(0), [data])
        assert reader.get_into(key_of(0), memoryview(out), timeout_s=PATIENCE_S) == len(data)
        assert out == data

    def test_a_value_over_the_limit_is_refused(self, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
        writer = connect(0)
        monkeypatch.setattr(writer, "capabilities", replace(writer.capabilities, max_value_bytes=10))
        writer.put(key_of(0), [bytes(4), bytes(6)])
        with pytest.raises(ChannelError):
            writer.put(key_of(0, 1), [bytes(4), bytes(7)])

    # Keys

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

    # Waiting

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

    def test_put_does_not_wait_for_a_reader(self, connect: Connect) -> None:
        writer = connect(0)
        for step in range(100):
            writer.put(key_of(0, step), [_pattern(1000 + step)])
        reader = connect(1)
        assert all(
            reader.get(key_of(0, step), timeout_s=PATIENCE_S) == _pattern(1000 + step) for step in reversed(range(100))
        )

    def test_many_values_at_once(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        for number in range(3000):
            writer.put(key_of(0, 0, f"piece-{number}"), [b"%d" % number])
        for number in range(0, 3000, 7):
            assert reader.get(key_of(0, 0, f"piece-{number}"), timeout_s=PATIENCE_S) == b"%d" % number

    def test_any_number_of_readers_any_number_of_times(self, connect: Connect) -> None:
        connect(0).put(key_of(0), [_pattern(50_000)])
        readers = [connect(rank) for rank in range(1, 1 + MEMBERS)]
        assert (
            run_threads(_read_often, [(reader, key_of(0), 20) for reader in readers]) == [[_pattern(50_000)]] * MEMBERS
        )

    # Memory

    @pytest.mark.parametrize("size", [0, 1, 64, 1000, 2_000_003])
    def test_allocated_memory(self, connect: Connect, size: int) -> None:
        writer, reader = connect(0), connect(1)
        writer.put(key_of(0, 99), [b"x" * size])
        writer.discard(key_of(0, 99))  # whatever memory that was, it is not given out as it is
        for step in range(3):
            memory = writer.allocate(size)
            assert memory.nbytes == size
            assert not memory.readonly
            assert memory.tobytes() == bytes(size)
            assert size == 0 or _address(memory) % ALLOCATION_ALIGNMENT == 0
            memory[:] = _pattern(size)
            writer.put(key_of(0, step), [memory])
        for step in range(3):
            assert reader.get(key_of(0, step), timeout_s=PATIENCE_S) == _pattern(size)

    def test_allocated_memory_does_not_overlap(self, connect: Connect) -> None:
        writer = connect(0)
        memories = [writer.allocate(size) for size in (100, 1, 64, 65, 3000, 7, 500_000)]
        for number, memory in enumerate(memories):
            memory[:] = bytes([number]) * memory.nbytes
        writer.put(key_of(0), [b"x" * 1000])
        assert all(set(memory) == {number} for number, memory in enumerate(memories))

    def test_a_part_of_allocated_memory_is_a_value(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        memory = writer.allocate(1000)
        memory[:] = _pattern(1000)
        writer.put(key_of(0), [memory[13:600]])
        writer.put(key_of(0, 1), [memory[600:], memory[:13]])
        writer.put(key_of(0, 2), [np.frombuffer(memory, np.float32).data])
        assert reader.get(key_of(0), timeout_s=PATIENCE_S) == _pattern(1000)[13:600]
        assert reader.get(key_of(0, 1), timeout_s=PATIENCE_S) == _pattern(1000)[600:] + _pattern(13)
        assert reader.get(key_of(0, 2), timeout_s=PATIENCE_S) == _pattern(1000)

    def test_a_discarded_value_is_gone_and_its_memory_builds_the_next(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        memories = [writer.allocate(1000) for _ in range(2)]
        for step in range(10):
            writer.discard(key_of(0, step - 2))
            memories[step % 2][:] = bytes([step]) * 1000
            writer.put(key_of(0, step), [memories[step % 2]])
            assert reader.get(key_of(0, step), timeout_s=PATIENCE_S) == bytes([step]) * 1000
            with pytest.raises(PeerLost):
                reader.get(key_of(0, step - 2), timeout_s=0)
        assert reader.get(key_of(0, 8), timeout_s=PATIENCE_S) == bytes([8]) * 1000
        writer.discard(key_of(0, 9))
        with pytest.raises(PeerLost):
            reader.get(key_of(0, 9), timeout_s=0)

    def test_discarding_copied_values(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        for step in range(50):
            writer.put(key_of(0, step), [_pattern(10_000 + step)])
            writer.discard(key_of(0, step - 1))
        assert reader.get(key_of(0, 49), timeout_s=PATIENCE_S) == _pattern(10_049)

    def test_discarding_an_unknown_key_is_no_error(self, connect: Connect) -> None:
        writer = connect(0)
        writer.discard(key_of(0))
        writer.put(key_of(0, 1), [b"1"])
        writer.discard(key_of(0))
        assert writer.get(key_of(0, 1), timeout_s=PATIENCE_S) == b"1"

    def test_what_was_reserved_can_be_had(self, connect: Connect) -> None:
        writer, reader = connect(0), connect(1)
        writer.reserve(2_000_000)
        memory = writer.allocate(1_000_000)
        writer.put(key_of(0), [_pattern(999_999)])
        writer.put(key_of(0, 1), [memory])
        assert reader.get(key_of(0), timeout_s=PATIENCE_S) == _pattern(999_999)
        assert reader.get(key_of(0, 1), timeout_s=PATIENCE_S) == bytes(1_000_000)

    # Counting

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
            assert _get_or_lost(client, key_of(0)) in (b"1", None)
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
        memory[:] = _pattern(1000)
        writer.put(key_of(0), [memory])
        seen = reader.view(key_of(0), timeout_s=PATIENCE_S)
        array = np.frombuffer(memory, np.uint8)
        reader.close()
        writer.close()
        assert seen is None or seen.tobytes() == _pattern(1000)
        assert array.tobytes() == _pattern(1000)
        memory[:] = bytes(1000)
        assert not array.any()

    # Between processes

    def test_processes_exchange_values(self, open_channel: OpenChannel, team: Team) -> None:
        arguments = [(open_channel, rank, MEMBERS, self.steps) for rank in range(MEMBERS)]
        assert team.run(_exchange, arguments) == [self.steps * MEMBERS] * MEMBERS

    def test_processes_wait_for_each_other(self, open_channel: OpenChannel, team: Team) -> None:
        arguments = [(open_channel, rank, 5 * self.steps) for rank in range(2)]
        assert team.run(_take_turns, arguments) == [5 * self.steps] * 2

    def test_a_writer_that_dies_hurts_no_reader(self, connect: Connect, open_channel: OpenChannel, team: Team) -> None:
        reader, third = connect(1), connect(2)
        team.start(_write_and_die, open_channel, member=0)
        with pytest.raises(EOFError):
            team.result(0)
        assert _get_or_lost(reader, key_of(0)) in (b"last words", None)
        with pytest.raises(PeerLost):
            reader.get(key_of(0, 1), timeout_s=0.05)
        third.put(key_of(2), [b"still here"])
        assert reader.get(key_of(2), timeout_s=PATIENCE_S) == b"still here"

    def test_a_reader_of_a_writer_that_dies_gives_up(self, open_channel: OpenChannel, team: Team) -> None:
        team.start(_take_turns, open_channel, 1, 10, True, member=1)
        team.start(_take_turns, open_channel, 0, 10, True, member=0)
        with pytest.raises(EOFError):
            team.result(0)
        with pytest.raises(PeerLost):
            team.result(1)

    def test_a_reader_that_dies_hurts_no_writer(self, connect: Connect, open_channel: OpenChannel, team: Team) -> None:
        writer = connect(0)
        team.start(_read_and_die, open_channel, member=1)
        writer.put(key_of(0), [b"0"])
        with pytest.raises(EOFError):
            team.result(1)
        writer.discard(key_of(0))
        writer.put(key_of(0, 1), [b"1"])
        assert connect(2).get(key_of(0, 1), timeout_s=PATIENCE_S) == b"1"


def _pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def _address(memory: memoryview) -> int:
    return int(np.frombuffer(memory, np.uint8).ctypes.data)


def _get_or_lost(channel: Channel, key: ChannelKey) -> bytes | None:
    try:
        return channel.get(key, timeout_s=0.05)
    except PeerLost:
        return None


def _view_or_lost(channel: Channel, key: ChannelKey, timeout_s: float) -> memoryview | None:
    try:
        return channel.view(key, timeout_s=timeout_s)
    except PeerLost:
        return None


def _read_often(channel: Channel, key: ChannelKey, times: int) -> list[bytes]:
    """The different values that were read."""
    return list({channel.get(key, timeout_s=PATIENCE_S) for _ in range(times)})


_kept: list[Channel] = []


def _open_and_keep(open_channel: OpenChannel, rank: int) -> Channel:
    """A client that stays open when the task of its process ends: others may still read what it wrote last."""
    while _kept:
        _kept.pop().close()
    channel = open_channel(0, 0, rank)
    _kept.append(channel)
    return channel


def _exchange(open_channel: OpenChannel, rank: int, world_size: int, steps: int) -> int:
    """Every step publish a value from memory that alternates, and a copied one, and read everyone's.

    As ranks do: the memory of step t is used again at t + 2, when all are known to have read it.

    Returns:
        How many values were what their writer wrote.
    """
    channel = _open_and_keep(open_channel, rank)
    channel.reserve(2 * 40_000)
    memories = [channel.allocate(40_000) for _ in range(2)]
    out = np.zeros(10_000, np.float32)
    right = 0
    for step in range(steps):
        for piece in ("large", "small"):
            channel.discard(key_of(rank, step - 2, piece))
        np.frombuffer(memories[step % 2], np.float32)[:] = step * 100 + rank
        channel.put(key_of(rank, step, "large"), [memories[step % 2]])
        channel.put(key_of(rank, step, "small"), [b"%d" % step, bytes(step)])
        for peer in range(world_size):
            copied = channel.get_into(key_of(peer, step, "large"), out.data, timeout_s=PATIENCE_S)
            small = channel.get(key_of(peer, step, "small"), timeout_s=PATIENCE_S)
            is_right = copied == 40_000 and bool((out == step * 100 + peer).all())
            right += is_right and small == b"%d" % step + bytes(step)
    return right


def _take_turns(open_channel: OpenChannel, rank: int, turns: int, dies: bool = False) -> int:
    """Two ranks that answer each other; rank 0 dies, if told so, when rank 1 waits for one more turn."""
    channel = _open_and_keep(open_channel, rank)
    for turn in range(turns):
        for speaker in (0, 1):
            if speaker == rank:
                channel.put(key_of(rank, turn), [b"%d" % turn])
            else:
                assert channel.get(key_of(speaker, turn), timeout_s=PATIENCE_S) == b"%d" % turn
    if dies and rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if dies:
        channel.get(key_of(0, turns), timeout_s=0.2)
    return turns


def _write_and_die(open_channel: OpenChannel) -> None:
    channel = open_channel(0, 0, 0)
    channel.put(key_of(0), [b"last words"])
    channel.allocate(1000)[:] = b"x" * 1000
    os.kill(os.getpid(), signal.SIGKILL)


def _read_and_die(open_channel: OpenChannel) -> None:
    channel = open_channel(0, 0, 1)
    assert channel.get(key_of(0), timeout_s=PATIENCE_S) == b"0"
    os.kill(os.getpid(), signal.SIGKILL)
