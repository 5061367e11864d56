"""From a RankSpec to a task that can be built: the class, its context, and the data that were prepared once a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import cloudpickle

from smlt.core import checkpoint, layout
from smlt.core.backend import RankSpec
from smlt.core.bundle import LOOSE_PACKAGE, checked_task, import_task, unpack_bundle
from smlt.core.errors import SmltError, TaskError
from smlt.core.job import JobSpec
from smlt.core.storage import ObjectStore
from smlt.core.task import Array, TaskContext, TrainingTask, UserTask

WAIT_FOR_DATA_S = 0.1


def make_task(spec: RankSpec, job: JobSpec, store: ObjectStore) -> TrainingTask:
    """Import the user's class, make one of it and give it its context.

    Raises:
        TaskError: the class does not import, or its constructor fails.
    """
    found, folder = _task_class(spec, store)
    try:
        user = found()
    except Exception as error:
        raise TaskError(
            f"{found.__name__}() raised {type(error).__name__}: {error}", "a task is made without arguments"
        ) from error
    user.context = TaskContext(
        params=job.job.params,
        seed=job.job.seed,
        rank=spec.rank,
        world_size=spec.world_size,
        folder=folder,
        micro_batch=job.train.micro_batch,
        clip_norm=job.train.clip_norm,
        precision=job.train.precision,
        threads=spec.threads,
        secrets=job.job.secrets,
    )
    return user.adapt()


def _task_class(spec: RankSpec, store: ObjectStore) -> tuple[type[UserTask], Path]:
    if spec.task_payload:
        try:
            return checked_task(cloudpickle.loads(spec.task_payload)), Path(spec.scratch)
        except SmltError:
            raise
        except Exception as error:
            raise TaskError(
                f"the task's class does not load in the worker: {type(error).__name__}: {error}",
                "put it into a file and name it as file.py:Class",
            ) from error
    base = unpack_bundle(store.get_verified(layout.CODE, spec.bundle_sha256), Path(spec.scratch))
    found = import_task(base, spec.task_module, spec.task_class)
    return found, _folder_of(base, spec.task_module)


def _folder_of(base: Path, module: str) -> Path:
    """The folder beside the task's file, where `self.path` looks."""
    if module.startswith(LOOSE_PACKAGE + "."):
        return base
    folder = base.joinpath(*module.split("."))
    return folder if (folder / "__init__.py").is_file() else folder.parent


def prepared_data(
    task: TrainingTask, spec: RankSpec, store: ObjectStore, check: Callable[[], None]
) -> Mapping[str, Array]:
    """What the task's `prepare_data` made: by rank 0 once a run, from the object store ever after.

    Args:
        check: called while another rank's data are waited for; raises to give up.
    """
    while not store.exists(layout.PREPARED):
        if spec.rank == 0:
            checkpoint.write_arrays(store, layout.PREPARED, task.prepare() or {})
        else:
            check()
            time.sleep(WAIT_FOR_DATA_S)
    return checkpoint.read_arrays(store, layout.PREPARED)
