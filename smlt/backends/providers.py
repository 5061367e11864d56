"""Whose price lists come with smlt, and how each is renewed; names only, nothing is imported before it is used."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType

from smlt.backends.price_lists import PriceList
from smlt.core.catalog import Catalog, load_catalog

PACKAGES: Mapping[str, str] = MappingProxyType(
    {provider: f"smlt.backends.{provider}" for provider in ("local", "aws", "gcp", "azure")}
)
"""Where each provider's `catalog.toml` is."""

PRICE_LISTS: Mapping[str, str] = MappingProxyType(
    {
        "aws": "smlt.backends.aws.prices:AwsPriceList",
        "gcp": "smlt.backends.gcp.prices:GcpPriceList",
        "azure": "smlt.backends.azure.prices:AzurePriceList",
    }
)
"""Who publishes prices, and what reads them."""


def packaged_catalog(provider: str) -> Catalog:
    """The price list of a provider that came with smlt."""
    return load_catalog(PACKAGES[provider])


def price_list(provider: str, endpoint: str | None = None, key: str | None = None) -> PriceList:
    """What fetches a provider's published prices."""
    module, _, name = PRICE_LISTS[provider].partition(":")
    made: PriceList = getattr(importlib.import_module(module), name)(endpoint, key)
    return made
