"""The end of a session: the last event, the event log as JSON lines, and the summary."""

from __future__ import annotations

import statistics
from dataclasses import asdict, replace
from itertools import pairwise
from urllib.parse import urlsplit
from urllib.request import url2pathname

from smlt.core import best, layout, strict_json
from smlt.core.ledger import Ledger
from smlt.core.planner import Plan
from smlt.core.planning import planner_name
from smlt.core.run_events import Finish
from smlt.core.runlog import RunEvent, RunLog, RunView, read_events
from smlt.core.runs import OpenRun
from smlt.core.storage import StoreSpec
from smlt.core.summary import Summary


def conclude(run: OpenRun, log: RunLog, finish: Finish, plan: Plan, ledger: Ledger, wall_s: float) -> Summary:
    """Write what is left to write, and say what the run came to, all its sessions together.

    `finished` is written last, so that who reads it in the log finds the summary.
    """
    now = run.place.clock.monotonic()
    cost = ledger.items_usd(now)
    has_model = finish.status == "succeeded" and not run.backend.is_simulated
    model_path = _path_of(run.backend.object_store(run.place), layout.MODEL) if has_model else ""
    log.append("spent", {"usd": cost["total"], "function_s": ledger.function_s(now)})
    log.flush()
    if idle := _idle_faults(run):
        log.append("chaos_idle", {"rules": idle})
    ended = {"status": finish.status, "stop_reason": finish.stop_reason, "model_path": model_path}
    events = [*(event for _, event in read_events(run.store)), log.append("finished", ended)]
    run.store.put(layout.EVENTS, "".join(event.to_json() + "\n" for event in events).encode())
    found = best.publish(run.store, run.spec.job, events)
    summary = replace(
        _summary(run, finish, plan, events),
        best={**found, "model_path": _path_of(run.backend.object_store(run.place), layout.BEST_MODEL)} if found else {},
        cost_usd=cost,
        wall_seconds=_earlier_s(events) + wall_s,
        catalog_sha256=ledger.catalog.sha256,
        model_path=model_path,
    )
    run.store.put(layout.CATALOG, strict_json.dumps(ledger.catalog.to_plain(), indent=2).encode())
    run.store.put(layout.SUMMARY, summary.to_json().encode())
    log.flush()
    return summary


def _idle_faults(run: OpenRun) -> list[str]:
    """Rules of chaos that have not taken effect in any session."""
    if not run.backend.faults:
        return []
    struck = {int(info.key.split("/")[1]) for info in run.store.list(layout.CHAOS)}
    return [str(fault) for number, fault in enumerate(run.backend.faults) if number not in struck]


def _earlier_s(events: list[RunEvent]) -> float:
    """Seconds of all sessions before this one; those of a controller that was killed, up to its last word."""
    starts = [number for number, event in enumerate(events) if event.kind == "created"]
    return sum(events[after - 1].time - events[start].time for start, after in pairwise(starts))


def _summary(run: OpenRun, finish: Finish, plan: Plan, events: list[RunEvent]) -> Summary:
    view = RunView()
    seconds: list[float] = []
    for event in events:
        view = view.after(event)
        if event.kind == "steps":
            seconds += [item["seconds"] for item in event.data["items"]]
    metrics = dict(view.metrics)
    if view.loss is not None:
        metrics = {"loss": view.loss, **metrics}
    return Summary(
        run=run.name,
        status=finish.status,
        stop_reason=finish.stop_reason,
        backend=run.backend.name,
        steps=view.step,
        epochs=view.epoch + 1 if view.step else 0,
        metrics=metrics,
        step_seconds_p50=statistics.median(seconds) if seconds else 0.0,
        generations=view.generation,
        handovers=view.handovers,
        rank_handovers=view.rank_handovers,
        replacements=view.replacements,
        recovered_fast=view.recovered_fast,
        handover_stall_seconds=view.handover_stalls_s,
        probes=view.probes,
        rank_handover_stall_seconds=view.rank_handover_stalls_s,
        allocation={**asdict(plan.allocation), "workers": view.workers_wanted, "memory_mib": view.memory_mib},
        planner=planner_name(run.spec, run.backend),
        weights_sha256=finish.left.weights_sha256 if finish.left else "",
        state_sha256=finish.left.state_sha256 if finish.left else "",
        error=vars(finish.failure) if finish.failure else {},
    )


def _path_of(store: StoreSpec, key: str) -> str:
    """Where an object is, as a user can open it: a path for local files, a URL otherwise."""
    parts = urlsplit(store.url)
    return url2pathname(parts.path) + "/" + key if parts.scheme == "file" else f"{store.url}/{key}"
