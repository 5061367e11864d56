"""JobSpec: what the user asks for, whole and validated, with units. Where it came from is `settings.py`'s business."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializerFunctionWrapHandler,
    Strict,
    WithJsonSchema,
    field_validator,
    model_serializer,
    model_validator,
)

from smlt.core.sync.names import EVERY_STEP, EXACT, FAST, LOCAL_SGD, CodecName, Mode, Recovery
from smlt.core.units import Every, parse_duration_s, parse_every, parse_memory_mib, parse_usd, with_unit

Whole = Annotated[int, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Seconds = Annotated[
    float,
    BeforeValidator(parse_duration_s),
    PlainSerializer(lambda seconds: with_unit(seconds, "s"), when_used="json-unless-none"),
    WithJsonSchema({"type": ["string", "number"], "examples": ["30m", "2h"]}),
]
Usd = Annotated[
    float,
    BeforeValidator(parse_usd),
    PlainSerializer(lambda usd: with_unit(usd, "usd"), when_used="json-unless-none"),
    WithJsonSchema({"type": ["string", "number"], "examples": ["2usd", "0.50usd"]}),
]
MemoryMib = Annotated[
    int,
    BeforeValidator(parse_memory_mib),
    PlainSerializer(lambda mib: with_unit(mib, "MiB"), when_used="json"),
    WithJsonSchema({"type": "string", "examples": ["512MiB", "2GiB"]}),
]
Period = Annotated[
    Every,
    BeforeValidator(lambda value: value if isinstance(value, Every) else parse_every(value)),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["1epoch", "200steps"]}),
]


class Section(BaseModel):
    """A table of `smlt.toml`: unknown keys are errors, values do not change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)


class BatchPhase(Section):
    """One phase of a batch-size schedule: from this epoch on, so many examples in a global batch."""

    from_epoch: Whole = Field(ge=0)
    size: Whole = Field(ge=1)


LOWER_IS_BETTER = ("loss", "error", "perplexity", "mae", "mse")
"""A metric whose name holds one of these is the better the lower it is, unless the target says otherwise."""


class Target(Section):
    """Stop early when a metric is good enough: exactly one of `at_least` and `at_most`."""

    metric: str
    at_least: Number | None = None
    at_most: Number | None = None

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

    task: str = Field(description="file.py:Class or package.module:Class", examples=["task.py:Digits"])
    name: str | None = Field(
        None, description="the run's name; the same name resumes an unfinished run", examples=["digits"]
    )
    epochs: Whole | None = Field(
        None, ge=1, description="passes over the data; 1 where neither epochs nor steps is given", examples=[10]
    )
    steps: Whole | None = Field(None, ge=1, description="steps instead of epochs", examples=[2000])
    global_batch: Annotated[Whole, Field(ge=1)] | tuple[BatchPhase, ...] = Field(
        64, description="examples in a step over all workers, or a schedule", examples=[64]
    )
    seed: Whole = Field(0, ge=0, description="everything random derives from it")
    target: Target | None = Field(None, description="stop early when an evaluation metric is good enough")
    params: dict[str, Any] = Field(default_factory=dict, description="free; reaches the task as self.params")
    include: tuple[str, ...] = Field(
        ("*",), description="files beside the task that travel with it, less .smltignore", examples=[["*.py", "data/*"]]
    )
    requirements: tuple[str, ...] = Field((), description="what the task needs in the function's image")
    secrets: tuple[str, ...] = Field((), description="names of secrets; values stay in the provider's secret store")
    eval_every: Period = Field(Every(1, "epoch"), validate_default=False, description="how often to evaluate")
    checkpoint_every: Literal["auto"] | Period = Field("auto", description="how often to save the state")
    keep_best: str | None = Field(
        None, description="a metric; the model of its best evaluation is kept too", examples=["accuracy"]
    )

    def is_better(self, value: float, best: float | None) -> bool:
        """Whether a value of the metric `keep_best` is better than the best one before."""
        if best is None:
            return True
        name = self.keep_best or ""
        if self.target and self.target.metric == name:
            lower = self.target.at_most is not None
        else:
            lower = any(word in name.lower() for word in LOWER_IS_BETTER)
        return value < best if lower else value > best

    @field_validator("task")
    @classmethod
    def _names_a_class(cls, task: str) -> str:
        source, _, name = task.rpartition(":")
        if not source or not name:
            raise ValueError(f"{task!r} names no class; write it like task.py:Digits or package.module:Digits")
        return task

    @field_validator("name")
    @classmethod
    def _is_a_name(cls, name: str | None) -> str | None:
        if name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
            raise ValueError(f"a name has letters, digits, '.', '_' and '-', 64 at most, not {name!r}")
        return name

    @field_validator("global_batch")
    @classmethod
    def _schedule_ascends(cls, batch: int | tuple[BatchPhase, ...]) -> int | tuple[BatchPhase, ...]:
        if isinstance(batch, tuple):
            starts = [phase.from_epoch for phase in batch]
            if not starts or starts[0] != 0 or starts != sorted(set(starts)):
                raise ValueError("a batch schedule starts at epoch 0 and its epochs ascend")
        return batch

    @field_validator("params")
    @classmethod
    def _params_travel(cls, params: dict[str, Any]) -> dict[str, Any]:
        for name, value in params.items():
            if not _is_plain(value):
                raise ValueError(f"{name!r} is a {type(value).__name__}; params are numbers, text, lists and tables")
        return params

    @model_validator(mode="after")
    def _one_goal(self) -> Job:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("give epochs or steps, not both")
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

    clip_norm: Number | None = Field(None, gt=0, description="largest global L2 norm of the gradient", examples=[1.0])
    micro_batch: Whole | None = Field(
        None, ge=1, description="most examples in one forward pass of a worker", examples=[32]
    )
    precision: Literal["fp32", "bf16"] = Field("fp32", description="bf16: mixed precision with fp32 parameters")


class LimitsSection(Section):
    """`[limits]`: what the run may take."""

    deadline: Seconds | None = Field(None, description="wall time of the run", examples=["30m"])
    budget: Usd | None = Field(None, description="money, in US dollars", examples=["2usd"])


class BackendSection(BaseModel):
    """`[backend]`: where; its other keys are validated by the backend itself."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field("local", description="which of the installed backends", examples=["local"])

    @property
    def options(self) -> dict[str, Any]:
        """The keys beside the name."""
        return dict(self.model_extra or {})


class Workers(Section):
    """`[workers]`: the fleet."""

    count: Literal["auto"] | Annotated[Whole, Field(ge=1)] = Field(
        "auto", description="how many work at once", examples=[2]
    )
    memory: Literal["auto"] | MemoryMib = Field("auto", description="memory of each", examples=["2GiB"])
    max: Whole = Field(8, ge=1, description="most that smlt may choose; at least `count`")

    @model_validator(mode="before")
    @classmethod
    def _count_lifts_max(cls, data: Any) -> Any:
        """A number the user asked for is not held back by a maximum that nobody set."""
        count = data.get("count") if isinstance(data, dict) and "max" not in data else None
        if type(count) is int and count > cls.model_fields["max"].default:
            return {**data, "max": count}
        return data

    @model_validator(mode="after")
    def _count_within_max(self) -> Workers:
        if self.count != "auto" and self.count > self.max:
            raise ValueError(f"count = {self.count} is more than max = {self.max}")
        return self


OF_LOCAL_SGD = ("period", "fragments", "outer_learning_rate", "outer_momentum")
"""Keys of `[sync]` that only local SGD has a use for."""


class SyncSection(Section):
    """`[sync]`: how the workers are kept one computation."""

    mode: Literal["auto", Mode] = Field(
        "auto", description="every_step (auto) is exact; local_sgd averages weights now and then (DiLoCo)"
    )
    codec: Literal["auto", CodecName] = Field(
        "auto", description="how numbers travel; all but fp32 (auto) are lossy, and feed their error back"
    )
    channel: str = Field("auto", description="one of the backend's channels", examples=["shared_memory"])
    period: Whole = Field(50, ge=1, description="of local_sgd: steps from one average of a weight to the next")
    fragments: Whole = Field(1, ge=1, description="of local_sgd: parts of the weights that are averaged in turn")
    outer_learning_rate: Number = Field(0.7, gt=0, description="of local_sgd: how far the average is followed")
    outer_momentum: Number = Field(0.9, ge=0, lt=1, description="of local_sgd: Nesterov momentum of the averages")
    recovery: Recovery = Field(
        "exact",
        description="of local_sgd and lossy codecs, when a worker is lost: exact goes back to a checkpoint, and no bit "
        "changes; fast begins that worker anew where all exchanged last",
    )

    @model_validator(mode="after")
    def _fits_its_mode(self) -> SyncSection:
        local = [name for name in OF_LOCAL_SGD if name in self.model_fields_set]
        if local and self.mode != LOCAL_SGD:
            raise ValueError(f'{", ".join(local)} need mode = "{LOCAL_SGD}", which is not set')
        if self.period % self.fragments:
            raise ValueError(f"period = {self.period} is no multiple of fragments = {self.fragments}")
        if self.recovery == FAST and (self.chosen_mode, self.chosen_codec) == (EVERY_STEP, EXACT):
            raise ValueError('recovery = "fast" needs mode = "local_sgd" or a lossy codec: elsewhere nothing is lost')
        return self

    @model_serializer(mode="wrap")
    def _what_does_something(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the keys that the mode has no use for: they would be refused where this is read."""
        plain: dict[str, Any] = handler(self)
        return plain if self.mode == LOCAL_SGD else {k: v for k, v in plain.items() if k not in OF_LOCAL_SGD}

    @property
    def chosen_mode(self) -> Mode:
        """`auto` is exact: nothing else may be chosen for a user who did not say so."""
        return EVERY_STEP if self.mode == "auto" else self.mode

    @property
    def chosen_codec(self) -> CodecName:
        """`auto` is exact."""
        return EXACT if self.codec == "auto" else self.codec


class PlannerSection(Section):
    """`[planner]`: who chooses the fleet."""

    name: str = Field(
        "auto", description="which of the installed planners; auto: fixed on this machine, optuna on a cloud"
    )
    prefer: Literal["auto", "cheapest", "fastest", "knee"] = Field(
        "auto", description="within the limits; auto: cheapest by a deadline, fastest on a budget alone, else the knee"
    )


class PricesSection(BaseModel):
    """`[prices]`: figures of a provider's price list that you know better, like `[prices.aws.functions.lambda_x86]`."""

    model_config = ConfigDict(extra="allow", frozen=True)

    catalog: str | None = Field(
        None, description="a file with price lists, which alone count then", examples=["prices.json"]
    )

    @model_validator(mode="after")
    def _has_tables(self) -> PricesSection:
        for provider, tables in self.by_provider.items():
            if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
                raise ValueError(f"{provider} is a table of tables, like [prices.{provider}.functions.NAME]")
        return self

    @property
    def by_provider(self) -> dict[str, Any]:
        """The tables."""
        return dict(self.model_extra or {})


class JobSpec(Section):
    """A whole job, as `smlt.toml` states it."""

    job: Job
    train: Train = Field(default_factory=Train)
    limits: LimitsSection = Field(default_factory=LimitsSection)
    backend: BackendSection = Field(default_factory=BackendSection)
    workers: Workers = Field(default_factory=Workers)
    sync: SyncSection = Field(default_factory=SyncSection)
    planner: PlannerSection = Field(default_factory=PlannerSection)
    prices: PricesSection = Field(default_factory=PricesSection)

    def to_plain(self) -> dict[str, Any]:
        """The job as plain data, for a function's payload and the run's record."""
        return self.model_dump(mode="json")

    @classmethod
    def from_plain(cls, data: dict[str, Any]) -> JobSpec:
        """The job that `to_plain` described."""
        return cls.model_validate(data)


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, (str, int, float, bool))
