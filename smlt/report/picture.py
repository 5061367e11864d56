"""PNG pictures with matplotlib: whether one can be drawn, an empty one, and how it is written."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from smlt.core.errors import ConfigError, StorageError

DPI = 150


def check_picture(path: Path) -> None:
    """See that a picture can be drawn and written; raises `ConfigError`. To be asked before anything is computed."""
    if not importlib.util.find_spec("matplotlib"):
        raise ConfigError("--png needs matplotlib, which is not installed", "pip install 'smlt[report]'")
    if path.suffix.lower() != ".png":
        raise ConfigError(f"--png {path}: a picture's name ends in .png", f"like {path.with_suffix('.png')}")
    folder = path.absolute().parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)) or path.is_dir():
        raise ConfigError(f"--png {path} cannot be written", "name a file in a folder that is there and is yours")


def new_figure(width: float, height: float) -> Any:
    """An empty figure of this size in inches, which no display is needed for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: Path) -> None:
    """Write it; raises StorageError where that fails."""
    try:
        figure.savefig(path, format="png", dpi=DPI)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error}", "is the disk full?") from error
