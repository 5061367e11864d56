"""What holds of channels with a server holds of Redis, with a password."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from smlt.backends.channels import redis_connect
from smlt.backends.channels.redis import RedisChannel
from smlt.core.storage import ChannelSpec
from smlt.testing.channel import Served, ServedChannelContract
from tests.support.valkey import HOST, valkey


class ServedByValkey(Served):
    password = "open sesame"

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self._folder, self._patch = folder, patch
        self._life = ExitStack()
        self.address = (HOST, 0)
        self.start()

    def open_channel(self, generation: int, round_number: int, rank: int, *, port: int | None = None) -> RedisChannel:
        return RedisChannel(self._spec(self.password, port), generation, round_number, rank)

    def open_uninvited(self, password: str) -> RedisChannel:
        return RedisChannel(self._spec(password), 0, 0, 0)

    def kill(self) -> None:
        self._life.close()

    def start(self) -> None:
        server = valkey(self._folder, "--requirepass", self.password, port=self.address[1] or None)
        self.address = (HOST, self._life.enter_context(server).port)

    @contextmanager
    def impatient(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(redis_connect, "STALL_S", 0.05)
            yield

    def _spec(self, password: str, port: int | None = None) -> ChannelSpec:
        self._patch.setenv("REDIS_PASSWORD", password)
        options = {"password_from": "REDIS_PASSWORD"} if password else {}
        return ChannelSpec("redis", f"redis://{HOST}:{port or self.address[1]}", options)


class TestServedByValkey(ServedChannelContract):
    @pytest.fixture
    def served(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedByValkey]:
        server = ServedByValkey(tmp_path, monkeypatch)
        yield server
        server.kill()
