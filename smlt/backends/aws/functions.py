"""Lambda through Lithops: what it deploys is ours, asynchronous retries are off, and calls go where boto3 is told.

Lithops' attributes without documentation that are used here are those of the series `smlt.backends.lithops` is for.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smlt.backends.aws.mistakes import explained, is_passing
from smlt.backends.lithops.functions import CloudFunctions
from smlt.backends.packages import Package, build_zip
from smlt.core.errors import CloudError

LAYER_BYTES = 250 * 2**20
"""Of all layers and the function, unpacked."""

LONGEST_WAIT_S = 300
"""For a function to become active after it was created."""

EVENT_AGE_S = 60
"""A call that Lambda had no room for is dropped after so long; our start deadline is for this too."""


class LambdaFunctions(CloudFunctions):
    """Lambda functions, one a memory size, named by a digest of all that is in them: what changes is another function.

    Settings: region, bucket, prefix, role, timeout_s, architecture, requirements, image, subnets, security_groups.
    """

    def __init__(self, settings: Mapping[str, Any], folder: Path) -> None:
        super().__init__(settings, folder)
        self._package = Package(tuple(settings["requirements"]), settings["architecture"], "python")
        self._layer_digest = self._package.digest[:12]
        self._deployed: set[int] = set()
        self._backend: Any = None
        self._lambda: Any = None

    def config(self) -> dict[str, Any]:
        """Without keys: boto3 finds them here, and functions have their role."""
        settings = self.settings
        mark = hashlib.sha256(json.dumps({**settings, "layer": self._layer_digest}, sort_keys=True).encode())
        return {
            "lithops": {"backend": "aws_lambda", "storage": "aws_s3", "execution_timeout": settings["timeout_s"]},
            "aws": {"region": settings["region"]},
            "aws_s3": {"storage_bucket": settings["bucket"]},
            "aws_lambda": {
                "execution_role": settings["role"],
                "runtime_timeout": settings["timeout_s"],
                "namespace": f"smlt-{mark.hexdigest()[:10]}",
                "vpc": {"subnets": settings["subnets"], "security_groups": settings["security_groups"]},
                "env_vars": [],
            },
        }

    def prepare(self, executor: Any) -> None:
        """Publish the layer that all functions share, unless it is there."""
        import boto3

        self._backend = executor.compute_handler.backend
        self._lambda = boto3.client("lambda", region_name=self.settings["region"], config=_patient())
        self._backend.lambda_client = self._lambda
        self._backend.invoke = self._invoke
        self._backend._wait_for_function_deployed = self._wait
        layer = "" if self.settings["image"] else self._layer(executor)
        self._backend._get_layer = lambda _: layer or "none"
        create = self._lambda.create_function
        self._lambda.create_function = lambda **options: create(**self._asked(options))

    def deploy(self, executor: Any, memory_mib: int) -> None:
        """One function of this size, that is never run again by itself."""
        if memory_mib in self._deployed:
            return
        runtime = executor.invoker.runtime_name
        function = self._backend._format_function_name(runtime, memory_mib)
        if not self._exists(function):  # what Lithops remembers of one that was deleted would keep it from deploying
            key = self._backend.get_runtime_key(runtime, memory_mib)
            executor.internal_storage.delete_runtime_meta(key)
        executor.invoker.select_runtime("deploy", memory_mib)
        self._lambda.put_function_event_invoke_config(
            FunctionName=function, MaximumRetryAttempts=0, MaximumEventAgeInSeconds=EVENT_AGE_S
        )
        self._deployed.add(memory_mib)

    def explain(self, error: BaseException) -> CloudError:
        """See `mistakes`."""
        return explained(error, self.settings)

    def passes(self, error: BaseException) -> bool:
        """See `mistakes`."""
        return is_passing(error)

    def _layer(self, executor: Any) -> str:
        """Its ARN. The name says what is in it; a layer of this name is never changed."""
        name = f"smlt-{self._layer_digest}"
        found = self._lambda.list_layer_versions(LayerName=name)["LayerVersions"]
        if found:
            return str(found[0]["LayerVersionArn"])
        packed = self.folder / "packages"
        packed.mkdir()
        data = build_zip(self._package, packed, LAYER_BYTES)
        key = "/".join(part for part in (self.settings["prefix"], "packages", f"{name}.zip") if part)
        bucket, storage = self.settings["bucket"], executor.internal_storage.storage
        storage.put_object(bucket, key, data)
        made = self._lambda.publish_layer_version(
            LayerName=name,
            Description="what smlt's functions need",
            Content={"S3Bucket": bucket, "S3Key": key},
            CompatibleArchitectures=[self._package.architecture],
        )
        storage.delete_object(bucket, key)
        return str(made["LayerVersionArn"])

    def _invoke(self, runtime_name: str, memory_mib: int, payload: dict[str, Any]) -> str:
        """Lithops' own way knows one address only, and never gives up."""
        try:
            answer = self._lambda.invoke(
                FunctionName=self._backend._format_function_name(runtime_name, memory_mib),
                InvocationType="Event",
                Payload=json.dumps(payload, default=str),
            )
        except Exception as error:  # Lithops would only log it
            self.refused[payload["job_id"]] = error
            raise
        return str(answer["ResponseMetadata"]["RequestId"])

    def _asked(self, options: dict[str, Any]) -> dict[str, Any]:
        """What Lithops asks for, of our architecture and, where there is one, from our image."""
        image = self.settings["image"]
        if image:
            kept = {name: value for name, value in options.items() if name not in ("Runtime", "Handler", "Layers")}
            options = {**kept, "PackageType": "Image", "Code": {"ImageUri": image}}
        return {**options, "Architectures": [self.settings["architecture"]]}

    def _exists(self, function: str) -> bool:
        try:
            self._lambda.get_function_configuration(FunctionName=function)
        except self._lambda.exceptions.ResourceNotFoundException:
            return False
        return True

    def _wait(self, function: str) -> None:
        """Lithops' own way looks every 25 s."""
        waiter = self._lambda.get_waiter("function_active_v2")
        waiter.wait(FunctionName=function, WaiterConfig={"Delay": 1, "MaxAttempts": LONGEST_WAIT_S})


def _patient() -> Any:
    """Throttled requests are tried again, more slowly."""
    from botocore.config import Config

    return Config(retries={"mode": "adaptive", "max_attempts": 10}, connect_timeout=10, read_timeout=120)
