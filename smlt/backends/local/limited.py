"""A function that has no more memory than it was launched with, as on a cloud; on Linux."""

from __future__ import annotations

import resource
from pathlib import Path

from smlt.core import function
from smlt.core.backend import RankSpec
from smlt.core.units import format_bytes


def work(spec: RankSpec) -> None:
    """As `smlt.core.function.work`; an allocation beyond the limit fails.

    The kernel counts what is private and writable, whether it was touched or not; not the memory that ranks share.

    Raises:
        MemoryError: it is not even enough to begin.
    """
    limit, held = spec.memory_mib << 20, _held_bytes()
    if held >= limit:
        raise MemoryError(f"a function begins with {format_bytes(held)}, and may have {format_bytes(limit)}")
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    function.work(spec)


def _held_bytes() -> int:
    """Of this process, as the limit counts."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[5])
    return pages * resource.getpagesize()
