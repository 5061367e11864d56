"""States of a run, and how it ends: what is said of it, and which words of its workers mean what. No behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from smlt.core.messages import Failure

GO_ON = "the last checkpoint is kept: run the same command with the same --name to go on"
"""The hint where a run failed for no fault of the task's."""
BEGIN_AGAIN = "no checkpoint was written yet: run the same command with the same --name to begin again"
"""The same where there is nothing to go on from."""

LIMITS = ("deadline", "budget")
"""Reasons to stop that are the user's limits."""

AGREED = ("goal", "target", "ended")
"""Last words of ranks that have come to an end together, with all that there was to save."""

PASSING = (
    "StorageError", "NotFound", "AlreadyExists", "Conflict", "CorruptObject", "ChannelError", "PeerLost", "CloudError",
)  # fmt: skip
"""Errors that say nothing against the task: who failed with one is replaced."""

UNREADABLE = ("NotFound", "CorruptObject")
"""Errors of a rank that may mean that the newest checkpoint is none."""

OUT_OF_MEMORY = "OutOfMemory"
"""The error of a rank whose memory did not suffice: it is launched again with more, where there is more."""


class State(Enum):
    """Where the run is."""

    PLANNING = "planning"
    STARTING = "starting"
    RUNNING = "running"
    HANDING_OVER = "handing_over"
    RECOVERING = "recovering"
    STOPPING = "stopping"
    OVER = "over"


@dataclass
class Ending:
    """Why the run is being stopped, and what will be said of it; `at_once`: without an agreed step."""

    status: str
    reason: str
    failure: Failure | None = None
    since: float = 0.0
    at_once: bool = False


def go_on(resume_from: str) -> str:
    """The hint for a run that failed for no fault of the task's."""
    return GO_ON if resume_from else BEGIN_AGAIN
