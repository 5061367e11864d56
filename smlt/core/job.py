"""JobSpec: what the user asks for, whole and validated, with units. Where it came from is `settings.py`'s business."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, model_validator

from smlt.core.units import Every, parse_duration_s, parse_every, parse_memory_mib, parse_usd

Seconds = Annotated[float, BeforeValidator(parse_duration_s)]
Usd = Annotated[float, BeforeValidator(parse_usd)]
MemoryMib = Annotated[int, BeforeValidator(lambda value: value if isinstance(value, int) else parse_memory_mib(value))]
Period = Annotated[
    Every,
    BeforeValidator(lambda value: value if isinstance(value, Every) else parse_every(value)),
    PlainSerializer(str, return_type=str),
]


class Section(BaseModel):
    """A table of `smlt.toml`: unknown keys are errors, values do not change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class BatchPhase(Section):
    """One phase of a batch-size schedule: from this epoch on, so many examples in a global batch."""

    from_epoch: int = Field(ge=0)
    size: int = Field(ge=1)


class Target(Section):
    """Stop early when a metric is good enough: exactly one of `at_least` and `at_most`."""

    metric: str
    at_least: float | None = None
    at_most: float | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> Target:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("a target wants exactly one of at_least and at_most")
        return self

    def reached(self, metrics: dict[str, float]) -> bool:
        """Whether these evaluation metrics meet the target."""
        value = metrics.get(self.metric)
        if value is None:
            return False
        return value >= self.at_least if self.at_least is not None else value <= float(self.at_most or 0.0)


class Job(Section):
    """`[job]`: what to train."""

    task: str = Field(description="file.py:Class or package.module:Class")
    name: str | None = Field(None, description="the run's name; the same name resumes an unfinished run")
    epochs: int | None = Field(
        None, ge=1, description="passes over the data; 1 where neither epochs nor steps is given"
    )
    steps: int | None = Field(None, ge=1, description="steps instead of epochs")
    global_batch: int | tuple[BatchPhase, ...] = Field(
        64, description="examples in a step over all workers, or a schedule"
    )
    seed: int = Field(0, ge=0)
    target: Target | None = None
    params: dict[str, Any] = Field(default_factory=dict, description="free; reaches the task as self.params")
    include: tuple[str, ...] = Field(("*",), description="files beside the task that travel with it, less .smltignore")
    requirements: tuple[str, ...] = Field((), description="what the task needs in the function's image")
    secrets: tuple[str, ...] = Field((), description="names of secrets; values stay in the provider's secret store")
    eval_every: Period = Field(Every(1, "epoch"), validate_default=False)
    checkpoint_every: Literal["auto"] | Period = "auto"
    keep_best: str | None = Field(None, description="a metric; the model of its best evaluation is kept too")

    @model_validator(mode="after")
    def _coherent(self) -> Job:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("give epochs or steps, not both")
        if self.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", self.name):
            raise ValueError(f"a name has letters, digits, '.', '_' and '-', 64 at most, not {self.name!r}")
        if isinstance(self.global_batch, tuple):
            starts = [phase.from_epoch for phase in self.global_batch]
            if not starts or starts[0] != 0 or starts != sorted(set(starts)):
                raise ValueError("a batch schedule starts at epoch 0 and its epochs ascend")
        elif self.global_batch < 1:
            raise ValueError("global_batch is at least 1")
        return self

    @property
    def epoch_limit(self) -> int | None:
        """Epochs to train; None where `steps` says when to end. One epoch where neither is given."""
        return None if self.steps is not None else (self.epochs or 1)

    @property
    def batch_phases(self) -> tuple[BatchPhase, ...]:
        """The batch-size schedule, a constant size included."""
        if isinstance(self.global_batch, int):
            return (BatchPhase(from_epoch=0, size=self.global_batch),)
        return self.global_batch


class Train(Section):
    """`[train]`: how a step is computed."""

    clip_norm: float | None = Field(None, gt=0, description="largest global L2 norm of the gradient")
    micro_batch: int | None = Field(None, ge=1, description="most examples in one forward pass of a worker")
    precision: Literal["fp32", "bf16"] = "fp32"


class LimitsSection(Section):
    """`[limits]`: what the run may take."""

    deadline: Seconds | None = Field(None, description="wall time, like 30m")
    budget: Usd | None = Field(None, description="money, like 2usd")


class BackendSection(BaseModel):
    """`[backend]`: where; its other keys are validated by the backend itself."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = "local"

    @property
    def options(self) -> dict[str, Any]:
        """The keys beside the name."""
        return dict(self.model_extra or {})


class Workers(Section):
    """`[workers]`: the fleet."""

    count: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    memory: Literal["auto"] | MemoryMib = "auto"
    max: int = Field(8, ge=1)


class SyncSection(Section):
    """`[sync]`: how gradients are synchronised."""

    mode: Literal["auto", "every_step"] = "auto"
    codec: Literal["auto", "fp32"] = "auto"
    channel: str = "auto"


class PlannerSection(Section):
    """`[planner]`: who chooses the fleet."""

    name: str = "fixed"


class JobSpec(Section):
    """A whole job, as `smlt.toml` states it."""

    job: Job
    train: Train = Field(default_factory=Train)
    limits: LimitsSection = Field(default_factory=LimitsSection)
    backend: BackendSection = Field(default_factory=BackendSection)
    workers: Workers = Field(default_factory=Workers)
    sync: SyncSection = Field(default_factory=SyncSection)
    planner: PlannerSection = Field(default_factory=PlannerSection)

    def to_plain(self) -> dict[str, Any]:
        """The job as plain data, for a function's payload and the run's record."""
        return self.model_dump(mode="json")

    @classmethod
    def from_plain(cls, data: dict[str, Any]) -> JobSpec:
        """The job that `to_plain` described."""
        return cls.model_validate(data)
