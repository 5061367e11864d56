"""`KerasTraining`: a KerasTask as the engine drives it; here the parts of a step become a transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from smlt.core.errors import ProtocolError, TaskError
from smlt.core.task import (
    Array,
    EvalPart,
    Indices,
    Reached,
    Region,
    State,
    StepLoss,
    StepWork,
    TaskShape,
    TrainingTask,
    unheard,
)
from smlt.frameworks.blame import overridden
from smlt.frameworks.keras import checks, defaults, environment, seeding
from smlt.frameworks.keras.blame import blame
from smlt.frameworks.keras.buffers import Buffers
from smlt.frameworks.keras.data import Batches, batches_of, epoch_order
from smlt.frameworks.keras.evaluation import Evaluation
from smlt.frameworks.keras.export import weight_names
from smlt.frameworks.keras.state import TaskState, Variables
from smlt.frameworks.keras.steps import Steps
from smlt.frameworks.keras.task import KerasTask
from smlt.frameworks.keras.updates import Updates, clip
from smlt.frameworks.keras.variables import FlatBulk, raw

FEW = 2
"""Examples that a model is tried on when it is built; with one, some shapes would be taken for others."""


@dataclass(frozen=True)
class Pieces:
    """The memory of one contribution, or of one sum, cut up."""

    gradients: Array
    floats: Array
    words: Array
    used: Array
    changed: Array


class KerasTraining(TrainingTask):
    """A user's KerasTask, whose `context` is set."""

    _trained: list[Any]
    _buffers: Buffers
    _data: Batches
    _evaluation: Evaluation | None
    _steps: Steps
    _updates: Updates
    _state: TaskState
    _flat: FlatBulk
    _weights: Variables
    _parameters: Variables

    def __init__(self, task: KerasTask) -> None:
        self._task = task
        self._context = task.context
        self._in_hand: StepWork | None = None

    def prepare(self) -> Mapping[str, Array] | None:
        """What the user's `prepare_data` makes, tensors as arrays."""
        environment.start(self._context)
        checks.check_hooks(self._task)
        seeding.seed_everything(self._context.seed)
        with blame(self._task, "prepare_data"):
            prepared = self._task.prepare_data()
        return checks.check_prepared(prepared)

    def build(self, prepared: Mapping[str, Array], total_steps: Callable[[int], int]) -> TaskShape:
        """Build data and model, and try them on a few examples; everything random is seeded before each hook."""
        task = self._task
        environment.start(self._context)
        checks.check_hooks(task)
        task.prepared = prepared
        self._data, held_out = self._build_data()
        examples = len(self.order(0))
        task.total_steps = total_steps(examples)
        model = task.model = self._build_model(held_out)
        self._trained = checks.trained_variables(model)
        self._updates = Updates(model, self._trained)
        self._buffers = Buffers(model)
        self._steps = Steps(task, model, self._data, self._buffers, self._trained)
        raw_outputs = overridden(task, "eval_end", KerasTask)
        self._evaluation = Evaluation(task, model, held_out, self._buffers, raw_outputs) if held_out else None
        self._state = TaskState(task, model)
        weights = weight_names(model)
        trained = {id(each) for each in self._trained}
        self._weights = Variables(weights)
        self._parameters = Variables({name: each for name, each in weights.items() if id(each) in trained})
        self._flat = FlatBulk(raw(self._trained))
        self._warm_up()
        return TaskShape(
            examples=examples,
            eval_examples=held_out.length if held_out else 0,
            parameters=self._updates.parameters,
            regions=self._regions(),
            fingerprint=environment.fingerprint(self._context.precision),
            weights=self._regions()[:-1],
        )

    def order(self, epoch: int) -> Indices:
        """The user's `sampler`."""
        return epoch_order(self._task, self._data.length, epoch)

    def compute(self, work: StepWork, contribution: Sequence[Array], reached: Reached = unheard) -> StepLoss:
        """Forward and backward; afterwards the contribution holds all of it, and the task is as before."""
        self._in_hand = work
        self._task._step, self._task._epoch = work.step, work.epoch
        pieces = self._cut(contribution)
        with self._buffers.untouched():
            loss = self._steps.compute(work, pieces.gradients, pieces.used)
            self._buffers.contribute(
                pieces.floats, pieces.words, pieces.changed, first=work.alone or self._context.rank == 0
            )
        return loss

    def forget(self) -> None:
        """Let go of the step in hand; `compute` has left nothing behind."""
        self._in_hand = None

    def commit(self, sums: Sequence[Array], loss: StepLoss) -> None:
        """Untrained variables, clipping, the user's last word on the gradients, the optimizer."""
        work, task = self._in_hand, self._task
        if work is None:
            raise ProtocolError("commit without compute")
        pieces = self._cut(sums)
        divisor = self._steps.divisor(work, loss)
        if not divisor > 0:
            raise TaskError(
                f"the losses of step {work.step} weigh {loss.weight} in all", "leave out batches without targets"
            )
        self._buffers.agree(pieces.floats, pieces.words, pieces.changed, 1 if work.alone else self._context.world_size)
        if divisor != 1:
            pieces.gradients[:] /= np.float32(divisor)
        if self._context.clip_norm is not None:
            clip(pieces.gradients, self._context.clip_norm)
        used = [bool(flag) for flag in pieces.used]
        task.gradients = self._updates.views(pieces.gradients, used)
        try:
            with blame(task, "before_optimizer_step"):
                task.before_optimizer_step(task.model)
            with blame(task, "build_model", f"{type(task.model.optimizer).__name__}.apply"):
                self._updates.apply(pieces.gradients, used)
        finally:
            task.gradients = ()
        self._in_hand = None

    def evaluate(self, indices: Indices) -> EvalPart:
        """The task's `eval_step` over this rank's share."""
        return self._evaluation.share(indices) if self._evaluation else EvalPart()

    def finish_evaluation(self, parts: Sequence[EvalPart]) -> dict[str, float]:
        """Means, or the user's `eval_end`."""
        return self._evaluation.finish(parts) if self._evaluation else {}

    def shared_state(self) -> State:
        """Model, random states, optimizer and the user's `state`."""
        return self._state.save()

    def load_shared_state(self, state: State) -> None:
        """Take all of it over."""
        self._in_hand = None
        self._state.load(state)

    def read_weights(self, out: Sequence[Array]) -> None:
        """Trained variables, and float variables that are not."""
        out[0][:] = self._flat.read()
        for floats in out[1:]:
            floats[:] = self._buffers.read_floats()

    def write_weights(self, values: Sequence[Array]) -> None:
        """Trained variables, and float variables that are not."""
        self._flat.write(values[0])
        for floats in values[1:]:
            self._buffers.write_floats(floats)

    def parameters(self) -> dict[str, Array]:
        """The trained variables by stable names."""
        return self._parameters.read()

    def model_arrays(self) -> tuple[dict[str, Array], dict[str, str]]:
        """All weights by stable names; Keras has each shared variable once."""
        return self._weights.read(), {}

    def _build_data(self) -> tuple[Batches, Batches | None]:
        task = self._task
        seeding.seed_everything(self._context.seed)
        with blame(task, "train_data"):
            training = task.train_data()
        data = batches_of(task, "train_data", training)
        if not data.length:
            raise TaskError("train_data has no examples")
        task._examples = data.length
        seeding.seed_everything(self._context.seed)
        with blame(task, "eval_data"):
            held_out = task.eval_data()
        return data, None if held_out is None else batches_of(task, "eval_data", held_out)

    def _build_model(self, held_out: Batches | None) -> Any:
        """The user's model, with all its variables, and those of its compiled loss and metrics."""
        task = self._task
        seeding.seed_everything(self._context.seed)
        with blame(task, "build_model"), _precision(self._context.precision):
            model = task.build_model()
        checks.check_model(task, model)
        self._complete(model, held_out)
        return model

    def _complete(self, model: Any, held_out: Batches | None) -> None:
        """Let Keras make the variables that it makes when it first sees data: of the model, its loss, its metrics."""
        task = self._task
        for hook, data in (("training_step", self._data), ("eval_step", held_out)):
            if data and data.length and not overridden(task, hook, KerasTask):
                with blame(task, "build_model", "the compiled model on two examples"):
                    defaults.complete(model, data.fetch(self._few(data), 0))
        if not model.built:
            with blame(task, "build_model", "the model on two examples"):
                model(keras.utils.unpack_x_y_sample_weight(self._data.fetch(self._few(self._data), 0))[0])

    def _warm_up(self) -> None:
        """Trace, and run on a few examples, what steps and evaluations need, so that READY means ready."""
        known = set(weight_names(self._task.model))
        with self._buffers.untouched(), self._buffers.checked():
            self._steps.warm_up(self._few(self._data))
        if late := sorted(set(weight_names(self._task.model)) - known):
            raise TaskError(
                f"the model's {', '.join(late)} came into being in training_step",
                "build every layer in build_model: call it on something there, or call its build(shape)",
            )
        self._updates.warm_up()
        if self._evaluation and self._evaluation.examples:
            self._evaluation.share(np.arange(min(FEW, self._evaluation.examples), dtype=np.int64))

    def _few(self, data: Batches) -> Indices:
        return np.arange(FEW, dtype=np.int64) % data.length

    def _regions(self) -> tuple[Region, ...]:
        """Gradients, float variables, and int64: others, a flag each trained one (used) and untrained one (changed)."""
        buffers = self._buffers
        integers = buffers.words + len(self._trained) + buffers.count
        floats = (Region("float32", buffers.floats),) if buffers.floats else ()
        return Region("float32", self._updates.parameters, tolerant=True), *floats, Region("int64", integers)

    def _cut(self, memory: Sequence[Array]) -> Pieces:
        gradients, *rest, integers = memory
        floats = rest[0] if rest else gradients[:0]
        words, used, changed = np.split(integers, np.cumsum((self._buffers.words, len(self._trained))))
        return Pieces(gradients, floats, words, used, changed)


@contextmanager
def _precision(name: str) -> Iterator[None]:
    """What `[train].precision` means while a model is built."""
    before = keras.config.dtype_policy()
    if name == "bf16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
