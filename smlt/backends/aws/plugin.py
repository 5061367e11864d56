"""Registers the provider aws."""

from __future__ import annotations

from collections.abc import Mapping

from smlt.core.plugins import Entry, hookimpl

api_version = (1, 0)


@hookimpl
def smlt_backends() -> Mapping[str, Entry]:
    """The backend."""
    summary = "AWS: Lambda, S3, ElastiCache; planned for, not launched on yet"
    return {"aws": Entry("smlt.backends.aws.backend:AwsBackend", summary=summary)}
