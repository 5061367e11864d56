"""Profile: what was found out about a task by building it on one machine and taking a few steps; a file of JSON.

Planners read it. Measuring is `profiling.py`'s business, and what follows from it for a fleet a planner's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smlt.core import wire
from smlt.core.errors import ConfigError, ProtocolError
from smlt.core.job import JobSpec
from smlt.core.task import Region

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Speed:
    """How quickly one machine computed a task's steps: `step_base_s + examples / (speed * vcpus^vcpu_exponent)`.

    Attributes:
        examples_per_vcpu_s: examples a second that one vCPU adds.
        step_base_s: seconds of a step whatever its examples, more than 0.
        vcpu_exponent: v vCPUs are as quick as v^vcpu_exponent of one; None where only one was at hand.
        vcpus: of the machine.
        steps: that were timed.
    """

    examples_per_vcpu_s: float
    step_base_s: float
    vcpu_exponent: float | None
    vcpus: int
    steps: int


@dataclass(frozen=True)
class Profile:
    """A task's sizes, and its speed if steps were taken.

    Attributes:
        schema_version: of this file.
        task: as the job names it.
        settings: of the job that sizes and speed depend on.
        taken_on: the day.
        machine: on which.
        examples: that an epoch visits.
        parameters: trained scalars.
        regions: what a rank contributes in a step.
        state_bytes: parameters, buffers, optimizer; what a checkpoint holds.
        build_s: to import and build the task, its framework included.
        built_mib: peak memory of the process once the task is built, its framework and its data included.
        stepped_mib: the same after steps of one example: gradients and the optimizer's state included; None for none.
        example_bytes: that an example more adds to the peak of a forward and backward pass; None for no step taken.
        speed: None where no step was taken.
    """

    schema_version: int
    task: str
    settings: Mapping[str, Any]
    taken_on: str
    machine: str
    examples: int
    parameters: int
    regions: tuple[Region, ...]
    state_bytes: int
    build_s: float
    built_mib: float
    stepped_mib: float | None = None
    example_bytes: float | None = None
    speed: Speed | None = None

    def to_json(self) -> str:
        """The file."""
        return json.dumps(wire.to_plain(self), indent=2) + "\n"

    def check_fits(self, spec: JobSpec) -> None:
        """Raise ConfigError where this is another task's, or was measured with other settings."""
        for key, found in {"[job].task": self.task, **self.settings}.items():
            wanted = {"[job].task": spec.job.task, **settings_of(spec)}[key]
            if found != wanted:
                raise ConfigError(
                    f"the profile was taken with {key} = {found!r}, the job has {wanted!r}",
                    "take one of this job: `smlt profile`",
                )


def settings_of(spec: JobSpec) -> dict[str, Any]:
    """What of a job decides sizes and speed of its steps."""
    return {
        "[job].params": dict(spec.job.params),
        "[train].micro_batch": spec.train.micro_batch,
        "[train].precision": spec.train.precision,
    }


def read_profile(path: Path) -> Profile:
    """The profile that a file holds.

    Raises:
        ConfigError: it cannot be read, or is none.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(data, dict) or data.get("schema_version") != SCHEMA_VERSION:
            raise ProtocolError(f"its schema_version is not {SCHEMA_VERSION}")
        profile: Profile = wire.from_plain(data, Profile)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}", "`smlt profile -O FILE` writes one") from error
    except (ValueError, ProtocolError) as error:
        raise ConfigError(f"{path}: is no profile: {error}", "`smlt profile -O FILE` writes one") from error
    return profile
