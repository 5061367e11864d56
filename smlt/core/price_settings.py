"""`[prices]` of the configuration: a price list that is pinned, or figures that the user knows better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from smlt.core.catalog import Catalog, FigurePath, Provenance, read_catalogs
from smlt.core.errors import ConfigError
from smlt.core.job import PricesSection
from smlt.core.layers import spell


def catalog_in_force(offered: Catalog, prices: PricesSection) -> Catalog:
    """What a run is billed by: the pinned file's prices alone, or the backend's with the user's own figures.

    Raises:
        ConfigError: the file holds no prices of this provider, or a figure is none.
    """
    if prices.catalog is None:
        return with_own_prices(offered, prices.by_provider)
    held = read_catalogs(Path(prices.catalog))
    if offered.provider not in held:
        raise ConfigError(
            f"{prices.catalog}: holds prices of {', '.join(held)}, not of {offered.provider}",
            f"`smlt prices export {offered.provider} --format json` writes them",
        )
    return held[offered.provider]


def with_own_prices(catalog: Catalog, prices: Mapping[str, Any], origins: Mapping[str, str] | None = None) -> Catalog:
    """The catalog with the user's own figures, from `[prices.PROVIDER.…]`.

    Args:
        catalog: the price list.
        prices: the section, by provider.
        origins: where each key was set, if that is known.

    Raises:
        ConfigError: there is no such figure, or it cannot have this value.
    """
    for path, value in _leaves((), prices.get(catalog.provider, {})):
        where = (origins or {}).get(spell(("prices", catalog.provider, *path)), "[prices] of the configuration")
        catalog = catalog.amend({path: (value, Provenance(source=where, as_of=None, confidence="high"))}, where)
    return catalog


def _leaves(path: FigurePath, value: Any) -> Iterator[tuple[FigurePath, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves((*path, str(key)), item)
    else:
        yield path, value
