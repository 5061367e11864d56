"""What a run came to: the document that `smlt train -o json` prints and `summary.json` holds."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from smlt.core import strict_json
from smlt.core.errors import (
    CloudError,
    ConfigError,
    JobFailed,
    NonFiniteLoss,
    OutOfMemory,
    PluginError,
    SmltError,
    TaskError,
)

_TOLD_APART: dict[str, type[SmltError]] = {
    kind.__name__: kind for kind in (ConfigError, PluginError, TaskError, NonFiniteLoss, OutOfMemory, CloudError)
}


@dataclass(frozen=True)
class Summary:
    """The result of a run. Other programs read this: a field is added, never renamed.

    Attributes:
        run: name of the run.
        status: `succeeded`, `stopped` (by a limit), `failed` or `cancelled`.
        stop_reason: `goal`, `target`, `deadline`, `budget`, `cancelled` or what failed.
        steps, epochs: committed steps, and epochs begun.
        metrics: `loss` is the last training loss; evaluation metrics under the names the task gave them.
        wall_seconds: from the command to the end, over all sessions of the run.
        step_seconds_p50: median over all steps.
        cost_usd: `total` and its items.
        catalog_sha256: digest of the price list that this is by.
        handovers, handover_stall_seconds: of one generation to the next; one figure each.
        rank_handovers, rank_handover_stall_seconds: of single ranks, where they hand over one after another.
        recovered_fast: whether a rank has begun anew by `[sync].recovery = "fast"`: the digests are then not those of
            the run without the loss.
        probes: fleets that were tried while training for the planner's sake, after the first.
        allocation: of the last generation, with what its workers and their memory have come to.
        weights_sha256: over the raw bytes of all parameters in name order.
        state_sha256: the same over the whole state: parameters, buffers, optimizer, scheduler, private parts.
        best: with `[job].keep_best`, the `step`, `value` and `model_path` of the best evaluation; else empty.
        error: of a failed run: `kind` (class of the error), `message`, `hint` and `traceback`; else empty.
    """

    run: str
    status: str
    stop_reason: str
    backend: str
    steps: int = 0
    epochs: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    wall_seconds: float = 0.0
    step_seconds_p50: float = 0.0
    cost_usd: dict[str, float] = field(default_factory=lambda: {"total": 0.0})
    catalog_sha256: str = ""
    generations: int = 0
    handovers: int = 0
    rank_handovers: int = 0
    replacements: int = 0
    recovered_fast: bool = False
    handover_stall_seconds: tuple[float, ...] = ()
    rank_handover_stall_seconds: tuple[float, ...] = ()
    probes: int = 0
    allocation: dict[str, Any] = field(default_factory=dict)
    planner: str = ""
    model_path: str = ""
    weights_sha256: str = ""
    state_sha256: str = ""
    best: dict[str, Any] = field(default_factory=dict)
    error: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """The document, indented, keys in the order above; a figure that is no number is null."""
        return strict_json.dumps(asdict(self), indent=2)

    def failure(self) -> SmltError:
        """What a failed run failed of: the job as stated, the task, or for other reasons."""
        kind = _TOLD_APART.get(self.error.get("kind", ""), JobFailed)
        message = self.error.get("message", f"run {self.run!r} failed: {self.stop_reason}")
        return kind(message, self.error.get("hint", ""))

    @classmethod
    def from_json(cls, text: str | bytes) -> Summary:
        """The summary that `to_json` wrote; keys of a newer smlt are passed over."""
        data = json.loads(text)
        known = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        for name in ("handover_stall_seconds", "rank_handover_stall_seconds"):
            if name in known:
                known[name] = tuple(known[name])
        return cls(**known)
