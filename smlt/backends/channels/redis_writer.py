"""The connection that writes: values, tokens and removals go out at once, their replies are looked at later."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from smlt.backends.channels.redis_connect import refusal
from smlt.backends.channels.redis_wire import Wire
from smlt.backends.channels.resp import RefusedError, Replies, Reply, command
from smlt.core.errors import ChannelError
from smlt.core.storage import Buffer

TOKENS = b":t"
"""A value's key with this behind it is a list of one token, which whoever waits for the value waits for."""

FOR_ONE = b"1"
"""The token of a value that one reader reads, who then removes it."""

FOR_MANY = b"n"

MARK_BYTES = 16

MOST_LATER = 64
"""Removals that are put off at once."""

REPLY_WINDOW_BYTES = 4096


def mark_of(name: bytes) -> bytes:
    """What a value begins with on the server: what does not was written, or moved there, by someone else."""
    version = b"smlt\x01"
    return version + hashlib.blake2b(name, digest_size=MARK_BYTES - len(version)).digest()


class Writer:
    """Publishes values on one server.

    Args:
        wire: a connection of its own.
        ttl_s: see `redis_address.TTL_S`.
    """

    def __init__(self, wire: Wire, ttl_s: int) -> None:
        self._wire = wire
        self._replies = Replies(wire, REPLY_WINDOW_BYTES)
        self._awaited: deque[tuple[str, bytes]] = deque()
        self._later: list[bytes] = []
        self._ttl = b"%d" % ttl_s
        self._value_end = b"\r\n$2\r\nEX\r\n$%d\r\n%b\r\n$2\r\nNX\r\n" % (len(self._ttl), self._ttl)

    def put(self, name: bytes, parts: Sequence[Buffer], size: int, token: bytes) -> None:
        """Publish a value and wake who waits for it; a refusal is told by a later call."""
        self.check()
        head = b"*6\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b" % (len(name), name, MARK_BYTES + size, mark_of(name))
        tokens = name + TOKENS
        tail = self._value_end + command(b"RPUSH", tokens, token) + command(b"EXPIRE", tokens, self._ttl)
        self._wire.send([*self._later, head, *parts, tail])
        self._later.clear()
        self._awaited.extend((("SET", name), ("RPUSH", name), ("EXPIRE", name)))

    def discard(self, name: bytes) -> None:
        """Remove a value and its token; once this returns nobody can read it."""
        # Sent but not answered would not do: a server may serve what came later, on another connection, first.
        self.discard_later(name)
        self.settle()

    def discard_later(self, name: bytes) -> None:
        """Remove a value and its token together with what is sent next."""
        self._later.append(command(b"UNLINK", name, name + TOKENS))
        self._awaited.append(("UNLINK", name))
        if len(self._later) == MOST_LATER:
            self.flush()

    def flush(self) -> None:
        """Send what was put off."""
        if self._later:
            self._wire.send(self._later)
            self._later.clear()

    def exists(self, name: bytes) -> bool:
        """Whether a value is there now."""
        self.flush()
        self._wire.send([command(b"EXISTS", name)])
        self._awaited.append(("EXISTS", name))
        return self.settle() == 1

    def check(self) -> None:
        """Look at the replies that have come.

        Raises:
            ChannelError: the connection failed, the server refused something, or another client wrote a key of ours.
        """
        self._wire.check()
        while self._replies.arrived(0):  # asked though nothing be awaited: so a server that is gone is noticed
            if not self._awaited:
                raise self._wire.fail(ChannelError(f"{self._wire.name} said something that nobody had asked for"))
            self._take()

    def settle(self) -> Reply:
        """Wait for all replies; returns the last. Raises as `check` does."""
        self.flush()
        reply: Reply = None
        while self._awaited:
            reply = self._take()
        return reply

    def close(self) -> None:
        """Wait until the server has taken everything, and hang up; what it refuses now, nobody is told."""
        with suppress(ChannelError):
            self.settle()
        self._wire.close()

    def _take(self) -> Reply:
        what, name = self._awaited.popleft()
        try:
            reply = self._replies.value()
        except RefusedError as error:
            raise self._wire.fail(refusal(self._wire.name, f"{what} of {name.decode()}", str(error))) from error
        if (what == "SET" and reply is None) or (what == "RPUSH" and reply != 1):
            raise self._wire.fail(
                ChannelError(
                    f"{name.decode()} was written already, by another client of {self._wire.name}",
                    "does another run use this name and this server? then choose another name",
                )
            )
        return reply
