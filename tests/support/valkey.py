"""A real Redis-compatible server for tests: the product's own, and what tests ask of one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from smlt.backends.channels.redis_address import RedisPlace
from smlt.backends.channels.redis_connect import connect
from smlt.backends.channels.redis_wire import Wire
from smlt.backends.channels.resp import Replies, Reply, command
from smlt.bench.redis_server import HOST, RedisServer, free_port
from smlt.core.storage import ChannelSpec

__all__ = ["HOST", "Valkey", "free_port", "valkey"]


class Valkey(RedisServer):
    """One server; see `RedisServer`."""

    def connection(self, **environment: str) -> Wire:
        """A client's connection, with the password of the environment's variable "password" if it has one."""
        options = {"password_from": "password"} if environment else {}
        place = RedisPlace.of(ChannelSpec("redis", self.url, options), environment)
        return connect(place, place.addresses[0])

    def ask(self, *words: str | bytes, **environment: str) -> Reply:
        """Its answer to a command."""
        wire = self.connection(**environment)
        try:
            wire.send([command(*(word if isinstance(word, bytes) else word.encode() for word in words))])
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


@contextmanager
def valkey(folder: Path, *settings: str, port: int | None = None) -> Iterator[Valkey]:
    """A server that is gone afterwards; on this port, or on a free one."""
    server = Valkey(folder, *settings, port=port)
    try:
        yield server
    finally:
        server.kill()
