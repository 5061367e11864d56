"""Prices of a provider, with source and date: the one table that plans and the ledger both use."""

from __future__ import annotations

import tomllib
from importlib import resources

from pydantic import BaseModel, ConfigDict, ValidationError

from smlt.core.errors import ConfigError


class FunctionPrice(BaseModel):
    """Price of functions: USD for a GiB-second of memory and for a request."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    usd_per_gib_s: float
    usd_per_request: float


class Catalog(BaseModel):
    """A provider's prices. `as_of` is the date they were read, `source` where."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    provider: str
    source: str
    as_of: str
    function: FunctionPrice


def load_catalog(package: str) -> Catalog:
    """The `catalog.toml` that lies in a backend's package."""
    text = resources.files(package).joinpath("catalog.toml").read_text(encoding="utf-8")
    try:
        return Catalog.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        raise ConfigError(f"{package}: catalog.toml is not a price list: {error}") from error
