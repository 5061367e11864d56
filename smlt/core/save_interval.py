"""How often to save: what a checkpoint costs against what is lost without one. Pure."""

from __future__ import annotations

from math import sqrt

PRIOR_MTBF_S = 6 * 3600.0
"""Mean time between set-backs that is assumed of a run before it has seen any; a guess, and weighs as one of them."""

UPLOAD_SHARE = 0.5
"""How much of the time in which parts are written in the background is taken from training: 0.43 where two ranks have
two cores between them and a disk, less where it is the network that takes the time; see docs/decisions.md."""

LEAST_S, MOST_S = 5.0, 600.0
"""Bounds of the interval: a run that is set back all the time still gets on, and none loses more than ten minutes."""


def save_interval_s(stall_s: float, upload_s: float, setbacks: int, observed_s: float) -> float:
    """Seconds from one checkpoint to the next that lose the least time: sqrt(2 * cost * MTBF).

    J. W. Young, "A first order approximation to the optimum checkpoint interval", CACM 17(9), 1974; J. T. Daly, "A
    higher order estimate of the optimum checkpoint interval for restart dumps", FGCS 22(3), 2006, whose further terms
    are below the error of the MTBF here. Good as long as the cost is small beside the MTBF, which the bounds see to.

    Args:
        stall_s: for so long a snapshot held training up.
        upload_s: for so long parts were written beside it.
        setbacks: how often the run had to go back to a checkpoint. A lost rank that takes its state over from a donor
            is none: it costs a step, however long ago the checkpoint is.
        observed_s: in how many seconds of the run that happened.
    """
    mtbf_s = (PRIOR_MTBF_S + observed_s) / (1 + setbacks)
    cost_s = stall_s + UPLOAD_SHARE * upload_s
    return min(MOST_S, max(LEAST_S, sqrt(2 * cost_s * mtbf_s)))
