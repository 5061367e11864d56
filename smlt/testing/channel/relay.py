"""A line to a server that ends where a test wants it to."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

HOST = "127.0.0.1"
MOST_BYTES = 1 << 16


class Relay:
    """Passes on, both ways, what clients and a server say to each other.

    Args:
        target: host and port of the server.
        up, down: bytes of either direction after which the first connection ends, the second, …; None for never, as
            those behind them.
        hangs_up: whether both sides are told of an end; otherwise nothing more comes through.
    """

    def __init__(
        self,
        target: tuple[str, int],
        *,
        up: Sequence[int | None] = (),
        down: Sequence[int | None] = (),
        hangs_up: bool = True,
    ) -> None:
        self._target, self._hangs_up = target, hangs_up
        self._limits = itertools.zip_longest(up, down)
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        self.passed: list[list[int]] = []
        """Of each connection the bytes that went up, and down, so far."""
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    @property
    def connections(self) -> int:
        """How many were made."""
        return len(self.passed)

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for end in self._sockets:
            _hang_up(end)
        for thread in self._threads:
            thread.join()
        for end in (self._listener, *self._sockets):
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            try:
                server = socket.create_connection(self._target)
            except OSError:
                _hang_up(client)
                continue
            self._sockets.append(server)
            passed = [0, 0]
            self.passed.append(passed)
            ends = (client, server)
            for way, limit in enumerate(next(self._limits, (None, None))):
                thread = threading.Thread(target=self._pass_on, args=(ends[way], ends[1 - way], limit, passed, way))
                self._threads.append(thread)
                thread.start()

    def _pass_on(
        self, source: socket.socket, target: socket.socket, limit: int | None, passed: list[int], way: int
    ) -> None:
        with suppress(OSError):
            while limit is None or passed[way] < limit:
                data = source.recv(MOST_BYTES if limit is None else min(MOST_BYTES, limit - passed[way]))
                if not data:
                    break
                target.sendall(data)
                passed[way] += len(data)
            else:
                if not self._hangs_up:
                    return
        for end in (source, target):
            _hang_up(end)


def _hang_up(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
