"""Where a job runs: a Backend is a launcher, stores and a price list; a new cloud implements these and nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from smlt.core.catalog import Catalog
from smlt.core.chaos import Fault
from smlt.core.clock import Clock
from smlt.core.control import Mailbox
from smlt.core.errors import ConfigError, nearest
from smlt.core.planner import Sync
from smlt.core.profile import Profile
from smlt.core.run_events import Address
from smlt.core.scene import ChannelOffer
from smlt.core.storage import ChannelSpec, ObjectStore, StoreSpec

API_VERSION = (1, 0)
"""Version of what a plugin implements: another major is refused, a newer minor warned about."""


class BackendOptions(BaseModel):
    """Typed `[backend]` options; a backend derives its own and gives each field a description."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class Limits:
    """What a backend allows.

    Attributes:
        max_workers: most functions at once.
        memory_choices_mib: sizes on offer, ascending.
        memory_is_enforced: whether a function has just its size; otherwise sizes are labels for prices, and all
            functions share what the machine has.
        function_time_limit_s: the platform ends a function after this; None for never.
        vcpus_at_hand: cores of the machine, for a backend that runs here.
        beat_s: how often a worker reports and looks for orders.
        orphan_grace_s: how long workers go on without a controller.
        start_deadline_s: a function that has not reported by then has not started.
    """

    max_workers: int
    memory_choices_mib: tuple[int, ...]
    function_time_limit_s: float | None
    vcpus_at_hand: int | None
    beat_s: float
    orphan_grace_s: float
    start_deadline_s: float
    memory_is_enforced: bool = True


@dataclass(frozen=True)
class RankSpec:
    """All that a function needs to become one rank of a generation. Small, and without secrets.

    Attributes:
        run: name of the run.
        generation, rank, world_size, incarnation: which worker this is; the incarnation counts launches of this rank.
        controller_epoch: of the controller that launched it.
        smlt_version: of the controller; a worker of another version refuses.
        store: where the run's objects are.
        channel: where gradients travel.
        job: the JobSpec as plain data.
        bundle_sha256: digest of the task's files in the store; empty where the task travels as `task_payload`.
        task_module, task_class: what to import from the bundle.
        task_payload: a pickled class, for a class defined in a notebook; local backends only.
        scratch: folder for unpacked files.
        threads: threads that the worker's mathematics may use.
        beat_s, orphan_grace_s: see `Limits`.
        lease_s: a function that has not heard of its controller for so long ends at once.
        time_limit_s: the platform ends this function so long after its start; None for never.
        memory_mib: memory of the function.
        sync: how the ranks are kept one computation.
        faults: what shall go wrong on purpose.
    """

    run: str
    generation: int
    rank: int
    world_size: int
    incarnation: int
    controller_epoch: int
    smlt_version: str
    store: StoreSpec
    channel: ChannelSpec
    job: dict[str, Any]
    bundle_sha256: str
    task_module: str
    task_class: str
    task_payload: bytes
    scratch: str
    threads: int
    beat_s: float
    orphan_grace_s: float
    lease_s: float
    time_limit_s: float | None
    memory_mib: int
    sync: Sync = field(default_factory=Sync)
    faults: tuple[Fault, ...] = ()

    @property
    def label(self) -> str:
        """A short name for logs and processes: `generation.rank.incarnation`."""
        return f"{self.generation}.{self.rank}.{self.incarnation}"


class Phase(Enum):
    """Where a launched function is, as the platform sees it."""

    PENDING = "pending"
    RUNNING = "running"
    ENDED = "ended"
    LOST = "lost"


@dataclass(frozen=True)
class FunctionState:
    """A function's phase.

    Attributes:
        detail: of an ended or lost one, how it ended: exit code, signal, time limit.
        out_of_memory: it was lost because it needed more memory than it had, as far as the platform can tell.
    """

    phase: Phase
    detail: str = ""
    out_of_memory: bool = False


class Launcher(ABC):
    """Starts, watches and stops functions. One per run and controller.

    Contract, tested by `smlt.testing.BackendContract`:

    * `launch` returns without waiting for the function to start; the function runs `smlt.core.function.work(spec)`.
    * `poll` never blocks for long and reports every handle asked for; ENDED means it returned, LOST that it was killed.
    * `stop` ends a function now; stopping an ended one is no error.
    * `adopt` gives the handles of functions that another controller's launcher started and that can be reached from
      here, or nothing; of a function that is not there any more `poll` says LOST.
    * After `close` no function that this launcher started is left running.
    * Foreign exceptions become `CloudError` or `JobFailed`, with a hint.
    """

    def launch(self, spec: RankSpec) -> str:
        """Start a function for a rank; returns a handle."""
        return self._do_launch(spec)

    def adopt(self, labels: Sequence[str]) -> Mapping[str, str]:
        """Go on with functions that the launcher of a controller which is gone has started.

        Called before any `launch`. Those that are over by now are LOST from the first `poll` on.

        Args:
            labels: of their specs.

        Returns:
            Their handles by label; nothing where they are out of this launcher's reach: they end by themselves.
        """
        return self._do_adopt(labels)

    def poll(self, handles: Sequence[str]) -> Mapping[str, FunctionState]:
        """The state of each handle."""
        return self._do_poll(handles)

    def stop(self, handle: str) -> None:
        """End a function now."""
        self._do_stop(handle)

    def mailbox(self, store: ObjectStore, address: Address, *, is_adopted: bool = False) -> Mailbox:
        """What a function tells its controller is read there.

        Args:
            store: of the run, where functions write it.
            address: whose.
            is_adopted: another controller has launched it, and may have read the first messages.
        """
        return Mailbox(store, address.generation, address.rank, address.incarnation, is_adopted=is_adopted)

    def logs(self, handle: str) -> str:
        """What the function printed, as far as the platform kept it."""
        return self._do_logs(handle)

    def close(self) -> None:
        """Stop what still runs and release everything."""
        self._do_close()

    @abstractmethod
    def _do_launch(self, spec: RankSpec) -> str: ...

    @abstractmethod
    def _do_poll(self, handles: Sequence[str]) -> Mapping[str, FunctionState]: ...

    @abstractmethod
    def _do_stop(self, handle: str) -> None: ...

    def _do_adopt(self, labels: Sequence[str]) -> Mapping[str, str]:
        return {}

    def _do_logs(self, handle: str) -> str:
        return ""

    def _do_close(self) -> None:  # noqa: B027  many platforms keep nothing to release
        pass


@dataclass(frozen=True)
class RunPlace:
    """What a backend is told of a run when it makes a launcher or says where stores are.

    Attributes:
        run: name of the run.
        runs_dir: the user's folder for runs; cloud backends keep only small things there.
        preload: framework modules that warm functions import ahead, for example ("torch",).
        threads: threads of one worker's mathematics.
        clock: the run's.
        profile: of the task; None where nobody has looked, which is never so where the backend `is_simulated`.
        requirements: what the task needs in functions beside its framework, as pip takes it.
        memory_mib: of the first functions, for a launcher that has to make ready for a size; 0 where it is not known.
    """

    run: str
    runs_dir: Path
    preload: tuple[str, ...] = ()
    threads: int = 1
    clock: Clock = field(default_factory=Clock)
    profile: Profile | None = None
    requirements: tuple[str, ...] = ()
    memory_mib: int = 0


@dataclass(frozen=True)
class CheckResult:
    """One line of `smlt check`: what was tried, pass / fail / skipped, and the command or setting that mends it."""

    name: str
    status: str
    detail: str
    mend: str = ""


@dataclass(frozen=True)
class Recipe:
    """Files for a user to read, and what to do with them.

    Attributes:
        files: contents by name, `/`-separated.
        commands: for a shell, in the folder of the files.
        settings: of `[backend]`, that make use of what the commands make; their values are for people to fill in.
    """

    files: Mapping[str, bytes]
    commands: tuple[str, ...]
    settings: Mapping[str, str] = field(default_factory=dict)


OptionsT = TypeVar("OptionsT", bound=BackendOptions)


class Backend(ABC, Generic[OptionsT]):
    """One place where functions run. Made from validated options; makes nothing until asked.

    Attributes:
        is_simulated: whether nothing is trained and nothing spent: no model comes out, and nobody is asked before.
    """

    api_version: ClassVar[tuple[int, int]] = API_VERSION
    is_simulated: ClassVar[bool] = False
    Options: ClassVar[type[BackendOptions]] = BackendOptions

    def __init__(self, name: str, options: OptionsT) -> None:
        self.name = name
        self.options = options

    @property
    @abstractmethod
    def limits(self) -> Limits:
        """What the platform and the options allow."""

    @property
    @abstractmethod
    def catalog(self) -> Catalog:
        """Prices, with source and date."""

    @property
    def faults(self) -> tuple[Fault, ...]:
        """What shall go wrong on purpose; nothing, unless the options offer it."""
        return ()

    @abstractmethod
    def launcher(self, place: RunPlace) -> Launcher:
        """A launcher for one run."""

    @abstractmethod
    def object_store(self, place: RunPlace) -> StoreSpec:
        """Where the objects of one run are."""

    @abstractmethod
    def channels(self, place: RunPlace) -> Mapping[str, ChannelSpec]:
        """The channels on offer for one run by their name in `[sync].channel`, the preferred one first."""

    def channel(self, name: str, place: RunPlace) -> tuple[str, ChannelSpec]:
        """The channel that the job names, or the preferred one for "auto"."""
        offered = self.channels(place)
        chosen = next(iter(offered)) if name == "auto" else name
        if chosen not in offered:
            raise ConfigError(
                f"[sync].channel: backend {self.name!r} has no channel {name!r}", nearest(name, list(offered))
            )
        return chosen, offered[chosen]

    def channel_offers(self) -> Sequence[ChannelOffer]:
        """What planners may count on of the channels, the preferred one first; nothing where nothing is known."""
        return ()

    def serving(self, channel: str, place: RunPlace) -> AbstractContextManager[None]:
        """Runs what this channel needs beside the ranks: entered before the first launch, left after the last end."""
        del channel, place
        return nullcontext()

    def clock(self) -> Clock:
        """The time that a run goes by, from now on."""
        return Clock()

    def beat_s(self, workers: int) -> float:
        """How often each of so many workers reports and looks for orders."""
        del workers
        return self.limits.beat_s

    def threads_for(self, workers: int) -> int:
        """Threads of one worker's mathematics when so many workers run."""
        cores = self.limits.vcpus_at_hand
        return max(1, cores // workers) if cores else 1

    def scratch(self, place: RunPlace) -> str:
        """A folder where functions may unpack the task's files."""
        return str(place.runs_dir / place.run / "code")

    def check(self) -> Sequence[CheckResult]:
        """Whether a job could run here now; launches nothing."""
        return ()

    def clean(self, place: RunPlace) -> Sequence[str]:
        """Remove what a run may have left beside its result; returns what was removed."""
        del place
        return ()

    def clean_all(self) -> Sequence[str]:
        """Remove all that smlt made here but runs; no run may be under way. Returns what was removed."""
        return ()

    def setup(self) -> Recipe:
        """What makes all that an account needs once."""
        raise ConfigError(f"backend {self.name!r} needs nothing to be set up")

    def build(self, place: RunPlace) -> Recipe:
        """What makes the image that functions of a task run in."""
        del place
        raise ConfigError(f"backend {self.name!r} has no images")
