"""`smlt cloud setup` and `smlt build`: files to read, and the commands that make use of them. Nothing is changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smlt.cli.options import Assignments, BackendName, Config, Debug, Output, OutputFormat

if TYPE_CHECKING:
    from smlt.core.backend import Recipe

cloud = typer.Typer(name="cloud", no_args_is_help=True, help="What an account of a provider needs once.")

Folder = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where the files are written.")]


@cloud.command("setup")
def setup(
    provider: Annotated[str, typer.Argument(metavar="PROVIDER", help="aws, for example.")],
    out: Folder = Path("smlt-cloud"),
    config: Config = None,
    assignments: Assignments = None,
    output: OutputFormat = Output.TABLE,
    debug: Debug = False,
) -> None:
    """Write what makes bucket, role and permissions, with the least that is needed, for you to read and apply."""
    from smlt.cli.loading import load_settings
    from smlt.core.plugins import load_registry

    registry = load_registry()
    flags = {"backend": provider}
    chosen = load_settings(
        registry, config=config, assignments=assignments, flags=flags, task_required=False
    ).spec.backend
    _give(registry.backend(chosen.name, chosen.options).setup(), out, output)


def build(
    task: Annotated[str | None, typer.Argument(metavar="TASK", help="file.py:Class or package.module:Class.")] = None,
    backend: BackendName = None,
    out: Folder = Path("smlt-image"),
    config: Config = None,
    assignments: Assignments = None,
    output: OutputFormat = Output.TABLE,
    debug: Debug = False,
) -> None:
    """Write what makes the image that functions of a task run in: its framework, its requirements, and this smlt."""
    from smlt.cli.loading import load_settings
    from smlt.core.backend import RunPlace
    from smlt.core.bundle import find_task, frameworks_of
    from smlt.core.plugins import load_registry

    registry = load_registry()
    flags = {"task": task, "backend": backend}
    settings = load_settings(registry, config=config, assignments=assignments, flags=flags)
    spec = settings.spec
    source = find_task(spec.job.task, settings.folder)
    name = spec.job.name or source.class_name.lower()
    place = RunPlace(name, Path(), frameworks_of(source), requirements=spec.job.requirements)
    _give(registry.backend(spec.backend.name, spec.backend.options).build(place), out, output)


def _give(recipe: Recipe, folder: Path, output: Output) -> None:
    """Write the files and say what to do with them.

    Raises:
        ConfigError: the folder is there and has something else in it, or cannot be written.
    """
    from smlt.cli.tables import print_json
    from smlt.core.errors import ConfigError

    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    if foreign := sorted(there - set(recipe.files)):
        raise ConfigError(f"{folder} has {foreign[0]} in it already", "--out names another folder")
    try:
        for name, content in recipe.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error}", "--out names another folder") from error
    if output is Output.JSON:
        told = {"commands": list(recipe.commands), "settings": dict(recipe.settings)}
        print_json({"folder": str(folder), "files": sorted(recipe.files), **told})
        return
    print(f"{len(recipe.files)} files in {folder}: read them, then\n\n  cd {folder}")
    print("\n".join(f"  {command}" for command in recipe.commands))
    print("\nand in smlt.toml\n\n  [backend]")
    print("\n".join(f'  {key} = "{value}"' for key, value in recipe.settings.items()))
