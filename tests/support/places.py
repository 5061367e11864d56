"""A place for a test to run in, where nothing of the developer's own configuration is seen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def fresh_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder the current one, with a home of its own and without settings of smlt."""
    for made in ("home", "project"):
        (tmp_path / made).mkdir()
    for key in [key for key in os.environ if key.startswith(("SMLT_", "XDG_"))]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"
