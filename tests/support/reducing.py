"""A reducing store as a process of its own, and a bad line to it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from smlt.backends.channels.reducing_protocol import Address
from smlt.core.storage import ChannelSpec
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
