"""Runs that this machine knows: the folders of a runs folder, each an object store with the log of a run, or a word
of where that is.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from smlt.core import layout, wire
from smlt.core.errors import ConfigError, NotFound, ProtocolError, StorageError, nearest
from smlt.core.messages import Control, RunRecord
from smlt.core.plugins import Registry
from smlt.core.runlog import RunView, read_events
from smlt.core.storage import ObjectStore, StoreSpec
from smlt.core.summary import Summary
from smlt.core.units import format_duration

SILENT_S = 10.0
"""A controller logs something every second; after so long without, it is perhaps no more."""


@dataclass(frozen=True)
class FoundRun:
    """A run as its store tells it now.

    Attributes:
        record: what the run is.
        store: its objects.
        view: from its log.
        last_event: Unix time of the last thing it logged.
        summary: its result; None unless it is over.
        state: for people: the view's state, with a doubt where it is not finished and nobody seems to drive it.
    """

    record: RunRecord
    store: ObjectStore
    view: RunView
    last_event: float
    summary: Summary | None
    state: str

    @property
    def over(self) -> bool:
        """Whether the run has come to an end, for now."""
        return self.view.ended > 0


def all_runs(registry: Registry, runs_dir: Path, clock: Callable[[], float] = time.time) -> list[FoundRun]:
    """Every run in a folder, the latest first; what is no run is passed over, what cannot be read is named."""
    found = []
    for folder in sorted(runs_dir.iterdir()) if runs_dir.is_dir() else []:
        try:
            run = _open(registry, folder, clock) if folder.is_dir() else None
        except (StorageError, ProtocolError) as error:
            print(f"note: {folder} cannot be read: {error.message}", file=sys.stderr)
            continue
        if run:
            found.append(run)
    return sorted(found, key=lambda run: run.view.started or run.record.created, reverse=True)


def find_run(registry: Registry, runs_dir: Path, name: str | None, clock: Callable[[], float] = time.time) -> FoundRun:
    """The run of this name, or the latest one.

    Raises:
        ConfigError: there is none.
    """
    if name is not None:
        run = _open(registry, runs_dir / name, clock) if _is_plain(name) and (runs_dir / name).is_dir() else None
        if run:
            return run
    runs = all_runs(registry, runs_dir, clock)
    if not runs:
        raise ConfigError(f"there are no runs in {runs_dir}", "`smlt train` makes one; --runs-dir says where runs are")
    if name is not None:
        raise ConfigError(f"no run is called {name!r} in {runs_dir}", nearest(name, [run.record.name for run in runs]))
    return runs[0]


def _is_plain(name: str) -> bool:
    return name not in ("", ".", "..") and "/" not in name


def _open(registry: Registry, folder: Path, clock: Callable[[], float]) -> FoundRun | None:
    store = registry.open_store(StoreSpec("file", folder.absolute().as_uri()))
    with suppress(NotFound):  # the run is kept here
        store = registry.open_store(wire.unpack(store.get(layout.POINTER), StoreSpec))
    try:
        record = wire.read(store, layout.RECORD, RunRecord)
    except NotFound:
        return None
    view, last = RunView(), record.created
    for _, event in read_events(store):
        view, last = view.after(event), event.time
    summary = _summary(store) if view.ended else None
    return FoundRun(record, store, view, last, summary, _state(store, view, last, clock()))


def _summary(store: ObjectStore) -> Summary | None:
    try:
        return Summary.from_json(store.get(layout.SUMMARY))
    except (NotFound, ValueError, TypeError):  # it says nothing that the log does not
        return None


def _state(store: ObjectStore, view: RunView, last: float, now: float) -> str:
    if view.ended:
        return view.state
    try:
        closed = wire.read(store, layout.CONTROL, Control).closed
    except NotFound:
        closed = False
    if closed:
        return "interrupted"
    if now - last > SILENT_S:
        return f"interrupted? ({view.state}, but no news for {format_duration(now - last)})"
    return view.state
