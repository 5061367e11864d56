"""Several workers: the same course, the same state everywhere, buffers agreed upon."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fleet import Fleet, raw, whole
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch_models import Classifier, MaskedTokens, Normed, SumClassifier

from smlt.core.errors import TaskError
from smlt.core.task import Loss, StepLoss, StepWork
from smlt.frameworks.torch import TorchTask


@pytest.mark.parametrize("task", [Classifier, SumClassifier, MaskedTokens])
def test_the_course_does_not_depend_on_the_number_of_workers(task: type[TorchTask]) -> None:
    alone = Fleet(task, steps=20, clip_norm=1.0).run()
    for ranks, micro in ((2, None), (3, 2), (4, 1)):
        fleet = Fleet(task, ranks, steps=20, clip_norm=1.0, micro_batch=micro).run()
        assert fleet.losses[-1].mean == pytest.approx(alone.losses[-1].mean, rel=1e-3)
        assert [loss.weight for loss in fleet.losses] == [loss.weight for loss in alone.losses]


@pytest.mark.parametrize("task", [Classifier, SumClassifier, Normed])
def test_all_ranks_hold_the_same_state(task: type[TorchTask]) -> None:
    fleet = Fleet(task, ranks=3, steps=6).run()
    assert whole(fleet, 0) == whole(fleet, 1) == whole(fleet, 2)


def test_more_workers_than_examples_leave_some_without_any() -> None:
    alone, fleet = Fleet(Normed, batch=2, steps=2), Fleet(Normed, ranks=4, batch=2, steps=2)
    memory, losses = fleet.compute()
    assert losses[2:] == [StepLoss(0.0, 0.0)] * 2
    assert not any(region.any() for region in memory[3][:1])
    fleet.commit(memory, losses)
    assert whole(fleet, 0) == whole(fleet, 3)
    assert fleet.losses[0].weight == alone.run(1).losses[0].weight == 2


def test_float_buffers_are_averaged_and_others_are_those_of_rank_0() -> None:
    fleet = Fleet(Normed, ranks=2, steps=1)
    shares = [work.indices for work in fleet.next_work()]
    data = fleet.tasks[0].train_data()
    conv = fleet.tasks[0].model.get_submodule("1")
    with torch.no_grad():
        outputs = [conv(data.tensors[0][torch.from_numpy(share)].view(-1, 2, 3, 1)) for share in shares]
        means = [0.1 * output.mean((0, 2, 3)) for output in outputs]
    fleet.run()
    arrays = fleet.ranks[1].shared_state().arrays
    np.testing.assert_allclose(arrays["model/2.running_mean"], torch.stack(means).mean(0).numpy(), rtol=1e-5)
    assert arrays["model/2.num_batches_tracked"] == 1
    assert arrays["model/seen"] == len(shares[0])


def test_buffers_that_do_not_change_keep_their_bits_under_any_number_of_workers() -> None:
    fleet = Fleet(Normed, ranks=3, steps=8)
    names = ("model/table", "model/third", "model/mask", "model/frozen.0.weight")
    before = {name: fleet.ranks[0].shared_state().arrays[name].tobytes() for name in names}
    fleet.run()
    arrays = fleet.ranks[2].shared_state().arrays
    assert before == {name: arrays[name].tobytes() for name in names}


def test_a_buffer_that_a_forward_pass_replaces_is_agreed_upon_too() -> None:
    class Moving(Classifier):
        def build_model(self) -> nn.Module:
            model = super().build_model()
            model.register_buffer("centre", torch.zeros(6))
            return model

        def training_step(self, model: nn.Module, batch: Any) -> Tensor:
            model.register_buffer("centre", 0.5 * model.get_buffer("centre") + 0.5 * batch[0].mean(0))
            return cross_entropy(model(batch[0]), batch[1])

    fleet = Fleet(Moving, ranks=2, steps=2).run()
    assert whole(fleet, 0) == whole(fleet, 1)
    assert fleet.ranks[0].shared_state().arrays["model/centre"].any()


def test_gradients_are_accumulated_in_the_engines_memory_and_let_go() -> None:
    fleet = Fleet(Classifier, steps=1)
    inside = []
    original = fleet.tasks[0].before_optimizer_step

    def watch(model: nn.Module) -> None:
        inside.extend(p.grad.data_ptr() for p in model.parameters() if p.grad is not None)
        original(model)

    fleet.tasks[0].before_optimizer_step = watch  # type: ignore[method-assign]
    (memory,), losses = fleet.compute()
    assert all(parameter.grad is None for parameter in fleet.tasks[0].model.parameters())
    fleet.ranks[0].commit(memory, losses[0])
    start, end = memory[0].ctypes.data, memory[0].ctypes.data + memory[0].nbytes
    assert len(inside) == 4
    assert all(start <= address < end and (address - start) % 64 == 0 for address in inside)
    assert all(parameter.grad is None for parameter in fleet.tasks[0].model.parameters())


def test_zero_grad_inside_a_step_does_no_harm() -> None:
    class Habit(Classifier):
        def training_step(self, model: nn.Module, batch: Any) -> Tensor:
            model.zero_grad()
            loss = super().training_step(model, batch)
            assert isinstance(loss, Tensor)
            return loss

    assert whole(Fleet(Habit, micro_batch=3).run()) == whole(Fleet(Classifier, micro_batch=3).run())


def test_a_step_computed_again_has_the_same_bits() -> None:
    undisturbed, fleet = Fleet(Normed, ranks=2, steps=6).run(), Fleet(Normed, ranks=2, steps=6)
    for step in range(6):
        if step % 2:
            first, _ = fleet.compute()
            before = whole(fleet)
            for rank in fleet.ranks:
                rank.forget()
            assert whole(fleet) == before  # nothing of the step was visible to begin with
            again, losses = fleet.compute()
            assert [[a.tobytes() for a in mine] for mine in first] == [[a.tobytes() for a in mine] for mine in again]
            fleet.commit(again, losses)
        else:
            fleet.run(1)
    assert whole(fleet) == whole(undisturbed)


def test_losses_that_weigh_nothing_in_all_are_an_error_and_change_nothing() -> None:
    class Nothing(Classifier):
        def training_step(self, model: nn.Module, batch: Any) -> Loss:
            return Loss(model(batch[0]).sum() * 0, 0)

    fleet = Fleet(Nothing)
    before = raw(fleet.ranks[0].parameters())
    with pytest.raises(TaskError, match="weigh 0"):
        fleet.run(1)
    assert raw(fleet.ranks[0].parameters()) == before


def test_items_are_seeded_by_epoch_and_index_whoever_fetches_them() -> None:
    seen: dict[int, list[float]] = {}

    class Noisy:
        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            noise = torch.randn(6) + np.random.random()
            seen.setdefault(index, []).append(float(noise[0]))
            return noise, index % 3

    class Augmented(Classifier):
        def train_data(self) -> Any:
            return Noisy()

    for ranks in (1, 3):
        Fleet(Augmented, ranks, batch=6, steps=4).run()
    assert all(draws[:2] == draws[2:] and draws[0] != draws[1] for draws in seen.values())
    assert len({draw for draws in seen.values() for draw in draws}) == 24


def test_a_dataset_that_gives_many_items_at_once_is_asked_so() -> None:
    asked: list[list[int]] = []

    class Many:
        def __len__(self) -> int:
            return 12

        def __getitem__(self, index: int) -> Any:
            raise AssertionError("one by one")

        def __getitems__(self, indices: list[int]) -> Any:
            asked.append(indices)
            return [(torch.zeros(6), 0) for _ in indices]

    class Fast(Classifier):
        def train_data(self) -> Any:
            return Many()

        def sampler(self, rng: np.random.Generator, epoch: int) -> Any:
            return torch.arange(11, -1, -1)

    Fleet(Fast, batch=4).run(2)
    assert asked == [[11, 10, 9, 8], [7, 6, 5, 4]]


def test_the_default_order_is_a_permutation_that_differs_by_epoch_and_not_by_rank() -> None:
    fleet = Fleet(Classifier, ranks=2)
    first, second = (rank.order(0) for rank in fleet.ranks)
    assert first.dtype == np.int64
    assert first.tolist() == second.tolist()
    assert sorted(first) == list(range(37))
    assert fleet.ranks[0].order(1).tolist() != first.tolist()


def test_the_task_is_given_what_the_design_promises() -> None:
    class Curious(Classifier):
        def prepare_data(self) -> dict[str, Any]:
            return {"x": torch.ones(3)}

        def build_optimizer(self, model: nn.Module) -> Any:
            assert model is self.model
            assert self.total_steps == 12
            assert self.params == {"width": 4}
            assert self.prepared["x"].tolist() == [1, 1, 1]
            return super().build_optimizer(model)

        def training_step(self, model: nn.Module, batch: Any) -> Tensor:
            assert (self.step, self.epoch) == (0, 0)
            return cross_entropy(model(batch[0]), batch[1])

    fleet = Fleet(Curious, ranks=2, params={"width": 4}).run(1)
    assert [task.rank for task in fleet.tasks] == [0, 1]
    assert fleet.tasks[0].world_size == 2
    shape = fleet.shapes[0]
    assert (shape.examples, shape.eval_examples, shape.parameters) == (37, 23, 6 * 17 + 17 + 17 * 3 + 3 + 5)
    assert set(shape.fingerprint) == {"torch", "numpy", "cpu", "threads", "precision"}


def test_a_part_in_evaluation_mode_stays_so_and_a_whole_model_is_put_to_training() -> None:
    modes: list[tuple[bool, bool]] = []

    class Modes(Normed):
        def build_model(self) -> nn.Module:
            model = super().build_model()
            model.get_submodule("2").eval()
            return model

        def training_step(self, model: nn.Module, batch: Any) -> Any:
            modes.append((model.training, model.get_submodule("2").training))
            return super().training_step(model, batch)

    class FromLibrary(Modes):
        def build_model(self) -> nn.Module:
            return super().build_model().eval()

    for task in (Modes, FromLibrary):
        fleet = Fleet(task, steps=2).run(1)
        fleet.evaluate()
        fleet.run(1)
    assert modes == [(True, False)] * 2 + [(True, True)] * 2


def test_no_part_of_a_step_is_kept_when_a_hook_raises() -> None:
    class Fails(Normed):
        def training_step(self, model: nn.Module, batch: Any) -> Any:
            super().training_step(model, batch)
            raise ValueError("too hot")

    fleet = Fleet(Fails)
    before = whole(fleet)
    with pytest.raises(TaskError, match="too hot"):
        fleet.compute()
    assert whole(fleet) == before


def test_commit_needs_a_computed_step() -> None:
    fleet = Fleet(Classifier)
    with pytest.raises(Exception, match="commit without compute"):
        fleet.ranks[0].commit(fleet.contributions()[0], StepLoss(1.0, 8.0))
    work = StepWork(0, 0, np.arange(3), 3)
    fleet.ranks[0].compute(work, fleet.contributions()[0])
    fleet.ranks[0].forget()
    with pytest.raises(Exception, match="commit without compute"):
        fleet.ranks[0].commit(fleet.contributions()[0], StepLoss(1.0, 3.0))
