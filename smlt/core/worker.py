"""WORKER interface, and the step loop that runs inside a function: do what the rank's protocol says, and report."""

from __future__ import annotations

from abc import ABC, abstractmethod

from smlt.core import protocol
from smlt.core.errors import ProtocolError


class StopNow(Exception):
    """The worker must leave at once, without a checkpoint; `reason` as in `smlt.core.messages.Left`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Worker(ABC):
    """One rank's hands: performs the commands of a `RankProtocol`, one at a time, and says what came of each.

    The function's worker trains; a simulator's pretends to. Any method may raise `StopNow`.
    """

    def perform(self, command: protocol.Command) -> protocol.Event:
        """Do one command and return its outcome; raises ProtocolError for `Leave`, which has none."""
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
                return self.keep_best(command)
            case protocol.Save():
                return self.save(command)
            case protocol.Export():
                return self.export(command)
            case protocol.Leave():
                raise ProtocolError("leaving has no outcome")

    @abstractmethod
    def claim(self) -> protocol.Claimed:
        """Become the one process that is this incarnation of this rank, if no other was quicker."""

    @abstractmethod
    def build(self) -> protocol.Built:
        """Build the task, and load the state to go on from."""

    @abstractmethod
    def await_round(self) -> protocol.RoundOpened:
        """Say READY, and wait for a round with this process in it."""

    @abstractmethod
    def compute(self, command: protocol.Compute) -> protocol.Computed:
        """Forward and backward over this rank's share of the global batch."""

    @abstractmethod
    def exchange(self, command: protocol.Exchange) -> protocol.Exchanged:
        """Send this rank's contribution, and collect the sums over all."""

    @abstractmethod
    def commit(self, command: protocol.Commit) -> protocol.Committed:
        """Apply the step; raises NonFiniteLoss, with nothing applied, where the global loss is no number."""

    @abstractmethod
    def evaluate(self, command: protocol.Evaluate) -> protocol.Evaluated:
        """Evaluate this rank's share, and gather the metrics of all; the same on every rank."""

    @abstractmethod
    def keep_best(self, command: protocol.KeepBest) -> protocol.BestKept:
        """Keep the model as the best so far."""

    @abstractmethod
    def save(self, command: protocol.Save) -> protocol.Saved:
        """Write this rank's part of the state; return once the checkpoint is valid."""

    @abstractmethod
    def export(self, command: protocol.Export) -> protocol.Exported:
        """Write the trained model."""

    @abstractmethod
    def leave(self, command: protocol.Leave) -> None:
        """Say the last word, once no other rank needs anything of this one."""


def drive(worker: Worker, rank: protocol.RankProtocol) -> None:
    """The step loop: from the first claim to the last word."""
    event: protocol.Event = protocol.Begun()
    while True:
        command = rank.next(event)
        if isinstance(command, protocol.Leave):
            worker.leave(command)
            return
        event = worker.perform(command)
