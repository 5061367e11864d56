"""STORAGE interfaces, the paper's hybrid storage: a durable ObjectStore and a fast, ephemeral Channel.

Contracts stand here; implementations live in `smlt.backends`. Bytes in, bytes out: what they mean is not known here,
except that a store which reduces must know numbers.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy.typing as npt

from smlt.core.errors import ChannelError, ConfigError, CorruptObject, NotFound

Buffer = bytes | bytearray | memoryview

ALLOCATION_ALIGNMENT = 64
"""Bytes: where memory from `Channel.allocate` begins; one cache line, and what vector instructions like."""


@dataclass(frozen=True)
class StoreSpec:
    """Where an object store is, as data that travels to a worker. Holds no secret.

    Attributes:
        kind: the entry of `smlt.core.plugins.Registry.stores` that opens it.
        url: its root, for example `file:///home/me/.smlt/runs/digits` or `s3://bucket/smlt/digits`.
        options: what that kind needs beside the URL (endpoint, region).
    """

    kind: str
    url: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a listing: its key, its size in bytes and its version tag."""

    key: str
    size: int
    version: str


class ObjectStore(ABC):
    """Durable objects under string keys: code, data, checkpoints, the run log.

    Contract, each sentence of it tested by `smlt.testing.ObjectStoreContract`:

    * A read after a successful write sees that write, from any process.
    * A write is atomic: a reader sees the old bytes or the new ones, never a mixture or a part.
    * `put_if_absent` and `compare_and_swap` succeed for exactly one of several concurrent callers.
    * Keys are relative, `/`-separated, without empty, `.` or `..` segments.
    * A missing object raises `NotFound`; deleting a missing object is no error.
    * Errors of the medium (disk full, denied, unreachable) raise `StorageError` with a hint.
    * All methods may be called from several threads.

    Attributes:
        concurrency: how many requests are best under way at once; 1 where an answer costs little beside its bytes.
    """

    concurrency: int = 16

    def put(self, key: str, *parts: Buffer) -> str:
        """Write an object, these parts one behind the other, replacing any other; returns its version tag."""
        if len(parts) == 1:
            return self._do_put(_checked(key), parts[0])
        return self._do_put_parts(_checked(key), parts)

    def put_if_absent(self, key: str, data: Buffer) -> str:
        """Create an object; raises `AlreadyExists` if there is one."""
        return self._do_put_if_absent(_checked(key), data)

    def compare_and_swap(self, key: str, data: Buffer, version: str) -> str:
        """Replace an object if it still has `version`; raises `Conflict` otherwise, `NotFound` if it is gone."""
        return self._do_compare_and_swap(_checked(key), data, version)

    def get(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """The bytes of an object, or `length` of them from `start`; a range past the end is cut there."""
        _check_range(start, length)
        return self._do_get(_checked(key), start, length)

    def view(self, key: str, *, start: int = 0, length: int | None = None) -> memoryview:
        """What `get` returns, read-only, and where it lies if it can be seen there.

        Valid until the object is replaced or deleted.
        """
        _check_range(start, length)
        return self._do_view(_checked(key), start, length)

    def get_versioned(self, key: str) -> tuple[bytes, str]:
        """The bytes of an object and the version tag that `compare_and_swap` wants."""
        return self._do_get_versioned(_checked(key))

    def get_verified(self, key: str, sha256: str) -> bytes:
        """The bytes of an object; raises `CorruptObject` if their SHA-256 is not the one expected."""
        data = self.get(key)
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise CorruptObject(f"{key} has SHA-256 {found[:16]}…, expected {sha256[:16]}…")
        return data

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key starts with `prefix`, any string ("log/00" too), in key order, however many.

        Order is that of the whole keys' characters, so "a-b" comes before "a/b".
        """
        folder = prefix.rpartition("/")[0]
        if folder or prefix.startswith("/"):
            _checked(folder)
        return self._do_list(prefix)

    def delete(self, key: str, *, keep_room: bool = False) -> None:
        """Remove an object; a missing one is no error.

        Args:
            keep_room: this client will soon put another of about this size, for which the store may keep the room
                that it took; until `close`.
        """
        if keep_room:
            self._do_delete_keeping_room(_checked(key))
        else:
            self._do_delete(_checked(key))

    def close(self) -> None:
        """Give up what this client keeps for later; it may be used again."""
        self._do_close()

    def exists(self, key: str) -> bool:
        """Whether the object is there now."""
        try:
            self._do_get(_checked(key), 0, 1)
        except NotFound:
            return False
        return True

    def _do_put_parts(self, key: str, parts: Sequence[Buffer]) -> str:
        return self._do_put(key, b"".join(parts))

    def _do_view(self, key: str, start: int, length: int | None) -> memoryview:
        return memoryview(self._do_get(key, start, length))

    def _do_delete_keeping_room(self, key: str) -> None:
        self._do_delete(key)

    def _do_close(self) -> None:  # noqa: B027  most stores keep nothing
        pass

    @abstractmethod
    def _do_put(self, key: str, data: Buffer) -> str: ...

    @abstractmethod
    def _do_put_if_absent(self, key: str, data: Buffer) -> str: ...

    @abstractmethod
    def _do_compare_and_swap(self, key: str, data: Buffer, version: str) -> str: ...

    @abstractmethod
    def _do_get(self, key: str, start: int, length: int | None) -> bytes: ...

    @abstractmethod
    def _do_get_versioned(self, key: str) -> tuple[bytes, str]: ...

    @abstractmethod
    def _do_list(self, prefix: str) -> Iterator[ObjectInfo]: ...

    @abstractmethod
    def _do_delete(self, key: str) -> None: ...


def _checked(key: str) -> str:
    if not key or any(part in ("", ".", "..") for part in key.split("/")):
        raise ConfigError(f"not an object key: {key!r}", "keys are relative, like 'checkpoints/7/manifest'")
    return key


def _check_range(start: int, length: int | None) -> None:
    if start < 0 or (length is not None and length < 0):
        raise ValueError(f"a range starts at 0 or later and is not negative: {start=}, {length=}")


@dataclass(frozen=True, order=True)
class ChannelKey:
    """The address of one value: written once, by `rank`, in one round of one generation.

    A value of a dead round can never be mistaken for one of a living round, whatever its writer still does.
    """

    generation: int
    round: int
    step: int
    piece: str
    rank: int

    def __str__(self) -> str:
        return f"{self.generation}/{self.round}/{self.step}/{self.piece}/{self.rank}"


@dataclass(frozen=True)
class ChannelSpec:
    """Where a channel is, as data that travels to a worker: its kind in the registry, its URL, its options."""

    kind: str
    url: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ChannelCapabilities:
    """What a channel can do, from which a collective chooses.

    Attributes:
        ranged: `get_into` and `view` can read a part of a value at no more cost than that part.
        reduces: `reduce_into` is there: the store itself adds contributions up.
        max_value_bytes: the largest value; None where only memory limits it.
        latency_s: the time of one small request, for choosing a pattern and planning.
        in_place: `view` shows values where they lie, at no cost; and a value from `allocate` is published at none.
    """

    ranged: bool
    reduces: bool
    max_value_bytes: int | None
    latency_s: float
    in_place: bool = False


@dataclass
class ChannelStats:
    """Requests and payload bytes of this client, by verb; the ledger and the tests count with it."""

    requests: dict[str, int] = field(default_factory=dict)
    bytes_up: int = 0
    bytes_down: int = 0

    def count(self, verb: str, *, up: int = 0, down: int = 0) -> None:
        """Note one request of `verb` that moved these payload bytes."""
        self.requests[verb] = self.requests.get(verb, 0) + 1
        self.bytes_up += up
        self.bytes_down += down


class Channel(ABC):
    """Fast, ephemeral values between the ranks of one run: gradients and control.

    Contract, each sentence of it tested by `smlt.testing.ChannelContract`:

    * `put` publishes a value atomically and wakes whoever waits for it; it never waits for a reader.
    * A value is seen whole or not at all, even if its writer is killed or an answer breaks off.
    * A key is written once; writing it again raises `ChannelError`.
    * `get_into` waits until the value is there, for `timeout_s` at most, then raises `PeerLost`.
    * Any number of ranks may read a value, any number of times, until its writer discards it.
    * `allocate` gives memory to build values in: `put` of exactly one part that lies in it need not copy; that part
      must then stay unchanged until it is discarded.
    * After `close` every method raises `ChannelError`. What this client published stays for those who have read
      something of it before: whoever leaves last words and goes is heard. A backend's `clean` removes the rest.
    * A client whose server is gone, or another one by now, raises a `ChannelError` that is no `PeerLost`, at once and
      from then on; a new round opens another client (`ServedChannelContract`).
    * What a stranger wrote where a value belongs is never that value, where strangers can write (`StrangerContract`).

    One client belongs to one rank in one round and is used by one thread.
    """

    capabilities: ChannelCapabilities

    def __init__(self) -> None:
        self._stats = ChannelStats()
        self._closed = False

    def reserve(self, size_bytes: int) -> None:
        """Make room for the most bytes this client will have published and allocated at once.

        Raises:
            ChannelError: the medium has no such room.
        """
        self._check_open()
        self._do_reserve(size_bytes)

    def allocate(self, size_bytes: int) -> memoryview:
        """Writable memory of this size, zeroed, aligned to `ALLOCATION_ALIGNMENT`, from which `put` need not copy."""
        self._check_open()
        return self._do_allocate(size_bytes)

    def put(self, key: ChannelKey, parts: Sequence[Buffer], *, readers: int | None = None) -> None:
        """Publish the concatenation of `parts` under `key`.

        Args:
            key: its rank is this client's.
            parts: copied, or left alone, before the call returns; but see `allocate`.
            readers: the value may vanish once it was read so often; None for "until it is discarded".
        """
        self._check_open()
        size = sum(memoryview(part).nbytes for part in parts)
        limit = self.capabilities.max_value_bytes
        if limit is not None and size > limit:
            raise ChannelError(f"a value of {size} bytes is over this channel's limit of {limit} bytes")
        self._do_put(key, parts, readers)
        self._stats.count("put", up=size)

    def get_into(self, key: ChannelKey, out: memoryview, *, timeout_s: float, offset: int = 0) -> int:
        """Wait for a value and copy it, from `offset`, into `out`; returns how many bytes were copied.

        A value shorter than `offset + len(out)` fills what it can; the caller checks the number.

        Raises:
            PeerLost: it did not come within `timeout_s`.
        """
        self._check_open()
        copied = self._do_get_into(key, out, timeout_s, offset)
        self._stats.count("get", down=copied)
        return copied

    def get(self, key: ChannelKey, *, timeout_s: float) -> bytes:
        """Wait for a small value of unknown size and return it whole."""
        self._check_open()
        value = self._do_get(key, timeout_s)
        self._stats.count("get", down=len(value))
        return value

    def view(
        self, key: ChannelKey, *, timeout_s: float, offset: int = 0, length: int | None = None
    ) -> memoryview | None:
        """Wait for a value and look at it, or at `length` bytes from `offset`, read-only; a part past the end is cut.

        None where this channel can only copy. The view is valid until its writer discards the key.
        """
        self._check_open()
        found = self._do_view(key, timeout_s, offset, length)
        if found is not None:
            self._stats.count("get", down=found.nbytes)
        return found

    def expect(self, keys: Sequence[ChannelKey], ranges: Sequence[tuple[int, int]] | None = None) -> None:
        """Announce which values this client will read next, in this order and once each.

        A channel over a wire asks for them ahead, so that each costs no round trip of its own; others need not care.

        Args:
            keys: of the values.
            ranges: the offset and the length of what will be read of each; None for all of it.
        """
        self._check_open()
        if ranges is None:
            self._do_expect(keys)
        else:
            self._do_expect_ranges([(key, *part) for key, part in zip(keys, ranges, strict=True)])

    def reduce_into(
        self, key: ChannelKey, header: bytes, buffer: npt.NDArray[Any], *, ranks: int, patience: Callable[[], None]
    ) -> list[bytes]:
        """Let the store add up `buffer` over all ranks, element by element, in rank order; it then holds the sum.

        Args:
            key: of this rank's contribution; those of the others differ in the rank alone.
            header: a few bytes beside the numbers, of the same length on every rank.
            buffer: 1-D, of a dtype and length that are equal on every rank; changed in place.
            ranks: how many contribute.
            patience: called every so often while others are waited for; raises to give up.

        Returns:
            The headers of all ranks, in rank order.

        Raises:
            ChannelError: this channel does not reduce (see `capabilities`), or the ranks' buffers do not match.
        """
        self._check_open()
        headers = self._do_reduce_into(key, header, buffer, ranks, patience)
        self._stats.count("reduce", up=buffer.nbytes + len(header), down=buffer.nbytes + sum(map(len, headers)))
        return headers

    def discard(self, key: ChannelKey) -> None:
        """Forget a value this client wrote; its memory may be used again. An unknown key is no error."""
        self._check_open()
        self._do_discard(key)

    def stats(self) -> ChannelStats:
        """What this client has asked of the channel so far."""
        return self._stats

    def close(self) -> None:
        """Release connections and memory; closing twice is no error."""
        if not self._closed:
            self._closed = True
            self._do_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if self._closed:
            raise ChannelError("the channel is closed")

    def _do_reserve(self, size_bytes: int) -> None:  # noqa: B027  most channels keep nothing of their own
        pass

    def _do_allocate(self, size_bytes: int) -> memoryview:
        import ctypes

        memory = memoryview(bytearray(size_bytes + ALLOCATION_ALIGNMENT - 1))
        start = -ctypes.addressof(ctypes.c_char.from_buffer(memory)) % ALLOCATION_ALIGNMENT
        return memory[start : start + size_bytes]

    def _do_view(self, key: ChannelKey, timeout_s: float, offset: int, length: int | None) -> memoryview | None:
        return None

    def _do_expect(self, keys: Sequence[ChannelKey]) -> None:  # noqa: B027  a hint
        pass

    def _do_expect_ranges(self, reads: Sequence[tuple[ChannelKey, int, int]]) -> None:  # noqa: B027  a hint
        pass

    def _do_reduce_into(
        self, key: ChannelKey, header: bytes, buffer: npt.NDArray[Any], ranks: int, patience: Callable[[], None]
    ) -> list[bytes]:
        raise ChannelError(
            f"{type(self).__name__} does not add up", "choose a channel that reduces, or another pattern"
        )

    @abstractmethod
    def _do_put(self, key: ChannelKey, parts: Sequence[Buffer], readers: int | None) -> None: ...

    @abstractmethod
    def _do_get_into(self, key: ChannelKey, out: memoryview, timeout_s: float, offset: int) -> int: ...

    @abstractmethod
    def _do_get(self, key: ChannelKey, timeout_s: float) -> bytes: ...

    @abstractmethod
    def _do_discard(self, key: ChannelKey) -> None: ...

    @abstractmethod
    def _do_close(self) -> None: ...
