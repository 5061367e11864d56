"""One worker gives the very bits of a loop written by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fleet import Fleet, raw
from torch import nn
from torch.nn.functional import cross_entropy
from torch_models import Classifier, MaskedTokens, Normed, SumClassifier

from smlt.core.task import Loss, seed_of
from smlt.frameworks.torch import TorchTask
from smlt.frameworks.torch.seeding import seed_everything


def by_hand(fleet: Fleet, task: TorchTask, clip: float | None = None, micro: int | None = None) -> nn.Module:
    """The plain loop: no smlt in it but the order of the examples and the seeds of forward passes."""
    torch.manual_seed(3)
    model = task.build_model()
    built = task.build_optimizer(model)
    optimizer, scheduler = built if isinstance(built, tuple) else (built, None)
    data, step, epoch = task.train_data(), 0, 0
    while step < fleet.steps:
        order = fleet.ranks[0].order(epoch)
        for start in range(0, len(order), fleet.batch):
            indices = order[start : start + fleet.batch]
            optimizer.zero_grad()
            size = micro or len(indices)
            for place, begin in enumerate(range(0, len(indices), size)):
                rows = indices[begin : begin + size]
                batch = [column[torch.from_numpy(rows)] for column in data.tensors]
                seed_everything(seed_of(3, step, 0, place))
                loss: Any = task.training_step(model, batch)
                if isinstance(loss, Loss):
                    loss = loss.sum / loss.weight
                if len(rows) < len(indices):
                    loss = loss * (len(rows) / len(indices))
                loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            if scheduler and task.scheduler_interval == "step":
                scheduler.step()
            step += 1
            if step == fleet.steps:
                return model
        if scheduler and task.scheduler_interval == "epoch":
            scheduler.step()
        epoch += 1
    return model


def bits_of(model: nn.Module) -> dict[str, bytes]:
    return raw({name: tensor.detach().numpy() for name, tensor in model.named_parameters() if tensor.requires_grad})


class EpochWise(Classifier):
    scheduler_interval = "epoch"


@pytest.mark.parametrize(
    ("task", "clip", "micro"),
    [
        (Classifier, None, None),
        (Classifier, 0.2, None),
        (Classifier, 0.2, 3),
        (EpochWise, None, None),
        (SumClassifier, None, None),
        (MaskedTokens, 0.5, None),
        (Normed, 1.0, None),
        (Normed, None, 5),
    ],
)
def test_one_worker_is_a_plain_loop_bit_for_bit(task: type[TorchTask], clip: float | None, micro: int | None) -> None:
    fleet = Fleet(task, clip_norm=clip, micro_batch=micro).run()
    model = by_hand(fleet, task(), clip, micro)
    assert raw(fleet.ranks[0].parameters()) == bits_of(model)
    assert fleet.epoch > 0  # short last batches were among the steps
    buffers = {name: buffer for name, buffer in model.named_buffers() if buffer.dtype == torch.float32}
    state = fleet.ranks[0].shared_state().arrays
    assert raw({name: state[f"model/{name}"] for name in buffers}) == raw({k: v.numpy() for k, v in buffers.items()})


def test_a_parameter_that_no_rank_uses_is_left_alone_by_the_optimizer() -> None:
    fleet = Fleet(Classifier, ranks=2).run(3)
    assert np.array_equal(fleet.ranks[1].parameters()["unused"], np.ones(5, np.float32))  # weight decay would shrink it


def test_a_parameter_that_one_rank_uses_gets_its_gradient_everywhere() -> None:
    class Sometimes(Classifier):
        def training_step(self, model: nn.Module, batch: Any) -> torch.Tensor:
            loss = cross_entropy(model(batch[0]), batch[1])
            return loss + model.get_parameter("unused").sum() if self.rank == 1 else loss

    fleet = Fleet(Sometimes, ranks=2).run(1)
    for rank in fleet.ranks:
        assert (rank.parameters()["unused"] < 1).all()


def test_bf16_runs_the_forward_pass_in_bfloat16_and_keeps_fp32_parameters() -> None:
    seen = []

    class Watching(Classifier):
        def training_step(self, model: nn.Module, batch: Any) -> torch.Tensor:
            logits = model(batch[0])
            seen.append(logits.dtype)
            return cross_entropy(logits.float(), batch[1])

    fleet = Fleet(Watching, precision="bf16").run(4)
    assert set(seen) == {torch.bfloat16}
    assert {array.dtype for array in fleet.ranks[0].parameters().values()} == {np.dtype(np.float32)}
    assert fleet.shapes[0].fingerprint["precision"] == "bf16"


def test_double_precision_parameters_have_a_region_of_their_own() -> None:
    class Double(Classifier):
        def build_model(self) -> nn.Module:
            return nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3, dtype=torch.float64))

        def training_step(self, model: nn.Module, batch: Any) -> torch.Tensor:
            assert isinstance(model, nn.Sequential)
            return cross_entropy(model[1](model[0](batch[0]).double()), batch[1])

    fleet = Fleet(Double, steps=5)
    assert [region.dtype for region in fleet.shapes[0].regions] == ["float32", "float64", "int64"]
    fleet.run()
    assert raw(fleet.ranks[0].parameters()) == bits_of(by_hand(fleet, Double()))
