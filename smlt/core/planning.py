"""From a job and a backend to the plan that is printed and submitted: asks the planner, launches nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smlt.core.backend import Backend, RunPlace
from smlt.core.job import JobSpec, SyncSection
from smlt.core.planner import Plan, PlanRequest, Sync
from smlt.core.plugins import Registry


def plan_job(spec: JobSpec, backend: Backend[Any], runs_dir: Path, registry: Registry) -> Plan:
    """The planner's answer for a job.

    Raises:
        ConfigError: what is asked for cannot be had here.
    """
    channel, _ = backend.channel(spec.sync.channel, RunPlace(spec.job.name or "unnamed", runs_dir))
    count = None if spec.workers.count == "auto" else spec.workers.count
    smallest_batch = min(phase.size for phase in spec.job.batch_phases)
    request = PlanRequest(
        workers=count,
        max_workers=min(count or spec.workers.max, backend.limits.max_workers, smallest_batch),
        memory_mib=None if spec.workers.memory == "auto" else spec.workers.memory,
        memory_choices_mib=backend.limits.memory_choices_mib,
        vcpus_at_hand=backend.limits.vcpus_at_hand,
        global_batch=smallest_batch,
        sync=_sync(spec.sync, channel),
        deadline_s=spec.limits.deadline,
        budget_usd=spec.limits.budget,
    )
    return registry.planner(spec.planner.name).propose(request)


def _sync(section: SyncSection, channel: str) -> Sync:
    """What the job asks for; `auto` is exact, as nothing else may be chosen for a user who did not say so."""
    codec = "fp32" if section.codec == "auto" else section.codec
    if section.mode != "local_sgd":
        return Sync(codec=codec, channel=channel)
    return Sync(
        mode=section.mode,
        codec=codec,
        channel=channel,
        period=section.period,
        fragments=section.fragments,
        outer_learning_rate=section.outer_learning_rate,
        outer_momentum=section.outer_momentum,
    )
