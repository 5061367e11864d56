"""How long functions may run on without hearing of their controller: the money that is committed but not yet spent."""

from __future__ import annotations

from smlt.core.patient_store import PATIENCE_S

GRACES = 2.0
"""An orphaned function has a grace to end in order, and another before it ends the hard way."""

OUTAGE_S = PATIENCE_S
"""The store that carries the beats may be out of reach for so long without anybody being lost."""

LEAVE_S = 5.0
"""Whoever is told to leave at once has so long; then it is ended, or ends itself where nobody can."""

BEAT_S = 0.5
"""A little more, since beats come when they come."""

SHORTEST_S = 2.5
"""The controller's record is renewed every second; less than this would end functions for a hiccup."""

BUDGET_SHARE = 0.1
"""Of the budget: no more of it than this shall be tied up by leases."""


def lease_s(orphan_grace_s: float, budget_usd: float | None, fleet_usd_per_s: float) -> float:
    """Seconds that a function may run on after it has heard of its controller for the last time.

    Args:
        orphan_grace_s: what the backend would like functions to have for ending in order.
        budget_usd: of the run; None for none.
        fleet_usd_per_s: what all its functions together cost a second.
    """
    longest = hard_grace_s(orphan_grace_s) + OUTAGE_S
    if budget_usd is None or fleet_usd_per_s <= 0:
        return longest
    return min(longest, max(SHORTEST_S, BUDGET_SHARE * budget_usd / fleet_usd_per_s))


def hard_grace_s(orphan_grace_s: float) -> float:
    """Seconds without its controller, in which it could have been heard, after which a function ends the hard way."""
    return GRACES * orphan_grace_s + BEAT_S
