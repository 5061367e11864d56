"""Ranks of a generation in memory: their protocols are real, what they do is made up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from smlt.core import protocol
from smlt.core.job import Job
from smlt.core.protocol import Command, Event, RankProtocol, Rules
from smlt.core.sampler import Cursor, Schedule
from smlt.core.sync.header import merge


def job_of(**fields: Any) -> Job:
    return Job.model_validate({"task": "task.py:Task", **fields})


@dataclass
class ModelRanks:
    """All ranks of one generation, in lockstep as the real ones are: nobody passes an exchange alone.

    Attributes:
        job, examples, world_size: what is trained, by how many.
        wishes: rank -> the step from which on it sees the controller's wish to end.
        metrics: what an evaluation after so many steps gives.
        step_s: how long a step takes by rank 0's clock; the other ranks' clocks are wrong.
        cursor, best: what the ranks were built with.
        exchange_every: steps between two exchanges.
    """

    job: Job
    examples: int = 64
    world_size: int = 2
    wishes: Mapping[int, int] = field(default_factory=dict)
    metrics: Callable[[int], dict[str, float]] = lambda step: {"loss": 1.0 / (1 + step)}
    step_s: float = 1.0
    save_interval_s: float = 30.0
    cursor: Cursor = field(default_factory=Cursor)
    best: float | None = None
    exchange_every: int = 1
    commands: list[list[Command]] = field(default_factory=list)

    def run(self) -> ModelRanks:
        """To the last word of all; `commands` is then each rank's."""
        rules = Rules(self.job, save_interval_s=self.save_interval_s, exchange_every=self.exchange_every)
        ranks = [RankProtocol(rank, rules) for rank in range(self.world_size)]
        self._now = 0.0
        self.commands = [[] for _ in ranks]
        events: list[Event] = [protocol.Begun() for _ in ranks]
        while events:
            given = [rank.next(event) for rank, event in zip(ranks, events, strict=True)]
            for commands, command in zip(self.commands, given, strict=True):
                commands.append(command)
            assert len({type(command) for command in given}) == 1, "the ranks went apart"
            events = self._outcomes(given)
        return self

    def course(self, rank: int = 0) -> list[str]:
        """What one rank did from its first step on, like "compute 3"; without exchanges."""
        return [_short(command) for command in self.commands[rank] if hasattr(command, "cursor")]

    def steps(self, name: str, rank: int = 0) -> list[int]:
        """At which steps a rank did something: "commit", "evaluate", "save", "keepbest"."""
        return [int(entry.split()[1]) for entry in self.course(rank) if entry.split()[0] == name]

    @property
    def last(self) -> protocol.Leave:
        """Rank 0's last command."""
        last = self.commands[0][-1]
        assert isinstance(last, protocol.Leave)
        return last

    def _outcomes(self, given: list[Command]) -> list[Event]:
        if isinstance(given[0], protocol.Leave):
            return []
        if isinstance(given[0], protocol.Exchange):
            headers = [command.header for command in given if isinstance(command, protocol.Exchange)]
            return [protocol.Exchanged(merge(headers)) for _ in given]
        self._now += self.step_s if isinstance(given[0], protocol.Compute) else 0.0
        return [self._outcome(rank, command) for rank, command in enumerate(given)]

    def _outcome(self, rank: int, command: Command) -> Event:
        now = self._now if rank == 0 else 1e6 * rank - self._now
        match command:
            case protocol.Claim():
                return protocol.Claimed(won=True)
            case protocol.Build():
                return protocol.Built(Schedule.of(self.job, self.examples), self.cursor, self.best)
            case protocol.AwaitRound():
                return protocol.RoundOpened()
            case protocol.Compute(cursor=cursor, take_digest=take):
                wished = rank in self.wishes and cursor.step >= self.wishes[rank]
                return protocol.Computed(float(rank), 1.0, 77 if take else 0, now, wished)
            case protocol.Commit():
                return protocol.Committed(now)
            case protocol.Evaluate(cursor=cursor):
                return protocol.Evaluated(self.metrics(cursor.step))
            case protocol.KeepBest():
                return protocol.BestKept()
            case protocol.Save():
                return protocol.Saved(now)
        assert isinstance(command, protocol.Export)
        return protocol.Exported()


def _short(command: Command) -> str:
    cursor: Cursor | None = getattr(command, "cursor", None)
    reason = f" {command.reason}" if isinstance(command, protocol.Leave) else ""
    return f"{type(command).__name__.lower()} {cursor.step if cursor else -1}{reason}"
