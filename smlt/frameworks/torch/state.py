"""A task's state at a commit <-> arrays and plain data: model, optimizers, schedulers, the user's own. No pickle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from smlt.core.errors import TaskError
from smlt.core.task import Array, State
from smlt.frameworks.torch.blame import blame
from smlt.frameworks.torch.buffers import buffers_of
from smlt.frameworks.torch.memory import array_of, contiguous, copy_into, fits
from smlt.frameworks.torch.optimizers import Optimizers
from smlt.frameworks.torch.plain import decode, encode

if TYPE_CHECKING:
    from smlt.frameworks.torch.task import TorchTask

HINT = "the task has changed since the state was saved; start a new run, or undo the change"


def save(task: TorchTask, model: nn.Module, optimizers: Optimizers) -> State:
    """The whole state; arrays are views of live memory where they can be."""
    arrays = {f"model/{name}": contiguous(array_of(tensor)) for name, tensor in tensors_of(model).items()}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    saved = {key: _save_optimizer(each, _prefix(key), names, arrays) for key, each in optimizers.optimizers.items()}
    schedulers = {
        key: encode(each.state_dict(), f"scheduler/{key}" if key else "scheduler", arrays)
        for key, each in optimizers.schedulers.items()
    }
    with blame(task, "state"):
        user = encode(dict(task.state()), "user", arrays)
    return State(arrays, {"optimizers": saved, "schedulers": schedulers, "user": user})


def load(task: TorchTask, model: nn.Module, optimizers: Optimizers, state: State) -> None:
    """Take a state over, whole: what does not fit is found before anything changes, but for the user's `load_state`.

    Raises:
        TaskError: names, shapes, dtypes or counts differ from the task's.
    """
    tensors = tensors_of(model)
    given = {name.removeprefix("model/"): array for name, array in state.arrays.items() if name.startswith("model/")}
    _same_names("the model", tensors, given)
    fitting = {name: fits(tensor, given[name], f"model/{name}") for name, tensor in tensors.items()}
    parts = {part: state.extra.get(part, {}) for part in ("optimizers", "schedulers", "user")}
    _same_names("the optimizers", optimizers.optimizers, parts["optimizers"])
    _same_names("the schedulers", optimizers.schedulers, parts["schedulers"])
    names = dict(model.named_parameters())
    loads = [
        (each, *_read_optimizer(each, parts["optimizers"][key], names, state.arrays))
        for key, each in optimizers.optimizers.items()
    ]
    for name, tensor in tensors.items():
        copy_into(tensor, fitting[name])
    for optimizer, groups, entries in loads:
        for group, values in zip(optimizer.param_groups, groups, strict=True):
            group.update(values)
        optimizer.state.clear()
        optimizer.state.update(entries)
    for key, scheduler in optimizers.schedulers.items():
        with blame(task, "build_optimizer", f"{type(scheduler).__name__}.load_state_dict"):
            scheduler.load_state_dict(decode(parts["schedulers"][key], state.arrays))
    with blame(task, "load_state"):
        task.load_state(decode(parts["user"], state.arrays))


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, each once."""
    return dict(model.named_parameters()) | {buffer.name: buffer.tensor for buffer in buffers_of(model)}


def _prefix(key: str) -> str:
    return f"optimizer.{key}" if key else "optimizer"


def _save_optimizer(
    optimizer: Optimizer, prefix: str, names: Mapping[int, str], arrays: dict[str, Array]
) -> dict[str, Any]:
    kind = type(optimizer).__name__
    groups = []
    for place, group in enumerate(optimizer.param_groups):
        plain = {key: value for key, value in group.items() if key != "params"}
        members = [names[id(parameter)] for parameter in group["params"]]
        groups.append({"members": members, "values": encode(plain, f"{prefix}-groups/{place}", arrays)})
    entries = {}
    for parameter, entry in optimizer.state.items():
        name = names.get(id(parameter))
        if name is None or not isinstance(entry, Mapping):
            raise TaskError(f"{kind} keeps state that belongs to no parameter, which smlt cannot carry over")
        entries[name] = encode(dict(entry), f"{prefix}/{name}", arrays)
    return {"kind": kind, "groups": groups, "entries": entries}


def _read_optimizer(
    optimizer: Optimizer, saved: Mapping[str, Any], parameters: Mapping[str, nn.Parameter], arrays: Mapping[str, Array]
) -> tuple[list[dict[str, Any]], dict[Tensor, dict[str, Any]]]:
    kind = type(optimizer).__name__
    if saved["kind"] != kind:
        raise TaskError(f"the state was saved with the optimizer {saved['kind']}, and the task's is {kind}", HINT)
    members = [{id(parameter) for parameter in group["params"]} for group in optimizer.param_groups]
    known = [{id(parameters.get(name)) for name in group["members"]} for group in saved["groups"]]
    if members != known:
        raise TaskError(f"{kind} groups the parameters otherwise than in the saved state", HINT)
    groups = [decode(group["values"], arrays) for group in saved["groups"]]
    entries: dict[Tensor, dict[str, Any]] = {}
    for name, entry in saved["entries"].items():
        parameter = parameters[name]
        values = decode(entry, arrays)
        entries[parameter] = {key: _laid_out_as(parameter, value) for key, value in values.items()}
    return groups, entries


def _laid_out_as(parameter: Tensor, value: Any) -> Any:
    """A tensor of the parameter's shape gets its strides too, as an optimizer would have made it."""
    if not isinstance(value, Tensor) or value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)


def _same_names(what: str, wanted: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    missing, surplus = sorted(set(wanted) - set(given)), sorted(set(given) - set(wanted))
    if missing:
        raise TaskError(f"the saved state of {what} lacks {', '.join(missing)}", HINT)
    if surplus:
        raise TaskError(f"the saved state of {what} has {', '.join(surplus)}, which the task has not", HINT)
