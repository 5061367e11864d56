"""Fetching a provider's published prices over plain HTTP: what all providers share.

A price list asks for what it knows how to match, and for nothing else; keeping what it found is not its business.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, ClassVar
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from smlt.core.catalog import Catalog, FigurePath
from smlt.core.errors import CloudError, ConfigError

TIMEOUT_S = 60.0
JUMP = 5.0
"""A price so many times larger or smaller than the one before is more likely in another unit."""


@dataclass(frozen=True)
class Fetched:
    """What a price list says of a catalog's figures.

    Attributes:
        prices: USD by path, in the catalog's units.
        jumps: those that differ too much to be believed.
        missing: figures that were asked for and not found, or found with several prices.
    """

    prices: Mapping[FigurePath, float]
    jumps: Mapping[FigurePath, float]
    missing: tuple[FigurePath, ...]


class PriceList(ABC):
    """A provider's published prices.

    Args:
        endpoint: another address than the provider's own, as of a mirror.
        key: where the provider wants one.

    Attributes:
        address: the provider's own.
        covers: what of it is read, in words.
    """

    address: ClassVar[str]
    covers: ClassVar[str]

    def __init__(self, endpoint: str | None = None, key: str | None = None) -> None:
        self.endpoint = (endpoint or self.address).rstrip("/")
        self.key = key
        self._asked: set[str] = set()

    def fetch(self, catalog: Catalog) -> Fetched:
        """Today's prices of a catalog's figures.

        Raises:
            CloudError: the provider cannot be reached, refuses, or answers something else.
            ConfigError: it wants a key and none was given.
        """
        found: dict[FigurePath, set[float]] = {}
        self._asked.clear()
        for path, price in self._read(catalog):
            found.setdefault(path, set())
            if price:
                found[path].add(float(f"{price:.12g}"))  # 0.055 times 1e-4 is a hair more than 5.5e-6
        prices = {path: min(values) for path, values in found.items() if len(values) == 1}
        jumps = {path: price for path, price in prices.items() if _is_jump(price, _figure(catalog, path))}
        kept = {path: price for path, price in prices.items() if path not in jumps}
        return Fetched(kept, jumps, tuple(path for path in found if path not in prices))

    def _read(self, catalog: Catalog) -> list[tuple[FigurePath, float | None]]:
        try:
            return list(self._do_fetch(catalog))
        except (AttributeError, KeyError, TypeError, ValueError) as error:  # of data that is not as it should be
            raise self._answered("what was expected in it") from error

    @abstractmethod
    def _do_fetch(self, catalog: Catalog) -> Iterator[tuple[FigurePath, float | None]]:
        """Every figure that is asked for with None, and each price that was found for it."""

    def _get(self, url: str, headers: Mapping[str, str] | None = None) -> Any:
        """The JSON at an address; each is asked for once, so that pages which point at one another come to an end."""
        host = urlsplit(url).netloc
        if url in self._asked:
            raise self._answered("an end: a page leads back to an earlier one")
        self._asked.add(url)
        if urlsplit(url).scheme not in ("http", "https") or not host:
            raise ConfigError(f"not an address of a price list: {url!r}", "it starts with https://")
        try:
            with urlopen(Request(url, headers=dict(headers or {})), timeout=TIMEOUT_S) as answer:
                return json.load(answer)
        except HTTPError as error:
            error.close()
            hint = "is the key right, and allowed to read prices?" if error.code in (400, 401, 403) else ""
            raise CloudError(f"{host} answered {error.code} {error.reason}", hint or "try again later") from error
        except (URLError, HTTPException, OSError) as error:
            reason = getattr(error, "reason", None) or error
            raise CloudError(
                f"{host} cannot be reached: {reason}", "the prices that are kept stay in use; try again when online"
            ) from error
        except ValueError as error:
            raise CloudError(f"{host} did not answer with JSON: {error}", "is there a proxy in between?") from error

    def _answered(self, what: str) -> CloudError:
        host = urlsplit(self.endpoint).netloc
        return CloudError(f"{host} answered without {what}: the form of its price list has changed", "update smlt")


def _figure(catalog: Catalog, path: FigurePath) -> float | None:
    found = getattr(catalog.offer_at(path), path[-1], None)
    return float(found) if isinstance(found, (int, float)) else None


def _is_jump(price: float, before: float | None) -> bool:
    return bool(before) and before is not None and not before / JUMP <= price <= before * JUMP
