"""Messages that cross a process: frozen dataclasses as msgpack, with a schema version.

Nothing read here can run code: only maps, lists, numbers, strings and bytes come in.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import msgpack
import numpy as np

from smlt.core.errors import ProtocolError

if TYPE_CHECKING:
    from smlt.core.storage import ObjectStore

SCHEMA_VERSION = 1

T = TypeVar("T")


def pack(message: Any) -> bytes:
    """Encode a dataclass instance, or plain data, into bytes."""
    body = {"schema": SCHEMA_VERSION, "kind": type(message).__name__, "body": to_plain(message)}
    return bytes(msgpack.packb(body, use_bin_type=True, default=_encode_array))


def unpack(data: bytes | memoryview, kind: type[T]) -> T:
    """Decode bytes that `pack` made into a `kind`.

    Raises:
        ProtocolError: the bytes are not a message, of another schema version, or of another kind.
    """
    try:
        body = msgpack.unpackb(data, raw=False, strict_map_key=False, ext_hook=_decode_array)
        schema, name, content = body["schema"], body["kind"], body["body"]
    except (ValueError, TypeError, KeyError, msgpack.UnpackException) as error:
        raise ProtocolError(f"not a message of smlt: {error}") from error
    if schema != SCHEMA_VERSION:
        raise ProtocolError(
            f"the message has schema version {schema}, this smlt speaks {SCHEMA_VERSION}",
            "install the same smlt version where the job is started and in the function's image",
        )
    if name != kind.__name__:
        raise ProtocolError(f"expected a message {kind.__name__}, got {name}")
    decoded: T = from_plain(content, kind)
    return decoded


def read(store: ObjectStore, key: str, kind: type[T]) -> T:
    """The message that an object of a run is.

    Raises:
        NotFound: there is none.
        ProtocolError: it is damaged; its key is named.
    """
    return unpack_object(store.get(key), key, kind)


def unpack_object(data: bytes | memoryview, key: str, kind: type[T]) -> T:
    """The message that bytes from under `key` are; raises ProtocolError, which names it, if they are none."""
    try:
        return unpack(data, kind)
    except ProtocolError as error:
        hint = error.hint or "put it back from a copy, or begin another run with another --name"
        raise ProtocolError(f"{key!r} of the run is damaged: {error.message}", hint) from error


def to_plain(value: Any) -> Any:
    """Dataclasses, tuples and mappings as what msgpack and JSON can hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def from_plain(value: Any, kind: Any) -> Any:
    """Plain data as an instance of `kind`: a dataclass, a container of them, or a basic type."""
    if is_dataclass(kind) and isinstance(kind, type):
        hints = _hints(kind)
        unknown = set(_checked(value, Mapping, kind.__name__)) - set(hints)
        if unknown:
            raise ProtocolError(f"{kind.__name__} has no field {', '.join(sorted(map(str, unknown)))}")
        try:
            return kind(**{name: from_plain(item, hints[name]) for name, item in value.items()})
        except TypeError as error:
            raise ProtocolError(f"incomplete {kind.__name__}: {error}") from error
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        inner = next((item for item in args if item is not type(None)), Any)
        return None if value is None else from_plain(value, inner)
    if origin is tuple:
        return tuple(from_plain(item, args[0]) for item in _checked(value, (list, tuple), "list"))
    if origin is list:
        return [from_plain(item, args[0]) for item in _checked(value, (list, tuple), "list")]
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {key: from_plain(item, args[1]) for key, item in _checked(value, Mapping, "table").items()}
    return value


def _checked(value: Any, kind: type | tuple[type, ...], name: str) -> Any:
    if not isinstance(value, kind):
        raise ProtocolError(f"expected a {name}, got {value!r:.80}")
    return value


_ARRAY = 1
_DTYPE = re.compile(r"[<>|][biufcmMSUV]\d+(\[\w+\])?")


def _encode_array(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        head = msgpack.packb([value.dtype.str, list(value.shape)])
        return msgpack.ExtType(_ARRAY, head + value.tobytes())
    raise TypeError(f"a message cannot hold a {type(value).__name__}: {value!r:.80}")


def _decode_array(code: int, data: bytes) -> Any:
    if code != _ARRAY:
        raise ValueError(f"unknown extension type {code}")
    unpacker = msgpack.Unpacker(max_buffer_size=0)
    unpacker.feed(data)
    dtype, shape = unpacker.unpack()
    if not _DTYPE.fullmatch(dtype):
        raise ValueError(f"not the type of an array: {dtype!r:.80}")
    return np.frombuffer(data, dtype=np.dtype(dtype), offset=unpacker.tell()).reshape(shape)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)
