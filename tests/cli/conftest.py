from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.places import fresh_folder

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty folder that is the current one, on a wide screen without colours."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    return fresh_folder(tmp_path, monkeypatch)


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
