"""Whom a controller that is gone has left running, by the log."""

from __future__ import annotations

from typing import Any

from smlt.core.orphans import Orphan, orphans
from smlt.core.run_events import Address
from smlt.core.runlog import RunEvent

CREATED = ("created", {})
SPENT = ("spent", {"usd": 0.0, "function_s": 0.0})


def about(generation: int, rank: int, incarnation: int = 0) -> dict[str, int]:
    return {"generation": generation, "rank": rank, "incarnation": incarnation}


def launched(*address: int, lease_s: float = 20.0) -> tuple[str, dict[str, Any]]:
    return "launched", {**about(*address), "memory_mib": 1024, "lease_s": lease_s}


def ended(*address: int) -> tuple[str, dict[str, Any]]:
    return "ended", about(*address)


def found(*events: tuple[str, dict[str, Any]]) -> list[Orphan]:
    return orphans(RunEvent(float(number), kind, data) for number, (kind, data) in enumerate(events))


def who(*events: tuple[str, dict[str, Any]]) -> list[tuple[int, int, int]]:
    return [(each.address.generation, each.address.rank, each.address.incarnation) for each in found(*events)]


def test_who_was_launched_and_has_not_ended() -> None:
    assert found(CREATED, launched(1, 0), launched(1, 1), ended(1, 0), launched(2, 0, lease_s=30.0)) == [
        Orphan(Address(1, 1, 0), 1024, 20.0, since=2.0),
        Orphan(Address(2, 0, 0), 1024, 30.0, since=4.0),
    ]


def test_what_is_in_the_figures_is_not_counted_again() -> None:
    left = found(CREATED, launched(1, 0), SPENT, launched(1, 1))
    assert [(each.since, each.requests) for each in left] == [(2.0, 0), (3.0, 1)]


def test_a_session_that_finished_left_nobody() -> None:
    assert found(CREATED, launched(1, 0), ("finished", {})) == []


def test_orphans_are_counted_once() -> None:
    assert who(CREATED, launched(1, 0), launched(1, 1), CREATED, SPENT, launched(2, 0)) == [(2, 0, 0)]


def test_those_who_were_adopted_may_be_left_again() -> None:
    """Not those of the generation that was getting ready."""
    first = (CREATED, launched(1, 0), launched(1, 1), launched(1, 1, 1), ended(1, 1), launched(2, 0))
    adopted = ("adopted", {"generation": 1})
    assert who(*first, CREATED, SPENT, adopted) == [(1, 0, 0), (1, 1, 1)]
    assert [(each.since, each.requests) for each in found(*first, CREATED, SPENT, adopted)] == [(8.0, 0)] * 2
    assert who(*first, CREATED, SPENT, adopted, ended(1, 1, 1)) == [(1, 0, 0)]
    assert who(*first, CREATED, SPENT, adopted, CREATED, SPENT, adopted) == [(1, 0, 0), (1, 1, 1)]


def test_what_an_older_smlt_launched_is_not_known_of() -> None:
    assert found(CREATED, ("launched", {**about(1, 0), "memory_mib": 1024})) == []
