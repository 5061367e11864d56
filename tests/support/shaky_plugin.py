"""A plugin as a third party would write one: the local backend, on an object store of which one request in ten fails.

Not only the engine uses it but every function, which finds it as any plugin is found.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import pytest

from smlt.backends.local.backend import LocalBackend
from smlt.backends.object_store import FileObjectStore
from smlt.core.backend import RunPlace
from smlt.core.plugins import Entry, hookimpl
from smlt.core.storage import StoreSpec
from tests.support.faulty_store import FaultyStore

RATE = 0.1
api_version = (1, 0)


@hookimpl
def smlt_backends() -> Mapping[str, Entry]:
    """The backend."""
    return {"shaky": Entry(f"{__name__}:ShakyBackend")}


@hookimpl
def smlt_stores() -> Mapping[str, Entry]:
    """The store."""
    return {"shaky": Entry(f"{__name__}:ShakyStore")}


class ShakyBackend(LocalBackend):
    """Runs are kept where one request in ten fails."""

    def object_store(self, place: RunPlace) -> StoreSpec:
        return replace(super().object_store(place), kind="shaky")


class ShakyStore(FaultyStore):
    """A folder; what happens to its requests is drawn from the process's number and how many stores it has opened."""

    opened = 0

    def __init__(self, spec: StoreSpec) -> None:
        ShakyStore.opened += 1
        super().__init__(FileObjectStore(spec), Random(f"{os.getpid()} {ShakyStore.opened}"), RATE)
        self._notes = notes_of(Path(urlsplit(spec.url).path).parent)
        self._notes.mkdir(parents=True, exist_ok=True)

    def note(self, kind: str) -> None:
        with (self._notes / f"{os.getpid()}.txt").open("a") as notes:
            notes.write(f"{kind}\n")


def notes_of(runs_dir: Path) -> Path:
    """The folder in which each process notes, beside the runs, how its store has failed."""
    return runs_dir.with_name("failures")


def noted(runs_dir: Path) -> dict[int, Counter[str]]:
    """How often what happened, by process."""
    return {int(path.stem): Counter(path.read_text().splitlines()) for path in notes_of(runs_dir).iterdir()}


@contextmanager
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plugin can be found, here and by every process that is started meanwhile."""
    about = folder / "shaky-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: shaky\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[smlt]\nshaky = {__name__}\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(Path(__file__).parents[2])]))
    with monkeypatch.context() as here:
        here.syspath_prepend(folder)
        yield
