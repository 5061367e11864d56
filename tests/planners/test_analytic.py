"""What a fleet would take and cost: the parts of a step, hand-overs, and money as the ledger counts it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smlt.core.catalog import Catalog, load_catalog
from smlt.core.errors import ConfigError
from smlt.core.ledger import Ledger
from smlt.core.storage import ChannelCapabilities
from smlt.core.sync.choice import PATTERNS, name_for
from smlt.core.task import Region
from smlt.planners.analytic import (
    COMPUTE_PRIORS,
    Fleet,
    Prices,
    Workload,
    run_cost,
    run_time,
    start_s,
    step_time,
)
from smlt.planners.constants import values_of
from smlt.planners.fit import Seen, fit
from smlt.planners.transfer import exchange_s, merged, stages_of, store_constants

AWS = load_catalog("smlt.backends.aws")
OBJECTS = ChannelCapabilities(ranged=True, reduces=False, max_value_bytes=None, latency_s=0.03)
PRIORS = merged(COMPUTE_PRIORS, store_constants(AWS, "s3", "lambda_x86"))
VALUES = values_of(PRIORS)
WORK = Workload(steps=1000, global_batch=512, example_bytes=0.0, regions=(Region("float32", 11_000_000, True),))
FLEET = Fleet(workers=8, memory_mib=1769, vcpus=1.0, channel=OBJECTS)


def test_a_step_is_computing_synchronising_and_loading() -> None:
    work = replace(WORK, example_bytes=1e6)
    step = step_time(work, FLEET, {**VALUES, "examples_per_vcpu_s": 4.0, "load_mb_s": 32.0})
    assert step.compute_s == 64 / 4
    assert step.load_s == 64 / 32
    cost = PATTERNS[name_for(OBJECTS, WORK.regions, 8)].cost(WORK.regions, 0, 8)
    assert step.sync_s == pytest.approx(exchange_s(stages_of(cost, 8), VALUES))
    assert step.seconds == pytest.approx(step.compute_s + step.sync_s + step.load_s)


def test_vcpus_help_less_the_more_there_are() -> None:
    one, two, six = (step_time(WORK, replace(FLEET, vcpus=vcpus), VALUES).compute_s for vcpus in (1.0, 2.0, 6.0))
    assert one > two > one / 2
    assert one > six > one / 6


def test_the_largest_share_is_waited_for() -> None:
    even, odd = (step_time(WORK, replace(FLEET, workers=workers), VALUES).compute_s for workers in (8, 7))
    assert odd / even == pytest.approx(math.ceil(512 / 7) / 64)


def test_one_worker_synchronises_nothing() -> None:
    assert step_time(WORK, replace(FLEET, workers=1), VALUES).sync_s == 0


def test_local_sgd_shares_an_exchange_among_steps() -> None:
    every, rarely = (step_time(WORK, replace(FLEET, exchange_every=count), VALUES).sync_s for count in (1, 50))
    assert rarely == pytest.approx(every / 50)


def test_a_codec_moves_less() -> None:
    plain, half = (step_time(WORK, replace(FLEET, codec=codec), VALUES).sync_s for codec in ("fp32", "bf16"))
    assert half < plain


def test_many_ranks_on_two_levels_are_counted_by_range() -> None:
    cost = replace(FLEET, workers=100).sync_cost(WORK.regions)
    assert cost.phases == 4
    assert cost.requests["put"] < PATTERNS["two_level"].cost(WORK.regions, 0, 100).requests["put"]


def test_a_run_without_a_limit_has_no_hand_over() -> None:
    time = run_time(WORK, FLEET, VALUES)
    assert time.handovers == 0
    assert time.seconds == pytest.approx(start_s(8, VALUES) + 1000 * step_time(WORK, FLEET, VALUES).seconds)


@settings(max_examples=60)
@given(st.integers(1, 5000), st.floats(60.0, 5000.0))
def test_no_generation_outlives_its_functions(steps: int, time_limit_s: float) -> None:
    work = replace(WORK, steps=steps)
    time = run_time(work, FLEET, VALUES, time_limit_s)
    step = step_time(work, FLEET, VALUES).seconds
    generations = time.handovers + 1
    each = math.floor((time_limit_s - time.start_s - VALUES["handover_s"]) / step)
    assert (generations - 1) * each < steps <= generations * each
    assert time.handover_s == pytest.approx(time.handovers * VALUES["handover_s"])


def test_functions_that_end_before_a_step() -> None:
    with pytest.raises(ConfigError, match=r"a function ends after 5 s, of which 3\.5 s are left for steps of"):
        run_time(WORK, FLEET, VALUES, 5.0)


def spent(catalog: Catalog, workers: int, memory_mib: int, lives: list[tuple[float, float]]) -> float:
    """USD by the ledger of generations of workers that live from one time to another."""
    ledger = Ledger(catalog)
    for generation, (start, end) in enumerate(lives):
        for rank in range(workers):
            ledger.started(f"{generation}.{rank}", start, memory_mib, 0.0)
            ledger.ended(f"{generation}.{rank}", end)
    return ledger.items_usd(lives[-1][1])["functions"]


@pytest.mark.parametrize("provider", ["aws", "gcp", "azure"])
def test_functions_cost_what_the_ledger_says(provider: str) -> None:
    catalog = load_catalog(f"smlt.backends.{provider}")
    time = run_time(WORK, FLEET, VALUES)
    expected = spent(catalog, 8, 2048, [(0.0, time.seconds)])
    cost = run_cost(WORK, replace(FLEET, memory_mib=2048), time, Prices(catalog))
    assert cost == pytest.approx({"total": expected, "functions": expected})


def test_in_a_hand_over_two_generations_are_paid() -> None:
    time = run_time(WORK, FLEET, VALUES, 900.0)
    assert time.handovers > 0
    generations = time.handovers + 1
    each = time.seconds / generations
    lives = [(number * each - time.start_s, (number + 1) * each) for number in range(generations)]
    assert run_cost(WORK, FLEET, time, Prices(AWS))["functions"] == pytest.approx(spent(AWS, 8, 1769, lives), rel=1e-4)


def test_a_store_is_paid_by_requests_and_a_server_by_time() -> None:
    time = run_time(WORK, FLEET, VALUES)
    objects = run_cost(WORK, FLEET, time, Prices(AWS, store="s3"))
    assert objects["store"] == pytest.approx(1000 * 8 * (2 * 5e-6 + 14 * 4e-7))
    assert objects["total"] == pytest.approx(objects["functions"] + objects["store"])
    loading = run_cost(replace(WORK, example_bytes=1e5), FLEET, time, Prices(AWS, store="s3"))
    assert loading["store"] - objects["store"] == pytest.approx(1000 * 512 * 4e-7)
    served = run_cost(WORK, FLEET, time, Prices(AWS, server="cache.t3.medium"))
    assert served["channel"] == pytest.approx(math.ceil(time.seconds / 3600) * 0.068)
    assert "store" not in served


def test_a_free_tier_is_taken_off_where_it_is_asked_for() -> None:
    time = run_time(WORK, FLEET, VALUES)
    assert run_cost(WORK, FLEET, time, Prices(AWS, free_tier=True))["functions"] == 0


def test_one_observed_step_teaches_the_speed() -> None:
    truth = {**VALUES, "examples_per_vcpu_s": 37.0}
    observed = step_time(WORK, FLEET, truth).seconds
    learned = fit(PRIORS, [Seen(lambda values: step_time(WORK, FLEET, values).seconds, observed, 0.02)])
    predicted = learned.predict(lambda values: step_time(WORK, FLEET, values).seconds)
    assert predicted.likely == pytest.approx(observed, rel=0.02)
    assert predicted.high / predicted.low < 1.1


def test_money_is_predicted_with_its_uncertainty() -> None:
    def usd(values: dict[str, float]) -> float:
        return run_cost(WORK, FLEET, run_time(WORK, FLEET, values), Prices(AWS))["total"]

    predicted = fit(PRIORS, []).predict(usd)
    assert predicted.likely == pytest.approx(usd(VALUES))
    assert predicted.low < predicted.likely / 2 < predicted.likely * 2 < predicted.high


def test_every_constant_names_its_source() -> None:
    assert all(constant.source for constant in PRIORS.values())
