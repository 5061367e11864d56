"""What a task must have before anything of it is built, and what its model must be like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from smlt.core.errors import TaskError, nearest
from smlt.core.task import Array
from smlt.frameworks.blame import overridden
from smlt.frameworks.hooks import check_pairs, checked_prepared
from smlt.frameworks.torch.task import TorchTask

INTERVALS = ("step", "epoch")


def has_loop(task: TorchTask) -> bool:
    """Whether the user's own loop trains."""
    return overridden(task, "loop", TorchTask)


def check_hooks(task: TorchTask) -> None:
    """Raise TaskError for a hook that is missing, or for options that make no sense together."""
    name = type(task).__name__
    for hook in ("build_model", "build_optimizer", "train_data"):
        if not overridden(task, hook, TorchTask):
            raise TaskError(f"{name} has no {hook}", f"define {hook} in {name}; see the docstring of TorchTask.{hook}")
    if not has_loop(task) and not overridden(task, "training_step", TorchTask):
        raise TaskError(f"{name} has no training_step", "define training_step(self, model, batch), or loop(self, ctx)")
    if overridden(task, "eval_data", TorchTask) and not overridden(task, "eval_step", TorchTask):
        raise TaskError(f"{name} has eval_data but no eval_step", "define eval_step(self, model, batch)")
    check_pairs(task, TorchTask, task.eval_batch)
    if task.scheduler_interval not in INTERVALS:
        raise TaskError(
            f"{name}.scheduler_interval is {task.scheduler_interval!r}",
            nearest(str(task.scheduler_interval), INTERVALS),
        )
    if has_loop(task) and task.context.micro_batch is not None:
        raise TaskError("[train].micro_batch has no meaning for a loop of your own", "remove it, or use training_step")


def check_model(model: Any) -> nn.Module:
    """The model, if it is a module whose parameters exist on the CPU; raises TaskError otherwise."""
    if not isinstance(model, nn.Module):
        raise TaskError(f"build_model returned a {type(model).__name__}", "return a torch.nn.Module")
    for name, parameter in model.named_parameters():
        if is_lazy(parameter):
            raise TaskError(
                f"the parameter {name} has no shape yet", "let build_model run one batch through lazy modules"
            )
        if parameter.device.type != "cpu":
            raise TaskError(
                f"the parameter {name} is on {parameter.device}", "functions have CPUs: build the model there"
            )
    return model


def check_prepared(prepared: Any) -> Mapping[str, Array] | None:
    """What `prepare_data` returned, as arrays; raises TaskError for anything else."""
    return checked_prepared(prepared, lambda value: value.detach().numpy() if isinstance(value, Tensor) else value)
