"""The order of a sweep."""

from __future__ import annotations

from pathlib import Path

from smlt.core.engine import RunRequest
from smlt.core.job import JobSpec
from smlt.core.plugins import load_registry
from smlt.workflows.sweep import Cell, Sweep


def cells(count: int) -> tuple[Cell, ...]:
    request = RunRequest(
        JobSpec.from_plain({"job": {"task": "task.py:Linear", "epochs": 1}}), Path("/nowhere"), Path("/nowhere")
    )
    return tuple(Cell(request, {"backend": "local", "workers": number}) for number in range(1, count + 1))


def test_repeats_follow_one_another_and_each_has_an_order_of_its_own() -> None:
    sweep = Sweep(cells(6), 5, load_registry())
    order = [(cell.label, repeat) for cell, repeat in sweep.order()]
    assert [repeat for _, repeat in order] == sorted(repeat for _, repeat in order)
    rounds = [tuple(label for label, repeat in order if repeat == number) for number in range(5)]
    assert all(sorted(each) == sorted(rounds[0]) for each in rounds)
    assert len(set(rounds)) == 5
    assert order == [(cell.label, repeat) for cell, repeat in sweep.order()]


def test_a_label_names_the_settings() -> None:
    request = cells(1)[0].request
    assert Cell(request, {"backend": "aws", "workers": 4, "memory": "2GiB"}).label == "aws-w4-m2GiB"
