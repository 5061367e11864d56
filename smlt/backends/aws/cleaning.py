"""Removes what smlt made in an account beside runs: functions, layers, and what Lithops keeps in the bucket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from smlt.backends.aws.mistakes import explained

if TYPE_CHECKING:
    from smlt.backends.aws.backend import AwsBackend

NAMED = "smlt-"
"""What the names of functions and layers begin with."""

KEPT_BY_LITHOPS = ("lithops.jobs/", "lithops.runtimes/")


def remove_all(backend: AwsBackend) -> Iterator[str]:
    """Remove everything but runs; yields the name of each thing once it is gone.

    Raises:
        CloudError: AWS refuses.
    """
    import boto3

    session: Any = boto3.Session(region_name=backend.region)
    functions, s3 = (session.client(name, endpoint_url=backend.endpoint) for name in ("lambda", "s3"))
    try:
        for page in functions.get_paginator("list_functions").paginate():
            for function in page["Functions"]:
                if function["FunctionName"].startswith(NAMED):
                    functions.delete_function(FunctionName=function["FunctionName"])
                    yield f"function {function['FunctionName']}"
        for page in functions.get_paginator("list_layers").paginate():
            for layer in page["Layers"]:
                if layer["LayerName"].startswith(NAMED):
                    yield from _remove_layer(functions, layer["LayerName"])
        for prefix in KEPT_BY_LITHOPS if backend.options.bucket else ():
            yield from _remove_objects(s3, backend.bucket, prefix)
    except Exception as error:  # whatever boto3 raises
        settings = {"region": backend.region, "bucket": backend.options.bucket, "role": backend.options.role}
        raise explained(error, settings) from error


def _remove_layer(functions: Any, name: str) -> Iterator[str]:
    for page in functions.get_paginator("list_layer_versions").paginate(LayerName=name):
        for version in page["LayerVersions"]:
            functions.delete_layer_version(LayerName=name, VersionNumber=version["Version"])
            yield f"layer {name}:{version['Version']}"


def _remove_objects(s3: Any, bucket: str, prefix: str) -> Iterator[str]:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            s3.delete_object(Bucket=bucket, Key=item["Key"])
            yield f"s3://{bucket}/{item['Key']}"
