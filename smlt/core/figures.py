"""A catalog's figures one by one: where each stands, its unit, where it comes from, and whether it is old."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

from pydantic import BaseModel

from smlt.core.catalog import Catalog, FigurePath, Provenance
from smlt.core.layers import spell
from smlt.core.offers import Offer

OLD_DAYS = 90
"""Prices that were read longer ago are warned about."""

NO_FIGURES = {"schema_version", "provider", "currency", "source", "as_of", "default_function", "amended", "title"}
NO_FIGURES |= {"regions", "confidence", "weak", "gpu"}

UNITS = {
    "_mb_s": "MB/s",
    "_per_s": "1/s",
    "_mib": "MiB",
    "_gib": "GiB",
    "_bytes": "B",
    "_s": "s",
    "vcpus": "vCPU",
}
"""Units by the end of a name."""

PER = {"gib_s": "GiB-s", "vcpu_s": "vCPU-s", "gpu_s": "GPU-s", "gb_month": "GB-month"}
"""What a price is for, where its name does not read well."""


@dataclass(frozen=True)
class Figure:
    """One figure: a number, a range, or a yes or no."""

    path: FigurePath
    value: Any
    provenance: Provenance

    @property
    def key(self) -> str:
        """Its path as TOML writes it."""
        return spell(self.path)

    @property
    def is_price(self) -> bool:
        """Whether it is money."""
        return self.path[-1].startswith(("usd_", "spot_usd_"))

    @property
    def unit(self) -> str:
        """Its unit; empty where it counts things."""
        name = self.path[-1]
        if self.is_price:
            per = name.partition("usd_per_")[2]
            return "USD/" + PER.get(per, per.replace("_", " ").replace("gb", "GB"))
        if self.path[-2:-1] == ("memory_mib",):
            return "MiB"
        return next((unit for end, unit in UNITS.items() if name.endswith(end)), "")

    def age_days(self, today: date) -> int | None:
        """How old it is; None for what the user says."""
        said = self.provenance.as_of
        return None if said is None else (today - date.fromisoformat(said)).days


def figures(catalog: Catalog) -> Iterator[Figure]:
    """All figures that the catalog states, in its order."""
    for path, value in _leaves((), catalog.to_plain()):
        yield Figure(path, value, catalog.provenance(path))


def old_prices(catalog: Catalog, today: date, days: int = OLD_DAYS) -> list[Figure]:
    """The prices that were read more than so many days ago; what costs nothing does not age."""
    return [
        figure
        for figure in figures(catalog)
        if figure.is_price and figure.value and (figure.age_days(today) or 0) > days
    ]


def _leaves(path: FigurePath, value: Any) -> Iterator[tuple[FigurePath, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key not in NO_FIGURES:
                yield from _leaves((*path, key), item)
    else:
        yield path, value


def offers(catalog: Catalog) -> Iterator[tuple[str, str, Offer]]:
    """Kind, name and table of all that is sold."""
    for kind in ("functions", "stores", "servers", "vms"):
        for name, offer in getattr(catalog, kind).items():
            yield kind, name, offer
    if isinstance(catalog.traffic, BaseModel):
        yield "traffic", "traffic", catalog.traffic
