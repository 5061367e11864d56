"""Events of a run as lines for people: what `smlt logs` prints, and the progress of a run that has no terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from smlt.cli.figures import cost_text, metric_text, progress_text
from smlt.core.runlog import RunEvent, RunView
from smlt.core.units import format_bytes, format_duration

_STATES = {
    "starting": "starting workers",
    "running": "training",
    "handing_over": "handing over to the next generation",
    "recovering": "recovering",
    "stopping": "stopping",
}


class EventLines:
    """Turns events into lines, one after the other; of the steps only some are shown.

    Args:
        steps_every_s: by the events' own times, a line about steps comes no more often than this.
        evaluations_every_s: the same for evaluations.
        detailed: tell of single functions and checkpoints too.
    """

    def __init__(self, *, steps_every_s: float, evaluations_every_s: float = 0.0, detailed: bool) -> None:
        self._every_s = {"steps": steps_every_s, "evaluated": evaluations_every_s}
        self._told_at = dict.fromkeys(self._every_s, float("-inf"))
        self._detailed = detailed
        self._view = RunView()

    def of(self, event: RunEvent) -> list[str]:
        """The lines that tell of an event; none where it is not worth one."""
        self._view = self._view.after(event)
        return list(self._lines(event))

    def _lines(self, event: RunEvent) -> Iterator[str]:
        data = event.data
        match event.kind:
            case "created":
                yield _created(data)
            case "planned":
                yield _planned(data)
            case "state" if data["state"] in _STATES:
                yield _STATES[data["state"]]
            case "steps" if self._is_due(event):
                yield self._steps(event)
            case "evaluated" if data["metrics"] and self._is_due(event):
                taken = format_duration(data["seconds"])
                yield f"evaluated at step {data['step']}: {metric_text(data['metrics'])} ({taken})"
            case "adopted":
                yield f"going on with the {data['workers']} worker{'s' if data['workers'] != 1 else ''} that are there"
            case "memory_raised":
                sizes = format_bytes(data["from_mib"] * 2**20), format_bytes(data["memory_mib"] * 2**20)
                yield f"rank {data['rank']} ran out of its {sizes[0]}: workers are launched with {sizes[1]} from now on"
            case "order":
                yield _order(data)
            case "replanned":
                yield _replanned(data)
            case "chaos_idle":
                yield f"chaos that never took effect: {'; '.join(data['rules'])}"
            case "output":
                yield f"[rank {data['rank']}] {data['text']}"
            case "failed":
                who = f"rank {data['rank']}" if "rank" in data else "the run"  # the engine's own failures have no rank
                yield f"{who} failed: {data['message']}"
                if self._detailed:
                    yield from own_traceback(data).splitlines()
            case "finished":
                reason = data["stop_reason"]
                yield data["status"] + (f" ({reason})" if reason not in ("", data["status"]) else "")
            case _ if self._detailed:
                yield from _detail(event)

    def _is_due(self, event: RunEvent) -> bool:
        due = event.time - self._told_at[event.kind] >= self._every_s[event.kind]
        if due:
            self._told_at[event.kind] = event.time
        return due

    def _steps(self, event: RunEvent) -> str:
        view = self._view
        loss = f"loss {view.loss:.4g}" if view.loss is not None else ""
        speed = f"{view.examples_per_s:.0f} examples/s" if view.examples_per_s else ""
        taken = format_duration(max(0.0, event.time - view.started))
        cost = cost_text(view.spent_usd, view.budget_usd) if view.spent_usd else ""
        return ", ".join(part for part in (progress_text(view), loss, speed, taken, cost) if part)


def _created(data: Mapping[str, Any]) -> str:
    name = f"run {data['run']}"
    if data.get("goes_on"):
        step = data["goes_on_at"]
        name += " goes on, without a checkpoint" if step is None else f" goes on at step {step}"
        newest = data.get("newest_checkpoint")
        if newest is not None and (step is None or step < newest):
            name += f" (the checkpoint at step {newest} is not whole)"
    travels = f", {format_bytes(data['bundle_bytes'])} of files travel" if data["bundle_bytes"] else ""
    kept = " as it kept them" if data.get("kept_code") else ""
    return f"{name}: {data['task']} on {data['backend']}{travels}{kept}"


def _planned(data: Mapping[str, Any]) -> str:
    allocation = data["allocation"]
    count = allocation["workers"]
    sync = allocation["sync"]
    workers = f"{count} worker{'s' if count != 1 else ''} of {format_bytes(allocation['memory_mib'] * 2**20)}"
    return f"plan: {workers}, {sync['mode']} over {sync['channel']} ({data['reason']})"


def _replanned(data: Mapping[str, Any]) -> str:
    size, before = (format_bytes(data[key] * 2**20) for key in ("memory_mib", "from_memory_mib"))
    change = f"{data['workers']} x {size} instead of {data['from_workers']} x {before}"
    return f"replanned ({data['trigger']}): {change}: {data['reason']}"


def _order(data: Mapping[str, Any]) -> str:
    if data["order"] == "scale":
        what = f"to scale to {data['workers']} worker{'s' if data['workers'] != 1 else ''}"
    else:
        what = "to stop at once" if data["at_once"] else "to stop after a checkpoint"
    return f"asked {what}" + (f", which was refused: {data['refused']}" if data["refused"] else "")


def _detail(event: RunEvent) -> Iterator[str]:
    data = event.data
    match event.kind:
        case "launched":
            yield f"launched rank {data['rank']} of generation {data['generation']}"
        case "ready":
            yield f"rank {data['rank']} is ready after {format_duration(data['seconds'])}"
        case "checkpointed":
            size = format_bytes(data["bytes"])
            yield f"checkpoint at step {data['step']} ({size}, {format_duration(data['seconds'])})"
        case "wish":
            yield f"asked the workers to stop: {data['reason']}"
        case "lost":
            yield f"rank {data['rank']} is lost at step {data['step']}: {data['detail']}"
        case "hand_over":
            yield f"generation {data['generation']} makes ready to take over: {data['reason']}"
        case "handed_over":
            yield f"generation {data['generation']} took over; {format_duration(data['stall_s'])} without a step"
        case "rank_handed_over":
            stall = format_duration(data["stall_s"])
            yield f"another function took over rank {data['rank']}; {stall} without a step"
        case "stop_failed":
            yield f"the function of rank {data['rank']} could not be ended: {data['detail']}"
        case "launch_failed":
            yield f"rank {data['rank']} could not be launched: {data['detail']}"
        case "rolled_back":
            yield f"going on at step {data['step']} again"
        case "rejoined":
            whose = f"rank {data['rank']} begins anew at step {data['step']} with the state of rank {data['donor']}"
            yield f"{whose}, for its own is lost: the run's bits are from here on others than without the loss"
        case "exited":
            yield f"the function of rank {data['rank']} is over" + (f": {data['detail']}" if data["detail"] else "")


def own_traceback(failure: Mapping[str, Any]) -> str:
    """The traceback of a failure; of an error that the task raised, the part that is the task's."""
    text = str(failure.get("traceback") or "").rstrip()
    if failure.get("kind") in ("TaskError", "OutOfMemory"):
        text = text.split("\n\nThe above exception was the direct cause", 1)[0]
    return text
