"""The clouds of these tests: one server of each kind a module at most, as its tests leave it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.emulators.aws import SERVICES, Aws, ministack


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with ministack(tmp_path_factory.mktemp("aws"), *SERVICES) as aws:
        yield aws


@pytest.fixture
def aws_user(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Aws:
    """The server, with the usual variables set for it."""
    for name, value in aws.environment.items():
        monkeypatch.setenv(name, value)
    return aws
