"""Options of the backend aws as tests use it."""

from __future__ import annotations

from typing import Any

from smlt.backends.aws.backend import LITHOPS_NEEDS
from smlt.backends.packages import required
from tests.emulators.aws import REGION, ROLE, Aws

BUCKET = "smlt-runs"

INSTALLED = tuple(
    line.partition("==")[0] for line in required(("torch", "tensorflow"), ("scikit-learn",), LITHOPS_NEEDS, ())
)
"""All that functions need, for ministack's interpreter has it: what is deployed is smlt alone, in no time."""


def options(aws: Aws, **changes: Any) -> dict[str, Any]:
    """`[backend]` for runs in a bucket that is made if it is not there."""
    aws.client("s3").create_bucket(Bucket=BUCKET)
    return {"bucket": BUCKET, "role": ROLE, "region": REGION, "endpoint": aws.url, "preinstalled": INSTALLED, **changes}
