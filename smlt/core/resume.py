"""From the name of a run, and what is to be changed, to a request: the run's own job goes on, wherever the user is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smlt.core.bundle import task_file
from smlt.core.engine import RunRequest
from smlt.core.errors import ConfigError
from smlt.core.job import JobSpec, Workers
from smlt.core.layers import layers_over
from smlt.core.messages import RunRecord
from smlt.core.plugins import Registry
from smlt.core.sessions import Session, kept_parcel, last_session
from smlt.core.settings import Settings, resolve
from smlt.core.storage import ObjectStore


@dataclass(frozen=True)
class Changes:
    """What of a job is to be changed.

    Attributes:
        flags: values by a name of `smlt.core.layers.SHORTCUTS`; None for one that was not given.
        origin_of: how the origin of a flag is written, from its name.
        keyed, assignments: values by dotted key, and `section.key=value` texts.
        task_class: a class given in Python, instead of what was trained.
    """

    flags: Mapping[str, Any]
    origin_of: Callable[[str], str]
    keyed: Mapping[str, Any] | None = None
    assignments: Sequence[str] = ()
    task_class: type | None = None


@dataclass(frozen=True)
class Resumption:
    """A request to go on with a run.

    Attributes:
        request: for `smlt.core.engine.run`.
        settings: of its job.
    """

    request: RunRequest
    settings: Settings


def resumption(
    store: ObjectStore, record: RunRecord, runs_dir: Path, cwd: Path, changes: Changes, registry: Registry
) -> Resumption:
    """How to go on with a run: by its last job, with these changes.

    In the folder that the run was started in, the task's files there count: what made it fail may have been mended.
    Anywhere else it goes on with the files that it kept.

    Args:
        store: of the run.
        record: what it is.
        runs_dir: where runs are kept, absolute.
        cwd: where the user is.
        changes: of the job.
        registry: the installed plugins.

    Raises:
        ConfigError: a change cannot be made, or the task's code is not to be had.
    """
    session = last_session(store, record)
    folder = session.folder or cwd
    layers = layers_over(
        _settings_of(session.job, record.name),
        f"run {record.name}",
        cwd=cwd,
        folder=folder,
        flags=changes.flags,
        origin_of=changes.origin_of,
        keyed=changes.keyed,
        assignments=changes.assignments,
    )
    settings = resolve(layers, registry)
    _check_same_run(record, session.job, settings.spec)
    is_given = changes.task_class is not None or _is_at_home(record, session, cwd)
    kept = None if is_given else kept_parcel(store, record, session)
    request = RunRequest(settings.spec, runs_dir, folder, changes.task_class, goes_on=True, kept=kept)
    return Resumption(request, settings)


def _settings_of(job: JobSpec, name: str) -> dict[str, Any]:
    """A job as settings: what has no value was not set, and a maximum that nobody had to set is none."""
    plain = job.to_plain()
    settings = {
        section: values if section == "backend" else dict(_set_values(values)) for section, values in plain.items()
    }
    settings["job"]["name"] = name
    default = Workers.model_fields["max"].default
    if job.workers.max == max(default, 0 if job.workers.count == "auto" else job.workers.count):
        del settings["workers"]["max"]
    return settings


def _set_values(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if key == "target" and value is not None:
            yield key, {bound: figure for bound, figure in value.items() if figure is not None}
        elif value is not None:
            yield key, value


def _check_same_run(record: RunRecord, before: JobSpec, now: JobSpec) -> None:
    for key, why in (("task", "another task is another run"), ("name", "a run keeps its name")):
        was, is_now = getattr(before.job, key), getattr(now.job, key)
        if is_now not in (was, record.name):
            raise ConfigError(
                f"[job].{key} of run {record.name!r} cannot become {is_now!r}", f"{why}; begin it with smlt train"
            )


def _is_at_home(record: RunRecord, session: Session, cwd: Path) -> bool:
    """Whether the user is in the folder that the run was started in, and its task's file is still there."""
    if session.folder is None:
        return True
    here = session.folder.resolve() == cwd.resolve()
    return here and task_file(record.task.rpartition(":")[0], cwd).is_file()
