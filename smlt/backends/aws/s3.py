"""S3 as an object store, through obstore; nothing here knows a key: the usual AWS variables, or the role, hold it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from smlt.backends.object_store import RETRIES, ObstoreObjectStore, client_options
from smlt.core.errors import ConfigError
from smlt.core.storage import StoreSpec

KIND = "s3"
REGION, ENDPOINT = "region", "endpoint"
"""Options of the spec; without an endpoint it is the region's own."""


def spec_of(bucket: str, prefix: str, region: str, endpoint: str | None) -> StoreSpec:
    """The store that begins at this prefix of a bucket."""
    options = {REGION: region, **({ENDPOINT: endpoint} if endpoint else {})}
    return StoreSpec(KIND, f"s3://{bucket}/{prefix}".rstrip("/"), options)


class S3ObjectStore(ObstoreObjectStore):
    """Objects below a prefix of a bucket. Create-if-absent and compare-and-swap are S3's own conditional writes.

    Args:
        spec: its URL is `s3://bucket/prefix`; see `REGION` and `ENDPOINT`.
    """

    def __init__(self, spec: StoreSpec) -> None:
        from obstore.store import S3Store

        parts = urlsplit(spec.url)
        endpoint = spec.options.get(ENDPOINT)
        if parts.scheme != "s3" or not parts.netloc:
            raise ConfigError(f"{spec.url!r} is no place in S3", "write it like s3://bucket/prefix")
        where: dict[str, Any] = {"region": spec.options[REGION]}
        if endpoint:
            where |= {"endpoint": endpoint, "virtual_hosted_style_request": False}
        super().__init__(
            S3Store(
                parts.netloc,
                prefix=parts.path.strip("/") or None,
                retry_config=RETRIES,
                client_options=client_options(endpoint),
                credential_provider=_provider(os.environ),
                **where,
            ),
            spec.url,
        )


def _provider(environment: Mapping[str, str]) -> Any:
    """Where keys come from: obstore reads variables and roles by itself; profiles and SSO are boto3's business.

    Raises:
        ConfigError: a profile is named, and boto3 is not installed.
    """
    if environment.get("AWS_ACCESS_KEY_ID") or not environment.get("AWS_PROFILE"):
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError as error:
        raise ConfigError("AWS_PROFILE is set, and reading profiles needs boto3", "pip install 'smlt[aws]'") from error
    return Boto3CredentialProvider()
