"""The best model so far: which evaluation it was, and where models are kept until that is certain.

Every candidate has a key of its step's own. So a process that was frozen, and is revived when others have gone on,
writes what they have written there, and never over a better one.
"""

from __future__ import annotations

from collections.abc import Iterable

from smlt.core import checkpoint, layout
from smlt.core.job import Job
from smlt.core.runlog import RunEvent
from smlt.core.storage import ObjectStore


def prune(store: ObjectStore) -> None:
    """Remove the models that no checkpoint could still call the best one."""
    kept, steps = checkpoint.valid_steps(store), _steps(store)
    before = [step for step in steps if not kept or step <= kept[0]]
    for step in before[:-1]:
        store.delete(layout.best(step))


def publish(store: ObjectStore, job: Job, events: Iterable[RunEvent]) -> dict[str, float]:
    """Give the best model its final name; returns its `step` and `value`, or nothing where none was kept.

    Args:
        store: of the run.
        job: for what is better.
        events: of all sessions of the run.
    """
    steps = set(_steps(store))
    found: dict[str, float] = {}
    for step, value in sorted(_values(job.keep_best or "", events).items()):
        if step in steps and job.is_better(value, found.get("value")):
            found = {"step": step, "value": value}
    if found:
        store.put(layout.BEST_MODEL, store.get(layout.best(int(found["step"]))))
    return found


def _values(name: str, events: Iterable[RunEvent]) -> dict[int, float]:
    """By step, what the metric was on the branch that was gone on from."""
    values: dict[int, float] = {}
    for event in events:
        if event.kind == "rolled_back":
            values = {step: value for step, value in values.items() if step <= event.data["step"]}
        elif event.kind == "evaluated" and name in event.data["metrics"]:
            values[event.data["step"]] = event.data["metrics"][name]
    return values


def _steps(store: ObjectStore) -> list[int]:
    """Ascending."""
    return [layout.step_of(info.key) for info in store.list(layout.BEST)]
