"""Record a command's terminal as docs/images/run.svg: real output, as it stood when the command ended.

pip install pyte && python docs/record.py examples/digits 'smlt train --workers 2'
"""

from __future__ import annotations

import io
import os
import pty
import shlex
import sys
from itertools import groupby
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

COLUMNS, LINES = 110, 40
PICTURE = Path(__file__).parent / "images" / "run.svg"


def main(folder: str, command: str) -> None:
    """Run the command in the folder and save what its terminal shows at the end."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)

    def read(descriptor: int) -> bytes:
        data = os.read(descriptor, 65536)
        stream.feed(data)
        return data

    os.environ.update(COLUMNS=str(COLUMNS), LINES=str(LINES), TERM="xterm-256color")
    os.chdir(folder)
    pty.spawn(shlex.split(command), read)
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
    for number in range(LINES):
        if screen.display[number].strip():
            console.print(_line(screen, number))
    PICTURE.parent.mkdir(exist_ok=True)
    console.save_svg(str(PICTURE), title="smlt")


def _line(screen: pyte.Screen, number: int) -> Text:
    row = screen.buffer[number]
    cells = [row[column] for column in range(len(screen.display[number].rstrip()))]
    text = Text()
    for (colour, bold), run in groupby(cells, key=lambda cell: (cell.fg, cell.bold)):
        named = None if colour == "default" else _NAMES.get(colour, colour if colour.isalpha() else f"#{colour}")
        text.append("".join(cell.data for cell in run), Style(color=named, bold=bold))
    return text


_NAMES = {"brown": "yellow"}
"""What pyte calls otherwise than rich."""


if __name__ == "__main__":
    main(*sys.argv[1:])
