"""Registers the provider aws, and its object store."""

from __future__ import annotations

from collections.abc import Mapping

from smlt.core.plugins import Entry, hookimpl

api_version = (1, 0)


@hookimpl
def smlt_backends() -> Mapping[str, Entry]:
    """The backend."""
    summary = "AWS: functions on Lambda, runs in S3, gradients through S3 or Redis"
    return {"aws": Entry("smlt.backends.aws.backend:AwsBackend", "aws", summary)}


@hookimpl
def smlt_stores() -> Mapping[str, Entry]:
    """The store."""
    return {"s3": Entry("smlt.backends.aws.s3:S3ObjectStore", summary="a prefix of an S3 bucket")}
