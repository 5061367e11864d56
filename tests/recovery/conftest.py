"""For all tests of recovery."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest

from smlt.core.plugins import Entry
from tests.recovery.courses import Courses, Job
from tests.recovery.warm import warm_registry


@pytest.fixture(scope="package")
def courses(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Courses]:
    """Runs jobs, and remembers what each of them comes to undisturbed."""
    folder = tmp_path_factory.mktemp("recovery")
    with warm_registry(folder) as registry:
        courses = Courses(folder, registry)
        courses.run(Job(steps=1))  # the server of functions is started now, not beside the first test's clock
        yield courses


@pytest.fixture(scope="package")
def zombies(courses: Courses) -> Courses:
    """The same where no function can be stopped before its run is over."""
    registry = replace(courses.registry, entries=copy.deepcopy(courses.registry.entries))
    registry.entries["backends"]["local"] = Entry("tests.recovery.warm:UnstoppableBackend")
    return replace(courses, folder=courses.folder / "zombies", registry=registry)
