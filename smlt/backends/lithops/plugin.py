"""Registers the Lithops backend."""

from __future__ import annotations

from collections.abc import Mapping

from smlt.core.plugins import Entry, hookimpl

api_version = (1, 0)


@hookimpl
def smlt_backends() -> Mapping[str, Entry]:
    """The backend."""
    return {
        "lithops": Entry("smlt.backends.lithops.backend:LithopsBackend", summary="through Lithops, on its localhost")
    }
