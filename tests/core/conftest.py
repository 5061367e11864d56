"""For all tests of the core."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from smlt.core.summary import Summary
from tests.support.engines import Runs, nothing_left

settings.register_profile("core", deadline=None)  # a busy machine fails no test
settings.load_profile("core")


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    """A user's folder; at the end no process and no shared memory may be left."""
    runs = Runs(tmp_path)
    with nothing_left(runs):
        yield runs


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[int, tuple[Summary, Runs]]:
    """The same job by one, two and three workers, undisturbed."""
    found = {}
    for workers in (1, 2, 3):
        runs = Runs(tmp_path_factory.mktemp(f"by{workers}"))
        with nothing_left(runs):
            found[workers] = runs.train(workers={"count": workers}, job={"name": "linear"}), runs
    return found


@pytest.fixture(scope="session")
def undisturbed(trained: dict[int, tuple[Summary, Runs]]) -> Summary:
    """What two workers come to when nothing happens to them."""
    return trained[2][0]
