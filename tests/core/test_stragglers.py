"""Which rank is slow, and when another function in its place pays."""

from __future__ import annotations

import pytest

from smlt.core.messages import StepRecord
from smlt.core.stragglers import WINDOW, Straggler, Stragglers, replacing_pays


def _records(compute_s: float, steps: int = WINDOW) -> list[StepRecord]:
    return [StepRecord(step, 0, 0.5, 8, 9.9, compute_s, 0.0, 0.0) for step in range(steps)]


def _stragglers(*compute_s: float) -> Stragglers:
    watch = Stragglers(len(compute_s))
    for rank, seconds in enumerate(compute_s):
        watch.note(rank, _records(seconds))
    return watch


def test_a_rank_that_computes_much_longer_than_the_next_slowest_is_told_once() -> None:
    watch = _stragglers(1.0, 4.0, 1.5)
    assert watch.found() == Straggler(1, 2.5)
    assert watch.found() is None


@pytest.mark.parametrize("compute_s", [(1.0, 1.4), (1.0, 2.0, 2.0), (3.0,)])
def test_who_is_a_little_slower_or_slow_in_company_is_no_straggler(compute_s: tuple[float, ...]) -> None:
    assert _stragglers(*compute_s).found() is None


def test_nobody_is_judged_by_a_few_steps() -> None:
    watch = Stragglers(2)
    watch.note(0, _records(1.0))
    watch.note(1, _records(9.0, WINDOW - 1))
    assert watch.found() is None


def test_one_slow_step_does_not_make_a_straggler() -> None:
    watch = _stragglers(1.0, 1.0)
    watch.note(1, _records(100.0, 3))
    assert watch.found() is None


def test_a_function_in_its_place_begins_anew() -> None:
    watch = _stragglers(1.0, 4.0)
    watch.forget(1)
    assert watch.found() is None


def test_replacing_pays_where_much_is_left() -> None:
    straggler = Straggler(0, 0.5)
    assert replacing_pays(straggler, steps_left=100, start_s=5.0, step_s=1.0)
    assert not replacing_pays(straggler, steps_left=30, start_s=5.0, step_s=1.0)


def test_it_looks_once_in_so_many_steps() -> None:
    watch = _stragglers(1.0, 1.0)
    assert watch.found() is None
    watch.note(1, _records(9.0))
    assert watch.found() is None
    watch.note(0, _records(1.0))
    assert watch.found() == Straggler(1, 8.0)
