"""Making a run, or opening one again: its name, its store and its record."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smlt._version import __version__
from smlt.core import layout, wire
from smlt.core.backend import Backend, RunPlace
from smlt.core.errors import AlreadyExists, ConfigError, NotFound, StorageError
from smlt.core.job import JobSpec
from smlt.core.messages import RunRecord
from smlt.core.parcel import TaskParcel
from smlt.core.plugins import Registry
from smlt.core.runlog import RunView, view_of
from smlt.core.storage import ObjectStore
from smlt.core.summary import Summary


@dataclass(frozen=True)
class OpenRun:
    """A run that is about to be driven.

    Attributes:
        name: of the run.
        spec: the job.
        backend: where it runs.
        place: for the backend.
        store: the run's objects.
        parcel: the task.
        before: what earlier sessions of the run came to.
        earlier: the summary of the last one, if it came to one.
    """

    name: str
    spec: JobSpec
    backend: Backend[Any]
    place: RunPlace
    store: ObjectStore
    parcel: TaskParcel
    before: RunView = field(default_factory=RunView)
    earlier: Summary | None = None


def open_run(
    spec: JobSpec, backend: Backend[Any], parcel: TaskParcel, runs_dir: Path, registry: Registry, now: float
) -> OpenRun:
    """Make a run, or go on with the unfinished one of the same name.

    Args:
        spec: the job.
        backend: where it runs.
        parcel: its task.
        runs_dir: where runs are kept.
        registry: opens the store.
        now: seconds since the Unix epoch.

    Raises:
        ConfigError: the run of this name is finished, or another job's; the run's store cannot be written.
    """
    stem = spec.job.name or _generated_name(parcel.label, now)
    name, number = stem, 1
    while True:
        place = RunPlace(name, runs_dir, parcel.preload)
        store = registry.open_store(backend.object_store(place))
        record = RunRecord(name, parcel.label, backend.name, __version__, now, spec.to_plain())
        try:
            store.put_if_absent(layout.RECORD, wire.pack(record))
        except AlreadyExists:
            if spec.job.name:
                return _open_again(spec, backend, place, store, parcel)
            number += 1
            name = f"{stem}-{number}"
            continue
        except StorageError as error:
            raise ConfigError(f"a run cannot be kept in {runs_dir}: {error.message}", error.hint) from error
        return OpenRun(name, spec, backend, place, store, parcel)


def _open_again(
    spec: JobSpec, backend: Backend[Any], place: RunPlace, store: ObjectStore, parcel: TaskParcel
) -> OpenRun:
    record = wire.unpack(store.get(layout.RECORD), RunRecord)
    if record.task != parcel.label:
        raise ConfigError(
            f"run {record.name!r} trains {record.task}, not {parcel.label}", "choose another --name for the new task"
        )
    view = view_of(store)
    if view.state == "succeeded":
        raise ConfigError(
            f"run {record.name!r} is finished", f"choose another --name; its result: smlt status {record.name}"
        )
    changed = _changes(JobSpec.from_plain(record.job), spec)
    if changed:
        raise ConfigError(
            f"run {record.name!r} was begun with another {', '.join(changed)}",
            "go on with what it began with, or choose another --name",
        )
    try:
        earlier = Summary.from_json(store.get(layout.SUMMARY))
    except NotFound:
        earlier = None
    return OpenRun(record.name, spec, backend, place, store, parcel, view, earlier)


def _changes(before: JobSpec, now: JobSpec) -> list[str]:
    """What would continue another sequence of batches, or a state of another kind.

    What the task does with batches may have been mended, and so may rates and codecs.
    """
    keys = ("global_batch", "seed")
    changed = [f"[job].{key}" for key in keys if getattr(before.job, key) != getattr(now.job, key)]
    if before.sync.chosen_mode != now.sync.chosen_mode:
        return [*changed, "[sync].mode"]
    return changed if before.sync.fragments == now.sync.fragments else [*changed, "[sync].fragments"]


def _generated_name(label: str, now: float) -> str:
    word = re.sub(r"[^a-z0-9]+", "-", label.rpartition(":")[2].rpartition(".")[2].lower()).strip("-") or "run"
    return f"{word}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}"
