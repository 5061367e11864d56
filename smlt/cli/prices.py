"""`smlt prices`: what providers ask, where each figure comes from and how old it is; fetch today's, or export."""

from __future__ import annotations

import os
import sys
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smlt.cli.options import Assignments, Config, Debug, Output, OutputFormat

if TYPE_CHECKING:
    from smlt.core.catalog import Catalog

app = typer.Typer(help="Show what providers ask, fetch today's prices, or export them.")


class Format(StrEnum):
    """How prices are exported."""

    CSV = "csv"
    JSON = "json"
    BIBTEX = "bibtex"


Providers = Annotated[list[str] | None, typer.Argument(metavar="[PROVIDER]...", help="Whose. [default: all]")]
Pinned = Annotated[
    Path | None,
    typer.Option("--catalog", metavar="FILE", help="These prices and no others: a catalog.toml, or an export as JSON."),
]


@app.callback(invoke_without_command=True)
def prices(
    context: typer.Context,
    catalog: Pinned = None,
    config: Config = None,
    assignments: Assignments = None,
    output: OutputFormat = Output.TABLE,
    debug: Debug = False,
) -> None:
    """Show what providers ask, fetch today's prices, or export them."""
    if context.invoked_subcommand is None:
        show(None, catalog=catalog, config=config, assignments=assignments, output=output)


@app.command()
def show(
    providers: Providers = None,
    everything: Annotated[bool, typer.Option("--all", help="Limits and speeds too, not prices alone.")] = False,
    catalog: Pinned = None,
    config: Config = None,
    assignments: Assignments = None,
    output: OutputFormat = Output.TABLE,
    debug: Debug = False,
) -> None:
    """Print prices with their unit, date and confidence; as JSON with their sources, and limits and speeds."""
    from smlt.cli.tables import print_json, print_rows
    from smlt.core.figures import figures

    chosen = _catalogs(providers, catalog, config, assignments)
    if output is Output.JSON:
        print_json({"catalogs": [_document(each) for each in chosen]})
    for each in chosen if output is Output.TABLE else ():
        rows = [
            [figure.key, _shown(figure.value), figure.unit, figure.provenance.as_of or "", figure.provenance.confidence]
            for figure in figures(each)
            if everything or figure.is_price
        ]
        print(f"{each.provider}, {each.currency}, catalog {each.sha256[:12]}")
        print_rows(rows, head=["figure", "value", "unit", "as of", "confidence"], right=[1])
        print()
    if catalog is None:
        _warn_of_old(chosen)


@app.command()
def refresh(
    providers: Providers = None,
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="Another address of one provider's price list, as of a mirror.")
    ] = None,
    accept_jumps: Annotated[
        bool, typer.Option("--accept-jumps", help="Take prices that differ from the ones before by 5 times and more.")
    ] = False,
    output: OutputFormat = Output.TABLE,
    debug: Debug = False,
) -> None:
    """Fetch today's prices over HTTP and keep them in the cache folder. GCP wants a key in GOOGLE_API_KEY."""
    from smlt.backends.providers import PRICE_LISTS
    from smlt.cli.tables import print_json
    from smlt.core.errors import CloudError, ConfigError

    key = os.environ.get("GOOGLE_API_KEY")
    chosen = _known(providers or [name for name in PRICE_LISTS if name != "gcp" or key], list(PRICE_LISTS))
    if endpoint and len(chosen) != 1:
        raise ConfigError("--endpoint is the address of one provider's price list", "name the provider")
    documents, failures = [], []
    for provider in chosen:
        try:
            documents.append(_refresh(provider, endpoint, key, accept_jumps))
        except CloudError as error:
            failures.append(error)
            continue
        if output is Output.TABLE:
            _print_refreshed(documents[-1])
    if output is Output.JSON and documents:
        print_json({"refreshed": documents})
    if not providers and not key:
        print("gcp was left out: it wants a key in GOOGLE_API_KEY", file=sys.stderr)
    for failure in failures[:-1]:
        print(f"error: {failure}", file=sys.stderr)
    if failures:
        raise failures[-1]


@app.command()
def export(
    providers: Providers = None,
    form: Annotated[
        Format, typer.Option("--format", help="csv, json (which --catalog reads), or bibtex.")
    ] = Format.CSV,
    catalog: Pinned = None,
    config: Config = None,
    assignments: Assignments = None,
    debug: Debug = False,
) -> None:
    """Print all figures with their sources, to keep beside results or to cite."""
    from smlt.cli import exports

    chosen = _catalogs(providers, catalog, config, assignments)
    print({Format.CSV: exports.csv, Format.JSON: exports.json, Format.BIBTEX: exports.bibtex}[form](chosen), end="")
    if catalog is None:
        _warn_of_old(chosen)


def today() -> date:
    """The day on this machine's calendar."""
    return date.today()


def _catalogs(
    providers: list[str] | None, pinned: Path | None, config: Path | None, assignments: list[str] | None
) -> list[Catalog]:
    """The price lists in force: those of a file, or ours, with what was fetched since and what the user says."""
    from smlt.backends.providers import PACKAGES, packaged_catalog
    from smlt.cli.loading import load_settings
    from smlt.core.catalog import read_catalogs
    from smlt.core.plugins import load_registry
    from smlt.core.price_cache import PriceCache
    from smlt.core.price_settings import with_own_prices

    registry = load_registry()
    settings = load_settings(registry, config=config, assignments=assignments, flags={}, task_required=False)
    pinned = pinned or (Path(settings.spec.prices.catalog) if settings.spec.prices.catalog else None)
    if pinned is not None:
        held = read_catalogs(pinned)
        return [held[name] for name in _known(providers or list(held), list(held))]
    own = settings.spec.prices.by_provider
    _known(list(own), [*PACKAGES, *registry.entries["backends"]])
    cache = PriceCache.of(os.environ)
    return [
        with_own_prices(cache.applied(packaged_catalog(name)), own, settings.origins)
        for name in _known(providers or list(PACKAGES), list(PACKAGES))
    ]


def _known(names: list[str], known: list[str]) -> list[str]:
    from smlt.core.errors import ConfigError, nearest

    for name in names:
        if name not in known:
            raise ConfigError(f"there is no price list of {name!r}", nearest(name, known))
    return names


def _document(catalog: Catalog) -> dict[str, Any]:
    from smlt.core.figures import figures, old_prices

    return {
        "provider": catalog.provider,
        "currency": catalog.currency,
        "sha256": catalog.sha256,
        "old_prices": [figure.key for figure in old_prices(catalog, today())],
        "figures": [
            {
                "key": figure.key,
                "value": figure.value,
                "unit": figure.unit,
                "as_of": figure.provenance.as_of,
                "confidence": figure.provenance.confidence,
                "source": figure.provenance.source,
            }
            for figure in figures(catalog)
        ],
    }


def _warn_of_old(catalogs: list[Catalog]) -> None:
    from smlt.backends.providers import PRICE_LISTS
    from smlt.core.figures import OLD_DAYS, old_prices

    for catalog in catalogs:
        old = [figure.provenance.as_of or "" for figure in old_prices(catalog, today())]
        if old:
            mend = f"; `smlt prices refresh {catalog.provider}`" if catalog.provider in PRICE_LISTS else ""
            count = "1 price is" if len(old) == 1 else f"{len(old)} prices are"
            print(
                f"warning: {catalog.provider}: {count} older than {OLD_DAYS} days, the oldest of {min(old)}{mend}",
                file=sys.stderr,
            )


def _refresh(provider: str, endpoint: str | None, key: str | None, accept_jumps: bool) -> dict[str, Any]:
    """Fetch and keep one provider's prices; returns what changed."""
    from smlt.backends.providers import packaged_catalog, price_list
    from smlt.core.layers import spell
    from smlt.core.price_cache import PriceCache

    cache = PriceCache.of(os.environ)
    before = cache.applied(packaged_catalog(provider))
    source = price_list(provider, endpoint, key)
    fetched = source.fetch(before)
    taken = {**fetched.prices, **(fetched.jumps if accept_jumps else {})}
    file = cache.keep(provider, source.endpoint, taken, today().isoformat())

    def change(path: tuple[str, ...], price: float) -> dict[str, Any]:
        return {"key": spell(path), "before": getattr(before.offer_at(path), path[-1]), "now": price}

    return {
        "provider": provider,
        "source": source.endpoint,
        "covers": source.covers,
        "file": str(file),
        "changed": [item for item in (change(*each) for each in taken.items()) if item["before"] != item["now"]],
        "unchanged": [spell(path) for path, now in taken.items() if getattr(before.offer_at(path), path[-1]) == now],
        "refused": [] if accept_jumps else [change(*each) for each in fetched.jumps.items()],
        "missing": [spell(path) for path in fetched.missing],
    }


def _print_refreshed(document: dict[str, Any]) -> None:
    from smlt.cli.tables import print_rows

    changed, refused = document["changed"], document["refused"]
    print(
        f"{document['provider']}: {len(changed)} changed, {len(document['unchanged'])} as before, "
        f"{len(refused)} refused, {len(document['missing'])} not found; covers {document['covers']}"
    )
    rows = [
        [item["key"], _shown(item["before"]), _shown(item["now"]), what]
        for what, items in (("", changed), ("refused: too far off, see --accept-jumps", refused))
        for item in items
    ]
    rows += [[key, "", "", "not found"] for key in document["missing"]]
    if rows:
        print_rows(rows, head=["figure", "before", "now", ""], right=[1, 2])
    print(f"kept in {document['file']}")


def _shown(value: Any) -> str:
    from smlt.core.mistakes import shown

    return f"{value:.6g}" if isinstance(value, float) else shown(value)
