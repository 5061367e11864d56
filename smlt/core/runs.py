"""Making a run, or opening one again: its name, its store, its record, and the task's files."""

from __future__ import annotations

import hashlib
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle

from smlt._version import __version__
from smlt.core import layout, wire
from smlt.core.backend import Backend, RunPlace
from smlt.core.bundle import MAX_BUNDLE_BYTES, find_task, frameworks_of, pack_bundle
from smlt.core.errors import AlreadyExists, ConfigError, NotFound
from smlt.core.job import JobSpec
from smlt.core.messages import RunRecord
from smlt.core.plugins import Registry
from smlt.core.runlog import RunView, view_of
from smlt.core.storage import ObjectStore
from smlt.core.summary import Summary
from smlt.core.task import UserTask


@dataclass(frozen=True)
class TaskParcel:
    """How the task travels to a worker: as files in the store, or as a pickled class in the function's payload.

    Attributes:
        label: what the user called it.
        preload: framework modules it needs.
        bundle: the zip of its files; empty for a class given in Python.
        module, class_name: what to import from the bundle.
        payload: the pickled class; empty for a bundle.
    """

    label: str
    preload: tuple[str, ...]
    bundle: bytes = b""
    module: str = ""
    class_name: str = ""
    payload: bytes = b""

    @property
    def sha256(self) -> str:
        """Digest of the bundle; empty where there is none."""
        return hashlib.sha256(self.bundle).hexdigest() if self.bundle else ""


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
    spec: JobSpec, runs_dir: Path, folder: Path, task_class: type | None, registry: Registry, now: float
) -> OpenRun:
    """Make a run, or go on with the unfinished one of the same name.

    Args:
        spec: the job.
        runs_dir: where runs are kept.
        folder: where the task's file is looked up.
        task_class: a class given in Python instead of a file.
        registry: the installed plugins.
        now: seconds since the Unix epoch.

    Raises:
        ConfigError: the task is not to be found, or the run of this name is finished or another task's.
        StorageError: the run's store cannot be written.
    """
    backend = registry.backend(spec.backend.name, spec.backend.options)
    parcel = _parcel_class(task_class) if task_class else _parcel_files(spec, folder)
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
    try:
        earlier = Summary.from_json(store.get(layout.SUMMARY))
    except NotFound:
        earlier = None
    return OpenRun(record.name, spec, backend, place, store, parcel, view, earlier)


def _parcel_files(spec: JobSpec, folder: Path) -> TaskParcel:
    source = find_task(spec.job.task, folder)
    return TaskParcel(
        label=spec.job.task,
        preload=frameworks_of(source),
        bundle=pack_bundle(source, spec.job.include),
        module=source.module,
        class_name=source.class_name,
    )


def _parcel_class(task_class: type) -> TaskParcel:
    label = f"{task_class.__module__}:{task_class.__qualname__}"
    if not issubclass(task_class, UserTask):
        raise ConfigError(
            f"{label} is not a task",
            "derive it from smlt.frameworks.torch.TorchTask or smlt.frameworks.keras.KerasTask",
        )
    try:
        payload = cloudpickle.dumps(task_class)
    except Exception as error:
        raise ConfigError(
            f"the class {label} cannot be sent to workers: {type(error).__name__}: {error}",
            "what it uses from the notebook must be picklable; or put it into a file and name it as file.py:Class",
        ) from error
    if len(payload) > MAX_BUNDLE_BYTES:
        raise ConfigError(
            f"the class {label} takes {len(payload)} bytes to send", "load its data in train_data instead"
        )
    return TaskParcel(label=label, preload=(task_class.framework,), payload=payload)


def _generated_name(label: str, now: float) -> str:
    word = re.sub(r"[^a-z0-9]+", "-", label.rpartition(":")[2].rpartition(".")[2].lower()).strip("-") or "run"
    return f"{word}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(now))}"
