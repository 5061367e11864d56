"""`smlt config`: the settings in force and where they came from, and the schema of `smlt.toml`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smlt.cli.options import Assignments, BackendName, Config, Debug, Output, OutputFormat

if TYPE_CHECKING:
    from smlt.core.plugins import Registry
    from smlt.core.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Show the settings in force, or the schema of smlt.toml.")


@app.command()
def show(
    origin: Annotated[bool, typer.Option("--origin", help="Say where each value was set.")] = False,
    config: Config = None,
    backend: BackendName = None,
    assignments: Assignments = None,
    output: OutputFormat = Output.TABLE,
    debug: Debug = False,
) -> None:
    """Print every setting in force, defaults included."""
    from smlt.cli.loading import load_settings
    from smlt.cli.tables import print_json, print_rows
    from smlt.core.mistakes import shown
    from smlt.core.plugins import load_registry

    registry = load_registry()
    settings = load_settings(
        registry, config=config, assignments=assignments, flags={"backend": backend}, task_required=False
    )
    rows = list(_effective(settings, registry))
    if output is Output.JSON:
        print_json({key: {"value": value, "origin": where} if origin else value for key, value, where in rows})
        return
    lines = [[key, "not set" if value is None else shown(value)] for key, value, _ in rows]
    if origin:
        lines = [[*line, where] for line, (_, _, where) in zip(lines, rows, strict=True)]
    print_rows(lines)


@app.command()
def schema(output: OutputFormat = Output.JSON, debug: Debug = False) -> None:
    """Print the JSON Schema of smlt.toml, with the options of the installed backends; there is no table of it."""
    from smlt.cli.tables import print_json
    from smlt.core.plugins import load_registry

    print_json(schema_of(load_registry()))


def _effective(settings: Settings, registry: Registry) -> Iterator[tuple[str, Any, str]]:
    """Key, value and origin of every setting."""
    from smlt.core.settings import NO_TASK

    plain = settings.spec.to_plain()
    chosen = settings.spec.backend
    options = registry.backend(chosen.name, chosen.options).options.model_dump(mode="json")
    plain["backend"] = {"name": chosen.name, **options}
    for key, value in _flat((), plain):
        if value == NO_TASK:
            value = None
        inside = [where for name, where in settings.origins.items() if name == key or name.startswith(f"{key}.")]
        yield key, value, ", ".join(dict.fromkeys(inside)) or "default"


def _flat(path: tuple[str, ...], value: Any) -> Iterator[tuple[str, Any]]:
    from smlt.core.layers import spell

    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat((*path, key), item)
    else:
        yield spell(path), value


def schema_of(registry: Registry) -> dict[str, Any]:
    """The JSON Schema (2020-12) of `smlt.toml`: each backend's options count where its name is chosen."""
    from smlt.core.errors import PluginError
    from smlt.core.job import BackendSection, JobSpec

    whole = JobSpec.model_json_schema()
    section = whole["$defs"]["BackendSection"]
    default = BackendSection().name
    section.pop("additionalProperties", None)
    section["properties"]["name"]["enum"] = sorted(registry.entries["backends"])
    section["allOf"] = []
    section["unevaluatedProperties"] = False
    for name in sorted(registry.entries["backends"]):
        try:
            options = registry.load("backends", name).Options.model_json_schema(
                ref_template=f"#/$defs/{name}.{{model}}"
            )
        except PluginError:
            options = {"additionalProperties": True}  # its extra is not installed: nothing is known of its options
        whole["$defs"].update({f"{name}.{key}": value for key, value in options.pop("$defs", {}).items()})
        if "properties" in options:  # `name` stands beside them, so it is the section that closes the table
            options.pop("additionalProperties", None)
        chosen: dict[str, Any] = {"properties": {"name": {"const": name}}}
        if name != default:
            chosen["required"] = ["name"]
        section["allOf"].append({"if": chosen, "then": options})
    whole["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    whole["title"] = "smlt.toml"
    return whole
