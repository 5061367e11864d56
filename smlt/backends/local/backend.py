"""The local backend: plain processes, a folder as the object store, shared memory between ranks; no account."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import ClassVar

from pydantic import ConfigDict, Field, field_validator

from smlt.backends.channels.redis_address import addresses_of
from smlt.backends.channels.reducing_protocol import Address
from smlt.backends.file_store import UNLISTED
from smlt.backends.process_launcher import ProcessLauncher
from smlt.backends.served_launcher import WORKER
from smlt.core.backend import Backend, BackendOptions, CheckResult, Launcher, Limits, RunPlace
from smlt.core.catalog import Catalog, load_catalog
from smlt.core.chaos import Fault, parse_faults
from smlt.core.errors import ConfigError, SmltError
from smlt.core.job import Seconds
from smlt.core.scene import ChannelOffer
from smlt.core.storage import ChannelSpec, StoreSpec
from smlt.core.units import format_bytes

FRAMEWORKS = ("torch", "tensorflow")


class LocalOptions(BackendOptions):
    """`[backend]` of the local backend."""

    model_config = ConfigDict(hide_input_in_errors=True)  # a URL may have a password in it, though it is refused

    function_time_limit: Seconds | None = Field(
        None, description="kill a function after this long, as a cloud would; for example 20s"
    )
    worker_threads: int | None = Field(
        None, ge=1, description="threads of each worker's mathematics; cores / workers where not given"
    )
    max_workers: int = Field(64, ge=1, description="most processes at once")
    enforce_memory: bool = Field(
        False, description="let a worker have no more memory than [workers].memory, as a cloud would (Linux only)"
    )
    usd_per_gib_s: float = Field(0.0, ge=0.0, description="a made-up price of memory, for trying a budget at home")
    redis_url: str | None = Field(
        None,
        description="for the channel redis: a server, or several separated by commas; without a password",
        examples=["redis://localhost:6379"],
    )
    redis_password_from: str | None = Field(
        None, description="the environment variable that holds the password", examples=["REDIS_PASSWORD"]
    )
    redis_ca_file: Path | None = Field(
        None, description="certificates to trust for rediss:// URLs, instead of the system's", examples=["ca.pem"]
    )

    reducing_url: str | None = Field(
        None,
        description="for the channel reducing: where `smlt serve-channel` listens; without it the run has its own",
        examples=["tcp://127.0.0.1:7700"],
    )
    reducing_token_file: Path | None = Field(
        None, description="holds the secret of the store at reducing_url", examples=["token.txt"]
    )

    chaos: tuple[str, ...] = Field(
        (),
        description="what shall go wrong on purpose, for trying recovery: kill, hang, freeze, slow, controller_exit",
        examples=[["kill:rank=1,step=7", "hang:rank=0,step=9,at=saving", "controller_exit:step=20"]],
    )

    @field_validator("chaos")
    @classmethod
    def _are_faults(cls, chaos: tuple[str, ...]) -> tuple[str, ...]:
        try:
            parse_faults(chaos)
        except ConfigError as error:
            raise ValueError(f"{error.message} ({error.hint})" if error.hint else error.message) from None
        return chaos

    @field_validator("enforce_memory")
    @classmethod
    def _can_be_enforced(cls, enforce: bool) -> bool:
        if enforce and sys.platform != "linux":
            raise ValueError("only Linux can hold a process to an amount of memory (leave it out: nothing is enforced)")
        return enforce

    @field_validator("redis_url")
    @classmethod
    def _is_a_url(cls, url: str | None) -> str | None:
        try:
            if url is not None:
                addresses_of(url)
        except ConfigError as error:
            raise ValueError(f"{error.message} ({error.hint})") from None
        return url

    @field_validator("reducing_url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        try:
            return url and str(Address.parse(url))
        except ConfigError as error:
            raise ValueError(f"{error.message} ({error.hint})") from None


class LocalBackend(Backend[LocalOptions]):
    """This machine."""

    Options = LocalOptions
    catalog_package: ClassVar[str] = "smlt.backends.local"

    @property
    def limits(self) -> Limits:
        """Of this machine and the options; without `enforce_memory`, sizes are labels that a price can be put on."""
        return Limits(
            max_workers=self.options.max_workers,
            memory_choices_mib=(1024, 2048, 4096, 8192, 16384),
            function_time_limit_s=self.options.function_time_limit,
            vcpus_at_hand=cores(),
            beat_s=0.1,
            orphan_grace_s=8.0,
            start_deadline_s=120.0,
            memory_is_enforced=self.options.enforce_memory,
        )

    @property
    def catalog(self) -> Catalog:
        """Free, or at the price of the option `usd_per_gib_s`."""
        listed = load_catalog(self.catalog_package)
        if not self.options.usd_per_gib_s:
            return listed
        function = listed.function.model_copy(update={"usd_per_gib_s": self.options.usd_per_gib_s})
        return listed.model_copy(update={"function": function, "source": "the option usd_per_gib_s"})

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The option `chaos`."""
        return parse_faults(self.options.chaos)

    def launcher(self, place: RunPlace) -> Launcher:
        """A fork server with `place.preload` imported."""
        return ProcessLauncher(place, self.worker)

    @property
    def worker(self) -> str:
        """What a function runs."""
        return "smlt.backends.local.limited:work" if self.options.enforce_memory else WORKER

    def object_store(self, place: RunPlace) -> StoreSpec:
        """The run's folder."""
        return StoreSpec("file", (place.runs_dir.absolute() / place.run).as_uri())

    def channels(self, place: RunPlace) -> Mapping[str, ChannelSpec]:
        """Shared memory, a Redis server where one is named, a store that adds up, or files."""
        from smlt.backends.channels import shared_memory
        from smlt.backends.channels.object import spec_for

        return {
            "shared_memory": shared_memory.spec_for(place),
            **({"redis": self._redis(place)} if self.options.redis_url else {}),
            "reducing": self._reducing(place),
            "object": spec_for(StoreSpec("file", _channel_folder(place).as_uri())),
        }

    def channel_offers(self) -> Sequence[ChannelOffer]:
        """What was measured of shared memory; its figures are in the price list, at no price."""
        from smlt.backends.channels.shared_memory import SharedMemoryChannel

        return [ChannelOffer("shared_memory", SharedMemoryChannel.capabilities, "servers", "shared_memory")]

    def serving(self, channel: str, place: RunPlace) -> AbstractContextManager[None]:
        """A reducing store of the run's own, where none is named."""
        if channel != "reducing" or self.options.reducing_url:
            return super().serving(channel, place)
        from smlt.backends.channels import reducing_service

        return reducing_service.serving(place)

    def threads_for(self, workers: int) -> int:
        """The option `worker_threads`, or an equal share of the cores."""
        return self.options.worker_threads or super().threads_for(workers)

    def check(self) -> Sequence[CheckResult]:
        """Cores, frameworks, and memory to share."""
        return [
            CheckResult("cores", "pass", f"{cores()} at hand"),
            _shared_memory(),
            *([self._check_redis()] if self.options.redis_url else []),
            *([self._check_reducing()] if self.options.reducing_url else []),
            *(_framework(name) for name in FRAMEWORKS),
        ]

    def clean(self, place: RunPlace) -> Sequence[str]:
        """Remove what the run's channels left."""
        from smlt.backends.channels import reducing_service, shared_memory

        removed = shared_memory.sweep(place)
        for folder in (_channel_folder(place), reducing_service.folder_for(place)):
            if folder.is_dir():
                shutil.rmtree(folder)
                removed.append(str(folder))
        if self.options.redis_url:
            from smlt.backends.channels import redis

            with suppress(SmltError):  # a server that cannot be reached forgets them by itself
                removed += redis.sweep(self._redis(place))
        return removed

    def _redis(self, place: RunPlace) -> ChannelSpec:
        from smlt.backends.channels import redis

        options = self.options
        return redis.spec_for(place, options.redis_url or "", options.redis_password_from, options.redis_ca_file)

    def _check_redis(self) -> CheckResult:
        from smlt.backends.channels import redis

        try:
            redis.probe(self._redis(RunPlace("check", Path())))
        except SmltError as error:
            return CheckResult("redis", "fail", error.message, error.hint or "is it the right server?")
        return CheckResult("redis", "pass", f"{self.options.redis_url} answers")

    def _reducing(self, place: RunPlace) -> ChannelSpec:
        from smlt.backends.channels import reducing_service

        url, token_file = self.options.reducing_url, self.options.reducing_token_file
        return reducing_service.spec_at(place, url, token_file) if url else reducing_service.spec_for(place)

    def _check_reducing(self) -> CheckResult:
        from smlt.backends.channels import reducing

        try:
            reducing.probe(self._reducing(RunPlace("check", Path())))
        except SmltError as error:
            return CheckResult("reducing store", "fail", error.message, error.hint or "smlt serve-channel")
        return CheckResult("reducing store", "pass", f"{self.options.reducing_url} answers")


def _channel_folder(place: RunPlace) -> Path:
    """Where gradients travel as files."""
    return place.runs_dir.absolute() / place.run / UNLISTED / "channel"


def cores(quota_file: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: those it may run on, or as many as its container's quota is worth if fewer."""
    affinity = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    available = len(affinity)
    try:
        quota, period = quota_file.read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return available
    return available if quota == "max" else max(1, min(available, int(quota) // int(period)))


def _shared_memory() -> CheckResult:
    from smlt.backends.channels.shared_memory import SHARED_MEMORY

    if not SHARED_MEMORY.is_dir():
        return CheckResult("shared memory", "pass", "no /dev/shm: files of the run's folder are shared instead")
    free = format_bytes(shutil.disk_usage(SHARED_MEMORY).free)
    return CheckResult("shared memory", "pass", f"{free} free in /dev/shm; more goes to the run's folder")


def _framework(name: str) -> CheckResult:
    if importlib.util.find_spec(name):
        return CheckResult(name, "pass", "installed")
    return CheckResult(name, "skipped", "not installed", f"pip install 'smlt[{name}]'")
