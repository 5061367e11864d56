"""The model of a controller's process: what `smlt.core.driver` and `smlt.core.control` do, in virtual time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from smlt.core import run_events
from smlt.core.adoption import taking_part
from smlt.core.control import RENEW_S
from smlt.core.driver import BLIND_S
from smlt.core.endings import AGREED
from smlt.core.errors import CloudError
from smlt.core.messages import CheckpointDone, Control
from smlt.core.run_events import Address
from smlt.simulator.store import Letter

if TYPE_CHECKING:
    from smlt.simulator.world import World


class Pilot:
    """Drives one controller's machine.

    Args:
        world: where.
        epoch: of the control record, which it takes.
    """

    def __init__(self, world: World, epoch: int) -> None:
        self.world, self.epoch = world, epoch
        self.machine = world.controller(replace(world.terms, memory_mib=world.log_memory_mib))
        self.finish: run_events.Finish | None = None
        self._over = False
        self.frozen_until_s = -1.0
        self._renewed_at_s = self._ticked_at_s = world.timeline.now
        self._news: list[run_events.Event] = []
        self._generations: list[int] = []
        self._addresses: dict[Address, None] = {}
        self._expected: dict[Address, int] = {}
        self._course = world.log_step
        self._segments = world.log_segments
        self._lease_usd = world.scenario.usd_per_function_s * world.lease_s
        before = world.store.control
        goes_on = not before.closed and not before.stop_now
        world.store.control = Control(
            epoch=epoch, round=before.round if goes_on else None, wish=before.wish if goes_on else ""
        )

    def begin(self) -> None:
        """Take over the run."""
        world = self.world
        resume_from = world.store.newest()
        adopted = self._adopt()
        if adopted is None:
            self._change(round=None, wish="")
            self._course = max(self._course, int(resume_from or 0))
        # Functions that it does not go on with may still spend what their leases allow.
        others = max(0.0, world.platform.sizes - sum(world.platform.sizes_of[each] for each in self._generations))
        started = run_events.Started(
            self.now,
            world.log_generation + 1,
            resume_from,
            self._course,
            world.spent_usd() + others * self._lease_usd,
            self._worker_usd(self.machine.memory.mib),
            adopted,
        )
        self._handle(started)
        for generation in self._generations if adopted else ():
            for letter in self._unlogged(world.store.unlogged.get(generation, ())):
                steps = letter.extras.steps if letter.extras else ()
                news = tuple(step for step in steps if step.step >= world.log_step)
                if news:
                    self._handle(run_events.StepsDone(letter.address, news))
        self.look()

    def _adopt(self) -> run_events.Adopted | None:
        """The open round to go on with, as `smlt.core.adoption` finds it; None where there is none."""
        world = self.world
        opened = world.store.control.round
        if opened is None or not world.scenario.adopts or opened.generation not in world.log_ready:
            return None
        launched = world.log_launched[opened.generation]
        newest = [0] * len(opened.members)
        for address in launched:
            newest[address.rank] = max(newest[address.rank], address.incarnation)
        found = taking_part(opened, newest, world.log_lost, lambda address: world.store.claims.get(address, ""))
        lost = tuple(rank for rank, number in enumerate(found) if number is None)
        if len(lost) == len(found):
            return None
        if not self._can_go_on(opened.generation):
            return None
        incarnations = [newest[rank] if number is None else number for rank, number in enumerate(found)]
        addresses = [Address(opened.generation, rank, number) for rank, number in enumerate(incarnations)]
        self._generations.append(opened.generation)
        self._addresses.update(dict.fromkeys(addresses))
        self._addresses.update((Address(opened.generation, rank, number), None) for rank, number in enumerate(newest))
        return run_events.Adopted(
            round=opened,
            wish=world.store.control.wish,
            incarnations=tuple(incarnations),
            newest=tuple(newest),
            launched_at=tuple(launched[address][1] for address in addresses),
            memory_mib=tuple(launched[address][0]["memory_mib"] for address in addresses),
            lost=lost,
            total_steps=world.scenario.steps,
            eval_examples=world.shape.eval_examples,
        )

    def _can_go_on(self, generation: int) -> bool:
        """Whether there is the money for the leases of a generation, which begin anew if this controller goes on with
        it; else its functions are ended.
        """
        world, budget_usd = self.world, self.world.scenario.budget_usd
        mine = world.platform.sizes_of[generation]
        committed_usd = world.spent_usd() + mine * self._worker_usd(world.terms.memory_mib)
        if budget_usd is None or committed_usd + self._left_usd(mine) < budget_usd:
            return True
        for address in world.log_launched[generation]:
            world.platform.stop(address)
        return False

    def _left_usd(self, mine: float) -> float:
        """What the functions that others launched, and this one does not go on with, may still spend."""
        world = self.world
        others = max(0.0, world.platform.sizes - mine)
        heard_s = max((pilot._renewed_at_s for pilot in world.pilots if pilot is not self), default=self.now)
        left_s = max(0.0, heard_s + RENEW_S + world.timing.look_s + world.lease_s - self.now)
        return others * min(left_s, world.lease_s) * world.scenario.usd_per_function_s

    def is_over(self) -> bool:
        """Whether it drives the run no more."""
        return self._over

    def crash(self) -> None:
        """Its process is gone."""
        self._over = True

    @property
    def now(self) -> float:
        """Seconds by this controller's clock."""
        return self.world.timeline.now

    def look(self) -> None:
        """Once around the loop."""
        world = self.world
        if self.is_over():
            return
        blocked_s = max(self.frozen_until_s, world.store.down_until_s) - self.now
        if blocked_s > 0:
            world.timeline.after(blocked_s + 0.01, self.look)
            return
        self.frozen_until_s = -1.0  # who wakes up finishes what it was about to do before it looks around
        for event in self._happenings():
            self._handle(event)
        if not self.is_over() and self.now - self._renewed_at_s >= RENEW_S:
            self._change()
        if self.is_over():
            return
        world.timeline.after(world.timing.look_s, self.look)

    def tell(self, event: run_events.Event) -> None:
        """What a user asks for."""
        if not self.is_over() and self.frozen_until_s < 0:
            self._handle(event)

    def _happenings(self) -> Iterator[run_events.Event]:
        world, now = self.world, self.now
        news, self._news = self._news, []
        yield from news
        if self._is_blind:
            yield self._tick(now)
        for generation in self._generations if world.pilots[-1] is self else ():
            exits = world.platform.exits_seen(generation, now)
            yield from self._read(generation, now)
            for over in exits:
                yield run_events.WorkerExited(now, over.address, over.lost, over.detail, over.out_of_memory)
        yield self._tick(now)

    def _read(self, generation: int, now: float) -> Iterator[run_events.Event]:
        """The mail of a generation's functions, in its order; an adopted one's from the first that is there."""
        later: list[tuple[float, Letter]] = []
        inboxes = self.world.store.inboxes
        inbox = inboxes.get(generation, [])
        inboxes[generation] = later
        for item in inbox:
            letter = item[1]
            expected = self._expected.get(letter.address, letter.number)
            if letter.number < expected:
                continue  # it has been read
            if item[0] > now or letter.number > expected:
                later.append(item)
                continue
            self._expected[letter.address] = letter.number + 1
            yield run_events.Beat(now, letter.address, letter.phase, letter.step, letter.awaits, letter.phase_s)
            if letter.extras:
                yield from self._events_of(letter, now)
                self._retain(letter)

    def _retain(self, letter: Letter) -> None:
        """A mail stays until the steps that it tells of are in the log."""
        steps = letter.extras.steps if letter.extras else ()
        if steps and steps[-1].step >= self.world.log_step:
            retained = self.world.store.unlogged.setdefault(letter.address.generation, [])
            retained.append(letter)
            if len(retained) > 4 * self.world.scenario.workers:
                retained[:] = self._unlogged(retained)

    def _unlogged(self, letters: Iterable[Letter]) -> list[Letter]:
        known = self.world.log_step
        return [each for each in letters if each.extras and each.extras.steps[-1].step >= known]

    def _events_of(self, letter: Letter, now: float) -> Iterator[run_events.Event]:
        extras, address = letter.extras, letter.address
        assert extras is not None
        if extras.ready:
            yield run_events.WorkerReady(now, address, extras.ready)
        if extras.steps:
            yield run_events.StepsDone(address, extras.steps)
        for evaluation in extras.evaluations:
            yield run_events.EvaluationDone(evaluation)
        for step, seconds in extras.checkpoints:
            yield run_events.Checkpointed(CheckpointDone(step, 1, seconds), str(step), address)
        if extras.failure:
            yield run_events.WorkerFailed(now, address, extras.failure)
        if extras.left:
            manifest = str(extras.left.step) if extras.left.reason in AGREED else ""
            yield run_events.WorkerLeft(now, address, extras.left, manifest)

    @property
    def _is_blind(self) -> bool:
        return self.now - self._ticked_at_s > max(BLIND_S, 4 * self.world.timing.look_s)

    def _tick(self, now: float) -> run_events.Tick:
        world = self.world
        blind, self._ticked_at_s = self._is_blind, now
        rate, memory = world.scenario.usd_per_function_s, self.machine.memory
        spent_usd, sizes = world.spent_usd(), world.platform.sizes
        self._check_money()
        worker_usd, larger_usd = (self._worker_usd(mib) for mib in (memory.mib, memory.larger_mib or 0))
        leased_usd = spent_usd + sizes * (self._lease_usd + 1.5 * rate * world.timing.look_s)
        committed_usd = spent_usd + sizes * self._worker_usd(world.terms.memory_mib)
        return run_events.Tick(now, committed_usd, worker_usd, blind, leased_usd, larger_usd)

    def _worker_usd(self, memory_mib: int) -> float:
        """What one function more of this size commits."""
        world = self.world
        seconds = world.lease_s + self.machine.stopping_s
        return world.scenario.usd_per_function_s * seconds * memory_mib / world.terms.memory_mib

    def _check_money(self, more: float = 0.0) -> None:
        """What is spent, and what all functions, and one of size `more`, may still spend before their leases end them.

        Where nobody can end a function it ends in its own time, for which the rest of its lease is set aside.
        """
        world, left_s = self.world, self.world.lease_s
        if not (world.scenario.can_kill or more):
            world.invariants.money(world.spent_usd())
            return
        if not more:  # those that were not renewed for a while have less left
            left_s = max(0.0, min(left_s, self._renewed_at_s + RENEW_S + world.timing.look_s + left_s - self.now))
        mine = sum(world.platform.sizes_of[each] for each in self._generations)
        leased_usd = (mine + more) * left_s * world.scenario.usd_per_function_s
        world.invariants.money(world.spent_usd() + leased_usd + self._left_usd(mine))

    def _handle(self, event: run_events.Event) -> None:
        world = self.world
        if self.is_over():
            return
        if world.trace is not None:
            world.trace.told(self.epoch, event)
        for command in self.machine.handle(event):
            if world.trace is not None:
                world.trace.commanded(self.epoch, command)
            self._perform(command)
            if self.is_over():
                return

    def _perform(self, command: run_events.Command) -> None:
        world = self.world
        match command:
            case run_events.Record(kind=kind, data=data):
                self._record(kind, data)
            case run_events.Launch():
                self._launch(command)
            case run_events.OpenRound(round=opened):
                before = world.store.control.round
                goes_on = before is not None and before.generation == opened.generation
                wish = world.store.control.wish if goes_on else ""
                world.channel.forget_before((opened.generation, opened.number))
                self._change(round=opened, wish=wish)
            case run_events.Wish(reason=reason):
                self._change(wish=reason)
            case run_events.StopWorkers():
                self._change(stop_now=True)
            case run_events.Kill(address=address):
                world.platform.stop(address)
            case run_events.KillWorkers():
                for address in self._addresses:
                    world.platform.stop(address)
            case run_events.FindState():
                self._news.append(run_events.StateFound(world.store.newest()))
            case run_events.Finish():
                self._end(command)

    def _record(self, kind: str, data: dict[str, Any]) -> None:
        world = self.world
        if kind == "launched":
            generation = data["generation"]
            world.log_generation = max(world.log_generation, generation)
            address = Address(generation, data["rank"], data["incarnation"])
            world.log_launched.setdefault(generation, {})[address] = (data, self.now)
        elif kind == "lost":
            world.log_lost.add(Address(data["generation"], data["rank"], data["incarnation"]))
        elif kind == "memory_raised":
            world.log_memory_mib = data["memory_mib"]
        elif kind == "ready":
            world.log_ready.add(data["generation"])
        elif kind == "steps":
            steps = [item["step"] for item in data["items"]]
            world.invariants.steps_recorded(data["generation"], steps, self._course)
            self._course = world.log_step = steps[-1] + 1

    def _flush(self) -> None:
        """Write to the run log, which has one writer: who finds that another one has written is no controller now."""
        if self._segments == self.world.log_segments:
            self._segments += 1
            self.world.log_segments += 1
        else:
            self._over = True

    def _launch(self, command: run_events.Launch) -> None:
        world, address = self.world, command.address
        self._flush()
        if self.is_over():
            return
        launched = sum(world.platform.launched_of[each] for each in self._generations)
        world.invariants.launching(command, launched)
        self._expected.setdefault(address, 0)
        self._addresses[address] = None
        if address.generation not in self._generations:
            self._generations.append(address.generation)
        self._check_money(more=command.memory_mib / world.terms.memory_mib)
        try:
            world.platform.launch(command, self.epoch)
        except CloudError as error:
            self._news.append(run_events.LaunchFailed(self.now, address, error.message))

    def _change(self, **fields: Any) -> None:
        """Replace parts of the control record, unless another controller has taken over."""
        store = self.world.store
        if store.control.epoch != self.epoch:
            self._over = True
            return
        store.control = replace(store.control, beat=store.control.beat + 1, **fields)
        self._renewed_at_s = self.now

    def _end(self, finish: run_events.Finish) -> None:
        world = self.world
        world.invariants.finished(finish)
        self.finish = finish
        self._change(closed=True)
        self._over = True
        for address in self._addresses:
            world.platform.stop(address)
