"""The connection that reads: values are asked for in the order they will be wanted, and block there until they come.

A read is `BLMOVE k:t k:t LEFT RIGHT 0` and `GET k`: it waits at the server and changes nothing there, since the token
goes back to where it was. So a connection that is given up has taken nothing away, and what was asked on it can be
asked again.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from smlt.backends.channels.redis_connect import refusal
from smlt.backends.channels.redis_wire import Wire
from smlt.backends.channels.redis_writer import MARK_BYTES, TOKENS, mark_of
from smlt.backends.channels.resp import RefusedError, Replies, command
from smlt.core.errors import ChannelError

WINDOW = 16
"""Most values asked for ahead: so many may lie in the server's output buffer, or in the kernel's, at once."""

LOOK_ABOUT_S = 0.05
"""While a value is waited for, the connection that writes is looked at so often."""

TOKEN_FIRST_S = 1.0
"""A value that is there has its token within this time, unless its writer died between the two."""


@dataclass(frozen=True)
class Found:
    """A value whose payload is the next thing to take: its size in bytes, and its token if that was asked for."""

    size: int
    token: bytes


class Reader:
    """Reads values of one server, one after the other.

    Args:
        connect: opens a connection; called again where one must be given up.
        exists: asks the server, on another connection, whether a value is there now.
        meanwhile: called every so often while a value is waited for; may raise.
    """

    def __init__(
        self, connect: Callable[[], Wire], exists: Callable[[bytes], bool], meanwhile: Callable[[], None]
    ) -> None:
        self._connect, self._exists, self._meanwhile = connect, exists, meanwhile
        self._use(connect())
        self._announced: deque[bytes] = deque()
        self._asked: deque[bytes] = deque()
        self._is_aside = False
        """The first one asked for was not announced."""

    def announce(self, names: Iterable[bytes]) -> None:
        """These will be read next, in this order, after those announced before."""
        self._announced.extend(names)
        self._ask()

    def find(self, name: bytes, timeout_s: float) -> Found | None:
        """Wait until a value is there, for so long at most; its payload must then be taken.

        After None the same value may be waited for again, which goes on where it was, or another one.
        """
        if not self._asked or self._asked[0] != name:
            self._turn_to(name)
            if timeout_s <= 0:
                return self._look(name)
            self._wire.send([_read(name)])
            self._asked.append(name)
            self._is_aside = True
        if not self._await(timeout_s) and not (timeout_s <= 0 and self._exists(name) and self._await(TOKEN_FIRST_S)):
            return None
        found = self._taken(name)
        self._asked.popleft()
        self._is_aside = False
        self._ask()
        return found

    def take(self, found: Found, out: memoryview, offset: int = 0) -> int:
        """Copy from `offset` of the found value into `out`; returns how many bytes that were."""
        return self._replies.payload(found.size, out, offset)

    def close(self) -> None:
        """Hang up."""
        self._wire.close()

    def _use(self, wire: Wire) -> None:
        self._wire = wire
        self._replies = Replies(wire)

    def _ask(self) -> None:
        """Ask for more of the announced ones, several at a time."""
        if self._announced and len(self._asked) <= WINDOW // 2:
            batch = [self._announced.popleft() for _ in range(min(WINDOW - len(self._asked), len(self._announced)))]
            self._wire.send([_read(name) for name in batch])
            self._asked.extend(batch)

    def _turn_to(self, name: bytes) -> None:
        """Give up what was asked for; announced values will be asked for again, after this one."""
        if self._asked:
            self._exists(name)  # raises if this server is gone, or another by now: then nothing is asked again
            another = self._connect()
            self._wire.close()
            self._use(another)
        if self._is_aside:
            self._asked.popleft()
            self._is_aside = False
        self._announced.extendleft(reversed(self._asked))
        self._asked.clear()
        if name in self._announced:
            self._announced.remove(name)

    def _look(self, name: bytes) -> Found | None:
        """Whether a value is there now."""
        self._wire.send([command(b"GET", name)])
        size = self._value_size(name)
        self._ask()
        return None if size is None else Found(size, b"")

    def _await(self, timeout_s: float) -> bool:
        if self._replies.arrived(0):
            return True
        deadline = time.monotonic() + timeout_s
        left_s = timeout_s
        while True:
            self._meanwhile()
            if self._replies.arrived(min(left_s, LOOK_ABOUT_S)):
                return True
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False

    def _taken(self, name: bytes) -> Found:
        size = self._size(name, "BLMOVE")
        if size is None:
            raise self._wire.fail(ChannelError(f"{self._wire.name} stopped waiting for {name.decode()}"))
        token = bytearray(size)
        self._replies.payload(size, memoryview(token))
        size = self._value_size(name)
        if size is None:
            raise self._wire.fail(
                ChannelError(
                    f"{name.decode()} vanished from {self._wire.name} while it was read",
                    "it was discarded too early, is older than its time to live, or was evicted: "
                    "the server's maxmemory-policy should be noeviction",
                )
            )
        return Found(size, bytes(token))

    def _value_size(self, name: bytes) -> int | None:
        """The size of what comes behind the mark of a value; None where there is no value."""
        size = self._size(name, "GET")
        if size is None:
            return None
        mark = bytearray(min(size, MARK_BYTES))
        self._replies.beginning(memoryview(mark))
        if mark != mark_of(name):
            raise self._wire.fail(
                ChannelError(
                    f"what is at {name.decode()} of {self._wire.name} was not written there by a rank of this run",
                    "something else uses this key: take another database or another name for the run",
                )
            )
        return size - MARK_BYTES

    def _size(self, name: bytes, what: str) -> int | None:
        try:
            return self._replies.bulk_size()
        except RefusedError as error:
            raise self._wire.fail(refusal(self._wire.name, f"{what} of {name.decode()}", str(error))) from error


def _read(name: bytes) -> bytes:
    tokens = name + TOKENS
    return command(b"BLMOVE", tokens, tokens, b"LEFT", b"RIGHT", b"0") + command(b"GET", name)
