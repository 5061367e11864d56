"""For all tests of measuring: nothing may be left."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from smlt.backends.channels.shared_memory import SHARED_MEMORY
from smlt.bench import folders as bench_folders


@pytest.fixture(autouse=True)
def folders(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """The folders of the settings that were measured; at the end neither they nor processes are there any more."""
    made: list[Path] = []

    class Folder(tempfile.TemporaryDirectory):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            made.append(Path(self.name))

    monkeypatch.setattr(bench_folders.tempfile, "TemporaryDirectory", Folder)
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    yield made
    assert [child for child in psutil.Process().children(recursive=True) if child.pid not in before] == []
    left = [path for path in SHARED_MEMORY.glob("*") for folder in made if folder.name in path.name]
    assert left == []
    assert not any(folder.exists() for folder in made)
