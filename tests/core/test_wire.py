"""Messages: what goes in comes out; what is no message is refused, whatever it is, and runs nothing."""

from __future__ import annotations

import pickle
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smlt.core import wire
from smlt.core.backend import RankSpec
from smlt.core.errors import ProtocolError
from smlt.core.messages import Control, Evaluation, Failure, Left, Mail, Round, StepRecord
from tests.support.specs import rank_spec

INTS = st.integers(-(2**63), 2**64 - 1)
FLOATS = st.floats(allow_nan=False)
PLAIN = st.recursive(
    st.none() | st.booleans() | INTS | FLOATS | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
STEPS = st.builds(StepRecord, INTS, INTS, FLOATS, INTS, FLOATS, FLOATS, FLOATS, FLOATS, FLOATS)
MAILS = st.builds(
    Mail,
    phase=st.text(),
    step=INTS,
    awaits=INTS,
    phase_s=FLOATS,
    output=st.lists(st.text()).map(tuple),
    steps=st.lists(STEPS, max_size=3).map(tuple),
    evaluations=st.lists(st.builds(Evaluation, INTS, INTS, st.dictionaries(st.text(), FLOATS), FLOATS)).map(tuple),
    failure=st.none() | st.builds(Failure, st.text(), st.text(), st.text(), st.text()),
    left=st.none() | st.builds(Left, st.text(), INTS, INTS, st.text(), st.text()),
)


@dataclass(frozen=True)
class Free:
    """A message of a type that holds anything."""

    value: Any = None
    table: dict[str, Any] = field(default_factory=dict)


@given(MAILS)
def test_mail_comes_out_as_it_went_in(mail: Mail) -> None:
    assert wire.unpack(wire.pack(mail), Mail) == mail


@given(PLAIN, st.dictionaries(st.text(), PLAIN))
def test_plain_data_come_out_as_they_went_in(value: Any, table: dict[str, Any]) -> None:
    assert wire.unpack(wire.pack(Free(value, table)), Free) == Free(value, table)


def test_messages_may_hold_messages_and_none_of_them() -> None:
    spec = rank_spec(job={"job": {"params": {"lr": 0.1, "sizes": [1, 2]}}}, time_limit_s=20.0, task_payload=b"\0\xff")
    assert wire.unpack(wire.pack(spec), RankSpec) == spec
    for control in (Control(3), Control(3, 1, Round(2, 1, ("a", "b"), "checkpoints/7"), "budget", True, True)):
        assert wire.unpack(memoryview(wire.pack(control)), Control) == control


def test_a_field_that_is_left_out_has_its_default() -> None:
    body = {"schema": wire.SCHEMA_VERSION, "kind": "Control", "body": {"epoch": 3}}
    assert wire.unpack(msgpack.packb(body), Control) == Control(3)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint8", "bool", ">i4", "complex64", "S3"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)])
def test_arrays_keep_their_type_and_shape(dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape)
    found = wire.unpack(wire.pack(Free({"a": [array]})), Free).value["a"][0]
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    assert found.tobytes() == array.tobytes()


def test_arrays_need_not_be_contiguous() -> None:
    array = np.arange(12.0).reshape(3, 4).T[::2]
    assert (wire.unpack(wire.pack(Free(array)), Free).value == array).all()


def test_numbers_of_numpy_are_numbers() -> None:
    found = wire.unpack(wire.pack(Free([np.float64(0.5), np.int32(3), np.bool_(True)])), Free).value
    assert found == [0.5, 3, True]
    assert [type(item) for item in found] == [float, int, bool]


@pytest.mark.parametrize("value", [object(), np.array([object()]), {1, 2}, len, 2**64, pickle.dumps])
def test_what_a_message_cannot_hold_is_refused_when_it_is_written(value: Any) -> None:
    with pytest.raises((TypeError, OverflowError)):
        wire.pack(Free(value))


def message(body: Any, kind: Any = "Free", schema: Any = wire.SCHEMA_VERSION) -> bytes:
    return bytes(msgpack.packb({"schema": schema, "kind": kind, "body": body}))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a message"),
        (b"\xc1", "not a message"),
        (pickle.dumps({"schema": 1}), "not a message"),
        (wire.pack(Free(1)) + b"\0", "not a message"),
        (wire.pack(Free(1))[:-1], "not a message"),
        (msgpack.packb(7), "not a message"),
        (msgpack.packb(["schema", "kind", "body"]), "not a message"),
        (msgpack.packb({"schema": 1, "kind": "Free"}), "not a message"),
        (message({}, schema=2), "schema version 2, this smlt speaks 1"),
        (message({}, schema="1"), "schema version 1"),
        (message({}, kind="Mail"), "expected a message Free, got Mail"),
        (message({}, kind=None), "expected a message Free, got None"),
        (message({"valeu": 1, "tabel": 2}), "Free has no field tabel, valeu"),
        (message(None), "Free"),
        (message(7), "Free"),
        (message([1, 2]), "Free"),
        (message({"table": 7}), "expected a table, got 7"),
        (message({3: 7}), "Free"),
    ],
)
def test_what_is_no_such_message_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(ProtocolError, match=says):
        wire.unpack(data, Free)


def test_another_schema_comes_with_what_to_do() -> None:
    with pytest.raises(ProtocolError) as caught:
        wire.unpack(message({}, schema=9), Free)
    assert "install the same smlt version" in caught.value.hint


@pytest.mark.parametrize("body", [{}, {"phase": "x"}, {"phase": "x", "step": 1, "steps": [{}]}])
def test_an_incomplete_message_is_refused(body: Any) -> None:
    with pytest.raises(ProtocolError, match="incomplete"):
        wire.unpack(message(body, "Mail"), Mail)


# Hostile bytes


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.unpack(data, Mail)


@given(PLAIN)
def test_any_body_is_a_message_or_refused(body: Any) -> None:
    _is_mail_or_refused(message(body, "Mail"))


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(Mail.__dataclass_fields__, PLAIN)))
def test_any_fields_are_a_message_or_refused(body: Any) -> None:
    _is_mail_or_refused(message(body, "Mail"))


def _is_mail_or_refused(data: bytes) -> None:
    with suppress(ProtocolError):
        assert isinstance(wire.unpack(data, Mail), Mail)


def array_message(code: int, head: Any, data: bytes = b"") -> bytes:
    return message({"value": msgpack.ExtType(code, msgpack.packb(head) + data)})


EXECUTED: list[str] = []


class Bomb:
    """Notes that it was unpickled."""

    def __reduce__(self) -> Any:
        return EXECUTED.append, ("boom",)


@pytest.mark.parametrize(
    "data",
    [
        array_message(1, ["|O", [1]], bytes(8)),
        array_message(1, ["O", [1]], pickle.dumps(Bomb())),
        array_message(1, ["O,i4", [1]], bytes(12)),
        array_message(1, [[["a", "O"]], [1]], bytes(8)),
        array_message(1, ["no type", [1]], bytes(8)),
        array_message(1, ["<f8", [2]], bytes(8)),
        array_message(1, ["<f8", [2**70 - 2**69 > 0]], bytes(4)),
        array_message(1, ["<f8", [2**63]], bytes(8)),
        array_message(1, ["<f8", [-1]], bytes(7)),
        array_message(1, ["<f8", "x"], bytes(8)),
        array_message(1, ["<f8", [None]], bytes(8)),
        array_message(1, ["V0", [1]], b""),
        array_message(1, ["a5", [1]], bytes(5)),
        array_message(1, ["<f8"], bytes(8)),
        array_message(1, 7),
        message({"value": msgpack.ExtType(1, b"")}),
        array_message(2, ["<f8", [1]], bytes(8)),
        array_message(99, pickle.dumps(Bomb())),
        message({"value": msgpack.ExtType(5, pickle.dumps(Bomb()))}),
        pickle.dumps(Bomb()),
        b"\x91" * 5000 + b"\xc0",
    ],
)
def test_hostile_bytes_are_refused_and_run_nothing(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        wire.unpack(data, Free)
    assert EXECUTED == []


@given(st.sampled_from(["<f8", "|b1", "<U3", "<M8[s]", "V16", "i4,f8"]) | st.text(max_size=6), PLAIN, st.binary())
def test_any_array_is_an_array_or_refused(dtype: str, shape: Any, data: bytes) -> None:
    try:
        found = wire.unpack(array_message(1, [dtype, shape], data), Free).value
    except ProtocolError:
        return
    assert isinstance(found, np.ndarray)
    assert not found.dtype.hasobject
