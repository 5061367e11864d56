"""A provider's price list, typed and validated: the one table that plans and the ledger both use.

Every figure has a source, a date and a confidence. Reading files is here; fetching and keeping prices is not.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from smlt.core.billing import FunctionPrice, Table
from smlt.core.errors import ConfigError, Problem, nearest
from smlt.core.layers import spell
from smlt.core.mistakes import problems_of
from smlt.core.offers import (
    Confidence,
    Day,
    FunctionOffer,
    Offer,
    ServerOffer,
    StoreOffer,
    TrafficOffer,
    VmOffer,
)

FigurePath = tuple[str, ...]
"""Where a figure stands in a catalog: ("functions", "lambda_x86", "usd_per_gib_s")."""


class Provenance(Table):
    """Where a figure comes from; `as_of` is None for what the user says."""

    source: str
    as_of: Day | None
    confidence: Confidence


def _chosen(data: Mapping[str, Any]) -> FunctionPrice:
    offered = data.get("functions") or {}
    nothing = FunctionPrice(usd_per_gib_s=0.0, usd_per_request=0.0)  # an error that is raised already
    found: FunctionPrice = offered.get(data.get("default_function") or next(iter(offered), ""), nothing)
    return found


class Catalog(Table):
    """A provider's prices, limits and speeds.

    Attributes:
        schema_version: of this layout.
        provider: whose.
        currency: of all prices.
        source, as_of: of the whole, for figures that state none of their own.
        functions, stores, servers, vms: what is sold, by name.
        traffic: bytes that leave a region.
        default_function: which kind of functions is used; empty for the first.
        function: its price, or the one price there is where no kinds are listed.
        amended: where figures come from that were replaced since, by their spelled path.
    """

    schema_version: Literal[1] = 1
    provider: str = Field(min_length=1)
    currency: Literal["USD"] = "USD"
    source: str = Field(min_length=1)
    as_of: Day = Field(examples=["2026-11-24"])
    functions: dict[str, FunctionOffer] = Field(default_factory=dict)
    stores: dict[str, StoreOffer] = Field(default_factory=dict)
    servers: dict[str, ServerOffer] = Field(default_factory=dict)
    vms: dict[str, VmOffer] = Field(default_factory=dict)
    traffic: TrafficOffer | None = None
    default_function: str = ""
    function: FunctionPrice = Field(default_factory=_chosen)
    amended: dict[str, Provenance] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_functions(self) -> Self:
        if not self.functions and "function" not in self.model_fields_set:
            raise ValueError("has neither [function] nor a table like [functions.NAME]: nothing could be priced")
        if self.functions and "function" in self.model_fields_set:
            raise ValueError("has both [function] and [functions.NAME]: which of them is billed?")
        if self.default_function and self.default_function not in self.functions:
            hint = nearest(self.default_function, list(self.functions))
            raise ValueError(f"default_function = {self.default_function!r} is none of its functions; {hint}")
        return self

    @property
    def sha256(self) -> str:
        """Digest of all that the catalog says, however the file was written."""
        return hashlib.sha256(json.dumps(self.to_plain(), sort_keys=True).encode()).hexdigest()

    def to_plain(self) -> dict[str, Any]:
        """The catalog as plain data, which `catalog_of` reads back."""
        return self.model_dump(mode="json", exclude_defaults=True, exclude={"function"} if self.functions else None)

    def using(self, name: str) -> Catalog:
        """The catalog with another kind of functions in use.

        Raises:
            ConfigError: it has no such kind.
        """
        if name not in self.functions:
            hint = nearest(name, list(self.functions))
            raise ConfigError(f"{self.provider} has no functions called {name!r}", hint)
        return self.model_copy(update={"default_function": name, "function": self.functions[name]})

    def offer_at(self, path: FigurePath) -> BaseModel | None:
        """The table that a figure stands in; None where there is none."""
        here: Any = self
        for part in path[:-1]:
            here = here.get(part) if isinstance(here, Mapping) else getattr(here, part, None)
        return here if isinstance(here, BaseModel) else None

    def provenance(self, path: FigurePath) -> Provenance:
        """Where a figure comes from."""
        if spell(path) in self.amended:
            return self.amended[spell(path)]
        offer = self.offer_at(path[:3])
        if isinstance(offer, Offer):
            weak = any(part in offer.weak for part in path)
            return Provenance(source=offer.source, as_of=offer.as_of, confidence="low" if weak else offer.confidence)
        return Provenance(source=self.source, as_of=self.as_of, confidence="high")

    def amend(self, figures: Mapping[FigurePath, tuple[Any, Provenance]], where: str) -> Catalog:
        """The catalog with other values for some figures.

        Args:
            figures: value and provenance by path.
            where: what says so, for messages.

        Raises:
            ConfigError: there is no such figure, or it cannot have this value.
        """
        problems = [
            Problem(spell(path), where, f"{self.provider} has no such table", self._tables_like(path))
            for path in figures
            if self.offer_at(path) is None
        ]
        if problems:
            raise ConfigError.of(problems, "prices")
        data, amended = self.to_plain(), dict(self.amended)
        for path, (value, provenance) in figures.items():
            here = data
            for part in path[:-1]:
                here = here.setdefault(part, {})
            here[path[-1]] = value
            amended[spell(path)] = provenance
        return catalog_of({**data, "amended": amended}, where)

    def _tables_like(self, path: FigurePath) -> str:
        offered = getattr(self, path[0], None) if path else None
        if isinstance(offered, Mapping) and len(path) > 1:
            return nearest(path[1], list(offered))
        return nearest(path[0] if path else "", ["functions", "stores", "servers", "vms", "traffic", "function"])


def load_catalog(package: str) -> Catalog:
    """The `catalog.toml` that lies in a backend's package.

    Raises:
        ConfigError: it is no price list; every mistake with its key.
    """
    text = resources.files(package).joinpath("catalog.toml").read_text(encoding="utf-8")
    return parse_catalog(text, f"{package}/catalog.toml")


def read_catalogs(path: Path) -> dict[str, Catalog]:
    """Price lists from a file, by provider: one in TOML or, where its name ends in .json, JSON; or several in JSON.

    Raises:
        ConfigError: the file cannot be read, or holds no price list; every mistake with its key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}", "name a file with a price list") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    data = _plain(text, str(path), is_json=path.suffix == ".json")
    several = data.get("catalogs") if isinstance(data, dict) else None
    found = [catalog_of(each, str(path)) for each in (several if isinstance(several, list) else [data])]
    return {catalog.provider: catalog for catalog in found}


def parse_catalog(text: str, where: str) -> Catalog:
    """A price list from its TOML; `where` names it in messages.

    Raises:
        ConfigError: it is none; every mistake with its key.
    """
    return catalog_of(_plain(text, where), where)


def catalog_of(data: Any, where: str) -> Catalog:
    """A price list from plain data.

    Raises:
        ConfigError: it is none; every mistake with its key.
    """
    try:
        return Catalog.model_validate(data)
    except ValidationError as error:
        raise ConfigError.of(problems_of(error, Catalog, data, origin_of=lambda _: where), "prices") from error


def _plain(text: str, where: str, *, is_json: bool = False) -> Any:
    try:
        return json.loads(text) if is_json else tomllib.loads(text)
    except (tomllib.TOMLDecodeError, json.JSONDecodeError) as error:
        language = "JSON" if is_json else "TOML"
        raise ConfigError(f"{where}: not valid {language}: {error}", "see `smlt prices export`") from error
