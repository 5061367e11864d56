"""The loop that drives a controller: what happened in the world becomes events, commands become deeds."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from smlt._version import __version__
from smlt.core import checkpoint, layout, run_events
from smlt.core.adoption import NOTHING, adoptable
from smlt.core.backend import Launcher, Phase, RankSpec, RunPlace
from smlt.core.chaos import DRIVING, FaultPoints, once
from smlt.core.control import ControlDesk, Mailbox
from smlt.core.controller import Controller
from smlt.core.endings import AGREED
from smlt.core.errors import CloudError, SmltError
from smlt.core.exchange_bill import ExchangeBill
from smlt.core.lease import lease_s
from smlt.core.ledger import Ledger
from smlt.core.leftover import Leftover
from smlt.core.messages import Mail, Order
from smlt.core.orders import OrderBox
from smlt.core.planner import Plan
from smlt.core.replanning import MakeAdaptation, Replanning
from smlt.core.runlog import RunLog
from smlt.core.runs import OpenRun
from smlt.core.storage import ChannelSpec
from smlt.core.sync.names import FAST

FLUSH_S = 1.0
"""The run log is written so often."""


class Interrupts:
    """How a run is cancelled from another thread or a signal handler: once to stop softly, twice to stop at once."""

    def __init__(self) -> None:
        self._asked = 0

    def cancel(self) -> None:
        """Ask to stop: after a checkpoint the first time, at once the second time."""
        self._asked += 1

    @property
    def asked(self) -> int:
        """How often `cancel` was called."""
        return self._asked


SILENCE_S, SILENT_BEATS = 5.0, 5
"""A worker is lost that was not heard of for so long, and for so many beats."""

BLIND_S = 2.0
"""After a gap of so long between two looks (a store out of reach, a laptop asleep) nobody's silence means anything."""


@dataclass
class _Function:
    """A launched function: its address, its handle and its mail."""

    address: run_events.Address
    handle: str
    mailbox: Mailbox
    over: bool = False


class Driver:
    """Drives one session of one run.

    Args:
        run: the open run.
        place: where its functions run.
        plan: the allocation.
        channel: where gradients travel.
        desk: the control record.
        launcher: starts functions; the caller closes it.
        log: of the run.
        ledger: counts what is spent.
        adaptation: makes what plans the fleet anew.
    """

    def __init__(
        self,
        run: OpenRun,
        place: RunPlace,
        plan: Plan,
        channel: ChannelSpec,
        desk: ControlDesk,
        launcher: Launcher,
        log: RunLog,
        ledger: Ledger,
        adaptation: MakeAdaptation,
    ) -> None:
        self._run, self._place, self._plan, self._channel = run, place, plan, channel
        self._desk, self._launcher, self._log, self._ledger = desk, launcher, log, ledger
        allocation, limits = plan.allocation, run.spec.limits
        fleet_usd_per_s = allocation.workers * ledger.price_usd_per_s(allocation.memory_mib)
        self._lease_s = lease_s(run.backend.limits.orphan_grace_s, limits.budget, fleet_usd_per_s)
        self._functions: dict[run_events.Address, _Function] = {}
        offers = {each.name: each for each in run.backend.channel_offers()}
        self._bill = ExchangeBill(ledger, offers.get(allocation.sync.channel))
        self._orders = OrderBox(run.store, desk.epoch)
        self._faults = FaultPoints(run.backend.faults, -1, 0, desk.epoch - 1, once(run.store, -1))
        self._clock, self._beat_s = place.clock, run.backend.beat_s(allocation.workers)
        self._job = run.spec.to_plain()
        self._began = self._flushed_at = self._ticked_at = self._clock.monotonic()
        self._known = self._setbacks = 0
        self._goes_back = 2 * allocation.sync.exchange_every if allocation.sync.recovers_fast else 0
        self._told = NOTHING
        self._news: list[run_events.Event] = []
        self._finish: run_events.Finish | None = None
        self._replanning = Replanning(adaptation, limits, allocation.sync, ledger, log, self._began, self._lease_s)

    def drive(self, interrupts: Interrupts) -> run_events.Finish:
        """Until the controller says that the run is over; goes on with the functions of the one before, if it can."""
        run, limits = self._run, self._run.backend.limits
        machine = Controller(
            run_events.Terms(
                workers=self._plan.allocation.workers,
                memory_mib=self._plan.allocation.memory_mib,
                memory_choices_mib=limits.memory_choices_mib if limits.memory_is_enforced else (),
                max_workers=limits.max_workers,
                max_ranks=min(phase.size for phase in run.spec.job.batch_phases),
                largest_batch=max(phase.size for phase in run.spec.job.batch_phases),
                deadline_s=run.spec.limits.deadline,
                budget_usd=run.spec.limits.budget,
                time_limit_s=limits.function_time_limit_s,
                start_deadline_s=limits.start_deadline_s,
                exchange_every=self._plan.allocation.sync.exchange_every,
                has_private=self._plan.allocation.sync.has_private,
                silence_s=max(SILENCE_S, SILENT_BEATS * self._beat_s),
                stuck_s=max(SILENCE_S, SILENT_BEATS * self._beat_s),
            )
        )
        self._bill.begin(self._plan.allocation.workers, self._began)
        resume_from = checkpoint.latest_manifest(run.store)
        now = self._clock.monotonic()
        adopted = self._adopt(now, machine.stopping_s)
        self._ledger.left_behind(self._clock.monotonic())  # when they heard of their own last, nobody knows
        self._log.append("spent", self._spent(now))  # in the same segment as `created`: `orphans` relies on it
        self._known = run.before.step if adopted else self._take_over(layout.step_of(resume_from) if resume_from else 0)
        worker_usd = self._worker_usd(machine.stopping_s, machine.memory.mib)
        ranks = len(adopted.addresses) if adopted else 0
        spent_usd = self._ledger.committed_usd(now, machine.stopping_s) - worker_usd * ranks
        if run.stays_spent:
            spent_usd = max(spent_usd, run.before.budget_usd or 0.0)
        first = run.before.generation + 1
        started = run_events.Started(now, first, resume_from, self._known, spent_usd, worker_usd, adopted)
        self._handle(machine, started)
        if adopted:
            self._log.flush()  # whoever drives the run next must know that they may be running
        obeyed = 0
        while self._finish is None:
            self._desk.renew()
            self._flush()
            self._clock.sleep(self._beat_s / 4)
            for event in self._happenings(machine):
                self._handle(machine, event)
            for number, order in self._orders.read():
                self._handle(machine, _asked(self._clock.monotonic(), number, order))
                self._log.flush()  # somebody waits for the answer
            if proposal := self._replanning.proposal(machine, self._clock.monotonic()):
                self._handle(machine, proposal)
            while obeyed < interrupts.asked:
                obeyed += 1
                self._handle(machine, run_events.CancelRequested(self._clock.monotonic()))
        self._note(all_is_said=True)
        return self._finish

    def _adopt(self, now: float, stopping_s: float) -> run_events.Adopted | None:
        """Take over the functions in the open round; where that cannot be, end it, and they leave by themselves."""
        run, control = self._run, self._desk.control
        if control.round is None:
            return None
        found = adoptable(run, control.round, control.wish, now)
        addresses = (*found.adopted.addresses, *found.adopted.heirs) if found else ()
        handles = self._launcher.adopt([address.label for address in addresses]) if addresses else {}
        if found is None or not handles:
            self._desk.change(round=None, wish="", is_deciding=False)
            return None
        since = now - (self._clock.time() - found.paid_until)
        for address in addresses:
            label = address.label
            self._ledger.adopted(label, handles[label], since, found.memory_mib[address], found.lease_s[address])
        budget_usd = run.spec.limits.budget
        if budget_usd is not None and self._ledger.committed_usd(now, stopping_s) >= budget_usd:
            self._refuse(handles.values())
            return None
        for address in addresses:
            mailbox = self._launcher.mailbox(run.store, address, is_adopted=True)
            self._functions[address] = _Function(address, handles[address.label], mailbox)
        self._told = found.told
        self._desk.change(is_deciding=False)
        return found.adopted

    def _refuse(self, handles: Iterable[str]) -> None:
        """End functions whose leases, given under another budget or none, this one does not allow."""
        self._desk.change(round=None, wish="", is_deciding=False)
        for handle in handles:
            self._launcher.stop(handle)
            self._ledger.ended(handle, self._clock.monotonic())

    def _take_over(self, until: int) -> int:
        """Note what workers told a controller that did not live to; returns how many steps the log has now."""
        run, known = self._run, self._run.before.step
        left = Leftover.find(run.store, known, until)
        for evaluation in left.evaluations:
            self._log.append("evaluated", vars(evaluation))
        if left.steps:
            items = [vars(record) for record in left.steps]
            self._log.append("steps", {"generation": left.generation, "items": items})
        self._log.flush()
        left.clear(run.store)
        return known + len(left.steps)

    def _handle(self, machine: Controller, event: run_events.Event) -> None:
        for command in machine.handle(event):
            self._perform(command)
        if isinstance(event, run_events.StepsDone):
            self._faults.reach(DRIVING, event.steps[-1].step)

    def _perform(self, command: run_events.Command) -> None:
        match command:
            case run_events.Record(kind=kind, data=data):
                self._log.append(kind, {**data, "lease_s": self._lease_s} if kind == "launched" else data)
                self._replanning.recorded(kind, data)
                if kind == "steps":
                    self._known = data["items"][-1]["step"] + 1
                    self._bill.steps(data["items"], self._replanning.workers_of(data["generation"]))
                is_to_checkpoint = kind == "rolled_back" and self._known - data["step"] >= self._goes_back
                self._setbacks += is_to_checkpoint  # to an exchange costs as much, however old the checkpoint is
            case run_events.Launch():
                self._launch(command)
            case run_events.OpenRound(round=opened):
                before = self._desk.control.round
                goes_on = before is not None and before.generation == opened.generation
                self._desk.change(
                    round=opened,
                    wish=self._desk.control.wish if goes_on else "",
                    setbacks=self._setbacks,
                    observed_s=self._clock.monotonic() - self._began,
                )
            case run_events.Wish(reason=reason):
                self._desk.change(wish=reason)
            case run_events.StopWorkers():
                self._desk.change(stop_now=True)
            case run_events.Kill(address=address):
                self._kill([self._functions[address]] if address in self._functions else [])
            case run_events.KillWorkers():
                self._kill(self._functions.values())
            case run_events.FindState():
                self._news.append(run_events.StateFound(checkpoint.latest_manifest(self._run.store)))
            case run_events.Finish():
                self._finish = command

    def _kill(self, functions: Iterable[_Function]) -> None:
        for function in functions:
            if function.over:
                continue
            try:
                self._launcher.stop(function.handle)
            except SmltError as error:  # it is paid for until it ends, and its round is over: nobody waits for it
                self._log.append("stop_failed", {**vars(function.address), "detail": error.message})

    def _launch(self, command: run_events.Launch) -> None:
        run, limits, allocation = self._run, self._run.backend.limits, self._plan.allocation
        address = command.address
        self._replanning.launched(command)
        spec = RankSpec(
            run=run.name,
            generation=address.generation,
            rank=address.rank,
            world_size=command.workers,
            incarnation=address.incarnation,
            controller_epoch=self._desk.epoch,
            smlt_version=__version__,
            store=run.backend.object_store(self._place),
            channel=self._channel,
            job=self._job,
            bundle_sha256=run.parcel.sha256,
            task_module=run.parcel.module,
            task_class=run.parcel.class_name,
            task_payload=run.parcel.payload,
            scratch=run.backend.scratch(self._place),
            threads=run.backend.threads_for(command.workers),
            beat_s=self._beat_s,
            orphan_grace_s=min(limits.orphan_grace_s, self._lease_s / 2),
            lease_s=self._lease_s,
            time_limit_s=limits.function_time_limit_s,
            memory_mib=command.memory_mib,
            sync=allocation.sync,
            faults=run.backend.faults,
        )
        self._log.flush()  # whoever drives the run next must know that this generation may be running
        try:
            handle = self._launcher.launch(spec)
        except CloudError as error:
            self._news.append(run_events.LaunchFailed(self._clock.monotonic(), address, error.message, error.hint))
            return
        self._ledger.started(handle, self._clock.monotonic(), command.memory_mib, self._lease_s)
        mailbox = self._launcher.mailbox(run.store, address)
        self._functions[address] = _Function(address, handle, mailbox)

    def _happenings(self, machine: Controller) -> Iterator[run_events.Event]:
        """All that has happened since the last look; after a long time, first what it has cost."""
        events = list(self._news_of_functions())
        if self._is_blind:
            yield self._tick(machine)
        yield from events
        yield self._tick(machine)

    def _news_of_functions(self) -> Iterator[run_events.Event]:
        """A function's state is read before its mail, and told after it."""
        news, self._news = self._news, []
        yield from news
        living = [function for function in self._functions.values() if not function.over]
        states = self._launcher.poll([function.handle for function in living])
        for function in living:
            state = states[function.handle]
            for mail in function.mailbox.read():
                yield from self._events_of(function, mail)
            if state.phase in (Phase.ENDED, Phase.LOST):
                function.over = True
                now = self._clock.monotonic()
                self._ledger.ended(function.handle, now)
                self._log.append("ended", vars(function.address))
                lost = state.phase is Phase.LOST
                yield run_events.WorkerExited(now, function.address, lost, state.detail, state.out_of_memory)

    @property
    def _is_blind(self) -> bool:
        return self._clock.monotonic() - self._ticked_at > max(BLIND_S, self._beat_s)

    def _tick(self, machine: Controller) -> run_events.Tick:
        now, stopping_s, memory = self._clock.monotonic(), machine.stopping_s, machine.memory
        blind, self._ticked_at = self._is_blind, now
        committed_usd = self._ledger.committed_usd(now, stopping_s)
        leased_usd = self._ledger.committed_usd(now, self._beat_s)
        worker_usd, larger_usd = (self._worker_usd(stopping_s, mib) for mib in (memory.mib, memory.larger_mib or 0))
        return run_events.Tick(now, committed_usd, worker_usd, blind, leased_usd, larger_usd)

    def _worker_usd(self, stopping_s: float, memory_mib: int) -> float:
        """What one function more of this size commits: its lease, and the time to stop it cleanly."""
        return self._ledger.price_usd(self._lease_s + stopping_s, memory_mib)

    def _events_of(self, function: _Function, mail: Mail) -> Iterator[run_events.Event]:
        """One mail as events, in the order in which things happened in the worker."""
        now, address = self._clock.monotonic(), function.address
        for line in mail.output:
            self._log.append("output", {"generation": address.generation, "rank": address.rank, "text": line})
        yield run_events.Beat(now, address, mail.phase, mail.step, mail.awaits, mail.phase_s)
        if mail.ready:
            self._replanning.ready(mail.ready.shape, now)
            yield run_events.WorkerReady(now, address, mail.ready)
        steps = tuple(record for record in mail.steps if (record.round, record.step) > self._told)
        if steps:
            yield run_events.StepsDone(address, steps)
        for rejoined in mail.rejoined:
            self._log.append("rejoined", {**vars(address), **vars(rejoined), "recovery": FAST})
        for evaluation in mail.evaluations:
            yield run_events.EvaluationDone(evaluation)
        for done in mail.checkpoints:
            yield run_events.Checkpointed(done, layout.manifest(done.step), address)
        if mail.failure:
            yield run_events.WorkerFailed(now, address, mail.failure)
        if mail.left:
            manifest = layout.manifest(mail.left.step) if mail.left.reason in AGREED else ""
            yield run_events.WorkerLeft(now, address, mail.left, manifest)

    def _flush(self) -> None:
        now = self._clock.monotonic()
        if now - self._flushed_at < max(FLUSH_S, self._beat_s):
            return
        self._flushed_at = now
        self._log.append("spent", self._spent(now))
        self._note()

    def _spent(self, now: float) -> dict[str, float]:
        return {"usd": self._ledger.items_usd(now)["total"], "function_s": self._ledger.function_s(now)}

    def _note(self, *, all_is_said: bool = False) -> None:
        """Write the log; only then is mail cleared away, if what it says is in it."""
        self._log.flush()
        for function in list(self._functions.values()):
            function.mailbox.clear(math.inf if all_is_said else self._known)
            if function.over and function.mailbox.is_clear:
                del self._functions[function.address]


def _asked(now: float, number: int, order: Order) -> run_events.Event:
    if order.scale:
        return run_events.ScaleRequested(now, order.scale.workers, number)
    return run_events.CancelRequested(now, bool(order.cancel and order.cancel.at_once), number)
