"""What the ranks of one setting need beside themselves: a folder, servers, and where the channels are."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smlt.backends.channels.redis import probe
from smlt.backends.channels.redis_address import NAMESPACE
from smlt.backends.channels.shared_memory import SHARED_MEMORY
from smlt.bench.plan import Plan
from smlt.bench.redis_peer import RedisMeeting
from smlt.bench.redis_server import redis_server
from smlt.bench.request import ELEMENT_BYTES, Request, Setting
from smlt.core.backend import Backend, RunPlace
from smlt.core.errors import StorageError
from smlt.core.plugins import Registry
from smlt.core.storage import ChannelSpec
from smlt.core.units import format_bytes

SPARE_BYTES = 64 << 20
ANY_REDIS = "redis://127.0.0.1"


@dataclass(frozen=True)
class Served:
    """What there is while it is served.

    Attributes:
        folder: of this setting.
        channels: by name.
        redis: for peers; None where no server is needed.
        redis_server: what it is: its version where it is our own, else its URL; None where none is needed.
        note: what is other than usual; empty if nothing is.
    """

    folder: Path
    channels: dict[str, ChannelSpec]
    redis: RedisMeeting | None
    redis_server: str | None
    note: str


@contextmanager
def serving(request: Request, plan: Plan, setting: Setting, registry: Registry) -> Iterator[Served]:
    """Start what is needed; nothing of it is left afterwards."""
    parent = _parent_folder(setting)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="smlt-bench-", dir=parent)))
        url, server = (request.redis_url, request.redis_url) if plan.wants_redis else (None, None)
        if plan.wants_redis and url is None:
            own = stack.enter_context(redis_server(folder))
            url, server = own.url, own.version
        backend, place = backend_of(registry, url), RunPlace(folder.name, folder)
        specs = backend.channels(place)
        if url:
            probe(specs["redis"])
        stack.callback(backend.clean, place)
        for channel in plan.channels:
            stack.enter_context(backend.serving(channel, place))
        yield Served(
            folder,
            {channel: specs[channel] for channel in plan.channels},
            _meeting(specs["redis"]) if url else None,
            server,
            "" if parent else f"object: files on disk, {SHARED_MEMORY} has no room for them",
        )


def _meeting(spec: ChannelSpec) -> RedisMeeting:
    """On the first server; `clean` sweeps these keys with the channel's."""
    return RedisMeeting(spec.url.split(",")[0].strip(), f"{{{spec.options[NAMESPACE]}/peers}}")


def backend_of(registry: Registry, redis_url: str | None) -> Backend[Any]:
    """This machine, whose channels are measured."""
    return registry.backend("local", {"redis_url": redis_url} if redis_url else {})


def offered_channels(registry: Registry) -> list[str]:
    """The names of all channels there are on this machine, whether or not their server is at hand."""
    return list(backend_of(registry, ANY_REDIS).channels(RunPlace("bench", Path())))


def _parent_folder(setting: Setting) -> Path | None:
    """Files in memory, where there is room: contributions and sums of two steps, in files and in shared memory."""
    need = 4 * (setting.workers + 1) * setting.elements * ELEMENT_BYTES + SPARE_BYTES
    if os.access(SHARED_MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(SHARED_MEMORY).free >= need:
        return SHARED_MEMORY
    if shutil.disk_usage(tempfile.gettempdir()).free < need:
        raise StorageError(
            f"{format_bytes(need)} are needed for {setting.workers} ranks and {setting.megabytes:g} MB, and neither "
            f"{SHARED_MEMORY} nor {tempfile.gettempdir()} has them",
            "set TMPDIR to a folder with more room, or measure smaller vectors",
        )
    return None
