"""What `build_optimizer` returned: one optimizer or several, with or without schedulers, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import LBFGS, Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from smlt.core.errors import TaskError

HINT = "return an optimizer or (optimizer, scheduler); with loop(self, ctx) also a list or dict of optimizers"


@dataclass(frozen=True)
class Optimizers:
    """Optimizers and schedulers by a name: "" for an only one, else the user's key or the place in the user's list."""

    optimizers: Mapping[str, Optimizer]
    schedulers: Mapping[str, Any]

    def only_scheduler(self) -> Any:
        """The scheduler, or None."""
        return next(iter(self.schedulers.values()), None)


def read_optimizers(returned: Any, model: nn.Module, several: bool) -> Optimizers:
    """Make sense of what `build_optimizer` returned.

    Args:
        returned: see `HINT`.
        model: whose parameters they train.
        several: whether there may be more than one, which only a loop of the user's own can step.

    Raises:
        TaskError: it is none of these, or holds something that cannot be trained by steps.
    """
    schedulers: Any = None
    if isinstance(returned, tuple) and len(returned) == 2 and not isinstance(returned[1], Optimizer):
        returned, schedulers = returned
    found = Optimizers(_named(returned), {} if schedulers is None else _named(schedulers))
    for optimizer in found.optimizers.values():
        _check_optimizer(optimizer, model)
    for scheduler in found.schedulers.values():
        _check_scheduler(scheduler)
    if not found.optimizers:
        raise TaskError("build_optimizer returned no optimizer", HINT)
    if not several and (len(found.optimizers) > 1 or len(found.schedulers) > 1):
        raise TaskError("build_optimizer returned several optimizers or schedulers, and there is no loop", HINT)
    return found


def _named(given: Any) -> dict[str, Any]:
    if isinstance(given, Mapping):
        return {str(key): value for key, value in given.items()}
    if isinstance(given, list | tuple):
        return {str(place): value for place, value in enumerate(given)}
    return {"": given}


def _check_optimizer(optimizer: Any, model: nn.Module) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TaskError(f"build_optimizer returned a {type(optimizer).__name__} for an optimizer", HINT)
    if isinstance(optimizer, LBFGS):
        raise TaskError("LBFGS computes the loss several times a step", "choose a first-order optimizer such as AdamW")
    known = {id(parameter) for parameter in model.parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if id(parameter) not in known:
                raise TaskError(
                    f"the optimizer holds a parameter of shape {list(parameter.shape)} that is not the model's",
                    "let build_model return all that is trained, for example in an nn.ModuleDict",
                )


def _check_scheduler(scheduler: Any) -> None:
    if isinstance(scheduler, ReduceLROnPlateau):
        raise TaskError(
            "ReduceLROnPlateau steps on a validation metric, and smlt steps a scheduler inside a training step",
            "choose a scheduler that depends on the step alone; self.total_steps says how many there will be",
        )
    if not all(callable(getattr(scheduler, name, None)) for name in ("step", "state_dict", "load_state_dict")):
        raise TaskError(f"build_optimizer returned a {type(scheduler).__name__} for a scheduler", HINT)
