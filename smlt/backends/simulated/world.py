"""A simulated cloud with one run's functions in it: the protocol's test bench, with the times of a cloud's truth."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from smlt.backends.simulated.clock import VirtualClock
from smlt.backends.simulated.store import KeptStore
from smlt.backends.simulated.truth import Truth
from smlt.core.backend import RankSpec
from smlt.core.billing import VcpuMap
from smlt.core.job import Job, JobSpec
from smlt.core.messages import StepRecord
from smlt.core.profile import Profile
from smlt.core.run_events import Launch
from smlt.core.sampler import Cursor, Schedule
from smlt.core.save_interval import save_interval_s
from smlt.core.storage import ChannelCapabilities, ObjectStore
from smlt.core.sync.choice import cost_for
from smlt.core.sync.cost import SyncCost
from smlt.core.task import TaskShape
from smlt.core.units import Every
from smlt.simulator import faults
from smlt.simulator.process import Process
from smlt.simulator.scenario import Fault, Scenario, Timing
from smlt.simulator.world import Course, World

NEVER = Every(10**9, "step")


@dataclass(frozen=True)
class Weather:
    """What goes on in a cloud beside its truth.

    Attributes:
        noise: standard deviation of the logarithm of a step's time.
        faults: kinds of what strikes functions now and then.
        fault_every_s: on average so long from one to the next.
        slows_at_s, slows_by: from then on everything takes so many times as long.
    """

    noise: float = 0.0
    faults: tuple[str, ...] = ()
    fault_every_s: float = 300.0
    slows_at_s: float = math.inf
    slows_by: float = 1.0


class CloudWorld(World):
    """One run's functions.

    Args:
        spec: of the first function that is launched.
        profile: of the task.
        truth: how quick the cloud is.
        weather: what goes on in it.
        vcpus: that come with memory.
        capabilities: of the channel.
        clock: virtual time.
        objects: the run's store.
    """

    store: KeptStore

    def __init__(
        self,
        spec: RankSpec,
        profile: Profile,
        truth: Truth,
        weather: Weather,
        vcpus: VcpuMap | None,
        capabilities: ChannelCapabilities,
        clock: VirtualClock,
        objects: ObjectStore,
    ) -> None:
        self._profile, self._truth, self._weather = profile, truth, weather
        self._vcpus, self._capabilities, self._spec, self._clock = vcpus, capabilities, spec, clock
        job_spec = JobSpec.from_plain(spec.job)
        self._micro_batch = job_spec.train.micro_batch
        schedule = Schedule.of(job_spec.job, profile.examples)
        super().__init__(_scenario(spec, truth, schedule.total_steps), timeline=clock.timeline)
        self.lease_s, self.orphan_grace_s = spec.lease_s, spec.orphan_grace_s
        self.slowest = 1.0
        self.rules = replace(self.rules, job=_job(job_spec.job))
        self.schedule = Course(schedule.examples, schedule.phases, schedule.epochs, schedule.steps)
        self.shape = TaskShape(profile.examples, 0, profile.parameters, profile.regions)
        self.expected = self._expect()
        self.store = KeptStore(clock.timeline, self.rng, self.timing.store_s, objects, profile.state_bytes)
        self.store.recall(self.expected)
        self._slowness: dict[str, float] = {}
        self._slowest_of: dict[tuple[int, int], float] = {}
        self._usual: dict[tuple[int, int, int], tuple[float, float]] = {}
        if weather.faults:
            self.timeline.after(self.rng.expovariate(1 / weather.fault_every_s), self._strike)
        self._carry()

    def _strike(self) -> None:
        weather, rng = self._weather, self.rng
        kind = rng.choice(weather.faults)
        running = [process.rank for process in self.platform.processes.values()]
        fault = Fault(kind, rank=rng.choice(running or [0]), seconds=rng.uniform(5.0, 60.0), factor=rng.uniform(2, 4))
        faults.strike(self, fault)
        self.timeline.after(rng.expovariate(1 / weather.fault_every_s), self._strike)

    # Times

    def times(self, one: Launch | Process) -> Timing:
        """By the truth, of this function's machine."""
        truth, address, stretch = self._truth, one.address, self._stretch()
        compute_s, exchange_s = self._usual_s(one.workers, one.memory_mib, self._batch_of(one))
        if address.label not in self._slowness:
            self._slowness[address.label] = truth.slowness(address)
        way = truth.ways[self._spec.sync.channel]
        moved_s = truth.state_mb / min(way.mb_s, truth.link_mb_s)
        return replace(
            self.timing,
            start_s=truth.start_of_s(address),
            build_s=truth.build_s,
            step_s=compute_s * self._slowness[address.label] * stretch,
            exchange_s=exchange_s * stretch,
            save_s=moved_s * stretch,
            load_s=moved_s * stretch,
        )

    def step_together_s(self, leader: Process) -> float:
        """All wait for the slowest machine."""
        formation, joined, stretch = leader.formation, leader.joined, self._stretch()
        if formation is None or joined is None:
            return super().step_together_s(leader)
        if joined not in self._slowest_of:
            self._slowest_of[joined] = max(self._truth.slowness(member.address) for member in formation.members)
        cursor = leader.machine.cursor
        compute_s, exchange_s = self._usual_s(leader.workers, leader.memory_mib, self.schedule.size_at(cursor))
        return (compute_s * self._slowest_of[joined] + exchange_s * self.exchanges(cursor)) * stretch

    def _stretch(self) -> float:
        return self._weather.slows_by if self.timeline.now >= self._weather.slows_at_s else 1.0

    def _batch_of(self, one: Launch | Process) -> int:
        cursor = one.machine.cursor if isinstance(one, Process) else Cursor()
        return self.schedule.size_at(cursor)

    def _usual_s(self, workers: int, memory_mib: int, batch: int) -> tuple[float, float]:
        """Seconds of computing and of an exchange, on a machine that is neither quick nor slow."""
        key = (workers, memory_mib, batch)
        if key not in self._usual:
            vcpus = self._vcpus.at(memory_mib) if self._vcpus else 1.0
            compute_s = self._truth.compute_s(math.ceil(batch / workers), vcpus)
            cost = self._sync_cost(workers)
            self._usual[key] = compute_s, self._truth.exchange_s(self._spec.sync.channel, cost, workers)
        return self._usual[key]

    def _sync_cost(self, workers: int) -> SyncCost:
        return cost_for(self._capabilities, self._spec.sync.codec, self._profile.regions, workers)

    def draw(self, seconds: float) -> float:
        """A step is quicker or slower by chance."""
        noise = self._weather.noise
        return seconds * self.rng.lognormvariate(-noise * noise / 2, noise) if noise else seconds

    def memory_needed_mib(self, process: Process) -> int:
        """By the truth; more where a fault says so."""
        share = math.ceil(self._batch_of(process) / process.workers)
        at_once = min(share, self._micro_batch or share)
        return max(self._truth.needs_mib(at_once), super().memory_needed_mib(process))

    # What ranks say

    def record(self, process: Process, cursor: Cursor) -> StepRecord:
        """A step without a loss: nothing is trained."""
        told = super().record(process, cursor)
        cost, batch = self._sync_cost(process.workers), self.schedule.size_at(cursor)
        _, exchange_s = self._usual_s(process.workers, process.memory_mib, batch)
        sync_s = min(told.seconds, exchange_s * self._stretch()) if self.exchanges(cursor) else 0.0
        return replace(
            told,
            loss=math.nan,
            examples=batch,
            compute_s=told.seconds - sync_s,
            sync_s=sync_s,
            ended=self._clock.time(),
            sent_bytes=cost.bytes_up,
            received_bytes=cost.bytes_down,
            requests=sum(cost.requests.values()),
            puts=cost.requests.get("put", 0),
        )

    def metrics(self, step: int) -> dict[str, float]:
        """None: nothing is trained."""
        del step
        return {}

    def target(self, rank: int) -> Process | None:
        """The function of a rank that was launched last, if it is there."""
        return next((each for each in reversed(self.platform.processes.values()) if each.rank == rank), None)


def _job(job: Job) -> Job:
    """The job as far as it can be simulated: no evaluation says anything, so that no target is reached."""
    return job.model_copy(update={"target": None, "keep_best": None, "eval_every": NEVER})


def _scenario(spec: RankSpec, truth: Truth, steps: int) -> Scenario:
    way, sync = truth.ways[spec.sync.channel], spec.sync
    return Scenario(
        seed=truth.seed,
        workers=spec.world_size,
        steps=steps,
        timing=Timing(beat_s=spec.beat_s, look_s=spec.beat_s / 4, evaluate_s=0.0, channel_s=1e-4, spread=0.0),
        time_limit_s=spec.time_limit_s,
        exchange_every=sync.exchange_every,
        has_private=sync.has_private,
        recovers_fast=sync.recovers_fast,
        save_interval_s=save_interval_s(0.0, truth.state_mb / spec.world_size / way.mb_s, 0, 0.0),
    )
