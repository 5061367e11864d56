"""Ranks under schedules that nobody thought of: whatever happens, the run is the one that nothing disturbs."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from smlt.core import rank_events as events
from tests.support.model_plan import Plan
from tests.support.model_ranks import job_of
from tests.support.model_run import Fault, ModelRun

KINDS = ["kill", "kill", "kill", "lose", "trouble", "wish", "kill_all"]
PLACES = [place for place in events.OUTCOME if place not in (events.Claim, events.Build)] + [events.Leave]
FAULTS = st.lists(
    st.builds(
        Fault,
        after=st.integers(1, 60),
        kind=st.sampled_from(KINDS),
        rank=st.integers(0, 5),
        at=st.none() | st.sampled_from(PLACES),
    ),
    max_size=12,
)
SCORES = st.lists(st.integers(0, 9).map(float), min_size=1, max_size=8)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    fields: dict[str, Any] = {
        "global_batch": draw(st.integers(1, 8)),
        "eval_every": draw(st.sampled_from(["1epoch", "1step", "3steps"])),
        "checkpoint_every": draw(st.sampled_from(["auto", "1step", "4steps", "1epoch"])),
    }
    if draw(st.booleans()):
        fields |= {"epochs": draw(st.integers(1, 2))}
    else:
        fields |= {"steps": draw(st.integers(1, 12))}
    if draw(st.booleans()):
        fields |= {"keep_best": "score"}
    if draw(st.booleans()):
        fields |= {"target": {"metric": "score", "at_least": 8.0}}
    has_private = draw(st.booleans())
    size = st.integers(1, 6)
    return Plan(
        job_of(**fields),
        examples=draw(st.integers(8, 24)),
        scores=draw(SCORES),
        sizes=[draw(size)] if has_private else draw(st.lists(size, min_size=1, max_size=3)),
        exchange_every=draw(st.integers(1, 4)) if has_private else 1,
        has_private=has_private,
        recovers_fast=has_private and draw(st.booleans()),
        save_interval_s=draw(st.sampled_from([20.0, 200.0])),
    )


@settings(max_examples=200)
@given(plan=plans(), faults=FAULTS, seed=st.integers(0, 2**32 - 1))
def test_whatever_happens_all_ranks_come_to_the_goal_by_the_same_steps(
    plan: Plan, faults: list[Fault], seed: int
) -> None:
    ModelRun(plan, faults, seed).to_the_end()
