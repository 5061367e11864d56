"""Flags that several verbs share, spelled once. Nothing heavy enters: this is read for `smlt --help`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Output(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    JSON = "json"


Config = Annotated[
    Path | None, typer.Option("-c", "--config", metavar="FILE", help="Settings stronger than ./smlt.toml.")
]
BackendName = Annotated[
    str | None, typer.Option("-b", "--backend", metavar="NAME", help="Where to run: see `smlt backends`.")
]
Assignments = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set any key of smlt.toml; may be repeated."),
]
OutputFormat = Annotated[Output, typer.Option("-o", "--output", help="A table for people, or one JSON document.")]
RunsDir = Annotated[
    Path | None,
    typer.Option("--runs-dir", metavar="DIR", help="Where runs are kept. [default: .smlt/runs, or SMLT_RUNS_DIR]"),
]
Run = Annotated[str | None, typer.Argument(metavar="RUN", help="Name of a run. [default: the latest]")]
NamedRun = Annotated[str, typer.Argument(metavar="RUN", help="Name of a run.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks; SMLT_DEBUG=1 does so too.")]
