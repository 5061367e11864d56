"""What the reducing store and its clients say to each other, byte by byte: addresses, the handshake, frames.

No socket is opened here and nothing is decoded but numbers, text and bytes. A connection begins with a challenge both
ways (HMAC-SHA256 over both sides' nonces), so the token never travels; what follows is neither encrypted nor signed,
which a private network has to make good.
"""

from __future__ import annotations

import hashlib
import hmac
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from struct import Struct

from smlt.core.errors import ConfigError

MAGIC = b"smltred\x02"
"""First bytes of either side; the last of them is the version of this protocol."""

NONCE_BYTES = PROOF_BYTES = 32
ID_BYTES = 16
STORE_BYTES = 16
GREETING_BYTES = len(MAGIC) + NONCE_BYTES
"""The store speaks first: magic, nonce, of which the first STORE_BYTES are its identity: others after a restart."""

HELLO = Struct(f"<{len(MAGIC)}s{ID_BYTES}s{NONCE_BYTES}s{PROOF_BYTES}s")
"""The client's answer: magic, identity of the client, nonce, proof. The store answers with its own proof, or zeros."""

PUT, GET, DISCARD, REDUCE, DONE, STATS = range(1, 7)
OK, MISSING, REFUSED = range(3)

DTYPES = ("<f4", "<f8", "<i8")
"""What can be added up: numpy's float32, float64 and int64, little-endian."""

FOREVER = 2**32 - 1
"""In place of a number of readers: until it is discarded."""

EVERYTHING = 2**64 - 1
"""In place of a size: however much there is."""

MOST_KEY_BYTES = 4096
MOST_HEADER_BYTES = 1 << 16
WATER_MARK_BYTES = 512 << 10
SMALL_BYTES = 16 << 10
"""See `WaterMark`."""

UNIX_BUFFER_BYTES = 512 << 10


@dataclass(frozen=True)
class Request:
    """One request, followed on the wire by its key, its header and `payload_bytes` bytes.

    Attributes:
        verb: PUT, GET, DISCARD, REDUCE, DONE or STATS.
        key: of the value, or of the sum: then without a rank.
        header: of a contribution.
        count: readers of a value that is put; ranks of a sum.
        rank: of a contribution.
        dtype: index into DTYPES.
        size: bytes of a value or of a contribution, or most bytes that are wanted.
        start: where reading begins; of a contribution, and of the sum, what comes before needs not travel again.
        timeout_s: how long a value is waited for.
    """

    verb: int
    key: str = ""
    header: bytes = b""
    count: int = 0
    rank: int = 0
    dtype: int = 0
    size: int = 0
    start: int = 0
    timeout_s: float = 0.0

    def packed(self) -> bytes:
        """The request as it begins on the wire."""
        key = self.key.encode()
        fixed = (self.verb, self.dtype, len(key), len(self.header), self.count, self.rank)
        return REQUEST.pack(*fixed, self.size, self.start, self.timeout_s) + key + self.header

    @property
    def payload_bytes(self) -> int:
        """What follows."""
        return {PUT: self.size, REDUCE: self.size - self.start}.get(self.verb, 0)

    @property
    def answer_bytes(self) -> int:
        """Most that is answered, but for a sum."""
        return {GET: self.size, STATS: EVERYTHING}.get(self.verb, 0)


REQUEST = Struct("<BBHIIIQQd")
REPLY = Struct("<B3xIQ")
"""Status; bytes of the headers of all ranks, or of a refusal's text; bytes of the value or sum after that."""


def proof(token: bytes, speaker: bytes, store_nonce: bytes, client_nonce: bytes, client: bytes) -> bytes:
    """What shows that `speaker` (b"client" or b"store") knows the token."""
    return hmac.digest(token, b"|".join((MAGIC, speaker, store_nonce, client_nonce, client)), hashlib.sha256)


def read_token(path: Path) -> bytes:
    """The token in a file, without white space around it.

    Raises:
        ConfigError: there is none.
    """
    try:
        token = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"no token in {path}: {error.strerror}") from error
    if not token:
        raise ConfigError(f"no token in {path}: it is empty", "write some random text into it")
    return token


@dataclass(frozen=True)
class Address:
    """Where a store listens: a host and a port, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """Of `tcp://HOST:PORT`, `HOST:PORT`, `[::1]:PORT` or `unix:PATH`; raises ConfigError of anything else."""
        if text.startswith("unix:") and (path := text.removeprefix("unix:").removeprefix("//")):
            return cls(path=path)
        host, _, port = text.removeprefix("tcp://").rpartition(":")
        if host and "/" not in host and port.isdecimal() and int(port) < 2**16:
            return cls(host.removeprefix("[").removesuffix("]"), int(port))
        raise ConfigError(f"not an address: {text!r}", "write HOST:PORT or unix:PATH")

    def __str__(self) -> str:
        if self.path:
            return f"unix://{self.path}"
        return f"tcp://[{self.host}]:{self.port}" if ":" in self.host else f"tcp://{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only processes of this machine reach it."""
        return bool(self.path) or self.host in ("localhost", "::1") or self.host.startswith("127.")


def tune(connection: socket.socket) -> None:
    """Set what makes small requests quick, and a peer that vanished known.

    The kernel sizes TCP's buffers itself, as well as the best size that was measured, and knows long lines too.
    """
    if connection.family == socket.AF_UNIX:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, UNIX_BUFFER_BYTES)
        return
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 4)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class WaterMark:
    """Lets `poll` sleep until much of a large piece has come in, where the system can: fewer threads wake in vain.

    Only for `poll`: a `recv` that blocks may have taken a part when it begins to wait for as much again.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._bytes = connection, 1
        self._is_possible = sys.platform == "linux" and connection.family != socket.AF_UNIX

    def set(self, expected_bytes: int) -> bool:
        """Sleep until the mark or all that is expected is there; returns whether `poll` must be asked first."""
        if not self._is_possible:
            return False
        mark = min(expected_bytes, WATER_MARK_BYTES) if expected_bytes >= SMALL_BYTES else 1
        if mark != self._bytes:
            self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, mark)
            self._bytes = mark
        return mark > 1
