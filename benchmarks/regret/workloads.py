"""The workloads: 4 model sizes x 3 datasets x 5 pairs of limits, on three providers' simulated clouds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from smlt.core.job import JobSpec
from smlt.core.profile import Profile, Speed
from smlt.core.task import Region

PROVIDERS = ("aws", "gcp", "azure")
NOISE = 0.1
MAX_WORKERS = 64
TASK = "task.py:Task"
SETTINGS: dict[str, Any] = {"[job].params": {}, "[train].micro_batch": None, "[train].precision": "fp32"}

MODELS: dict[str, tuple[int, float, float]] = {
    "cnn": (1_200_000, 60.0, 1.0),
    "resnet18": (11_700_000, 20.0, 3.0),
    "bert_small": (29_000_000, 6.0, 6.0),
    "bert_medium": (41_000_000, 3.0, 9.0),
}
"""Parameters, examples a second of one vCPU, and MiB that an example adds to a forward pass."""

DATASETS: dict[str, tuple[int, int, int]] = {
    "small": (10_000, 256, 600),
    "medium": (50_000, 512, 600),
    "large": (200_000, 1024, 800),
}
"""Examples, a global batch, and steps."""

LIMITS = ("tight deadline", "loose deadline", "tight budget", "loose budget", "deadline and budget")


@dataclass(frozen=True)
class Workload:
    """One job on one cloud.

    Attributes:
        model, dataset, provider: by name.
        seed: of the cloud.
        limits: which kind.
    """

    model: str
    dataset: str
    provider: str
    seed: int
    limits: str = ""
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def profile(self) -> Profile:
        """As measured on some machine; the cloud's own speed differs, by its seed."""
        parameters, speed, example_mib = MODELS[self.model]
        return Profile(
            schema_version=1,
            task=TASK,
            settings=SETTINGS,
            taken_on="2026-11-24",
            machine="none",
            examples=DATASETS[self.dataset][0],
            parameters=parameters,
            regions=(Region("float32", parameters, True),),
            state_bytes=12 * parameters,
            build_s=2.0,
            built_mib=400.0,
            stepped_mib=400.0 + 16 * parameters / 2**20,
            example_bytes=example_mib * 2**20,
            speed=Speed(speed, 0.01, 0.9, 2, 40),
        )

    def spec(self, planner: str, limits: dict[str, str], fleet: dict[str, Any] | None = None) -> JobSpec:
        """The job, with a planner, limits, and a fleet if it is not to be chosen."""
        _, batch, steps = DATASETS[self.dataset]
        return JobSpec.model_validate(
            {
                "job": {"task": TASK, "steps": steps, "global_batch": batch, "include": ["task.py"]},
                "backend": {
                    "name": "simulated",
                    "provider": self.provider,
                    "seed": self.seed,
                    "noise": NOISE,
                    "beat": "4s" if self.model == "cnn" else "16s",
                },
                "workers": {"max": MAX_WORKERS, **(fleet or {})},
                "planner": {"name": planner},
                "limits": limits,
                **self.more,
            }
        )


def all_workloads() -> Iterator[Workload]:
    """The sixty."""
    for number, (model, dataset, limits) in enumerate(
        (model, dataset, limits) for model in MODELS for dataset in DATASETS for limits in LIMITS
    ):
        yield Workload(model, dataset, PROVIDERS[number % 3], seed=number, limits=limits)


def random_workload(number: int) -> tuple[Workload, str, float]:
    """A workload, which limit it has, and how far that is beyond the least that is possible: 1.15 to 3 times."""
    rng = Random(number)
    workload = Workload(
        rng.choice(list(MODELS)), rng.choice(list(DATASETS)), rng.choice(PROVIDERS), seed=10_000 + number
    )
    return workload, rng.choice(("deadline", "budget")), rng.uniform(1.15, 3.0)


def task_folder(folder: Path) -> Path:
    """A folder with a task that nobody imports."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.py").write_text("class Task:\n    pass\n")
    return folder
