"""A worker's line to its controller: one thread that carries mail out, control in, and notices when nobody is there.

The training thread only looks at memory; all waiting for the object store happens here.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field

from smlt.core import layout, wire
from smlt.core.backend import RankSpec
from smlt.core.errors import NotFound, ProtocolError, StorageError
from smlt.core.lease import LEAVE_S, hard_grace_s
from smlt.core.messages import (
    CheckpointDone,
    Control,
    Evaluation,
    Failure,
    Left,
    Mail,
    Ready,
    Rejoined,
    Round,
    StepRecord,
)
from smlt.core.patient_store import PATIENCE_S, PatientStore
from smlt.core.storage import ObjectStore

SILENT_BEAT_S = 0.5
"""A beat goes out at least so often, also when there is nothing to say."""

SLOW_S = 1.0
"""A store that has not answered for so long is out of reach."""


@dataclass
class _Outbox:
    """What has gathered for the next mail."""

    ready: Ready | None = None
    output: list[str] = field(default_factory=list)
    steps: list[StepRecord] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    checkpoints: list[CheckpointDone] = field(default_factory=list)
    rejoined: list[Rejoined] = field(default_factory=list)
    failure: Failure | None = None
    left: Left | None = None

    def is_empty(self) -> bool:
        return not any(vars(self).values())


class _Reach:
    """For how long the store could not be asked anything; a span begins with the first request that failed."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._has_failed = False
        self._total_s = self._forgotten_s = 0.0

    def asked(self, now: float) -> None:
        """A request begins."""
        self._since = now if self._since is None else self._since

    def failed(self) -> None:
        """It failed."""
        self._has_failed = True

    def answered(self, now: float) -> None:
        """It was answered."""
        self._total_s, self._since, self._has_failed = self.total_s(now), None, False

    def forget(self) -> None:
        """The controller was heard of: what was before does not count."""
        self._forgotten_s = self._total_s

    def lost_s(self, now: float) -> float:
        """Seconds out of reach since the controller was heard of."""
        return self.total_s(now) - self._forgotten_s

    def total_s(self, now: float) -> float:
        """Seconds out of reach, in all."""
        span_s = 0.0 if self._since is None else now - self._since
        return self._total_s + (span_s if self._has_failed or span_s > SLOW_S else 0.0)


class Courier:
    """Carries one worker's mail.

    Args:
        store: the run's object store.
        spec: whose mail.
        clock: monotonic seconds.
        leave: called where the process must end although its training thread does not react.
        sleep: between two tries of the last word.

    Attributes:
        uuid: of this process; a platform's retry of the same incarnation has another one.
    """

    def __init__(
        self,
        store: ObjectStore,
        spec: RankSpec,
        clock: Callable[[], float],
        leave: Callable[[int], None] = os._exit,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store, self._spec, self._clock, self._leave = store, spec, clock, leave
        self.uuid = uuid.uuid4().hex
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._news = threading.Event()
        self._stopping = threading.Event()
        self._outbox = _Outbox()
        self._unsent: bytes | None = None
        self._sent = 0
        self._phase, self._step, self._awaits = "starting", 0, -1
        self._phase_since, self._lost_before_phase_s = clock(), 0.0
        self._control = Control(epoch=spec.controller_epoch)
        self._last_beat = (spec.controller_epoch, -1)
        self._heard_at = self._leased_at = self._told_at = clock()
        self._reach, self._reaching_s = _Reach(), 0.0
        self._sleep = sleep
        self._mailed_at = clock() - SILENT_BEAT_S
        self._thread = threading.Thread(target=self._run, name="smlt-courier", daemon=True)

    def is_member(self, opened: Round | None) -> bool:
        """Whether this process is in a round."""
        spec = self._spec
        return (
            opened is not None
            and opened.generation == spec.generation
            and opened.members[spec.rank : spec.rank + 1] == (self.uuid,)
        )

    def start(self) -> None:
        """Begin to carry."""
        self._thread.start()

    @property
    def control(self) -> Control:
        """The newest word of the controller."""
        return self._control

    @property
    def orphaned(self) -> bool:
        """Whether no controller has been heard of for longer than the grace."""
        return self.orphaned_for_s > 0

    @property
    def orphaned_for_s(self) -> float:
        """Seconds since the grace ended; 0 while a controller is heard of."""
        return max(0.0, self._silence_s - self._spec.orphan_grace_s)

    @property
    def _silence_s(self) -> float:
        """Seconds since the controller was heard of, but for those in which the store was out of reach, up to a bound:
        the controller may be well, and its beats wait as this worker's do.
        """
        now = self._clock()
        return now - self._heard_at - min(PATIENCE_S, self._reach.lost_s(now))

    @property
    def superseded(self) -> bool:
        """Whether another controller than that which launched this process is in charge, and does not go on with it."""
        return self._control.epoch > self._spec.controller_epoch and not self.is_member(self._control.round)

    @property
    def is_quiet(self) -> bool:
        """Whether all that was to be said is said."""
        with self._lock:
            return self._unsent is None and self._outbox.is_empty()

    def doing(self, phase: str, step: int, awaits: int = -1) -> None:
        """Say what the worker is doing now."""
        if phase != self._phase:
            self._phase_since = self._clock()
            self._lost_before_phase_s = self._reach.total_s(self._phase_since)
        self._phase, self._step, self._awaits = phase, step, awaits

    def reaching_s(self) -> float:
        """Monotonic seconds, less those in which the store was out of reach."""
        now = self._clock()
        self._reaching_s = max(self._reaching_s, now - self._reach.total_s(now))  # a span is known for one afterwards
        return self._reaching_s

    def print(self, text: str) -> None:
        """A line that the task printed."""
        with self._lock:
            self._outbox.output.append(text)

    def ready(self, ready: Ready) -> None:
        """The worker waits for a round."""
        with self._lock:
            self._outbox.ready = ready
        self._news.set()

    def step(self, record: StepRecord) -> None:
        """A step is committed; goes out with the next beat."""
        with self._lock:
            self._outbox.steps.append(record)

    def evaluation(self, evaluation: Evaluation) -> None:
        """An evaluation is done."""
        with self._lock:
            self._outbox.evaluations.append(evaluation)

    def checkpoint(self, done: CheckpointDone) -> None:
        """A checkpoint is complete."""
        with self._lock:
            self._outbox.checkpoints.append(done)

    def rejoined(self, rejoined: Rejoined) -> None:
        """This rank has begun anew."""
        with self._lock:
            self._outbox.rejoined.append(rejoined)

    def tell(self) -> None:
        """Send now what has gathered; returns once it is where the controller finds it.

        Raises:
            StorageError: it could not be sent, and stays.
        """
        while self._send():
            pass

    def finish(self, *, left: Left | None = None, failure: Failure | None = None) -> None:
        """End the thread, and send the last word and all that has gathered."""
        with self._lock:
            self._outbox.left, self._outbox.failure = left, failure
        self._stopping.set()
        self._news.set()
        if self._thread.is_alive():
            self._thread.join()
        self._send_last()

    def carry(self) -> None:
        """Once around: control in, mail out, and a look at whether anybody is there."""
        try:
            self._listen()
            self._send()
        except (StorageError, ProtocolError):
            pass  # out of reach, or another smlt's: what is pending stays; silence is judged by `orphaned`
        self._watch()

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._news.wait(self._spec.beat_s)
            self._news.clear()
            self.carry()

    def _listen(self) -> None:
        self._reach.asked(self._clock())
        try:
            data = self._store.get(layout.CONTROL)
        except NotFound:
            self._reach.answered(self._clock())
            return
        except StorageError:
            self._reach.failed()
            raise
        self._reach.answered(self._clock())
        control = wire.unpack(data, Control)
        if control.epoch < self._control.epoch:
            return
        if (control.epoch, control.beat) != self._last_beat:
            self._last_beat, self._control = (control.epoch, control.beat), control
            if self.superseded:
                return  # whoever is in charge has not committed money for this process
            self._heard_at = self._clock()
            self._reach.forget()
            if not control.is_deciding:
                self._leased_at = self._heard_at
        self._control = control

    def _send(self) -> bool:
        """Send one mail, if there is something to say; returns whether there was.

        A mail whose writing failed may have been written all the same, and read. It is sent again as it was, under its
        number, so that it is read once; what has gathered meanwhile comes in the next.
        """
        with self._sending:
            with self._lock:
                self._unsent = self._unsent or self._next_mail()
            if self._unsent is None:
                return False
            spec = self._spec
            self._store.put(layout.mail(spec.generation, spec.rank, spec.incarnation, self._sent), self._unsent)
            self._unsent = None
            self._sent += 1
            self._mailed_at = self._clock()
            return True

    def _next_mail(self) -> bytes | None:
        if self._outbox.is_empty() and self._clock() - self._mailed_at < SILENT_BEAT_S:
            return None
        outbox, self._outbox = self._outbox, _Outbox()
        return wire.pack(
            Mail(
                phase=self._phase,
                step=self._step,
                awaits=self._awaits,
                phase_s=self._phase_s,
                ready=outbox.ready,
                output=tuple(outbox.output),
                steps=tuple(outbox.steps),
                evaluations=tuple(outbox.evaluations),
                checkpoints=tuple(outbox.checkpoints),
                rejoined=tuple(outbox.rejoined),
                failure=outbox.failure,
                left=outbox.left,
            )
        )

    @property
    def _phase_s(self) -> float:
        """Seconds in the phase, but for those in which the store, for which it may wait, was out of reach."""
        now = self._clock()
        return now - self._phase_since - (self._reach.total_s(now) - self._lost_before_phase_s)

    def _send_last(self) -> None:
        """Nothing else is left to do, so this is the place to be patient; as long as anybody may be listening."""
        patient = PatientStore(self._store, clock=self._clock, sleep=self._sleep, is_over=self._has_no_lease)
        try:
            patient.persist(self.tell)
        except StorageError as error:  # the platform's log is all that is left to say it in
            print(f"the last word of {self._spec.label} could not be sent: {error}", file=sys.stderr)

    def _has_no_lease(self) -> bool:
        """Whether nobody has committed money for this function any more."""
        return self._clock() - self._leased_at > self._spec.lease_s

    def _watch(self) -> None:
        if not self._control.stop_now:
            self._told_at = self._clock()
        if (
            self._clock() - self._told_at > LEAVE_S
            or self._has_no_lease()
            or self._silence_s > hard_grace_s(self._spec.orphan_grace_s)
        ):
            self._leave(0)
