"""What a backward pass has finished is told while it goes on."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from smlt.core.errors import TaskError
from smlt.core.task import StepWork
from smlt.frameworks.torch import TorchTask
from tests.frameworks.fleet import Fleet

FIRST, SECOND = 16 * 16, 16  # elements of the two layers' weights, aligned


class Layers(TorchTask):
    """Two layers without bias; the last one's gradient is final first."""

    reentrant_from_step = 10**9
    uses_second = True

    def build_model(self):
        return nn.ModuleDict({"first": nn.Linear(16, 16, bias=False), "second": nn.Linear(16, 1, bias=False)})

    def build_optimizer(self, model):
        return torch.optim.SGD(model.parameters(), lr=0.1)

    def train_data(self):
        return torch.utils.data.TensorDataset(torch.randn(32, 16))

    def training_step(self, model, batch):
        hidden = model["first"](batch[0].requires_grad_())
        if self.step >= self.reentrant_from_step:
            hidden = hidden + checkpoint(model["first"], batch[0], use_reentrant=True)
        return (model["second"](hidden) if self.uses_second else hidden).square().mean()


def told(task: type[TorchTask], steps: int, micro_batch: int | None = None) -> list[list[int]]:
    """By step, what was said to be final."""
    fleet = Fleet(task, 1, micro_batch=micro_batch)
    said: list[list[int]] = []
    for step in range(steps):
        said.append([])
        contribution = fleet.contributions()[0]

        def reached(elements: int, contribution=contribution, step=step) -> None:
            said[step].append(elements)
            assert contribution[0][:elements].any()

        fleet.ranks[0].compute(StepWork(step, 0, np.arange(8), 8), contribution, reached)
        fleet.ranks[0].forget()
    return said


def test_the_first_pass_is_watched_and_the_others_are_told() -> None:
    assert told(Layers, 3) == [[], [SECOND, SECOND + FIRST], [SECOND, SECOND + FIRST]]


def test_with_micro_batches_only_the_last_pass_is_told() -> None:
    assert told(Layers, 2, micro_batch=4) == [[], [SECOND, SECOND + FIRST]]


def test_a_parameter_that_is_not_used_holds_back_what_lies_behind_it() -> None:
    class Partial(Layers):
        uses_second = False

    assert told(Partial, 2) == [[], []]


def test_a_pass_that_comes_twice_is_not_followed() -> None:
    class Reentrant(Layers):
        reentrant_from_step = 0

    assert told(Reentrant, 3) == [[], [], []]


def test_where_the_first_pass_came_twice_nothing_is_told_ever_after() -> None:
    class Once(Layers):
        def training_step(self, model, batch):
            self.reentrant_from_step = 0 if self.step == 0 else 10**9
            return super().training_step(model, batch)

    assert told(Once, 4) == [[], [], [], []]


def test_hooks_of_the_user_s_own_come_first_whenever_they_were_registered() -> None:
    class Hooked(Layers):
        def training_step(self, model, batch):
            for parameter in model.parameters():
                parameter.register_post_accumulate_grad_hook(self.fill)
            return super().training_step(model, batch)

        def fill(self, parameter):
            parameter.grad.fill_(self.step)

    fleet, seen = Fleet(Hooked, 1), []
    for step in range(4):
        contribution = fleet.contributions()[0]

        def reached(elements: int, contribution=contribution) -> None:
            seen.append(set(contribution[0][:elements].tolist()))

        fleet.ranks[0].compute(StepWork(step, 0, np.arange(8), 8), contribution, reached)
        fleet.ranks[0].forget()
    assert seen == [{1.0}, {1.0}, {2.0}, {2.0}, {3.0}, {3.0}]


def test_one_that_comes_twice_later_on_is_an_error_that_says_how_to_mend_it() -> None:
    class Late(Layers):
        reentrant_from_step = 2

    with pytest.raises(TaskError, match=r"came to first\.weight a second time") as caught:
        told(Late, 3)
    assert "use_reentrant=False" in caught.value.hint
