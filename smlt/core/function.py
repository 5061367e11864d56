"""What a launched function is: the worker that trains, its mail, and its last word."""

from __future__ import annotations

import math
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import numpy as np

from smlt._version import __version__
from smlt.core import best, checkpoint, layout, restoring, wire
from smlt.core import rank_events as events
from smlt.core.backend import RankSpec
from smlt.core.chaos import FaultPoints, once
from smlt.core.chaos_channel import ChaosChannel
from smlt.core.courier import Courier
from smlt.core.endings import OUT_OF_MEMORY
from smlt.core.errors import AlreadyExists, ChannelError, ProtocolError, SmltError, TaskError
from smlt.core.job import JobSpec
from smlt.core.membership import Membership
from smlt.core.messages import Evaluation, Failure, Left, Ready, Rejoined, Round
from smlt.core.out_of_memory import is_out_of_memory
from smlt.core.output import OutputTee
from smlt.core.patient_store import PatientStore
from smlt.core.plugins import Registry, load_registry
from smlt.core.protocol import RankProtocol, Rules
from smlt.core.sampler import Cursor, Schedule, share
from smlt.core.save_interval import save_interval_s
from smlt.core.saving import Order, Saver
from smlt.core.stepping import STEPPINGS, Stepping
from smlt.core.steptimer import StepTimer
from smlt.core.storage import ObjectStore
from smlt.core.sync.collectives import Seat
from smlt.core.task import EvalPart, Indices, StepLoss, StepWork, TaskShape, TrainingTask
from smlt.core.taskbuild import make_task, prepared_data
from smlt.core.worker import RoundOver, StopNow, Worker, drive

CHANNEL_TRIES = 8
"""A channel that fails so often before a step comes through has failed for good."""
BACK_OFF_S, LONGEST_BACK_OFF_S = 0.1, 8.0
"""Before asking for another round: doubled each time, up to the longest."""

LOST_PEER_S = 5.0
"""Without a controller, a worker waits so long for a peer before it leaves."""


def work(spec: RankSpec) -> None:
    """What a launched function runs. Returns normally whatever happens: a failure would make some platforms retry.

    Args:
        spec: which rank of which generation of which run.
    """
    registry = load_registry()
    store = registry.open_store(spec.store)
    courier = Courier(store, spec, time.monotonic)
    worker = FunctionWorker(spec, registry, store, courier)
    left: Left | None = None
    failure: Failure | None = None
    try:
        with OutputTee(courier.print), _closing(worker):
            rules = Rules(
                worker.read_job().job,
                exchange_every=spec.sync.exchange_every,
                has_private=spec.sync.has_private,
                recovers_fast=spec.sync.recovers_fast,
            )
            drive(worker, RankProtocol(spec.rank, rules))
        left = worker.last_word
    except StopNow as stop:
        left = Left(stop.reason)
    except SmltError as error:
        kind = OUT_OF_MEMORY if is_out_of_memory(error) else type(error).__name__
        failure = Failure(kind, error.message, error.hint, traceback.format_exc())
    except SystemExit as error:
        message = f"the task called exit({'' if error.code is None else repr(error.code)}) in rank {spec.rank}"
        failure = Failure(
            "TaskError", message, "let it raise an exception that says what is wrong", traceback.format_exc()
        )
    except Exception as error:  # whatever it is, the user shall hear of it
        what = f"{type(error).__name__}: {error}"
        if is_out_of_memory(error):
            failure = Failure(OUT_OF_MEMORY, f"smlt's own part raised {what}", "", traceback.format_exc())
        else:
            message, hint = (
                f"smlt itself failed in rank {spec.rank}: {what}",
                "please report it, with what --debug shows",
            )
            failure = Failure("JobFailed", message, hint, traceback.format_exc())
    finally:
        if failure and not worker.has_claimed:
            worker.claim()  # only who holds the claim may say what is wrong
        if worker.has_claimed:
            courier.finish(left=left, failure=failure)
        elif failure:
            print(failure.traceback, file=sys.stderr)


@contextmanager
def _closing(worker: FunctionWorker) -> Iterator[None]:
    """Close the worker in the end; where it failed before, that is told, not what closing it then raises."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            worker.close()
        raise
    worker.close()


@dataclass
class _Training:
    """What there is once the task is built; it `is_fresh` as long as it has the state that building it made."""

    stepping: Stepping
    schedule: Schedule
    is_fresh: bool = True

    @property
    def task(self) -> TrainingTask:
        return self.stepping.task

    @property
    def shape(self) -> TaskShape:
        return self.stepping.shape


class FunctionWorker(Worker):
    """The worker that trains.

    Args:
        spec: which rank.
        registry: opens the channel.
        store: of the run.
        courier: carries its mail.
    """

    def __init__(self, spec: RankSpec, registry: Registry, store: ObjectStore, courier: Courier) -> None:
        self.last_word = Left("ended")
        self.has_claimed = False
        self._is_closing = False
        self._spec, self._registry, self._courier = spec, registry, courier
        self._store = PatientStore(store, is_over=self._is_unwanted)
        first_time = once(self._store, spec.rank)
        self._faults = FaultPoints(spec.faults, spec.rank, spec.generation, spec.incarnation, first_time)
        self._saver = Saver(
            self._store,
            spec.rank,
            spec.world_size,
            courier.reaching_s,  # what the store is out of reach for is no time that saving takes
            done=courier.checkpoint,
            tell=lambda: self._store.persist(courier.tell),  # steps that nobody makes again must be in the log
            reach=self._faults.reach,
        )
        self._job: JobSpec
        self._built: _Training | None = None
        self._joined: Membership | None = None
        self._round: Round | None = None
        self._round_since = time.monotonic()
        self._needs_round = False
        self._is_between_states = False
        self._troubles = 0
        self._step = 0
        self._order: tuple[int, Indices] | None = None
        self._timer = StepTimer(time.monotonic)

    def read_job(self) -> JobSpec:
        """What to train; raises ProtocolError if a controller of another version said it."""
        spec = self._spec
        if spec.smlt_version != __version__:
            raise ProtocolError(
                f"the job was started by smlt {spec.smlt_version}, this function has smlt {__version__}",
                "install the same version in both, or build the function's image again",
            )
        self._job = JobSpec.from_plain(spec.job)
        return self._job

    def claim(self) -> events.Claimed:
        """Create the claim object of this incarnation; from then on this process may write its mail, and no other."""
        spec = self._spec
        try:
            key = layout.claim(spec.generation, spec.rank, spec.incarnation)
            self._store.put_if_absent(key, self._courier.uuid.encode())
        except AlreadyExists:
            return events.Claimed(won=False)
        self.has_claimed = True
        self._courier.start()
        return events.Claimed(won=True)

    def perform(self, command: events.Command) -> events.Event | None:
        """Do one command; where the channel fails, this rank needs another round."""
        try:
            return super().perform(command)
        except ChannelError as error:
            self._troubles += 1
            if self._joined is None or self._troubles > CHANNEL_TRIES:
                raise
            print(f"smlt: rank {self._spec.rank} needs a new round: {error}", file=sys.stderr)
            self._needs_round = True
            raise RoundOver from error

    def build(self) -> events.Built:
        """Import and build the task."""
        self._courier.doing("building", 0)
        self._faults.reach("building", 0)
        spec, job = self._spec, self._job.job
        task = make_task(spec, self._job, self._store)
        prepared = prepared_data(task, spec, self._store, self._obey)
        shape = task.build(prepared, lambda examples: Schedule.of(job, examples).total_steps)
        schedule = Schedule.of(job, shape.examples)
        stepping = STEPPINGS[spec.sync.mode](task, shape, spec.sync)
        stepping.check_course(schedule, spec.world_size)
        is_under_way = spec.generation > 1 or spec.incarnation > 0 or self._round is not None
        if is_under_way:  # and the run waits for this function, or soon will
            self._warm_up(task, shape, schedule)
        self._built = _Training(stepping, schedule)
        return events.Built(schedule)

    def _warm_up(self, task: TrainingTask, shape: TaskShape, schedule: Schedule) -> None:
        """Take the first step and throw it away: what happens only once happens now, not when others wait for it."""
        cursor, spec = Cursor(), self._spec
        batch = schedule.batch(task.order(0), cursor)
        indices = share(batch, spec.rank, spec.world_size)
        work = StepWork(cursor.step, cursor.epoch, indices, len(batch), schedule.ends_epoch(cursor))
        task.compute(work, [region.zeros() for region in shape.regions])
        task.forget()

    def await_round(self) -> events.RoundOpened:
        """Say READY, unless another round is open already, and wait for one with this process in it."""
        training, before = self._training, self._round
        self._courier.doing("ready", self._step)
        if before is None or self._needs_round:
            after = -1 if before is None else before.number
            time.sleep(min(BACK_OFF_S * 2**self._troubles, LONGEST_BACK_OFF_S) if self._troubles else 0)
            self._courier.ready(Ready(self._courier.uuid, training.shape, training.schedule.total_steps, after))
        self._round = self._wait_for_round()
        self._needs_round = False
        self._round_since = time.monotonic()
        return events.RoundOpened()

    def meet(self, command: events.Meet) -> events.Met:
        """Join the round, and meet the others."""
        spec, training, opened = self._spec, self._training, self._opened
        seat = None
        if spec.world_size > 1:
            channel = self._registry.open_channel(
                spec.channel, generation=spec.generation, round_number=opened.number, rank=spec.rank
            )
            if self._faults.lie_in_channel():
                channel = ChaosChannel(channel, self._faults, lambda: self._step)
            seat = Seat(channel, (spec.generation, opened.number), spec.rank, spec.world_size, self._patience)
        self._joined = Membership(seat, training.shape)
        self._faults.reach("meeting", self._step)
        return events.Met(self._joined.meet(command.standing))

    def restore(self) -> events.Restored:
        """Load the checkpoint that the round names; where it names none, begin with a task as it is built."""
        self._courier.doing("loading", self._step)
        self._faults.reach("loading", self._step)
        if not self._training.is_fresh:
            self._release_task()
            self.build()
            self._courier.doing("loading", self._step)
        spec, training = self._spec, self._training
        found = restoring.agreed(
            self._store, self._opened.resume_from, spec.rank, spec.world_size, self._membership.gather
        )
        cursor = found.manifest.cursor if found else Cursor()
        if spec.rank == 0:
            self._saver.passed_over = [step for step in checkpoint.valid_steps(self._store) if step > cursor.step]
        if found:
            training.is_fresh = False
            training.stepping.load(found.shared, found.private, spec.world_size)
        self._step = cursor.step
        self._join()
        return events.Restored(cursor, found.manifest.best, found.manifest.goal) if found else events.Restored(cursor)

    def fetch(self, command: events.Fetch) -> events.Fetched:
        """Load what the donor serves."""
        self._courier.doing("loading", self._step, command.donor)
        self._faults.reach("loading", command.cursor.step)
        training = self._training
        state = self._membership.fetch(command.donor, command.cursor.step)
        self._step = command.cursor.step
        training.is_fresh, self._is_between_states = False, True
        training.stepping.take(state, self._spec.world_size)
        self._join()
        self._is_between_states = False
        if self._spec.sync.has_private:
            self._courier.rejoined(Rejoined(command.cursor.step, command.donor))
        return events.Fetched()

    def serve(self, command: events.Serve) -> events.Served:
        """Serve the state."""
        self._courier.doing("serving", self._step)
        state = self._training.stepping.offer()
        self._membership.serve(state, command.cursor.step, command.readers)
        self._join()
        return events.Served()

    def stay(self) -> events.Stayed:
        """Take part with the state that is here."""
        self._join()
        return events.Stayed()

    def forget(self) -> events.Forgotten:
        """Give up the step in hand, and leave the round."""
        self._training.stepping.forget()
        self._saver.give_up()
        with suppress(ChannelError):  # it may be what failed
            self._leave_round()
        has_state, self._is_between_states = not self._is_between_states, False
        return events.Forgotten(has_state)

    def compute(self, command: events.Compute) -> events.Computed:
        """Forward and backward over this rank's share, into memory that the others can read."""
        self._obey()
        cursor, training, membership = command.cursor, self._training, self._membership
        self._step = cursor.step
        self._courier.doing("computing", cursor.step)
        digest = 0
        if command.take_digest and not membership.is_alone:
            digest = checkpoint.xxh64_of(training.stepping.shared_state())
        batch = training.schedule.batch(self._order_of(cursor.epoch), cursor)
        indices = share(batch, self._spec.rank, self._spec.world_size)
        work = StepWork(cursor.step, cursor.epoch, indices, len(batch), training.schedule.ends_epoch(cursor))
        self._faults.reach("computing", cursor.step)
        loss = training.stepping.compute(work)
        self._faults.reach("computed", cursor.step)
        self._timer.lap("compute")
        wished = bool(self._courier.control.wish) or self._courier.orphaned
        return events.Computed(loss.sum, loss.weight, digest, time.monotonic(), wished, self._save_interval_s())

    def exchange(self, command: events.Exchange) -> events.Exchanged:
        """Publish the contribution and collect the sums."""
        if command.header.end:
            self._faults.reach("announcing", command.header.step)
        merged = self._training.stepping.exchange(command.header, last=command.last)
        self._faults.reach("consumed", command.header.step)
        self._membership.exchanged()
        self._troubles = 0
        self._timer.lap("sync")
        return events.Exchanged(merged)

    def commit(self, command: events.Commit) -> events.Committed:
        """Apply the step, unless its loss is not finite."""
        cursor, training = command.cursor, self._training
        training.is_fresh = False
        self._courier.doing("committing", cursor.step)
        loss = StepLoss(command.merged.loss_sum, command.merged.weight)
        training.stepping.commit(cursor.step, loss)
        self._timer.lap("commit")
        examples = training.schedule.size_at(cursor)
        record = self._timer.record(cursor.step, cursor.epoch, loss.mean, examples)
        traffic = self._membership.traffic()._asdict()
        self._courier.step(replace(record, ended=time.time(), round=self._opened.number, **traffic))
        self._step = cursor.step + 1
        if not self._saver.has_room:  # now that the optimizer has its state
            self._saver.make_room(training.stepping.shared_state(), training.stepping.private_state())
        self._faults.reach("committed", cursor.step)
        return events.Committed(time.monotonic())

    def evaluate(self, command: events.Evaluate) -> events.Evaluated:
        """Evaluate this rank's share; all ranks come to the same metrics."""
        training, cursor, started = self._training, command.cursor, time.monotonic()
        if training.shape.eval_examples == 0:
            return events.Evaluated({})
        self._courier.doing("evaluating", cursor.step)
        everything = np.arange(training.shape.eval_examples, dtype=np.int64)
        with training.stepping.shown():
            own = training.task.evaluate(share(everything, self._spec.rank, self._spec.world_size))
        self._faults.reach("evaluating", cursor.step)
        parts = self._membership.gather(wire.pack(own), "eval", cursor.step)
        metrics = training.task.finish_evaluation([wire.unpack(part, EvalPart) for part in parts])
        if self._spec.rank == 0:
            epoch = cursor.epoch if cursor.consumed else cursor.epoch - 1
            self._courier.evaluation(Evaluation(cursor.step, epoch, metrics, time.monotonic() - started))
        self._timer.restart()
        return events.Evaluated(metrics)

    def keep_best(self, command: events.KeepBest) -> events.BestKept:
        """Rank 0 writes the model, unless another process has taken its place and does."""
        if self._spec.rank == 0:
            self._courier.doing("saving", command.cursor.step)
            self._obey()
            self._write_model(layout.best(command.cursor.step))
            best.prune(self._store)
        return events.BestKept()

    def save(self, command: events.Save) -> events.Saved:
        """Copy this rank's share, which is then written beside the next steps; the last one is waited for."""
        cursor, stepping = command.cursor, self._training.stepping
        self._courier.doing("saving", cursor.step)
        attempt = checkpoint.Attempt(self._spec.generation, self._opened.number, cursor.step)
        order = Order(attempt, cursor, command.best, command.goal, command.last)
        if command.last:
            self._saver.give_up()
        self._saver.begin(order, stepping.shared_state(), stepping.private_state(), self._await_parts)
        if command.last:
            self._saver.finish(self._await_parts)
        self._timer.restart()
        return events.Saved(time.monotonic())

    def export(self, command: events.Export) -> events.Exported:
        """Rank 0 writes the model."""
        if self._spec.rank == 0:
            self._courier.doing("saving", command.cursor.step)
            self._faults.reach("exporting", command.cursor.step)
            self._obey()
            self._write_model(layout.MODEL)
        return events.Exported()

    def leave(self, command: events.Leave) -> None:
        """Sum up rank 0's state where the goal is reached, and part from the others."""
        cursor = command.cursor
        self.last_word = Left(command.reason)
        if cursor is None:
            return
        self._courier.doing("leaving", cursor.step)
        epoch = cursor.epoch + (cursor.consumed > 0)
        self.last_word = Left(command.reason, cursor.step, epoch, round=self._opened.number)
        private = self._private_digests(cursor.step) if command.reason != "ended" else []
        if self._spec.rank == 0 and command.reason != "ended":
            stepping = self._training.stepping
            with stepping.shown():
                weights = checkpoint.sha256_of(stepping.task.parameters())
            shared = stepping.shared_state()
            state = checkpoint.sha256_of(shared.arrays, shared.extra)
            if private:
                state = checkpoint.sha256_of_all([state, *private])
            self.last_word = replace(self.last_word, weights_sha256=weights, state_sha256=state)
        self._faults.reach("leaving", cursor.step)
        self._membership.part(cursor.step)

    def close(self) -> None:
        """Release the task and the channel, and give up what is being saved."""
        self._is_closing = True
        self._saver.close()
        self._release_task()
        self._leave_round()

    def _join(self) -> None:
        """Take part in the round's sums with the state that is here now."""
        self._training.stepping.join(self._membership.seat)
        self._timer.restart()

    def _save_interval_s(self) -> float:
        """How long rank 0 lets pass from one checkpoint to the next, where that is its own to decide."""
        if self._saver.is_busy:
            return math.inf
        if self._saver.was_given_up:
            return 0.0
        costs, control = self._saver.costs, self._courier.control
        observed_s = control.observed_s + time.monotonic() - self._round_since
        return save_interval_s(costs.stall_s, costs.upload_s, control.setbacks, observed_s)

    def _leave_round(self) -> None:
        joined, self._joined = self._joined, None
        if joined is not None:
            joined.close()

    def _release_task(self) -> None:
        if self._built is not None:
            self._built.stepping.close()
            self._built.task.close()
            self._built = None

    @property
    def _training(self) -> _Training:
        if self._built is None:
            raise ProtocolError("the task is not built yet")
        return self._built

    @property
    def _opened(self) -> Round:
        if self._round is None:
            raise ProtocolError("no round is open yet")
        return self._round

    @property
    def _membership(self) -> Membership:
        if self._joined is None:
            raise ProtocolError("no round is joined")
        return self._joined

    def _wait_for_round(self) -> Round:
        while True:
            if self._courier.is_quiet:
                self._faults.reach("ready", self._step)
            self._obey()
            if self._courier.orphaned:
                raise StopNow("stopped")
            opened = self._newer_round()
            if opened:
                return opened
            time.sleep(self._spec.beat_s / 10)

    def _newer_round(self) -> Round | None:
        """A round of this generation after the one this process is in, if there is one with this process in it.

        Raises:
            StopNow: there is one without it.
        """
        opened, spec = self._courier.control.round, self._spec
        number = -1 if self._round is None else self._round.number
        if opened is None or (opened.generation, opened.number) <= (spec.generation, number):
            return None
        if self._courier.is_member(opened):
            return opened
        if opened.generation == spec.generation and self._round is None:
            return None  # opened before this process was ready: it will be in a later one
        raise StopNow("superseded")

    def _obey(self) -> None:
        """Leave at once where the controller says so, or where another process has taken this one's place.

        Raises:
            StopNow: this process is not wanted any more.
            RoundOver: a newer round is open.
        """
        if self._courier.superseded:
            raise StopNow("superseded")
        if self._courier.control.stop_now or self._courier.control.closed:
            raise StopNow("stopped")
        if self._newer_round() and self._joined is not None:
            raise RoundOver

    def _is_unwanted(self) -> bool:
        """Whether nobody waits for what this process still does in the store."""
        control = self._courier.control
        return self._is_closing or self._courier.superseded or control.stop_now or control.closed

    def _patience(self, piece: str, peer: int) -> None:
        """While a peer is waited for: obey the controller; without one, do not wait for ever."""
        self._courier.doing(f"waiting for {piece}", self._step, peer)
        self._obey()
        if self._courier.orphaned_for_s > LOST_PEER_S:
            raise StopNow("stopped")

    def _await_parts(self) -> None:
        """While a checkpoint is waited for: another rank's part of it is like anything else that a peer has to give."""
        if self._saver.awaited >= 0:
            self._patience("part", self._saver.awaited)
        else:
            self._courier.doing("saving", self._step)
            self._obey()

    def _order_of(self, epoch: int) -> Indices:
        if self._order is None or self._order[0] != epoch:
            order, expected = self._training.task.order(epoch), self._training.schedule.examples
            if len(order) != expected:
                raise TaskError(
                    f"sampler gave {len(order)} examples for epoch {epoch}, {expected} were expected",
                    "return as many indices in every epoch",
                )
            self._order = (epoch, order)
        return self._order[1]

    def _write_model(self, key: str) -> None:
        with self._training.stepping.shown():
            arrays, aliases = self._training.task.model_arrays()
            checkpoint.write_model(self._store, key, arrays, aliases)

    def _private_digests(self, step: int) -> list[str]:
        """Of every rank's PRIVATE state, in rank order; none where there is none."""
        state = self._training.stepping.private_state()
        if state is None:
            return []
        own = checkpoint.sha256_of(state.arrays, state.extra)
        return [each.decode() for each in self._membership.gather(own.encode(), "private", step)]
