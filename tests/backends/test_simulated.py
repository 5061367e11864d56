"""Runs on the simulated backend: the engine's own log, ledger and summary, in a time that nobody waits for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smlt.backends.simulated.backend import SimulatedBackend, SimulatedOptions
from smlt.core.errors import ConfigError
from smlt.core.planning import plan_request
from smlt.core.sync.cost import SyncCost
from tests.support.scenes import PROFILED
from tests.support.simulated import SimulatedRuns

AUTO = {"count": "auto", "memory": "auto", "max": 32}


@pytest.fixture
def runs(tmp_path: Path) -> SimulatedRuns:
    return SimulatedRuns(tmp_path)


def test_a_run_has_every_time_and_cost_and_no_model(runs: SimulatedRuns) -> None:
    summary = runs.train()
    assert (summary.status, summary.stop_reason, summary.backend) == ("succeeded", "goal", "simulated")
    assert [item["step"] for item in runs.steps()] == list(range(60))
    assert summary.metrics == {}
    assert summary.model_path == summary.weights_sha256 == ""
    assert 60 * summary.step_seconds_p50 < summary.wall_seconds < 120 * summary.step_seconds_p50
    items = dict(summary.cost_usd)
    assert items.pop("total") == pytest.approx(sum(items.values()))
    least = 8 * 2048 / 1024 * 1.66667e-5 * sum(item["seconds"] for item in runs.steps())
    assert least < items["functions"] < 1.5 * least
    assert items["store"] > 0


def test_the_log_and_the_summary_lie_where_those_of_any_run_do(runs: SimulatedRuns) -> None:
    summary = runs.train(job={"name": "mine"})
    folder = runs.folder / "runs" / "mine"
    assert json.loads((folder / "summary.json").read_text())["cost_usd"] == summary.cost_usd
    kinds = [json.loads(line)["kind"] for line in (folder / "events.jsonl").read_text().splitlines()]
    assert {"created", "planned", "launched", "ready", "steps", "spent", "ended", "finished"} <= set(kinds)
    assert kinds.count("launched") == kinds.count("ended") == 8


def test_a_seed_gives_the_same_cloud_and_another_one_another(runs: SimulatedRuns) -> None:
    one, again, other = (runs.train(backend={"name": "simulated", "seed": seed}) for seed in (3, 3, 4))
    assert (one.wall_seconds, one.cost_usd) == (again.wall_seconds, again.cost_usd)
    assert other.step_seconds_p50 != one.step_seconds_p50


def test_functions_hand_over_at_the_provider_s_time_limit(runs: SimulatedRuns) -> None:
    summary = runs.train(job={"steps": 300})
    assert summary.wall_seconds > 900
    assert summary.handovers == summary.generations - 1 >= 1
    assert all(0 < stall_s < 30 for stall_s in summary.handover_stall_seconds)
    assert [item["step"] for item in runs.steps()] == list(range(300))


def test_a_budget_stops_it_and_a_higher_one_goes_on(runs: SimulatedRuns) -> None:
    stopped = runs.train(job={"name": "mine"}, limits={"budget": 0.05})
    assert (stopped.status, stopped.stop_reason) == ("stopped", "budget")
    assert 0.025 < stopped.cost_usd["total"] <= 0.05
    assert 0 < stopped.steps < 60
    done = runs.train(job={"name": "mine"}, limits={"budget": 5.0})
    assert (done.status, done.steps) == ("succeeded", 60)
    assert next(runs.steps())["step"] == stopped.steps
    assert done.cost_usd["total"] > stopped.cost_usd["total"]


def test_a_deadline_stops_it(runs: SimulatedRuns) -> None:
    summary = runs.train(limits={"deadline": "100s"})
    assert (summary.status, summary.stop_reason) == ("stopped", "deadline")
    assert summary.wall_seconds <= 102


def test_functions_that_are_lost_are_replaced(runs: SimulatedRuns) -> None:
    backend = {"name": "simulated", "faults": ["kill"], "fault_every": "60s"}
    summary = runs.train(backend=backend, job={"steps": 120})
    assert summary.status == "succeeded"
    assert summary.replacements > 0
    assert len(runs.told("lost")) >= summary.replacements


def test_too_little_memory_is_found_out_and_mended(runs: SimulatedRuns) -> None:
    summary = runs.train(workers={"count": 8, "memory": "512MiB"}, job={"steps": 5})
    assert summary.status == "succeeded"
    assert summary.allocation["memory_mib"] > 512
    assert runs.told("memory_raised")


def test_a_thousand_workers(runs: SimulatedRuns) -> None:
    runs.parameters = 10_000
    summary = runs.train(workers={"count": 1000}, job={"steps": 3, "global_batch": 4000}, sync={"channel": "redis"})
    assert (summary.status, summary.steps) == ("succeeded", 3)
    assert len(runs.told("launched")) == 1000
    assert summary.cost_usd["channel"] > 0


@pytest.mark.parametrize("provider", ["aws", "gcp", "azure"])
def test_every_provider_can_be_simulated(runs: SimulatedRuns, provider: str) -> None:
    summary = runs.train(backend={"name": "simulated", "provider": provider}, job={"steps": 10})
    assert summary.status == "succeeded"
    assert summary.cost_usd["functions"] > 0


def test_planners_see_the_price_list_and_nothing_of_the_truth(runs: SimulatedRuns) -> None:
    def scene(seed: int) -> object:
        spec = runs.spec(backend={"name": "simulated", "seed": seed})
        backend = runs.registry.backend("simulated", {"seed": seed})
        return plan_request(spec, backend, runs.folder, runs.profile(spec)).scene

    backends = [SimulatedBackend("simulated", SimulatedOptions(seed=seed)) for seed in (1, 2)]
    assert backends[0].truth(PROFILED) != backends[1].truth(PROFILED)
    assert scene(1) == scene(2)


def test_the_truth_has_a_knee_and_an_amdahl_s_law(runs: SimulatedRuns) -> None:
    truth = SimulatedBackend("simulated", SimulatedOptions()).truth(PROFILED)
    few, many = SyncCost({"put": 1, "get": 10}, 1000, 1000, 1), SyncCost({"put": 1, "get": 1000}, 1000, 1000, 1)
    assert truth.exchange_s("object", many, 100) > 10 * truth.exchange_s("object", few, 100)
    assert truth.compute_s(64, 1.0) / truth.compute_s(64, 6.0) < 1 / truth.serial
    assert truth.compute_s(64, 1e6) == pytest.approx(truth.serial * truth.compute_s(64, 1.0), rel=1e-4)


def test_a_fault_that_cannot_be_had_is_named(runs: SimulatedRuns) -> None:
    with pytest.raises(ValueError, match=r"no such kind of fault: 'kil'.*kill"):
        SimulatedOptions(faults=("kil",))


def test_a_limit_that_nobody_can_keep_is_refused_before_anything_is_launched(runs: SimulatedRuns) -> None:
    with pytest.raises(ConfigError, match="no fleet keeps the limits"):
        runs.train(workers=AUTO, planner={"name": "analytic"}, limits={"deadline": "3s"})
    assert runs.told("launched") == []


# The fleet is planned anew


def test_a_cloud_that_slows_down_is_noticed_and_the_deadline_kept(runs: SimulatedRuns) -> None:
    summary = runs.train(
        workers=AUTO,
        planner={"name": "analytic"},
        job={"steps": 300},
        limits={"deadline": "30m"},
        backend={"name": "simulated", "slows_at": "5m", "slows_by": 2.0},
    )
    assert summary.status == "succeeded"
    began = runs.events[0].time
    before = sum(1 for item in runs.steps() if item["ended"] < began + 300)
    (drift,) = [data for data in runs.told("replanned") if data["trigger"] == "drift"]
    at = next(event.time for event in runs.events if event.kind == "replanned" and event.data is drift)
    assert sum(1 for item in runs.steps() if item["ended"] < at) - before <= 20
    assert drift["there"]["seconds"] < drift["here"]["seconds"]


def test_a_larger_batch_gets_a_larger_fleet_at_once(runs: SimulatedRuns) -> None:
    sizes = (512, 1024, 2048)
    phases = [{"from_epoch": epoch, "size": size} for epoch, size in enumerate(sizes)]
    summary = runs.train(
        workers=AUTO,
        planner={"name": "analytic"},
        job={"steps": None, "epochs": 4, "global_batch": phases},
        limits={"deadline": "28m"},
    )
    assert summary.status == "succeeded", summary.error
    changes = [(event.time, event.data) for event in runs.events if event.kind == "replanned"]
    larger = [(time, data) for time, data in changes if data["trigger"] == "batch"]
    for epoch, (time, data) in enumerate(larger, start=1):
        assert data["workers"] > data["from_workers"]
        assert sum(1 for item in runs.steps() if item["epoch"] == epoch and item["ended"] < time) <= 3
    assert len(larger) == 2


def test_what_is_predicted_after_the_first_steps_comes_true(runs: SimulatedRuns) -> None:
    summary = runs.train(workers=AUTO, planner={"name": "analytic"}, limits={"deadline": "20m"})
    last = runs.told("predicted")[-1]
    assert summary.wall_seconds == pytest.approx(last["finish_s"], rel=0.2)
    assert summary.cost_usd["total"] == pytest.approx(last["usd"], rel=0.2)


def test_the_papers_planner_tries_five_fleets_at_most_and_keeps_the_best(runs: SimulatedRuns) -> None:
    summary = runs.train(workers=AUTO, planner={"name": "bo"}, job={"steps": 400}, backend={"name": "simulated"})
    assert summary.status == "succeeded"
    assert 1 <= summary.probes <= 5
    changes = runs.told("replanned")
    assert [data["trigger"] for data in changes] == ["learned"] * len(changes)
    assert changes[-1]["reason"].startswith("the best of")


def test_a_fleet_of_which_nothing_is_open_stays_as_it_is(runs: SimulatedRuns) -> None:
    runs.train(planner={"name": "analytic"}, limits={"deadline": "30m"})
    assert runs.told("replanned") == runs.told("predicted") == []
