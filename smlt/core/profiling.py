"""Taking a task's profile in a process of its own: build it as a worker does, and take steps that nobody keeps.

`take_profile` is the caller's side; `python -m smlt.core.profiling FOLDER` is the process. No function is launched.
"""

from __future__ import annotations

import math
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

import numpy as np

from smlt._version import __version__
from smlt.core import layout, wire
from smlt.core.backend import RankSpec
from smlt.core.errors import SmltError, TaskError
from smlt.core.job import JobSpec
from smlt.core.messages import Failure
from smlt.core.parcel import TaskParcel
from smlt.core.plugins import Registry, load_registry
from smlt.core.profile import SCHEMA_VERSION, Profile, Speed, settings_of
from smlt.core.sampler import Schedule
from smlt.core.storage import ChannelSpec, StoreSpec
from smlt.core.summary import Summary
from smlt.core.task import StepWork, TaskShape, TrainingTask
from smlt.core.taskbuild import make_task

LONGEST_S = 4.0
"""Steps of one size are taken for so long at most, but three at least."""

MOST_STEPS = 30
WARM_UP = 2
"""Steps that are not timed: the first ones take longer."""

STDERR = 2
"""What the user's code prints goes to the terminal, and never into a document."""

SHORTEST_JOB = 1000
"""Steps that a job is said to have at least: schedulers of learning rates raise if a step more is taken."""

STATE_COPIES = 3
"""Of the weights, that a checkpoint holds where no optimizer was built to see: they, and two of Adam's moments."""

LEAST_SLOPE = 0.1
"""Of a step's time at least this part grows with its examples, whatever noise says."""


@dataclass(frozen=True)
class Timing:
    """Steps of so many examples.

    Attributes:
        examples: of a step.
        seconds: of a step at the median.
        quickest_s: of the quickest, which other programs have disturbed least.
        steps: that were timed.
    """

    examples: int
    seconds: float
    quickest_s: float
    steps: int


@dataclass(frozen=True)
class Found:
    """What a process found: sizes, timings of a small and a large step if any were to be taken, or a failure."""

    sizes: Profile | None = None
    timings: tuple[Timing, ...] = ()
    failure: Failure | None = None


def take_profile(
    spec: JobSpec, parcel: TaskParcel, registry: Registry, *, cores: int, steps: bool, today: date
) -> Profile:
    """What building a task shows of it, and a few steps if they are to be taken.

    Args:
        spec: the job.
        parcel: its task.
        registry: opens the folder that the task travels in.
        cores: of this machine, that steps may use.
        steps: whether any are taken: on one core, and on all.
        today: is written into the profile.

    Raises:
        ConfigError: the job does not fit its data.
        TaskError: the task's own code failed.
    """
    found = _in_process(spec, parcel, registry, threads=1, steps=steps)
    assert found.sizes is not None  # otherwise there was a failure
    profile = replace(found.sizes, taken_on=today.isoformat())
    if not steps:
        return profile
    base_s, each_s = _line(found.timings)
    exponent, count = None, sum(timing.steps for timing in found.timings)
    if cores > 1:
        every = _in_process(spec, parcel, registry, threads=cores, steps=True).timings
        count += sum(timing.steps for timing in every)
        exponent = _exponent(found.timings[-1], every[-1], cores)
    return replace(profile, speed=Speed(1 / each_s, base_s, exponent, cores, count))


def _line(timings: tuple[Timing, ...]) -> tuple[float, float]:
    """Seconds of a step whatever its examples, and seconds an example; both more than 0."""
    small, large = timings[0], timings[-1]
    whole_s = large.seconds / large.examples
    each_s = whole_s
    if large.examples > small.examples:
        slope = (large.seconds - small.seconds) / (large.examples - small.examples)
        each_s = min(max(slope, LEAST_SLOPE * whole_s), whole_s)
    return max(large.seconds - each_s * large.examples, 1e-6), each_s


def _exponent(one: Timing, every: Timing, cores: int) -> float:
    """How quickness grows with cores; 0.05 to 1. By the quickest steps: whoever shares the machine takes cores, and a
    task that is left one would look like one that cannot use two."""
    return min(max(math.log(one.quickest_s / every.quickest_s) / math.log(cores), 0.05), 1.0)


def _in_process(spec: JobSpec, parcel: TaskParcel, registry: Registry, *, threads: int, steps: bool) -> Found:
    with tempfile.TemporaryDirectory(prefix="smlt-profile-") as name:
        folder = Path(name)
        store = StoreSpec("file", (folder / "store").as_uri())
        if parcel.bundle:
            registry.open_store(store).put(layout.CODE, parcel.bundle)
        (folder / "spec").write_bytes(wire.pack(_rank_spec(spec, parcel, store, folder, threads)))
        word = "steps" if steps else "sizes"
        command = [sys.executable, "-m", "smlt.core.profiling", name, word]
        done = subprocess.run(command, stdout=STDERR, check=False)
        try:
            found = wire.unpack((folder / "found").read_bytes(), Found)
        except FileNotFoundError:
            raise TaskError(
                f"the process that builds the task ended with code {done.returncode} and said nothing",
                "code -9: it took more memory than this machine has",
            ) from None
    if found.failure is not None:
        error = Summary("", "failed", found.failure.kind, "", error=vars(found.failure)).failure()
        error.add_note(found.failure.traceback)
        raise error
    return found


def _rank_spec(spec: JobSpec, parcel: TaskParcel, store: StoreSpec, folder: Path, threads: int) -> RankSpec:
    return RankSpec(
        run="profile", generation=1, rank=0, world_size=1, incarnation=0, controller_epoch=1, smlt_version=__version__,
        store=store, channel=ChannelSpec("none", ""), job=spec.to_plain(), bundle_sha256=parcel.sha256,
        task_module=parcel.module, task_class=parcel.class_name, task_payload=parcel.payload,
        scratch=str(folder / "code"), threads=threads, beat_s=1.0, orphan_grace_s=1.0, lease_s=1.0, time_limit_s=None,
        memory_mib=1,
    )  # fmt: skip


def main(folder: Path, word: str) -> None:
    """The process: reads `spec` in the folder, and writes `found` there."""
    try:
        found = _find(wire.unpack((folder / "spec").read_bytes(), RankSpec), steps=word == "steps")
    except SmltError as error:
        found = Found(failure=Failure(type(error).__name__, error.message, error.hint, traceback.format_exc()))
    except Exception as error:  # the user's code may raise anything
        told = f"building the task raised {type(error).__name__}: {error}"
        found = Found(failure=Failure("TaskError", told, "", traceback.format_exc()))
    (folder / "found").write_bytes(wire.pack(found))


def _find(spec: RankSpec, *, steps: bool) -> Found:
    began = time.perf_counter()
    job = JobSpec.from_plain(spec.job)
    task = make_task(spec, job, load_registry().open_store(spec.store))
    try:
        look = task.build if steps else task.measure
        shape = look(task.prepare() or {}, lambda examples: _total_steps(job, examples))
        sizes = Profile(
            schema_version=SCHEMA_VERSION,
            task=job.job.task,
            settings=settings_of(job),
            taken_on="",
            machine=f"{platform.system()} {platform.machine()}",
            examples=shape.examples,
            parameters=shape.parameters,
            regions=shape.regions,
            state_bytes=_state_bytes(task) if steps else STATE_COPIES * _weight_bytes(shape),
            build_s=time.perf_counter() - began,
            built_mib=_peak_mib(),
        )
        if not steps:
            return Found(sizes)
        return _with_steps(sizes, task, shape, min(phase.size for phase in job.job.batch_phases))
    finally:
        task.close()


def _total_steps(job: JobSpec, examples: int) -> int:
    return max(SHORTEST_JOB, Schedule.of(job.job, examples).total_steps)


def _with_steps(sizes: Profile, task: TrainingTask, shape: TaskShape, batch: int) -> Found:
    """Steps of one example, for what they take of memory; then of a quarter of a batch and of a whole one, timed."""
    taken = _Taker(task, shape)
    for _ in range(2):
        taken.take(1)
    stepped = _peak_mib()
    small = _timed(taken.take, max(1, batch // 4))
    large = _timed(taken.take, batch)
    each = max(0.0, _peak_mib() - stepped) * 2**20 / max(1, batch - 1)
    sizes = replace(sizes, state_bytes=_state_bytes(task), stepped_mib=stepped, example_bytes=each)
    return Found(sizes, (small, large))


class _Taker:
    """Takes steps as a single rank does."""

    def __init__(self, task: TrainingTask, shape: TaskShape) -> None:
        self._task = task
        self._order = task.order(0)
        self._contribution = tuple(region.zeros() for region in shape.regions)
        self._step = 0

    def take(self, examples: int) -> None:
        """One step of so many examples."""
        for array in self._contribution:
            array.fill(0)
        indices = np.resize(np.roll(self._order, -self._step * examples), examples)
        work = StepWork(self._step, 0, indices, examples, alone=True)
        self._task.commit(self._contribution, self._task.compute(work, self._contribution))
        self._step += 1


def _timed(take: Callable[[int], None], examples: int) -> Timing:
    for _ in range(WARM_UP):
        take(examples)
    began, times = time.perf_counter(), [0.0] * 0
    while len(times) < 3 or (time.perf_counter() - began < LONGEST_S and len(times) < MOST_STEPS):
        start = time.perf_counter()
        take(examples)
        times.append(time.perf_counter() - start)
    return Timing(examples, statistics.median(times), min(times), len(times))


def _state_bytes(task: TrainingTask) -> int:
    return sum(array.nbytes for array in task.shared_state().arrays.values())


def _weight_bytes(shape: TaskShape) -> int:
    return sum(region.size_bytes for region in shape.regions)


def _peak_mib() -> float:
    """The most memory that this process has had so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
