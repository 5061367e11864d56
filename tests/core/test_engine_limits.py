"""Whole runs under limits: a function's time, the run's deadline, its budget. None changes what is learned."""

from __future__ import annotations

from smlt.core import checkpoint
from smlt.core.runlog import RunEvent
from smlt.core.summary import Summary
from tests.support.engines import STEPS, Runs


def test_functions_that_may_not_live_as_long_as_the_run_hand_over(undisturbed: Summary, runs: Runs) -> None:
    summary = runs.train(
        job={"params": {"slow_s": 0.15}, "name": "relay"}, backend={"name": "local", "function_time_limit": "5s"}
    )
    assert (summary.status, summary.steps) == ("succeeded", STEPS)
    assert summary.handovers >= 1
    assert len(summary.handover_stall_seconds) == summary.handovers < summary.generations
    assert runs.steps() == list(range(STEPS))
    assert summary.state_sha256 == undisturbed.state_sha256
    assert summary.weights_sha256 == undisturbed.weights_sha256
    assert {event.data["reason"] for event in runs.events if event.kind == "wish"} <= {"hand over", "time limit"}


def test_a_deadline_stops_a_run_which_goes_on_with_a_later_one(undisturbed: Summary, runs: Runs) -> None:
    slow = {"params": {"slow_s": 0.1}, "name": "late"}
    stopped = runs.train(job=slow, limits={"deadline": "4s"})
    assert (stopped.status, stopped.stop_reason, stopped.model_path) == ("stopped", "deadline", "")
    assert stopped.steps < STEPS
    assert [0, *checkpoint.valid_steps(runs.store("late"))][-1] == stopped.steps
    assert stopped.error == {}
    resumed = runs.train(job={"name": "late"}, limits={"deadline": "10m"})
    assert (resumed.status, resumed.steps) == ("succeeded", STEPS)
    assert runs.steps() == list(range(stopped.steps, STEPS))
    assert resumed.state_sha256 == undisturbed.state_sha256


def test_a_budget_is_never_passed_and_a_larger_one_goes_on(undisturbed: Summary, runs: Runs) -> None:
    priced = {"name": "local", "usd_per_gib_s": 0.125}
    slow = {"params": {"slow_s": 0.1}, "name": "frugal"}
    stopped = runs.train(job=slow, backend=priced, limits={"budget": "2usd"})  # two functions, eight seconds
    assert (stopped.status, stopped.stop_reason) == ("stopped", "budget")
    assert 0.0 < stopped.cost_usd["total"] <= 2.0
    assert runs.view("frugal").spent_usd == stopped.cost_usd["total"]
    refused = runs.train(job=slow, backend=priced, limits={"budget": "2usd"})
    assert (refused.status, refused.stop_reason) == ("stopped", "budget")
    assert stopped.cost_usd["total"] <= refused.cost_usd["total"] <= 2.0
    resumed = runs.train(job={"name": "frugal"}, backend=priced, limits={"budget": "50usd"})
    assert (resumed.status, resumed.steps) == ("succeeded", STEPS)
    assert resumed.cost_usd["total"] > refused.cost_usd["total"]
    assert resumed.state_sha256 == undisturbed.state_sha256
    assert resumed.generations == refused.generations + 1


def test_a_run_that_is_free_has_no_budget_to_pass(runs: Runs) -> None:
    told: list[RunEvent] = []
    summary = runs.train(on=told.append, limits={"budget": "0.01usd"})
    assert (summary.status, summary.cost_usd["total"]) == ("succeeded", 0.0)
    assert told == runs.events
