"""What a run has spent, by the catalog's prices: the figure that limits are held against."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from smlt.core.catalog import Catalog
from smlt.core.offers import ServerOffer, StoreOffer


class _Running(NamedTuple):
    """A function that is billed: since when, its size, the lease that it has, and the requests that it took."""

    since: float
    memory_mib: int
    lease_s: float = 0.0
    requests: int = 1


@dataclass
class Ledger:
    """Counts functions from launch to end, and those of a controller that is gone with all that they may have used.

    Args:
        catalog: the prices.
        earlier_usd, earlier_function_s: of the run's earlier sessions.

    Attributes:
        store_usd: what exchanges through an object store have cost in this session.
    """

    catalog: Catalog
    earlier_usd: float = 0.0
    earlier_function_s: float = 0.0
    _orphans: dict[str, _Running] = field(default_factory=dict)
    _open: dict[str, _Running] = field(default_factory=dict)
    _alike: Counter[_Running] = field(default_factory=Counter)
    _closed_s: float = 0.0
    _closed_usd: float = 0.0
    store_usd: float = 0.0
    _server: tuple[ServerOffer, float] | None = None

    def orphaned(self, label: str, since: float, memory_mib: int, lease_s: float, requests: int) -> None:
        """A function of an earlier session may have run on; what it cost until `since` is in that session's figures."""
        self._orphans[label] = _Running(since, memory_mib, lease_s, requests)

    def left_behind(self, now: float) -> None:
        """Orphans that were not adopted by now are not gone on with: they use up their leases at most."""
        for orphan in self._orphans.values():
            self._close(orphan, now + orphan.lease_s)
        self._orphans.clear()

    def started(self, handle: str, now: float, memory_mib: int, lease_s: float) -> None:
        """A function was launched, which may run on for `lease_s` without its controller."""
        self._opened(handle, _Running(now, memory_mib, lease_s))

    def adopted(self, label: str, handle: str, since: float, memory_mib: int, lease_s: float) -> None:
        """A function of an earlier session goes on; what it cost until `since` is in that session's figures."""
        self._orphans.pop(label, None)
        self._opened(handle, _Running(since, memory_mib, lease_s, requests=0))

    def ended(self, handle: str, now: float) -> None:
        """A function is over; unknown and ended handles are passed over."""
        if handle in self._open:
            running = self._open.pop(handle)
            self._alike[running] -= 1
            if not self._alike[running]:
                del self._alike[running]
            self._close(running, now)

    def exchanged(self, store: StoreOffer, *, puts: int, gets: int, bytes_up: int, bytes_down: int) -> None:
        """Ranks have exchanged something through an object store."""
        self.store_usd += store.usd(puts=puts, gets=gets, bytes_in=bytes_up, bytes_out=bytes_down)

    def serves(self, server: ServerOffer, now: float) -> None:
        """From now on ranks have this server for their exchanges; it is billed until the end."""
        self._server = server, now

    def function_s(self, now: float) -> float:
        """Seconds of all functions so far."""
        running_s = sum((now - running.since) * count for running, count in self._alike.items())
        orphans_s = sum(now + orphan.lease_s - orphan.since for orphan in self._orphans.values())
        return self.earlier_function_s + orphans_s + self._closed_s + running_s

    def items_usd(self, now: float) -> dict[str, float]:
        """What was spent so far, by item; `total` is their sum."""
        running_usd = (self._price_usd(running, now) * count for running, count in self._alike.items())
        functions = self._past_usd(now) + sum(running_usd)
        others = {"channel": self._server_usd(now), "store": self.store_usd}
        items = {"functions": functions, **{name: usd for name, usd in others.items() if usd}}
        return {"total": sum(items.values()), **items}

    def committed_usd(self, now: float, more_s: float) -> float:
        """What was spent, and what every running function may still spend: its lease, and so long before it begins."""
        alike = self._alike.items()
        running_usd = (self._price_usd(each, now + each.lease_s + more_s) * count for each, count in alike)
        return self._past_usd(now) + sum(running_usd) + self._server_usd(now + more_s) + self.store_usd

    def price_usd(self, seconds: float, memory_mib: int) -> float:
        """What one function more would cost, if it lived so long."""
        return self._price_usd(_Running(0.0, memory_mib), seconds)

    def price_usd_per_s(self, memory_mib: int) -> float:
        """What a function of this size costs a second."""
        return self.catalog.function.usd_per_s(memory_mib)

    def _past_usd(self, now: float) -> float:
        """Of all that this session does not run: orphans count with their leases, as nobody hears of their ends."""
        orphans_usd = sum(self._price_usd(orphan, now + orphan.lease_s) for orphan in self._orphans.values())
        return self.earlier_usd + orphans_usd + self._closed_usd

    def _server_usd(self, now: float) -> float:
        if self._server is None:
            return 0.0
        server, since = self._server
        return server.usd(now - since)

    def _opened(self, handle: str, running: _Running) -> None:
        """Functions that are alike are priced once: there may be thousands, and limits are looked at all the time."""
        self._open[handle] = running
        self._alike[running] += 1

    def _close(self, running: _Running, ended: float) -> None:
        self._closed_s += ended - running.since
        self._closed_usd += self._price_usd(running, ended)

    def _price_usd(self, running: _Running, now: float) -> float:
        price = self.catalog.function
        return price.usd(price.use(now - running.since, running.memory_mib, requests=running.requests))
