"""A planner of one line."""

from smlt.core.planner import Allocation, Plan, Planner


class FrugalPlanner(Planner):
    """One worker of the smallest size, unless the user says otherwise."""

    def _do_propose(self, request):
        memory = request.memory_mib or request.memory_choices_mib[0]
        return Plan(Allocation(request.workers or 1, memory, request.sync), "one worker is the cheapest")
