"""Linear regression in numpy: the smallest task there is, for tests of the engine that need no framework."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from smlt.core.errors import TaskError
from smlt.core.task import (
    Array,
    EvalPart,
    Indices,
    Reached,
    Region,
    State,
    StepLoss,
    StepWork,
    TaskShape,
    TrainingTask,
    UserTask,
    mean_metrics,
    seed_of,
    unheard,
)

EXAMPLES, FEATURES = 96, 4


class Linear(UserTask):
    """Fits y = x w by gradient descent with momentum. `params` may say, by number of the step:

    fail_at: the task fails. crash_at: something fails that no adapter has translated. exit_at: the task exits. nan_at:
    the loss is NaN. print_at: each rank prints. hold_at: each rank writes its process id to `<folder>/held-<rank>` and
    waits for `<folder>/go`. needs_at: from then on, each step takes needs_mib of memory. And slow_s: each step takes so
    long; fail_in_the_end: closing the task fails.
    """

    framework = "numpy"

    def adapt(self) -> TrainingTask:
        return LinearTraining(self)


class LinearTraining(TrainingTask):
    def __init__(self, user: Linear) -> None:
        self.user = user

    def prepare(self) -> Mapping[str, Array]:
        rng = self.user.rng
        x = rng.standard_normal((EXAMPLES, FEATURES))
        return {"x": x, "y": x @ np.arange(1.0, FEATURES + 1)}

    def build(self, prepared: Mapping[str, Array], total_steps: Callable[[int], int]) -> TaskShape:
        self.x, self.y = prepared["x"], prepared["y"]
        self.w, self.momentum = np.zeros(FEATURES), np.zeros(FEATURES)
        return TaskShape(EXAMPLES, EXAMPLES, FEATURES, (Region("float64", FEATURES),))

    def order(self, epoch: int) -> Indices:
        return np.random.default_rng(seed_of(self.user.context.seed, epoch)).permutation(EXAMPLES)

    def compute(self, work: StepWork, contribution: Sequence[Array], reached: Reached = unheard) -> StepLoss:
        self._misbehave(work.step)
        x, y = self.x[work.indices], self.y[work.indices]
        error = x @ self.w - y
        contribution[0][:] = 2 * x.T @ error / work.global_batch
        loss = float(error @ error)
        return StepLoss(float("nan") if work.step == self.user.params.get("nan_at") else loss, len(work.indices))

    def _misbehave(self, step: int) -> None:
        params, rank = self.user.params, self.user.rank
        time.sleep(params.get("slow_s", 0.0))
        if step == params.get("fail_at"):
            raise TaskError("the user's own mistake", "mend it")
        if step == params.get("crash_at"):
            raise RuntimeError("nobody expected this")
        if step == params.get("exit_at"):
            raise SystemExit("that is enough")
        if step == params.get("print_at"):
            print(f"hello from rank {rank}")
        if step >= params.get("needs_at", math.inf):
            np.empty(params["needs_mib"] << 20, np.uint8)
        if step == params.get("hold_at"):
            folder = Path(params["folder"])
            draft = folder / f".held-{rank}"
            draft.write_text(str(os.getpid()))
            draft.rename(folder / f"held-{rank}")
            while not (folder / "go").exists():
                time.sleep(0.005)

    def forget(self) -> None:
        pass

    def commit(self, sums: Sequence[Array], loss: StepLoss) -> None:
        self.momentum = 0.5 * self.momentum + sums[0]
        self.w = self.w - 0.05 * self.momentum

    def evaluate(self, indices: Indices) -> EvalPart:
        error = self.x[indices] @ self.w - self.y[indices]
        return EvalPart({"mse": (float(error @ error), float(len(indices)))})

    def finish_evaluation(self, parts: Sequence[EvalPart]) -> dict[str, float]:
        return mean_metrics(parts)

    def shared_state(self) -> State:
        return State({"w": self.w, "momentum": self.momentum})

    def load_shared_state(self, state: State) -> None:
        self.w, self.momentum = state.arrays["w"].copy(), state.arrays["momentum"].copy()

    def close(self) -> None:
        if self.user.params.get("fail_in_the_end"):
            raise TaskError("too late")

    def parameters(self) -> dict[str, Array]:
        return {"w": self.w}

    def model_arrays(self) -> tuple[dict[str, Array], dict[str, str]]:
        return {"w": self.w}, {}
