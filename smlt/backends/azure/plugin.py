"""Registers the provider azure."""

from __future__ import annotations

from collections.abc import Mapping

from smlt.core.plugins import Entry, hookimpl

api_version = (1, 0)


@hookimpl
def smlt_backends() -> Mapping[str, Entry]:
    """The backend."""
    summary = "Azure: Container Apps jobs or Functions, Blob Storage, Redis; planned for, not launched on yet"
    return {"azure": Entry("smlt.backends.azure.backend:AzureBackend", summary=summary)}


@hookimpl
def smlt_stores() -> Mapping[str, Entry]:
    """The store."""
    return {"azure": Entry("smlt.backends.azure.blob:BlobObjectStore", summary="a prefix of a Blob container")}
