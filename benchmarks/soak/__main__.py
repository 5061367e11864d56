"""Train under a short time limit while functions are killed, and again undisturbed: both must come to the same bits.

    python -m benchmarks.soak [--minutes 20] [--workers 2] [--time-limit 30s] [--kill-every 15s] [--channel auto]

Prints figures as JSON; exit code 1, with what is wrong on stderr, where bits differ, the engine's memory grows by 1 MB
a minute or more after minute 3, something is left, or nothing was disturbed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.soak.killer import Killer
from benchmarks.soak.memory import Belongings, Scale, litter_of
from smlt.core.backend import RunPlace
from smlt.core.engine import RunRequest, run
from smlt.core.job import JobSpec
from smlt.core.plugins import load_registry
from smlt.core.runlog import RunEvent
from smlt.core.summary import Summary
from smlt.core.units import parse_duration_s

PAUSE_S = 0.05
"""A disturbed step takes so much longer than it must, so that a soak of minutes is not one of very many steps."""
WARM_UP_S = 180.0
MOST_MB_MIN = 1.0


class Soak:
    """Runs of one job, in a folder."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self._arguments, self._folder = arguments, folder
        self.steps = int(arguments.minutes * 60 / (1.3 * PAUSE_S))

    def train(self, name: str, listener: Callable[[RunEvent], None] | None = None, **backend: Any) -> Summary:
        """One of them; `pause_s` among the options of the backend goes to the task."""
        pause_s = backend.pop("pause_s", 0)
        plain = {
            "job": {
                "task": "task.py:Digits",
                "name": name,
                "steps": self.steps,
                "global_batch": 32,
                "params": {"pause_s": pause_s},
                "include": ["task.py"],
            },
            "workers": {"count": self._arguments.workers},
            "sync": {"channel": self._arguments.channel},
            "backend": {"worker_threads": 1, **backend},
        }
        request = RunRequest(JobSpec.model_validate(plain), self._folder, Path(__file__).parent)
        return run(request, load_registry(), listener=listener)


def measure(arguments: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Figures, and what is wrong."""
    soak = Soak(arguments, folder)
    undisturbed = soak.train("undisturbed")
    place = RunPlace("disturbed", folder)
    before = Belongings(place)
    watched = Events()
    killer = Killer(parse_duration_s(arguments.kill_every), arguments.seed)
    with killer, Scale() as scale:

        def listen(event: RunEvent) -> None:
            killer.listen(event)
            watched(event)

        disturbed = soak.train(
            place.run, listen, pause_s=PAUSE_S, function_time_limit=parse_duration_s(arguments.time_limit)
        )
    left = Belongings(place).left_since(before)
    litter = litter_of(folder / place.run)
    seconds = disturbed.wall_seconds
    slope = scale.slope_mb_min(min(WARM_UP_S, seconds / 2))
    figures = {
        "workers": arguments.workers,
        "steps": soak.steps,
        "status": disturbed.status,
        "minutes": seconds / 60,
        "minutes_of_steps": soak.steps * disturbed.step_seconds_p50 / 60,
        "same_weights": disturbed.weights_sha256 == undisturbed.weights_sha256 != "",
        "same_state": disturbed.state_sha256 == undisturbed.state_sha256 != "",
        "kills": dict(Counter(how for _, how in killer.killed)),
        "replacements": disturbed.replacements,
        "generations": disturbed.generations,
        "hand_overs": disturbed.handovers,
        "stall_s_median": statistics.median(disturbed.handover_stall_seconds or [float("nan")]),
        "recovery_s_median": statistics.median(watched.recoveries_s or [float("nan")]),
        "rolled_back": watched.counts["rolled_back"],
        "lost": dict(watched.reasons),
        "engine_mb": [round(size, 1) for _, size in scale.samples[:: max(1, len(scale.samples) // 10)]],
        "engine_slope_mb_min": slope,
        "left": left,
        "litter": litter,
    }
    wrong = [
        *([] if disturbed.status == "succeeded" else [f"the run ended with {disturbed.status}: {disturbed.error}"]),
        *([] if figures["same_state"] and figures["same_weights"] else ["the bits differ"]),
        *([] if slope < MOST_MB_MIN else [f"the engine grows by {slope:.2f} MB a minute"]),
        *([f"left: {left}"] if left else []),
        *([f"files nobody needs: {litter}"] if litter else []),
        *([] if any(how == "READY" for _, how in killer.killed) else ["no function that was READY was killed"]),
        *([] if disturbed.handovers else ["no generation handed over"]),
    ]
    return figures, wrong


class Events:
    """What the log says of recoveries."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.recoveries_s: list[float] = []
        self._lost_at: float | None = None

    def __call__(self, event: RunEvent) -> None:
        self.counts[event.kind] += 1
        if event.kind == "lost":
            self.reasons[event.data["detail"]] += 1
        if event.kind == "state" and event.data["state"] == "recovering":
            self._lost_at = event.time
        if event.kind == "round_opened" and self._lost_at is not None:
            self.recoveries_s.append(event.time - self._lost_at)
            self._lost_at = None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--time-limit", default="30s")
    parser.add_argument("--kill-every", default="15s")
    parser.add_argument("--channel", default="auto")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures, wrong = measure(arguments, Path(folder))
    json.dump({"seed": arguments.seed, **figures}, sys.stdout, indent=2)
    print()
    for what in wrong:
        print(what, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
