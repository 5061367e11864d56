"""What a run has spent, by the catalog's prices: the figure that limits are held against."""

from __future__ import annotations

from dataclasses import dataclass, field

from smlt.core.catalog import Catalog


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
    _open: dict[str, tuple[float, int]] = field(default_factory=dict)
    _closed_s: float = 0.0
    _closed_usd: float = 0.0

    def started(self, handle: str, now: float, memory_mib: int) -> None:
        """A function was launched."""
        self._open[handle] = (now, memory_mib)

    def ended(self, handle: str, now: float) -> None:
        """A function is over; unknown and ended handles are passed over."""
        if handle in self._open:
            start, memory_mib = self._open.pop(handle)
            self._closed_s += now - start
            self._closed_usd += self._price(now - start, memory_mib)

    def function_s(self, now: float) -> float:
        """Seconds of all functions so far."""
        return self.earlier_function_s + self._closed_s + sum(now - start for start, _ in self._open.values())

    def items_usd(self, now: float) -> dict[str, float]:
        """What was spent so far, by item; `total` is their sum."""
        running = sum(self._price(now - start, memory_mib) for start, memory_mib in self._open.values())
        functions = self.earlier_usd + self._closed_usd + running
        return {"total": functions, "functions": functions}

    def rate_usd_per_s(self) -> float:
        """What the running functions cost a second."""
        return sum(self.catalog.function.usd_per_s(memory_mib) for _, memory_mib in self._open.values())

    def _price(self, seconds: float, memory_mib: int) -> float:
        price = self.catalog.function
        return price.usd(price.use(seconds, memory_mib))
