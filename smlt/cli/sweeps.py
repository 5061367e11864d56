"""A sweep's files and words: what it is of, the tables it writes, the medians that people see."""

from __future__ import annotations

import fcntl
import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smlt.core import strict_json
from smlt.core.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from smlt.core.summary import Summary
    from smlt.workflows.sweep import Cell, Sweep

UNEQUAL = ("workers", "backend", "prices", "planner")
"""Sections of a job in which the cells of a sweep may differ."""

SHOWN = ("wall_seconds", "step_seconds_p50", "examples_per_s", "cost_usd")
"""Quantities in the table for people; `medians.csv` has all."""


def check_name(name: str) -> None:
    """Raises ConfigError for a name that is no folder's."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError(f"--name {name!r}: a name has letters, digits, dots, dashes and underscores")


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """While entered, no other sweep measures in this folder; the kernel lets go of it when the process is gone.

    Raises:
        ConfigError: one does.
        StorageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("w", encoding="ascii")
    except OSError as error:
        raise StorageError(f"{folder} cannot be written: {error.strerror}", "give another --runs-dir") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another `smlt sweep` measures in {folder}", "wait for it, or give --name") from None
        yield


def remember(sweep: Sweep, folder: Path) -> None:
    """Write down what the sweep is of; one that was begun must have been of the same.

    Raises:
        ConfigError: the sweep of this name was of another job or other files.
        StorageError: the folder cannot be written.
    """
    from smlt._version import __version__

    request = sweep.cells[0].request
    job = {section: value for section, value in request.spec.to_plain().items() if section not in UNEQUAL}
    told = {"job": job, "code_sha256": request.kept.sha256 if request.kept else "", "smlt": __version__}
    told = json.loads(strict_json.dumps(told))
    file = folder / "sweep.json"
    if file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        changed = [key for key in told if before.get(key) != told[key]]
        if changed:
            words = {"job": "job", "code_sha256": "code", "smlt": "version of smlt"}
            raise ConfigError(
                f"the sweep in {folder} was begun with another {', '.join(words[key] for key in changed)}: "
                "what is measured now would not belong to it",
                "choose another --name",
            )
    _write(file, strict_json.dumps(told, indent=2) + "\n")


def write_tables(sweep: Sweep, folder: Path) -> dict[str, Any]:
    """Write all that is over as CSV; returns what `smlt sweep -o json` prints.

    Raises:
        StorageError: the folder cannot be written.
    """
    from smlt.workflows.measurements import csv_of, median_rows, run_rows, step_rows

    measured = sweep.measured()
    runs, steps = run_rows(measured), step_rows(measured)
    places = {cell.label: number for number, cell in enumerate(sweep.cells)}
    by_fleet = sorted(zip(measured, runs, strict=True), key=lambda each: places[each[0].cell.label])
    medians = median_rows([row for _, row in by_fleet], list(sweep.cells[0].settings))
    for name, rows in (("runs", runs), ("steps", steps), ("medians", medians)):
        _write(folder / f"{name}.csv", csv_of(rows))
    wanted = len(sweep.cells) * sweep.repeats
    return {"folder": str(folder), "wanted": wanted, "measured": len(runs), "runs": runs, "medians": medians}


def print_medians(document: Mapping[str, Any]) -> None:
    """The medians that matter most, and where the rest is."""
    from smlt.cli.tables import print_rows

    rows = [row for row in document["medians"] if row["quantity"] in SHOWN]
    if rows:
        settings = [name for name in rows[0] if name not in ("quantity", "unit", "runs", "median", "low", "high")]
        print_rows(
            [
                [
                    *(str(row[name]) for name in settings), row["quantity"],
                    f"{row['median']:.4g}", f"{row['low']:.4g} to {row['high']:.4g}", row["unit"], str(row["runs"]),
                ]
                for row in rows
            ],
            head=[*settings, "quantity", "median", "95 % interval", "unit", "runs"],
        )  # fmt: skip
        print()
    print(
        f"{document['measured']} of {document['wanted']} runs; runs.csv, steps.csv, medians.csv in {document['folder']}"
    )


class Teller:
    """Says on stderr what each run came to, keeps the tables up to date, and knows the exit code."""

    def __init__(self, sweep: Sweep, folder: Path) -> None:
        self._sweep = sweep
        self._folder = folder
        self.code = 0

    def __call__(self, cell: Cell, repeat: int, summary: Summary) -> None:
        """A run is over."""
        from smlt.cli.ending import EXIT_CODES

        write_tables(self._sweep, self._folder)
        figures = f"{summary.wall_seconds:.1f} s, {summary.step_seconds_p50 * 1000:.4g} ms a step"
        self.say(f"{cell.label}, repeat {repeat + 1} of {self._sweep.repeats}: {summary.status}, {figures}")
        if summary.status == "failed":
            self.say(f"  {summary.error.get('message', summary.stop_reason)}")
        if summary.status != "stopped":  # that is a measurement too
            self.code = self.code or EXIT_CODES.get(summary.status, summary.failure().exit_code)

    def say(self, text: str) -> None:
        """Tell the user something now."""
        print(text, file=sys.stderr, flush=True)


def _write(file: Path, text: str) -> None:
    """Whole or not at all."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(file.suffix + ".part")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(file)
    except OSError as error:
        raise StorageError(f"{file} cannot be written: {error.strerror}", "give another --runs-dir") from error
