"""From a job and a backend to the plan that is printed and submitted: asks the planner, launches nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from smlt.core.adaptation import Adaptation
from smlt.core.backend import Backend, RunPlace
from smlt.core.errors import ConfigError
from smlt.core.forecast import Objective
from smlt.core.job import JobSpec
from smlt.core.parcel import TaskParcel
from smlt.core.planner import Plan, PlanRequest, Survey, Sync
from smlt.core.plugins import Registry
from smlt.core.price_settings import catalog_in_force
from smlt.core.profile import SCHEMA_VERSION, Profile, settings_of
from smlt.core.profiling import take_profile
from smlt.core.sampler import Schedule
from smlt.core.scene import Scene
from smlt.core.sync.names import EXACT, LOCAL_SGD
from smlt.core.task import TaskShape

GUARD_USD = 5.0
"""Budget on a cloud where the user has set none."""


@dataclass(frozen=True)
class Planned:
    """A survey, and what it was made of.

    Attributes:
        survey: what the planner considered.
        request: what it was asked.
        planner: its name.
    """

    survey: Survey
    request: PlanRequest
    planner: str


def planner_name(spec: JobSpec, backend: Backend[Any]) -> str:
    """Who plans: the one that is named; else the default planner on a cloud whose channels' speed is known.

    On this machine, and where nothing can be predicted, it is the rule of thumb.
    """
    if spec.planner.name != "auto":
        return spec.planner.name
    return "optuna" if backend.limits.vcpus_at_hand is None and backend.channel_offers() else "fixed"


def plan_job(
    spec: JobSpec, backend: Backend[Any], runs_dir: Path, registry: Registry, profile: Profile | None = None
) -> Plan:
    """The planner's answer for a job.

    Args:
        spec: the job.
        backend: where it would run.
        runs_dir: where runs are kept.
        registry: has the planner.
        profile: the task's; a planner that predicts cannot do without.

    Raises:
        ConfigError: what is asked for cannot be had here.
    """
    request = plan_request(spec, backend, runs_dir, profile)
    plan = registry.planner(planner_name(spec, backend)).propose(request)
    _check_codec(plan)
    return plan


def survey_job(spec: JobSpec, backend: Backend[Any], runs_dir: Path, registry: Registry, profile: Profile) -> Planned:
    """All that the planner considers for a job; its `chosen` is what `plan_job` returns.

    Raises:
        ConfigError: the request contradicts itself.
    """
    name, request = planner_name(spec, backend), plan_request(spec, backend, runs_dir, profile)
    survey = registry.planner(name).survey(request)
    if survey.chosen is not None:
        _check_codec(survey.chosen)
    return Planned(survey, request, name)


def adaptation_for(
    spec: JobSpec, backend: Backend[Any], runs_dir: Path, registry: Registry, profile: Profile
) -> Adaptation | None:
    """What plans a run's fleet anew while it trains; None where nothing of the fleet is left open.

    On this machine, where fleets share what there is, only a limit is a reason to change one; and where the rule of
    thumb has chosen the first fleet, the model takes it from there.
    """
    is_local = backend.limits.vcpus_at_hand is not None
    is_open = spec.workers.count == "auto" or (spec.workers.memory == "auto" and not is_local)
    has_limit = spec.limits.deadline is not None or spec.limits.budget is not None
    if not is_open or (is_local and not has_limit) or spec.planner.name == "fixed" or not backend.channel_offers():
        return None
    if not is_local and not profile.built_mib:  # how much memory a worker needs is not known
        return None
    name = planner_name(spec, backend)
    name = "analytic" if name == "fixed" else name
    request = plan_request(spec, backend, runs_dir, profile)
    return Adaptation(lambda: registry.planner(name), request, spec.job.batch_phases)


def profile_of(spec: JobSpec, shape: TaskShape, build_s: float) -> Profile:
    """What a worker that is READY says of its task, where nobody has taken its profile before."""
    weights = sum(region.size_bytes for region in shape.regions)
    return Profile(
        SCHEMA_VERSION, spec.job.task, settings_of(spec), "", "", shape.examples, shape.parameters, shape.regions,
        state_bytes=3 * weights, build_s=build_s, built_mib=0.0,
    )  # fmt: skip


def profile_for(
    spec: JobSpec, backend: Backend[Any], parcel: TaskParcel, registry: Registry, file: Profile | None = None
) -> Profile:
    """The task's profile: the one that is given if it fits the job; else the task is built, and no step taken.

    Raises:
        ConfigError: the profile is another task's.
        TaskError: the task cannot be built.
    """
    if file is not None:
        file.check_fits(spec)
        return file
    return take_profile(spec, parcel, registry, cores=1, steps=False, today=date.today())


def plan_request(spec: JobSpec, backend: Backend[Any], runs_dir: Path, profile: Profile | None) -> PlanRequest:
    """What a planner is asked for a job.

    Raises:
        ConfigError: the job has no such channel, or does not fit its data.
    """
    channel, _ = backend.channel(spec.sync.channel, RunPlace(spec.job.name or "unnamed", runs_dir))
    count = None if spec.workers.count == "auto" else spec.workers.count
    smallest_batch = min(phase.size for phase in spec.job.batch_phases)
    limits = spec.limits
    is_cloud = backend.limits.vcpus_at_hand is None
    return PlanRequest(
        workers=count,
        max_workers=min(count or spec.workers.max, backend.limits.max_workers, smallest_batch),
        memory_mib=None if spec.workers.memory == "auto" else spec.workers.memory,
        memory_choices_mib=backend.limits.memory_choices_mib,
        vcpus_at_hand=backend.limits.vcpus_at_hand,
        global_batch=smallest_batch,
        sync=_sync(spec, channel),
        deadline_s=limits.deadline,
        budget_usd=GUARD_USD if is_cloud and limits.budget is None and not backend.is_simulated else limits.budget,
        objective=_objective(spec),
        scene=_scene(spec, backend, profile) if profile else None,
    )


def _objective(spec: JobSpec) -> Objective:
    """Deadline alone: cheapest; budget alone: fastest; both: as asked, or cheapest; neither: the knee."""
    if spec.planner.prefer != "auto":
        return spec.planner.prefer
    if spec.limits.deadline is not None:
        return "cheapest"
    return "fastest" if spec.limits.budget is not None else "knee"


def _scene(spec: JobSpec, backend: Backend[Any], profile: Profile) -> Scene:
    offers = backend.channel_offers()
    chosen = tuple(offer for offer in offers if spec.sync.channel in ("auto", offer.name))
    if not chosen:
        raise ConfigError(
            f"backend {backend.name!r} says nothing of the speed of its channels, which a prediction needs",
            'set [planner].name = "fixed"',
        )
    catalog = catalog_in_force(backend.catalog, spec.prices)
    return Scene(
        profile=profile,
        is_profiled_here=backend.limits.vcpus_at_hand is not None,
        steps=Schedule.of(spec.job, profile.examples).total_steps,
        catalog=catalog,
        functions=catalog.default_function or next(iter(catalog.functions), ""),
        channels=chosen if backend.limits.vcpus_at_hand is None else chosen[:1],
        time_limit_s=backend.limits.function_time_limit_s,
        micro_batch=spec.train.micro_batch,
    )


def _check_codec(plan: Plan) -> None:
    codec = plan.allocation.sync.codec
    if plan.allocation.workers == 1 and codec != EXACT:
        raise ConfigError(
            f"[sync].codec = {codec!r} does nothing with 1 worker ({plan.reason}): nothing travels",
            "leave the codec out, or set [workers].count to 2 or more",
        )


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
