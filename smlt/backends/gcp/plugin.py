"""Registers the provider gcp."""

from __future__ import annotations

from collections.abc import Mapping

from smlt.core.plugins import Entry, hookimpl

api_version = (1, 0)


@hookimpl
def smlt_backends() -> Mapping[str, Entry]:
    """The backend."""
    summary = "Google Cloud: Cloud Run, Cloud Storage, Memorystore; planned for, not launched on yet"
    return {"gcp": Entry("smlt.backends.gcp.backend:GcpBackend", summary=summary)}
