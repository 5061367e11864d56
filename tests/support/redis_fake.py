"""A server that answers commands with whatever bytes a test wants, to see what a client makes of them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Self

from smlt.backends.channels.redis_writer import mark_of

HOST = "127.0.0.1"

USUAL = {"PING": b"+PONG\r\n", "SET": b"+OK\r\n", "RPUSH": b":1\r\n", "EXPIRE": b":1\r\n", "UNLINK": b":2\r\n"}


TOKEN = b"$1\r\nn\r\n"


class LastWords(bytes):
    """An answer upon which it hangs up."""


def bulk(data: bytes) -> bytes:
    """Some bytes as an answer."""
    return b"$%d\r\n%b\r\n" % (len(data), data)


def value_of(name: bytes, payload: bytes) -> bytes:
    """The answer to a GET of a value; behind `TOKEN` it is what a reader gets that waits."""
    return bulk(mark_of(name) + payload)


class FakeRedis:
    """Serves any number of connections, each until a command has the answer None or `LastWords`.

    Args:
        answers: by command; `USUAL` otherwise, and nothing at all for a command in neither.
        greeting: sent before anything is asked.
    """

    def __init__(self, answers: Mapping[str, bytes | None], greeting: bytes = b"") -> None:
        self._answers = {**USUAL, **answers}
        self._greeting = greeting
        self._listener = socket.create_server((HOST, 0))
        self._connections: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
            self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as commands, suppress(OSError):
            connection.sendall(self._greeting)
            while words := _command(commands):
                answer = self._answers.get(words[0].decode(), b"")
                if answer is None:
                    return
                connection.sendall(answer)
                if isinstance(answer, LastWords):
                    return


def _command(stream: IO[bytes]) -> list[bytes]:
    line = stream.readline()
    return [_bulk(stream) for _ in range(int(line[1:]))] if line.startswith(b"*") else []


def _bulk(stream: IO[bytes]) -> bytes:
    return stream.read(int(stream.readline()[1:]) + 2)[:-2]
