"""`[prices]` of the configuration: figures of a price list that the user knows better."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from smlt.core.catalog import Catalog, FigurePath, Provenance
from smlt.core.layers import spell


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
