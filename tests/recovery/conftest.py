"""For all tests of recovery."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.recovery.courses import Courses


@pytest.fixture(scope="session")
def courses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Courses]:
    """Runs jobs, and remembers what each of them comes to undisturbed."""
    folder: Path = tmp_path_factory.mktemp("recovery")
    yield Courses(folder)
