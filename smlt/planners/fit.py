"""Learning a model's constants from observations: least squares in logarithms, with what was believed before.

The most probable constants, where timings are off by a factor around 1 (log-normal) and constants are believed within
their spread, minimise sum(((ln model - ln seen) / noise)^2) + sum(((ln value - ln prior) / ln spread)^2): a non-linear
least-squares problem, solved by Levenberg and Marquardt's method (Nocedal and Wright, Numerical Optimization, 10.3).
What is not observed keeps its prior, so two observations suffice for any number of constants. The uncertainty is that
of the linearised problem, scaled up where the residuals are larger than the noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from smlt.core.errors import ConfigError
from smlt.core.task import Array
from smlt.planners.constants import Constant, Values

Model = Callable[[Values], float]
"""What something takes or costs, from the constants; more than 0 unless it is nothing at all."""

NOISE = 0.05
"""Relative standard deviation of a timing on a cloud, where nothing better is known."""

JITTER_S = 0.01
"""Seconds that a timing is off however short it was: requests of the published series take 10 to 20 ms. What is
predicted of those series differs by 8 % at most if it is 0 or 20 ms (benchmarks/validate_model.py)."""

ROUNDS = 200
STEP = 1e-5
SMALLEST_GAIN = 1e-10


@dataclass(frozen=True)
class Seen:
    """One observation: what the model says of it, and how long it took.

    Attributes:
        model: of what was timed.
        seconds: that it took, more than 0.
        noise: relative standard deviation of the timing, beside `JITTER_S`.
    """

    model: Model
    seconds: float
    noise: float = NOISE

    @property
    def deviation(self) -> float:
        """Standard deviation of the logarithm of the timing."""
        return math.hypot(self.noise, JITTER_S / self.seconds)


@dataclass(frozen=True)
class Prediction:
    """A time or an amount of money, and how sure it is.

    Attributes:
        likely: the most probable.
        low, high: two cases of three lie between.
    """

    likely: float
    low: float
    high: float


@dataclass(frozen=True)
class Fitted:
    """Constants after learning.

    Attributes:
        constants: by name, fixed ones included.
        names: of those that were learned, in the order of the covariance.
        covariance: of their logarithms.
        residuals: ln model - ln seen, one an observation.
    """

    constants: Mapping[str, Constant]
    names: tuple[str, ...]
    covariance: Array
    residuals: tuple[float, ...]

    @property
    def values(self) -> dict[str, float]:
        """The values alone."""
        return {name: constant.value for name, constant in self.constants.items()}

    def predict(self, model: Model) -> Prediction:
        """What a model says with these constants, in seconds or dollars, and how sure that is by the delta method.

        The noise of a single timing is left out.
        """
        likely = model(self.values)
        if likely <= 0 or not self.names:
            return Prediction(likely, likely, likely)
        logs = np.array([math.log(self.constants[name].value) for name in self.names])
        slope = _jacobian(lambda at: np.array([math.log(model(self._at(at)))]), logs)[0]
        factor = math.exp(math.sqrt(max(0.0, float(slope @ self.covariance @ slope))))
        return Prediction(likely, likely / factor, likely * factor)

    def _at(self, logs: Array) -> dict[str, float]:
        return {**self.values, **{name: math.exp(log) for name, log in zip(self.names, logs, strict=True)}}


def fit(priors: Mapping[str, Constant], seen: Sequence[Seen]) -> Fitted:
    """The constants that explain best what was seen; those that no observation speaks of keep their priors.

    Raises:
        ConfigError: an observation is no time, or the model is no time at the priors.
    """
    if any(not (math.isfinite(each.seconds) and each.seconds > 0 and each.noise > 0) for each in seen):
        raise ConfigError("an observation is a time of more than 0 seconds, and its noise more than 0")
    names = tuple(name for name, constant in priors.items() if not constant.is_fixed)
    believed = np.array([math.log(priors[name].value) for name in names])
    sigmas = np.array([math.log(priors[name].spread) for name in names])
    fixed = {name: constant.value for name, constant in priors.items()}

    def misfits(logs: Array) -> Array:
        values = {**fixed, **{name: math.exp(log) for name, log in zip(names, logs, strict=True)}}
        told = [(math.log(each.model(values)) - math.log(each.seconds)) / each.deviation for each in seen]
        return np.array([*told, *((logs - believed) / sigmas)])

    best = _least_squares(misfits, believed)
    slopes = _jacobian(misfits, best)
    told = misfits(best)[: len(seen)]
    freedom = max(1, len(seen) - len(names))
    scale = max(1.0, float(told @ told) / freedom) if seen else 1.0
    slopes[: len(seen)] /= math.sqrt(scale)
    covariance = np.linalg.inv(slopes.T @ slopes) if names else np.zeros((0, 0))
    learned = {
        name: Constant(math.exp(log), math.exp(math.sqrt(variance)), _told_by(priors[name], variance, sigma, len(seen)))
        for name, log, variance, sigma in zip(names, best, np.diag(covariance), sigmas, strict=True)
    }
    residuals = tuple(float(miss * each.deviation) for miss, each in zip(told, seen, strict=True))
    return Fitted({**priors, **learned}, names, covariance, residuals)


def _told_by(prior: Constant, variance: float, sigma: float, count: int) -> str:
    """The source of a learned constant: its prior's, unless observations have made it surer by a tenth."""
    if math.sqrt(variance) > 0.9 * sigma:
        return prior.source
    return f"fitted on {count} observations, from {prior.value:.4g} of: {prior.source}"


def _least_squares(misfits: Callable[[Array], Array], start: Array) -> Array:
    """Where the sum of squares is least, going downhill from `start`."""
    at, damping = start, 1e-2
    now = misfits(at)
    for _ in range(ROUNDS):
        slopes = _jacobian(misfits, at)
        normal, downhill = slopes.T @ slopes, slopes.T @ now
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -downhill)
        there = misfits(at + step)
        gain = float(now @ now - there @ there)
        if gain > 0:
            at, now, damping = at + step, there, damping / 5
            if gain < SMALLEST_GAIN * float(now @ now + 1):
                break
        elif damping > 1e12:
            break
        else:
            damping *= 4
    return at


def _jacobian(function: Callable[[Array], Array], at: Array) -> Array:
    """Slopes by central differences: a row a value, a column a variable."""
    columns = []
    for number in range(len(at)):
        nudge = np.zeros(len(at))
        nudge[number] = STEP
        columns.append((function(at + nudge) - function(at - nudge)) / (2 * STEP))
    return np.stack(columns, axis=1) if columns else np.zeros((len(function(at)), 0))
