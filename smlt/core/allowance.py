"""Money and time that a run may use: whether more functions can be paid, and when a limit is reached."""

from __future__ import annotations

from smlt.core.run_events import Started, Terms, Tick


class Allowance:
    """Holds a run to its budget and its deadline.

    Args:
        terms: of the run.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._started_at = 0.0
        self._committed_usd = 0.0
        self._worker_usd = 0.0
        self._leased_usd = 0.0
        self._larger_worker_usd = 0.0

    def started(self, event: Started) -> None:
        """The clock runs; money was spent by earlier sessions."""
        self._started_at, self._committed_usd, self._worker_usd = event.now, event.spent_usd, event.worker_usd

    def ticked(self, event: Tick) -> None:
        """The ledger was read."""
        self._committed_usd, self._worker_usd = event.committed_usd, event.worker_usd
        self._leased_usd, self._larger_worker_usd = event.leased_usd, event.larger_worker_usd

    def enlarged(self) -> None:
        """Functions are of the next larger size from now on; of the one after that the next tick knows the price."""
        self._worker_usd = self._larger_worker_usd

    def launched(self, functions: int) -> None:
        """So many functions are started, which the ledger will know when it is read next."""
        self._committed_usd += functions * self._worker_usd

    def can_pay(self, functions: int) -> bool:
        """Whether so many functions more can be started, and stopped cleanly, within the budget."""
        budget_usd = self._terms.budget_usd
        if budget_usd is None:
            return True
        return self.has_money and self._committed_usd + functions * self._worker_usd <= budget_usd

    @property
    def has_money(self) -> bool:
        """Whether the budget is not committed to the last cent."""
        return self._terms.budget_usd is None or self._committed_usd < self._terms.budget_usd

    @property
    def is_spent(self) -> bool:
        """Whether nothing is left of what was set aside for stopping: the functions must be ended now."""
        return self._terms.budget_usd is not None and self._leased_usd >= self._terms.budget_usd

    def left_s(self, now: float) -> float:
        """Seconds to the deadline; infinite without one."""
        deadline_s = self._terms.deadline_s
        return float("inf") if deadline_s is None else self._started_at + deadline_s - now

    def limit_reached(self, now: float, stopping_s: float) -> str:
        """Which limit is reached by a run that takes so long to stop; empty for none."""
        if self.left_s(now) < stopping_s:
            return "deadline"
        return "" if self.has_money else "budget"
