"""Prices that were fetched, kept in the user's cache folder: figures by path, with the day they were read.

The folder and the environment are given; fetching is the backends' business.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from smlt.core.billing import Table
from smlt.core.catalog import Catalog, FigurePath, Provenance
from smlt.core.errors import ConfigError
from smlt.core.offers import Day


class KeptFigure(Table):
    """A price as it was found."""

    path: tuple[str, ...] = Field(min_length=2)
    value: Any
    as_of: Day


class KeptPrices(Table):
    """What is kept of a provider.

    Attributes:
        schema_version: of this file.
        provider: whose.
        source: where the prices were fetched.
        figures: what was found.
    """

    schema_version: Literal[1] = 1
    provider: str
    source: str
    figures: tuple[KeptFigure, ...]


@dataclass(frozen=True)
class PriceCache:
    """Fetched prices, a file a provider.

    Attributes:
        folder: where they are kept.
    """

    folder: Path

    @classmethod
    def of(cls, env: Mapping[str, str]) -> PriceCache:
        """The user's own: `smlt/prices` in XDG_CACHE_HOME, which is `~/.cache` unless set."""
        home = Path(env["HOME"]) if env.get("HOME") else Path.home()
        return cls(Path(env.get("XDG_CACHE_HOME") or home / ".cache") / "smlt" / "prices")

    def path(self, provider: str) -> Path:
        """The file of a provider."""
        return self.folder / f"{provider}.json"

    def keep(self, provider: str, source: str, figures: Mapping[FigurePath, Any], today: str) -> Path:
        """Add what was fetched today to what is kept, and return the file.

        Raises:
            ConfigError: the folder cannot be written.
        """
        kept = {figure.path: figure for figure in self.kept(provider)}
        kept |= {path: KeptFigure(path=path, value=value, as_of=today) for path, value in figures.items()}
        document = KeptPrices(provider=provider, source=source, figures=tuple(kept.values()))
        path = self.path(provider)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            beside = path.with_suffix(".new")
            beside.write_text(document.model_dump_json(indent=1) + "\n", encoding="utf-8")
            beside.replace(path)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be written: {error.strerror}", "set XDG_CACHE_HOME") from error
        return path

    def kept(self, provider: str) -> tuple[KeptFigure, ...]:
        """What was fetched of a provider; nothing where nothing was.

        Raises:
            ConfigError: the file is not what `keep` writes.
        """
        found = self._read(provider)
        return found.figures if found else ()

    def applied(self, catalog: Catalog) -> Catalog:
        """The catalog with the fetched prices that are not older than its own.

        What was fetched for a table that the catalog no longer has is passed over.
        """
        found = self._read(catalog.provider)
        newer: dict[FigurePath, tuple[Any, Provenance]] = {}
        for figure in found.figures if found else ():
            if catalog.offer_at(figure.path) is None:
                continue
            own = catalog.provenance(figure.path).as_of
            if found and (own is None or figure.as_of >= own):
                said = Provenance(source=found.source, as_of=figure.as_of, confidence="high")
                newer[figure.path] = (figure.value, said)
        return catalog.amend(newer, str(self.path(catalog.provider))) if newer else catalog

    def _read(self, provider: str) -> KeptPrices | None:
        path = self.path(provider)
        try:
            return KeptPrices.model_validate(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, ValidationError) as error:
            raise ConfigError(
                f"{path}: is no cache of prices: {error}", "delete it; it can be fetched again"
            ) from error
