from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parents[1] / "support"


def clean_environment(home: Path) -> dict[str, str]:
    """This process's environment without settings of smlt, and with a home of its own."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("SMLT_", "XDG_"))}
    return {**inherited, "HOME": str(home), "COLUMNS": "200", "NO_COLOR": "1"}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty folder that is the current one, in an environment without settings of smlt."""
    home = tmp_path / "home"
    project = tmp_path / "project"
    for made in (home, project):
        made.mkdir()
    for key in [key for key in os.environ if key.startswith(("SMLT_", "XDG_"))]:
        monkeypatch.delenv(key)
    for key, value in clean_environment(home).items():
        monkeypatch.setenv(key, value)
    monkeypatch.chdir(project)
    return project


@pytest.fixture
def linear(folder) -> Path:
    """The folder with the smallest task there is in its task.py: `task.py:Linear`."""
    shutil.copy(SUPPORT / "linear.py", folder / "task.py")
    return folder


SMLT = Path(sys.executable).with_name("smlt")
"""The installed command."""


@pytest.fixture
def smlt(folder):
    """Run the installed command, as a user does, with its output captured."""

    def smlt(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SMLT, *arguments], env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
        )

    return smlt


@pytest.fixture
def main(folder, capsys):
    """Run the command in this process; returns exit code, stdout and stderr."""
    from smlt.cli.main import main

    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
