"""The Redis protocol (RESP2) as bytes: commands, and replies in the order they come. Sockets are `redis_wire`'s."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from smlt.core.errors import ChannelError

if TYPE_CHECKING:
    from smlt.backends.channels.redis_wire import Wire

LINE_END = b"\r\n"

Reply = bytes | int | list["Reply"] | None

SCRATCH_BYTES = 1 << 16

LONGEST_BULK_BYTES = 512 << 20
"""Of a string (the server's proto-max-bulk-len, unless it was changed)."""

DEEPEST_LIST = 2
"""Lists in lists that are taken."""


class RefusedError(Exception):
    """The server's answer is an error; the text is its own, like `WRONGTYPE Operation against …`."""


def command(*arguments: bytes) -> bytes:
    """A command as it goes over the wire."""
    bulks = [b"$%d\r\n%b\r\n" % (len(argument), argument) for argument in arguments]
    return b"*%d\r\n%b" % (len(arguments), b"".join(bulks))


def _is_size(text: bytes) -> bool:
    return text.isdigit() and int(text) <= LONGEST_BULK_BYTES


class Replies:
    """The replies of one connection.

    Lines are read through a small window, payload past it: of a large value only what happened to come with its head is
    copied twice.

    Args:
        wire: the connection; nothing else reads from it.
        window_bytes: longest line.
    """

    def __init__(self, wire: Wire, window_bytes: int = 512) -> None:
        self._wire = wire
        self._window = bytearray(window_bytes)
        self._memory = memoryview(self._window)
        self._start = self._end = 0
        self._owed = 0  # bytes of the line end behind a payload, which are read with what follows

    def _has_begun(self) -> bool:
        """Whether there is something of the next reply in memory, past the end of the one before."""
        skipped = min(self._owed, self._end - self._start)
        self._start += skipped
        self._owed -= skipped
        return self._end > self._start

    def arrived(self, timeout_s: float) -> bool:
        """Wait until something of the next reply is here; False if nothing came in this time."""
        self._wire.check()  # what is in memory behind a failure is nobody's reply
        deadline = None
        while not self._has_begun():
            if self._read():
                continue
            now = time.monotonic()
            deadline = now + timeout_s if deadline is None else deadline
            if deadline <= now:
                return False
            self._wire.wait(deadline - now)
        return True

    def line(self) -> bytes:
        """The next line, without its end; raises `ChannelError` if the server stops in the middle."""
        self._wire.check()
        while not self._has_begun() or (at := self._window.find(LINE_END, self._start, self._end)) < 0:
            if self._end - self._start == len(self._window):
                raise self._wire.fail(self._nonsense(bytes(self._window)))
            if not self._read() and not self._wire.wait(self._wire.stall_s):
                raise self._wire.fail(self._wire.stalled())
        line = bytes(self._memory[self._start : at])
        self._start = at + len(LINE_END)
        return line

    def bulk_size(self) -> int | None:
        """The head of a bulk string: its size, and then its payload is next; None for nil."""
        line = self.line()
        if line[:1] == b"-":
            raise RefusedError(line[1:].decode(errors="replace"))
        if line in (b"$-1", b"*-1", b"_"):
            return None
        if line[:1] != b"$" or not _is_size(line[1:]):
            raise self._wire.fail(self._nonsense(line))
        return int(line[1:])

    def beginning(self, out: memoryview) -> None:
        """Take the first bytes of a payload; `payload` takes the rest."""
        self._fill(out)

    def payload(self, size: int, out: memoryview, offset: int = 0) -> int:
        """Take a payload of `size` bytes, of which those from `offset` fill `out`; returns how many these are."""
        copied = max(0, min(out.nbytes, size - offset))
        before = min(size, offset)
        self._skip(before)
        self._fill(out[:copied])
        self._skip(size - before - copied)
        self._owed = len(LINE_END)
        return copied

    def value(self, deepest_list: int = DEEPEST_LIST) -> Reply:
        """The next reply, whatever it is; for small ones."""
        line = self.line()
        match line[:1]:
            case b"+":
                return line[1:]
            case b":" if line[1:].removeprefix(b"-").isdigit():
                return int(line[1:])
            case b"-":
                raise RefusedError(line[1:].decode(errors="replace"))
            case b"$" | b"*" if line[1:] == b"-1":
                return None
            case b"$" if _is_size(line[1:]):
                data = bytearray(int(line[1:]))
                self.payload(len(data), memoryview(data))
                return bytes(data)
            case b"*" if _is_size(line[1:]) and deepest_list:
                return [self.value(deepest_list - 1) for _ in range(int(line[1:]))]
        raise self._wire.fail(self._nonsense(line))

    def _read(self) -> int:
        """Take into the window what is there now; returns how many bytes."""
        if self._start:
            left = self._end - self._start
            self._memory[:left] = self._memory[self._start : self._end]
            self._start, self._end = 0, left
        count = self._wire.receive_now(self._memory[self._end :])
        self._end += count
        return count

    def _fill(self, out: memoryview) -> None:
        here = min(out.nbytes, self._end - self._start)
        if here:
            out[:here] = self._memory[self._start : self._start + here]
            self._start += here
        if here < out.nbytes:
            self._wire.receive_all(out[here:])

    def _skip(self, size: int) -> None:
        if size <= 0:
            return
        scratch = memoryview(bytearray(min(size, SCRATCH_BYTES)))
        while size > 0:
            part = scratch[: min(size, scratch.nbytes)]
            self._fill(part)
            size -= part.nbytes

    def _nonsense(self, line: bytes) -> ChannelError:
        return ChannelError(
            f"{self._wire.name} does not speak Redis: it answered {line[:60]!r}",
            "is it the right host and port? a server with TLS wants rediss://",
        )
