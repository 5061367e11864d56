"""`smlt compare`: several providers and their machines, for a task that is built once, with no account."""

from __future__ import annotations

import json

import pytest

TASK = ("task.py:Linear", "--epochs", "40", "--set", "job.global_batch=32")


def compare(main, *arguments):
    code, out, err = main("compare", *TASK, *arguments, "-o", "json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_all_providers_and_this_machine(linear, main) -> None:
    document = compare(main, "--backends", "aws,gcp,azure,local")
    contenders = document["contenders"]
    assert [each["backend"] for each in contenders if each["kind"] == "functions"] == ["aws", "gcp", "azure", "local"]
    assert {each["backend"] for each in contenders if each["kind"] == "vm"} == {"aws", "gcp", "azure"}
    assert document["equal"] is None
    assert document["basis"].startswith("each one's own best fleet")
    for each in contenders:
        for figure in ("finish_s", "cost_usd"):
            assert each[figure]["low"] <= each[figure]["likely"] <= each[figure]["high"]
        assert each["price"]["confidence"] in ("high", "medium", "low")
    assert [each["provider"] for each in document["assumptions"]["prices"]] == ["aws", "gcp", "azure", "local"]
    assert not list(linear.glob(".smlt/runs/*"))


def test_the_figures_are_those_of_smlt_plan(linear, main) -> None:
    mine = next(each for each in compare(main, "--deadline", "1h")["contenders"] if each["kind"] == "functions")
    code, out, _ = main("plan", *TASK, "-b", "aws", "--deadline", "1h", "-o", "json")
    chosen = json.loads(out)["chosen"]
    assert code == 0
    assert (mine["workers"], mine["memory_mib"]) == (
        chosen["allocation"]["workers"], chosen["allocation"]["memory_mib"],
    )  # fmt: skip
    assert mine["finish_s"]["likely"] == pytest.approx(chosen["forecast"]["finish_s"]["likely"], rel=0.5)  # build_s
    assert mine["steps"] == chosen["forecast"]["steps"]


@pytest.mark.parametrize("equal", ["vcpu", "memory", "usd"])
def test_a_basis_is_stated(linear, main, equal) -> None:
    document = compare(main, "--backends", "aws,gcp", "--equal", equal)
    assert document["equal"] == equal
    assert document["basis"].startswith("equal")
    code, out, _ = main("compare", *TASK, "--backends", "aws,gcp", "--equal", equal)
    assert code == 0
    assert "basis: equal " in out


def test_overlapping_bars_are_a_tie(linear, main) -> None:
    contenders = compare(main)["contenders"]
    for column, figure in (("time", "finish_s"), ("cost", "cost_usd")):
        best = next(each[figure] for each in contenders if each[column] == "best")
        for each in contenders:
            overlaps = each[figure]["low"] <= best["high"] and best["low"] <= each[figure]["high"]
            assert (each[column] in ("best", "tie")) == overlaps


def test_the_table_says_who_is_better_and_what_is_left_out(linear, main) -> None:
    code, out, _ = main("compare", *TASK, "--backends", "aws")
    assert code == 0
    for line in (
        "quickest functions: aws",
        "virtual machines",
        "a GPU's speed is a guess",
        "prices: aws, lambda_x86 of 2026-",
    ):
        assert line in out
    assert "without evaluations, checkpoints" in out


def test_a_picture_of_bars(linear, main) -> None:
    code, _, _ = main("compare", *TASK, "--backends", "aws,local", "--png", "bars.png")
    assert code == 0
    assert (linear / "bars.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("backends", "said"),
    [("", "is empty"), ("aws,aws", "has one of them twice"), ("aws,nowhere", "nowhere")],
)
def test_backends_that_are_none(linear, main, backends, said) -> None:
    code, out, err = main("compare", *TASK, "--backends", backends)
    assert (code, out) == (2, "")
    assert said in err


def test_what_misses_a_limit_says_so_in_the_verdict(linear, main) -> None:
    document = compare(main, "--backends", "aws", "--deadline", "20s")
    verdict = next(each for each in document["verdicts"] if each["machines"]["kind"] == "vm")
    assert "(misses: deadline)" in verdict["text"]  # a machine boots for longer than that
    assert verdict["better"] == "functions"
