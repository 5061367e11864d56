"""Contenders held against one another: bases, ties, and when machines are the better choice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from smlt.core.catalog import load_catalog
from smlt.core.forecast import Range
from smlt.core.planner import PlanRequest
from smlt.core.planning import Planned
from smlt.planners.comparison import Comparison, Verdict, compare, outcome
from smlt.planners.contenders import Contender
from smlt.planners.modelled import AnalyticPlanner
from tests.support.scenes import GUESSED, OBJECT, SCENE, request


def asked(provider: str = "aws", **fields) -> PlanRequest:
    """A request for a provider, over its object store alone."""
    catalog = load_catalog(f"smlt.backends.{provider}")
    functions, store = {
        "aws": ("lambda_x86", "s3"), "gcp": ("cloud_run_jobs", "gcs"), "azure": ("container_apps", "blob"),
    }[provider]  # fmt: skip
    assert store in catalog.stores
    scene = replace(
        SCENE,
        catalog=catalog.using(functions),
        functions=functions,
        channels=(replace(OBJECT, entry=store),),
        profile=fields.pop("profile", SCENE.profile),
    )
    return request(scene=scene, memory_choices_mib=(1024, 2048, 4096), max_workers=16, **fields)


def comparison(basis=None, usd=None, providers=("aws", "gcp", "azure"), **fields) -> Comparison:
    requests = [asked(provider, **fields) for provider in providers]
    planned = [Planned(AnalyticPlanner().survey(each), each, "analytic") for each in requests]
    return compare(planned, providers, basis, usd)


def functions(found: Comparison) -> list[Contender]:
    return [each for each in found.contenders if each.kind == "functions"]


def test_each_provider_has_functions_and_machines_of_four_kinds() -> None:
    found = comparison()
    kinds = [(each.backend, each.kind, each.spot) for each in found.contenders]
    four = [("vm", False), ("vm", True), ("gpu", False), ("gpu", True)]
    assert kinds == [(name, *kind) for name in ("aws", "gcp", "azure") for kind in [("functions", False), *four]]


def test_without_a_basis_each_has_what_smlt_plan_would_choose() -> None:
    found = comparison(deadline_s=86400.0, objective="cheapest")
    for each in functions(found):
        survey = AnalyticPlanner().survey(asked(each.backend, deadline_s=86400.0, objective="cheapest"))
        assert each.plan == survey.chosen


def test_equal_vcpus_are_equal_or_said_not_to_be() -> None:
    found = comparison("vcpu")
    assert found.yardstick is not None
    for each in found.contenders:
        has = each.plan.allocation.workers * each.forecast.vcpus
        if each.kind != "gpu" and not each.unequal:
            assert has == pytest.approx(found.yardstick.wanted, rel=0.06)
        else:
            assert "not" in each.unequal or each.kind == "gpu"


def test_equal_memory_takes_as_many_machines_as_come_to_it() -> None:
    found = comparison("memory", workers=16, memory_mib=2048)
    assert found.yardstick is not None
    assert found.yardstick.wanted == 16 * 2048
    machine = next(each for each in found.contenders if each.kind == "vm")
    assert machine.plan.allocation.workers * machine.plan.allocation.memory_mib == 16 * 2048
    assert machine.unequal == ""


def test_equal_money_is_spent_as_quickly_as_possible() -> None:
    found = comparison("usd", 30.0)
    for each in found.contenders:
        assert each.forecast.cost_usd.likely <= 30.0 or "not $30" in each.unequal
    for one in functions(found):
        affordable = [
            plan.forecast.finish_s.likely
            for plan in AnalyticPlanner().survey(asked(one.backend)).plans
            if plan.forecast and plan.forecast.cost_usd.likely <= 30.0 and plan.forecast.limits["memory"] == "met"
        ]
        assert one.forecast.finish_s.likely <= min(affordable)


def test_the_order_of_backends_changes_nothing() -> None:
    one, other = comparison("vcpu"), comparison("vcpu", providers=("azure", "gcp", "aws"))
    assert sorted(one.contenders, key=str) == sorted(other.contenders, key=str)


def test_what_is_not_known_of_the_task_is_no_part_of_the_bars() -> None:
    for each in functions(comparison(profile=GUESSED)):
        plan, bar = each.forecast.finish_s, each.finish_s
        assert bar.likely == plan.likely
        assert bar.high / bar.likely < plan.high / plan.likely


def test_a_price_from_memory_widens_the_bar_of_costs() -> None:
    catalog = load_catalog("smlt.backends.aws")
    sure, unsure = catalog.vms["c5.xlarge"], catalog.vms["c6i.xlarge"]
    assert sure.usd_per_h == unsure.usd_per_h
    bars = []
    for name in ("c5.xlarge", "c6i.xlarge"):
        vms = {name: catalog.vms[name].model_copy(update={"bandwidth_mb_s": 100.0})}
        each = asked()
        scene = replace(each.scene, catalog=catalog.model_copy(update={"vms": vms})) if each.scene else None
        planned = Planned(AnalyticPlanner().survey(each), replace(each, scene=scene), "analytic")
        bars.append(next(one for one in compare([planned], ["aws"], None).contenders if one.kind == "vm"))
    assert bars[0].cost_usd.likely == bars[1].cost_usd.likely
    assert bars[1].cost_usd.high > 1.05 * bars[0].cost_usd.high
    assert (bars[0].price.confidence, bars[1].price.confidence) == ("high", "low")


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (Range(1, 2, 3), Range(4, 5, 6), "less"),
        (Range(1, 2, 4), Range(4, 5, 6), "tie"),
        (Range(7, 8, 9), Range(4, 5, 6), "more"),
        (Range(0, 0, 0), Range(0, 0, 0), "tie"),
    ],
)
def test_ranges_with_a_common_point_are_a_tie(one, other, expected) -> None:
    assert outcome(one, other) == expected


@pytest.mark.parametrize(
    ("machines", "better"),
    [
        ((Range(1, 2, 3), Range(1, 2, 3)), "machines"),
        ((Range(1, 2, 3), Range(10, 11, 12)), "machines"),
        ((Range(1, 2, 3), Range(20, 21, 22)), "depends"),
        ((Range(20, 21, 22), Range(1, 2, 3)), "depends"),
        ((Range(20, 21, 22), Range(10, 11, 12)), "functions"),
        ((Range(10, 11, 12), Range(10, 11, 12)), "tie"),
    ],
)
def test_machines_are_the_better_choice_where_nothing_speaks_against_them(machines, better) -> None:
    contender = functions(comparison(providers=("aws",)))[0]
    ours = replace(contender, finish_s=Range(10, 11, 12), cost_usd=Range(10, 11, 12))
    theirs = replace(contender, kind="vm", finish_s=machines[0], cost_usd=machines[1])
    assert Verdict.of(ours, theirs).better == better


def test_who_misses_a_limit_is_not_the_better_choice() -> None:
    ours, theirs = (
        functions(comparison(providers=("aws",), deadline_s=deadline_s))[0] for deadline_s in (36000.0, 1.0)
    )
    quick = replace(theirs, kind="vm", finish_s=Range(0, 0.1, 0.2), cost_usd=Range(0, 0.1, 0.2))
    assert Verdict.of(ours, quick).better == "functions"


def test_a_verdict_for_each_kind_of_machines_is_by_the_best_of_each() -> None:
    found = comparison(objective="cheapest")
    verdicts = found.verdicts()
    assert [(each.machines.kind, each.machines.spot) for each in verdicts] == [
        ("vm", False), ("vm", True), ("gpu", False), ("gpu", True),
    ]  # fmt: skip
    assert all(each.functions is found.best("functions") for each in verdicts)
