"""One connection of the reducing store: a thread that reads what the client asks, and one that sends it sums.

Nothing of the store is reached before the client has shown that it knows the token.
"""

from __future__ import annotations

import hmac
import os
import select
import socket
import threading
from contextlib import suppress
from queue import SimpleQueue

import numpy as np

from smlt.backends.channels import reducing_protocol as protocol
from smlt.backends.channels.reducing_protocol import Request
from smlt.backends.channels.reducing_store import Client, Store
from smlt.backends.channels.reducing_sums import Part, Sum, Terms
from smlt.core import wire
from smlt.core.errors import ChannelError, ProtocolError

MOST_RANKS = 1 << 16
_SWALLOW_BYTES = 1 << 18
_HANG_UP: int = getattr(select, "POLLRDHUP", 0)


class Session:
    """Serves one connection.

    Args:
        connection: blocking.
        serial: rises from connection to connection.
        token: what a client must know.
        store: of all connections.
    """

    def __init__(self, connection: socket.socket, serial: int, token: bytes, store: Store) -> None:
        self.serial = serial
        self.is_known = False
        """Whether the client has shown that it knows the token."""
        self._socket, self._token, self._store = connection, token, store
        self._mark = protocol.WaterMark(connection)
        self._poller = select.poll()
        self._poller.register(connection, select.POLLIN)
        self._client: Client
        self._unread = 0
        """Bytes of the current request's payload that have not come in yet."""
        self._joined: tuple[str, Sum, Part] | None = None
        self._to_send: SimpleQueue[tuple[str, Sum, Part] | None] = SimpleQueue()
        self._sender = threading.Thread(target=self._send_sums, daemon=True)

    def run(self) -> None:
        """Answer requests until the client is gone, or says something that is none."""
        with self._socket, suppress(OSError, ProtocolError):
            name = self._shake_hands()
            protocol.tune(self._socket)
            self._client = self._store.enter(name)
            try:
                while True:
                    self._answer(self._next_request())
            finally:
                self._store.depart(self._client)
                self._end_sums()

    def abort(self) -> None:
        """Break the connection: every thread that waits for it returns."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def is_lost(self) -> bool:
        """Whether the client has hung up, whatever is still to be read of it."""
        poller = select.poll()
        poller.register(self._socket, _HANG_UP)
        return bool(poller.poll(0))

    def _shake_hands(self) -> bytes:
        nonce = self._store.identity + os.urandom(protocol.NONCE_BYTES - protocol.STORE_BYTES)
        self._send(protocol.MAGIC + nonce)
        magic, name, theirs, proof = protocol.HELLO.unpack(self._read(protocol.HELLO.size))
        if magic != protocol.MAGIC:
            raise ProtocolError("this is no client, or one of another version")
        if not hmac.compare_digest(proof, protocol.proof(self._token, b"client", nonce, theirs, name)):
            self._send(bytes(protocol.PROOF_BYTES))
            raise ProtocolError("the client does not know the token")
        self.is_known = True
        self._send(protocol.proof(self._token, b"store", nonce, theirs, name))
        return bytes(name)

    def _next_request(self) -> Request:
        fixed = self._read(protocol.REQUEST.size)
        verb, dtype, key_bytes, header_bytes, count, rank, size, start, timeout_s = protocol.REQUEST.unpack(fixed)
        if key_bytes > protocol.MOST_KEY_BYTES or header_bytes > protocol.MOST_HEADER_BYTES:
            raise ProtocolError("a key or a header is too long")
        key = self._read(key_bytes).decode(errors="replace")
        return Request(verb, key, self._read(header_bytes), count, rank, dtype, size, start, timeout_s)

    def _answer(self, request: Request) -> None:
        self._unread = request.payload_bytes
        try:
            match request.verb:
                case protocol.PUT:
                    self._put(request)
                case protocol.GET:
                    self._get(request)
                case protocol.DISCARD:
                    self._store.values.discard(request.key, self._client.name)
                    self._reply(b"")
                case protocol.REDUCE:
                    self._reduce(request)
                case protocol.DONE:
                    self._done(request)
                case protocol.STATS:
                    self._reply(wire.pack(self._store.stats(self._client)))
                case _:
                    raise ProtocolError(f"there is no verb {request.verb}")
        except ChannelError as refusal:
            self._refuse(refusal)
        self._swallow()

    def _put(self, request: Request) -> None:
        room = self._store.values.room_for(request.size)
        try:
            self._fill(room.data)
        except OSError:
            self._store.memory.give(room, keep=False)
            raise
        readers = None if request.count == protocol.FOREVER else request.count
        self._store.values.put(request.key, room, readers, self._client.name)
        self._client.stats.count("put", up=request.size)
        self._reply(b"")

    def _get(self, request: Request) -> None:
        data = self._store.values.read(request.key, request.timeout_s, self.is_lost)
        if data is None:
            self._send(protocol.REPLY.pack(protocol.MISSING, 0, 0))
            return
        wanted = data[request.start : request.start + request.size]
        self._client.stats.count("get", down=wanted.nbytes)
        self._reply(wanted.data)

    def _reduce(self, request: Request) -> None:
        rank, ranks, start = request.rank, request.count, request.start
        if request.dtype >= len(protocol.DTYPES) or not rank < ranks <= MOST_RANKS or start > request.size:
            raise ProtocolError("a contribution that makes no sense")
        dtype = np.dtype(protocol.DTYPES[request.dtype])
        if request.size % dtype.itemsize:
            raise ProtocolError("a contribution of half a number")
        terms = Terms(dtype.str, request.size, ranks, len(request.header))
        if not self._sender.is_alive():
            self._sender.start()
        part = Part(rank, request.header, start, self)
        found = self._store.join(request.key, terms, part)
        self._joined = (request.key, found, part)
        self._to_send.put(self._joined)
        try:
            found.contribute(part, self._fill)
        except ChannelError:
            pass  # the sender tells the client
        finally:
            self._store.leave(request.key, found, part)

    def _done(self, request: Request) -> None:
        terms = self._store.done(request.key, request.rank)
        if terms is not None:
            up, down = terms.size_bytes + terms.header_bytes, terms.size_bytes + terms.ranks * terms.header_bytes
            self._client.stats.count("reduce", up=up, down=down)
        self._joined = None

    def _send_sums(self) -> None:
        """The life of the sender: one sum after the other, as they grow."""
        while (job := self._to_send.get()) is not None:
            key, found, part = job
            try:
                results = found.results(part)
                headers = next(results)
                size = found.terms.size_bytes - part.start
                self._send(protocol.REPLY.pack(protocol.OK, len(headers), size) + headers)
                for piece in results:
                    self._socket.sendall(piece)
            except ChannelError as refusal:
                with suppress(OSError):
                    self._refuse(refusal)
            except OSError:
                self.abort()
            finally:
                self._store.leave(key, found, part)

    def _end_sums(self) -> None:
        if self._joined is not None:
            _, found, part = self._joined
            found.end(part)
        if self._sender.is_alive():
            self.abort()
            self._to_send.put(None)
            self._sender.join()

    def _reply(self, body: bytes | memoryview) -> None:
        self._send(protocol.REPLY.pack(protocol.OK, 0, len(body)), body)

    def _refuse(self, refusal: ChannelError) -> None:
        text = f"{refusal.message}\n{refusal.hint}".encode()
        self._send(protocol.REPLY.pack(protocol.REFUSED, len(text), 0) + text)

    def _send(self, *parts: bytes | memoryview) -> None:
        sent = self._socket.sendmsg(parts)
        for part in parts:
            view = memoryview(part)
            self._socket.sendall(view[min(sent, view.nbytes) :])
            sent -= min(sent, view.nbytes)

    def _read(self, size: int) -> bytes:
        data = bytearray(size)
        self._receive(memoryview(data))
        return bytes(data)

    def _fill(self, room: memoryview) -> None:
        self._receive(room)
        self._unread -= room.nbytes

    def _swallow(self) -> None:
        """Read past what is left of a payload that nobody wants."""
        if self._unread:
            room = memoryview(bytearray(min(self._unread, _SWALLOW_BYTES)))
            while self._unread:
                self._fill(room[: self._unread])

    def _receive(self, room: memoryview) -> None:
        received = 0
        while received < room.nbytes:
            flags = socket.MSG_WAITALL
            if self._mark.set(room.nbytes - received):
                self._poller.poll()
                flags = socket.MSG_DONTWAIT
            with suppress(BlockingIOError):
                came = self._socket.recv_into(room[received:], 0, flags)
                if came == 0:
                    raise ConnectionResetError("the client is gone")
                received += came
