"""What a task prints: passed on line by line, and still written where it went before."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from types import TracebackType
from typing import TextIO


class OutputTee:
    """While entered, lines printed to stdout or stderr also go to `listener`."""

    def __init__(self, listener: Callable[[str], None]) -> None:
        self._listener = listener
        self._before: tuple[TextIO, TextIO] | None = None
        self._tees: list[_Tee] = []

    def __enter__(self) -> OutputTee:
        self._before = (sys.stdout, sys.stderr)
        self._tees = [_Tee(stream, self._listener) for stream in self._before]
        sys.stdout, sys.stderr = self._tees
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for tee in self._tees:
            tee.finish()
        if self._before:
            sys.stdout, sys.stderr = self._before


class _Tee(io.TextIOBase):
    def __init__(self, stream: TextIO, listener: Callable[[str], None]) -> None:
        self._stream, self._listener, self._line = stream, listener, ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self._stream.write(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._listener(_last_state(line))
        self._line = _last_state(self._line)  # a progress bar may go on for hours without ending its line
        return len(text)

    def finish(self) -> None:
        """Pass on a line that was not ended."""
        if self._line:
            self._listener(self._line)
            self._line = ""
        self.flush()

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()


def _last_state(line: str) -> str:
    return line.rsplit("\r", 1)[-1]
