"""What a run has spent, by the catalog's prices: the figure that limits are held against."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from smlt.core.catalog import Catalog


class _Running(NamedTuple):
    """A function that is billed: since when, its size, and the requests that it took."""

    since: float
    memory_mib: int
    requests: int = 1


@dataclass
class Ledger:
    """Counts functions from launch to end.

    Args:
        catalog: the prices.
        earlier_usd, earlier_function_s: of the run's earlier sessions.
    """

    catalog: Catalog
    earlier_usd: float = 0.0
    earlier_function_s: float = 0.0
    _open: dict[str, _Running] = field(default_factory=dict)
    _closed_s: float = 0.0
    _closed_usd: float = 0.0

    def started(self, handle: str, now: float, memory_mib: int) -> None:
        """A function was launched."""
        self._open[handle] = _Running(now, memory_mib)

    def adopted(self, handle: str, since: float, memory_mib: int) -> None:
        """A function of an earlier session goes on; what it cost until `since` is in that session's figures."""
        self._open[handle] = _Running(since, memory_mib, requests=0)

    def ended(self, handle: str, now: float) -> None:
        """A function is over; unknown and ended handles are passed over."""
        if handle in self._open:
            running = self._open.pop(handle)
            self._closed_s += now - running.since
            self._closed_usd += self._price_usd(running, now)

    def function_s(self, now: float) -> float:
        """Seconds of all functions so far."""
        running_s = sum(now - running.since for running in self._open.values())
        return self.earlier_function_s + self._closed_s + running_s

    def items_usd(self, now: float) -> dict[str, float]:
        """What was spent so far, by item; `total` is their sum."""
        functions = self._spent_usd(now, lease_s=0.0)
        return {"total": functions, "functions": functions}

    def committed_usd(self, now: float, lease_s: float) -> float:
        """What was spent, and what every running function may still spend if it goes on for so long."""
        return self._spent_usd(now, lease_s)

    def price_usd(self, seconds: float, memory_mib: int) -> float:
        """What one function more would cost, if it lived so long."""
        return self._price_usd(_Running(0.0, memory_mib), seconds)

    def price_usd_per_s(self, memory_mib: int) -> float:
        """What a function of this size costs a second."""
        return self.catalog.function.usd_per_s(memory_mib)

    def _spent_usd(self, now: float, lease_s: float) -> float:
        running = sum(self._price_usd(running, now + lease_s) for running in self._open.values())
        return self.earlier_usd + self._closed_usd + running

    def _price_usd(self, running: _Running, now: float) -> float:
        price = self.catalog.function
        return price.usd(price.use(now - running.since, running.memory_mib, requests=running.requests))
