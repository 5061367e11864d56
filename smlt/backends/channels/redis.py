"""Channel in Redis or Valkey: raw RESP over two connections a server, one that writes and one that reads."""

from __future__ import annotations

import hashlib
import os
import re
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from zlib import crc32

from smlt.backends.channels.redis_address import CA_PEM, NAMESPACE, PASSWORD_FROM, RedisAddress, RedisPlace
from smlt.backends.channels.redis_connect import connect, refusal
from smlt.backends.channels.redis_reader import Found, Reader
from smlt.backends.channels.redis_wire import Wire
from smlt.backends.channels.redis_writer import FOR_MANY, FOR_ONE, MARK_BYTES, Writer
from smlt.backends.channels.resp import LONGEST_BULK_BYTES, RefusedError, Replies, Reply, command
from smlt.core.backend import RunPlace
from smlt.core.errors import ChannelError, ConfigError, PeerLost
from smlt.core.storage import Buffer, Channel, ChannelCapabilities, ChannelKey, ChannelSpec

MAX_VALUE_BYTES = LONGEST_BULK_BYTES - MARK_BYTES

REMEMBERED = 10_000
"""Of the keys that one reader removes, so many are known to have been written; the server knows those it still has."""

SWEEP_KEYS = 1000
"""Looked at in one request of a sweep."""


def spec_for(place: RunPlace, urls: str, password_from: str | None = None, ca_file: Path | None = None) -> ChannelSpec:
    """Where the ranks of a run meet, on the servers of these URLs; see `redis_address` for what is in it."""
    # Runs of one name in two folders do not meet.
    mark = hashlib.blake2b(os.fsencode(place.runs_dir.absolute()), digest_size=6).hexdigest()
    options = {NAMESPACE: f"smlt/{place.run}-{mark}"}
    if password_from:
        options[PASSWORD_FROM] = password_from
    if ca_file:
        try:
            options[CA_PEM] = ca_file.read_text(encoding="ascii")
        except (OSError, UnicodeError) as error:
            raise ConfigError(f"the certificates in {ca_file} cannot be read: {error}", "give a PEM file") from error
    return ChannelSpec("redis", urls, options)


class RedisChannel(Channel):
    """A value is a string and, behind it, a list of one token, on which readers block; nobody polls.

    What the server refuses (out of memory, a key that another client wrote) is told by a later call than the `put`, and
    the channel is of no use from then on. So it is after a lost connection: a new round opens a new channel. Values
    expire after `redis_address.TTL_S`: a run that crashed leaves nothing for long. `close` leaves them, since a peer
    may still be reading. A value put for one reader is removed by its reader; one put for so many, soon after it is
    discarded; any other one by `discard` itself, which takes a round trip.

    Args:
        spec: its URL names one server, or several separated by commas; see `redis_address` for URL and options.
        generation, round_number, rank: the address of every key that this client writes.
    """

    capabilities = ChannelCapabilities(ranged=False, reduces=False, max_value_bytes=MAX_VALUE_BYTES, latency_s=100e-6)

    def __init__(self, spec: ChannelSpec, generation: int, round_number: int, rank: int) -> None:
        super().__init__()
        place = RedisPlace.of(spec)
        self._address = (generation, round_number, rank)
        self._namespace = place.namespace
        self._written: dict[ChannelKey, bool] = {}
        """Whether it is known how often a value will be read."""
        self._for_one: deque[ChannelKey] = deque()
        self._servers: list[_Server] = []
        with ExitStack() as undo:
            for address in place.addresses:
                self._servers.append(_Server(place, address, self._look_about))
                undo.callback(self._servers[-1].close)
            undo.pop_all()

    def _do_put(self, key: ChannelKey, parts: Sequence[Buffer], readers: int | None) -> None:
        if (key.generation, key.round, key.rank) != self._address:
            raise ChannelError(f"{key} is not a key of rank {self._address[2]} in its round")
        if key in self._written:
            raise ChannelError(f"{key} was written already")
        name = self._name(key)
        size = sum(memoryview(part).nbytes for part in parts)
        self._server(name).writer.put(name, parts, size, FOR_ONE if readers == 1 else FOR_MANY)
        self._written[key] = readers is not None
        if readers == 1:  # its reader removes it: nobody need discard it, and it is not remembered for ever
            self._for_one.append(key)
            if len(self._for_one) > REMEMBERED:
                self._written.pop(self._for_one.popleft(), None)

    def _do_get_into(self, key: ChannelKey, out: memoryview, timeout_s: float, offset: int) -> int:
        name = self._name(key)
        server = self._server(name)
        found = self._find(key, name, server, timeout_s)
        copied = server.reader.take(found, out.cast("B") if out.nbytes else out, offset)
        self._release(name, server, found)
        return copied

    def _do_get(self, key: ChannelKey, timeout_s: float) -> bytes:
        name = self._name(key)
        server = self._server(name)
        found = self._find(key, name, server, timeout_s)
        value = bytearray(found.size)
        server.reader.take(found, memoryview(value))
        self._release(name, server, found)
        return bytes(value)

    def _do_expect(self, keys: Sequence[ChannelKey]) -> None:
        names = [self._name(key) for key in keys]
        for server in self._servers:
            server.reader.announce(name for name in names if self._server(name) is server)

    def _do_discard(self, key: ChannelKey) -> None:
        is_counted = self._written.pop(key, None)
        if is_counted is None:
            return
        name = self._name(key)
        writer = self._server(name).writer
        if is_counted:
            writer.discard_later(name)
        else:
            writer.discard(name)

    def _do_close(self) -> None:
        for server in self._servers:
            server.close()
        self._written.clear()

    def _find(self, key: ChannelKey, name: bytes, server: _Server, timeout_s: float) -> Found:
        found = server.reader.find(name, timeout_s)
        if found is None:
            raise PeerLost(f"rank {key.rank} did not send {key} within {timeout_s:g} s", "is its function alive?")
        return found

    @staticmethod
    def _release(name: bytes, server: _Server, found: Found) -> None:
        if found.token == FOR_ONE:
            server.writer.discard_later(name)

    def _look_about(self) -> None:
        """While a value is waited for: send what was put off, and see that what was written was taken."""
        for server in self._servers:
            server.writer.flush()
            server.writer.check()

    def _server(self, name: bytes) -> _Server:
        return self._servers[crc32(name) % len(self._servers)]

    def _name(self, key: ChannelKey) -> bytes:
        # In braces: where a proxy spreads keys over a cluster, a value and its token stay together.
        return f"{{{self._namespace}/{key}}}".encode()


class _Server:
    """The two connections to one server."""

    def __init__(self, place: RedisPlace, address: RedisAddress, meanwhile: Callable[[], None]) -> None:
        dial = partial(connect, place, address)
        self.writer = Writer(dial(), place.ttl_s)
        try:
            self.reader = Reader(dial, self.writer.exists, meanwhile)
        except BaseException:
            self.writer.close()
            raise

    def close(self) -> None:
        """Hang up."""
        self.reader.close()
        self.writer.close()


def probe(spec: ChannelSpec) -> None:
    """See that every server answers; raises `ChannelError` or `ConfigError`."""
    place = RedisPlace.of(spec)
    for address in place.addresses:
        connect(place, address).close()


def sweep(spec: ChannelSpec) -> list[str]:
    """Remove all values of the channel, whoever wrote them; returns the keys."""
    place = RedisPlace.of(spec)
    removed = []
    for address in place.addresses:
        wire = connect(place, address)
        try:
            removed += _sweep(wire, place.namespace)
        finally:
            wire.close()
    return removed


def _sweep(wire: Wire, namespace: str) -> list[str]:
    replies = Replies(wire)
    pattern = re.sub(r"([][*?\\])", r"\\\1", f"{{{namespace}/").encode() + b"*"

    def ask(*arguments: bytes) -> Reply:
        wire.send([command(*arguments)])
        try:
            return replies.value()
        except RefusedError as error:
            raise wire.fail(refusal(wire.name, arguments[0].decode(), str(error))) from error

    removed, cursor = [], b"0"
    while True:
        match ask(b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"%d" % SWEEP_KEYS):
            case [bytes(cursor), list(found)]:
                keys = [key for key in found if isinstance(key, bytes)]
                if keys:
                    ask(b"UNLINK", *keys)
                removed += [key.decode(errors="replace") for key in keys]
            case other:
                raise wire.fail(ChannelError(f"{wire.name} answered SCAN with {other!r}"))
        if cursor == b"0":
            return removed
