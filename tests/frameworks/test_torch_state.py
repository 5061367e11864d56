"""State there and back: a task that took a state over goes on bit for bit; models reach files and come back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fleet import Fleet, copied, raw, whole
from safetensors.numpy import save_file
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LambdaLR,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
)
from torch_models import Classifier, MaskedTokens, Normed, TinyBert

from smlt.core.errors import TaskError
from smlt.core.task import State
from smlt.frameworks.torch import TorchTask, load_model

OPTIMIZERS: dict[str, Callable[[Any], Optimizer]] = {
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "adamw-tensor-lr": lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.01)),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
}
SCHEDULERS: dict[str, Callable[[Optimizer], Any]] = {
    "none": lambda o: None,
    "lambda": lambda o: LambdaLR(o, lambda step: 1 / (1 + step)),
    "onecycle": lambda o: OneCycleLR(o, max_lr=0.1, total_steps=12),
    "cosine": lambda o: CosineAnnealingLR(o, T_max=12),
    "multistep": lambda o: MultiStepLR(o, [2, 7]),
    "sequential": lambda o: SequentialLR(o, [ConstantLR(o, 0.1), ExponentialLR(o, 0.9)], [5]),
    "chained": lambda o: ChainedScheduler([ConstantLR(o, 0.1), ExponentialLR(o, 0.9)]),
}


@pytest.mark.parametrize(
    ("optimizer", "scheduler"),
    [*((name, "onecycle") for name in ("adam", "adamw", "momentum")), *(("adam", name) for name in SCHEDULERS)]
    + [(name, "none") for name in OPTIMIZERS]
    + [("adamw-tensor-lr", "cosine")],
)
def test_a_task_that_took_a_state_over_goes_on_bit_for_bit(optimizer: str, scheduler: str) -> None:
    class Trained(Normed):
        def build_optimizer(self, model: nn.Module) -> Any:
            built = OPTIMIZERS[optimizer](model.parameters())
            schedule = SCHEDULERS[scheduler](built)
            return built if schedule is None else (built, schedule)

    through = Fleet(Trained, ranks=2, micro_batch=3).run()
    before = Fleet(Trained, ranks=2, micro_batch=3).run(7)
    after = Fleet(Trained, ranks=2, micro_batch=3).run(1).go_on_from(before)
    assert whole(after) == whole(before)
    assert whole(after.run()) == whole(through)


def test_the_users_own_state_travels_and_comes_back_in_kind() -> None:
    class Averaged(Classifier):
        def build_optimizer(self, model: nn.Module) -> Any:
            self.average = {name: each.detach().clone() for name, each in model.named_parameters()}
            self.half = torch.zeros(2, dtype=torch.bfloat16)
            self.counts: dict[int, tuple[int, ...]] = {}
            self.table = np.zeros((2, 2), np.int16)
            return super().build_optimizer(model)

        def before_optimizer_step(self, model: nn.Module) -> None:
            for name, each in model.named_parameters():
                self.average[name].lerp_(each.detach(), 0.1)
            self.counts[self.step] = (self.step, 1 << 70)
            self.half += 1 / 3
            self.table += 1

        def state(self) -> dict[str, Any]:
            return {"average": self.average, "counts": self.counts, "half": self.half, "table": self.table, "!": [None]}

        def load_state(self, state: dict[str, Any]) -> None:
            assert state["!"] == [None]
            self.average, self.counts, self.half = state["average"], state["counts"], state["half"]
            self.table = state["table"]

    through, before = Fleet(Averaged).run(), Fleet(Averaged).run(5)
    assert {"user/average/0.weight", "user/half", "user/table"} <= set(before.ranks[0].shared_state().arrays)
    after = Fleet(Averaged).go_on_from(before)
    assert whole(after.run()) == whole(through)


def test_names_in_a_state_are_the_models_own() -> None:
    arrays = Fleet(MaskedTokens).run(1).ranks[0].shared_state().arrays
    assert {"model/embedding.weight", "model/mixer.bias", "optimizer/embedding.weight/exp_avg"} <= set(arrays)
    assert "model/head.weight" not in arrays  # tied: once
    assert arrays["optimizer/embedding.weight/step"].shape == ()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: s.arrays.pop("model/0.bias"), r"lacks 0\.bias"),
        (lambda s: s.arrays.update({"model/9.bias": np.zeros(1)}), r"has 9\.bias"),
        (lambda s: s.arrays.update({"model/0.bias": np.zeros(4, np.float32)}), r"model/0\.bias is float32\[4\]"),
        (lambda s: s.arrays.update({"model/0.bias": np.zeros(17)}), r"model/0\.bias is float64\[17\]"),
        (lambda s: s.arrays.pop("optimizer/0.bias/exp_avg"), r"lacks optimizer/0\.bias/exp_avg"),
        (lambda s: s.extra["schedulers"].clear(), "schedulers lacks"),
        (lambda s: s.extra["optimizers"][""].update(kind="SGD"), "with the optimizer SGD"),
        (lambda s: s.extra["optimizers"][""]["groups"][0]["members"].pop(), "groups the parameters otherwise"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_by_name_and_changes_nothing(
    spoil: Callable[[State], object], message: str
) -> None:
    state = copied(Fleet(Classifier).run(2).ranks[0].shared_state())
    spoil(state)
    fresh = Fleet(Classifier)
    before = whole(fresh)
    with pytest.raises(TaskError, match=message):
        fresh.ranks[0].load_shared_state(state)
    assert whole(fresh) == before


def test_a_state_that_is_not_plain_is_refused_by_its_place() -> None:
    class Odd(Classifier):
        def state(self) -> dict[str, Any]:
            return {"where": {"deep": [Path("x")]}}

        def load_state(self, state: dict[str, Any]) -> None:
            raise AssertionError

    with pytest.raises(TaskError, match="user/where/deep/0 holds a PosixPath"):
        Fleet(Odd).ranks[0].shared_state()


def written(fleet: Fleet, folder: Path) -> Path:
    """A file as the engine writes it."""
    arrays, aliases = fleet.ranks[0].model_arrays()
    path = folder / "model.safetensors"
    save_file(arrays, path, {"smlt.aliases": json.dumps(aliases)})
    return path


@pytest.mark.parametrize(("task", "build"), [(MaskedTokens, TinyBert), (Normed, Normed().build_model)])
def test_a_trained_model_comes_back_into_a_plain_module(
    task: type[TorchTask], build: Callable[[], nn.Module], tmp_path: Path
) -> None:
    fleet = Fleet(task).run(3)
    model = load_model(written(fleet, tmp_path), build())
    trained = fleet.tasks[0].model.state_dict()
    assert raw({name: t.float().numpy() for name, t in model.state_dict().items() if not t.is_complex()}) == raw(
        {name: t.float().numpy() for name, t in trained.items() if not t.is_complex()}
    )


def test_tied_weights_are_written_once_with_an_alias_and_stay_tied(tmp_path: Path) -> None:
    fleet = Fleet(MaskedTokens, ranks=2).run(3)
    arrays, aliases = fleet.ranks[0].model_arrays()
    assert aliases == {"head.weight": "embedding.weight"}
    assert set(arrays) == {"embedding.weight", "mixer.weight", "mixer.bias", "head.bias"}
    assert set(fleet.ranks[0].parameters()) == set(arrays)
    model = load_model(str(written(fleet, tmp_path)), TinyBert())
    assert model.head.weight is model.embedding.weight


def test_a_model_holds_what_state_dict_holds_and_no_more() -> None:
    arrays, _ = Fleet(Normed).ranks[0].model_arrays()
    assert "mask" in arrays
    assert "third" not in arrays  # not persistent
    assert arrays["frozen.0.weight"].dtype == np.float32  # numpy has no bfloat16; exact in float32
    assert set(Fleet(Normed).ranks[0].parameters()).isdisjoint({"frozen.0.weight", "mask"})


def test_load_model_says_what_does_not_fit(tmp_path: Path) -> None:
    path = written(Fleet(MaskedTokens), tmp_path)
    with pytest.raises(TaskError, match="there is no model at"):
        load_model(tmp_path / "none.safetensors", TinyBert())
    with pytest.raises(TaskError, match=r"of another model: missing \['weight'"):
        load_model(path, nn.Linear(1, 1))
    wide = TinyBert()
    wide.mixer = nn.Linear(8, 9)
    with pytest.raises(TaskError, match="does not fit"):
        load_model(path, wide)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(TaskError, match="cannot be read"):
        load_model(path, TinyBert())
