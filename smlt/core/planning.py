"""From a job and a backend to the plan that is printed and submitted: asks the planner, launches nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smlt.core.backend import Backend, RunPlace
from smlt.core.job import JobSpec
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
        sync=Sync(channel=channel),
        deadline_s=spec.limits.deadline,
        budget_usd=spec.limits.budget,
    )
    return registry.planner(spec.planner.name).propose(request)
