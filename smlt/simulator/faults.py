"""What goes wrong, done to a world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from smlt.core.run_events import CancelRequested, ScaleRequested
from smlt.simulator.scenario import WISHES, Fault

if TYPE_CHECKING:
    from smlt.simulator.process import Process
    from smlt.simulator.world import World


def strike(world: World, fault: Fault) -> None:
    """A fault's time has come: it strikes now, or lies in wait for a process that comes to its point."""
    if world.trace is not None:
        world.trace.note("fault", repr(fault))
    if fault.point:
        world.traps.setdefault(fault.point, []).append(fault)
    elif fault.kind in _ON_WORLD:
        world.has_struck |= fault.kind not in WISHES
        _ON_WORLD[fault.kind](world, fault)
    else:
        process = world.target(fault.rank)
        if process:
            strike_process(world, process, fault)


def strike_process(world: World, process: Process, fault: Fault) -> None:
    """A fault strikes one process."""
    world.has_struck = True
    if world.trace is not None:
        world.trace.note(process.uuid, f"is struck: {fault.kind}")
    if process.formation is not None:
        process.formation.explode()
    _ON_PROCESS[fault.kind](world, process, fault)


# One process


def _kill(world: World, process: Process, fault: Fault) -> None:
    process.exit("killed", lost=True)


def _hang(world: World, process: Process, fault: Fault) -> None:
    process.is_hung = True


def _freeze(world: World, process: Process, fault: Fault) -> None:
    process.is_frozen = True
    world.timeline.after(fault.seconds, process.wake)


def _slow(world: World, process: Process, fault: Fault) -> None:
    process.slowness = fault.factor
    world.timeline.after(fault.seconds, _recover, process)


def _recover(process: Process) -> None:
    process.slowness = 1.0


def _skew(world: World, process: Process, fault: Fault) -> None:
    process.skew_s += world.rng.choice((-1.0, 1.0)) * 10.0 * fault.factor


def _late_mail(world: World, process: Process, fault: Fault) -> None:
    process.courier.busy_until_s = world.timeline.now + fault.seconds


def _doubled_mail(world: World, process: Process, fault: Fault) -> None:
    process.courier.doubles = 5


def _lost_mail(world: World, process: Process, fault: Fault) -> None:
    process.courier.loses = 3


def _deaf(world: World, process: Process, fault: Fault) -> None:
    process.courier.deaf_until_s = world.timeline.now + fault.seconds


def _unplug(world: World, process: Process, fault: Fault) -> None:
    process.is_unplugged = True
    if process.is_waiting and process.joined is not None:
        world.timeline.after(0.0, process.resume, process.ticket, type(process).broken)


def _out_of_memory(world: World, process: Process, fault: Fault) -> None:
    """From now on functions of this rank need more."""
    world.needs_mib[process.rank] = round(fault.factor * world.terms.memory_mib)
    if process.is_short_of_memory:
        process.run_out_of_memory()


# What is shared


def _retry(world: World, fault: Fault) -> None:
    world.platform.retries += 1


def _never_ready(world: World, fault: Fault) -> None:
    world.platform.never_ready += 1


def _store_down(world: World, fault: Fault) -> None:
    world.store.down_until_s = world.timeline.now + fault.seconds


def _store_errors(world: World, fault: Fault) -> None:
    world.store.errors_until_s = world.timeline.now + fault.seconds


def _channel_restart(world: World, fault: Fault) -> None:
    for process, ticket in world.channel.restart():
        world.timeline.after(world.draw(world.timing.channel_s), process.resume, ticket, type(process).broken)


def _launch_failure(world: World, fault: Fault) -> None:
    world.platform.refuses_until_s = world.timeline.now + fault.seconds


def _throttle(world: World, fault: Fault) -> None:
    world.platform.throttle = max(1, int(fault.factor))
    world.platform.throttles_until_s = world.timeline.now + fault.seconds


def _controller_crash(world: World, fault: Fault) -> None:
    pilot = world.pilots[-1]
    if not pilot.is_over():
        pilot.crash()
        world.timeline.after(world.scenario.successor_s, world.succeed)


def _two_controllers(world: World, fault: Fault) -> None:
    pilot = world.pilots[-1]
    if not pilot.is_over():
        pilot.frozen_until_s = world.timeline.now + fault.seconds
        world.timeline.after(fault.seconds * 0.9, world.succeed)


def _damage(world: World, fault: Fault) -> None:
    """The newest checkpoint cannot be read any more by some rank."""
    if world.store.checkpoints:
        world.store.damaged[max(world.store.checkpoints)] = fault.rank


def _massacre(world: World, fault: Fault) -> None:
    """Several at once."""
    for process in list(world.platform.processes.values()):
        if world.rng.random() < min(1.0, fault.factor / 20.0):
            process.exit("killed", lost=True)


def _scale(world: World, fault: Fault) -> None:
    workers = max(1, min(world.terms.max_workers, int(world.scenario.workers * fault.factor / 10.0)))
    world.pilots[-1].tell(ScaleRequested(world.timeline.now, workers))


def _longer_steps(world: World, fault: Fault) -> None:
    world.timing = replace(world.timing, step_s=world.timing.step_s * (1.0 + fault.factor / 3.0))


def _cancel(world: World, fault: Fault) -> None:
    world.pilots[-1].tell(CancelRequested(world.timeline.now))


_ON_PROCESS: dict[str, Callable[[World, Process, Fault], None]] = {
    "kill": _kill,
    "hang": _hang,
    "freeze": _freeze,
    "slow": _slow,
    "skew": _skew,
    "late_mail": _late_mail,
    "doubled_mail": _doubled_mail,
    "lost_mail": _lost_mail,
    "deaf": _deaf,
    "unplug": _unplug,
    "out_of_memory": _out_of_memory,
}
_ON_WORLD: dict[str, Callable[[World, Fault], None]] = {
    "retry": _retry,
    "never_ready": _never_ready,
    "store_down": _store_down,
    "store_errors": _store_errors,
    "channel_restart": _channel_restart,
    "launch_failure": _launch_failure,
    "throttle": _throttle,
    "controller_crash": _controller_crash,
    "two_controllers": _two_controllers,
    "massacre": _massacre,
    "damage": _damage,
    "scale": _scale,
    "cancel": _cancel,
    "longer_steps": _longer_steps,
}
