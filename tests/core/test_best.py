from __future__ import annotations

from typing import Any

import pytest

from smlt.core import best, layout
from smlt.core.job import Job
from smlt.core.runlog import RunEvent
from tests.core.test_checkpoint import save
from tests.support.stores import DictStore

ACCURACY = Job(task="task.py:Digits", keep_best="accuracy")


def kept(*steps: int) -> DictStore:
    """A store with a model after each of these steps, of which its step is all it says."""
    store = DictStore()
    for step in steps:
        store.put(layout.best(step), str(step).encode())
    return store


def log(*said: tuple[str, int, dict[str, Any]]) -> list[RunEvent]:
    return [RunEvent(0.0, kind, {"step": step, **more}) for kind, step, more in said]


def evaluated(step: int, **metrics: float) -> tuple[str, int, dict[str, Any]]:
    return "evaluated", step, {"metrics": metrics}


def test_the_model_of_the_best_evaluation_gets_the_name() -> None:
    store = kept(4, 8)
    events = log(evaluated(4, accuracy=0.7), evaluated(8, accuracy=0.9), evaluated(12, accuracy=0.8))
    assert best.publish(store, ACCURACY, events) == {"step": 8, "value": 0.9}
    assert store.get(layout.BEST_MODEL) == b"8"


def test_of_a_loss_the_lowest_is_the_best_and_of_equal_ones_the_first() -> None:
    store, job = kept(4, 8), Job(task="task.py:Digits", keep_best="val_loss")
    events = log(evaluated(4, val_loss=0.7), evaluated(8, val_loss=0.2), evaluated(12, val_loss=0.2))
    assert best.publish(store, job, events) == {"step": 8, "value": 0.2}


def test_what_a_run_did_before_it_went_back_does_not_count() -> None:
    store = kept(4, 8, 12)
    back = ("rolled_back", 6, {})
    events = log(evaluated(4, accuracy=0.5), evaluated(8, accuracy=0.9), back, evaluated(12, accuracy=0.6))
    assert best.publish(store, ACCURACY, events) == {"step": 12, "value": 0.6}


def test_a_step_whose_model_was_not_written_cannot_be_the_best() -> None:
    store = kept(4)
    assert best.publish(store, ACCURACY, log(evaluated(4, accuracy=0.5), evaluated(8, accuracy=0.9))) == {
        "step": 4,
        "value": 0.5,
    }
    assert best.publish(DictStore(), ACCURACY, log(evaluated(4, accuracy=0.5))) == {}


@pytest.mark.parametrize(
    ("checkpoints", "left"), [((), [9]), ((3,), [2, 4, 6, 9]), ((4,), [4, 6, 9]), ((5, 8), [4, 6, 9]), ((20,), [9])]
)
def test_a_model_is_kept_as_long_as_a_checkpoint_may_need_it(checkpoints: tuple[int, ...], left: list[int]) -> None:
    store = kept(1, 2, 4, 6, 9)
    for step in checkpoints:
        save(store, step)
    best.prune(store)
    assert store.keys(layout.BEST) == [layout.best(step) for step in left]
