"""The provider gcp, as far as jobs are planned for it."""

from __future__ import annotations

from smlt.backends.priced import PricedBackend


class GcpBackend(PricedBackend):
    """Google Cloud: Cloud Run, Cloud Storage, Memorystore."""

    package = "smlt.backends.gcp"
    store = "gcs"
    redis_server = "memorystore_m2"
