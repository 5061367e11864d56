"""Ranks of a generation in memory: their protocols are real, what they do is made up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from smlt.core import rank_events as events
from smlt.core.job import Job
from smlt.core.protocol import RankProtocol, Rules
from smlt.core.rank_events import Command, Event, Standing
from smlt.core.sampler import Cursor, Schedule
from smlt.core.sync.header import Header, merge


def job_of(**fields: Any) -> Job:
    return Job.model_validate({"task": "task.py:Task", **fields})


class OneRank:
    """The machine of one rank, told that all goes well until a test says otherwise.

    Args:
        job: what is trained.
        rank: whose machine.
        rules: of `Rules`, beside the job.

    Attributes:
        command: what it does now.
        commands: all it was asked to do.
        said: what the other ranks say in every exchange: `end` and `save` by the step.
        metrics: what an evaluation after so many steps gives.
    """

    def __init__(self, job: Job, rank: int = 0, examples: int = 64, **rules: Any) -> None:
        self.machine = RankProtocol(rank, Rules(job, **rules))
        self.job, self.examples = job, examples
        self.said: dict[int, Header] = {}
        self.metrics: Callable[[int], dict[str, float]] = lambda step: {"loss": 1.0 / (1 + step)}
        self.commands: list[Command] = []
        self.command = self.tell(events.Begun())

    def tell(self, event: Event) -> Command:
        """What it does now that this has happened."""
        self.command = self.machine.next(event)
        self.commands.append(self.command)
        return self.command

    def go(self, until: type[Command], step: int | None = None) -> OneRank:
        """All goes well until it is to do such a thing, or such a thing at such a step."""
        while not isinstance(self.command, until) or (step is not None and step_of(self.command) != step):
            self.tell(self._outcome(self.command))
        return self

    def change_round(self, *, has_state: bool = True) -> Standing:
        """Another round is open: it gives up what is in hand, and comes; returns where it says it stands."""
        self.tell(events.RoundChanged())
        self.tell(events.Forgotten(has_state))
        meet = self.tell(events.RoundOpened())
        assert isinstance(meet, events.Meet)
        return meet.standing

    def meet(self, *standings: Standing) -> Command:
        """All ranks of the round have come, and stand there."""
        return self.tell(events.Met(standings))

    def course(self) -> list[str]:
        """What it did since the last round began, like "compute 3"; without exchanges."""
        last = max(number for number, command in enumerate(self.commands) if isinstance(command, events.Meet))
        return [_short(command) for command in self.commands[last:] if hasattr(command, "cursor")]

    def _outcome(self, command: Command) -> Event:
        match command:
            case events.Meet(standing=standing):
                return events.Met([standing])
            case events.Exchange(header=header):
                return events.Exchanged(merge([header, self.said.get(header.step, Header(header.step))]))
        return outcome(command, self.job, self.examples, metrics=self.metrics)


@dataclass
class ModelRanks:
    """All ranks of one generation, in lockstep as the real ones are: nobody passes an exchange alone.

    Attributes:
        job, examples, world_size: what is trained, by how many.
        wishes: rank -> the step from which on it sees the controller's wish to end.
        metrics: what an evaluation after so many steps gives.
        step_s: how long a step takes by rank 0's clock; the other ranks' clocks are wrong.
        save_interval_s: what rank 0 is told of how often to save; the other ranks are told something else.
        cursor, best, goal: of the checkpoint that they begin with.
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
    goal: str = ""
    exchange_every: int = 1
    commands: list[list[Command]] = field(default_factory=list)

    def run(self) -> ModelRanks:
        """To the last word of all; `commands` is then each rank's."""
        rules = Rules(self.job, exchange_every=self.exchange_every)
        ranks = [RankProtocol(rank, rules) for rank in range(self.world_size)]
        self._now = 0.0
        self.commands = [[] for _ in ranks]
        happened: list[Event] = [events.Begun() for _ in ranks]
        while happened:
            given = [rank.next(event) for rank, event in zip(ranks, happened, strict=True)]
            for commands, command in zip(self.commands, given, strict=True):
                commands.append(command)
            assert len({type(command) for command in given}) == 1, "the ranks went apart"
            happened = self._outcomes(given)
        return self

    def course(self, rank: int = 0) -> list[str]:
        """What one rank did from its first step on, like "compute 3"; without exchanges."""
        return [_short(command) for command in self.commands[rank] if hasattr(command, "cursor")]

    def steps(self, name: str, rank: int = 0) -> list[int]:
        """At which steps a rank did something: "commit", "evaluate", "save", "keepbest"."""
        return [int(entry.split()[1]) for entry in self.course(rank) if entry.split()[0] == name]

    @property
    def last(self) -> events.Leave:
        """Rank 0's last command."""
        last = self.commands[0][-1]
        assert isinstance(last, events.Leave)
        return last

    def _outcomes(self, given: list[Command]) -> list[Event]:
        if isinstance(given[0], events.Leave):
            return []
        if isinstance(given[0], events.Exchange):
            headers = [command.header for command in given if isinstance(command, events.Exchange)]
            return [events.Exchanged(merge(headers)) for _ in given]
        if isinstance(given[0], events.Meet):
            standings = [command.standing for command in given if isinstance(command, events.Meet)]
            return [events.Met(standings) for _ in given]
        self._now += self.step_s if isinstance(given[0], events.Compute) else 0.0
        return [self._outcome(rank, command) for rank, command in enumerate(given)]

    def _outcome(self, rank: int, command: Command) -> Event:
        now = self._now if rank == 0 else 1e6 * rank - self._now
        match command:
            case events.Restore():
                return events.Restored(self.cursor, self.best, self.goal)
            case events.Compute(cursor=cursor, take_digest=take):
                wished = rank in self.wishes and cursor.step >= self.wishes[rank]
                interval_s = self.save_interval_s / (1 + rank)
                return events.Computed(float(rank), 1.0, 77 if take else 0, now, wished, interval_s)
        return outcome(command, self.job, self.examples, now, self.metrics)


def outcome(
    command: Command,
    job: Job,
    examples: int = 64,
    now: float = 0.0,
    metrics: Callable[[int], dict[str, float]] = lambda step: {"loss": 1.0 / (1 + step)},
) -> Event:
    """What comes of a command that does not need the other ranks, where all goes well."""
    match command:
        case events.Claim():
            return events.Claimed(won=True)
        case events.Build():
            return events.Built(Schedule.of(job, examples))
        case events.Restore():
            return events.Restored(Cursor())
        case events.Compute(take_digest=take):
            return events.Computed(0.0, 1.0, 77 if take else 0, now, wished=False)
        case events.Commit():
            return events.Committed(now)
        case events.Evaluate(cursor=cursor):
            return events.Evaluated(metrics(cursor.step))
        case events.Save():
            return events.Saved(now)
    return events.OUTCOME[type(command)]()


def step_of(command: Command) -> int | None:
    """At which step it is to be done; None where it has none."""
    if isinstance(command, events.Exchange):
        return command.header.step
    cursor: Cursor | None = getattr(command, "cursor", None)
    return None if cursor is None else cursor.step


def _short(command: Command) -> str:
    cursor: Cursor | None = getattr(command, "cursor", None)
    reason = f" {command.reason}" if isinstance(command, events.Leave) else ""
    return f"{type(command).__name__.lower()} {cursor.step if cursor else -1}{reason}"
