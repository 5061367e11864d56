"""One rank of a measurement: a process that opens all variants and reduces when it is told to.

python -m smlt.bench.rank NUMBER PARENT      # of the pipe it inherits, and of the process that started it
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection

import numpy as np
from numpy.typing import NDArray

from smlt.backends.function_process import die_with_parent
from smlt.bench.messages import Failure, Go, Leave, Line, Ready, Seating, Timing, Turn
from smlt.bench.variant import ChannelVariant, Variant, Vector
from smlt.core.errors import ProtocolError, SmltError
from smlt.core.plugins import load_registry

MAGNITUDE = 2048
"""Vectors are of whole numbers up to this, so that float32 adds them up exactly, in whatever order."""


def run(line: Line) -> None:
    """Serve the other end until it says `Leave`, or is gone."""
    with ExitStack() as stack:
        try:
            _serve(line, stack)
        except Exception as error:  # whatever a variant raises is for the other end to tell, before anything is closed
            with suppress(OSError):  # it is gone
                line.send(_failure(error))


def _failure(error: Exception) -> Failure:
    message, hint = (error.message, error.hint) if isinstance(error, SmltError) else (str(error), "")
    return Failure(type(error).__name__, message, hint, traceback.format_exc())


def _serve(line: Line, stack: ExitStack) -> None:
    seating: Seating = line.receive()
    own = _numbers(seating.rank, seating.elements)
    exact: Vector = np.zeros(seating.elements, np.float32)
    for rank in range(seating.world_size):
        exact += _numbers(rank, seating.elements)
    variants = open_variants(seating, stack)
    line.send(Ready())
    while not isinstance(turn := line.receive(), Leave):
        line.send(_take(turn, variants[turn.variant], own, exact, line))


def _numbers(rank: int, elements: int) -> NDArray[np.int16]:
    return np.random.default_rng(rank).integers(-MAGNITUDE, MAGNITUDE, elements, np.int16, endpoint=True)


def _take(turn: Turn, variant: Variant, own: NDArray[np.int16], exact: Vector, line: Line) -> Timing:
    """One turn. What is summed changes from step to step, so that an old sum is a wrong one."""
    factor = np.float32(1 + turn.step % 2)
    np.multiply(own, factor, out=variant.prepare(turn.step))
    before = variant.stats()
    counted = dict(before.requests) if before else {}
    up, down = (before.bytes_up, before.bytes_down) if before else (0, 0)
    line.send(Ready())
    if not isinstance(line.receive(), Go):
        raise ProtocolError("a rank was not told to start")
    cpu, start = time.process_time(), time.perf_counter()
    result = variant.reduce(turn.step)
    end, cpu_end = time.perf_counter(), time.process_time()
    if turn.check and not np.array_equal(result, exact * factor):
        raise ProtocolError(f"{turn.variant} gave a wrong sum at step {turn.step}")
    after = variant.stats()
    if after is None:
        return Timing(start, end, cpu_end - cpu, None, 0, 0)
    requests = {verb: count - counted.get(verb, 0) for verb, count in after.requests.items()}
    return Timing(start, end, cpu_end - cpu, requests, after.bytes_up - up, after.bytes_down - down)


def open_variants(seating: Seating, stack: ExitStack) -> Mapping[str, Variant]:
    """All variants by their name, closed with the stack."""
    from smlt.bench.gloo import Gloo
    from smlt.bench.lambdaml import LambdaML, LambdaMLHiredis, LambdaMLScan
    from smlt.bench.redis_py import RedisPy

    rank, world_size, elements = seating.rank, seating.world_size, seating.elements
    registry = load_registry()
    found: dict[str, Variant] = {}
    for name, spec in seating.channels.items():
        channel = registry.open_channel(spec, generation=1, round_number=0, rank=rank)
        stack.callback(channel.close)
        found[name] = ChannelVariant(channel, rank, world_size, elements)
    over_redis: dict[str, Callable[..., Variant]] = {
        "lambdaml": LambdaML,
        "lambdaml-hiredis": LambdaMLHiredis,
        "lambdaml-hscan": LambdaMLScan,
        "redis-py": RedisPy,
    }
    for name in seating.peers:
        if name in over_redis:
            assert seating.redis_meeting is not None
            found[name] = over_redis[name](seating.redis_meeting, rank, world_size, elements)
        else:
            found[name] = Gloo(seating.gloo_meeting, rank, world_size, elements)
        stack.callback(found[name].close)
    return found


def main() -> None:
    """Of the process."""
    number, parent = map(int, sys.argv[1:])
    if die_with_parent(parent):
        with Connection(number) as connection:
            run(Line(connection))


if __name__ == "__main__":
    main()
