"""A sweep: one job on several fleets, each several times, measured. What is done is what the runs' own logs say.

Runs of one repeat come before those of the next, in an order of its own, so that whatever changes while the sweep goes
on (the load of a machine, the time of day) falls on all fleets alike.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from smlt.core import layout
from smlt.core.backend import RunPlace
from smlt.core.engine import Interrupts, RunRequest, run
from smlt.core.errors import ConfigError, NotFound
from smlt.core.plugins import Registry
from smlt.core.runlog import RunEvent, read_events
from smlt.core.storage import ObjectStore
from smlt.core.summary import Summary

OVER = ("succeeded", "stopped")
"""Statuses of a run that is not taken again; what failed or was cancelled is, under another name."""

MOST_TRIES = 1000


@dataclass(frozen=True)
class Cell:
    """A fleet that is measured.

    Attributes:
        request: the job on it, without a name.
        settings: in which it differs from the others, by column.
    """

    request: RunRequest
    settings: Mapping[str, Any]

    @property
    def label(self) -> str:
        """The start of its runs' names."""
        return "-".join(
            f"{name[0]}{value}" if name != "backend" else str(value) for name, value in self.settings.items()
        )


@dataclass(frozen=True)
class Measured:
    """One run of a sweep that is over.

    Attributes:
        cell: its fleet.
        repeat: which, from 0.
        name: of the run.
        summary: its result.
        events: its log.
    """

    cell: Cell
    repeat: int
    name: str
    summary: Summary
    events: tuple[RunEvent, ...]


@dataclass(frozen=True)
class Sweep:
    """Cells, and how often each is measured."""

    cells: tuple[Cell, ...]
    repeats: int
    registry: Registry

    def order(self) -> Iterator[tuple[Cell, int]]:
        """All that is to be measured: repeat by repeat, within each in an order of its own."""
        for repeat in range(self.repeats):
            cells = list(self.cells)
            random.Random(repeat).shuffle(cells)
            yield from ((cell, repeat) for cell in cells)

    def measured(self) -> list[Measured]:
        """What is over by now, in the order of `order`."""
        found = ((cell, repeat, self._last(cell, repeat)[1]) for cell, repeat in self.order())
        return [each for cell, repeat, name in found if name and (each := self._read(cell, repeat, name))]

    def go_on(
        self,
        tell: Callable[[Cell, int, Summary], None],
        interrupts: Interrupts | None = None,
    ) -> None:
        """Measure what is not over yet.

        A run that was broken off is begun anew under another name: what it took would not be one measurement.

        Args:
            tell: is called after every run.
            interrupts: cancels the run that is under way; the sweep ends with it.

        Raises:
            ConfigError, PluginError, TaskError, StorageError, CloudError: as `smlt.core.engine.run`.
        """
        interrupts = interrupts or Interrupts()
        for cell, repeat in self.order():
            number, done = self._last(cell, repeat)
            if done:
                continue
            name = _name(cell, repeat, number)
            job = cell.request.spec.job.model_copy(update={"name": name})
            request = replace(cell.request, spec=cell.request.spec.model_copy(update={"job": job}))
            summary = run(request, self.registry, interrupts=interrupts)
            tell(cell, repeat, summary)
            if summary.status == "cancelled":
                return

    def _last(self, cell: Cell, repeat: int) -> tuple[int, str]:
        """The number of the next try of a run, and the name of the one that is over, if one is."""
        for number in range(MOST_TRIES):
            name = _name(cell, repeat, number)
            store = self._store(cell, name)
            if not store.exists(layout.RECORD):
                return number, ""
            summary = _summary(store)
            if summary is not None and summary.status in OVER:
                return number, name
        raise ConfigError(f"{MOST_TRIES} runs of {cell.label} have failed", "choose another --name")

    def _read(self, cell: Cell, repeat: int, name: str) -> Measured | None:
        store = self._store(cell, name)
        summary = _summary(store)
        if summary is None:
            return None
        return Measured(cell, repeat, name, summary, tuple(event for _, event in read_events(store)))

    def _store(self, cell: Cell, name: str) -> ObjectStore:
        spec = cell.request.spec
        backend = self.registry.backend(spec.backend.name, spec.backend.options)
        return self.registry.open_store(backend.object_store(RunPlace(name, cell.request.runs_dir)))


def _name(cell: Cell, repeat: int, number: int) -> str:
    again = f"-again{number}" if number else ""
    return f"{cell.label}-r{repeat}{again}"


def _summary(store: ObjectStore) -> Summary | None:
    try:
        return Summary.from_json(store.get(layout.SUMMARY))
    except NotFound:
        return None
