"""What the last session of a run was told: its job, where its task's files were, and what of them is kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smlt.core import layout
from smlt.core.errors import ConfigError, CorruptObject, NotFound
from smlt.core.job import JobSpec
from smlt.core.messages import RunRecord
from smlt.core.parcel import TaskParcel
from smlt.core.runlog import read_events
from smlt.core.storage import ObjectStore


@dataclass(frozen=True)
class Session:
    """A session, that is one controller's time with a run.

    Attributes:
        job: what it trained, with the number of workers that it was scaled to last.
        folder: where the task's file was looked up; None where an older smlt did not say it, or nobody yet.
        code: what of the task is kept: `sha256` of the bundle (empty for a class given in Python), `module`,
            `class_name`, `preload`; empty where nothing was said.
        raised_mib: what its functions' memory was raised to, then or in sessions before that were told the same; 0 for
            not.
    """

    job: JobSpec
    folder: Path | None
    code: dict[str, Any]
    raised_mib: int = 0

    def memory_for(self, job: JobSpec) -> int:
        """What a session needs that is to train `job`; 0 where nothing is known, or it asks for another size."""
        return self.raised_mib if _memory_asked(job.to_plain()) == _memory_asked(self.job.to_plain()) else 0


def last_session(store: ObjectStore, record: RunRecord) -> Session:
    """The last one of a run; what the run was made with where it had none."""
    job: dict[str, Any] = record.job
    folder: Path | None = None
    code: dict[str, Any] = {}
    raised_mib = 0
    for _, event in read_events(store):
        if event.kind == "created":
            before, job, code = job, event.data.get("job", job), event.data.get("code", {})
            raised_mib = raised_mib if _memory_asked(before) == _memory_asked(job) else 0
            folder = Path(event.data["folder"]) if "folder" in event.data else None
        elif event.kind == "scale":
            workers = {**job["workers"], "count": event.data["workers"]}
            job = {**job, "workers": {**workers, "max": max(workers["max"], workers["count"])}}
        elif event.kind == "memory_raised":
            raised_mib = event.data["memory_mib"]
    return Session(JobSpec.from_plain(job), folder, code, raised_mib)


def _memory_asked(job: dict[str, Any]) -> tuple[Any, Any]:
    """What a job as plain data says of memory, and where."""
    return job["workers"]["memory"], job["backend"]


def kept_parcel(store: ObjectStore, record: RunRecord, session: Session) -> TaskParcel:
    """The task as the run's store has it.

    Raises:
        ConfigError: it does not have it, or not whole.
    """
    code = session.code
    if not code.get("sha256"):
        raise ConfigError(
            f"run {record.name!r} trains {record.task}, a class given in Python, of which no code is kept",
            f"give it again: smlt.resume({record.name!r}, task=…)",
        )
    try:
        bundle = store.get_verified(layout.CODE, code["sha256"])
    except (NotFound, CorruptObject) as error:
        raise ConfigError(
            f"the task's files that run {record.name!r} kept cannot be read whole: {error.message}",
            f"go on with it in the folder that it was started in: {session.folder}",
        ) from error
    return TaskParcel(record.task, tuple(code["preload"]), bundle, code["module"], code["class_name"])
