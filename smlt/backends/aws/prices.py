"""AWS' prices, from the bulk offer files that it publishes for every service and region; no account is needed.

The file of EC2 has several gigabytes and no spot prices: machines are left as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from smlt.backends.price_lists import PriceList
from smlt.core.catalog import Catalog, FigurePath


@dataclass(frozen=True)
class Rate:
    """Where a figure is found.

    Attributes:
        path: of the figure.
        service: the offer file.
        attributes: patterns that the product's attributes match as a whole.
        times: the figure is the price times this.
    """

    path: FigurePath
    service: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    times: float = 1.0

    def fits(self, attributes: Mapping[str, str]) -> bool:
        """Whether a product is this rate's, in one region: what holds at "Any" location is the free tier."""
        return attributes.get("location") != "Any" and all(
            re.fullmatch(pattern, attributes.get(name, "")) for name, pattern in self.attributes.items()
        )


def _rates(catalog: Catalog) -> Iterator[Rate]:
    for name, suffix in (("lambda_x86", ""), ("lambda_arm64", "-ARM")):
        path = ("functions", name)
        yield Rate((*path, "usd_per_gib_s"), "AWSLambda", {"group": f"AWS-Lambda-Duration{suffix}"})
        yield Rate((*path, "usd_per_request"), "AWSLambda", {"group": f"AWS-Lambda-Requests{suffix}"})
    usage = "usagetype"
    yield Rate(("stores", "s3", "usd_per_put"), "AmazonS3", {usage: r"(.*-)?Requests-Tier1"})
    yield Rate(("stores", "s3", "usd_per_get"), "AmazonS3", {usage: r"(.*-)?Requests-Tier2"})
    stored = {usage: r"(.*-)?TimedStorage-ByteHrs", "volumeType": "Standard"}
    yield Rate(("stores", "s3", "usd_per_gb_month"), "AmazonS3", stored)
    for key, group, bytes_key, bytes_each in (
        ("usd_per_put", "DDB-WriteUnits", "usd_per_gb_in", 1024),
        ("usd_per_get", "DDB-ReadUnits", "usd_per_gb_out", 4096),
    ):
        on_demand = {"group": group, usage: r".*(Write|Read)RequestUnits"}
        yield Rate(("stores", "dynamodb", key), "AmazonDynamoDB", on_demand)
        yield Rate(("stores", "dynamodb", bytes_key), "AmazonDynamoDB", on_demand, 1e9 / bytes_each)
    for name in catalog.servers:
        node = {"instanceType": re.escape(name), "cacheEngine": "Redis", usage: rf"(.*-)?NodeUsage:{re.escape(name)}"}
        yield Rate(("servers", name, "usd_per_h"), "AmazonElastiCache", node)


class AwsPriceList(PriceList):
    """The bulk offer files."""

    address = "https://pricing.us-east-1.amazonaws.com"
    covers = "Lambda, S3 Standard, DynamoDB, ElastiCache nodes"

    def _do_fetch(self, catalog: Catalog) -> Iterator[tuple[FigurePath, float | None]]:
        files: dict[tuple[str, str], dict[str, Any]] = {}
        for rate in _rates(catalog):
            offer: Any = catalog.offer_at(rate.path)
            if offer is None:
                continue
            place = (rate.service, offer.regions[0])
            if place not in files:
                files[place] = self._file(*place)
            yield rate.path, None
            for sku, product in files[place]["products"].items():
                if rate.fits(product.get("attributes", {})):
                    for price in _first_paid(files[place]["terms"]["OnDemand"].get(sku, {})):
                        yield rate.path, price * rate.times

    def _file(self, service: str, region: str) -> dict[str, Any]:
        found = self._get(f"{self.endpoint}/offers/v1.0/aws/{service}/current/{region}/index.json")
        for part in ("products", "terms"):
            if not isinstance(found, dict) or not isinstance(found.get(part), dict):
                raise self._answered(part)
        if not isinstance(found["terms"].get("OnDemand"), dict):
            raise self._answered("terms on demand")
        return dict(found)


def _first_paid(terms: Mapping[str, Any]) -> Iterator[float]:
    """Of each term the price of its first tier that is paid."""
    for term in terms.values():
        tiers = [
            (float(tier.get("beginRange") or 0), float(tier.get("pricePerUnit", {}).get("USD", 0)))
            for tier in term.get("priceDimensions", {}).values()
        ]
        yield from [price for _, price in sorted(tiers) if price][:1]
