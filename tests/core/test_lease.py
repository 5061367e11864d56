"""How much of a budget may be tied up by functions that would run on alone."""

from __future__ import annotations

import pytest

from smlt.core.lease import BUDGET_SHARE, SHORTEST_S, lease_s


def test_without_a_budget_an_orphan_has_time_to_end_in_order_and_to_be_ended_after_an_outage() -> None:
    assert lease_s(8.0, None, 1.0) == 136.5
    assert lease_s(8.0, 1.0, 0.0) == 136.5  # what is free ties nothing up


@pytest.mark.parametrize(
    ("budget_usd", "expected"), [(1000.0, 136.5), (10.0, 5.0), (1.0, SHORTEST_S), (0.01, SHORTEST_S)]
)
def test_a_small_budget_makes_leases_short_but_not_so_short_that_a_hiccup_ends_them(
    budget_usd: float, expected: float
) -> None:
    found = lease_s(8.0, budget_usd, 0.2)
    assert found == pytest.approx(expected)
    assert found == SHORTEST_S or found * 0.2 <= BUDGET_SHARE * budget_usd
