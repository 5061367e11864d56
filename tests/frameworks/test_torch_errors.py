"""What a user sees who forgot something, or whose code raised: which hook, which file and line, how to mend it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from fleet import Fleet
from torch import nn
from torch.nn.functional import cross_entropy, embedding
from torch_models import Classifier

from smlt.core.errors import SmltError, TaskError
from smlt.core.task import Loss
from smlt.frameworks.torch import TorchTask


def task(base: type[TorchTask] = Classifier, **members: Any) -> type[TorchTask]:
    """A task with some members replaced."""
    return type("Mine", (base,), members)


def told(mine: type[TorchTask], steps: int = 1, **context: Any) -> TaskError:
    """What the user is told."""
    with pytest.raises(TaskError) as caught:
        Fleet(mine, **context).run(steps)
    return caught.value


def fails(*_: Any) -> Any:
    raise ValueError("too hot")


HOOKS = ("prepare_data", "build_model", "build_optimizer", "train_data", "eval_data", "collate", "training_step")


@pytest.mark.parametrize("hook", [*HOOKS, "sampler", "before_optimizer_step"])
def test_an_exception_of_the_users_names_hook_file_and_line(hook: str) -> None:
    error = told(task(**{hook: fails}))
    line = fails.__code__.co_firstlineno + 1
    assert error.message == f"{hook} raised ValueError: too hot (test_torch_errors.py:{line})"
    assert isinstance(error.__cause__, ValueError)


@pytest.mark.parametrize("hook", ["eval_step", "eval_end"])
def test_so_does_one_in_evaluation(hook: str) -> None:
    with pytest.raises(TaskError, match=rf"{hook} raised ValueError: too hot \(test_torch_errors\.py"):
        Fleet(task(**{hook: fails})).evaluate()


@pytest.mark.parametrize("hook", ["state", "load_state"])
def test_and_one_in_the_users_state(hook: str) -> None:
    hooks: dict[str, Any] = {"state": lambda self: {}, "load_state": lambda self, state: None}
    fleet = Fleet(task(**(hooks | {hook: fails})))
    with pytest.raises(TaskError, match=rf"{hook} raised ValueError: too hot \(test_torch_errors\.py"):
        fleet.go_on_from(fleet)


def test_an_error_of_smlts_own_passes_as_it_is() -> None:
    error = told(task(build_model=lambda self: self.path("vocab.json")))
    assert error.message == "the task asks for 'vocab.json', which did not travel with it"


def test_an_item_that_cannot_be_had_is_named() -> None:
    class Short:
        def __len__(self) -> int:
            return 9

        def __getitem__(self, index: int) -> Any:
            return [1, 2][index]

    error = told(task(train_data=lambda self: Short(), sampler=lambda self, rng, epoch: [7]))
    assert error.message.startswith("train_data()[7] raised IndexError: list index out of range (test_torch_errors.py:")


def test_items_that_cannot_be_stacked_have_a_hint() -> None:
    error = told(task(train_data=lambda self: [torch.zeros(1), torch.zeros(2)]))
    assert error.message.startswith("collate raised RuntimeError")
    assert "override collate" in error.hint


def test_an_error_in_backward_is_told_from_one_in_the_forward_pass() -> None:
    class Bad(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            raise ValueError("no way back")

    error = told(task(training_step=lambda self, model, batch: Bad.apply(model(batch[0]).sum())))
    assert error.message.startswith("backward of training_step's loss raised ValueError: no way back")


def test_a_lack_of_memory_or_of_rows_has_a_hint() -> None:
    def hungry(self: Any, model: nn.Module, batch: Any) -> Any:
        return torch.empty(1 << 60)

    assert "micro_batch" in told(task(training_step=hungry)).hint

    def normed(self: Any) -> nn.Module:
        return nn.Sequential(nn.Linear(6, 3), nn.BatchNorm1d(3))

    assert "larger global batch" in told(task(build_model=normed), batch=1).hint


@pytest.mark.parametrize("hook", ["build_model", "build_optimizer", "train_data", "training_step"])
def test_a_missing_hook_is_named(hook: str) -> None:
    error = told(task(**{hook: getattr(TorchTask, hook)}))
    assert error.message == f"Mine has no {hook}"
    assert hook in error.hint


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"eval_step": TorchTask.eval_step}, "eval_data but no eval_step"),
        ({"state": lambda self: {}}, "one of state and load_state"),
        ({"scheduler_interval": "batch"}, "scheduler_interval is 'batch'"),
        ({"eval_batch": 0}, "eval_batch is 0"),
        ({"prepare_data": lambda self: [1]}, "prepare_data returned a list"),
        ({"prepare_data": lambda self: {"x": 1}}, "prepare_data returned 'x': int"),
        ({"build_model": lambda self: "resnet"}, "build_model returned a str"),
        ({"build_model": lambda self: nn.Linear(1, 1).requires_grad_(False)}, "no parameters to train"),
        ({"build_model": lambda self: nn.Linear(6, 3).half()}, "weight is float16"),
        ({"build_model": lambda self: nn.Linear(6, 3).bfloat16()}, "weight is bfloat16"),
        ({"build_model": lambda self: nn.Linear(6, 3, dtype=torch.complex64)}, "weight is complex64"),
        ({"build_model": lambda self: nn.LazyLinear(3)}, "weight has no shape yet"),
        ({"build_model": lambda self: nn.Linear(6, 3, device="meta")}, "weight is on meta"),
        ({"build_model": lambda self: nn.Embedding(6, 3, sparse=True)}, "Embedding has sparse=True"),
        ({"train_data": lambda self: iter([1])}, "train_data returned a list_iterator"),
        ({"train_data": lambda self: []}, "train_data has no examples"),
        ({"sampler": lambda self, rng, epoch: []}, "sampler returned no indices for epoch 0"),
        ({"sampler": lambda self, rng, epoch: [0, 37]}, "indices from 0 to 37"),
        ({"sampler": lambda self, rng, epoch: [-1, 3]}, "indices from -1 to 3"),
        ({"sampler": lambda self, rng, epoch: [0.5]}, "sampler returned float64"),
    ],
)
def test_what_a_hook_returns_is_checked(members: dict[str, Any], message: str) -> None:
    assert message in told(task(**members)).message


def test_mixed_precision_is_the_hint_for_half_precision_parameters() -> None:
    assert '[train].precision = "bf16"' in told(task(build_model=lambda self: nn.Linear(6, 3).bfloat16())).hint


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda self, model: None, "returned a NoneType for an optimizer"),
        (lambda self, model: [], "returned no optimizer"),
        (lambda self, model: (sgd(model), "cosine"), "returned a str for a scheduler"),
        (lambda self, model: [sgd(model), sgd(model)], "several optimizers"),
        (lambda self, model: (sgd(model), sgd(model)), "several optimizers"),
        (lambda self, model: torch.optim.LBFGS(model.parameters()), "LBFGS computes the loss several times"),
        (lambda self, model: torch.optim.SGD([nn.Parameter(torch.zeros(7))], lr=0.1), r"of shape \[7\] that is not"),
        (
            lambda self, model: (o := sgd(model), torch.optim.lr_scheduler.ReduceLROnPlateau(o)),
            "ReduceLROnPlateau steps on a validation metric",
        ),
    ],
)
def test_optimizers_that_cannot_be_stepped_are_refused(build: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Fleet(task(build_optimizer=build))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (lambda self, m, b: m(b[0]), r"a loss of shape \[8, 3\]"),
        (lambda self, m, b: 1.0, "returned a float for a loss"),
        (lambda self, m, b: m(b[0]).sum().detach(), "does not depend on the model's parameters"),
        (lambda self, m, b: m(b[0]).argmax(), "dtype int64"),
        (lambda self, m, b: Loss(m(b[0]).sum(), -1), "a Loss of weight -1.0"),
        (lambda self, m, b: Loss(m(b[0]).sum(), float("nan")), "a Loss of weight nan"),
    ],
)
def test_a_loss_that_is_none_is_refused(step: Any, message: str) -> None:
    with pytest.raises(TaskError, match=message):
        Fleet(task(training_step=step)).run(1)


def test_gradients_are_not_the_training_steps_business() -> None:
    def own_backward(self: Any, model: nn.Module, batch: Any) -> Any:
        cross_entropy(model(batch[0]), batch[1]).backward()
        return cross_entropy(model(batch[0]), batch[1])

    def zeroes(self: Any, model: nn.Module, batch: Any) -> Any:
        model.zero_grad(set_to_none=False)
        return cross_entropy(model(batch[0]), batch[1])

    assert "training_step changed gradients" in told(task(training_step=own_backward)).message
    assert "training_step changed gradients" in told(task(training_step=zeroes), micro_batch=2).message


def test_a_hook_on_a_parameter_may_not_take_its_gradient_away() -> None:
    def hooked(self: Any) -> nn.Module:
        model = nn.Linear(6, 3)

        def drop(parameter: torch.Tensor) -> None:
            parameter.grad = None

        model.bias.register_post_accumulate_grad_hook(drop)
        return model

    assert "the gradient of bias was replaced" in told(task(build_model=hooked)).message


def test_a_sparse_gradient_is_refused_wherever_it_comes_from() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(37, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return embedding(torch.arange(len(x)), self.weight, sparse=True)

    error = told(task(build_model=lambda self: Table()))
    assert error.message == "the gradient of weight is sparse, and smlt trains on dense gradients"
    assert "sparse=False" in error.hint


def test_a_parameter_that_thaws_later_is_refused() -> None:
    def frozen(self: Any) -> nn.Module:
        model = nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 3))
        model[0].requires_grad_(False)
        return model

    def thaw(self: Any, model: nn.Module, batch: Any) -> Any:
        model.requires_grad_(True)
        return cross_entropy(model(batch[0]), batch[1])

    assert "the parameter 0.weight was frozen" in told(task(build_model=frozen, training_step=thaw)).message


def test_a_buffer_may_not_change_its_shape() -> None:
    def grows(self: Any, model: nn.Module, batch: Any) -> Any:
        model.register_buffer("memory", torch.zeros(4))
        return cross_entropy(model(batch[0]), batch[1])

    def build(self: Any) -> nn.Module:
        model = nn.Linear(6, 3)
        model.register_buffer("memory", torch.zeros(2))
        return model

    error = told(task(build_model=build, training_step=grows))
    assert error.message == "the buffer memory changed from torch.float32[2] to torch.float32[4] in a step"


def test_a_buffer_that_comes_late_is_refused() -> None:
    def late(self: Any, model: nn.Module, batch: Any) -> Any:
        model.register_buffer("memory", torch.zeros(4))
        return cross_entropy(model(batch[0]), batch[1])

    fleet = Fleet(task(training_step=late)).run(1)
    with pytest.raises(TaskError, match="the model has got memory since it was built"):
        fleet.ranks[0].shared_state()


def test_every_error_is_one_line_with_a_hint_beneath() -> None:
    error = told(task(build_model=lambda self: nn.Linear(6, 3).half()))
    assert isinstance(error, SmltError)
    assert str(error).splitlines()[1].startswith("  hint: ")


def test_a_task_defined_without_a_file_is_told_where_too() -> None:
    scope: dict[str, Any] = {"Classifier": Classifier}
    source = "class Cell(Classifier):\n    def training_step(self, model, batch):\n        return 1 / 0\n"
    exec(compile(source, "/tmp/ipykernel_1/cell.py", "exec"), scope)
    assert told(scope["Cell"]).message == "training_step raised ZeroDivisionError: division by zero (cell.py:3)"
