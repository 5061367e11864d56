"""A backend whose functions are what a test says they are, and a registry that knows it as "scripted"."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import ClassVar

from smlt.core import layout, wire
from smlt.core.backend import Backend, BackendOptions, FunctionState, Launcher, Limits, Phase, RankSpec, RunPlace
from smlt.core.catalog import Catalog, FunctionPrice
from smlt.core.messages import Mail
from smlt.core.plugins import Entry, Registry, load_registry
from smlt.core.storage import ChannelSpec, ObjectStore, StoreSpec


class Function:
    """A launched function, as its script sees it."""

    def __init__(self, spec: RankSpec, store: ObjectStore) -> None:
        self.spec, self.store = spec, store
        self.state = FunctionState(Phase.RUNNING)
        self._mails = 0

    def say(self, mail: Mail) -> None:
        spec = self.spec
        self.store.put(layout.mail(spec.generation, spec.rank, spec.incarnation, self._mails), wire.pack(mail))
        self._mails += 1

    def end(self, phase: Phase = Phase.ENDED, detail: str = "") -> None:
        self.state = FunctionState(phase, detail)


Script = Callable[[Function], None]


class ScriptedLauncher(Launcher):
    def __init__(self, registry: Registry, script: Script) -> None:
        self._registry, self._script = registry, script
        self.functions: dict[str, Function] = {}
        self.stopped: list[str] = []
        self.is_closed = False

    def _do_launch(self, spec: RankSpec) -> str:
        function = Function(spec, self._registry.open_store(spec.store))
        self.functions[spec.label] = function
        self._script(function)
        return spec.label

    def _do_poll(self, handles: Sequence[str]) -> Mapping[str, FunctionState]:
        return {handle: self.functions[handle].state for handle in handles}

    def _do_stop(self, handle: str) -> None:
        self.stopped.append(handle)
        self.functions[handle].end(Phase.LOST, "stopped")

    def _do_close(self) -> None:
        self.is_closed = True


class ScriptedBackend(Backend[BackendOptions]):
    """`script` is called with each function at its launch, which is refused if it raises; `launchers` were made."""

    script: ClassVar[Script]
    start_deadline_s: ClassVar[float]
    launchers: ClassVar[list[ScriptedLauncher]]
    cleaned: ClassVar[list[str]]

    @property
    def limits(self) -> Limits:
        return Limits(8, (1024, 2048), None, 8, 0.01, 1.0, self.start_deadline_s)

    @property
    def catalog(self) -> Catalog:
        price = FunctionPrice(usd_per_gib_s=0.0, usd_per_request=0.25)
        return Catalog(provider="scripted", source="made up", as_of=str(date(2026, 1, 1)), function=price)

    def launcher(self, place: RunPlace) -> Launcher:
        launcher = ScriptedLauncher(load_registry(), type(self).script)
        self.launchers.append(launcher)
        return launcher

    def object_store(self, place: RunPlace) -> StoreSpec:
        return StoreSpec("file", (place.runs_dir.absolute() / place.run).as_uri())

    def channels(self, place: RunPlace) -> Mapping[str, ChannelSpec]:
        return {"none": ChannelSpec("none", "")}

    def clean(self, place: RunPlace) -> Sequence[str]:
        self.cleaned.append(place.run)
        return ()


def scripted_registry(script: Script, start_deadline_s: float = 60.0) -> Registry:
    """A registry with the backend, made anew for one test."""
    ScriptedBackend.script = staticmethod(script)
    ScriptedBackend.start_deadline_s = start_deadline_s
    ScriptedBackend.launchers, ScriptedBackend.cleaned = [], []
    registry = load_registry()
    registry.entries["backends"]["scripted"] = Entry(f"{__name__}:ScriptedBackend")
    return registry
