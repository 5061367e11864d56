"""What exchanging costs: an object store by what ranks ask of it, a server by the time that it is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from smlt.core.ledger import Ledger
from smlt.core.scene import ChannelOffer


class ExchangeBill:
    """Tells a ledger what one session's exchanges cost; nothing where the price list says nothing of the channel.

    Args:
        ledger: of the run.
        offer: the channel, as the price list knows it.
    """

    def __init__(self, ledger: Ledger, offer: ChannelOffer | None) -> None:
        self._ledger = ledger
        self._store = ledger.catalog.stores.get(offer.entry) if offer and offer.table == "stores" else None
        self._server = ledger.catalog.servers.get(offer.entry) if offer and offer.table == "servers" else None

    def begin(self, workers: int, now: float) -> None:
        """The first of these many functions are about to be launched; who is alone needs no server."""
        if self._server is not None and workers > 1:
            self._ledger.serves(self._server, now)

    def steps(self, items: Sequence[Mapping[str, Any]], workers: int) -> None:
        """Steps of rank 0, as `smlt.core.messages.StepRecord` has them; the other ranks ask about as much each."""
        if self._store is None:
            return
        puts, requests, up, down = (
            workers * sum(item[key] for item in items) for key in ("puts", "requests", "sent_bytes", "received_bytes")
        )
        self._ledger.exchanged(self._store, puts=puts, gets=requests - puts, bytes_up=up, bytes_down=down)
