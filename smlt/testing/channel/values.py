"""What is put is what is read: any size, any memory, whole or in part."""

# ruff: noqa: D102  a test's name says what it shows

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from smlt.core.errors import ChannelError
from smlt.testing.channel.suite import PATIENCE_S, ChannelSuite, Connect, key_of, pattern


class ValueContract(ChannelSuite):
    """What holds of values."""

    @pytest.mark.parametrize("size", [0, 1, 63, 64, 4097, 3_000_001])
    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    def test_a_value_is_read_back(self, connect: Connect, size: int, kind: Callable[[bytes], bytes]) -> None:
        writer, reader, data = connect(0), connect(1), pattern(size)
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
        for step, data in enumerate((b"0123", b"", pattern(100_000))):
            writer.put(key_of(0, step), [data])
            seen = reader.view(key_of(0, step), timeout_s=PATIENCE_S)
            assert seen is None or (seen.readonly and seen.tobytes() == data)

    @pytest.mark.parametrize(("offset", "length"), [(0, 4), (3, 4), (8, 4), (0, None), (3, None), (10, 4), (77, None)])
    def test_a_view_of_a_part(self, connect: Connect, offset: int, length: int | None) -> None:
        connect(0).put(key_of(0), [b"0123456789"])
        reader = connect(1)
        seen = reader.view(key_of(0), timeout_s=PATIENCE_S, offset=offset, length=length)
        expected = b"0123456789"[offset : None if length is None else offset + length]
        assert seen is None or (seen.readonly and seen.tobytes() == expected)
        assert reader.stats().bytes_down == (0 if seen is None else len(expected))

    def test_expected_parts_come_like_others(self, connect: Connect) -> None:
        reader = connect(1)
        keys = [key_of(rank, piece="part") for rank in (0, 2, 3)]
        reader.expect(keys, [(1, 2), (0, 9), (0, 4)])
        for key in reversed(keys):
            connect(key.rank).put(key, [b"%d" % key.rank, b"123"])
        out = bytearray(4)
        assert reader.get_into(keys[0], memoryview(out)[:2], timeout_s=PATIENCE_S, offset=1) == 2
        assert out[:2] == b"12"
        seen = reader.view(keys[1], timeout_s=PATIENCE_S, offset=0, length=9)
        assert seen is None or seen.tobytes() == b"2123"
        assert reader.get_into(keys[2], memoryview(out), timeout_s=PATIENCE_S) == 4
        assert out == b"3123"

    def test_a_value_over_the_limit_is_refused(self, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
        writer = connect(0)
        monkeypatch.setattr(writer, "capabilities", replace(writer.capabilities, max_value_bytes=10))
        writer.put(key_of(0), [bytes(4), bytes(6)])
        with pytest.raises(ChannelError):
            writer.put(key_of(0, 1), [bytes(4), bytes(7)])
