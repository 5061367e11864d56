"""The provider azure, as far as jobs are planned for it."""

from __future__ import annotations

from smlt.backends.priced import PricedBackend


class AzureBackend(PricedBackend):
    """Azure: Container Apps jobs or Functions, Blob Storage, Redis."""

    package = "smlt.backends.azure"
    store = "blob"
    redis_server = "redis_p1"
