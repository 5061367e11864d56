"""Whether an error says that memory did not suffice, whoever raised it: Python, numpy, a framework's own allocator."""

from __future__ import annotations

KINDS = ("OutOfMemoryError", "ResourceExhaustedError")
"""Names of errors that mean nothing else: of a device, of a graph."""

WORDS = ("allocate memory", "not enough memory", "bad_alloc")
"""In the message of another error: of a framework's allocator, of the system (ENOMEM), of C++."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether memory did not suffice; of an error that was translated, what it was at first counts too."""
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ in KINDS:
            return True
        if isinstance(error, RuntimeError | OSError) and any(word in str(error) for word in WORDS):
            return True
        error = error.__cause__
    return False
