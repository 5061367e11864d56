"""The reducing channel keeps the contract on a real store: over TCP, and over a Unix socket."""

from __future__ import annotations

import functools
import itertools
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from smlt.backends.channels import reducing_protocol as protocol
from smlt.backends.channels.reducing import ReducingChannel
from smlt.backends.channels.reducing_protocol import Address, Request
from smlt.core.storage import ChannelKey, ChannelSpec
from smlt.testing.channel import MEMBERS, ChannelContract, OpenChannel, Scribble, StrangerContract
from smlt.testing.team import Team
from tests.support.reducing import ServedStore, served_store

_numbers = itertools.count()


@pytest.fixture(scope="module")
def processes() -> Iterator[Team]:
    """One team for all classes: its processes take longer to start than most tests to run."""
    with Team(MEMBERS) as team:
        yield team


class ReducingContract(ChannelContract):
    steps = 10

    @pytest.fixture(scope="class")
    @classmethod
    def team(cls, processes: Team) -> Team:
        return processes

    @pytest.fixture
    def spec(self, store: ServedStore) -> ChannelSpec:
        return store.spec(f"test-{next(_numbers)}")

    @pytest.fixture
    def open_channel(self, spec: ChannelSpec) -> OpenChannel:
        return functools.partial(ReducingChannel, spec)

    @pytest.fixture
    def open_elsewhere(self, store: ServedStore) -> OpenChannel:
        return functools.partial(ReducingChannel, store.spec(f"test-{next(_numbers)}"))


class TestOverTcp(ReducingContract, StrangerContract):
    @pytest.fixture
    def scribble(self, store: ServedStore, spec: ChannelSpec) -> Scribble:
        """Speaks the protocol, but does not know the token."""

        def scribble(key: ChannelKey, data: bytes) -> None:
            request = Request(
                protocol.PUT, f"{spec.options['namespace']}:{key}", count=protocol.FOREVER, size=len(data)
            )
            hello = protocol.HELLO.pack(protocol.MAGIC, bytes(protocol.ID_BYTES), *[bytes(protocol.PROOF_BYTES)] * 2)
            address = Address.parse(store.url)
            with socket.create_connection((address.host, address.port)) as connection, suppress(ConnectionError):
                connection.sendall(hello + request.packed() + data)
                while connection.recv(1000):
                    pass

        return scribble

    @pytest.fixture(scope="class")
    @classmethod
    def store(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStore]:
        with served_store(tmp_path_factory.mktemp("store")) as store:
            yield store


class TestOverAUnixSocket(ReducingContract):
    large_value_bytes = 50 * 2**20

    @pytest.fixture(scope="class")
    @classmethod
    def store(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedStore]:
        folder = tmp_path_factory.mktemp("store")
        with served_store(folder, listen=f"unix:{folder}/store") as store:
            yield store
