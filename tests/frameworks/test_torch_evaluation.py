"""Evaluation: sharded over the ranks, the same whatever their number, and without a trace."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fleet import Fleet, whole
from torch import nn
from torch_models import Classifier, Normed, points

from smlt.core.errors import TaskError
from smlt.core.task import EvalPart


def reference(model: nn.Module) -> float:
    x, y = points(23, seed=6).tensors
    with torch.no_grad():
        return float((model(x).argmax(1) == y).double().mean())


@pytest.mark.parametrize("ranks", [1, 2, 3, 30])
def test_means_and_metrics_are_those_of_the_whole_data(ranks: int) -> None:
    fleet = Fleet(Classifier, ranks, batch=37).run(2)
    metrics = fleet.evaluate()
    assert metrics["accuracy"] == pytest.approx(reference(fleet.tasks[0].model), rel=1e-6)
    assert metrics["accuracy"] == pytest.approx(metrics["right"])
    assert set(metrics) == {"accuracy", "right", "loss"}


def test_eval_end_gets_all_outputs_in_the_order_of_the_data() -> None:
    class Ordered(Classifier):
        def eval_step(self, model: nn.Module, batch: Any) -> dict[str, Any]:
            return {"first": batch[0][:, 0], "scores": model(batch[0]).to(torch.bfloat16), "rows": len(batch[1])}

        def eval_end(self, outputs: list[dict[str, Any]]) -> dict[str, float]:
            assert all(isinstance(output["scores"], np.ndarray) for output in outputs)
            seen = np.concatenate([output["first"] for output in outputs])
            assert np.array_equal(seen, points(23, seed=6).tensors[0][:, 0].numpy())
            return {"batches": len(outputs), "rows": sum(output["rows"] for output in outputs)}

    assert Fleet(Ordered, ranks=2).evaluate() == {"batches": 6, "rows": 23}
    assert Fleet(Ordered).evaluate() == {"batches": 5, "rows": 23}


def test_evaluation_leaves_no_trace() -> None:
    undisturbed, fleet = Fleet(Normed, ranks=2, steps=4).run(), Fleet(Normed, ranks=2, steps=4)
    for _ in range(4):
        before = whole(fleet)
        first = fleet.evaluate()
        assert fleet.evaluate() == first
        assert whole(fleet) == before
        assert fleet.tasks[0].model.get_submodule("4").training
        fleet.run(1)
    assert whole(fleet) == whole(undisturbed)


def test_a_task_without_evaluation_data_has_no_metrics() -> None:
    class Plain(Classifier):
        def eval_data(self) -> Any:
            return None

    fleet = Fleet(Plain)
    assert fleet.shapes[0].eval_examples == 0
    assert fleet.ranks[0].evaluate(np.arange(0)) == EvalPart()
    assert fleet.evaluate() == {}


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"scores": torch.zeros(3)}, r"no number for 'scores': shape \[3\]"),
        ({"name": "high"}, "no number for 'name'"),
        (torch.zeros(()), "eval_step returned a Tensor"),
    ],
)
def test_what_is_no_metric_is_refused(output: Any, message: str) -> None:
    class Wrong(Classifier):
        def eval_step(self, model: nn.Module, batch: Any) -> Any:
            return output

    with pytest.raises(TaskError, match=message):
        Fleet(Wrong).evaluate()


def test_what_eval_end_returns_is_checked() -> None:
    class Wrong(Classifier):
        def eval_end(self, outputs: list[dict[str, Any]]) -> Any:
            return {"f1": None}

    with pytest.raises(TaskError, match="eval_end returned no number for 'f1'"):
        Fleet(Wrong).evaluate()
