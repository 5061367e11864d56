"""A connection to a Redis server: bytes that go and come, over TCP, TLS or a Unix socket; it fails once for all."""

from __future__ import annotations

import select
import socket
import ssl
import struct
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice

from smlt.core.errors import ChannelError
from smlt.core.storage import Buffer

MOST_PARTS = 512
"""Of one system call."""

GONE = "did it stop or restart? what it held is lost: the run goes on in a new round, or from its checkpoint"


class Wire:
    """Blocking sends and receives that put up with no standstill, and a wait of any length.

    Every error is a `ChannelError`; from then on the wire is closed and every call raises the same: a reply that is
    missing must not be taken for another one.

    Args:
        connection: a connected socket.
        name: of the server, in messages; without secrets.
        stall_s: a transfer in which so long nothing moves has failed.
    """

    def __init__(self, connection: socket.socket, name: str, stall_s: float) -> None:
        self.name = name
        self.stall_s = stall_s
        self._socket = connection
        self._failure: ChannelError | None = None
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)
        self._prepare()

    def _prepare(self) -> None:
        # Not `settimeout`: it makes the socket non-blocking, and then MSG_WAITALL does not wait.
        self._socket.settimeout(None)
        limit = struct.pack("ll", int(self.stall_s), int(self.stall_s % 1 * 1e6))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            self._socket.setsockopt(socket.SOL_SOCKET, option, limit)

    def check(self) -> None:
        """Raise what it has failed with, if it has."""
        if self._failure is not None:
            raise ChannelError(self._failure.message, self._failure.hint)

    def wait(self, timeout_s: float) -> bool:
        """Wait until there may be something to receive."""
        self.check()
        return bool(self._poll.poll(timeout_s * 1000))

    def send(self, parts: Sequence[Buffer]) -> None:
        """Send all of the parts, none of them copied first."""
        self.check()
        left = [view.cast("B") for part in parts if (view := memoryview(part)).nbytes]
        try:
            while left:
                self._send_some(left)
        except OSError as error:
            raise self.fail(self._broken(error, self._last_words())) from error

    def receive_now(self, out: memoryview) -> int:
        """Receive what is there, into the start of `out`; 0 for nothing yet."""
        self.check()
        try:
            count = self._receive_some(out)
        except OSError as error:
            raise self.fail(self._broken(error)) from error
        if count == 0:
            raise self.fail(ChannelError(f"{self.name} closed the connection", GONE))
        return count or 0

    def receive_all(self, out: memoryview) -> None:
        """Receive until `out` is full."""
        self.check()
        done = 0
        try:
            while done < out.nbytes:
                count = self._receive_more(out[done:])
                if count == 0:
                    raise self.fail(
                        ChannelError(
                            f"{self.name} closed the connection {out.nbytes - done} bytes before a reply's end", GONE
                        )
                    )
                done += count
        except OSError as error:
            raise self.fail(self._broken(error)) from error

    def fail(self, error: ChannelError) -> ChannelError:
        """Close for this reason; returns it, to be raised."""
        if self._failure is None:
            self._failure = error
        self._socket.close()
        return error

    def close(self) -> None:
        """Release the socket."""
        self._socket.close()

    def stalled(self) -> ChannelError:
        """The error for a server that stands still in the middle of a transfer."""
        return ChannelError(
            f"{self.name} stood still for {self.stall_s:g} s in the middle of a transfer",
            "is it overloaded, or the network down?",
        )

    def _broken(self, error: OSError, last_words: str = "") -> ChannelError:
        if isinstance(error, BlockingIOError | TimeoutError):
            return self.stalled()
        said = f"; it said: {last_words}" if last_words else ""
        return ChannelError(f"the connection to {self.name} broke: {error.strerror or error}{said}", GONE)

    def _last_words(self) -> str:
        """The error that a server sent before it hung up, if any."""
        said = memoryview(bytearray(1 << 14))
        size = 0
        with suppress(OSError):
            while size < said.nbytes and (count := self._receive_some(said[size:])):
                size += count
        errors = [line for line in said[:size].tobytes().split(b"\r\n") if line.startswith(b"-")]
        return errors[-1][1:].decode(errors="replace") if errors else ""

    def _send_some(self, left: list[memoryview]) -> None:
        """Send as much of the parts as goes at once and take it off them."""
        count = self._socket.sendmsg(islice(left, MOST_PARTS))
        while left and count >= left[0].nbytes:
            count -= left.pop(0).nbytes
        if count:
            left[0] = left[0][count:]

    def _receive_some(self, out: memoryview) -> int | None:
        """Receive without waiting; 0 at the end of the stream, None if nothing is there."""
        try:
            return self._socket.recv_into(out, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None

    def _receive_more(self, out: memoryview) -> int:
        """Receive at least a byte; 0 at the end of the stream."""
        return self._socket.recv_into(out, 0, socket.MSG_WAITALL)


class TlsWire(Wire):
    """The same in a TLS session: its records are taken apart by the library, a non-blocking socket beneath."""

    _socket: ssl.SSLSocket

    def _prepare(self) -> None:
        self._socket.settimeout(0)
        self._writable = select.poll()
        self._writable.register(self._socket, select.POLLOUT)

    def wait(self, timeout_s: float) -> bool:
        """Wait until there may be something to receive."""
        self.check()
        return self._socket.pending() > 0 or super().wait(timeout_s)

    def _send_some(self, left: list[memoryview]) -> None:
        try:
            count = self._socket.send(left[0])
        except ssl.SSLWantWriteError:
            self._stand_by(self._writable)
            return
        except ssl.SSLWantReadError:
            self._stand_by(self._poll)
            return
        left[0] = left[0][count:]
        if not left[0].nbytes:
            left.pop(0)

    def _receive_some(self, out: memoryview) -> int | None:
        try:
            return self._socket.recv_into(out)
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except ssl.SSLEOFError:
            return 0

    def _receive_more(self, out: memoryview) -> int:
        while (count := self._receive_some(out)) is None:
            self._stand_by(self._poll)
        return count

    def _stand_by(self, until: select.poll) -> None:
        if not until.poll(self.stall_s * 1000):
            raise TimeoutError
