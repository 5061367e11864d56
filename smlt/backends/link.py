"""What a launcher and its server say to each other, and the socket they say it over. No threads, no waiting unasked."""

from __future__ import annotations

import math
import os
import select
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from smlt.core import wire
from smlt.core.backend import RankSpec

READY, UNUSABLE, STARTED, GONE = "ready", "unusable", "started", "gone"
LAUNCH, STOP, CLOSE = "launch", "stop", "close"

MOST_PATH_BYTES = 100


@dataclass(frozen=True)
class Order:
    """From the launcher: launch a function for `spec` that prints into `log_path`, stop one, or close."""

    action: str
    handle: str = ""
    spec: RankSpec | None = None
    log_path: str = ""


@dataclass(frozen=True)
class Report:
    """To the launcher: the server, `pid`, is ready or unusable (`detail` says why, `hint` how to mend it), a function
    started as `pid`, 0 for one that is not on this machine, or it is gone in `phase`, perhaps `out_of_memory`.
    """

    event: str
    handle: str = ""
    pid: int = 0
    phase: str = ""
    detail: str = ""
    out_of_memory: bool = False
    hint: str = ""


class Link:
    """Messages over a non-blocking socket: each is a length of four bytes and that many bytes of msgpack.

    `lost` becomes true when the other side is gone; sending is then no error, and goes nowhere.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.lost = False
        self._in = bytearray()
        self._out = bytearray()

    def send(self, message: Order | Report) -> None:
        """Queue a message and send as much as the other side takes now."""
        body = wire.pack(message)
        self._out += len(body).to_bytes(4, "big") + body
        self.flush()

    def flush(self) -> None:
        """Send what is queued, as far as the other side takes it now."""
        try:
            while self._out and not self.lost:
                del self._out[: self.socket.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            self.lost = True

    def receive(self) -> Iterator[bytes]:
        """The messages that have arrived, without waiting."""
        try:
            while not self.lost:
                piece = self.socket.recv(1 << 16)
                self._in += piece
                self.lost = not piece
        except BlockingIOError:
            pass
        except OSError:
            self.lost = True
        while len(self._in) >= 4 and len(self._in) >= 4 + (size := int.from_bytes(self._in[:4], "big")):
            body = bytes(self._in[4 : 4 + size])
            del self._in[: 4 + size]
            yield body

    def wait(self, timeout_s: float | None, also: Sequence[int] = ()) -> None:
        """Sleep until there is something to read here or at `also`, or room for what is queued."""
        poller = select.poll()
        for number in also:
            poller.register(number, select.POLLIN)
        if not self.lost:
            poller.register(self.socket, select.POLLIN | (select.POLLOUT if self._out else 0))
        poller.poll(None if timeout_s is None else math.ceil(timeout_s * 1e3))


def listening_at(path: Path) -> socket.socket | None:
    """A socket that only this user can connect to; None where the system has no room for its path.

    Raises:
        OSError: the folder cannot be written.
    """
    with _short(path) as short:
        if short is None:
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        mask = os.umask(0o077)
        try:
            listener.bind(short)
        finally:
            os.umask(mask)
        listener.listen()
        listener.setblocking(False)
        return listener


def connected_to(path: Path) -> socket.socket | None:
    """A connection to who listens there; None where nobody does."""
    sock = socket.socket(socket.AF_UNIX)
    try:
        with _short(path) as short:
            if short is not None:
                sock.connect(short)
                return sock
    except OSError:
        pass
    sock.close()
    return None


@contextmanager
def _short(path: Path) -> Iterator[str | None]:
    """The path as the system takes it for a socket, which may be no longer than about a hundred bytes."""
    if len(os.fsencode(path)) <= MOST_PATH_BYTES:
        yield str(path)
    elif sys.platform == "linux":
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield f"/proc/self/fd/{folder}/{path.name}"
        finally:
            os.close(folder)
    else:
        yield None
