"""How a task travels to its workers: as files in the run's store, or as a pickled class in the function's payload."""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

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


def make_parcel(spec: JobSpec, folder: Path, runs_dir: Path, task_class: type | None) -> TaskParcel:
    """Find the task and pack what travels.

    Args:
        spec: names the task's file and what to include.
        folder: where the file is looked up.
        runs_dir: where runs are kept; does not travel.
        task_class: a class given in Python instead of a file.

    Raises:
        ConfigError: the task is not to be found, or cannot travel.
    """
    return _parcel_class(task_class) if task_class else _parcel_files(spec, folder, runs_dir)


def _parcel_files(spec: JobSpec, folder: Path, runs_dir: Path) -> TaskParcel:
    source = find_task(spec.job.task, folder)
    return TaskParcel(
        label=spec.job.task,
        preload=frameworks_of(source),
        bundle=pack_bundle(source, spec.job.include, runs_dir),
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
        with _by_value(task_class):
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


@contextmanager
def _by_value(task_class: type) -> Iterator[None]:
    """While entered, a class from the user's own module is pickled whole: workers would not find the module."""
    module = sys.modules.get(task_class.__module__.partition(".")[0])
    known = {"__main__", "smlt", *cloudpickle.list_registry_pickle_by_value()}
    if module is None or module.__name__ in known or _is_installed(module):
        yield
        return
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _is_installed(module: ModuleType) -> bool:
    places = [module.__file__] if module.__file__ else list(getattr(module, "__path__", []))
    roots = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
    return any(Path(place).is_relative_to(root) for place in places for root in roots)
