"""How a task travels to its workers: as files in the run's store, or as a pickled class in the function's payload."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import cloudpickle

from smlt.core.bundle import MAX_BUNDLE_BYTES, find_task, frameworks_of, pack_bundle
from smlt.core.errors import ConfigError
from smlt.core.job import JobSpec
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


def make_parcel(spec: JobSpec, folder: Path, task_class: type | None) -> TaskParcel:
    """Find the task and pack what travels.

    Args:
        spec: names the task's file and what to include.
        folder: where the file is looked up.
        task_class: a class given in Python instead of a file.

    Raises:
        ConfigError: the task is not to be found, or cannot travel.
    """
    return _parcel_class(task_class) if task_class else _parcel_files(spec, folder)


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
