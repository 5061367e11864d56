"""Saving off the step path: a rank copies its share of the state, and a thread writes it while training goes on.

Each rank's thread writes its parts, and beside them what it has written; rank 0's gathers that from the store, writes
the manifest and clears old checkpoints away. Nothing here touches the channel.
"""

from __future__ import annotations

import copy
import math
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from smlt.core import checkpoint, layout, wire
from smlt.core.checkpoint import Attempt, Manifest, PrivatePart, Written
from smlt.core.errors import NotFound, ProtocolError, SmltError
from smlt.core.messages import CheckpointDone
from smlt.core.sampler import Cursor
from smlt.core.storage import Buffer, ObjectStore
from smlt.core.task import State
from smlt.core.tensor_file import Snapshot

KEEP = 2
"""Checkpoints that are kept: the newest, and the one before for when that turns out to be damaged."""

LEAST_COLLECT_S = 30.0
"""Rank 0 waits so long, or twice as long as its own parts took, for what others write; then it gives this one up.

The last one of a generation it does not give up: the controller finds out who does not come to an end.
"""

LOOK_S, LONGEST_LOOK_S = 0.01, 1.0
"""Between two looks for what another rank has written: half as long again each time, up to the longest."""

CLOSE_S = 2.0
"""Whoever leaves waits so long at most for what it has begun to save."""

OBEY_S = 0.05
"""While the training thread waits for a save, it looks for orders so often."""


@dataclass
class Order:
    """What is saved, beside the arrays.

    Attributes:
        attempt: where to.
        cursor, best, goal: as in `smlt.core.checkpoint.Manifest`.
        last: whether nothing comes after it in this generation.
    """

    attempt: Attempt
    cursor: Cursor
    best: float | None = None
    goal: str = ""
    last: bool = False


@dataclass
class _Copy:
    """A rank's share of a state, as it was."""

    shared: Buffer
    extra: dict[str, Any]
    private: Buffer | None
    private_extra: dict[str, Any]


class _Save:
    """One checkpoint on its way.

    Attributes:
        is_over: nothing more will come of it; the copy's memory is free.
        given_up: nothing shall come of it.
        awaited: the rank whose part is waited for; -1 for none.
        error: why nothing came of it.
    """

    def __init__(self) -> None:
        self.is_over, self.given_up = threading.Event(), threading.Event()
        self.awaited = -1
        self.error: Exception | None = None
        self.thread: threading.Thread


@dataclass
class Costs:
    """What the last checkpoint cost: seconds that it held training up, and that its parts took to be written."""

    stall_s: float = 0.0
    upload_s: float = 0.0


@dataclass
class Saver:
    """One rank's saves, one at a time. Used by the training thread alone.

    Args:
        store: of the run.
        rank, world_size: whose.
        clock: monotonic seconds.
        done: told, by another thread, of a checkpoint that is complete; on rank 0.
        tell: called before a checkpoint becomes valid; returns once the controller can know of the steps before it.
        reach: told the named places at which a save is, with its step, on the way.
        passed_over: steps of checkpoints that could not be read.
    """

    store: ObjectStore
    rank: int
    world_size: int
    clock: Callable[[], float]
    done: Callable[[CheckpointDone], None]
    tell: Callable[[], None] = lambda: None
    reach: Callable[[str, int], None] = lambda place, step: None
    passed_over: Collection[int] = ()
    costs: Costs = field(default_factory=Costs)
    _shared: Snapshot = field(default_factory=Snapshot)
    _private: Snapshot = field(default_factory=Snapshot)
    _save: _Save | None = None
    _threads: list[threading.Thread] = field(default_factory=list)
    _room: threading.Thread | None = None

    @property
    def has_room(self) -> bool:
        """Whether `make_room` was called."""
        return self._room is not None

    @property
    def is_busy(self) -> bool:
        """Whether a checkpoint is on its way."""
        return self._save is not None and not self._save.is_over.is_set()

    @property
    def awaited(self) -> int:
        """The rank whose part is waited for, on rank 0; -1 for none."""
        return -1 if self._save is None else self._save.awaited

    @property
    def was_given_up(self) -> bool:
        """Whether the last checkpoint came to nothing because its round was over."""
        return self._save is not None and self._save.given_up.is_set()

    def make_room(self, shared: State, private: State | None) -> None:
        """Have the memory ready for a state like this one, beside the training: the first save need not wait for it."""
        names = checkpoint.names_of_part(shared.arrays, self.rank, self.world_size)
        own = {name: shared.arrays[name] for name in names}

        def work() -> None:
            self._shared.make_room(own)
            if private is not None:
                self._private.make_room(private.arrays)

        self._room = threading.Thread(target=work, name="smlt-save", daemon=True)
        self._room.start()

    def begin(self, order: Order, shared: State, private: State | None, patience: Callable[[], None]) -> None:
        """Copy what this rank saves, and let it be written; waits while the one before is on its way.

        Args:
            order: what it is.
            shared: the state of all ranks, of which this one saves its share.
            private: this rank's own, if it has one.
            patience: called now and then while this waits; may raise, and then nothing was begun.
        """
        started = self.clock()
        self._wait(patience)
        if self._room is not None:
            self._room.join()
        names = checkpoint.names_of_part(shared.arrays, self.rank, self.world_size)
        copied = _Copy(
            self._shared.take({name: shared.arrays[name] for name in names}),
            copy.deepcopy(shared.extra),
            None if private is None else self._private.take(private.arrays),
            {} if private is None else copy.deepcopy(private.extra),
        )
        save = self._save = _Save()
        self.costs.stall_s = self.clock() - started
        save.thread = threading.Thread(target=self._write, args=(save, order, copied, started), name="smlt-save")
        save.thread.daemon = True
        self._threads = [*(thread for thread in self._threads if thread.is_alive()), save.thread]
        save.thread.start()

    def finish(self, patience: Callable[[], None]) -> None:
        """Wait for the last one: on rank 0 until its manifest is written, on others until their parts are.

        Raises:
            StorageError: it could not be written.
            Whatever `patience` raises.
        """
        self._wait(patience)
        if self._save is not None and self._save.error is not None:
            raise self._save.error

    def give_up(self) -> None:
        """Nothing shall come of the one that is on its way, if any: its round is over, or a newer one comes now."""
        if self.is_busy and self._save is not None:
            self._save.given_up.set()

    def close(self) -> None:
        """End; what is nearly written is waited for, as a task may have failed just after it, and the rest given up."""
        if self._save is not None:
            self._save.is_over.wait(CLOSE_S)
        self.give_up()
        for thread in (*self._threads, *([self._room] if self._room else [])):
            thread.join()
        self._threads = []

    def _wait(self, patience: Callable[[], None]) -> None:
        while self._save is not None and not self._save.is_over.wait(OBEY_S):
            patience()

    # What the thread does

    def _write(self, save: _Save, order: Order, copied: _Copy, started: float) -> None:
        try:
            manifest = self._written(save, order, copied)
            if manifest is not None:
                self.tell()
                checkpoint.write_manifest(self.store, manifest)
                self.reach("saved", order.attempt.step)
                seconds = self.clock() - started
                self.done(CheckpointDone(order.attempt.step, manifest.size_bytes, seconds, self.costs.stall_s))
        except _GivenUp:
            pass
        except Exception as error:  # whatever it is, `finish` raises it where it can be told
            save.error = error
            print(f"smlt: no checkpoint at step {order.attempt.step}: {error}", file=sys.stderr)
        finally:
            save.is_over.set()
        if save.error is None and not save.given_up.is_set() and self.rank == 0:
            self._clear_away(order.attempt)

    def _written(self, save: _Save, order: Order, copied: _Copy) -> Manifest | None:
        """Write this rank's parts; on rank 0, wait for those of all others."""
        started, attempt, rank = self.clock(), order.attempt, self.rank
        own = Written(checkpoint.write_part(self.store, layout.part(attempt.folder, rank), copied.shared))
        if copied.private is not None:
            part = checkpoint.write_part(self.store, layout.private_part(attempt.folder, rank), copied.private)
            own = Written(own.shared, PrivatePart(part, copied.private_extra))
        self.reach("saving", attempt.step)
        self.costs.upload_s = upload_s = self.clock() - started
        if rank != 0:
            self._check(save)
            self.store.put(layout.written(attempt.folder, rank), wire.pack(own))
            self.reach("manifest", attempt.step)
            return None
        limit_s = math.inf if order.last else max(LEAST_COLLECT_S, 2 * upload_s)
        all_written = [own, *self._collected(save, attempt, limit_s)]
        self.reach("manifest", attempt.step)
        self._check(save)
        return _manifest_of(order, all_written, copied.extra)

    def _collected(self, save: _Save, attempt: Attempt, limit_s: float) -> list[Written]:
        """What the other ranks have written, in rank order."""
        until = self.clock() + limit_s
        found: list[Written] = []
        look_s = LOOK_S
        while len(found) < self.world_size - 1:
            rank = save.awaited = len(found) + 1
            try:
                found.append(wire.unpack(self.store.get(layout.written(attempt.folder, rank)), Written))
            except (NotFound, ProtocolError):  # not there yet, or an answer that broke off
                self._check(save)
                if self.clock() > until:
                    raise ProtocolError(f"rank {rank} did not write its part in {limit_s:.0f} s") from None
                save.given_up.wait(look_s)
                look_s = min(LONGEST_LOOK_S, 1.5 * look_s)
        save.awaited = -1
        return found

    def _check(self, save: _Save) -> None:
        if save.given_up.is_set():
            raise _GivenUp

    def _clear_away(self, attempt: Attempt) -> None:
        try:
            checkpoint.prune(self.store, attempt, KEEP, self.passed_over)
        except SmltError as error:  # the next one will do it
            print(f"smlt: old checkpoints are left for now: {error}", file=sys.stderr)


class _GivenUp(Exception):
    """Nobody wants this checkpoint any more."""


def _manifest_of(order: Order, written: Sequence[Written], extra: dict[str, Any]) -> Manifest:
    return Manifest(
        cursor=order.cursor,
        world_size=len(written),
        parts=tuple(each.shared for each in written),
        extra=extra,
        best=order.best,
        goal=order.goal,
        private=tuple(each.private for each in written if each.private),
        generation=order.attempt.generation,
        round=order.attempt.round,
    )
