"""The backend aws keeps the contract of a backend on an emulated Lambda."""

import uuid

import pytest

from smlt.backends.aws.backend import AwsBackend
from smlt.backends.aws.options import AwsOptions
from smlt.core.backend import RunPlace
from smlt.testing.backend import TimeLimitContract
from tests.clouds.settings import options
from tests.emulators.aws import Aws

pytestmark = pytest.mark.clouds


class TestAwsBackend(TimeLimitContract):
    keeps_logs = False

    @pytest.fixture(scope="class")
    @classmethod
    def backend(cls, aws: Aws) -> AwsBackend:
        with pytest.MonkeyPatch.context() as patched:
            for name, value in aws.environment.items():
                patched.setenv(name, value)
            yield AwsBackend("aws", AwsOptions(**options(aws)))

    @pytest.fixture(scope="class")
    @classmethod
    def place(cls, tmp_path_factory) -> RunPlace:
        return RunPlace(f"contract-{uuid.uuid4().hex[:6]}", tmp_path_factory.mktemp("runs"))

    def make_backend(self):
        raise NotImplementedError  # see the fixture

    def make_launcher(self, backend, place, entry):
        return backend.launcher_of(place, entry)
