"""TOML that reads back as what it was written from."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smlt.report.toml import toml_of

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
PLAIN = st.recursive(
    st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(KEYS, st.dictionaries(KEYS, PLAIN, max_size=4), max_size=4))
def test_what_was_written_reads_back(sections) -> None:
    assert tomllib.loads(toml_of(sections)) == sections


def test_what_is_not_set_is_left_out() -> None:
    assert tomllib.loads(toml_of({"a": {"b": None, "c": {"d": None, "e": 1}}})) == {"a": {"c": {"e": 1}}}


def test_what_toml_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="TOML has no object"):
        toml_of({"a": {"b": object()}})
