"""WORKER interface, and the loop that runs inside a function: do what the rank's protocol says, report, return."""

from __future__ import annotations

import math
import time
import traceback
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from smlt._version import __version__
from smlt.core import checkpoint, layout, protocol, wire
from smlt.core.backend import RankSpec
from smlt.core.courier import Courier
from smlt.core.errors import (
    AlreadyExists,
    NonFiniteLoss,
    ProtocolError,
    SmltError,
    TaskError,
)
from smlt.core.job import JobSpec
from smlt.core.messages import CheckpointDone, Evaluation, Failure, Left, Ready, Round, StepRecord
from smlt.core.output import OutputTee
from smlt.core.plugins import Registry, load_registry
from smlt.core.sampler import Cursor, Schedule, share
from smlt.core.storage import Channel, ChannelKey, ObjectStore
from smlt.core.sync.collectives import ScatterReduce, all_gather
from smlt.core.task import Array, EvalPart, Indices, StepLoss, StepWork, TaskShape, TrainingTask
from smlt.core.taskbuild import make_task, prepared_data

LOST_PEER_S = 5.0
"""Without a controller, a worker waits so long for a peer before it leaves."""


class StopNow(Exception):
    """The worker must leave at once, without a checkpoint; `reason` as in `Left`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Worker(ABC):
    """One rank's hands: performs the commands of a `RankProtocol`, one at a time, and says what came of each.

    The function's worker trains; a simulator's pretends to. Each method returns the event that the protocol awaits;
    `StopNow` may be raised anywhere, and leaves the run.
    """

    def perform(self, command: protocol.Command) -> protocol.Event:
        """Do one command; raises ProtocolError for `Leave`, which has no outcome."""
        match command:
            case protocol.Claim():
                return self.claim()
            case protocol.Build():
                return self.build()
            case protocol.AwaitRound():
                return self.await_round()
            case protocol.Compute():
                return self.compute(command)
            case protocol.Exchange():
                return self.exchange(command)
            case protocol.Commit():
                return self.commit(command)
            case protocol.Evaluate():
                return self.evaluate(command)
            case protocol.KeepBest():
                return self.keep_best()
            case protocol.Save():
                return self.save(command)
            case protocol.Export():
                return self.export()
            case protocol.Leave():
                raise ProtocolError("leaving has no outcome")

    @abstractmethod
    def claim(self) -> protocol.Claimed: ...

    @abstractmethod
    def build(self) -> protocol.Built: ...

    @abstractmethod
    def await_round(self) -> protocol.RoundOpened: ...

    @abstractmethod
    def compute(self, command: protocol.Compute) -> protocol.Computed: ...

    @abstractmethod
    def exchange(self, command: protocol.Exchange) -> protocol.Exchanged: ...

    @abstractmethod
    def commit(self, command: protocol.Commit) -> protocol.Committed: ...

    @abstractmethod
    def evaluate(self, command: protocol.Evaluate) -> protocol.Evaluated: ...

    @abstractmethod
    def keep_best(self) -> protocol.BestKept: ...

    @abstractmethod
    def save(self, command: protocol.Save) -> protocol.Saved: ...

    @abstractmethod
    def export(self) -> protocol.Exported: ...

    @abstractmethod
    def leave(self, command: protocol.Leave) -> None: ...


def drive(worker: Worker, rank: protocol.RankProtocol) -> None:
    """The step loop: from the first claim to the last word."""
    event: protocol.Event = protocol.Begun()
    while True:
        command = rank.next(event)
        if isinstance(command, protocol.Leave):
            worker.leave(command)
            return
        event = worker.perform(command)


def work(spec: RankSpec) -> None:
    """What a launched function runs. Returns normally whatever happens: a failure would make some platforms retry.

    Args:
        spec: which rank of which generation of which run.
    """
    registry = load_registry()
    store = registry.open_store(spec.store)
    courier = Courier(store, spec, time.monotonic)
    courier.start()
    worker = FunctionWorker(spec, registry, store, courier)
    rules = protocol.Rules(JobSpec.from_plain(spec.job).job)
    left: Left | None = None
    failure: Failure | None = None
    try:
        with OutputTee(courier.print):
            drive(worker, protocol.RankProtocol(spec.rank, rules))
        left = worker.last_word
    except StopNow as stop:
        left = Left(stop.reason, worker.step)
    except SmltError as error:
        failure = Failure(type(error).__name__, error.message, error.hint, traceback.format_exc())
    except Exception as error:  # whatever it is, the user shall hear of it
        message = f"smlt itself failed in rank {spec.rank}: {type(error).__name__}: {error}"
        failure = Failure("JobFailed", message, "please report it, with the output of --debug", traceback.format_exc())
    finally:
        worker.close()
        courier.finish(left=left, failure=failure)


class FunctionWorker(Worker):
    """The worker that trains.

    Args:
        spec: which rank.
        registry: opens the channel.
        store: of the run.
        courier: carries its mail.
    """

    def __init__(self, spec: RankSpec, registry: Registry, store: ObjectStore, courier: Courier) -> None:
        self._spec, self._registry, self._store, self._courier = spec, registry, store, courier
        self._job = JobSpec.from_plain(spec.job)
        self._uuid = uuid.uuid4().hex
        self._task: TrainingTask | None = None
        self._shape: TaskShape | None = None
        self._schedule: Schedule | None = None
        self._channel: Channel | None = None
        self._reduce: ScatterReduce | None = None
        self._round = 0
        self._order: tuple[int, Indices] | None = None
        self._sums: Sequence[Array] = ()
        self._gathered: list[ChannelKey] = []
        self._timer = StepTimer()
        self.step = 0
        self.last_word = Left("ended")

    # Commands, in the order in which they come.

    def claim(self) -> protocol.Claimed:
        """Create the claim of this incarnation; another process may have been quicker."""
        spec = self._spec
        if spec.smlt_version != __version__:
            raise ProtocolError(
                f"the job was started by smlt {spec.smlt_version}, this function has smlt {__version__}",
                "install the same version in both, or build the function's image again",
            )
        try:
            key = layout.claim(spec.generation, spec.rank, spec.incarnation)
            self._store.put_if_absent(key, self._uuid.encode())
        except AlreadyExists:
            return protocol.Claimed(won=False)
        return protocol.Claimed(won=True)

    def build(self) -> protocol.Built:
        """Import and build the task; load the checkpoint to go on from, if any."""
        self._courier.doing("building", 0)
        spec = self._spec
        task = make_task(spec, self._job, self._store)
        prepared = prepared_data(task, spec, self._store, self._check)
        shape = task.build(prepared, lambda examples: Schedule.of(self._job.job, examples).total_steps)
        self._task, self._shape = task, shape
        self._schedule = Schedule.of(self._job.job, shape.examples)
        if not spec.resume_from:
            return protocol.Built(self._schedule, Cursor())
        manifest = checkpoint.read_manifest(self._store, spec.resume_from)
        task.load_shared_state(checkpoint.read_state(self._store, manifest))
        self.step = manifest.cursor.step
        return protocol.Built(self._schedule, manifest.cursor, manifest.best)

    def await_round(self) -> protocol.RoundOpened:
        """Say READY, wait until the controller opens a round with this process in it, and greet the others."""
        assert self._shape and self._schedule
        spec = self._spec
        self._courier.doing("ready", self.step)
        self._courier.ready(Ready(self._uuid, self._shape, self._schedule.total_steps, self.step))
        opened = self._wait_for_round()
        self._round = opened.number
        if spec.world_size > 1:
            self._channel = self._registry.open_channel(
                spec.channel, generation=spec.generation, round_number=opened.number, rank=spec.rank
            )
        self._reduce = ScatterReduce(
            self._channel,
            self._shape.regions,
            (spec.generation, opened.number),
            spec.rank,
            spec.world_size,
            self._patience,
        )
        self._greet("hello")
        self._timer.restart()
        return protocol.RoundOpened()

    def compute(self, command: protocol.Compute) -> protocol.Computed:
        """Forward and backward over this rank's share."""
        self._check()
        task, schedule, reduce = self._trained()
        cursor = command.cursor
        self.step = cursor.step
        self._courier.doing("computing", cursor.step)
        digest = checkpoint.xxh64_of(task.shared_state()) if command.take_digest and self._channel else 0
        self._forget_gathered(cursor.step)
        batch = schedule.batch(self._order_of(cursor.epoch), cursor)
        indices = share(batch, self._spec.rank, self._spec.world_size)
        work = StepWork(cursor.step, cursor.epoch, indices, len(batch), schedule.ends_epoch(cursor))
        loss = task.compute(work, reduce.contribution(cursor.step))
        self._timer.lap("compute")
        wished = bool(self._courier.control.wish) or self._courier.orphaned
        return protocol.Computed(loss.sum, loss.weight, digest, time.monotonic(), wished)

    def exchange(self, command: protocol.Exchange) -> protocol.Exchanged:
        """Send this rank's contribution and collect the sums."""
        assert self._reduce
        merged, self._sums = self._reduce.reduce(command.header)
        self._timer.lap("sync")
        return protocol.Exchanged(merged)

    def commit(self, command: protocol.Commit) -> protocol.Committed:
        """Apply the step, unless its loss is not finite."""
        task, schedule, _ = self._trained()
        merged, cursor = command.merged, command.cursor
        self._courier.doing("committing", cursor.step)
        loss = StepLoss(merged.loss_sum, merged.weight)
        if not math.isfinite(loss.mean):
            raise NonFiniteLoss(
                f"the loss is {loss.mean} at step {cursor.step}; the step was not applied",
                "lower the learning rate, set [train].clip_norm, or look for log(0), 0/0 or bad data in training_step",
            )
        task.commit(self._sums, loss)
        self._timer.lap("commit")
        self._courier.step(self._timer.record(cursor.step, cursor.epoch, loss.mean, schedule.size_at(cursor)))
        self.step = cursor.step + 1
        return protocol.Committed(time.monotonic())

    def evaluate(self, command: protocol.Evaluate) -> protocol.Evaluated:
        """Evaluate this rank's share; all ranks end up with the same metrics."""
        task, _, _ = self._trained()
        assert self._shape
        if self._shape.eval_examples == 0:
            return protocol.Evaluated({})
        cursor, started = command.cursor, time.monotonic()
        self._courier.doing("evaluating", cursor.step)
        everything = np.arange(self._shape.eval_examples, dtype=np.int64)
        own = task.evaluate(share(everything, self._spec.rank, self._spec.world_size))
        parts = [wire.unpack(part, EvalPart) for part in self._gather(wire.pack(own), "eval")]
        metrics = task.finish_evaluation(parts)
        if self._spec.rank == 0:
            epoch = cursor.epoch if cursor.consumed else cursor.epoch - 1
            self._courier.evaluation(Evaluation(cursor.step, epoch, metrics, time.monotonic() - started))
        self._timer.restart()
        return protocol.Evaluated(metrics)

    def keep_best(self) -> protocol.BestKept:
        """Rank 0 writes the best model so far."""
        if self._spec.rank == 0:
            self._write_model(layout.BEST_MODEL)
        return protocol.BestKept()

    def save(self, command: protocol.Save) -> protocol.Saved:
        """Write this rank's part; the manifest makes it valid once all parts are there."""
        task, _, _ = self._trained()
        cursor, started, spec = command.cursor, time.monotonic(), self._spec
        self._courier.doing("saving", cursor.step)
        state = task.shared_state()
        part = checkpoint.write_part(self._store, state, cursor.step, spec.rank, spec.world_size)
        parts = tuple(wire.unpack(item, checkpoint.Part) for item in self._gather(wire.pack(part), "save"))
        manifest = checkpoint.Manifest(cursor, spec.world_size, parts, state.extra, command.best)
        checkpoint.write_manifest(self._store, manifest)
        if spec.rank == 0:
            checkpoint.prune(self._store, keep=2)
            self._courier.checkpoint(CheckpointDone(cursor.step, manifest.size_bytes, time.monotonic() - started))
        self._timer.restart()
        return protocol.Saved(time.monotonic())

    def export(self) -> protocol.Exported:
        """Rank 0 writes the model."""
        if self._spec.rank == 0:
            self._courier.doing("saving", self.step)
            self._write_model(layout.MODEL)
        return protocol.Exported()

    def leave(self, command: protocol.Leave) -> None:
        """The last word; the others may still read what this rank published, so wait until all have come so far."""
        cursor = command.cursor
        if cursor is None:
            self.last_word = Left(command.reason)
            return
        self._courier.doing("leaving", cursor.step)
        self.last_word = Left(command.reason, cursor.step, cursor.epoch + (cursor.consumed > 0))
        if self._spec.rank == 0 and command.reason != "ended":
            task, _, _ = self._trained()
            state = task.shared_state()
            self.last_word = replace(
                self.last_word,
                weights_sha256=checkpoint.sha256_of(task.parameters()),
                state_sha256=checkpoint.sha256_of(state.arrays, state.extra),
            )
        self._greet("bye")

    def close(self) -> None:
        """Release the channel."""
        if self._channel is not None:
            self._channel.close()

    # What the commands share.

    def _trained(self) -> tuple[TrainingTask, Schedule, ScatterReduce]:
        assert self._task and self._schedule and self._reduce
        return self._task, self._schedule, self._reduce

    def _wait_for_round(self) -> Round:
        while True:
            self._check()
            if self._courier.orphaned:
                raise StopNow("stopped")
            opened = self._courier.control.round
            if opened and opened.generation == self._spec.generation and self._uuid in opened.members:
                return opened
            time.sleep(self._spec.beat_s / 10)

    def _check(self) -> None:
        """Leave at once where the controller says so, or where another controller has taken over."""
        if self._courier.superseded:
            raise StopNow("superseded")
        if self._courier.control.stop_now or self._courier.control.closed:
            raise StopNow("stopped")

    def _patience(self, piece: str, peer: int) -> None:
        """While a peer is waited for: obey the controller; without one, do not wait for ever."""
        self._courier.doing(f"waiting for {piece}", self.step, peer)
        self._check()
        if self._courier.orphaned_for_s > LOST_PEER_S:
            raise StopNow("stopped")

    def _order_of(self, epoch: int) -> Indices:
        task, schedule, _ = self._trained()
        if self._order is None or self._order[0] != epoch:
            order = task.order(epoch)
            if len(order) != schedule.examples:
                raise TaskError(
                    f"sampler gave {len(order)} examples for epoch {epoch}, {schedule.examples} were expected",
                    "return as many indices in every epoch",
                )
            self._order = (epoch, order)
        return self._order[1]

    def _gather(self, own: bytes, piece: str) -> list[bytes]:
        key = ChannelKey(self._spec.generation, self._round, self.step, piece, self._spec.rank)
        if self._channel is not None:
            self._gathered.append(key)
        return all_gather(self._channel, own, key, self._spec.world_size, self._patience)

    def _greet(self, word: str) -> None:
        """Meet all ranks at this point of the round, checking that they are the same computation."""
        assert self._shape
        fingerprint = wire.pack(self._shape)
        if any(other != fingerprint for other in self._gather(fingerprint, word)):
            raise ProtocolError(
                "the ranks built different tasks (examples, parameters, versions or threads differ)",
                "make build_model and train_data give the same on every rank, and the functions run the same image",
            )

    def _forget_gathered(self, step: int) -> None:
        """Whoever computes `step` has committed step - 1, so all have committed, and gathered, what was before it."""
        assert self._channel or not self._gathered
        old = [key for key in self._gathered if key.step < step - 1]
        for key in old:
            assert self._channel
            self._channel.discard(key)
            self._gathered.remove(key)

    def _write_model(self, key: str) -> None:
        task, _, _ = self._trained()
        arrays, aliases = task.model_arrays()
        checkpoint.write_model(self._store, key, arrays, aliases)


class StepTimer:
    """Where a step's time goes, by the monotonic clock."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """A step begins now."""
        self._began = self._last = time.monotonic()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """What was going on until now was `name`."""
        now = time.monotonic()
        self._laps[name] = now - self._last
        self._last = now

    def record(self, step: int, epoch: int, loss: float, examples: int) -> StepRecord:
        """The step is over; the next one begins."""
        laps = self._laps
        record = StepRecord(
            step=step,
            epoch=epoch,
            loss=loss,
            examples=examples,
            seconds=self._last - self._began,
            compute_s=laps["compute"],
            sync_s=laps["sync"],
            commit_s=laps["commit"],
        )
        self.restart()
        return record
