"""A reducing store as a process of its own, and a bad line to it."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from smlt.backends.channels.reducing_protocol import Address
from smlt.backends.channels.reducing_server import ReducingServer
from smlt.core.storage import ChannelSpec
from smlt.testing.channel import PATIENCE_S
from smlt.testing.channel.relay import HOST, Relay

TOKEN = "a token of the tests"


@dataclass(frozen=True)
class ServedStore:
    """A running store, its address and the file with its token."""

    process: subprocess.Popen[str]
    url: str
    token_file: Path

    def spec(self, namespace: str = "") -> ChannelSpec:
        return ChannelSpec("reducing", self.url, {"token_file": str(self.token_file), "namespace": namespace})


@contextmanager
def served_store(
    folder: Path, *, listen: str = "127.0.0.1:0", idle_s: float = 600.0, memory_bytes: int = 1 << 30
) -> Iterator[ServedStore]:
    token_file = folder / "token"
    if not token_file.exists():  # a store that is started again finds it; a client may be reading it right now
        token_file.write_text(f"{TOKEN}\n")
    command = ["-m", "smlt.backends.channels.reducing_server", listen, str(token_file), str(idle_s), str(memory_bytes)]
    with subprocess.Popen([sys.executable, "-W", "error", *command], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().removeprefix("listening on ").strip()
            yield ServedStore(process, url, token_file)
        finally:
            process.kill()


class Cutter(Relay):
    """A line to a store, of this URL, whose connections are lost after so many bytes of either direction."""

    def __init__(self, url: str, *, up: Sequence[int] = (), down: Sequence[int] = ()) -> None:
        address = Address.parse(url)
        super().__init__((address.host, address.port), up=up, down=down)
        self.url = f"tcp://{HOST}:{self.port}"


@contextmanager
def in_this_process(server: ReducingServer) -> Iterator[ChannelSpec]:
    """Serve in a thread, until the end of the block or of the server."""
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield ChannelSpec("reducing", str(server.address))
    finally:
        server.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def anywhere() -> Address:
    return Address("127.0.0.1")


def connect(spec: ChannelSpec) -> socket.socket:
    address = Address.parse(spec.url)
    return socket.create_connection((address.host, address.port), PATIENCE_S)


def all_of(connection: socket.socket) -> bytes:
    """What it says until it hangs up."""
    heard = b""
    try:
        while more := connection.recv(1 << 16):
            heard += more
    except ConnectionResetError:
        pass
    return heard


def all_that_comes_of(connection: socket.socket, said: bytes) -> bytes:
    """What the other side answers until it hangs up, which it may do at once."""
    with suppress(OSError):
        connection.sendall(said)
        connection.shutdown(socket.SHUT_WR)
    return all_of(connection)
