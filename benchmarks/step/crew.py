"""Ranks as processes that take their steps in turn, variant after variant, each behind a barrier."""

from __future__ import annotations

import multiprocessing
import os
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, NamedTuple

from smlt.backends.function_process import die_with_parent, how_it_ended
from smlt.backends.local.backend import cores as cores_at_hand
from smlt.core.errors import JobFailed

if TYPE_CHECKING:
    import numpy as np

    from benchmarks.step.steps import Step

WARM_UPS = 3
"""Steps before the timed ones: memory is touched, and parameters are compared after them."""

TOLERANCE = 1e-4
"""Of the largest change of a parameter: what fp32 sums in another order may differ by after the warm-ups."""


def end_on_sigterm() -> None:
    """Let a termination unwind the stack, as Ctrl-C does: what was started is then ended and removed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


class Lap(NamedTuple):
    """One rank's step: when it began and ended, by a clock of all processes, and the bytes that went and came."""

    start_s: float
    end_s: float
    up: int
    down: int
    cpu_s: float


def span_ms(laps: Sequence[Lap]) -> float:
    """Of one round: from the first rank's start to the last one's end."""
    return (max(lap.end_s for lap in laps) - min(lap.start_s for lap in laps)) * 1e3


def figures(rounds: Sequence[Sequence[Lap]]) -> dict[str, float]:
    """What every row says of its rounds; `cores_used` is near 1 where ranks only compute and nobody else does."""
    cores = min(len(rounds[0]), cores_at_hand())
    cpu_ms = [sum(lap.cpu_s for lap in laps) * 1e3 for laps in rounds]
    spans_ms = [span_ms(laps) for laps in rounds]
    return {
        "rounds": len(rounds),
        "median_ms": statistics.median(spans_ms),
        "fastest_ms": min(spans_ms),
        "worker_cpu_ms": statistics.median(cpu_ms),
        "cores_used": statistics.median(cpu / span / cores for cpu, span in zip(cpu_ms, spans_ms, strict=True)),
    }


class Plan(NamedTuple):
    """What every rank does.

    Attributes:
        workers, rounds: timed rounds, after the warm-ups.
        open_steps: called by each rank with its number: the variants by name; to be found by its name, like all that
            goes to another process.
        arguments: of that call, after the rank.
        agree: variants whose parameters must be equal, within fp32's tolerance, after the warm-ups.
    """

    workers: int
    rounds: int
    open_steps: Callable[..., Mapping[str, Step]]
    arguments: tuple[Any, ...]
    agree: tuple[str, ...] = ()


def measure(plan: Plan) -> dict[str, list[list[Lap]]]:
    """By variant, the laps of all ranks in each timed round.

    Raises:
        JobFailed: a rank failed or died; none is left.
    """
    context = multiprocessing.get_context("spawn")
    barrier = _barrier(context, plan.workers)
    pipes = [context.Pipe(duplex=False) for _ in range(plan.workers)]
    ranks = [
        context.Process(target=_rank, args=(rank, os.getpid(), plan, barrier, theirs))
        for rank, (_, theirs) in enumerate(pipes)
    ]
    try:
        for process in ranks:
            process.start()
        for _, theirs in pipes:
            theirs.close()
        results = _gather([ours for ours, _ in pipes], ranks)
    finally:
        for process in ranks:
            if process.pid is not None:
                process.kill()
                process.join()
    return {name: [list(laps) for laps in zip(*(each[name] for each in results), strict=True)] for name in results[0]}


def _barrier(context: Any, parties: int) -> Any:
    """It has named semaphores; an interruption between making one and noting that it must go would leave it behind."""
    resource_tracker.ensure_running()  # by itself it would start below, and unblock the signals
    signals = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        return context.Barrier(parties)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


def _gather(pipes: Sequence[Connection], ranks: Sequence[Any]) -> list[dict[str, list[Lap]]]:
    found: dict[int, dict[str, list[Lap]]] = {}
    while len(found) < len(pipes):
        waiting = {pipe: rank for rank, pipe in enumerate(pipes) if rank not in found}
        for pipe in wait(list(waiting)):
            rank = waiting[pipe]
            try:
                said = pipe.recv()
            except EOFError:
                ranks[rank].join()
                raise JobFailed(f"rank {rank} is gone: {how_it_ended(ranks[rank].exitcode)}") from None
            if isinstance(said, str):
                raise JobFailed(f"rank {rank} failed:\n{said}")
            found[rank] = said
    return [found[rank] for rank in range(len(pipes))]


def _rank(rank: int, parent: int, plan: Plan, barrier: Any, pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who measures, who ends the ranks
    if not die_with_parent(parent):
        return
    try:
        import torch

        torch.set_num_threads(1)
        steps = plan.open_steps(rank, *plan.arguments)
        pipe.send(_laps(plan, steps, barrier))
        for step in steps.values():
            step.close()
    except Exception:  # whatever it is, the one who measures tells it
        with suppress(OSError):
            pipe.send(traceback.format_exc())


def _laps(plan: Plan, steps: Mapping[str, Step], barrier: Any) -> dict[str, list[Lap]]:
    laps: dict[str, list[Lap]] = {name: [] for name in steps}
    before = {name: {key: each.copy() for key, each in steps[name].parameters().items()} for name in plan.agree[:1]}
    for number in range(WARM_UPS + plan.rounds):
        if number == WARM_UPS:
            _check(plan.agree, steps, before)
        for name, step in steps.items():
            lap = _take(step, number, barrier)
            if number >= WARM_UPS:
                laps[name].append(lap)
    barrier.wait()
    return laps


def _take(step: Step, number: int, barrier: Any) -> Lap:
    import torch

    torch.use_deterministic_algorithms(step.is_deterministic, warn_only=True)
    up, down = step.bytes_up_down()
    barrier.wait()
    start, cpu = time.perf_counter(), time.process_time()
    step.run(number)
    end, cpu_s = time.perf_counter(), time.process_time() - cpu
    up_after, down_after = step.bytes_up_down()
    return Lap(start, end, up_after - up, down_after - down, cpu_s)


def _check(agree: Sequence[str], steps: Mapping[str, Step], before: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Raises JobFailed where a variant trained to other parameters than the first."""
    if not agree:
        return
    start, expected = before[agree[0]], steps[agree[0]].parameters()
    change = max(float(abs(expected[name] - start[name]).max()) for name in start)
    for other in agree[1:]:
        found = steps[other].parameters()
        difference = max(float(abs(found[name] - expected[name]).max()) for name in start)
        if not difference <= TOLERANCE * change:
            raise JobFailed(
                f"after {WARM_UPS} steps {other} and {agree[0]} differ by {difference:.2g}, where parameters had "
                f"changed by {change:.2g}"
            )
