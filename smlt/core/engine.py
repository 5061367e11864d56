"""A run from the request to the summary: open it, plan it, drive it, conclude it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from smlt._version import __version__
from smlt.core import layout
from smlt.core.conclusion import conclude
from smlt.core.control import ControlDesk
from smlt.core.driver import Driver, Interrupts
from smlt.core.job import JobSpec
from smlt.core.ledger import Ledger
from smlt.core.planner import Plan, PlanRequest, Sync
from smlt.core.plugins import Registry
from smlt.core.runlog import RunEvent, RunLog
from smlt.core.runs import OpenRun, open_run
from smlt.core.storage import ChannelSpec
from smlt.core.summary import Summary

__all__ = ["Interrupts", "RunRequest", "run"]


@dataclass(frozen=True)
class RunRequest:
    """What `run` is asked for.

    Attributes:
        spec: the job.
        runs_dir: where runs are kept, absolute.
        folder: where the task's file is looked up.
        task_class: a class given in Python instead of a file.
    """

    spec: JobSpec
    runs_dir: Path
    folder: Path
    task_class: type | None = None


def run(
    request: RunRequest,
    registry: Registry,
    *,
    listener: Callable[[RunEvent], None] | None = None,
    interrupts: Interrupts | None = None,
) -> Summary:
    """Train a job to its end and say what came of it.

    Args:
        request: the job and where it is kept.
        registry: the installed plugins.
        listener: is told every event of the run as it happens, in this thread.
        interrupts: cancels the run.

    Returns:
        The summary, whatever the outcome of a run that has begun.

    Raises:
        ConfigError, PluginError, TaskError: the job as stated cannot be begun; nothing was started.
        StorageError, CloudError: the run's store or the backend cannot be used.
    """
    began = time.monotonic()
    opened = open_run(request.spec, request.runs_dir, request.folder, request.task_class, registry, time.time())
    desk = ControlDesk.take(opened.store, opened.name)
    log = RunLog(opened.store, time.time, listener)
    backend = opened.backend
    ledger = Ledger(backend.catalog, opened.before.spent_usd, opened.before.function_s)
    try:
        if opened.parcel.bundle:  # only now: the workers of a controller before may have been reading the old one
            opened.store.put(layout.CODE, opened.parcel.bundle)
        log.append("created", _description(opened))
        plan, channel = _plan(opened, registry, log)
        place = replace(opened.place, threads=backend.threads_for(plan.allocation.workers))
        launcher = backend.launcher(place)
        try:
            finish = Driver(opened, place, plan, channel, desk, launcher, log, ledger).drive(interrupts or Interrupts())
        finally:
            launcher.close()
        # Before the record is closed: who takes the run next reads here how it ended.
        return conclude(opened, log, finish, plan, ledger, time.monotonic() - began)
    finally:
        desk.change(closed=True)
        backend.clean(opened.place)


def _description(opened: OpenRun) -> dict[str, object]:
    spec = opened.spec
    return {
        "run": opened.name,
        "backend": opened.backend.name,
        "task": opened.parcel.label,
        "epochs": spec.job.epoch_limit,
        "deadline_s": spec.limits.deadline,
        "budget_usd": spec.limits.budget,
        "bundle_bytes": len(opened.parcel.bundle),
        "smlt": __version__,
        "job": spec.to_plain(),
    }


def _plan(opened: OpenRun, registry: Registry, log: RunLog) -> tuple[Plan, ChannelSpec]:
    """Ask the planner for an allocation, and find the channel it uses."""
    spec, backend = opened.spec, opened.backend
    channel_name, channel = backend.channel(spec.sync.channel, opened.place)
    count = None if spec.workers.count == "auto" else spec.workers.count
    smallest_batch = min(phase.size for phase in spec.job.batch_phases)
    request = PlanRequest(
        workers=count,
        # Who asks for a number outright has said more than the cap for "auto".
        max_workers=min(count or spec.workers.max, backend.limits.max_workers, smallest_batch),
        memory_mib=None if spec.workers.memory == "auto" else spec.workers.memory,
        memory_choices_mib=backend.limits.memory_choices_mib,
        vcpus_at_hand=backend.limits.vcpus_at_hand,
        global_batch=smallest_batch,
        sync=Sync(channel=channel_name),
        deadline_s=spec.limits.deadline,
        budget_usd=spec.limits.budget,
    )
    plan = registry.planner(spec.planner.name).propose(request)
    log.append(
        "planned",
        {
            "allocation": asdict(plan.allocation),
            "reason": plan.reason,
            "planner": spec.planner.name,
            "threads": backend.threads_for(plan.allocation.workers),
        },
    )
    return plan, channel
