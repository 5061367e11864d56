"""Learning constants: what was observed is explained, what was not keeps its prior, and how sure it all is."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smlt.core.catalog import Provenance
from smlt.core.errors import ConfigError
from smlt.planners.constants import Constant, Values
from smlt.planners.fit import JITTER_S, Model, Seen, fit

PRIORS = {"fixed_s": Constant(1.0, 3.0, "a guess"), "each_s": Constant(1.0, 3.0, "a guess")}


def line(count: float) -> Model:
    return lambda values: values["fixed_s"] + count * values["each_s"]


def seen(fixed_s: float, each_s: float, counts: tuple[int, ...], noise: float = 1e-4) -> list[Seen]:
    return [Seen(line(count), fixed_s + count * each_s, noise) for count in counts]


@settings(max_examples=50)
@given(st.floats(20.0, 500.0), st.floats(5.0, 100.0))
def test_what_was_observed_exactly_is_found(fixed_s: float, each_s: float) -> None:
    learned = fit(PRIORS, seen(fixed_s, each_s, (1, 100, 1000)))
    assert learned.values["each_s"] == pytest.approx(each_s, rel=2e-3)
    assert learned.predict(line(400)).likely == pytest.approx(fixed_s + 400 * each_s, rel=2e-3)


def test_without_observations_priors_stay() -> None:
    learned = fit(PRIORS, [])
    assert learned.values == pytest.approx({"fixed_s": 1.0, "each_s": 1.0})
    assert [constant.spread for constant in learned.constants.values()] == pytest.approx([3.0, 3.0])
    assert [constant.source for constant in learned.constants.values()] == ["a guess", "a guess"]


def test_what_no_observation_speaks_of_keeps_its_prior() -> None:
    priors = {**PRIORS, "other_s": Constant(7.0, 2.0, "a paper")}
    other = fit(priors, seen(2.0, 3.0, (1, 100))).constants["other_s"]
    assert (other.value, other.spread) == pytest.approx((7.0, 2.0))
    assert other.source == "a paper"


def test_a_fixed_constant_is_not_learned() -> None:
    learned = fit({**PRIORS, "each_s": Constant(3.0, 1.0, "known")}, seen(2.0, 5.0, (1, 100)))
    assert learned.constants["each_s"] == Constant(3.0, 1.0, "known")
    assert learned.names == ("fixed_s",)


def test_what_was_learned_says_from_what() -> None:
    source = fit(PRIORS, seen(2.0, 3.0, (1, 100))).constants["each_s"].source
    assert source == "fitted on 2 observations, from 1 of: a guess"


def test_more_observations_make_surer() -> None:
    few, many = (fit(PRIORS, seen(2.0, 3.0, (1, 100) * repeats, 0.1)) for repeats in (1, 8))
    for name in PRIORS:
        assert 1.0 < many.constants[name].spread < few.constants[name].spread < PRIORS[name].spread


def test_far_from_what_was_observed_less_is_sure() -> None:
    learned = fit(PRIORS, seen(50.0, 1.0, (1, 2), 0.02))
    near, far = (learned.predict(line(count)) for count in (2, 1000))
    assert near.high / near.low < far.high / far.low


def test_residuals_that_are_larger_than_the_noise_make_less_sure() -> None:
    def observed(error: float) -> list[Seen]:
        timings = [(1, 5.0), (2, 8.0 * error), (50, 152.0), (60, 182.0 * error), (70, 212.0)]
        return [Seen(line(count), seconds, 0.01) for count, seconds in timings]

    assert fit(PRIORS, observed(1.3)).constants["each_s"].spread > fit(PRIORS, observed(1.0)).constants["each_s"].spread


def test_two_cases_of_three_lie_in_the_interval() -> None:
    rng, inside, cases = random.Random(0), 0, 200
    for _ in range(cases):
        truth = {name: math.exp(rng.gauss(0.0, math.log(3.0))) for name in PRIORS}
        timings = [(count, line(count)(truth)) for count in (5, 20, 50)]
        told = [Seen(line(count), exact * math.exp(rng.gauss(0.0, 0.1)), 0.1) for count, exact in timings]
        predicted = fit(PRIORS, told).predict(line(200))
        inside += predicted.low <= line(200)(truth) <= predicted.high
    assert 0.58 * cases <= inside <= 0.85 * cases


def test_a_short_timing_tells_little() -> None:
    assert Seen(line(1), 0.001, 0.05).deviation == pytest.approx(JITTER_S / 0.001, rel=1e-2)
    assert Seen(line(1), 100.0, 0.05).deviation == pytest.approx(0.05, rel=1e-3)


def test_what_takes_no_time_is_predicted_to_take_none() -> None:
    def nothing(values: Values) -> float:
        return 0.0

    predicted = fit(PRIORS, seen(2.0, 3.0, (1, 100))).predict(nothing)
    assert (predicted.low, predicted.likely, predicted.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_what_is_no_time_is_refused(seconds: float) -> None:
    with pytest.raises(ConfigError, match="an observation is a time of more than 0 seconds"):
        fit(PRIORS, [Seen(line(1), seconds)])


@pytest.mark.parametrize(("value", "spread"), [(0.0, 2.0), (-1.0, 2.0), (math.nan, 2.0), (1.0, 0.5)])
def test_what_is_no_constant_is_refused(value: float, spread: float) -> None:
    with pytest.raises(ConfigError, match="not a constant of a model"):
        Constant(value, spread, "here")


def test_a_catalogs_figure_is_as_sure_as_the_catalog() -> None:
    sure, unsure = (
        Constant.of(2.0, Provenance(source="a page", as_of="2026-01-01", confidence=confidence))
        for confidence in ("high", "low")
    )
    assert sure.spread < unsure.spread
    assert sure.source == "a page (2026-01-01)"
