"""A run as one file for a paper's appendix: configuration, code, log, prices, versions and seed, with their digests."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from smlt.core import layout, strict_json
from smlt.core.errors import NotFound
from smlt.core.runlog import RunEvent
from smlt.core.storage import ObjectStore
from smlt.report.toml import toml_of

CONFIG = "code/smlt-run.toml"
STAMP = (1980, 1, 1, 0, 0, 0)
"""Of every file, so that the same run gives the same bytes."""

README = """\
Run {run} of smlt {smlt}: {task} on {backend}, seed {seed}.

summary.json   what it came to; weights_sha256 is the digest of the trained weights
events.jsonl   its log, an event a line
code/          the task's files as they travelled; smlt-run.toml is the whole configuration, defaults included
catalog.json   the prices it was billed by{no_catalog}
versions.json  of what it was driven with, and of what the workers said that they run
SHA256SUMS     digests of these files

To run it again: cd code && smlt train -c smlt-run.toml{flag}
"""


def bundle(store: ObjectStore, events: Sequence[RunEvent]) -> bytes:
    """A zip of what a run is; the weights are not in it, their digest is.

    Args:
        store: the run's objects.
        events: its log, which has begun.
    """
    files = dict(_files(store, events))
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items()))
    return _zipped({**files, "SHA256SUMS": sums.encode()})


def _files(store: ObjectStore, events: Sequence[RunEvent]) -> Iterator[tuple[str, bytes]]:
    created = [event for event in events if event.kind == "created"][-1].data
    job = created["job"]
    catalog = _read(store, layout.CATALOG)
    told = {
        "run": created["run"], "smlt": created["smlt"], "task": created["task"], "backend": created["backend"],
        "seed": job["job"]["seed"], "no_catalog": "" if catalog else ": not here, the run is not over",
        "flag": " --catalog ../catalog.json" if catalog else "",
    }  # fmt: skip
    yield "README.txt", README.format(**told).encode()
    yield "events.jsonl", "".join(event.to_json() + "\n" for event in events).encode()
    workers = {
        f"{event.data['generation']}/{event.data['rank']}": event.data["fingerprint"]
        for event in events
        if event.kind == "ready"
    }
    versions = {"controller": created.get("versions", {}), "workers": workers}
    yield "versions.json", (strict_json.dumps(versions, indent=2) + "\n").encode()
    if catalog:
        yield "catalog.json", catalog
    summary = _read(store, layout.SUMMARY)
    if summary:
        yield "summary.json", summary
    code = _read(store, layout.CODE)
    if code:
        with zipfile.ZipFile(io.BytesIO(code)) as packed:
            yield from ((f"code/{name}", packed.read(name)) for name in packed.namelist())
    yield CONFIG, toml_of(_without_places(job)).encode()


def _without_places(job: Mapping[str, Any]) -> dict[str, Any]:
    """The job without the place of a price list on the machine that ran it: it is in the bundle."""
    prices = {key: value for key, value in (job.get("prices") or {}).items() if key != "catalog"}
    return {**{section: values for section, values in job.items() if section != "prices"}, "prices": prices}


def _read(store: ObjectStore, key: str) -> bytes:
    try:
        return bytes(store.get(key))
    except NotFound:
        return b""


def _zipped(files: Mapping[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name, STAMP), data, zipfile.ZIP_DEFLATED)
    return packed.getvalue()
