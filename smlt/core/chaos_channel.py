"""A channel with places between its requests at which a rule of chaos may take effect; otherwise the one inside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt

from smlt.core.chaos import FaultPoints
from smlt.core.storage import Buffer, Channel, ChannelKey, ChannelStats

_OF_THE_ROUND = ("hello", "whole", "eval", "private", "bye")
"""Pieces that belong to no sum: what ranks tell each other."""


class ChaosChannel(Channel):
    """Reaches "sending" after each put of a contribution, "reducing" after each of a sum, "serving" within a state.

    Args:
        inner: does all the work; closed with this one.
        faults: whose points these are.
        step: the step in hand, whatever a key calls it.
    """

    def __init__(self, inner: Channel, faults: FaultPoints, step: Callable[[], int]) -> None:
        super().__init__()
        self.capabilities = inner.capabilities
        self._inner, self._faults, self._step = inner, faults, step

    def stats(self) -> ChannelStats:
        """Of the one inside."""
        return self._inner.stats()

    def _do_put(self, key: ChannelKey, parts: Sequence[Buffer], readers: int | None) -> None:
        self._inner.put(key, parts, readers=readers)
        if key.piece.startswith("state"):
            self._faults.reach("serving", self._step())
        elif key.piece.partition(".")[0] not in _OF_THE_ROUND:
            self._faults.reach("reducing" if "sum" in key.piece else "sending", self._step())

    def _do_reduce_into(
        self, key: ChannelKey, header: bytes, buffer: npt.NDArray[Any], ranks: int, patience: Callable[[], None]
    ) -> list[bytes]:
        found = self._inner.reduce_into(key, header, buffer, ranks=ranks, patience=patience)
        self._faults.reach("sending", self._step())
        return found

    def _do_reserve(self, size_bytes: int) -> None:
        self._inner.reserve(size_bytes)

    def _do_allocate(self, size_bytes: int) -> memoryview:
        return self._inner.allocate(size_bytes)

    def _do_get_into(self, key: ChannelKey, out: memoryview, timeout_s: float, offset: int) -> int:
        return self._inner.get_into(key, out, timeout_s=timeout_s, offset=offset)

    def _do_get(self, key: ChannelKey, timeout_s: float) -> bytes:
        return self._inner.get(key, timeout_s=timeout_s)

    def _do_view(self, key: ChannelKey, timeout_s: float, offset: int, length: int | None) -> memoryview | None:
        return self._inner.view(key, timeout_s=timeout_s, offset=offset, length=length)

    def _do_expect(self, keys: Sequence[ChannelKey]) -> None:
        self._inner.expect(keys)

    def _do_expect_ranges(self, reads: Sequence[tuple[ChannelKey, int, int]]) -> None:
        self._inner.expect([key for key, _, _ in reads], [(offset, length) for _, offset, length in reads])

    def _do_discard(self, key: ChannelKey) -> None:
        self._inner.discard(key)

    def _do_close(self) -> None:
        self._inner.close()
