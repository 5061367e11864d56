"""The planner that takes the user's word: a fixed allocation, and a plain rule for what is left open."""

from __future__ import annotations

from dataclasses import replace

from smlt.core.errors import ConfigError
from smlt.core.planner import Allocation, Plan, Planner, PlanRequest, Survey


class FixedPlanner(Planner):
    """Keeps what the user fixed; otherwise one worker a core (two on a cloud) and the smallest memory on offer."""

    def _do_propose(self, request: PlanRequest) -> Plan:
        plan = self._forecast(request)
        if plan.forecast is not None and plan.forecast.standing == "missed":
            from smlt.planners.modelled import refusal

            raise ConfigError(*refusal(self._do_survey(request)))
        return plan

    def _do_survey(self, request: PlanRequest) -> Survey:
        """The rule's plan, and what else there would be by the model."""
        plan = self._forecast(request)
        if plan.forecast is None:
            return Survey((plan,), plan)
        from smlt.planners.modelled import AnalyticPlanner
        from smlt.planners.ranking import nearest

        is_feasible = plan.forecast.standing != "missed"
        others = AnalyticPlanner().survey(request)
        missed = [name for name, standing in plan.forecast.limits.items() if standing == "missed"]
        return Survey(
            plans=(plan, *(other for other in others.plans if other.allocation != plan.allocation)),
            chosen=plan if is_feasible else None,
            binding_limit=None if is_feasible else missed[0],
            nearest=None if is_feasible else nearest([plan], request),
            assumptions=others.assumptions,
        )

    @staticmethod
    def _forecast(request: PlanRequest) -> Plan:
        """What the rule says, with the model's forecast where there is a scene."""
        workers, reason = request.workers, "as asked"
        if workers is None:
            wanted = request.vcpus_at_hand or 2
            workers = max(1, min(wanted, request.max_workers))
            reason = "one worker a core" if request.vcpus_at_hand else "two workers unless told otherwise"
        plan = Plan(Allocation(workers, request.memory_mib or request.memory_choices_mib[0], request.sync), reason)
        if request.scene is None:
            return plan
        from smlt.planners.forecasts import Forecaster

        return replace(plan, forecast=Forecaster(request).forecast(plan.allocation))
