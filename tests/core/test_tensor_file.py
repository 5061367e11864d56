"""Arrays as a safetensors file in memory that is used again, held against the library that defines the format."""

from __future__ import annotations

import json
from contextlib import suppress

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from safetensors import numpy as library

from smlt.core.errors import ConfigError
from smlt.core.task import Array
from smlt.core.tensor_file import Snapshot, views_of
from tests.support.states import ARRAYS

DTYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?", "c8", ">f4", ">i8"]
ANY_ARRAY = st.sampled_from(DTYPES).flatmap(lambda dtype: npst.arrays(dtype, npst.array_shapes(min_dims=0, min_side=0)))


def assert_same(found: dict[str, Array], expected: dict[str, Array]) -> None:
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype.newbyteorder("="), array.shape), name
        assert found[name].tobytes() == np.asarray(array, found[name].dtype, order="C").tobytes(), name


@given(st.lists(st.dictionaries(st.text(max_size=8), ANY_ARRAY, max_size=5), min_size=1, max_size=3))
def test_the_library_and_this_read_what_either_wrote(states: list[dict[str, Array]]) -> None:
    snapshot = Snapshot()
    for arrays in states:  # into the same memory
        data = snapshot.take(arrays)
        assert_same(library.load(bytes(data)), arrays)
        assert_same(views_of(data), arrays)
        dense = {name: np.asarray(array, array.dtype.newbyteorder("="), order="C") for name, array in arrays.items()}
        assert_same(views_of(library.save(dense)), arrays)


def test_a_snapshot_stays_as_it_was_while_training_goes_on() -> None:
    array = np.arange(5.0)
    data = Snapshot().take({"array": array})
    array += 1
    assert views_of(data)["array"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_memory_is_used_again_and_grows() -> None:
    snapshot = Snapshot()
    first = np.frombuffer(snapshot.take({"array": np.zeros(1000)}), np.uint8)
    assert np.shares_memory(first, np.frombuffer(snapshot.take({"array": np.ones(900)}), np.uint8))
    assert views_of(snapshot.take({"array": np.ones(5000)}))["array"].sum() == 5000


def test_what_is_read_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        views_of(Snapshot().take(ARRAYS))["count"][0] = 3


def test_what_a_file_cannot_hold_is_named() -> None:
    with pytest.raises(ConfigError, match="half is of dtype bfloat16, which a safetensors file cannot hold"):
        Snapshot().take({"half": np.zeros(2, ml_dtypes.bfloat16)})


def file_of(header: object, size: int) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(size)


def entry(start: int, stop: int, shape: list[int], dtype: str = "U8") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 7,
        (2**60).to_bytes(8, "little") + b"{}",
        file_of(b"nonsense", 0),
        file_of(b"\xff", 0),
        file_of([], 0),
        file_of({"a": 3}, 0),
        file_of({"a": entry(0, 4, [4], "F99")}, 4),
        file_of({"a": {"dtype": "U8"}}, 4),
        file_of({"a": entry(0, 4, [5])}, 4),
        file_of({"a": entry(0, 4, [-2, -2])}, 4),
        file_of({"a": entry(0, 4, [4])}, 3),
        file_of({"a": entry(0, 4, [4])}, 5),
        file_of({"a": entry(0, 4, [4]), "b": entry(2, 6, [4])}, 6),
        file_of({"a": entry(0, 4, [4]), "b": entry(5, 9, [4])}, 9),
    ],
)
def test_what_is_no_file_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"its (header|arrays)|has not the bytes"):
        views_of(data)


@given(st.integers(0, 2000), st.integers(1, 255))
def test_a_damaged_file_gives_arrays_or_a_refusal_and_no_other_error(position: int, flip: int) -> None:
    data = bytearray(Snapshot().take(ARRAYS))
    data[position % len(data)] ^= flip
    with suppress(ValueError):
        views_of(bytes(data))
