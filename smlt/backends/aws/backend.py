"""The provider aws: functions on Lambda through Lithops, runs in S3, gradients through S3 or a Redis of the user's."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec

from smlt.backends.aws.options import LITHOPS_MARGIN_S, SETTLE_S, AwsOptions
from smlt.backends.aws.s3 import S3ObjectStore, spec_of
from smlt.backends.lithops_launcher import CloudLauncher, clean_private_folders
from smlt.backends.packages import required
from smlt.backends.priced import PricedBackend
from smlt.backends.served_launcher import WORKER
from smlt.core.backend import CheckResult, Launcher, Limits, Recipe, RunPlace
from smlt.core.errors import ConfigError, PluginError, SmltError
from smlt.core.storage import ChannelSpec, StoreSpec

FUNCTIONS = "smlt.backends.aws.functions:LambdaFunctions"

LITHOPS_NEEDS = ("cloudpickle", "pika", "ps-mem", "psutil", "requests", "six", "tblib")
"""In functions, beside boto3, which Lambda has."""


class AwsBackend(PricedBackend):
    """AWS: Lambda, S3, ElastiCache."""

    Options = AwsOptions
    options: AwsOptions
    package = "smlt.backends.aws"
    store = "s3"
    redis_server = "cache.r7g.large"

    @property
    def limits(self) -> Limits:
        """As the price list and the options state them; a rank's time is what Lambda and Lithops leave of it."""
        limits, options = super().limits, self.options
        return replace(
            limits,
            max_workers=min(limits.max_workers, options.max_workers or limits.max_workers),
            function_time_limit_s=options.function_time_limit - LITHOPS_MARGIN_S - SETTLE_S,
        )

    def object_store(self, place: RunPlace) -> StoreSpec:
        """The run's prefix in the bucket.

        Raises:
            PluginError: what launches here is not installed: a run that nobody can begin is not made.
            ConfigError: bucket, role or region are not said.
        """
        if find_spec("boto3") is None:
            raise PluginError("launching on the backend 'aws' needs boto3", "pip install 'smlt[aws]'")
        _ = self.role
        return self._store(place.run)

    def channels(self, place: RunPlace) -> Mapping[str, ChannelSpec]:
        """A Redis server where one is named, and S3; before a bucket is named, names alone."""
        from smlt.backends.channels import object as object_channel
        from smlt.backends.channels import redis

        if not self.options.bucket:
            return super().channels(place)
        found = {"object": object_channel.spec_for(self._store(f"{place.run}/channel"))}
        if self.options.redis_url:
            return {"redis": redis.spec_for(place, self.options.redis_url), **found}
        return found

    def launcher(self, place: RunPlace) -> Launcher:
        """Lambda functions through one FunctionExecutor."""
        return self.launcher_of(place, WORKER)

    def launcher_of(self, place: RunPlace, entry: str) -> Launcher:
        """A launcher of functions that run `entry`."""
        environment = {"AWS_ENDPOINT_URL": self.endpoint} if self.endpoint else {}
        return CloudLauncher(place, FUNCTIONS, self.settings(place), entry, environment)

    def settings(self, place: RunPlace) -> dict[str, object]:
        """What `LambdaFunctions` is told."""
        options = self.options
        return {
            "region": self.region,
            "bucket": self.bucket,
            "prefix": options.prefix,
            "role": self.role,
            "timeout_s": int(options.function_time_limit),
            "architecture": options.architecture,
            "requirements": () if options.image else self.requirements(place),
            "image": options.image,
            "subnets": options.subnets,
            "security_groups": options.security_groups,
        }

    def clean(self, place: RunPlace) -> Sequence[str]:
        """Remove gradients, what calls said, and Lithops' files should everything have been killed at once."""
        removed = clean_private_folders(place)
        if not self.options.bucket:
            return removed
        store = S3ObjectStore(self._store(place.run))
        for prefix in ("channel/", "calls/"):
            with suppress(SmltError):  # a store that cannot be reached forgets them by its own rules
                for info in list(store.list(prefix)):
                    store.delete(info.key)
                    removed.append(f"{store.name}/{info.key}")
        return removed

    def clean_all(self) -> Sequence[str]:
        """Functions, layers, and what Lithops keeps in the bucket."""
        from smlt.backends.aws.cleaning import remove_all

        return list(remove_all(self))

    def setup(self) -> Recipe:
        """A CloudFormation stack: bucket, role, and a policy for whoever starts runs."""
        from smlt.backends.aws.stack import recipe

        return recipe(self)

    def build(self, place: RunPlace) -> Recipe:
        """An image for Lambda; what a zip has no room for is in it."""
        from smlt.backends.aws.image import recipe

        return recipe(self, place)

    def check(self) -> Sequence[CheckResult]:
        """See `aws.check`."""
        from smlt.backends.aws.check import checks

        return list(checks(self))

    def checked_store(self) -> S3ObjectStore:
        """Where a check may write something."""
        return S3ObjectStore(self._store("check"))

    def requirements(self, place: RunPlace) -> tuple[str, ...]:
        """What functions need beside smlt and boto3."""
        return required(place.preload, place.requirements, LITHOPS_NEEDS, self.options.preinstalled)

    def threads_for(self, workers: int) -> int:
        """The option `worker_threads`."""
        del workers
        return self.options.worker_threads

    def scratch(self, place: RunPlace) -> str:
        """In a function's own folder for such things."""
        return f"/tmp/smlt/{place.run}"

    @property
    def region(self) -> str:
        """The option, or the usual variables."""
        found = self.options.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        if not found:
            raise ConfigError("[backend].region: which region of AWS?", "export AWS_REGION=us-east-1")
        return found

    @property
    def bucket(self) -> str:
        """The option."""
        if not self.options.bucket:
            raise ConfigError(
                "[backend].bucket: in which bucket shall runs be kept?",
                "--set backend.bucket=NAME; `smlt cloud setup aws` writes what makes one",
            )
        return self.options.bucket

    @property
    def role(self) -> str:
        """The option."""
        if not self.options.role:
            raise ConfigError(
                "[backend].role: functions need a role that says what they may do",
                "--set backend.role=arn:aws:iam::…; `smlt cloud setup aws` writes what makes one",
            )
        return self.options.role

    @property
    def endpoint(self) -> str | None:
        """The option, or the usual variable; None for the region's own."""
        return self.options.endpoint or os.environ.get("AWS_ENDPOINT_URL") or None

    def _store(self, below: str) -> StoreSpec:
        path = "/".join(part for part in (self.options.prefix, below) if part)
        return spec_of(self.bucket, path, self.region, self.endpoint)
