"""The run's machine under whatever can happen to its functions, in any order: see what `ModelFleet` checks."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from smlt.core.run_events import CancelRequested
from tests.support.model_fleet import ModelFleet

GOOD = ["ready", "ready", "step", "step", "save", "end", "leave", "beat", "tick", "wait"]
BAD = ["exit", "exit", "fail", "freeze", "thaw", "trouble", "stop", "refuse", "cancel", "scale", "spend", "blind"]

HISTORIES = st.lists(st.tuples(st.sampled_from(GOOD * 3 + BAD), st.integers(0, 23)), max_size=80)
TERMS = st.fixed_dictionaries(
    {"max_workers": st.integers(4, 10)},
    optional={
        "deadline_s": st.just(300.0),
        "budget_usd": st.just(3.0),
        "time_limit_s": st.sampled_from([30.0, 100.0]),
        "max_losses": st.integers(0, 5),
    },
)


def lived(workers: int, terms: dict[str, Any], history: list[tuple[str, int]]) -> ModelFleet:
    """A run with everything that has happened to it."""
    fleet = ModelFleet(workers, **terms)
    for what, pick in history:
        fleet.act(what, pick)
    return fleet


@given(st.integers(1, 4), TERMS, HISTORIES)
def test_whatever_has_happened_a_run_comes_to_an_end_once_nothing_more_goes_wrong(
    workers: int, terms: dict[str, Any], history: list[tuple[str, int]]
) -> None:
    fleet = lived(workers, terms, history)
    fleet.cooperate()
    assert fleet.finish is not None
    assert fleet.desk.state == "over"
    assert fleet.desk.tick(100.0) == fleet.desk.cancel() == fleet.desk.all_exit() == []


@given(st.integers(1, 4), TERMS, HISTORIES)
def test_whatever_has_happened_a_run_that_is_cancelled_thrice_ends_with_its_functions(
    workers: int, terms: dict[str, Any], history: list[tuple[str, int]]
) -> None:
    fleet = lived(workers, terms, history)
    for _ in range(3):
        if not fleet.finish:
            fleet.tell(CancelRequested(fleet.desk.now))
    for _ in range(2):  # what was launched just now may be refused
        if not fleet.finish:
            fleet.pass_time(0.1)
    assert fleet.finish is not None
