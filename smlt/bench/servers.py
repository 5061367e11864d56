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
from smlt.backends.channels.redis_address import NAMESPACE, PASSWORD_FROM
from smlt.backends.channels.shared_memory import SHARED_MEMORY
from smlt.bench.channel_server import channel_server
from smlt.bench.folders import fresh_folder, sweep
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

REDUCING_TCP = "reducing-tcp"
"""The channel `reducing` over TCP, to a store that `smlt serve-channel` opens, beside the run's own over a socket."""


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
    temporary = Path(tempfile.gettempdir())
    sweep((SHARED_MEMORY, temporary), lambda left: backend_of(registry).clean(_place(left)))
    in_memory = _fits_in_memory(setting)
    with ExitStack() as stack:
        folder = stack.enter_context(fresh_folder(SHARED_MEMORY if in_memory else temporary))
        url, server = (request.redis_url, request.redis_url) if plan.wants_redis else (None, None)
        if plan.wants_redis and url is None:
            own = stack.enter_context(redis_server(folder))
            url, server = own.url, own.version
        backend = backend_of(registry, redis_url=url, redis_password_from=request.redis_password_from)
        place = _place(folder)
        specs = dict(backend.channels(place))
        if url:
            probe(specs["redis"])
        stack.callback(backend.clean, place)
        for channel in plan.channels:
            if channel == REDUCING_TCP:
                store = stack.enter_context(channel_server(folder, _need_bytes(setting) >> 20))
                at_store = backend_of(registry, reducing_url=store.url, reducing_token_file=store.token_file)
                specs[channel] = at_store.channels(place)["reducing"]
            else:
                stack.enter_context(backend.serving(channel, place))
        yield Served(
            folder,
            {channel: specs[channel] for channel in plan.channels},
            _meeting(specs["redis"]) if url else None,
            server,
            "" if in_memory else f"object: files on disk, {SHARED_MEMORY} has no room for them",
        )


def _place(folder: Path) -> RunPlace:
    return RunPlace(folder.name, folder)


def _meeting(spec: ChannelSpec) -> RedisMeeting:
    """On the first server; `clean` sweeps these keys with the channel's."""
    url, prefix = spec.url.split(",")[0].strip(), f"{{{spec.options[NAMESPACE]}/peers}}"
    return RedisMeeting(url, prefix, spec.options.get(PASSWORD_FROM, ""))


def backend_of(registry: Registry, **options: object) -> Backend[Any]:
    """This machine, whose channels are measured; an option that is None is left out."""
    return registry.backend("local", {name: value for name, value in options.items() if value is not None})


def offered_channels(registry: Registry) -> list[str]:
    """The names of all channels there are on this machine, whether or not their server is at hand."""
    return [*backend_of(registry, redis_url=ANY_REDIS).channels(RunPlace("bench", Path())), REDUCING_TCP]


def _need_bytes(setting: Setting) -> int:
    """For contributions and sums of two steps, in files and in shared memory."""
    return 4 * (setting.workers + 1) * setting.elements * ELEMENT_BYTES + SPARE_BYTES


def _fits_in_memory(setting: Setting) -> bool:
    """Whether files may be in memory, else on disk; raises StorageError where neither has room."""
    need = _need_bytes(setting)
    if os.access(SHARED_MEMORY, os.W_OK | os.X_OK) and shutil.disk_usage(SHARED_MEMORY).free >= need:
        return True
    if shutil.disk_usage(tempfile.gettempdir()).free < need:
        raise StorageError(
            f"{format_bytes(need)} are needed for {setting.workers} ranks and {setting.megabytes:g} MB, and neither "
            f"{SHARED_MEMORY} nor {tempfile.gettempdir()} has them",
            "set TMPDIR to a folder with more room, or measure smaller vectors",
        )
    return False
