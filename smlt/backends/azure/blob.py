"""Azure Blob Storage as an object store, through obstore; the usual Azure variables, or an identity, hold the key."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from smlt.backends.object_store import RETRIES, ObstoreObjectStore, client_options
from smlt.core.errors import ConfigError
from smlt.core.storage import StoreSpec

KIND = "azure"
ACCOUNT, ENDPOINT = "account", "endpoint"
"""Options of the spec; without an endpoint it is the account's own."""


def spec_of(account: str, container: str, prefix: str, endpoint: str | None) -> StoreSpec:
    """The store that begins at this prefix of a container."""
    options = {ACCOUNT: account, **({ENDPOINT: endpoint} if endpoint else {})}
    return StoreSpec(KIND, f"az://{container}/{prefix}".rstrip("/"), options)


class BlobObjectStore(ObstoreObjectStore):
    """Objects below a prefix of a container. Create-if-absent and compare-and-swap are Blob's own conditions.

    Args:
        spec: its URL is `az://container/prefix`; see `ACCOUNT` and `ENDPOINT`.
    """

    def __init__(self, spec: StoreSpec) -> None:
        from obstore.store import AzureStore

        parts = urlsplit(spec.url)
        endpoint = spec.options.get(ENDPOINT)
        if parts.scheme != "az" or not parts.netloc:
            raise ConfigError(f"{spec.url!r} is no place in Blob Storage", "write it like az://container/prefix")
        where: dict[str, Any] = {"account_name": spec.options[ACCOUNT]}
        if endpoint:
            where |= {"endpoint": endpoint}
        made = AzureStore(
            parts.netloc,
            prefix=parts.path.strip("/") or None,
            config=where,  # type: ignore[arg-type]
            retry_config=RETRIES,
            client_options=client_options(endpoint),
        )
        super().__init__(made, spec.url)

    def _tag(self, meta: Any) -> str:
        """A listing leaves out the quotes, which conditions need."""
        bare = meta["e_tag"].strip('"')
        return super()._tag({**meta, "e_tag": f'"{bare}"'})
