"""A server that answers commands with whatever bytes a test wants, to see what a client makes of them."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import IO

from smlt.backends.channels.redis_writer import mark_of
from tests.support.fake_server import FakeServer

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


class FakeRedis(FakeServer):
    """Serves any number of connections, each until a command has the answer None or `LastWords`.

    Args:
        answers: by command; `USUAL` otherwise, and nothing at all for a command in neither.
        greeting: sent before anything is asked.
    """

    def __init__(self, answers: Mapping[str, bytes | None], greeting: bytes = b"") -> None:
        self._answers = {**USUAL, **answers}
        self._greeting = greeting
        super().__init__()

    @property
    def url(self) -> str:
        return f"redis://{self.address}"

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
