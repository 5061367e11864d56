"""Registers our planners."""

from __future__ import annotations

from collections.abc import Mapping

from smlt.core.plugins import Entry, hookimpl

api_version = (1, 0)


@hookimpl
def smlt_planners() -> Mapping[str, Entry]:
    """Our planners by name."""
    return {
        "fixed": Entry(
            "smlt.planners.fixed:FixedPlanner", summary="what you ask for; one worker a core where you do not"
        )
    }
