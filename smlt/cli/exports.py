"""Price lists for a paper or a spreadsheet: CSV, JSON that `--catalog` reads, and BibTeX."""

from __future__ import annotations

import csv as _csv
import io
import re
from collections.abc import Sequence
from typing import Any

from smlt.core import strict_json
from smlt.core.catalog import Catalog
from smlt.core.figures import figures, offers


def csv(catalogs: Sequence[Catalog]) -> str:
    """A line a figure, tidy: provider, key, value, unit, as_of, confidence, source."""
    text = io.StringIO()
    writer = _csv.writer(text, lineterminator="\n")
    writer.writerow(["provider", "key", "value", "unit", "as_of", "confidence", "source", "catalog_sha256"])
    for catalog in catalogs:
        for figure in figures(catalog):
            said = figure.provenance
            value = strict_json.dumps(figure.value) if isinstance(figure.value, list) else figure.value
            row = [catalog.provider, figure.key, value, figure.unit, said.as_of or "", said.confidence, said.source]
            writer.writerow([*row, catalog.sha256])
    return text.getvalue()


def json(catalogs: Sequence[Catalog]) -> str:
    """Whole price lists, with all that is said in them."""
    document = {"catalogs": [catalog.to_plain() for catalog in catalogs]}
    return strict_json.dumps(document, indent=2) + "\n"


def bibtex(catalogs: Sequence[Catalog]) -> str:
    """An entry for each thing that is sold, which its source and date are cited by."""
    entries = []
    for catalog in catalogs:
        for kind, name, offer in offers(catalog):
            label = re.sub(r"[^A-Za-z0-9]+", "-", f"smlt-{catalog.provider}-{kind}-{name}")
            title = f"{catalog.provider}: {offer.title or name} ({', '.join(offer.regions) or 'all regions'})"
            note = f"{offer.source}. Confidence: {offer.confidence}. Catalog {catalog.sha256[:12]}"
            fields = {"title": title, "year": offer.as_of[:4], "urldate": offer.as_of, "note": note}
            lines = "".join(f"  {key} = {{{_escaped(value)}}},\n" for key, value in fields.items())
            entries.append(f"@misc{{{label},\n{lines}}}\n")
    return "\n".join(entries)


def _escaped(text: Any) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", str(text))
