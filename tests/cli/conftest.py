from __future__ import annotations

import os
import shutil
import signal
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

LINEAR = ("train", "task.py:Linear", "--workers", "2")
ENDLESS = ("--epochs", "1000000", "--set", "job.eval_every=1000epochs")
"""A job that does not end by itself."""


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


class Command:
    """`smlt train` in a process group of its own, which a terminal's Ctrl-C reaches as a whole."""

    def __init__(self, *arguments):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([SMLT, *arguments], start_new_session=True, **pipes)

    def interrupt(self):
        os.killpg(self.process.pid, signal.SIGINT)

    def wait_for(self, text):
        """Read stderr until a line starts with this; returns the line."""
        for line in self.process.stderr:
            if line.startswith(text):
                return line
        raise AssertionError(f"it ended without {text!r}")

    def end(self):
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err


@pytest.fixture
def start(linear):
    started = []

    def start(*arguments):
        started.append(Command(*arguments))
        return started[-1]

    yield start
    for command in started:
        command.process.kill()
        command.process.communicate()
