"""`TorchTraining`: a TorchTask as the engine drives it; here the parts of a step become a transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from smlt.core.errors import ProtocolError, TaskError
from smlt.core.task import (
    Array,
    EvalPart,
    Indices,
    Reached,
    State,
    StepLoss,
    StepWork,
    TaskShape,
    TrainingTask,
    unheard,
)
from smlt.frameworks.blame import overridden
from smlt.frameworks.torch import checks, evaluation, export, seeding
from smlt.frameworks.torch import state as states
from smlt.frameworks.torch.blame import blame
from smlt.frameworks.torch.data import Batches, epoch_order
from smlt.frameworks.torch.flat import GradientViews
from smlt.frameworks.torch.loop import LoopSteps
from smlt.frameworks.torch.memory import array_of, contiguous
from smlt.frameworks.torch.optimizers import Optimizers, read_optimizers
from smlt.frameworks.torch.regions import Pieces, Regions
from smlt.frameworks.torch.steps import HookSteps, Stepper
from smlt.frameworks.torch.task import TorchTask


class TorchTraining(TrainingTask):
    """A user's TorchTask, whose `context` is set."""

    _model: nn.Module
    _optimizers: Optimizers
    _regions: Regions
    _tensor_names: set[str]
    _data: Batches
    _eval_data: Batches | None
    _steps: Stepper

    def __init__(self, task: TorchTask) -> None:
        self._task = task
        self._context = task.context
        self._in_hand: StepWork | None = None

    def prepare(self) -> Mapping[str, Array] | None:
        """What the user's `prepare_data` makes, tensors as arrays."""
        checks.check_hooks(self._task)
        seeding.seed_everything(self._context.seed)
        with blame(self._task, "prepare_data"):
            prepared = self._task.prepare_data()
        return checks.check_prepared(prepared)

    def build(self, prepared: Mapping[str, Array], total_steps: Callable[[int], int]) -> TaskShape:
        """Build data, model and optimizer; before each hook everything random is seeded by the job's seed."""
        task = self._task
        checks.check_hooks(task)
        seeding.be_deterministic(self._context.threads)
        shape = self._build_model(prepared, total_steps)
        seeding.seed_everything(self._context.seed)
        with blame(task, "build_optimizer"):
            returned = task.build_optimizer(self._model)
        self._optimizers = read_optimizers(returned, self._model, several=checks.has_loop(task))
        self._tensor_names = set(states.tensors_of(self._model))
        self._steps = self._build_steps()
        return shape

    def measure(self, prepared: Mapping[str, Array], total_steps: Callable[[int], int]) -> TaskShape:
        """Data and model: a first optimizer, like determinism, imports torch._dynamo, which takes as long as torch."""
        checks.check_hooks(self._task)
        return self._build_model(prepared, total_steps)

    def _build_model(self, prepared: Mapping[str, Array], total_steps: Callable[[int], int]) -> TaskShape:
        task = self._task
        task.prepared = prepared
        self._data, self._eval_data = self._build_data()
        visited = len(self.order(0))
        task.total_steps = total_steps(visited)
        seeding.seed_everything(self._context.seed)
        with blame(task, "build_model"):
            built = task.build_model()
        self._model = task.model = checks.check_model(built)
        if not self._model.training:
            self._model.train()
        self._regions = Regions(self._model)
        return TaskShape(
            examples=visited,
            eval_examples=self._eval_data.length if self._eval_data else 0,
            parameters=self._regions.parameters,
            regions=self._regions.shape(),
            fingerprint=seeding.fingerprint(self._context.precision),
            weights=self._regions.weights_shape(),
        )

    def order(self, epoch: int) -> Indices:
        """The user's `sampler`."""
        return epoch_order(self._task, self._data.length, epoch)

    def compute(self, work: StepWork, contribution: Sequence[Array], reached: Reached = unheard) -> StepLoss:
        """Forward and backward; afterwards the contribution holds all of it, and the task is as before."""
        self._in_hand = work
        self._task.step, self._task.epoch = work.step, work.epoch
        pieces = self._regions.cut(contribution)
        gradients = self._regions.views(pieces)
        gradients.detach()
        buffers = self._regions.buffers
        with buffers.untouched() as kept:
            try:
                loss = self._steps.compute(work, gradients, pieces.used, reached)
                self._check_frozen()
            finally:
                gradients.detach()
            buffers.contribute(
                kept,
                pieces.buffer_floats,
                pieces.buffer_words,
                pieces.buffer_changed,
                first=self._context.rank == 0 or work.alone,
            )
        return loss

    def forget(self) -> None:
        """Only a loop of the user's own has something to undo: it starts anew."""
        self._in_hand = None
        self._steps.restart()

    def commit(self, sums: Sequence[Array], loss: StepLoss) -> None:
        """Buffers, gradients, clipping, optimizer, scheduler."""
        work = self._in_hand
        if work is None:
            raise ProtocolError("commit without compute")
        pieces = self._regions.cut(sums)
        divisor = self._steps.divisor(work, loss)
        if not divisor > 0:
            raise TaskError(
                f"the losses of step {work.step} weigh {loss.weight} in all", "leave out batches without targets"
            )
        self._regions.buffers.agree(
            pieces.buffer_floats,
            pieces.buffer_words,
            pieces.buffer_changed,
            1 if work.alone else self._context.world_size,
        )
        gradients = self._take_gradients(pieces, divisor)
        try:
            if self._context.clip_norm is not None:
                nn.utils.clip_grad_norm_(self._model.parameters(), self._context.clip_norm)
            self._steps.apply(work)
        finally:
            gradients.detach()
        self._in_hand = None

    def evaluate(self, indices: Indices) -> EvalPart:
        """The user's `eval_step` over this rank's share."""
        if self._eval_data is None:
            return EvalPart()
        with evaluation.evaluating(self._model, self._regions.buffers):
            return evaluation.evaluate_share(self._task, self._model, self._eval_data, indices, raw=self._raw_outputs)

    def finish_evaluation(self, parts: Sequence[EvalPart]) -> dict[str, float]:
        """Means, or the user's `eval_end`."""
        return evaluation.finish(self._task, parts, raw=self._raw_outputs) if self._eval_data else {}

    def shared_state(self) -> State:
        """Model, optimizers, schedulers and the user's `state`."""
        if new := sorted(set(states.tensors_of(self._model)) - self._tensor_names):
            raise TaskError(
                f"the model has got {', '.join(new)} since it was built, which no other rank knows of",
                "let build_model make all parameters and buffers",
            )
        return states.save(self._task, self._model, self._optimizers)

    def load_shared_state(self, state: State) -> None:
        """Take all of it over; a loop of the user's own starts anew."""
        self._in_hand = None
        self._steps.restart()
        states.load(self._task, self._model, self._optimizers, state)

    def read_weights(self, out: Sequence[Array]) -> None:
        """Parameters and float buffers."""
        self._regions.read_weights(out)

    def write_weights(self, values: Sequence[Array]) -> None:
        """Parameters and float buffers."""
        self._regions.write_weights(values)

    def parameters(self) -> dict[str, Array]:
        """The trained parameters by name, each once."""
        return {name: contiguous(array_of(parameter)) for name, parameter in self._regions.trained}

    def model_arrays(self) -> tuple[dict[str, Array], dict[str, str]]:
        """Arrays named as in `state_dict`, and the aliases of tied weights."""
        return export.model_arrays(self._model)

    def close(self) -> None:
        """End a loop of the user's own and its thread; harmless otherwise."""
        steps: Stepper | None = getattr(self, "_steps", None)  # none where building failed or was left out
        if steps is not None:
            steps.close()

    @property
    def _raw_outputs(self) -> bool:
        return overridden(self._task, "eval_end", TorchTask)

    def _build_data(self) -> tuple[Batches, Batches | None]:
        task = self._task
        seeding.seed_everything(self._context.seed)
        with blame(task, "train_data"):
            training = task.train_data()
        data = Batches(task, "train_data", training)
        if not data.length:
            raise TaskError("train_data has no examples")
        task._examples = data.length
        seeding.seed_everything(self._context.seed)
        with blame(task, "eval_data"):
            held_out = task.eval_data()
        return data, None if held_out is None else Batches(task, "eval_data", held_out)

    def _build_steps(self) -> Stepper:
        if checks.has_loop(self._task):
            return LoopSteps(self._task, self._model, self._optimizers, self._data)
        return HookSteps(self._task, self._model, self._optimizers, self._data, self._regions.used, self._regions.front)

    def _check_frozen(self) -> None:
        for name, parameter in self._regions.frozen:
            if parameter.grad is not None:
                raise TaskError(
                    f"the parameter {name} was frozen when the model was built, and has a gradient now",
                    "what is trained later on must require gradients from the start; hold it with a learning rate of 0",
                )

    def _take_gradients(self, pieces: Pieces, divisor: float) -> GradientViews:
        """Give every parameter that any rank used its global gradient."""
        if divisor != 1:
            for region in pieces.gradients:
                torch.from_numpy(region).div_(divisor)
        gradients = self._regions.views(pieces)
        gradients.attach()
        for place in np.flatnonzero(pieces.used == 0).tolist():
            gradients.pairs[place][0].grad = None
        return gradients
