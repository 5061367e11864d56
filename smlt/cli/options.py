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
WorkerCount = Annotated[
    str | None, typer.Option("-w", "--workers", metavar="N", help="How many work at once, or auto.")
]
Memory = Annotated[str | None, typer.Option(metavar="SIZE", help="Memory of each worker, like 2GiB, or auto.")]
Deadline = Annotated[str | None, typer.Option(metavar="TIME", help="Stop by then, like 30m.")]
Budget = Annotated[str | None, typer.Option(metavar="USD", help="Stop before more is spent, like 2usd.")]
Epochs = Annotated[str | None, typer.Option(metavar="N", help="Passes over the data.")]
Steps = Annotated[str | None, typer.Option(metavar="N", help="Steps, instead of epochs.")]
CatalogFile = Annotated[
    str | None,
    typer.Option("--catalog", metavar="FILE", help="Bill by the prices in this file: see `smlt prices export`."),
]
ProfileFile = Annotated[
    Path | None,
    typer.Option("--profile", metavar="FILE", help="What `smlt profile` measured; otherwise speed is guessed."),
]
Detach = Annotated[bool, typer.Option("--detach", help="Go on in the background once a first step is made.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but errors.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Tell of workers and checkpoints too.")]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Do not ask before money is spent.")]
OutputFormat = Annotated[Output, typer.Option("-o", "--output", help="A table for people, or one JSON document.")]
RunsDir = Annotated[
    Path | None,
    typer.Option("--runs-dir", metavar="DIR", help="Where runs are kept. [default: .smlt/runs, or SMLT_RUNS_DIR]"),
]
Run = Annotated[str | None, typer.Argument(metavar="RUN", help="Name of a run. [default: the latest]")]
NamedRun = Annotated[str, typer.Argument(metavar="RUN", help="Name of a run.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks; SMLT_DEBUG=1 does so too.")]
