"""What a collective asks of a channel in one step: the figures that a planner prices, and that `stats()` confirms."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SyncCost:
    """One rank's share of one sum.

    Attributes:
        requests: by the channel's verb: put, get, reduce.
        bytes_up, bytes_down: payload, headers included.
        phases: requests that wait for one another, one after the other, whatever the bytes.
    """

    requests: dict[str, int]
    bytes_up: int
    bytes_down: int
    phases: int

    def seconds(self, latency_s: float, bandwidth_mb_s: float) -> float:
        """Time over a full-duplex link, where phases wait and bytes do not: the larger way, and the waiting."""
        return self.phases * latency_s + max(self.bytes_up, self.bytes_down) / (bandwidth_mb_s * 1e6)
