"""Google Cloud's prices, from its Billing Catalog, which wants a key; SKUs are told apart by their descriptions.

Machines and Memorystore are sold there by parts that no size names: they are left as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from smlt.backends.price_lists import PriceList
from smlt.core.catalog import Catalog, FigurePath
from smlt.core.errors import ConfigError

CLOUD_RUN, CLOUD_STORAGE = "152E-C115-5142", "95FF-2EF5-5EA1"
"""Services, as the catalog numbers them."""


@dataclass(frozen=True)
class Sku:
    """Where a figure is found: the service, its description with {region}, the unit it is sold in."""

    path: FigurePath
    service: str
    description: str
    unit: str


def _skus() -> Iterator[Sku]:
    for name in ("cloud_run_jobs", "cloud_run_jobs_tier2", "cloud_run_gpu_l4"):
        path = ("functions", name)
        yield Sku((*path, "usd_per_vcpu_s"), CLOUD_RUN, "Jobs CPU in {region}", "s")
        yield Sku((*path, "usd_per_gib_s"), CLOUD_RUN, "Jobs Memory in {region}", "GiBy.s")
    for name, tier in (("cloud_run", ""), ("cloud_run_tier2", " Tier 2")):
        path, billing = ("functions", name), f"{tier} (Request-based billing)"
        yield Sku((*path, "usd_per_vcpu_s"), CLOUD_RUN, f"Services CPU{billing}", "s")
        yield Sku((*path, "usd_per_gib_s"), CLOUD_RUN, f"Services Memory{billing}", "GiBy.s")
    yield Sku(("stores", "gcs", "usd_per_put"), CLOUD_STORAGE, "Regional Standard Class A Operations", "count")
    yield Sku(("stores", "gcs", "usd_per_get"), CLOUD_STORAGE, "Regional Standard Class B Operations", "count")


class GcpPriceList(PriceList):
    """The Billing Catalog."""

    address = "https://cloudbilling.googleapis.com/v1"
    covers = "Cloud Run and its jobs, Cloud Storage requests"

    def _do_fetch(self, catalog: Catalog) -> Iterator[tuple[FigurePath, float | None]]:
        if not self.key:
            raise ConfigError(
                "Google Cloud's price list wants an API key, and there is none",
                "set GOOGLE_API_KEY to a key that may use the Cloud Billing API",
            )
        listed: dict[str, list[dict[str, Any]]] = {}
        for sku in _skus():
            offer: Any = catalog.offer_at(sku.path)
            if offer is None:
                continue
            if sku.service not in listed:
                listed[sku.service] = list(self._listed(sku.service))
            region = offer.regions[0]
            yield sku.path, None
            for row in listed[sku.service]:
                here = row.get("serviceRegions", [])
                if row.get("description") == sku.description.format(region=region) and (
                    region in here or "global" in here
                ):
                    yield from ((sku.path, price) for price in _first_paid(row, sku.unit))

    def _listed(self, service: str) -> Iterator[dict[str, Any]]:
        """All SKUs of a service. The key travels in a header, so that it is in no message and no log."""
        token = ""
        while True:
            query = urlencode({"currencyCode": "USD", **({"pageToken": token} if token else {})})
            page = self._get(f"{self.endpoint}/services/{service}/skus?{query}", {"X-Goog-Api-Key": self.key or ""})
            if not isinstance(page, dict) or not isinstance(page.get("skus"), list):
                raise self._answered("skus")
            yield from (row for row in page["skus"] if isinstance(row, dict))
            token = page.get("nextPageToken") or ""
            if not token:
                return


def _first_paid(row: dict[str, Any], unit: str) -> Iterator[float]:
    for pricing in row.get("pricingInfo", [])[-1:]:  # the last one is the latest
        expression = pricing.get("pricingExpression", {})
        if expression.get("usageUnit") != unit:
            continue
        tiers = sorted(
            (float(tier.get("startUsageAmount", 0)), _usd(tier.get("unitPrice", {})))
            for tier in expression.get("tieredRates", [])
        )
        yield from [price for _, price in tiers if price][:1]


def _usd(money: dict[str, Any]) -> float:
    return int(money.get("units") or 0) + int(money.get("nanos") or 0) / 1e9
