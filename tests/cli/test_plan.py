"""`smlt plan`: what a job would take and cost, for a backend that cannot even be reached."""

from __future__ import annotations

import json
from datetime import date

import pytest

KEYS = {"candidates", "chosen", "feasible", "binding_limit", "nearest_feasible", "assumptions"}
TASK = ("task.py:Linear", "--epochs", "40", "--set", "job.global_batch=32")


def plan(main, *arguments):
    code, out, err = main("plan", *TASK, *arguments, "-o", "json")
    assert (code, err) == (0, "")
    return json.loads(out)


@pytest.mark.parametrize("backend", ["local", "aws", "gcp", "azure"])
def test_a_plan_needs_neither_account_nor_sdk(linear, main, backend) -> None:
    document = plan(main, "-b", backend)
    assert set(document) == KEYS
    assert document["feasible"] is True
    assert document["chosen"] in document["candidates"]
    forecast = document["candidates"][0]["forecast"]
    step = forecast["step"]
    assert step["total_s"] == pytest.approx(step["compute_s"] + step["sync_s"] + step["load_s"])
    assert forecast["steps"] == 40 * 3
    for figure in ("finish_s", "cost_usd"):
        assert forecast[figure]["low"] <= forecast[figure]["likely"] <= forecast[figure]["high"]
    assert (forecast["speed"], document["assumptions"]["speed"]) == ("guessed", "guessed")
    assert document["assumptions"]["prices"]["provider"] == backend
    assert not list(linear.glob(".smlt/runs/*"))


def test_candidates_are_best_first_and_the_first_is_chosen(linear, main) -> None:
    document = plan(main, "-b", "aws", "--deadline", "1h")
    assert document["chosen"] == document["candidates"][0]
    assert document["assumptions"]["objective"] == "cheapest"
    keep = [each for each in document["candidates"] if set(each["forecast"]["limits"].values()) == {"met"}]
    costs = [each["forecast"]["cost_usd"]["likely"] for each in keep]
    assert costs == sorted(costs)


def test_limits_that_cannot_be_kept_are_said_and_nothing_is_chosen(linear, main) -> None:
    document = plan(main, "-b", "aws", "--deadline", "1s", "--budget", "0.0000001usd")
    assert (document["feasible"], document["chosen"]) == (False, None)
    assert document["binding_limit"] in ("deadline", "budget")
    near = document["nearest_feasible"]
    code, out, _ = main("plan", *TASK, "-b", "aws", "--deadline", "1s", "--budget", "0.0000001usd")
    assert code == 0
    assert "infeasible: " in out
    flags = out.partition("The nearest limits that can: ")[2].partition(" (")[0].split()
    assert flags[::2] == ["--deadline", "--budget"]
    assert float(flags[1].removesuffix("s")) == near["deadline_s"]
    assert plan(main, "-b", "aws", *flags)["feasible"] is True


def test_a_guess_is_called_a_guess(linear, main) -> None:
    code, out, _ = main("plan", *TASK, "-b", "gcp")
    assert code == 0
    assert "compute speed: guessed, within 5 times up or down; `smlt profile` measures it" in out
    assert "planner: optuna, objective: knee" in out


def test_what_is_fixed_stays(linear, main) -> None:
    document = plan(main, "-b", "aws", "-w", "3", "--memory", "2GiB")
    fleets = {(each["allocation"]["workers"], each["allocation"]["memory_mib"]) for each in document["candidates"]}
    assert fleets == {(3, 2048)}


@pytest.mark.parametrize("planner", ["fixed", "analytic", "exhaustive", "optuna"])
def test_train_submits_what_plan_prints(linear, main, planner) -> None:
    asked = ("--set", f"planner.name={planner}", "-w", "2")
    chosen = plan(main, *asked)["chosen"]
    code, out, _ = main("train", *TASK, *asked, "-o", "json", "-q")
    assert code == 0
    assert json.loads(out)["allocation"] == chosen["allocation"]


def test_training_where_smlt_cannot_launch_says_so_before_anything(linear, main) -> None:
    code, out, err = main("train", *TASK, "-b", "gcp", "-y")
    assert (code, out) == (4, "")
    assert "error: smlt plans for gcp, and cannot launch there yet" in err


def test_a_picture_shows_time_and_cost(linear, main) -> None:
    code, _, _ = main("plan", *TASK, "-b", "aws", "--deadline", "1h", "--budget", "1usd", "--png", "plan.png")
    assert code == 0
    assert (linear / "plan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["plan.svg", "nowhere/plan.png"])
def test_a_picture_that_cannot_be_written_is_refused_first(linear, main, name) -> None:
    code, out, err = main("plan", *TASK, "--png", name)
    assert (code, out) == (2, "")
    assert f"--png {name}" in err


def test_a_task_that_fails_to_build_is_an_error_of_the_task(folder, main) -> None:
    (folder / "task.py").write_text("class Broken:\n    pass\n")
    code, _, err = main("plan", "task.py:Broken", "-b", "aws")
    assert code in (1, 2)
    assert "Broken" in err


def test_the_second_plan_does_not_build_the_task_again_and_says_so(linear, main) -> None:
    first = plan(main, "-b", "aws")
    again = plan(main, "-b", "aws")
    assert first["assumptions"]["task_built_s_ago"] is None
    assert again["assumptions"]["task_built_s_ago"] >= 0
    assert again["candidates"] == first["candidates"]
    assert "task: as it was built" in main("plan", *TASK, "-b", "gcp")[1]
    with (linear / "task.py").open("a") as file:
        file.write("\n# changed\n")
    assert plan(main, "-b", "aws")["assumptions"]["task_built_s_ago"] is None


@pytest.mark.parametrize(("day", "is_old"), [(date(2026, 8, 30), False), (date(2027, 1, 1), True)])
def test_a_price_that_was_read_long_ago_says_so(linear, main, monkeypatch, day, is_old) -> None:
    monkeypatch.setattr("smlt.cli.prices.today", lambda: day)
    out = main("plan", *TASK, "-b", "aws")[1]
    assert ("2026-08-22 (132 days ago: `smlt prices refresh`)" in out) == is_old


def test_figures_have_units_and_prices_a_date(linear, main) -> None:
    document = plan(main, "-b", "aws")
    prices = document["assumptions"]["prices"]
    assert (prices["functions_as_of"], prices["confidence"]) == ("2026-08-22", "high")
    out = main("plan", *TASK, "-b", "aws")[1]
    for said in (
        "compute+sync+load, ms",
        "cost, USD",
        "lambda_x86 of 2026-08-22",
        "counted: functions",
        "without eval",
    ):
        assert said in out
