"""WORKER interface, and the step loop that runs inside a function: do what the rank's protocol says, and report."""

from __future__ import annotations

from abc import ABC, abstractmethod

from smlt.core import rank_events as events
from smlt.core.protocol import RankProtocol


class StopNow(Exception):
    """The worker must leave at once, without a checkpoint; `reason` as in `smlt.core.messages.Left`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RoundOver(Exception):
    """The round is dead: another one is open, or must be opened. What is being done is given up."""


class Worker(ABC):
    """One rank's hands: performs the commands of a `RankProtocol`, one at a time, and says what came of each.

    Any method may raise `StopNow`; and any that takes part in a round, `RoundOver`.
    """

    def perform(self, command: events.Command) -> events.Event | None:
        """Do one command and return its outcome; None after `Leave`, which has none."""
        match command:
            case events.Claim():
                return self.claim()
            case events.Build():
                return self.build()
            case events.AwaitRound():
                return self.await_round()
            case events.Meet():
                return self.meet(command)
            case events.Restore():
                return self.restore()
            case events.Fetch():
                return self.fetch(command)
            case events.Serve():
                return self.serve(command)
            case events.Stay():
                return self.stay()
            case events.Forget():
                return self.forget()
            case events.Compute():
                return self.compute(command)
            case events.Exchange():
                return self.exchange(command)
            case events.Commit():
                return self.commit(command)
            case events.Evaluate():
                return self.evaluate(command)
            case events.KeepBest():
                return self.keep_best(command)
            case events.Save():
                return self.save(command)
            case events.Export():
                return self.export(command)
            case events.Leave():
                return self.leave(command)

    @abstractmethod
    def claim(self) -> events.Claimed:
        """Become the one process that is this incarnation of this rank, if no other was quicker."""

    @abstractmethod
    def build(self) -> events.Built:
        """Build the task; beside a generation that trains, warm it up, too."""

    @abstractmethod
    def await_round(self) -> events.RoundOpened:
        """Say READY, and wait for a round with this process in it."""

    @abstractmethod
    def meet(self, command: events.Meet) -> events.Met:
        """Join the round; returns once all ranks have come."""

    @abstractmethod
    def restore(self) -> events.Restored:
        """Take over the state of the checkpoint that the round names, or begin at the beginning."""

    @abstractmethod
    def fetch(self, command: events.Fetch) -> events.Fetched:
        """Take over the donor's SHARED state."""

    @abstractmethod
    def serve(self, command: events.Serve) -> events.Served:
        """Serve the SHARED state to the ranks that need it."""

    @abstractmethod
    def stay(self) -> events.Stayed:
        """Go on with the state that is here."""

    @abstractmethod
    def forget(self) -> events.Forgotten:
        """Give up the step in hand, and leave the round; the state is that of the last commit, or none."""

    @abstractmethod
    def compute(self, command: events.Compute) -> events.Computed:
        """Forward and backward over this rank's share of the global batch."""

    @abstractmethod
    def exchange(self, command: events.Exchange) -> events.Exchanged:
        """Send this rank's contribution, and collect the sums over all."""

    @abstractmethod
    def commit(self, command: events.Commit) -> events.Committed:
        """Apply the step; where it raises RoundOver, or NonFiniteLoss for a global loss, nothing was applied."""

    @abstractmethod
    def evaluate(self, command: events.Evaluate) -> events.Evaluated:
        """Evaluate this rank's share, and gather the metrics of all; the same on every rank."""

    @abstractmethod
    def keep_best(self, command: events.KeepBest) -> events.BestKept:
        """Keep the model as the best so far."""

    @abstractmethod
    def save(self, command: events.Save) -> events.Saved:
        """Copy this rank's part of the state, to be written beside the training; wait for it if it is the last one."""

    @abstractmethod
    def export(self, command: events.Export) -> events.Exported:
        """Write the trained model."""

    @abstractmethod
    def leave(self, command: events.Leave) -> None:
        """Say the last word, once no other rank needs anything of this one."""


def drive(worker: Worker, rank: RankProtocol) -> None:
    """The step loop: from the first claim to the last word."""
    event: events.Event | None = events.Begun()
    while event is not None:
        command = rank.next(event)
        try:
            event = worker.perform(command)
        except RoundOver:
            event = events.RoundChanged()
