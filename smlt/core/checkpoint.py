"""State <-> safetensors in the object store: in parts, by all ranks; valid once its manifest is there; verified."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgpack
import numpy as np
import xxhash
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from smlt.core import layout, wire
from smlt.core.errors import AlreadyExists, CorruptObject, NotFound, ProtocolError, StorageError
from smlt.core.sampler import Cursor
from smlt.core.storage import ObjectStore
from smlt.core.task import Array, State


@dataclass(frozen=True)
class Part:
    """One object of a checkpoint, as its writer saw it."""

    key: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class PrivatePart:
    """One rank's PRIVATE state: its arrays' object, and its plain part."""

    part: Part
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Written:
    """What one rank wrote of a checkpoint."""

    shared: Part
    private: PrivatePart | None = None


@dataclass(frozen=True)
class Manifest:
    """What makes a checkpoint valid; written once, after all its parts.

    Attributes:
        cursor: where training goes on.
        world_size: ranks that wrote it.
        parts: of the SHARED state, by rank.
        extra: the plain part of the state.
        best: the best value of `[job].keep_best` so far.
        goal: "target" where training ended at this checkpoint before its schedule did; empty otherwise.
        private: PRIVATE states, by rank; empty where ranks have none.
    """

    cursor: Cursor
    world_size: int
    parts: tuple[Part, ...]
    extra: dict[str, Any] = field(default_factory=dict)
    best: float | None = None
    goal: str = ""
    private: tuple[PrivatePart, ...] = ()

    @classmethod
    def of(
        cls, cursor: Cursor, written: Sequence[Written], extra: dict[str, Any], best: float | None, goal: str
    ) -> Manifest:
        """The manifest of what all ranks wrote, in rank order."""
        private = tuple(each.private for each in written if each.private)
        return cls(cursor, len(written), tuple(each.shared for each in written), extra, best, goal, private)

    @property
    def all_parts(self) -> tuple[Part, ...]:
        """The objects that must be there and whole."""
        return (*self.parts, *(each.part for each in self.private))

    @property
    def size_bytes(self) -> int:
        """Bytes of all parts."""
        return sum(part.size_bytes for part in self.all_parts)


def names_of_part(arrays: Mapping[str, Array], rank: int, world_size: int) -> list[str]:
    """The arrays that one rank writes: the largest first, each to the rank that has the least; the same everywhere."""
    loads = [0] * world_size
    mine = []
    for name in sorted(arrays, key=lambda item: (-arrays[item].nbytes, item)):
        target = min(range(world_size), key=lambda owner: (loads[owner], owner))
        loads[target] += arrays[name].nbytes
        if target == rank:
            mine.append(name)
    return sorted(mine)


def write_own(
    store: ObjectStore, shared: State, private: State | None, step: int, rank: int, world_size: int
) -> Written:
    """Write this rank's share of the SHARED state, and all of its PRIVATE state."""
    names = names_of_part(shared.arrays, rank, world_size)
    part = _write_part(store, layout.part(step, rank), {name: shared.arrays[name] for name in names})
    if private is None:
        return Written(part)
    own = _write_part(store, layout.private_part(step, rank), private.arrays)
    return Written(part, PrivatePart(own, private.extra))


def _write_part(store: ObjectStore, key: str, arrays: Mapping[str, Array]) -> Part:
    data = packed_arrays(arrays)
    store.put(key, data)
    return Part(key, len(data), hashlib.sha256(data).hexdigest())


def write_manifest(store: ObjectStore, manifest: Manifest) -> None:
    """Make a checkpoint valid.

    Another rank may have done so already, with the same content. Another content is that of a checkpoint which was
    passed over as damaged, and whose parts have been overwritten by now.
    """
    key, data = layout.manifest(manifest.cursor.step), wire.pack(manifest)
    try:
        store.put_if_absent(key, data)
    except AlreadyExists:
        if store.get(key) != data:
            store.put(key, data)


def valid_steps(store: ObjectStore) -> list[int]:
    """Steps that have a manifest, ascending."""
    keys = (info.key for info in store.list(layout.CHECKPOINTS))
    return sorted(int(key.split("/")[1]) for key in keys if key.endswith("/" + layout.MANIFEST))


def read_manifest(store: ObjectStore, key: str) -> Manifest:
    """The manifest under this key."""
    return wire.unpack(store.get(key), Manifest)


def read_state(store: ObjectStore, manifest: Manifest) -> State:
    """The SHARED state of a checkpoint, every part of it verified.

    Raises:
        NotFound, CorruptObject: a part is missing, or is not what was written.
    """
    arrays: dict[str, Array] = {}
    for part in manifest.parts:
        arrays |= _read_part(store, part)
    return State(arrays, manifest.extra)


def read_private(store: ObjectStore, manifest: Manifest, rank: int, world_size: int) -> list[State]:
    """The PRIVATE states that a rank needs: its own or, where there were not so many ranks, those of all.

    Raises:
        NotFound, CorruptObject: a part is missing, or is not what was written.
    """
    saved = manifest.private
    wanted = saved[rank : rank + 1] if len(saved) == world_size else saved
    return [State(_read_part(store, each.part), each.extra) for each in wanted]


def _read_part(store: ObjectStore, part: Part) -> dict[str, Array]:
    try:
        return unpacked_arrays(store.get_verified(part.key, part.sha256))
    except ValueError as error:
        raise CorruptObject(f"{part.key} is no safetensors file: {error}") from error


def packed_arrays(arrays: Mapping[str, Array]) -> bytes:
    """Arrays as a safetensors file."""
    return bytes(save_safetensors({name: _packed(array) for name, array in arrays.items()}))


def unpacked_arrays(data: bytes) -> dict[str, Array]:
    """The arrays of a safetensors file; raises ValueError if it is none."""
    try:
        return dict(load_safetensors(data))
    except SafetensorError as error:
        raise ValueError(str(error)) from error


def latest_manifest(store: ObjectStore) -> str:
    """Key of the newest checkpoint that can be read whole; empty where there is none.

    A checkpoint with a missing or torn part is passed over for the one before.
    """
    for step in reversed(valid_steps(store)):
        key = layout.manifest(step)
        try:
            manifest = read_manifest(store, key)
            for part in manifest.all_parts:
                store.get_verified(part.key, part.sha256)
        except (NotFound, CorruptObject, ProtocolError):
            continue
        return key
    return ""


def prune(store: ObjectStore, newest: int, keep: int) -> None:
    """Remove all but the last `keep` checkpoints up to step `newest`, manifest first, so that none is ever half valid.

    A later one is damaged: the run has gone on from one before it.
    """
    steps = valid_steps(store)
    kept = [step for step in steps if step <= newest][-keep:]
    for step in set(steps).difference(kept):
        keys = [info.key for info in store.list(layout.checkpoint(step))]
        for key in sorted(keys, key=lambda item: not item.endswith(layout.MANIFEST)):
            store.delete(key)


def sha256_of(arrays: Mapping[str, Array], extra: Mapping[str, Any] | None = None) -> str:
    """SHA-256 over the raw bytes of arrays in name order, then over the plain part of a state, if any."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(_raw(arrays[name]))
    if extra:
        digest.update(_canonical(extra))
    return digest.hexdigest()


def sha256_of_all(digests: Sequence[str]) -> str:
    """One digest of several, in their order."""
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def xxh64_of(state: State) -> int:
    """A quick digest of a state, never 0: for comparing ranks, not for storage."""
    digest = xxhash.xxh64()
    for name in sorted(state.arrays):
        digest.update(_raw(state.arrays[name]))
    digest.update(_canonical(state.extra))
    return digest.intdigest() or 1


def _packed(array: Array) -> Array:
    """The array without gaps; unlike np.ascontiguousarray, a number stays 0-dimensional."""
    return np.asarray(array, order="C")


def _raw(array: Array) -> memoryview:
    return _packed(array).reshape(-1).view(np.uint8).data


def _canonical(value: Any) -> bytes:
    def ordered(item: Any) -> Any:
        if isinstance(item, Mapping):
            return [[str(key), ordered(item[key])] for key in sorted(item, key=str)]
        if isinstance(item, (list, tuple)):
            return [ordered(inner) for inner in item]
        return item

    return bytes(msgpack.packb(ordered(value)))


def write_arrays(store: ObjectStore, key: str, arrays: Mapping[str, Array]) -> None:
    """Write arrays as one safetensors object."""
    store.put(key, packed_arrays(arrays))


def write_model(store: ObjectStore, key: str, arrays: Mapping[str, Array], aliases: Mapping[str, str]) -> None:
    """Write a model as any safetensors reader expects it; tied names stand as JSON in its metadata `smlt.aliases`."""
    plain = {name: _packed(array) for name, array in arrays.items()}
    store.put(key, save_safetensors(plain, metadata={"smlt.aliases": json.dumps(dict(aliases), sort_keys=True)}))


def read_arrays(store: ObjectStore, key: str) -> dict[str, Array]:
    """Read the arrays of one safetensors object."""
    try:
        return unpacked_arrays(store.get(key))
    except ValueError as error:
        raise StorageError(f"{key} is no safetensors file: {error}", "delete it and run again") from error
