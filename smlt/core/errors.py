"""The family of errors a user can meet: what went wrong, where, and how to mend it.

Foreign exceptions are translated into these at the wall where they enter; nothing here imports anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar


class SmltError(Exception):
    """Root of every error smlt raises on purpose.

    Args:
        message: what is wrong and where, in one line.
        hint: how to mend it; empty where nothing can be said.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[type[SmltError], tuple[str, str]]:
        return type(self), (self.message, self.hint)


@dataclass(frozen=True)
class Problem:
    """One mistake in a configuration: which key, where it was set, what is wrong, how to mend it."""

    key: str
    origin: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        where = f"{self.origin}: {self.key}" if self.origin else self.key
        return f"{where}: {self.message}" + (f" ({self.hint})" if self.hint else "")


class ConfigError(SmltError):
    """The job as stated cannot be run; `problems` lists every mistake found, not only the first."""

    exit_code = 2

    def __init__(self, message: str, hint: str = "", problems: Sequence[Problem] = ()) -> None:
        super().__init__(message, hint)
        self.problems = tuple(problems)

    @classmethod
    def of(cls, problems: Sequence[Problem], what: str = "the job's configuration") -> ConfigError:
        """Fold one or more problems, all of them in `what`, into one error."""
        count = "1 mistake" if len(problems) == 1 else f"{len(problems)} mistakes"
        lines = "".join(f"\n  - {problem}" for problem in problems)
        return cls(f"{count} in {what}:{lines}", problems=problems)


class PluginError(ConfigError):
    """A backend, planner or other plugin is unknown, broken, too new, or lacks an extra."""


class TaskError(SmltError):
    """The user's task failed: it raised, has no parameters, or does not fit the job."""


class NonFiniteLoss(TaskError):
    """The loss of a step is NaN or infinite; the step was not applied."""


class OutOfMemory(SmltError):
    """A worker's memory did not suffice."""


class JobFailed(SmltError):
    """A run ended in failure for a reason that is not the task's own."""


class LimitReached(SmltError):
    """A run was stopped by its deadline or its budget; its checkpoint is kept."""

    exit_code = 3


class CloudError(SmltError):
    """A provider refused or failed: credentials, permissions, quota, region, outage."""

    exit_code = 4


class Interrupted(SmltError):
    """The user cancelled the run."""

    exit_code = 130


class StorageError(SmltError):
    """An object store failed in a way that a retry did not mend."""


class AccessDenied(StorageError):
    """The store does not let this user do it."""


class StoreFull(StorageError):
    """The store has no room left."""


class NotFound(StorageError):
    """The object does not exist."""


class AlreadyExists(StorageError):
    """The object exists and was to be created."""


class Conflict(StorageError):
    """The object changed since it was read."""


class CorruptObject(StorageError):
    """The bytes read back are not the bytes that were written."""


class ChannelError(SmltError):
    """A channel failed: unreachable, full, or closed."""


class PeerLost(ChannelError):
    """A value that a peer owes did not arrive in time."""


class ProtocolError(SmltError):
    """Two parts of one run disagree: other schema, other state, other round."""


def nearest(name: str, known: Sequence[str]) -> str:
    """A hint that names the nearest known spelling of `name`, or all of them when none is near."""
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(sorted(known))}" if known else ""
