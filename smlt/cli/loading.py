"""From a command's flags to settings: the process's folder and environment come in here."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from smlt.core.layers import Text, read_layers, runs_folder, spell
from smlt.core.plugins import Registry
from smlt.core.settings import Settings, resolve


def load_settings(
    registry: Registry,
    *,
    config: Path | None,
    assignments: Sequence[str] | None,
    flags: Mapping[str, str | None],
    task_required: bool = True,
) -> Settings:
    """The settings of a command; says on stderr which ones are for another backend.

    Raises:
        ConfigError: with every mistake.
    """
    layers = read_layers(
        cwd=Path.cwd(),
        env=os.environ,
        flags=texts(flags),
        origin_of=lambda name: "TASK" if name == "task" else f"--{name}",
        assignments=assignments or (),
        config=config,
    )
    settings = resolve(layers, registry, task_required=task_required)
    tell_set_aside(settings)
    return settings


def texts(flags: Mapping[str, str | None]) -> dict[str, Text | None]:
    """Flags as bare text, to be read by the type of their settings."""
    return {name: None if value is None else Text(value) for name, value in flags.items()}


def tell_set_aside(settings: Settings) -> None:
    """Say on stderr which settings are for another backend."""
    for item in settings.set_aside:
        print(
            f"note: {item.origin}: {spell(item.path)} is for another backend, not used with "
            f"{settings.spec.backend.name!r}",
            file=sys.stderr,
        )


def absolute_runs_dir(given: Path | None) -> Path:
    """The folder for runs: the flag, SMLT_RUNS_DIR, or `.smlt/runs` here."""
    return runs_folder(given, os.environ, Path.cwd())
