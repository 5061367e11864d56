"""What holds of channels with a server holds of the reducing store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from smlt.backends.channels import reducing_link
from smlt.backends.channels.reducing import ReducingChannel
from smlt.backends.channels.reducing_protocol import Address
from smlt.core.storage import ChannelSpec
from smlt.testing.channel import Served, ServedChannelContract
from tests.support.reducing import TOKEN, served_store

HOST = "127.0.0.1"


class ServedByStore(Served):
    password = TOKEN

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._life = ExitStack()
        self.address = (HOST, 0)
        self.start()

    def open_channel(
        self, generation: int, round_number: int, rank: int, *, port: int | None = None
    ) -> ReducingChannel:
        return ReducingChannel(self._spec(self._folder / "token", port), generation, round_number, rank)

    def open_uninvited(self, password: str) -> ReducingChannel:
        guess = self._folder / "guess"
        guess.write_text(password)
        return ReducingChannel(self._spec(guess if password else None), 0, 0, 0)

    def kill(self) -> None:
        self._life.close()

    def start(self) -> None:
        store = self._life.enter_context(served_store(self._folder, listen=f"{HOST}:{self.address[1]}"))
        self.address = (HOST, Address.parse(store.url).port)

    @contextmanager
    def impatient(self) -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            for name, seconds in (("CONNECT_S", 0.05), ("ANSWER_S", 0.05), ("WAIT_SLICE_S", 0.01)):
                patch.setattr(reducing_link, name, seconds)
            yield

    def _spec(self, token: Path | None, port: int | None = None) -> ChannelSpec:
        options = {"token_file": str(token)} if token else {}
        return ChannelSpec("reducing", f"tcp://{HOST}:{port or self.address[1]}", options)


class TestServedByStore(ServedChannelContract):
    @pytest.fixture
    def served(self, tmp_path: Path) -> Iterator[ServedByStore]:
        store = ServedByStore(tmp_path)
        yield store
        store.kill()
