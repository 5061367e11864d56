"""The planner that takes the user's word: a fixed allocation, and a plain rule for what is left open."""

from __future__ import annotations

from smlt.core.planner import Allocation, Plan, Planner, PlanRequest


class FixedPlanner(Planner):
    """Keeps what the user fixed; otherwise one worker a core (two on a cloud) and the smallest memory on offer."""

    def _do_propose(self, request: PlanRequest) -> Plan:
        workers, reason = request.workers, "as asked"
        if workers is None:
            wanted = request.vcpus_at_hand or 2
            workers = max(1, min(wanted, request.max_workers))
            reason = "one worker a core" if request.vcpus_at_hand else "two workers unless told otherwise"
        memory = request.memory_mib or request.memory_choices_mib[0]
        return Plan(Allocation(workers, memory, request.sync), reason)
