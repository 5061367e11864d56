"""From a job and a backend to the plan that is printed and submitted: asks the planner, launches nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smlt.core.backend import Backend, RunPlace
from smlt.core.errors import ConfigError
from smlt.core.job import JobSpec
from smlt.core.planner import Plan, PlanRequest, Sync
from smlt.core.plugins import Registry
from smlt.core.sync.names import EXACT, LOCAL_SGD


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
        sync=_sync(spec, channel),
        deadline_s=spec.limits.deadline,
        budget_usd=spec.limits.budget,
    )
    plan = registry.planner(spec.planner.name).propose(request)
    codec = plan.allocation.sync.codec
    if plan.allocation.workers == 1 and codec != EXACT:
        raise ConfigError(
            f"[sync].codec = {codec!r} does nothing with 1 worker ({plan.reason}): nothing travels",
            "leave the codec out, or set [workers].count to 2 or more",
        )
    return plan


def _sync(spec: JobSpec, channel: str) -> Sync:
    """What the job asks for."""
    section = spec.sync
    if section.chosen_mode != LOCAL_SGD:
        return Sync(codec=section.chosen_codec, channel=channel, recovery=section.recovery)
    if spec.job.steps is not None and section.period > spec.job.steps:
        raise ConfigError(
            f"[sync].period = {section.period}, but the job ends after [job].steps = {spec.job.steps}",
            "choose a period that goes several times into the job",
        )
    return Sync(
        mode=section.chosen_mode,
        codec=section.chosen_codec,
        channel=channel,
        period=section.period,
        fragments=section.fragments,
        outer_learning_rate=section.outer_learning_rate,
        outer_momentum=section.outer_momentum,
        recovery=section.recovery,
    )
