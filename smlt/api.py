"""The Python face of `smlt train` and `resume`: the same settings and engine, a result instead of a printed summary."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smlt.core.errors import ConfigError, Interrupted, SmltError

if TYPE_CHECKING:
    from smlt.core.engine import Interrupts
    from smlt.core.summary import Summary


@dataclass(frozen=True)
class Result:
    """What a run came to.

    Attributes:
        status: `succeeded`, or `stopped` by its deadline or budget (then `model_path` is None and the run's checkpoint
            is kept; `resume` with a higher limit goes on).
        metrics: `loss` is the last training loss; evaluation metrics under the names the task gave them.
        cost_usd: all that was spent.
        wall_seconds: over all sessions of the run.
        model_path: the trained model (`model.safetensors`).
        weights_sha256: over the raw bytes of all parameters in name order.
        summary: everything else; what `smlt train -o json` prints.
    """

    status: str
    metrics: dict[str, float]
    cost_usd: float
    wall_seconds: float
    model_path: Path | None
    weights_sha256: str
    summary: Summary


def train(
    task: str | type,
    *,
    backend: str | None = None,
    workers: int | str | None = None,
    memory: str | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    global_batch: int | None = None,
    seed: int | None = None,
    name: str | None = None,
    params: Mapping[str, Any] | None = None,
    deadline: str | float | None = None,
    budget: str | float | None = None,
    config: str | Path | None = None,
    runs_dir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = True,
) -> Result:
    """Train a task and wait for the result; interrupting it (Ctrl-C, or a notebook's stop) ends it after a checkpoint.

    SMLT_* variables and the user's configuration count, beneath the arguments; `./smlt.toml` counts only as `config`.

    Args:
        task: "file.py:Class", "package.module:Class", or the class itself (for a notebook; local backends only).
        backend: where to run; "local" unless set elsewhere.
        workers: how many work at once, or "auto".
        memory: of each worker, like "2GiB".
        epochs, steps: how long; one of the two.
        global_batch: examples in a step over all workers.
        seed: everything random derives from it.
        name: of the run; an unfinished run of this name goes on.
        params: reach the task as `self.params`.
        deadline: like "30m", or seconds.
        budget: like "2usd", or US dollars.
        config: a file like `smlt.toml`.
        runs_dir: where runs are kept; SMLT_RUNS_DIR or `.smlt/runs` where not given.
        settings: any other key of `smlt.toml`, like {"train.precision": "bf16"}.
        quiet: show no progress; False shows it on stderr.

    Raises:
        ConfigError: the job cannot be run as stated; every mistake is named.
        TaskError: the task's own code failed; the message says where.
        JobFailed: the run failed for another reason.
        Interrupted: the user cancelled it.
    """
    from smlt.core.engine import Interrupts, RunRequest, run
    from smlt.core.layers import read_layers, runs_folder
    from smlt.core.plugins import load_registry
    from smlt.core.settings import resolve

    label = task if isinstance(task, str) else f"{task.__module__}:{task.__qualname__}"
    arguments = {
        "task": label, "backend": backend, "workers": workers, "memory": memory, "epochs": epochs, "steps": steps,
        "global_batch": global_batch, "seed": seed, "name": name, "params": params,
        "deadline": deadline, "budget": budget,
    }  # fmt: skip
    registry = load_registry()
    layers = read_layers(
        cwd=Path.cwd(),
        env=os.environ,
        flags=arguments,
        origin_of=lambda name: f"smlt.train({name}=)",
        keyed=settings,
        config=Path(config) if config is not None else None,
        project_file=False,
    )
    resolved = resolve(layers, registry)
    folder = runs_folder(runs_dir, os.environ, Path.cwd())
    request = RunRequest(resolved.spec, folder, resolved.folder, None if isinstance(task, str) else task)
    interrupts = Interrupts()
    with _progress(quiet) as (listener, say), cancelling(interrupts, say):
        return _result(run(request, registry, listener=listener, interrupts=interrupts))


def resume(
    run: str,
    *,
    task: type | None = None,
    backend: str | None = None,
    workers: int | str | None = None,
    memory: str | None = None,
    epochs: int | None = None,
    steps: int | None = None,
    params: Mapping[str, Any] | None = None,
    deadline: str | float | None = None,
    budget: str | float | None = None,
    runs_dir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    quiet: bool = True,
) -> Result:
    """Go on with a run by its own settings, and wait for the result: one that stopped, failed or lost its controller.

    A finished run goes on for longer with more `epochs` or `steps` in all. In the folder that the run was started in,
    the task's files there count; anywhere else, those that the run kept. SMLT_* variables and configuration files
    do not.

    Args:
        run: its name.
        task: the class, where the run was started with one.
        backend, workers, memory, epochs, steps, params, deadline, budget: to be changed; as in `train`. A deadline
            counts from now, a budget over all of the run.
        runs_dir: where runs are kept; SMLT_RUNS_DIR or `.smlt/runs` where not given.
        settings: any other key of `smlt.toml` to be changed, like {"train.clip_norm": 1.0}.
        quiet: show no progress; False shows it on stderr.

    Raises:
        ConfigError: there is no such run, it is being driven, there is nothing left to do, or a change cannot be made.
        TaskError, JobFailed, Interrupted: as in `train`.
    """
    from smlt.cli.found_runs import find_run
    from smlt.core.engine import Interrupts
    from smlt.core.engine import run as drive
    from smlt.core.layers import runs_folder
    from smlt.core.plugins import load_registry
    from smlt.core.resume import Changes, resumption

    arguments = {
        "backend": backend, "workers": workers, "memory": memory, "epochs": epochs, "steps": steps,
        "params": params, "deadline": deadline, "budget": budget,
    }  # fmt: skip
    registry = load_registry()
    folder = runs_folder(runs_dir, os.environ, Path.cwd())
    found = find_run(registry, folder, run)
    changes = Changes(arguments, "smlt.resume({}=)".format, keyed=settings, task_class=task)
    request = resumption(found.store, found.record, folder, Path.cwd(), changes, registry).request
    interrupts = Interrupts()
    with _progress(quiet) as (listener, say), cancelling(interrupts, say):
        return _result(drive(request, registry, listener=listener, interrupts=interrupts))


@contextmanager
def cancelling(interrupts: Interrupts, say: Callable[[str], None]) -> Iterator[None]:
    """While entered, Ctrl-C cancels the run: once to stop after a checkpoint, twice to stop now. SIGTERM is the first.

    Outside the main thread, where Python delivers no signals, nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = 0

    def on_signal(number: int, _: object) -> None:
        nonlocal asked
        if number == signal.SIGTERM and asked:
            return
        asked += 1
        interrupts.cancel()
        say("stopping after a checkpoint; Ctrl-C again to stop now" if asked == 1 else "stopping now")

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(quiet: bool) -> Iterator[tuple[Any, Callable[[str], None]]]:
    if quiet:
        yield None, lambda _: None
        return
    from smlt.cli.progress import progress_for

    with progress_for(quiet=False, detailed=False) as progress:
        yield progress, progress.say


def _result(summary: Summary) -> Result:
    if summary.status == "failed":
        raise _error(summary)
    if summary.status == "cancelled":
        raise Interrupted(
            f"run {summary.run!r} was cancelled at step {summary.steps}",
            f"smlt.resume({summary.run!r}) goes on from there",
        )
    return Result(
        status=summary.status,
        metrics=summary.metrics,
        cost_usd=summary.cost_usd["total"],
        wall_seconds=summary.wall_seconds,
        model_path=Path(summary.model_path) if summary.model_path else None,
        weights_sha256=summary.weights_sha256,
        summary=summary,
    )


def _error(summary: Summary) -> SmltError:
    """The error of a failed run, with the worker's traceback as a note; a mistake in the job says enough without."""
    from smlt.cli.lines import own_traceback

    error = summary.failure()
    traceback = own_traceback(summary.error)
    if traceback and not isinstance(error, ConfigError):
        error.add_note(traceback)
    return error
