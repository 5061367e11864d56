"""`python -m benchmarks.regret [regret|limits|table] [--out FILE] [--count N]`: runs are kept, and not done twice.

regret: the sixty workloads with each planner and with the best fleet there is. limits: N random workloads whose limit
could be kept with 15 % and more to spare, with the default planner. table: what came of both, and a picture.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.regret.oracle import Fleet, Oracle
from benchmarks.regret.table import print_table
from benchmarks.regret.workloads import Workload, all_workloads, random_workload, task_folder
from smlt.core.engine import RunRequest, run
from smlt.core.errors import ConfigError
from smlt.core.plugins import Registry, load_registry

PLANNERS = ("optuna", "bo", "analytic")

STRIDE = 23
"""Workloads are done in this order, so that some of them are a sample of all."""


def main() -> None:
    """Run what is not there yet."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regret", description=__doc__)
    parser.add_argument("what", choices=("regret", "limits", "table"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/regret/runs.jsonl"))
    parser.add_argument("--png", type=Path, default=None)
    parser.add_argument("--planners", default=",".join(PLANNERS))
    parser.add_argument("--count", type=int, default=1000)
    given = parser.parse_args()
    known = [json.loads(line) for line in given.out.read_text().splitlines()] if given.out.exists() else []
    if given.what == "table":
        print_table(known, given.png)
        return
    done = {(row["study"], row["number"], row["planner"]) for row in known}
    registry = load_registry()
    planners = tuple(given.planners.split(","))
    rows = _regret(registry, done, planners) if given.what == "regret" else _limits(registry, done, given.count)
    with given.out.open("a") as out:
        for row in rows:
            out.write(json.dumps(row) + "\n")
            out.flush()
            print(json.dumps(row), flush=True)


def _regret(registry: Registry, done: set[tuple[str, int, str]], planners: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    workloads = list(all_workloads())
    for place in range(len(workloads)):
        number = place * STRIDE % len(workloads)
        workload = workloads[number]
        if all(("regret", number, planner) in done for planner in ("oracle", *planners)):
            continue
        oracle = Oracle(workload)
        limits, wanted = _limits_of(workload, oracle)
        best = oracle.best(wanted, *limits)
        about = {"study": "regret", "number": number, "wanted": wanted, **_named(workload), "kind": workload.limits}
        for planner in ("oracle", *planners):
            if ("regret", number, planner) not in done:
                yield {**about, "planner": planner, **_trained(registry, workload, planner, limits, best)}


def _limits(registry: Registry, done: set[tuple[str, int, str]], count: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        if ("limits", number, "optuna") in done:
            continue
        workload, kind, slack = random_workload(number)
        oracle = Oracle(workload)
        least = oracle.best("fastest").seconds if kind == "deadline" else oracle.best("cheapest").usd
        limits = (slack * least, None) if kind == "deadline" else (None, slack * least)
        about = {"study": "limits", "number": number, **_named(workload), "kind": kind, "slack": slack}
        yield {**about, "planner": "optuna", **_trained(registry, workload, "optuna", limits, None)}


def _limits_of(workload: Workload, oracle: Oracle) -> tuple[tuple[float | None, float | None], str]:
    """Deadline and budget, and what is wanted within them."""
    fastest, cheapest = oracle.best("fastest"), oracle.best("cheapest")
    between_s = 1.15 * (fastest.seconds * cheapest.seconds) ** 0.5
    match workload.limits:
        case "tight deadline":
            return (1.3 * fastest.seconds, None), "cheapest"
        case "loose deadline":
            return (between_s, None), "cheapest"
        case "tight budget":
            return (None, 1.5 * cheapest.usd), "fastest"
        case "loose budget":
            return (None, 2.5 * cheapest.usd), "fastest"
    return (between_s, 1.4 * oracle.best("cheapest", between_s).usd), "cheapest"


def _trained(
    registry: Registry,
    workload: Workload,
    planner: str,
    limits: tuple[float | None, float | None],
    best: Fleet | None,
) -> dict[str, Any]:
    """A whole run, with what it took and cost; the oracle's with the best fleet, fixed."""
    asked = {"deadline": limits[0] and f"{limits[0]:.3f}s", "budget": limits[1] and f"{limits[1]:.6f}usd"}
    stated = {name: value for name, value in asked.items() if value}
    spec = workload.spec(planner, stated)
    if planner == "oracle" and best is not None:
        fixed = {"count": best.workers, "memory": f"{best.memory_mib}MiB"}
        spec = workload.spec("fixed", {}, fixed).model_copy(update={})
        spec = spec.model_copy(update={"sync": spec.sync.model_copy(update={"channel": best.channel})})
    folder = Path(tempfile.mkdtemp(prefix="smlt-regret-"))
    found = {"deadline_s": limits[0], "budget_usd": limits[1]}
    try:
        request = RunRequest(spec, folder / "runs", task_folder(folder), profile=workload.profile)
        summary = run(request, registry)
    except ConfigError as error:
        return {**found, "status": "refused", "why": error.message}
    finally:
        shutil.rmtree(folder)
    fleet = {key: summary.allocation[key] for key in ("workers", "memory_mib")}
    return {
        **found, "status": summary.status, "seconds": summary.wall_seconds, "usd": summary.cost_usd["total"],
        "probes": summary.probes, "generations": summary.generations, **fleet,
        "channel": summary.allocation["sync"]["channel"],
    }  # fmt: skip


def _named(workload: Workload) -> dict[str, Any]:
    return {
        "model": workload.model, "dataset": workload.dataset, "provider": workload.provider, "seed": workload.seed,
    }  # fmt: skip


if __name__ == "__main__":
    main()
