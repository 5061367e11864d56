"""How much memory the functions of a run get: more after a size did not suffice, where there is more. Starts none."""

from __future__ import annotations

from dataclasses import replace

from smlt.core.messages import Failure
from smlt.core.run_events import Terms
from smlt.core.units import format_bytes

LEAST_GROWTH = 1.5
"""The next size has at least so many times as much, if there is such a one: each try costs a start and a step."""

SHARED_HINT = "let fewer examples into a forward pass ([train].micro_batch), or run fewer workers here (--workers)"
LARGEST_HINT = (
    "let fewer examples into a forward pass ([train].micro_batch), use more workers (--workers), "
    "or a backend with larger functions (--backend)"
)


class MemorySize:
    """The size of whatever is launched next.

    Args:
        terms: the first one, and what is on offer.

    Attributes:
        mib: of each function.
    """

    def __init__(self, terms: Terms) -> None:
        self._choices_mib = terms.memory_choices_mib
        self.mib = terms.memory_mib

    @property
    def larger_mib(self) -> int | None:
        """The next larger size on offer; None where there is none."""
        larger = [size for size in self._choices_mib if size > self.mib]
        much_larger = [size for size in larger if size >= LEAST_GROWTH * self.mib]
        return min(much_larger) if much_larger else max(larger, default=None)

    def grow(self) -> bool:
        """Take the next larger size; false where there is none."""
        larger_mib = self.larger_mib
        self.mib = larger_mib or self.mib
        return larger_mib is not None

    def too_small(self, rank: int, had_mib: int, failure: Failure) -> Failure:
        """What is told of a rank that failed for want of memory, where there is no more to be had."""
        if self._choices_mib:
            had, hint = f"it had {format_bytes(had_mib * 2**20)}, and there is no larger size here", LARGEST_HINT
        else:
            had, hint = "all workers share the memory of this machine", SHARED_HINT
        return replace(failure, message=f"rank {rank} ran out of memory: {failure.message}; {had}", hint=hint)
