"""Azure's prices, from its public Retail Prices interface; no account is needed.

An answer is a page of rows with a link to the next. A meter may have a free tier, of price 0, before what is paid.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from smlt.backends.price_lists import PriceList
from smlt.core.catalog import Catalog, FigurePath

FUNCTIONS, CONTAINERS, STORAGE, REDIS = "Functions", "Azure Container Apps", "Storage", "Redis Cache"


@dataclass(frozen=True)
class Meter:
    """Where a figure is found.

    Attributes:
        path: of the figure.
        service, meter, unit: exactly as in the row.
        product: of the row; empty for any.
        times: the figure is the row's price times this.
    """

    path: FigurePath
    service: str
    meter: str
    unit: str
    product: str = ""
    times: float = 1.0

    def fits(self, row: dict[str, Any]) -> bool:
        """Whether a row is this meter's."""
        return (
            row.get("meterName") == self.meter
            and row.get("unitOfMeasure") == self.unit
            and (not self.product or row.get("productName") == self.product)
        )


def _in(offer: str) -> tuple[Meter, Meter]:
    """Container Apps' meters for the active use of vCPUs and memory."""
    return (
        Meter(("functions", offer, "usd_per_vcpu_s"), CONTAINERS, "Standard vCPU Active Usage", "1 Second"),
        Meter(("functions", offer, "usd_per_gib_s"), CONTAINERS, "Standard Memory Active Usage", "1 GiB Second"),
    )


METERS = (
    *_in("container_apps"),
    *_in("container_apps_t4"),
    *_in("container_apps_a100"),
    Meter(("functions", "container_apps_t4", "usd_per_gpu_s"), CONTAINERS, "Standard NC T4 v3 GPU Usage", "1 Second"),
    Meter(
        ("functions", "container_apps_a100", "usd_per_gpu_s"), CONTAINERS, "Standard NC A100 v4 GPU Usage", "1 Second"
    ),
    Meter(("functions", "consumption", "usd_per_gib_s"), FUNCTIONS, "Standard Execution Time", "1 GB Second"),
    Meter(("functions", "consumption", "usd_per_request"), FUNCTIONS, "Standard Total Executions", "10", times=1 / 10),
    Meter(("functions", "flex", "usd_per_gib_s"), FUNCTIONS, "On Demand Execution Time", "1 GB Second"),
    Meter(("functions", "flex", "usd_per_request"), FUNCTIONS, "On Demand Total Executions", "10", times=1 / 10),
    Meter(("stores", "blob", "usd_per_gb_month"), STORAGE, "Hot LRS Data Stored", "1 GB/Month", "Blob Storage"),
    Meter(("stores", "blob", "usd_per_put"), STORAGE, "Hot LRS Write Operations", "10K", "Blob Storage", 1e-4),
    Meter(("stores", "blob", "usd_per_get"), STORAGE, "Hot Read Operations", "10K", "Blob Storage", 1e-4),
    *(
        Meter(("servers", f"redis_{size.lower()}", "usd_per_h"), REDIS, f"{size} Cache Instance", "1 Hour", product)
        for size, product in {
            "C3": "Azure Redis Cache Standard",
            "P1": "Azure Redis Cache Premium",
            "P2": "Azure Redis Cache Premium",
            "P3": "Azure Redis Cache Premium",
        }.items()
    ),
)
"""Meter names: microsoft/azure-skills retail-prices-api.md; infracost's goldens."""


class AzurePriceList(PriceList):
    """The Retail Prices interface."""

    address = "https://prices.azure.com/api/retail/prices"
    covers = "functions, Container Apps, Blob Storage, Redis, virtual machines on demand and spot"

    def _do_fetch(self, catalog: Catalog) -> Iterator[tuple[FigurePath, float | None]]:
        rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for meter in METERS:
            offer: Any = catalog.offer_at(meter.path)
            if offer is None:
                continue
            place = (meter.service, offer.regions[0])
            if place not in rows:
                rows[place] = self._rows(f"serviceName eq '{place[0]}' and armRegionName eq '{place[1]}'")
            yield meter.path, None
            for price in _paid([row for row in rows[place] if meter.fits(row)]):
                yield meter.path, price * meter.times
        for name, machine in catalog.vms.items():
            yield from self._machine(name, machine.regions[0])

    def _machine(self, name: str, region: str) -> Iterator[tuple[FigurePath, float | None]]:
        """A machine with Linux, on demand and spot."""
        found = self._rows(
            f"serviceName eq 'Virtual Machines' and armSkuName eq '{name}' and armRegionName eq '{region}'"
        )
        linux = [row for row in found if not str(row.get("productName", "")).endswith("Windows")]
        for key in ("usd_per_h", "spot_usd_per_h"):
            path = ("vms", name, key)
            yield path, None
            for price in _paid([row for row in linux if _kind(row) == key]):
                yield path, price

    def _rows(self, condition: str) -> list[dict[str, Any]]:
        """All rows of what is paid by use, of the primary region of each meter, in dollars."""
        found: list[dict[str, Any]] = []
        wanted = f"{condition} and priceType eq 'Consumption'"
        url: str | None = f"{self.endpoint}?$filter={quote(wanted)}"
        while url:
            page = self._get(url)
            if not isinstance(page, dict) or not isinstance(page.get("Items"), list):
                raise self._answered("Items")
            found += [row for row in page["Items"] if isinstance(row, dict) and row.get("currencyCode") == "USD"]
            url = page.get("NextPageLink") or None
        return [row for row in found if row.get("isPrimaryMeterRegion", True)]


def _kind(row: dict[str, Any]) -> str:
    """Which figure of a machine a row is."""
    said = f"{row.get('meterName', '')} {row.get('skuName', '')}"
    if "Low Priority" in said or row.get("unitOfMeasure") != "1 Hour":
        return ""
    return "spot_usd_per_h" if "Spot" in said else "usd_per_h"


def _paid(rows: list[dict[str, Any]]) -> set[float]:
    """The price of the first tier that is paid; several where rows disagree."""
    paid = [row for row in rows if row.get("retailPrice")]
    first = min((row.get("tierMinimumUnits", 0.0) for row in paid), default=0.0)
    return {float(row["retailPrice"]) for row in paid if row.get("tierMinimumUnits", 0.0) == first}
