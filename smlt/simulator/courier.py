"""The model of a worker's line to its controller, as `smlt.core.courier` is: mail out, control in, and who is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from smlt.core.lease import LEAVE_S, hard_grace_s
from smlt.core.messages import Control, Evaluation, Failure, Left, Ready, StepRecord
from smlt.simulator.store import Extras, Letter

if TYPE_CHECKING:
    from smlt.simulator.process import Process


class ModelCourier:
    """Carries one process's mail.

    Attributes:
        control: the newest word of the controller that has come here.
        heard_at_s: when the controller's beat was last seen to grow.
        told_at_s: when this process had last not been told to leave at once.
        deaf_until_s: until then nothing comes in.
        busy_until_s: until then a request of the courier's hangs, and it does nothing else.
        doubles, loses: so many of the next mails are written twice; are told to have failed although they may not have.
    """

    __slots__ = (
        "busy_until_s",
        "checkpoints",
        "control",
        "deaf_until_s",
        "doubles",
        "evaluations",
        "heard_at_s",
        "loses",
        "process",
        "ready",
        "sent",
        "steps",
        "told_at_s",
        "unsent",
    )

    def __init__(self, process: Process, epoch: int, now: float) -> None:
        self.process = process
        self.control = Control(epoch=epoch)
        self.heard_at_s = self.told_at_s = now
        self.deaf_until_s = self.busy_until_s = -1.0
        self.doubles = self.loses = 0
        self.sent = 0
        self.ready: Ready | None = None
        self.steps: list[StepRecord] = []
        self.evaluations: list[Evaluation] = []
        self.checkpoints: list[tuple[int, float]] = []
        self.unsent: Letter | None = None

    @property
    def orphaned_for_s(self) -> float:
        """Seconds since the grace ended."""
        world = self.process.world
        return world.timeline.now - self.heard_at_s - world.orphan_grace_s

    def carry(self) -> None:
        """Once around; the process may be over afterwards."""
        process = self.process
        world = process.world
        store, now = world.store, world.timeline.now
        if now < self.busy_until_s:
            return
        if not store.fails_now:
            control = store.control
            if control is not self.control and control.epoch >= self.control.epoch and now >= self.deaf_until_s:
                is_news = (control.epoch, control.beat) != (self.control.epoch, self.control.beat)
                if is_news and not process.is_superseded_by(control):
                    self.heard_at_s = now
                changed = (
                    control.round is not self.control.round
                    or control.epoch != self.control.epoch
                    or control.stop_now != self.control.stop_now
                    or control.closed != self.control.closed
                )
                self.control = control
                if changed:
                    process.heed()
            if process.is_alive:
                self.send()
        if not self.control.stop_now:
            self.told_at_s = now
        if now - self.told_at_s > LEAVE_S and process.is_alive:
            process.exit("it left the hard way: it was told to")
            return
        orphaned_s = now - self.heard_at_s - world.orphan_grace_s
        if orphaned_s > 0 and process.is_alive:
            if now - self.heard_at_s > min(world.lease_s, hard_grace_s(world.orphan_grace_s)):
                process.exit("it left the hard way: no controller")
            else:
                process.heed()

    def send(self, failure: Failure | None = None, left: Left | None = None) -> None:
        """One mail: the one that could not be sent before, or what has gathered."""
        letter = self.unsent or self._next(failure, left)
        process = self.process
        world = process.world
        delay_s = world.timing.store_s
        if world.timeline.now < self.busy_until_s:
            delay_s += self.busy_until_s - world.timeline.now
        if self.loses:
            self.loses -= 1
            self.unsent = letter
            if world.rng.random() < 0.5:
                world.store.post(letter, delay_s)
            return
        self.unsent = None
        self.sent += 1
        world.store.post(letter, delay_s)
        if self.doubles:
            self.doubles -= 1
            world.store.post(letter, delay_s + world.rng.uniform(0.0, 5.0))

    def tell(self) -> bool:
        """Send now what has gathered; whether that is where the controller finds it now."""
        if self.process.world.store.fails_now:
            return False
        if self.unsent or self.steps or self.ready or self.evaluations or self.checkpoints:
            self.send()
        return self.unsent is None

    def finish(self, failure: Failure | None, left: Left | None) -> None:
        """Send all that has gathered, and the last word; three tries, as the real one."""
        for _ in range(4):
            pending = self.unsent is not None
            if self.process.world.store.fails_now:
                continue
            self.send(failure, left)
            if not pending and self.unsent is None:
                return

    def _next(self, failure: Failure | None, left: Left | None) -> Letter:
        process = self.process
        formation = process.formation
        if formation is not None:
            formation.report(process)
        extras = None
        if self.ready or self.steps or self.evaluations or self.checkpoints or failure or left:
            extras = Extras(
                self.ready, tuple(self.steps), tuple(self.evaluations), tuple(self.checkpoints), failure, left
            )
            self.ready, self.steps, self.evaluations, self.checkpoints = None, [], [], []
        now = process.world.timeline.now
        phase_s = now - process.phase_since_s
        return Letter(process.address, self.sent, process.phase, process.step, process.awaits(), phase_s, extras)
