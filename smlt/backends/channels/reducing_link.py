"""A client's connection to the reducing store: how it is found, and what goes over it, both ways at once."""

from __future__ import annotations

import hmac
import os
import select
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from smlt.backends.channels import reducing_protocol as protocol
from smlt.backends.channels.reducing_protocol import Address, Request
from smlt.backends.file_store import folder_of
from smlt.core.errors import ChannelError, ConfigError
from smlt.core.storage import ChannelSpec

TOKEN_FILE = "token_file"
TOKEN_ENV = "token_env"
"""Options of the spec: the file, or the environment variable, that holds the token."""

CONNECT_S = 10.0
ANSWER_S = 30.0
"""A store over whose connection nothing moves for so long, beyond what it was asked to wait, is given up."""

WAIT_SLICE_S = 0.2
WINDOW_BYTES = 1 << 20
"""Most that is sent before one looks again for what came in."""

MOST_PARTS = 16

Patience = Callable[[], None]


@dataclass
class Progress:
    """How far a sum has come in; kept from one connection to the next.

    Attributes:
        data: the contribution, which the sum replaces from its beginning on.
        received: bytes of it that are the sum already.
    """

    data: memoryview
    received: int = 0


class Link:
    """One connection, made by the constructor.

    Args:
        address: of the store.
        token: shared with the store.
        client: identity of the client, the same over all its connections.

    Raises:
        OSError: there is nobody.
        ChannelError: it is no such store, or it does not accept the token.
    """

    def __init__(self, address: Address, token: bytes, client: bytes) -> None:
        self._address = address
        self._unsent: list[memoryview] = []
        self._moved_at = self._patient_at = 0.0
        self._socket = _connect(address)
        try:
            self._shake_hands(token, client)
            protocol.tune(self._socket)
            self._socket.setblocking(False)
        except BaseException:
            self._socket.close()
            raise
        self._poller = select.poll()
        self._poller.register(self._socket, select.POLLIN)
        self._events = select.POLLIN
        self._mark = protocol.WaterMark(self._socket)
        self.is_idle = True
        """Whether the next request may be sent: false within one, and after one that was broken off."""

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def ask(
        self, request: Request, payload: Sequence[memoryview] = (), into: memoryview | None = None
    ) -> tuple[int, bytes] | None:
        """Send a request; returns the size of what was answered and, unless it went `into` memory, the answer.

        None where the store says that there is no such thing.

        Raises:
            OSError: the connection is lost.
            ChannelError: the store refuses, or does not answer.
        """
        self._begin(request, payload)
        patience_s = ANSWER_S + request.timeout_s

        def patience() -> None:
            if time.monotonic() - self._moved_at > patience_s:
                raise ChannelError(
                    f"the reducing store at {self._address} does not answer", "is its machine overloaded?"
                )

        status, headers, size = self._reply(patience)
        if headers or size > request.answer_bytes or (status == protocol.MISSING and request.verb != protocol.GET):
            raise self._nonsense()
        if into is None:
            into, answer = self._room(size)
        else:
            into, answer = into[:size], bytearray()
        self._receive(into, patience)
        self.is_idle = not self._unsent
        return None if status == protocol.MISSING else (size, bytes(answer))

    def reduce(self, request: Request, progress: Progress, patience: Patience) -> bytes:
        """Send a contribution and receive the sum at the same time, from where `progress` stands.

        The sum comes to where the contribution is read from, behind it: the store sends the sum of a chunk only once it
        has that chunk of everybody.

        Returns:
            The headers of all ranks, as one.

        Raises:
            OSError: the connection is lost; another may go on.
            ChannelError: the store refuses.
            Whatever `patience` raises.
        """
        data = progress.data
        self._begin(request, [data[progress.received :]])
        status, headers_bytes, size = self._reply(patience)
        expected = (protocol.OK, request.count * len(request.header), data.nbytes - progress.received)
        if (status, headers_bytes, size) != expected:
            raise self._nonsense()
        view, headers = self._room(headers_bytes)
        self._receive(view, patience)
        while progress.received < data.nbytes:
            progress.received += self._move(data[progress.received :], patience)
        self.is_idle = True
        return bytes(headers)

    def tell(self, request: Request) -> None:
        """Send what needs no answer, now or with the next request."""
        self._begin(request, ())
        self.is_idle = True

    def _begin(self, request: Request, payload: Sequence[memoryview]) -> None:
        self.is_idle = False
        self._unsent += [memoryview(request.packed()), *(part for part in payload if part.nbytes)]
        self._moved_at = time.monotonic()
        self._patient_at = self._moved_at + WAIT_SLICE_S
        self._push()

    def _reply(self, patience: Patience) -> tuple[int, int, int]:
        """Status, bytes of headers, bytes after them.

        Raises:
            ChannelError: the request is refused.
        """
        view, reply = self._room(protocol.REPLY.size)
        self._receive(view, patience)
        status, headers, size = protocol.REPLY.unpack(reply)
        if status == protocol.REFUSED:
            view, text = self._room(headers)
            self._receive(view, patience)
            self.is_idle = not self._unsent
            message, _, hint = text.decode(errors="replace").partition("\n")
            raise ChannelError(message, hint)
        if status not in (protocol.OK, protocol.MISSING):
            raise self._nonsense()
        return status, headers, size

    def _receive(self, room: memoryview, patience: Patience) -> None:
        filled = 0
        while filled < room.nbytes:
            filled += self._move(room[filled:], patience)

    def _move(self, room: memoryview, patience: Patience) -> int:
        """Move what can be moved either way, waiting a little where nothing can; returns how much came in."""
        wanted = select.POLLIN | select.POLLOUT if self._unsent else select.POLLIN
        if wanted != self._events:
            self._poller.modify(self._socket, wanted)
            self._events = wanted
        came = 0
        self._mark.set(room.nbytes)
        for _, happened in self._poller.poll(WAIT_SLICE_S * 1e3):
            self._moved_at = time.monotonic()
            if happened & select.POLLOUT:
                self._push()
            if happened & ~select.POLLOUT:
                came = self._socket.recv_into(room)
                if came == 0:
                    raise ConnectionResetError("it hung up")
        if time.monotonic() >= self._patient_at:
            self._patient_at = time.monotonic() + WAIT_SLICE_S
            patience()
        return came

    def _push(self) -> None:
        parts, room = [], WINDOW_BYTES
        for part in self._unsent[:MOST_PARTS]:
            parts.append(part[:room])
            room -= part.nbytes
            if room <= 0:
                break
        try:
            sent = self._socket.sendmsg(parts)
        except BlockingIOError:
            return
        while sent:
            step = min(sent, self._unsent[0].nbytes)
            self._unsent[0] = self._unsent[0][step:]
            sent -= step
            if not self._unsent[0].nbytes:
                del self._unsent[0]

    def _shake_hands(self, token: bytes, client: bytes) -> None:
        greeting = self._hear(protocol.GREETING_BYTES)
        magic, nonce = greeting[: len(protocol.MAGIC)], greeting[len(protocol.MAGIC) :]
        if magic != protocol.MAGIC:
            raise ChannelError(
                f"{self._address} is no reducing store, or one of another version",
                "is the address right, and the same smlt installed at both ends?",
            )
        nonces = (nonce, os.urandom(protocol.NONCE_BYTES), client)
        proof = protocol.proof(token, b"client", *nonces)
        self._socket.sendall(protocol.HELLO.pack(protocol.MAGIC, client, nonces[1], proof))
        answer = self._hear(protocol.PROOF_BYTES)
        if not hmac.compare_digest(answer, protocol.proof(token, b"store", *nonces)):
            raise ChannelError(
                f"the reducing store at {self._address} and this client have different tokens",
                "give both the same --token-file",
            )
        self.store = nonce[: protocol.STORE_BYTES]
        """The identity of the store."""

    def _room(self, size: int) -> tuple[memoryview, bytearray]:
        try:
            memory = bytearray(size)
        except (MemoryError, OverflowError) as error:
            raise ChannelError(f"no memory for the {size} bytes that {self._address} has to say") from error
        return memoryview(memory), memory

    def _nonsense(self) -> ChannelError:
        return ChannelError(
            f"the reducing store at {self._address} gave an answer that makes no sense",
            "is the same smlt installed at both ends?",
        )

    def _hear(self, size: int) -> bytes:
        heard = b""
        while len(heard) < size:
            more = self._socket.recv(size - len(heard))
            if not more:
                raise ConnectionResetError("it hung up")
            heard += more
        return heard


def _connect(address: Address) -> socket.socket:
    if not address.path:
        return socket.create_connection((address.host, address.port), CONNECT_S)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(CONNECT_S)
        connection.connect(address.path)
    except BaseException:
        connection.close()
        raise
    return connection


def address_of(spec: ChannelSpec) -> Address:
    """Where a store is: the spec's URL, or what stands in the file that it names.

    Raises:
        ConfigError: it is neither.
        ChannelError: there is no such file.
    """
    if not spec.url.startswith("file:"):
        return Address.parse(spec.url)
    path = folder_of(spec.url)
    try:
        return Address.parse(path.read_text(encoding="utf-8").strip())
    except OSError as error:
        raise ChannelError(f"no reducing store has left its address in {path}", "is it running?") from error


def token_of(spec: ChannelSpec) -> bytes:
    """The token that the spec says where to find; empty where it says nothing.

    Raises:
        ConfigError: it is not there.
    """
    if TOKEN_FILE in spec.options:
        return protocol.read_token(Path(spec.options[TOKEN_FILE]))
    if TOKEN_ENV not in spec.options:
        return b""
    name = spec.options[TOKEN_ENV]
    if not os.environ.get(name):
        raise ConfigError(f"the environment variable {name} holds no token for the reducing store", "set it")
    return os.environ[name].encode()
