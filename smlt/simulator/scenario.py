"""What one simulated run is: its size, its times, its limits and its faults; all of it drawn from a seed, or given."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from random import Random

from smlt.core.errors import ConfigError, nearest

POINTS = (
    "claim",
    "build",
    "ready",
    "meet",
    "restore",
    "fetch",
    "serve",
    "compute",
    "contributed",
    "reduced",
    "commit",
    "evaluate",
    "save",
    "saving",
    "manifest",
    "saved",
    "export",
    "leave",
    "parted",
)
"""Named places of the protocol at which a fault can strike a rank."""

TOGETHER = frozenset({"compute", "contributed", "reduced", "commit", "evaluate", "save"})
"""Those which ranks that step together do not come to one by one."""

PROCESS_FAULTS = (
    "kill", "hang", "freeze", "slow", "skew", "late_mail", "doubled_mail", "lost_mail", "deaf", "unplug",
    "out_of_memory",
)  # fmt: skip
"""Kinds that strike one process."""
DRAWN_LAST = ("out_of_memory", "longer_steps")
"""Kinds that are drawn after all others, so that a seed's other faults are what they were before there were these."""
WORLD_FAULTS = (
    "retry",
    "never_ready",
    "store_down",
    "store_errors",
    "channel_restart",
    "launch_failure",
    "throttle",
    "controller_crash",
    "two_controllers",
    "massacre",
    "damage",
)
"""Kinds that strike something that is shared."""
WISHES = ("scale", "cancel", "longer_steps")
"""Not faults, but what users do meanwhile, and what their jobs do: steps that take longer from now on."""
KINDS = PROCESS_FAULTS + WORLD_FAULTS + WISHES
"""Everything that can be asked for."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        kind: one of `KINDS`.
        at_s: when; a fault with a `point` waits from then on for a process to come there.
        rank: whose, modulo the number of ranks.
        point: one of `POINTS`; empty for "at once".
        step: a fault with a `point` strikes at this step or later.
        seconds: how long it lasts.
        factor: how many times slower; how many functions; how far a clock is off; how many times the memory.
    """

    kind: str
    at_s: float = 0.0
    rank: int = 0
    point: str = ""
    step: int = 0
    seconds: float = 0.0
    factor: float = 1.0

    def __str__(self) -> str:
        where = f" at {self.point!r} from step {self.step}" if self.point else ""
        size = f"{self.seconds:.1f} s, factor {self.factor:.1f}"
        return f"{self.kind} from {self.at_s:.1f} s, rank {self.rank}{where}, {size}"


@dataclass(frozen=True)
class Timing:
    """How long things take, in seconds; each is drawn anew around its value, evenly.

    Attributes:
        start_s, build_s: until a launched function runs; until it has built its task.
        step_s, exchange_s: forward and backward; from the last contribution to the sums.
        save_s, load_s, evaluate_s: one rank's part of the state; all of it; one evaluation.
        store_s, channel_s: one request.
        beat_s, look_s: between two beats of a worker; between two looks of the controller.
        detect_s: until the platform tells that a function is over.
        spread: what is drawn lies within this part of the value on both sides.
    """

    start_s: float = 2.0
    build_s: float = 1.5
    step_s: float = 1.0
    exchange_s: float = 0.1
    save_s: float = 0.5
    load_s: float = 0.4
    evaluate_s: float = 0.5
    store_s: float = 0.02
    channel_s: float = 0.005
    beat_s: float = 1.0
    look_s: float = 0.5
    detect_s: float = 0.3
    spread: float = 0.2

    @property
    def state_write_s(self) -> float:
        """To set aside for writing the state: until a wish is read, and until the last word is, takes beats."""
        return 2.0 + 2.5 * self.beat_s

    @classmethod
    def of(cls, workers: int) -> Timing:
        """Times for so many workers: the more they are, the more seldom they report."""
        beat_s = 1.0 if workers < 50 else 2.0 if workers < 300 else 5.0 if workers < 2000 else 20.0
        return cls(beat_s=beat_s, look_s=beat_s / 2)


PERIODS = (1, 2, 4, 7, 12)
"""Steps from one exchange to the next, where they are not at every step."""

MEMORY_MIB = 1024
"""Of the functions that a run begins with."""


@dataclass(frozen=True)
class Scenario:
    """One simulated run.

    Attributes:
        seed: of all that is drawn while it runs.
        workers, max_workers: functions of the first generation; that may live at once.
        steps: of the job.
        faults: what goes wrong.
        timing: how long things take.
        time_limit_s, budget_usd, deadline_s: limits; None for none.
        usd_per_function_s: what a function of the first size costs a second; a larger one costs as much more.
        memory_choices_mib: sizes on offer.
        exchange_every, has_private, recovers_fast: as in `smlt.core.protocol.Rules`.
        eval_every, save_every: steps between evaluations and between checkpoints; 0 for by time.
        save_interval_s: the time.
        successor_s: a crashed controller has a successor after so many seconds.
        can_kill: whether the platform can end a function; otherwise a function ends by itself or at its time limit.
        adopts: whether a controller may go on with the functions of the one before; otherwise it begins a generation.
        together: whether ranks that nothing distinguishes are stepped together; see `smlt.simulator.formation`.
    """

    seed: int
    workers: int
    steps: int
    max_workers: int = 0
    faults: tuple[Fault, ...] = ()
    timing: Timing = field(default_factory=Timing)
    time_limit_s: float | None = None
    budget_usd: float | None = None
    deadline_s: float | None = None
    usd_per_function_s: float = 1e-4
    memory_choices_mib: tuple[int, ...] = (MEMORY_MIB, 2 * MEMORY_MIB, 4 * MEMORY_MIB, 10 * MEMORY_MIB)
    exchange_every: int = 1
    has_private: bool = False
    recovers_fast: bool = False
    eval_every: int = 10
    save_every: int = 0
    save_interval_s: float = 10.0
    successor_s: float = 6.0
    can_kill: bool = True
    adopts: bool = True
    together: bool = True

    @classmethod
    def random(
        cls,
        seed: int,
        *,
        workers: int | None = None,
        steps: int | None = None,
        kinds: Sequence[str] = KINDS,
        time_limit_s: float | None = None,
        budget_usd: float | None = None,
    ) -> Scenario:
        """A run drawn from a seed.

        Args:
            seed: of everything.
            workers: how many; drawn from 1 to 1000, as many below 32 as above, where not given.
            steps: how many; the fewer the more workers there are, where not given.
            kinds: of faults, of which some are drawn.
            time_limit_s, budget_usd: limits; drawn for some runs where not given.
        """
        rng = Random(seed)
        size = workers or round(math.exp(rng.uniform(0.0, math.log(1000.0))))
        length = steps or max(8, round(rng.uniform(25, 60) / size**0.25))
        private = rng.random() < 0.25
        scenario = cls(
            seed=seed,
            workers=size,
            steps=length,
            max_workers=rng.choice((size, 2 * size, 3 * size)),
            timing=replace(
                Timing.of(size),
                start_s=rng.uniform(0.5, 4.0),
                step_s=rng.uniform(0.5, 2.0),
                save_s=rng.uniform(0.1, 2.0),
                spread=rng.uniform(0.0, 0.5),
            ),
            usd_per_function_s=math.exp(rng.uniform(math.log(1e-6), math.log(1e-3))),
            has_private=private,
            exchange_every=rng.choice(PERIODS) if private else 1,
            eval_every=rng.choice((3, 7, 1000)),
            save_every=rng.choice((0, 0, 4)),
            save_interval_s=10.0 if size < 2000 else 60.0,
            can_kill=rng.random() < 0.7,
            adopts=rng.random() < 0.7,
            together=size > 40 or rng.random() < 0.5,
        )
        scenario = replace(scenario, time_limit_s=time_limit_s, budget_usd=budget_usd)
        likely_s = scenario.least_s
        if time_limit_s is None and "time_limit" in kinds and rng.random() < 0.3:
            scenario = replace(scenario, time_limit_s=rng.uniform(25.0, 25.0 + likely_s))
        if scenario.time_limit_s is None:
            scenario = replace(scenario, can_kill=True)  # where nothing else ends a function, the platform can
        if budget_usd is None and "budget" in kinds and rng.random() < 0.3:
            enough = size * likely_s * scenario.usd_per_function_s
            scenario = replace(scenario, budget_usd=enough * rng.uniform(0.05, 2.0))
        if "deadline" in kinds and rng.random() < 0.1:
            scenario = replace(scenario, deadline_s=likely_s * rng.uniform(0.5, 1.5))
        chosen = [kind for kind in kinds if kind in KINDS and kind not in DRAWN_LAST]
        count = min(6, int(rng.expovariate(0.5))) if chosen else 0
        faults = [_drawn(rng, rng.choice(chosen), scenario) for _ in range(count)]
        scenario = replace(scenario, recovers_fast=private and rng.random() < 0.5)
        faults += [_drawn(rng, kind, scenario) for kind in DRAWN_LAST if kind in kinds and rng.random() < 0.2]
        scenario = replace(scenario, faults=tuple(faults))
        return scenario.with_little_room(rng) if "quota" in kinds and rng.random() < 0.2 else scenario

    def with_little_room(self, rng: Random) -> Scenario:
        """The same under a time limit, and with room for some functions more, but not for another generation."""
        turn_s = 1.5 * (self.timing.start_s + self.timing.build_s) * (1 + self.timing.spread) + 2 * self.timing.step_s
        limit_s = rng.uniform(25.0, 25.0 + 4 * self.workers * turn_s)
        room = rng.randint(1, max(1, self.workers - 1))
        steps = self.steps if self.workers > 20 else self.steps * rng.randint(1, 4)
        can_kill = self.can_kill or self.budget_usd is not None  # who hangs where nobody can end it spends to its limit
        return replace(self, time_limit_s=limit_s, max_workers=self.workers + room, steps=steps, can_kill=can_kill)

    @property
    def least_s(self) -> float:
        """About how long it takes when nothing goes wrong."""
        timing = self.timing
        return timing.start_s + timing.build_s + self.steps * (timing.step_s + timing.exchange_s) * 1.3 + 5.0

    @property
    def fits_time_limit(self) -> bool:
        """Whether a function that is slow in all it does comes to a step at which it can end in order."""
        timing = self.timing
        steps_s = (self.exchange_every + 1) * (timing.step_s + timing.exchange_s)
        saving_s = max(timing.state_write_s, 1.5 * (1 + timing.spread) * timing.save_s)
        slow_s = (1 + timing.spread) * (timing.start_s + timing.build_s + steps_s) + saving_s
        return self.time_limit_s is None or slow_s < self.time_limit_s

    @property
    def bound_s(self) -> float:
        """By then it must have ended, whatever goes wrong."""
        lasting = sum(fault.seconds for fault in self.faults)
        return 20 * self.least_s + 200.0 * (2 + len(self.faults)) + 10 * lasting


def _drawn(rng: Random, kind: str, scenario: Scenario) -> Fault:
    points = POINTS if kind in ("kill", "hang", "freeze") else ("meet", "reduced") if kind == "unplug" else ()
    point = rng.choice(points) if points and rng.random() < 0.7 else ""
    return Fault(
        kind,
        at_s=rng.uniform(0.0, scenario.least_s),
        rank=rng.randrange(scenario.workers) if rng.random() < 0.7 else 0,
        point=point,
        step=rng.randrange(scenario.steps) if point else 0,
        seconds=_lasting(rng, kind, scenario),
        factor=rng.uniform(1.5, 30.0),
    )


def _lasting(rng: Random, kind: str, scenario: Scenario) -> float:
    silence_s = max(5.0, 5 * scenario.timing.beat_s)
    return rng.choice((0.2, 0.7, 1.5, 4.0)) * silence_s * rng.uniform(0.5, 1.5)


def parse_kinds(text: str) -> tuple[str, ...]:
    """Kinds of faults from "kill,hang"; "all" and "none" are words, too.

    Raises:
        ConfigError: there is no such kind.
    """
    limits = ("time_limit", "budget", "deadline", "quota")
    known = (*KINDS, *limits)
    kinds: list[str] = []
    for name in (part.strip().replace("-", "_") for part in text.split(",")):
        if name == "all":
            kinds += known
        elif name not in ("", "none"):
            if name not in known:
                raise ConfigError(f"no such kind of fault: {name!r}", nearest(name, list(known)))
            kinds.append(name)
    return tuple(dict.fromkeys(kinds))
