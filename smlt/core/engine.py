"""A run from the request to the summary: open it, plan it, drive it, conclude it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from smlt._version import __version__
from smlt.core import checkpoint, layout
from smlt.core.adaptation import Adaptation
from smlt.core.catalog import Catalog
from smlt.core.conclusion import conclude
from smlt.core.control import RENEW_S, ControlDesk
from smlt.core.driver import FLUSH_S, Driver, Interrupts
from smlt.core.errors import SmltError
from smlt.core.job import JobSpec
from smlt.core.ledger import Ledger
from smlt.core.messages import Failure
from smlt.core.orphans import orphans
from smlt.core.parcel import TaskParcel, make_parcel
from smlt.core.patient_store import PatientStore
from smlt.core.planner import Plan
from smlt.core.planning import adaptation_for, plan_job, planner_name, profile_for, profile_of
from smlt.core.plugins import Registry
from smlt.core.price_settings import catalog_in_force
from smlt.core.profile import Profile
from smlt.core.run_events import Finish
from smlt.core.runlog import RunEvent, RunLog, read_events
from smlt.core.runs import OpenRun, as_taken, open_run
from smlt.core.summary import Summary
from smlt.core.task import TaskShape
from smlt.core.versions import versions

__all__ = ["Interrupts", "RunRequest", "planned", "run"]


@dataclass(frozen=True)
class RunRequest:
    """What `run` is asked for.

    Attributes:
        spec: the job.
        runs_dir: where runs are kept, absolute.
        folder: where the task's file is looked up.
        task_class: a class given in Python instead of a file.
        goes_on: the run of this name must be there; if it is finished, the job must ask for more of it.
        kept: the task as the run's store has it, instead of the files in `folder`.
        plan: what is submitted; None for `planned` to ask the planner.
        profile: of the task, where it was taken already.
    """

    spec: JobSpec
    runs_dir: Path
    folder: Path
    task_class: type | None = None
    goes_on: bool = False
    kept: TaskParcel | None = None
    plan: Plan | None = None
    profile: Profile | None = None


def planned(request: RunRequest, registry: Registry) -> RunRequest:
    """The request with the plan that `run` submits, and with the profile that it rests on.

    Where the planner predicts, or the backend is simulated, and no profile is given, the task is built to see.

    Raises:
        ConfigError: what is asked for cannot be had; nothing was started.
    """
    spec, profile = request.spec, request.profile
    backend = registry.backend(spec.backend.name, spec.backend.options)
    if backend.is_simulated or (not request.plan and registry.planner(planner_name(spec, backend)).needs_scene):
        parcel = request.kept or make_parcel(spec, request.folder, request.runs_dir, request.task_class)
        profile = profile_for(spec, backend, parcel, registry, profile)
    plan = request.plan or plan_job(spec, backend, request.runs_dir, registry, profile)
    return replace(request, plan=plan, profile=profile)


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
    spec = request.spec
    backend = registry.backend(spec.backend.name, spec.backend.options)
    clock = backend.clock()
    began = clock.monotonic()
    parcel = request.kept or make_parcel(spec, request.folder, request.runs_dir, request.task_class)
    request = planned(request, registry)
    plan = request.plan
    assert plan is not None  # of a request that is planned
    prices = catalog_in_force(backend.catalog, spec.prices)
    opened = open_run(spec, backend, parcel, request.runs_dir, registry, clock.time(), goes_on=request.goes_on)
    opened = replace(opened, place=replace(opened.place, clock=clock, profile=request.profile))
    # Between two tries not so long that its record looks as if nobody drove the run.
    opened = replace(opened, store=PatientStore(opened.store, longest_s=RENEW_S))
    with ControlDesk.take(opened.store, opened.name) as desk:
        opened = as_taken(opened)
        if opened.before.state == "succeeded":
            checkpoint.reopen(opened.store)
        plan = _with_memory(plan, opened.raised_mib)
        log = RunLog(opened.store, clock.time, listener)
        ledger = _ledger(opened, prices)
        error: SmltError | None = None
        try:
            log.append("created", _description(opened, request))
            log.append("planned", _account(opened, plan))
            try:
                finish = _train(opened, plan, desk, log, ledger, interrupts or Interrupts(), registry)
                desk.change()  # raises where another controller has taken over: it concludes the run
            except SmltError as reason:
                if desk.is_succeeded:
                    raise
                error, finish = reason, _failed(reason)
                log.append("failed", vars(finish.failure))
            # Before the record is closed: who takes the run next reads here how it ended.
            summary = conclude(opened, log, finish, plan, ledger, clock.monotonic() - began)
        finally:
            if not desk.is_succeeded:
                desk.change()  # raises where another controller needs what would be cleaned away
                backend.clean(opened.place)
    if error is not None:
        raise error
    return summary


def _train(
    opened: OpenRun,
    plan: Plan,
    desk: ControlDesk,
    log: RunLog,
    ledger: Ledger,
    interrupts: Interrupts,
    registry: Registry,
) -> Finish:
    backend, spec, runs_dir = opened.backend, opened.spec, opened.place.runs_dir

    def adaptation(shape: TaskShape, build_s: float) -> Adaptation | None:
        profile = opened.place.profile or profile_of(spec, shape, build_s)
        return adaptation_for(spec, backend, runs_dir, registry, profile)

    if opened.parcel.bundle:  # only now: the workers of a controller before may have been reading the old one
        opened.store.put(layout.CODE, opened.parcel.bundle)
    allocation = plan.allocation
    threads = backend.threads_for(allocation.workers)
    place = replace(opened.place, threads=threads, memory_mib=allocation.memory_mib)
    name, channel = backend.channel(allocation.sync.channel, opened.place)
    with backend.serving(name, place):
        launcher = backend.launcher(place)
        try:
            return Driver(opened, place, plan, channel, desk, launcher, log, ledger, adaptation).drive(interrupts)
        finally:
            launcher.close()


def _ledger(opened: OpenRun, prices: Catalog) -> Ledger:
    """With what earlier sessions have spent, and their functions after them."""
    ledger = Ledger(prices, opened.before.spent_usd, opened.before.function_s)
    clock = opened.place.clock
    now, unix_now = clock.monotonic(), clock.time()
    for orphan in orphans(event for _, event in read_events(opened.store)):
        unpaid_s = unix_now - orphan.since
        if unpaid_s > FLUSH_S + orphan.lease_s:  # it is over: its controller fell silent before it had to write again
            unpaid_s = FLUSH_S
        ledger.orphaned(orphan.address.label, now - unpaid_s, orphan.memory_mib, orphan.lease_s, orphan.requests)
    return ledger


def _with_memory(plan: Plan, raised_mib: int) -> Plan:
    """The plan, with no less memory than the run is known to need."""
    allocation = plan.allocation
    return replace(plan, allocation=replace(allocation, memory_mib=max(allocation.memory_mib, raised_mib)))


def _failed(error: SmltError) -> Finish:
    """The end of a run that the engine itself could not drive."""
    kind = type(error).__name__
    return Finish("failed", kind, failure=Failure(kind, error.message, error.hint, ""))


def _description(opened: OpenRun, request: RunRequest) -> dict[str, object]:
    spec, parcel = opened.spec, opened.parcel
    key = checkpoint.latest_manifest(opened.store) if opened.before.run else ""
    return {
        "run": opened.name,
        "backend": opened.backend.name,
        "task": parcel.label,
        "epochs": spec.job.epoch_limit,
        "deadline_s": spec.limits.deadline,
        "budget_usd": spec.limits.budget,
        "bundle_bytes": len(parcel.bundle),
        "goes_on": bool(opened.before.run),
        "goes_on_at": layout.step_of(key) if key else None,
        "newest_checkpoint": opened.before.checkpoint_step,
        "folder": str(request.folder),
        "kept_code": request.kept is not None,
        "code": {
            "sha256": parcel.sha256,
            "module": parcel.module,
            "class_name": parcel.class_name,
            "preload": list(parcel.preload),
        },
        "smlt": __version__,
        "versions": versions(),
        "job": spec.to_plain(),
    }


def _account(opened: OpenRun, plan: Plan) -> dict[str, object]:
    return {
        "allocation": asdict(plan.allocation),
        "reason": plan.reason,
        "planner": planner_name(opened.spec, opened.backend),
        "forecast": asdict(plan.forecast) if plan.forecast else None,
        "threads": opened.backend.threads_for(plan.allocation.workers),
    }
