"""Room in one stretch of memory, given out and taken back; only numbers, no memory, enter here."""

from __future__ import annotations

from bisect import bisect_left, insort

from smlt.core.storage import ALLOCATION_ALIGNMENT as ALIGNMENT


def aligned(size_bytes: int) -> int:
    """The size rounded up to the alignment; at least one alignment, so that no two blocks begin at one place."""
    return max(ALIGNMENT, -(-size_bytes // ALIGNMENT) * ALIGNMENT)


class Arena:
    """Blocks in [0, size): the smallest free extent that fits is used, and freed neighbours become one again.

    Sizes that come back every step find the very extents they left, so a steady state splits and merges nothing anew.
    """

    def __init__(self, size_bytes: int) -> None:
        self._starts: dict[int, int] = {}
        self._ends: dict[int, int] = {}
        self._by_size: list[tuple[int, int]] = []
        self._taken: dict[int, int] = {}
        self._add(0, size_bytes // ALIGNMENT * ALIGNMENT)

    @property
    def largest_bytes(self) -> int:
        """The largest block that can be had now."""
        return self._by_size[-1][0] if self._by_size else 0

    def allocate(self, size_bytes: int) -> int | None:
        """The offset of a block of so many bytes, or None where there is no room for it."""
        wanted = aligned(size_bytes)
        at = bisect_left(self._by_size, (wanted, 0))
        if at == len(self._by_size):
            return None
        size, start = self._by_size[at]
        self._remove(start, size)
        self._add(start + wanted, size - wanted)
        self._taken[start] = wanted
        return start

    def free(self, offset: int) -> None:
        """Take back the block at this offset."""
        start, size = offset, self._taken.pop(offset)
        before = self._ends.get(start)
        if before is not None:
            length = self._starts[before]
            self._remove(before, length)
            start, size = before, size + length
        behind = self._starts.get(start + size)
        if behind is not None:
            self._remove(start + size, behind)
            size += behind
        self._add(start, size)

    def _add(self, start: int, size: int) -> None:
        if size:
            self._starts[start] = size
            self._ends[start + size] = start
            insort(self._by_size, (size, start))

    def _remove(self, start: int, size: int) -> None:
        del self._starts[start]
        del self._ends[start + size]
        del self._by_size[bisect_left(self._by_size, (size, start))]
