"""What a job must be like for local SGD: an example for each rank at every step, and an outer step before its end."""

from __future__ import annotations

from smlt.core.errors import ConfigError
from smlt.core.sampler import Schedule


def check_course(schedule: Schedule, world_size: int, period: int) -> None:
    """Look at a whole job before its first step.

    Raises:
        ConfigError: a batch is smaller than the number of ranks, or the job ends before a period does.
    """
    if period > schedule.total_steps:
        raise ConfigError(
            f"[sync].period = {period}, but the job ends after {schedule.total_steps} steps",
            "choose a period that goes several times into the job, or a longer job",
        )
    check_batch(smallest_batch(schedule), world_size, "at an epoch's end, or in a phase of [job].global_batch,")


def check_batch(examples: int, world_size: int, where: str) -> None:
    """Raise ConfigError if a batch is smaller than the number of ranks."""
    if examples < world_size:
        raise ConfigError(
            f"{where} a batch has {examples} examples for {world_size} workers, and with local SGD each needs one",
            "choose [job].global_batch or [workers].count so that what is left at an epoch's end is enough, "
            "or let the task's sampler leave it out",
        )


def smallest_batch(schedule: Schedule) -> int:
    """Examples of the smallest global batch of a job."""
    found, step = schedule.examples, 0
    phases, total = schedule.phases, schedule.total_steps
    for number, phase in enumerate(phases):
        if step >= total:
            break
        size = min(phase.size, schedule.examples)
        steps_an_epoch = -(-schedule.examples // size)
        found = min(found, size)
        if schedule.examples % size and step + steps_an_epoch <= total:
            found = min(found, schedule.examples % size)
        if number + 1 < len(phases):
            step += steps_an_epoch * (phases[number + 1].from_epoch - phase.from_epoch)
    return found
