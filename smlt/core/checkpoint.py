"""State <-> safetensors in the object store: in parts, by all ranks; valid once its manifest is there; verified."""

from __future__ import annotations

import hashlib
import heapq
import json
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import msgpack
import numpy as np
import xxhash
from safetensors import SafetensorError
from safetensors.numpy import load as load_safetensors
from safetensors.numpy import save as save_safetensors

from smlt.core import layout, wire
from smlt.core.errors import AlreadyExists, Conflict, CorruptObject, NotFound, ProtocolError, StorageError
from smlt.core.sampler import Cursor
from smlt.core.storage import Buffer, ObjectStore
from smlt.core.task import Array, State
from smlt.core.tensor_file import views_of

READ_TRIES = 3
"""An object is damaged if it was read so often and was not what was written: an answer may break off, too."""

MANIFEST_TRIES = 8
"""Each time another writer was faster."""


@dataclass(frozen=True, order=True)
class Attempt:
    """A round's try to save; of two, the one of the later round counts, whatever a frozen process still does.

    Attributes:
        generation, round: which round.
        step: where training goes on.
    """

    generation: int
    round: int
    step: int

    @property
    def folder(self) -> str:
        """Where its parts are."""
        return layout.attempt(self.step, self.generation, self.round)

    @property
    def by(self) -> tuple[int, int]:
        """Which round's."""
        return self.generation, self.round


@dataclass(frozen=True)
class Part:
    """One object of a checkpoint, as its writer saw it.

    Attributes:
        digest: XXH3-128 in hexadecimal, against torn and damaged objects; it takes a fifteenth of SHA-256's time, for
            which a hand-over would wait twice. Against forgery nothing here helps: who can write a part can write the
            manifest.
    """

    key: str
    size_bytes: int
    digest: str


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
        generation, round: who wrote it.
    """

    cursor: Cursor
    world_size: int
    parts: tuple[Part, ...]
    extra: dict[str, Any] = field(default_factory=dict)
    best: float | None = None
    goal: str = ""
    private: tuple[PrivatePart, ...] = ()
    generation: int = 0
    round: int = 0

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
    loads = [(0, owner) for owner in range(world_size)]
    mine = []
    for name in sorted(arrays, key=lambda item: (-arrays[item].nbytes, item)):
        load, owner = loads[0]
        heapq.heapreplace(loads, (load + arrays[name].nbytes, owner))
        if owner == rank:
            mine.append(name)
    return sorted(mine)


def write_part(store: ObjectStore, key: str, data: Buffer) -> Part:
    """Write one part."""
    store.put(key, data)
    return Part(key, memoryview(data).nbytes, xxhash.xxh3_128_hexdigest(data))


def write_manifest(store: ObjectStore, manifest: Manifest) -> None:
    """Make a checkpoint valid.

    One that is there already is replaced if a round before wrote it, and the run has come to its step again: it could
    not be read whole then. A later round's stays.

    Raises:
        StorageError: others write this manifest all the time.
    """
    key, data = layout.manifest(manifest.cursor.step), wire.pack(manifest)
    for _ in range(MANIFEST_TRIES):
        try:
            store.put_if_absent(key, data)
            return
        except AlreadyExists:
            pass
        with suppress(NotFound, Conflict):  # another one was faster
            there, version = store.get_versioned(key)
            if there != data and _is_before(there, manifest):
                store.compare_and_swap(key, data, version)
            return
    raise StorageError(f"{key} is written by others again and again", "is one program training this run?")


def _is_before(data: bytes, manifest: Manifest) -> bool:
    try:
        there = wire.unpack(data, Manifest)
    except ProtocolError:
        return True
    return (there.generation, there.round) <= (manifest.generation, manifest.round)


def valid_steps(store: ObjectStore) -> list[int]:
    """Steps that have a manifest, ascending."""
    return sorted(_manifests(info.key for info in store.list(layout.CHECKPOINTS)))


def _manifests(keys: Iterable[str]) -> Iterator[int]:
    """The steps of those keys that are manifests."""
    return (layout.step_of(key) for key in keys if key.endswith("/" + layout.MANIFEST))


def read_manifest(store: ObjectStore, key: str) -> Manifest:
    """The manifest under this key.

    Raises:
        NotFound: there is none.
        ProtocolError: it is damaged.
    """
    for _ in range(READ_TRIES - 1):
        with suppress(ProtocolError):
            return wire.unpack(store.get(key), Manifest)
    return wire.unpack(store.get(key), Manifest)


def read_state(store: ObjectStore, manifest: Manifest) -> State:
    """The SHARED state of a checkpoint, every part of it verified; its arrays are read-only.

    Raises:
        NotFound, CorruptObject: a part is missing, or is not what was written.
    """
    arrays: dict[str, Array] = {}
    for found in _read_parts(store, manifest.parts):
        arrays |= found
    return State(arrays, manifest.extra)


def read_private(store: ObjectStore, manifest: Manifest, rank: int, world_size: int) -> list[State]:
    """The PRIVATE states that a rank needs: its own or, where there were not so many ranks, those of all.

    Raises:
        NotFound, CorruptObject: a part is missing, or is not what was written.
    """
    saved = manifest.private
    wanted = saved[rank : rank + 1] if len(saved) == world_size else saved
    found = _read_parts(store, [each.part for each in wanted])
    return [State(arrays, each.extra) for arrays, each in zip(found, wanted, strict=True)]


def _read_parts(store: ObjectStore, parts: Sequence[Part]) -> list[dict[str, Array]]:
    if min(store.concurrency, len(parts)) < 2:
        return [_read_part(store, part) for part in parts]
    with ThreadPoolExecutor(min(store.concurrency, len(parts)), "smlt-load") as pool:
        return list(pool.map(lambda part: _read_part(store, part), parts))


def _read_part(store: ObjectStore, part: Part) -> dict[str, Array]:
    data, found = memoryview(b""), ""
    for _ in range(READ_TRIES):
        data = store.view(part.key)
        found = xxhash.xxh3_128_hexdigest(data)
        if found == part.digest:
            break
    else:
        raise CorruptObject(f"{part.key} has XXH3-128 {found[:16]}…, expected {part.digest[:16]}…")
    try:
        return views_of(data)
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


def latest_manifest(store: ObjectStore, before: int | None = None) -> str:
    """Key of the newest checkpoint, of those `before` a step, that looks whole; empty where there is none.

    One with a missing or torn part is passed over for the one before. What the parts hold is not read: whoever loads a
    state verifies it, and this may be a laptop with a slow line.
    """
    return next((key for key, wrong in _newest_first(store, before) if not wrong), "")


def damage(store: ObjectStore) -> str:
    """What is wrong with the newest checkpoint; empty where it looks whole, or there is none at all."""
    return next((wrong for _, wrong in _newest_first(store)), "")


def _newest_first(store: ObjectStore, before: int | None = None) -> Iterator[tuple[str, str]]:
    """The keys of manifests, and what is wrong with each checkpoint as far as sizes tell; empty for nothing."""
    sizes = {info.key: info.size for info in store.list(layout.CHECKPOINTS)}
    for step in sorted(_manifests(sizes), reverse=True):
        if before is not None and step >= before:
            continue
        key = layout.manifest(step)
        try:
            parts = read_manifest(store, key).all_parts
        except (NotFound, ProtocolError) as error:
            yield key, f"{key}: {error.message}"
            continue
        torn = next((part for part in parts if sizes.get(part.key) != part.size_bytes), None)
        yield key, f"{torn.key} has {sizes.get(torn.key, 0)} bytes, and had {torn.size_bytes}" if torn else ""


def reopen(store: ObjectStore) -> None:
    """Let training go on from the newest checkpoint although its goal was reached there; it has another now."""
    key = latest_manifest(store)
    if not key:
        return
    data, version = store.get_versioned(key)
    manifest = wire.unpack(data, Manifest)
    if manifest.goal:
        store.compare_and_swap(key, wire.pack(replace(manifest, goal="")), version)


def prune(store: ObjectStore, own: Attempt, keep: int, passed_over: Container[int] = ()) -> None:
    """Remove all but the last `keep` checkpoints up to the one that was just written, manifest first, so that none is
    ever half valid; and what rounds before left unfinished. What is saved later, by this round or another, is left
    alone.

    Args:
        own: whose manifest was just written.
        keep: how many are kept.
        passed_over: steps of checkpoints that could not be read when the run went back to one before them.
    """
    found: dict[int, list[str]] = {}
    for info in store.list(layout.CHECKPOINTS):
        found.setdefault(layout.step_of(info.key), []).append(info.key)
    valid = [step for step in sorted(found) if layout.manifest(step) in found[step] and step <= own.step]
    if own.step not in valid:
        return  # a later round has cleared it away
    kept = [step for step in valid if step not in passed_over or step == own.step][-keep:]
    for step, keys in found.items():
        if step == own.step:
            doomed = [key for key in keys if (-1, -1) < _by(key) < own.by]
        elif step in kept or any((_by(key), step) > (own.by, own.step) for key in keys):
            continue
        else:
            doomed = keys
        for key in sorted(doomed, key=lambda item: not item.endswith("/" + layout.MANIFEST)):
            store.delete(key)


def _by(key: str) -> tuple[int, int]:
    """The round whose attempt an object belongs to; (-1, -1) for a manifest."""
    generation, _, number = key.split("/")[2].partition(".")
    return (int(generation), int(number)) if number else (-1, -1)


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
