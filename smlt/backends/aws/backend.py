"""The provider aws, as far as jobs are planned for it."""

from __future__ import annotations

from smlt.backends.priced import PricedBackend


class AwsBackend(PricedBackend):
    """AWS: Lambda, S3, ElastiCache."""

    package = "smlt.backends.aws"
    store = "s3"
    redis_server = "cache.r7g.large"
