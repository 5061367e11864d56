"""Making a run, or opening one again: its name, its store and its record."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from smlt._version import __version__
from smlt.core import checkpoint, layout, wire
from smlt.core.backend import Backend, RunPlace
from smlt.core.errors import AlreadyExists, CloudError, ConfigError, StorageError
from smlt.core.job import JobSpec
from smlt.core.messages import RunRecord
from smlt.core.parcel import TaskParcel
from smlt.core.patient_store import PatientStore
from smlt.core.plugins import Registry
from smlt.core.runlog import RunView, view_of
from smlt.core.sessions import last_session
from smlt.core.storage import ObjectStore, StoreSpec

OPENING_S = 2.0
"""Who has just asked for a run is told after so long that its store cannot be reached."""


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
        goes_on: whether it was there already, and is to be gone on with even where it is finished.
        before: what earlier sessions of the run came to.
        raised_mib: what they had to raise the memory of its functions to; 0 where it has sufficed.
    """

    name: str
    spec: JobSpec
    backend: Backend[Any]
    place: RunPlace
    store: ObjectStore
    parcel: TaskParcel
    goes_on: bool = False
    before: RunView = field(default_factory=RunView)
    raised_mib: int = 0

    @property
    def stays_spent(self) -> bool:
        """Whether its budget has stopped it before and is no larger now: what is left of it pays for no more steps."""
        given, before = self.spec.limits.budget, self.before.budget_usd
        return self.before.stop_reason == "budget" and given is not None and before is not None and given <= before


def open_run(
    spec: JobSpec,
    backend: Backend[Any],
    parcel: TaskParcel,
    runs_dir: Path,
    registry: Registry,
    now: float,
    *,
    goes_on: bool = False,
) -> OpenRun:
    """Make a run, or go on with the unfinished one of the same name; where it `goes_on`, with a finished one too.

    Args:
        spec: the job.
        backend: where it runs.
        parcel: its task.
        runs_dir: where runs are kept.
        registry: opens the store.
        now: seconds since the Unix epoch.

    Raises:
        ConfigError: the run of this name is finished, or another job's; the folder for runs cannot be written.
        CloudError: the run's store cannot be written.
    """
    if goes_on:
        place = RunPlace(spec.job.name or "", runs_dir, parcel.preload, requirements=spec.job.requirements)
        store = registry.open_store(backend.object_store(place))
        _remember(backend.object_store(place), place, registry)
        return _first_opened(OpenRun(place.run, spec, backend, place, store, parcel, goes_on=True))
    stem = spec.job.name or _generated_name(parcel.label, now)
    name, number = stem, 1
    while True:
        place = RunPlace(name, runs_dir, parcel.preload, requirements=spec.job.requirements)
        kept_in = backend.object_store(place)
        store = registry.open_store(kept_in)
        record = RunRecord(name, parcel.label, backend.name, __version__, now, spec.to_plain())
        try:
            PatientStore(store, patience_s=OPENING_S).put_if_absent(layout.RECORD, wire.pack(record))
        except AlreadyExists:
            if spec.job.name:
                _remember(kept_in, place, registry)
                return _first_opened(OpenRun(name, spec, backend, place, store, parcel))
            number += 1
            name = f"{stem}-{number}"
            continue
        except StorageError as error:
            if not _is_here(kept_in):
                raise CloudError(f"a run cannot be kept in {kept_in.url}: {error.message}", error.hint) from error
            raise ConfigError(f"a run cannot be kept in {runs_dir}: {error.message}", error.hint) from error
        _remember(kept_in, place, registry)
        return OpenRun(name, spec, backend, place, store, parcel)


def _is_here(store: StoreSpec) -> bool:
    return store.url.startswith("file:")


def _remember(store: StoreSpec, place: RunPlace, registry: Registry) -> None:
    """Of a run that is kept elsewhere, the folder for runs says where.

    Raises:
        ConfigError: the folder cannot be written.
    """
    if _is_here(store):
        return
    try:
        folder = registry.open_store(StoreSpec("file", (place.runs_dir.absolute() / place.run).as_uri()))
        folder.put(layout.POINTER, wire.pack(store))
    except StorageError as error:
        raise ConfigError(f"{place.runs_dir} cannot be written: {error.message}", error.hint) from error


def _first_opened(run: OpenRun) -> OpenRun:
    """The run as it is, whose store may answer at the second try."""
    opened = _open_again(replace(run, store=PatientStore(run.store, patience_s=OPENING_S)))
    return replace(opened, store=run.store)


def as_taken(run: OpenRun) -> OpenRun:
    """The run as it is now that its control record is taken: who drove it before may have come to an end meanwhile.

    Raises:
        ConfigError: it is finished.
    """
    return _open_again(run)


def _open_again(run: OpenRun) -> OpenRun:
    record = wire.read(run.store, layout.RECORD, RunRecord)
    if record.task != run.parcel.label:
        raise ConfigError(
            f"run {run.name!r} trains {record.task}, not {run.parcel.label}", "choose another --name for the new task"
        )
    changed = _changes(JobSpec.from_plain(record.job), run.spec)
    if changed:
        raise ConfigError(
            f"run {run.name!r} was begun with another {', '.join(changed)}: the next steps would not follow",
            "go on with what it began with, or choose another --name",
        )
    view = view_of(run.store)
    if run.goes_on:
        _check_more_to_do(run, record, view.state == "succeeded")
    elif view.state == "succeeded":
        hint = f"smlt resume {run.name} --epochs N goes on for longer; for a new run choose another --name"
        raise ConfigError(f"run {run.name!r} is finished", hint)
    return replace(run, before=view, raised_mib=last_session(run.store, record).memory_for(run.spec))


def _check_more_to_do(run: OpenRun, record: RunRecord, is_finished: bool) -> None:
    """Refuse a goal that lies behind the newest checkpoint; and where the run is finished, one that is reached.

    Raises:
        ConfigError: there is nothing to go on with.
    """
    key, job = checkpoint.latest_manifest(run.store), run.spec.job
    if not key:
        if is_finished:
            wrong = checkpoint.damage(run.store) or "there is none any more"
            raise ConfigError(
                f"run {run.name!r} is finished, and no checkpoint of it can be read whole: {wrong}",
                "put it back from a copy, or begin another run with another --name",
            )
        return
    manifest = checkpoint.read_manifest(run.store, key)
    cursor = manifest.cursor
    if job.steps is not None:
        here, goal, trained, flag = (cursor.step, 0), (job.steps, 0), f"{cursor.step} steps", "--steps"
    else:
        here, goal = (cursor.epoch, cursor.consumed), (job.epoch_limit or 1, 0)
        trained, flag = f"{cursor.epoch} epochs", "--epochs"
    if is_finished and manifest.goal and job.target == last_session(run.store, record).job.job.target:
        hint = "to go on, give it another one: --set job.target.at_least=…"
        raise ConfigError(f"run {run.name!r} is finished: it reached its target at step {cursor.step}", hint)
    if here > goal or (here == goal and is_finished):
        what = "is finished" if is_finished else "cannot go back"
        raise ConfigError(f"run {run.name!r} {what}: it has trained {trained}", f"give more in all: {flag} N")


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
