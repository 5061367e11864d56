"""The words that travel with every contribution."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smlt.core.errors import ProtocolError
from smlt.core.sync.header import Header, merge

WORDS = st.integers(0, 2**64 - 1)
HEADERS = st.builds(Header, WORDS, WORDS, WORDS, WORDS, st.floats(allow_nan=False), st.floats(allow_nan=False))


@given(HEADERS, st.integers(0, 100))
def test_a_header_is_read_back_whatever_lies_behind_it(header: Header, more: int) -> None:
    memory = bytearray(b"\xff" * (Header.SIZE + more))
    header.pack_into(memoryview(memory))
    assert Header.unpack(memory) == header
    assert Header.unpack(memoryview(memory)[: Header.SIZE]) == header
    assert memory[Header.SIZE :] == b"\xff" * more


@pytest.mark.parametrize("data", [b"", b"smlt", bytes(63), bytes(64), b"SMLT" + bytes(60), b"\xff" * 200])
def test_what_is_no_header_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="header"):
        Header.unpack(data)


def test_a_header_of_another_version_is_refused() -> None:
    memory = bytearray(Header.SIZE)
    Header(3).pack_into(memoryview(memory))
    struct.pack_into("<I", memory, 4, 2)
    with pytest.raises(ProtocolError, match="another version"):
        Header.unpack(memory)


@given(st.lists(st.tuples(WORDS, WORDS, st.floats(-1e9, 1e9), st.floats(0, 1e9)), min_size=1, max_size=9))
def test_what_any_rank_said_all_know(said: list[tuple[int, int, float, float]]) -> None:
    merged = merge([Header(7, end, save, 0, loss, weight) for end, save, loss, weight in said])
    assert (merged.step, merged.digest) == (7, 0)
    assert merged.end == max(end for end, _, _, _ in said)
    assert merged.save == max(save for _, save, _, _ in said)
    loss_sum = weight_sum = 0.0
    for _, _, loss, weight in said:  # in rank order: floats add up to other bits in another one
        loss_sum, weight_sum = loss_sum + loss, weight_sum + weight
    assert (merged.loss_sum, merged.weight) == (loss_sum, weight_sum)


def test_ranks_at_different_steps_are_refused() -> None:
    with pytest.raises(ProtocolError, match=r"different steps: \[3, 4\]"):
        merge([Header(3), Header(4), Header(3)])


def test_ranks_whose_states_differ_are_refused_with_the_likely_cause() -> None:
    with pytest.raises(ProtocolError, match="states differ before step 5") as caught:
        merge([Header(5, digest=1), Header(5, digest=2)])
    assert "not deterministic" in caught.value.hint


def test_states_that_agree_pass_and_zero_compares_with_nothing() -> None:
    assert merge([Header(5, digest=9), Header(5, digest=9), Header(5)]).digest == 9
