"""The append-only event log of a run, and the view of it that every display is derived from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from smlt.core import layout, strict_json, wire
from smlt.core.errors import AlreadyExists, NotFound, ProtocolError
from smlt.core.storage import ObjectStore


@dataclass(frozen=True)
class RunEvent:
    """Something that happened to a run.

    Attributes:
        time: seconds since the Unix epoch, by the controller's clock.
        kind: one of `created, planned, state, launched, launch_failed, ready, round_opened, steps, rolled_back,
            evaluated, checkpointed, rejoined, output, ended, exited, lost, memory_raised, stalled, scale, order,
            replanned, predicted, hand_over, hand_over_failed, handed_over, rank_handed_over, wish, spent, failed,
            finished`.
        data: plain data; which keys a kind has is said where `RunView` reads them.
    """

    time: float
    kind: str
    data: dict[str, Any]

    def to_plain(self) -> dict[str, Any]:
        """As in `events.jsonl`."""
        return {"time": self.time, "kind": self.kind, **self.data}

    def to_json(self) -> str:
        """One line of `events.jsonl`."""
        return strict_json.dumps(self.to_plain())


@dataclass(frozen=True)
class _Segment:
    events: tuple[RunEvent, ...]


class RunLog:
    """Writes a run's events as numbered objects; one writer at a time, who continues where the last one ended.

    Args:
        store: the run's object store.
        clock: seconds since the Unix epoch.
        listener: is told every event at once, before it is stored.
    """

    def __init__(
        self, store: ObjectStore, clock: Callable[[], float], listener: Callable[[RunEvent], None] | None = None
    ) -> None:
        self._store = store
        self._clock = clock
        self._listener = listener
        self._pending: list[RunEvent] = []
        self._next = sum(1 for _ in store.list(layout.LOG))

    def append(self, kind: str, data: Mapping[str, Any]) -> RunEvent:
        """Note an event, which is returned; it is durable after the next `flush`."""
        event = RunEvent(self._clock(), kind, dict(data))
        self._pending.append(event)
        if self._listener:
            self._listener(event)
        return event

    def flush(self) -> None:
        """Write what is pending as one segment."""
        if not self._pending:
            return
        data = wire.pack(_Segment(tuple(self._pending)))
        try:
            self._store.put_if_absent(layout.log_segment(self._next), data)
        except AlreadyExists as error:
            raise ProtocolError(
                "another controller writes this run's log", "only one `smlt train` may drive a run"
            ) from error
        self._next += 1
        self._pending.clear()


def read_events(store: ObjectStore, *, first_segment: int = 0) -> Iterator[tuple[int, RunEvent]]:
    """Events with the number of their segment, from `first_segment` on; call again with the next number to follow."""
    number = first_segment
    while True:
        try:
            segment = wire.read(store, layout.log_segment(number), _Segment)
        except NotFound:
            return
        for event in segment.events:
            yield number, event
        number += 1


@dataclass(frozen=True)
class RunView:
    """A run as its events tell it; `after` is a pure fold over them.

    Attributes:
        run, backend, task: what is trained, and where.
        state: `planning, starting, running, handing_over, recovering, stopping`, then the final status.
        stop_reason: why it ended; empty where it has not.
        step, total_steps, epoch, epochs: progress; epochs is None where the job counts steps.
        loss: of the last step.
        metrics, evaluated_step: of the last evaluation, and after how many steps that was.
        examples_per_s: over the last reported steps.
        generation: of the newest launch.
        handovers, handover_stalls_s: how often one generation took over from another, and how long each time nothing
            was computed.
        rank_handovers, rank_handover_stalls_s: the same of single ranks within a generation.
        replacements: how often a rank was launched again because it was lost.
        recovered_fast: whether a rank has begun anew without what was its own.
        workers_up, workers_wanted: functions that are ready, and the allocation.
        memory_mib: of each function that is launched now.
        probes: fleets that were tried for the planner's sake, after the first.
        started, ended: Unix times; 0 where not yet.
        deadline_s, budget_usd: the limits, if any.
        spent_usd, function_s: by the ledger: US dollars, and seconds of all functions.
        checkpoint_step: at which the newest checkpoint goes on; None for none.
        model_path: where the trained model is; empty where there is none.
        error: message and hint of a failure.
    """

    run: str = ""
    backend: str = ""
    task: str = ""
    state: str = "planning"
    stop_reason: str = ""
    step: int = 0
    total_steps: int = 0
    epoch: int = 0
    epochs: int | None = None
    loss: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    evaluated_step: int = 0
    examples_per_s: float = 0.0
    generation: int = 0
    handovers: int = 0
    handover_stalls_s: tuple[float, ...] = ()
    rank_handovers: int = 0
    rank_handover_stalls_s: tuple[float, ...] = ()
    replacements: int = 0
    recovered_fast: bool = False
    workers_up: int = 0
    workers_wanted: int = 0
    probes: int = 0
    memory_mib: int = 0
    started: float = 0.0
    ended: float = 0.0
    deadline_s: float | None = None
    budget_usd: float | None = None
    spent_usd: float = 0.0
    function_s: float = 0.0
    checkpoint_step: int | None = None
    model_path: str = ""
    error: str = ""

    def after(self, event: RunEvent) -> RunView:
        """The view once `event` has happened; an unknown kind changes nothing."""
        fold = _FOLDS.get(event.kind)
        return fold(self, event) if fold else self


def view_of(store: ObjectStore) -> RunView:
    """The view of a run from its whole log."""
    view = RunView()
    for _, event in read_events(store):
        view = view.after(event)
    return view


def _created(view: RunView, event: RunEvent) -> RunView:
    data = event.data
    return replace(
        view, run=data["run"], backend=data["backend"], task=data["task"], epochs=data["epochs"],
        deadline_s=data["deadline_s"], budget_usd=data["budget_usd"], started=view.started or event.time,
        state="planning", stop_reason="", ended=0.0, error="",
    )  # fmt: skip


def _planned(view: RunView, event: RunEvent) -> RunView:
    allocation = event.data["allocation"]
    return replace(view, workers_wanted=allocation["workers"], memory_mib=allocation["memory_mib"])


def _memory_raised(view: RunView, event: RunEvent) -> RunView:
    return replace(view, memory_mib=event.data["memory_mib"])


def _state(view: RunView, event: RunEvent) -> RunView:
    starting = event.data["state"] == "starting"
    return replace(view, state=event.data["state"], workers_up=0 if starting else view.workers_up)


def _launched(view: RunView, event: RunEvent) -> RunView:
    again = event.data["incarnation"] > 0 and not event.data.get("is_heir")
    return replace(view, generation=event.data["generation"], replacements=view.replacements + again)


def _handed_over(view: RunView, event: RunEvent) -> RunView:
    stalls_s = (*view.handover_stalls_s, event.data["stall_s"])
    return replace(view, handovers=view.handovers + 1, handover_stalls_s=stalls_s)


def _rank_handed_over(view: RunView, event: RunEvent) -> RunView:
    stalls_s = (*view.rank_handover_stalls_s, event.data["stall_s"])
    return replace(view, rank_handovers=view.rank_handovers + 1, rank_handover_stalls_s=stalls_s)


def _rolled_back(view: RunView, event: RunEvent) -> RunView:
    return replace(view, step=event.data["step"])


def _rejoined(view: RunView, event: RunEvent) -> RunView:
    return replace(view, recovered_fast=True)


def _round_opened(view: RunView, event: RunEvent) -> RunView:
    return replace(view, workers_up=event.data["workers"])


def _adopted(view: RunView, event: RunEvent) -> RunView:
    return replace(view, state="running", workers_up=event.data["workers"])


def _scale(view: RunView, event: RunEvent) -> RunView:
    return replace(view, workers_wanted=event.data["workers"])


def _replanned(view: RunView, event: RunEvent) -> RunView:
    data = event.data
    return replace(view, workers_wanted=data["workers"], memory_mib=data["memory_mib"], probes=data["probes"])


def _ready(view: RunView, event: RunEvent) -> RunView:
    starting = view.state == "starting"
    return replace(view, workers_up=view.workers_up + starting, total_steps=event.data["total_steps"])


def _steps(view: RunView, event: RunEvent) -> RunView:
    items = event.data["items"]
    seconds = sum(item["seconds"] for item in items)
    last = items[-1]
    return replace(
        view,
        step=last["step"] + 1,
        epoch=last["epoch"],
        loss=None if math.isnan(last["loss"]) else last["loss"],
        examples_per_s=sum(item["examples"] for item in items) / seconds if seconds else 0.0,
    )


def _evaluated(view: RunView, event: RunEvent) -> RunView:
    return replace(view, metrics=event.data["metrics"], evaluated_step=event.data["step"])


def _checkpointed(view: RunView, event: RunEvent) -> RunView:
    return replace(view, checkpoint_step=event.data["step"])


def _exited(view: RunView, event: RunEvent) -> RunView:
    if event.data["generation"] != view.generation:
        return view
    return replace(view, workers_up=max(0, view.workers_up - 1))


def _spent(view: RunView, event: RunEvent) -> RunView:
    return replace(view, spent_usd=event.data["usd"], function_s=event.data["function_s"])


def _failed(view: RunView, event: RunEvent) -> RunView:
    hint = event.data.get("hint")
    return replace(view, error=event.data["message"] + (f"\n  hint: {hint}" if hint else ""))


def _finished(view: RunView, event: RunEvent) -> RunView:
    return replace(
        view,
        state=event.data["status"],
        stop_reason=event.data["stop_reason"],
        model_path=event.data.get("model_path", ""),
        ended=event.time,
        workers_up=0,
    )


_FOLDS: dict[str, Callable[[RunView, RunEvent], RunView]] = {
    "created": _created,
    "planned": _planned,
    "state": _state,
    "launched": _launched,
    "ready": _ready,
    "round_opened": _round_opened,
    "handed_over": _handed_over,
    "rank_handed_over": _rank_handed_over,
    "rolled_back": _rolled_back,
    "rejoined": _rejoined,
    "adopted": _adopted,
    "memory_raised": _memory_raised,
    "scale": _scale,
    "replanned": _replanned,
    "steps": _steps,
    "evaluated": _evaluated,
    "checkpointed": _checkpointed,
    "exited": _exited,
    "spent": _spent,
    "failed": _failed,
    "finished": _finished,
}
