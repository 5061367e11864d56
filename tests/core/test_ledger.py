"""What a run has spent: by the catalog's prices, over all its sessions."""

from __future__ import annotations

import pytest

from smlt.core.catalog import Catalog, FunctionPrice
from smlt.core.ledger import Ledger

CATALOG = Catalog(
    provider="test", source="here", as_of="2026-01-01", function=FunctionPrice(usd_per_gib_s=0.5, usd_per_request=0.01)
)


def test_functions_cost_from_launch_to_end() -> None:
    ledger = Ledger(CATALOG)
    ledger.started("a", 10.0, 1024, 2.0)
    ledger.started("b", 11.0, 2048, 2.0)
    assert ledger.items_usd(12.0)["total"] == pytest.approx(0.02 + 2 * 0.5 + 1 * 2 * 0.5)
    assert ledger.committed_usd(12.0, 1.0) == pytest.approx(ledger.items_usd(12.0)["total"] + 3 * (0.5 + 1.0))
    ledger.ended("b", 13.0)
    assert ledger.items_usd(20.0)["total"] == pytest.approx(0.02 + 10 * 0.5 + 2 * 2 * 0.5)
    assert ledger.committed_usd(20.0, 1.0) == pytest.approx(ledger.items_usd(20.0)["total"] + 3 * 0.5)
    ledger.ended("a", 20.0)
    assert ledger.items_usd(99.0) == ledger.items_usd(20.0)
    assert ledger.committed_usd(99.0, 1.0) == ledger.items_usd(20.0)["total"]
    assert ledger.price_usd(3.0, 2048) == pytest.approx(0.01 + 3 * 2 * 0.5)
    assert ledger.function_s(99.0) == pytest.approx(12.0)


def test_the_items_add_up_to_the_total() -> None:
    ledger = Ledger(CATALOG, earlier_usd=1.5)
    ledger.started("a", 0.0, 512, 0.0)
    items = ledger.items_usd(7.0)
    assert items.pop("total") == pytest.approx(sum(items.values()))


def test_earlier_sessions_count() -> None:
    ledger = Ledger(CATALOG, earlier_usd=1.5, earlier_function_s=60.0)
    assert ledger.items_usd(0.0)["total"] == 1.5
    ledger.started("a", 0.0, 1024, 0.0)
    assert ledger.items_usd(1.0)["total"] == pytest.approx(1.5 + 0.01 + 0.5)
    assert ledger.function_s(1.0) == pytest.approx(61.0)


def test_a_function_that_ends_twice_or_was_never_started_costs_nothing_more() -> None:
    ledger = Ledger(CATALOG)
    ledger.started("a", 0.0, 1024, 0.0)
    ledger.ended("a", 1.0)
    before = ledger.items_usd(5.0)
    ledger.ended("a", 5.0)
    ledger.ended("b", 5.0)
    assert ledger.items_usd(5.0) == before


def test_what_an_orphan_may_have_used_is_spent_and_committed() -> None:
    ledger = Ledger(CATALOG, earlier_usd=1.5, earlier_function_s=60.0)
    ledger.orphaned("1.0.0", 9.0, 1024, 2.0, requests=0)
    ledger.orphaned("1.1.0", 9.0, 2048, 2.0, requests=1)
    usd = 1.5 + 4 * 0.5 + 0.01 + 4 * 2 * 0.5
    assert ledger.items_usd(11.0)["total"] == pytest.approx(usd)
    assert ledger.function_s(11.0) == pytest.approx(68.0)
    ledger.left_behind(11.0)
    for now in (11.0, 99.0):
        assert ledger.items_usd(now)["total"] == pytest.approx(usd)
        assert ledger.committed_usd(now, 3.0) == pytest.approx(usd)
        assert ledger.function_s(now) == pytest.approx(68.0)


def test_an_orphan_that_is_adopted_costs_what_it_costs_and_is_committed_with_its_own_lease() -> None:
    ledger = Ledger(CATALOG, earlier_usd=1.5)
    ledger.orphaned("1.0.0", 9.0, 1024, 136.0, requests=0)
    ledger.adopted("1.0.0", "handle", 10.0, 1024, 136.0)
    ledger.started("b", 10.0, 1024, 2.0)
    spent = 1.5 + 0.01 + 2 * 4 * 0.5
    assert ledger.items_usd(14.0)["total"] == pytest.approx(spent)
    assert ledger.committed_usd(14.0, 3.0) == pytest.approx(spent + (136 + 3) * 0.5 + (2 + 3) * 0.5)
