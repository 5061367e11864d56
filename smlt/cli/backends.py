"""`smlt backends`: what is installed, and what was left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smlt.cli.options import Debug, Output, OutputFormat

if TYPE_CHECKING:
    from smlt.core.plugins import Registry


def backends(output: OutputFormat = Output.TABLE, debug: Debug = False) -> None:
    """List backends and planners, and plugins that could not be used."""
    from smlt.cli.tables import print_json, print_rows
    from smlt.core.plugins import load_registry

    registry = load_registry()
    document = {
        "backends": _offered(registry, "backends"),
        "planners": _offered(registry, "planners"),
        "left_out": [{"plugin": item.plugin, "reason": item.reason} for item in registry.left_out],
    }
    if output is Output.JSON:
        print_json(document)
        return
    for kind in ("backends", "planners"):
        rows = [[item["name"], item["summary"], item["state"], item["plugin"]] for item in document[kind]]
        print_rows(rows, head=[kind.removesuffix("s"), "what", "state", "from"])
        print()
    if registry.left_out:
        print_rows([[item.plugin, item.reason] for item in registry.left_out], head=["left out", "why"])


def _offered(registry: Registry, kind: str) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "summary": entry.summary,
            "state": _state(registry, kind, name),
            "plugin": registry.owners.get((kind, name), ""),
        }
        for name, entry in sorted(registry.entries[kind].items())
    ]


def _state(registry: Registry, kind: str, name: str) -> str:
    from smlt.core.errors import PluginError

    try:
        registry.load(kind, name)
    except PluginError as error:
        return f"needs: {error.hint}" if registry.entries[kind][name].extra else str(error)
    return "ready"
