"""Functions that a controller which is gone may have left running: nobody bills them, and they have leases."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from smlt.core.run_events import Address
from smlt.core.runlog import RunEvent


@dataclass(frozen=True)
class Orphan:
    """A function that was launched, as far as the log knows, and of whose end it does not know.

    Attributes:
        address: whose function.
        memory_mib: its size.
        lease_s: for which it runs on without a controller, at most.
        since: from then on (Unix time) the log has not what it cost.
        requests: that are not in what the log says was spent.
    """

    address: Address
    memory_mib: int
    lease_s: float
    since: float
    requests: int = 1


def orphans(events: Iterable[RunEvent]) -> list[Orphan]:
    """Those whom the last session left, where it broke off; none where it finished.

    One that was to be launched counts, whether the platform has started it or not. Launches in whose record no lease
    is, as of an older smlt, do not. Those of sessions before are in what the last one has spent, unless it adopted
    them.
    """
    here: dict[Address, Orphan] = {}
    before: dict[Address, Orphan] = {}
    for event in events:
        data = event.data
        match event.kind:
            case "created":
                before, here = here, {}
            case "launched" if "lease_s" in data:
                address = Address(data["generation"], data["rank"], data["incarnation"])
                here[address] = Orphan(address, data["memory_mib"], data["lease_s"], event.time)
            case "adopted":
                adopted = {each: kept for each, kept in before.items() if each.generation == data["generation"]}
                here |= _paid(adopted, event.time)
            case "spent":
                here = _paid(here, event.time)
            case "ended":
                here.pop(Address(data["generation"], data["rank"], data["incarnation"]), None)
            case "finished":
                here = {}
    return list(here.values())


def _paid(found: dict[Address, Orphan], until: float) -> dict[Address, Orphan]:
    return {address: replace(each, since=until, requests=0) for address, each in found.items()}
