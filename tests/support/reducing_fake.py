"""A store that says whatever bytes a test wants, up to any of them, to see what a client makes of it."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from smlt.backends.channels import reducing_protocol as protocol
from smlt.backends.channels.reducing_protocol import Request
from tests.support.fake_server import FakeServer

HANDSHAKE_BYTES = protocol.GREETING_BYTES + protocol.PROOF_BYTES


class FakeStore(FakeServer):
    """Serves any number of connections, without a token: greeting, proof, and one answer to whatever it is asked.

    Args:
        answer: to the first request of every connection.
        said_bytes: so much it says in all, handshake and answer; None for everything.
        hangs_up: after that; it stands still otherwise.
    """

    def __init__(self, answer: bytes, said_bytes: int | None = None, *, hangs_up: bool = True) -> None:
        self._answer, self._hangs_up = answer, hangs_up
        self._said_bytes = HANDSHAKE_BYTES + len(answer) if said_bytes is None else said_bytes
        self._identity = os.urandom(protocol.STORE_BYTES)
        super().__init__()

    @property
    def url(self) -> str:
        return f"tcp://{self.address}"

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            if self._speak(connection) and not self._hangs_up:
                return
            connection.shutdown(socket.SHUT_RDWR)

    def _speak(self, connection: socket.socket) -> bool:
        """Whether all was said that it is to say, before the client left."""
        nonce = self._identity + os.urandom(protocol.NONCE_BYTES - protocol.STORE_BYTES)
        left = _say(connection, protocol.MAGIC + nonce, self._said_bytes)
        hello = _read(connection, protocol.HELLO.size) if left else b""
        if hello:
            _, client, theirs, _ = protocol.HELLO.unpack(hello)
            left = _say(connection, protocol.proof(b"", b"store", nonce, theirs, client), left)
            if left and _hear_request(connection):
                left = _say(connection, self._answer, left)
        return left == 0


def _say(connection: socket.socket, data: bytes, left: int) -> int:
    connection.sendall(data[:left])
    return left - len(data[:left])


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size and (more := connection.recv(size - len(data))):
        data += more
    return data if len(data) == size else b""


def _hear_request(connection: socket.socket) -> bool:
    """Take in one request with all that belongs to it; whether it came."""
    fixed = _read(connection, protocol.REQUEST.size)
    if not fixed:
        return False
    verb, dtype, key, header, count, rank, size, start, timeout_s = protocol.REQUEST.unpack(fixed)
    request = Request(verb, "", b"", count, rank, dtype, size, start, timeout_s)
    rest = key + header + request.payload_bytes
    return len(_read(connection, rest)) == rest
