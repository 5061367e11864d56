"""A reducing store as a process of its own, and a bad line to it."""

from __future__ import annotations

import itertools
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from smlt.backends.channels.reducing_protocol import Address
from smlt.core.storage import ChannelSpec

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
    token_file.write_text(f"{TOKEN}\n")
    command = ["-m", "smlt.backends.channels.reducing_server", listen, str(token_file), str(idle_s), str(memory_bytes)]
    with subprocess.Popen([sys.executable, "-W", "error", *command], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().removeprefix("listening on ").strip()
            yield ServedStore(process, url, token_file)
        finally:
            process.kill()


class Cutter:
    """Stands between clients and a store, and cuts connections after so many bytes of either direction.

    Args:
        url: of the store.
        up, down: bytes after which the first connection is cut, the second, …; those after them never are.
    """

    def __init__(self, url: str, *, up: Sequence[int] = (), down: Sequence[int] = ()) -> None:
        address = Address.parse(url)
        self._target = (address.host, address.port)
        self._limits = itertools.zip_longest(up, down)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _run(self) -> None:
        with ExitStack() as stack:
            while True:
                try:
                    client, _ = self._listener.accept()
                except OSError:
                    return
                self.connections += 1
                up, down = next(self._limits, (None, None))
                store = socket.create_connection(self._target)
                for source, target, limit in ((client, store, up), (store, client, down)):
                    thread = threading.Thread(target=_relay, args=(source, target, limit))
                    stack.callback(thread.join)
                    thread.start()


def _relay(source: socket.socket, target: socket.socket, limit: int | None) -> None:
    """Pass on what comes until it ends, or `limit` bytes; then hang up on both sides."""
    left = float("inf") if limit is None else limit
    with suppress(OSError):
        while left and (data := source.recv(int(min(left, 1 << 16)))):
            target.sendall(data)
            left -= len(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
