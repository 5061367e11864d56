"""Which rank is slow, and when another function in its place pays."""

from __future__ import annotations

import pytest

from smlt.core.messages import StepRecord
from smlt.core.stragglers import LOOKS, WINDOW, Straggler, Stragglers, replacing_pays


def _records(compute_s: float, steps: int = WINDOW, seconds: float = 9.9) -> list[StepRecord]:
    return [StepRecord(step, 0, 0.5, 8, seconds, compute_s, 0.0, 0.0) for step in range(steps)]


def _look(watch: Stragglers, *compute_s: float, seconds: float = 9.9) -> Straggler | None:
    """All ranks report steps, which they computed so long; then they are compared."""
    for rank, each_s in enumerate(compute_s):
        watch.note(rank, _records(each_s, seconds=seconds))
    return watch.found()


def _looks(*compute_s: float, watch: Stragglers | None = None, looks: int = LOOKS) -> list[Straggler | None]:
    chosen = watch or Stragglers(len(compute_s))
    return [_look(chosen, *compute_s) for _ in range(looks)]


def test_a_rank_that_computes_much_longer_than_the_next_slowest_for_a_while_is_told_once() -> None:
    told = _looks(1.0, 4.0, 1.5, looks=2 * LOOKS)
    assert told == [*[None] * (LOOKS - 1), Straggler(1, 2.5), *[None] * LOOKS]


@pytest.mark.parametrize("compute_s", [(1.0, 1.4), (1.0, 2.0, 2.0), (3.0,)])
def test_who_is_a_little_slower_or_slow_in_company_is_no_straggler(compute_s: tuple[float, ...]) -> None:
    assert _looks(*compute_s) == [None] * LOOKS


def test_who_is_slow_for_a_shorter_while_is_no_straggler() -> None:
    watch = Stragglers(2)
    _looks(1.0, 4.0, watch=watch, looks=LOOKS - 1)
    assert _look(watch, 1.0, 1.0) is None
    assert _looks(1.0, 4.0, watch=watch, looks=LOOKS - 1) == [None] * (LOOKS - 1)
    assert _looks(4.0, 1.0, watch=watch, looks=LOOKS - 1) == [None] * (LOOKS - 1)


def test_many_quick_steps_are_no_long_while() -> None:
    watch = Stragglers(2)
    assert [_look(watch, 0.001, 0.004, seconds=0.01) for _ in range(LOOKS)] == [None] * LOOKS


def test_nobody_is_judged_by_a_few_steps() -> None:
    watch = Stragglers(2)
    watch.note(1, _records(9.0, WINDOW - 1))
    for _ in range(LOOKS):
        watch.note(0, _records(1.0))
        assert watch.found() is None


def test_one_slow_step_does_not_make_a_straggler() -> None:
    watch = Stragglers(2)
    for _ in range(LOOKS):
        watch.note(1, _records(1.0))
        watch.note(1, _records(100.0, 3))
        watch.note(0, _records(1.0))
        assert watch.found() is None


def test_a_function_in_its_place_begins_anew() -> None:
    watch = Stragglers(2)
    _looks(1.0, 4.0, watch=watch, looks=LOOKS - 1)
    watch.forget(1)
    assert _looks(1.0, 4.0, watch=watch) == [*[None] * (LOOKS - 1), Straggler(1, 3.0)]


def test_replacing_pays_where_much_is_left() -> None:
    straggler = Straggler(0, 0.5)
    assert replacing_pays(straggler, steps_left=100, start_s=5.0, setback_s=1.0)
    assert not replacing_pays(straggler, steps_left=30, start_s=5.0, setback_s=1.0)
