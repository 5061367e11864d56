"""Between a run's driver and its `Adaptation`: what was done goes one way, another plan as an event the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from smlt.core.adaptation import Adaptation, Change, Rest, Standing
from smlt.core.controller import Controller
from smlt.core.job import LimitsSection
from smlt.core.ledger import Ledger
from smlt.core.planner import Allocation, Sync
from smlt.core.run_events import Launch, PlanChanged
from smlt.core.runlog import RunLog
from smlt.core.task import TaskShape

NEWS = 0.05
"""A prediction is told that differs by this part from the one that was told before."""

MakeAdaptation = Callable[[TaskShape, float], Adaptation | None]
"""From what a rank says of its task, and the seconds that it took to be READY; None where no fleet is left open."""


class Replanning:
    """Plans one session's fleet anew.

    Args:
        make: once a rank has said what its task is.
        limits: of the job.
        sync: of all fleets.
        ledger, log: of the run.
        began: when the session did, by the clock of all events.
        lease_s: of functions.
    """

    def __init__(
        self,
        make: MakeAdaptation,
        limits: LimitsSection,
        sync: Sync,
        ledger: Ledger,
        log: RunLog,
        began: float,
        lease_s: float,
    ) -> None:
        self._make, self._limits, self._sync = make, limits, sync
        self._ledger, self._log, self._began, self._lease_s = ledger, log, began, lease_s
        self._adaptation: Adaptation | None = None
        self._is_asked = False
        self._fleets: dict[int, Allocation] = {}
        self._steps = 0
        self._told_finish_s = 0.0
        self._proposed: Change | None = None

    def launched(self, command: Launch) -> None:
        """A function is launched: its generation's fleet is known from the first one."""
        fleet = Allocation(command.workers, command.memory_mib, self._sync)
        self._fleets.setdefault(command.address.generation, fleet)

    def workers_of(self, generation: int) -> int:
        """Ranks of a generation; 0 of one that another session has launched."""
        return self._fleets[generation].workers if generation in self._fleets else 0

    def ready(self, shape: TaskShape, now: float) -> None:
        """A rank has built its task."""
        if not self._is_asked:
            self._is_asked, self._adaptation = True, self._make(shape, now - self._began)

    def recorded(self, kind: str, data: Mapping[str, Any]) -> None:
        """The controller has noted something."""
        adaptation = self._adaptation
        fleet = self._fleets.get(data["generation"]) if "generation" in data else None
        if kind == "steps":
            self._steps += len(data["items"])
            if adaptation and fleet:
                adaptation.saw(fleet, data["items"])
        elif kind == "memory_raised" and adaptation and fleet:
            adaptation.ran_out_of_memory(Allocation(fleet.workers, data["from_mib"], fleet.sync))
        elif kind == "replanned" and adaptation and self._proposed:
            adaptation.changed(self._proposed)

    def proposal(self, machine: Controller, now: float) -> PlanChanged | None:
        """Another fleet, where what generations really did asks for one."""
        adaptation = self._adaptation
        if adaptation is None or not machine.is_as_wanted:
            return None
        before = adaptation.prediction
        self._proposed = adaptation.look(self._standing(machine, now))
        if adaptation.prediction and adaptation.prediction != before:
            self._tell(machine.steps_left, adaptation.prediction, now)
        if self._proposed is None:
            return None
        found = self._proposed.allocation
        return PlanChanged(now, found.workers, found.memory_mib, dict(self._proposed.why))

    def _standing(self, machine: Controller, now: float) -> Standing:
        """What is left, once the time and the money to stop in order are set aside."""
        limits, stopping_s, fleet = self._limits, machine.stopping_s, self._fleets[max(self._fleets)]
        return Standing(
            machine.steps_left,
            None if limits.deadline is None else self._began + limits.deadline - now - stopping_s,
            None if limits.budget is None else limits.budget - self._ledger.items_usd(now)["total"],
            fleet.workers * self._ledger.price_usd_per_s(fleet.memory_mib),
            self._ledger.store_usd / max(1, self._steps),
            self._lease_s + stopping_s,
        )

    def _tell(self, steps_left: int, rest: Rest, now: float) -> None:
        """Of the whole of this session, with the fleet that trains; where it is news."""
        finish_s = now - self._began + rest.seconds
        if not self._told_finish_s or abs(finish_s / self._told_finish_s - 1) > NEWS:
            self._told_finish_s = finish_s
            usd = self._ledger.items_usd(now)["total"] + rest.usd
            self._log.append("predicted", {"steps_left": steps_left, "finish_s": finish_s, "usd": usd})
