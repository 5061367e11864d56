"""Digests of weights and state: what they see, and what makes no difference to them."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest

from smlt.core import checkpoint
from smlt.core.task import State
from tests.support.states import ARRAYS, EXTRA, save
from tests.support.stores import DictStore


def test_a_digest_of_the_weights_is_over_their_raw_bytes_in_name_order() -> None:
    arrays = {"b": np.array([1.0, 2.0], np.float32), "a": np.array([[3]], np.int64)}
    expected = hashlib.sha256(arrays["a"].tobytes() + arrays["b"].tobytes()).hexdigest()
    assert checkpoint.sha256_of(arrays) == expected
    assert checkpoint.sha256_of(dict(reversed(arrays.items()))) == expected
    assert checkpoint.sha256_of({**arrays, "c": np.zeros(0)}) == expected


def test_a_digest_is_the_same_after_a_round_trip() -> None:
    store = DictStore()
    read = checkpoint.read_state(store, save(store, world_size=3))
    assert checkpoint.sha256_of(read.arrays, read.extra) == checkpoint.sha256_of(ARRAYS, EXTRA)
    assert checkpoint.xxh64_of(read) == checkpoint.xxh64_of(State(dict(ARRAYS), EXTRA))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({"a": [1, 2]}, {"a": (1, 2)}, True),
        ({"a": [{"x": 1, "y": 2}]}, {"a": ({"y": 2, "x": 1},)}, True),
        ({}, None, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {"b": 1}, False),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ({"a": 1}, {"a": 1.5}, False),
        ({"a": None}, {}, False),
    ],
)
def test_a_digest_of_the_state_sees_its_plain_part_not_its_form(one: Any, other: Any, same: bool) -> None:
    assert (checkpoint.sha256_of(ARRAYS, one) == checkpoint.sha256_of(ARRAYS, other)) is same
    digests = [checkpoint.xxh64_of(State(dict(ARRAYS), extra or {})) for extra in (one, other)]
    assert (digests[0] == digests[1]) is same


def test_a_single_bit_changes_every_digest() -> None:
    other = {**ARRAYS, "count": ARRAYS["count"] ^ 1}
    assert checkpoint.sha256_of(other) != checkpoint.sha256_of(ARRAYS)
    assert checkpoint.xxh64_of(State(other)) != checkpoint.xxh64_of(State(dict(ARRAYS)))


def test_the_quick_digest_is_never_zero_and_fits_a_header() -> None:
    assert 0 < checkpoint.xxh64_of(State({})) < 2**64
