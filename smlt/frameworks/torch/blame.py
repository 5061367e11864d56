"""An exception from a hook of a TorchTask as a TaskError, with what can be done about messages of torch's own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from smlt.core.task import UserTask
from smlt.frameworks.blame import OUT_OF_MEMORY, Account, blaming, frames_of

HINTS = {
    "allocate memory": OUT_OF_MEMORY,
    "more than 1 value per channel": "batch norm needs more rows in a forward pass: larger global batches or "
    "micro-batches, fewer workers, or a sampler that leaves out the short rest of an epoch",
}
"""What can be done, by a part of the message."""


def blame(
    task: UserTask, hook: str, doing: str | Callable[[], str] | None = None, hint: str = ""
) -> AbstractContextManager[None]:
    """Translate what a hook raises; see `smlt.frameworks.blame.blaming`."""
    return blaming(task, hook, doing, hint, _account_of)


def _account_of(error: Exception) -> Account:
    known = [mend for part, mend in HINTS.items() if part in str(error)]
    return Account(type(error).__name__, str(error), frames_of(error), known[0] if known else "")
