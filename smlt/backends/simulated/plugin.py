"""Registers the simulated backend."""

from __future__ import annotations

from collections.abc import Mapping

from smlt.core.plugins import Entry, hookimpl

api_version = (1, 0)


@hookimpl
def smlt_backends() -> Mapping[str, Entry]:
    """The backend."""
    summary = "a provider's cloud on a virtual clock: every time and cost of a run, and no training"
    return {"simulated": Entry("smlt.backends.simulated.backend:SimulatedBackend", summary=summary)}
