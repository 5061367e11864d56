"""The local backend with one fork server for many runs: its functions are warm from the first run on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import ClassVar

from smlt.backends.local.backend import LocalBackend
from smlt.backends.process_launcher import ProcessLauncher
from smlt.core.backend import FunctionState, Launcher, Phase, RankSpec, RunPlace
from smlt.core.plugins import Entry, Registry, load_registry
from smlt.testing.backend import eventually


class LentLauncher(Launcher):
    """What one run has of a launcher that is there for several; leaves nothing of the run running."""

    def __init__(self, shared: Launcher) -> None:
        self._shared = shared
        self._mine: list[str] = []

    def _do_launch(self, spec: RankSpec) -> str:
        self._mine.append(self._shared.launch(spec))
        return self._mine[-1]

    def _do_poll(self, handles: Sequence[str]) -> Mapping[str, FunctionState]:
        return self._shared.poll(handles)

    def _do_stop(self, handle: str) -> None:
        self._shared.stop(handle)

    def _do_logs(self, handle: str) -> str:
        return self._shared.logs(handle)

    def _do_close(self) -> None:
        for handle in self._mine:
            self._shared.stop(handle)


class UnstoppableLauncher(LentLauncher):
    """No function is ended: it returns, or is there as long as the run is."""

    def _do_stop(self, handle: str) -> None:
        """As on a platform that has no such request."""

    def _do_close(self) -> None:
        def all_ended() -> bool:
            return all(state.phase is Phase.ENDED for state in self._shared.poll(self._mine).values())

        eventually(all_ended, 10.0, "all functions have returned")


class WarmBackend(LocalBackend):
    """Its functions are forks of `shared`'s server."""

    shared: ClassVar[Launcher]

    def launcher(self, place: RunPlace) -> Launcher:
        return LentLauncher(self.shared)


class UnstoppableBackend(WarmBackend):
    """What was replaced is still there."""

    def launcher(self, place: RunPlace) -> Launcher:
        return UnstoppableLauncher(self.shared)


@contextmanager
def warm_registry(folder: Path) -> Iterator[Registry]:
    """A registry whose local backend is warm while this is entered; `folder` takes what functions print."""
    with closing(ProcessLauncher(RunPlace("functions", folder, ("torch",), threads=1))) as shared:
        WarmBackend.shared = shared
        registry = load_registry()
        registry.entries["backends"]["local"] = Entry(f"{__name__}:WarmBackend")
        yield registry
