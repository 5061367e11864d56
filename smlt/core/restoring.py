"""Which checkpoint a round goes on from: the newest that every rank can read whole. All ranks come to the same answer.

A damaged part may be one rank's PRIVATE state, which that rank alone reads: so what each has found is gathered.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from smlt.core import checkpoint, layout, wire
from smlt.core.checkpoint import Manifest
from smlt.core.errors import CorruptObject, NotFound, ProtocolError
from smlt.core.storage import ObjectStore
from smlt.core.task import State

Gather = Callable[[bytes, str], Sequence[bytes]]
"""Takes this rank's value and a name for the exchange; returns all ranks' values, in rank order."""


@dataclass(frozen=True)
class Found:
    """A checkpoint as a rank needs it: `private` as `smlt.core.checkpoint.read_private` gives it."""

    manifest: Manifest
    shared: State
    private: list[State]


@dataclass(frozen=True)
class _Answer:
    """What a rank says of a checkpoint.

    Attributes:
        is_whole: whether it has read what it needs of it.
        before: the key of the one before, as this rank sees it; rank 0's counts.
    """

    is_whole: bool
    before: str


def agreed(store: ObjectStore, key: str, rank: int, world_size: int, gather: Gather) -> Found | None:
    """The newest checkpoint, from this one back, that all ranks can read; None where there is none.

    Args:
        store: of the run.
        key: of the manifest to begin with; empty for none.
        rank, world_size: of this rank.
        gather: exchanges a small value with the others.
    """
    number = 0
    while key:
        found, why_not = _read(store, key, rank, world_size)
        before = checkpoint.latest_manifest(store, layout.step_of(key)) if rank == 0 else ""
        answers = [
            wire.unpack(each, _Answer)
            for each in gather(wire.pack(_Answer(found is not None, before)), f"whole.{number}")
        ]
        damaged = [other for other, answer in enumerate(answers) if not answer.is_whole]
        if not damaged:
            return found
        if rank == damaged[0]:
            told = f"the checkpoint at step {layout.step_of(key)} cannot be read whole: {why_not}"
            print(f"smlt: {told}; the one before is taken", file=sys.stderr)
        key, number = answers[0].before, number + 1
    return None


def _read(store: ObjectStore, key: str, rank: int, world_size: int) -> tuple[Found | None, str]:
    """The checkpoint, or why it is none."""
    try:
        manifest = checkpoint.read_manifest(store, key)
        shared = checkpoint.read_state(store, manifest)
        return Found(manifest, shared, checkpoint.read_private(store, manifest, rank, world_size)), ""
    except (NotFound, CorruptObject, ProtocolError) as error:
        return None, error.message
