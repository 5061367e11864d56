"""What local SGD averages, on tasks of PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
from averaging import Averaging
from fleet import Fleet, copied
from torch import Tensor, nn
from torch_models import Classifier, Normed

from smlt.core.stepping.private import mean_of
from smlt.core.task import StepWork


class TestTorchAveraging(Averaging):
    classifier, normed = Classifier, Normed


class Halves(Classifier):
    """Rank 1 alone trains the second layer."""

    def build_model(self) -> nn.Module:
        return nn.ModuleDict({"first": nn.Linear(6, 3), "second": nn.Linear(6, 3)})

    def training_step(self, model: nn.Module, batch: Any) -> Tensor:
        assert isinstance(model, nn.ModuleDict)
        layers = ["first", "second"][: 1 + self.rank]
        logits = sum(model[name](batch[0]) for name in layers)
        return nn.functional.cross_entropy(logits, batch[1])


def test_moments_that_one_rank_alone_has_made_are_taken_over_by_another_number_of_ranks() -> None:
    """Each rank takes a step of its own, and AdamW makes moments where there are gradients."""
    fleet = Fleet(Halves, ranks=2)
    for rank, work in zip(fleet.ranks, fleet.next_work(), strict=True):
        contribution = fleet.contributions()[0]
        own = StepWork(0, 0, work.indices, len(work.indices), alone=True)
        rank.commit(contribution, rank.compute(own, contribution))
    states = [copied(rank.shared_state()) for rank in fleet.ranks]
    first, second = ({name for name in state.arrays if name.startswith("optimizer/second")} for state in states)
    assert second > first == set()
    alone = Fleet(Halves, ranks=1)
    alone.ranks[0].load_shared_state(copied(mean_of(states)))
    taken = alone.ranks[0].shared_state().arrays
    for name in second:
        assert taken[name].tobytes() == states[1].arrays[name].tobytes()
    mean = (states[0].arrays["model/first.weight"] + states[1].arrays["model/first.weight"]) / 2
    np.testing.assert_allclose(taken["model/first.weight"], mean, rtol=1e-6)
