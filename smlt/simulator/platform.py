"""The model of a cloud that runs functions: starts, refusals, retries of its own, the time limit, and the bill."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple

from smlt.core.errors import CloudError
from smlt.core.run_events import Address, Launch
from smlt.simulator.process import Process

if TYPE_CHECKING:
    from smlt.simulator.world import World


class Exit(NamedTuple):
    """A function is over, as the platform tells it from `seen_s` on."""

    seen_s: float
    address: Address
    lost: bool
    detail: str
    out_of_memory: bool


class Platform:
    """Runs processes.

    Attributes:
        processes: that are there, by uuid.
        refuses_until_s, throttle: until then no function is started; no more than so many a second.
        launched: functions that are there, without retries of the platform's own.
        launched_of: the same by generation.
        sizes, sizes_of: their sizes added up, the first size of the run being 1; and by generation.
        never_ready: so many of the next functions hang before they are READY.
        retries: so many of the next functions are started twice.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.processes: dict[str, Process] = {}
        self.handles: dict[Address, str] = {}
        self._exits: dict[int, list[Exit]] = {}
        self.refuses_until_s = -1.0
        self.throttles_until_s = -1.0
        self.throttle = 0
        self._second, self._in_second = -1, 0
        self.never_ready = 0
        self.retries = 0
        self._started = 0
        self.launched = 0
        self.launched_of: Counter[int] = Counter()
        self.sizes = 0.0
        self.sizes_of: defaultdict[int, float] = defaultdict(float)
        self._all_sizes = self._size_s = 0.0

    def launch(self, command: Launch, epoch: int) -> None:
        """Start a function.

        Raises:
            CloudError: it is refused.
        """
        world, now, address = self._world, self._world.timeline.now, command.address
        if now < self.refuses_until_s:
            raise CloudError("the platform does not answer")
        if now < self.throttles_until_s:
            if int(now) != self._second:
                self._second, self._in_second = int(now), 0
            self._in_second += 1
            if self._in_second > self.throttle:
                raise CloudError("429: too many requests")
        start_s = world.times(command).start_s
        uuid = self._new(command, epoch, world.draw(start_s))
        self.handles[address] = uuid
        self._count(self.processes[uuid], 1)
        if self.retries > 0:
            self.retries -= 1
            self._new(command, epoch, world.draw(start_s) * world.rng.choice((0.5, 1.0, 3.0)))

    def _count(self, process: Process, more: int) -> None:
        generation = process.address.generation
        self.launched += more
        self.launched_of[generation] += more
        self.sizes += more * process.size
        self.sizes_of[generation] += more * process.size

    def _new(self, command: Launch, epoch: int, start_s: float) -> str:
        world, timeline, address = self._world, self._world.timeline, command.address
        self._started += 1
        uuid = f"{address.generation}.{address.rank}.{address.incarnation}#{self._started}"
        process = Process(world, world.machine(address.rank), command, uuid, epoch)
        process.courier.heard_at_s += start_s
        self.processes[uuid] = process
        self._all_sizes += process.size
        self._size_s -= timeline.now * process.size
        if self.never_ready > 0 and self.retries == 0:
            self.never_ready -= 1
            process.is_hung = True
        timeline.after(start_s, process.resume, 0, Process.begin)
        if world.scenario.time_limit_s is not None:
            timeline.after(world.scenario.time_limit_s, self.expire, process)
        return uuid

    def expire(self, process: Process) -> None:
        """The time limit ends a function."""
        process.exit("time limit", lost=True)

    def stop(self, address: Address) -> None:
        """End the function that was launched as this, if it is still there; a retry of the platform's own is not."""
        process = self.running(address)
        if process:
            process.kill_asked = True
            if self._world.scenario.can_kill:
                process.exit("stopped", lost=True)

    def ended(self, process: Process, detail: str, *, lost: bool, out_of_memory: bool = False) -> None:
        """A process is over."""
        world, now = self._world, self._world.timeline.now
        del self.processes[process.uuid]
        self._all_sizes -= process.size
        self._size_s += now * process.size
        world.gone(process)
        if self.handles.get(process.address) == process.uuid:
            self._count(process, -1)
            over = Exit(now + world.timing.detect_s, process.address, lost, detail, out_of_memory)
            self._exits.setdefault(process.address.generation, []).append(over)

    def exits_seen(self, generation: int, now: float) -> list[Exit]:
        """Functions of a generation that are over, each told once."""
        exits = self._exits.get(generation)
        if not exits:
            return []
        self._exits[generation] = [each for each in exits if each.seen_s > now]
        return [each for each in exits if each.seen_s <= now]

    def running(self, address: Address) -> Process | None:
        """The function that was launched as this, if it is there; not a retry of the platform's own."""
        return self.processes.get(self.handles.get(address, ""))

    def size_s(self) -> float:
        """Seconds of all functions so far, from launch to end, each times its size."""
        return self._size_s + self._world.timeline.now * self._all_sizes
