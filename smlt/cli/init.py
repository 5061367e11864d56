"""`smlt init`: a folder with a commented smlt.toml and a task that runs as it is."""

from __future__ import annotations

import os
import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from smlt.cli.options import Debug

FILES = ("smlt.toml", "task.py")


class Framework(StrEnum):
    """What the task is written for."""

    TORCH = "torch"
    KERAS = "keras"


_EXTRAS = {Framework.TORCH: ("torch", "torch"), Framework.KERAS: ("tensorflow", "tensorflow")}
"""The module that each needs, and the extra that installs it."""


def init(
    name: Annotated[Path, typer.Argument(metavar="NAME", help="The folder to make; . for this one.")],
    framework: Annotated[Framework, typer.Option(help="What the task is written for.")] = Framework.TORCH,
    debug: Debug = False,
) -> None:
    """Make a folder with a commented smlt.toml and a task.py that runs as it is."""
    import importlib.util
    from importlib import resources

    from smlt.core.errors import ConfigError

    there = [file for file in FILES if (name / file).exists()]
    if there:
        raise ConfigError(f"{name / there[0]} is there already", "nothing was written; choose another name")
    templates = resources.files("smlt.cli") / "templates"
    texts = {
        "smlt.toml": templates.joinpath("smlt.toml.template").read_text(encoding="utf-8"),
        "task.py": templates.joinpath(f"{framework.value}_task.py.template").read_text(encoding="utf-8"),
    }
    try:
        name.mkdir(parents=True, exist_ok=True)
        for file, text in texts.items():
            with (name / file).open("x", encoding="utf-8") as target:
                target.write(text)
    except OSError as error:
        raise ConfigError(f"cannot write to {name}: {error.strerror}") from error
    typer.echo(f"made {name / 'smlt.toml'} and {name / 'task.py'}; train with:")
    if name.resolve() != Path.cwd():
        typer.echo(f"  cd {shlex.quote(os.fspath(name))}")
    module, extra = _EXTRAS[framework]
    if importlib.util.find_spec(module) is None:
        typer.echo(f"  pip install 'smlt[{extra}]'")
    typer.echo("  smlt train")
