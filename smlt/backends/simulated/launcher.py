"""Starts, watches and stops functions of a simulated cloud; what the controller writes is seen there as workers do."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from smlt.backends.simulated.clock import VirtualClock
from smlt.backends.simulated.store import ModelMailbox
from smlt.backends.simulated.world import CloudWorld
from smlt.core import layout, wire
from smlt.core.backend import FunctionState, Launcher, Phase, RankSpec
from smlt.core.control import Mailbox
from smlt.core.errors import JobFailed
from smlt.core.messages import Control
from smlt.core.run_events import Address, Launch
from smlt.core.storage import ObjectStore

RUNNING = FunctionState(Phase.RUNNING)


class SimulatedLauncher(Launcher):
    """One run's functions in a virtual world, which is made for the first of them.

    Args:
        clock: goes on with the world.
        objects: the run's store.
        make_world: from the first function's spec.
    """

    def __init__(
        self, clock: VirtualClock, objects: ObjectStore, make_world: Callable[[RankSpec, ObjectStore], CloudWorld]
    ) -> None:
        self._clock, self._objects, self._make_world = clock, objects, make_world
        self._made: CloudWorld | None = None
        self._over: dict[str, FunctionState] = {}
        self._generations: set[int] = set()
        self._control = b""
        self._looks = 0

    @property
    def _world(self) -> CloudWorld:
        if self._made is None:
            raise JobFailed("a simulated cloud was asked for functions before any was launched", "this is a bug")
        return self._made

    def mailbox(self, store: ObjectStore, address: Address, *, is_adopted: bool = False) -> Mailbox:
        """Simulated functions write no files: there may be thousands."""
        del store, is_adopted
        return ModelMailbox(self._world.store, address)

    def _do_launch(self, spec: RankSpec) -> str:
        if self._made is None:
            self._made = self._make_world(spec, self._objects)
            self._clock.before_sleep = self._look_at_control
        address = Address(spec.generation, spec.rank, spec.incarnation)
        self._generations.add(spec.generation)
        self._world.platform.launch(Launch(address, spec.world_size, spec.memory_mib), spec.controller_epoch)
        return spec.label

    def _do_poll(self, handles: Sequence[str]) -> Mapping[str, FunctionState]:
        for generation in self._generations:
            for over in self._world.platform.exits_seen(generation, self._clock.monotonic()):
                phase = Phase.LOST if over.lost else Phase.ENDED
                self._over[over.address.label] = FunctionState(phase, over.detail, over.out_of_memory)
        return {handle: self._over.get(handle, RUNNING) for handle in handles}

    def _do_stop(self, handle: str) -> None:
        generation, rank, incarnation = (int(part) for part in handle.split("."))
        self._world.platform.stop(Address(generation, rank, incarnation))

    def _look_at_control(self) -> None:
        """What the controller says is in the run's store; that it goes on looking is its sign of life here."""
        store, self._looks = self._world.store, self._looks + 1
        data = self._objects.get(layout.CONTROL)
        if data != self._control:
            self._control = data
            found = wire.unpack(data, Control)
            if found.round is not None:
                there, step = store.control.round, found.round.resume_from
                opened = replace(found.round, resume_from=str(layout.step_of(step)) if step else "")
                found = replace(found, round=there if there == opened else opened)
            store.control = found
        store.control = replace(store.control, beat=self._looks)
