"""Registers the local backend, and the stores and channels of one machine."""

from __future__ import annotations

from collections.abc import Mapping

from smlt.core.plugins import Entry, hookimpl

api_version = (1, 0)


@hookimpl
def smlt_backends() -> Mapping[str, Entry]:
    """The backend."""
    return {
        "local": Entry(
            "smlt.backends.local.backend:LocalBackend", summary="processes of this machine, started in milliseconds"
        )
    }


@hookimpl
def smlt_stores() -> Mapping[str, Entry]:
    """Stores of one machine."""
    return {
        "file": Entry("smlt.backends.object_store:FileObjectStore", summary="a folder"),
        "memory": Entry("smlt.backends.object_store:MemoryObjectStore", summary="this process only, for tests"),
    }


@hookimpl
def smlt_channels() -> Mapping[str, Entry]:
    """Channels of one machine, and Redis, which any backend may offer."""
    return {
        "shared_memory": Entry(
            "smlt.backends.channels.shared_memory:SharedMemoryChannel", summary="memory that processes share"
        ),
        "redis": Entry("smlt.backends.channels.redis:RedisChannel", summary="a Redis or Valkey server"),
        "reducing": Entry("smlt.backends.channels.reducing:ReducingChannel", summary="a store that adds up itself"),
        "object": Entry(
            "smlt.backends.channels.object:ObjectChannel", summary="an object store, and nothing beside it"
        ),
    }
