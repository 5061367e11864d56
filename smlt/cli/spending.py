"""Before money is spent: what a run would take and cost, and whether to go on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from smlt.core.errors import ConfigError, Interrupted

if TYPE_CHECKING:
    from smlt.core.engine import RunRequest
    from smlt.core.planner import Plan
    from smlt.core.plugins import Registry


def confirm_spending(request: RunRequest, registry: Registry, *, yes: bool) -> None:
    """Where functions cost money, show what they would and ask; `yes` and, without a terminal, a budget are an answer.

    Raises:
        ConfigError: money would be spent, there is nobody to ask, and no budget.
        Interrupted: the answer is no.
    """
    from smlt.core.price_settings import catalog_in_force

    spec, plan = request.spec, request.plan
    backend = registry.backend(spec.backend.name, spec.backend.options)
    if plan is None or backend.is_simulated:
        return
    catalog = catalog_in_force(backend.catalog, spec.prices)
    allocation = plan.allocation
    each = catalog.function.usd_per_s(allocation.memory_mib)
    if yes or not (each or catalog.function.usd_per_request):
        return
    if not sys.stdin.isatty():
        if spec.limits.budget is None:
            raise ConfigError(
                f"backend {backend.name!r} costs ${each * allocation.workers * 3600:.2g} an hour with "
                f"{allocation.workers} workers, and there is no terminal to ask",
                "give --budget 2usd, or -y",
            )
        return
    print(_table(plan, each, spec.limits.budget), file=sys.stderr)
    print("Proceed? [Y/n] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("", "y", "yes"):
        raise Interrupted("not started", "`smlt plan` shows what else there is")


def _table(plan: Plan, usd_per_s: float, budget_usd: float | None) -> str:
    from smlt.core.units import format_duration

    found, forecast = plan.allocation, plan.forecast
    lines = [
        f"fleet     {found.workers} workers of {found.memory_mib} MiB ({plan.reason})",
        f"price     ${usd_per_s * found.workers * 3600:.3g} an hour",
    ]
    if forecast is not None:
        time, cost = forecast.finish_s, forecast.cost_usd
        ends = f"{format_duration(time.low)} to {format_duration(time.high)}"
        lines += [
            f"finish    {format_duration(time.likely)} ({ends}; compute speed: {forecast.speed})",
            f"cost      ${cost.likely:.2g} (${cost.low:.2g} to ${cost.high:.2g})",
            *(f"          ${usd:.2g} {name}" for name, usd in forecast.cost_items_usd.items()),
        ]
    lines.append(f"budget    {f'${budget_usd:g}: the run stops there' if budget_usd is not None else 'none'}")
    return "\n".join(lines)
