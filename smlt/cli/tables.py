"""Plain tables and JSON on stdout."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from smlt.core import strict_json


def print_json(document: Any) -> None:
    """One JSON document, and a line's end."""
    print(strict_json.dumps(document, indent=2))


def print_figures(rows: Sequence[Sequence[str]]) -> None:
    """Names and values, a line each; a value of several lines stays in its column, and none is folded."""
    width = max((len(name) for name, _ in rows), default=0) + 2
    for name, value in rows:
        print(name.ljust(width) + value.replace("\n", "\n" + " " * width))


def print_rows(rows: Sequence[Sequence[str]], *, head: Sequence[str] = (), right: Sequence[int] = ()) -> None:
    """Columns of text; those whose numbers are in `right` hold figures and are set flush right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD if head else None, show_header=bool(head), pad_edge=False, show_edge=False)
    for number in range(len(rows[0]) if rows else len(head)):
        title = head[number] if head else ""
        table.add_column(title, justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_plain(cell) for cell in row))
    # What is piped into another program is not folded to the width of a screen.
    console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 400)
    with console.capture() as capture:
        console.print(table)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))


def _plain(cell: str) -> Any:
    from rich.text import Text

    return Text(cell)
