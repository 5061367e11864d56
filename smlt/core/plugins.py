"""Plugins: pluggy hooks that name what is there, and a registry that imports it on first use.

Our own backends, planners, stores and channels come in through the same entry-point group as anyone's. A plugin module
holds strings only, so that finding fifty plugins imports no SDK.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from smlt.core.backend import API_VERSION, Backend
from smlt.core.errors import PluginError, nearest
from smlt.core.planner import Planner
from smlt.core.storage import Channel, ChannelSpec, ObjectStore, StoreSpec

GROUP = "smlt"
hookspec = pluggy.HookspecMarker("smlt")
hookimpl = pluggy.HookimplMarker("smlt")


@dataclass(frozen=True)
class Entry:
    """Something a plugin offers: `target` is "module:Name"; `extra` the extra of `pip install smlt[extra]` it needs."""

    target: str
    extra: str = ""
    summary: str = ""


class Hooks:
    """What a plugin may implement, each with `@hookimpl`. Arguments may be added to a hook, never taken away."""

    @hookspec
    def smlt_backends(self) -> Mapping[str, Entry]:
        """Backends by the name in `[backend].name`; targets derive from `smlt.core.backend.Backend`."""
        return {}

    @hookspec
    def smlt_planners(self) -> Mapping[str, Entry]:
        """Planners by the name in `[planner].name`; targets derive from `smlt.core.planner.Planner`."""
        return {}

    @hookspec
    def smlt_stores(self) -> Mapping[str, Entry]:
        """Object stores by the `kind` of a `StoreSpec`; targets are called with the spec."""
        return {}

    @hookspec
    def smlt_channels(self) -> Mapping[str, Entry]:
        """Channels by the `kind` of a `ChannelSpec`; targets are called with the spec and the client's address."""
        return {}


KINDS = ("backends", "planners", "stores", "channels")


@dataclass(frozen=True)
class LeftOut:
    """A plugin that is installed but not used, and why."""

    plugin: str
    reason: str


@dataclass
class Registry:
    """What all installed plugins offer, by kind and name, and what was left out."""

    entries: dict[str, dict[str, Entry]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    owners: dict[tuple[str, str], str] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)

    def load(self, kind: str, name: str) -> Any:
        """Import and return what `name` stands for among the `kind` ("backends", "planners", …).

        Raises:
            PluginError: no plugin offers it, it does not import, or an extra is missing.
        """
        known = self.entries[kind]
        singular = kind.removesuffix("s")
        if name not in known:
            raise PluginError(f"no {singular} is called {name!r}", nearest(name, list(known)) + self._left_out_hint())
        entry = known[name]
        place, _, attribute = entry.target.partition(":")
        theirs = f"mend its plugin {self.owners.get((kind, name), '')}".rstrip()
        try:
            module = importlib.import_module(place)
        except ImportError as error:
            mend = f"pip install 'smlt[{entry.extra}]'" if entry.extra else "is its package installed?"
            raise PluginError(f"{singular} {name!r} cannot be imported: {error}", mend) from error
        except Exception as error:  # a stranger's module may raise anything
            told = f"{type(error).__name__}: {error}"
            raise PluginError(f"{singular} {name!r} cannot be imported: {told}", theirs) from error
        if not hasattr(module, attribute):
            raise PluginError(f"{singular} {name!r}: {place} has no {attribute}", theirs)
        return getattr(module, attribute)

    def backend(self, name: str, options: Mapping[str, Any]) -> Backend[Any]:
        """The backend of this name, made from validated options."""
        backend: type[Backend[Any]] = self.load("backends", name)
        return backend(name, backend.Options.model_validate(options))

    def planner(self, name: str) -> Planner:
        """A planner of this name."""
        planner: Planner = self.load("planners", name)()
        return planner

    def open_store(self, spec: StoreSpec) -> ObjectStore:
        """A client of the object store that the spec describes."""
        store: ObjectStore = self.load("stores", spec.kind)(spec)
        return store

    def open_channel(self, spec: ChannelSpec, *, generation: int, round_number: int, rank: int) -> Channel:
        """A client of the channel that the spec describes, for one rank in one round."""
        channel: Channel = self.load("channels", spec.kind)(spec, generation, round_number, rank)
        return channel

    def _left_out_hint(self) -> str:
        return "".join(f"; left out: {item.plugin} ({item.reason})" for item in self.left_out)


def load_registry(found: Callable[[], list[EntryPoint]] | None = None) -> Registry:
    """Ask every installed plugin what it offers; a broken, duplicate or too new one is named and left out."""
    registry = Registry()
    points = found() if found else list(entry_points(group=GROUP))
    # Ours first: a third party's plugin may add names, never take one of ours.
    for point in sorted(points, key=lambda item: (not item.value.startswith("smlt."), item.name, item.value)):
        try:
            _add(registry, point)
        except Exception as error:  # a stranger's module may raise anything; it is named, not hidden
            registry.left_out.append(LeftOut(point.value, f"{type(error).__name__}: {error}"))
    return registry


def _add(registry: Registry, point: EntryPoint) -> None:
    module = point.load()
    major, minor = getattr(module, "api_version", API_VERSION)
    if major != API_VERSION[0]:
        raise PluginError(f"it speaks plugin API {major}.{minor}, this smlt {API_VERSION[0]}.{API_VERSION[1]}")
    if minor > API_VERSION[1]:
        warnings.warn(f"plugin {point.value} was written for a newer smlt (plugin API {major}.{minor})", stacklevel=2)
    manager = pluggy.PluginManager("smlt")
    manager.add_hookspecs(Hooks)
    manager.register(module, name=point.value)
    manager.check_pending()
    offered = {kind: _answers(getattr(manager.hook, f"smlt_{kind}")()) for kind in KINDS}
    taken = [
        f"{kind.removesuffix('s')} {name!r}"
        for kind in KINDS
        for name in offered[kind]
        if name in registry.entries[kind]
    ]
    if taken:
        raise PluginError(f"duplicate: {', '.join(taken)} is offered by another plugin already")
    for kind in KINDS:
        registry.entries[kind].update(offered[kind])
        registry.owners.update({(kind, name): point.value for name in offered[kind]})


def _answers(answers: list[Mapping[str, Entry]]) -> dict[str, Entry]:
    return {name: entry for answer in answers for name, entry in answer.items()}
