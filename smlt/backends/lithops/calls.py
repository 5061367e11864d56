"""What a call on a cloud and its host say to each other: a few small objects in the run's store, under the call's name.

Lithops knows when a call has returned. It does not know a call that is lost with its sandbox, and cannot end one.
"""

from __future__ import annotations

from dataclasses import dataclass

from smlt.core import wire
from smlt.core.backend import Phase
from smlt.core.errors import NotFound
from smlt.core.storage import ObjectStore


@dataclass(frozen=True)
class CallState:
    """Where a call is, by its own word.

    Attributes:
        phase: of `smlt.core.backend.Phase`: running, ended or lost.
        detail: of a lost one, how it ended.
        out_of_memory: whether it needed more than it had.
        pid: of the process that is the rank, in the sandbox.
    """

    phase: str
    detail: str = ""
    out_of_memory: bool = False
    pid: int = 0

    @property
    def is_over(self) -> bool:
        """Whether the rank's process is gone."""
        return self.phase != Phase.RUNNING.value


class CallBoard:
    """The objects of one launcher's calls.

    Args:
        store: of the run.
        folder: of this launcher's calls in it.
    """

    def __init__(self, store: ObjectStore, folder: str) -> None:
        self._store, self._folder = store, folder

    def say(self, name: str, state: CallState) -> None:
        """A call says where it is."""
        self._store.put(f"{self._folder}/{name}/state", wire.pack(state))

    def state(self, name: str) -> CallState | None:
        """What a call said last; None before its first word."""
        try:
            return wire.unpack(self._store.get(f"{self._folder}/{name}/state"), CallState)
        except NotFound:
            return None

    def stop(self, name: str) -> None:
        """Tell a call to end, now or as it starts."""
        self._store.put(f"{self._folder}/{name}/stop", b"")

    def is_to_stop(self, name: str) -> bool:
        """Whether a call was told to end."""
        return self._store.exists(f"{self._folder}/{name}/stop")

    def clear(self) -> None:
        """Remove what is there."""
        for info in list(self._store.list(f"{self._folder}/")):
            self._store.delete(info.key)
